package heal

import "time"

// Last is the last rung, of the whole machine: where something hangs in the kernel, which
// nobody can end there, and no link is left by any transport, nothing but a restart
// helps, and on a mast nobody comes to do it. It is no loop: each wait is longer than
// the one before, over the restarts too, by what Count says and its user keeps. The
// waits are of the machine's own time since its start, since boards have no clock. Its
// methods are for one goroutine.
type Last struct {
	// Count is how many restarts were asked for that have not helped for Calm.
	Count int
	// Unkept: Count does not outlive a restart, so that each is taken for the latest of
	// many.
	Unkept bool

	lost  track         // something hangs, and no link is left
	quiet time.Duration // since when nothing hangs; 0: not looked yet
}

// lastWaits are for how long something has to hang, without a link: before the first
// restart, the second, and each after that. So a day has at most four: after 0:10, 2:10,
// 10:10 and 18:10 h.
var lastWaits = [...]time.Duration{10 * time.Minute, 2 * time.Hour, 8 * time.Hour}

// Many is a Count that has the longest wait.
const Many = len(lastWaits) - 1

// Calm is how long nothing may hang before the waits begin anew.
const Calm = 24 * time.Hour

// Verdict is what Last says of a moment.
type Verdict uint8

// Verdicts.
const (
	Wait    Verdict = iota
	Reboot          // the machine is to restart; Count has risen, and is to be kept before
	Forgive         // Count is 0 again, which is to be kept
)

// Step takes what is seen at now, which never goes back: whether something hangs in the
// kernel, and whether the device has a link by any transport.
func (l *Last) Step(now time.Duration, hangs, linked bool) Verdict {
	if hangs || l.quiet == 0 {
		l.quiet = max(now, 1)
	}
	switch {
	case !hangs || linked:
		l.lost = track{}
	case !l.lost.on:
		l.lost = track{on: true, since: now}
	case now-l.lost.since >= l.wait():
		l.lost.since = now // should the restart not come about
		l.Count++
		return Reboot
	}
	if l.Count > 0 && now-l.quiet >= Calm {
		l.Count = 0
		return Forgive
	}
	return Wait
}

// NotKept takes back what Step has said last, as Since was before it: it could not be
// written down, and is said again.
func (l *Last) NotKept(since time.Duration) {
	l.Count--
	l.lost.since = since
}

// Since is when the device lost its last link with something hanging; ok is false while
// that is not so.
func (l *Last) Since() (since time.Duration, ok bool) { return l.lost.since, l.lost.on }

func (l *Last) wait() time.Duration {
	if l.Unkept {
		return lastWaits[Many]
	}
	return lastWaits[min(l.Count, Many)]
}

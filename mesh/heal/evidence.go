package heal

import (
	"fmt"
	"time"
)

// Kind is a kind of evidence that a radio does not work.
type Kind uint8

// Kinds of evidence. Each has to be there at all looks of some time, see stands.
// What is missing or stands still counts only against a radio that had it before,
// at five looks in a row: many drivers do not count, or only while they scan.
const (
	None Kind = iota

	// Of the driver; they may end in a reload.

	Vanished   // its device is there, and the kernel has no radio of it
	Failing    // five attempts in a row did not make it a member: each is a restart
	Stalled    // it is no member for two minutes, and no attempt has come to an end: the kernel hangs in one
	Sick       // nobody is linked, and the driver answers with an error, or its firmware does not, when asked how it is
	Stuck      // the kernel does not answer when asked for the stations, which takes milliseconds
	Unreported // five frames and more were handed to it, and of none it says that it was sent. What is sent to all has a report too, so it needs nobody in reach
	Frozen     // the survey's time on the channel stands still
	Mute       // the survey's time of sending stands still, while the radio has to send beacons
	Unacked    // no frame to any of two or more peers is acknowledged, while some of them are heard

	// Of who knows what; they end in a restart.

	Crashed    // the kernel has told of a crash of its firmware, and it is without a link since: its driver may have started it anew
	UnackedOne // the same of one peer alone: it may hear badly
	Unrouted   // there are links, and for a minute routing hears nobody by them
)

// names of the kinds, for programs.
var names = map[Kind]string{
	None: "", Vanished: "vanished", Failing: "failing", Stalled: "stalled", Sick: "sick", Stuck: "stuck", Unreported: "unreported",
	Frozen: "frozen", Mute: "mute", Crashed: "crashed", Unacked: "unacked", UnackedOne: "unacked-one", Unrouted: "unrouted",
}

// String returns the kind's name.
func (k Kind) String() string { return names[k] }

// OfDriver tells whether the driver is to blame.
func (k Kind) OfDriver() bool { return k >= Vanished && k <= Unacked }

// restarted tells that what a restart does has been tried by itself, or that
// there is nothing to restart.
func (k Kind) restarted() bool { return k == Vanished || k == Failing || k == Stalled }

// What evidence needs.
const (
	mostFailures = 5
	fewestSent   = 5                // frames without a report, or without an acknowledgement
	lateKeeper   = 10 * time.Second // housekeeping is due every 2 s
	stallsAfter  = 2 * time.Minute  // an attempt takes seconds
	steady       = 5                // looks in a row at which a counter has to have risen before its standing still counts
	heardWithin  = 10 * time.Second // a peer that is there beacons every second or so
	crashCounts  = 5 * time.Minute
)

// stands is for how many times Limits.Stand evidence has to be there at each
// look.
var stands = map[Kind]time.Duration{
	Vanished: 1, Failing: 1, Stalled: 1, Sick: 1, Stuck: 1, Unreported: 1, Frozen: 1, Mute: 2, Crashed: 1, Unacked: 2, UnackedOne: 2, Unrouted: 2,
}

// track follows one kind of evidence over looks.
type track struct {
	on    bool
	since time.Duration // the look at which it was first there
	count uint64        // of what it counts, since then
}

// evidence is what a radio's counters have shown so far.
type evidence struct {
	before  *Radio // at the last look; nil: there was none, or it says nothing
	at      time.Duration
	tracks  map[Kind]*track
	reports bool // the driver has reported a frame, ever
	times   int  // looks in a row at which the survey's time has risen; steady is for ever
	sends   int  // the same of its time of sending
	crashes uint64
	crashed time.Duration // when it last did
	known   bool          // crashes was read before
	waits   time.Duration // since when it is no member; negative: it is one
}

func newEvidence() evidence { return evidence{tracks: map[Kind]*track{}, waits: -1} }

// restart forgets what was counted: a radio begins anew, or its driver does, and
// what it could do before it is still expected of it.
func (e *evidence) restart() {
	e.before, e.tracks, e.waits = nil, map[Kind]*track{}, -1
}

// note takes whether a kind of evidence was there since the last look. What a look
// cannot tell (neither) leaves it as it is.
func (e *evidence) note(now time.Duration, k Kind, there, neither bool, count uint64) {
	t := e.tracks[k]
	switch {
	case neither:
	case !there:
		delete(e.tracks, k)
	case t == nil:
		// What is counted or stands still does so since the look before.
		since := now
		if e.before != nil && (k == Unreported || k == Frozen || k == Mute || k == Unacked || k == UnackedOne) {
			since = e.at
		}
		e.tracks[k] = &track{on: true, since: since, count: count}
	default:
		t.count += count
	}
}

// look takes what is seen of the radio; sick is what its driver answered.
func (e *evidence) look(now time.Duration, r Radio, sick string) {
	if r.Use != Ours {
		e.restart()
		return
	}
	if e.known && r.Crashes > e.crashes {
		e.crashed = now
		e.tracks[Crashed] = &track{on: true, since: now}
	}
	e.crashes, e.known = r.Crashes, true
	if r.Member || e.waits < 0 {
		e.waits = now
	}
	e.note(now, Failing, !r.Member && r.Failures >= mostFailures, false, 0)
	e.note(now, Stalled, !r.Member && (r.Failures == 0 || r.Hung) && now-e.waits >= stallsAfter, false, 0)
	if t := e.tracks[Crashed]; t != nil && (len(r.Stations) > 0 || now-e.crashed > crashCounts) {
		delete(e.tracks, Crashed)
	}
	if !r.Member {
		for _, k := range []Kind{Sick, Stuck, Unreported, Frozen, Mute, Unacked, UnackedOne, Unrouted} {
			delete(e.tracks, k)
		}
		e.before = nil
		return
	}
	e.note(now, Sick, sick != "" && len(r.Stations) == 0, false, 0)
	e.note(now, Stuck, r.Unseen > lateKeeper, false, 0)
	e.note(now, Unrouted, len(r.Stations) > 0 && !r.Routed, false, 0)
	if b := e.before; b != nil {
		e.compare(now, *b, r)
	}
	e.before, e.at = &r, now
}

// compare takes what has changed since the last look.
func (e *evidence) compare(now time.Duration, b, r Radio) {
	if r.Sent < b.Sent || r.Reported < b.Reported { // it has begun anew
		b.Sent, b.Reported = 0, 0
	}
	sent, reported := r.Sent-b.Sent, r.Reported-b.Reported
	e.reports = e.reports || r.Reported > 0
	// On a channel that is never free, nothing can be sent.
	time, busy := r.Survey.Time-b.Survey.Time, r.Survey.Busy-b.Survey.Busy
	full := time > 0 && busy >= time/10*9
	e.note(now, Unreported, e.reports && reported == 0 && sent > 0, sent == 0 || full, sent)

	e.times = rises(e.times, b.Survey.Time, r.Survey.Time)
	e.note(now, Frozen, e.times == steady && r.Survey.Time == b.Survey.Time, r.Survey.Time == 0 && b.Survey.Time == 0, 0)
	e.sends = rises(e.sends, b.Survey.Tx, r.Survey.Tx)
	e.note(now, Mute, e.sends == steady && r.Survey.Tx == b.Survey.Tx, r.Survey.Tx == 0 && b.Survey.Tx == 0 || full, 0)

	failed, peers, mute := unacked(b, r)
	e.note(now, Unacked, mute && peers > 1, peers == 0, failed)
	e.note(now, UnackedOne, mute && peers == 1, peers == 0, failed)
}

// rises counts the looks in a row at which a counter has risen, until it is known
// to be one that does.
func rises(n int, before, now time.Duration) int {
	switch {
	case n == steady || now == 0:
		return n
	case now > before:
		return n + 1
	}
	return 0
}

// unacked tells whether all that was sent to peers since the last look failed
// while one of them is heard. Peers that nothing was sent to do not count.
func unacked(b, r Radio) (failed uint64, peers int, all bool) {
	all, heard := true, false
	for _, s := range r.Stations {
		for _, was := range b.Stations {
			if was.MAC != s.MAC || s.TxFailed < was.TxFailed || s.TxPackets < was.TxPackets {
				continue
			}
			f, n := s.TxFailed-was.TxFailed, s.TxPackets-was.TxPackets
			if f == 0 && n == 0 {
				continue
			}
			peers, failed = peers+1, failed+f
			heard = heard || s.Inactive < heardWithin
			all = all && f > 0 && f >= n
		}
	}
	return failed, peers, all && heard && peers > 0
}

// stands returns the evidence that stands, the driver's first.
func (e *evidence) stands(now time.Duration, l Limits, r Radio, sick string) (Kind, string) {
	for k := Vanished; k <= Unrouted; k++ {
		t := e.tracks[k]
		if t == nil || now-t.since < stands[k]*l.Stand {
			continue
		}
		for_ := (now - t.since).Round(time.Second)
		switch k {
		case Failing:
			return k, fmt.Sprintf("radio %s failed %d times in a row, at last: %s", r.Name, r.Failures, r.Detail)
		case Stalled:
			return k, fmt.Sprintf("radio %s is no member of the mesh, and no attempt comes to an end: %s", r.Name, r.Detail)
		case Sick:
			return k, sick
		case Stuck:
			return k, fmt.Sprintf("the kernel does not answer for radio %s since %s", r.Name, r.Unseen.Round(time.Second))
		case Unreported:
			if t.count < fewestSent {
				continue
			}
			return k, fmt.Sprintf("radio %s was handed %d frames in %s, and says of none that it was sent", r.Name, t.count, for_)
		case Frozen:
			return k, fmt.Sprintf("the time that radio %s has been on its channel stands still since %s", r.Name, for_)
		case Mute:
			return k, fmt.Sprintf("radio %s has sent nothing in %s, not even a beacon", r.Name, for_)
		case Crashed:
			return k, fmt.Sprintf("the firmware of radio %s has crashed, and it has had no link since", r.Name)
		case Unacked, UnackedOne:
			if t.count < fewestSent {
				continue
			}
			return k, fmt.Sprintf("radio %s hears its peers, and none of them acknowledges what it sends: %d frames in %s", r.Name, t.count, for_)
		case Unrouted:
			return k, fmt.Sprintf("radio %s has links, and routing has heard nobody by them in %s", r.Name, for_)
		}
	}
	return None, ""
}

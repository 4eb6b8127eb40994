package doctor

import (
	"math/rand/v2"
	"time"
)

// When a path is examined. An examination of a path that is well sends one full
// packet and three small ones, and gets four small answers: HourlyOctets bounds that
// for each peer and hour, and a test holds it to it. On a radio of 300 kbit/s, which
// 1 MHz of HaLow has, that is 0.003 % of the airtime for each hop.
const (
	firstAfter = 20 * time.Second // after a peer came into use: it may have more urgent things to do
	wellFirst  = 30 * time.Minute // between two examinations of a path that is well; doubles
	wellMost   = 4 * time.Hour
	sickFirst  = 10 * time.Minute // of one that is held to limits, to see whether they are needed; doubles
	sickMost   = 2 * time.Hour
	muteFirst  = 2 * time.Minute // of one that does not answer; doubles
	muteMost   = time.Hour
	spacing    = 45 * time.Second // between two examinations of any

	// inUse: WireGuard renews a session after two minutes if anything is sent, so that
	// an older handshake is that of a peer to which nothing goes.
	inUse = 3 * time.Minute

	allFirst = 2 * time.Minute  // after the first peer answered
	allWell  = 4 * time.Hour    // between two rounds of multicast, which the whole mesh repeats
	allSick  = 15 * time.Minute // while it does not arrive; doubles
	allGap   = 10 * time.Second // at least, whoever asks
)

// HourlyOctets is what a device sends to one peer in an hour at most, as IP packets
// through the overlay or over bat0, while the path is well; answers of the peer are
// less than half as much again.
const HourlyOctets = 4 << 10

// plan is when a path is due.
type plan struct {
	next  time.Time
	pause time.Duration
	last  condition
}

// condition of a path, which decides how soon it is looked at again.
type condition int

const (
	mute condition = iota
	well
	sick
)

func (e exam) condition() condition {
	switch {
	case !e.answers:
		return mute
	case e.fault || e.unsure || e.limits != (limits{}):
		return sick
	}
	return well
}

// after plans the next examination.
func (p plan) after(now time.Time, c condition) plan {
	first := map[condition]time.Duration{mute: muteFirst, well: wellFirst, sick: sickFirst}[c]
	most := map[condition]time.Duration{mute: muteMost, well: wellMost, sick: sickMost}[c]
	pause := first
	if p.last == c && p.pause > 0 {
		pause = min(2*p.pause, most)
	}
	return plan{next: now.Add(jitter(pause)), pause: pause, last: c}
}

// afterAll plans the next round of multicast.
func (p plan) afterAll(now time.Time, c condition) plan {
	pause := allWell
	if c == sick {
		if pause = allSick; p.last == sick && p.pause > 0 {
			pause = min(2*p.pause, allWell)
		}
	}
	return plan{next: now.Add(jitter(pause)), pause: pause, last: c}
}

// jitter spreads what many devices do at a time: up to a quarter more or less.
func jitter(d time.Duration) time.Duration { return d - d/4 + rand.N(d/2) }

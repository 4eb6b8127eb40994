package announce

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"time"
)

// Two gateways with one key are on the air when somebody has made a second card of
// the network's bundle, or has found the first one again. They have the same
// addresses, and nodes can't tell whose word is whose: one of them has to be silent.
// Which, they settle among themselves by Twin messages, in which each answers the
// other's nonce, so that a recording is nobody. It is not the newcomer who wins: the
// one that nodes are with stays, for as long as it lives.

// Standing is what speaks for a gateway, before its epoch does.
type Standing uint8

// Standings, from the least.
const (
	StandingNew    Standing = iota // no node was ever admitted
	StandingKnown                  // some were
	StandingServes                 // some are in its overlay now
)

const (
	twinFirst = time.Second      // wait after a search's first question; doubles
	twinAsks  = 4                // questions of a search, which takes 15 s when nobody answers
	twinPause = 30 * time.Second // between the starts of two searches: what strangers replay starts no more
	twinAgain = 2 * time.Minute  // a proof that the other one stands down is good for as long
	// answersPerSecond bounds what goes to all because somebody replays questions.
	answersPerSecond = 0.2
	twinLost         = 5 * time.Minute // after which another one that gives no sign counts as gone
	// TakeOver is how long the other one has to be silent until a gateway that has stood
	// down serves: longer than one takes to start anew, also into another slot.
	TakeOver = 5 * time.Minute
)

// before tells whether the gateway of t stays, and not that of o. Exactly one of two
// does.
func (t Twin) before(o Twin) bool {
	switch {
	case t.Standing != o.Standing:
		return t.Standing > o.Standing
	case t.Epoch != o.Epoch:
		return t.Epoch > o.Epoch // the other one's nodes would never come back to a lower one
	}
	return t.Instance < o.Instance
}

// Other is another gateway with the same key, which has answered a nonce.
type Other struct {
	Twin
	Heard time.Time
}

// newInstance draws the number of a process.
func newInstance() uint64 {
	var b [8]byte
	rand.Read(b[:])
	return max(1, binary.BigEndian.Uint64(b[:]))
}

// twins is what a gateway knows of others with its key, and whether it has stood
// down. It has no clock and does no I/O.
type twins struct {
	instance uint64
	t        Timing

	aside  bool
	living time.Time // when one that serves gave its last sign of life
	other  *Other    // the last that did; nil: there is none

	wanted bool      // a search is to be begun as soon as it may
	began  time.Time // of the last search
	nonce  []byte    // of the one that is open; nil: none is
	asked  int
	due    time.Time // of its next step
	answer bucket

	shown uint64 // highest epoch that another card has had, whose gateway may be alive
	heard uint64 // and whose gateway does not answer
}

func newTwins(instance uint64, t Timing) *twins {
	return &twins{instance: instance, t: t.WithDefaults(), answer: bucket{rate: answersPerSecond, burst: 6}}
}

// next returns when tick has something to do; the zero value: when something is
// heard.
func (w *twins) next() time.Time {
	switch {
	case w.nonce != nil:
		return w.due
	case w.aside || w.wanted:
		return w.began.Add(w.t.Pause)
	case w.other != nil:
		return w.other.Heard.Add(twinLost)
	}
	return time.Time{}
}

// suspect notes a message of another process with this key, which may be a
// recording.
func (w *twins) suspect() {
	if w.nonce == nil {
		w.wanted = true
	}
}

// show notes evidence that another card has had an epoch which is no lower than this
// gateway's. While the gateway that has it may be alive it says nothing about this one.
func (w *twins) show(epoch uint64) {
	if epoch > w.heard {
		w.shown = max(w.shown, epoch)
		w.suspect()
	}
}

// tick does what is due and returns a message to send, if there is one.
func (w *twins) tick(now time.Time, own Twin) (Twin, bool) {
	if o := w.other; o != nil && !w.aside && now.Sub(o.Heard) >= twinLost {
		w.other = nil
	}
	switch {
	case w.nonce != nil && now.Before(w.due):
		return Twin{}, false
	case w.nonce != nil && w.asked == twinAsks:
		w.nonce = nil
		w.unanswered(now)
		return Twin{}, false
	case w.nonce == nil && !w.aside && !w.wanted, w.nonce == nil && now.Sub(w.began) < w.t.Pause:
		return Twin{}, false
	case w.nonce == nil:
		w.nonce = make([]byte, NonceSize)
		rand.Read(w.nonce)
		w.wanted, w.began, w.asked = false, now, 0
	}
	w.due = now.Add(w.t.Search << w.asked)
	w.asked++
	return w.say(own, w.nonce, nil), true
}

// unanswered is the end of a search that has found nobody.
func (w *twins) unanswered(now time.Time) {
	if w.aside && now.Sub(w.living) >= w.t.TakeOver {
		w.shown = max(w.shown, w.other.Epoch) // nodes go by what it signed
		w.aside, w.other = false, nil
	}
	if !w.aside {
		w.heard, w.shown = max(w.heard, w.shown), 0
	}
}

func (w *twins) say(own Twin, nonce, answer []byte) Twin {
	own.Instance, own.Aside, own.Nonce, own.Answer = w.instance, w.aside, nonce, answer
	return own
}

// hear takes an authentic message and returns the answer, if there is one. It is
// asked back whoever has not proved itself.
func (w *twins) hear(now time.Time, t, own Twin) (Twin, bool) {
	if t.Instance == w.instance {
		return Twin{}, false // one of our own that came back
	}
	own.Instance = w.instance
	if w.nonce != nil && bytes.Equal(t.Answer, w.nonce) {
		w.prove(now, t, own)
	} else if o := w.other; o == nil || o.Instance != t.Instance || !(t.Aside && o.Aside) || now.Sub(o.Heard) >= twinAgain {
		w.suspect()
	}
	ask, search := w.tick(now, own)
	if len(t.Nonce) == 0 || !w.answer.takeAt(now) {
		return ask, search
	}
	return w.say(own, w.nonce, t.Nonce), true
}

// prove takes a message that nobody can have recorded.
func (w *twins) prove(now time.Time, t, own Twin) {
	w.nonce, w.wanted = nil, false
	if w.aside && t.Aside {
		return // neither serves, so one of both has to come up
	}
	w.other, w.shown = &Other{t, now}, 0
	if t.Aside {
		return
	}
	w.living = now
	if t.before(own) {
		w.aside, w.heard = true, 0
	}
}

package air

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// Disorder is what happens to management frames for one station, such as those of
// authentication and peering, on their way from one radio to another: they come
// twice or late. Shares are from 0 to 1, each decided by itself. Frames to all and
// data are left alone: beacons carry time, and data has keys and windows of its
// own against both.
//
// A receiver tells a duplicate by its sequence number and the Retry bit together
// (IEEE Std 802.11-2020, 10.3.2.14), so that the two kinds of copies end in
// different places.
type Disorder struct {
	// Retransmitted is the share that comes again at once with the Retry bit, as
	// after an acknowledgement that was lost. mac80211 drops the copy where it has
	// the sender as a station; what comes before there is one, as SAE does, reaches
	// userspace twice.
	Retransmitted float64 `json:"retransmitted,omitzero"`
	// Replayed is the share that comes again within Delay as it was, without the
	// Retry bit: mac80211 lets that pass in any case, and userspace has to cope.
	Replayed float64 `json:"replayed,omitzero"`
	// Late is the share that is held back within Delay, so that later ones overtake.
	// Its sender has the acknowledgement in time.
	Late  float64       `json:"late,omitzero"`
	Delay time.Duration `json:"delay_ns,omitzero"` // at most; drawn for each
}

// MaxDelay bounds how long a frame may be on its way.
const MaxDelay = time.Second

// Check returns an error that names what is wrong.
func (d Disorder) Check() error {
	for _, s := range []struct {
		what  string
		share float64
	}{{"retransmitted", d.Retransmitted}, {"replayed", d.Replayed}, {"late", d.Late}} {
		if !(s.share >= 0 && s.share <= 1) {
			return fmt.Errorf("%s: expected a share from 0 to 1, got %g", s.what, s.share)
		}
	}
	if d.Delay < 0 || d.Delay > MaxDelay {
		return fmt.Errorf("delay: expected up to %s, got %s", MaxDelay, d.Delay)
	}
	if d.Delay == 0 && (d.Replayed > 0 || d.Late > 0) {
		return errors.New("delay: expected more than 0 where frames are replayed or late")
	}
	return nil
}

// SetDisorder sets what happens to management frames from one radio to another;
// the other direction has its own. The zero Disorder ends it.
func (a *Air) SetDisorder(from, to string, d Disorder) error {
	if err := d.Check(); err != nil {
		return fmt.Errorf("air: disorder: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if d == (Disorder{}) {
		delete(a.disorder, pair{from, to})
	} else {
		a.disorder[pair{from, to}] = d
	}
	return nil
}

// Bits of the first two octets of a frame (9.2.4.1).
const (
	typeMask = 0x0c // 0 is a management frame
	retryBit = 0x08 // of the second octet
)

// directed tells whether a frame is one of management for one station.
func directed(frame []byte) bool { return frame[0]&typeMask == 0 && frame[4]&1 == 0 }

// apply returns how a frame is heard that arrives once: in any case once, in
// disorder perhaps late and again.
func (d Disorder) apply(h hearing, dice *rand.Rand) []hearing {
	within := func() time.Duration { return time.Duration(1 + dice.Int64N(int64(d.Delay))) }
	h.directed = true
	if dice.Float64() < d.Late {
		h.after = within()
	}
	all := []hearing{h}
	if dice.Float64() < d.Retransmitted {
		again := h
		again.again, again.retry = true, true
		all = append(all, again)
	}
	if dice.Float64() < d.Replayed {
		again := h
		again.again, again.after = true, h.after+within()
		all = append(all, again)
	}
	return all
}

// split returns who hears a frame when its airtime is over, and who later.
func (v fate) split() (onTime, later []hearing) {
	for _, h := range v.hearings {
		if h.after == 0 {
			onTime = append(onTime, h)
		} else {
			later = append(later, h)
		}
	}
	return onTime, later
}

// frame is what the radio hears of it.
func (h hearing) frame(b []byte) []byte {
	if h.retry {
		b = bytes.Clone(b)
		b[1] |= retryBit
	}
	return b
}

// count notes copies, and frames that later ones of the same sender overtook.
func (a *Air) count(from string, order int, h hearing) {
	if !h.directed {
		return
	}
	p := pair{from, h.radio.Name}
	c := a.counters[p]
	switch {
	case h.again:
		c.Again++
	case order < a.newest[p]:
		c.Overtaken++
	}
	a.newest[p] = max(a.newest[p], order)
	a.counters[p] = c
}

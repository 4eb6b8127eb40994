package doctor

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// path is one direction to a peer.
type path interface {
	// greet returns how long a small packet takes there and back; errSilent when none
	// was answered.
	greet(ctx context.Context) (time.Duration, error)
	// overlay tries a packet of that size through the overlay, underlay one over bat0.
	// Errors wrap errTooLong, or say why nothing could be tried.
	overlay(ctx context.Context, size int) (outcome, error)
	underlay(ctx context.Context, size int) (outcome, error)
	// limit holds packets to the peer to l; the zero value ends that.
	limit(l limits) error
}

// Widths of an examination, in octets of an IP packet.
type widths struct {
	full int // of the overlay's interface
	bare int // of bat0
}

// top is the largest packet over bat0 that the overlay makes.
func (w widths) top() int { return min(w.full+overhead, w.bare) }

// exam is what an examination found. Sizes that it did not find out are 0.
type exam struct {
	answers  bool
	latency  time.Duration
	overlay  int // largest packets that pass whole
	underlay int
	limits   limits // that hold from now on
	fault    bool   // large packets vanish
	unsure   bool   // they seem to, but the path answers too little to tell which
	mended   bool   // and those that are sent pass since the limits hold
	ended    bool   // limits that held are not needed any more
	detail   string
}

// examine looks how large packets on a path may be, and holds them to that; now is
// to what they are held already. An error says why that could not be found out; the
// limits then are what they were, or none.
func examine(ctx context.Context, p path, w widths, now limits) (exam, error) {
	e := exam{limits: now}
	var err error
	if e.latency, err = p.greet(ctx); err != nil {
		if errors.Is(err, errSilent) {
			err = nil
		}
		return e, err
	}
	e.answers = true
	if now != (limits{}) {
		done, err := e.again(ctx, p, w)
		if err != nil || done {
			return e, err
		}
	}
	v, err := try(ctx, func(ctx context.Context) (outcome, error) { return p.overlay(ctx, w.full) })
	switch {
	case err != nil || v == unknown:
		return e, err
	case v == passes:
		e.ended = now != limits{}
		e.overlay, e.underlay = w.full, w.top()
		return e, nil
	}
	return e, e.diagnose(ctx, p, w)
}

// again looks at a path whose packets are held to limits. Where larger ones pass
// again, or where those that are sent vanish, there are no limits when it returns,
// and it is not done.
func (e *exam) again(ctx context.Context, p path, w widths) (done bool, err error) {
	larger := func(ctx context.Context) (outcome, error) { return p.overlay(ctx, w.full) }
	sent := func(ctx context.Context) (outcome, error) { return p.overlay(ctx, e.limits.overlay) }
	if e.limits.underlay > 0 {
		// What is cut into fragments passes the overlay, whatever the path is like.
		larger, sent = func(ctx context.Context) (outcome, error) { return p.underlay(ctx, w.top()) }, larger
	}
	v, err := try(ctx, larger)
	if err == nil && v == vanishes {
		v, err = try(ctx, sent)
		if err == nil && v == passes {
			e.mended = true
			e.overlay, e.underlay = e.limits.overlay, e.limits.underlay
			return true, nil
		}
		if v == vanishes {
			v = passes // not as large any more as the limits say
		}
	}
	if err != nil || v == unknown {
		return true, err
	}
	if err := p.limit(limits{}); err != nil {
		return true, err
	}
	e.limits = limits{}
	return false, nil
}

// diagnose finds out what passes on a path on which full packets vanish.
func (e *exam) diagnose(ctx context.Context, p path, w widths) error {
	e.fault = true
	var known bool
	var err error
	e.overlay, known, err = largest(sizesOverlay(w.full), func(size int) (verdict, error) {
		return try(ctx, func(ctx context.Context) (outcome, error) { return p.overlay(ctx, size) })
	})
	if err != nil || !known {
		e.fault, e.unsure, e.overlay = false, true, 0
		return err
	}
	if e.underlay, err = underlayOf(ctx, p, w); err != nil {
		return err
	}
	l, ok := treat(e.overlay, e.underlay, w)
	e.detail = fmt.Sprintf("packets of more than %d octets through the overlay vanish on the way", max(e.overlay, minMTU-1))
	if e.underlay > 0 && e.underlay < w.top() {
		e.detail += fmt.Sprintf(", and over the mesh those of more than %d", e.underlay)
	}
	if !ok {
		e.detail += fmt.Sprintf("; IPv6 needs %d, so that nothing helps but a mesh that carries them", minMTU)
		return nil
	}
	for _, l := range []limits{l, {overlay: l.overlay}} {
		if l == (limits{}) {
			break
		}
		if err := p.limit(l); err != nil {
			return err
		}
		e.limits = l
		size := l.overlay
		if l.underlay > 0 {
			size = w.full
		}
		v, err := try(ctx, func(ctx context.Context) (outcome, error) { return p.overlay(ctx, size) })
		if err != nil || v != vanishes {
			e.mended = v == passes
			return err
		}
		// Fragments do not pass: whole packets still may.
	}
	e.limits = limits{}
	e.detail += "; what was sent in smaller pieces did not arrive either"
	return p.limit(limits{})
}

// underlayOf returns the largest packet over bat0 that passes, 0 where it cannot be
// told.
func underlayOf(ctx context.Context, p path, w widths) (int, error) {
	passing := func(size int) (verdict, error) {
		return try(ctx, func(ctx context.Context) (outcome, error) { return p.underlay(ctx, size) })
	}
	switch v, err := passing(w.top()); {
	case errors.Is(err, errClosed), err == nil && v == unknown:
		return 0, nil
	case err != nil:
		return 0, err
	case v == passes:
		return w.top(), nil
	}
	size, known, err := largest(sizesUnderlay(w.top()), passing)
	if !known {
		size = 0
	}
	return size, err
}

// words says how packets are held to limits.
func (l limits) words() string {
	switch {
	case l.overlay > 0 && l.underlay > 0:
		return fmt.Sprintf("packets into the overlay are held to %d octets, and what is larger is cut to %d over the mesh", l.overlay, l.underlay)
	case l.overlay > 0:
		return fmt.Sprintf("packets into the overlay are held to %d octets", l.overlay)
	case l.underlay > 0:
		return fmt.Sprintf("encrypted packets are cut to %d octets over the mesh", l.underlay)
	}
	return "none"
}

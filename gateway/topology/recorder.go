package topology

import (
	"fmt"
	"time"

	"halo.internal/model/graph"
)

// How the history is written.
const (
	FullEvery = time.Hour        // a reader has to go back so far, and a damaged frame costs so much, at most
	MarkEvery = 5 * time.Minute  // without a frame for longer, nobody was writing
	DeltaWait = 10 * time.Second // between deltas at least
	// HourlyOctets bounds the deltas of an hour, and what they may save up. Where much
	// changes they become fewer. Whole pictures come on top: one an hour, and where
	// there is no room for a delta for MarkEvery, one then.
	HourlyOctets = 256 << 10
)

// Recorder writes the history: a picture now and then, and in between what has changed
// by more than Settle lets pass. It may be used from one goroutine at a time.
type Recorder struct {
	store  Store
	sealer sealer

	last     graph.Picture // as it was written; Seq 0: nothing was
	lastFull time.Time     // when it was written whole
	wrote    time.Time     // when anything was
	octets   float64       // that deltas may take now
	refilled time.Time
}

// NewRecorder returns one that begins with a whole picture.
func NewRecorder(s Store) *Recorder { return &Recorder{store: s} }

// Record is to be called with the present picture whenever it may have changed, and
// every minute or so. now is the time for the stamp: the picture's is when it changed
// last. What the store refuses is tried again at the next call.
func (r *Recorder) Record(now time.Time, p graph.Picture) error {
	if p.Seq == 0 {
		return nil
	}
	now = stamp(now)
	r.refill(now)
	switch {
	case r.last.Seq == 0, r.last.Run != p.Run, p.Seq < r.last.Seq, now.Sub(r.lastFull) >= FullEvery,
		now.Before(r.wrote): // the clock was set back: what follows is another story
		return r.full(now, p)
	case now.Sub(r.wrote) < DeltaWait:
		return nil
	}
	next := Settle(r.last, p)
	d := graph.Diff(r.last, next)
	if d.Len() == 0 || d.Seq == d.From {
		if now.Sub(r.wrote) < MarkEvery {
			return nil
		}
		return r.append(now, FrameMark, nil)
	}
	d.At = now
	next.At = now
	b, err := r.sealer.encode(d)
	if err != nil {
		return r.full(now, p)
	}
	if float64(len(b)) > r.octets {
		if now.Sub(r.wrote) < MarkEvery {
			return nil // there will be room
		}
		return r.full(now, p) // it was too much for long
	}
	if err := r.append(now, FrameDelta, b); err != nil {
		return err
	}
	r.octets -= float64(len(b))
	r.last = next
	return nil
}

func (r *Recorder) refill(now time.Time) {
	if !r.refilled.IsZero() {
		r.octets += HourlyOctets * max(now.Sub(r.refilled).Hours(), 0)
	} else {
		r.octets = HourlyOctets
	}
	r.octets, r.refilled = min(r.octets, HourlyOctets), now
}

func (r *Recorder) full(now time.Time, p graph.Picture) error {
	if r.last.Run == p.Run {
		p = Settle(r.last, p)
	} else {
		p = Settle(graph.Picture{}, p)
	}
	p.At = now
	d := graph.Diff(graph.Picture{}, p)
	b, err := r.sealer.encode(d)
	if err != nil {
		return err
	}
	if err := r.append(now, FrameFull, b); err != nil {
		return err
	}
	r.last, r.lastFull = p, now
	return nil
}

func (r *Recorder) append(now time.Time, kind FrameKind, b []byte) error {
	if err := r.store.Append(now, kind, b); err != nil {
		return fmt.Errorf("history: %w", err)
	}
	r.wrote = now
	return nil
}

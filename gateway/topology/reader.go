package topology

import (
	"errors"
	"fmt"
	"iter"
	"time"

	"halo.internal/model/graph"
)

// ErrNotRecorded is wrapped where there is no history of an instant: nobody was
// writing, it is dropped already, or damaged.
var ErrNotRecorded = errors.New("there is no history of that time")

// reach is how far from an instant its frames may be.
const reach = FullEvery + 2*MarkEvery

// Reader reads the history.
type Reader struct{ Store Store }

// At returns the network as it was at an instant, but for what Settle lets pass. The
// picture's own time is that of its last change.
func (r Reader) At(t time.Time) (graph.Picture, error) {
	w := walk{}
	var last time.Time
	for f, err := range r.Store.Range(t.Add(-reach), t) {
		if err != nil {
			return graph.Picture{}, fmt.Errorf("history: %w", err)
		}
		w.step(f)
		last = f.At
	}
	switch {
	case last.IsZero():
		return graph.Picture{}, fmt.Errorf("%w: nothing was written in the %v before %s", ErrNotRecorded, reach, t.UTC().Format(time.RFC3339))
	case w.damage != nil:
		return graph.Picture{}, fmt.Errorf("%w: %w", ErrNotRecorded, w.damage)
	case w.now.Seq == 0:
		return graph.Picture{}, fmt.Errorf("%w: what was written at %s goes on from what is not there any more", ErrNotRecorded, last.UTC().Format(time.RFC3339))
	case t.Sub(last) > 2*MarkEvery:
		return graph.Picture{}, fmt.Errorf("%w: nobody wrote between %s and %s", ErrNotRecorded, last.UTC().Format(time.RFC3339), t.UTC().Format(time.RFC3339))
	}
	return w.now, nil
}

// Replay returns what changed from one instant to another, to be applied one after the
// other. The first delta, and any other with From 0, begins anew: it makes the picture
// of nothing. That is so after a damaged frame, after a time that nobody wrote in, and
// where the process of the gateway began anew. It ends with the first error of the
// store.
func (r Reader) Replay(from, to time.Time) iter.Seq2[graph.Delta, error] {
	return func(yield func(graph.Delta, error) bool) {
		w := walk{}
		var told graph.Picture // what the deltas so far add up to
		begun, last := false, time.Time{}
		begin := func() bool {
			begun = true
			if w.now.Seq == 0 || from.Sub(last) > 2*MarkEvery {
				return true
			}
			told = w.now
			return yield(graph.Diff(graph.Picture{}, told), nil)
		}
		for f, err := range r.Store.Range(from.Add(-reach), to) {
			if err != nil {
				yield(graph.Delta{}, fmt.Errorf("history: %w", err))
				return
			}
			if !begun && f.At.After(from) && !begin() {
				return
			}
			if f.At.Sub(last).Abs() > 2*MarkEvery {
				told = graph.Picture{} // nobody knows what was in between
			}
			last = f.At
			w.step(f)
			if told.Run != w.now.Run || told.Seq > w.now.Seq { // also where it is not known
				told = graph.Picture{}
			}
			if d := graph.Diff(told, w.now); begun && w.now.Seq != 0 && d.Len() > 0 {
				if told = w.now; !yield(d, nil) {
					return
				}
			}
		}
		if !begun {
			begin()
		}
	}
}

// walk goes through frames and keeps the picture that they add up to.
type walk struct {
	now    graph.Picture // Seq 0: not known
	damage error         // why it is not
}

func (w *walk) step(f Frame) {
	if f.Kind == FrameMark {
		return
	}
	d, err := decodeDelta(f.Data)
	if err == nil {
		from := w.now
		if f.Kind == FrameFull {
			from = graph.Picture{Run: d.Run}
		}
		w.now, err = from.Apply(d)
	}
	switch {
	case err == nil:
		w.damage = nil
	case w.damage == nil: // what follows on it fails too
		w.damage = fmt.Errorf("frame of %s: %w", f.At.UTC().Format(time.RFC3339), err)
	}
}

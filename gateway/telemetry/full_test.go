package telemetry

import (
	"errors"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"halo.internal/gateway/store"
	"halo.internal/model/apitype"
)

// Whatever is written when the file system takes no octet more fails with ErrUnavailable or
// succeeds all the same, leaves what there is as it was, and works when there is room again.
func TestFullAtEachWrite(t *testing.T) {
	const day = 24 * time.Hour
	append1 := func(b *bench) error {
		_, err := b.Append(b.t.Context(), []Entry{numbered(b.t, "n-a", 7, 1)})
		return err
	}
	for name, write := range map[string]func(b *bench) error{
		"a batch": append1,
		"a batch of another": func(b *bench) error {
			_, err := b.Append(b.t.Context(), []Entry{numbered(b.t, "n-new", 7, 1)})
			return err
		},
		"a schema":   func(b *bench) error { return b.PutSchema(b.t.Context(), "n-a", release(1, 900)) },
		"compaction": func(b *bench) error { return b.Compact(b.t.Context()) },
		"rollups": func(b *bench) error {
			b.tending.Lock()
			defer b.tending.Unlock()
			b.at = b.at.Add(2 * day)
			return b.rollUp(b.t.Context())
		},
		"a rewritten week": func(b *bench) error {
			b.tending.Lock()
			defer b.tending.Unlock()
			w := b.weeks.list()[0]
			_, err := b.thin(b.t.Context(), w, thinned{w.end(), w.end(), 0})
			return err
		},
		"a repaired week": func(b *bench) error {
			b.tending.Lock()
			defer b.tending.Unlock()
			return b.repair(b.t.Context(), b.weeks.list()[1], store.ErrCorrupt)
		},
		"an import": func(b *bench) error { _, err := b.Import(b.t.Context(), noisy("n-b", epoch, 20_000)); return err },
		"a week of its own": func(b *bench) error {
			_, err := b.Import(b.t.Context(), noisy("n-b", epoch.Add(-90*day), 10))
			return err
		},
		"everything at once": func(b *bench) error { return b.Tend(b.t.Context()) },
		"a start": func(b *bench) error {
			b.restart()
			return append1(b)
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := benchIn(t, smallDisk(t, "32m"), nil)
			r := rand.New(rand.NewPCG(2, 2))
			k, seq := newKnown(), uint64(0)
			b.fill(r, k, "n-a", &seq, epoch.Add(-9*day), 3*time.Hour, 10*time.Second)
			b.fill(r, k, "n-a", &seq, epoch.Add(-2*day), 40*time.Hour, 10*time.Second)
			b.tend()
			b.fill(r, k, "n-a", &seq, epoch.Add(-time.Hour), 2*time.Hour, 10*time.Second)
			b.at = epoch.Add(time.Hour)
			ballast := fillUp(t, b.dir, 0)
			err := write(b)
			if err != nil && !errors.Is(err, store.ErrUnavailable) {
				t.Errorf("expected no room or none needed, got %v", err)
			}
			t.Log(err)
			if len(b.events.kinds()) == 0 { // nothing was given up, and that said
				b.has(k, "n-a")
			}
			if err := os.Remove(ballast); err != nil {
				t.Fatal(err)
			}
			if err := write(b); err != nil {
				t.Errorf("when there is room: %v", err)
			}
			b.tend()
			b.restart()
			if o := b.append(numbered(t, "n-a", 7, 9)); o[0] != Stored {
				t.Errorf("what comes: %v", o)
			}
		})
	}
}

// has fails unless all that is known of a node can be read.
func (b *bench) has(k *known, node string) {
	b.t.Helper()
	from, to := epoch.Add(-30*24*time.Hour), epoch.Add(30*24*time.Hour)
	left := map[apitype.Sample]bool{}
	for _, r := range b.exported(node) {
		left[apitype.Sample{Time: time.UnixMilli(r.Time).UTC(), Metric: r.Metric, Unit: r.Unit, Value: r.Value}] = true
	}
	for _, s := range k.samples(node, from, to) {
		if !left[s] {
			b.t.Fatalf("%+v is lost", s)
		}
	}
}

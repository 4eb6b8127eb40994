package agent

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/agent/collect"
	"halo.internal/agent/spool"
	"halo.internal/model"
	"halo.internal/model/wire"
)

// TestOldReadingsAreNotTheLatest: by those the board's power is judged.
func TestOldReadingsAreNotTheLatest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var v view
		const metric = "i2c.ups.charge_percent"
		groups := []time.Duration{time.Second, time.Minute}
		n := int64(0)
		read := v.keep(func(_ context.Context, _ time.Duration) ([]collect.Reading, error) {
			n++
			return []collect.Reading{{Metric: wire.NewMetric(metric, "%", 0), Value: wire.Int(n)}}, nil
		}, func() []time.Duration { return groups })
		reads := func(every time.Duration) {
			t.Helper()
			if _, err := read(t.Context(), every); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
		}
		is := func(want float64, known bool, listed int) {
			t.Helper()
			for range 20 { // whatever the order of a map
				if got, ok := v.value(metric); got != want || ok != known {
					t.Fatalf("got %v, %v, want %v, %v", got, ok, want, known)
				}
			}
			if got := len(v.status().Readings); got != listed {
				t.Errorf("the status has %d readings, want %d", got, listed)
			}
		}
		reads(time.Second)
		reads(time.Minute)
		is(2, true, 2)
		reads(time.Second)
		is(3, true, 2)
		time.Sleep(time.Minute) // nobody reads it each second any more
		is(2, true, 1)
		time.Sleep(4 * time.Minute)
		is(0, false, 0)
		reads(time.Minute)
		groups = groups[:1]
		reads(time.Second)
		reads(time.Minute) // one that was under way
		is(5, true, 1)
	})
}

// TestAReadingInVainCounts: what another group read before is not how it is.
func TestAReadingInVainCounts(t *testing.T) {
	const metric = "i2c.ups.charge_percent"
	of := func(value wire.Value) []collect.Reading {
		return []collect.Reading{{Metric: wire.NewMetric(metric, "%", 0), Value: value}}
	}
	now := time.Now()
	for name, tc := range map[string]struct {
		second wire.Value
		want   float64
		known  bool
	}{"read": {wire.Int(7), 7, true}, "in vain": {wire.Value{}, 0, false}} {
		v := view{readings: map[time.Duration]round{time.Minute: {now.Add(-10 * time.Second), of(wire.Int(5))}, time.Second: {now, of(tc.second)}}}
		for range 20 { // whatever the order of a map
			if got, ok := v.value(metric); got != tc.want || ok != tc.known {
				t.Fatalf("%s: got %v, %v", name, got, ok)
			}
		}
	}
}

// TestTheStatusIsToldWhileEventsAreMade: the spool asks for the clock's quality in the
// middle of its work, and the status for the spool's figures; neither waits for the other.
func TestTheStatusIsToldWhileEventsAreMade(t *testing.T) {
	var v view
	s, err := spool.Open(spool.Options{
		Live: filepath.Join(t.TempDir(), "live"), Disk: filepath.Join(t.TempDir(), "disk"), Boot: 1, Owner: spool.Owner{Network: "valley", Node: "n-a"}, Budget: 1 << 20, Delay: time.Minute,
		Clock: func() (time.Time, model.ClockQuality) { return time.Now(), v.quality() }, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	v.opened(s)
	done := make(chan struct{})
	go func() {
		defer close(done)
		var both sync.WaitGroup
		both.Go(func() {
			for range 300 {
				if err := s.AddEvent("test.event", model.Info, "a test", nil); err != nil {
					t.Error(err)
					return
				}
			}
		})
		both.Go(func() {
			for range 3000 {
				v.status()
			}
		})
		both.Wait()
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("both wait for each other")
	}
}

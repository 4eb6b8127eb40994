package benchgateway_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"halo.internal/model/wire"
	"halo.internal/model/wire/wiretest"
)

// BenchmarkBacklog has thirty nodes come back after a day without the gateway, each with
// twelve metrics every ten seconds, while ten others send what is live, a batch every second.
// It reports how long the backlog takes, and how long the live batches wait for their
// acknowledgement meanwhile and without it (a gateway alone commits every second).
func BenchmarkBacklog(b *testing.B) {
	const nodes, live, day = 30, 10, 24 * 60 * 60 / 60 // batches of six reports
	for b.Loop() {
		h := newHalo(b)
		var mu sync.Mutex
		var took []time.Duration
		_, fresh := h.connected(b, "live", live, 256, func(_ wire.BatchID, d time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			took = append(took, d)
		})
		ctx, stop := context.WithCancel(b.Context())
		var senders errgroup.Group
		for i, c := range fresh {
			board := wiretest.NewBoard(uint64(1000 + i))
			senders.Go(func() error {
				tick := time.NewTicker(time.Second)
				defer tick.Stop()
				for {
					w := board.Batch(1, time.Now().Add(-time.Second), 6, 100*time.Millisecond)
					data, err := w.Encode(wiretest.Schema())
					if err == nil {
						err = c.Send(ctx, w.BatchID, data)
					}
					if ctx.Err() != nil {
						return nil
					}
					if err != nil {
						return err
					}
					select {
					case <-ctx.Done():
						return nil
					case <-tick.C:
					}
				}
			})
		}
		waits := func() []time.Duration {
			mu.Lock()
			defer mu.Unlock()
			list := took
			took = nil
			slices.Sort(list)
			return list
		}
		time.Sleep(10 * time.Second)
		idle := waits()
		members, streams := h.connected(b, "n", nodes, 1000, nil)
		begin := time.Now().Add(-24*time.Hour - 15*time.Minute)
		lists := make([][]batch, nodes)
		for i, n := range members {
			lists[i] = encoded(b, n.Boot, wiretest.NewBoard(uint64(i)), begin, day, 6)
		}
		waits() // while they were made, this core had no time
		used, at := h.cpu(), time.Now()
		var g errgroup.Group
		for i, c := range streams {
			g.Go(func() error {
				for _, x := range lists[i] {
					if err := c.Send(b.Context(), x.id, x.data); err != nil {
						return err
					}
				}
				return c.Settle(b.Context())
			})
		}
		if err := g.Wait(); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(time.Since(at).Seconds(), "s")
		b.ReportMetric((h.cpu() - used).Seconds(), "cpu-s")
		busy := waits()
		stop()
		if err := senders.Wait(); err != nil {
			b.Fatal(err)
		}
		if len(idle) == 0 || len(busy) == 0 {
			b.Fatalf("%d and %d live batches were acknowledged", len(idle), len(busy))
		}
		b.ReportMetric(idle[len(idle)*99/100].Seconds(), "s-live-p99-idle")
		b.ReportMetric(busy[len(busy)*99/100].Seconds(), "s-live-p99")
		b.ReportMetric(busy[len(busy)-1].Seconds(), "s-live-most")
		u := h.usage()
		b.ReportMetric(float64(u.Resident)/(1<<20), "MB")
		b.ReportMetric(float64(u.Most)/(1<<20), "MB-most")
		h.stop()
	}
	b.ReportMetric(0, "ns/op")
}

package benchgateway_test

import (
	"context"
	"regexp"
	"slices"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"halo.internal/lab/admin"
	"halo.internal/lab/load"
	"halo.internal/model/wire/wiretest"
)

var claimCode = regexp.MustCompile(`Claim code of this gateway: (\S+)`)

// BenchmarkSteady has 250 nodes send as nodes do, a batch of six reports of twelve metrics
// every minute, for two minutes, ten of which have a day of telemetry there. It reports what
// gateway-api takes meanwhile, of its core and of memory, how long its answers take by the
// caller's clock, over TLS, and how much of the server's processor time each.
func BenchmarkSteady(b *testing.B) {
	const nodes, long = 250, 2 * time.Minute
	for b.Loop() {
		h := newHalo(b)
		code := claimCode.FindStringSubmatch(h.log.String())
		if code == nil {
			b.Fatalf("no claim code in %s", h.log.String())
		}
		who, err := admin.Claim(b.Context(), "https://"+tlsAddress, code[1])
		if err != nil {
			b.Fatal(err)
		}
		members, err := h.Join(b.Context(), "n", nodes)
		if err != nil {
			b.Fatal(err)
		}
		h.stop()
		past, names := fill(b, h.dir), make([]string, 0, 10)
		for _, n := range members[:cap(names)] {
			names = append(names, n.ID())
		}
		now := time.Now()
		for past.at = now.Add(-25 * time.Hour); past.at.Before(now.Add(-time.Minute)); past.at = past.at.Add(time.Minute) {
			past.put(names, 6, 10*time.Second)
			if past.at.Before(now.Add(-time.Hour)) && past.at.Minute() == 2 {
				past.tend() // the last hour is in the journal, as it is when a gateway runs
			}
		}
		past.close()
		h.start(b)
		boards := make([]*wiretest.Board, nodes)
		for i, n := range members {
			n.Boot++ // they have started again
			boards[i] = wiretest.NewBoard(uint64(i))
		}
		streams := connect(b, members, 1000, nil)
		ctx, stop := context.WithTimeout(b.Context(), long)
		used, at := h.cpu(), time.Now()
		var g errgroup.Group
		for i, c := range streams {
			g.Go(func() error { return live(ctx, members[i], c, boards[i], time.Duration(i)*time.Minute/nodes) })
		}
		<-ctx.Done()
		stop()
		if err := g.Wait(); err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(100*(h.cpu()-used).Seconds()/time.Since(at).Seconds(), "%-of-core")
		resident, most := h.memory()
		b.ReportMetric(float64(resident)/(1<<20), "MB")
		b.ReportMetric(float64(most)/(1<<20), "MB-most")
		ask := func(name string, f func(i int) error) {
			var took []time.Duration
			used := h.cpu()
			const times = 300
			for i := range times {
				begin := time.Now()
				if err := f(i); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(begin))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "ms-p99-"+name)
			b.ReportMetric(float64((h.cpu()-used).Microseconds())/1000/times, "cpu-ms-"+name)
		}
		ask("nodes", func(int) error { _, err := who.Nodes(b.Context()); return err })
		ask("latest", func(i int) error { _, err := who.Latest(b.Context(), members[i%nodes].Name, ""); return err })
		ask("day", func(i int) error {
			_, err := who.Range(b.Context(), members[i%10].Name, "system.cpu.used_percent", time.Now().Add(-24*time.Hour), time.Minute)
			return err
		})
		who.Close()
		h.stop()
	}
	b.ReportMetric(0, "ns/op")
}

// live sends a batch a minute, the first one after that time.
func live(ctx context.Context, n *load.Node, c *load.Stream, board *wiretest.Board, after time.Duration) error {
	wait := time.NewTimer(after)
	defer wait.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-wait.C:
		}
		wait.Reset(time.Minute)
		w := board.Batch(n.Boot, time.Now().Add(-time.Minute), 6, 10*time.Second)
		data, err := w.Encode(wiretest.Schema())
		if err == nil {
			err = c.Send(ctx, w.BatchID, data)
		}
		if err != nil && ctx.Err() == nil {
			return err
		}
	}
}

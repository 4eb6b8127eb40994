package benchgateway_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"halo.internal/model/wire/wiretest"
)

const (
	ingestNodes  = 64
	ingestWindow = 64 // batches of a node on their way
)

// BenchmarkIngest reports samples per second of the server's processor time, in batches of
// the size that nodes send and in large ones: by gateway-api over its real protocol (decoded,
// deduplicated, committed with fsync before they are acknowledged, compacted as the journal
// fills), by VictoriaMetrics (in memory when it answers; fsync later), and by a bare journal
// of batches in SQLite (committed with fsync, and no more).
func BenchmarkIngest(b *testing.B) {
	for _, size := range []struct {
		name           string
		reports, count int
	}{{"72", 6, 2000}, {"9996", 833, 40}} {
		b.Run(size.name, func(b *testing.B) {
			var samples int
			begin := time.Now().Add(-20 * 24 * time.Hour)
			rate := map[string]float64{}
			measure := func(name string, f func(b *testing.B) time.Duration) {
				b.Run(name, func(b *testing.B) {
					var used time.Duration
					n := 0
					for b.Loop() {
						used += f(b)
						n += samples
					}
					rate[name] = perSecond(n, used)
					b.ReportMetric(rate[name], "samples/cpu-s")
					b.ReportMetric(0, "ns/op")
				})
			}
			samples = ingestNodes * size.count * size.reports * wiretest.Metrics
			measure("halo", func(b *testing.B) time.Duration {
				h := newHalo(b)
				defer h.stop()
				nodes, streams := h.connected(b, "n", ingestNodes, ingestWindow, nil)
				lists := make([][]batch, len(nodes))
				for i, n := range nodes {
					lists[i] = encoded(b, n.Boot, wiretest.NewBoard(uint64(i)), begin, size.count, size.reports)
				}
				before, at := h.cpu(), time.Now()
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
				used := h.cpu() - before
				b.ReportMetric(float64(samples)/time.Since(at).Seconds(), "samples/s")
				b.ReportMetric(float64(h.usage().Most)/(1<<20), "MB-most")
				for _, c := range streams {
					if c.Acked() != size.count {
						b.Fatalf("%d of %d batches were acknowledged", c.Acked(), size.count)
					}
					c.Close()
				}
				return used
			})
			for _, e := range encodings {
				measure("victoria by "+e.name, func(b *testing.B) time.Duration {
					v := newVictoria(b)
					defer v.stop()
					before := v.cpu()
					if err := feedVictoria(v, e, begin, size.count, size.reports); err != nil {
						b.Fatal(err)
					}
					v.flush(b)
					used := v.cpu() - before
					if got := v.rows(b); got < samples {
						b.Fatalf("%d of %d samples were taken in", got, samples)
					}
					return used
				})
			}
			measure("bare journal", func(b *testing.B) time.Duration {
				p := newJournal(b)
				defer p.stop()
				lists := make([][]batch, ingestNodes)
				for i := range lists {
					lists[i] = encoded(b, 1, wiretest.NewBoard(uint64(i)), begin, size.count, size.reports)
				}
				before := p.cpu()
				var g errgroup.Group
				for _, list := range lists {
					g.Go(func() error { return feedJournal(list, ingestWindow) })
				}
				if err := g.Wait(); err != nil {
					b.Fatal(err)
				}
				return p.cpu() - before
			})
			b.Run("ratios", func(b *testing.B) {
				for b.Loop() {
				}
				best := max(rate["victoria by "+encodings[0].name], rate["victoria by "+encodings[1].name])
				if best > 0 {
					b.ReportMetric(rate["halo"]/best, "halo/victoria")
				}
				if rate["bare journal"] > 0 {
					b.ReportMetric(rate["halo"]/rate["bare journal"], "halo/journal")
				}
				b.ReportMetric(0, "ns/op")
			})
		})
	}
}

// encoded are the batches of a boot, one after the other, of readings every ten seconds.
func encoded(b testing.TB, boot uint64, board *wiretest.Board, begin time.Time, count, reports int) []batch {
	b.Helper()
	s, list := wiretest.Schema(), make([]batch, count)
	for i := range list {
		w := board.Batch(boot, begin.Add(time.Duration(i*reports)*10*time.Second), reports, 10*time.Second)
		data, err := w.Encode(s)
		if err != nil {
			b.Fatal(err)
		}
		list[i] = batch{w.BatchID, data}
	}
	return list
}

// feedVictoria sends what the nodes would, a request for each of their batches, of several
// nodes side by side.
func feedVictoria(v *victoria, e encoding, begin time.Time, count, reports int) error {
	var g errgroup.Group
	const lanes = 16
	for lane := range lanes {
		g.Go(func() error {
			client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1}}
			defer client.CloseIdleConnections()
			type source struct {
				name  string
				board *wiretest.Board
			}
			var nodes []source
			for i := lane; i < ingestNodes; i += lanes {
				nodes = append(nodes, source{fmt.Sprintf("n%03d", i), wiretest.NewBoard(uint64(i))})
			}
			var body []byte
			for i := range count {
				for _, n := range nodes {
					w := n.board.Batch(1, begin.Add(time.Duration(i*reports)*10*time.Second), reports, 10*time.Second)
					body = e.append(body[:0], n.name, w.Reports)
					if err := v.post(client, e.path, e.header, body); err != nil {
						return err
					}
				}
			}
			return nil
		})
	}
	return g.Wait()
}

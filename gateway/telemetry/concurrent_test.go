package telemetry

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Who asks meanwhile has all that was committed before, once, whatever is being compacted
// or rewritten.
func TestAnswersWhileItIsCompacted(t *testing.T) {
	b := newBench(t)
	var stored atomic.Int64 // readings of one metric
	done := make(chan struct{})
	var wg sync.WaitGroup
	from, to := crashBegin.Add(-time.Hour), crashBegin.Add(100*24*time.Hour)
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				low, n := stored.Load(), int64(0)
				if _, err := b.Range(t.Context(), Query{Nodes: []string{"n-1"}, Metrics: []string{"system.cpu.*"}, From: from, To: to, Step: time.Hour}, func(s Series) error {
					for _, p := range s.Points {
						n += p.Count
					}
					return nil
				}); err != nil {
					t.Error(err)
					return
				}
				if high := stored.Load() + 6; n < low || n > high {
					t.Errorf("got %d readings, want %d to %d", n, low, high)
					return
				}
				b.Coverage("n-1")
				b.Latest().Node("n-1", "")
				if _, err := b.Marks(t.Context(), MarkQuery{Node: "n-1", From: from, To: to, Limit: 1000}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
			}
			if err := b.Tend(t.Context()); err != nil {
				t.Error(err)
			}
			if i%5 == 0 {
				if err := b.rewriteAll(t.Context()); err != nil {
					t.Error(err)
				}
			}
		}
	})
	for seq := range uint64(300) {
		batch, s := crashBatch(1, 1+seq/100, seq*40+1) // over two days and the end of a week
		b.append(entry(t, "n-1", s, batch))
		stored.Add(6)
	}
	close(done)
	wg.Wait()
}

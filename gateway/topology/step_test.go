package topology

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"halo.internal/model"
	"halo.internal/model/graph"
)

// heardEvents is what an engine tells people.
type heardEvents struct {
	mu   sync.Mutex
	list []string
}

func (h *heardEvents) Add(kind string, _ model.Severity, node, _ string, _ map[string]string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.list = append(h.list, strings.TrimSpace(kind+" "+node))
}

// TestAStepOfTheClockIsNoNews: nobody is unreachable for it, and what is to be told later
// is told when it is time.
func TestAStepOfTheClockIsNoNews(t *testing.T) {
	for name, step := range map[string]time.Duration{"a year back": -365 * 24 * time.Hour, "decades ahead": 30 * 365 * 24 * time.Hour, "none": 0} {
		t.Run(name, func(t *testing.T) {
			w := ring(t)
			told := &heardEvents{}
			wall, ran := noon, time.Duration(0)
			e := New(Config{
				Members: func(context.Context) ([]Member, error) { return w.members(), nil },
				Store:   NewMemory(1 << 20), Events: told, Now: func() time.Time { return wall }, Log: slog.New(slog.DiscardHandler), Settle: time.Nanosecond,
			})
			e.running = func() time.Duration { return ran }
			e.refresh(t.Context())
			seq := uint64(0)
			off := ""
			pass := func(span time.Duration) {
				t.Helper()
				for end := ran + span; ran < end; {
					if ran%(30*time.Second) == 0 {
						seq++
						for _, n := range w.names {
							if n == off {
								continue
							}
							r := *w.reports[n]
							r.Seq, r.EveryS = seq, 60
							r.Sort()
							if err := e.Put(r); err != nil {
								t.Fatal(err)
							}
							e.Alive(id(n), time.Minute)
						}
					}
					e.step(ran)
					wall, ran = wall.Add(5*time.Second), ran+5*time.Second
				}
			}
			pass(5 * time.Minute)
			wall = wall.Add(step)
			e.step(ran)
			if p := e.Picture(); slices.ContainsFunc(p.Nodes, func(n graph.Node) bool {
				return n.Report != graph.Fresh || wall.Sub(n.Heard).Abs() > time.Minute
			}) {
				t.Errorf("after the step: %+v", p.Nodes)
			}
			pass(5 * time.Minute)
			if len(told.list) != 0 {
				t.Errorf("told %q", told.list)
			}
			// A node goes off, and the clock is set before that shows.
			off = "c"
			for _, n := range w.names {
				if n != off {
					(&guarded{world: w}).unlink(n, off)
				}
			}
			pass(30 * time.Second)
			wall = wall.Add(-step)
			pass(25 * time.Second)
			if _, known := e.Unreachable(); len(told.list) != 0 || !known {
				t.Errorf("told too early: %q", told.list)
			}
			pass(time.Minute)
			if lost, _ := e.Unreachable(); !slices.Contains(told.list, NodeUnreachable+" "+id(off)) || !slices.Equal(lost, ids(off)) {
				t.Errorf("told %q, unreachable %q", told.list, lost)
			}
		})
	}
}

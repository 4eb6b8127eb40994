package sample

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/agent/collect"
	"halo.internal/model"
	"halo.internal/model/wire"
)

type kept struct {
	wire.Batch
	schema wire.Schema
	at     time.Duration // after the start
	age    time.Duration // of the oldest reading
}

// world is what a sampler sees, in the fake time of synctest.
type world struct {
	mu      sync.Mutex // guards what follows
	early   bool       // the clock is before the build
	reads   int
	start   time.Time
	quality model.ClockQuality
	read    func() []collect.Reading
	addErr  error
	batches []kept
}

func run(t *testing.T, change func(*world, *Options), script func(w *world)) *world {
	t.Helper()
	w := &world{quality: model.ClockGateway}
	synctest.Test(t, func(t *testing.T) {
		w.start = time.Now()
		w.read = func() []collect.Reading { return []collect.Reading{reading("test.a.x", 1, false)} }
		opt := Options{
			Collect: func(context.Context, time.Duration) ([]collect.Reading, error) {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.reads++
				return w.read(), nil
			},
			Add: func(s wire.Schema, b wire.Batch, first time.Time) error {
				w.mu.Lock()
				defer w.mu.Unlock()
				if w.addErr != nil {
					return w.addErr
				}
				w.batches = append(w.batches, kept{b, s, time.Since(w.start), time.Since(first)})
				return nil
			},
			Clock: func() (time.Time, model.ClockQuality) {
				w.mu.Lock()
				defer w.mu.Unlock()
				if w.early {
					return time.Unix(time.Now().Unix()%10, 0), w.quality
				}
				return time.Now(), w.quality
			},
			Interval: 10 * time.Second, Send: time.Minute, Node: "n-test",
			Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		}
		if change != nil {
			change(w, &opt)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); Run(ctx, opt) }()
		script(w)
		cancel()
		<-done
	})
	return w
}

// set changes the world while the sampler runs.
func (w *world) set(change func(*world)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change(w)
}

func reading(name string, v int64, urgent bool) collect.Reading {
	return collect.Reading{Metric: wire.NewMetric(name, "", 0), Value: wire.Int(v), Urgent: urgent}
}

func TestTicksAreAlignedAndBatchesHoldAnInterval(t *testing.T) {
	w := run(t, nil, func(w *world) {
		time.Sleep(3*time.Second + 500*time.Millisecond) // the process starts between two ticks of a later clock
		time.Sleep(10 * time.Minute)
	})
	if n := len(w.batches[0].Reports); n != 1 || w.batches[0].at != 0 {
		t.Errorf("first batch: got %d reports after %v, want one at once", n, w.batches[0].at)
	}
	var last int64
	total := 0
	for i, b := range w.batches {
		for _, r := range b.Reports {
			if r.Time%10_000 != 0 {
				t.Errorf("batch %d: %v is not on a tick", i, r.At())
			}
			if last != 0 && r.Time-last != 10_000 {
				t.Errorf("batch %d: %v comes %d ms after the last one", i, r.At(), r.Time-last)
			}
			last = r.Time
			total++
		}
		if b.age > time.Minute {
			t.Errorf("batch %d: its oldest reading is %v old", i, b.age)
		}
		if i > 1 && i < len(w.batches)-1 && len(b.Reports) != 6 {
			t.Errorf("batch %d: got %d reports, want 6", i, len(b.Reports))
		}
	}
	if total != 61 {
		t.Errorf("got %d reports in ten minutes, want 61", total)
	}
}

func TestNodesSpreadOverTheInterval(t *testing.T) {
	seen := make(map[time.Duration]int)
	for i := range 250 {
		s := sampler{Options: Options{Send: time.Minute, Interval: 10 * time.Second, Node: fmt.Sprintf("n-%d", i)}}
		seen[s.phase().Truncate(time.Second)]++
	}
	for at, n := range seen {
		if n > 20 {
			t.Errorf("%d of 250 nodes send in the same second, %v", n, at)
		}
	}
}

func TestBatchesAreCut(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*world)
		want   string
	}{
		{"nothing happens", func(*world) {}, "none:6"},
		{"clock corrected", func(w *world) { w.quality = model.ClockGPS }, "none:3 gps:3"},
		{"interface appears", func(w *world) {
			w.read = func() []collect.Reading {
				return []collect.Reading{reading("test.a.x", 1, false), reading("test.b.x", 1, false)}
			}
		}, "none:3 none:1 none:2"}, // the new one is to be seen at once
		{"limit crossed", func(w *world) {
			w.read = func() []collect.Reading { return []collect.Reading{reading("test.a.x", 1, true)} }
		}, "none:4! none:2"}, // once, not with every sample above it
		{"nothing to read", func(w *world) { w.read = func() []collect.Reading { return nil } }, "none:3"},
		{"clock before the build", func(w *world) { w.early = true }, "none:3"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := run(t, func(w *world, o *Options) {
				w.quality = model.ClockNone
				o.Send = 24 * time.Hour // phase and interval far away: only changes cut
				o.Earliest = time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC)
			}, func(w *world) {
				time.Sleep(35 * time.Second)
				w.set(tc.change)
				time.Sleep(30 * time.Second)
			})
			var got []string
			for _, b := range w.batches[1:] { // the first is the one at once
				s := fmt.Sprintf("%s:%d", b.Clock, len(b.Reports))
				if b.Urgent {
					s += "!"
				}
				got = append(got, s)
			}
			if s := strings.Join(got, " "); s != tc.want {
				t.Errorf("got %s, want %s", s, tc.want)
			}
		})
	}
}

// What is read has others who look at it, such as what judges the board's power: also while
// the clock is not believed, and while nobody keeps any of it.
func TestAllIsReadThatIsNotKept(t *testing.T) {
	for name, change := range map[string]func(*world, *Options){
		"clock before the build": func(w *world, o *Options) { w.early, o.Earliest = true, time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC) },
		"nobody keeps it":        func(w *world, o *Options) { o.Add = nil },
	} {
		w := run(t, change, func(*world) { time.Sleep(time.Minute + time.Second) })
		if w.reads != 7 || len(w.batches) != 0 {
			t.Errorf("%s: read %d times in a minute, and %d batches are kept; want 7 and none", name, w.reads, len(w.batches))
		}
	}
}

func TestBatchesStayWithinTheFormat(t *testing.T) {
	w := run(t, func(w *world, o *Options) { o.Send = 24 * time.Hour }, func(w *world) {
		w.set(func(w *world) {
			w.read = func() []collect.Reading {
				var rs []collect.Reading
				for i := range wire.MaxMetrics {
					rs = append(rs, reading(fmt.Sprintf("test.m%d.x", i), 1, false))
				}
				return rs
			}
		})
		time.Sleep(time.Hour)
	})
	for i, b := range w.batches {
		if _, err := (wire.Batch{Header: wire.Header{BatchID: wire.ID(1, 1), Clock: b.Clock}, Reports: b.Reports}).Encode(b.schema); err != nil {
			t.Errorf("batch %d: %v", i, err)
		}
	}
}

func TestFailureToKeepIsSurvived(t *testing.T) {
	w := run(t, nil, func(w *world) {
		w.set(func(w *world) { w.addErr = errors.New("no space left") })
		time.Sleep(5 * time.Minute)
		w.set(func(w *world) { w.addErr = nil })
		time.Sleep(5 * time.Minute)
	})
	if len(w.batches) < 4 {
		t.Errorf("got %d batches after the failure, want them to go on", len(w.batches))
	}
}

// TestGroupsHaveTheirOwnBatches, which are closed together.
func TestGroupsHaveTheirOwnBatches(t *testing.T) {
	groups := []time.Duration{10 * time.Second}
	var regroup chan struct{} // of the bubble, or its time would not go on
	w := run(t, func(w *world, o *Options) {
		regroup = make(chan struct{})
		o.Groups, o.Regroup = func() []time.Duration {
			w.mu.Lock()
			defer w.mu.Unlock()
			return groups
		}, regroup
		o.Collect = func(_ context.Context, every time.Duration) ([]collect.Reading, error) {
			return []collect.Reading{reading("test.every.s"+fmt.Sprint(int(every.Seconds())), 1, false)}, nil
		}
	}, func(w *world) {
		time.Sleep(5 * time.Second)
		w.set(func(*world) { groups = []time.Duration{10 * time.Second, 30 * time.Second} })
		regroup <- struct{}{}
		time.Sleep(5 * time.Minute)
		w.set(func(*world) { groups = groups[:1] })
		regroup <- struct{}{}
		time.Sleep(5 * time.Minute)
	})
	last := map[string]time.Duration{}
	reports := map[string]int{}
	together := 0
	for _, b := range w.batches {
		name := b.schema.Metrics[0].Name
		reports[name] += len(b.Reports)
		for other, at := range last {
			if other != name && at == b.at {
				together++
			}
		}
		last[name] = b.at
	}
	if got := fmt.Sprint(reports); got != "map[test.every.s10:61 test.every.s30:11]" {
		t.Errorf("got %s", got)
	}
	if together < 4 {
		t.Errorf("of the batches of five minutes %d were closed together, want all but the first", together)
	}
}

// TestWhatIsNotWorthSendingIsLeftOut: values by themselves, and reports without any.
func TestWhatIsNotWorthSendingIsLeftOut(t *testing.T) {
	n := 0
	w := run(t, func(w *world, o *Options) {
		w.read = func() []collect.Reading {
			return []collect.Reading{reading("test.a.x", 1, false), reading("test.a.y", 2, false)}
		}
		o.Weigh = func(_ time.Time, rs []collect.Reading) {
			if n++; n%3 != 1 {
				rs[0].Value = wire.Value{}
			}
			if n%6 != 1 {
				rs[1].Value = wire.Value{}
			}
		}
	}, func(w *world) { time.Sleep(10*time.Minute - time.Second) })
	reports, values := 0, 0
	for _, b := range w.batches {
		for _, r := range b.Reports {
			reports++
			for _, v := range r.Values {
				if v.Present {
					values++
				}
			}
		}
	}
	if reports != 20 || values != 30 {
		t.Errorf("got %d reports with %d values, want every third sample with one value and every sixth with two", reports, values)
	}
}

// TestAClockThatIsSetWhileASampleIsMade gives it the time after.
func TestAClockThatIsSetWhileASampleIsMade(t *testing.T) {
	var off time.Duration
	samples := 0
	w := run(t, func(w *world, o *Options) {
		o.Clock = func() (time.Time, model.ClockQuality) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return time.Now().Add(off), w.quality
		}
		o.Collect = func(context.Context, time.Duration) ([]collect.Reading, error) {
			time.Sleep(200 * time.Millisecond)
			if samples++; samples == 4 {
				w.set(func(w *world) { off = -24*time.Hour - 3*time.Second })
			}
			return []collect.Reading{reading("test.a.x", 1, false)}, nil
		}
	}, func(w *world) { time.Sleep(55 * time.Second) })
	var at []time.Time
	for _, b := range w.batches {
		for _, r := range b.Reports {
			at = append(at, r.At())
		}
	}
	for i := range at[1:] {
		d := at[i+1].Sub(at[i])
		if jumped := i == 2; jumped != (d < 0) || !jumped && (d <= 0 || d > 11*time.Second) {
			t.Errorf("sample %d comes %v after the one before", i+1, d)
		}
	}
	if len(at) < 6 {
		t.Errorf("got %d samples", len(at))
	}
}

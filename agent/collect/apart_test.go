package collect

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/model"
	"halo.internal/model/wire"
)

// part is a collector of one metric that does as it is told.
type part struct {
	name string
	do   func(context.Context) error
	n    int64
}

func (p *part) Name() string { return p.name }

func (p *part) Collect(ctx context.Context) ([]Reading, error) {
	if p.do != nil {
		if err := p.do(ctx); err != nil {
			return nil, err
		}
	}
	p.n++
	return []Reading{integer("test."+p.name+".n", "", 0, p.n)}, nil
}

type told struct {
	mu   sync.Mutex
	list []string
}

func (o *told) tell(kind string, _ model.Severity, _ string, fields map[string]string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.list = append(o.list, strings.TrimPrefix(kind, "agent.collector.")+" "+fields["collector"])
}

func (o *told) all() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.Join(o.list, ", ")
}

func line(rs []Reading) string {
	var out []string
	for _, r := range rs {
		v := "-"
		if r.Value.Present {
			v = fmt.Sprint(r.Value.Bits)
		}
		out = append(out, strings.TrimPrefix(r.Metric.Name, "test.")+"="+v)
	}
	return strings.Join(out, " ")
}

func add(t *testing.T, a *Apart, c Collector, p Pace) {
	t.Helper()
	if err := a.Add(c, p); err != nil {
		t.Fatal(err)
	}
}

// TestOneThatHangsBlocksNobody, is told once, as is its end, and is not begun twice.
func TestOneThatHangsBlocksNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var events told
		a := NewApart(events.tell)
		var release chan struct{}
		add(t, a, &part{name: "bus", do: func(context.Context) error { // it does not hear its context, as an ioctl does not
			if release != nil {
				<-release
			}
			return nil
		}}, Pace{Every: 10 * time.Second, Limit: 2 * time.Second})
		add(t, a, &part{name: "good"}, Pace{Every: 10 * time.Second})
		read := func(want string, took time.Duration, fails bool) {
			t.Helper()
			began := time.Now()
			r, err := a.Collect(t.Context(), 10*time.Second)
			if got := line(r); got != want || time.Since(began) != took || (err != nil) != fails {
				t.Errorf("got %s after %v, %v; want %s after %v", got, time.Since(began), err, want, took)
			}
			synctest.Wait()
		}
		read("bus.n=1 good.n=1", 0, false)
		release = make(chan struct{})
		read("bus.n=- good.n=2", 2*time.Second, true)
		for range 5 {
			time.Sleep(10 * time.Second)
		}
		read("bus.n=- good.n=3", 0, true)
		if got := events.all(); got != "hung bus" {
			t.Errorf("got %s", got)
		}
		close(release)
		synctest.Wait()
		release = nil
		read("bus.n=3 good.n=4", 0, false)
		// Soon again: that is no news before it lasts.
		release = make(chan struct{})
		read("bus.n=- good.n=5", 2*time.Second, true)
		if got := events.all(); got != "hung bus, back bus" {
			t.Errorf("got %s", got)
		}
		gone := a.Remove("bus")
		select {
		case <-gone:
			t.Error("it still runs")
		default:
		}
		read("good.n=6", 0, false)
		close(release)
		<-gone
	})
}

func TestFailuresKeepTheSchema(t *testing.T) {
	a := NewApart(func(string, model.Severity, string, map[string]string) {})
	fails := errors.New("not acknowledged")
	var err error
	add(t, a, &part{name: "a", do: func(context.Context) error { return err }}, Pace{Every: time.Second})
	add(t, a, &part{name: "b", do: func(context.Context) error {
		if err != nil {
			panic("a template's mistake")
		}
		return nil
	}}, Pace{Every: time.Second})
	read := func() (string, error) {
		r, err := a.Collect(t.Context(), time.Second)
		return line(r), err
	}
	err = fails
	if got, err := read(); got != "" || !errors.Is(err, fails) || !strings.Contains(err.Error(), "panicked") {
		t.Errorf("before it ever was read: %s, %v", got, err)
	}
	err = nil
	if got, err := read(); got != "a.n=1 b.n=1" || err != nil {
		t.Errorf("got %s, %v", got, err)
	}
	err = fails
	if got, err := read(); got != "a.n=- b.n=-" || !errors.Is(err, fails) {
		t.Errorf("got %s, %v", got, err)
	}
	r, _ := a.Health().Collect(t.Context()) // it has no errors
	var names []string
	for _, v := range r {
		names = append(names, v.Metric.Name)
	}
	if got := strings.Join(names, " "); got != "collector.a.success_percent collector.a.duration_ms collector.b.success_percent collector.b.duration_ms" {
		t.Errorf("got %s", got)
	}
	if r[0].Value != wire.Int(33) {
		t.Errorf("success: got %v, want one of three", r[0].Value)
	}
	if r, _ := a.Health().Collect(t.Context()); r[0].Value.Present {
		t.Errorf("nothing was read since, and its success is %v", r[0].Value)
	}
}

func TestGroupsFollowTheCollectors(t *testing.T) {
	a := NewApart(func(string, model.Severity, string, map[string]string) {})
	add(t, a, &part{name: "a"}, Pace{Every: time.Minute})
	add(t, a, &part{name: "b"}, Pace{Every: time.Second})
	add(t, a, &part{name: "c"}, Pace{Every: time.Minute})
	<-a.Regroup()
	if got := a.Groups(); !slices.Equal(got, []time.Duration{time.Second, time.Minute}) {
		t.Errorf("got %v", got)
	}
	if r, err := a.Collect(t.Context(), time.Minute); line(r) != "a.n=1 c.n=1" || err != nil {
		t.Errorf("got %s, %v", line(r), err)
	}
	<-a.Remove("b")
	<-a.Regroup()
	if got := a.Groups(); !slices.Equal(got, []time.Duration{time.Minute}) {
		t.Errorf("got %v", got)
	}
	if err := a.Add(&part{name: "a"}, Pace{Every: time.Second}); err == nil {
		t.Error("two have the same name")
	}
	for i := range MaxCollectors {
		err := a.Add(&part{name: fmt.Sprint("x", i)}, Pace{Every: time.Second})
		if full := i >= MaxCollectors-2; (err != nil) != full {
			t.Fatalf("number %d: %v", i, err)
		}
	}
	for sample, want := range map[time.Duration]time.Duration{10 * time.Second: time.Minute, 7 * time.Second: 63 * time.Second, 100 * time.Millisecond: time.Minute, time.Hour: time.Hour} {
		if got := HealthEvery(sample); got != want {
			t.Errorf("%v: got %v, want %v", sample, got, want)
		}
	}
}

// TestNobodyWaitsTwiceForWhatFailsSlowly: a chip on a stuck bus takes a second to say so.
// What it reads once it can again counts.
func TestNobodyWaitsTwiceForWhatFailsSlowly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var events told
		a := NewApart(events.tell)
		stuck := true
		add(t, a, &part{name: "bus", do: func(context.Context) error {
			if stuck {
				time.Sleep(time.Second)
				return errors.New("timed out")
			}
			return nil
		}}, Pace{Every: 2 * time.Second})
		add(t, a, &part{name: "good"}, Pace{Every: 2 * time.Second})
		for i, want := range []time.Duration{time.Second, patience, patience, 0, 0} {
			if i == 3 {
				synctest.Wait()
				stuck = false
			}
			began := time.Now()
			r, _ := a.Collect(t.Context(), 2*time.Second) // the error is the bus's
			if took := time.Since(began); took != want {
				t.Errorf("round %d took %v, want %v", i, took, want)
			}
			if got := line(r); !strings.Contains(got, fmt.Sprint("good.n=", i+1)) || strings.Contains(got, "bus.n=") != (i >= 3) {
				t.Errorf("round %d: got %s", i, got)
			}
			time.Sleep(2 * time.Second)
		}
		if r, err := a.Collect(t.Context(), 2*time.Second); err != nil || line(r) != "bus.n=3 good.n=6" {
			t.Errorf("when it is free again: %s, %v", line(r), err)
		}
		if got := events.all(); got != "" {
			t.Errorf("nothing hung, and there are events: %s", got)
		}
	})
}

// TestAReadingThatTakesItsTimeCountsAfterAFailure, too: as long as it took before.
func TestAReadingThatTakesItsTimeCountsAfterAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var events told
		a := NewApart(events.tell)
		fails := false
		add(t, a, &part{name: "gas", do: func(context.Context) error {
			if time.Sleep(2 * time.Second); fails {
				return errors.New("not ready")
			}
			return nil
		}}, Pace{Every: 10 * time.Second})
		for i, want := range []string{"gas.n=1", "gas.n=-", "gas.n=2", "gas.n=3"} {
			fails = i == 1
			r, _ := a.Collect(t.Context(), 10*time.Second) // the error is that of the second
			if got := line(r); got != want {
				t.Errorf("round %d: got %s, want %s", i, got, want)
			}
			time.Sleep(8 * time.Second)
		}
	})
}

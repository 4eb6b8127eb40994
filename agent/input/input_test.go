package input

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/hal/gpio"
	"halo.internal/model"
	"halo.internal/model/wire"
)

// bench is a board with lines that a test drives.
type bench struct {
	t *testing.T

	mu     sync.Mutex // guards what follows
	board  model.Board
	lines  map[string]*line
	events []string
}

// line is one line. edges are counted as the kernel does.
type line struct {
	high    bool
	number  uint32
	options gpio.InputOptions
	edges   chan gpio.Edge
	err     error // of opening, and of what is open
	broken  chan struct{}
	opened  int
	open    bool
	hang    chan struct{} // asking for the level takes until it is closed
}

func newBench(t *testing.T, inputs ...model.BoardInput) *bench {
	b := &bench{t: t, lines: map[string]*line{}}
	b.board.Inputs = inputs
	for _, in := range inputs {
		b.lines[in.Line] = &line{}
	}
	return b
}

func (b *bench) run(do func(i *Inputs)) {
	synctest.Test(b.t, func(t *testing.T) {
		for _, l := range b.lines { // channels of the bubble
			l.edges, l.broken = make(chan gpio.Edge, 100), make(chan struct{})
		}
		i := New(Config{
			Board: func() model.Board { b.mu.Lock(); defer b.mu.Unlock(); return b.board },
			Log:   slog.New(slog.DiscardHandler), Open: b.open,
			Event: func(kind string, s model.Severity, text string, f map[string]string) error {
				b.mu.Lock()
				defer b.mu.Unlock()
				var words []string
				for _, k := range slices.Sorted(maps.Keys(f)) {
					words = append(words, k+"="+f[k])
				}
				b.events = append(b.events, fmt.Sprintf("%s %s %s", kind, s, strings.Join(words, " ")))
				return nil
			},
		})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { i.Run(ctx); close(ended) }()
		synctest.Wait()
		do(i)
		cancel()
		began := time.Now()
		<-ended
		if d := time.Since(began); d > endWait {
			t.Errorf("it took %v to end", d)
		}
		for _, l := range b.lines {
			if l.hang != nil {
				close(l.hang)
			}
		}
		synctest.Wait()
		b.mu.Lock()
		defer b.mu.Unlock()
		for name, l := range b.lines {
			if l.open {
				t.Errorf("%s is held although nobody reads it", name)
			}
		}
	})
}

func (b *bench) open(name string, o gpio.InputOptions) (Pin, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.lines[name]
	if l == nil {
		return nil, errors.New("there is none of that name")
	}
	if l.err != nil {
		return nil, l.err
	}
	if l.open {
		return nil, &gpio.TakenError{Line: name, By: gpio.Consumer}
	}
	l.open, l.options, l.number = true, o, 0
	l.opened++
	return &pin{b, l, l.broken}, nil
}

type pin struct {
	b      *bench
	l      *line
	broken chan struct{}
}

func (p *pin) High() (bool, error) {
	if p.l.hang != nil {
		<-p.l.hang
	}
	p.b.mu.Lock()
	defer p.b.mu.Unlock()
	return p.l.high, p.l.err
}

func (p *pin) Wait(ctx context.Context) (gpio.Edge, error) {
	select {
	case <-ctx.Done():
		return gpio.Edge{}, ctx.Err()
	case <-p.broken:
		return gpio.Edge{}, errors.New("no such device")
	case e := <-p.l.edges:
		return e, nil
	}
}

func (p *pin) Close() error { p.b.mu.Lock(); defer p.b.mu.Unlock(); p.l.open = false; return nil }

// drive gives a line a level; lost edges came and went before it.
func (b *bench) drive(name string, high bool, lost uint32) {
	b.mu.Lock()
	l := b.lines[name]
	l.high = high
	if l.open {
		l.number += lost + 1
		l.edges <- gpio.Edge{Rising: high, Number: l.number}
	}
	b.mu.Unlock()
	synctest.Wait()
}

// breaks pulls a line's chip out; with nil it is back.
func (b *bench) breaks(name string, err error) {
	b.mu.Lock()
	l := b.lines[name]
	if l.err = err; err != nil {
		close(l.broken)
		l.broken = make(chan struct{})
	}
	b.mu.Unlock()
	synctest.Wait()
}

// told takes what was told.
func (b *bench) told(want ...string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if !slices.Equal(b.events, want) {
		b.t.Errorf("events:\n%s\nwant:\n%s", strings.Join(b.events, "\n"), strings.Join(want, "\n"))
	}
	b.events = nil
}

// reads is what is read: metrics and numbers, - where there is none.
func reads(t *testing.T, i *Inputs, want string) {
	t.Helper()
	list, _ := i.Collect(t.Context())
	var got []string
	var schema wire.Schema
	for _, r := range list {
		schema.Metrics = append(schema.Metrics, r.Metric)
		n := "-"
		if r.Value.Present {
			n = fmt.Sprint(r.Metric.Number(r.Value))
		}
		got = append(got, r.Metric.Name+"="+n)
	}
	if text := strings.Join(got, " "); text != want {
		t.Errorf("got %s, want %s", text, want)
	}
	if len(list) > 0 {
		if err := schema.Check(); err != nil {
			t.Error(err)
		}
	}
}

func TestChangesAreTold(t *testing.T) {
	b := newBench(t, model.BoardInput{Name: "door", Title: "Door", Line: "soc/4", ActiveLow: true, Bias: "pull-up", Event: model.Warning}, model.BoardInput{Name: "rain", Line: "soc/5", Event: model.EventNone, DebounceMS: new(int)})
	b.lines["soc/4"].high = true
	b.run(func(i *Inputs) {
		b.told()
		reads(t, i, "gpio.door.on=0 gpio.door.changes=0 gpio.rain.on=0 gpio.rain.changes=0")
		if o := b.lines["soc/4"].options; o != (gpio.InputOptions{Bias: gpio.PullUp, Edges: true, Debounce: 20 * time.Millisecond}) {
			t.Errorf("door: %+v", o)
		}
		if o := b.lines["soc/5"].options; o != (gpio.InputOptions{Edges: true}) {
			t.Errorf("rain: %+v", o)
		}
		b.drive("soc/4", false, 0)
		b.told("input.changed warning input=door state=on")
		b.drive("soc/4", true, 0)
		b.told("input.changed warning input=door state=off")
		b.drive("soc/5", true, 0)
		b.drive("soc/5", true, 7) // and down in between, which the kernel had no room for
		b.told()
		reads(t, i, "gpio.door.on=0 gpio.door.changes=2 gpio.rain.on=1 gpio.rain.changes=9")
	})
}

// A line whose chip goes is news, and so is its coming back; what has changed meanwhile is
// told then.
func TestALineThatGoes(t *testing.T) {
	b := newBench(t, model.BoardInput{Name: "door", Line: "soc/4"})
	b.run(func(i *Inputs) {
		b.breaks("soc/4", errors.New("no such device"))
		b.told("input.failed warning error=no such device input=door")
		reads(t, i, "gpio.door.on=- gpio.door.changes=0")
		if _, err := i.Collect(t.Context()); err == nil || !strings.Contains(err.Error(), "door") {
			t.Errorf("got %v", err)
		}
		time.Sleep(10 * time.Minute)
		b.told() // once
		b.drive("soc/4", true, 0)
		b.breaks("soc/4", nil)
		i.Retry()
		synctest.Wait()
		b.told("input.back info input=door", "input.changed info input=door state=on")
		reads(t, i, "gpio.door.on=1 gpio.door.changes=1")
	})
}

// A chip on a loose plug is told of as that, however often the kernel says that it is back.
func TestALineThatComesAndGoes(t *testing.T) {
	b := newBench(t, model.BoardInput{Name: "door", Line: "soc/4"})
	b.run(func(i *Inputs) {
		gone := errors.New("no such device")
		move := func() {
			b.breaks("soc/4", gone)
			time.Sleep(time.Second / 10)
			b.breaks("soc/4", nil)
			i.Retry()
			synctest.Wait()
		}
		for range 1000 {
			move()
		}
		failed, back := "input.failed warning error=no such device input=door", "input.back info input=door"
		b.told(failed, back, failed, back, failed, back, "input.flapping warning input=door")
		reads(t, i, "gpio.door.on=0 gpio.door.changes=0")
		time.Sleep(2 * time.Hour)
		move()
		b.told(failed, back)
	})
}

func TestLinesThatAreNotThere(t *testing.T) {
	b := newBench(t, model.BoardInput{Name: "door", Line: "soc/4"}, model.BoardInput{Name: "rain", Line: "soc/5"})
	b.lines["soc/5"].err = &gpio.TakenError{Line: "soc/5", By: "spi0 CS1"}
	delete(b.lines, "soc/4")
	b.run(func(i *Inputs) {
		slices.Sort(b.events)
		b.told("input.failed info error=there is none of that name input=door",
			"input.failed warning error=gpio line soc/5 is taken by spi0 CS1: choose another line, or stop that input=rain")
		if _, err := i.Collect(t.Context()); err == nil || !strings.HasSuffix(err.Error(), ": rain") {
			t.Errorf("got %v, want that the rain's line is taken", err)
		}
		b.mu.Lock()
		b.lines["soc/5"].err = nil
		b.mu.Unlock()
		time.Sleep(seldom)
		b.told("input.back info input=rain")
		if _, err := i.Collect(t.Context()); err != nil {
			t.Errorf("a chip that was never plugged in makes all reading fail: %v", err)
		}
	})
}

// The line of an output that is an input from now on is HALO's own until somebody lets go of
// it. That is no news unless it stays so.
func TestALineThatWasAnOutput(t *testing.T) {
	b := newBench(t, model.BoardInput{Name: "door", Line: "soc/4"}, model.BoardInput{Name: "rain", Line: "soc/5"})
	for _, l := range b.lines {
		l.open = true
	}
	b.run(func(i *Inputs) {
		time.Sleep(lookEvery / 2)
		i.Retry() // a chip has come meanwhile
		synctest.Wait()
		b.lines["soc/4"].open = false
		time.Sleep(2*again - time.Millisecond)
		b.told()
		time.Sleep(time.Millisecond)
		synctest.Wait()
		reads(t, i, "gpio.door.on=0 gpio.door.changes=0 gpio.rain.on=- gpio.rain.changes=0")
		b.told("input.failed warning error=gpio line soc/5 is taken by halo: choose another line, or stop that input=rain")
		b.lines["soc/5"].open = false
		time.Sleep(seldom)
		b.told("input.back info input=rain")
	})
}

// What bounces for ever is told of as that, and how it ends.
func TestAnInputThatChangesAllTheTime(t *testing.T) {
	b := newBench(t, model.BoardInput{Name: "door", Line: "soc/4"})
	b.run(func(i *Inputs) {
		for n := range 5000 {
			b.drive("soc/4", n%2 == 0, 0)
			time.Sleep(40 * time.Millisecond)
		}
		b.mu.Lock()
		n, last := len(b.events), b.events[len(b.events)-1]
		b.events = nil
		b.mu.Unlock()
		if n != burst+1 || last != "input.busy warning input=door" {
			t.Errorf("%d events, the last %s", n, last)
		}
		time.Sleep(calm*refill + 2*lookEvery)
		synctest.Wait()
		b.told(fmt.Sprintf("input.changed info input=door missed=%d state=off", 5000-burst))
		reads(t, i, "gpio.door.on=0 gpio.door.changes=5000")
		time.Sleep(burst * refill)
		b.drive("soc/4", true, 0)
		b.told("input.changed info input=door state=on")
	})
}

// How an input is whose chip went while it changed all the time nobody tells before it is
// known.
func TestABusyInputThatGoes(t *testing.T) {
	b := newBench(t, model.BoardInput{Name: "door", Line: "soc/4"})
	b.run(func(i *Inputs) {
		for n := range 101 {
			b.drive("soc/4", n%2 == 0, 0)
		}
		b.mu.Lock()
		b.events = nil
		b.mu.Unlock()
		b.breaks("soc/4", errors.New("no such device"))
		b.told("input.failed warning error=no such device input=door")
		time.Sleep(10 * calm * refill)
		b.told()
		b.breaks("soc/4", nil)
		i.Retry()
		synctest.Wait()
		b.told("input.back info input=door")
		time.Sleep(2 * lookEvery)
		b.told(fmt.Sprintf("input.changed info input=door missed=%d state=on", 101-burst))
	})
}

// Another board file has lines let go of before others want them.
func TestTheBoardFileChanges(t *testing.T) {
	door := model.BoardInput{Name: "door", Line: "soc/4"}
	b := newBench(t, door, model.BoardInput{Name: "rain", Line: "soc/5"})
	b.run(func(i *Inputs) {
		b.mu.Lock()
		b.board.Inputs = []model.BoardInput{{Name: "gate", Line: "soc/5"}, door}
		b.mu.Unlock()
		time.Sleep(2 * lookEvery)
		b.told()
		reads(t, i, "gpio.gate.on=0 gpio.gate.changes=0 gpio.door.on=0 gpio.door.changes=0")
		if l := b.lines["soc/4"]; l.opened != 1 {
			t.Errorf("the door's line was opened %d times", l.opened)
		}
		b.mu.Lock()
		b.board.Inputs = nil
		b.mu.Unlock()
		time.Sleep(2 * lookEvery)
		reads(t, i, "")
	})
}

// hangs has the driver of the input rain at soc/5 hang, when it is opened again after it
// has failed.
func (b *bench) hangs(i *Inputs) {
	b.t.Helper()
	b.lines["soc/5"].hang = make(chan struct{})
	b.breaks("soc/5", errors.New("no such device"))
	b.breaks("soc/5", nil)
	i.Retry()
	synctest.Wait()
	b.told("input.failed warning error=no such device input=rain")
}

// A driver that hangs keeps its own line, of which what is to have it then is told; it holds
// up neither the others nor the end.
func TestADriverThatHangs(t *testing.T) {
	b := newBench(t, model.BoardInput{Name: "door", Line: "soc/4"}, model.BoardInput{Name: "rain", Line: "soc/5"})
	b.run(func(i *Inputs) {
		b.hangs(i)
		for _, gate := range []string{"gate", "float", "meter"} {
			b.mu.Lock()
			b.board.Inputs = []model.BoardInput{{Name: gate, Line: "soc/4"}, {Name: gate + "-2", Line: "soc/5"}}
			b.mu.Unlock()
			time.Sleep(2 * lookEvery)
			reads(t, i, fmt.Sprintf("gpio.%s.on=0 gpio.%[1]s.changes=0 gpio.%[1]s-2.on=- gpio.%[1]s-2.changes=0", gate))
		}
		if l := b.lines["soc/5"]; l.opened != 2 {
			t.Errorf("a line whose driver hangs was opened %d times", l.opened)
		}
		b.told()
		time.Sleep(endWait)
		b.told("input.failed warning error=gpio line soc/5 is taken by an input of before, whose driver hangs: choose another line, or stop that input=meter-2")
		close(b.lines["soc/5"].hang)
		b.lines["soc/5"].hang = nil
		synctest.Wait()
		b.told("input.back info input=meter-2")
		reads(t, i, "gpio.meter.on=0 gpio.meter.changes=0 gpio.meter-2.on=0 gpio.meter-2.changes=0")
	})
}

func TestADriverThatHangsAtTheEnd(t *testing.T) {
	b := newBench(t, model.BoardInput{Name: "door", Line: "soc/4"}, model.BoardInput{Name: "rain", Line: "soc/5"})
	b.run(func(i *Inputs) {
		b.hangs(i)
	})
	b.told() // it is nobody's input any more when its driver goes on
}

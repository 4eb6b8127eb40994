package sensors_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"periph.io/x/conn/v3/physic"

	"halo.internal/agent/collect"
	"halo.internal/agent/sensors"
	"halo.internal/drivers/i2c"
	"halo.internal/hal/i2cbus"
	"halo.internal/lab/chips"
	"halo.internal/model"
	"halo.internal/model/wire"
)

// played is a bus with chips on it.
type played struct{ *chips.Bus }

func (played) Close() error { return nil }

func (p played) Present(ctx context.Context, inUse []uint16) ([]uint16, error) {
	var there []uint16
	for a := uint16(0x08); a <= 0x77; a++ {
		if slices.Contains(inUse, a) {
			continue
		}
		switch err := p.Tx(a, nil, make([]byte, 1)); {
		case err == nil:
			there = append(there, a)
		case errors.Is(err, chips.ErrTimeout):
			return there, &i2cbus.Error{Bus: "played", Addr: a, Kind: i2cbus.Stuck}
		}
		if ctx.Err() != nil {
			return there, ctx.Err()
		}
	}
	return there, nil
}

// world is a board with buses, in the fake time of a bubble.
type world struct {
	*sensors.Manager
	t     *testing.T
	apart *collect.Apart
	dir   string

	mu     sync.Mutex // guards what follows
	buses  []sensors.Bus
	events []string
	safe   []string
}

func newWorld(t *testing.T, dir string, buses ...sensors.Bus) *world {
	w := &world{t: t, dir: dir, buses: buses}
	w.apart = collect.NewApart(w.event)
	w.Manager = sensors.New(sensors.Options{
		Buses: func() ([]sensors.Bus, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return slices.Clone(w.buses), nil
		},
		Collectors: w.apart, Templates: filepath.Join(dir, "templates"), File: filepath.Join(dir, "sensors.json"), Event: w.event, Safe: w.madeSafe,
		Status: func() []string { return []string{"mast"} }, Log: slog.New(slog.DiscardHandler),
	})
	return w
}

func (w *world) event(kind string, _ model.Severity, _ string, f map[string]string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := strings.TrimPrefix(kind, "sensor.")
	for _, k := range []string{"address", "chip", "was", "candidates", "collector", "template", "error"} {
		if f[k] != "" {
			s += " " + f[k]
		}
	}
	w.events = append(w.events, s)
}

func (w *world) madeSafe(label, why string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.safe = append(w.safe, label+": "+why)
}

// happened returns what has happened since it was asked last.
func (w *world) happened() string {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	s := strings.Join(w.events, "; ")
	w.events = nil
	return s
}

func (w *world) expect(want string) {
	w.t.Helper()
	if got := w.happened(); got != want {
		w.t.Errorf("events: got %q, want %q", got, want)
	}
}

// run has the manager and its collectors run while script does.
func (w *world) run(script func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	var running sync.WaitGroup
	running.Go(func() { w.Run(ctx) })
	running.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		next := map[time.Duration]time.Time{}
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			for _, every := range w.apart.Groups() {
				if now := time.Now(); !now.Before(next[every]) {
					next[every] = now.Add(every)
					running.Go(func() { _, _ = w.apart.Collect(ctx, every) }) // what comes of it is asked for elsewhere
				}
			}
		}
	})
	synctest.Wait()
	script()
	cancel()
	running.Wait()
}

func plugged(path string, b *chips.Bus) sensors.Bus {
	return sensors.Bus{Path: path, Name: strings.ToUpper(path), Open: func() (sensors.Wire, error) { return played{b}, nil }}
}

func (w *world) line() string {
	var out []string
	for _, s := range w.Inventory().Sensors {
		one := fmt.Sprintf("%s %s", s.Key(), s.State)
		if s.Chip != "" {
			one += " " + s.Label
		}
		if s.Assigned {
			one += "!"
		}
		if s.Candidates != nil {
			one += " " + strings.Join(s.Candidates, "|")
		}
		out = append(out, one)
	}
	return strings.Join(out, "; ")
}

func (w *world) is(want string) {
	w.t.Helper()
	synctest.Wait()
	if got := w.line(); got != want {
		w.t.Errorf("sensors: got %q, want %q; they are %+v", got, want, w.Inventory().Sensors)
	}
}

// TestChipsAreFoundAndOffered at the start and when they are plugged in, and what is read
// is not disturbed by looks.
func TestChipsAreFoundAndOffered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := chips.NewBus()
		b.Attach(0x76, chips.NewBME280(21.5, 40, 101325))
		b.Attach(0x23, chips.NewBH1750(100))
		w := newWorld(t, t.TempDir(), plugged("one", b))
		w.run(func() {
			time.Sleep(time.Second)
			w.is("one-23 offered bh1750|pcf8574; one-76 ok bme280")
			if got := w.happened(); !strings.Contains(got, "found 0x76 bme280") || !strings.Contains(got, "offered 0x23 bh1750, pcf8574") {
				t.Errorf("got %q", got)
			}
			time.Sleep(90 * time.Second)
			r, err := w.apart.Collect(t.Context(), time.Minute)
			if err != nil || len(r) != 3 || r[0].Metric.Name != "i2c.bme280.temperature_c" || !r[0].Value.Present {
				t.Errorf("got %+v, %v", r, err)
			}
			// Plugged in: there at the next look.
			b.Attach(0x77, chips.NewBME280(10, 50, 100000))
			before, _ := b.Count(0x76)
			w.Rescan()
			synctest.Wait()
			time.Sleep(time.Second)
			w.is("one-23 offered bh1750|pcf8574; one-76 ok bme280; one-77 ok bme280-2")
			w.expect("found 0x77 bme280")
			if after, _ := b.Count(0x76); after != before {
				t.Errorf("a look had %d transactions with what is read", after-before)
			}
		})
	})
}

// TestWhatAPersonSaysWins, is kept by place, and is forgotten when it is to be.
func TestWhatAPersonSaysWins(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		b := chips.NewBus()
		b.Attach(0x23, chips.NewBH1750(100))
		b.Attach(0x40, chips.NewINA219(0.1, 12, 0.5))
		b.Attach(0x76, chips.NewBME280(21.5, 40, 101325))
		w := newWorld(t, dir, plugged("one", b))
		w.run(func() {
			time.Sleep(time.Second)
			for _, c := range []model.SensorCommand{
				{Bus: "one", Address: 0x23, Chip: "bh1750", Label: "sky", IntervalS: 5},
				{Bus: "one", Address: 0x40, Chip: "ina219", Params: map[string]float64{"shunt_ohm": 0.1}},
				{Bus: "one", Address: 0x76, Chip: model.ChipNone},
			} {
				if _, err := w.Assign(t.Context(), c); err != nil {
					t.Errorf("%+v: %v", c, err)
				}
			}
			w.is("one-23 ok sky!; one-40 ok ina219!; one-76 ignored!")
			for want, c := range map[string]model.SensorCommand{
				"no bus":      {Bus: "two", Address: 0x23, Chip: "bh1750"},
				"no template": {Bus: "one", Address: 0x23, Chip: "bh1751"},
				"another":     {Bus: "one", Address: 0x40, Chip: "ina219", Label: "sky"},
				"parameter":   {Bus: "one", Address: 0x40, Chip: "ina219", Params: map[string]float64{"ohm": 1}},
			} {
				if _, err := w.Assign(t.Context(), c); err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%+v: got %v, want …%s…", c, err, want)
				}
			}
		})
		// After a start, and with the chip of one gone.
		b.Detach(0x40)
		before, _ := b.Count(0x76)
		w = newWorld(t, dir, plugged("one", b))
		w.run(func() {
			time.Sleep(time.Second)
			w.is("one-23 ok sky!; one-40 gone ina219!; one-76 ignored!")
			if all, _ := b.Count(0x76); all != before {
				t.Errorf("what is to be left alone had %d transactions", all-before)
			}
			if got := w.apart.Groups(); !slices.Equal(got, []time.Duration{5 * time.Second}) {
				t.Errorf("it is read at %v", got)
			}
			b.Attach(0x40, chips.NewINA219(0.1, 12, 0.5))
			time.Sleep(time.Minute)
			w.is("one-23 ok sky!; one-40 ok ina219!; one-76 ignored!")
			if err := w.Forget(t.Context(), "one", 0x76); err != nil {
				t.Error(err)
			}
			if err := w.Forget(t.Context(), "one", 0x23); err != nil {
				t.Error(err)
			}
			w.is("one-23 offered bh1750|pcf8574; one-40 ok ina219!; one-76 ok bme280")
			if err := w.Forget(t.Context(), "one", 0x11); err == nil {
				t.Error("something was known of nothing")
			}
		})
	})
}

// TestUnpluggedIsNewsOnce, coming back is, and a loose contact is one thing.
func TestUnpluggedIsNewsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := chips.NewBus()
		chip := chips.NewBME280(21.5, 40, 101325)
		b.Attach(0x76, chip)
		w := newWorld(t, t.TempDir(), plugged("one", b))
		w.run(func() {
			time.Sleep(time.Second)
			w.expect("found 0x76 bme280")
			b.Detach(0x76)
			time.Sleep(2*time.Minute + 10*time.Second)
			w.is("one-76 gone bme280")
			w.expect("gone 0x76 bme280")
			if g := w.apart.Groups(); len(g) != 0 {
				t.Errorf("what is gone is read at %v", g)
			}
			b.Attach(0x76, chip)
			time.Sleep(time.Minute)
			w.is("one-76 ok bme280")
			w.expect("back 0x76 bme280")
			for range 20 {
				b.Detach(0x76)
				time.Sleep(65 * time.Second)
				b.Attach(0x76, chip)
				time.Sleep(65 * time.Second)
			}
			got := strings.Split(w.happened(), "; ")
			if n := len(got); n > 8 || got[n-1] != "flapping 0x76 bme280" {
				t.Errorf("a loose contact was told %d times: %v", n, got)
			}
			time.Sleep(2 * time.Hour)
			w.is("one-76 ok bme280")
			b.Detach(0x76)
			time.Sleep(3 * time.Minute)
			w.expect("gone 0x76 bme280")
		})
	})
}

func TestAnotherChipInItsPlaceIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := chips.NewBus()
		b.Attach(0x76, chips.NewBME280(21.5, 40, 101325))
		w := newWorld(t, t.TempDir(), plugged("one", b))
		w.run(func() {
			time.Sleep(time.Second)
			w.expect("found 0x76 bme280")
			b.Attach(0x76, chips.NewBMP280(21.5, 101325))
			time.Sleep(3 * time.Minute)
			w.is("one-76 ok bmp280")
			if got := w.happened(); !strings.HasSuffix(got, "changed 0x76 bmp280 bme280") {
				t.Errorf("got %q", got)
			}
			// What a person has said stays said, and the other is not read by it.
			if _, err := w.Assign(t.Context(), model.SensorCommand{Bus: "one", Address: 0x76, Chip: "bme280"}); err != nil {
				t.Fatal(err)
			}
			w.is("one-76 failed bme280!")
			b.Detach(0x76)
			time.Sleep(2 * time.Minute)
			w.is("one-76 gone bme280!")
			if got := w.happened(); strings.Count(got, "gone 0x76") != 1 {
				t.Errorf("that what was wrong there was unplugged is told as %q", got)
			}
			b.Attach(0x76, chips.NewBME280(21.5, 40, 101325))
			time.Sleep(time.Minute)
			w.is("one-76 ok bme280!")
			w.happened()
		})
		w.expect("") // that the process ends is no news of its chips
	})
}

// TestAStuckBusBlocksNobody but its own chips, is told once, and is recovered.
func TestAStuckBusBlocksNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck, good := chips.NewBus(), chips.NewBus()
		for _, b := range []*chips.Bus{stuck, good} {
			b.Attach(0x76, chips.NewBME280(21.5, 40, 101325))
		}
		recovered := 0
		one := plugged("one", stuck)
		one.Recover = func(context.Context) error {
			if recovered++; recovered < 3 {
				return errors.New("the data line is held down")
			}
			stuck.Stick(0)
			return nil
		}
		w := newWorld(t, t.TempDir(), one)
		w.run(func() {
			time.Sleep(time.Second)
			w.mu.Lock()
			w.buses = append(w.buses, plugged("two", good))
			w.mu.Unlock()
			w.Rescan()
			time.Sleep(time.Second)
			w.is("one-76 ok bme280; two-76 ok bme280-2")
			w.happened()
			stuck.Stick(time.Second)
			good.Attach(0x23, chips.NewBH1750(100))
			time.Sleep(90 * time.Second)
			inv := w.Inventory()
			if inv.Buses[0].Problem == "" || inv.Buses[1].Problem != "" {
				t.Errorf("got %+v", inv.Buses)
			}
			got := w.happened()
			if strings.Count(got, "bus.stuck") != 1 || !strings.Contains(got, "offered 0x23") {
				t.Errorf("got %q", got)
			}
			time.Sleep(4 * time.Minute)
			w.is("one-76 ok bme280; two-23 offered bh1750|pcf8574; two-76 ok bme280-2")
			if got := w.happened(); !strings.Contains(got, "bus.free") || recovered != 3 {
				t.Errorf("got %q after %d recoveries", got, recovered)
			}
		})
	})
}

func TestABusThatIsUnpluggedComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := chips.NewBus()
		b.Attach(0x76, chips.NewBME280(21.5, 40, 101325))
		w := newWorld(t, t.TempDir(), plugged("usb", b))
		w.run(func() {
			time.Sleep(time.Second)
			w.expect("found 0x76 bme280")
			w.mu.Lock()
			list := w.buses
			w.buses = nil
			w.mu.Unlock()
			w.Rescan()
			time.Sleep(time.Second)
			w.expect("gone 0x76 bme280")
			w.is("")
			w.mu.Lock()
			w.buses = list
			w.mu.Unlock()
			w.Rescan()
			time.Sleep(time.Second)
			w.is("usb-76 ok bme280")
		})
	})
}

// TestABusThatComesAndGoesIsOneEvent, with all its chips, which are read again once it has
// stayed.
func TestABusThatComesAndGoesIsOneEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := chips.NewBus()
		b.Attach(0x76, chips.NewBME280(21.5, 40, 101325))
		w := newWorld(t, t.TempDir(), plugged("usb", b))
		plug := func(in bool) {
			w.mu.Lock()
			if w.buses = nil; in {
				w.buses = []sensors.Bus{plugged("usb", b)}
			}
			w.mu.Unlock()
			w.Rescan()
			time.Sleep(time.Second)
		}
		w.run(func() {
			time.Sleep(time.Second)
			for range 10 {
				plug(false)
				plug(true)
			}
			w.expect("found 0x76 bme280" + strings.Repeat("; gone 0x76 bme280; found 0x76 bme280", 3) + "; bus.flapping")
			w.is("")
			time.Sleep(3 * time.Minute)
			w.is("usb-76 ok bme280")
			w.expect("")
			time.Sleep(2 * time.Hour)
			plug(false)
			w.expect("gone 0x76 bme280")
		})
	})
}

// TestABusThatSticksAgainAndAgainIsOneEvent.
func TestABusThatSticksAgainAndAgainIsOneEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := chips.NewBus()
		b.Attach(0x76, chips.NewBME280(21.5, 40, 101325))
		w := newWorld(t, t.TempDir(), plugged("one", b))
		w.run(func() {
			time.Sleep(time.Second)
			w.happened()
			for range 10 {
				b.Stick(time.Second)
				time.Sleep(90 * time.Second)
				b.Stick(0)
				time.Sleep(90 * time.Second)
			}
			got := w.happened()
			if strings.Count(got, "bus.stuck") != 3 || strings.Count(got, "bus.free") != 3 || strings.Count(got, "bus.flapping") != 1 {
				t.Errorf("got %q", got)
			}
			time.Sleep(4 * time.Minute)
			w.is("one-76 ok bme280")
			w.expect("")
		})
	})
}

// TestARecoveryThatHangsKeepsNobody: a driver whose transaction never ends keeps whoever
// takes its bus away. Who asks for its chips hears why, other buses and the end do not wait.
func TestARecoveryThatHangsKeepsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stuck, good := chips.NewBus(), chips.NewBus()
		good.Attach(0x76, chips.NewBME280(21.5, 40, 101325))
		one, release := plugged("one", stuck), make(chan struct{})
		var begun atomic.Int32
		one.Recover = func(context.Context) error {
			begun.Add(1)
			<-release
			return nil
		}
		w := newWorld(t, t.TempDir(), one, plugged("two", good))
		var ended time.Time
		w.run(func() {
			time.Sleep(time.Second)
			w.is("two-76 ok bme280")
			stuck.Stick(time.Second)
			time.Sleep(5 * time.Minute)
			began := time.Now()
			if _, err := w.Assign(t.Context(), model.SensorCommand{Bus: "one", Address: 0x40, Chip: "ina219"}); err == nil || !strings.Contains(err.Error(), "has not come back") {
				t.Errorf("got %v", err)
			}
			if took := time.Since(began); took > time.Second || begun.Load() != 1 {
				t.Errorf("it took %v to say so, after %d recoveries", took, begun.Load())
			}
			if p := w.Inventory().Buses[0].Problem; !strings.Contains(p, "has not come back") {
				t.Errorf("the problem is %q", p)
			}
			w.is("two-76 ok bme280")
			ended = time.Now()
		})
		if took := time.Since(ended); took > time.Second {
			t.Errorf("the end took %v", took)
		}
		close(release)
	})
}

// TestARecoveryThatComesBackLateCounts.
func TestARecoveryThatComesBackLateCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := chips.NewBus()
		b.Attach(0x76, chips.NewBME280(21.5, 40, 101325))
		one := plugged("one", b)
		one.Recover = func(context.Context) error {
			time.Sleep(3 * time.Minute)
			b.Stick(0)
			return nil
		}
		w := newWorld(t, t.TempDir(), one)
		w.run(func() {
			time.Sleep(time.Second)
			b.Stick(time.Second)
			time.Sleep(10 * time.Minute)
			w.is("one-76 ok bme280")
			if got := w.happened(); !strings.HasSuffix(got, "bus.free") {
				t.Errorf("got %q", got)
			}
		})
	})
}

// deaf is a bus on which nothing ever ends.
type deaf struct {
	played
	release chan struct{}
}

func (d deaf) Present(context.Context, []uint16) ([]uint16, error) {
	<-d.release
	return nil, errors.New("it is over")
}

// TestATransactionThatNeverEndsKeepsNotTheEnd.
func TestATransactionThatNeverEndsKeepsNotTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		w := newWorld(t, t.TempDir(), sensors.Bus{Path: "one", Open: func() (sensors.Wire, error) { return deaf{played{chips.NewBus()}, release}, nil }})
		var ended time.Time
		w.run(func() {
			time.Sleep(time.Minute)
			ended = time.Now()
		})
		if took := time.Since(ended); took > 11*time.Second {
			t.Errorf("the end took %v", took)
		}
		close(release)
	})
	synctest.Test(t, func(t *testing.T) { // nor does a kernel that does not tell which buses there are
		release := make(chan struct{})
		w := newWorld(t, t.TempDir())
		w.Buses = func() ([]sensors.Bus, error) { <-release; return nil, nil }
		var ended time.Time
		w.run(func() {
			time.Sleep(5 * time.Second)
			ended = time.Now()
		})
		if took := time.Since(ended); took > time.Second {
			t.Errorf("the end took %v", took)
		}
		close(release)
	})
}

const divides = `name = "odd"
title = "x"
datasheet = "x"
addresses = [0x31]
interval = "1s"
measure = [ { write = [0x00], read = 1, into = "a" } ]
[fields]
a = { in = "a", at = 0, type = "u8" }
[[value]]
name = "x_c"
title = "x"
formula = "1 / a"
range = [-1000, 1000]
[[value]]
name = "y_c"
title = "y"
formula = "a + 1"
range = [-1000, 1000]
`

// registers is a chip with registers that a test sets.
type registers struct {
	mu  sync.Mutex
	reg [256]byte
	at  byte
}

func (c *registers) Tx(w, r []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(w) > 0 {
		c.at = w[0]
	}
	for i := range r {
		r[i] = c.reg[c.at+byte(i)]
	}
	return nil
}

func (c *registers) set(at, v byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reg[at] = v
}

// TestTemplatesAreLoadedLive: a good one at once, a bad one is one event and leaves the
// good one in use, and arithmetic that goes wrong is one value's alone.
func TestTemplatesAreLoadedLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := chips.NewBus()
		chip := &registers{}
		b.Attach(0x31, chip)
		w := newWorld(t, t.TempDir(), plugged("one", b))
		file := filepath.Join(w.Templates, "odd.toml")
		put := func(text string) {
			t.Helper()
			if err := os.MkdirAll(w.Templates, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		w.run(func() {
			time.Sleep(time.Second)
			w.is("one-31 offered")
			w.happened()
			put(divides)
			time.Sleep(20 * time.Second)
			w.is("one-31 offered odd")
			w.expect("template.loaded odd")
			if _, err := w.Assign(t.Context(), model.SensorCommand{Bus: "one", Address: 0x31, Chip: "odd"}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Second)
			w.is("one-31 ok odd!")
			s := w.Inventory().Sensors[0]
			if !strings.Contains(s.Problem, "x_c") {
				t.Errorf("the problem is %q, want a division by zero", s.Problem)
			}
			r, err := w.apart.Collect(t.Context(), time.Second)
			if err != nil || len(r) != 2 || r[0].Value.Present || r[1].Value != wire.Int(100) {
				t.Errorf("got %+v, %v", r, err)
			}
			chip.set(0, 2)
			time.Sleep(10 * time.Second)
			if s := w.Inventory().Sensors[0]; s.Problem != "" {
				t.Errorf("the problem is %q still", s.Problem)
			}
			w.happened()
			put(strings.Replace(divides, "[0x00]", "[0x100]", 1))
			time.Sleep(time.Minute)
			if got := w.happened(); strings.Count(got, "template.invalid odd odd.toml:6") != 1 || strings.Contains(got, "gone") {
				t.Errorf("got %q", got)
			}
			w.is("one-31 ok odd!")
			if p := w.Inventory().Templates[0].Problem; !strings.Contains(p, "odd.toml:6") {
				t.Errorf("the template's problem is %q", p)
			}
			put(strings.Replace(divides, "a + 1", "a + 2", 1))
			time.Sleep(time.Minute + 20*time.Second)
			w.is("one-31 ok odd!")
			if r, err := w.apart.Collect(t.Context(), time.Second); err != nil || r[1].Value != wire.Int(400) {
				t.Errorf("with the new template: %+v, %v", r, err)
			}
			trial, err := w.Try(t.Context(), model.SensorCommand{Bus: "one", Address: 0x31, Chip: "odd"}, []byte(divides))
			if err != nil || len(trial.Transactions) != 1 || *trial.Values[0].Value != 0.5 {
				t.Errorf("got %+v, %v", trial, err)
			}
			if err := w.DeleteTemplate("odd"); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Second)
			w.is("one-31 failed odd!")
			if err := w.PutTemplate("odd", []byte("name = 1")); err == nil {
				t.Error("a bad template was kept")
			}
			if err := w.PutTemplate("odd", []byte(divides)); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Second)
			w.is("one-31 ok odd!")
		})
	})
}

// waits asks until the chip says that it is ready, which it need not ever be.
const waits = `name = "slow"
title = "x"
datasheet = "x"
addresses = [0x31]
interval = "1s"
measure = [ { write = [0x00], read = 1, until = { value = 1, every = "10ms", limit = "10s" }, into = "a" } ]
[fields]
a = { in = "a", at = 0, type = "u8" }
[[value]]
name = "x_c"
title = "x"
formula = "a"
range = [-1000, 1000]
`

// TestATemplateThatWaitsForEver holds up nobody, on its own bus either.
func TestATemplateThatWaitsForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := chips.NewBus()
		chip := &registers{}
		b.Attach(0x31, chip)
		b.Attach(0x76, chips.NewBME280(21.5, 40, 101325))
		w := newWorld(t, t.TempDir(), plugged("one", b))
		w.run(func() {
			if err := w.PutTemplate("slow", []byte(waits)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			if _, err := w.Assign(t.Context(), model.SensorCommand{Bus: "one", Address: 0x31, Chip: "slow"}); err != nil {
				t.Fatal(err)
			}
			w.is("one-31 failed slow!; one-76 ok bme280")
			chip.set(0, 1)
			time.Sleep(2 * time.Minute)
			w.is("one-31 ok slow!; one-76 ok bme280")
			chip.set(0, 0)
			time.Sleep(5 * time.Second) // it is being read in vain
			began := time.Now()
			r, err := w.apart.Collect(t.Context(), time.Minute)
			if took := time.Since(began); err != nil || len(r) != 3 || !r[0].Value.Present || took > time.Second {
				t.Errorf("the other chip: %+v, %v after %v", r, err, took)
			}
			time.Sleep(2 * time.Minute)
			w.is("one-31 failed slow!; one-76 ok bme280")
			if p := w.Inventory().Sensors[0].Problem; !strings.Contains(p, "after 10s expected") {
				t.Errorf("the problem is %q", p)
			}
		})
	})
}

// TestWhatAnswersAndCannotBeReadIsNotGone, though it was: that is news once, whatever the
// reason is at each look.
func TestWhatAnswersAndCannotBeReadIsNotGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := chips.NewBus()
		chip := &registers{}
		chip.set(0, 1)
		b.Attach(0x31, chip)
		w := newWorld(t, t.TempDir(), plugged("one", b))
		w.run(func() {
			if err := w.PutTemplate("slow", []byte(waits)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			for _, c := range []model.SensorCommand{{Bus: "one", Address: 0x31, Chip: "slow"}, {Bus: "one", Address: 0x44, Chip: "sht31"}} {
				if _, err := w.Assign(t.Context(), c); err != nil {
					t.Fatal(err)
				}
			}
			w.is("one-31 ok slow!; one-44 gone sht31!")
			b.Detach(0x31)
			time.Sleep(3 * time.Minute)
			w.is("one-31 gone slow!; one-44 gone sht31!")
			w.happened()
			chip.set(0, 7)
			b.Attach(0x31, chip)
			time.Sleep(90 * time.Second)
			w.is("one-31 failed slow!; one-44 gone sht31!")
			chip.set(0, 8)
			time.Sleep(5 * time.Minute)
			w.is("one-31 failed slow!; one-44 gone sht31!")
			if got := w.happened(); got != "failed 0x31 slow" {
				t.Errorf("got %q", got)
			}
			chip.set(0, 1)
			time.Sleep(2 * time.Minute)
			w.is("one-31 ok slow!; one-44 gone sht31!")
			w.expect("back 0x31 slow")
		})
	})
}

// TestNothingIsKeptWhereTheCardTakesNothing, and all works.
func TestNothingIsKeptWhereTheCardTakesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := chips.NewBus()
		b.Attach(0x23, chips.NewBH1750(100))
		w := newWorld(t, "/proc/halo", plugged("one", b)) // nobody can write there
		w.run(func() {
			time.Sleep(time.Second)
			if _, err := w.Assign(t.Context(), model.SensorCommand{Bus: "one", Address: 0x23, Chip: "bh1750"}); err != nil {
				t.Error(err)
			}
			if err := w.PutTemplate("odd", []byte(divides)); err == nil {
				t.Error("a template was kept where nothing can be")
			}
			time.Sleep(2 * time.Minute)
			w.is("one-23 ok bh1750!")
		})
	})
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "sensors.json"), []byte("[{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if w := newWorld(t, dir); len(w.events) != 1 || !strings.HasPrefix(w.events[0], "assignments.lost") {
		t.Errorf("a damaged file: %v", w.events)
	}
}

// TestOutputsOfAChip are safe at the start, driven by name, and safe at the end.
func TestOutputsOfAChip(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := chips.NewBus()
		relays := chips.NewPCF8574()
		b.Attach(0x20, relays)
		w := newWorld(t, t.TempDir(), plugged("one", b))
		w.run(func() {
			time.Sleep(time.Second)
			if _, err := w.Assign(t.Context(), model.SensorCommand{Bus: "one", Address: 0x20, Chip: "pcf8574", Label: "relays", Params: map[string]float64{"active_low": 0}}); err != nil {
				t.Fatal(err)
			}
			if s := relays.State(); s != 0 {
				t.Errorf("at the start: %08b", s)
			}
			if err := w.Send(t.Context(), "relays", "out2", 1); err != nil {
				t.Error(err)
			}
			if s := relays.State(); s != 2 {
				t.Errorf("with the second on: %08b", s)
			}
			if _, err := w.Try(t.Context(), model.SensorCommand{Bus: "one", Address: 0x20, Chip: "pcf8574"}, nil); err == nil || !strings.Contains(err.Error(), "is driven") {
				t.Errorf("a trial of what is driven: got %v", err)
			}
			if s := relays.State(); s != 2 {
				t.Errorf("after a trial: %08b", s)
			}
			if o := w.Outputs(); len(o) != 1 || len(o["relays"]) != 8 {
				t.Errorf("got %v", o)
			}
			for _, no := range []string{"out9", ""} {
				if err := w.Send(t.Context(), "relays", no, 1); !errors.Is(err, sensors.ErrNoOutput) {
					t.Errorf("%q: got %v", no, err)
				}
			}
			time.Sleep(3 * time.Minute)
			if s := relays.State(); s != 2 {
				t.Errorf("after looks at it: %08b", s)
			}
		})
		if s := relays.State(); s != 0 {
			t.Errorf("at the end: %08b", s)
		}
	})
}

// switched has a relay, and something that it measures.
const switched = `name = "odd"
title = "x"
datasheet = "x"
addresses = [0x31]
interval = "1s"
measure = [ { write = [0x05], read = 1, into = "a" } ]
send = [ { write = [0x01, "out1"] } ]
[fields]
a = { in = "a", at = 0, type = "u8" }
[[value]]
name = "x_c"
title = "x"
formula = "a"
range = [-1000, 1000]
[[output]]
name = "out1"
title = "x"
range = [0, 1]
whole = true
safe = 0
`

// relay is such a chip: it may stop to measure, or to answer any read, or hold on to the
// bus while it measures.
type relay struct {
	mu         sync.Mutex
	on         byte
	blind, mum bool
	hold       chan struct{}
}

func (c *relay) Tx(w, r []byte) error {
	c.mu.Lock()
	hold := c.hold
	c.mu.Unlock()
	if hold != nil && len(w) == 1 && w[0] == 5 {
		<-hold
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case len(w) == 2 && w[0] == 1:
		c.on = w[1]
	case c.mum && len(r) > 0, c.blind && len(w) == 1 && w[0] == 5:
		return chips.ErrNAK
	}
	return nil
}

func (c *relay) becomes(blind, mum bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.blind, c.mum = blind, mum
}

func (c *relay) isOn() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.on != 0
}

// TestNoRelayStaysOnWithNobodyToDriveIt: whatever ends the reading of a chip has its
// outputs be safe before.
func TestNoRelayStaysOnWithNobodyToDriveIt(t *testing.T) {
	for name, tc := range map[string]struct {
		end     func(*world, *relay)
		is, why string
	}{
		"its template is deleted": {func(w *world, _ *relay) {
			if err := w.DeleteTemplate("odd"); err != nil {
				w.t.Error(err)
			}
		}, "one-31 failed relays!", "its chip's template is another one"},
		"it can't be read": {func(_ *world, c *relay) { c.becomes(true, false) }, "one-31 failed relays!", "its chip can't be read"},
		"it answers not":   {func(_ *world, c *relay) { c.becomes(false, true) }, "one-31 gone relays!", "its chip does not answer"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, chip := chips.NewBus(), &relay{}
				b.Attach(0x31, chip)
				w := newWorld(t, t.TempDir(), plugged("one", b))
				w.run(func() {
					if err := w.PutTemplate("odd", []byte(switched)); err != nil {
						t.Fatal(err)
					}
					time.Sleep(time.Second)
					if _, err := w.Assign(t.Context(), model.SensorCommand{Bus: "one", Address: 0x31, Chip: "odd", Label: "relays"}); err != nil {
						t.Fatal(err)
					}
					if err := w.Send(t.Context(), "relays", "out1", 1); err != nil || !chip.isOn() {
						t.Fatalf("on: %v, %v", chip.isOn(), err)
					}
					tc.end(w, chip)
					time.Sleep(15 * time.Second) // the next look is later
					w.is(tc.is)
					if chip.isOn() {
						t.Error("the relay is on still")
					}
					w.mu.Lock()
					defer w.mu.Unlock()
					if n := len(w.safe); n == 0 || w.safe[n-1] != "relays: "+tc.why {
						t.Errorf("told: %q, want %q at last", w.safe, tc.why)
					}
				})
			})
		})
	}
}

// TestARelayThatDropsIsTold: when its bus has failed for a moment the chip is set up anew.
func TestARelayThatDropsIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, relays := chips.NewBus(), chips.NewPCF8574()
		b.Attach(0x20, relays)
		w := newWorld(t, t.TempDir(), plugged("one", b))
		w.run(func() {
			time.Sleep(time.Second)
			if _, err := w.Assign(t.Context(), model.SensorCommand{Bus: "one", Address: 0x20, Chip: "pcf8574", Label: "relays", Params: map[string]float64{"active_low": 0}}); err != nil {
				t.Fatal(err)
			}
			if err := w.Send(t.Context(), "relays", "out1", 1); err != nil {
				t.Fatal(err)
			}
			w.mu.Lock()
			w.safe = nil
			w.mu.Unlock()
			b.Stick(time.Second)
			time.Sleep(90 * time.Second)
			b.Stick(0)
			time.Sleep(90 * time.Second)
			w.is("one-20 ok relays!")
			w.mu.Lock()
			defer w.mu.Unlock()
			if s := relays.State(); s != 0 || strings.Join(w.safe, ", ") != "relays: its chip was set up anew" {
				t.Errorf("state %08b, told %q", s, w.safe)
			}
		})
	})
}

// TestWhatIsAskedForTooLateIsNotDriven: somebody wants the relay on while its chip is being
// let go of, in the middle of a reading.
func TestWhatIsAskedForTooLateIsNotDriven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		chip := &relay{}
		w := newWorld(t, t.TempDir(), sensors.Bus{Path: "one", Open: func() (sensors.Wire, error) { return alone{chip}, nil }})
		w.run(func() {
			if err := w.PutTemplate("odd", []byte(switched)); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			if _, err := w.Assign(t.Context(), model.SensorCommand{Bus: "one", Address: 0x31, Chip: "odd", Label: "relays"}); err != nil {
				t.Fatal(err)
			}
			release := make(chan struct{})
			chip.mu.Lock()
			chip.hold = release
			chip.mu.Unlock()
			time.Sleep(2 * time.Second) // it is being read
			var asked sync.WaitGroup
			asked.Go(func() {
				if _, err := w.Assign(t.Context(), model.SensorCommand{Bus: "one", Address: 0x31, Chip: model.ChipNone}); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
			for range 8 {
				asked.Go(func() {
					if err := w.Send(t.Context(), "relays", "out1", 1); !errors.Is(err, sensors.ErrNoOutput) {
						t.Errorf("got %v", err)
					}
				})
			}
			synctest.Wait()
			close(release)
			asked.Wait()
			if w.is("one-31 ignored!"); chip.isOn() {
				t.Error("the relay is on, and nobody drives it")
			}
		})
	})
}

// alone is a bus with one chip, at 0x31, whose transactions do not wait for one another.
type alone struct{ chip *relay }

func (alone) String() string { return "alone" }

func (alone) Close() error { return nil }

func (alone) SetSpeed(physic.Frequency) error { return nil }

func (a alone) Tx(addr uint16, w, r []byte) error {
	if addr != 0x31 {
		return chips.ErrNAK
	}
	return a.chip.Tx(w, r)
}

func (alone) Present(_ context.Context, inUse []uint16) ([]uint16, error) {
	if slices.Contains(inUse, 0x31) {
		return []uint16{}, nil
	}
	return []uint16{0x31}, nil
}

func TestADisplayShowsHowTheDeviceIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := chips.NewBus()
		panel := chips.NewSSD1306()
		b.Attach(0x3C, panel)
		w := newWorld(t, t.TempDir(), plugged("one", b))
		w.run(func() {
			time.Sleep(time.Second)
			if _, err := w.Assign(t.Context(), model.SensorCommand{Bus: "one", Address: 0x3C, Chip: "ssd1306"}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(7 * time.Second)
			if s := w.Inventory().Sensors[0]; s.Role != model.Send || s.State != model.SensorOK {
				t.Errorf("got %+v", s)
			}
			lit := false
			for x := range 24 {
				for y := range 8 {
					lit = lit || panel.Lit(x, y)
				}
			}
			if !lit {
				t.Error("it shows nothing")
			}
			status := panel.Picture()
			show := func(label string, lines ...string) error {
				t.Helper()
				got, err := w.Show(t.Context(), label, lines, time.Minute)
				if err == nil && got != "ssd1306" {
					t.Errorf("%q shows it", got)
				}
				return err
			}
			if got := w.Displays(); !slices.Equal(got, []string{"ssd1306"}) {
				t.Errorf("displays: %q", got)
			}
			if err := show("", "Maintenance"); err != nil {
				t.Fatal(err)
			}
			notice := panel.Picture()
			if slices.Equal(notice, status) {
				t.Error("it does not show what it is told")
			}
			time.Sleep(50 * time.Second)
			if !slices.Equal(panel.Picture(), notice) {
				t.Error("it does not show that for a minute")
			}
			time.Sleep(10*time.Second + 2*time.Second + 5*time.Second)
			if !slices.Equal(panel.Picture(), status) {
				t.Error("it shows that for ever")
			}
			if err := show("ssd1306", "Maintenance"); err != nil || !slices.Equal(panel.Picture(), notice) {
				t.Errorf("by its label: %v", err)
			}
			if err := show(""); err != nil || !slices.Equal(panel.Picture(), status) {
				t.Errorf("back to how it is: %v", err)
			}
			if no, ok := errors.AsType[*model.CommandRefusal](show("wall", "x")); !ok || no.Code != model.CodeNoDisplay || !strings.Contains(no.Text, "ssd1306") {
				t.Errorf("a display that is not there: %v", no)
			}
			again := func(want []string, text string) {
				t.Helper()
				b.Attach(0x3C, panel)
				time.Sleep(7 * time.Second)
				if !slices.Equal(panel.Picture(), want) {
					t.Error(text)
				}
			}
			b.Detach(0x3C)
			if err := show("", "x"); err == nil {
				t.Error("what is not plugged in shows something")
			}
			again(status, "what has failed is shown later")
			if err := show("", "Maintenance"); err != nil {
				t.Fatal(err)
			}
			b.Detach(0x3C)
			for _, lines := range [][]string{{"x"}, nil} {
				if err := show("", lines...); err == nil {
					t.Error("what is not plugged in shows something")
				}
			}
			again(notice, "what has failed displaces what was shown")
		})
	})
}

// deviceClock is the device's clock, of a test.
type deviceClock struct {
	mu      sync.Mutex
	quality model.ClockQuality
	offered []time.Time
}

func (c *deviceClock) Quality() model.ClockQuality {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.quality
}

func (c *deviceClock) Offer(_ context.Context, t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.offered, c.quality = append(c.offered, t), model.ClockRTC
	return nil
}

// TestAClockOnABusTellsTheTimeAndIsTold.
func TestAClockOnABusTellsTheTimeAndIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := chips.NewBus()
		chip := chips.NewDS3231(time.Time{}, 20)
		b.Attach(0x68, chip)
		if err := i2c.NewClock(b, 0x68).SetTime(t.Context(), time.Date(2031, 5, 6, 7, 8, 9, 0, time.UTC)); err != nil {
			t.Fatal(err) // a new one knows that it was never set
		}
		w := newWorld(t, t.TempDir(), plugged("one", b))
		clock := &deviceClock{quality: model.ClockNone}
		w.Clock = clock
		w.run(func() {
			time.Sleep(time.Second)
			if _, err := w.Assign(t.Context(), model.SensorCommand{Bus: "one", Address: 0x68, Chip: "ds3231"}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(3 * time.Minute)
			clock.mu.Lock()
			if len(clock.offered) != 1 || clock.offered[0].Year() != 2031 {
				t.Errorf("offered: %v; there is %+v", clock.offered, w.Inventory().Sensors)
			}
			clock.quality = model.ClockGateway
			clock.mu.Unlock()
			time.Sleep(2 * time.Minute)
			if off := time.Since(chip.Now()).Abs(); off > 2*time.Second {
				t.Errorf("the chip is %v off", off)
			}
		})
	})
}

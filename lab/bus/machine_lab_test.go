//go:build lab

package bus_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"periph.io/x/host/v3/sysfs"

	"halo.internal/hal/gpio"
	"halo.internal/hal/gps"
	"halo.internal/hal/i2cbus"
	"halo.internal/lab/bus"
	"halo.internal/lab/bus/nmea"
	"halo.internal/lab/machine"
	"halo.internal/lab/testvm"
)

// wired is what the machine of these tests has: a chip of each kind that somebody
// else's driver reads, and a second bus.
const wired = "bme280,bmp280,ina219,ina226@0x41,lm75,tmp102@0x4a,mcp9808,bh1750,ads1115,sht31,sht40@0x45,mpu6050@0x69,ds3231,ssd1306,lm75@1/0x48,gpio,gps"

func TestMain(m *testing.M) {
	testvm.Main(m, testvm.Options{
		Modules: []string{
			"i2c-dev", "i2c-virtio", "gpio-virtio", "xhci-pci", "ftdi_sio",
			"lm75", "tmp102", "jc42", "sht3x", "sht4x", "bmp280-i2c", "ina2xx-adc", "ti-ads1015", "bh1750", "inv-mpu6050-i2c",
		},
		Packages: []string{"i2c-tools", "gpiod"},
		Parts: func(ctx context.Context) ([]machine.Part, error) {
			l, err := bus.Parse(wired)
			if err != nil {
				return nil, err
			}
			b, err := bus.New(l, slog.New(slog.NewTextHandler(os.Stderr, nil)))
			if err != nil {
				return nil, err
			}
			context.AfterFunc(ctx, b.Close)
			return append(b.Parts(), b.Steering()), nil
		},
	})
}

// host steers what the host plays.
var host = sync.OnceValues(func() (*bus.Remote, error) {
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) { // the kernel makes ports one by one
		names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
		if err != nil {
			return nil, err
		}
		for _, n := range names {
			if b, err := os.ReadFile(n); err == nil && strings.TrimSpace(string(b)) == bus.SteeringPort {
				f, err := os.OpenFile(filepath.Join("/dev", filepath.Base(filepath.Dir(n))), os.O_RDWR, 0)
				return bus.NewRemote(f), err
			}
		}
	}
	return nil, fmt.Errorf("no port is called %s", bus.SteeringPort)
})

func apply(t testing.TB, c bus.Change) bus.Status {
	t.Helper()
	r, err := host()
	if err != nil {
		t.Fatal(err)
	}
	s, err := r.Apply(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func change(t testing.TB, c bus.ChipChange) { t.Helper(); apply(t, bus.Change{Chip: &c}) }

func on(v bool) *bool { return &v }

// run runs a program and returns what it printed.
func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// kernelBus is the bus as periph has it, through the kernel.
func kernelBus(t testing.TB, number int) *sysfs.I2C {
	t.Helper()
	b, err := sysfs.NewI2C(number)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// halBus is the bus as halo-agent has it.
func halBus(t testing.TB, number int) *i2cbus.Bus {
	t.Helper()
	list, err := i2cbus.List(i2cbus.Sys)
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range list {
		if info.Number != number {
			continue
		}
		b, err := i2cbus.Open(info, i2cbus.Dev, i2cbus.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		return b
	}
	t.Fatalf("expected bus %d, got %+v", number, list)
	return nil
}

// mild has the LM75 of bus 0 measure what tests then read: 21.5 °C.
func mild(t testing.TB) {
	t.Helper()
	change(t, bus.ChipChange{Chip: "lm75@0/0x48", Values: map[string]float64{"temperature": 21.5}})
}

// onBus0 are the addresses of wired.
const onBus0 = "18 23 3c 40 41 44 45 48 49 4a 68 69 76 77"

// TestI2CTools: Debian's i2c-tools see the very chips that are wired.
func TestI2CTools(t *testing.T) {
	mild(t)
	var got []string
	for line := range strings.Lines(run(t, "i2cdetect", "-y", "0")) {
		row, cells, ok := strings.Cut(line, ":")
		if !ok || len(row) != 2 {
			continue
		}
		got = append(got, regexp.MustCompile(`[0-9a-f]{2}`).FindAllString(cells, -1)...)
	}
	if strings.Join(got, " ") != onBus0 {
		t.Errorf("on bus 0: got %s, want %s", strings.Join(got, " "), onBus0)
	}
	if out := run(t, "i2cdetect", "-y", "1"); !strings.Contains(out, " 48 ") || strings.Count(out, "--") != 111 {
		t.Errorf("on bus 1:\n%s", out)
	}
	if list := run(t, "i2cdetect", "-l"); strings.Count(list, "i2c_virtio at virtio bus") != 2 {
		t.Errorf("buses: %s", list)
	}
	for _, tc := range []struct{ command, want string }{
		{"i2cget -y 0 0x76 0xd0", "0x60"},
		{"i2cget -y 0 0x77 0xd0", "0x58"},
		{"i2cset -y 0 0x76 0xf5 0xa0", ""},
		{"i2cget -y 0 0x76 0xf5", "0xa0"},
		{"i2cset -y 0 0x76 0xf5 0x00", ""},
		{"i2cget -y 0 0x41 0xfe w", "0x4954"}, // i2cget takes the low octet to come first
		{"i2ctransfer -y 0 w1@0x48 0 r2", "0x15 0xff"},
		{"i2ctransfer -y 0 w1@0x18 6 r2 w1@0x18 7 r2", "0x00 0x54\n0x04 0x00"},
	} {
		words := strings.Fields(tc.command)
		if got := strings.TrimSpace(run(t, words[0], words[1:]...)); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.command, got, tc.want)
		}
	}
	if out, err := exec.Command("i2cget", "-y", "0", "0x50").CombinedOutput(); err == nil {
		t.Errorf("a chip that is not there: %s", out)
	}
}

// TestFaultsReachPrograms: what the host lets fail, fails in the machine.
func TestFaultsReachPrograms(t *testing.T) {
	b := kernelBus(t, 0)
	read := func() (byte, error) {
		r := make([]byte, 1)
		err := b.Tx(0x76, []byte{0xd0}, r)
		return r[0], err
	}
	well := func() {
		t.Helper()
		if id, err := read(); err != nil || id != 0x60 {
			t.Errorf("got %#x, %v", id, err)
		}
	}
	well()
	// Of one message, and of two: an unmended driver calls both a success.
	if err := b.Tx(0x50, []byte{1}, nil); err == nil {
		t.Error("an absent chip took an octet")
	}
	if err := b.Tx(0x50, []byte{1}, make([]byte, 1)); err == nil {
		t.Error("an absent chip gave an octet")
	}
	change(t, bus.ChipChange{Chip: "bme280", Plugged: on(false)})
	if _, err := read(); err == nil {
		t.Error("an unplugged chip answers")
	}
	change(t, bus.ChipChange{Chip: "bme280", Plugged: on(true), Fault: &bus.Fault{Identity: true}})
	if id, err := read(); err != nil || id != 0x9f {
		t.Errorf("a wrong identity: got %#x, %v", id, err)
	}
	change(t, bus.ChipChange{Chip: "bme280", Fault: &bus.Fault{SlowMS: 200}})
	start := time.Now()
	well()
	if d := time.Since(start); d < 200*time.Millisecond {
		t.Errorf("a slow chip answers within %s", d)
	}
	change(t, bus.ChipChange{Chip: "bme280", Fault: &bus.Fault{}})

	apply(t, bus.Change{Bus: &bus.BusChange{Stuck: on(true)}})
	answered := make(chan error, 1)
	go func() { _, err := read(); answered <- err }()
	second := kernelBus(t, 1) // which has nothing to do with it
	if err := second.Tx(0x48, []byte{0}, make([]byte, 2)); err != nil {
		t.Errorf("another bus: %v", err)
	}
	select {
	case err := <-answered:
		t.Errorf("a stuck bus answers: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	apply(t, bus.Change{Bus: &bus.BusChange{Stuck: on(false)}})
	if err := <-answered; err == nil {
		t.Error("a transaction of a stuck bus is a success")
	}
	well()
}

// TestBusOfHAL: HALO finds the chips without harm to them, and tells what is wrong with a
// bus of the kernel's.
func TestBusOfHAL(t *testing.T) {
	mild(t)
	b := halBus(t, 0)
	there, err := b.Present(t.Context(), nil)
	if err != nil {
		t.Error(err)
	}
	if got := strings.Trim(fmt.Sprintf("%x", there), "[]"); got != onBus0 {
		t.Errorf("on bus 0: got %s, want %s", got, onBus0)
	}
	if there, err = b.Present(t.Context(), []uint16{0x18, 0x23}); err != nil || len(there) == 0 || there[0] != 0x3c {
		t.Errorf("beside what is in use: got %x, %v", there, err)
	}
	r := make([]byte, 2)
	if err := b.Tx(0x48, []byte{0}, r); err != nil || r[1] != 0xff {
		t.Errorf("got % x, %v", r, err)
	}
	for name, tx := range map[string]func() error{
		"an octet written": func() error { return b.Tx(0x50, []byte{1}, nil) },
		"an octet read":    func() error { return b.Tx(0x50, nil, make([]byte, 1)) },
		"a register read":  func() error { return b.Tx(0x50, []byte{1}, make([]byte, 1)) },
	} {
		if err := tx(); !errors.Is(err, i2cbus.NAK) {
			t.Errorf("%s where no chip is: got %v, want %v", name, err, i2cbus.NAK)
		}
	}
	apply(t, bus.Change{Bus: &bus.BusChange{Stuck: on(true)}})
	if err := b.Tx(0x48, []byte{0}, r); !errors.Is(err, i2cbus.Stuck) {
		t.Errorf("a stuck bus: got %v, want %v", err, i2cbus.Stuck)
	}
	if err := halBus(t, 1).Tx(0x48, []byte{0}, r); err != nil {
		t.Errorf("another bus meanwhile: %v", err)
	}
	apply(t, bus.Change{Bus: &bus.BusChange{Stuck: on(false)}})
	if err := b.Tx(0x48, []byte{0}, r); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// TestKilledInATransfer kills programs that wait for a slow chip. The unmended driver
// frees what the device still writes to.
func TestKilledInATransfer(t *testing.T) {
	const child = "HALO_BUS_CHILD"
	b := kernelBus(t, 0)
	if os.Getenv(child) != "" {
		for {
			_ = b.Tx(0x48, []byte{0}, make([]byte, 2))
		}
	}
	mild(t)
	change(t, bus.ChipChange{Chip: "lm75@0/0x48", Fault: &bus.Fault{SlowMS: 40}})
	before := apply(t, bus.Change{}).Buses[0].Transactions
	for i := range 5 {
		c := exec.Command(os.Args[0], "-test.run=^TestKilledInATransfer$")
		c.Env = append(os.Environ(), child+"=1")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		for n := apply(t, bus.Change{}).Buses[0].Transactions; ; time.Sleep(5 * time.Millisecond) {
			if apply(t, bus.Change{}).Buses[0].Transactions > n+1 {
				break
			}
		}
		time.Sleep(time.Duration(7*i) * time.Millisecond)
		_ = c.Process.Kill()
		_ = c.Wait() // it was killed
	}
	change(t, bus.ChipChange{Chip: "lm75@0/0x48", Fault: &bus.Fault{}})
	for range 50 {
		r := make([]byte, 2)
		if err := b.Tx(0x48, []byte{0}, r); err != nil || !bytes.Equal(r, []byte{0x15, 0xff}) {
			t.Fatalf("afterwards: got % x, %v", r, err)
		}
	}
	if after := apply(t, bus.Change{}).Buses[0].Transactions; after < before+60 {
		t.Errorf("only %d transactions", after-before)
	}
}

// TestTransactionTime measures what a register costs, and a picture.
func TestTransactionTime(t *testing.T) {
	b := kernelBus(t, 0)
	for _, m := range []struct {
		what string
		n    int
		do   func() error
	}{
		{"a register of two octets", 200, func() error { return b.Tx(0x48, []byte{0}, make([]byte, 2)) }},
		{"a picture of 1025 octets", 50, func() error { return b.Tx(0x3c, append([]byte{0x40}, make([]byte, 1024)...), nil) }},
	} {
		start := time.Now()
		for range m.n {
			if err := m.do(); err != nil {
				t.Fatal(err)
			}
		}
		t.Logf("%s: %d µs", m.what, time.Since(start).Microseconds()/int64(m.n))
	}
}

// line finds a line by libgpiod's own tools: chip and number.
func line(t *testing.T, name string) []string {
	t.Helper()
	return strings.Fields(run(t, "gpiofind", name))
}

// TestGPIOTools: Debian's libgpiod reads, drives and waits for lines.
func TestGPIOTools(t *testing.T) {
	button, relay := line(t, "BUTTON"), line(t, "RELAY")
	level := func(high bool) { apply(t, bus.Change{Line: &bus.LineChange{Line: "BUTTON", High: high}}) }
	for _, high := range []bool{true, false} {
		level(high)
		want := map[bool]string{true: "1\n", false: "0\n"}[high]
		if got := run(t, "gpioget", button...); got != want {
			t.Errorf("gpioget: got %q, want %q", got, want)
		}
	}
	ctx, end := context.WithTimeout(t.Context(), time.Minute)
	defer end()
	set := exec.CommandContext(ctx, "gpioset", "--mode=signal", relay[0], relay[1]+"=1")
	if err := set.Start(); err != nil {
		t.Fatal(err)
	}
	is := func(name, direction string, high bool) bool {
		for _, l := range apply(t, bus.Change{}).Lines {
			if l.Line == name {
				return l.Direction == direction && l.High == high
			}
		}
		return false
	}
	for !is("RELAY", "out", true) && ctx.Err() == nil {
		time.Sleep(10 * time.Millisecond)
	}
	_ = set.Process.Kill()
	_ = set.Wait()
	if ctx.Err() != nil {
		t.Error("gpioset never drove the relay")
	}
	monitor := exec.CommandContext(ctx, "gpiomon", "--num-events=4", "--format=%e", button[0], button[1])
	var out bytes.Buffer
	monitor.Stdout, monitor.Stderr = &out, &out
	if err := monitor.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- monitor.Wait() }()
	for high := true; ; high = !high { // from when it listens on
		level(high)
		select {
		case err := <-done:
			if got := strings.Join(strings.Fields(out.String()), ""); err != nil || got != "1010" && got != "0101" {
				t.Errorf("gpiomon: %v, %q", err, out.String())
			}
			level(false)
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// TestGPIOOfHAL: so does HALO, by name.
func TestGPIOOfHAL(t *testing.T) {
	l, err := gpio.Open("LED")
	if err != nil {
		t.Fatal(err)
	}
	for _, high := range []bool{true, false, true} {
		if err := l.Drive(high); err != nil {
			t.Fatal(err)
		}
		if s := apply(t, bus.Change{}).Lines[3]; s.High != high || s.Direction != "out" {
			t.Errorf("driven %v: %+v", high, s)
		}
	}
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	if s := apply(t, bus.Change{}).Lines[3]; s.Direction == "out" {
		t.Errorf("released: %+v", s)
	}
}

// TestInputOfHAL: and hears each edge of a line that others drive.
func TestInputOfHAL(t *testing.T) {
	in, err := gpio.OpenInput("DOOR", gpio.InputOptions{Edges: true})
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	ctx, end := context.WithTimeout(t.Context(), time.Minute)
	defer end()
	for i, high := range []bool{true, false, true, false} {
		apply(t, bus.Change{Line: &bus.LineChange{Line: "DOOR", High: high}})
		e, err := in.Wait(ctx)
		if err != nil || e.Rising != high || e.Number != uint32(i+1) {
			t.Fatalf("edge %d: got %+v, %v, want one that rises: %v", i, e, err, high)
		}
		if got, err := in.High(); err != nil || got != high {
			t.Errorf("behind edge %d: got %v, %v, want %v", i, got, err, high)
		}
	}
	if _, err := gpio.OpenInput("DOOR", gpio.InputOptions{}); err == nil {
		t.Error("a line is taken twice")
	}
}

// listener hears what a receiver makes of the sentences.
type listener struct {
	found chan gps.Device
	fixes chan gps.Fix
}

func (l listener) Found(d gps.Device)     { l.found <- d }
func (l listener) Gone(gps.Device, error) {}
func (l listener) Sentence(string)        {}
func (l listener) Pulse(gps.Pulse)        {}
func (l listener) Fix(f gps.Fix, _ gps.Sky, _ gps.Reason) {
	select {
	case l.fixes <- f:
	default: // whoever waits is not that fast
	}
}

// TestGPSOnUSB: HALO finds the receiver on USB by itself, knows where it is, and hears
// that it has lost its sky.
func TestGPSOnUSB(t *testing.T) {
	ctx, end := context.WithTimeout(t.Context(), 2*time.Minute)
	defer end()
	l := listener{make(chan gps.Device, 1), make(chan gps.Fix, 1)}
	now := time.Now()
	r := gps.New(gps.Config{Earliest: now.AddDate(-1, 0, 0), Latest: now.AddDate(1, 0, 0), Listener: l})
	ended := make(chan struct{})
	go func() { r.Run(ctx); close(ended) }()
	defer func() { end(); <-ended }()
	heard := func(what string, ok func(gps.Fix) bool) {
		t.Helper()
		for {
			select {
			case f := <-l.fixes:
				if ok(f) {
					return
				}
			case <-ctx.Done():
				t.Fatalf("%s was not heard: %+v", what, r.State())
			}
		}
	}
	select {
	case d := <-l.found:
		t.Logf("receiver: %+v", d)
	case <-ctx.Done():
		t.Fatalf("no receiver was found: %+v", r.State())
	}
	heard("a fix", func(f gps.Fix) bool {
		is := apply(t, bus.Change{}).GPS
		return f.Mode == gps.Fix3D && math.Abs(f.Lat-is.Lat) < 1e-4 && math.Abs(f.Lon-is.Lon) < 1e-4 && f.Used == 8
	})
	none := nmea.NoFix
	apply(t, bus.Change{GPS: &nmea.Change{Fix: &none}})
	heard("the loss of the fix", func(f gps.Fix) bool { return f.Mode == gps.NoFix })
	well := nmea.Fix3D
	apply(t, bus.Change{GPS: &nmea.Change{Fix: &well}})
}

package i2cbus

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// machine is a /sys with the buses of a Pi 4: a controller, one with a multiplexer of
// pins, and a multiplexer chip on a channel of that.
func machine(t *testing.T) string {
	t.Helper()
	sys := t.TempDir()
	soc := filepath.Join(sys, "devices/platform/soc")
	first := filepath.Join(soc, "fe804000.i2c/i2c-1")
	second := filepath.Join(soc, "fe205000.i2c/i2c-0")
	channel := filepath.Join(second, "i2c-10")
	deep := filepath.Join(channel, "10-0070/i2c-12")
	devices := filepath.Join(sys, "bus/i2c/devices")
	drivers := filepath.Join(sys, "bus/i2c/drivers")
	for dir, name := range map[string]string{first: "bcm2835 (i2c@7e804000)", second: "bcm2835 (i2c@7e205000)", channel: "i2c-0-mux (chan_id 0)", deep: "i2c-10-mux (chan_id 3)"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "name"), []byte(name+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{devices, filepath.Join(drivers, "pca954x"), filepath.Join(channel, "10-0050"), filepath.Join(first, "of_node")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(first, "of_node/clock-frequency"), []byte{0, 1, 0x86, 0xa0}, 0o644); err != nil {
		t.Fatal(err)
	}
	for link, to := range map[string]string{
		filepath.Join(devices, "i2c-1"): first, filepath.Join(devices, "i2c-0"): second, filepath.Join(devices, "i2c-10"): channel, filepath.Join(devices, "i2c-12"): deep,
		filepath.Join(devices, "10-0070"): filepath.Join(channel, "10-0070"), filepath.Join(channel, "10-0070/driver"): filepath.Join(drivers, "pca954x"),
	} {
		if err := os.Symlink(to, link); err != nil {
			t.Fatal(err)
		}
	}
	return sys
}

func TestBusesAndTheirMultiplexers(t *testing.T) {
	list, err := List(machine(t))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, b := range list {
		got = append(got, strings.TrimSpace(b.Path+" "+b.Parent))
	}
	want := []string{"fe205000.i2c", "fe205000.i2c/0 fe205000.i2c", "fe205000.i2c/0/3 fe205000.i2c/0", "fe804000.i2c"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if used, err := list[1].InUse(); err != nil || !reflect.DeepEqual(used, map[uint16]string{0x70: "pca954x"}) {
		t.Errorf("in use: got %v, %v; an address without a driver is free", used, err)
	}
	if khz := list[3].KHz(); khz != 100 || list[3].Number != 1 {
		t.Errorf("got %d kHz of bus %d", khz, list[3].Number)
	}
	if list, err := List(t.TempDir()); err != nil || list != nil {
		t.Errorf("a kernel without I2C: got %v, %v", list, err)
	}
}

// bench is a wire with chips at addresses.
type bench struct {
	chips map[uint16]error // what a chip there answers; none: NAK
	hang  chan struct{}    // a transfer waits for it
	asked []uint16
	quick []uint16
	able  bool // of Quick
	done  atomic.Bool
}

func (b *bench) answer(addr uint16) error {
	if err, ok := b.chips[addr]; ok {
		return err
	}
	return syscall.EREMOTEIO
}

func (b *bench) Transfer(addr uint16, w, r []byte) error {
	if b.hang != nil {
		<-b.hang
	}
	b.asked = append(b.asked, addr)
	for i := range r {
		r[i] = 0xa5
	}
	return b.answer(addr)
}

func (b *bench) Quick(addr uint16) error {
	if !b.able {
		return syscall.EOPNOTSUPP
	}
	b.quick = append(b.quick, addr)
	return b.answer(addr)
}

func (b *bench) Close() error { b.done.Store(true); return nil }

func TestErrorsSayWhatItWas(t *testing.T) {
	for errno, kind := range map[syscall.Errno]Kind{
		syscall.ENXIO: NAK, syscall.EREMOTEIO: NAK, syscall.ETIMEDOUT: Timeout, syscall.EAGAIN: Arbitration, syscall.EPROTO: Protocol,
		syscall.EOPNOTSUPP: Unable, syscall.ENODEV: Gone, syscall.EBUSY: Stuck, syscall.EIO: Failed,
	} {
		b := Over("1000.i2c", &bench{chips: map[uint16]error{0x48: errno}}, Options{})
		err := b.Tx(0x48, []byte{0}, make([]byte, 2))
		if !errors.Is(err, kind) || !errors.Is(err, errno) {
			t.Errorf("%v: got %v, want %s", errno, err, kind)
		}
		b.Close()
	}
}

func TestStuckBusBlocksNobody(t *testing.T) {
	w := &bench{chips: map[uint16]error{0x48: nil}, hang: make(chan struct{})}
	stuck, well := Over("1000.i2c", w, Options{Timeout: 50 * time.Millisecond}), Over("2000.i2c", &bench{chips: map[uint16]error{0x48: nil}}, Options{})
	defer stuck.Close()
	defer well.Close()
	r := []byte{1, 2}
	for range 3 {
		if err := stuck.Tx(0x48, []byte{0}, r); !errors.Is(err, Stuck) {
			t.Errorf("got %v, want stuck", err)
		}
	}
	if err := well.Tx(0x48, []byte{0}, make([]byte, 2)); err != nil {
		t.Errorf("the other bus: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := stuck.TxContext(ctx, 0x48, []byte{0}, r); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want cancelled", err)
	}
	close(w.hang)
	for { // what hung ends, and the bus works again
		if err := stuck.Tx(0x48, []byte{0}, r); err == nil {
			break
		} else if !errors.Is(err, Stuck) {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(r, []byte{0xa5, 0xa5}) {
		t.Errorf("read % x", r)
	}
}

func TestProbingDisturbsNobody(t *testing.T) {
	for _, able := range []bool{true, false} {
		w := &bench{chips: map[uint16]error{0x48: nil, 0x50: nil, 0x70: nil, 0x76: nil}, able: able}
		b := Over("1000.i2c", w, Options{})
		there, err := b.Present(t.Context(), []uint16{0x70})
		b.Close()
		if err != nil || !reflect.DeepEqual(there, []uint16{0x48, 0x50, 0x76}) {
			t.Errorf("got % x, %v", there, err)
		}
		for _, a := range append(w.quick, w.asked...) {
			if a == 0x70 || a < 0x08 || a > 0x77 {
				t.Errorf("%#x was spoken to", a)
			}
		}
		for _, a := range w.quick {
			if readOnly(a) {
				t.Errorf("%#x was addressed for writing", a)
			}
		}
	}
	w := &bench{chips: map[uint16]error{0x08: syscall.ETIMEDOUT}, able: true}
	b := Over("1000.i2c", w, Options{})
	defer b.Close()
	if _, err := b.Present(t.Context(), nil); !errors.Is(err, Timeout) || len(w.quick) != 1 {
		t.Errorf("of a bus that does not work, %d addresses were asked: %v", len(w.quick), err)
	}
}

func TestClosedBus(t *testing.T) {
	w := &bench{}
	b := Over("1000.i2c", w, Options{})
	b.Close()
	b.Close()
	if err := b.Tx(0x48, []byte{0}, nil); !errors.Is(err, Gone) {
		t.Errorf("got %v", err)
	}
	if err := b.Tx(0x148, []byte{0}, nil); !errors.Is(err, Unable) {
		t.Errorf("an address of 10 bits: got %v", err)
	}
}

// held is a bus of two lines on which a chip holds the data line for some more clocks.
type held struct {
	left     int // clocks until it lets go
	scl, sda bool
	stopped  bool
	stuckSCL bool
	log      []string
}

type side struct {
	h   *held
	scl bool
}

func (s side) Pull(low bool) error {
	if s.scl {
		if s.h.scl && !low && s.h.left > 0 {
			s.h.left--
		}
		s.h.scl = low
		return nil
	}
	if s.h.sda && !low && !s.h.scl && s.h.left == 0 {
		s.h.stopped = true
	}
	s.h.sda = low
	return nil
}

func (s side) High() (bool, error) {
	if s.scl {
		return !s.h.scl && !s.h.stuckSCL, nil
	}
	return !s.h.sda && s.h.left == 0, nil
}

func (s side) Close() error { s.h.log = append(s.h.log, "close"); return nil }

func (h *held) recovery() Recovery {
	step := func(name string) func(context.Context) error {
		return func(context.Context) error { h.log = append(h.log, name); return nil }
	}
	return Recovery{Unbind: step("unbind"), Bind: step("bind"), SCL: func() (Line, error) { return side{h, true}, nil }, SDA: func() (Line, error) { return side{h, false}, nil }}
}

func TestClockingFreesABus(t *testing.T) {
	for _, clocks := range []int{0, 1, 5, 9} {
		h := &held{left: clocks}
		if err := h.recovery().Recover(t.Context()); err != nil || !h.stopped {
			t.Errorf("held for %d clocks: %v, stopped %v", clocks, err, h.stopped)
		}
		if got := strings.Join(h.log, " "); got != "unbind close close bind" {
			t.Errorf("steps: got %s", got)
		}
	}
	h := &held{left: 50}
	if err := h.recovery().Recover(t.Context()); err == nil || !strings.Contains(err.Error(), "held down after 9 clocks") || h.log[len(h.log)-1] != "bind" {
		t.Errorf("held for good: got %v, %v", err, h.log)
	}
	h = &held{stuckSCL: true}
	if err := h.recovery().Recover(t.Context()); err == nil || !strings.Contains(err.Error(), "clock line is held down") {
		t.Errorf("clock held: got %v", err)
	}
	if err := (Recovery{}).Recover(t.Context()); err == nil {
		t.Error("nothing to recover by, and no error")
	}
}

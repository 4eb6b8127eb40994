package gps

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"halo.internal/hal/serial"
)

// terminal is one of the kernel's pseudo terminals, at whose other end a receiver is played.
type terminal struct {
	*os.File
	name string
}

func newTerminal(t *testing.T) terminal {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Skip("no pseudo terminals: ", err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	m := terminal{os.NewFile(uintptr(fd), "ptmx"), fmt.Sprintf("/dev/pts/%d", n)}
	t.Cleanup(func() { m.Close() })
	return m
}

// rate is the one that the other end is set to.
func (m terminal) rate(t *testing.T) int {
	t.Helper()
	c, err := m.SyscallConn()
	if err != nil {
		return 0
	}
	rate := 0
	_ = c.Control(func(fd uintptr) {
		if s, err := unix.IoctlGetTermios(int(fd), unix.TCGETS2); err == nil {
			rate = int(s.Ospeed)
		}
	})
	return rate
}

// play sends cycles, ten in a second, legible at that rate only, until ctx ends.
func (m terminal) play(ctx context.Context, t *testing.T, rate int) {
	t.Helper()
	start := time.Now()
	for i := 0; ctx.Err() == nil; i++ {
		for _, s := range cycleOf(noon.Add(time.Duration(i)*time.Second), "4807.0380", "01131.0000") {
			b := []byte(s + "\r\n\xb5\x62\x01\x07$GP")
			if m.rate(t) != rate {
				for k := range b {
					b[k] = b[k]<<1 | 0x81 // what a UART makes of it
				}
			}
			_ = m.SetWriteDeadline(time.Now().Add(50 * time.Millisecond)) // nobody reads while none is open
			_, _ = m.Write(b)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Until(start.Add(time.Duration(i+1) * 100 * time.Millisecond))):
		}
	}
}

// heard is a Listener that notes.
type heard struct {
	mu  sync.Mutex
	log []string
	c   chan struct{}
}

func newHeard() *heard { return &heard{c: make(chan struct{}, 1)} }

func (h *heard) note(s string) {
	h.mu.Lock()
	if len(h.log) == 0 || h.log[len(h.log)-1] != s {
		h.log = append(h.log, s)
	}
	h.mu.Unlock()
	select {
	case h.c <- struct{}{}:
	default:
	}
}
func (h *heard) Found(d Device)         { h.note(fmt.Sprintf("found at %d", d.Rate)) }
func (h *heard) Gone(_ Device, _ error) { h.note("gone") }
func (h *heard) Sentence(string)        {}
func (h *heard) Pulse(Pulse)            { h.note("pulse") }
func (h *heard) Fix(f Fix, _ Sky, r Reason) {
	h.note(fmt.Sprintf("%d %s", f.Mode, r))
}

// until waits for something.
func (h *heard) until(t *testing.T, what string) {
	t.Helper()
	limit := time.After(60 * time.Second)
	for {
		h.mu.Lock()
		ok := slices.Contains(h.log, what)
		log := fmt.Sprint(h.log)
		h.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-h.c:
		case <-limit:
			t.Fatalf("expected %q, got %s", what, log)
		}
	}
}

func (h *heard) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.log = nil
}

// TestReceiverIsFoundAndFoundAgain: by a rate that is not the first one, and after it was
// unplugged and plugged in under another name.
func TestReceiverIsFoundAndFoundAgain(t *testing.T) {
	var mu sync.Mutex
	var ports []serial.Info
	plug := func(list ...serial.Info) { mu.Lock(); ports = list; mu.Unlock() }
	changed := make(chan struct{}, 1)
	tell := func() { // that ports have changed; it may be known already, or not have been taken yet
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	h := newHeard()
	r := New(Config{
		Earliest: noon.AddDate(0, -1, 0), Latest: noon.AddDate(20, 0, 0), Changed: changed, Listener: h,
		Find: func() ([]serial.Info, error) {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(ports), nil
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { r.Run(ctx) })
	defer running.Wait()
	defer cancel()

	one := newTerminal(t)
	playing, stop := context.WithCancel(ctx)
	running.Go(func() { one.play(playing, t, 38400) })
	plug(serial.Info{Name: "ttyUSB0", Path: one.name, Kind: serial.USB, Place: "1-1:1.0", Model: "GPS mouse"})
	tell()
	h.until(t, "found at 38400")
	h.until(t, "3 ")
	s := r.State()
	if s.Device != (Device{one.name, "1-1:1.0", "GPS mouse", 38400}) || s.Fix.Mode != Fix3D || s.Fix.Used != 11 || len(s.Sky.Satellites) != 10 || s.Lines.Sentences == 0 || s.Lines.Noise == 0 {
		t.Errorf("got %+v", s)
	}

	stop()
	plug()
	one.Close()
	h.until(t, "gone")
	h.forget()
	two := newTerminal(t)
	running.Go(func() { two.play(ctx, t, 38400) })
	plug(serial.Info{Name: "ttyUSB1", Path: two.name, Kind: serial.USB, Place: "1-1:1.0"})
	began := time.Now()
	tell()
	h.until(t, "found at 38400")
	if d := time.Since(began); d > 2*listenFor { // the rate of that place is known
		t.Errorf("it took %s", d)
	}
	h.until(t, "3 ")
}

// silent is a port at which nobody is.
type silent struct{ deadline chan time.Time }

func (s *silent) SetReadDeadline(t time.Time) error { s.deadline <- t; return nil }
func (s *silent) Read([]byte) (int, error)          { <-s.deadline; return 0, os.ErrDeadlineExceeded }
func (s *silent) SetRate(int) error                 { return nil }
func (s *silent) Close() error                      { return nil }

func TestSilentPortsAreLeftAlone(t *testing.T) {
	opened := map[string]int{}
	list := []serial.Info{
		{Name: "ttyAMA0", Path: "/dev/ttyAMA0", Kind: serial.UART, Place: "a"},
		{Name: "ttyUSB0", Path: "/dev/ttyUSB0", Kind: serial.USB, Place: "b", Console: true},
		{Name: "ttyUSB1", Path: "/dev/ttyUSB1", Kind: serial.USB, Place: "c"},
		{Name: "ttyUSB2", Path: "/dev/ttyUSB2", Kind: serial.USB, Place: "d"},
	}
	r := New(Config{
		Listener: newHeard(),
		Find:     func() ([]serial.Info, error) { return list, nil },
		Open: func(name string, _ int) (Port, error) {
			if opened[name]++; name == "/dev/ttyUSB2" {
				return nil, errors.New("busy")
			}
			return &silent{make(chan time.Time, 1)}, nil
		},
	})
	r.round(t.Context())
	wait := r.round(t.Context())
	if fmt.Sprint(opened) != "map[/dev/ttyUSB1:1 /dev/ttyUSB2:1]" {
		t.Errorf("opened %v", opened)
	}
	if wait > lookEvery || wait < time.Second {
		t.Errorf("waits %s", wait)
	}
	if s := r.State(); len(s.Searched) != 2 || s.Trouble == "" || s.Device.Path != "" {
		t.Errorf("got %+v", s)
	}
	list = list[:2] // it is pulled out, and put in again
	r.round(t.Context())
	list = append(list, serial.Info{Name: "ttyUSB1", Path: "/dev/ttyUSB1", Kind: serial.USB, Place: "c"})
	r.round(t.Context())
	if opened["/dev/ttyUSB1"] != 2 {
		t.Errorf("opened %v", opened)
	}
	// A port that the board names counts, whatever it is, and where Only is set no other.
	r.Ports, r.Only = []string{"ttyAMA0"}, true
	if got, err := r.candidates(); err != nil || len(got) != 1 || got[0].Name != "ttyAMA0" {
		t.Errorf("got %v, %v", got, err)
	}
	list[0].Console, list[0].Path = true, os.DevNull
	r.Ports = []string{"ttyAMA0", list[0].Path}
	if got, err := r.candidates(); err != nil || len(got) != 0 {
		t.Errorf("the kernel's console, though it is named: got %v, %v", got, err)
	}
}

// TestReceiverThatFallsSilent: what it said last does not last.
func TestReceiverThatFallsSilent(t *testing.T) {
	m := newTerminal(t)
	h := newHeard()
	r := New(Config{Earliest: noon.AddDate(0, -1, 0), Latest: noon.AddDate(20, 0, 0), Ports: []string{m.name}, Only: true, Rate: 9600, Listener: h})
	r.staleAfter, r.searchAfter = 500*time.Millisecond, 2*time.Second
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { r.Run(ctx) })
	defer running.Wait()
	defer cancel()
	playing, stop := context.WithCancel(ctx)
	running.Go(func() { m.play(playing, t, 9600) })
	h.until(t, "3 ")
	stop()
	h.until(t, "1 stale")
	if s := r.State(); !s.Stale || s.Fix.Mode != NoFix || s.Dropped[ReasonStale] != 1 {
		t.Errorf("got %+v", s)
	}
	h.until(t, "gone")
}

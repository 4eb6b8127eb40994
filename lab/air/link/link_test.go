package link

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"reflect"
	"testing"
	"time"

	"halo.internal/lab/air/hwsim"
)

const limit = 10 * time.Second

// script is a medium that sends what it is told and notes what it gets.
type script struct {
	send chan hwsim.Frame
	got  chan any
	done chan struct{}
}

func newScript() *script {
	return &script{make(chan hwsim.Frame), make(chan any, 16), make(chan struct{})}
}

type delivered struct {
	receiver                net.HardwareAddr
	data                    []byte
	rate, signal, frequency int
}

type reported struct {
	frame  hwsim.Frame
	ack    bool
	signal int
	did    hwsim.Attempts
}

func (s *script) Next() (hwsim.Frame, error) {
	select {
	case f := <-s.send:
		return f, nil
	case <-s.done:
		return hwsim.Frame{}, net.ErrClosed
	}
}

func (s *script) Deliver(r net.HardwareAddr, data []byte, rate, signal, freq int) error {
	s.got <- delivered{r, data, rate, signal, freq}
	return nil
}

func (s *script) Report(f hwsim.Frame, ack bool, signal int, did hwsim.Attempts) error {
	s.got <- reported{f, ack, signal, did}
	return nil
}

func (s *script) Close() error { close(s.done); return nil }

// bench is the machine's radios.
type bench struct{ s *script }

func (b bench) Plug(name string, mac net.HardwareAddr) error {
	b.s.got <- "plug " + name + " " + mac.String()
	return nil
}

func (b bench) Unplug(name string) error { return errors.New("there is none") }

func TestBothEnds(t *testing.T) {
	near, far := net.Pipe()
	var log bytes.Buffer
	r, s := NewRemote(near, slog.New(slog.NewTextHandler(&log, nil))), newScript()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, far, s, bench{s}) }()

	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	check := func(err error, want any) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		select {
		case got := <-s.got:
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got %+v, want %+v", got, want)
			}
		case <-time.After(limit):
			t.Fatalf("nothing came; want %+v", want)
		}
	}
	plan := hwsim.Attempts{{Rate: 3, Count: 2}, {Rate: -1}, {Rate: -1}, {Rate: -1}}
	check(r.Plug("radio0", mac), "plug radio0 02:00:00:00:00:01")
	check(r.Deliver(mac, []byte("a frame"), 4, -60, 2412), delivered{mac, []byte("a frame"), 4, -60, 2412})
	f := hwsim.Frame{Transmitter: mac, Data: bytes.Repeat([]byte{7}, 2300), Flags: 1, Cookie: 1 << 40, FreqMHz: 5180, Plan: plan, Kinds: [4]hwsim.Kind{hwsim.HT}}
	check(r.Report(f, true, -50, plan), reported{hwsim.Frame{Transmitter: mac, Flags: 1, Cookie: 1 << 40}, true, -50, plan})

	frames := make(chan hwsim.Frame)
	over := make(chan error, 1)
	go func() {
		for {
			f, err := r.Next()
			if err != nil {
				over <- err
				return
			}
			frames <- f
		}
	}()
	if err := r.Unplug("radio7"); err != nil {
		t.Fatal(err)
	}
	check(r.Plug("radio1", mac), "plug radio1 02:00:00:00:00:01") // the complaint has gone out by then
	s.send <- f
	if got := <-frames; !reflect.DeepEqual(got, f) {
		t.Errorf("frame: got %+v", got)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("end: %v", err)
	}
	if err := <-over; !errors.Is(err, io.EOF) {
		t.Errorf("after the end: got %v", err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if err := r.Deliver(mac, nil, 0, 0, 0); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after closing: got %v", err)
	}
	if !bytes.Contains(log.Bytes(), []byte("unplug radio7: there is none")) {
		t.Errorf("log: %s", log.Bytes())
	}
}

// TestAMachineThatStandsStill must not hold up the air.
func TestAMachineThatStandsStill(t *testing.T) {
	near, far := net.Pipe() // nobody reads
	defer far.Close()
	r := NewRemote(near, slog.New(slog.DiscardHandler))
	for range 3 * backlog {
		if err := r.Deliver(net.HardwareAddr{2, 0, 0, 0, 0, 1}, make([]byte, 100), 0, 0, 2412); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

func FuzzRead(f *testing.F) {
	var b bytes.Buffer
	if err := write(&b, message{Kind: frame, Address: []byte{2, 0, 0, 0, 0, 1}, Data: make([]byte, 30)}); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := read(bytes.NewReader(b))
		if err == nil && m.Kind == frame && len(m.Data) < 10 {
			t.Errorf("took a frame of %d octets", len(m.Data))
		}
	})
}

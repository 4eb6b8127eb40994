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

func (b bench) Watch(name string, down func()) error {
	if name != "radio0" {
		return errors.New("it has no interface")
	}
	b.s.got <- down
	return nil
}

func (b bench) Kill(process string) error {
	if process != "halo-mesh" {
		return errors.New("no such process")
	}
	b.s.got <- "kill " + process
	return nil
}

func TestBothEnds(t *testing.T) {
	near, far := net.Pipe()
	var log bytes.Buffer
	has := make(chan string, 16)
	r, s := NewRemote(near, Notices{Made: func(name string) { has <- name }}, slog.New(slog.NewTextHandler(&log, nil))), newScript()
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
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)

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
	// What is for a machine that has not come yet is lost, but for its radios.
	if err := errors.Join(r.Plug("radio0", mac), r.Deliver(mac, []byte("too early"), 4, -60, 2412)); err != nil {
		t.Fatal(err)
	}
	go func() { ended <- Serve(ctx, far, s, bench{s}) }()
	check(nil, "plug radio0 02:00:00:00:00:01")
	if got := <-has; got != "radio0" {
		t.Errorf("the machine has made %s, want radio0", got)
	}
	check(r.Deliver(mac, []byte("a frame"), 4, -60, 2412), delivered{mac, []byte("a frame"), 4, -60, 2412})
	f := hwsim.Frame{Transmitter: mac, Data: bytes.Repeat([]byte{7}, 2300), Flags: 1, Cookie: 1 << 40, FreqMHz: 5180, Plan: plan, Kinds: [4]hwsim.Kind{hwsim.HT}}
	check(r.Report(f, true, -50, plan), reported{hwsim.Frame{Transmitter: mac, Flags: 1, Cookie: 1 << 40}, true, -50, plan})

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

// TestADriverThatHangs takes frames and hears nothing until its interface goes
// down; the other radio goes on. A process dies when it is told to.
func TestADriverThatHangs(t *testing.T) {
	near, far := net.Pipe()
	var log bytes.Buffer
	told := make(chan string, 16)
	r := NewRemote(near, Notices{
		Freed: func(radio string) { told <- "freed " + radio }, Killed: func(process string) { told <- "killed " + process },
	}, slog.New(slog.NewTextHandler(&log, nil)))
	defer r.Close()
	s, frames := newScript(), make(chan hwsim.Frame, 16)
	go func() {
		for {
			f, err := r.Next()
			if err != nil {
				return
			}
			frames <- f
		}
	}()
	mac, other := net.HardwareAddr{2, 0, 0, 0, 0, 1}, net.HardwareAddr{2, 0, 0, 0, 0, 2}
	if err := errors.Join(r.Plug("radio0", mac), r.Plug("radio1", other)); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { ended <- Serve(ctx, far, s, bench{s}) }()
	next := func() any {
		t.Helper()
		select {
		case got := <-s.got:
			return got
		case <-time.After(limit):
			t.Fatal("nothing came")
			return nil
		}
	}
	next()
	next() // both are plugged in
	if err := errors.Join(r.Wedge("radio1"), r.Wedge("radio0")); err != nil {
		t.Fatal(err)
	}
	down, ok := next().(func())
	if !ok {
		t.Fatal("its interface is not watched")
	}
	if err := errors.Join(r.Deliver(mac, []byte("unheard"), 4, -60, 2412), r.Report(hwsim.Frame{Transmitter: mac}, true, -60, hwsim.Attempts{}),
		r.Deliver(other, []byte("heard"), 4, -60, 2412)); err != nil {
		t.Fatal(err)
	}
	if got := next(); !reflect.DeepEqual(got, delivered{other, []byte("heard"), 4, -60, 2412}) {
		t.Errorf("got %+v, want what the other radio hears", got)
	}
	data := make([]byte, 30)
	s.send <- hwsim.Frame{Transmitter: mac, Data: data}
	s.send <- hwsim.Frame{Transmitter: other, Data: data}
	if f := <-frames; f.Transmitter.String() != other.String() {
		t.Errorf("a frame of %s came out of a driver that hangs", f.Transmitter)
	}
	down()
	if got := <-told; got != "freed radio0" {
		t.Errorf("told of %q", got)
	}
	s.send <- hwsim.Frame{Transmitter: mac, Data: data}
	if f := <-frames; f.Transmitter.String() != mac.String() {
		t.Errorf("got a frame of %s", f.Transmitter)
	}
	if err := errors.Join(r.Kill("init"), r.Kill("halo-mesh")); err != nil {
		t.Fatal(err)
	}
	if got, word := next(), <-told; got != "kill halo-mesh" || word != "killed halo-mesh" {
		t.Errorf("got %v, told %q", got, word)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	for _, want := range []string{"wedge radio1: it has no interface", "kill init: no such process"} {
		if !bytes.Contains(log.Bytes(), []byte(want)) {
			t.Errorf("log lacks %q: %s", want, log.Bytes())
		}
	}
}

// TestAProcessThatComesAgain finds the stream in the middle of what was for the
// one before it.
func TestAProcessThatComesAgain(t *testing.T) {
	near, far := net.Pipe()
	has := make(chan string, 16)
	r := NewRemote(near, Notices{Made: func(name string) { has <- name }}, slog.New(slog.DiscardHandler))
	defer r.Close()
	go func() {
		for {
			if _, err := r.Next(); err != nil {
				return
			}
		}
	}()
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	if err := r.Plug("radio0", mac); err != nil {
		t.Fatal(err)
	}
	greeting := bytes.Repeat([]byte{7}, greetingSize)
	if err := write(far, message{Kind: hello, Data: greeting}); err != nil {
		t.Fatal(err)
	}
	part := make([]byte, greetingSize+5) // it dies in the midst of a message
	if _, err := io.ReadFull(far, part); err != nil || !bytes.HasPrefix(part, greeting) {
		t.Fatalf("answer to the greeting: %x, %v", part, err)
	}
	if err := r.Deliver(mac, []byte("a frame that nobody takes"), 4, -60, 2412); err != nil {
		t.Fatal(err)
	}
	s := newScript()
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { ended <- Serve(ctx, far, s, bench{s}) }()
	if got := <-s.got; got != "plug radio0 "+mac.String() {
		t.Errorf("first came %v", got)
	}
	if got := <-has; got != "radio0" {
		t.Errorf("the machine has made %s", got)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestWhatAMachineClaims is not believed where it makes no sense.
func TestWhatAMachineClaims(t *testing.T) {
	for name, tc := range map[string]struct {
		m  message
		ok bool
	}{
		"a short greeting":   {message{Kind: hello, Data: []byte("hello")}, false},
		"no radio of ours":   {message{Kind: plugged, Text: "radio9"}, true},
		"a message for us":   {message{Kind: deliver}, true},
		"a frame from where": {message{Kind: frame, Address: []byte{1}, Data: make([]byte, 30)}, false},
	} {
		t.Run(name, func(t *testing.T) {
			near, far := net.Pipe()
			r := NewRemote(near, Notices{Made: func(name string) { t.Errorf("has made %s", name) }}, slog.New(slog.DiscardHandler))
			defer r.Close()
			go func() {
				if write(far, tc.m) == nil && tc.ok {
					_ = write(far, message{Kind: frame, Address: make([]byte, 6), Data: make([]byte, 30)})
				}
			}()
			if _, err := r.Next(); (err == nil) != tc.ok {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestAMachineThatStandsStill must not hold up the air.
func TestAMachineThatStandsStill(t *testing.T) {
	near, far := net.Pipe() // nobody reads
	defer far.Close()
	r := NewRemote(near, Notices{}, slog.New(slog.DiscardHandler))
	if err := r.welcome(make([]byte, greetingSize)); err != nil {
		t.Fatal(err)
	}
	for range 3 * backlog {
		if err := r.Deliver(net.HardwareAddr{2, 0, 0, 0, 0, 1}, make([]byte, 100), 0, 0, 2412); err != nil {
			t.Fatal(err)
		}
	}
	r.mu.Lock()
	if n := len(r.queue); n > backlog {
		t.Errorf("%d messages wait", n)
	}
	r.mu.Unlock()
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

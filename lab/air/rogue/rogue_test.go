package rogue

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"

	"halo.internal/lab/air"
	"halo.internal/lab/air/hwsim"
	"halo.internal/lab/air/physics"
	"halo.internal/model/dot11"
)

var (
	own  = net.HardwareAddr{2, 0xbb, 0, 0, 0, 9}
	from = dot11.MAC{2, 0, 0, 0, 0, 1}
	to   = dot11.MAC{2, 0, 0, 0, 0, 2}
)

// hello is a frame to all, and no beacon of a mesh.
func hello(of dot11.MAC) []byte {
	b := dot11.AppendManagement(nil, dot11.Header{Subtype: beacon, To: toAll, From: of})
	return append(b, "elements"...)
}

func listening(t *testing.T, a Attack, heard ...[]byte) *Rogue {
	t.Helper()
	r, err := New(Config{Attack: a, PerSecond: MaxPerSecond}, own)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	for _, b := range heard {
		if err := r.Deliver(own, b, 4, -60, 2437); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

// next takes a frame and reports that it was not acknowledged.
func next(t *testing.T, r *Rogue) hwsim.Frame {
	t.Helper()
	f, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Report(f, false, 0, f.Plan); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestCommitsAreWholeAndOfMany(t *testing.T) {
	r := listening(t, Commits, hello(from), hello(to), hello(from))
	senders := map[dot11.MAC]int{}
	for range 40 {
		f := next(t, r)
		h, body, err := dot11.ParseManagement(f.Data)
		if err != nil || h.Subtype != dot11.Authentication || h.To != from && h.To != to || h.From == h.To {
			t.Fatalf("got %+v, %v", h, err)
		}
		senders[h.From]++
		if len(body) != 8+32+64 || !bytes.Equal(body[:4], []byte{3, 0, 1, 0}) || body[6] != 19 || !slices.Contains([]byte{0, 126}, body[4]) {
			t.Fatalf("body: %x", body)
		}
		if _, err := ecdh.P256().NewPublicKey(append([]byte{4}, body[40:]...)); err != nil {
			t.Errorf("element: %v", err)
		}
		if f.FreqMHz != 2437 || !bytes.Equal(f.Transmitter, own) {
			t.Errorf("sent on %d MHz by %s", f.FreqMHz, f.Transmitter)
		}
	}
	if len(senders) < 20 || senders[from] == 0 || senders[to] == 0 {
		t.Errorf("by sender: %v, want many, and each of the two in the other's name", senders)
	}
	if s := r.Status(); s.Sent != 40 || s.Heard != 3 || s.Victims != 2 || s.Acked != 0 {
		t.Errorf("got %+v", s)
	}
}

func TestReplay(t *testing.T) {
	first, second := hello(from), hello(to)
	r := listening(t, Replay, first, []byte("too short to have a sender"[:14]), second)
	for _, want := range [][]byte{first, second, first} {
		if f := next(t, r); !bytes.Equal(f.Data, want) {
			t.Errorf("got %x, want %x", f.Data, want)
		}
	}
}

func TestItRemembersSoMuchAndNoMore(t *testing.T) {
	r := listening(t, Replay)
	for i := range 10 * maxKept {
		if err := r.Deliver(own, hello(dot11.MAC{2, 0, 0, 0, byte(i >> 8), byte(i)}), 4, -60, 5180); err != nil {
			t.Fatal(err)
		}
	}
	if len(r.kept) != maxKept || len(r.victims) != maxVictims {
		t.Errorf("%d frames and %d victims", len(r.kept), len(r.victims))
	}
	if f := next(t, r); f.Plan[0].Rate != 0 {
		t.Errorf("rate %d at 5 GHz", f.Plan[0].Rate)
	}
}

func TestRefusals(t *testing.T) {
	for want, c := range map[string]Config{
		"attack: expected one of [commits beacons opens confirms closes deauth replay all channel-switch], got \"siege\"": {Attack: "siege", PerSecond: 1},
		"frames per second: expected 1 to 10000, got 0":                                                                   {Attack: Replay},
	} {
		if _, err := New(c, own); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// silent is a radio that sends one frame and then listens.
type silent struct {
	once  chan hwsim.Frame
	heard chan []byte
	done  chan struct{}
}

func (s silent) Next() (hwsim.Frame, error) {
	select {
	case f := <-s.once:
		return f, nil
	case <-s.done:
		return hwsim.Frame{}, net.ErrClosed
	}
}

func (s silent) Deliver(_ net.HardwareAddr, data []byte, _, _, _ int) error {
	select {
	case s.heard <- data:
	default:
	}
	return nil
}

func (s silent) Report(hwsim.Frame, bool, int, hwsim.Attempts) error { return nil }
func (s silent) Close() error                                        { close(s.done); return nil }

// TestInTheAir has a rogue answer the first frame that it hears, and end.
func TestInTheAir(t *testing.T) {
	a := air.New(air.WiFi(), physics.Outdoors(), 1)
	for name, r := range map[string]air.Radio{"m": {Address: net.HardwareAddr(from[:])}, "rogue": {Address: own, Position: physics.Position{X: 20}}} {
		r.Name, r.Machine, r.PowerDBm = name, name, 20
		if err := a.Place(r); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	carrying := make(chan struct{})
	go func() { a.Carry(ctx); close(carrying) }()
	m := silent{make(chan hwsim.Frame, 1), make(chan []byte, 1), make(chan struct{})}
	r := listening(t, Commits)
	ended := make(chan error, 2)
	go func() { ended <- a.Attach(ctx, "m", m) }()
	go func() { ended <- a.Attach(ctx, "rogue", r) }()
	m.once <- hwsim.Frame{Transmitter: net.HardwareAddr(from[:]), Data: hello(from), FreqMHz: 2412, Plan: hwsim.Attempts{{Rate: 4, Count: 1}, {Rate: -1}, {Rate: -1}, {Rate: -1}}}
	for range 20 {
		h, _, err := dot11.ParseManagement(<-m.heard)
		if err != nil || h.To != from || h.Subtype != dot11.Authentication {
			t.Fatalf("got %+v, %v", h, err)
		}
	}
	cancel()
	for range 2 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	<-carrying
	if _, err := r.Next(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after the end: got %v", err)
	}
	if s := r.Status(); s.Acked == 0 {
		t.Errorf("nobody acknowledged: %+v", s)
	}
}

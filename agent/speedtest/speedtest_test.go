package speedtest

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"halo.internal/model"
)

var loopback = netip.MustParseAddr("127.0.0.1")

// served is a device that serves one test.
type served struct {
	at   netip.AddrPort
	done chan error
	sent int64
	got  int64
}

func serve(t *testing.T, ctx context.Context, peer netip.Addr, want Request, octets int) *served {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &served{at: netip.MustParseAddrPort(l.Addr().String()), done: make(chan error, 1)}
	go func() {
		var err error
		s.sent, s.got, err = Serve(ctx, link{l, octets}, peer, want)
		s.done <- err
	}()
	return s
}

// link is a listener whose connections carry so many octets a second, each way: what
// is written waits for it, and what is read is held back. 0: as many as there are.
type link struct {
	net.Listener
	rate int
}

func (l link) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil || l.rate == 0 {
		return c, err
	}
	_ = c.(*net.TCPConn).SetReadBuffer(32 << 10) // so that what is held back holds the sender
	return narrow{c, l.rate}, nil
}

type narrow struct {
	net.Conn
	rate int
}

func (n narrow) wait(octets int) {
	time.Sleep(time.Second * time.Duration(octets) / time.Duration(n.rate))
}

func (n narrow) Write(b []byte) (int, error) {
	n.wait(len(b))
	return n.Conn.Write(b)
}

func (n narrow) Read(b []byte) (int, error) {
	got, err := n.Conn.Read(b)
	n.wait(got)
	return got, err
}

func TestATestMeasuresBothWays(t *testing.T) {
	q := Request{Ticket: model.SpeedTicket{1, 2, 3}, Down: model.SpeedDownBytes, Up: model.SpeedUpBytes, Limit: model.SpeedLimit}
	s := serve(t, t.Context(), loopback, q, 0)
	res, err := Measure(t.Context(), s.at, q)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-s.done; err != nil {
		t.Fatal(err)
	}
	if res.Down.Bytes != model.SpeedDownBytes || res.Up.Bytes != model.SpeedUpBytes || res.Down.Cut || res.Up.Cut {
		t.Errorf("got %+v", res)
	}
	if res.Down.Mbps <= 0 || res.Up.Mbps <= 0 || res.LatencyMS <= 0 {
		t.Errorf("nothing was measured: %+v", res)
	}
	if s.sent != model.SpeedDownBytes || s.got != model.SpeedUpBytes {
		t.Errorf("served %d and %d octets", s.sent, s.got)
	}
}

// A link of 0.8 Mbit/s: it is measured right, in the time that there is, with less.
func TestASlowLinkIsMeasuredWithLess(t *testing.T) {
	q := Request{Ticket: model.SpeedTicket{9}, Down: model.SpeedDownBytes, Up: model.SpeedUpBytes, Limit: 2 * time.Second}
	s := serve(t, t.Context(), loopback, q, 100_000)
	begin := time.Now()
	res, err := Measure(t.Context(), s.at, q)
	if err != nil {
		t.Fatal(err)
	}
	if err := <-s.done; err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took > 30*time.Second {
		t.Errorf("it took %s", took)
	}
	for name, w := range map[string]model.SpeedWay{"down": res.Down, "up": res.Up} {
		if !w.Cut || w.Bytes >= model.SpeedUpBytes || w.Mbps < 0.3 || w.Mbps > 1.6 {
			t.Errorf("%s: got %+v, want about 0.8 Mbit/s, cut", name, w)
		}
	}
}

func TestOneWayAlone(t *testing.T) {
	q := Request{Ticket: model.SpeedTicket{7}, Down: 100_000, Limit: time.Second}
	s := serve(t, t.Context(), loopback, q, 0)
	res, err := Measure(t.Context(), s.at, q)
	if err != nil {
		t.Fatal(err)
	}
	if res.Down.Bytes != 100_000 || res.Up != (model.SpeedWay{}) {
		t.Errorf("got %+v", res)
	}
	if err := <-s.done; err != nil {
		t.Error(err)
	}
}

// Strangers cost the test nothing but their turns, and get nothing.
func TestStrangersAreNotServed(t *testing.T) {
	q := Request{Ticket: model.SpeedTicket{1}, Down: 1000, Limit: time.Second}
	s := serve(t, t.Context(), loopback, q, 0)
	good := q.encode()
	change := func(at int, v byte) []byte {
		b := append([]byte(nil), good...)
		b[at] = v
		return b
	}
	for name, hello := range map[string][]byte{
		"no greeting": []byte("GET / HTTP/1.1\r\nHost: 10.42.0.7:4257\r\n\r\n"),
		"form":        change(0, 'h'),
		"ticket":      change(len(form)+15, 1),
		"more":        change(greeting-12, 0xff),
		"longer":      change(greeting-2, 0xff),
	} {
		c, err := net.Dial("tcp", s.at.String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Write(hello); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
		if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("%s: got an answer", name)
		}
		c.Close()
	}
	if _, err := Measure(t.Context(), s.at, q); err != nil {
		t.Errorf("the one that is waited for: %v", err)
	}
	if err := <-s.done; err != nil {
		t.Error(err)
	}

	elsewhere := serve(t, t.Context(), netip.MustParseAddr("127.0.0.2"), q, 0)
	for range maxStrange {
		if _, err := Measure(t.Context(), elsewhere.at, q); err == nil {
			t.Error("a device of another address was served")
		}
	}
	if err := <-elsewhere.done; !errors.Is(err, ErrStrange) {
		t.Errorf("got %v, want it to give up", err)
	}
}

func TestNobodyComes(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := <-serve(t, ctx, loopback, Request{}, 0).done; !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if _, err := Measure(t.Context(), netip.MustParseAddrPort("127.0.0.1:1"), Request{Limit: time.Second}); err == nil {
		t.Error("nobody serves, and it was measured")
	}
}

// What the other device says is no more to be believed than what comes from
// anywhere: it may send for ever, say nothing, or lie about what arrived.
func TestADeviceThatLies(t *testing.T) {
	end := make([]byte, 4)
	flood := append(binary.BigEndian.AppendUint32(nil, frame), make([]byte, frame)...)
	for name, tc := range map[string]struct {
		sends []byte
		want  string
	}{
		"frames without end": {append(append([]byte(nil), flood...), flood...), "8192 after 8192"},
		"a frame of 4 GiB":   {binary.BigEndian.AppendUint32(nil, 1<<32-1), "4294967295"},
		"more than was sent": {append(append([]byte(nil), end...), arrived{all: 1_000_001}.encode()...), "1000001"},
		"before it began":    {append(append([]byte(nil), end...), arrived{took: -1}.encode()...), "in 18446744073709551615 ns"},
		"nothing":            {nil, "down: EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				c, err := l.Accept()
				if err != nil {
					return
				}
				defer c.Close()
				w := newWay(c)
				_ = w.read(make([]byte, greeting))
				for b := []byte{0}; b[0] != lastPing && w.read(b) == nil; {
					_ = w.send(b)
				}
				if tc.sends == nil {
					return
				}
				_ = w.send(tc.sends)
				_, _ = io.Copy(io.Discard, w.in) // until the other side has gone
			}()
			_, err = Measure(t.Context(), netip.MustParseAddrPort(l.Addr().String()), Request{Down: frame, Up: 1_000_000, Limit: time.Second})
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

// What one device says of what arrived is read by another.
func FuzzArrived(f *testing.F) {
	f.Add(arrived{all: 5, behind: 4, took: time.Second}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) != verdict {
			return
		}
		a, err := decodeArrived(b, model.SpeedUpBytes)
		if err != nil {
			return
		}
		if w := a.way(model.SpeedUpBytes); string(a.encode()) != string(b) || w.Bytes > model.SpeedUpBytes || w.Mbps < 0 || w.Seconds < 0 {
			t.Errorf("%x reads as %+v, %+v", b, a, w)
		}
	})
}

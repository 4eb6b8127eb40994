package ntp

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"halo.internal/mesh/listen"
	"halo.internal/mesh/nstest"
	"halo.internal/model"
)

func TestMain(m *testing.M) { os.Exit(nstest.Main(m)) }

// patience is how long a test waits for what must happen.
const patience = 2 * time.Minute

var (
	now  = time.Date(2026, 11, 28, 12, 0, 0, 500_000_000, time.UTC)
	from = &net.UDPAddr{IP: net.IPv4(10, 43, 5, 20), Port: 123}
)

// ask is a client's request of that version and mode.
func ask(version, mode byte) []byte {
	b := make([]byte, size)
	b[0] = version<<3 | mode
	b[2] = 10
	copy(b[40:], "sent at?")
	return b
}

func newServer(readings ...Reading) *Server {
	return New(Config{Log: slog.New(slog.DiscardHandler), Clock: func() Reading {
		r := readings[0]
		if len(readings) > 1 {
			readings = readings[1:]
		}
		return r
	}})
}

func TestAnswer(t *testing.T) {
	for _, test := range []struct {
		name       string
		r          Reading
		leap       byte
		stratum    byte
		dispersion float64
		reference  string
	}{
		{"GPS", Reading{now, model.ClockGPS, "", now}, 0, 1, 0.1, "GPS\x00"},
		{"GPS a while ago", Reading{now, model.ClockGPS, "", now.Add(-10_000 * time.Second)}, 0, 1, 0.6, "GPS\x00"},
		{"battery", Reading{now, model.ClockRTC, "", time.Time{}}, 0, 10, 0.5, "\x7f\x7f\x01\x01"},
		{"gateway with GPS", Reading{now, model.ClockGateway, model.ClockGPS, now.Add(-2000 * time.Second)}, 0, 2, 0.5, "\x0a\x2a\x00\x01"},
		{"gateway with a battery", Reading{now, model.ClockGateway, model.ClockRTC, now}, 0, 11, 0.8, "\x0a\x2a\x00\x01"},
		{"gateway with what", Reading{now, model.ClockGateway, "", time.Time{}}, 0, 11, 0.8, "\x0a\x2a\x00\x01"},
		{"set in the future", Reading{now, model.ClockGPS, "", now.Add(time.Hour)}, 0, 1, 0.1, "GPS\x00"},
		{"a person", Reading{now, model.ClockLogin, "", now}, 0, 11, 1, "\x7f\x7f\x01\x01"},
		{"gateway that a person has told", Reading{now, model.ClockGateway, model.ClockLogin, now}, 0, 12, 1.3, "\x0a\x2a\x00\x01"},
		{"guess", Reading{now, model.ClockNone, "", now}, 3, 0, 0, "INIT"},
		{"nonsense", Reading{now, "atomic", "", now}, 3, 0, 0, "INIT"},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newServer(test.r).answer(ask(4, modeClient), from, test.r)
			if len(b) != size {
				t.Fatalf("expected %d octets, got %d", size, len(b))
			}
			if b[0] != test.leap<<6|4<<3|4 || b[1] != test.stratum || b[2] != 10 || string(b[12:16]) != test.reference {
				t.Errorf("expected leap %d, version 4, mode 4, stratum %d, poll 10, reference %q, got %x", test.leap, test.stratum, test.reference, b[:16])
			}
			if d := float64(binary.BigEndian.Uint32(b[8:])) / (1 << 16); d < test.dispersion-0.001 || d > test.dispersion+0.001 {
				t.Errorf("dispersion: expected %.3f s, got %.3f", test.dispersion, d)
			}
			if string(b[24:32]) != "sent at?" {
				t.Errorf("origin: got %q", b[24:32])
			}
			if test.leap == 0 && (hex.EncodeToString(b[32:40]) != "eeb540c080000000" || !bytes.Equal(b[32:40], b[40:48])) {
				t.Errorf("times: got %x, %x", b[32:40], b[40:48])
			}
			if test.leap == 3 && (string(b[40:48]) != "sent at?" || string(b[32:40]) != "sent at?") {
				t.Errorf("a guess tells a time: %x", b)
			}
		})
	}
}

func TestTime(t *testing.T) {
	for at, want := range map[string]string{
		"1970-01-01T00:00:00Z":    "83aa7e8000000000", // RFC 5905, figure 4
		"1999-12-31T00:00:00Z":    "bc16708000000000",
		"2026-11-28T12:00:00.25Z": "eeb540c040000000",
		"2036-02-07T06:28:15Z":    "ffffffff00000000", // the era's last second
		"2036-02-07T06:28:16Z":    "0000000000000000",
		"2046-02-07T06:28:16.5Z":  "12cff78080000000",
	} {
		when, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 8)
		putTime(b, when)
		if got := hex.EncodeToString(b); got != want {
			t.Errorf("%s: expected %s, got %s", at, want, got)
		}
	}
}

func TestIgnored(t *testing.T) {
	r := Reading{now, model.ClockGPS, "", now}
	s := newServer(r)
	ignored := [][]byte{nil, make([]byte, size-1), make([]byte, maxRequest+1), ask(1, modeClient), ask(5, modeClient)}
	for mode := range byte(8) { // control and private are 6 and 7
		if mode != modeClient {
			ignored = append(ignored, ask(4, mode), ask(2, mode))
		}
	}
	for _, b := range ignored {
		if got := s.answer(b, from, r); got != nil {
			t.Errorf("%x is answered by %x", b, got)
		}
	}
	if c := s.Counts(); c.Ignored != uint64(len(ignored)) {
		t.Errorf("counts: %+v", c)
	}
	for _, b := range [][]byte{ask(2, modeClient), ask(3, modeClient), append(ask(4, modeClient), make([]byte, 200)...)} {
		got := s.answer(b, from, r)
		if len(got) != size || got[0]>>3 != b[0]>>3 {
			t.Errorf("%x is answered by %x", b, got)
		}
	}
	// The clock is set while the answer is made.
	for _, d := range []time.Duration{-time.Second, time.Hour} {
		if got := newServer(Reading{now.Add(d), model.ClockGPS, "", now}).answer(ask(4, modeClient), from, r); got != nil {
			t.Errorf("clock set by %s: answered by %x", d, got)
		}
	}
}

func TestLimit(t *testing.T) {
	at := now
	l := newLimit(func() time.Time { return at })
	a, b := netip.MustParseAddr("10.43.5.20"), netip.MustParseAddr("10.43.5.21")
	run := func(addr netip.Addr, n int) (got [3]int) {
		for range n {
			got[l.ask(addr)]++
		}
		return got
	}
	for _, test := range []struct {
		name string
		addr netip.Addr
		wait time.Duration
		want [3]int
	}{
		{"at once", a, 0, [3]int{16, 1, 83}},
		{"another", b, 0, [3]int{16, 1, 83}},
		{"soon after", a, 4 * time.Second, [3]int{2, 0, 98}},
		{"later", a, 5 * time.Second, [3]int{2, 1, 97}},
		{"much later", a, time.Hour, [3]int{16, 1, 83}},
	} {
		at = at.Add(test.wait)
		if got := run(test.addr, 100); got != test.want {
			t.Errorf("%s: expected %v answered, told and ignored, got %v", test.name, test.want, got)
		}
	}
	for i := range 3 * maxClients {
		l.ask(netip.AddrFrom4([4]byte{10, 43, byte(i >> 8), byte(i)}))
	}
	if len(l.clients) != maxClients || l.order.Len() != maxClients {
		t.Errorf("expected %d clients at most, got %d", maxClients, len(l.clients))
	}
	s := newServer(Reading{now, model.ClockGPS, "", now})
	for range burst {
		s.answer(ask(4, modeClient), from, Reading{Now: now})
	}
	if got := s.answer(ask(4, modeClient), from, Reading{Now: now}); len(got) != size || got[0] != 3<<6|4<<3|4 || got[1] != 0 || string(got[12:16]) != "RATE" || got[2] != ratePoll {
		t.Errorf("expected to be told RATE, got %x", got)
	}
}

func FuzzRequest(f *testing.F) {
	f.Add(ask(4, modeClient))
	f.Add(ask(4, 6))
	f.Add(ask(2, 7))
	r := Reading{now, model.ClockGateway, model.ClockGPS, now}
	f.Fuzz(func(t *testing.T, b []byte) {
		got := newServer(r).answer(b, from, r)
		if got == nil {
			return
		}
		if len(got) > len(b) || got[0]&7 != modeServer || !bytes.Equal(got[24:32], b[40:48]) {
			t.Errorf("%x is answered by %x", b, got)
		}
	})
}

// TestClient has a client from Debian ask, from a namespace of its own.
func TestClient(t *testing.T) {
	near, far := nstest.Cable(t, "br0", "phone0")
	add := func(l netlink.Link, prefix string) error {
		a, err := netlink.ParseAddr(prefix)
		if err != nil {
			return err
		}
		return netlink.AddrAdd(l, a)
	}
	if err := add(near, "10.43.5.1/24"); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	reading := Reading{Quality: model.ClockNone}
	offset := time.Duration(0)
	set := func(quality, gateway model.ClockQuality, ahead time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		reading.Quality, reading.Gateway, offset = quality, gateway, ahead
	}
	s := New(Config{Log: slog.New(slog.DiscardHandler), Clock: func() Reading {
		mu.Lock()
		defer mu.Unlock()
		r := reading
		r.Now = time.Now().Add(offset)
		r.Set = r.Now.Add(-time.Minute)
		return r
	}})
	go s.Serve(t.Context(), listen.At{Iface: "br0", Addr: netip.MustParseAddr("10.43.5.1"), From: []netip.Prefix{netip.MustParsePrefix("10.43.5.0/24")}})

	var home netns.NsHandle
	nstest.Away(t, far, func(l netlink.Link) (err error) {
		if home, err = netns.Get(); err != nil {
			return err
		}
		return add(l, "10.43.5.20/24")
	})
	defer home.Close()
	ntpdig := func() (out string) {
		t.Helper()
		done := make(chan error)
		go func() {
			done <- inside(home, func() error {
				b, err := exec.Command("ntpdig", "-t", "20", "10.43.5.1").CombinedOutput()
				out = string(b)
				if _, exited := err.(*exec.ExitError); exited {
					err = nil
				}
				return err
			})
		}()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		return out
	}
	until := func(what string, ok func(string) bool) {
		t.Helper()
		var out string
		for began := time.Now(); time.Since(began) < patience; {
			if out = ntpdig(); ok(out) {
				return
			}
		}
		t.Fatalf("%s: got %q", what, out)
	}
	until("a guess", func(out string) bool { return s.Counts().Unsynchronised > 0 && !strings.Contains(out, " s0") })
	set(model.ClockGateway, model.ClockGPS, 0)
	until("as good as a GPS gateway", func(out string) bool {
		return strings.Contains(out, "10.43.5.1 s2 no-leap") && (strings.Contains(out, " +0.0") || strings.Contains(out, " -0.0"))
	})
	set(model.ClockRTC, "", 1000*time.Second)
	until("a thousand seconds ahead", func(out string) bool {
		return strings.Contains(out, "10.43.5.1 s10 no-leap") && (strings.Contains(out, " +1000.0") || strings.Contains(out, " +999.9"))
	})
}

// inside calls f in the namespace; the thread ends with the goroutine.
func inside(ns netns.NsHandle, f func() error) error {
	runtime.LockOSThread()
	if err := netns.Set(ns); err != nil {
		return err
	}
	return f()
}

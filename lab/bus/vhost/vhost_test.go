//go:build linux

package vhost_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"halo.internal/lab/bus/vhost"
	"halo.internal/lab/bus/vhost/vhosttest"
)

// echo answers with what it was told; "keep" it keeps.
type echo struct {
	mu      sync.Mutex
	kept    []*vhost.Request
	stopped int
	asked   int
}

func (e *echo) Features() uint64 { return 1 }
func (e *echo) Queues() int      { return 2 }
func (e *echo) Config() []byte   { return []byte("configuration") }

func (e *echo) Handle(_ context.Context, _ int, r *vhost.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asked++
	if bytes.HasPrefix(r.Out, []byte("keep")) {
		e.kept = append(e.kept, r)
		return
	}
	r.Reply(r.Out)
}

func (e *echo) Stopped(int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stopped++
}

func start(t testing.TB, d vhost.Device) *vhosttest.Guest {
	t.Helper()
	ctx, end := context.WithCancel(context.Background())
	t.Cleanup(end)
	return vhosttest.New(t, d.Queues(), func(c net.Conn) error { return vhost.Serve(ctx, c, d, slog.New(slog.DiscardHandler)) })
}

func TestRequests(t *testing.T) {
	d := &echo{}
	g := start(t, d)
	g.Start()
	for i := range 100 { // many times around the ring
		text := []byte(strings.Repeat("what is said ", 1+i%40))
		if got := g.Submit(i%2, text, len(text)+i).Wait(); !bytes.Equal(got, text) {
			t.Fatalf("request %d: got %q", i, got)
		}
	}
	if got := g.Submit(0, []byte("more than there is room for"), 4).Wait(); string(got) != "more" {
		t.Errorf("with little room: got %q", got)
	}
	// Several at once, and one kept over others.
	kept := g.Submit(0, []byte("keep this"), 20)
	a, b := g.Add(0, []byte("first"), 5), g.Add(0, []byte("second"), 6)
	g.Kick(0)
	if string(b.Wait()) != "second" || string(a.Wait()) != "first" || kept.Done() {
		t.Error("the answers are mixed up")
	}
	d.mu.Lock()
	d.kept[0].Reply([]byte("at last"))
	d.kept[0].Reply([]byte("twice"))
	d.mu.Unlock()
	if got := kept.Wait(); string(got) != "at last" {
		t.Errorf("kept: got %q", got)
	}
}

func TestConfiguration(t *testing.T) {
	g := start(t, &echo{})
	window := func(offset, size uint32) []byte {
		b := binary.LittleEndian.AppendUint32(nil, offset)
		b = binary.LittleEndian.AppendUint32(b, size)
		return append(b, make([]byte, 4+size)...)
	}
	for _, tc := range []struct {
		offset, size uint32
		want         string
	}{{0, 6, "config"}, {6, 4, "urat"}, {10, 6, "ion\x00\x00\x00"}} {
		b, err := g.Ask(24, window(tc.offset, tc.size))
		if err != nil || string(b[12:]) != tc.want {
			t.Errorf("%d from %d: got %q, %v", tc.size, tc.offset, b, err)
		}
	}
}

// A queue that stops takes its requests with it, and goes on where it was.
func TestStopAndStart(t *testing.T) {
	d := &echo{}
	g := start(t, d)
	g.Start()
	kept := g.Submit(0, []byte("keep this"), 20)
	if got := g.Submit(0, []byte("x"), 1).Wait(); string(got) != "x" {
		t.Fatalf("got %q", got)
	}
	g.Stop(0)
	d.mu.Lock()
	if d.stopped != 1 || len(d.kept) != 1 {
		t.Fatalf("stopped %d times, %d kept", d.stopped, len(d.kept))
	}
	d.kept[0].Reply([]byte("too late"))
	d.mu.Unlock()
	if kept.Done() {
		t.Error("an answer came to a queue that has stopped")
	}
	g.StartQueue(0, 2)
	if got := g.Submit(0, []byte("again"), 5).Wait(); string(got) != "again" {
		t.Errorf("got %q", got)
	}
}

// What breaks the rules is not served, and nothing else suffers.
func TestHostileGuest(t *testing.T) {
	const next, write, indirect = 1, 2, 4
	at := func(g *vhosttest.Guest, n int) uint64 { return uint64(vhosttest.GuestBase + g.Buffer(n)) }
	for name, offer := range map[string]func(g *vhosttest.Guest, table int){
		"outside of memory": func(g *vhosttest.Guest, table int) { g.Descriptor(table, 0, 0x1000, 16, 0, 0) },
		"over memory's end": func(g *vhosttest.Guest, table int) {
			g.Descriptor(table, 0, vhosttest.GuestBase+vhosttest.Size-8, 16, 0, 0)
		},
		"an address overflows": func(g *vhosttest.Guest, table int) { g.Descriptor(table, 0, ^uint64(0)-4, 16, 0, 0) },
		"huge":                 func(g *vhosttest.Guest, table int) { g.Descriptor(table, 0, vhosttest.GuestBase, 1<<31, 0, 0) },
		"a loop":               func(g *vhosttest.Guest, table int) { g.Descriptor(table, 0, at(g, 8), 8, next, 0) },
		"a next that is not":   func(g *vhosttest.Guest, table int) { g.Descriptor(table, 0, at(g, 8), 8, next, 0xffff) },
		"room before what is said": func(g *vhosttest.Guest, table int) {
			g.Descriptor(table, 0, at(g, 8), 8, write|next, 1)
			g.Descriptor(table, 1, at(g, 8), 8, 0, 0)
		},
		"a table in a table": func(g *vhosttest.Guest, table int) {
			b := g.Buffer(16)
			g.Descriptor(b, 0, uint64(vhosttest.GuestBase+b), 16, indirect, 0)
			g.Descriptor(table, 0, uint64(vhosttest.GuestBase+b), 16, indirect, 0)
		},
		"half a descriptor in a table": func(g *vhosttest.Guest, table int) { g.Descriptor(table, 0, at(g, 16), 24, indirect, 0) },
		"a huge table":                 func(g *vhosttest.Guest, table int) { g.Descriptor(table, 0, vhosttest.GuestBase, 1<<19, indirect, 0) },
		"a table outside":              func(g *vhosttest.Guest, table int) { g.Descriptor(table, 0, 16, 16, indirect, 0) },
		"more than the queue has":      func(g *vhosttest.Guest, _ int) { g.SetIndex(0, 100) },
	} {
		t.Run(name, func(t *testing.T) {
			d := &echo{}
			g := start(t, d)
			g.Start()
			offer(g, g.Table(0))
			if !strings.HasPrefix(name, "more than") {
				g.Offer(0, 0)
			}
			g.Kick(0)
			// The other queue is served on, and the first again when it starts anew.
			if got := g.Submit(1, []byte("well"), 4).Wait(); string(got) != "well" {
				t.Errorf("got %q", got)
			}
			g.Stop(0)
			d.mu.Lock()
			defer d.mu.Unlock()
			if d.asked != 1 {
				t.Errorf("the device was asked %d times", d.asked)
			}
		})
	}
}

// What a front end may not say ends the connection.
func TestHostileFrontEnd(t *testing.T) {
	words := func(v ...uint32) (b []byte) {
		for _, w := range v {
			b = binary.LittleEndian.AppendUint32(b, w)
		}
		return b
	}
	for name, tc := range map[string]struct {
		say  func(g *vhosttest.Guest) error
		want string
	}{
		"a request of another protocol": {func(g *vhosttest.Guest) error { return g.Send(99, nil) }, "request 99"},
		"half a payload":                {func(g *vhosttest.Guest) error { return g.Send(9, words(0, 0)) }, "expected at least 40 octets, got 8"},
		"a huge payload":                {func(g *vhosttest.Guest) error { return g.Send(24, make([]byte, 5000)) }, "expected at most 4096 octets, got 5000"},
		"a queue that is not":           {func(g *vhosttest.Guest) error { return g.Send(8, words(2, 8)) }, "expected a queue below 2, got 2"},
		"an odd size of a queue":        {func(g *vhosttest.Guest) error { return g.Send(8, words(0, 9)) }, "expected a power of two"},
		"a huge queue":                  {func(g *vhosttest.Guest) error { return g.Send(8, words(0, 32768)) }, "up to 1024"},
		"rings before memory": {func(g *vhosttest.Guest) error {
			_ = g.Send(8, words(0, 8)) // the next one tells
			return g.Send(9, g.Addresses(0))
		}, "expected the rings in the guest's memory"},
		"a region without a file":    {func(g *vhosttest.Guest) error { return g.Send(5, g.Region(0, 4096)) }, "a descriptor each"},
		"a window out of the config": {func(g *vhosttest.Guest) error { return g.Send(24, words(0, 1000, 0)) }, "expected a window"},
		"more memory than its file has": {func(g *vhosttest.Guest) error {
			fd := vhosttest.Memfd(t, 4096, unix.F_SEAL_SHRINK)
			defer unix.Close(fd)
			return g.Send(5, g.Region(0, 8192), fd)
		}, "expected a piece of a file of 4096 octets"},
		"many files": {func(g *vhosttest.Guest) error {
			fd := vhosttest.Memfd(t, 4096, unix.F_SEAL_SHRINK)
			defer unix.Close(fd)
			return g.Send(5, g.Region(0, 4096), fd, fd, fd, fd, fd, fd, fd, fd, fd, fd)
		}, "descriptors"},
		"memory that may be cut short": {func(g *vhosttest.Guest) error {
			fd := vhosttest.Memfd(t, vhosttest.Size, 0)
			defer unix.Close(fd)
			_ = g.Send(5, g.Region(0, vhosttest.Size), fd)
			_ = g.Send(8, words(0, 8))
			return g.Send(9, g.Addresses(0))
		}, "expected the rings in the guest's memory"},
	} {
		t.Run(name, func(t *testing.T) {
			ended := make(chan error, 1)
			g := vhosttest.New(t, 0, func(c net.Conn) error {
				err := vhost.Serve(t.Context(), c, &echo{}, slog.New(slog.DiscardHandler))
				ended <- err
				return err
			})
			if err := tc.say(g); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-ended:
				if err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("got %v, want %q", err, tc.want)
				}
			case <-time.After(vhosttest.Limit):
				t.Error("it is served on")
			}
		})
	}
}

// FuzzGuest writes anything at all where rings and descriptors are.
func FuzzGuest(f *testing.F) {
	f.Add(uint16(0), uint16(1), []byte{})
	f.Add(uint16(3), uint16(8), bytes.Repeat([]byte{0, 0, 0, 0x40, 0, 0, 0, 0, 8, 0, 0, 0, 1, 0, 1, 0}, 8))
	f.Fuzz(func(t *testing.T, head, count uint16, table []byte) {
		d := &echo{}
		g := start(t, d)
		g.Start()
		copy(g.Memory[g.Table(0):g.Table(0)+0x4000], table)
		for range min(count, 16) {
			g.Offer(0, head)
			head++
		}
		g.Kick(0)
		if got := g.Submit(1, []byte("well"), 4).Wait(); string(got) != "well" {
			t.Errorf("the other queue: got %q", got)
		}
		g.Stop(0)
	})
}

// FuzzFrontEnd says anything at all on the socket.
func FuzzFrontEnd(f *testing.F) {
	f.Add(uint32(5), []byte{1, 0, 0, 0}, uint32(9), make([]byte, 40))
	f.Add(uint32(8), []byte{0, 0, 0, 0, 8, 0, 0, 0}, uint32(12), make([]byte, 8))
	f.Fuzz(func(t *testing.T, a uint32, first []byte, b uint32, second []byte) {
		g := vhosttest.New(t, 0, func(c net.Conn) error {
			return vhost.Serve(t.Context(), c, &echo{}, slog.New(slog.DiscardHandler))
		})
		fd := vhosttest.Memfd(t, 1<<16, unix.F_SEAL_SHRINK)
		defer unix.Close(fd)
		// It may hang up in between.
		_ = g.Send(5, g.Region(0, 1<<16), fd)
		_ = g.Send(a, first)
		_ = g.Send(b, second, fd)
	})
}

//go:build lab

package macsec_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"halo.internal/lab/testvm"
	"halo.internal/mesh/nstest"
	"halo.internal/mesh/port/filter"
	"halo.internal/mesh/port/proof"
	"halo.internal/model/paths"
)

// These tests run in the test machine, whose kernel is that of the images, and
// which loads macsec when it is asked for, as they do.
func TestMain(m *testing.M) {
	testvm.Main(m, testvm.Options{Modules: []string{"batman_adv"}, MemoryMB: 512})
}

// patience is far beyond what any of this takes.
const patience = 10 * time.Minute

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func until(t *testing.T, what string, check func() error) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(200 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s: %v", what, patience, err)
		}
	}
}

// segment is a switch that knows no addresses, so that everybody hears all, with
// members and a socket that records and sends.
type segment struct {
	t       *testing.T
	hub     netlink.Link
	members []*member
	tap     *packet.Conn // of a stranger, who is plugged in too

	mu     sync.Mutex
	frames [][]byte
	kinds  map[uint16]int
	long   int // octets of the longest MACsec frame
}

// newSegment makes it; names begin with the prefix, since the kernel removes those
// of a test before at its leisure.
func newSegment(t *testing.T, prefix string, n int) *segment {
	t.Helper()
	s := &segment{t: t, kinds: map[uint16]int{}}
	var far []netlink.Link
	for i := range n {
		near, f := nstest.Cable(t, fmt.Sprintf("%s%d", prefix, i), fmt.Sprintf("far-%s%d", prefix, i))
		far = append(far, f)
		ok(t, netlink.LinkSetMTU(f, 2000))
		s.members = append(s.members, &member{t: t, c: childConfig{Key: byte(i + 1), Port: fmt.Sprintf("%s%d", prefix, i)}, host: nstest.NewHost(t, near)})
	}
	stranger, f := nstest.Cable(t, "stranger", "far-stranger")
	far = append(far, f)
	s.hub = nstest.Hub(t, "hub", far...)
	for _, l := range far {
		ok(t, netlink.LinkSetLearning(l, false))
	}
	for _, l := range []netlink.Link{stranger, f, s.hub} {
		ok(t, netlink.LinkSetMTU(l, 2000))
	}
	var err error
	s.tap, err = packet.Listen(&net.Interface{Index: stranger.Attrs().Index, Name: "stranger"}, packet.Raw, unix.ETH_P_ALL, nil)
	ok(t, err)
	t.Cleanup(func() { _ = s.tap.Close() })
	ok(t, s.tap.SetPromiscuous(true))
	go s.record()
	return s
}

// record keeps what is on the wire.
func (s *segment) record() {
	buf := make([]byte, 3000)
	for {
		n, _, err := s.tap.ReadFrom(buf)
		if err != nil {
			return
		}
		if n < 14 {
			continue
		}
		kind := binary.BigEndian.Uint16(buf[12:])
		s.mu.Lock()
		s.kinds[kind]++
		if kind == paths.EtherTypeMACsec {
			s.long = max(s.long, n)
			if len(s.frames) < 2000 {
				s.frames = append(s.frames, slices.Clone(buf[:n]))
			}
		}
		s.mu.Unlock()
	}
}

// forget begins a new recording.
func (s *segment) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.frames, s.long = nil, 0
	clear(s.kinds)
}

func (s *segment) seen(kind uint16) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.kinds[kind]
}

func (s *segment) recorded() [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.frames)
}

func (s *segment) send(b []byte) {
	s.t.Helper()
	_, err := s.tap.WriteTo(b, &packet.Addr{HardwareAddr: b[:6]})
	ok(s.t, err)
}

// start starts members and waits until each has the others as neighbours under
// MACsec.
func (s *segment) start() {
	s.t.Helper()
	for _, m := range s.members {
		m.start()
	}
	for _, m := range s.members {
		m.await("encrypted")
		until(s.t, "all are neighbours", func() error {
			st := m.status()
			for _, o := range s.members {
				id := testKey(o.c.Key).ID()
				if o != m && st.Neighbours[id] != "macsec-"+m.c.Port {
					return fmt.Errorf("%s of member %d: %q, all: %v; %+v", id, m.c.Key, st.Neighbours[id], st.Neighbours, st.Ports)
				}
			}
			return nil
		})
	}
}

// withoutMACsec has the kernel find no module macsec until the function that is
// returned is called.
func withoutMACsec(t *testing.T) (restore func()) {
	t.Helper()
	const helper = "/proc/sys/kernel/modprobe"
	// What else is loaded when it is asked for has to be there before.
	ok(t, filter.Apply("stranger", filter.Policy{DHCP: true, Batman: true, Members: []proof.MAC{{2}}, Secured: []proof.MAC{{2}}}))
	ok(t, filter.Open("stranger"))
	until(t, "no MACsec in the kernel", func() error {
		if err := unix.DeleteModule("macsec", unix.O_NONBLOCK); !errors.Is(err, unix.ENOENT) {
			return err // interfaces of a test before may be there
		}
		return nil
	})
	was, err := os.ReadFile(helper)
	ok(t, err)
	ok(t, os.WriteFile(helper, []byte("/nowhere\n"), 0))
	var once sync.Once
	restore = func() { once.Do(func() { ok(t, os.WriteFile(helper, was, 0)) }) }
	t.Cleanup(restore)
	return restore
}

// TestSegment is three members and a stranger at one switch.
func TestSegment(t *testing.T) {
	s := newSegment(t, "p", 3)
	s.start()
	a, b, c := s.members[0], s.members[1], s.members[2]

	a.reaches(b, ula(2), "first")
	c.reaches(a, group, "all")
	until(t, "multicast reaches all", func() error {
		if b.count("all") == 0 {
			return errors.New("nothing came")
		}
		return nil
	})
	for name, want := range map[string]int{"p0": 1592, "macsec-p0": 1560} {
		if got := a.status().MTU[name]; got < want {
			t.Errorf("MTU of %s: expected at least %d, got %d", name, want, got)
		}
	}
	s.forget()
	a.send(ula(2), "long", 1, 1452, 0) // 1500 octets with the headers of IPv6 and UDP
	until(t, "a datagram of full size", func() error {
		if b.count("long") == 0 {
			return errors.New("nothing came")
		}
		return nil
	})
	// Header, tag, batman-adv's header, the frame inside, check value.
	if want := 14 + 16 + 10 + 14 + 1500 + 16; s.long != want {
		t.Errorf("a datagram of full size: expected one frame of %d octets on the wire, the longest has %d", want, s.long)
	}

	t.Run("a stranger gets nothing in", func(t *testing.T) { s.stranger(t, a, b) })
	t.Run("a process is killed and comes back", func(t *testing.T) { s.restart(t, a, b) })
	t.Run("a member is turned away under load", func(t *testing.T) { s.turnAway(t, a, b, c) })
	if n := s.seen(paths.EtherTypeBatman); n != 0 {
		t.Errorf("batman frames in the clear on the wire: expected none, got %d", n)
	}
}

func (s *segment) stranger(t *testing.T, a, b *member) {
	s.forget()
	a.send(ula(2), "recorded", 50, 100, time.Millisecond)
	until(t, "the wire is recorded", func() error {
		if n := len(s.recorded()); n < 50 {
			return fmt.Errorf("%d frames", n)
		}
		return nil
	})
	tape := s.recorded()
	a.send(ula(2), "later", 400, 100, time.Millisecond) // the window passes on
	until(t, "what is later", func() error {
		if n := b.count("later"); n < 400 {
			return fmt.Errorf("%d of 400", n)
		}
		return nil
	})
	before := b.macsec()
	for _, f := range tape {
		s.send(f) // replayed
		forged := slices.Clone(f)
		forged[len(forged)-1] ^= 1
		binary.BigEndian.PutUint32(forged[16:], 1<<30) // a packet number that is to come
		s.send(forged)
	}
	plain := slices.Concat([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, tape[0][6:12], []byte{0x43, 0x05}, make([]byte, 60))
	s.send(plain)
	until(t, "the counters tell", func() error {
		if now := b.macsec(); now.Late < before.Late+40 || now.Invalid < before.Invalid+40 {
			return fmt.Errorf("%d of each sent; before %+v, now %+v", len(tape), before, now)
		}
		return nil
	})
	var times []int
	b.call("Heard", "recorded", &times)
	for i, n := range times {
		if n > 1 {
			t.Errorf("datagram %d came %d times", i, n)
		}
	}
	a.reaches(b, ula(2), "after-the-stranger")
	s.forget() // its own batman frame is on the tape
}

func (s *segment) restart(t *testing.T, a, b *member) {
	index := b.status().Links["macsec-"+b.c.Port]
	b.Signal(unix.SIGKILL)
	b.start()
	b.await("encrypted")
	a.reaches(b, ula(2), "back")
	b.reaches(a, ula(1), "back")
	if now := b.status().Links["macsec-"+b.c.Port]; now != index || now == 0 {
		t.Errorf("MACsec interface: expected %d, which there was, got %d", index, now)
	}
}

// turnAway has two members send to each other without a pause while they turn the
// third away.
func (s *segment) turnAway(t *testing.T, a, b, c *member) {
	const n = 1500
	var load sync.WaitGroup
	load.Go(func() { a.send(ula(2), "load-a", n, 300, 4*time.Millisecond) })
	load.Go(func() { b.send(ula(1), "load-b", n, 300, 4*time.Millisecond) })
	until(t, "load", func() error {
		if a.count("load-b") < 100 || b.count("load-a") < 100 {
			return errors.New("not yet")
		}
		return nil
	})
	for _, m := range []*member{a, b} {
		m.call("Refuse", c.c.Key, new(bool))
	}
	for _, m := range []*member{a, b} {
		until(t, "a new key in use", func() error {
			if k := m.macsec(); k.KeyAgeS > 5 {
				return fmt.Errorf("%+v", k)
			}
			return nil
		})
	}
	load.Wait()
	for _, x := range []struct {
		m    *member
		mark string
	}{{b, "load-a"}, {a, "load-b"}} {
		until(t, "all of the load", func() error {
			if got := x.m.count(x.mark); got != n {
				return fmt.Errorf("%s: expected %d datagrams, got %d; %+v", x.mark, n, got, x.m.macsec())
			}
			return nil
		})
	}
	// The third one has its keys of before, and hears all.
	before := c.macsec()
	a.send(group, "secret", 50, 100, 10*time.Millisecond)
	until(t, "who is a member hears it", func() error {
		if got := b.count("secret"); got < 45 { // to all, batman-adv sends three times, and repeats nothing
			return fmt.Errorf("%d of 50", got)
		}
		return nil
	})
	until(t, "who was turned away hears that there is something", func() error {
		if now := c.macsec(); now.Invalid < before.Invalid+50 {
			return fmt.Errorf("before %+v, now %+v", before, now)
		}
		return nil
	})
	if got := c.count("secret"); got != 0 {
		t.Errorf("who was turned away reads on: %d datagrams", got)
	}
}

// TestKernelWithoutMACsec: two whose kernels have none, of which one gets one.
func TestKernelWithoutMACsec(t *testing.T) {
	s := newSegment(t, "q", 3)
	restore := withoutMACsec(t)
	a, b, c := s.members[0], s.members[1], s.members[2]
	a.start()
	c.start()
	a.await("clear")
	c.await("clear")
	a.reaches(c, ula(3), "clear")
	if s.seen(paths.EtherTypeBatman) == 0 || s.seen(paths.EtherTypeMACsec) != 0 {
		t.Errorf("in the clear: expected batman frames on the wire, and none of MACsec, got %v", s.kinds)
	}
	// The first starts anew, and a further one, with MACsec; the third still has
	// none.
	restore()
	a.Signal(unix.SIGKILL)
	a.start()
	b.start()
	a.await("mixed")
	b.await("mixed")
	c.await("clear")
	until(t, "the two are neighbours under MACsec, the third is one in the clear", func() error {
		n := a.status().Neighbours
		if n[testKey(2).ID()] != "macsec-q0" || n[testKey(3).ID()] != "q0" {
			return fmt.Errorf("%v", n)
		}
		return nil
	})
	a.reaches(b, ula(2), "mixed")
	a.reaches(c, ula(3), "mixed")
	c.reaches(b, ula(2), "mixed-back")
	if n := c.status().Neighbours; n[testKey(1).ID()] != "q2" || n[testKey(2).ID()] != "q2" {
		t.Errorf("neighbours of the one without: %v", n)
	}
	// What the two say to each other alone is not to be read.
	s.forget()
	a.send(ula(2), "two", 100, 700, time.Millisecond)
	until(t, "what the two say", func() error {
		if n := b.count("two"); n < 100 {
			return fmt.Errorf("%d of 100", n)
		}
		return nil
	})
	if n := s.seen(paths.EtherTypeMACsec); n < 100 {
		t.Errorf("expected a hundred MACsec frames, got %d", n)
	}
	ok(t, netlink.LinkSetDown(nstest.Link(t, "far-q2"))) // the cable is pulled
	a.await("encrypted")
	b.await("encrypted")
	until(t, "nothing in the clear any more", func() error {
		s.forget()
		time.Sleep(5 * time.Second) // several of batman-adv's intervals
		if n := s.seen(paths.EtherTypeBatman); n != 0 {
			return fmt.Errorf("%d batman frames in 5 s", n)
		}
		return nil
	})
}

//go:build lab

package radio_test

import (
	"context"
	"crypto/ecdh"
	cryptorand "crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"halo.internal/drivers/nl80211"
	forge "halo.internal/lab/air/rogue"
	"halo.internal/mesh/peering"
	"halo.internal/mesh/radio"
	"halo.internal/mesh/sae"
	"halo.internal/model/dot11"
)

// rogue is a radio that sends any frame and hears all.
type rogue struct {
	l    *lab
	conn *packet.Conn

	mu      sync.Mutex        // guards what follows
	heard   [][]byte          // management frames of authentication and peering
	beacons map[string][]byte // of each address, the last
	forging bool              // it would hear itself, without end
	paths   int               // Action frames to all, encrypted: those that look for paths
}

// rogue plugs one in. It listens until the test ends.
func (l *lab) rogue() *rogue {
	l.t.Helper()
	w, _ := l.wiphy()
	i, err := l.conn.NewInterface(w.Index, fmt.Sprintf("mon%d", l.made), nl80211.Monitor, nil)
	l.ok(err)
	link, err := netlink.LinkByIndex(i.Index)
	l.ok(err)
	l.ok(netlink.LinkSetUp(link))
	ifi, err := net.InterfaceByIndex(i.Index)
	l.ok(err)
	c, err := packet.Listen(ifi, packet.Raw, unix.ETH_P_ALL, nil)
	l.ok(err)
	r := &rogue{l: l, conn: c, beacons: map[string][]byte{}}
	done := make(chan struct{})
	go func() { defer close(done); r.listen() }()
	l.t.Cleanup(func() { c.Close(); <-done })
	return r
}

func (r *rogue) listen() {
	buf := make([]byte, 4096)
	for {
		n, _, err := r.conn.ReadFrom(buf)
		if err != nil { // closed, or the radio is gone
			return
		}
		if n < 4 {
			continue
		}
		head := int(binary.LittleEndian.Uint16(buf[2:])) // of radiotap
		if head > n {
			continue
		}
		frame := slices.Clone(buf[head:n])
		h, body, err := dot11.ParseManagement(frame)
		if err == nil && h.Subtype == beacon {
			r.mu.Lock()
			if !r.forging {
				r.beacons[h.From.String()] = frame
			}
			r.mu.Unlock()
		}
		const action, protected = 0xd0, 0x40 // of the frame control field
		if len(frame) > 4 && frame[0] == action && frame[1]&protected != 0 && frame[4]&1 != 0 {
			r.mu.Lock()
			r.paths++
			r.mu.Unlock()
		}
		if err != nil || h.Subtype != dot11.Authentication && (h.Subtype != dot11.Action || len(body) == 0 || body[0] != selfProtected) {
			continue
		}
		r.mu.Lock()
		if !r.forging {
			r.heard = append(r.heard, frame)
		}
		r.mu.Unlock()
	}
}

// selfProtected is the category of the frames of peering.
const selfProtected = 15

// beacon is the subtype of beacons.
const beacon dot11.Subtype = 8

// attack forges from what was heard until now, which must have been something of
// each of the members. stop ends it and returns how many frames were sent.
func (r *rogue) attack(c forge.Config, members ...*member) (stop func() int) {
	r.l.t.Helper()
	f, err := forge.New(c, net.HardwareAddr{2, 0xbb, 0, 0, 0, 9})
	r.l.ok(err)
	for _, m := range members {
		r.l.until("a beacon of "+m.iface, func() bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			return r.beacons[m.mac.String()] != nil
		})
	}
	frames := r.all()
	r.forges()
	r.mu.Lock()
	for _, m := range members {
		frames = append(frames, r.beacons[m.mac.String()])
	}
	r.mu.Unlock()
	for _, b := range frames {
		r.l.ok(f.Deliver(nil, b, 0, 0, channel1.FreqMHz))
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			frame, err := f.Next()
			if err != nil {
				return
			}
			r.send(frame.Data)
			_ = f.Report(frame, false, 0, frame.Plan) // which never fails
		}
	}()
	stop = sync.OnceValue(func() int {
		_ = f.Close() // which never fails
		<-done
		return f.Status().Sent
	})
	r.l.t.Cleanup(func() { stop() })
	return stop
}

// forges has it keep no more of what it hears, which is its own from now on.
func (r *rogue) forges() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forging = true
}

func (r *rogue) all() [][]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.heard)
}

// send sends a frame as it is.
func (r *rogue) send(frame []byte) {
	for {
		// A monitor's frames go out behind a radiotap header without fields.
		_, err := r.conn.WriteTo(slices.Concat([]byte{0, 0, 8, 0, 0, 0, 0, 0}, frame), &packet.Addr{HardwareAddr: frame[4:10]})
		if !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EAGAIN) {
			return // the kernel refuses frames that are none
		}
		time.Sleep(time.Millisecond) // a full queue
	}
}

func management(subtype byte, to, from net.HardwareAddr, body []byte) []byte {
	return slices.Concat([]byte{subtype << 4, 0, 0, 0}, to, from, from, []byte{0, 0}, body)
}

// TestNoPathIsLookedFor has frames go to a peer and to all, without one that looks
// for a path.
func TestNoPathIsLookedFor(t *testing.T) {
	l := newLab(t)
	r := l.rogue()
	a, b := l.member(nil), l.member(nil)
	l.link(a, b)
	l.both(a.end(), b.end())
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.heard) == 0 || r.paths > 0 {
		t.Errorf("%d frames of authentication and peering, and %d that look for paths, want some and none", len(r.heard), r.paths)
	}
}

// TestCommitsInPlenty sends forged Commits from many addresses, and for a link
// that stands: it stays, and a member that comes is let in. They come as fast as a
// channel carries them, and not as fast as the machine makes them: members of one
// processor with the rogue would have nothing left of it.
func TestCommitsInPlenty(t *testing.T) {
	l := newLab(t)
	a, b := l.member(nil), l.member(nil)
	l.link(a, b)
	l.chatter(a, b)
	rogue := l.rogue()
	rogue.forges()
	var points [][]byte
	for range 50 {
		k, err := ecdh.P256().GenerateKey(cryptorand.Reader)
		l.ok(err)
		points = append(points, k.PublicKey().Bytes()[1:])
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan int, 1)
	var sent atomic.Int32
	go func() {
		random := rand.NewChaCha8([32]byte{1})
		pace := time.NewTicker(time.Millisecond)
		defer pace.Stop()
		for n := 0; ; n++ {
			select {
			case <-pace.C:
			case <-ctx.Done():
				done <- n
				return
			}
			from := net.HardwareAddr{2, 0x66, 0, 0, byte(n >> 8), byte(n)}
			if n%4 == 0 {
				from = b.mac
			}
			commit := make([]byte, 98) // group, scalar, element
			random.Read(commit)
			commit[0], commit[1] = sae.Group, 0
			if n%2 == 0 { // a point of the curve, which costs more to refuse
				copy(commit[34:], points[n/2%len(points)])
			}
			rogue.send(management(11, a.mac, from, slices.Concat([]byte{3, 0, 1, 0, 126, 0}, commit)))
			sent.Add(1)
		}
	}()
	l.until("a flood", func() bool { return sent.Load() > 200 })
	c := l.member(nil)
	l.link(a, c)
	stop()
	n := <-done
	t.Logf("%d forged frames", n)
	l.both(a.end(), c.end())
	if !l.linked(a.iface, b.mac) || len(a.told(radio.EventPeerLost)) != 0 {
		t.Errorf("the link that stood is gone: %+v", a.told(radio.EventPeerLost))
	}
}

// TestReplaysAndForgeries has a rogue send again what it heard while a link was
// made, as it was and changed, and forge ends of it: the link stands. While a
// member begins anew, the rogue sends what its former self sent: it gets its
// link all the same.
func TestReplaysAndForgeries(t *testing.T) {
	l := newLab(t)
	rogue := l.rogue()
	a, b := l.member(nil), l.member(nil)
	l.link(a, b)
	l.both(a.end(), b.end())
	heard := rogue.all()
	rogue.forges()
	kinds := map[string]int{}
	for _, f := range heard {
		h, body, err := dot11.ParseManagement(f)
		l.ok(err)
		if h.Subtype == dot11.Authentication {
			kinds[fmt.Sprintf("SAE %d", body[2])]++
		} else {
			kinds[fmt.Sprintf("peering %d", body[1])]++
		}
	}
	for _, want := range []string{"SAE 1", "SAE 2", "peering 1", "peering 2"} {
		if kinds[want] < 2 {
			t.Errorf("the rogue heard %v, want both sides' %s", kinds, want)
		}
	}

	random := rand.New(rand.NewPCG(1, 3))
	sent := 0
	send := func(f []byte) { rogue.send(f); sent++ }
	for range 5 {
		for _, f := range heard {
			send(f)
			const body = 24
			for range 10 {
				g := slices.Clone(f)
				g[body+random.IntN(len(g)-body)] ^= 1 << random.IntN(8)
				send(g)
			}
			if f[0]>>4 == byte(dot11.Action) {
				for _, action := range []byte{1, 2, 3} { // Open, Confirm, Close
					g := slices.Clone(f)
					g[body+1] = action
					send(g)
				}
			}
		}
		for _, ends := range [][2]net.HardwareAddr{{a.mac, b.mac}, {b.mac, a.mac}} {
			for _, subtype := range []byte{10, 12} { // Disassociation, Deauthentication
				send(management(subtype, ends[0], ends[1], []byte{3, 0}))
			}
		}
	}
	l.both(a.end(), b.end())
	for _, m := range []*member{a, b} {
		for _, kind := range []string{radio.EventPeerLost, radio.EventPeerAgain} {
			if told := m.told(kind); len(told) != 0 {
				t.Errorf("%s: %d forged frames had an effect: %+v", m.iface, sent, told)
			}
		}
		if n := len(m.told(radio.EventPeer)); n != 1 {
			t.Errorf("%s made %d links", m.iface, n)
		}
	}

	w := l.wiphyOf(b)
	l.ok(b.stop())
	l.until("the end is heard of", func() bool { return !l.linked(a.iface, b.mac) })
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ctx.Err() == nil; i++ {
			rogue.send(heard[i%len(heard)])
		}
	}()
	l.run(b, w, nil)
	l.link(a, b)
	l.both(a.end(), b.end())
	stop()
	<-done
	l.both(a.end(), b.end())
}

// TestAmongForgeries has a rogue forge while a link stands, which carries on,
// while a new member comes, and while one begins anew: all get their links.
func TestAmongForgeries(t *testing.T) {
	for _, tc := range []struct {
		attack forge.Attack
		mfp    peering.MFP
	}{
		{forge.All, peering.MFPRequired}, // beacons too
		{forge.All, peering.MFPOff},
	} {
		t.Run(fmt.Sprintf("%s, MFP %d", tc.attack, tc.mfp), func(t *testing.T) {
			l := newLab(t)
			rogue := l.rogue()
			change := func(c *radio.Config) { c.MFP = tc.mfp }
			a, b := l.member(change), l.member(change)
			l.link(a, b)
			l.chatter(a, b)
			stop := rogue.attack(forge.Config{Attack: tc.attack, PerSecond: 200}, a, b)
			l.both(a.end(), b.end())
			start := time.Now()
			c := l.member(change)
			l.all([]*member{a, b, c})
			t.Logf("a new member has its links after %.1f s", time.Since(start).Seconds())
			l.chatter(c)
			l.both(a.end(), c.end())
			l.both(b.end(), c.end())
			for _, m := range []*member{a, b, c} {
				for _, kind := range []string{radio.EventPeerLost, radio.EventPeerAgain, radio.EventMoved} {
					if told := m.told(kind); len(told) != 0 {
						t.Errorf("%s: forged frames had an effect: %+v", m.iface, told)
					}
				}
			}
			w := l.wiphyOf(b)
			l.ok(b.stop())
			l.until("the end is heard of", func() bool { return !l.linked(a.iface, b.mac) && !l.linked(c.iface, b.mac) })
			start = time.Now()
			l.run(b, w, change)
			l.all([]*member{a, b, c})
			t.Logf("one that began anew has its links after %.1f s", time.Since(start).Seconds())
			l.both(a.end(), b.end())
			l.both(b.end(), c.end())
			n := stop()
			t.Logf("%d forged frames", n)
			if n < 200 {
				t.Error("that is no flood: the test proves nothing")
			}
			l.both(a.end(), b.end())
		})
	}
}

// TestForgedChannelSwitches call members to other channels: they come back, and
// have their links.
func TestForgedChannelSwitches(t *testing.T) {
	l := newLab(t)
	rogue := l.rogue()
	a, b := l.member(nil), l.member(nil)
	l.link(a, b)
	stop := rogue.attack(forge.Config{Attack: forge.ChannelSwitch, PerSecond: 20}, a, b)
	l.until("both are called away", func() bool { return len(a.told(radio.EventMoved)) > 0 && len(b.told(radio.EventMoved)) > 0 })
	stop()
	for _, m := range []*member{a, b} {
		i, err := net.InterfaceByName(m.iface)
		l.ok(err)
		l.until(m.iface+" is back", func() bool {
			on, err := l.conn.Interface(i.Index)
			return err == nil && on.Channel.FreqMHz == channel1.FreqMHz
		})
	}
	c := l.member(nil) // which was not there
	l.all([]*member{a, b, c})
	l.both(a.end(), b.end())
	l.both(a.end(), c.end())
	if told := append(a.told(radio.EventMoved), b.told(radio.EventMoved)...); len(told) != 2 {
		t.Errorf("each is to tell it once in a while: %+v", told)
	}
}

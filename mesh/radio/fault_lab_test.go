//go:build lab

package radio_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"

	"halo.internal/drivers/nl80211"
	"halo.internal/lab/air"
	"halo.internal/lab/air/hwsim"
	"halo.internal/lab/air/physics"
	"halo.internal/mesh/radio"
	"halo.internal/mesh/sae"
)

// TestBadAir loses three of ten attempts in every direction; those of unicast
// frames are repeated by the radios.
func TestBadAir(t *testing.T) {
	l := newLab(t)
	medium, err := hwsim.OpenMedium(0)
	l.ok(err)
	sky := air.New(air.WiFi(), physics.Outdoors(), 1)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- sky.Run(ctx, medium) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	var members []*member
	for i := range 3 {
		mac := net.HardwareAddr{2, 0, 0, 0, 0xcc, byte(i + 1)}
		l.ok(sky.Place(air.Radio{Name: strconv.Itoa(i), Address: mac, Position: physics.Position{X: 20 * float64(i)}, PowerDBm: 20, FigureDB: 7}))
		for j := range i {
			sky.SetLoss(strconv.Itoa(i), strconv.Itoa(j), 0.3)
			sky.SetLoss(strconv.Itoa(j), strconv.Itoa(i), 0.3)
		}
		members = append(members, l.member(nil))
	}
	l.all(members)
	l.both(members[0].end(), members[2].end())
}

// all waits until each has a link with each other.
func (l *lab) all(members []*member) {
	l.t.Helper()
	for i, a := range members {
		for _, b := range members[i+1:] {
			l.link(a, b)
		}
	}
}

// TestTheKernelForgets a station, as it does by itself after a long silence.
func TestTheKernelForgets(t *testing.T) {
	l := newLab(t)
	a, b := l.member(nil), l.member(nil)
	l.link(a, b)
	i, err := net.InterfaceByName(a.iface)
	l.ok(err)
	l.ok(l.conn.DeleteStation(i.Index, b.mac))
	l.until("that is told of", func() bool { return len(a.told(radio.EventPeerLost)) == 1 })
	l.link(a, b)
	l.both(a.end(), b.end())
}

// carrier notes what is to carry the mesh.
type carrier struct {
	mu     sync.Mutex
	ifaces []string
}

func (c *carrier) Enslave(iface string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ifaces = append(c.ifaces, iface)
	return nil
}

func (c *carrier) enslaved() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.ifaces)
}

// TestRadiosComeAndGo has the radios of a device, one of which is of no use,
// another unplugged and plugged in again.
func TestRadiosComeAndGo(t *testing.T) {
	l := newLab(t)
	far := l.member(nil)
	var mesh carrier
	m := &member{}
	_, lacking := l.wiphyWith(hwsim.Radio{Ciphers: []uint32{uint32(nl80211.CCMP)}})
	w, id := l.wiphy()
	rs := radio.NewRadios(radio.RadiosConfig{
		Member: radio.Config{
			MeshID: meshID, Password: password, Channel: channel1, BeaconInterval: 100, Notify: m.notify,
			Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		},
		Carrier: &mesh, Retry: 100 * time.Millisecond,
		Use: func(w nl80211.Wiphy) bool { return w.Name != "radio1" }, // which is the far one's
	})
	ctx, cancel := context.WithCancel(l.ctx)
	ended := make(chan error, 1)
	go func() { ended <- rs.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	state := func(name string) (s radio.State, ok bool) {
		for _, s := range rs.List() {
			if s.Name == name {
				return s, true
			}
		}
		return s, false
	}
	joined := func() bool { s, ok := state(w.Name); return ok && s.Detail == "" }
	l.until("the radio joins", joined)
	s, _ := state(w.Name)
	here := &member{iface: s.Iface}
	i, err := net.InterfaceByName(s.Iface)
	l.ok(err)
	here.mac = i.HardwareAddr
	l.link(here, far)
	l.until("the other's lack is told", func() bool {
		told := m.told(radio.EventUnfit)
		return len(told) == 1 && strings.Contains(told[0].Message, nl80211.BIP.String())
	})
	l.ok(l.hwsim.DeleteRadio(lacking))

	l.ok(l.hwsim.DeleteRadio(id))
	l.until("the radio is gone", func() bool { _, ok := state(w.Name); return !ok })
	w, _ = l.wiphy()
	l.until("a radio joins again", joined)
	s, _ = state(w.Name)
	i, err = net.InterfaceByName(s.Iface)
	l.ok(err)
	here = &member{iface: s.Iface, mac: i.HardwareAddr}
	l.link(here, far)
	l.both(here.end(), far.end())
	if n := len(mesh.enslaved()); n < 2 {
		t.Errorf("%d interfaces were to carry the mesh, want both of the radio", n)
	}
}

// TestCommitsInPlenty sends forged Commits from many addresses, and for a link
// that stands: it stays, and a member that comes is let in.
func TestCommitsInPlenty(t *testing.T) {
	l := newLab(t)
	a, b := l.member(nil), l.member(nil)
	l.link(a, b)
	rogue := l.monitor()
	stop, done := make(chan struct{}), make(chan int)
	go func() {
		random := rand.NewChaCha8([32]byte{1})
		for n := 0; ; n++ {
			select {
			case <-stop:
				done <- n
				return
			default:
			}
			from := net.HardwareAddr{2, 0x66, 0, 0, byte(n >> 8), byte(n)}
			if n%4 == 0 {
				from = b.mac
			}
			commit := make([]byte, 98) // group, scalar, element: of random octets, no point of the curve
			random.Read(commit)
			commit[0], commit[1] = sae.Group, 0
			// A monitor's frames go out as they are, behind a radiotap header without fields.
			frame := slices.Concat([]byte{0, 0, 8, 0, 0, 0, 0, 0}, []byte{0xb0, 0, 0, 0}, a.mac, from, from, []byte{0, 0},
				binary.LittleEndian.AppendUint16(nil, 3), []byte{1, 0, 126, 0}, commit)
			if _, err := rogue.WriteTo(frame, &packet.Addr{HardwareAddr: a.mac}); err != nil {
				time.Sleep(time.Millisecond) // a full queue
			}
		}
	}()
	c := l.member(nil)
	l.link(a, c)
	close(stop)
	t.Logf("%d forged frames", <-done)
	l.both(a.end(), c.end())
	if !l.linked(a.iface, b.mac) || len(a.told(radio.EventPeerLost)) != 0 {
		t.Errorf("the link that stood is gone: %+v", a.told(radio.EventPeerLost))
	}
	if n := len(a.Peers()); n > 2+256 {
		t.Errorf("%d stations are remembered", n)
	}
}

// monitor is an interface that sends any frame.
func (l *lab) monitor() *packet.Conn {
	l.t.Helper()
	w, _ := l.wiphy()
	i, err := l.conn.NewInterface(w.Index, fmt.Sprintf("mon%d", l.made), nl80211.Monitor, nil)
	l.ok(err)
	link, err := netlink.LinkByIndex(i.Index)
	l.ok(err)
	l.ok(netlink.LinkSetUp(link))
	ifi, err := net.InterfaceByIndex(i.Index)
	l.ok(err)
	c, err := packet.Listen(ifi, packet.Raw, 0, nil)
	l.ok(err)
	l.t.Cleanup(func() { c.Close() })
	return c
}

// TestKilledTwentyTimes kills the process of a member in the midst of whatever
// it does; each time it comes back, and no side believes in a link that the
// other does not have.
func TestKilledTwentyTimes(t *testing.T) {
	l := newLab(t)
	m := l.member(nil)
	w, _ := l.wiphy()
	random := rand.New(rand.NewPCG(1, 2))
	c := childConfig{Wiphy: w.Index, Iface: "child", FreqMHz: channel1.FreqMHz}
	there := l.startChild(c)
	for i := range 20 {
		if i%2 == 0 { // with a link; otherwise on the way to one
			l.whole(m, "child")
		} else {
			time.Sleep(time.Duration(random.Int64N(int64(500 * time.Millisecond)))) // the instant is the test
		}
		there.kill()
		there = l.startChild(c)
	}
	l.whole(m, "child")
	mac := l.mac("child")
	l.both(m.end(), end{"child", mac})
	there.kill()
}

func (l *lab) mac(iface string) net.HardwareAddr {
	i, err := net.InterfaceByName(iface)
	if err != nil {
		return nil
	}
	return i.HardwareAddr
}

// whole waits until a link stands on both sides, with keys that fit: frames pass.
func (l *lab) whole(m *member, iface string) {
	l.t.Helper()
	l.until("a link with "+iface, func() bool {
		mac := l.mac(iface)
		return mac != nil && l.linked(m.iface, mac) && l.linked(iface, m.mac)
	})
}

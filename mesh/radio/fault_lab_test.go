//go:build lab

package radio_test

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"halo.internal/drivers/nl80211"
	"halo.internal/lab/air"
	"halo.internal/lab/air/hwsim"
	"halo.internal/lab/air/physics"
	"halo.internal/mesh/peering"
	"halo.internal/mesh/radio"
	"halo.internal/model"
	"halo.internal/model/dot11"
)

// badAir lets the first n radios of the test hear each other, each attempt at a
// frame lost with a probability in every direction; those of unicast frames are
// repeated by the radios.
func (l *lab) badAir(n int, loss float64) {
	l.t.Helper()
	sky := l.air(n)
	pairs(n, func(from, to string) { sky.SetLoss(from, to, loss) })
}

// pairs calls do with both directions between n radios.
func pairs(n int, do func(from, to string)) {
	for i := range n {
		for j := range i {
			do(strconv.Itoa(i), strconv.Itoa(j))
			do(strconv.Itoa(j), strconv.Itoa(i))
		}
	}
}

// air is the medium of the test's first n radios, named 0 and up, which stand
// near each other.
func (l *lab) air(n int) *air.Air {
	l.t.Helper()
	medium, err := hwsim.OpenMedium(0)
	l.ok(err)
	sky := air.New(air.WiFi(), physics.Outdoors(), 1)
	ctx, cancel := context.WithCancel(l.ctx)
	ended := make(chan error, 1)
	go func() { ended <- sky.Run(ctx, medium) }()
	l.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			l.t.Error(err)
		}
	})
	for i := range n {
		mac := net.HardwareAddr{2, 0, 0, 0, 0xcc, byte(i + 1)}
		l.ok(sky.Place(air.Radio{Name: strconv.Itoa(i), Address: mac, Position: physics.Position{X: 20 * float64(i)}, PowerDBm: 20, FigureDB: 7}))
	}
	return sky
}

// disorder lets every fifth management frame come again as a retransmission, every
// fifth as a replay, and every fifth late by up to twice the first interval after
// which Open and Confirm are repeated. mac80211 takes a copy with the Retry bit for
// what it is and drops it, but only where it has a station, which is after SAE;
// one without the bit always comes through, and is what a stranger can do who
// records and sends again.
var disorder = air.Disorder{Retransmitted: 0.2, Replayed: 0.2, Late: 0.2, Delay: 2 * peering.Wifi.Retry}

// disorderedAir is an air whose disorder is the same in every direction.
func (l *lab) disorderedAir(n int, d air.Disorder) *air.Air {
	l.t.Helper()
	sky := l.air(n)
	l.setDisorder(sky, n, d)
	return sky
}

func (l *lab) setDisorder(sky *air.Air, n int, d air.Disorder) {
	l.t.Helper()
	pairs(n, func(from, to string) { l.ok(sky.SetDisorder(from, to, d)) })
}

// occurred tells whether a disorder has done to frames of every direction what it
// is to do.
func occurred(sky *air.Air, n int, d air.Disorder) bool {
	all := sky.Counters()
	done := true
	pairs(n, func(from, to string) {
		c := all[from+" "+to]
		done = done && (c.Again > 0 || d.Retransmitted+d.Replayed == 0) && (c.Overtaken > 0 || d.Late == 0)
	})
	return done
}

// TestDisorder has members among themselves, until each direction has had its
// share.
func TestDisorder(t *testing.T) {
	l := newLab(t)
	const n = 3
	sky := l.disorderedAir(n, disorder)
	var members []*member
	for range n {
		members = append(members, l.member(nil))
	}
	l.all(members)
	for round := 0; !occurred(sky, n, disorder); round++ {
		if round == 20 {
			t.Fatalf("after %d rounds: %+v", round, sky.Counters())
		}
		m := members[round%n]
		if err := m.stop(); err != nil {
			t.Errorf("end: %v", err)
		}
		l.run(m, l.wiphyOf(m), nil)
		l.all(members)
	}
	l.both(members[0].end(), members[1].end())
	l.both(members[1].end(), members[2].end())
	l.both(members[2].end(), members[0].end())
	for _, m := range members {
		t.Logf("%s dropped %+v", m.iface, m.Dropped())
	}
}

// TestBadAir loses three of ten attempts.
func TestBadAir(t *testing.T) {
	l := newLab(t)
	l.badAir(3, 0.3)
	var members []*member
	for range 3 {
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

// TestTheKernelForgets a station after a silence that is made short here. It looks
// once a minute, and a frame that came within the second before saves the station until
// the next look. Members ask each other every half minute, in step with it: where one
// question came right before a look, all do. So the air is cut most of the time, in
// turns that are in step with neither, and which are too short for a member to give the
// other up.
func TestTheKernelForgets(t *testing.T) {
	l := newLab(t)
	sky := l.air(2)
	a, b := l.member(nil), l.member(nil)
	l.link(a, b)
	i, err := net.InterfaceByName(a.iface)
	l.ok(err)
	const (
		looks = 15 * time.Minute // of which each third one would do
		off   = 20 * time.Second
		turn  = 27 * time.Second
	)
	start := time.Now()
	var set time.Time
	l.within(looks, "that is told of", func() bool {
		cut := time.Since(start)%turn < off
		pairs(2, func(from, to string) { sky.Cut(from, to, cut) })
		// Again and again: a radio that joins anew, as it does on a host that starves it, has
		// the usual time.
		if time.Since(set) > time.Second {
			set = time.Now()
			l.ok(l.conn.SetMeshParameters(i.Index, nl80211.MeshParameters{PlinkTimeout: new(time.Second)}))
		}
		return slices.ContainsFunc(a.told(radio.EventPeerLost), func(e model.Event) bool {
			return e.Fields["reason"] == dot11.MeshPeeringCancelled.String() // and not for want of an answer
		})
	})
	sky.Restore()
	l.ok(l.conn.SetMeshParameters(i.Index, nl80211.MeshParameters{PlinkTimeout: new(time.Hour)}))
	l.link(a, b)
	l.both(a.end(), b.end())
}

// TestLostEvents has a member whose socket holds a few events only, in a machine
// that has many: it hears of peers, notices one that the kernel forgot while
// events were lost, and has links again.
func TestLostEvents(t *testing.T) {
	l := newLab(t)
	others := []*member{l.member(nil), l.member(nil), l.member(nil)}
	var lost atomic.Int64
	m := l.member(func(c *radio.Config) {
		c.ReceiveBuffer = 1 // the kernel makes the least of it that it allows
		c.Log = slog.New(counter{c.Log.Handler(), "events of the radio were lost", &lost})
	})
	for _, o := range others {
		l.link(m, o)
	}
	i, err := net.InterfaceByName(m.iface)
	l.ok(err)
	before := lost.Load()
	l.until("a removal is lost, and noticed", func() bool {
		for _, o := range others {
			_ = l.conn.DeleteStation(i.Index, o.mac) // it may be gone from the time before
		}
		return lost.Load() > before && len(m.told(radio.EventPeerLost)) >= len(others)
	})
	for _, o := range others {
		l.link(m, o)
		l.both(m.end(), o.end())
	}
	t.Logf("events were lost %d times", lost.Load())
}

// counter counts the records of a message.
type counter struct {
	slog.Handler
	text string
	n    *atomic.Int64
}

func (c counter) Handle(ctx context.Context, r slog.Record) error {
	if strings.Contains(r.Message, c.text) {
		c.n.Add(1)
	}
	return c.Handler.Handle(ctx, r)
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
		Use: func(w nl80211.Wiphy) error {
			if w.Name == "radio1" {
				return errors.New("it is the far one's")
			}
			return nil
		},
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
			l.whole(m, there)
		} else {
			time.Sleep(time.Duration(random.Int64N(int64(500 * time.Millisecond)))) // the instant is the test
		}
		there.kill()
		there = l.startChild(c)
	}
	l.whole(m, there)
	there.kill()
}

func (l *lab) mac(iface string) net.HardwareAddr {
	i, err := net.InterfaceByName(iface)
	if err != nil {
		return nil
	}
	return i.HardwareAddr
}

// whole waits until a link with this life of a process stands on both sides, with
// keys that fit: frames pass. What the life before left in either kernel is none.
func (l *lab) whole(m *member, p *process) {
	l.t.Helper()
	l.until("a link with "+p.iface, func() bool {
		if !p.begun() {
			return false
		}
		mac := l.mac(p.iface)
		return mac != nil && l.linked(m.iface, mac) && l.linked(p.iface, m.mac)
	})
	l.both(m.end(), end{p.iface, l.mac(p.iface)})
}

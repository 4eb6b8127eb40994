//go:build lab

package air_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"halo.internal/drivers/nl80211"
	"halo.internal/lab/air"
	"halo.internal/lab/air/hwsim"
	"halo.internal/lab/air/physics"
	"halo.internal/lab/testvm"
)

func TestMain(m *testing.M) {
	testvm.Main(m, testvm.Options{Modules: []string{"mac80211_hwsim radios=0"}})
}

// patience is far beyond what any of this takes.
const patience = 2 * time.Minute

// mesh is an open mesh of simulated radios with our air between them.
type mesh struct {
	t      *testing.T
	conn   *nl80211.Conn
	air    *air.Air
	radios map[string]nl80211.Interface
}

func newMesh(t *testing.T, p air.Profile, places map[string]float64) *mesh {
	t.Helper()
	m := &mesh{t: t, air: air.New(p, physics.Outdoors(), 1), radios: map[string]nl80211.Interface{}}
	sim, err := hwsim.Dial(0)
	m.ok(err)
	t.Cleanup(func() { sim.Close() })
	medium, err := hwsim.OpenMedium(0)
	m.ok(err)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- m.air.Run(ctx, medium) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	m.conn, err = nl80211.Dial(nl80211.Config{})
	m.ok(err)
	t.Cleanup(func() { m.conn.Close() })
	for name, x := range places {
		mac := net.HardwareAddr{2, 0, 0, 0, 0xbb, name[0]}
		id, err := sim.NewRadio(hwsim.Radio{Name: name, MAC: mac, NoVIF: true})
		m.ok(err)
		t.Cleanup(func() {
			if err := sim.DeleteRadio(id); err != nil {
				t.Error(err)
			}
		})
		m.ok(m.air.Place(air.Radio{Name: name, Address: mac, Position: physics.Position{X: x}, PowerDBm: 20, FigureDB: 7}))
		all, err := m.conn.Wiphys()
		m.ok(err)
		for _, w := range all {
			if w.Name == name {
				i, err := m.conn.NewInterface(w.Index, "air-"+name, nl80211.MeshPoint, nil)
				m.ok(err)
				m.radios[name] = i
			}
		}
		link, err := netlink.LinkByName("air-" + name)
		m.ok(err)
		m.ok(netlink.LinkSetUp(link))
		m.ok(m.conn.JoinMesh(m.radios[name].Index, nl80211.MeshSetup{
			ID: []byte("air"), Channel: nl80211.Channel{FreqMHz: 2412, Width: nl80211.Width20}, BeaconInterval: 200,
			Parameters: nl80211.MeshParameters{AutoOpenPlinks: new(true), Forwarding: new(false), PlinkTimeout: new(time.Minute)},
		}))
	}
	return m
}

func (m *mesh) ok(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

// peer returns what one radio knows of another, if they have peered.
func (m *mesh) peer(of, to string) (nl80211.StationInfo, bool) {
	m.t.Helper()
	all, err := m.conn.Stations(m.radios[of].Index)
	m.ok(err)
	for _, s := range all {
		if bytes.Equal(s.MAC, m.radios[to].MAC) && s.Plink == nl80211.PlinkEstab {
			return s, true
		}
	}
	return nl80211.StationInfo{}, false
}

func (m *mesh) await(what string, ok func() bool) {
	m.t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			m.t.Fatalf("%s: not within %s; the air: %+v", what, patience, m.air.Counters())
		}
	}
}

func (m *mesh) peered(a, b string) bool {
	_, there := m.peer(a, b)
	_, back := m.peer(b, a)
	return there && back
}

// TestPlacesDecideWhoPeers has three radios in a line, moves one, cuts and
// restores a pair.
func TestPlacesDecideWhoPeers(t *testing.T) {
	m := newMesh(t, air.WiFi(), map[string]float64{"a": 0, "b": 60, "c": 3000})
	m.await("a and b peer", func() bool { return m.peered("a", "b") })
	s, _ := m.peer("a", "b")
	if want := 20 - physics.Outdoors().PathLoss(60, 2412); float64(s.SignalDBm) < want-2 || float64(s.SignalDBm) > want+2 {
		t.Errorf("a hears b at %d dBm, want about %.0f", s.SignalDBm, want)
	}
	if m.peered("a", "c") || m.peered("b", "c") {
		t.Error("c peers over 3 km")
	}
	m.ok(m.air.Move("c", physics.Position{X: 30}))
	m.await("c comes near and peers", func() bool { return m.peered("a", "c") && m.peered("b", "c") })
	m.air.Cut("a", "b", true)
	m.air.Cut("b", "a", true)
	// The kernel forgets a silent peer once a minute only.
	silent := func(of, to string) bool {
		s, ok := m.peer(of, to)
		return !ok || s.Inactive > 2*time.Second
	}
	m.await("a and b hear no more of each other", func() bool { return silent("a", "b") && silent("b", "a") })
	if silent("a", "c") || silent("c", "b") {
		t.Error("they do not hear c either")
	}
	m.air.Cut("a", "b", false)
	m.air.Cut("b", "a", false)
	m.await("a and b are back", func() bool { return m.peered("a", "b") && !silent("a", "b") && !silent("b", "a") })
	c := m.air.Counters()
	if got := c["a c"]; got.Heard == 0 || got.Heard == got.Frames {
		t.Errorf("a to c: got %+v, want some of the frames heard", got)
	}
}

// TestHaLow has two radios peer at a distance that Wi-Fi does not reach, with the
// rates of 1 MHz.
func TestHaLow(t *testing.T) {
	const far = 900
	m := newMesh(t, air.HaLow(1), map[string]float64{"a": 0, "b": far})
	m.await(fmt.Sprintf("peering over %d m", far), func() bool { return m.peered("a", "b") })
	if c := m.air.Counters()["a b"]; c.Airtime == 0 {
		t.Errorf("no airtime: got %+v", c)
	}
}

// TestRadiosOutliveOtherSockets: a process's radios are there until what made them is
// closed, whatever else of netlink it closes.
func TestRadiosOutliveOtherSockets(t *testing.T) {
	m := newMesh(t, air.WiFi(), nil)
	sim, err := hwsim.Dial(0)
	m.ok(err)
	const name = "owned"
	_, err = sim.NewRadio(hwsim.Radio{Name: name, MAC: net.HardwareAddr{2, 0, 0, 0, 0xbb, 1}, NoVIF: true, Owned: true})
	m.ok(err)
	there := func() bool {
		all, err := m.conn.Wiphys()
		m.ok(err)
		return slices.ContainsFunc(all, func(w nl80211.Wiphy) bool { return w.Name == name })
	}
	for range 2 {
		routes, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		m.ok(err)
		_, err = routes.LinkList()
		m.ok(err)
		routes.Close()
	}
	if !there() {
		t.Fatal("a socket of routing took the radio along")
	}
	m.ok(sim.Close())
	deadline := time.Now().Add(patience)
	for there() {
		if time.Now().After(deadline) {
			t.Fatal("the radio stayed behind")
		}
		time.Sleep(10 * time.Millisecond)
	}
}

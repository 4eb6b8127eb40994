//go:build lab

package nl80211_test

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"halo.internal/drivers/nl80211"
	"halo.internal/lab/air/hwsim"
	"halo.internal/lab/testvm"
)

// These tests run in the test machine. Each makes its own radios.
func TestMain(m *testing.M) {
	testvm.Main(m, testvm.Options{Modules: []string{"mac80211_hwsim radios=0"}})
}

// patience is far beyond what any of this takes.
const patience = 2 * time.Minute

// lab is what a test has.
type lab struct {
	t      *testing.T
	conn   *nl80211.Conn
	events *nl80211.Listener
	hwsim  *hwsim.Conn
	ctx    context.Context
	made   int
}

func newLab(t *testing.T, groups ...string) *lab {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	l := &lab{t: t, ctx: ctx}
	var err error
	if l.hwsim, err = hwsim.Dial(0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.hwsim.Close() })
	if l.conn, err = nl80211.Dial(nl80211.Config{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.conn.Close() })
	if l.events, err = nl80211.Listen(nl80211.Config{}, groups...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.events.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func (l *lab) ok(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// await takes events until one is of type T and as wanted.
func await[T nl80211.Event](l *lab, what string, ok func(T) bool) T {
	l.t.Helper()
	for {
		e, err := l.events.Next(l.ctx)
		if err != nil {
			l.t.Fatalf("%s: %v", what, err)
		}
		if bad, is := e.(nl80211.Malformed); is {
			l.t.Fatalf("%s: %v", what, bad.Err)
		}
		if e, is := e.(T); is && ok(e) {
			return e
		}
	}
}

// until polls what no event tells.
func (l *lab) until(what string, ok func() bool) {
	l.t.Helper()
	for !ok() {
		select {
		case <-l.ctx.Done():
			l.t.Fatalf("%s: not within %s", what, patience)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// radio is a simulated radio with one interface.
type radio struct {
	id    int
	wiphy nl80211.Wiphy
	nl80211.Interface
}

// radio makes a radio with an interface that is up.
func (l *lab) radio(kind nl80211.InterfaceType) *radio {
	l.t.Helper()
	l.made++
	w := l.wiphy(hwsim.Radio{Name: fmt.Sprintf("radio%d", l.made), MAC: net.HardwareAddr{2, 0, 0, 0, 0xaa, byte(l.made)}})
	i, err := l.conn.NewInterface(w.wiphy.Index, fmt.Sprintf("air%d", l.made), kind, nil)
	l.ok(err)
	w.Interface = i
	l.up(i.Name)
	return w
}

// wiphy makes a radio without an interface.
func (l *lab) wiphy(r hwsim.Radio) *radio {
	l.t.Helper()
	r.NoVIF = true
	id, err := l.hwsim.NewRadio(r)
	l.ok(err)
	l.t.Cleanup(func() { _ = l.hwsim.DeleteRadio(id) }) // the test may have removed it
	all, err := l.conn.Wiphys()
	l.ok(err)
	for _, w := range all {
		if w.Name == r.Name {
			return &radio{id: id, wiphy: w}
		}
	}
	l.t.Fatalf("radio %s: not there after it was made", r.Name)
	return nil
}

func (l *lab) up(name string) {
	l.t.Helper()
	link, err := netlink.LinkByName(name)
	l.ok(err)
	l.ok(netlink.LinkSetUp(link))
}

var channel1 = nl80211.Channel{FreqMHz: 2412, Width: nl80211.Width20}

// rates of 2.4 GHz, in 100 kbit/s.
var rates = []int{10, 20, 55, 110, 60, 90, 120, 180, 240, 360, 480, 540}

// open is an open mesh that the kernel peers by itself.
func open() nl80211.MeshSetup {
	return nl80211.MeshSetup{
		ID: []byte("air"), Channel: channel1, BasicRates: []int{10, 20, 55, 110}, BeaconInterval: 100,
		Parameters: nl80211.MeshParameters{AutoOpenPlinks: new(true), Forwarding: new(false), PlinkTimeout: new(30 * time.Second)},
	}
}

// peered waits until a has an established peering with b.
func (l *lab) peered(a, b *radio) nl80211.StationInfo {
	l.t.Helper()
	var s nl80211.StationInfo
	l.until(a.Name+" peers with "+b.Name, func() bool {
		all, err := l.conn.Stations(a.Index)
		l.ok(err)
		for _, s = range all {
			if s.MAC.String() == b.MAC.String() && s.Plink == nl80211.PlinkEstab {
				return true
			}
		}
		return false
	})
	return s
}

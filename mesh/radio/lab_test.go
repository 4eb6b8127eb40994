//go:build lab

package radio_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mdlayher/packet"

	"halo.internal/drivers/nl80211"
	"halo.internal/lab/air/hwsim"
	"halo.internal/lab/testvm"
	"halo.internal/mesh/peering"
	"halo.internal/mesh/radio"
	"halo.internal/model"
)

// These tests run in the test machine. Each makes its own radios.
func TestMain(m *testing.M) {
	testvm.Main(m, testvm.Options{Modules: []string{"mac80211_hwsim radios=0"}, Packages: []string{"iw", "wpasupplicant"}})
}

// patience is far beyond what any of this takes.
const patience = 10 * time.Minute

var (
	channel1  = nl80211.Channel{FreqMHz: 2412, Width: nl80211.Width20}
	channel36 = nl80211.Channel{FreqMHz: 5180, Width: nl80211.Width20}
)

const (
	meshID   = "valley"
	password = "a password of the lab"
)

// lab is what a test has.
type lab struct {
	t     testing.TB
	ctx   context.Context
	conn  *nl80211.Conn
	hwsim *hwsim.Conn
	made  int
}

func newLab(t testing.TB) *lab {
	t.Helper()
	l := &lab{t: t, ctx: t.Context()}
	var err error
	l.hwsim, err = hwsim.Dial(0)
	l.ok(err)
	t.Cleanup(func() { l.hwsim.Close() })
	l.conn, err = nl80211.Dial(nl80211.Config{})
	l.ok(err)
	t.Cleanup(func() { l.conn.Close() })
	return l
}

func (l *lab) ok(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// until polls what no event tells.
func (l *lab) until(what string, ok func() bool) {
	l.t.Helper()
	l.within(patience, what, ok)
}

func (l *lab) within(limit time.Duration, what string, ok func() bool) {
	l.t.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			l.t.Fatalf("%s: not within %s", what, limit)
		}
	}
}

// wiphy makes a simulated radio.
func (l *lab) wiphy() (nl80211.Wiphy, int) {
	l.t.Helper()
	return l.wiphyWith(hwsim.Radio{})
}

// wiphyWith makes one with other properties than the usual.
func (l *lab) wiphyWith(r hwsim.Radio) (nl80211.Wiphy, int) {
	l.t.Helper()
	l.made++
	name := fmt.Sprintf("radio%d", l.made)
	r.Name, r.MAC, r.NoVIF = name, net.HardwareAddr{2, 0, 0, 0, 0xcc, byte(l.made)}, true
	id, err := l.hwsim.NewRadio(r)
	l.ok(err)
	l.t.Cleanup(func() { _ = l.hwsim.DeleteRadio(id) }) // the test may have removed it
	all, err := l.conn.Wiphys()
	l.ok(err)
	i := slices.IndexFunc(all, func(w nl80211.Wiphy) bool { return w.Name == name })
	if i < 0 {
		l.t.Fatalf("%s is not there after it was made", name)
	}
	return all[i], id
}

// wiphyOf returns the radio of a member.
func (l *lab) wiphyOf(m *member) nl80211.Wiphy {
	l.t.Helper()
	all, err := l.conn.Wiphys()
	l.ok(err)
	i := slices.IndexFunc(all, func(w nl80211.Wiphy) bool { return w.Name == strings.Replace(m.iface, "mesh", "radio", 1) })
	if i < 0 {
		l.t.Fatalf("no radio of %s", m.iface)
	}
	return all[i]
}

// member is a radio that is a member of the mesh.
type member struct {
	*radio.Radio
	id    int // of the simulated radio
	iface string
	mac   net.HardwareAddr
	stop  func() error // ends it and returns what Run did

	mu     sync.Mutex // guards events
	events []model.Event
}

func (m *member) notify(e model.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.events = append(m.events, e)
}

// told returns the events of a kind.
func (m *member) told(kind string) (list []model.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.events {
		if e.Kind == kind {
			list = append(list, e)
		}
	}
	return list
}

// member starts a member on a radio of its own.
func (l *lab) member(change func(*radio.Config)) *member {
	l.t.Helper()
	w, id := l.wiphy()
	m := &member{id: id, iface: fmt.Sprintf("mesh%d", l.made)}
	l.run(m, w, change)
	return m
}

// run starts a member, again if it ran before.
func (l *lab) run(m *member, w nl80211.Wiphy, change func(*radio.Config)) {
	l.t.Helper()
	c := radio.Config{
		Wiphy: w.Index, Iface: m.iface, MeshID: meshID, Password: password, Channel: channel1, BeaconInterval: 100, Notify: m.notify,
		Log: slog.New(slog.NewTextHandler(l.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})).With("member", m.iface),
	}
	if change != nil {
		change(&c)
	}
	m.Radio = radio.New(c)
	ctx, cancel := context.WithCancel(l.ctx)
	ended := make(chan error, 1)
	go func() { ended <- m.Run(ctx, nil) }()
	m.stop = sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	l.t.Cleanup(func() { _ = m.stop() }) // where it matters, the test asks
	l.until(m.iface+" joins", func() bool {
		select {
		case err := <-ended:
			ended <- err
			l.t.Fatalf("%s: %v", m.iface, err)
		default:
		}
		return m.Ready() == nil
	})
	i, err := net.InterfaceByName(m.iface)
	l.ok(err)
	m.mac = i.HardwareAddr
}

// linked tells whether a member's kernel has an established peering.
func (l *lab) linked(iface string, mac net.HardwareAddr) bool {
	i, err := net.InterfaceByName(iface)
	if err != nil {
		return false
	}
	s, err := l.conn.Station(i.Index, mac)
	return err == nil && s.Plink == nl80211.PlinkEstab
}

func (l *lab) link(a, b *member) {
	l.t.Helper()
	l.until(a.iface+" and "+b.iface+" have a link", func() bool { return l.linked(a.iface, b.mac) && l.linked(b.iface, a.mac) })
}

// end is one side of a link.
type end struct {
	iface string
	mac   net.HardwareAddr
}

// carry sends a frame to b's address and one to all until both have arrived.
func (l *lab) carry(a, b end) {
	l.t.Helper()
	const etherType = 0x88b6 // local experimental 2
	open := func(name string) *packet.Conn {
		i, err := net.InterfaceByName(name)
		l.ok(err)
		c, err := packet.Listen(i, packet.Raw, etherType, nil)
		l.ok(err)
		l.t.Cleanup(func() { c.Close() })
		return c
	}
	from, at := open(a.iface), open(b.iface)
	for _, to := range []net.HardwareAddr{b.mac, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff}} {
		frame := slices.Concat(to, a.mac, []byte{etherType >> 8, etherType & 0xff}, make([]byte, 60))
		l.until("a frame from "+a.iface+" to "+to.String()+" at "+b.iface, func() bool {
			if _, err := from.WriteTo(frame, &packet.Addr{HardwareAddr: to}); err != nil {
				return false // a full queue while the path is looked for
			}
			l.ok(at.SetReadDeadline(time.Now().Add(time.Second)))
			buf := make([]byte, 2000)
			n, _, err := at.ReadFrom(buf)
			return err == nil && n >= 12 && bytes.Equal(buf[:6], to) && bytes.Equal(buf[6:12], a.mac)
		})
	}
}

// chatter has members say something to all every five seconds until the test is over, as
// those of a mesh that routes do: who was heard and is not any more is doubted.
func (l *lab) chatter(members ...*member) {
	ctx, stop := context.WithCancel(l.ctx)
	done := make(chan struct{})
	l.t.Cleanup(func() { stop(); <-done })
	say := func(m *member) {
		i, err := net.InterfaceByName(m.iface)
		if err != nil {
			return // it begins anew
		}
		const etherType = 0x88b5 // local experimental 1
		c, err := packet.Listen(i, packet.Raw, etherType, nil)
		if err != nil {
			return
		}
		defer c.Close()
		all := net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
		frame := slices.Concat(all, m.mac, []byte{etherType >> 8, etherType & 0xff}, make([]byte, 60))
		_, _ = c.WriteTo(frame, &packet.Addr{HardwareAddr: all}) // said again soon
	}
	go func() {
		defer close(done)
		every := time.NewTicker(5 * time.Second)
		defer every.Stop()
		for {
			for _, m := range members {
				say(m)
			}
			select {
			case <-every.C:
			case <-ctx.Done():
				return
			}
		}
	}()
}

func (m *member) end() end { return end{m.iface, m.mac} }

func TestALink(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*radio.Config)
	}{
		{"management frames protected", nil},
		{"management frames protected where both can", func(c *radio.Config) { c.MFP = peering.MFPOptional }},
		{"management frames not protected", func(c *radio.Config) { c.MFP = peering.MFPOff }},
		{"5 GHz", func(c *radio.Config) { c.Channel = channel36 }},
		{"without HT", func(c *radio.Config) { c.Channel.Width = nl80211.Width20NoHT }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := newLab(t)
			l.country("DE")
			a, b := l.member(tc.change), l.member(tc.change)
			start := time.Now()
			l.link(a, b)
			t.Logf("a link after %.2f s", time.Since(start).Seconds())
			l.carry(a.end(), b.end())
			l.carry(b.end(), a.end())
			if err := a.stop(); err != nil {
				t.Errorf("end: %v", err)
			}
			l.until("the end is heard of", func() bool { return len(b.told(radio.EventPeerLost)) == 1 && !l.linked(b.iface, a.mac) })
		})
	}
}

// TestAScanIsAnswered: whoever asks on another channel hears of a member that beacons
// rarely.
func TestAScanIsAnswered(t *testing.T) {
	l := newLab(t)
	channel6 := nl80211.Channel{FreqMHz: 2437, Width: nl80211.Width20}
	a, b := l.member(nil), l.member(func(c *radio.Config) { c.Channel, c.BeaconInterval = channel6, 10000 })
	l.until("it is answered", func() bool {
		heard, err := radio.Scan(l.ctx, a.iface, false)
		if errors.Is(err, radio.ErrBusy) {
			return false
		}
		l.ok(err)
		return slices.ContainsFunc(heard, func(s nl80211.BSS) bool {
			return bytes.Equal(s.BSSID, b.mac) && s.FreqMHz == channel6.FreqMHz && string(s.MeshID()) == meshID
		})
	})
}

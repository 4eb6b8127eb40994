//go:build lab

package nl80211_test

import (
	"bytes"
	"errors"
	"io/fs"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"halo.internal/drivers/nl80211"
)

func TestOpenMesh(t *testing.T) {
	l := newLab(t, nl80211.GroupMLME)
	a, b := l.radio(nl80211.MeshPoint), l.radio(nl80211.MeshPoint)
	for _, r := range []*radio{a, b} {
		l.ok(l.conn.JoinMesh(r.Index, open()))
	}
	if err := l.conn.JoinMesh(a.Index, open()); err == nil {
		t.Error("joined twice")
	}
	await(l, "station", func(e nl80211.StationAdded) bool {
		return e.Station.Iface == a.Index && bytes.Equal(e.Station.MAC, b.MAC)
	})
	l.peered(a, b)
	l.peered(b, a)
	l.carry(a, b)
	// ExpectedThroughput stays 0 for as long as the rate control has not tried much.
	s, err := l.conn.Station(a.Index, b.MAC)
	l.ok(err)
	if s.SignalDBm >= 0 || s.Plink != nl80211.PlinkEstab || s.LLID == 0 || s.PLID == 0 || s.RxBytes == 0 || s.TxBytes == 0 ||
		s.AirtimeMetric == 0 || s.TxRate.Bitrate == 0 || s.Flags&nl80211.Authorized == 0 {
		t.Errorf("station: got %+v", s)
	}
	if i, err := l.conn.Interface(a.Index); err != nil || i.Channel.FreqMHz != 2412 || i.Channel.Width != nl80211.Width20 {
		t.Errorf("interface: got %+v, %v", i, err)
	}
	p, err := l.conn.MeshParameters(a.Index)
	l.ok(err)
	if p.Forwarding == nil || *p.Forwarding || p.AutoOpenPlinks == nil || !*p.AutoOpenPlinks || p.PlinkTimeout == nil || *p.PlinkTimeout != 30*time.Second {
		t.Errorf("parameters: got %+v", p)
	}
	l.ok(l.conn.SetMeshParameters(a.Index, nl80211.MeshParameters{MaxPeerLinks: new(uint16(7)), TTL: new(uint8(3)), RSSIThreshold: new(int32(-90))}))
	if p, err := l.conn.MeshParameters(a.Index); err != nil || *p.MaxPeerLinks != 7 || *p.TTL != 3 || *p.RSSIThreshold != -90 || *p.Forwarding {
		t.Errorf("after the change: got %+v, %v", p, err)
	}
	l.ok(l.conn.LeaveMesh(a.Index))
	await(l, "station gone", func(e nl80211.StationRemoved) bool {
		return e.Station.Iface == a.Index && bytes.Equal(e.Station.MAC, b.MAC)
	})
	if _, err := l.conn.Station(a.Index, b.MAC); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a station that is gone: got %v", err)
	}
}

// carry sends a frame to b's address and one to all until both arrive.
func (l *lab) carry(a, b *radio) {
	l.t.Helper()
	const etherType = 0x88b6 // local experimental 2
	ends := map[string]*packet.Conn{}
	for _, r := range []*radio{a, b} {
		i, err := net.InterfaceByIndex(r.Index)
		l.ok(err)
		c, err := packet.Listen(i, packet.Raw, etherType, nil)
		l.ok(err)
		defer c.Close()
		ends[r.Name] = c
	}
	for _, to := range []net.HardwareAddr{b.MAC, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff}} {
		frame := slices.Concat(to, a.MAC, []byte{etherType >> 8, etherType & 0xff}, make([]byte, 60))
		l.until("frame to "+to.String(), func() bool {
			if _, err := ends[a.Name].WriteTo(frame, &packet.Addr{HardwareAddr: to}); err != nil {
				return false // a full queue while the path is looked for
			}
			if err := ends[b.Name].SetReadDeadline(time.Now().Add(time.Second)); err != nil {
				l.t.Fatal(err)
			}
			buf := make([]byte, 2000)
			n, _, err := ends[b.Name].ReadFrom(buf)
			return err == nil && n >= 12 && bytes.Equal(buf[:6], to) && bytes.Equal(buf[6:12], a.MAC)
		})
	}
}

// peers is a mesh whose peering is ours.
func peers() nl80211.MeshSetup {
	s := open()
	s.UserspaceMPM = true
	s.Parameters.AutoOpenPlinks = new(false)
	return s
}

func TestPeeringByUs(t *testing.T) {
	l := newLab(t, nl80211.GroupMLME)
	a, b := l.radio(nl80211.MeshPoint), l.radio(nl80211.MeshPoint)
	open := []byte{15, 1}
	l.ok(l.events.RegisterFrame(l.ctx, b.Index, nl80211.FrameAction, open))
	if err := l.events.RegisterFrame(l.ctx, b.Index, nl80211.FrameAction, open); !errors.Is(err, unix.EALREADY) {
		t.Errorf("registered twice: got %v", err)
	}
	for _, r := range []*radio{a, b} {
		l.ok(l.conn.JoinMesh(r.Index, peers()))
	}
	c := await(l, "candidate", func(e nl80211.PeerCandidate) bool { return e.Iface == a.Index })
	if !bytes.Equal(c.MAC, b.MAC) || c.SignalDBm >= 0 || !bytes.Contains(c.IEs, []byte("\x72\x03air")) {
		t.Errorf("candidate: got %+v", c)
	}
	station := nl80211.NewStation{MAC: b.MAC, AID: 1, ListenInterval: 100, Rates: rates, Mask: nl80211.WME | nl80211.Authenticated, Flags: nl80211.WME}
	l.ok(l.conn.AddStation(a.Index, station))
	await(l, "station", func(e nl80211.StationAdded) bool { return bytes.Equal(e.Station.MAC, b.MAC) })

	frame := mgmt(nl80211.FrameAction, b.MAC, a.MAC, append(open, "a body"...))
	cookie, err := l.conn.Send(a.Index, nl80211.SendFrame{Data: frame})
	l.ok(err)
	var status *nl80211.FrameStatus
	var received *nl80211.Frame
	for status == nil || received == nil { // in either order
		e, err := l.events.Next(l.ctx)
		l.ok(err)
		switch e := e.(type) {
		case nl80211.FrameStatus:
			if e.Cookie == cookie {
				status = &e
			}
		case nl80211.Frame:
			received = &e
		}
	}
	if !status.Acked || status.Iface != a.Index {
		t.Errorf("status: got %+v", status)
	}
	if received.Iface != b.Index || received.FreqMHz != 2412 || !bytes.Equal(received.Data[24:], frame[24:]) {
		t.Errorf("frame: got %+v", received)
	}
	// Nobody is there to acknowledge this one.
	cookie, err = l.conn.Send(a.Index, nl80211.SendFrame{Data: mgmt(nl80211.FrameAction, net.HardwareAddr{2, 9, 9, 9, 9, 9}, a.MAC, open)})
	l.ok(err)
	if s := await(l, "status", func(e nl80211.FrameStatus) bool { return e.Cookie == cookie }); s.Acked {
		t.Errorf("status: got %+v, want no acknowledgement", s)
	}
	if cookie, err := l.conn.Send(a.Index, nl80211.SendFrame{Data: frame, NoAck: true}); err != nil || cookie != 0 {
		t.Errorf("without acknowledgement: got %d, %v", cookie, err)
	}
	await(l, "frame", func(e nl80211.Frame) bool { return e.Iface == b.Index })

	for _, p := range []nl80211.PlinkState{nl80211.PlinkOpnSnt, nl80211.PlinkHolding} {
		l.ok(l.conn.SetStation(a.Index, b.MAC, nl80211.StationChange{Plink: new(p)}))
		if s, err := l.conn.Station(a.Index, b.MAC); err != nil || s.Plink != p {
			t.Errorf("state: got %v, %v, want %v", s.Plink, err, p)
		}
	}
	l.ok(l.conn.DeleteStation(a.Index, b.MAC))
	await(l, "station gone", func(e nl80211.StationRemoved) bool { return e.Station.Iface == a.Index })
	await(l, "candidate again", func(e nl80211.PeerCandidate) bool { return e.Iface == a.Index && bytes.Equal(e.MAC, b.MAC) })
}

// mgmt makes a management frame from its three addresses and body.
func mgmt(control uint16, to, from net.HardwareAddr, body []byte) []byte {
	return slices.Concat([]byte{byte(control), byte(control >> 8), 0, 0}, to, from, from, []byte{0, 0}, body)
}

// rsn is an RSN element: CCMP, SAE, management frames protected.
var rsn = []byte{48, 26, 1, 0, 0, 0x0f, 0xac, 4, 1, 0, 0, 0x0f, 0xac, 4, 1, 0, 0, 0x0f, 0xac, 8, 0xc0, 0, 0, 0, 0, 0x0f, 0xac, 6}

// TestKeys makes a secure mesh with keys that both sides know, as SAE and AMPE
// would leave them, and carries frames over it.
func TestKeys(t *testing.T) {
	l := newLab(t, nl80211.GroupMLME)
	a, b := l.radio(nl80211.MeshPoint), l.radio(nl80211.MeshPoint)
	pair := bytes.Repeat([]byte{1}, 16)
	own := map[*radio][2][]byte{
		a: {bytes.Repeat([]byte{2}, 16), bytes.Repeat([]byte{3}, 16)},
		b: {bytes.Repeat([]byte{4}, 16), bytes.Repeat([]byte{5}, 16)},
	}
	for r, keys := range own {
		l.ok(l.conn.AddKey(r.Index, nl80211.Key{Index: 1, Cipher: nl80211.CCMP, Data: keys[0]}))
		l.ok(l.conn.UseGroupKey(r.Index, 1))
		l.ok(l.conn.AddKey(r.Index, nl80211.Key{Index: 4, Cipher: nl80211.BIP, Data: keys[1]}))
		l.ok(l.conn.UseManagementKey(r.Index, 4))
		s := peers()
		s.IEs, s.AuthProtocol, s.UserspaceAuth, s.UserspaceAMPE = rsn, nl80211.AuthSAE, true, true
		l.ok(l.conn.JoinMesh(r.Index, s))
	}
	for _, ends := range [][2]*radio{{a, b}, {b, a}} {
		here, there := ends[0], ends[1]
		await(l, "candidate", func(e nl80211.PeerCandidate) bool { return e.Iface == here.Index && bytes.Equal(e.MAC, there.MAC) })
		l.ok(l.conn.AddStation(here.Index, nl80211.NewStation{
			MAC: there.MAC, AID: 1, ListenInterval: 100, Rates: rates,
			Mask: nl80211.Authenticated | nl80211.WME | nl80211.MFP, Flags: nl80211.WME | nl80211.MFP,
		}))
		if err := l.conn.AddKey(here.Index, nl80211.Key{Index: 0, Cipher: nl80211.CCMP, Data: pair, MAC: there.MAC, Type: nl80211.PairwiseKey}); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a key before authentication: got %v", err)
		}
		known := nl80211.Authenticated | nl80211.Authorized
		l.ok(l.conn.SetStation(here.Index, there.MAC, nl80211.StationChange{Mask: known, Flags: known}))
		l.ok(l.conn.AddKey(here.Index, nl80211.Key{Index: 0, Cipher: nl80211.CCMP, Data: pair, MAC: there.MAC, Type: nl80211.PairwiseKey}))
		zero := make([]byte, 6)
		l.ok(l.conn.AddKey(here.Index, nl80211.Key{Index: 1, Cipher: nl80211.CCMP, Data: own[there][0], Seq: zero, MAC: there.MAC, Type: nl80211.GroupKey}))
		l.ok(l.conn.AddKey(here.Index, nl80211.Key{Index: 4, Cipher: nl80211.BIP, Data: own[there][1], Seq: zero, MAC: there.MAC, Type: nl80211.GroupKey}))
		l.ok(l.conn.SetStation(here.Index, there.MAC, nl80211.StationChange{Plink: new(nl80211.PlinkEstab), PeerAID: 1}))
	}
	l.carry(a, b)
	l.carry(b, a)
	s, err := l.conn.Station(a.Index, b.MAC)
	if want := nl80211.Authorized | nl80211.MFP | nl80211.WME; err != nil || s.Plink != nl80211.PlinkEstab || s.Flags&want != want {
		t.Errorf("station: got %+v, %v", s, err)
	}
	seq, err := l.conn.KeySeq(a.Index, 1, nil, nl80211.GroupKey)
	if err != nil || len(seq) != 6 || bytes.Equal(seq, make([]byte, 6)) {
		t.Errorf("counter of the group key: got %x, %v", seq, err)
	}
	// A key can be removed by itself; a station takes its keys along.
	l.ok(l.conn.DeleteKey(b.Index, 0, a.MAC, nl80211.PairwiseKey))
	l.ok(l.conn.DeleteStation(a.Index, b.MAC))
}

func TestScan(t *testing.T) {
	l := newLab(t, nl80211.GroupScan)
	a, b := l.radio(nl80211.MeshPoint), l.radio(nl80211.Station)
	l.ok(l.conn.JoinMesh(a.Index, open()))
	var s nl80211.BSS
	l.until("the scan finds "+a.MAC.String(), func() bool { // it may listen between two beacons
		l.ok(l.conn.StartScan(b.Index, nl80211.Scan{FreqsMHz: []int{2412, 2437}, Flush: true}))
		if err := l.conn.StartScan(b.Index, nl80211.Scan{}); !errors.Is(err, unix.EBUSY) {
			t.Errorf("two scans at once: got %v", err)
		}
		if e := await(l, "scan", func(e nl80211.ScanDone) bool { return e.Iface == b.Index }); e.Aborted {
			t.Error("the scan was aborted")
		}
		all, err := l.conn.ScanResults(b.Index)
		l.ok(err)
		i := slices.IndexFunc(all, func(s nl80211.BSS) bool { return bytes.Equal(s.BSSID, a.MAC) })
		if i >= 0 {
			s = all[i]
		}
		return i >= 0
	})
	if s.FreqMHz != 2412 || string(s.MeshID()) != "air" || s.SignalMBm >= 0 || s.BeaconInterval != 100 {
		t.Errorf("got %+v", s)
	}
	// This driver knows of a channel once it has left it.
	surveys, err := l.conn.Surveys(b.Index)
	if err != nil || !slices.ContainsFunc(surveys, func(s nl80211.Survey) bool { return s.FreqMHz == 2412 && s.NoiseDBm < 0 && s.Time > 0 }) {
		t.Errorf("survey: got %+v, %v", surveys, err)
	}
	l.ok(l.conn.StartScan(b.Index, nl80211.Scan{}))
	l.ok(l.conn.AbortScan(b.Index))
	if e := await(l, "end of the scan", func(e nl80211.ScanDone) bool { return e.Iface == b.Index }); !e.Aborted {
		t.Error("the scan was not aborted")
	}
}

func TestChannelSwitch(t *testing.T) {
	l := newLab(t, nl80211.GroupMLME)
	a, b := l.radio(nl80211.MeshPoint), l.radio(nl80211.MeshPoint)
	for _, r := range []*radio{a, b} {
		l.ok(l.conn.JoinMesh(r.Index, open()))
	}
	l.peered(a, b)
	l.peered(b, a)
	to := nl80211.Channel{FreqMHz: 2437, Width: nl80211.Width20}
	l.ok(l.conn.SwitchChannel(a.Index, to, 5))
	there := map[int]bool{}
	await(l, "both switch", func(e nl80211.ChannelSwitched) bool {
		if e.Channel.FreqMHz != 2437 {
			t.Errorf("interface %d is on %s", e.Iface, e.Channel)
		}
		there[e.Iface] = true
		return there[a.Index] && there[b.Index]
	})
	for _, r := range []*radio{a, b} {
		if i, err := l.conn.Interface(r.Index); err != nil || i.Channel.FreqMHz != 2437 {
			t.Errorf("%s: got %s, %v", r.Name, i.Channel, err)
		}
	}
	l.peered(a, b)
	l.carry(a, b)
}

// TestOverflow has more events than the socket takes; listing tells what was
// missed.
func TestOverflow(t *testing.T) {
	l := newLab(t)
	r := l.radio(nl80211.MeshPoint)
	small, err := nl80211.Listen(nl80211.Config{ReceiveBuffer: 1}, nl80211.GroupConfig)
	l.ok(err)
	l.events.Close()
	l.events = small
	t.Cleanup(func() { small.Close() })
	release := small.Hold()
	for range 10 {
		i, err := l.conn.NewInterface(r.wiphy.Index, "burst", nl80211.Monitor, nil)
		l.ok(err)
		l.ok(l.conn.DeleteInterface(i.Index))
	}
	last, err := l.conn.NewInterface(r.wiphy.Index, "last", nl80211.Monitor, nil)
	l.ok(err)
	release()
	await(l, "overflow", func(nl80211.Overflow) bool { return true })
	all, err := l.conn.Interfaces()
	if err != nil || !slices.ContainsFunc(all, func(i nl80211.Interface) bool { return i.Index == last.Index }) {
		t.Errorf("listing after the overflow: got %+v, %v", all, err)
	}
	// From here on events come again.
	l.ok(l.conn.DeleteInterface(last.Index))
	await(l, "the next event", func(e nl80211.InterfaceRemoved) bool { return e.Interface.Index == last.Index })
}

// TestOnly hears of one interface alone, and of radios.
func TestOnly(t *testing.T) {
	l := newLab(t, nl80211.GroupConfig)
	a, b := l.radio(nl80211.MeshPoint), l.radio(nl80211.MeshPoint)
	l.ok(l.events.Only(a.Index))
	l.ok(l.conn.DeleteInterface(b.Index))
	l.ok(l.conn.DeleteInterface(a.Index))
	await(l, "the end of the interface", func(e nl80211.InterfaceRemoved) bool {
		if e.Interface.Index == b.Index {
			t.Error("heard of another interface")
		}
		return e.Interface.Index == a.Index
	})
	l.ok(l.events.RegisterFrame(l.ctx, l.radio(nl80211.MeshPoint).Index, nl80211.FrameAuthentication, nil)) // answers come
	await(l, "another radio", func(nl80211.WiphyAdded) bool { return true })
}

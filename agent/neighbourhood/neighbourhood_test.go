package neighbourhood_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"halo.internal/agent/neighbourhood"
	"halo.internal/model"
	"halo.internal/model/dot11"
)

func nodeID(n int) string {
	digits := []byte(strings.Repeat("a", 20))
	digits[0], digits[1] = byte('a'+n%26), byte('a'+n/26%26)
	return "n-" + string(digits)
}

func address(n int) dot11.MAC { return dot11.MAC{2, 0, 0, 0, byte(n >> 8), byte(n)} }

// device is a node with a HaLow radio and so many links, whose gateway is one of them.
// Time passes by its own clock.
type device struct {
	t      *testing.T
	now    time.Time
	status model.MeshStatus
	seen   time.Duration // since halo-mesh said so
	r      *neighbourhood.Reporter
}

// uptime of the machine when a test begins.
const uptime = 90 * time.Second

var noon = time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)

func newDevice(t *testing.T, links, nodes int) *device {
	d := &device{t: t, now: noon}
	gateway := noon.Add(-40 * time.Second)
	d.status = model.MeshStatus{
		Node: nodeID(1), Role: model.RoleNode, BootCounter: 3, Time: noon, Gateway: nodeID(0), Originators: nodes - 1,
		Interfaces: []model.Interface{{Name: "bat0", Kind: "mesh", MAC: address(1).String()}},
		Radios:     []model.Radio{{Name: "phy0", Iface: "mesh0", MAC: address(2).String(), HaLow: "S1G channel 1", HaLowKHz: 902_500, HaLowWide: 1000}},
		NextHop:    &model.ReportNextHop{Node: nodeID(0), Next: address(100), NextNode: nodeID(0), Iface: "mesh0", TQ: 240},
		Overlay:    []model.OverlayPeer{{Node: nodeID(0), LastHandshake: &gateway, Endpoint: "[fd00::1]:51820"}},
	}
	for n := range links {
		d.link(100+n, true)
	}
	d.begin()
	return d
}

// begin is a start of the process.
func (d *device) begin() {
	d.r = neighbourhood.New(func() (model.MeshStatus, time.Time) { return d.status, d.now.Add(-d.seen) },
		func() uint64 { return uint64((uptime + d.now.Sub(noon)).Milliseconds()) })
	d.r.Begin()
}

// link makes a link to the device of that address, or ends it.
func (d *device) link(n int, there bool) {
	radio := d.status.Radios[0]
	radio.Peers = append([]model.RadioPeer(nil), radio.Peers...)
	neighbours := append([]model.Neighbour(nil), d.status.Neighbours...)
	mac := address(n).String()
	for i, p := range radio.Peers {
		if p.MAC == mac {
			radio.Peers = append(radio.Peers[:i], radio.Peers[i+1:]...)
			break
		}
	}
	for i, p := range neighbours {
		if p.MAC == mac {
			neighbours = append(neighbours[:i], neighbours[i+1:]...)
			break
		}
	}
	if there {
		radio.Peers = append(radio.Peers, model.RadioPeer{MAC: mac, Linked: true, SignalDBm: -70, TxMbps: 0.3, RxMbps: 0.3})
		neighbours = append(neighbours, model.Neighbour{Iface: "mesh0", MAC: mac, TQ: 240})
	}
	d.status.Radios, d.status.Neighbours = []model.Radio{radio}, neighbours
}

// signal of the first link.
func (d *device) signal(dbm float64) {
	radio := d.status.Radios[0]
	radio.Peers = append([]model.RadioPeer(nil), radio.Peers...)
	radio.Peers[0].SignalDBm = dbm
	d.status.Radios = []model.Radio{radio}
}

// pass lets time pass in looks of five seconds, with readings every minute, and returns
// the reports that were sent.
func (d *device) pass(span time.Duration) (sent []sending) {
	d.t.Helper()
	for end := d.now.Add(span); d.now.Before(end); {
		d.now = d.now.Add(5 * time.Second)
		shaken := d.now.Add(-time.Duration(d.now.Unix()%120) * time.Second) // renewed every two minutes
		d.status.Time, d.status.Overlay[0].LastHandshake = d.now, &shaken
		along := d.now.Unix()%60 == 0
		if r, ok := d.r.Next(d.now, along); ok {
			sent = append(sent, sending{d.now, r, along})
			if err := r.Check(); err != nil {
				d.t.Fatal(err)
			}
		}
	}
	return sent
}

type sending struct {
	at     time.Time
	report model.Report
	along  bool // with readings
}

func text(list []sending) string {
	var b strings.Builder
	for _, s := range list {
		fmt.Fprintf(&b, "%s along %v: %d goes on from %d, %d interfaces\n", s.at.Format(time.TimeOnly), s.along, s.report.Seq, s.report.Base, len(s.report.Interfaces))
	}
	return b.String()
}

func TestTheFirstIsWholeAndSilenceFollows(t *testing.T) {
	d := newDevice(t, 3, 30)
	sent := d.pass(5 * time.Second)
	if len(sent) != 1 || sent[0].report.Base != 0 || len(sent[0].report.Interfaces) != 2 || sent[0].report.EveryS != 600 || sent[0].report.Seq != 95_000 {
		t.Fatalf("got %s%+v", text(sent), sent)
	}
	if sent := d.pass(8 * time.Minute); len(sent) != 0 {
		t.Errorf("nothing happened: got %s", text(sent))
	}
	// It says in time that it still holds, along with readings.
	sent = d.pass(2 * time.Minute)
	if len(sent) != 1 || !sent[0].along || sent[0].report.Base != 95_000 || len(sent[0].report.Interfaces)+len(sent[0].report.Overlay) != 0 {
		t.Errorf("got %s", text(sent))
	}
}

func TestWhatDriftsGoesAlong(t *testing.T) {
	d := newDevice(t, 3, 100)
	d.pass(5 * time.Second)
	d.signal(-72)
	if sent := d.pass(6 * time.Minute); len(sent) != 0 {
		t.Errorf("two decibels are no news: got %s", text(sent))
	}
	d.signal(-76)
	sent := d.pass(6 * time.Minute)
	if len(sent) != 1 || !sent[0].along || len(sent[0].report.Interfaces) != 1 || len(sent[0].report.Interfaces[0].Links) != 1 {
		t.Fatalf("got %s", text(sent))
	}
	// Of 100 nodes each says so every 200 s at most, however much it wavers.
	n := 0
	for range 60 {
		d.signal(-60 - 5*float64(n%7))
		n++
		for _, s := range d.pass(30 * time.Second) {
			if !s.along {
				t.Errorf("a report of its own: %s", text([]sending{s}))
			}
			sent = append(sent, s)
		}
	}
	if got := len(sent) - 1; got < 6 || got > 9 {
		t.Errorf("half an hour: got %d reports, want one in 200 s\n%s", got, text(sent))
	}
}

func TestWithoutReadingsItGoesByItself(t *testing.T) {
	d := newDevice(t, 3, 30)
	d.pass(5 * time.Second)
	d.signal(-80)
	sent := 0
	for d.now.Sub(noon) < 4*time.Minute {
		d.now = d.now.Add(5 * time.Second)
		if _, ok := d.r.Next(d.now, false); ok {
			if sent++; d.now.Sub(noon) < 95*time.Second {
				t.Errorf("after %v: it could have waited for readings", d.now.Sub(noon))
			}
		}
	}
	if sent != 1 {
		t.Errorf("got %d reports", sent)
	}
}

func TestWhatAltersTheNetworkGoesAtOnce(t *testing.T) {
	for name, alter := range map[string]func(d *device){
		"a link is lost": func(d *device) { d.link(101, false) },
		"a link is made": func(d *device) { d.link(150, true) },
		"a peer falls silent": func(d *device) {
			p := append([]model.RadioPeer(nil), d.status.Radios[0].Peers...)
			p[1].InactiveMS = 70_000
			d.status.Radios = []model.Radio{{Name: "phy0", Iface: "mesh0", MAC: address(2).String(), HaLow: "S1G channel 1", HaLowKHz: 902_500, HaLowWide: 1000, Peers: p}}
		},
		"another next hop": func(d *device) {
			h := *d.status.NextHop
			h.Next = address(101)
			d.status.NextHop = &h
		},
		"no way":          func(d *device) { d.status.NextHop = nil },
		"another channel": func(d *device) { d.status.Radios[0].HaLowKHz += 1000 },
	} {
		t.Run(name, func(t *testing.T) {
			d := newDevice(t, 3, 250)
			d.pass(30 * time.Second)
			alter(d)
			sent := d.pass(10 * time.Second)
			if len(sent) != 1 || sent[0].report.Base == 0 {
				t.Fatalf("got %s", text(sent))
			}
			if sent := d.pass(time.Minute); len(sent) != 0 {
				t.Errorf("again: %s", text(sent))
			}
		})
	}
}

// TestALinkThatComesAndGoes fills no channel: a few at once, then one in each interval.
func TestALinkThatComesAndGoes(t *testing.T) {
	d := newDevice(t, 3, 250)
	d.pass(5 * time.Second)
	var sent []sending
	for n := range 120 {
		d.link(150, n%2 == 0)
		sent = append(sent, d.pass(30*time.Second)...)
	}
	// An hour has seven intervals of 500 s, in each of which numbers may go along besides.
	if len(sent) < 8 || len(sent) > 4+2*8 {
		t.Errorf("an hour: got %d reports\n%s", len(sent), text(sent))
	}
	first := sent[0].at
	for i, s := range sent {
		if s.at.Sub(first) < 2*time.Minute && i > 3 {
			t.Errorf("more than a few at once:\n%s", text(sent))
			break
		}
	}
}

// TestWhatAltersTogetherGoesTogether: a relay dies, and links go one after the other.
func TestWhatAltersTogetherGoesTogether(t *testing.T) {
	d := newDevice(t, 6, 50)
	d.pass(30 * time.Second)
	d.link(101, false)
	d.pass(0)
	if _, ok := d.r.Next(d.now.Add(time.Second), false); ok {
		t.Error("it did not wait for what follows")
	}
	d.link(102, false)
	d.link(103, false)
	sent := d.pass(10 * time.Second)
	if len(sent) != 1 || len(sent[0].report.Interfaces[0].Links) != 3 {
		t.Errorf("got %s%+v", text(sent), sent)
	}
}

func TestAfterALostStream(t *testing.T) {
	d := newDevice(t, 3, 30)
	first := d.pass(5 * time.Second)
	d.link(101, false)
	d.r.Begin()
	sent := d.pass(5 * time.Second)
	if len(sent) != 1 || sent[0].report.Base != first[0].report.Seq || len(sent[0].report.Interfaces) != 1 {
		t.Fatalf("got %s", text(sent))
	}
	// The gateway does not have what that goes on from.
	d.r.Again()
	sent = d.pass(20 * time.Second)
	if len(sent) != 1 || sent[0].report.Base != 0 || len(sent[0].report.Interfaces) != 2 {
		t.Fatalf("got %s", text(sent))
	}
	// Nor does one that always asks get an answer each time.
	n := 0
	for range 60 {
		d.r.Again()
		d.now = d.now.Add(time.Second)
		if _, ok := d.r.Next(d.now, true); ok {
			n++
		}
	}
	if n > 6 {
		t.Errorf("a minute: got %d whole reports", n)
	}
}

// TestNumbersRiseOverARestart of the process in the same start of the machine.
func TestNumbersRiseOverARestart(t *testing.T) {
	d := newDevice(t, 3, 30)
	var last uint64
	for range 20 {
		for _, s := range d.pass(15 * time.Second) {
			if s.report.Seq <= last {
				t.Fatalf("%d follows %d", s.report.Seq, last)
			}
			last = s.report.Seq
		}
		d.begin()
	}
	if last == 0 {
		t.Fatal("nothing was sent")
	}
	// Two within a millisecond.
	a, ok := d.r.Next(d.now, false)
	d.r.Again()
	d.r.Begin()
	b, again := d.r.Next(d.now, false)
	if !ok || !again || b.Seq != a.Seq+1 {
		t.Errorf("got %d and %d", a.Seq, b.Seq)
	}
}

func TestNothingIsSaidOfWhatIsNotKnown(t *testing.T) {
	for name, spoil := range map[string]func(*device){
		"halo-mesh is silent":           func(d *device) { d.seen = 2 * time.Minute },
		"its kernel is":                 func(d *device) { d.status.StaleMS = 100_000 },
		"halo-mesh has said nothing":    func(d *device) { d.status = model.MeshStatus{Overlay: d.status.Overlay} },
		"the device is nobody yet":      func(d *device) { d.status.BootCounter = 0 },
		"its ID is none, as of a fault": func(d *device) { d.status.Node = "mast" },
	} {
		t.Run(name, func(t *testing.T) {
			d := newDevice(t, 3, 30)
			spoil(d)
			if sent := d.pass(20 * time.Minute); len(sent) != 0 {
				t.Errorf("got %s", text(sent))
			}
		})
	}
}

// TestWhatTheGatewayAddsUp is what the device sees, whatever happens.
func TestWhatTheGatewayAddsUp(t *testing.T) {
	d := newDevice(t, 4, 10)
	noise := rand.New(rand.NewPCG(1, 2))
	var has model.Report
	for range 400 {
		switch noise.IntN(5) {
		case 0:
			d.link(101+noise.IntN(6), noise.IntN(2) == 0)
		case 1:
			d.signal(-50 - float64(noise.IntN(40)))
		case 2:
			d.r.Begin()
		}
		for _, s := range d.pass(15 * time.Second) {
			if s.report.Base == 0 {
				has = s.report
				continue
			}
			var err error
			if has, err = has.With(s.report); err != nil {
				t.Fatal(err)
			}
		}
	}
	d.pass(15 * time.Minute)
	want := model.ReportOf(d.status, nil)
	if has.Altered(want, nodeID(0)) {
		t.Errorf("got %+v\nwant %+v", has, want)
	}
}

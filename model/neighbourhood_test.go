package model

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-cmp/cmp"

	"halo.internal/model/dot11"
)

// nodeID is a canonical ID that differs for each n.
func nodeID(n int) string {
	digits := []byte(strings.Repeat("a", idDigits))
	for i := range digits {
		digits[i] = alphabet[(n+i*7)%32]
		n /= 3
	}
	return idPrefix + string(digits)
}

func mac(node, iface int) dot11.MAC {
	return dot11.MAC{2, 0, 0, byte(iface), byte(node >> 8), byte(node)}
}

// whatANodeSends is a report of a node with a radio, a port and that many links over
// the air, as BATMAN_IV has them.
func whatANodeSends(links int) Report {
	radio := ReportInterface{Name: "mesh0", Addresses: []dot11.MAC{mac(1, 0)}, Transport: TransportWiFi, FreqKHz: 2412000, WidthKHz: 20000}
	for n := range links {
		radio.Links = append(radio.Links, ReportLink{Peer: mac(2+n, 0), SignalDBm: -50 - 3*n, TxKbps: 65000 - 3000*n, RxKbps: 58500 - 2000*n,
			TQ: 255 - 7*n, RetryPermille: 20 + 30*n, FailPermille: n, InactiveMS: 40 + 900*n})
	}
	r := Report{Node: nodeID(1), Boot: 41, Seq: 12345,
		Interfaces: ReportInterfaces{
			{Name: "bat0", Addresses: []dot11.MAC{mac(1, 9)}},
			{Name: "eth0", Addresses: []dot11.MAC{mac(1, 2), mac(1, 3)}, Transport: TransportEthernet},
			radio,
		},
		NextHops: ReportNextHops{{Node: nodeID(0), Next: mac(2, 0), NextNode: nodeID(2), Iface: "mesh0", TQ: 201}},
		Overlay:  ReportOverlay{{Node: nodeID(0), HandshakeS: 87, Direct: true}, {Node: nodeID(5), HandshakeS: 301, Direct: true}},
	}
	r.Sort()
	return r
}

var encMode = func() cbor.EncMode {
	m, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		panic(err)
	}
	return m
}()

func encode(t testing.TB, r Report) []byte {
	t.Helper()
	b, err := encMode.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A report of ten links crosses a HaLow channel of 1 MHz in some 20 ms.
const mostOctets = 400

func TestAReportIsSmall(t *testing.T) {
	r := whatANodeSends(10)
	if err := r.Check(); err != nil {
		t.Fatal(err)
	}
	if n := len(encode(t, r)); n > mostOctets {
		t.Errorf("ten links: got %d octets, want at most %d", n, mostOctets)
	}
	later := whatANodeSends(10)
	later.Seq++
	for n := range later.Interfaces[2].Links {
		later.Interfaces[2].Links[n].SignalDBm++
		later.Interfaces[2].Links[n].InactiveMS += 100
	}
	later.Interfaces[2].Links[4].SignalDBm -= 9
	changes, _, err := later.Since(r)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(encode(t, changes)); n > 160 {
		t.Errorf("one link that changed: got %d octets", n)
	}
}

// BenchmarkReportSize tells the octets of reports.
func BenchmarkReportSize(b *testing.B) {
	for _, links := range []int{1, 3, 10} {
		b.Run(fmt.Sprintf("links=%d", links), func(b *testing.B) {
			r := whatANodeSends(links)
			n := 0
			for b.Loop() {
				n = len(encode(b, r))
			}
			b.ReportMetric(float64(n), "octets")
			later := r
			later.Seq++
			changes, _, err := later.Since(r)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(len(encode(b, changes))), "octets-unchanged")
		})
	}
}

func TestReportCheck(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*Report)
		want   string // part of the error; empty: none
	}{
		"as it is":               {func(*Report) {}, ""},
		"no node":                {func(r *Report) { r.Node = "" }, "canonical ID"},
		"a node in capitals":     {func(r *Report) { r.Node = strings.ToUpper(r.Node) }, "canonical ID"},
		"no number":              {func(r *Report) { r.Seq = 0 }, "boot and seq"},
		"years until the next":   {func(r *Report) { r.EveryS = 1 << 30 }, "next within"},
		"a base ahead":           {func(r *Report) { r.Base = r.Seq }, "base below seq"},
		"a name with a slash":    {func(r *Report) { r.Interfaces[0].Name = "../0" }, "letters, digits"},
		"a name twice":           {func(r *Report) { r.Interfaces[0].Name = "eth0" }, "once, got twice"},
		"a group's address":      {func(r *Report) { r.Interfaces[0].Addresses[0][0] = 1 }, "expected a device's"},
		"a transport of its own": {func(r *Report) { r.Interfaces[1].Transport = "pigeon" }, "halow, wifi or ethernet"},
		"links of bat0":          {func(r *Report) { r.Interfaces[0].Links = r.Interfaces[2].Links }, "without a transport"},
		"a link to nobody":       {func(r *Report) { r.Interfaces[2].Links[0] = ReportLink{} }, "address or a canonical ID"},
		"a link twice":           {func(r *Report) { r.Interfaces[2].Links[1].Peer = r.Interfaces[2].Links[0].Peer }, "once, got twice"},
		"a signal of the sun":    {func(r *Report) { r.Interfaces[2].Links[0].SignalDBm = 150 }, "-200 to 100 dBm"},
		"a negative rate":        {func(r *Report) { r.Interfaces[2].Links[0].RxKbps = -1 }, "rates"},
		"TQ 256":                 {func(r *Report) { r.Interfaces[2].Links[0].TQ = 256 }, "0 to 255"},
		"more than all is lost":  {func(r *Report) { r.Interfaces[2].Links[0].FailPermille = 1001 }, "permille"},
		"gone from nowhere":      {func(r *Report) { r.Interfaces[2].Links[0].Gone = true }, "since a base"},
		"130 links": {func(r *Report) {
			for n := range 120 {
				r.Interfaces[2].Links = append(r.Interfaces[2].Links, ReportLink{Peer: mac(1000+n, 0)})
			}
		}, "at most 128 links"},
		"17 interfaces": {func(r *Report) {
			for n := range 14 {
				r.Interfaces = append(r.Interfaces, ReportInterface{Name: fmt.Sprint("x", n)})
			}
		}, "at most 16 interfaces"},
		"a next hop twice":        {func(r *Report) { r.NextHops = append(r.NextHops, r.NextHops[0]) }, "once each"},
		"a next hop of no device": {func(r *Report) { r.NextHops[0].Next = dot11.MAC{} }, "address of a device"},
		"a peer twice":            {func(r *Report) { r.Overlay[1] = r.Overlay[0] }, "once each"},
		"a handshake to come":     {func(r *Report) { r.Overlay[0].HandshakeS = -2 }, "handshake"},
		"a session with none":     {func(r *Report) { r.Overlay[0].HandshakeS = -1 }, "no session"},
	} {
		t.Run(name, func(t *testing.T) {
			r := whatANodeSends(10)
			tc.change(&r)
			err := r.Check()
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestPackedNode(t *testing.T) {
	for n := range 100 {
		id := nodeID(n)
		b, err := PackNode(nil, id)
		if err != nil || len(b) != idOctets {
			t.Fatalf("%s: %x, %v", id, b, err)
		}
		if got, err := UnpackNode(b); got != id || err != nil {
			t.Fatalf("got %s, %v, want %s", got, err, id)
		}
		b[idOctets-1] |= 1
		if _, err := UnpackNode(b); err == nil {
			t.Fatal("bits behind the ID were taken")
		}
	}
	if _, err := PackNode(nil, "n-short"); err == nil {
		t.Error("a short ID was packed")
	}
	if _, err := UnpackNode(make([]byte, 12)); err == nil {
		t.Error("12 octets were taken")
	}
}

func TestReportRoundTrip(t *testing.T) {
	noise := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		r := someReport(noise)
		if err := r.Check(); err != nil {
			t.Fatal(err)
		}
		b := encode(t, r)
		var got Report
		if err := cbor.Unmarshal(b, &got); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(r, got); d != "" {
			t.Fatalf("(-want +got)\n%s", d)
		}
		text, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		got = Report{}
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(r, got); d != "" {
			t.Fatalf("JSON: (-want +got)\n%s", d)
		}
	}
}

// someReport is one of node 1 that may have anything.
func someReport(noise *rand.Rand) Report {
	pick := func(most int) int { return noise.IntN(2) * noise.IntN(most+1) }
	r := Report{Node: nodeID(1), Boot: 1, Seq: 1, EveryS: pick(MaxReportEveryS), Interfaces: ReportInterfaces{}, NextHops: ReportNextHops{}, Overlay: ReportOverlay{}}
	for n := range noise.IntN(5) {
		i := ReportInterface{Name: fmt.Sprint("if", n), Addresses: []dot11.MAC{}, Transport: transports[noise.IntN(4)], FreqKHz: pick(maxKHz), WidthKHz: pick(160000)}
		for k := range noise.IntN(3) {
			i.Addresses = append(i.Addresses, mac(n, k))
		}
		for k := range noise.IntN(6) {
			if i.Transport == "" || noise.IntN(3) == 0 {
				continue
			}
			l := ReportLink{Peer: mac(k, 7), SignalDBm: -pick(110), TxKbps: pick(maxKbps), RxKbps: pick(9000), ExpectedKbps: pick(9000), TQ: pick(255),
				RetryPermille: pick(1000), FailPermille: pick(1000), InactiveMS: pick(maxMillis)}
			if noise.IntN(4) == 0 {
				l.Node = nodeID(k)
			}
			if noise.IntN(9) == 0 {
				l.Peer, l.Node = dot11.MAC{}, nodeID(40+k)
			}
			i.Links = append(i.Links, l)
		}
		r.Interfaces = append(r.Interfaces, i)
	}
	for n := range noise.IntN(3) {
		h := ReportNextHop{Node: nodeID(n), Next: mac(n, 1), Iface: "if0", TQ: pick(255), Kbps: pick(maxKbps)}
		if noise.IntN(2) == 0 {
			h.NextNode = nodeID(9)
		}
		r.NextHops = append(r.NextHops, h)
	}
	for n := range noise.IntN(9) {
		p := ReportOverlayPeer{Node: nodeID(n), HandshakeS: pick(maxSeconds), Direct: noise.IntN(2) == 0}
		if noise.IntN(5) == 0 {
			p.HandshakeS, p.Direct = -1, false
		}
		r.Overlay = append(r.Overlay, p)
	}
	r.Sort()
	return r
}

// TestSinceAndWith has the two ends of a stream, in which some reports are whole, keep
// the same report, which is never far from what the node sees.
func TestSinceAndWith(t *testing.T) {
	noise := rand.New(rand.NewPCG(3, 4))
	var base, gateway Report
	for seq := uint64(1); seq < 400; seq++ {
		r := someReport(noise)
		r.Seq = seq
		if seq == 1 || noise.IntN(9) == 0 {
			base, gateway = r, r
			continue
		}
		changes, whole, err := r.Since(base)
		if err != nil {
			t.Fatal(err)
		}
		var sent Report
		if err := cbor.Unmarshal(encode(t, changes), &sent); err != nil {
			t.Fatal(err)
		}
		if err := sent.Check(); err != nil {
			t.Fatal(err)
		}
		if gateway, err = gateway.With(sent); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(whole, gateway, cmp.Transformer("absent", func(l []ReportLink) []ReportLink { return append([]ReportLink{}, l...) })); d != "" {
			t.Fatalf("%d: (-node +gateway)\n%s", seq, d)
		}
		again, _, err := r.Since(gateway)
		if err == nil {
			t.Fatalf("%d: a base of the same number was taken: %+v", seq, again)
		}
		r.Seq++
		if again, _, err = r.Since(gateway); err != nil || len(again.Interfaces) != 0 || len(again.Overlay) != 0 {
			t.Fatalf("%d: what was sent is sent again: %+v, %v", seq, again, err)
		}
		base = whole
	}
}

func TestWithRefusesWhatDoesNotFit(t *testing.T) {
	base := whatANodeSends(2)
	for name, change := range map[string]func(*Report){
		"another base":        func(r *Report) { r.Base-- },
		"another node":        func(r *Report) { r.Node = nodeID(3) },
		"another boot":        func(r *Report) { r.Boot++ },
		"a whole one":         func(r *Report) { r.Base = 0 },
		"a port never there":  func(r *Report) { r.Interfaces = ReportInterfaces{{Name: "eth7", Gone: true}} },
		"a link never there":  func(r *Report) { r.Interfaces[0].Links = []ReportLink{{Peer: mac(99, 9), Gone: true}} },
		"more than there may": func(r *Report) { r.Interfaces[0].Links = whatANodeSends(140).Interfaces[2].Links },
	} {
		changes := Report{Node: base.Node, Boot: base.Boot, Seq: base.Seq + 1, Base: base.Seq, Interfaces: ReportInterfaces{base.Interfaces[2]}}
		if _, err := base.With(changes); err != nil {
			t.Fatal(err)
		}
		change(&changes)
		if got, err := base.With(changes); err == nil {
			t.Errorf("%s: got %+v", name, got)
		}
	}
}

func FuzzReport(f *testing.F) {
	noise := rand.New(rand.NewPCG(5, 6))
	for range 20 {
		f.Add(encode(f, someReport(noise)))
	}
	f.Add(encode(f, whatANodeSends(10)))
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Report
		if err := cbor.Unmarshal(b, &r); err != nil || r.Check() != nil {
			return
		}
		out, err := encMode.Marshal(r)
		if err != nil {
			t.Fatalf("%+v was good, and is not written: %v", r, err)
		}
		var again Report
		if err := cbor.Unmarshal(out, &again); err != nil {
			t.Fatal(err)
		}
		if second, err := encMode.Marshal(again); err != nil || string(second) != string(out) {
			t.Fatalf("%+v became %+v, %v", r, again, err)
		}
	})
}

// FuzzPacked has octets that are taken be those that would be written.
func FuzzPacked(f *testing.F) {
	noise := rand.New(rand.NewPCG(7, 8))
	for range 20 {
		r := someReport(noise)
		for n, list := range []interface{ MarshalBinary() ([]byte, error) }{r.Interfaces, r.NextHops, r.Overlay} {
			b, err := list.MarshalBinary()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(uint8(n), b)
		}
	}
	f.Fuzz(func(t *testing.T, kind uint8, b []byte) {
		var list interface {
			MarshalBinary() ([]byte, error)
			UnmarshalBinary([]byte) error
		}
		switch kind % 3 {
		case 0:
			list = new(ReportInterfaces)
		case 1:
			list = new(ReportNextHops)
		case 2:
			list = new(ReportOverlay)
		}
		if list.UnmarshalBinary(b) != nil {
			return
		}
		if again, err := list.MarshalBinary(); err != nil || string(again) != string(b) {
			t.Fatalf("%x became %x, %v: %+v", b, again, err, list)
		}
	})
}

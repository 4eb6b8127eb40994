package neighbourhood_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"halo.internal/lab/air/physics"
	"halo.internal/model"
	"halo.internal/model/wire"
)

var update = flag.Bool("update", false, "write the table of docs/topology.md")

// Octets around a message of the stream at each hop.
const (
	webSocket = 2 + 2 + 4               // header, length above 125, mask
	tcp       = 20 + 32                 // IPv4, and TCP with time stamps
	wireGuard = 40 + 8 + 32             // IPv6, UDP, header and tag
	bat       = 10 + 14                 // batman-adv unicast, Ethernet
	mac       = 26 + 6 + 6 + 8 + 16 + 4 // QoS data of four addresses, mesh control, LLC, CCMP, checksum
	around    = tcp + wireGuard + bat + mac
)

// taken returns what a frame takes of a HaLow channel of 1 MHz at MCS 10, 150 kbit/s,
// with the wait before it and its acknowledgement.
func taken(octets int) time.Duration {
	timing, rate := physics.HaLow(1), physics.S1G(1, false)[10]
	l := physics.Link{SNR: 60, Back: 60, Timing: timing, Basic: rate}
	return l.Send([]physics.Attempt{{Rate: rate, Count: 1}}, octets, true, func() float64 { return 0.5 }).Airtime
}

// cost is what a report takes at each hop. One that goes along is a longer segment; one
// of its own is a segment, and TCP's acknowledgement is another.
func (s sending) cost(t testing.TB) (octets int, air time.Duration) {
	b, err := wire.Marshal(wire.NeighboursMessage{Report: s.report})
	if err != nil {
		t.Fatal(err)
	}
	octets = len(b) + webSocket
	if s.along {
		const readings = 120 // of a batch; see model/wire
		return octets, taken(around+readings+octets) - taken(around+readings)
	}
	return octets, taken(around+octets) + taken(around)
}

// hour is what a node sends in an hour in which change is called every thirty seconds.
func hour(t *testing.T, links, nodes int, change func(d *device, noise *rand.Rand)) (sent []sending) {
	d, noise := newDevice(t, links, nodes), rand.New(rand.NewPCG(1, 2))
	d.pass(5 * time.Second)
	for range 120 {
		change(d, noise)
		sent = append(sent, d.pass(30*time.Second)...)
	}
	return sent
}

// waver has all signals, rates and qualities go up and down as over the air.
func waver(d *device, noise *rand.Rand) {
	radio := d.status.Radios[0]
	radio.Peers = append([]model.RadioPeer(nil), radio.Peers...)
	for i := range radio.Peers {
		p := &radio.Peers[i]
		p.SignalDBm = -78 + 4*noise.NormFloat64()
		rates := []float64{0.3, 0.6, 0.9, 1.2, 1.8}
		p.TxMbps, p.RxMbps = rates[noise.IntN(5)], rates[noise.IntN(5)]
		p.TxPackets += 200
		p.TxRetries += uint32(noise.IntN(120))
	}
	d.status.Radios = []model.Radio{radio}
}

// TestAirtime holds the table of docs/topology.md to what is sent.
func TestAirtime(t *testing.T) {
	var table strings.Builder
	fmt.Fprintln(&table, "| in an hour, of a node with ten links among 250 | reports along with readings | of their own | octets | of the channel, all nodes |")
	fmt.Fprintln(&table, "|---|---|---|---|---|")
	for _, tc := range []struct {
		what   string
		most   float64 // percent of the channel
		change func(*device, *rand.Rand)
	}{
		{"nothing changes", 0.5, func(*device, *rand.Rand) {}},
		{"all signals and rates go up and down", 2, waver},
		{"a link comes and goes every minute", 6, func(d *device, noise *rand.Rand) { d.link(150, d.now.Unix()/30%2 == 0) }},
	} {
		along, own, octets, air := 0, 0, 0, time.Duration(0)
		for _, s := range hour(t, 10, 250, tc.change) {
			n, took := s.cost(t)
			octets, air = octets+n, air+took
			if s.along {
				along++
			} else {
				own++
			}
		}
		const nodes, hops = 250, 3
		share := 100 * float64(nodes*hops*air) / float64(time.Hour)
		if share > tc.most {
			t.Errorf("%s: got %.2f %% of the channel, want at most %.1f", tc.what, share, tc.most)
		}
		fmt.Fprintf(&table, "| %s | %d | %d | %d | %.2f %% |\n", tc.what, along, own, octets, share)
	}
	whole := newDevice(t, 10, 250).pass(5 * time.Second)[0]
	octets, _ := whole.cost(t)
	own := sending{report: whole.report}
	_, air := own.cost(t)
	fmt.Fprintf(&table, "\nA whole report of ten links is %d octets; of its own it takes %d ms at each hop, TCP's acknowledgement included.\n", octets, air.Milliseconds())

	const file, from, to = "../../docs/topology.md", "<!-- airtime -->\n", "<!-- /airtime -->"
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(b), from)
	was, after, ends := strings.Cut(rest, to)
	if !ok || !ends {
		t.Fatalf("%s has no %s", file, strings.TrimSpace(from))
	}
	if was == table.String() {
		return
	}
	if !*update {
		t.Fatalf("%s has another table (-update writes it): got\n%s", file, table.String())
	}
	if err := os.WriteFile(file, []byte(before+from+table.String()+to+after), 0o644); err != nil {
		t.Fatal(err)
	}
}

// BenchmarkReport is what a look costs the agent while nothing has changed.
func BenchmarkReport(b *testing.B) {
	d := newDevice(nil, 10, 250)
	d.r.Next(d.now, false)
	b.ReportAllocs()
	for b.Loop() {
		d.now = d.now.Add(time.Millisecond)
		d.r.Next(d.now, false)
	}
}

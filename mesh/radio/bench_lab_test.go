//go:build lab

package radio_test

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"halo.internal/drivers/nl80211"
	"halo.internal/mesh/peering"
	"halo.internal/mesh/radio"
	"halo.internal/mesh/sae"
)

// The rival is wpa_supplicant, whose mesh knows hunting-and-pecking alone, on the
// same machine and kernel and in turn with HALO. It is told the channel, so that
// it need not scan, and in its tuned form the shortest timers that its
// configuration has.
const (
	rivalNetwork = "\tieee80211w=2\n"
	tunedGlobal  = "dot11RSNASAERetransPeriod=40\n"
	tunedNetwork = rivalNetwork + "\tdot11MeshRetryTimeout=40\n\tdot11MeshConfirmTimeout=40\n\tdot11MeshHoldingTimeout=40\n\tbeacon_int=100\n"
)

var channel11 = nl80211.Channel{FreqMHz: 2462, Width: nl80211.Width20}

// BenchmarkRadioPeering measures from the start of two processes with a radio
// each to a link that both kernels have: medians, and their ratios to the rival.
func BenchmarkRadioPeering(b *testing.B) {
	l := newLab(b)
	took := map[string][]float64{}
	for range b.N {
		for _, method := range []sae.Method{sae.HashToElement, sae.HuntingAndPecking} {
			name := "halo-h2e"
			if method == sae.HuntingAndPecking {
				name = "halo"
			}
			took[name] = append(took[name], l.pair(func(w nl80211.Wiphy, iface string) (func(), func()) {
				var p *process
				c := childConfig{Wiphy: w.Index, Iface: iface, FreqMHz: channel1.FreqMHz, Method: method}
				return func() { p = l.startChild(c) }, func() { p.kill() }
			}))
		}
		took["rival"] = append(took["rival"], l.rivals("", rivalNetwork))
		took["tuned"] = append(took["tuned"], l.rivals(tunedGlobal, tunedNetwork))
	}
	b.ReportMetric(0, "ns/op") // says nothing
	for name, list := range took {
		slices.Sort(list)
		b.Logf("%s: %.2f", name, list)
		b.ReportMetric(median(list), name+"-s")
		b.ReportMetric(list[len(list)-1], name+"-max-s")
	}
	b.ReportMetric(median(took["halo"])/median(took["rival"]), "ratio")
	b.ReportMetric(median(took["halo"])/median(took["tuned"]), "ratio-tuned")
}

func median(sorted []float64) float64 { return sorted[len(sorted)/2] }

// pair starts two of a kind and returns the seconds until they have a link.
func (l *lab) pair(prepare func(nl80211.Wiphy, string) (start, stop func())) float64 {
	l.t.Helper()
	var names []string
	var ids []int
	var starts, stops []func()
	for range 2 {
		w, id := l.wiphy()
		names, ids = append(names, fmt.Sprintf("pair%d", l.made)), append(ids, id)
		start, stop := prepare(w, names[len(names)-1])
		starts, stops = append(starts, start), append(stops, stop)
	}
	s := l.measure(names[0], names[1], starts)
	for _, stop := range stops {
		stop()
	}
	for _, id := range ids {
		l.ok(l.hwsim.DeleteRadio(id))
	}
	return s
}

// measure starts both and returns the seconds until their interfaces have a link.
func (l *lab) measure(a, b string, starts []func()) float64 {
	l.t.Helper()
	began := time.Now()
	for _, start := range starts {
		start()
	}
	for !l.paired(a, b) {
		if time.Since(began) > patience {
			l.t.Fatalf("%s and %s are stuck", a, b)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return time.Since(began).Seconds()
}

func (l *lab) paired(a, b string) bool {
	x, y := l.mac(a), l.mac(b)
	return x != nil && y != nil && l.linked(a, y) && l.linked(b, x)
}

// rivals is pair of wpa_supplicants.
func (l *lab) rivals(global, network string) float64 {
	l.t.Helper()
	x, y := l.prepare(channel1, global, network), l.prepare(channel1, global, network)
	s := l.measure(x.iface, y.iface, []func(){x.start, y.start})
	for _, r := range []*supplicant{x, y} {
		r.kill()
		l.ok(l.hwsim.DeleteRadio(r.id))
	}
	return s
}

// BenchmarkRadioCPU has a process of either kind peer with the same partner,
// which comes and goes: its processor time for each, and its memory with ten
// peers.
func BenchmarkRadioCPU(b *testing.B) {
	l := newLab(b)
	hunt := func(c *radio.Config) { hunting(peering.MFPRequired)(c); c.MaxPeers = 12 }
	w, _ := l.wiphy()
	halo := &subject{name: "halo", iface: "subject", channel: channel1}
	there := l.startChild(childConfig{
		Wiphy: w.Index, Iface: halo.iface, FreqMHz: channel1.FreqMHz, Method: sae.HuntingAndPecking, MaxPeers: 12,
	})
	b.Cleanup(there.kill)
	halo.pid = there.Process.Pid
	s := l.supplicant(channel11, rivalNetwork)
	rival := &subject{name: "rival", iface: s.iface, channel: channel11, pid: s.pid}
	for _, x := range []*subject{halo, rival} {
		l.until(x.name+" is there", func() bool { x.mac = l.mac(x.iface); return x.mac != nil })
		x.partner = l.member(func(c *radio.Config) { hunt(c); c.Channel = x.channel })
		x.wiphy = l.wiphyOf(x.partner)
		l.until("a first link", func() bool { return l.paired(x.iface, x.partner.iface) })
	}
	const turn = 10 // peerings of one before the other's turn
	for range b.N {
		for _, x := range []*subject{halo, rival} {
			before := cpu(b, x.pid)
			for range turn {
				l.ok(x.partner.stop())
				l.until("the end of the link", func() bool { return !l.linked(x.iface, x.partner.mac) })
				l.run(x.partner, x.wiphy, func(c *radio.Config) { hunt(c); c.Channel = x.channel })
				l.until("a link", func() bool { return l.paired(x.iface, x.partner.iface) })
			}
			x.cpu = append(x.cpu, (cpu(b, x.pid)-before).Seconds()*1000/turn)
		}
	}
	for _, x := range []*subject{halo, rival} {
		for range 9 {
			m := l.member(func(c *radio.Config) { hunt(c); c.Channel = x.channel })
			l.until("one more link", func() bool { return l.paired(x.iface, m.iface) })
			b.Cleanup(func() { _ = l.hwsim.DeleteRadio(m.id) })
		}
		x.memory = resident(b, x.pid)
		slices.Sort(x.cpu)
		b.ReportMetric(median(x.cpu), x.name+"-cpu-ms")
		b.ReportMetric(x.memory, x.name+"-MiB")
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(halo.cpu)/median(rival.cpu), "ratio-cpu")
}

// subject is a process that is measured.
type subject struct {
	name    string
	iface   string
	mac     net.HardwareAddr
	pid     int
	channel nl80211.Channel
	partner *member
	wiphy   nl80211.Wiphy
	cpu     []float64 // ms a peering
	memory  float64   // MiB
}

// cpu returns utime and stime of a process (proc_pid_stat(5)), in ticks of 10 ms.
func cpu(b *testing.B, pid int) time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	const utime, stime, tick = 11, 12, 10 * time.Millisecond
	var sum time.Duration
	for _, i := range []int{utime, stime} {
		n, err := strconv.Atoi(fields[i])
		if err != nil {
			b.Fatal(err)
		}
		sum += time.Duration(n) * tick
	}
	return sum
}

// resident returns the memory of a process in MiB (VmRSS of proc_pid_status(5)).
func resident(b *testing.B, pid int) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmRSS:" {
			kib, err := strconv.Atoi(f[1])
			if err != nil {
				b.Fatal(err)
			}
			return float64(kib) / 1024
		}
	}
	b.Fatal("no VmRSS")
	return 0
}

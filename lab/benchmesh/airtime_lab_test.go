//go:build lab

package benchmesh_test

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"os"
	"slices"
	"testing"
	"time"

	"halo.internal/lab/air"
	"halo.internal/lab/air/airtime"
	"halo.internal/lab/air/physics"
	"halo.internal/mesh/announce"
	"halo.internal/model"
	"halo.internal/model/bundle"
	"halo.internal/model/paths"
)

// halow is a mesh's profile with a HaLow channel, on the channel of 5 GHz by which
// Morse's driver has it: all that goes to everybody, beacons too, is then sent by
// MCS 0.
func halow(routing string) bundle.Mesh {
	return bundle.Mesh{Routing: routing, Channel: 36, HaLowChannel: 1}
}

// duration is a setting of the environment.
func duration(b *testing.B, name string, otherwise time.Duration) time.Duration {
	text := cmp.Or(os.Getenv(name), otherwise.String())
	d, err := time.ParseDuration(text)
	if err != nil {
		b.Fatalf("%s: %v", name, err)
	}
	return d
}

// onceWithin is within what time of its start a mesh has done what is no part of being
// idle: asked for addresses of IPv4 (two minutes at most), looked whether what is sent to
// all arrives (two minutes after the first peer was heard).
const onceWithin = 5 * time.Minute

// BenchmarkAirtime measures what an idle mesh of ten takes of a HaLow channel of 1
// MHz on which all hear each other: by kind, with the time between frames, beacons
// by themselves. It watches for HALO_BENCH_AIR, and as long once more with the gateway
// off, whom the nodes search.
func BenchmarkAirtime(b *testing.B) {
	for _, routing := range []string{"BATMAN_IV", "BATMAN_V"} {
		b.Run(routing, func(b *testing.B) {
			const devices = 10
			w := newWorld(b)
			w.breathe(air.HaLow(1))
			n := w.network(halow(routing), true)
			n.crowd = true
			all := n.build(devices)
			l := airtime.New()
			w.air.Observe(l.Air)
			for i, d := range all {
				r := w.radio("")
				angle := 2 * math.Pi * float64(i) / devices
				w.place(r, physics.Position{X: 50 * math.Cos(angle), Y: 50 * math.Sin(angle)})
				w.plug(d.space, r)
				w.watch(d, r, l)
			}
			began := time.Now()
			told := w.tellAir(l, routing)
			w.poll(5*time.Second, "all reach each other and the gateway", func() error { return whole(all, devices-1) })
			fmt.Printf("%s: all reached each other after %.0f s\n", routing, time.Since(began).Seconds())
			b.ReportMetric(time.Since(began).Seconds(), "begin-s")
			w.rest(all)
			time.Sleep(time.Until(began.Add(onceWithin)))
			told()
			l.Reset()
			time.Sleep(duration(b, "HALO_BENCH_AIR", 4*time.Minute)) // the time is what is measured
			a := l.Close()
			b.Logf("%s, ten idle members at 1 MHz, MCS 0:\n%s", routing, a)
			all[0].cut()
			time.Sleep(announce.Silence + onceWithin) // all miss it, and have begun to search
			l.Reset()
			time.Sleep(duration(b, "HALO_BENCH_AIR", 4*time.Minute))
			alone := l.Close()
			w.air.Observe(nil)
			b.Logf("%s, the nine that are left while the gateway is off:\n%s", routing, alone)
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(100*a.Beacons(), "beacons-%")
			b.ReportMetric(100*a.Rest(), "beside-%")
			b.ReportMetric(100*alone.Rest(), "gateway-off-%")
		})
	}
}

// tellAir prints what the channel is taken by, each half minute, until the function
// is called that it returns: where a mesh does not come to rest, that says why.
func (w *world) tellAir(l *airtime.Ledger, name string) (end func()) {
	ctx, cancel := context.WithCancel(w.t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		t := time.NewTicker(30 * time.Second)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case now := <-t.C:
				fmt.Printf("%s %s, half a minute:\n%s", now.Format(time.TimeOnly), name, l.Close())
			}
		}
	}()
	return func() { cancel(); <-ended }
}

// build makes a gateway and nodes that have joined it, and starts them.
func (n *network) build(devices int) []*device {
	n.t.Helper()
	all := []*device{n.device(model.RoleGateway, "gw")}
	for i := 1; i < devices; i++ {
		all = append(all, n.device(model.RoleNode, fmt.Sprintf("mast%d", i)))
	}
	for _, d := range all {
		d.start()
	}
	n.admit(all[0], all[1:], devices-1)
	return all
}

// whole returns nil when routing knows all, and each node's overlay works.
func whole(all []*device, others int) error {
	for _, d := range all {
		s, err := d.status()
		if err != nil {
			return err
		}
		if s.Originators < others {
			return fmt.Errorf("%s knows %d others, want %d; its radios: %+v", d.name, s.Originators, others, s.Radios)
		}
		if d.role == model.RoleNode && !slices.ContainsFunc(s.Overlay, func(p model.OverlayPeer) bool { return p.Node == d.net.key.ID() && p.LastHandshake != nil }) {
			return fmt.Errorf("%s has no handshake with the gateway: %+v", d.name, s.Overlay)
		}
	}
	return nil
}

// rest waits until no link has come or gone for a minute.
func (w *world) rest(all []*device) {
	w.t.Helper()
	var last []string
	since, what := time.Now(), "nothing yet"
	w.poll(5*time.Second, "links are at rest", func() error {
		now := []string{}
		for _, d := range all {
			s, err := d.status()
			if err != nil {
				return err
			}
			for _, r := range s.Radios {
				for _, p := range r.Peers {
					if p.Linked {
						now = append(now, d.name+" "+p.MAC)
					}
				}
			}
		}
		if !slices.Equal(now, last) {
			gone := slices.DeleteFunc(slices.Clone(last), func(l string) bool { return slices.Contains(now, l) })
			come := slices.DeleteFunc(slices.Clone(now), func(l string) bool { return slices.Contains(last, l) })
			what = fmt.Sprintf("%d links; %d came, %d went: %q %q", len(now), len(come), len(gone), come, gone)
			last, since = now, time.Now()
		}
		if still := time.Since(since); still < time.Minute {
			return fmt.Errorf("changed %s ago: %s", still.Round(time.Second), what)
		}
		return nil
	})
}

// watch takes down, in the name of a device's radio, what it hands to its mesh
// interface, as soon as there is one.
func (w *world) watch(d *device, r simulated, l *airtime.Ledger) {
	w.t.Helper()
	const iface = "mesh0"
	w.until(d.name+" has "+iface, func() error { return d.space.within(func() error { return isUp(iface) }) })
	w.tap(d.space, iface, r.name, l)
}

// BenchmarkReroute has the middle node of a line of four hops vanish, beside which
// there is another way, and measures until the far end has an encrypted reply from
// the gateway again. Each run begins when the lost one is back.
func BenchmarkReroute(b *testing.B) {
	for _, kind := range []struct {
		profile air.Profile
		mesh    bundle.Mesh
		pace    time.Duration
	}{
		{air.WiFi(), bundle.Mesh{Routing: "BATMAN_IV", Channel: 36}, 100 * time.Millisecond},
		{air.WiFi(), bundle.Mesh{Routing: "BATMAN_V", Channel: 36}, 100 * time.Millisecond},
		{air.HaLow(1), halow("BATMAN_IV"), 500 * time.Millisecond},
		{air.HaLow(1), halow("BATMAN_V"), 500 * time.Millisecond},
	} {
		b.Run(kind.profile.Name+"/"+kind.mesh.Routing, func(b *testing.B) {
			l := newLine(b, kind.profile, kind.mesh)
			var took []float64
			for b.Loop() {
				took = append(took, l.lose(kind.pace))
			}
			b.Logf("%.1f s", took)
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(median(took), "s")
			b.ReportMetric(took[len(took)-1], "max-s")
		})
	}
}

// line is a gateway, a, b, c and d, one after the other, and e beside b.
type line struct {
	*world
	all    []*device
	radios []simulated
	ping   *pinger
}

// Places in a line.
const (
	atGateway = iota
	atA
	atB
	atC
	atD
	atE
	places
)

// hears tells who hears whom.
func hears(i, j int) bool {
	adjacent := [][2]int{{atGateway, atA}, {atA, atB}, {atB, atC}, {atC, atD}, {atA, atE}, {atE, atC}, {atB, atE}}
	return slices.Contains(adjacent, [2]int{i, j}) || slices.Contains(adjacent, [2]int{j, i})
}

func newLine(b *testing.B, p air.Profile, m bundle.Mesh) *line {
	w := newWorld(b)
	w.breathe(p)
	l := &line{world: w}
	n := w.network(m, m.HaLowChannel != 0)
	l.all = n.build(places)
	for i := range l.all {
		r := w.radio("")
		w.place(r, physics.Position{X: 10 * float64(i)})
		l.radios = append(l.radios, r)
	}
	for i := range places {
		for j := range places {
			w.air.Cut(l.radios[i].name, l.radios[j].name, i != j && !hears(i, j))
		}
	}
	for i, d := range l.all {
		w.plug(d.space, l.radios[i])
	}
	var err error
	l.ping, err = l.all[atD].space.pinger(paths.OverlayIface, paths.OverlayGateway)
	w.ok(err)
	b.Cleanup(l.ping.close)
	return l
}

// lose has the node vanish that carries what d says, and returns the seconds until
// d has a reply again.
func (l *line) lose(pace time.Duration) float64 {
	l.t.Helper()
	l.air.Heal()
	l.poll(2*time.Second, "all reach each other and the gateway", func() error { return whole(l.all, places-1) })
	l.rest(l.all)
	const pings = 10
	before := l.air.Counters()
	for range pings {
		if _, err := l.ping.until(pace, patience); err != nil {
			l.t.Fatal(err)
		}
	}
	after := l.air.Counters()
	carried := func(place int) time.Duration {
		way := l.radios[atC].name + " " + l.radios[place].name
		return after[way].Airtime - before[way].Airtime
	}
	lost := atB
	if carried(atE) > carried(atB) {
		lost = atE
	}
	l.air.Partition([]string{l.radios[lost].name})
	began := time.Now()
	at, err := l.ping.until(pace, patience)
	if err != nil {
		l.t.Fatalf("%s is lost: %v", l.all[lost].name, err)
	}
	return at.Sub(began).Seconds()
}

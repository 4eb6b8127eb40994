//go:build lab

package systemtest_test

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"halo.internal/lab/network"
	"halo.internal/mesh"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

// The figures of a start are those of a fresh card: it makes its keys, grows
// its data partition, imports its bundle and joins. Each is the median of the
// runs of -benchtime.

// BenchmarkOneMachine measures a gateway alone.
func BenchmarkOneMachine(b *testing.B) {
	f := figures{}
	for b.Loop() {
		l := build(b, network.ByCable, 0, "", "none")
		first := l.start(b)
		f.add("s/first-service", first.Seconds())
		f.add("cpu-s/first-service", l.cpu())
		if err := l.net.Close(); err != nil {
			b.Fatal(err)
		}
	}
	f.report(b)
}

// BenchmarkThreeMachines measures a gateway and two nodes that start at once.
func BenchmarkThreeMachines(b *testing.B) {
	for _, carrier := range []network.Mesh{network.ByCable, network.ByAir} {
		b.Run(string(carrier), func(b *testing.B) { threeMachines(b, carrier) })
	}
}

func threeMachines(b *testing.B, carrier network.Mesh) {
	f := figures{}
	for b.Loop() {
		l := f.three(b, carrier)
		if err := l.net.Close(); err != nil {
			b.Fatal(err)
		}
	}
	f.report(b)
}

// BenchmarkIdle measures what three machines cost while nothing happens.
func BenchmarkIdle(b *testing.B) {
	for b.Loop() {
		l := figures{}.three(b, network.ByCable)
		l.idle(b)
		if err := l.net.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

// figures are the values of each run, by unit.
type figures map[string][]float64

func (f figures) add(unit string, v float64) { f[unit] = append(f[unit], v) }

func (f figures) report(b *testing.B) {
	for unit, values := range f {
		slices.Sort(values)
		b.ReportMetric(values[len(values)/2], unit)
		b.Logf("%s: %.1f", unit, values)
	}
	b.ReportMetric(0, "ns/op") // the time of closing is in it
}

// three brings a gateway and two nodes up until telemetry of both nodes is
// committed.
func (f figures) three(b *testing.B, carrier network.Mesh) *lab {
	b.Helper()
	l := build(b, carrier, 2, "", "none")
	start := time.Now()
	first := l.start(b)
	f.add("s/first-service", first.Seconds())
	f.add("s/three-up", time.Since(start).Seconds())
	f.add("cpu-s/three-up", l.cpu())
	l.claim(b)
	l.eventually(b, "telemetry of both nodes is committed", func() error {
		now, err := l.world.Stored(b.Context())
		if err != nil {
			return err
		}
		for _, m := range l.nodes {
			if err := expect(now.Newest(m.Name()).Count > 0, "a batch of %s", m.Name()); err != nil {
				return err
			}
		}
		return nil
	})
	f.add("s/telemetry", time.Since(start).Seconds())
	f.add("cpu-s/telemetry", l.cpu())
	f.timelines(b, l)
	return l
}

// timelines adds the stages of each node's start, from the power's coming on to the
// gateway's acknowledgement of its readings, as the nodes themselves tell them.
func (f figures) timelines(b *testing.B, l *lab) {
	b.Helper()
	for _, m := range l.nodes {
		l.eventually(b, m.Name()+" tells of its start", func() error {
			list, err := l.world.Admin.EventsSince(b.Context(), m.Name(), mesh.EventRecovered, 0)
			if err != nil {
				return err
			}
			i := slices.IndexFunc(list, func(e apitype.Event) bool { return e.Fields["cause"] == string(model.CausePowerOn) })
			if i < 0 {
				return fmt.Errorf("expected an event %s of the power-on, got %+v", mesh.EventRecovered, list)
			}
			line := m.Name() + ":"
			for _, stage := range model.RecoveryStages {
				ms, err := strconv.ParseFloat(list[i].Fields[string(stage)], 64)
				if err != nil {
					continue // it was there all the time
				}
				f.add("s/node-"+string(stage), ms/1000)
				line += fmt.Sprintf(" %s %.1f s", stage, ms/1000)
			}
			b.Log(line)
			return nil
		})
	}
}

// start switches all machines on, returns when they are ready, and tells when
// the first service answered.
func (l *lab) start(b *testing.B) (first time.Duration) {
	b.Helper()
	if err := l.net.PowerOnAll(); err != nil {
		b.Fatal(err)
	}
	l.ready(b, func(p network.Progress) {
		if p.Stage == network.Answers && first == 0 {
			first = p.After
		}
	})
	return first
}

// cpu is what all machines together have used of the host's processors.
func (l *lab) cpu() float64 {
	var sum time.Duration
	for _, m := range l.net.Machines() {
		sum += m.Status().CPU
	}
	return sum.Seconds()
}

// window is how long an idle network is watched.
func window(b *testing.B) time.Duration {
	text := os.Getenv("HALO_BENCH_WINDOW")
	if text == "" {
		return 5 * time.Minute
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		b.Fatalf("HALO_BENCH_WINDOW: %v", err)
	}
	return d
}

// settled is when what follows a start is on the cards: of the members, the way of the
// start, second copies. It is counted by itself, since no device starts all day.
const settled = 2 * time.Minute

// idle measures memory, and what is written to the cards, of a network in which
// nothing happens but telemetry; and what was written until then, since power-on.
func (l *lab) idle(b *testing.B) {
	b.Helper()
	select {
	case <-time.After(settled):
	case <-b.Context().Done():
		b.Fatal(b.Context().Err())
	}
	for _, m := range l.net.Machines() {
		b.ReportMetric(float64(m.Disk.Counters().WrittenBytes)/1e6, "MB/start-"+m.Name())
	}
	written, cpu, start := map[string]int64{}, l.cpu(), time.Now()
	for _, m := range l.net.Machines() {
		written[m.Name()] = m.Disk.Counters().WrittenBytes
	}
	select {
	case <-time.After(window(b)): // the time is what is measured
	case <-b.Context().Done():
		b.Fatal(b.Context().Err())
	}
	passed := time.Since(start)
	b.ReportMetric((l.cpu()-cpu)/passed.Seconds()*100, "%cpu/idle")
	for _, m := range l.net.Machines() {
		bytes := float64(m.Disk.Counters().WrittenBytes - written[m.Name()])
		b.ReportMetric(bytes/1e6*float64(24*time.Hour)/float64(passed), "MB/day-"+m.Name())
		readings, err := l.api.Telemetry(b.Context(), m.Name(), "process.")
		if err != nil {
			b.Fatal(err)
		}
		sum := 0.0
		for _, r := range readings {
			if strings.HasSuffix(r.Metric, ".resident_kib") {
				sum += r.Value
				b.Logf("%s %s %.0f KiB", m.Name(), r.Metric, r.Value)
			}
		}
		if sum == 0 {
			b.Fatalf("%s: expected the memory of its processes among its telemetry, got none", m.Name())
		}
		b.ReportMetric(sum/1024, "MiB-resident-"+m.Name())
	}
}

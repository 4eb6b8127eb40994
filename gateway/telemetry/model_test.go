package telemetry

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	cmp2 "github.com/google/go-cmp/cmp"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/wire"
)

// known is what a store should have: the plainest there can be.
type known struct {
	values map[string]map[wire.Metric]map[int64]float64 // node, series, Unix ms; what is no number hides what was there
	came   map[string]map[batchName]bool
}

func newKnown() *known {
	return &known{map[string]map[wire.Metric]map[int64]float64{}, map[string]map[batchName]bool{}}
}

func (k *known) take(e Entry) {
	if k.values[e.Node] == nil {
		k.values[e.Node], k.came[e.Node] = map[wire.Metric]map[int64]float64{}, map[batchName]bool{}
	}
	k.came[e.Node][batchName{e.Batch.Boot, e.Batch.Seq}] = true
	for _, r := range e.Batch.Reports {
		for i, m := range e.Schema.Metrics {
			if !r.Values[i].Present {
				continue
			}
			if k.values[e.Node][m] == nil {
				k.values[e.Node][m] = map[int64]float64{}
			}
			delete(k.values[e.Node][m], r.Time)
			if v, ok := finite(m, r.Values[i]); ok {
				k.values[e.Node][m][r.Time] = v
			}
		}
	}
}

// series is what Range should answer.
func (k *known) series(node, metric string, g grid) (list []Series) {
	lines := lines{grid: g, of: map[line][]cell{}}
	for m, values := range k.values[node] {
		if m.Name != metric {
			continue
		}
		for at, v := range values {
			if at >= g.from && at < g.from+int64(g.n)*g.step {
				c, _ := lines.line(line{m.Name, m.Unit})
				c[(at-g.from)/g.step].add(at, reading(v))
			}
		}
	}
	for _, l := range lines.sorted() {
		list = append(list, Series{node, l.metric, l.unit, g.points(lines.of[l], Mean)})
	}
	return list
}

func (k *known) samples(node string, from, to time.Time) (list []apitype.Sample) {
	for m, values := range k.values[node] {
		for at, v := range values {
			if at >= from.UnixMilli() && at <= to.UnixMilli() {
				list = append(list, apitype.Sample{Time: time.UnixMilli(at).UTC(), Metric: m.Name, Unit: m.Unit, Value: v})
			}
		}
	}
	return inOrder(list)
}

func inOrder(list []apitype.Sample) []apitype.Sample {
	slices.SortFunc(list, func(a, b apitype.Sample) int {
		return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.Metric, b.Metric), cmp.Compare(a.Unit, b.Unit), cmp.Compare(a.Value, b.Value))
	})
	return list
}

func close64(a, b float64) bool { return math.Abs(a-b) <= 1e-9*max(1, math.Abs(a), math.Abs(b)) }

func samePoints(t *testing.T, what string, want, got []Series, firstAndLast bool) {
	t.Helper()
	if len(want) != len(got) {
		t.Fatalf("%s: expected %d series, got %d", what, len(want), len(got))
	}
	for i := range want {
		w, g := want[i], got[i]
		if w.Node != g.Node || w.Metric != g.Metric || w.Unit != g.Unit || len(w.Points) != len(g.Points) {
			t.Fatalf("%s: expected %s %s (%s) of %d points, got %s %s (%s) of %d", what, w.Node, w.Metric, w.Unit, len(w.Points), g.Node, g.Metric, g.Unit, len(g.Points))
		}
		for j := range w.Points {
			a, b := w.Points[j], g.Points[j]
			if !a.Time.Equal(b.Time) || a.Count != b.Count || !close64(a.Min, b.Min) || !close64(a.Max, b.Max) || !close64(a.Mean, b.Mean) ||
				firstAndLast && (!close64(a.First, b.First) || !close64(a.Last, b.Last)) {
				t.Fatalf("%s: %s: expected %+v, got %+v", what, w.Metric, a, b)
			}
		}
	}
}

var modelSchemas = []wire.Schema{
	cpuAndMemory,
	{Metrics: []wire.Metric{wire.NewMetric("gps.fix.lat_deg", "deg", wire.ScaleFloat), wire.NewMetric("system.memory.free_bytes", "KiB", -3), wire.NewMetric("radio.wlan0.signal_dbm", "dBm", 2)}},
	{Metrics: []wire.Metric{wire.NewMetric("system.cpu.used_percent", "%", 3)}}, // a later release is more exact
}

// some makes a batch of a node at random: late or early, sparse, with stamps that others
// have too.
func someBatch(t testing.TB, r *rand.Rand, node string, boot, seq uint64, around time.Time) Entry {
	s := modelSchemas[r.IntN(len(modelSchemas))]
	b := wire.Batch{Header: wire.Header{BatchID: wire.ID(boot, seq), Clock: clocks[r.IntN(len(clocks))], Urgent: r.IntN(10) == 0}}
	at := around.Add(time.Duration(r.IntN(7200)-3600) * time.Second).Truncate(5 * time.Second)
	if r.IntN(12) == 0 {
		at = at.Add(-time.Duration(r.IntN(9*24)) * time.Hour)
	}
	for range 1 + r.IntN(12) {
		rep := wire.Report{Time: at.UnixMilli(), Values: make([]wire.Value, len(s.Metrics))}
		for k, m := range s.Metrics {
			switch {
			case r.IntN(8) == 0:
			case m.Scale == wire.ScaleFloat && r.IntN(20) == 0:
				rep.Values[k] = wire.Float(math.NaN())
			case m.Scale == wire.ScaleFloat:
				rep.Values[k] = wire.Float(r.NormFloat64())
			default:
				rep.Values[k] = wire.Int(r.Int64N(2000) - 1000)
			}
		}
		b.Reports = append(b.Reports, rep)
		at = at.Add(time.Duration(r.IntN(4)) * 10 * time.Second)
	}
	return entry(t, node, s, b)
}

// The store answers what the plainest one would, whatever comes when, over compactions,
// days that end and restarts.
func TestAgainstAModel(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(6, seed))
			b := newBench(t)
			for _, s := range modelSchemas {
				if err := b.PutSchema(t.Context(), "n-a", s); err != nil {
					t.Fatal(err)
				}
			}
			k := newKnown()
			seqs := map[string]uint64{}
			b.at = time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC)
			for range 130 {
				var group []Entry
				for range r.IntN(12) {
					node := fmt.Sprintf("n-%c", 'a'+r.IntN(3))
					seqs[node] += 1 + r.Uint64N(2)*r.Uint64N(2)
					group = append(group, someBatch(t, r, node, 1, seqs[node], b.at))
				}
				for i, o := range b.append(group...) {
					if o == Stored {
						k.take(group[i])
					}
				}
				switch r.IntN(14) {
				case 0, 1:
					b.tend()
				case 2:
					b.restart()
				case 3:
					b.agrees(t, r, k)
				}
				b.at = b.at.Add(time.Duration(r.IntN(150)) * time.Minute)
			}
			b.agrees(t, r, k)
			b.tend()
			for range 6 {
				b.agrees(t, r, k)
			}
			for _, e := range b.events.list {
				t.Errorf("event %+v", e)
			}
		})
	}
}

// agrees compares answers.
func (b *bench) agrees(t *testing.T, r *rand.Rand, k *known) {
	t.Helper()
	for node, came := range k.came {
		n := uint64(0)
		for _, boot := range b.Coverage(node).Boots {
			n += boot.Count
		}
		if n != uint64(len(came)) {
			t.Fatalf("%s: %d batches came, want %d", node, n, len(came))
		}
		from := b.at.Add(-time.Duration(r.IntN(14*24*60)) * time.Minute)
		to := from.Add(time.Duration(1+r.IntN(6*24*60)) * time.Minute)
		want := k.samples(node, from, to)
		var got []apitype.Sample
		q := SampleQuery{Node: node, From: from, To: to, Limit: 1 + r.IntN(500)}
		for {
			page, err := b.Samples(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, page.Items...)
			if q.Cursor = page.Next; q.Cursor == "" {
				break
			}
		}
		if got = inOrder(got); !slices.Equal(want, got) {
			t.Fatalf("%s from %s to %s: expected %d samples, got %d; %s", node, from, to, len(want), len(got), cmp2.Diff(want, got))
		}
		metrics := []string{"system.cpu.used_percent", "system.memory.free_bytes", "gps.fix.lat_deg"}
		rq := Query{Nodes: []string{node}, Metrics: metrics[r.IntN(3):][:1], From: from, To: to, Step: []time.Duration{7 * time.Second, time.Minute, 15 * time.Minute, 45 * time.Minute, time.Hour, 24 * time.Hour}[r.IntN(6)]}
		if rq.To.Sub(rq.From)/rq.Step >= MaxPoints-2 {
			rq.Step = time.Minute
		}
		g, err := rq.grid()
		if err != nil {
			t.Fatal(err)
		}
		var series []Series
		if _, err := b.Range(t.Context(), rq, func(s Series) error { series = append(series, s); return nil }); err != nil {
			t.Fatal(err)
		}
		samePoints(t, fmt.Sprintf("%s from %s to %s by %s", node, from, to, rq.Step), k.series(node, rq.Metrics[0], g), series, rq.Metrics[0] != modelSchemas[2].Metrics[0].Name) // of two scales at one instant either may be last
	}
}

func TestRangeAcrossNodesAndFunctions(t *testing.T) {
	b := newBench(t)
	counter := wire.Schema{Metrics: []wire.Metric{wire.NewMetric("net.wg0.rx_bytes", "B", 0)}}
	if err := b.PutSchema(t.Context(), "n-a", counter); err != nil {
		t.Fatal(err)
	}
	at := epoch
	for i, values := range [][]int64{{100, 160, 220, 280, 10, 70}, {0, 600, 1200, 1800, 2400, 3000}} {
		batch := wire.Batch{Header: wire.Header{BatchID: wire.ID(1, 1), Clock: model.ClockGPS}}
		for j, v := range values {
			batch.Reports = append(batch.Reports, wire.Report{Time: at.Add(time.Duration(j) * 30 * time.Second).UnixMilli(), Values: []wire.Value{wire.Int(v)}})
		}
		b.append(entry(t, fmt.Sprint("n-", i), counter, batch))
	}
	ask := func(q Query) []float64 {
		t.Helper()
		q.From, q.To, q.Metrics = epoch, epoch.Add(3*time.Minute), []string{"net.*"}
		var values []float64
		if _, err := b.Range(t.Context(), q, func(s Series) error {
			for _, p := range s.Points {
				values = append(values, p.Value)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return values
	}
	one := []string{"n-0"}
	for _, tc := range []struct {
		q    Query
		want []float64
	}{
		{Query{Nodes: one, Step: time.Minute}, []float64{130, 250, 40}},
		{Query{Nodes: one, Step: time.Minute, Func: Min}, []float64{100, 220, 10}},
		{Query{Nodes: one, Step: time.Minute, Func: Max}, []float64{160, 280, 70}},
		{Query{Nodes: one, Step: time.Minute, Func: Sum}, []float64{260, 500, 80}},
		{Query{Nodes: one, Step: time.Minute, Func: Count}, []float64{2, 2, 2}},
		{Query{Nodes: one, Step: time.Minute, Func: First}, []float64{100, 220, 10}},
		{Query{Nodes: one, Step: time.Minute, Func: Last}, []float64{160, 280, 70}},
		{Query{Nodes: one, Step: time.Minute, Func: Rate}, []float64{2, 2, 70. / 60}},
		{Query{Nodes: one, Points: 3}, []float64{130, 250, 40}},
		{Query{Nodes: one, Points: 2}, []float64{190, 40}},
		{Query{Step: 3 * time.Minute, Func: Max}, []float64{280, 3000}},
		{Query{Nodes: []string{"n-1", "n-0", "n-1"}, Step: 3 * time.Minute, Func: Max}, []float64{280, 3000}},
		{Query{Step: 3 * time.Minute, Func: Max, After: &SeriesKey{"n-0", "net.wg0.rx_bytes", "B"}}, []float64{3000}},
		{Query{Step: 3 * time.Minute, Func: Max, After: &SeriesKey{"n-0", "net.wg0.rx_bytes", "A"}}, []float64{280, 3000}},
		{Query{Step: 3 * time.Minute, Func: Max, After: &SeriesKey{"n-1", "net.wg0.rx_bytes", "B"}}, nil},
		{Query{Step: 3 * time.Minute, Func: Max, Across: Sum, After: &SeriesKey{"", "net.wg0.rx_bytes", "B"}}, nil},
		{Query{Step: 3 * time.Minute, Func: Max, Across: Sum}, []float64{3280}},
		{Query{Step: 3 * time.Minute, Func: Max, Across: Mean}, []float64{1640}},
		{Query{Step: 3 * time.Minute, Func: Max, Across: Count}, []float64{2}},
		{Query{Step: 3 * time.Minute, Func: Last, Across: Min}, []float64{70}},
	} {
		if got := ask(tc.q); !slices.EqualFunc(got, tc.want, close64) {
			t.Errorf("%+v: expected %v, got %v", tc.q, tc.want, got)
		}
	}
	for _, q := range []Query{{From: epoch, To: epoch}, {From: epoch, To: epoch.Add(time.Hour)}, {From: epoch, To: epoch.Add(time.Hour), Step: time.Millisecond}, {From: epoch, To: epoch.Add(time.Hour), Points: 9, Func: "median"}, {From: epoch, To: epoch.Add(time.Hour), Points: 9, Across: "rate"}} {
		if _, err := b.Range(t.Context(), q, nil); err == nil {
			t.Errorf("%+v: expected an error", q)
		}
	}
}

func TestMarks(t *testing.T) {
	b := newBench(t)
	send := func(boot, seq uint64, at time.Time, q model.ClockQuality) {
		batch := wire.Batch{Header: wire.Header{BatchID: wire.ID(boot, seq), Clock: q}}
		for i := range 3 {
			batch.Reports = append(batch.Reports, wire.Report{Time: at.Add(time.Duration(i) * time.Second).UnixMilli(), Values: []wire.Value{wire.Int(1), wire.Int(2)}})
		}
		b.append(entry(t, "n-a", cpuAndMemory, batch))
	}
	at := epoch
	send(7, 1, at, model.ClockNone)
	send(7, 2, at.Add(time.Minute), model.ClockNone)
	b.tend()
	send(7, 3, at.Add(40*time.Minute), model.ClockGateway) // put right
	send(7, 4, at.Add(39*time.Minute), model.ClockGPS)     // and back
	send(7, 7, at.Add(42*time.Minute), model.ClockGPS)     // 5 and 6 are on their way
	send(8, 2, at.Add(50*time.Minute), model.ClockGPS)
	want := []string{
		"0s boot 7 ",
		"39m0s clock 7 -62000 ms, gateway to gps",
		"39m2s gap 7 2 batches",
		"40m0s clock 7 +2338000 ms, none to gateway",
		"50m0s boot 8 ",
		"50m0s gap 8 1 batches",
	}
	check := func(what string) {
		t.Helper()
		var got []string
		q := MarkQuery{Node: "n-a", From: epoch.Add(-time.Hour), To: epoch.Add(24 * time.Hour), Limit: 2}
		for {
			page, err := b.Marks(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range page.Items {
				got = append(got, fmt.Sprintf("%s %s %d %s", m.Time.Sub(epoch), m.Kind, m.Boot, m.Detail))
			}
			if q.Cursor = page.Next; q.Cursor == "" {
				break
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s:\nexpected %q\ngot      %q", what, want, got)
		}
	}
	check("from the head")
	b.tend()
	check("from the file")
	send(7, 5, at.Add(40*time.Minute), model.ClockGPS)
	want[2] = "39m2s gap 7 1 batches"
	b.restart()
	check("one has come")
	send(7, 6, at.Add(41*time.Minute), model.ClockGPS)
	b.tend()
	send(8, 1, at.Add(49*time.Minute), model.ClockGPS)
	want = slices.Concat(want[:2], want[3:4], []string{"49m0s boot 8 "})
	b.tend()
	check("all have come")
}

// What stamps tell of a clock: steps back, forward where its quality changes, and leaps of
// which it can't be told whether they are a step or a pause; and what is none of these.
func TestClockMarks(t *testing.T) {
	type sent struct {
		after   time.Duration // the last reading of the batch before
		quality model.ClockQuality
		steps   []time.Duration // between its readings
	}
	ten := []time.Duration{10 * time.Second, 10 * time.Second, 10 * time.Second}
	hour := []time.Duration{time.Hour, time.Hour}
	with := func(after time.Duration, quality model.ClockQuality, steps []time.Duration) sent {
		return sent{after, quality, steps}
	}
	for _, tc := range []struct {
		what    string
		batches []sent
		want    []string
	}{
		{"as it should be", []sent{with(0, "gps", ten), with(10*time.Second, "gps", ten), with(10*time.Second, "gateway", ten), with(20*time.Second, "gateway", ten)}, nil},
		{"two minutes forward, once it knows the time", []sent{with(0, "none", ten), with(2*time.Minute, "gateway", ten)}, []string{"clock +120000 ms, none to gateway"}},
		{"half a minute forward", []sent{with(0, "none", ten), with(30*time.Second, "gateway", ten)}, []string{"clock +30000 ms, none to gateway"}},
		{"a reading late", []sent{with(0, "none", ten), with(20*time.Second, "gateway", ten)}, nil},
		{"one reading of the better clock so far", []sent{with(0, "none", ten), with(2*time.Minute, "gateway", nil)}, []string{"clock +120000 ms, none to gateway"}},
		{"two years, as the gateway was, of the same quality", []sent{with(0, "gateway", ten), with(2*365*24*time.Hour, "gateway", ten)}, []string{"leap +63072000000 ms, gateway to gateway"}},
		{"six minutes, a pause perhaps", []sent{with(0, "gps", ten), with(6*time.Minute, "gps", ten)}, []string{"leap +360000 ms, gps to gps"}},
		{"four minutes, a pause perhaps", []sent{with(0, "gps", ten), with(4*time.Minute, "gps", ten)}, nil},
		{"within a batch", []sent{with(0, "gateway", append(append([]time.Duration{}, ten...), time.Hour, 10*time.Second))}, []string{"leap +3600000 ms"}},
		{"to and fro within a batch", []sent{with(0, "gateway", append(append([]time.Duration{}, ten...), time.Hour, -time.Hour, time.Hour, -time.Hour))}, []string{"clock -3600000 ms, the first of 2 times", "leap +3600000 ms, the first of 2 times"}},
		{"back by a second", []sent{with(0, "gps", ten), with(-time.Second, "gps", ten)}, []string{"clock -1000 ms, gps to gps"}},
		{"a reading each hour", []sent{with(0, "none", hour), with(time.Hour, "gps", hour), with(2*time.Hour, "gps", hour)}, nil},
		{"a batch for each hourly reading", []sent{with(0, "gps", nil), with(time.Hour, "gps", nil), with(time.Hour, "gps", nil)}, nil},
	} {
		t.Run(tc.what, func(t *testing.T) {
			for _, between := range []string{"nothing", "compaction", "restarts"} {
				b := newBench(t)
				at := epoch
				for i, s := range tc.batches {
					at = at.Add(s.after)
					batch := wire.Batch{Header: wire.Header{BatchID: wire.ID(1, uint64(i)+1), Clock: s.quality}}
					for k := range len(s.steps) + 1 {
						batch.Reports = append(batch.Reports, wire.Report{Time: at.UnixMilli(), Values: []wire.Value{wire.Int(1), wire.Int(2)}})
						if k < len(s.steps) {
							at = at.Add(s.steps[k])
						}
					}
					b.append(entry(t, "n-a", cpuAndMemory, batch))
					b.at = later(b.at, at)
					switch between {
					case "compaction":
						b.tend()
					case "restarts":
						b.restart()
					}
				}
				b.tend()
				list, err := b.Marks(t.Context(), MarkQuery{Node: "n-a", From: epoch.Add(-time.Hour), To: epoch.AddDate(3, 0, 0), Limit: 100})
				if err != nil {
					t.Fatal(err)
				}
				var got []string
				for _, m := range list.Items {
					if m.Kind != MarkBoot {
						got = append(got, m.Kind+" "+m.Detail)
					}
				}
				slices.Sort(got)
				want := tc.want
				if between == "compaction" && tc.what == "one reading of the better clock so far" {
					want = nil // how far apart readings are is not known then
				}
				if !slices.Equal(got, want) {
					t.Errorf("with %s between: expected %q, got %q", between, want, got)
				}
			}
		})
	}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

package spool

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"halo.internal/model/wire"
)

// TestADayWithoutAGateway on a card with little room: sensors that are read each second
// thin out, and so do those that are read once a minute; of all of them there is
// something of the whole day's end, and the budget holds.
func TestADayWithoutAGateway(t *testing.T) {
	b := newBoard(t)
	b.budget = MinBudget
	s := b.open()
	start := time.Now().Truncate(time.Minute)
	schema := func(name string, n int) (out wire.Schema) {
		for i := range n {
			out.Metrics = append(out.Metrics, wire.NewMetric(fmt.Sprintf("i2c.%s%d.x", name, i), "", 2))
		}
		return out
	}
	fast, slow := schema("fast", 20), schema("slow", 40)
	noise := rand.New(rand.NewPCG(1, 2))
	batch := func(s wire.Schema, at time.Time, n int, every time.Duration) wire.Batch {
		var out wire.Batch
		for i := range n {
			r := wire.Report{Time: at.Add(time.Duration(i) * every).UnixMilli()}
			for range s.Metrics {
				r.Values = append(r.Values, wire.Int(noise.Int64N(10000)))
			}
			out.Reports = append(out.Reports, r)
		}
		out.Clock = "gateway"
		return out
	}
	const minutes = 24 * 60
	for m := range minutes {
		at := start.Add(time.Duration(m) * time.Minute)
		for _, one := range []struct {
			s wire.Schema
			b wire.Batch
		}{{fast, batch(fast, at, 60, time.Second)}, {slow, batch(slow, at, 1, 0)}} {
			if err := s.AddBatch(one.s, one.b, time.Now()); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Flush(time.Now(), true); err != nil {
			t.Fatal(err)
		}
		if st := s.Stats(); st.DiskBytes > MinBudget {
			t.Fatalf("minute %d: the budget is exceeded: %+v", m, st)
		}
	}
	oldest, newest := map[wire.SchemaID]int64{}, map[wire.SchemaID]int64{}
	reports := map[wire.SchemaID]int{}
	for _, i := range drain(t, s) {
		if i.Kind != Batch {
			continue
		}
		sc := fast
		if i.Schema == slow.ID() {
			sc = slow
		}
		d, err := wire.Decode(i.Data, sc)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range d.Reports {
			if oldest[i.Schema] == 0 || r.Time < oldest[i.Schema] {
				oldest[i.Schema] = r.Time
			}
			newest[i.Schema] = max(newest[i.Schema], r.Time)
			reports[i.Schema]++
		}
	}
	for name, sc := range map[string]wire.Schema{"fast": fast, "slow": slow} {
		id := sc.ID()
		span := time.Duration(newest[id]-oldest[id]) * time.Millisecond
		if reports[id] == 0 || newest[id] < start.Add((minutes-2)*time.Minute).UnixMilli() {
			t.Errorf("%s: %d reports, the newest at %v", name, reports[id], time.UnixMilli(newest[id]))
		}
		t.Logf("%s: %d reports over %v", name, reports[id], span)
	}
	if n := reports[slow.ID()]; n >= minutes/2 {
		t.Errorf("of what is read once a minute %d reports are there: nothing was thinned", n)
	}
}

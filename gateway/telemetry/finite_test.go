package telemetry

import (
	"fmt"
	"math"
	"testing"
	"time"

	"halo.internal/gateway/telemetry/block"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/wire"
)

// Whatever finite numbers nodes send, what is made of them is finite, at every step, by every
// function, and across nodes: JSON has no other numbers, and one node must not keep everybody
// from looking at all.
func TestWhatIsMadeOfFiniteReadingsIsFinite(t *testing.T) {
	const huge = 1.7e308
	cases := []struct {
		name   string
		values []float64
		mean   float64
	}{
		{"large", []float64{huge, huge, huge, huge}, huge},
		{"negative", []float64{-huge, -huge, -huge}, -huge},
		{"largest", []float64{math.MaxFloat64, math.MaxFloat64}, math.MaxFloat64},
		{"apart", []float64{-huge, huge}, 0},
		{"far-apart", []float64{huge, -huge, huge, -huge}, 0},
		{"one-of-three", []float64{20, huge, 21}, huge / 3},
		{"ordinary", []float64{20, 21.5, 23}, 21.5},
		{"tiny", []float64{5e-324, 5e-324}, 5e-324},
	}
	b := newBench(t)
	means := map[string]float64{}
	for i, tc := range cases {
		metric := "hostile." + tc.name + ".value"
		means[metric] = tc.mean
		schema := wire.Schema{Metrics: []wire.Metric{wire.NewMetric(metric, "", wire.ScaleFloat)}}
		for _, node := range []string{"n-a", "n-b"} {
			if err := b.PutSchema(t.Context(), node, schema); err != nil {
				t.Fatal(err)
			}
			batch := wire.Batch{Header: wire.Header{BatchID: wire.ID(1, uint64(i)+1), Clock: model.ClockGateway}}
			for k, v := range tc.values {
				at := epoch.Add(time.Duration(k) * time.Millisecond)
				batch.Reports = append(batch.Reports, wire.Report{Time: at.UnixMilli(), Values: []wire.Value{wire.Int(int64(math.Float64bits(v)))}})
			}
			b.append(entry(t, node, schema, batch))
		}
	}
	for _, when := range []struct {
		what  string
		later time.Duration
	}{{"in the journal", 0}, {"in a file", time.Hour}, {"rolled up", 72 * time.Hour}} {
		b.at = epoch.Add(time.Hour + when.later)
		if when.later > 0 {
			b.tend()
		}
		for _, step := range []time.Duration{time.Minute, time.Hour} {
			for _, f := range []Func{Mean, Min, Max, Sum, Count, First, Last, Rate} {
				for _, across := range []Func{"", Mean, Min, Max, Sum, Count} {
					what := fmt.Sprintf("%s, %s by %s across %q", when.what, f, step, across)
					series := 0
					q := Query{Metrics: []string{"hostile.*"}, From: epoch.Add(-24 * time.Hour), To: epoch.Add(24 * time.Hour), Step: step, Func: f, Across: across}
					_, err := b.Range(t.Context(), q, func(s Series) error {
						series++
						if _, err := (apitype.SeriesList{Items: []apitype.Series{{Points: s.Points}}}).AppendJSON(nil); err != nil {
							t.Errorf("%s: %s: %+v: %v", what, s.Metric, s.Points, err)
						}
						for _, p := range s.Points {
							if p.Mean < p.Min || p.Mean > p.Max {
								t.Errorf("%s: %s: the mean %g is not between %g and %g", what, s.Metric, p.Mean, p.Min, p.Max)
							}
							want := means[s.Metric]
							lost := when.later > time.Hour && want == 0 // a bucket on the card holds what lies above the least, up to the largest number
							if across == "" && !lost && math.Abs(p.Mean-want) > math.Abs(want)/1e9 {
								t.Errorf("%s: %s: the mean is %g, want %g", what, s.Metric, p.Mean, want)
							}
						}
						return nil
					})
					if want := len(cases) * map[bool]int{true: 2, false: 1}[across == ""]; err != nil || series != want {
						t.Errorf("%s: %d series, want %d; %v", what, series, want, err)
					}
				}
			}
		}
	}
}

// Sums go on past the largest number as it, and come back from there where a later number takes
// them below.
func TestSums(t *testing.T) {
	for name, tc := range map[string]struct {
		values    []float64
		sum, mean float64
	}{
		"in range":           {[]float64{1, 2, 3.5}, 6.5, 6.5 / 3},
		"beyond":             {[]float64{1e308, 1e308}, math.MaxFloat64, 1e308},
		"below":              {[]float64{-1e308, -1e308}, -math.MaxFloat64, -1e308},
		"beyond, and back":   {[]float64{1e308, 1e308, -1e308}, 1e308, 1e308 / 3},
		"nothing but zeroes": {[]float64{0, 0}, 0, 0},
	} {
		var c cell
		for i, v := range tc.values {
			c.add(int64(i), reading(v))
		}
		if sum, mean := c.total(), c.mean(); math.Abs(sum-tc.sum) > math.Abs(tc.sum)/1e12 || math.Abs(mean-tc.mean) > math.Abs(tc.mean)/1e12 {
			t.Errorf("%s: sum %g and mean %g, want %g and %g", name, sum, mean, tc.sum, tc.mean)
		}
	}
}

// A bucket of a former release that has added up more than a float holds is as good as one of
// this release; one with what is no number at all is left out.
func TestBucketsOfFormerReleases(t *testing.T) {
	bits := func(v float64) int64 { return int64(math.Float64bits(v)) }
	m := wire.NewMetric("hostile.a.value", "", wire.ScaleFloat)
	endless := block.Bucket{Count: 2, Min: bits(-1.7e308), Max: bits(1.7e308), First: bits(-1.7e308), Last: bits(1.7e308), Above: bits(math.Inf(1))}
	c, ok := number(m, endless)
	if !ok || c.n != 2 || c.min != -1.7e308 || c.max != 1.7e308 || c.mean() < c.min || c.mean() > c.max {
		t.Errorf("got %+v, %v, mean %g", c, ok, c.mean())
	}
	endless.Merge(endless, true)
	if c, ok = number(m, endless); !ok || c.n != 4 || c.mean() < c.min || c.mean() > c.max {
		t.Errorf("two of them: got %+v, %v, mean %g", c, ok, c.mean())
	}
	// All its numbers are finite, and only what they add up to is not.
	if c, ok = number(m, block.Bucket{Count: 1, Min: bits(1.7e308), Max: bits(1.7e308), First: bits(1.7e308), Last: bits(1.7e308)}); !ok || c.mean() != 1.7e308 {
		t.Errorf("got %+v, %v", c, ok)
	}
	for _, bad := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		none := block.Bucket{Count: 1, Min: bits(bad), Max: bits(bad), First: bits(bad), Last: bits(bad)}
		if c, ok := number(m, none); ok {
			t.Errorf("%g: got %+v", bad, c)
		}
		if c, ok := number(m, block.Bucket{Count: 1, Above: bits(bad)}); ok && (c.mean() < c.min || c.mean() > c.max) {
			t.Errorf("%g above the least: got %+v, mean %g", bad, c, c.mean())
		}
	}
}

package apitype

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// Lists of series are written as encoding/json writes them, to the octet.
func TestSeriesAsJSON(t *testing.T) {
	at := time.Date(2026, 11, 29, 11, 50, 0, 0, time.UTC)
	numbers := Series{Node: "n-abcdefghij2345abcdef", Metric: "a.b.c", Unit: "°C"}
	for _, v := range []float64{0, math.Copysign(0, -1), 1, -1, 0.1, 21.37, 1e-6, 9.99e-7, -3.2e-9, 1e-10, 1e20, 1e21, -1.5e300, math.MaxFloat64, math.SmallestNonzeroFloat64, 1 << 53} {
		numbers.Points = append(numbers.Points, Point{Time: at, Count: 1, Min: v, Max: -v, Mean: v / 3, First: v * 0.7, Last: v, Value: v})
	}
	for _, tc := range []struct {
		name string
		list SeriesList
	}{
		{"nothing", SeriesList{}},
		{"no series", SeriesList{StepS: 0.001, Items: []Series{}}},
		{"no points", SeriesList{StepS: 60, Items: []Series{{Metric: "a.b.c"}, {Metric: "a.b.d", Points: []Point{}}}, Next: "bmV4dA"}},
		{"numbers", SeriesList{StepS: 1e-9, Items: []Series{numbers, numbers}}},
		{"text", SeriesList{Items: []Series{{Node: "<&>\"\\\u2028", Metric: "\x00é\xff", Unit: "\t"}}, Next: "<"}},
		{"times", SeriesList{Items: []Series{{Metric: "m", Points: []Point{{Time: at.Add(1)}, {Time: at.Add(1500 * time.Millisecond)}, {Time: at.In(time.FixedZone("", 5400)), Count: -1}, {}}}}}},
	} {
		t.Run(tc.name, func(t *testing.T) { sameAsJSON(t, tc.list) })
	}
	noise := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		l := SeriesList{StepS: math.Float64frombits(noise.Uint64()), Items: []Series{{Metric: "m"}}}
		for range 20 {
			any := func() float64 {
				if f := math.Float64frombits(noise.Uint64()); f-f == 0 {
					return f
				}
				return float64(noise.IntN(1e6)) / 1000
			}
			l.Items[0].Points = append(l.Items[0].Points, Point{Time: time.UnixMilli(noise.Int64N(4e12)).UTC(), Count: noise.Int64(), Min: any(), Max: any(), Mean: any(), First: any(), Last: any(), Value: any()})
		}
		sameAsJSON(t, l)
	}
}

func sameAsJSON(t *testing.T, l SeriesList) {
	t.Helper()
	want, err1 := json.Marshal(l)
	got, err2 := l.AppendJSON(nil)
	if (err1 == nil) != (err2 == nil) {
		t.Fatalf("got %v, want %v", err2, err1)
	}
	if err1 == nil && string(got) != string(want) {
		t.Fatalf("got\n%s\nwant\n%s", got, want)
	}
}

// What JSON cannot carry is an error, as it is of encoding/json.
func TestSeriesWithoutNumber(t *testing.T) {
	for _, v := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		if _, err := (SeriesList{Items: []Series{{Points: []Point{{Mean: v}}}}}).AppendJSON(nil); err == nil {
			t.Errorf("%v: expected an error", v)
		}
	}
}

// BenchmarkDayAsJSON writes 24 h of one metric by minutes.
func BenchmarkDayAsJSON(b *testing.B) {
	s := Series{Node: "n-abcdefghij2345abcdef", Metric: "system.cpu.used_percent", Unit: "%"}
	for i := range 1440 {
		v := float64(i*7919%1000) / 10
		s.Points = append(s.Points, Point{Time: time.Unix(1795950000+int64(i)*60, 0).UTC(), Count: 6, Min: v, Max: v + 1.3, Mean: v + 1.0/3, First: v, Last: v, Value: v + 1.0/3})
	}
	l := SeriesList{StepS: 60, Items: []Series{s}}
	b.Run("here", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := l.AppendJSON(nil); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("encoding/json", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := json.Marshal(l); err != nil {
				b.Fatal(err)
			}
		}
	})
}

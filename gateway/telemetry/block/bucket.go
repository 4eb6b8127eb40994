package block

import (
	"fmt"
	"math"
	"math/bits"
)

// Bucket is what the readings of one series over a time came to. Its numbers are as
// the series has them: integers that its scale belongs to, or the bits of float64. The
// zero value is of no readings.
//
// Not the sum is kept but how much of it lies above the least: that is small where
// readings are alike, and does not overflow where they are large counters.
type Bucket struct {
	Count       int64
	Min, Max    int64
	First, Last int64
	Above       int64 // sum of what each reading exceeds Min by; at most math.MaxInt64, or math.MaxFloat64
}

// Add takes one more reading, later than those before.
func (b *Bucket) Add(v int64, float bool) {
	b.Merge(Bucket{Count: 1, Min: v, Max: v, First: v, Last: v}, float)
}

// Merge takes the readings of another time, later than those before.
func (b *Bucket) Merge(o Bucket, float bool) {
	switch {
	case o.Count == 0:
	case b.Count == 0:
		*b = o
	case float:
		b.mergeFloats(o)
	default:
		low := min(b.Min, o.Min)
		b.Above = plus(plus(b.Above, times(b.Min, low, b.Count)), plus(o.Above, times(o.Min, low, o.Count)))
		b.Count, b.Min, b.Max, b.Last = b.Count+o.Count, low, max(b.Max, o.Max), o.Last
	}
}

// times is (v - low) × n; v is not below low.
func times(v, low, n int64) int64 {
	high, p := bits.Mul64(uint64(v)-uint64(low), uint64(n))
	if high != 0 || p > math.MaxInt64 {
		return math.MaxInt64
	}
	return int64(p)
}

func plus(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

func (b *Bucket) mergeFloats(o Bucket) {
	f, bits := func(v int64) float64 { return math.Float64frombits(uint64(v)) }, func(v float64) int64 { return int64(math.Float64bits(v)) }
	low := min(f(b.Min), f(o.Min))
	above := min(f(b.Above)+(f(b.Min)-low)*float64(b.Count)+f(o.Above)+(f(o.Min)-low)*float64(o.Count), math.MaxFloat64)
	b.Count, b.Min, b.Max, b.Last, b.Above = b.Count+o.Count, bits(low), bits(max(f(b.Max), f(o.Max))), o.Last, bits(above)
}

// Mean returns the mean of the readings, in the series' own integers or as a float. It is
// between Min and Max, also where Above could not hold all that it should, and where a former
// release has kept an infinite one.
func (b Bucket) Mean(float bool) float64 {
	low, high, above := float64(b.Min), float64(b.Max), float64(b.Above)
	if float {
		low, high, above = math.Float64frombits(uint64(b.Min)), math.Float64frombits(uint64(b.Max)), math.Float64frombits(uint64(b.Above))
	}
	return max(low, min(high, low+min(above, math.MaxFloat64)/float64(b.Count)))
}

// Rollup is a node's buckets of one width, for the instants at which they begin.
type Rollup struct {
	Times  []int64 // Unix milliseconds, ascending
	Series []RolledUp
}

// RolledUp is the buckets of one series, one per instant; those of no readings are
// zero.
type RolledUp struct {
	Series  int
	Float   bool
	Buckets []Bucket
}

// A bucket is six columns of a block: how many readings, then as many columns of
// numbers, of which those of integers are told from the least.
const parts = 6

// Block returns the rollup as a block: column parts×series + k is part k of a series.
func (r Rollup) Block() (*Block, error) {
	b := &Block{Times: r.Times, Runs: []Run{{Rows: len(r.Times)}}}
	for _, s := range r.Series {
		if len(s.Buckets) != len(r.Times) {
			return nil, fmt.Errorf("rollup: series %d: expected %d buckets, got %d", s.Series, len(r.Times), len(s.Buckets))
		}
		var have []bool
		n := 0
		for i, k := range s.Buckets {
			if k.Count > 0 {
				n++
			} else if have == nil {
				have = make([]bool, len(s.Buckets))
				for j := range i {
					have[j] = true
				}
			}
			if have != nil {
				have[i] = k.Count > 0
			}
		}
		if n == 0 {
			continue
		}
		columns := make([][]int64, parts)
		for k := range columns {
			columns[k] = make([]int64, 0, n)
		}
		for _, k := range s.Buckets {
			if k.Count == 0 {
				continue
			}
			most, first, last := k.Max, k.First, k.Last
			if !s.Float { // they wrap, and do so again when they are read
				most, first, last = most-k.Min, first-k.Min, last-k.Min
			}
			for i, v := range [parts]int64{k.Count, k.Min, most, first, last, k.Above} {
				columns[i] = append(columns[i], v)
			}
		}
		for k, vs := range columns {
			b.Columns = append(b.Columns, Column{Series: parts*s.Series + k, Have: have, Values: vs})
		}
	}
	return b, nil
}

// ReadRollup takes the rollup out of a block that Rollup.Block made; float tells which
// series are of floats. The block was decoded for the series that OfSeries names.
func ReadRollup(b *Block, float func(series int) bool) (Rollup, error) {
	r := Rollup{Times: b.Times}
	if len(b.Columns)%parts != 0 {
		return r, damaged("rollup: expected %d columns for each series, got %d", parts, len(b.Columns))
	}
	for i := 0; i < len(b.Columns); i += parts {
		group := b.Columns[i : i+parts]
		s := RolledUp{Series: group[0].Series / parts, Buckets: make([]Bucket, len(b.Times))}
		s.Float = float(s.Series)
		for k, c := range group {
			if c.Series != parts*s.Series+k || len(c.Values) != len(group[0].Values) {
				return r, damaged("rollup: series %d: expected part %d of %d values, got column %d of %d", s.Series, k, len(group[0].Values), c.Series, len(c.Values))
			}
		}
		next := 0
		for row := range b.Times {
			if have := group[0].Have; have != nil && !have[row] {
				continue
			}
			k := Bucket{Count: group[0].Values[next], Min: group[1].Values[next], Max: group[2].Values[next], First: group[3].Values[next], Last: group[4].Values[next], Above: group[5].Values[next]}
			if k.Count < 1 {
				return r, damaged("rollup: series %d: expected a bucket of a reading at least, got %d", s.Series, k.Count)
			}
			if !s.Float {
				k.Max, k.First, k.Last = k.Max+k.Min, k.First+k.Min, k.Last+k.Min
			}
			s.Buckets[row] = k
			next++
		}
		r.Series = append(r.Series, s)
	}
	return r, nil
}

// OfSeries makes what Decode wants of series what it wants of a rollup's columns.
func OfSeries(want func(series int) bool) func(column int) bool {
	return func(column int) bool { return want(column / parts) }
}

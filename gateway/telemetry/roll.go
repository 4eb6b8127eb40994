package telemetry

import (
	"cmp"
	"maps"
	"math"
	"slices"

	"halo.internal/gateway/telemetry/block"
)

// Widths of what a week file keeps, in minutes.
const (
	raw     = 0  // an hour of readings as they were made
	minute  = 1  // an hour of minutes
	quarter = 15 // a day of quarters of an hour
	hourly  = 60 // a day of hours
)

const (
	minuteMS = 60_000
	hourMS   = 60 * minuteMS
	dayMS    = 24 * hourMS
)

// roller makes buckets of one width out of readings.
type roller struct {
	width   int64 // milliseconds
	begins  map[int64]int
	times   []int64
	series  map[int]*rolling
	isFloat func(int) bool
}

type rolling struct {
	float   bool
	buckets []block.Bucket
}

// newRoller returns one of that many minutes.
func newRoller(width int, isFloat func(series int) bool) *roller {
	return &roller{width: int64(width) * minuteMS, begins: map[int64]int{}, series: map[int]*rolling{}, isFloat: isFloat}
}

// floor is the multiple of a width that is not after t.
func floor(t, width int64) int64 {
	r := t % width
	if r < 0 {
		r += width
	}
	return t - r
}

func (r *roller) bucket(at int64) int {
	begin := floor(at, r.width)
	i, ok := r.begins[begin]
	if !ok {
		i = len(r.times)
		r.begins[begin], r.times = i, append(r.times, begin)
	}
	return i
}

func (r *roller) of(series int) *rolling {
	s := r.series[series]
	if s == nil {
		s = &rolling{float: r.isFloat(series)}
		r.series[series] = s
	}
	return s
}

func (s *rolling) at(i int) *block.Bucket {
	if i >= len(s.buckets) {
		s.buckets = append(s.buckets, make([]block.Bucket, i+1-len(s.buckets))...)
	}
	return &s.buckets[i]
}

// addBlock takes readings that are later than those before.
func (r *roller) addBlock(b *block.Block) {
	place := make([]int, len(b.Times))
	for i, t := range b.Times {
		place[i] = r.bucket(t)
	}
	for i := range b.Columns {
		c := &b.Columns[i]
		s, next := r.of(c.Series), 0
		for row, p := range place {
			if c.Have != nil && !c.Have[row] {
				continue
			}
			if v := c.Values[next]; !s.float || !math.IsNaN(math.Float64frombits(uint64(v))) && !math.IsInf(math.Float64frombits(uint64(v)), 0) {
				s.at(p).Add(v, s.float) // what is no number would make all of its bucket none
			}
			next++
		}
	}
}

// addRollup takes buckets of a width that divides this one, later than those before.
func (r *roller) addRollup(u block.Rollup) {
	place := make([]int, len(u.Times))
	for i, t := range u.Times {
		place[i] = r.bucket(t)
	}
	for i := range u.Series {
		s := r.of(u.Series[i].Series)
		for row, p := range place {
			if k := &u.Series[i].Buckets[row]; k.Count > 0 {
				s.at(p).Merge(*k, s.float)
			}
		}
	}
}

// encode returns the rollup as a block; nil: of nothing. Of more series than there is room
// for, those that came last in the week are left out: they are so many.
func (r *roller) encode(about string) (body []byte, left int, err error) {
	if len(r.times) == 0 || len(r.series) == 0 {
		return nil, 0, nil
	}
	by := make([]int32, len(r.times))
	for i := range by {
		by[i] = int32(i)
	}
	slices.SortFunc(by, func(a, b int32) int { return cmp.Compare(r.times[a], r.times[b]) })
	u := block.Rollup{Times: make([]int64, len(by))}
	for i, from := range by {
		u.Times[i] = r.times[from]
	}
	all := slices.Sorted(maps.Keys(r.series))
	for _, n := range all[:min(len(all), nodeSeries)] {
		s := r.series[n]
		out := block.RolledUp{Series: n, Float: s.float, Buckets: make([]block.Bucket, len(by))}
		for i, from := range by {
			if int(from) < len(s.buckets) {
				out.Buckets[i] = s.buckets[from]
			}
		}
		u.Series = append(u.Series, out)
	}
	for {
		left = len(all) - len(u.Series)
		b, err := u.Block()
		if err == nil {
			body, err = b.Encode(about)
		}
		if err == nil || len(u.Series) == 1 {
			return body, left, err
		}
		u.Series = u.Series[:len(u.Series)/2]
	}
}

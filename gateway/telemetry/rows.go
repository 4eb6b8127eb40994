package telemetry

import (
	"cmp"
	"maps"
	"math"
	"slices"

	"halo.internal/gateway/telemetry/block"
	"halo.internal/model/wire"
)

// rows gathers readings of one node, in the order in which they came, until they are put
// in the order of time. Of two of one series at one instant the one that came later stays.
type rows struct {
	times   []int64 // Unix milliseconds
	quality []byte  // of the clock, as wire numbers it
	series  map[int]*cells
	columns map[*schema][]*cells // those of series, as a schema has them
}

// cells is the values of one series.
type cells struct {
	rows   []int32
	values []int64
}

func newRows() *rows { return &rows{series: map[int]*cells{}, columns: map[*schema][]*cells{}} }

func (r *rows) of(series int) *cells {
	c := r.series[series]
	if c == nil {
		c = &cells{}
		r.series[series] = c
	}
	return c
}

// addReport takes a report of a batch; numbers are those of the schema's series, negative
// where one is not wanted.
func (r *rows) addReport(s *schema, numbers []int, quality byte, rep *wire.Report) {
	cols := r.columns[s]
	if cols == nil {
		cols = make([]*cells, len(numbers))
		for i, n := range numbers {
			if n >= 0 {
				cols[i] = r.of(n)
			}
		}
		r.columns[s] = cols
	}
	row := int32(len(r.times))
	r.times, r.quality = append(r.times, rep.Time), append(r.quality, quality)
	for i, v := range rep.Values {
		if c := cols[i]; c != nil && v.Present {
			c.rows, c.values = append(c.rows, row), append(c.values, v.Bits)
		}
	}
}

// addBlock takes a block's rows; number says which series one of its is, negative where
// it is not wanted.
func (r *rows) addBlock(b *block.Block, number func(int) int) {
	first := int32(len(r.times))
	r.times = append(r.times, b.Times...)
	for _, run := range b.Runs {
		for range run.Rows {
			r.quality = append(r.quality, run.Quality)
		}
	}
	for i := range b.Columns {
		col := &b.Columns[i]
		n := number(col.Series)
		if n < 0 {
			continue
		}
		c := r.of(n)
		if col.Have == nil {
			for k := range col.Values {
				c.rows = append(c.rows, first+int32(k))
			}
		} else {
			for k, is := range col.Have {
				if is {
					c.rows = append(c.rows, first+int32(k))
				}
			}
		}
		c.values = append(c.values, col.Values...)
	}
}

// order returns the instants in order, and the place of each row among them.
func (r *rows) order() (times []int64, place []int32) {
	place = make([]int32, len(r.times))
	inOrder := true
	for i := range r.times {
		place[i] = int32(i)
		inOrder = inOrder && (i == 0 || r.times[i] > r.times[i-1])
	}
	if inOrder {
		return r.times, place
	}
	by := slices.Clone(place)
	slices.SortFunc(by, func(a, b int32) int { return cmp.Compare(r.times[a], r.times[b]) })
	times = make([]int64, 0, len(by))
	for _, row := range by {
		if at := r.times[row]; len(times) == 0 || times[len(times)-1] != at {
			times = append(times, at)
		}
		place[row] = int32(len(times) - 1)
	}
	return times, place
}

// bound leaves out series beyond so many, those that came last in the week, and returns how
// many they are.
func (r *rows) bound(most int) (left int) {
	if len(r.series) <= most {
		return 0
	}
	all := slices.Sorted(maps.Keys(r.series))
	for _, n := range all[most:] {
		delete(r.series, n)
	}
	clear(r.columns)
	return len(all) - most
}

// block puts the rows in the order of time. Where only every nth is kept, it says how
// many are not.
func (r *rows) block(every int) (b *block.Block, left int) {
	times, place := r.order()
	quality := make([]byte, len(times))
	for row, q := range r.quality {
		quality[place[row]] = q
	}
	total := len(times)
	if every > 1 {
		kept := 0
		for i := 0; i < total; i += every {
			quality[kept] = quality[i]
			kept++
		}
		few := make([]int64, kept)
		for i := range few {
			few[i] = times[i*every]
		}
		times, quality = few, quality[:kept]
	}
	b = &block.Block{Times: times, Runs: runsOf(quality)}
	have, values := make([]bool, len(times)), make([]int64, len(times))
	for _, n := range slices.Sorted(maps.Keys(r.series)) {
		c, count := r.series[n], 0
		clear(have)
		for i, row := range c.rows {
			at := int(place[row])
			if every > 1 {
				if at%every != 0 {
					continue
				}
				at /= every
			}
			if !have[at] {
				have[at] = true
				count++
			}
			values[at] = c.values[i]
		}
		if count == 0 {
			continue
		}
		col := block.Column{Series: n, Values: make([]int64, 0, count)}
		if count < len(times) {
			col.Have = slices.Clone(have)
		}
		for i, is := range have {
			if is {
				col.Values = append(col.Values, values[i])
			}
		}
		b.Columns = append(b.Columns, col)
	}
	return b, total - len(times)
}

func runsOf(quality []byte) (runs []block.Run) {
	for _, q := range quality {
		if n := len(runs); n > 0 && runs[n-1].Quality == q {
			runs[n-1].Rows++
			continue
		}
		if len(runs) == block.MaxRuns { // a clock does not get better and worse that often
			return []block.Run{{Rows: len(quality)}}
		}
		runs = append(runs, block.Run{Rows: 1, Quality: q})
	}
	return runs
}

// encode returns the rows as a block, with every second, fourth and so on where more would
// not fit; left is how many are not in it.
func (r *rows) encode(about string) (body []byte, left int, err error) {
	for every := 1; every < math.MaxUint16; every *= 2 {
		if n := (len(r.times) + every - 1) / every; n > 4*block.MaxRows {
			continue
		}
		var b *block.Block
		b, left = r.block(every)
		if body, err = b.Encode(about); err == nil {
			return body, left, nil
		}
	}
	return nil, len(r.times), err
}

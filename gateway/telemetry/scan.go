package telemetry

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"slices"

	"halo.internal/gateway/store"
	"halo.internal/gateway/telemetry/block"
	"halo.internal/model/wire"
)

// scan reads a node's telemetry in the order of time, from the head and from as many week
// files as it takes, one hour or day of it at a time.
type scan struct {
	store    *Store
	node     string
	wanted   func(metric string) bool
	from, to int64 // Unix milliseconds, the latter not included
	step     int64 // of the answer, milliseconds; 0: readings as they were made, and nothing else

	// What is found is handed to these; series are numbered as metrics lists them. An error
	// ends the scan.
	rows    func(*block.Block) error
	buckets func(u block.Rollup, width int) error
	before  func(day int64) error // each day but the first, by its begin; nil: nobody asks

	source  int64 // the node's number in the journal
	metrics []wire.Metric
	numbers map[wire.Metric]int
}

// number returns the scan's own number of a series; negative: not wanted.
func (c *scan) number(m wire.Metric) int {
	if n, ok := c.numbers[m]; ok {
		return n
	}
	n := -1
	if c.wanted(m.Name) {
		n = len(c.metrics)
		c.metrics = append(c.metrics, m)
	}
	c.numbers[m] = n
	return n
}

// run reads. What is damaged is left out and seen to.
func (c *scan) run(ctx context.Context) error {
	c.numbers = map[wire.Metric]int{}
	// First the head, then the files: what is compacted meanwhile is in both, and files say how
	// much of the head they have.
	var head []*held
	c.source, head = c.store.headOf(c.node, c.from, c.to)
	weeks := map[week]bool{}
	for _, w := range c.store.weeks.list() {
		weeks[w] = true
	}
	low, high := c.store.bounds()
	for _, h := range head {
		first, last := max(h.first, c.from, low), min(h.last, c.to-1, high-1)
		for w := weekOf(first); first <= last && w <= weekOf(last); w++ {
			weeks[w] = true
		}
	}
	list := make([]week, 0, len(weeks))
	for w := range weeks {
		if w.begin() < c.to && w.end() > c.from {
			list = append(list, w)
		}
	}
	slices.Sort(list)
	for _, w := range list {
		err := c.store.readWeek(ctx, w, func(f *weekFile) error { return c.week(ctx, w, f, head) })
		if err != nil {
			return err
		}
	}
	return nil
}

// headOf returns a node's number and its batches in the head that may have stamps in
// [from, to).
func (s *Store) headOf(node string, from, to int64) (source int64, head []*held) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if src := s.sources[node]; src != nil {
		source = src.id
		for _, h := range src.head {
			if h.first < to && h.last >= from {
				head = append(head, h)
			}
		}
	}
	return source, head
}

// readWeek calls f with a week's file, which does not change meanwhile; nil: there is none,
// or it cannot be read.
func (s *Store) readWeek(ctx context.Context, w week, f func(*weekFile) error) error {
	for {
		file, err := s.weeks.acquire(ctx, w, false)
		if errors.Is(err, fs.ErrNotExist) {
			return f(nil)
		}
		if errors.Is(err, store.ErrCorrupt) {
			s.damaged(w, err)
			return f(nil)
		}
		if err != nil {
			return err
		}
		file.lock.RLock()
		again := file.retired.Load()
		if !again {
			err = f(file)
		}
		file.lock.RUnlock()
		s.weeks.release(file)
		if again {
			continue
		}
		if errors.Is(err, store.ErrCorrupt) {
			s.damaged(w, err)
			return nil
		}
		return err
	}
}

// week reads the part that is in one week.
func (c *scan) week(ctx context.Context, w week, f *weekFile, head []*held) error {
	from, to := max(c.from, w.begin()), min(c.to, w.end())
	applied := int64(0)
	var local []int // by the file's number
	if f != nil {
		applied = f.appliedOf(c.store.name)
		local = make([]int, f.nextSeries)
		for i := range local {
			local[i] = -1
		}
		for n, m := range f.series {
			local[n] = c.number(m)
		}
	}
	fresh, err := c.unpack(ctx, head, applied, from, to)
	if err != nil {
		return err
	}
	for d := floor(from, dayMS); d < to; d += dayMS {
		if err := ctx.Err(); err != nil {
			return err
		}
		if c.before != nil && d > c.from {
			if err := c.before(d); err != nil {
				return err
			}
		}
		if err := c.day(ctx, f, local, fresh, d, max(from, d), min(to, d+dayMS)); err != nil {
			return err
		}
	}
	return nil
}

// unpack returns what of the head a file does not have, by hour. A batch that cannot be read
// is left out and told of.
func (c *scan) unpack(ctx context.Context, head []*held, applied, from, to int64) (map[int64]*rows, error) {
	low, high := c.store.bounds()
	from, to = max(from, low), min(to, high)
	fresh := map[int64]*rows{}
	numbers := map[*schema][]int{}
	for _, h := range head {
		if h.group <= applied || h.first >= to || h.last < from {
			continue
		}
		of := numbers[h.schema]
		if of == nil {
			for _, m := range h.schema.Metrics {
				of = append(of, c.number(m))
			}
			numbers[h.schema] = of
		}
		if !slices.ContainsFunc(of, func(n int) bool { return n >= 0 }) {
			continue
		}
		b, err := c.store.unpack(ctx, c.source, h)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if errors.Is(err, store.ErrUnavailable) {
			return nil, err // it may be read in a moment
		}
		if err != nil {
			c.store.leaveOut(c.node, h, err)
			continue
		}
		for i := range b.Reports {
			r := &b.Reports[i]
			if r.Time < from || r.Time >= to {
				continue
			}
			hour := floor(r.Time, hourMS) / hourMS
			if fresh[hour] == nil {
				fresh[hour] = newRows()
			}
			fresh[hour].addReport(h.schema, of, clockNumber(b.Clock), r)
		}
	}
	return fresh, nil
}

// day reads the part [from, to) of the day that begins at d.
func (c *scan) day(ctx context.Context, f *weekFile, local []int, fresh map[int64]*rows, d, from, to int64) error {
	firstHour, endHour := floor(from, hourMS)/hourMS, (to+hourMS-1)/hourMS
	untouched := true
	for h := firstHour; h < endHour; h++ {
		untouched = untouched && fresh[h] == nil
	}
	if f != nil {
		if width := c.rollupFor(f, d, from, to, untouched); width > 0 {
			if err := c.rollup(ctx, f, local, width, d/hourMS); err != nil {
				return err
			}
			return c.freshHours(fresh, firstHour, endHour)
		}
	}
	next := firstHour
	if f != nil {
		want := func(n int) bool { return n < len(local) && local[n] >= 0 }
		err := c.store.fine(ctx, f, c.node, firstHour, endHour, want, func(hour int64, b *block.Block, u *block.Rollup) error {
			if err := c.freshHours(fresh, next, hour); err != nil {
				return err
			}
			next = hour + 1
			if u != nil {
				if err := c.giveRollup(*u, minute, local); err != nil {
					return err
				}
				return c.freshHours(fresh, hour, next)
			}
			for i := range b.Columns {
				b.Columns[i].Series = local[b.Columns[i].Series]
			}
			if r := fresh[hour]; r != nil { // of two at one instant the later to come stays
				both := newRows()
				same := func(n int) int { return n }
				both.addBlock(b, same)
				late, _ := r.block(1)
				both.addBlock(late, same)
				b, _ = both.block(1)
			}
			return c.rows(b)
		})
		if err != nil {
			return err
		}
	}
	return c.freshHours(fresh, next, endHour)
}

// freshHours hands over what only the head has.
func (c *scan) freshHours(fresh map[int64]*rows, from, to int64) error {
	for h := from; h < to; h++ {
		if r := fresh[h]; r != nil {
			b, _ := r.block(1)
			if err := c.rows(b); err != nil {
				return err
			}
		}
	}
	return nil
}

// rollupFor returns the width of the rollup that a day is read from; 0: from what is
// finer.
func (c *scan) rollupFor(f *weekFile, d, from, to int64, untouched bool) int {
	switch {
	case c.step == 0:
		return 0
	case d < f.from.hour: // there is nothing else
		return hourly
	case d < f.from.quarter:
		if c.step%(hourly*minuteMS) == 0 && from == d && to == d+dayMS {
			return hourly
		}
		return quarter
	}
	id, known := f.nodes[c.node]
	if !known || !untouched || f.stale[nodeDay{id, d / dayMS}] {
		return 0
	}
	for _, width := range [...]int{hourly, quarter} {
		w := int64(width) * minuteMS
		if c.step%w == 0 && from%w == 0 && to%w == 0 {
			return width
		}
	}
	return 0
}

// rollup reads a day's rollup.
func (c *scan) rollup(ctx context.Context, f *weekFile, local []int, width int, start int64) error {
	id, ok := f.nodes[c.node]
	if !ok {
		return nil
	}
	var body []byte
	err := f.db.Read().QueryRowContext(ctx, `SELECT body FROM blocks WHERE node = ? AND width = ? AND start = ?`, id, width, start).Scan(&body)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return store.Classify(err)
	}
	_, u, err := decodeBlock(f, body, c.node, width, start, func(n int) bool { return n < len(local) && local[n] >= 0 })
	if err != nil {
		c.store.damaged(f.week, err)
		return nil
	}
	return c.giveRollup(*u, width, local)
}

func (c *scan) giveRollup(u block.Rollup, width int, local []int) error {
	if c.step == 0 {
		return nil
	}
	for i := range u.Series {
		u.Series[i].Series = local[u.Series[i].Series]
	}
	return c.buckets(u, width)
}

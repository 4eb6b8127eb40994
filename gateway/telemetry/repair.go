package telemetry

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"halo.internal/gateway/store"
	"halo.internal/gateway/telemetry/block"
	"halo.internal/model"
	"halo.internal/model/atomicfile"
)

// damaged notes that a week's file has to be repaired. It may be called while the file is
// being read.
func (s *Store) damaged(w week, err error) {
	s.spoiling.Lock()
	defer s.spoiling.Unlock()
	if s.spoilt[w] == nil {
		s.spoilt[w] = err
		s.wake()
	}
}

// ready returns a week's file to be written to, whose first time in a process checks all
// of it: nothing is written into a damaged one. The caller holds s.tending.
func (s *Store) ready(ctx context.Context, w week) (*weekFile, error) {
	f, err := s.weeks.acquire(ctx, w, true)
	if err == nil {
		if err = s.weeks.check(ctx, f); err != nil {
			s.weeks.release(f)
		}
	}
	if !errors.Is(err, store.ErrCorrupt) {
		return f, err
	}
	if err := s.repair(ctx, w, err); err != nil {
		return nil, err
	}
	return s.weeks.acquire(ctx, w, true)
}

// repairAll repairs what was found damaged. The caller holds s.tending.
func (s *Store) repairAll(ctx context.Context) error {
	s.spoiling.Lock()
	spoilt := maps.Clone(s.spoilt)
	s.spoiling.Unlock()
	var errs []error
	for _, w := range slices.Sorted(maps.Keys(spoilt)) {
		errs = append(errs, s.repair(ctx, w, spoilt[w]))
	}
	return errors.Join(errs...)
}

// stubborn is how often in a row a week that cannot be written, while the journal can, is
// tried again, a minute apart: a file whose place on the card has gone bad, mostly.
const stubborn = 10

// tries is how often in a row something failed with a week.
type tries map[week]try

type try struct {
	n    int
	last time.Time
}

// failed counts a failure, unless the last that counts was a moment ago, and returns how many
// there are.
func (t tries) failed(w week, now time.Time) int {
	is := t[w]
	if is.n == 0 || now.Sub(is.last) >= retryAfter {
		is = try{is.n + 1, now}
		t[w] = is
	}
	return is.n
}

// replaceStubborn repairs weeks that could not be written too often, as far as they can be
// read. The caller holds s.tending, and has written the journal.
func (s *Store) replaceStubborn(ctx context.Context, failed map[week]error) error {
	for w := range s.stuck {
		if failed[w] == nil {
			delete(s.stuck, w)
		}
	}
	var errs []error
	for _, w := range slices.Sorted(maps.Keys(failed)) {
		if errors.Is(failed[w], store.ErrFull) {
			continue
		}
		if s.stuck.failed(w, s.ticks()) < stubborn || errors.Is(failed[w], errUnread) { // the latter is not the file's fault
			continue
		}
		delete(s.stuck, w)
		errs = append(errs, s.replace(ctx, w, fmt.Errorf("it could not be written %d times: %w", stubborn, failed[w]), true))
	}
	return errors.Join(errs...)
}

// repair puts a new file in place of a damaged one, with the blocks that can be read; the
// damaged one is kept, as the only one of its kind. The caller holds s.tending.
func (s *Store) repair(ctx context.Context, w week, why error) error {
	return s.replace(ctx, w, why, false)
}

// replace is repair; force also takes for damage what the medium does not read, and goes on
// without what there is where nothing of it can be read.
func (s *Store) replace(ctx context.Context, w week, why error, force bool) error {
	path := s.weeks.path(w)
	kept, lost, err := s.salvage(ctx, w, path, force)
	if err != nil {
		return fmt.Errorf("repair %v: %w", w, errors.Join(err, dropUnfinished(path)))
	}
	if err := s.removeAside(); err != nil {
		return err
	}
	var aside string
	if err := s.weeks.replace(w, false, func(path string) (err error) {
		if aside, err = store.SetAside(path); err != nil {
			return err
		}
		return atomicfile.Rename(path+unfinished, path)
	}); err != nil {
		return fmt.Errorf("repair %v: %w", w, err)
	}
	s.spoiling.Lock()
	delete(s.spoilt, w)
	s.spoiling.Unlock()
	s.touched[w] = true
	s.Events.Add("telemetry.damaged", model.Error, "", fmt.Sprintf("the telemetry of week %v was damaged: %d blocks were saved, %d are known to be lost: %v", w, kept, lost, why),
		map[string]string{"week": w.String(), "saved": fmt.Sprint(kept), "lost": fmt.Sprint(lost), "aside": aside})
	return nil
}

// removeAside removes week files that were set aside before.
func (s *Store) removeAside() error {
	entries, err := os.ReadDir(s.Dir)
	for _, e := range entries {
		if strings.Contains(e.Name(), weekSuffix+store.Damaged) {
			err = errors.Join(err, os.RemoveAll(filepath.Join(s.Dir, e.Name())))
		}
	}
	return err
}

// salvage writes what can be read of a file into a new one beside it; force: see replace.
func (s *Store) salvage(ctx context.Context, w week, path string, force bool) (kept, lost int, err error) {
	if err := dropUnfinished(path); err != nil {
		return 0, 0, err
	}
	fresh, err := openWeek(ctx, path+unfinished, w, true)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, fresh.db.Close()) }()
	old := &weekFile{week: w}
	old.reset()
	kind := weekKind
	kind.Damaged = true
	if old.db, err = store.OpenAsIs(ctx, path, kind); err != nil {
		if errors.Is(err, store.ErrCorrupt) || errors.Is(err, fs.ErrNotExist) || force && ctx.Err() == nil && (store.Unread(err) || unreadable(path)) {
			return 0, 0, nil // it is no database any more
		}
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, old.db.Close()) }()
	for _, part := range old.parts() {
		if err := store.Classify(part(ctx)); err != nil && (ctx.Err() != nil || errors.Is(err, store.ErrUnavailable) && !(force && store.Unread(err))) {
			return 0, 0, err
		}
	}
	days, next := forms{}, old.nextSeries
	e := old.copyTo(fresh)
	e.marks, _ = old.allMarks(ctx) // as many as can be read
	c := copier{names: old.names()}
	var failed error // of what is written: not of what is read
	c.block = func(node string, b editBlock) error {
		if failed != nil {
			return failed
		}
		readings, buckets, err := decodeBlock(old, b.body, node, b.width, b.start, nil)
		if err != nil {
			lost++
			return nil
		}
		old.nextSeries = max(old.nextSeries, seriesAfter(readings, buckets))
		days.note(b.width, b.start)
		if kept++; b.width == raw || b.width == minute {
			e.stale[nodeDay{b.node, floor(b.start, 24) / 24}] = true
		}
		e.put(b.node, b.width, b.start, b.body)
		if e.size > mostWrites {
			e, failed = s.commit(ctx, e, 0)
		}
		return failed
	}
	holes, err := crawl(func(from int64) (int64, error) {
		last, err := c.run(ctx, old, from)
		if force && failed == nil && ctx.Err() == nil && store.Unread(err) {
			err = fmt.Errorf("%w: %w", store.ErrCorrupt, err)
		}
		return last, err
	}, func(id int64) bool { return old.readable(ctx, id) })
	if lost += holes + c.nameless; err != nil {
		return kept, lost, err
	}
	if old.nextSeries > next {
		e.reserve(old)
	}
	if _, err := s.commit(ctx, e, 0); err != nil {
		return kept, lost, err
	}
	if old.journal == "" { // nothing in it says any more how far it was thinned
		old.from = days.thinned()
	}
	return kept, lost, fresh.setMeta(ctx, old)
}

// forms is in which form each day is there, of any node.
type forms map[int64]struct{ fine, quarter bool }

func (f forms) note(width int, hour int64) {
	d := floor(hour, 24) / 24
	is := f[d]
	is.fine = is.fine || width == raw || width == minute
	is.quarter = is.quarter || width == quarter
	f[d] = is
}

// thinned returns how far what is fine has been given up, which always begins with the
// oldest.
func (f forms) thinned() (t thinned) {
	for d, is := range f {
		end := (d + 1) * dayMS
		if !is.fine {
			t.quarter = max(t.quarter, end)
		}
		if !is.fine && !is.quarter {
			t.hour = max(t.hour, end)
		}
	}
	t.minute = t.quarter
	return t
}

// crawl has all rows of a table read that can be: read begins at a row, and returns the last
// that it has read, readable tells of the first row from that one on. holes is how many
// places could not be read.
func crawl(read func(from int64) (last int64, err error), readable func(id int64) bool) (holes int, err error) {
	for next := int64(0); ; {
		last, err := read(next)
		if err == nil {
			return holes, nil
		}
		if !errors.Is(err, store.ErrCorrupt) {
			return holes, err
		}
		holes++
		// What is on this page cannot be read: look behind it.
		low, high := max(next, last+1), int64(0) // the former is not readable, the latter is
		for step := int64(1); step <= weekIDsLimit && high == 0; step *= 2 {
			if readable(low + step) {
				high = low + step
			} else {
				low += step
			}
		}
		if high == 0 {
			return holes, nil
		}
		for high-low > 1 {
			if middle := low + (high-low)/2; readable(middle) {
				high = middle
			} else {
				low = middle
			}
		}
		next = high
	}
}

// dropUnfinished removes the file that is about to take a week's place, if there is one.
func dropUnfinished(path string) error {
	if err := store.Remove(path + unfinished); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// seriesAfter returns the number after the last of the series in a block of readings, or a
// rollup.
func seriesAfter(b *block.Block, u *block.Rollup) (next int) {
	if u != nil {
		for i := range u.Series {
			next = max(next, u.Series[i].Series+1)
		}
		return next
	}
	for i := range b.Columns {
		next = max(next, b.Columns[i].Series+1)
	}
	return next
}

// readable tells whether the first block from that row on can be read.
func (f *weekFile) readable(ctx context.Context, id int64) bool {
	var n int
	return f.db.Read().QueryRowContext(ctx, `SELECT length(body) FROM blocks NOT INDEXED WHERE id >= ? ORDER BY id LIMIT 1`, id).Scan(&n) == nil
}

// copier hands over blocks in the order of their rows.
type copier struct {
	names    map[int64]string
	block    func(node string, b editBlock) error
	nameless int // blocks of nodes that are not known any more
}

// run begins at that row, and returns the last that it has read.
func (c *copier) run(ctx context.Context, f *weekFile, from int64) (last int64, err error) {
	last = from - 1
	err = each(ctx, f.db.Read(), func(rows *sql.Rows) error {
		var id int64
		var b editBlock
		if err := take(rows, &id, &b.node, &b.width, &b.start, &b.body); err != nil {
			return err
		}
		last = id
		if name, ok := c.names[b.node]; ok {
			return c.block(name, b)
		}
		c.nameless++
		return nil
	}, `SELECT id, node, width, start, body FROM blocks NOT INDEXED WHERE id >= ? ORDER BY id`, from)
	return last, store.Classify(err)
}

// copyTo begins an edit of a new file with a file's nodes and series.
func (f *weekFile) copyTo(fresh *weekFile) *edit {
	e := newEdit(fresh)
	maps.Copy(e.nodes, f.nodes)
	for _, n := range slices.Sorted(maps.Keys(f.series)) {
		e.series = append(e.series, newSeries{n, 0, f.series[n]}) // they count against nobody any more
	}
	e.reserve(f)
	return e
}

// reserve keeps numbers of series that a file has given from being given again in a new one,
// where the last of them is not known any more: its blocks would become those of another
// metric.
func (e *edit) reserve(f *weekFile) {
	last := f.nextSeries - 1
	if _, known := f.series[last]; last >= 0 && !known {
		e.series = append(e.series, newSeries{id: last}) // load leaves out what has no name
	}
}

func (f *weekFile) allMarks(ctx context.Context) (all []editMark, err error) {
	err = each(ctx, f.db.Read(), func(rows *sql.Rows) error {
		var m editMark
		var sum int64
		if err := take(rows, &m.node, &m.at, &m.kind, &m.boot, &m.seq, &m.through, &m.until, &m.detail, &sum); err != nil {
			return err
		}
		if sum == m.sum() {
			all = append(all, m)
		}
		return nil
	}, `SELECT node, at, kind, boot, seq, through, until, detail, sum FROM marks`)
	return all, store.Classify(err)
}

// setMeta says of a new file what another one says.
func (f *weekFile) setMeta(ctx context.Context, as *weekFile) error {
	return f.db.Write(ctx, func(tx *sql.Tx) error {
		return putMeta(ctx, tx, as.journal, as.applied, as.from)
	})
}

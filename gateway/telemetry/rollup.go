package telemetry

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"

	"halo.internal/gateway/store"
	"halo.internal/gateway/telemetry/block"
	"halo.internal/model/order"
)

// rollUp makes the rollups of days that are over and have changed since. The caller holds
// s.tending.
func (s *Store) rollUp(ctx context.Context) error {
	today := day(s.now())
	var errs []error
	for _, w := range slices.Sorted(maps.Keys(s.touched)) {
		waits, err := s.rollWeek(ctx, w, today)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			if errors.Is(err, store.ErrCorrupt) {
				s.damaged(w, err)
			}
			errs = append(errs, fmt.Errorf("roll up %v: %w", w, err))
			continue // it stays touched, and does not hold up the others
		}
		if !waits {
			delete(s.touched, w)
		}
	}
	return errors.Join(errs...)
}

// rollWeek rolls up a week's days before that one; waits says that there are others.
func (s *Store) rollWeek(ctx context.Context, w week, before int64) (waits bool, err error) {
	f, err := s.weeks.acquire(ctx, w, false)
	if err != nil {
		return false, err
	}
	defer s.weeks.release(f)
	names := f.names()
	e := newEdit(f)
	stale := slices.Collect(maps.Keys(f.stale))
	order.By(stale, func(a, b nodeDay) int { return int(a.day-b.day)<<32 + int(a.node-b.node) })
	for _, d := range stale {
		if d.day >= before {
			waits = true
			continue
		}
		if name, ok := names[d.node]; ok {
			if err := s.rollDay(ctx, e, name, d); err != nil {
				return true, err
			}
		}
		e.stale[d] = false
		if e.size > mostWrites/4 {
			if e, err = s.commit(ctx, e, 0); err != nil {
				return true, err
			}
		}
	}
	if len(e.stale) > 0 {
		_, err = s.commit(ctx, e, 0)
	}
	return waits, err
}

// names returns the nodes by their number.
func (f *weekFile) names() map[int64]string {
	names := make(map[int64]string, len(f.nodes))
	for name, id := range f.nodes {
		names[id] = name
	}
	return names
}

// rollDay makes a day's quarters of an hour and hours.
func (s *Store) rollDay(ctx context.Context, e *edit, node string, d nodeDay) error {
	rolls := [...]*roller{newRoller(quarter, e.isFloat), newRoller(hourly, e.isFloat)}
	err := s.fine(ctx, e.f, node, d.day*24, d.day*24+24, nil, func(_ int64, b *block.Block, u *block.Rollup) error {
		for _, r := range rolls {
			if u != nil {
				r.addRollup(*u)
			} else {
				r.addBlock(b)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for i, width := range [...]int{quarter, hourly} {
		body, left, err := rolls[i].encode(about(node, width, d.day*24))
		if err != nil {
			return fmt.Errorf("%s, day %d: %w", node, d.day, err)
		}
		s.tellLeft(node, left)
		e.put(d.node, width, d.day*24, body)
	}
	return nil
}

// fine calls f with what a file holds of a node's hours, in order: each is a block of
// readings or a rollup of minutes. What is damaged is left out and seen to.
func (s *Store) fine(ctx context.Context, f *weekFile, node string, from, to int64, want func(series int) bool, yield func(hour int64, b *block.Block, u *block.Rollup) error) error {
	id, ok := f.nodes[node]
	if !ok {
		return nil
	}
	err := each(ctx, f.db.Read(), func(rows *sql.Rows) error {
		var width int
		var start int64
		var body sql.RawBytes
		if err := take(rows, &width, &start, &body); err != nil {
			return err
		}
		b, u, err := decodeBlock(f, body, node, width, start, want)
		if err != nil {
			s.damaged(f.week, fmt.Errorf("%s, width %d, hour %d: %w", node, width, start, err))
			return nil
		}
		return yield(start, b, u)
	}, `SELECT width, start, body FROM blocks WHERE node = ? AND width IN (?, ?) AND start >= ? AND start < ? ORDER BY start, width DESC`, id, raw, minute, from, to)
	return store.Classify(err)
}

// decodeBlock reads a block of readings, or else the rollup that one is.
func decodeBlock(f *weekFile, body []byte, node string, width int, start int64, want func(int) bool) (*block.Block, *block.Rollup, error) {
	if width == raw {
		b, err := block.Decode(body, about(node, width, start), want)
		return b, nil, err
	}
	of := want
	if want != nil {
		of = block.OfSeries(want)
	}
	b, err := block.Decode(body, about(node, width, start), of)
	if err != nil {
		return nil, nil, err
	}
	u, err := block.ReadRollup(b, f.isFloat)
	return nil, &u, err
}

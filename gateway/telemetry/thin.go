package telemetry

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"time"

	"halo.internal/gateway/store"
	"halo.internal/gateway/telemetry/block"
	"halo.internal/model"
	"halo.internal/model/atomicfile"
)

// thin rewrites a week's file without what is finer than is kept from then on. Minutes take
// the place of readings where they are smaller than those, hour by hour: of readings that
// were made every ten seconds they are hardly, and where that shows at once the file stays as
// it is. The caller holds s.tending.
func (s *Store) thin(ctx context.Context, w week, to thinned) (rewritten bool, err error) {
	if s.partly[w] {
		return false, nil // the rollups would have that part, and get it once more with all
	}
	// Of each day that loses what is fine there have to be rollups.
	if _, err := s.rollWeek(ctx, w, to.quarter/dayMS); err != nil {
		return false, err
	}
	f, err := s.ready(ctx, w)
	if err != nil {
		return false, err
	}
	defer s.weeks.release(f)
	to = thinned{max(f.from.minute, to.minute), max(f.from.quarter, to.quarter), max(f.from.hour, to.hour)}
	if to.quarter == f.from.quarter && to.hour == f.from.hour {
		if worth, err := f.minutesAreWorthIt(ctx); err != nil || !worth {
			if err == nil {
				err = s.note(ctx, f, to)
			}
			return false, err
		}
	}
	return true, s.rewrite(ctx, f, to)
}

// rewrite puts a file in place of a week's that has no more than is to be kept.
func (s *Store) rewrite(ctx context.Context, f *weekFile, to thinned) error {
	path := s.weeks.path(f.week)
	if err := dropUnfinished(path); err != nil {
		return err
	}
	if err := s.writeThinned(ctx, f, path+unfinished, to); err != nil {
		return errors.Join(err, dropUnfinished(path))
	}
	return s.weeks.replace(f.week, false, func(path string) error { return atomicfile.Rename(path+unfinished, path) })
}

// minutesAreWorthIt looks at some of a file's hours.
func (f *weekFile) minutesAreWorthIt(ctx context.Context) (bool, error) {
	const some = 48
	names, was, is := f.names(), 0, 0
	err := each(ctx, f.db.Read(), func(rows *sql.Rows) error {
		b := editBlock{width: raw}
		if err := take(rows, &b.node, &b.start, &b.body); err != nil {
			return err
		}
		if name, ok := names[b.node]; ok {
			was += len(b.body)
			err := f.toMinutes(name, &b)
			is += len(b.body)
			return err
		}
		return nil
	}, `SELECT node, start, body FROM blocks WHERE width = ?1 AND id % ?2 = (SELECT min(id) FROM blocks WHERE width = ?1) % ?2 LIMIT ?3`, raw, 7, some)
	return is < was-was/4, store.Classify(err)
}

// note writes down that a file is as thin as that.
func (s *Store) note(ctx context.Context, f *weekFile, to thinned) error {
	f.lock.Lock()
	defer f.lock.Unlock()
	as := weekFile{journal: f.journal, applied: f.applied, from: to}
	if err := f.setMeta(ctx, &as); err != nil {
		return err
	}
	f.from = to
	return nil
}

func (s *Store) writeThinned(ctx context.Context, f *weekFile, path string, to thinned) (err error) {
	fresh, err := openWeek(ctx, path, f.week, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, fresh.db.Close()) }()
	e := f.copyTo(fresh)
	if e.marks, err = f.allMarks(ctx); err != nil {
		return err
	}
	for d := range f.stale {
		e.stale[d] = true
	}
	c := copier{names: f.names()}
	c.block = func(node string, b editBlock) error {
		switch at := b.start * hourMS; {
		case b.width < quarter && at < to.quarter, b.width == quarter && at < to.hour:
			return nil
		case b.width == raw && at < to.minute:
			if err := f.toMinutes(node, &b); err != nil {
				return err
			}
		}
		e.put(b.node, b.width, b.start, b.body)
		if e.size > mostWrites {
			e, err = s.commit(ctx, e, 0)
		}
		return err
	}
	if _, err := c.run(ctx, f, 0); err != nil {
		return err
	}
	if _, err := s.commit(ctx, e, 0); err != nil {
		return err
	}
	as := weekFile{journal: f.journal, applied: f.applied, from: to}
	return fresh.setMeta(ctx, &as)
}

// toMinutes makes minutes of a block of readings where they are smaller.
func (f *weekFile) toMinutes(node string, b *editBlock) error {
	readings, err := block.Decode(b.body, about(node, raw, b.start), nil)
	if err != nil {
		return nil // it stays what it is; who reads it sees to it
	}
	r := newRoller(minute, f.isFloat)
	r.addBlock(readings)
	body, left, err := r.encode(about(node, minute, b.start))
	if err == nil && body != nil && left == 0 && len(body) < len(b.body) {
		b.width, b.body = minute, body
	}
	return err
}

// spareWeek is spare for a copy of a week.
func (s *Store) spareWeek(w week) error {
	info, err := os.Stat(s.weeks.path(w))
	if err != nil {
		return err
	}
	return s.spare(info.Size())
}

// unlink removes a week. The caller holds s.tending.
func (s *Store) unlink(w week) error {
	err := s.weeks.replace(w, true, store.Remove)
	delete(s.touched, w)
	delete(s.partly, w)
	s.far = nil
	return err
}

// fromOf returns what a week's file has been thinned to.
func (s *Store) fromOf(ctx context.Context, w week) (thinned, error) {
	f, err := s.weeks.acquire(ctx, w, false)
	if err != nil {
		return thinned{}, err
	}
	defer s.weeks.release(f)
	return f.from, nil
}

// age thins what is older than is to be kept, whole weeks at a time, and removes what is
// too old for any form: one week each time, so that a clock that is wrong by years does not
// cost everything. The caller holds s.tending.
func (s *Store) age(ctx context.Context) error {
	if !s.Sure() {
		return nil
	}
	errs := []error{s.dropImpossible()}
	now, removed, keep := s.Aged(), false, s.Retention().Keep
	before := func(w week, age time.Duration) bool { return w.end() <= now.UnixMilli()-age.Milliseconds() }
	for _, w := range s.weeks.ofLater() {
		if !before(w, keep.Hour) {
			break
		}
		if err := s.weeks.removeLater(w); err != nil {
			errs = append(errs, fmt.Errorf("remove %v for its age: %w", w, err))
			continue
		}
		s.Events.Add("telemetry.expired", model.Info, "", fmt.Sprintf("what a later release has made of the telemetry of week %v is older than is kept, and was removed", w), map[string]string{"week": w.String()})
		break // as below: one each time
	}
	for _, w := range s.weeks.list() {
		if !before(w, keep.Raw) {
			break
		}
		if before(w, keep.Hour) {
			if removed {
				continue
			}
			removed = true
			if err := s.unlink(w); err != nil {
				errs = append(errs, fmt.Errorf("remove %v for its age: %w", w, err))
				continue
			}
			s.Events.Add("telemetry.expired", model.Info, "", fmt.Sprintf("the telemetry of week %v is older than is kept, and was removed", w), map[string]string{"week": w.String()})
			continue
		}
		to := thinned{minute: w.end()}
		if before(w, keep.Minute) {
			to.quarter = w.end()
		}
		if before(w, keep.Quarter) {
			to.hour = w.end()
		}
		is, err := s.fromOf(ctx, w)
		if errors.Is(err, store.ErrCorrupt) {
			s.damaged(w, err)
			continue
		}
		if err == nil && (is.minute < to.minute || is.quarter < to.quarter || is.hour < to.hour) {
			if err = s.spareWeek(w); err == nil {
				_, err = s.thin(ctx, w, to)
			}
		}
		if errors.Is(err, store.ErrFull) {
			continue // not now: what is too much for the medium is trim's
		}
		if err == nil {
			delete(s.unthinned, w)
		} else if errors.Is(err, store.ErrUnavailable) && ctx.Err() == nil && s.unthinned.failed(w, s.ticks()) >= stubborn {
			delete(s.unthinned, w)
			err = s.replace(ctx, w, fmt.Errorf("it could not be thinned %d times: %w", stubborn, err), true)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("thin %v for its age: %w", w, err)) // the others are not held up
		}
	}
	return errors.Join(errs...)
}

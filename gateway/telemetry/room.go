package telemetry

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"

	"halo.internal/gateway/store"
	"halo.internal/model"
)

// The telemetry shares its file system with what is more precious. It takes a third at
// most, and gives up what is oldest and finest while less than a reserve is free.
const (
	shareOfDisk = 3
	mostReserve = 8 << 20
	reservePart = 16                 // of the file system, where that is less
	aheadKept   = 8 * 24 * 60 * 60e3 // milliseconds: weeks that begin later are the first to go

	// Telemetry this small is not what fills a disk, and dropping it would not help: what was
	// acknowledged stays, and the nodes keep what is new.
	smallStore = 1 << 20
)

// Limit is how many octets may be in use where there is room on the file system.
func (s *Store) Limit() int64 {
	if size, _ := s.space(); size > 0 {
		return min(s.Retention().Budget, size/shareOfDisk)
	}
	return s.Retention().Budget
}

// Thinned returns how often a week was thinned or removed for space since the start.
func (s *Store) Thinned() int64 { return s.thinnings.Load() }

// Tended returns how often all was compacted, rolled up and thinned since the start, without
// an error.
func (s *Store) Tended() int64 { return s.tended.Load() }

// Commits returns how many transactions were written since the start: each wears the card.
func (s *Store) Commits() int64 { return s.db.Commits() + s.commits.Load() }

// Bytes returns how much of the file system the telemetry takes, without what a later release
// has made: nothing is given up for that.
func (s *Store) Bytes() int64 {
	own, _ := s.bytes()
	return own
}

// bytes returns Bytes, and what a later release has made.
func (s *Store) bytes() (own, later int64) {
	own = s.db.FileBytes()
	entries, err := os.ReadDir(s.Dir)
	if err != nil {
		return own, 0
	}
	ofLater := map[string]bool{}
	for _, w := range s.weeks.ofLater() {
		ofLater[w.String()+weekSuffix] = true
	}
	for _, e := range entries {
		info, err := e.Info()
		switch {
		case err != nil: // it is gone
		case ofLater[e.Name()]:
			later += info.Size()
		default:
			own += info.Size()
		}
	}
	return own, later
}

// limit is how many octets may be in use at present.
func (s *Store) limit(used int64) int64 {
	if short := s.short(); short > 0 {
		return min(s.Limit(), max(used-short, smallStore))
	}
	return s.Limit()
}

// short is how many octets less than a reserve are free on the file system.
func (s *Store) short() int64 {
	size, free := s.space()
	return max(min(mostReserve, size/reservePart)-free, 0)
}

// trim thins until the telemetry is within its limit. The caller holds s.tending.
func (s *Store) trim(ctx context.Context) error {
	for range s.ways() {
		used := s.Bytes()
		limit := s.limit(used)
		if used <= limit {
			return nil
		}
		list := s.givings()
		if s.short() == 0 { // what is not this release's is not what takes too much
			list = slices.DeleteFunc(list, func(g giving) bool { return g.later })
		}
		did, err := s.giveUp(ctx, list, fmt.Sprintf("the telemetry takes %d MiB, of which it may have %d", used>>20, limit>>20))
		if err != nil || !did {
			return err
		}
	}
	return nil
}

// makeRoom is free for who does not hold s.tending.
func (s *Store) makeRoom(ctx context.Context) error {
	s.tending.Lock()
	defer s.tending.Unlock()
	return s.free(ctx)
}

// ways is in how many ways something can be given up, at most.
func (s *Store) ways() int { return len(s.givings()) }

var errNothingToGive = errors.New("there is nothing to give up for room")

// free gives something up since the medium is full. The caller holds s.tending.
func (s *Store) free(ctx context.Context) error {
	used, later := s.bytes()
	for range s.ways() {
		list := slices.DeleteFunc(s.givings(), func(g giving) bool { return !g.later && used <= smallStore })
		did, err := s.giveUp(ctx, list, "the file system is full")
		if err != nil {
			return err
		}
		if own, others := s.bytes(); own+others < used+later {
			return nil
		}
		if !did {
			break
		}
	}
	return errNothingToGive
}

// giving is one thing that can be given up.
type giving struct {
	week   week
	to     thinned // or else
	remove bool
	later  bool // what a later release has made of the week
	what   string
}

// givings lists what can be given up in that order: first weeks that have no business to be
// there yet, then of all but the last two weeks what is finest, the oldest first, then those
// weeks, and in the end what is finest of the last two.
func (s *Store) givings() (list []giving) {
	now := s.Ahead().UnixMilli() // where the clock was set back, the last weeks are those of before
	current, weeks := weekOf(now), s.weeks.list()
	for i := len(weeks) - 1; i >= 0; i-- {
		if s.Sure() && weeks[i].begin() > now+aheadKept {
			list = append(list, giving{week: weeks[i], remove: true, what: "it is of the future, and was removed"})
		}
	}
	each := func(keep week, g giving, to func(w week) thinned) {
		for _, w := range weeks {
			if w < keep {
				g.week, g.to = w, to(w)
				list = append(list, g)
			}
		}
	}
	minutes := func(w week) thinned { return thinned{minute: w.end()} }
	quarters := func(w week) thinned { return thinned{w.end(), w.end(), 0} }
	hours := func(w week) thinned { return thinned{w.end(), w.end(), w.end()} }
	none := func(week) thinned { return thinned{} }
	each(current-1, giving{what: "minutes took the place of readings where that is smaller"}, minutes)
	each(current-1, giving{what: "quarters of an hour took the place of readings"}, quarters)
	each(current-1, giving{what: "hours took the place of quarters of an hour"}, hours)
	each(current-1, giving{what: "it was removed", remove: true}, none)
	for _, w := range s.weeks.ofLater() {
		if w < current-1 {
			list = append(list, giving{week: w, remove: true, later: true, what: "what a later release has made of it was removed"})
		}
	}
	each(current, giving{what: "quarters of an hour took the place of readings"}, quarters)
	upTo := func(t int64) func(w week) thinned {
		return func(w week) thinned { return thinned{min(w.end(), t), min(w.end(), t), 0} }
	}
	each(current+1, giving{what: "quarters of an hour took the place of readings before today"}, upTo(floor(now, dayMS)))
	each(current, giving{what: "it was removed", remove: true}, none)
	each(math.MaxInt64, giving{what: "quarters of an hour take the place of readings"}, upTo(floor(now, dayMS)+dayMS))
	return list
}

// giveUp gives up the first thing of a list that there is, and says so; where that fails, the
// next. But no week is removed while there is one that cannot be thinned for a moment: that
// is tried again, a minute apart. The caller holds s.tending.
func (s *Store) giveUp(ctx context.Context, list []giving, why string) (did bool, err error) {
	var errs []error
	wait := false
	for _, g := range list {
		if g.remove && wait {
			continue
		}
		gone, err := s.give(ctx, g)
		if err != nil {
			if ctx.Err() != nil {
				return false, ctx.Err()
			}
			s.Log.Warn("telemetry cannot be given up", "week", g.week, "err", err)
			errs = append(errs, err)
			if errors.Is(err, store.ErrUnavailable) && !errors.Is(err, store.ErrFull) {
				wait = wait || s.unthinned.failed(g.week, s.ticks()) < stubborn
			}
		}
		if !gone {
			continue
		}
		delete(s.unthinned, g.week)
		s.thinnings.Add(1)
		s.Events.Add("telemetry.thinned", model.Warning, "", fmt.Sprintf("%s: of week %v, %s", why, g.week, g.what), map[string]string{"week": g.week.String(), "budget_bytes": fmt.Sprint(s.Limit())})
		return true, nil
	}
	return false, errors.Join(errs...)
}

// give gives one thing up, if it is there.
func (s *Store) give(ctx context.Context, g giving) (gone bool, err error) {
	if g.later {
		if err := s.weeks.removeLater(g.week); err != nil {
			return false, fmt.Errorf("remove %v: %w", g.week, err)
		}
		return true, nil
	}
	if g.remove {
		if err := s.unlink(g.week); err != nil {
			return false, fmt.Errorf("remove %v: %w", g.week, err)
		}
		return true, nil
	}
	is, err := s.fromOf(ctx, g.week)
	if err == nil && is.minute >= g.to.minute && is.quarter >= g.to.quarter && is.hour >= g.to.hour {
		return false, nil
	}
	if err == nil {
		gone, err = s.thin(ctx, g.week, g.to)
	}
	switch {
	case errors.Is(err, store.ErrFull):
		return false, nil // there is no room to rewrite it: what comes next takes less
	case errors.Is(err, store.ErrCorrupt):
		return false, s.repair(ctx, g.week, err)
	case err != nil:
		return false, fmt.Errorf("thin %v: %w", g.week, err)
	}
	return gone, nil
}

package telemetry

import (
	"context"
	"errors"
	"time"

	"halo.internal/gateway/store"
	"halo.internal/model"
)

const (
	lookEvery  = 20 * time.Second
	afterHour  = 2 * time.Minute // compaction waits for what nodes send once a minute
	retryAfter = time.Minute
	tidyAfter  = 50 * time.Minute // what failed of old weeks, with the next hour's compaction
)

// Run compacts the journal every hour and whenever it grows large, rolls up days that are
// over and thins what is old, until ctx ends. It ends with an error where the journal is
// damaged.
func (s *Store) Run(ctx context.Context) error {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	hour := s.hour()
	next, failing := time.Now(), false // at once: what an earlier process left
	for {
		if !time.Now().Before(next) {
			err, untidy := s.tend(ctx)
			if untidy != nil && ctx.Err() == nil {
				s.Log.Warn("old telemetry waits to be rolled up or thinned", "err", untidy)
			}
			switch {
			case ctx.Err() != nil:
				return nil
			case errors.Is(err, errJournal):
				return err
			case err != nil:
				s.Log.Warn("telemetry waits to be compacted", "err", err)
				if !failing && !errors.Is(err, store.ErrUnavailable) {
					s.Events.Add("telemetry.failing", model.Error, "", "telemetry cannot be moved from the journal into its files: "+err.Error(), nil)
				}
				next, failing = time.Now().Add(retryAfter), true
			default:
				hour, failing = s.hour(), false
				next = time.Now().Add(2 * time.Hour) // the clock's hour comes before
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.work:
			if !failing { // else it is tried again in its time, however much comes meanwhile
				next = time.Now()
			}
		case <-look.C:
			if s.hour() != hour && !failing {
				next = time.Now()
			}
		}
	}
}

// hour is the number of the hour whose compaction is the last that was due.
func (s *Store) hour() int64 { return s.now().Add(-afterHour).Unix() / 3600 }

// errJournal is wrapped where it is the journal that is damaged: the process has to start
// again, which sets it aside.
var errJournal = errors.New("telemetry journal")

// Tend does at once what Run does from time to time.
func (s *Store) Tend(ctx context.Context) error { return errors.Join(s.tend(ctx)) }

// tend is Tend; what is untidy after it need not be tried again in a moment.
func (s *Store) tend(ctx context.Context) (err, untidy error) {
	s.tending.Lock()
	defer s.tending.Unlock()
	err = errors.Join(s.repairAll(ctx), s.compactWithRoom(ctx))
	untidy = s.tidy(ctx)
	if err = errors.Join(err, s.trim(ctx)); err == nil && untidy == nil {
		s.tended.Add(1)
	}
	return err, untidy
}

// tidy rolls up and thins for its age. Where that fails it is tried again with the next hour's compaction: each
// try may read and write whole weeks. The caller holds s.tending.
func (s *Store) tidy(ctx context.Context) error {
	if now := s.ticks(); !s.untidy.IsZero() && now.Sub(s.untidy) < tidyAfter {
		return nil
	}
	s.untidy = time.Time{}
	err := errors.Join(s.rollUp(ctx), s.age(ctx))
	if err != nil {
		s.untidy = s.ticks()
	}
	return err
}

// compactWithRoom compacts; where the medium is full what is oldest makes room for what is
// new.
func (s *Store) compactWithRoom(ctx context.Context) error {
	err := s.compact(ctx)
	for range s.ways() {
		if !errors.Is(err, store.ErrFull) || s.free(ctx) != nil {
			break
		}
		err = s.compact(ctx)
	}
	return err
}

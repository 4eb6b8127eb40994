package telemetry

import (
	"context"
	"errors"

	"halo.internal/gateway/store"
)

// damaged notes that a week's file has to be repaired.
func (s *Store) damaged(w week, err error) {}

// ready returns a week's file to be written to: the first time in a process all of it is
// checked.
func (s *Store) ready(ctx context.Context, w week) (*weekFile, error) {
	f, err := s.weeks.acquire(ctx, w, true)
	if err != nil || f.checked {
		return f, err
	}
	if err := f.db.Check(ctx); err != nil && errors.Is(err, store.ErrCorrupt) {
		return nil, err
	}
	f.checked = true
	return f, nil
}

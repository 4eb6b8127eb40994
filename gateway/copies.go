package gateway

import (
	"context"
	"log/slog"
	"time"

	"halo.internal/gateway/store"
)

const (
	copySettle  = 30 * time.Second // a person rarely changes one thing alone
	copyAtMost  = time.Hour        // however much is changed
	copyAtLeast = 24 * time.Hour   // nodes join and events come without people
)

// copies keeps a copy of config.db beside it: daily, and soon after a person
// has changed something, but not more than once an hour, for the card's sake.
type copies struct {
	db   *store.DB
	log  *slog.Logger
	want chan struct{}
}

func newCopies(db *store.DB, log *slog.Logger) *copies {
	return &copies{db: db, log: log, want: make(chan struct{}, 1)}
}

// request asks for a copy after a change.
func (c *copies) request() {
	select {
	case c.want <- struct{}{}:
	default: // one is waiting already
	}
}

func (c *copies) run(ctx context.Context) error {
	wait := time.Duration(0) // until the next copy may be made
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(copyAtLeast):
		case <-c.want:
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(max(wait, copySettle)):
			}
		}
		if err := c.db.Copy(ctx); err != nil && ctx.Err() == nil {
			c.log.Warn("the copy of config.db could not be made", "err", err)
			continue // the one before stays
		}
		wait = copyAtMost
	}
}

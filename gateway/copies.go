package gateway

import (
	"context"
	"log/slog"
	"time"

	"halo.internal/gateway/store"
)

const (
	copySettle  = 30 * time.Second // a person rarely changes one thing alone
	copyPrompt  = 2 * time.Second  // after something was taken away
	copyAtMost  = time.Hour        // however much is changed
	copyAtLeast = 24 * time.Hour   // events come without anybody
	copyRetry   = 5 * time.Minute  // after one that could not be made
	promptPause = 5 * time.Minute  // between two that are due to what was taken away
	copyLast    = 20 * time.Second // for the one at an ordered stop
)

// copies keeps a copy of config.db beside it: daily, also on a gateway that is
// never up for a day, and soon after a change, but not more than once an hour,
// for the card's sake. After something was taken away, such as a node's
// membership, all copies are replaced promptly: one that takes the database's
// place must not give it back. Of several withdrawals in a row the later ones
// wait, though not beyond an ordered stop. What is asked for need not be
// written down: after a power cut the next start sees it in the copies.
type copies struct {
	copy     func(context.Context) error
	last     time.Time       // of the newest copy; zero: there is none
	nodes    <-chan struct{} // gets a value when nodes have joined or left
	log      *slog.Logger
	want     chan struct{}
	withdraw chan struct{}
}

func newCopies(copy func(context.Context) error, last time.Time, nodes <-chan struct{}, log *slog.Logger) *copies {
	return &copies{copy: copy, last: last, nodes: nodes, log: log, want: make(chan struct{}, 1), withdraw: make(chan struct{}, 1)}
}

// request asks for a copy after a change.
func (c *copies) request() { ask(c.want) }

// withdrawn asks for a copy after something was taken away.
func (c *copies) withdrawn() { ask(c.withdraw) }

// catchUp asks for what an earlier process was asked for and did not come to.
func (c *copies) catchUp(l store.Lag) {
	switch {
	case l.Withdrawal:
		c.withdrawn()
	case l.Change:
		c.request()
	}
}

func ask(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // one is asked for already
	}
}

// first is how long the first copy can wait. What a clock says that has gone
// back is not believed.
func (c *copies) first() time.Duration {
	age := time.Since(c.last)
	if c.last.IsZero() || age < 0 {
		return copySettle
	}
	return max(copySettle, copyAtLeast-age)
}

func (c *copies) run(ctx context.Context) error {
	due := time.Now().Add(c.first())
	var changed, prompt time.Time // before these no change, or withdrawal, makes one
	owed := false                 // no copy was made since something was taken away
	for {
		timer := time.NewTimer(time.Until(due))
		select {
		case <-ctx.Done():
			timer.Stop()
			c.end(ctx, owed)
			return nil
		case <-c.want:
			due = sooner(due, later(time.Now().Add(copySettle), changed))
		case <-c.nodes:
			due = sooner(due, later(time.Now().Add(copySettle), changed))
		case <-c.withdraw:
			owed = true
			due = sooner(due, later(time.Now().Add(copyPrompt), prompt))
		case <-timer.C:
			err := c.copy(ctx)
			now := time.Now()
			if err != nil {
				if ctx.Err() == nil {
					c.log.Warn(failedCopy, "err", err)
				}
				due = now.Add(copyRetry) // the one before stays
				changed, prompt = due, due
				continue
			}
			due, changed = now.Add(copyAtLeast), now.Add(copyAtMost)
			if owed {
				owed, prompt = false, now.Add(promptPause)
			}
		}
		timer.Stop()
	}
}

const failedCopy = "the copy of config.db could not be made"

// end makes the copy that a withdrawal still waits for: a card that is taken
// out now may be next used with its copies. Changes can wait for the next start.
func (c *copies) end(ctx context.Context, owed bool) {
	select {
	case <-c.withdraw:
		owed = true
	default:
	}
	if !owed {
		return
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), copyLast)
	defer cancel()
	if err := c.copy(last); err != nil {
		c.log.Warn(failedCopy, "err", err)
	}
}

func sooner(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

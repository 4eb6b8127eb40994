package telemetry

import (
	"context"
	"time"

	"halo.internal/model/wire"
)

// Bounds of what is kept for subscribers that are a little behind.
const (
	recentGroups = 512
	recentBytes  = 1 << 20
)

// Commit is what one group of the journal holds, for those who follow it.
type Commit struct {
	Group   int64 // its number: they ascend, with holes
	At      time.Time
	Missed  bool // there were others since the one before, which are not remembered: ask with Range
	Batches []Committed
}

// Committed is one batch that was committed.
type Committed struct {
	Node string
	held *held
}

// Header says what the batch is without unpacking it.
func (c Committed) Header() wire.Header { return c.held.Header }

// Schema is that of the batch.
func (c Committed) Schema() wire.Schema { return c.held.schema.Schema }

// Decode unpacks the batch.
func (c Committed) Decode() (wire.Batch, error) { return c.held.decode() }

// recent is the newest groups. It is guarded by Store.mu.
type recent struct {
	groups []Commit
	sizes  []int
	bytes  int
	news   chan struct{} // closed with the next group
}

func (r *recent) add(g group) {
	c := Commit{Group: g.id, At: g.at}
	for _, b := range g.batches {
		c.Batches = append(c.Batches, Committed{b.src.node, b.held})
	}
	r.groups, r.sizes, r.bytes = append(r.groups, c), append(r.sizes, len(g.body)), r.bytes+len(g.body)
	for len(r.groups) > recentGroups || r.bytes > recentBytes && len(r.groups) > 1 {
		r.bytes -= r.sizes[0]
		r.groups[0] = Commit{}
		r.groups, r.sizes = r.groups[1:], r.sizes[1:]
	}
	close(r.news)
	r.news = make(chan struct{})
}

// after returns the first group after that one, or else what is closed when there is one.
func (r *recent) after(group int64) (c Commit, news <-chan struct{}) {
	for i := len(r.groups) - 1; i >= 0; i-- {
		if r.groups[i].Group <= group {
			if i == len(r.groups)-1 {
				return c, r.news
			}
			return r.groups[i+1], nil
		}
	}
	if len(r.groups) > 0 {
		c = r.groups[0]
		c.Missed = c.Group > group+1
		return c, nil
	}
	return c, r.news
}

// Group returns the number of the newest group.
func (s *Store) Group() int64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.lastGroup
}

// Subscribe sends what is committed after that group, in order, until ctx ends; then it
// closes the channel. Who takes too long to keep up has commits left out, and is told so
// with the next.
func (s *Store) Subscribe(ctx context.Context, after int64) <-chan Commit {
	out := make(chan Commit)
	go func() {
		defer close(out)
		for {
			s.mu.RLock()
			c, news := s.recent.after(after)
			s.mu.RUnlock()
			if news != nil {
				select {
				case <-ctx.Done():
					return
				case <-news:
				}
				continue
			}
			select {
			case <-ctx.Done():
				return
			case out <- c:
				after = c.Group
			}
		}
	}()
	return out
}

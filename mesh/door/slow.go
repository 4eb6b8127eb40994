package door

import (
	"sync"
	"time"
)

const (
	freeFailures  = 5               // in a row, before waiting begins
	firstWait     = 2 * time.Second // doubled with each further failure
	longestWait   = 5 * time.Minute
	forgetAfter   = 15 * time.Minute // without a failure
	maxRemembered = 256
)

// Slow makes repeated failures slow: after five in a row, each further one
// doubles the time for which who failed is not heard. It counts by who tries.
// Its methods may be called from any goroutine.
type Slow struct {
	now func() time.Time // monotonic

	mu   sync.Mutex // guards what follows
	seen map[string]*failures
}

type failures struct {
	count       int
	last, until time.Time
}

// NewSlow returns one that has seen nobody fail.
func NewSlow() *Slow { return &Slow{now: time.Now, seen: map[string]*failures{}} }

// Wait returns for how long who is not heard yet.
func (s *Slow) Wait(who string) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.seen[who]
	if f == nil {
		return 0
	}
	return max(0, f.until.Sub(s.now()))
}

// Fail counts a failure and returns how many there were in a row.
func (s *Slow) Fail(who string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	f := s.seen[who]
	if f == nil || now.Sub(f.last) > forgetAfter {
		if f == nil && len(s.seen) >= maxRemembered {
			s.forget(now)
		}
		f = &failures{}
		s.seen[who] = f
	}
	f.count++
	f.last = now
	if over := f.count - freeFailures; over >= 0 {
		f.until = now.Add(min(firstWait<<min(over, 16), longestWait))
	}
	return f.count
}

// Succeed forgets the failures of who.
func (s *Slow) Succeed(who string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.seen, who)
}

// forget makes room: what is old goes, and when nothing is, the oldest.
func (s *Slow) forget(now time.Time) {
	oldest := ""
	for who, f := range s.seen {
		if now.Sub(f.last) > forgetAfter {
			delete(s.seen, who)
		} else if oldest == "" || f.last.Before(s.seen[oldest].last) {
			oldest = who
		}
	}
	if len(s.seen) >= maxRemembered {
		delete(s.seen, oldest)
	}
}

// bucket of tokens: so many at once, and so many more a second.
type bucket struct {
	most, rate float64

	mu   sync.Mutex // guards what follows
	have float64
	last time.Time
}

func newBucket(most, perSecond float64) *bucket {
	return &bucket{most: most, rate: perSecond, have: most}
}

func (b *bucket) take(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.last.IsZero() {
		b.have = min(b.most, b.have+now.Sub(b.last).Seconds()*b.rate)
	}
	b.last = now
	if b.have < 1 {
		return false
	}
	b.have--
	return true
}

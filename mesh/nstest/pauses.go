package nstest

import (
	"sync"
	"testing"
	"time"
)

// pace is how often Pauses looks.
const pace = 10 * time.Millisecond

// Pauses measures for how long this process, which wants to do something all the time,
// had no processor: what happens meanwhile on the same host may be that late at each
// waking of a thread, without a fault of its own.
type Pauses struct {
	mu      sync.Mutex // guards what follows
	longest time.Duration
}

// WatchPauses measures until the test ends.
func WatchPauses(t testing.TB) *Pauses {
	p := &Pauses{}
	ended, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		for {
			began := time.Now()
			select {
			case <-ended:
				return
			case <-time.After(pace):
			}
			p.mu.Lock()
			p.longest = max(p.longest, time.Since(began)-pace)
			p.mu.Unlock()
		}
	}()
	t.Cleanup(func() { close(ended); <-watched })
	return p
}

// Longest returns the longest pause since Clear.
func (p *Pauses) Longest() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.longest
}

// Clear forgets what was measured until now.
func (p *Pauses) Clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.longest = 0
}

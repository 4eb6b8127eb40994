// Package apart runs what may hang in the kernel, where nobody can end it, so that no
// one waits for it longer than he has to. What is left behind goes on by itself, or
// comes back after an hour: it has to see by then that nobody waits for it any more.
package apart

import (
	"context"
	"sync"
	"time"
)

// LetGo is how long what was told to end, and does not hang, may take for that.
const LetGo = 5 * time.Second

// Run runs f and returns true once it is done, or false LetGo after ctx has ended: f
// is left behind then, with all that it holds.
func Run(ctx context.Context, f func()) (done bool) {
	ended := make(chan struct{})
	go func() { defer close(ended); f() }()
	return Await(ctx, ended)
}

// Await waits until ended is closed, and returns true, or until LetGo after the end of
// ctx.
func Await(ctx context.Context, ended <-chan struct{}) bool {
	select {
	case <-ended:
		return true
	case <-ctx.Done():
	}
	late := time.NewTimer(LetGo)
	defer late.Stop()
	select {
	case <-ended:
		return true
	case <-late.C:
		return false
	}
}

// Question is what the kernel is asked for by one goroutine at a time, whoever wants to
// know it: where that one hangs, no other is sent after it. The zero value is ready.
type Question[T any] struct {
	mu  sync.Mutex
	now *asked[T] // nil: nobody asks
}

type asked[T any] struct {
	since    time.Time
	answered chan struct{} // closed once answer is there
	answer   T
}

// Ask returns what f answers, to all who ask meanwhile, or false after wait or when ctx
// ends. Where f is under way for longer than that already, it is false at once.
func (q *Question[T]) Ask(ctx context.Context, wait time.Duration, f func() T) (answer T, ok bool) {
	q.mu.Lock()
	a := q.now
	if a == nil {
		a = &asked[T]{since: time.Now(), answered: make(chan struct{})}
		q.now = a
		go func() {
			v := f()
			q.mu.Lock()
			defer q.mu.Unlock()
			a.answer, q.now = v, nil
			close(a.answered)
		}()
	}
	q.mu.Unlock()
	late := time.NewTimer(max(0, wait-time.Since(a.since)))
	defer late.Stop()
	select {
	case <-a.answered:
		return a.answer, true
	case <-late.C:
	case <-ctx.Done():
	}
	return answer, false
}

// Unanswered is for how long the question that is under way has been; 0: none is.
func (q *Question[T]) Unanswered() time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.now == nil {
		return 0
	}
	return time.Since(q.now.since)
}

package apart

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		if !Run(ctx, func() { time.Sleep(time.Hour) }) {
			t.Error("what takes its time was not waited for")
		}
		hangs := make(chan struct{})
		time.AfterFunc(time.Minute, cancel)
		at := time.Now()
		if Run(ctx, func() { <-hangs }) {
			t.Error("what hangs is done")
		}
		if took := time.Since(at); took != time.Minute+LetGo {
			t.Errorf("left behind after %s", took)
		}
		if !Run(ctx, func() { time.Sleep(LetGo / 2) }) {
			t.Error("what was told to end was not waited for")
		}
		close(hangs)
	})
}

// TestAQuestionThatHangs is asked once, and again as soon as it has been answered.
func TestAQuestionThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q Question[int]
		var mu sync.Mutex
		asked, hangs := 0, make(chan struct{})
		ask := func(ctx context.Context) (int, bool) {
			return q.Ask(ctx, time.Second, func() int {
				mu.Lock()
				asked++
				mu.Unlock()
				<-hangs
				return 7
			})
		}
		for range 5 {
			if _, ok := ask(t.Context()); ok {
				t.Error("answered")
			}
		}
		if took := q.Unanswered(); took != time.Second || asked != 1 {
			t.Errorf("%d asked, and the first %s ago", asked, took)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if _, ok := ask(ended); ok {
			t.Error("answered after the end")
		}
		close(hangs)
		synctest.Wait()
		if v, ok := ask(t.Context()); v != 7 || !ok || asked != 2 || q.Unanswered() != 0 {
			t.Errorf("got %d, %v, %d asked", v, ok, asked)
		}
	})
}

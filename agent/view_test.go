package agent

import (
	"log/slog"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"halo.internal/agent/spool"
	"halo.internal/model"
)

// TestTheStatusIsToldWhileEventsAreMade: the spool asks for the clock's quality in the
// middle of its work, and the status for the spool's figures; neither waits for the other.
func TestTheStatusIsToldWhileEventsAreMade(t *testing.T) {
	var v view
	s, err := spool.Open(spool.Options{
		Live: filepath.Join(t.TempDir(), "live"), Disk: filepath.Join(t.TempDir(), "disk"), Boot: 1, Owner: spool.Owner{Network: "valley", Node: "n-a"}, Budget: 1 << 20, Delay: time.Minute,
		Clock: func() (time.Time, model.ClockQuality) { return time.Now(), v.quality() }, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	v.opened(s)
	done := make(chan struct{})
	go func() {
		defer close(done)
		var both sync.WaitGroup
		both.Go(func() {
			for range 300 {
				if err := s.AddEvent("test.event", model.Info, "a test", nil); err != nil {
					t.Error(err)
					return
				}
			}
		})
		both.Go(func() {
			for range 3000 {
				v.status()
			}
		})
		both.Wait()
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("both wait for each other")
	}
}

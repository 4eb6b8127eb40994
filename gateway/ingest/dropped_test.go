package ingest

import (
	"context"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/gateway/clock"
	"halo.internal/gateway/events"
	"halo.internal/gateway/store"
)

// A disk that stays nearly full drops some batches each minute for hours.
func TestDropsAreToldOnceAnHour(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.db")
	synctest.Test(t, func(t *testing.T) {
		db, _, err := store.OpenConfig(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		c := clock.New(time.Now, time.Time{})
		log := events.New(db, c, 1, slog.New(slog.DiscardHandler))
		commit := &committer{events: log, drops: drops{events: log, budget: 5}, log: slog.New(slog.DiscardHandler), queue: make(chan job)}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 2)
		begin := time.Now()
		for range 150 {
			commit.drops.add(3, "the telemetry store is full")
			commit.drops.add(0, "nothing")
			select { // as run does between its groups
			case <-commit.drops.due():
				commit.drops.tell()
			case <-time.After(61 * time.Second): // never at the same instant as the other
			}
		}
		go func() { done <- commit.run(ctx) }()
		time.Sleep(3 * time.Hour) // no more is dropped: what was not told comes, and then nothing
		go func() { done <- log.Run(ctx) }()
		synctest.Wait()
		cancel()
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		zero := int64(0)
		list, _, err := log.List(t.Context(), events.Query{Kind: "telemetry.dropped", Since: &zero, Limit: 100})
		if err != nil {
			t.Fatal(err)
		}
		var at []time.Duration
		var told []string
		for _, e := range list {
			at, told = append(at, e.Time.Sub(begin).Truncate(time.Minute)), append(told, e.Fields["batches"])
		}
		if want := []time.Duration{0, time.Hour, 2 * time.Hour, 3 * time.Hour}; !slices.Equal(at, want) {
			t.Errorf("told at %v, want %v", at, want)
		}
		if want := []string{"3", "177", "180", "90"}; !slices.Equal(told, want) { // 450 in all
			t.Errorf("told of %v batches, want %v", told, want)
		}
	})
}

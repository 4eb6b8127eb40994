package live

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"halo.internal/gateway/clock"
	"halo.internal/gateway/etag"
	"halo.internal/gateway/events"
	"halo.internal/gateway/store"
	"halo.internal/gateway/store/storetest"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

// A client that comes back is told of a gap where events that came since were dropped, though
// older ones are kept; and so is one that is being told while they go.
func TestDroppedEventsAreAGap(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config.db")
	storetest.PutConfig(t, path)
	db, _, err := store.OpenConfig(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	log := events.New(db, clock.New(time.Now, time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)), 1, slog.New(slog.DiscardHandler))
	report := func(node string, n int, s model.Severity) {
		t.Helper()
		list := make([]model.Event, n)
		for i := range list {
			list[i] = model.Event{Boot: 1, Seq: uint64(i) + 1, Kind: "test.it", Severity: s}
		}
		if unfit, err := log.Record(t.Context(), node, list); err != nil || len(unfit) > 0 {
			t.Fatal(unfit, err)
		}
	}
	keep := func(info int) {
		t.Helper()
		r := events.DefaultRetention()
		r.Info.Count = info
		if err := log.SetRetention(t.Context(), etag.Match{}, r); err != nil {
			t.Fatal(err)
		}
	}
	source := eventSource{log: log, lineage: func(context.Context, string) ([]string, error) { return nil, nil }}
	since := func(after uint64) (to uint64, whole bool, told []int64, failed error) {
		t.Helper()
		to, whole, list, err := source.Since(t.Context(), Filter{}, after)
		if err != nil {
			t.Fatal(err)
		}
		if !whole {
			return to, false, nil, nil
		}
		for c, err := range list {
			if err != nil {
				return to, true, told, err
			}
			if told = append(told, c.Item.(apitype.Event).ID); len(told) == eventPage && after == 600 {
				keep(100)
			}
		}
		return to, true, told, nil
	}
	report("n-old", 1, model.Error)
	report("n-noisy", 999, model.Info)
	keep(500) // IDs from 501 on, and 1
	for _, after := range []uint64{1, 300, 499} {
		if to, whole, _, _ := since(after); to != 1000 || whole {
			t.Errorf("after %d: up to %d, whole: %v", after, to, whole)
		}
	}
	for _, after := range []uint64{500, 900, 1000} {
		to, whole, told, err := since(after)
		if to != 1000 || !whole || err != nil || uint64(len(told)) != 1000-after {
			t.Errorf("after %d: up to %d, whole: %v, %d events, %v", after, to, whole, len(told), err)
		}
	}
	if _, whole, told, err := since(0); !whole || err != nil || len(told) != 501 || told[0] != 1 || !slices.IsSorted(told) {
		t.Errorf("all that is kept: %v, %d events, %v", whole, len(told), err)
	}
	if _, whole, told, err := since(600); !whole || !errors.Is(err, errDropped) {
		t.Errorf("while they go: %v, %d events, %v", whole, len(told), err)
	}
	if _, whole, _, _ := since(600); whole {
		t.Error("and there is no gap afterwards")
	}
}

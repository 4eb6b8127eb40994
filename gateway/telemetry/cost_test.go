package telemetry

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// A question that would have years of readings unpacked is refused, with what would do
// instead, before anything is read; what rollups answer is not.
func TestWhatCostsTooMuchIsRefused(t *testing.T) {
	const day, nodes, weeks = 24 * time.Hour, 250, 20
	b := newBench(t)
	var all []string
	for n := range nodes {
		all = append(all, fmt.Sprintf("n-%03d", n))
	}
	if err := b.know(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	first := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC) // a Monday
	for w := range weeks {
		b.append(stamped(t, "n-000", uint64(w)+1, first.Add(time.Duration(7*w)*day)))
	}
	b.at = first.Add(7 * weeks * day)
	b.tend()
	for _, tc := range []struct {
		what   string
		q      Query
		cost   int
		advice string // of the refusal; empty: it is answered
	}{
		{"all by a step of no rollup", Query{From: first, To: first.Add(7 * weeks * day), Step: 1600 * time.Second}, nodes * 7 * weeks * 24, "900 s"},
		{"all by quarters of an hour", Query{From: first, To: first.Add(7 * weeks * day), Step: 15 * time.Minute}, nodes * 7 * weeks, ""},
		{"all by hours and a half", Query{From: first, To: first.Add(7 * weeks * day), Step: 90 * time.Minute}, nodes * 7 * weeks, ""},
		{"as wide as it gets", Query{From: first, To: first.Add(7 * weeks * day), Points: 500}, nodes * 7 * weeks, ""},
		{"decades of which there is nothing", Query{From: first.AddDate(-20, 0, 0), To: first.AddDate(20, 0, 0), Step: 24 * time.Hour}, nodes * 7 * weeks, ""},
		{"one node", Query{Nodes: all[:1], From: first, To: first.Add(7 * weeks * day), Step: 1600 * time.Second}, 7 * weeks * 24, ""},
		{"a page near the end", Query{From: first, To: first.Add(7 * weeks * day), Step: 1600 * time.Second, After: &SeriesKey{all[nodes-1], "", ""}}, 7 * weeks * 24, ""},
		{"across them all", Query{From: first, To: first.Add(7 * weeks * day), Step: 1600 * time.Second, Across: Sum, After: &SeriesKey{"", "x", ""}}, nodes * 7 * weeks * 24, "900 s"},
		{"a week of all", Query{From: first, To: first.Add(7 * day), Step: time.Minute}, nodes * 7 * 24, ""},
	} {
		if got := b.Cost(tc.q); got != tc.cost {
			t.Errorf("%s: costs %d, want %d", tc.what, got, tc.cost)
		}
		_, err := b.Range(t.Context(), tc.q, func(Series) error { return nil })
		if refused := errors.Is(err, ErrTooMuch); refused != (tc.advice != "") || !refused && err != nil || refused && !strings.Contains(err.Error(), tc.advice) {
			t.Errorf("%s: got %v", tc.what, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Range(ctx, Query{From: first, To: first.Add(7 * day), Step: time.Minute}, func(Series) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("of a request that was given up: got %v", err)
	}
}

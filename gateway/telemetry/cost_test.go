package telemetry

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"halo.internal/model/apitype"
)

// A question that would have years of readings unpacked is answered in parts, or refused,
// with what would do instead, before anything is read.
func TestWhatCostsTooMuchIsRefused(t *testing.T) {
	const day, nodes, weeks = 24 * time.Hour, 250, 20
	b := newBench(t)
	all := []string{"n-a"} // which bench has
	for n := range nodes - 1 {
		all = append(all, fmt.Sprintf("n-%03d", n))
	}
	if err := b.know(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	first := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC) // a Monday
	for w := range weeks {
		b.append(stamped(t, "n-000", uint64(w)+1, first.Add(time.Duration(7*w)*day)))
		if w%headWeeks == headWeeks-1 {
			b.tend()
		}
	}
	b.at = first.Add(7 * weeks * day)
	b.tend()
	all = b.Nodes()
	const opened = openWeekly * weeks
	for _, tc := range []struct {
		what   string
		q      Query
		cost   int    // of all of it
		advice string // of the refusal; empty: it is answered
	}{
		{"by a step of no rollup", Query{From: first, To: first.Add(7 * weeks * day), Step: 1600 * time.Second}, nodes * (7*weeks*24 + opened), ""},
		{"by quarters of an hour", Query{From: first, To: first.Add(7 * weeks * day), Step: 15 * time.Minute}, nodes * (7*weeks + opened), ""},
		{"decades of which there is nothing", Query{From: first.AddDate(-20, 0, 0), To: first.AddDate(20, 0, 0), Step: 24 * time.Hour}, nodes * (7*weeks + opened), ""},
		{"one node", Query{Nodes: all[:1], From: first, To: first.Add(7 * weeks * day), Step: 1600 * time.Second}, 7*weeks*24 + opened, ""},
		{"from the last node on", Query{From: first, To: first.Add(7 * weeks * day), Step: 1600 * time.Second, After: &SeriesKey{all[nodes-1], "", ""}}, 7*weeks*24 + opened, ""},
		{"across all", Query{From: first, To: first.Add(7 * weeks * day), Step: 1600 * time.Second, Across: Sum, After: &SeriesKey{"", "x", ""}}, nodes * (7*weeks*24 + opened), "900 s"},
		{"across all by hours", Query{From: first, To: first.Add(7 * weeks * day), Step: time.Hour, Across: Sum}, nodes * (7*weeks + opened), "fewer nodes"},
		{"across all by hours, of two months", Query{From: first, To: first.Add(8 * 7 * day), Step: time.Hour, Across: Sum}, nodes * 7 * 8, ""},
		{"across all, of a week", Query{From: first, To: first.Add(7 * day), Step: time.Minute, Across: Sum}, nodes * 7 * 24, ""},
	} {
		if got := b.Cost(tc.q); got != min(tc.cost, MostCost) {
			t.Errorf("%s: costs %d, want %d", tc.what, got, min(tc.cost, MostCost))
		}
		pages := 1
		for {
			_, err := b.Range(t.Context(), tc.q, func(Series) error { return nil })
			if more, ok := errors.AsType[*More](err); ok {
				if tc.q.After != nil && more.After.compare(*tc.q.After) <= 0 {
					t.Fatalf("%s: more from %+v on after %+v", tc.what, more.After, tc.q.After)
				}
				tc.q.After, pages = &more.After, pages+1
				continue
			}
			if refused := errors.Is(err, ErrTooMuch); refused != (tc.advice != "") || !refused && err != nil || refused && !strings.Contains(err.Error(), tc.advice) {
				t.Errorf("%s: got %v", tc.what, err)
			}
			break
		}
		if least := tc.cost / MostCost; tc.advice == "" && (pages < least || pages > least+least/4+1) {
			t.Errorf("%s: %d pages, want %d", tc.what, pages, least)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Range(ctx, Query{From: first, To: first.Add(7 * day), Step: time.Minute}, func(Series) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("of a request that was given up: got %v", err)
	}
}

// A page ends where half of its time is over, and those after it have the rest: together they
// are the answer.
func TestPagesThatAreBoundedInTime(t *testing.T) {
	b := newBench(t)
	const days, nodes = 20, 3
	for node := range nodes {
		for d := range uint64(days) {
			b.append(stamped(t, fmt.Sprint("n-", node), d+1, epoch.Add(-time.Duration(days-d)*24*time.Hour)))
		}
	}
	b.tend()
	from, to := epoch.Add(-days*24*time.Hour), epoch
	pages := 0
	q := SampleQuery{Node: "n-1", From: from, To: to, Metrics: []string{"system.cpu.*"}, Limit: 1000}
	var got []apitype.Sample
	for {
		list, err := b.Samples(halfOver{t.Context()}, q)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, list.Items...)
		if pages++; list.Next == "" {
			break
		}
		q.Cursor = list.Next
	}
	if len(got) != days || pages < days {
		t.Errorf("%d readings on %d pages, want %d", len(got), pages, days)
	}

	m := MarkQuery{Node: "n-1", From: from, To: to.Add(time.Hour), Limit: 1000}
	all := b.allMarks(t, "n-1")
	pages = 0
	var marks []apitype.Mark
	for {
		list, err := b.Marks(halfOver{t.Context()}, m)
		if err != nil {
			t.Fatal(err)
		}
		marks = append(marks, list.Items...)
		if pages++; list.Next == "" {
			break
		}
		m.Cursor = list.Next
	}
	if len(marks) != len(all) || len(all) == 0 || pages < 3 {
		t.Errorf("%d marks on %d pages, want %d", len(marks), pages, len(all))
	}

	r := Query{From: from, To: to, Step: time.Hour}
	pages = 0
	var series []string
	for {
		_, err := b.Range(halfOver{t.Context()}, r, func(s Series) error { series = append(series, s.Node+" "+s.Metric); return nil })
		pages++
		more, ok := errors.AsType[*More](err)
		if !ok {
			if err != nil {
				t.Fatal(err)
			}
			break
		}
		r.After = &more.After
	}
	if len(series) != 2*nodes || pages < nodes {
		t.Errorf("got %q on %d pages", series, pages)
	}
}

// halfOver is a context that says, when it is asked for its deadline, that there is no time
// left, and does not end for that.
type halfOver struct{ context.Context }

func (h halfOver) Deadline() (time.Time, bool) { return time.Now(), true }

package load_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"halo.internal/lab/load"
)

// few is a run that a test can wait for, against this program as gateway-api.
func few(t *testing.T) load.Options {
	t.Helper()
	return load.Options{Program: os.Args[0], Dir: t.TempDir(), Nodes: 5, Metrics: 15, Interval: 200 * time.Millisecond, Send: time.Second, For: 3 * time.Second,
		Backlog: 20 * time.Minute, BacklogNodes: 2, Asks: 5}
}

func overlay(t *testing.T) {
	t.Helper()
	if err := load.Overlay(); err != nil && !errors.Is(err, os.ErrExist) { // another test has
		t.Fatal(err)
	}
}

// A few nodes are played against a gateway-api: all that they sent is found again, its
// answers and what it tells come, and the picture has all links.
func TestRun(t *testing.T) {
	overlay(t)
	o := few(t)
	var mu sync.Mutex
	var rows []load.Row
	o.Say = func(text string) { t.Log(text) }
	o.Show = func(r load.Row) {
		mu.Lock()
		defer mu.Unlock()
		rows = append(rows, r)
	}
	o.For = 6 * time.Second
	f, err := load.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	const late = 2 * 20 * 60 * 5 * 15
	if f.Nodes != 6 || f.Links != 15 || f.Pictured != 6 || f.Drawn != f.Links {
		t.Errorf("%d nodes, %d links; in the picture %d and %d", f.Nodes, f.Links, f.Pictured, f.Drawn)
	}
	if b := f.Backlog; b == nil || b.Samples != late || b.Nodes != 2 {
		t.Errorf("backlog: %+v", b)
	}
	if f.Errors != 0 || f.Unsure != 0 || f.Found.Expected < late+f.Samples || f.Found.Missing != 0 || f.Found.Wrong != 0 {
		t.Errorf("%d errors, %d unsure, %+v of %d", f.Errors, f.Unsure, f.Found, late+f.Samples)
	}
	if least := 4 * 6 * 5 * 15; f.Samples < least || f.Ack.Count == 0 || f.Told.Count == 0 || f.Urgent.Count == 0 {
		t.Errorf("%d samples, at least %d wanted; %+v, %+v, %+v", f.Samples, least, f.Ack, f.Told, f.Urgent)
	}
	if f.Resident < 1<<20 || f.Most < f.Resident || f.Seconds < 6 {
		t.Errorf("%d octets resident, %d at most, in %f s", f.Resident, f.Most, f.Seconds)
	}
	for _, what := range []string{"nodes", "latest", "latest of all", "24 h", "topology"} {
		if i := slices.IndexFunc(f.Asked, func(a load.Asked) bool { return a.What == what }); i < 0 || f.Asked[i].Count != o.Asks || f.Asked[i].Octets < 100 || f.Asked[i].P50MS <= 0 {
			t.Errorf("%s: %+v", what, f.Asked)
		}
	}
	if len(rows) == 0 || rows[0].Streams == 0 || rows[0].Usage.Resident == 0 {
		t.Errorf("rows: %+v", rows)
	}
}

// What was acknowledged is there though gateway-api was killed; nodes come back by themselves.
func TestRunWithKills(t *testing.T) {
	overlay(t)
	o := few(t)
	o.Asks, o.Backlog, o.Kills, o.For = 0, 0, 3, 8*time.Second
	f, err := load.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if f.Kills != 3 || f.Returned.Count != 3 || f.Found.Expected < f.Samples || f.Samples == 0 || f.Errors != 0 {
		t.Errorf("%+v", f)
	}
}

// A gateway-api that has forgotten what it acknowledged is found out.
func TestWhatIsLostIsTold(t *testing.T) {
	overlay(t)
	t.Setenv(forgets, "yes")
	o := few(t)
	o.Asks, o.Backlog, o.Kills = 0, 0, 1
	o.For = 5 * time.Second
	f, err := load.Run(t.Context(), o)
	if err == nil || f == nil || f.Found.Missing == 0 || !strings.Contains(err.Error(), "missing") {
		t.Errorf("got %v, %+v", err, f)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for _, tc := range []struct {
		name string
		o    load.Options
		want string
	}{
		{"too many nodes", load.Options{Nodes: 501}, "nodes"},
		{"too many metrics", load.Options{Metrics: 513}, "metrics"},
		{"an odd interval", load.Options{Interval: 15 * time.Millisecond}, "interval"},
		{"no multiple of it", load.Options{Send: 15 * time.Second}, "multiple"},
		{"batches too often", load.Options{Interval: 100 * time.Millisecond, Send: 100 * time.Millisecond}, "second"},
		{"batches too large", load.Options{Metrics: 512, Interval: 10 * time.Millisecond, Send: 10 * time.Second}, "batches"},
		{"a time before", load.Options{For: -time.Second}, "negative"},
		{"a backlog of more than all", load.Options{Nodes: 3, Backlog: time.Hour, BacklogNodes: 4}, "backlog"},
		{"no program", load.Options{Program: "/none", Dir: t.TempDir()}, "/none"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := load.Run(context.Background(), tc.o); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want something of %s", err, tc.want)
			}
		})
	}
}

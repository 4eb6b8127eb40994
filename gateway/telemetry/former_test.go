package telemetry

import (
	"fmt"
	"slices"
	"strconv"
	"testing"
	"testing/quick"
	"time"

	"halo.internal/model/apitype"
)

// pagesOf reads all pages of a list of instants, each of which may be there several times.
func pagesOf(limit int, from func(after int64) page[int64]) (all []int64) {
	after := int64(-1)
	for {
		p := from(after)
		all = append(all, p.items...)
		if p.next == "" {
			return all
		}
		after, _ = strconv.ParseInt(p.next, 10, 64)
		if len(p.items) == 0 && limit > 0 && after < 0 {
			return all
		}
	}
}

// onePage is a page of a list as Samples makes them: it ends with the instant that reaches
// the limit.
func onePage(list []int64, after int64, limit int) page[int64] {
	var p page[int64]
	for i, at := range list {
		if at <= after {
			continue
		}
		p.items = append(p.items, at)
		if len(p.items) >= limit && (i+1 == len(list) || list[i+1] != at) {
			p.next = fmt.Sprint(at)
			return p
		}
	}
	return p
}

func TestPagesOfTwoNodesAreThoseOfOne(t *testing.T) {
	same := func(a, b []uint8, limit uint8) bool {
		n := int(limit%7) + 1
		list := func(of []uint8) (out []int64) {
			for _, v := range of {
				out = append(out, int64(v%32))
			}
			slices.Sort(out)
			return out
		}
		x, y := list(a), list(b)
		want := slices.Concat(x, y)
		slices.Sort(want)
		got := pagesOf(n, func(after int64) page[int64] {
			return together(onePage(x, after, n), onePage(y, after, n), func(v int64) int64 { return v }, n)
		})
		return slices.Equal(got, want)
	}
	if err := quick.Check(same, &quick.Config{MaxCount: 2000}); err != nil {
		t.Error(err)
	}
}

func TestSuccession(t *testing.T) {
	for name, tell := range map[string]func(*Store){
		"as it came":        func(s *Store) { s.Succeed("b", "a"); s.Succeed("c", "b") },
		"read in any order": func(s *Store) { s.Succeed("c", "b", "a"); s.Succeed("b", "a") },
		"told again":        func(s *Store) { s.Succeed("b", "a"); s.Succeed("c", "b"); s.Succeed("c", "b", "a") },
	} {
		t.Run(name, func(t *testing.T) {
			s := &Store{former: map[string][]string{}, present: map[string]string{}, sources: map[string]*source{"a": nil, "b": nil, "x": nil}}
			tell(s)
			if got := s.identities("c"); !slices.Equal(got, []string{"c", "b", "a"}) {
				t.Errorf("c is %q", got)
			}
			if got := s.Nodes(); !slices.Equal(got, []string{"c", "x"}) {
				t.Errorf("all nodes: %q", got)
			}
			if got := s.once([]string{"a", "c", "x"}); !slices.Equal(got, []string{"c", "x"}) {
				t.Errorf("a, c and x: %q", got)
			}
			if got := s.once([]string{"a", "x"}); !slices.Equal(got, []string{"a", "x"}) {
				t.Errorf("a former one alone: %q", got)
			}
		})
	}
}

// What a node measured is found under the one that has taken its place, in the head, in
// files, and after a restart.
func TestReadingsFollowANodeWhoseCardWasWrittenAnew(t *testing.T) {
	b := newBench(t)
	if err := b.PutSchema(t.Context(), "n-z", cpuAndMemory); err != nil {
		t.Fatal(err)
	}
	for seq := range uint64(4) {
		b.append(numbered(t, "n-z", 3, seq+1)) // the old one
	}
	for seq := range uint64(4) {
		b.append(numbered(t, "n-a", 1, seq+5))
	}
	q := Query{Metrics: []string{"system.cpu.*"}, From: epoch, To: epoch.Add(time.Hour), Step: 10 * time.Second}
	if got := b.ranged(q); len(got) != 2 {
		t.Fatalf("before: got %d series, want one of each node", len(got))
	}
	check := func(when string) {
		t.Helper()
		for _, nodes := range [][]string{nil, {"n-a"}, {"n-a", "n-z"}} {
			q.Nodes, q.Across = nodes, ""
			got := b.ranged(q)
			if len(got) != 1 || got[0].Node != "n-a" || len(got[0].Points) != 24 || got[0].Points[0].Value != 1 || got[0].Points[23].Value != 8 {
				t.Errorf("%s, of %q: got %+v", when, nodes, got)
			}
			if q.Across = Sum; len(b.ranged(q)) != 1 || b.ranged(q)[0].Points[0].Value != 1 {
				t.Errorf("%s, across %q: got %+v", when, nodes, b.ranged(q))
			}
		}
		if got := b.Nodes(); !slices.Equal(got, []string{"n-a"}) {
			t.Errorf("%s: all nodes are %q", when, got)
		}
		var all []apitype.Sample
		for cursor := ""; ; {
			p, err := b.Samples(t.Context(), SampleQuery{Node: "n-a", From: epoch, To: epoch.Add(time.Hour), Metrics: []string{"system.cpu.*"}, Cursor: cursor, Limit: 5})
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, p.Items...)
			if cursor = p.Next; cursor == "" {
				break
			}
		}
		if len(all) != 24 || !slices.IsSortedFunc(all, func(x, y apitype.Sample) int { return x.Time.Compare(y.Time) }) {
			t.Errorf("%s: got %d samples: %+v", when, len(all), all)
		}
		marks, err := b.Marks(t.Context(), MarkQuery{Node: "n-a", From: epoch, To: epoch.Add(time.Hour), Limit: 10})
		if err != nil || !slices.ContainsFunc(marks.Items, func(m apitype.Mark) bool { return m.Kind == MarkBoot && m.Boot == 3 }) {
			t.Errorf("%s: marks %+v, %v", when, marks.Items, err)
		}
	}
	b.Succeed("n-a", "n-z")
	check("in the head")
	b.at = epoch.Add(3 * time.Hour)
	b.tend()
	check("in a file")
	b.restart()
	b.Succeed("n-a", "n-z")
	check("after a restart")
}

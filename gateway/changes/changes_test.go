package changes

import (
	"fmt"
	"slices"
	"sync"
	"testing"
)

func TestSince(t *testing.T) {
	l := New[string](3)
	if keys, newest, whole := l.Since(0); len(keys) != 0 || newest != 1 || !whole {
		t.Errorf("an empty log: %v %d %v", keys, newest, whole)
	}
	l.Note("a", "b", "a", "c") // 2 to 5
	for _, tc := range []struct {
		note  []string
		after uint64
		want  string
	}{
		{nil, 0, "[b a c] 5 true"},
		{nil, 3, "[a c] 5 true"},
		{nil, 4, "[c] 5 true"},
		{nil, 5, "[] 5 true"},
		{nil, 6, "[] 5 false"},
		{[]string{"d"}, 2, "[] 6 false"}, // b, changed at 3, is forgotten
		{nil, 3, "[a c d] 6 true"},
		{[]string{"a"}, 3, "[c d a] 7 true"},
		{[]string{"e"}, 5, "[d a e] 8 true"},
		{nil, 4, "[] 8 false"},
	} {
		l.Note(tc.note...)
		keys, newest, whole := l.Since(tc.after)
		if got := fmt.Sprint(keys, newest, whole); got != tc.want {
			t.Errorf("%v noted, since %d: got %s, want %s", tc.note, tc.after, got, tc.want)
		}
	}
}

// Followers of a log that forgets see each key's last change, or are told that they have
// missed some.
func TestFollowers(t *testing.T) {
	const keys, rounds = 40, 20_000
	l := New[int](keys / 2)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			at, gaps := uint64(0), 0
			for at < rounds+1 {
				newest, next := l.News()
				if newest == at {
					<-next
					continue
				}
				changed, to, whole := l.Since(at)
				if !whole {
					gaps++
				} else if len(changed) == 0 || len(slices.Compact(slices.Sorted(slices.Values(changed)))) != len(changed) {
					t.Errorf("since %d: %v", at, changed)
				}
				if to < newest {
					t.Errorf("the newest went from %d to %d", newest, to)
				}
				at = to
			}
		})
	}
	for i := range rounds {
		l.Note(i * 7 % keys)
	}
	wg.Wait()
}

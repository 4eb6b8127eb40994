package order_test

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"halo.internal/model/order"
)

type item struct {
	name string
	rank int
	was  int // its place before
}

func byRank(a, b item) int { return cmp.Compare(a.rank, b.rank) }

func TestBy(t *testing.T) {
	for name, ranks := range map[string][]int{
		"none":          {},
		"one":           {3},
		"in order":      {1, 2, 2, 5},
		"backwards":     {5, 4, 3, 2, 1},
		"all equal":     {7, 7, 7, 7},
		"last to first": {2, 3, 4, 1},
		"first to last": {4, 1, 2, 3},
		"two cycles":    {2, 1, 4, 3},
		"equal ones":    {2, 1, 2, 1, 2, 1},
	} {
		t.Run(name, func(t *testing.T) { compareWithSlices(t, ranks) })
	}
}

func TestByAtRandom(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		ranks := make([]int, r.IntN(200))
		for i := range ranks {
			ranks[i] = r.IntN(1 + r.IntN(100))
		}
		compareWithSlices(t, ranks)
	}
}

func compareWithSlices(t *testing.T, ranks []int) {
	t.Helper()
	var got []item
	for i, r := range ranks {
		got = append(got, item{strings.Repeat("x", r), r, i})
	}
	want := slices.Clone(got)
	slices.SortStableFunc(want, byRank)
	order.By(got, byRank)
	if !slices.Equal(got, want) {
		t.Errorf("%v: expected %v, got %v", ranks, want, got)
	}
}

func FuzzBy(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("a network of boards"))
	f.Fuzz(func(t *testing.T, b []byte) {
		ranks := make([]int, len(b))
		for i, c := range b {
			ranks[i] = int(c) % 32
		}
		compareWithSlices(t, ranks)
	})
}

func BenchmarkBy(b *testing.B) {
	for name, sort := range map[string]func([]item, func(a, b item) int){
		"order.By":              order.By[item],
		"slices.SortStableFunc": slices.SortStableFunc[[]item],
		"slices.SortFunc":       slices.SortFunc[[]item],
	} {
		b.Run(name, func(b *testing.B) {
			list := make([]item, 1500)
			r := rand.New(rand.NewPCG(1, 2))
			for b.Loop() {
				for i := range list {
					list[i].rank = r.IntN(1 << 20)
				}
				sort(list, byRank)
			}
		})
	}
}

package choice

import (
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"halo.internal/model/dot11"
)

func address(n int) dot11.MAC { return dot11.MAC{2, 0, 0, 0, byte(n >> 8), byte(n)} }

func random(dice *rand.Rand, n int) (list []Candidate) {
	for i := range n {
		c := Candidate{
			MAC: address(i + 1), Signal: -30 - 60*dice.Float64(), Linked: dice.IntN(3) == 0, Full: dice.IntN(5) == 0, Failed: max(0, dice.IntN(8)-4), Sought: dice.IntN(4) == 0,
		}
		for range dice.IntN(4) {
			c.Peers = append(c.Peers, address(dice.IntN(2*n)))
		}
		list = append(list, c)
	}
	return list
}

func TestWhatAlwaysHolds(t *testing.T) {
	dice := rand.New(rand.NewPCG(1, 1))
	for range 2000 {
		list := random(dice, dice.IntN(30))
		p := Policy{Limit: 1 + dice.IntN(12)}
		got := Choose(address(0), list, p)
		linked, kept := 0, 0
		for _, c := range list {
			if c.Linked {
				linked++
				if slices.Contains(got, c.MAC) {
					kept++
				}
			}
		}
		if linked <= p.Limit && (kept < linked || len(got) > p.Limit+1 || len(got) > p.Limit && linked < p.Limit) {
			t.Fatalf("%d links, limit %d: %d kept, %d sought", linked, p.Limit, kept, len(got)-kept)
		}
		if len(got)-kept > 2 {
			t.Fatalf("%d sought at a time", len(got)-kept)
		}
		if linked > p.Limit && (kept != linked-1 || len(got) != kept) {
			t.Fatalf("%d links, limit %d: %d kept, %d sought, expected one less", linked, p.Limit, kept, len(got)-kept)
		}
		if len(got) != len(slices.Compact(slices.Clone(got))) || slices.Contains(got, address(0)) {
			t.Fatalf("%v", got)
		}
		dice.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		if again := Choose(address(0), list, p); !slices.Equal(again, got) {
			t.Fatalf("the order of candidates matters: %v and %v", got, again)
		}
	}
}

// settle chooses until nothing changes, and tells how often something did.
func settle(t *testing.T, list []Candidate, p Policy) (got []dot11.MAC, changes int) {
	t.Helper()
	for range 200 {
		got = Choose(address(0), list, p)
		changed := 0
		for i := range list {
			if linked := slices.Contains(got, list[i].MAC); linked != list[i].Linked {
				list[i].Linked, list[i].Sought = linked, false
				changed++
			}
		}
		if changed == 0 {
			return got, changes
		}
		changes += changed
	}
	t.Fatal("the choice does not come to rest")
	return nil, 0
}

func TestEveryGroupIsReached(t *testing.T) {
	dice := rand.New(rand.NewPCG(4, 1))
	for range 500 {
		list := random(dice, dice.IntN(30))
		p := Policy{Limit: 1 + dice.IntN(12)}
		got, _ := settle(t, list, p)
		reached := map[int]bool{}
		for i, g := range groups(address(0), list) {
			if slices.Contains(got, list[i].MAC) {
				reached[g] = true
			}
		}
		hopes := map[int]bool{}
		for i, g := range groups(address(0), list) {
			if list[i].Failed < hopeless {
				hopes[g] = true
			}
		}
		if len(reached) < min(len(hopes), p.Limit) {
			t.Fatalf("%d of %d groups reached with %d links", len(reached), len(hopes), p.Limit)
		}
	}
}

// TestFadingDoesNotFlap lets signals fade by less than half the hysteresis: what
// was put in another's place is not put back, so that changes end.
func TestFadingDoesNotFlap(t *testing.T) {
	dice := rand.New(rand.NewPCG(2, 1))
	for range 50 {
		list := random(dice, 20)
		for i := range list {
			list[i].Full, list[i].Failed = false, 0
			list[i].Signal = -30 - 40*dice.Float64() // Weakest is beyond the fading
		}
		settle(t, list, Policy{})
		mean := slices.Clone(list)
		total, late := 0, 0
		for round := range 300 {
			for i := range list {
				list[i].Signal = mean[i].Signal + 5.8*(dice.Float64()-0.5)
			}
			_, n := settle(t, list, Policy{})
			total += n
			if round >= 200 {
				late += n
			}
		}
		if total > 2*10 || late > 2 {
			t.Errorf("%d changes by fading, %d of them in the last third", total, late)
		}
	}
}

func TestGoodAndDisjoint(t *testing.T) {
	list := []Candidate{
		{MAC: address(1), Signal: -50, Peers: []dot11.MAC{address(2)}},
		{MAC: address(2), Signal: -55, Peers: []dot11.MAC{address(1), address(3)}},
		{MAC: address(3), Signal: -56, Peers: []dot11.MAC{address(2)}},
		{MAC: address(4), Signal: -89},
	}
	got, _ := settle(t, list, Policy{Limit: 3})
	// 1 is the best; 4 is the only one of its group, weak as it is; 3 shares no
	// link with 1, and 2 does.
	if !slices.Equal(got, []dot11.MAC{address(1), address(3), address(4)}) {
		t.Errorf("%v", got)
	}
}

// field is many stations that choose, each by what it hears and by what it knew
// of the others' links when it last looked.
type field struct {
	n, limit int
	signal   func(i, j int) float64
	links    []map[int]bool
	known    []map[int]bool // of links, a while ago
	changes  int
}

func newField(n, limit int, signal func(i, j int) float64) *field {
	f := &field{n: n, limit: limit, signal: signal}
	for range n {
		f.links = append(f.links, map[int]bool{})
	}
	f.learn()
	return f
}

func (f *field) learn() {
	f.known = nil
	for _, l := range f.links {
		f.known = append(f.known, maps.Clone(l))
	}
}

func (f *field) hears(i, j int) bool  { return i != j && f.signal(i, j) > -80 }
func (f *field) linked(i, j int) bool { return f.links[i][j] }

func (f *field) candidates(i int) (list []Candidate) {
	for j := range f.n {
		if !f.hears(i, j) {
			continue
		}
		c := Candidate{MAC: address(j), Signal: f.signal(i, j), Linked: f.links[i][j]}
		for k := range f.known[j] {
			if k != i {
				c.Peers = append(c.Peers, address(k))
			}
		}
		list = append(list, c)
	}
	return list
}

// round has each station choose once.
func (f *field) round(t *testing.T, order []int) {
	t.Helper()
	p := Policy{Limit: f.limit}
	for _, i := range order {
		got := Choose(address(i), f.candidates(i), p)
		for j := range f.n {
			switch wanted := slices.Contains(got, address(j)); {
			case f.links[i][j] && !wanted:
				delete(f.links[i], j)
				delete(f.links[j], i)
				f.changes++
			case !f.links[i][j] && wanted && len(f.links[i]) <= f.limit && Admits(address(j), f.candidates(j), address(i), p):
				f.links[i][j], f.links[j][i] = true, true
				f.changes++
			}
		}
		for j, l := range f.links {
			if len(l) > f.limit+1 {
				t.Fatalf("station %d has %d links, limit %d", j, len(l), f.limit)
			}
		}
	}
}

// TestAWholeMesh lets all stations of a field choose in turn: it becomes one mesh
// and comes to rest.
func TestAWholeMesh(t *testing.T) {
	for _, tc := range []struct {
		name     string
		n, limit int
		spread   float64 // of the field: none is a room where all signals are alike
		know     int     // rounds between looks at others' links
	}{
		{"one room", 14, 3, 0, 1},
		{"one room, news are late", 14, 3, 0, 4},
		{"a large room", 30, 9, 0, 2},
		{"a field", 40, 6, 1, 1},
		{"a field, news are late", 40, 6, 1, 4},
	} {
		t.Run(tc.name, func(t *testing.T) {
			const fields, rounds = 8, 40
			rest, apart := 0, 0
			for seed := range uint64(fields) {
				dice := rand.New(rand.NewPCG(seed, 3))
				x, y := make([]float64, tc.n), make([]float64, tc.n)
				for i := range tc.n {
					x[i], y[i] = dice.Float64(), dice.Float64()
				}
				f := newField(tc.n, tc.limit, func(i, j int) float64 {
					return -40 - 35*math.Log10(1+20*tc.spread*math.Hypot(x[i]-x[j], y[i]-y[j]))
				})
				if !connected(tc.n, f.hears) {
					continue
				}
				for round := range rounds {
					f.changes = 0
					f.round(t, dice.Perm(tc.n))
					if round%tc.know == 0 {
						f.learn()
					}
					if whole := connected(tc.n, f.linked); !whole && round > 15 {
						apart++
					}
				}
				rest += f.changes
				if !connected(tc.n, f.linked) {
					t.Errorf("seed %d: the field hears itself and is not one mesh", seed)
				}
			}
			t.Logf("%d fields: %d changes in the last of %d rounds; in %d after the fifteenth it was not one mesh", fields, rest, rounds, apart)
		})
	}
}

func connected(n int, edge func(i, j int) bool) bool {
	seen := map[int]bool{0: true}
	for queue := []int{0}; len(queue) > 0; queue = queue[1:] {
		for j := range n {
			if !seen[j] && edge(queue[0], j) {
				seen[j] = true
				queue = append(queue, j)
			}
		}
	}
	return len(seen) == n
}

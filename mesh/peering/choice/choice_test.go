package choice

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"halo.internal/model/dot11"
)

func address(n int) dot11.MAC { return dot11.MAC{2, 0, 0, 0, byte(n >> 8), byte(n)} }

func random(dice *rand.Rand, n int) (list []Candidate) {
	for i := range n {
		c := Candidate{MAC: address(i + 1), Signal: -30 - 60*dice.Float64(), Linked: dice.IntN(3) == 0, Full: dice.IntN(5) == 0}
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
		if len(got) > p.Limit {
			t.Fatalf("%d of %d chosen", len(got), p.Limit)
		}
		linked, kept := 0, 0
		for _, c := range list {
			if c.Linked {
				linked++
				if slices.Contains(got, c.MAC) {
					kept++
				}
			}
		}
		if kept < min(linked, p.Limit)-1 {
			t.Fatalf("%d of %d links given up at once, limit %d", linked-kept, linked, p.Limit)
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
				list[i].Linked = linked
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
		all, reached := map[int]bool{}, map[int]bool{}
		for i, g := range groups(address(0), list) {
			all[g] = true
			if slices.Contains(got, list[i].MAC) {
				reached[g] = true
			}
		}
		if len(reached) < min(len(all), p.Limit) {
			t.Fatalf("%d of %d groups reached with %d links", len(reached), len(all), p.Limit)
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
			list[i].Full = false
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

// TestAWholeMeshStaysConnected lets all stations of a dense field choose in
// turn, each knowing the links of those it hears.
func TestAWholeMeshStaysConnected(t *testing.T) {
	rest := 0
	for seed := range uint64(10) {
		dice := rand.New(rand.NewPCG(seed, 3))
		const n, limit = 40, 6
		var x, y [n]float64
		for i := range n {
			x[i], y[i] = dice.Float64(), dice.Float64()
		}
		signal := func(i, j int) float64 {
			return -40 - 35*math.Log10(1+20*math.Hypot(x[i]-x[j], y[i]-y[j]))
		}
		hears := func(i, j int) bool { return i != j && signal(i, j) > -80 }
		links := [n]map[int]bool{}
		for i := range links {
			links[i] = map[int]bool{}
		}
		changes := 0
		for round := range 40 {
			changes = 0
			for _, i := range dice.Perm(n) {
				var list []Candidate
				for j := range n {
					if !hears(i, j) {
						continue
					}
					c := Candidate{MAC: address(j), Signal: signal(i, j), Linked: links[i][j], Full: len(links[j]) >= limit}
					for k := range links[j] {
						c.Peers = append(c.Peers, address(k))
					}
					list = append(list, c)
				}
				got := Choose(address(i), list, Policy{Limit: limit})
				for j := range n {
					wanted := slices.Contains(got, address(j))
					switch {
					case links[i][j] && !wanted:
						delete(links[i], j)
						delete(links[j], i)
						changes++
					case !links[i][j] && wanted && len(links[j]) < limit && len(links[i]) < limit:
						links[i][j], links[j][i] = true, true
						changes++
					}
				}
			}
			if round > 10 && !connected(n, func(i, j int) bool { return links[i][j] }) && connected(n, hears) {
				t.Fatalf("seed %d round %d: the field hears itself and is not connected", seed, round)
			}
		}
		rest += changes
	}
	t.Logf("%d changes in the last of 40 rounds, all seeds together", rest)
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

package doctor

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// fakePath carries what it is told to.
type fakePath struct {
	carries   int     // largest packet over the mesh
	loss      float64 // of any packet, on each way
	dead      bool
	blind     bool // nothing over bat0 is seen, such as by an overlay without one
	fragments bool // what is cut over the mesh arrives
	limits    limits
	applied   []limits
	sent      int // packets
	rng       *rand.Rand
}

var widths1500 = widths{full: 1420, bare: 1500}

func (p *fakePath) lucky() bool { return p.rng == nil || p.rng.Float64() >= p.loss }

func (p *fakePath) small() bool { p.sent++; return !p.dead && p.lucky() && p.lucky() }

func (p *fakePath) greet(context.Context) (time.Duration, error) {
	for range greetings {
		if p.small() {
			return time.Millisecond, nil
		}
	}
	return 0, errSilent
}

// overlay is of a packet into the overlay: WireGuard pads and adds, and cuts what
// the route to the peer has no room for.
func (p *fakePath) overlay(_ context.Context, size int) (outcome, error) {
	p.sent++
	outer := min((size+15)/16*16, 1420) + overhead
	fits := outer <= p.carries
	if p.limits.underlay > 0 && outer > p.limits.underlay {
		fits = p.fragments && p.limits.underlay <= p.carries
	}
	if fits && !p.dead && p.lucky() && p.lucky() {
		return outcome{true, true}, nil
	}
	return outcome{answered: p.small()}, nil
}

func (p *fakePath) underlay(_ context.Context, size int) (outcome, error) {
	p.sent++
	switch {
	case p.blind:
		return outcome{}, fmt.Errorf("bat0: %w", errClosed)
	case p.dead:
		return outcome{}, nil
	}
	arrived := size <= p.carries && p.lucky()
	answered := p.small()
	return outcome{arrived && answered, answered}, nil
}

func (p *fakePath) limit(l limits) error {
	p.limits = l
	p.applied = append(p.applied, l)
	return nil
}

func TestExamination(t *testing.T) {
	for name, tc := range map[string]struct {
		path fakePath
		now  limits
		want exam // without words
	}{
		"well":       {fakePath{carries: 1500}, limits{}, exam{answers: true, overlay: 1420, underlay: 1500}},
		"no answer":  {fakePath{dead: true}, limits{}, exam{}},
		"black hole": {fakePath{carries: 1400, fragments: true}, limits{}, exam{answers: true, overlay: 1312, underlay: 1392, limits: limits{1312, 1392}, fault: true, mended: true}},
		"black hole just below": {fakePath{carries: 1499, fragments: true}, limits{},
			exam{answers: true, overlay: 1408, underlay: 1488, limits: limits{1408, 1488}, fault: true, mended: true}},
		"less than the overlay needs whole": {fakePath{carries: 1300, fragments: true}, limits{},
			exam{answers: true, overlay: 0, underlay: 1296, limits: limits{0, 1296}, fault: true, mended: true}},
		"less than IPv6 needs": {fakePath{carries: 1200, fragments: true}, limits{}, exam{answers: true, overlay: 0, underlay: 1200, fault: true}},
		"fragments are dropped": {fakePath{carries: 1400}, limits{},
			exam{answers: true, overlay: 1312, underlay: 1392, limits: limits{1312, 0}, fault: true, mended: true}},
		"fragments are dropped, and nothing fits": {fakePath{carries: 1300}, limits{}, exam{answers: true, underlay: 1296, fault: true}},
		"bat0 cannot be looked at": {fakePath{carries: 1400, blind: true}, limits{},
			exam{answers: true, overlay: 1312, limits: limits{1312, 0}, fault: true, mended: true}},
		"held, and still needed": {fakePath{carries: 1400, fragments: true}, limits{1312, 1392},
			exam{answers: true, overlay: 1312, underlay: 1392, limits: limits{1312, 1392}, mended: true}},
		"held without fragments, and still needed": {fakePath{carries: 1400}, limits{1312, 0},
			exam{answers: true, overlay: 1312, limits: limits{1312, 0}, mended: true}},
		"held, and healed":                   {fakePath{carries: 1500, fragments: true}, limits{1312, 1392}, exam{answers: true, overlay: 1420, underlay: 1500, ended: true}},
		"held without fragments, and healed": {fakePath{carries: 1500}, limits{1312, 0}, exam{answers: true, overlay: 1420, underlay: 1500, ended: true}},
		"held, and worse": {fakePath{carries: 1380, fragments: true}, limits{1312, 1392},
			exam{answers: true, overlay: 1296, underlay: 1376, limits: limits{1296, 1376}, fault: true, mended: true}},
		"held, and silent": {fakePath{dead: true}, limits{1312, 1392}, exam{limits: limits{1312, 1392}}},
	} {
		t.Run(name, func(t *testing.T) {
			p := tc.path
			p.limits = tc.now
			got, err := examine(t.Context(), &p, widths1500, tc.now)
			if err != nil {
				t.Fatal(err)
			}
			if (got.detail != "") != got.fault {
				t.Errorf("words of a fault: %q", got.detail)
			}
			got.detail, got.latency = "", 0
			if got != tc.want {
				t.Errorf("got  %+v\nwant %+v", got, tc.want)
			}
			if p.limits != got.limits {
				t.Errorf("packets are held to %+v, it says %+v", p.limits, got.limits)
			}
		})
	}
}

// TestLossIsNotTakenForASize has paths lose a third of all packets each way.
func TestLossIsNotTakenForASize(t *testing.T) {
	const runs = 1000
	wrong, missed := 0, 0
	for i := range runs {
		p := &fakePath{carries: 1500, loss: 0.3, fragments: true, rng: rand.New(rand.NewPCG(1, uint64(i)))}
		if e, err := examine(t.Context(), p, widths1500, limits{}); err != nil || e.limits != (limits{}) {
			wrong++
		}
		p = &fakePath{carries: 1400, loss: 0.3, fragments: true, rng: rand.New(rand.NewPCG(2, uint64(i)))}
		if e, err := examine(t.Context(), p, widths1500, limits{}); err != nil || e.limits.overlay == 0 || e.limits.overlay > 1312 {
			missed++
		}
	}
	if wrong > runs/25 || missed > runs/3 {
		t.Errorf("of %d paths that are well %d were held to less; of as many black holes %d were not mended at once", runs, wrong, missed)
	}
}

func TestErrorsOfTheDeviceEndAnExamination(t *testing.T) {
	broken := errors.New("network is unreachable")
	for i, once := range []func(context.Context) (outcome, error){
		func(context.Context) (outcome, error) { return outcome{}, broken },
		func(context.Context) (outcome, error) { return outcome{}, errTooLong },
	} {
		v, err := try(t.Context(), once)
		if want := []verdict{unknown, vanishes}[i]; v != want || i == 0 && !errors.Is(err, broken) {
			t.Errorf("%d: got %v, %v, want %v", i, v, err, want)
		}
	}
}

func TestLargest(t *testing.T) {
	sizes := sizesOverlay(1420)
	if sizes[0] != 1280 || sizes[len(sizes)-1] != 1420 || !slices.IsSorted(sizes) {
		t.Fatalf("sizes: %v", sizes)
	}
	for carries := 1200; carries < 1420; carries++ {
		asked := 0
		got, known, err := largest(sizes, func(size int) (verdict, error) {
			if asked++; size <= carries {
				return passes, nil
			}
			return vanishes, nil
		})
		want := 0
		for _, s := range sizes {
			if s <= carries {
				want = s
			}
		}
		if got != want || !known || err != nil || asked > 4 {
			t.Errorf("%d: got %d, %v, %v after %d questions, want %d", carries, got, known, err, asked, want)
		}
	}
	if _, known, _ := largest(sizes, func(int) (verdict, error) { return unknown, nil }); known {
		t.Error("a path that says nothing is known")
	}
	if s := sizesUnderlay(1280); s[0] != smallest || s[len(s)-1] != 1280 || s[len(s)-2] == 1280 {
		t.Errorf("sizes: %v", s)
	}
}

// TestAWellPathCostsNextToNothing counts what a first hour of a path sends.
func TestAWellPathCostsNextToNothing(t *testing.T) {
	begin := time.Unix(0, 0)
	for range 200 {
		octets, now := 0, begin.Add(jitter(firstAfter))
		var p plan
		var rounds []time.Time
		for now.Sub(begin) < 10*time.Hour {
			rounds = append(rounds, now)
			p = p.after(now, well)
			now = p.next
		}
		for i, r := range rounds { // the worst hour
			in := 0
			for _, s := range rounds[i:] {
				if s.Sub(r) < time.Hour {
					in += enough*(echoSize+headers) + 1420
				}
			}
			// And a round of multicast, with its question before and after.
			octets = max(octets, in+2*(watchSize+headers)+groups*(probeSize+headers))
		}
		if octets > HourlyOctets {
			t.Fatalf("%d octets in an hour, want at most %d", octets, HourlyOctets)
		}
		if p.pause != wellMost {
			t.Fatalf("after ten hours it is examined every %s, want %s", p.pause, wellMost)
		}
	}
}

func TestPlan(t *testing.T) {
	now := time.Unix(0, 0)
	p := plan{}.after(now, well)
	for _, tc := range []struct {
		c    condition
		want time.Duration
	}{{well, 2 * wellFirst}, {sick, sickFirst}, {sick, 2 * sickFirst}, {mute, muteFirst}, {mute, 2 * muteFirst}, {well, wellFirst}} {
		p = p.after(now, tc.c)
		if p.pause != tc.want || p.next.Sub(now) < tc.want*3/4 || p.next.Sub(now) > tc.want*5/4 {
			t.Errorf("%v: pause %s, next in %s, want %s", tc.c, p.pause, p.next.Sub(now), tc.want)
		}
	}
	for _, want := range []time.Duration{allSick, 2 * allSick, 4 * allSick} {
		if p = p.afterAll(now, sick); p.pause != want {
			t.Errorf("multicast after %s, want %s", p.pause, want)
		}
	}
	if p = p.afterAll(now, well); p.pause != allWell {
		t.Errorf("multicast after %s, want %s", p.pause, allWell)
	}
}

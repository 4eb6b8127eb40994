package sae

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"
)

// TestPublishedTiming measures whether the time of a derivation depends on the
// password, and states what it found (run it with -v). It asserts nothing about
// the clock of a machine that others share.
//
// Two passwords are measured alternately: for hunting and pecking one whose
// point is found in the first round and one that needs many, for hash to
// element the same two. Figures are of the faster quarter of all runs, which
// others on the machine disturbed least; Welch's t says whether the difference
// stands out of the noise (|t| > 4.5 by the convention of dudect).
func TestPublishedTiming(t *testing.T) {
	early, late := passwordsFoundIn(t)
	for _, c := range []struct {
		name   string
		a, b   []byte
		derive func(password []byte) error
	}{
		{"hunting and pecking, found in round 1 and round 8 or later", early, late, func(p []byte) error {
			_, err := hunt(p, benchMAC[0], benchMAC[1])
			return err
		}},
		{"hash to element, the secret element PT", early, late, func(p []byte) error {
			_, err := passwordElement([]byte("ETHRX0001-8A"), p, nil)
			return err
		}},
	} {
		const runs = 800
		var times [2][]float64
		for run := range runs {
			for k := range 2 {
				i := (run + k) % 2 // neither always comes first
				p := [][]byte{c.a, c.b}[i]
				since := time.Now()
				if err := c.derive(p); err != nil {
					t.Fatal(err)
				}
				times[i] = append(times[i], float64(time.Since(since))/float64(time.Microsecond))
			}
		}
		for i := range times {
			slices.Sort(times[i])
		}
		a, b := times[0], times[1]
		a, b = a[:runs/4], b[:runs/4]
		x, y := a[runs/8], b[runs/8]
		t.Logf("%s: %.1f and %.1f µs, difference %+.2f %%, t = %.2f over %d runs each", c.name, x, y, 100*(y-x)/x, welch(a, b), runs)
	}
}

// passwordsFoundIn returns one password whose point the first candidate gives,
// and one of the same length that takes eight or more.
func passwordsFoundIn(t *testing.T) (early, late []byte) {
	t.Helper()
	for n := 0; early == nil || late == nil; n++ {
		p := fmt.Appendf(nil, "password of the mesh %06d", n)
		switch round := foundIn(t, p); {
		case round == 1 && early == nil:
			early = p
		case round >= 8 && late == nil:
			late = p
		}
	}
	return early, late
}

func foundIn(t *testing.T, password []byte) int {
	t.Helper()
	for counter := 1; counter <= huntRounds; counter++ {
		if ok, _, _ := candidateOf(password, benchMAC[0], benchMAC[1], byte(counter)); ok == 1 {
			return counter
		}
	}
	t.Fatal("no point")
	return 0
}

func welch(a, b []float64) float64 {
	ma, va := meanVar(a)
	mb, vb := meanVar(b)
	return (ma - mb) / math.Sqrt(va/float64(len(a))+vb/float64(len(b)))
}

func meanVar(x []float64) (mean, variance float64) {
	for _, v := range x {
		mean += v
	}
	mean /= float64(len(x))
	for _, v := range x {
		variance += (v - mean) * (v - mean)
	}
	return mean, variance / float64(len(x)-1)
}

// TestHuntFindsTheFirst compares the constant-time search with a plain one.
func TestHuntFindsTheFirst(t *testing.T) {
	for n := range 50 {
		p := fmt.Appendf(nil, "%d", n)
		pwe, err := hunt(p, benchMAC[0], benchMAC[1])
		if err != nil {
			t.Fatal(err)
		}
		_, x, parity := candidateOf(p, benchMAC[0], benchMAC[1], byte(foundIn(t, p)))
		plain, err := lift(x[:], parity)
		if err != nil || plain.Equal(pwe) != 1 {
			t.Errorf("%s: the search kept another candidate than the first", p)
		}
	}
}

package mjpeg

import (
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	begin := time.Unix(1_000_000, 0)
	for _, tc := range []struct {
		fps          float64
		kbit, octets int
		device       time.Duration
		frames       int // in 20 s, more or less
	}{
		{5, 20000, 1000, 33 * time.Millisecond, 100},
		{30, 20000, 1000, 33333 * time.Microsecond, 600},
		{30, 20000, 1000, 40 * time.Millisecond, 500},
		{5, 80, 10_000, 33 * time.Millisecond, 21},   // 10,000 octets a second, and what there is at first
		{30, 160, 400_000, 33 * time.Millisecond, 2}, // frames that are 20 s of it
		{0.1, 20000, 1000, 33 * time.Millisecond, 2},
	} {
		p := NewPace(tc.fps, tc.kbit)
		n := 0
		for at := begin; at.Before(begin.Add(20 * time.Second)); at = at.Add(tc.device) {
			if p.Want(at) {
				n++
				p.Spend(at, tc.octets)
			}
		}
		if n < tc.frames*9/10 || n > tc.frames*11/10+1 {
			t.Errorf("%+v: got %d frames", tc, n)
		}
	}
}

// What is owed is so at other bounds, too.
func TestPaceGoesOn(t *testing.T) {
	at := time.Unix(1_000_000, 0)
	p := NewPace(5, 80) // 10,000 octets a second
	if !p.Want(at) {
		t.Fatal("the first frame was not wanted")
	}
	p.Spend(at, 310_000) // 30 s and what there was
	for _, tc := range []struct {
		kbit  int
		after time.Duration
		want  bool
	}{{80, 6 * time.Second, false}, {80, 29 * time.Second, false}, {80, 31 * time.Second, true}, {8000, 200 * time.Millisecond, false}, {8000, time.Second, true}} {
		if got := p.As(5, tc.kbit).Want(at.Add(tc.after)); got != tc.want {
			t.Errorf("%+v: got %v", tc, got)
		}
	}
}

package telemetry

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestSpans(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 1))
	for range 200 {
		var s spans
		came := map[uint64]bool{}
		most := 1 + r.Uint64N(400)
		for range r.IntN(500) {
			seq := 1 + r.Uint64N(most)
			came[seq] = true
			s = s.add(seq)
		}
		if s.count() != uint64(len(came)) {
			t.Fatalf("expected %d numbers, got %d: %v", len(came), s.count(), s)
		}
		for seq := range most + 2 {
			if s.has(seq) != came[seq] {
				t.Fatalf("%d: expected %v, got %v of %v", seq, came[seq], s.has(seq), s)
			}
		}
		for i := 1; i < len(s); i++ {
			if s[i].from < s[i-1].through+2 {
				t.Fatalf("expected spans that are apart, got %v", s)
			}
		}
		got, err := parseSpans(s.marshal())
		if err != nil || !slices.Equal(got, s) {
			t.Fatalf("expected %v to be read again, got %v, %v", s, got, err)
		}
	}
}

func TestSpansOfNonsense(t *testing.T) {
	var s spans
	for seq := uint64(1); seq < 10_000; seq += 3 {
		s = s.add(seq)
	}
	if len(s) != maxSpans || !s.has(1) || !s.has(9_997) || s.has(9_998) {
		t.Errorf("expected %d spans, the newest as they came, got %d: %v … %v", maxSpans, len(s), s[0], s[len(s)-1])
	}
	if _, err := parseSpans(append(s.marshal(), 2, 0)); err == nil {
		t.Error("expected more spans than there may be to be refused")
	}
	for _, b := range [][]byte{{1}, {0x80}, {1, 0, 1, 0}, {5, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}} {
		if got, err := parseSpans(b); err == nil {
			t.Errorf("%x: expected an error, got %v", b, got)
		}
	}
}

func FuzzSpans(f *testing.F) {
	f.Add([]byte{1, 0, 2, 7})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseSpans(b)
		if err != nil {
			return
		}
		again, err := parseSpans(s.marshal())
		if err != nil || !slices.Equal(again, s) {
			t.Fatalf("expected %v again, got %v, %v", s, again, err)
		}
	})
}

func TestBootsAreForgotten(t *testing.T) {
	s := seen{}
	for boot := uint64(1); boot <= maxBoots; boot++ {
		if gone := s.add(boot, 1); gone != 0 {
			t.Fatalf("boot %d: expected room, got %d forgotten", boot, gone)
		}
	}
	if s.has(1, 2) || !s.has(1, 1) {
		t.Error("expected boot 1 to be known")
	}
	if gone := s.add(maxBoots+1, 1); gone != 1 {
		t.Errorf("expected boot 1 to be forgotten, got %d", gone)
	}
	if !s.has(1, 2) || s.has(2, 2) {
		t.Error("expected what is forgotten to count as come, and nothing else")
	}
}

package telemetry

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"halo.internal/model/apitype"
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
	if len(s) != maxSpans || s.has(1) || s.missing(1) || s.has(2) || s.first() != 1 || !s.has(9_997) || s.has(9_998) || !s.missing(9_998) {
		t.Errorf("expected %d spans, the newest as they came and nothing known of the oldest, got %d: %v … %v", maxSpans, len(s), s[0], s[len(s)-1])
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
	if s.has(1, 1) || !s.has(2, 1) {
		t.Error("expected what is forgotten not to count as come, and nothing else")
	}
}

// What has not come yet never counts as come, however many of a node's batches and boots
// came before it: nothing is acknowledged that was not stored.
func TestWhatComesLast(t *testing.T) {
	const batches, boots = 3 * maxSpans, 2 * maxBoots
	b, k := newBench(t), newKnown()
	put := func(boot, seq uint64) {
		t.Helper()
		e := numbered(t, "n-a", boot, seq)
		if boot > 1 {
			e = stamped(t, "n-a", seq, epoch.Add(time.Duration(boot)*time.Second))
			e.Batch.Boot = boot
			e = entry(t, "n-a", cpuAndMemory, e.Batch)
		}
		if got := b.append(e); got[0] != Stored {
			t.Fatalf("%d.%d: got %v, want it to be stored", boot, seq, got)
		}
		k.take(e)
	}
	for seq := uint64(1); seq <= batches; seq += 2 {
		put(1, seq)
	}
	b.tend()
	for _, m := range b.allMarks(t, "n-a") {
		if m.Kind == MarkBoot && m.Time.After(epoch.Add(time.Minute)) {
			t.Errorf("got %+v", m)
		}
	}
	b.restart()
	for seq := uint64(2); seq <= batches; seq += 2 {
		put(1, seq)
	}
	if got := b.Coverage("n-a").Boots[0]; got.First != 1 || got.Last != batches || len(got.Missing) != 0 || got.Count != batches {
		t.Errorf("got %+v, want all", got)
	}
	for boot := uint64(boots); boot > 1; boot -= 2 {
		put(boot, 1)
	}
	b.tend()
	for boot := uint64(boots - 1); boot > 1; boot -= 2 {
		put(boot, 1)
	}
	b.tend()
	b.has(k, "n-a")
	if got := len(b.sources["n-a"].seen); got > maxBoots {
		t.Errorf("%d boots are remembered", got)
	}
}

// allMarks returns all marks of a node.
func (b *bench) allMarks(t *testing.T, node string) []apitype.Mark {
	t.Helper()
	list, err := b.Marks(t.Context(), MarkQuery{Node: node, From: time.UnixMilli(earliest), To: time.UnixMilli(latest), Limit: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	return list.Items
}

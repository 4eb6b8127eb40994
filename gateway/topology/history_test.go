package topology

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"halo.internal/model/dot11"

	"halo.internal/model/graph"
)

func TestFrames(t *testing.T) {
	noise := rand.New(rand.NewPCG(13, 14))
	for range 4 {
		w := field(t, 12, 25, noise)
		tr := tracked(t, w)
		tr.Update(noon)
		was := tr.Picture()
		for n := range 25 {
			at := noon.Add(time.Duration(n) * time.Minute)
			for _, n := range w.change(noise) {
				if err := tr.Put(at, w.again(n)); err != nil {
					t.Fatal(err)
				}
			}
			tr.Update(at)
			now := tr.Picture()
			for _, d := range []graph.Delta{graph.Diff(was, now), graph.Diff(graph.Picture{Run: 7}, now), graph.Diff(now, was)} {
				b, err := new(sealer).encode(d)
				if err != nil {
					t.Fatal(err)
				}
				got, err := decodeDelta(b)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(d, got); diff != "" {
					t.Fatalf("(-want +got)\n%s", diff)
				}
			}
			was = now
		}
	}
}

func TestDamagedFrames(t *testing.T) {
	p := field(t, 12, 25, rand.New(rand.NewPCG(15, 16))).draw()
	p.Run, p.Seq = 1, 1
	b, err := new(sealer).encode(graph.Diff(graph.Picture{}, p))
	if err != nil {
		t.Fatal(err)
	}
	for n := range b {
		for _, bit := range []byte{1, 0x80} {
			bad := slices.Clone(b)
			bad[n] ^= bit
			if _, err := decodeDelta(bad); !errors.Is(err, ErrDamaged) {
				t.Fatalf("octet %d: got %v", n, err)
			}
		}
		if _, err := decodeDelta(b[:n]); !errors.Is(err, ErrDamaged) {
			t.Fatalf("%d octets: got %v", n, err)
		}
	}
	if _, err := new(sealer).encode(graph.Delta{Gateway: "not an ID"}); err == nil {
		t.Error("a node that is none was written")
	}
}

// like tells whether a picture of the history is the one that was, but for what Settle
// lets pass.
func like(t *testing.T, when time.Time, was, got graph.Picture) {
	t.Helper()
	settled := Settle(got, was)
	settled.At, settled.Seq, settled.Score, settled.Reasons = got.At, got.Seq, got.Score, got.Reasons
	if diff := cmp.Diff(settled, got); diff != "" {
		t.Fatalf("%v: (-was +history)\n%s", when, diff)
	}
}

// TestHistory has ten hours in which much happens and then nothing, and looks what it
// was like at many instants.
func TestHistory(t *testing.T) {
	noise := rand.New(rand.NewPCG(17, 18))
	w := field(t, 15, 30, noise)
	store := NewMemory(16 << 20)
	rec, tr := NewRecorder(store), tracked(t, w)
	type past struct {
		at time.Time
		p  graph.Picture
	}
	var all []past
	at := noon
	for at.Before(noon.Add(10 * time.Hour)) {
		at = at.Add(time.Duration(10+noise.IntN(50)) * time.Second)
		if at.Hour() < 20 { // then all is still
			names := w.change(noise)
			if noise.IntN(3) != 0 {
				names = w.names[:3]
			}
			for _, n := range names {
				if err := tr.Put(at, w.again(n)); err != nil {
					t.Fatal(err)
				}
			}
		}
		tr.Update(at)
		if err := rec.Record(at, tr.Picture()); err != nil {
			t.Fatal(err)
		}
		all = append(all, past{at, tr.Picture()})
	}
	reader := Reader{store}
	for n := 0; n < len(all); n += 1 + noise.IntN(60) {
		got, err := reader.At(all[n].at)
		if err != nil {
			t.Fatal(err)
		}
		like(t, all[n].at, all[n].p, got)
	}
	t.Logf("8 h with a change every 30 s: %d octets in %d frames", store.Octets(), len(store.frames))

	// What changed from one instant to another leads to what it was like then.
	for range 20 {
		a, b := noise.IntN(len(all)), noise.IntN(len(all))
		from, to := all[min(a, b)], all[max(a, b)]
		var p graph.Picture
		count := 0
		for d, err := range reader.Replay(from.at, to.at) {
			if err != nil {
				t.Fatal(err)
			}
			if d.From == 0 {
				p = graph.Picture{Run: d.Run}
				if count > 0 {
					t.Errorf("it began anew at %v", d.At)
				}
			}
			if p, err = p.Apply(d); err != nil {
				t.Fatal(err)
			}
			count++
		}
		like(t, to.at, to.p, p)
	}
	for name, when := range map[string]time.Time{"before": noon.Add(-time.Second), "after": at.Add(time.Hour), "long after": at.Add(time.Hour * 100)} {
		if got, err := reader.At(when); !errors.Is(err, ErrNotRecorded) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
}

// TestHistoryOfDamage has a bit flip: what is known is what was written after the next
// whole picture.
func TestHistoryOfDamage(t *testing.T) {
	w := newWorld(t, "gw", "b", "c").links("gw-b b-c").via("b>gw c>b")
	store := NewMemory(1 << 20)
	rec, tr := NewRecorder(store), tracked(t, w)
	for n := range 180 {
		at := noon.Add(time.Duration(n) * time.Minute)
		w.reports["c"].NextHops = nil
		w.via([]string{"c>b", "c>gw"}[n%2])
		for _, name := range w.names {
			if err := tr.Put(at, w.again(name)); err != nil {
				t.Fatal(err)
			}
		}
		tr.Update(at)
		if err := rec.Record(at, tr.Picture()); err != nil {
			t.Fatal(err)
		}
	}
	at := func(minutes int) error {
		_, err := Reader{store}.At(noon.Add(time.Duration(minutes) * time.Minute))
		return err
	}
	for n := range store.frames {
		if f := &store.frames[n]; f.Kind == FrameDelta && f.At.Equal(noon.Add(80*time.Minute)) {
			f.Data = slices.Clone(f.Data)
			f.Data[len(f.Data)/2] ^= 4
		}
	}
	for minutes, want := range map[int]error{79: nil, 80: ErrDamaged, 119: ErrDamaged, 120: nil, 170: nil} {
		if err := at(minutes); !errors.Is(err, want) || want != nil && !errors.Is(err, ErrNotRecorded) {
			t.Errorf("%d minutes: got %v, want %v", minutes, err, want)
		}
	}
	begins := []string{}
	for d, err := range (Reader{store}).Replay(noon.Add(70*time.Minute), noon.Add(130*time.Minute)) {
		if err != nil {
			t.Fatal(err)
		}
		if d.From == 0 {
			begins = append(begins, d.At.Format("15:04"))
		}
	}
	if !slices.Equal(begins, []string{"13:10", "14:00"}) {
		t.Errorf("it began anew at %v", begins)
	}
}

// TestHistoryOfAClock that is set back an hour, and a gateway that was off for one.
func TestHistoryOfAClock(t *testing.T) {
	w := newWorld(t, "gw", "b").links("gw-b").via("b>gw")
	store := NewMemory(1 << 20)
	rec := NewRecorder(store)
	p := w.draw()
	p.Run, p.Seq = 1, 1
	record := func(at time.Time) {
		t.Helper()
		if err := rec.Record(at, p); err != nil {
			t.Fatal(err)
		}
	}
	kinds := func() (list []FrameKind) {
		for _, f := range store.frames {
			list = append(list, f.Kind)
		}
		return list
	}
	record(noon)
	record(noon.Add(time.Minute))
	record(noon.Add(5 * time.Minute))
	record(noon.Add(-time.Hour)) // set back
	record(noon.Add(-time.Hour + 5*time.Minute))
	if got := kinds(); !slices.Equal(got, []FrameKind{FrameFull, FrameMark, FrameFull, FrameMark}) {
		t.Errorf("got %v", got)
	}
	if got, err := (Reader{store}).At(noon.Add(-58 * time.Minute)); err != nil || !got.At.Equal(noon.Add(-time.Hour)) {
		t.Errorf("got %+v, %v", got, err)
	}
	rec = NewRecorder(store)
	p.Run = 2
	record(noon.Add(2 * time.Hour))
	if _, err := (Reader{store}).At(noon.Add(100 * time.Minute)); !errors.Is(err, ErrNotRecorded) {
		t.Errorf("while it was off: got %v", err)
	}
	if got, err := (Reader{store}).At(noon.Add(2 * time.Hour)); err != nil || got.Run != 2 {
		t.Errorf("got %+v, %v", got, err)
	}
}

// full is a store without room.
type full struct{ *Memory }

var errFull = errors.New("the card is full")

func (full) Append(time.Time, FrameKind, []byte) error { return errFull }

func TestRecordAgainAfterAFullCard(t *testing.T) {
	w := newWorld(t, "gw", "b").links("gw-b").via("b>gw")
	store := NewMemory(1 << 20)
	rec, tr := NewRecorder(store), tracked(t, w)
	tr.Update(noon)
	if err := rec.Record(noon, tr.Picture()); err != nil {
		t.Fatal(err)
	}
	w.iface("b", "eth0").Addresses = []dot11.MAC{{2, 1, 1, 1, 1, 1}}
	if err := tr.Put(noon, w.again("b")); err != nil {
		t.Fatal(err)
	}
	tr.Update(noon.Add(time.Minute))
	rec.store = full{store}
	if err := rec.Record(noon.Add(time.Minute), tr.Picture()); !errors.Is(err, errFull) {
		t.Errorf("got %v", err)
	}
	rec.store = store
	if err := rec.Record(noon.Add(2*time.Minute), tr.Picture()); err != nil {
		t.Fatal(err)
	}
	got, err := Reader{store}.At(noon.Add(2 * time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	like(t, noon, tr.Picture(), got)
}

// TestHistoryIsBounded has a network of which everything changes all the time.
func TestHistoryIsBounded(t *testing.T) {
	noise := rand.New(rand.NewPCG(19, 20))
	w := field(t, 60, 350, noise)
	store := NewMemory(64 << 20)
	rec, tr := NewRecorder(store), tracked(t, w)
	largest := 0
	at := noon
	for n := range 3 * 60 { // every minute, for three hours
		at = noon.Add(time.Duration(n) * time.Minute)
		for _, name := range w.names {
			radio := w.iface(name, "mesh0")
			radio.Links = slices.Clone(radio.Links)
			for k := range radio.Links {
				radio.Links[k].SignalDBm = -40 - noise.IntN(50)
				radio.Links[k].TQ = 1 + noise.IntN(255)
			}
			if err := tr.Put(at, w.again(name)); err != nil {
				t.Fatal(err)
			}
		}
		tr.Update(at)
		if err := rec.Record(at, tr.Picture()); err != nil {
			t.Fatal(err)
		}
	}
	deltas := 0
	for _, f := range store.frames {
		if f.Kind == FrameDelta {
			deltas += len(f.Data)
		} else {
			largest = max(largest, len(f.Data))
		}
	}
	if most := 4 * HourlyOctets; deltas > most {
		t.Errorf("deltas of three hours: got %d octets, want at most %d", deltas, most)
	}
	if _, err := (Reader{store}).At(at); err != nil {
		t.Error(err)
	}
	t.Logf("3 h: %d octets in %d frames, a whole picture of 60 nodes and 350 links has %d", store.Octets(), len(store.frames), largest)
}

func TestMemoryDropsTheOldest(t *testing.T) {
	m := NewMemory(10 * (100 + frameOverhead))
	for n := range 50 {
		if err := m.Append(noon.Add(time.Duration(n)*time.Second), FrameDelta, make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
	}
	var left []int
	for f := range m.Range(noon, noon.Add(time.Hour)) {
		left = append(left, int(f.At.Sub(noon).Seconds()))
	}
	if len(left) != 10 || left[0] != 40 || m.Octets() > 10*(100+frameOverhead) {
		t.Errorf("got %v, %d octets", left, m.Octets())
	}
	for range m.Range(noon, noon.Add(time.Hour)) {
		break
	}
}

// FuzzFrame is past form and checksum, which a fuzzer does not find.
func FuzzFrame(f *testing.F) {
	noise := rand.New(rand.NewPCG(21, 22))
	for range 5 {
		w := field(f, 4, 5, noise)
		for range 10 {
			w.change(noise)
		}
		p := w.draw()
		p.Run, p.Seq = 1, 2
		frame, err := frameOf(graph.Diff(graph.Picture{Run: 1}, p))
		if err != nil {
			f.Fatal(err)
		}
		b, err := frameOut.Marshal(frame)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var read frame
		if err := frameIn.Unmarshal(b, &read); err != nil {
			return
		}
		d, err := read.delta()
		if err != nil {
			return
		}
		before := graph.Picture{Run: d.Run, Seq: d.From}
		p, err := before.Apply(d)
		if err != nil {
			return
		}
		again, err := frameOf(graph.Diff(before, p))
		if err != nil {
			t.Fatalf("%+v was read, and is not written: %v", d, err)
		}
		back, err := again.delta()
		if err != nil {
			t.Fatal(err)
		}
		if q, err := before.Apply(back); err != nil || graph.Diff(p, q).Len() != 0 {
			t.Fatalf("%v: %s", err, cmp.Diff(p, q))
		}
		for _, n := range p.Nodes {
			for _, r := range n.Reasons {
				_ = r.String()
			}
			p.Path(n.ID)
		}
	})
}

// FuzzUnseal has octets with the right checksum.
func FuzzUnseal(f *testing.F) {
	b, err := new(sealer).encode(graph.Delta{Run: 1, Seq: 1, Gateway: id("gw")})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[:len(b)-crc32.Size])
	f.Add([]byte{1, 3, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := unseal(binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))); err != nil && !errors.Is(err, ErrDamaged) {
			t.Fatal(err)
		}
	})
}

// BenchmarkHistory tells the octets of a whole picture of 250 nodes and 1,500 links,
// and what writing it takes.
func BenchmarkHistory(b *testing.B) {
	p := field(b, 250, 1500, rand.New(rand.NewPCG(1, 2))).draw()
	p.Run, p.Seq = 1, 1
	n := 0
	s := new(sealer)
	since := cpu()
	for b.Loop() {
		frame, err := s.encode(graph.Diff(graph.Picture{}, p))
		if err != nil {
			b.Fatal(err)
		}
		n = len(frame)
	}
	reportCPU(b, since)
	b.ReportMetric(float64(n), "octets")
}

// BenchmarkHistoryAt is what reading the last minute of an hour takes.
func BenchmarkHistoryAt(b *testing.B) {
	noise := rand.New(rand.NewPCG(1, 2))
	w := field(b, 250, 1500, noise)
	store := NewMemory(64 << 20)
	rec, tr := NewRecorder(store), tracked(b, w)
	at := noon
	for range 59 {
		at = at.Add(time.Minute)
		for range 20 {
			for _, n := range w.change(noise) {
				if err := tr.Put(at, w.again(n)); err != nil {
					b.Fatal(err)
				}
			}
		}
		tr.Update(at)
		if err := rec.Record(at, tr.Picture()); err != nil {
			b.Fatal(err)
		}
	}
	since := cpu()
	for b.Loop() {
		if _, err := (Reader{store}).At(at); err != nil {
			b.Fatal(err)
		}
	}
	reportCPU(b, since)
	b.ReportMetric(float64(store.Octets()), "octets")
}

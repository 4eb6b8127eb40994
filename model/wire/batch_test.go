package wire

import (
	"bytes"
	"errors"
	"hash/crc32"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"encoding/binary"

	"github.com/google/go-cmp/cmp"

	"halo.internal/model"
)

func schemaOf(n int) Schema {
	var s Schema
	for i := range n {
		s.Metrics = append(s.Metrics, NewMetric("test.thing"+string(rune('a'+i%26))+string(rune('a'+i/26))+".value", "x", int8(i%3)))
	}
	return s
}

// batchOf makes reports out of columns; a nil pointer is a missing value.
func batchOf(s Schema, times []int64, columns ...[]int64) Batch {
	b := Batch{Header: Header{BatchID: ID(3, 41), Schema: s.ID(), Clock: model.ClockGateway}}
	for i, t := range times {
		r := Report{Time: t}
		for _, c := range columns {
			r.Values = append(r.Values, Int(c[i]))
		}
		b.Reports = append(b.Reports, r)
	}
	return b
}

func ramp(n int, start, step int64) []int64 {
	vs := make([]int64, n)
	for i := range vs {
		vs[i] = start + int64(i)*step
	}
	return vs
}

func TestColumns(t *testing.T) {
	noise := rand.New(rand.NewPCG(1, 2))
	random := func(n int, f func() int64) []int64 {
		vs := make([]int64, n)
		for i := range vs {
			vs[i] = f()
		}
		return vs
	}
	leap := ramp(60, 5, 0)
	leap[30] = math.MaxInt64
	for _, tc := range []struct {
		name string
		vs   []int64
		max  int // octets
	}{
		{"none", nil, 0},
		{"one", []int64{-3}, 1},
		{"one, extreme", []int64{math.MinInt64}, 10},
		{"two", []int64{1, 2}, 3},
		{"constant", ramp(60, 1_000_000, 0), 4},
		{"steady clock", ramp(60, 1_790_000_000_000, 10_000), 10},
		{"accelerating", differencesUndone(ramp(60, 7, 3)), 5},
		{"noise of 9 bits", random(60, func() int64 { return noise.Int64N(500) }), 70},
		{"counter of 10-bit steps", func() []int64 {
			vs := random(60, func() int64 { return noise.Int64N(1000) })
			vs[0] = 1 << 40
			sum(vs, 1)
			return vs
		}(), 85},
		{"one leap", leap, 80},
		{"extremes", []int64{math.MinInt64, math.MaxInt64, 0, -1, math.MinInt64}, 41},
		{"63 bits wide", []int64{0, math.MaxInt64, 5, math.MaxInt64 - 9, 1}, 47},
	} {
		t.Run(tc.name, func(t *testing.T) {
			want := append([]int64{}, tc.vs...)
			b := appendColumn([]byte{0xaa}, tc.vs)[1:]
			if len(b) > tc.max {
				t.Errorf("took %d octets, want at most %d", len(b), tc.max)
			}
			got := make([]int64, len(want))
			rest, err := readColumn(append(bytes.Clone(b), 0x55), got)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(rest, []byte{0x55}) {
				t.Errorf("left %x, want 55", rest)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
			for n := range len(b) {
				if _, err := readColumn(b[:n], got); !errors.Is(err, ErrMalformed) {
					t.Fatalf("cut to %d of %d octets: got %v, want ErrMalformed", n, len(b), err)
				}
			}
		})
	}
}

// Values of all widths are read as they were, wherever their bits lie in the octets, and
// whatever is behind them.
func TestColumnsOfAllWidths(t *testing.T) {
	noise := rand.New(rand.NewPCG(3, 4))
	for width := range 65 {
		for n := 2; n < 40; n++ {
			want := make([]int64, n)
			for i := range want {
				want[i] = int64(noise.Uint64()>>(64-width)) - 7 // of 0: a shift by 64 gives 0
			}
			b := appendColumn(nil, want)
			for behind := range 10 {
				got := make([]int64, n)
				rest, err := readColumn(append(bytes.Clone(b), bytes.Repeat([]byte{0xff}, behind)...), got)
				if err != nil || len(rest) != behind || cmp.Diff(want, got) != "" {
					t.Fatalf("%d values of %d bits, %d octets behind them: got %d, %d octets behind, %v, want %d", n, width, behind, got, len(rest), err, want)
				}
			}
		}
	}
}

func differencesUndone(vs []int64) []int64 { sum(vs, 1); return vs }

func TestRoundTrip(t *testing.T) {
	noise := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		metrics, reports := 1+noise.IntN(40), 1+noise.IntN(70)
		s := schemaOf(metrics)
		b := Batch{Header: Header{BatchID: ID(1+noise.Uint64N(300), 1+noise.Uint64N(1<<40)), Schema: s.ID(), Clock: qualities[noise.IntN(len(qualities))], Urgent: noise.IntN(2) == 1}}
		width, holes := noise.IntN(64), noise.IntN(3)
		for i := range reports {
			r := Report{Time: int64(i) * 10_000, Values: make([]Value, metrics)}
			for m := range r.Values {
				if holes == 0 || noise.IntN(4) > 0 {
					r.Values[m] = Int(noise.Int64() >> width)
				}
			}
			b.Reports = append(b.Reports, r)
		}
		data, err := b.Encode(s)
		if err != nil {
			t.Fatal(err)
		}
		again, err := b.Encode(s)
		if err != nil || !bytes.Equal(data, again) {
			t.Fatalf("the same batch gave other octets (%v)", err)
		}
		got, err := Decode(data, s)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(b, got, cmp.AllowUnexported(BatchID{})); d != "" {
			t.Fatalf("(-want +got)\n%s", d)
		}
	}
}

// TestRename changes a batch's name and nothing else.
func TestRename(t *testing.T) {
	s := schemaOf(2)
	b := batchOf(s, []int64{1, 2}, []int64{1, 2}, []int64{3, 4})
	data, err := b.Encode(s)
	if err != nil {
		t.Fatal(err)
	}
	want := b
	want.BatchID = ID(1<<40, 7)
	wanted, err := want.Encode(s)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Rename(data, want.BatchID)
	if err != nil || !bytes.Equal(got, wanted) {
		t.Errorf("got %x, %v, want %x", got, err, wanted)
	}
	if back, err := Rename(got, b.BatchID); err != nil || !bytes.Equal(back, data) {
		t.Errorf("and back: got %x, %v, want %x", back, err, data)
	}
	data[len(data)/2] ^= 1
	if _, err := Rename(data, want.BatchID); !errors.Is(err, ErrMalformed) {
		t.Errorf("of a damaged one: got %v", err)
	}
	for _, id := range []BatchID{ID(0, 1), ID(1, 0), ID(MaxCounter+1, 1)} {
		if _, err := Rename(wanted, id); !errors.Is(err, ErrMalformed) {
			t.Errorf("as %v: got %v", id, err)
		}
	}
}

func TestFloats(t *testing.T) {
	s := Schema{Metrics: []Metric{NewMetric("gps.fix.lat_deg", "deg", ScaleFloat), NewMetric("a.b.c", "V", 1), NewMetric("a.b.d", "B", -3)}}
	b := Batch{Header: Header{BatchID: ID(1, 1), Schema: s.ID(), Clock: model.ClockGPS}, Reports: []Report{
		{Time: 1, Values: []Value{Float(48.137154), Int(235), Int(7)}},
		{Time: 2, Values: []Value{Float(math.Inf(-1)), {}, Int(-1)}},
	}}
	data, err := b.Encode(s)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(data, s)
	if err != nil {
		t.Fatal(err)
	}
	var numbers []float64
	for _, r := range got.Reports {
		for m, v := range r.Values {
			numbers = append(numbers, s.Metrics[m].Number(v))
		}
	}
	want := []float64{48.137154, 23.5, 7000, math.Inf(-1), math.NaN(), -1000}
	for i := range want {
		if numbers[i] != want[i] && !(math.IsNaN(numbers[i]) && math.IsNaN(want[i])) {
			t.Errorf("number %d: got %v, want %v", i, numbers[i], want[i])
		}
	}
}

// reseal puts the checksum right after a test spoiled what it covers.
func reseal(data []byte) []byte {
	body := data[:len(data)-sumSize]
	return binary.BigEndian.AppendUint32(bytes.Clone(body), crc32.Checksum(body, castagnoli))
}

func TestDamageIsAnErrorThatSaysWhat(t *testing.T) {
	s := schemaOf(2)
	good, err := batchOf(s, ramp(6, 1000, 10), ramp(6, 5, 1), ramp(6, 9, 0)).Encode(s)
	if err != nil {
		t.Fatal(err)
	}
	spoil := func(at int, to byte) []byte { b := bytes.Clone(good); b[at] = to; return reseal(b) }
	for _, tc := range []struct {
		name string
		data []byte
		want string
	}{
		{"nothing", nil, "expected 5 to 65536 octets, got 0"},
		{"too long", make([]byte, MaxBatch+1), "got 65537"},
		{"cut short", good[:len(good)-1], "expected checksum"},
		{"a flipped bit", append([]byte{good[0] ^ 1}, good[1:]...), "expected checksum"},
		{"no CBOR", reseal([]byte{0xff, 0, 0, 0, 0}), "expected [version, boot, seq, schema, flags, columns]"},
		{"later version", spoil(1, 2), "expected version 1, got 2"},
		{"boot 0", spoil(2, 0), "expected 1 to 2^53-1, got 0.41"},
		{"flags", spoil(len(good)-sumSize-lenColumns(t, good)-2, 23), "expected flags"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := Decode(tc.data, s)
			if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want ErrMalformed with %q", err, tc.want)
			}
		})
	}
	if _, err := Decode(good, schemaOf(3)); err == nil || !strings.Contains(err.Error(), "expected schema "+s.ID().String()) {
		t.Errorf("other schema: got %v", err)
	}
}

func lenColumns(t *testing.T, data []byte) int {
	t.Helper()
	_, columns, err := open(data)
	if err != nil {
		t.Fatal(err)
	}
	return len(columns)
}

func TestEncodeRefusesWhatDecodeWould(t *testing.T) {
	s := schemaOf(80)
	valid := batchOf(schemaOf(1), []int64{1}, []int64{1})
	wide := make([]Report, MaxReports)
	for i := range wide {
		wide[i].Values = make([]Value, 80)
	}
	for _, tc := range []struct {
		name   string
		schema Schema
		change func(*Batch)
		want   string
	}{
		{"no metric", Schema{}, func(*Batch) {}, "1 to 512 metrics"},
		{"no report", schemaOf(1), func(b *Batch) { b.Reports = nil }, "1 to 1024 reports"},
		{"seq 0", schemaOf(1), func(b *Batch) { b.Seq = 0 }, "boot and seq"},
		{"clock", schemaOf(1), func(b *Batch) { b.Clock = "sundial" }, `got "sundial"`},
		{"widths differ", schemaOf(2), func(*Batch) {}, "expected 2 values, one per metric, got 1"},
		{"too many values", s, func(b *Batch) { b.Reports = wide }, "at most 65536 values"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := valid
			tc.change(&b)
			if _, err := b.Encode(tc.schema); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestSchema(t *testing.T) {
	s := Schema{Metrics: []Metric{NewMetric("system.cpu.used_percent", "%", 1), NewMetric("net.eth0_100.rx_bytes", "B", 0)}}
	// The ID is part of the format: data stored under it must stay readable.
	if got := s.ID().String(); got != "8121a575576c8be7" {
		t.Errorf("schema id changed: got %s", got)
	}
	got, err := DecodeSchema(s.Encode())
	if err != nil || !got.Equal(s) {
		t.Errorf("got %v, %v", got, err)
	}
	for name, bad := range map[string]Metric{
		"two parts":    NewMetric("system.cpu", "", 0),
		"upper case":   NewMetric("System.cpu.used", "", 0),
		"empty part":   NewMetric("system..used", "", 0),
		"space":        NewMetric("system.a b.used", "", 0),
		"scale":        NewMetric("a.b.c", "", 13),
		"unit":         NewMetric("a.b.c", strings.Repeat("u", 17), 0),
		"long":         NewMetric("a.b."+strings.Repeat("c", 100), "", 0),
		"not anchored": NewMetric("a.b.c\nd", "", 0),
	} {
		if _, err := DecodeSchema(Schema{Metrics: []Metric{bad}}.Encode()); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: got %v, want ErrMalformed", name, err)
		}
	}
	if err := (Schema{Metrics: []Metric{s.Metrics[0], s.Metrics[0]}}).Check(); err == nil {
		t.Error("a metric given twice was taken")
	}
}

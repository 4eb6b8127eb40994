package block

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"halo.internal/model/wire"
)

const about = "node n-a, hour 7"

// some returns a block of that many rows and series, some of which lack values.
func some(r *rand.Rand, rows, series int) *Block {
	b := &Block{}
	at := int64(1_790_000_000_000)
	for range rows {
		at += 1 + r.Int64N(20_000)
		b.Times = append(b.Times, at)
	}
	for left := rows; left > 0; {
		n := 1 + r.IntN(left)
		b.Runs = append(b.Runs, Run{n, byte(r.IntN(5))})
		left -= n
	}
	number := -1
	for range series {
		number += 1 + r.IntN(3)
		c := Column{Series: number}
		n := rows
		if r.IntN(2) == 0 {
			c.Have, n = make([]bool, rows), 0
			for i := range c.Have {
				if c.Have[i] = i == 0 || r.IntN(3) > 0; c.Have[i] {
					n++
				}
			}
		}
		wide, counter, steps := uint(r.IntN(65)), int64(0), r.IntN(3) == 0
		for range n {
			v := int64(r.Uint64() >> (64 - wide))
			if steps {
				counter += 5000 * (r.Int64N(8) / 6)
				v = counter
			}
			c.Values = append(c.Values, v)
		}
		b.Columns = append(b.Columns, c)
	}
	return b
}

func TestRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 2))
	for range 300 {
		b := some(r, 1+r.IntN(400), r.IntN(20))
		data, err := b.Encode(about)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decode(data, about, nil)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(b, got); diff != "" {
			t.Fatal(diff)
		}
		again, err := got.Encode(about)
		if err != nil || !bytes.Equal(again, data) {
			t.Fatalf("expected the same block to give the same octets, got %v", err)
		}
		if len(b.Columns) == 0 {
			continue
		}
		one := b.Columns[r.IntN(len(b.Columns))]
		got, err = Decode(data, about, func(s int) bool { return s == one.Series })
		if err != nil || len(got.Columns) != 1 || cmp.Diff(one, got.Columns[0]) != "" {
			t.Fatalf("series %d alone: got %+v, %v", one.Series, got, err)
		}
	}
}

func TestWhatIsNoBlockIsNotWritten(t *testing.T) {
	whole := func() *Block {
		return &Block{Times: []int64{1, 2, 3}, Runs: []Run{{3, 1}}, Columns: []Column{{Series: 0, Values: []int64{7, 8, 9}}, {Series: 4, Have: []bool{true, false, true}, Values: []int64{1, 2}}}}
	}
	if err := whole().Check(); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		what string
		edit func(*Block)
		want string
	}{
		{"no rows", func(b *Block) { b.Times = nil }, "rows, got 0"},
		{"too many rows", func(b *Block) { b.Times = make([]int64, MaxRows+1) }, "rows, got 65537"},
		{"time that stands", func(b *Block) { b.Times[2] = 2 }, "row 2: expected an instant after 2, got 2"},
		{"runs too short", func(b *Block) { b.Runs = []Run{{2, 1}} }, "runs of 3 rows in all, got 2"},
		{"an empty run", func(b *Block) { b.Runs = []Run{{0, 1}, {3, 1}} }, "got 0"},
		{"series twice", func(b *Block) { b.Columns[1].Series = 0 }, "series 0 after 0"},
		{"values missing", func(b *Block) { b.Columns[0].Values = []int64{7, 8} }, "values of 3 rows, got 2"},
		{"rows missing", func(b *Block) { b.Columns[1].Have = []bool{true, true} }, "expected 3 rows, got 2"},
		{"no values", func(b *Block) { b.Columns[1].Have, b.Columns[1].Values = make([]bool, 3), nil }, "values of 0 rows"},
		{"too many values", func(b *Block) {
			b.Times, b.Runs = make([]int64, 10_000), []Run{{10_000, 0}}
			for i := range b.Times {
				b.Times[i] = int64(i)
			}
			b.Columns = make([]Column, 210)
		}, "values, got 10000 rows of 210 series"},
	} {
		b := whole()
		tc.edit(b)
		if _, err := b.Encode(about); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: expected an error with %q, got %v", tc.what, tc.want, err)
		}
	}
}

// sealed is the octets of a block with the checksum behind them.
func sealed(body []byte) []byte { return seal(append(bytes.Clone(body), make([]byte, sumSize)...)) }

// A counter that stands most of the time, and then makes one of few steps, takes less than the
// bits of its values.
func TestWhatRepeatsIsDeflated(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 6))
	b := &Block{Runs: []Run{{360, 1}}, Columns: []Column{{Series: 3}, {Series: 5, Have: make([]bool, 360)}}}
	counter := int64(1 << 40)
	for i := range 360 {
		b.Times = append(b.Times, 1_790_000_000_000+10_000*int64(i)+r.Int64N(4)/3)
		counter += []int64{0, 0, 0, 60, 1500, 1560}[r.IntN(6)]
		b.Columns[0].Values = append(b.Columns[0].Values, counter)
		if i%9 == 0 {
			b.Columns[1].Have[i] = true
			b.Columns[1].Values = append(b.Columns[1].Values, 7)
		}
	}
	data, err := b.Encode(about)
	if err != nil {
		t.Fatal(err)
	}
	if plain := len(wire.AppendColumn(nil, b.Columns[0].Values)) + len(wire.AppendColumn(nil, b.Times)) + 360/8; len(data) > plain*2/3 {
		t.Errorf("it takes %d octets, its columns %d: want at most two thirds", len(data), plain)
	}
	for _, want := range []func(int) bool{nil, func(s int) bool { return s == 3 }, func(s int) bool { return s == 5 }, func(int) bool { return false }} {
		whole := &Block{Times: b.Times, Runs: b.Runs}
		for _, c := range b.Columns {
			if want == nil || want(c.Series) {
				whole.Columns = append(whole.Columns, c)
			}
		}
		got, err := Decode(data, about, want)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(whole, got); diff != "" {
			t.Error(diff)
		}
	}
}

// What is deflated does not become more than so many rows can be, and is all that there is.
func TestDeflatedPartsAreBounded(t *testing.T) {
	bomb, is := new(deflater).deflate(make([]byte, 1<<20))
	if !is {
		t.Fatal("a megabyte of zeros is not deflated")
	}
	bomb = bytes.Clone(bomb)
	part := func(flags uint64, octets ...byte) []byte {
		return append(binary.AppendUvarint(nil, uint64(len(octets))<<flagBits|flags), octets...)
	}
	instants := []byte{Version, 3}
	series := append(append(instants, part(0, 0x40, 2, 2)...), 1, 3, 0, 1, 9) // 1, 2, 3; by one clock; one series, 9
	whole, is := new(deflater).deflate([]byte("abcabcabcabcabcabcabcabcabc"))
	if !is {
		t.Fatal("what repeats is not deflated")
	}
	for _, tc := range []struct {
		what   string
		before []byte
		part   []byte
		want   string
	}{
		{"a bomb of instants", instants, part(flagDeflated, bomb...), "instants: damaged block: expected at most 32 octets"},
		{"a bomb of values", series, part(flagDeflated, bomb...), "series 9: damaged block: expected at most 32 octets"},
		{"a bomb of rows that have one", series, part(flagDeflated|flagSparse, bomb...), "series 9: damaged block: expected at most 32 octets"},
		{"nothing", series, part(flagDeflated), "series 9: "},
		{"what ends too early", series, part(flagDeflated, whole[:len(whole)-4]...), "series 9: damaged block"},
		{"what goes on", series, part(flagDeflated, append(bytes.Clone(whole), 1, 2, 3, 4, 5)...), "series 9: damaged block"},
		{"no deflated octets", series, part(flagDeflated, 0xff, 0xff), "series 9: damaged block: expected deflated octets"},
		{"instants that some rows lack", instants, part(flagSparse, 7, 0x40, 2, 2), "instants: damaged block: expected one for each row"},
		{"a part beyond the end", series, []byte{200, 1, 5}, "series 9: damaged block: expected a part of 50 octets, got 1"},
	} {
		_, err := Decode(sealed(append(bytes.Clone(tc.before), tc.part...)), about, nil)
		if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: expected an error with %q, got %v", tc.what, tc.want, err)
		}
	}
	d := new(inflater)
	if _, err := d.inflate(bomb, 1000); !errors.Is(err, ErrDamaged) || d.out.Cap() > 1<<14 {
		t.Errorf("of a bomb %d octets were unpacked, %v", d.out.Cap(), err)
	}
	if got, err := d.inflate(whole, 27); err != nil || string(got) != "abcabcabcabcabcabcabcabcabc" {
		t.Errorf("after a bomb: got %q, %v", got, err)
	}
}

// seal puts the checksum right after a test has changed what it covers.
func seal(data []byte) []byte {
	body := data[:len(data)-sumSize]
	binary.BigEndian.PutUint32(data[len(body):], sum(about, body))
	return data
}

func TestDamageIsFound(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 9))
	data, err := some(r, 100, 6).Encode(about)
	if err != nil {
		t.Fatal(err)
	}
	for range 2000 {
		d := bytes.Clone(data)
		d[r.IntN(len(d))] ^= 1 << r.IntN(8)
		if _, err := Decode(d, about, nil); !errors.Is(err, ErrDamaged) {
			t.Fatalf("a flipped bit: got %v", err)
		}
		if _, err := Decode(data, "node n-b, hour 7", nil); !errors.Is(err, ErrDamaged) {
			t.Fatalf("about another node: got %v", err)
		}
		if _, err := Decode(d[:r.IntN(len(d))], about, nil); !errors.Is(err, ErrDamaged) {
			t.Fatalf("a part: got %v", err)
		}
	}
}

// FuzzDecode has the checksum right, so that what is behind it is reached.
func FuzzDecode(f *testing.F) {
	r := rand.New(rand.NewPCG(7, 7))
	for range 20 {
		data, err := some(r, 1+r.IntN(50), r.IntN(8)).Encode(about)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) <= sumSize {
			return
		}
		b, err := Decode(seal(bytes.Clone(data)), about, nil)
		if err != nil {
			if !errors.Is(err, ErrDamaged) {
				t.Fatalf("expected ErrDamaged, got %v", err)
			}
			return
		}
		if err := b.Check(); err != nil {
			t.Fatalf("expected what was read to be fit to be written: %v", err)
		}
		if _, err := ReadRollup(b, func(int) bool { return false }); err != nil && !errors.Is(err, ErrDamaged) {
			t.Fatalf("rollup: expected ErrDamaged, got %v", err)
		}
	})
}

func FuzzInflate(f *testing.F) {
	for _, text := range []string{"abcabcabcabcabcabcabc", string(make([]byte, 5000)), "0123456789012345678901"} {
		if deflated, is := new(deflater).deflate([]byte(text)); is {
			f.Add(bytes.Clone(deflated), uint16(len(text)))
		}
	}
	f.Fuzz(func(t *testing.T, octets []byte, most uint16) {
		var in inflater
		if got, err := in.inflate(octets, int(most)); err == nil && len(got) > int(most) {
			t.Fatalf("expected at most %d octets, got %d", most, len(got))
		} else if err != nil && !errors.Is(err, ErrDamaged) {
			t.Fatalf("expected ErrDamaged, got %v", err)
		}
		var out deflater
		deflated, smaller := out.deflate(octets)
		if !smaller {
			return
		}
		if got, err := in.inflate(deflated, len(octets)); err != nil || !bytes.Equal(got, octets) { // whatever came before
			t.Fatalf("expected what was deflated, got %x of %x, %v", got, octets, err)
		}
	})
}

func TestBuckets(t *testing.T) {
	bits := func(f float64) int64 { return int64(math.Float64bits(f)) }
	r := rand.New(rand.NewPCG(3, 3))
	for _, float := range []bool{false, true} {
		for range 500 {
			var whole, left, right Bucket
			n := 1 + r.IntN(50)
			cut := r.IntN(n + 1)
			low, high, sum, first, last := math.Inf(1), math.Inf(-1), 0., 0., 0.
			for i := range n {
				last = float64(r.IntN(2000) - 1000)
				v := int64(last)
				if float {
					last /= 8
					v = bits(last)
				}
				if i == 0 {
					first = last
				}
				low, high, sum = min(low, last), max(high, last), sum+last
				whole.Add(v, float)
				if i < cut {
					left.Add(v, float)
				} else {
					right.Add(v, float)
				}
			}
			left.Merge(right, float)
			if left != whole {
				t.Fatalf("in two parts: expected %+v, got %+v", whole, left)
			}
			is := func(v int64) float64 {
				if float {
					return math.Float64frombits(uint64(v))
				}
				return float64(v)
			}
			if whole.Count != int64(n) || is(whole.Min) != low || is(whole.Max) != high || is(whole.First) != first || is(whole.Last) != last || math.Abs(whole.Mean(float)-sum/float64(n)) > 1e-9 {
				t.Fatalf("expected %d readings from %v to %v, the last %v, mean %v, got %+v, mean %v", n, low, high, last, sum/float64(n), whole, whole.Mean(float))
			}
		}
	}
	var far Bucket
	for range 3 {
		far.Add(math.MinInt64, false)
		far.Add(math.MaxInt64, false)
	}
	if far.Min != math.MinInt64 || far.Max != math.MaxInt64 || far.Above != math.MaxInt64 {
		t.Errorf("expected what is too far apart for a sum to keep its bounds, got %+v", far)
	}
}

func TestRollups(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	for range 200 {
		want := Rollup{}
		rows := 1 + r.IntN(96)
		for i := range rows {
			want.Times = append(want.Times, int64(i)*900_000)
		}
		floats := map[int]bool{}
		for s := range r.IntN(12) {
			u := RolledUp{Series: 2 * s, Float: r.IntN(4) == 0, Buckets: make([]Bucket, rows)}
			floats[u.Series] = u.Float
			gaps := r.IntN(3) == 0
			for i := range u.Buckets {
				for range 1 + r.IntN(5) {
					if i > 0 && gaps && i%3 == 0 {
						break
					}
					v := r.Int64() >> r.IntN(60)
					if u.Float {
						v = int64(math.Float64bits(r.NormFloat64()))
					}
					u.Buckets[i].Add(v, u.Float)
				}
			}
			want.Series = append(want.Series, u)
		}
		b, err := want.Block()
		if err != nil {
			t.Fatal(err)
		}
		data, err := b.Encode(about)
		if err != nil {
			t.Fatal(err)
		}
		read, err := Decode(data, about, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ReadRollup(read, func(s int) bool { return floats[s] })
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
		if len(want.Series) > 0 {
			one := want.Series[r.IntN(len(want.Series))]
			if read, err = Decode(data, about, OfSeries(func(s int) bool { return s == one.Series })); err != nil {
				t.Fatal(err)
			}
			got, err = ReadRollup(read, func(s int) bool { return floats[s] })
			if err != nil || len(got.Series) != 1 || cmp.Diff(one, got.Series[0]) != "" {
				t.Fatalf("series %d alone: got %+v, %v", one.Series, got, err)
			}
		}
	}
}

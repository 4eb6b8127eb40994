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
		wide := uint(r.IntN(65))
		for range n {
			c.Values = append(c.Values, int64(r.Uint64()>>(64-wide)))
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

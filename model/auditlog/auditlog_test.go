package auditlog

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/quick"
)

// The form is for ever: chains on cards and heads that people remember depend on it.
func TestTheFormStays(t *testing.T) {
	r := Record{Before: []byte{0xab, 0xcd}, ID: 7, Completes: 5, Time: 1_800_000_000_123, Actor: "user:root", Action: "revoke-node", Target: "n\xff1", Remote: "::1", Status: 204}
	const want = "8a" + "01" + "42abcd" + "07" + "05" + "1b000001a3185c507b" +
		"49757365723a726f6f74" + "4b7265766f6b652d6e6f6465" + "436eff31" + "433a3a31" + "18cc"
	if got := hex.EncodeToString(r.Encode()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	sum := sha256.Sum256(r.Encode())
	if !bytes.Equal(r.Hash(), sum[:]) {
		t.Error("the hash is not SHA-256 of what is encoded")
	}
	if got, want := hex.EncodeToString(Record{ID: 1}.Encode()), "8a014001000040404040"+"00"; got != want {
		t.Errorf("the first record, with nothing in it: %s, want %s", got, want)
	}
}

// Two records that differ in anything have different encodings, wherever the
// difference is and whatever octets the texts hold.
func TestNothingIsAmbiguous(t *testing.T) {
	differ := func(a, b Record) bool {
		same := bytes.Equal(a.Before, b.Before) && a.ID == b.ID && a.Completes == b.Completes && a.Time == b.Time &&
			a.Actor == b.Actor && a.Action == b.Action && a.Target == b.Target && a.Remote == b.Remote && a.Status == b.Status
		return same == bytes.Equal(a.Encode(), b.Encode())
	}
	if err := quick.Check(differ, nil); err != nil {
		t.Error(err)
	}
	shift := func(r Record, cut uint8) bool {
		text := r.Actor + r.Action + r.Target + r.Remote
		n := int(cut) % (len(text) + 1)
		a, b := r, r
		a.Actor, a.Action, a.Target, a.Remote = text[:n], text[n:], "", ""
		b.Actor, b.Action, b.Target, b.Remote = "", text[:n], text[n:], ""
		return differ(a, b) && differ(a, r) && differ(b, r)
	}
	if err := quick.Check(shift, nil); err != nil {
		t.Error(err)
	}
}

// chain is records 1 to n, of which first and later are there.
type chain struct {
	first   int64
	records [][]byte // from 1 on
	heads   []Head   // at 0, 1, …
}

func newChain(n int64) *chain {
	c := &chain{first: 1, heads: []Head{{}}}
	for id := int64(1); id <= n; id++ {
		r := Record{Before: c.heads[id-1].Hash, ID: id, Actor: "user:root"}
		c.records, c.heads = append(c.records, r.Encode()), append(c.heads, Head{id, r.Hash()})
	}
	return c
}

func (c *chain) after(id int64) ([][]byte, error) {
	list := c.records[min(max(id, c.first-1), int64(len(c.records))):]
	return list[:min(len(list), 3)], nil // small pages
}

func TestTrace(t *testing.T) {
	const kept = 8
	other := newChain(12)
	other.records[3] = Record{Before: other.heads[3].Hash, ID: 4, Actor: "user:eve"}.Encode()
	for id := int64(4); id <= 12; id++ { // who can write can compute hashes, too
		if id > 4 {
			other.records[id-1] = Record{Before: other.heads[id-1].Hash, ID: id, Actor: "user:root"}.Encode()
		}
		other.heads[id] = Head{id, hash(other.records[id-1])}
	}
	for _, tc := range []struct {
		name     string
		from, to int64
		change   func(c *chain, from, to *Head)
		at       int64 // where it breaks; 0: it does not
		dropped  bool
	}{
		{name: "goes on", from: 5, to: 12},
		{name: "the same", from: 12, to: 12},
		{name: "from the beginning", from: 0, to: 12},
		{name: "both empty", from: 0, to: 0},
		{name: "more than was asked for", from: 5, to: 7},
		{name: "shorter", from: 12, to: 9, at: 10},
		{name: "empty now", from: 12, to: 0, at: 1},
		{name: "rewritten before", from: 5, to: 12, change: func(c *chain, _, to *Head) { *c, *to = *other, other.heads[12] }, at: 5},
		{name: "rewritten there", from: 4, to: 12, change: func(c *chain, _, to *Head) { *c, *to = *other, other.heads[12] }, at: 4},
		{name: "rewritten since", from: 3, to: 12, change: func(c *chain, _, to *Head) { *c, *to = *other, other.heads[12] }},
		{name: "the same place, another hash", from: 12, to: 12, change: func(_ *chain, _, to *Head) { *to = other.heads[12] }, at: 12},
		{name: "a head that the records do not lead to", from: 5, to: 12, change: func(_ *chain, _, to *Head) { *to = other.heads[12] }, at: 12},
		{name: "a record edited", from: 5, to: 12, change: func(c *chain, _, _ *Head) {
			c.records = slices.Clone(c.records)
			c.records[8] = Record{Before: c.heads[8].Hash, ID: 9, Actor: "user:eve"}.Encode()
		}, at: 9},
		{name: "a record missing", from: 5, to: 12, change: func(c *chain, _, _ *Head) { c.records = slices.Delete(slices.Clone(c.records), 8, 9) }, at: 9},
		{name: "an end that is not shown", from: 5, to: 12, change: func(c *chain, _, _ *Head) { c.records = c.records[:10] }, at: 11},
		{name: "rubbish", from: 5, to: 12, change: func(c *chain, _, _ *Head) {
			c.records = slices.Clone(c.records)
			c.records[6] = []byte("rubbish")
		}, at: 7},
		{name: "dropped, the remembered one is the anchor", from: 4, to: 12, change: func(c *chain, _, _ *Head) { c.first = 5 }},
		{name: "dropped for age", from: 2, to: 12, change: func(c *chain, _, _ *Head) { c.first = 5 }, dropped: true},
		{name: "dropped too early", from: 2, to: 12, change: func(c *chain, _, _ *Head) { c.first = 6 }, at: 3},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newChain(12)
			from, to := c.heads[tc.from], c.heads[tc.to]
			if tc.change != nil {
				tc.change(c, &from, &to)
			}
			err := Trace(from, to, kept, c.after)
			broken, _ := errors.AsType[*BreakError](err)
			switch {
			case tc.dropped != errors.Is(err, ErrDropped), (broken != nil) != (tc.at != 0), broken != nil && broken.ID != tc.at:
				t.Errorf("got %v, want a break at %d, dropped: %v", err, tc.at, tc.dropped)
			case broken == nil && !tc.dropped && err != nil:
				t.Error(err)
			}
		})
	}
	down := errors.New("no way there")
	if err := Trace(Head{}, newChain(3).heads[3], kept, func(int64) ([][]byte, error) { return nil, down }); !errors.Is(err, down) {
		t.Errorf("got %v, want the error of the page", err)
	}
}

// What a gateway sends is believed only as far as it is proved.
func FuzzTrace(f *testing.F) {
	c := newChain(6)
	f.Add(c.records[4], c.records[5])
	f.Add([]byte("rubbish"), []byte{0x9f, 0xff})
	f.Add([]byte{0x83, 1, 0x40, 0x1b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, []byte{0x83, 1, 0x40, 0x20})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		asked := 0
		err := Trace(c.heads[4], c.heads[6], 1, func(int64) ([][]byte, error) {
			asked++
			return [][]byte{a, b}, nil
		})
		if asked > 2 {
			t.Fatalf("asked %d times for two records", asked)
		}
		if genuine := bytes.Equal(a, c.records[4]) && bytes.Equal(b, c.records[5]); (err == nil) != genuine {
			t.Fatal(fmt.Errorf("genuine %v: %w", genuine, err))
		}
	})
}

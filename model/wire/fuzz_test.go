package wire

import (
	"encoding/binary"
	"hash/crc32"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"halo.internal/model"
)

// FuzzDecode feeds octets to the decoder, with the checksum put right so that
// the fuzzer reaches what lies behind it. What decodes must encode to a batch
// that decodes to the same.
func FuzzDecode(f *testing.F) {
	for _, n := range []int{1, 3, 40} {
		s := schemaOf(n)
		columns := make([][]int64, n)
		for i := range columns {
			columns[i] = ramp(6, int64(i)<<(i%60), int64(i%5))
		}
		b := batchOf(s, ramp(6, 1_800_000_000_000, 10_000), columns...)
		b.Reports[2].Values[0] = Value{}
		data, err := b.Encode(s)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data[:len(data)-sumSize], n)
	}
	f.Fuzz(func(t *testing.T, body []byte, metrics int) {
		s := schemaOf(1 + int(uint(metrics)%64))
		// The header must name the schema; fuzzers do not guess hashes.
		var e envelope
		if decoding.Unmarshal(body, &e) == nil {
			id := s.ID()
			e.Schema = id[:]
			if fixed, err := encoding.Marshal(e); err == nil {
				body = fixed
			}
		}
		data := binary.BigEndian.AppendUint32(body, crc32.Checksum(body, castagnoli))
		b, err := Decode(data, s)
		if err != nil {
			return
		}
		again, err := b.Encode(s)
		if err != nil {
			t.Fatalf("decoded but does not encode: %v", err)
		}
		got, err := Decode(again, s)
		if err != nil {
			t.Fatalf("encoded but does not decode: %v", err)
		}
		if d := cmp.Diff(b, got, cmp.AllowUnexported(BatchID{})); d != "" {
			t.Fatalf("(-want +got)\n%s", d)
		}
	})
}

// FuzzRoundTrip makes batches out of the fuzzer's octets: a bit per value says
// whether it is there, eight octets what it is.
func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18}, uint8(2), int64(math.MaxInt64))
	f.Add(make([]byte, 200), uint8(1), int64(0))
	f.Fuzz(func(t *testing.T, raw []byte, width uint8, start int64) {
		metrics := 1 + int(width%16)
		s := schemaOf(metrics)
		b := Batch{Header: Header{BatchID: ID(1, 1), Schema: s.ID(), Clock: model.ClockNone}}
		for len(raw) >= 9 && len(b.Reports) < 100 {
			r := Report{Time: start + int64(raw[0])<<(raw[1]%64)}
			for range metrics {
				if len(raw) < 9 || raw[0]&1 == 1 {
					r.Values = append(r.Values, Value{})
				} else {
					r.Values = append(r.Values, Int(int64(binary.BigEndian.Uint64(raw[1:]))>>(raw[0]%64)))
				}
				raw = raw[min(len(raw), 9):]
			}
			b.Reports = append(b.Reports, r)
		}
		if len(b.Reports) == 0 {
			return
		}
		data, err := b.Encode(s)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Decode(data, s)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(b, got, cmp.AllowUnexported(BatchID{})); d != "" {
			t.Fatalf("(-want +got)\n%s", d)
		}
	})
}

func FuzzUnmarshal(f *testing.F) {
	for _, m := range messages(f) {
		b, err := Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Unmarshal(b)
		if err != nil {
			return
		}
		if _, unknown := m.(Unknown); unknown {
			return
		}
		again, err := Marshal(m)
		if err != nil {
			t.Fatalf("%T was read but does not marshal: %v", m, err)
		}
		if _, err := Unmarshal(again); err != nil {
			t.Fatalf("%T was marshalled but is not read: %v", m, err)
		}
	})
}

func FuzzSchema(f *testing.F) {
	f.Add(schemaOf(3).Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := DecodeSchema(b)
		if err != nil {
			return
		}
		got, err := DecodeSchema(s.Encode())
		if err != nil || !got.Equal(s) {
			t.Fatalf("got %v, %v, want %v", got, err, s)
		}
	})
}

package wire

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"

	"halo.internal/model"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const sumSize = crc32.Size

// qualities lists the clock qualities by their number on the wire.
var qualities = [...]model.ClockQuality{model.ClockNone, model.ClockRTC, model.ClockGateway, model.ClockGPS, model.ClockLogin}

const (
	qualityBits = 7
	urgentBit   = 8
)

type envelope struct {
	_       struct{} `cbor:",toarray"`
	Version uint64
	Boot    uint64
	Seq     uint64
	Schema  []byte
	Flags   uint64
	Columns []byte
}

// Encode returns the batch as octets. Its schema ID is taken from s.
func (b Batch) Encode(s Schema) ([]byte, error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	if err := b.BatchID.check(); err != nil {
		return nil, err
	}
	quality := slices.Index(qualities[:], b.Clock)
	if quality < 0 {
		return nil, fmt.Errorf("batch %v: expected a clock quality none, login, rtc, gateway or gps, got %q", b.BatchID, b.Clock)
	}
	flags := uint64(quality)
	if b.Urgent {
		flags |= urgentBit
	}
	if err := checkSize(len(b.Reports), len(s.Metrics)); err != nil {
		return nil, fmt.Errorf("batch %v: %w", b.BatchID, err)
	}
	for i, r := range b.Reports {
		if len(r.Values) != len(s.Metrics) {
			return nil, fmt.Errorf("batch %v: report %d: expected %d values, one per metric, got %d", b.BatchID, i, len(s.Metrics), len(r.Values))
		}
	}
	id := s.ID()
	return envelope{Version: Version, Boot: b.Boot, Seq: b.Seq, Schema: id[:], Flags: flags, Columns: packColumns(b.Reports, len(s.Metrics))}.encode(b.BatchID)
}

// Rename returns an encoded batch under another name, else as it is.
func Rename(data []byte, id BatchID) ([]byte, error) {
	if _, _, err := open(data); err != nil {
		return nil, err
	}
	if err := id.check(); err != nil {
		return nil, err
	}
	var e envelope
	if err := decoding.Unmarshal(data[:len(data)-sumSize], &e); err != nil {
		return nil, fmt.Errorf("batch %v: %w", id, err)
	}
	e.Boot, e.Seq = id.Boot, id.Seq
	return e.encode(id)
}

// encode returns the envelope as octets, with its checksum.
func (e envelope) encode(id BatchID) ([]byte, error) {
	out, err := encoding.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("batch %v: %w", id, err)
	}
	if len(out)+sumSize > MaxBatch {
		return nil, fmt.Errorf("batch %v: %w: expected at most %d octets, got %d", id, ErrTooLarge, MaxBatch, len(out)+sumSize)
	}
	return binary.BigEndian.AppendUint32(out, crc32.Checksum(out, castagnoli)), nil
}

// DecodeHeader checks the checksum and reads all but the columns, for which
// the schema is needed.
func DecodeHeader(data []byte) (Header, error) {
	h, _, err := open(data)
	return h, err
}

// Packed is a batch whose checksum holds and whose columns are not unpacked yet: they may
// take a hundred times the room.
type Packed struct {
	Header
	columns []byte
}

// Open checks the checksum and reads all but the columns, which it shares with data.
func Open(data []byte) (Packed, error) {
	h, columns, err := open(data)
	return Packed{h, columns}, err
}

// Times returns the reports' stamps, in Unix milliseconds, one at least.
func (p Packed) Times() ([]int64, error) {
	times, _, _, err := unpackTimes(p.columns)
	if err != nil {
		return nil, fmt.Errorf("batch %v: %w", p.BatchID, err)
	}
	return times, nil
}

// Unpack reads the columns; the header names the schema s.
func (p Packed) Unpack(s Schema) (Batch, error) {
	if id := s.ID(); id != p.Schema {
		return Batch{}, fmt.Errorf("batch %v: expected schema %v, got %v", p.BatchID, p.Schema, id)
	}
	return p.UnpackColumns(len(s.Metrics))
}

// UnpackColumns is Unpack for who has looked up the schema by the name in the header, and
// knows how many metrics it has: making that name again takes longer than all the rest.
func (p Packed) UnpackColumns(metrics int) (Batch, error) {
	reports, err := unpackColumns(p.columns, metrics)
	if err != nil {
		return Batch{}, fmt.Errorf("batch %v: %w", p.BatchID, err)
	}
	return Batch{Header: p.Header, Reports: reports}, nil
}

// Decode reads a batch whose header names the schema s.
func Decode(data []byte, s Schema) (Batch, error) {
	p, err := Open(data)
	if err != nil {
		return Batch{}, err
	}
	return p.Unpack(s)
}

func open(data []byte) (Header, []byte, error) {
	if len(data) > MaxBatch || len(data) <= sumSize {
		return Header{}, nil, malformed("batch: expected %d to %d octets, got %d", sumSize+1, MaxBatch, len(data))
	}
	body, sum := data[:len(data)-sumSize], binary.BigEndian.Uint32(data[len(data)-sumSize:])
	if got := crc32.Checksum(body, castagnoli); got != sum {
		return Header{}, nil, malformed("batch: expected checksum %08x, got %08x", sum, got)
	}
	var e envelope
	if err := decoding.Unmarshal(body, &e); err != nil {
		return Header{}, nil, fmt.Errorf("%w: batch: expected [version, boot, seq, schema, flags, columns]: %w", ErrMalformed, err)
	}
	if e.Version != Version {
		return Header{}, nil, malformed("batch: expected version %d, got %d", Version, e.Version)
	}
	h := Header{BatchID: ID(e.Boot, e.Seq), Urgent: e.Flags&urgentBit != 0}
	if err := h.BatchID.check(); err != nil {
		return Header{}, nil, fmt.Errorf("batch: %w", err)
	}
	if len(e.Schema) != len(h.Schema) {
		return Header{}, nil, malformed("batch %v: expected a schema id of %d octets, got %d", h.BatchID, len(h.Schema), len(e.Schema))
	}
	h.Schema = SchemaID(e.Schema)
	quality := e.Flags & qualityBits
	if e.Flags >= 2*urgentBit || quality >= uint64(len(qualities)) {
		return Header{}, nil, malformed("batch %v: expected flags of a clock quality 0 to %d and urgency %d, got %d", h.BatchID, len(qualities)-1, urgentBit, e.Flags)
	}
	h.Clock = qualities[quality]
	return h, e.Columns, nil
}

func checkSize(reports, metrics int) error {
	if reports < 1 || reports > MaxReports {
		return malformed("expected 1 to %d reports, got %d", MaxReports, reports)
	}
	if reports*metrics > MaxValues {
		return malformed("expected at most %d values, got %d reports of %d metrics", MaxValues, reports, metrics)
	}
	return nil
}

func packColumns(reports []Report, metrics int) []byte {
	n := len(reports)
	missing := newBitmap(metrics)
	sparse := uint64(0)
	for _, r := range reports {
		for m, v := range r.Values {
			if !v.Present {
				missing.set(m)
				sparse = 1
			}
		}
	}
	out := binary.AppendUvarint(nil, uint64(n)<<1|sparse)
	column := make([]int64, n)
	for i, r := range reports {
		column[i] = r.Time
	}
	out = appendColumn(out, column)
	if sparse == 1 {
		out = append(out, missing...)
		for m := range metrics {
			if missing.get(m) {
				present := newBitmap(n)
				for i, r := range reports {
					if r.Values[m].Present {
						present.set(i)
					}
				}
				out = append(out, present...)
			}
		}
	}
	for m := range metrics {
		column = column[:0]
		for _, r := range reports {
			if v := r.Values[m]; v.Present {
				column = append(column, v.Bits)
			}
		}
		out = appendColumn(out, column)
	}
	return out
}

// unpackTimes reads the first of the columns; sparse tells that some of the others lack
// values.
func unpackTimes(b []byte) (times []int64, sparse bool, rest []byte, err error) {
	head, used := binary.Uvarint(b)
	if used <= 0 {
		return nil, false, nil, malformed("columns: expected the number of reports, got no valid varint")
	}
	if n := head >> 1; n < 1 || n > MaxReports {
		return nil, false, nil, malformed("columns: expected 1 to %d reports, got %d", MaxReports, n)
	}
	times = make([]int64, head>>1)
	if rest, err = readColumn(b[used:], times); err != nil {
		return nil, false, nil, fmt.Errorf("times: %w", err)
	}
	return times, head&1 == 1, rest, nil
}

func unpackColumns(b []byte, metrics int) ([]Report, error) {
	times, sparse, b, err := unpackTimes(b)
	if err != nil {
		return nil, err
	}
	n := len(times)
	if err := checkSize(n, metrics); err != nil {
		return nil, fmt.Errorf("columns: %w", err)
	}
	present := make([]bitmap, metrics) // nil where every report has a value
	if sparse {
		if b, err = readPresence(b, present, n); err != nil {
			return nil, err
		}
	}
	reports := make([]Report, n)
	values := make([]Value, n*metrics)
	for i := range reports {
		reports[i] = Report{Time: times[i], Values: values[i*metrics : (i+1)*metrics : (i+1)*metrics]}
	}
	column := make([]int64, n)
	for m := range metrics {
		have := n
		if present[m] != nil {
			have = present[m].count()
		}
		if b, err = readColumn(b, column[:have]); err != nil {
			return nil, fmt.Errorf("metric %d: %w", m, err)
		}
		next := 0
		for i := range reports {
			if present[m] == nil || present[m].get(i) {
				reports[i].Values[m] = Int(column[next])
				next++
			}
		}
	}
	if len(b) != 0 {
		return nil, malformed("columns: expected the end, got %d more octets", len(b))
	}
	return reports, nil
}

func readPresence(b []byte, present []bitmap, reports int) ([]byte, error) {
	missing, b, err := readBitmap(b, len(present))
	if err != nil {
		return nil, err
	}
	for m := range present {
		if missing.get(m) {
			if present[m], b, err = readBitmap(b, reports); err != nil {
				return nil, err
			}
		}
	}
	return b, nil
}

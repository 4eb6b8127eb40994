// Package block is how telemetry lies on the card once it has cooled: an hour of one
// node's readings, or what a longer time of them came to, in columns that share their
// instants. One metric is read without unpacking the others.
//
// # Block
//
// A block is, in octets, followed by a CRC-32C (4 octets, big endian) of what it is
// about, as its keeper spells that, and of it. So one that a flipped bit has moved to
// another node or hour is found out too:
//
//	version
//	uvarint(rows)
//	a part: a column of the rows' instants, Unix milliseconds
//	uvarint(runs), and for each uvarint(rows) and an octet: the clock quality of so many
//	uvarint(series), and for each
//	  uvarint(series number less the one before)
//	  a part: if sparse, a bitmap of the rows that have a value; a column of those values
//
// A part is uvarint(octets × 4 + deflated × 2 + sparse), and so many octets, by raw deflate
// where that is smaller. Columns are those of package wire. Everything read comes from a card
// that may have lost power or bits: it is bounded before it is believed.
package block

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/bits"

	"halo.internal/model/wire"
)

// Version of the format.
const Version = 2

// Limits. A block beyond one of them is neither written nor read.
const (
	MaxRows   = 1 << 16 // instants: an hour of 10 Hz has 36,000
	MaxSeries = 1 << 14
	MaxValues = 1 << 21 // rows × series: what a small block may unfold to
	MaxSize   = 4 << 20 // octets
	MaxRuns   = 1 << 10 // of clock quality
	sumSize   = crc32.Size
)

// ErrDamaged is wrapped by every error about octets that are no valid block.
var ErrDamaged = errors.New("damaged block")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func damaged(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrDamaged}, args...)...)
}

// Run is that so many rows, one after the other, were stamped by a clock of one
// quality: the number that package wire has for it.
type Run struct {
	Rows    int
	Quality byte
}

// Column is the values of one series, in the order of the rows that have one.
type Column struct {
	Series int     // number
	Have   []bool  // per row; nil: all have one
	Values []int64 // of a float metric, the bits of float64
}

// Block is a node's readings over a time.
type Block struct {
	Times   []int64 // Unix milliseconds, ascending
	Runs    []Run   // of clock quality; their rows are those of Times
	Columns []Column
}

// Check returns what is wrong with a block that is to be written.
func (b *Block) Check() error {
	rows := len(b.Times)
	if rows < 1 || rows > MaxRows {
		return fmt.Errorf("block: expected 1 to %d rows, got %d", MaxRows, rows)
	}
	for i := 1; i < rows; i++ {
		if b.Times[i] <= b.Times[i-1] {
			return fmt.Errorf("block: row %d: expected an instant after %d, got %d", i, b.Times[i-1], b.Times[i])
		}
	}
	if len(b.Runs) > MaxRuns {
		return fmt.Errorf("block: expected at most %d runs of clock quality, got %d", MaxRuns, len(b.Runs))
	}
	of := 0
	for _, r := range b.Runs {
		if r.Rows < 1 || r.Rows > rows {
			return fmt.Errorf("block: expected a run of 1 to %d rows, got %d", rows, r.Rows)
		}
		of += r.Rows
	}
	if of != rows {
		return fmt.Errorf("block: expected runs of %d rows in all, got %d", rows, of)
	}
	if len(b.Columns) > MaxSeries {
		return fmt.Errorf("block: expected at most %d series, got %d", MaxSeries, len(b.Columns))
	}
	if rows*len(b.Columns) > MaxValues {
		return fmt.Errorf("block: expected at most %d values, got %d rows of %d series", MaxValues, rows, len(b.Columns))
	}
	last := -1
	for _, c := range b.Columns {
		have := rows
		if c.Have != nil {
			if have = 0; len(c.Have) != rows {
				return fmt.Errorf("block: series %d: expected %d rows, got %d", c.Series, rows, len(c.Have))
			}
			for _, is := range c.Have {
				if is {
					have++
				}
			}
		}
		if c.Series <= last || have == 0 || len(c.Values) != have {
			return fmt.Errorf("block: series %d after %d: expected them ascending, with the values of %d rows, got %d", c.Series, last, have, len(c.Values))
		}
		last = c.Series
	}
	return nil
}

// sum is the checksum of a block that is about something.
func sum(about string, body []byte) uint32 {
	return crc32.Update(crc32.Checksum([]byte(about), castagnoli), castagnoli, body)
}

// Encode returns the block as octets; Decode has to be told the same about.
func (b *Block) Encode(about string) ([]byte, error) {
	if err := b.Check(); err != nil {
		return nil, err
	}
	d := deflaters.Get().(*deflater)
	defer deflaters.Put(d)
	out := []byte{Version}
	out = binary.AppendUvarint(out, uint64(len(b.Times)))
	body := wire.AppendColumn(nil, b.Times)
	out = d.appendPart(out, body, 0)
	out = binary.AppendUvarint(out, uint64(len(b.Runs)))
	for _, r := range b.Runs {
		out = append(binary.AppendUvarint(out, uint64(r.Rows)), r.Quality)
	}
	out = binary.AppendUvarint(out, uint64(len(b.Columns)))
	last := 0
	for _, c := range b.Columns {
		body = body[:0]
		flags := uint64(0)
		if c.Have != nil {
			flags = flagSparse
			body = appendBits(body, c.Have)
		}
		body = wire.AppendColumn(body, c.Values)
		out = binary.AppendUvarint(out, uint64(c.Series-last))
		out = d.appendPart(out, body, flags)
		last = c.Series
	}
	if len(out)+sumSize > MaxSize {
		return nil, fmt.Errorf("block: expected at most %d octets, got %d", MaxSize, len(out)+sumSize)
	}
	return binary.BigEndian.AppendUint32(out, sum(about, out)), nil
}

// Flags of a part, below its size.
const (
	flagSparse = 1 << iota
	flagDeflated
	flagBits = iota
)

// appendPart appends a part, in the shorter way.
func (d *deflater) appendPart(dst, part []byte, flags uint64) []byte {
	if deflated, smaller := d.deflate(part); smaller {
		part, flags = deflated, flags|flagDeflated
	}
	return append(binary.AppendUvarint(dst, uint64(len(part))<<flagBits|flags), part...)
}

// Decode reads a block that is about that, with the columns of those series that want is
// true for; nil: of all.
func Decode(data []byte, about string, want func(series int) bool) (*Block, error) {
	if len(data) <= sumSize || len(data) > MaxSize {
		return nil, damaged("expected %d to %d octets, got %d", sumSize+1, MaxSize, len(data))
	}
	body, stated := data[:len(data)-sumSize], binary.BigEndian.Uint32(data[len(data)-sumSize:])
	if got := sum(about, body); got != stated {
		return nil, damaged("expected checksum %08x, got %08x", stated, got)
	}
	if body[0] != Version {
		return nil, damaged("expected version %d, got %d", Version, body[0])
	}
	r := reader{b: body[1:], inflater: inflaters.Get().(*inflater)}
	defer inflaters.Put(r.inflater)
	rows, err := r.number("rows", 1, MaxRows)
	if err != nil {
		return nil, err
	}
	b := &Block{Times: make([]int64, rows)}
	if err := r.times(b.Times); err != nil {
		return nil, fmt.Errorf("instants: %w", err)
	}
	if err := r.runs(b, rows); err != nil {
		return nil, err
	}
	return b, r.columns(b, rows, want)
}

// reader takes numbers and parts off a block.
type reader struct {
	b        []byte
	inflater *inflater
}

func (r *reader) number(what string, low, high int) (int, error) {
	v, n := binary.Uvarint(r.b)
	if n <= 0 || v < uint64(low) || v > uint64(high) {
		return 0, damaged("%s: expected %d to %d, got %d", what, low, high, v)
	}
	r.b = r.b[n:]
	return int(v), nil
}

// take returns the next n octets; number has bounded n, or else there are fewer.
func (r *reader) take(n int) []byte {
	n = min(n, len(r.b))
	part := r.b[:n]
	r.b = r.b[n:]
	return part
}

// part is one as it lies in the block.
type part struct {
	octets []byte
	flags  int
}

func (r *reader) part() (part, error) {
	head, err := r.number("octets of a part", 0, MaxSize<<flagBits)
	if err != nil {
		return part{}, err
	}
	p := part{r.take(head >> flagBits), head & (1<<flagBits - 1)}
	if len(p.octets) != head>>flagBits {
		return part{}, damaged("expected a part of %d octets, got %d", head>>flagBits, len(p.octets))
	}
	return p, nil
}

// open returns what is in a part of so many rows, until it is called again.
func (r *reader) open(p part, rows int) ([]byte, error) {
	if p.flags&flagDeflated == 0 {
		return p.octets, nil
	}
	return r.inflater.inflate(p.octets, (rows+7)/8+1+maxVarint*rows)
}

func (r *reader) times(times []int64) error {
	p, err := r.part()
	if err != nil {
		return err
	}
	if p.flags&flagSparse != 0 {
		return damaged("expected one for each row")
	}
	body, err := r.open(p, len(times))
	if err != nil {
		return err
	}
	if err := column(body, times); err != nil {
		return err
	}
	for i := 1; i < len(times); i++ {
		if times[i] <= times[i-1] {
			return damaged("row %d: expected an instant after %d, got %d", i, times[i-1], times[i])
		}
	}
	return nil
}

func (r *reader) runs(b *Block, rows int) error {
	n, err := r.number("runs", 1, min(MaxRuns, rows))
	if err != nil {
		return err
	}
	left := rows
	for range n {
		of, err := r.number("rows of a run", 1, left)
		if err != nil {
			return err
		}
		q := r.take(1)
		if len(q) == 0 {
			return damaged("run: expected a clock quality, got the end")
		}
		b.Runs = append(b.Runs, Run{of, q[0]})
		left -= of
	}
	if left != 0 {
		return damaged("expected runs of %d rows, got %d less", rows, left)
	}
	return nil
}

func (r *reader) columns(b *Block, rows int, want func(int) bool) error {
	n, err := r.number("series", 0, min(MaxSeries, MaxValues/rows))
	if err != nil {
		return err
	}
	series := 0
	for i := range n {
		low := 1
		if i == 0 {
			low = 0
		}
		step, err := r.number("series number", low, 1<<31)
		if err != nil {
			return err
		}
		series += step
		p, err := r.part()
		if err != nil {
			return fmt.Errorf("series %d: %w", series, err)
		}
		if want != nil && !want(series) {
			continue
		}
		body, err := r.open(p, rows)
		if err != nil {
			return fmt.Errorf("series %d: %w", series, err)
		}
		c := Column{Series: series}
		have := rows
		if p.flags&flagSparse != 0 {
			if c.Have, body, have, err = readBits(body, rows); err != nil {
				return fmt.Errorf("series %d: %w", series, err)
			}
		}
		c.Values = make([]int64, have)
		if err := column(body, c.Values); err != nil {
			return fmt.Errorf("series %d: %w", series, err)
		}
		b.Columns = append(b.Columns, c)
	}
	if len(r.b) != 0 {
		return damaged("expected the end, got %d more octets", len(r.b))
	}
	return nil
}

// column fills vs from a whole column.
func column(b []byte, vs []int64) error {
	rest, err := wire.ReadColumn(b, vs)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if len(rest) != 0 {
		return damaged("column: expected the end, got %d more octets", len(rest))
	}
	return nil
}

func appendBits(dst []byte, have []bool) []byte {
	at := len(dst)
	dst = append(dst, make([]byte, (len(have)+7)/8)...)
	for i, is := range have {
		if is {
			dst[at+i/8] |= 1 << (i % 8)
		}
	}
	return dst
}

func readBits(b []byte, rows int) (have []bool, rest []byte, n int, err error) {
	size := (rows + 7) / 8
	if len(b) < size {
		return nil, nil, 0, damaged("expected %d octets that tell which rows have a value, got %d", size, len(b))
	}
	have = make([]bool, rows)
	for i := range have {
		have[i] = b[i/8]>>(i%8)&1 == 1
	}
	for _, o := range b[:size] {
		n += bits.OnesCount8(o)
	}
	if spare := size*8 - rows; n == 0 || spare > 0 && b[size-1]>>(8-spare) != 0 {
		return nil, nil, 0, damaged("expected a value in one of %d rows at least, and none beyond, got %d and %08b at the end", rows, n, b[size-1])
	}
	return have, b[size:], n, nil
}

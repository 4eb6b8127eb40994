package block

import (
	"bytes"
	"compress/flate"
	"io"
	"math"
	"sync"
)

// Parts of a block are deflated where that makes them smaller (RFC 1951, raw): a column's bits
// tell the encoder nothing that repeats, but steps of a counter, or of what rests for long, are
// few and alike. Each part is by itself, so that one metric is still read without the others.

const (
	deflateFrom = 16 // octets; what is shorter does not become smaller
	maxVarint   = 10 // octets of a value in a column, at most
)

// emptyEnd is how each deflated part would end: the rest of an empty stored block, whose first
// bits are in the octet before. It is not written, as in RFC 7692, 7.2.1.
var emptyEnd = []byte{0x00, 0x00, 0xff, 0xff}

// What deflates takes a megabyte, and what inflates a tenth of that: far more than a part.
var (
	deflaters = sync.Pool{New: func() any { return new(deflater) }}
	inflaters = sync.Pool{New: func() any { return new(inflater) }}
)

type deflater struct {
	w   *flate.Writer
	out bytes.Buffer
}

// deflate returns a part's deflated octets, until it is called again, where they are fewer.
func (d *deflater) deflate(part []byte) (deflated []byte, smaller bool) {
	if len(part) < deflateFrom || mixed(part) {
		return nil, false
	}
	d.out.Reset()
	if d.w == nil {
		// Others than the fastest clear tables of half a megabyte for each part.
		d.w, _ = flate.NewWriter(&d.out, flate.BestSpeed)
	} else {
		d.w.Reset(&d.out)
	}
	if _, err := d.w.Write(part); err != nil {
		return nil, false
	}
	if err := d.w.Close(); err != nil {
		return nil, false
	}
	deflated, ended := bytes.CutSuffix(d.out.Bytes(), emptyEnd)
	return deflated, ended && len(deflated) < len(part)
}

// mixed tells of octets that are too unlike each other to become fewer by a code for each,
// without making that: it takes ten times as long, and what is noise is packed well already.
// That so many do can be told from how often two of them are the same: Rényi's entropy of
// order 2 is at most Shannon's.
func mixed(part []byte) bool {
	const codeBits = 3 // of what tells the code of an octet, at least
	var times [256]int
	for _, o := range part {
		times[o]++
	}
	pairs, kinds := 0, 0
	for _, n := range times {
		pairs += n * n
		if n > 0 {
			kinds++
		}
	}
	n := float64(len(part))
	return n*math.Log2(n*n/float64(pairs))+codeBits*float64(kinds) >= 8*n
}

type inflater struct {
	from bytes.Reader
	r    io.ReadCloser
	in   []byte
	out  bytes.Buffer
}

// inflate returns what deflate was given, until it is called again: so many octets at most.
func (d *inflater) inflate(deflated []byte, most int) ([]byte, error) {
	d.in = append(append(d.in[:0], deflated...), emptyEnd...)
	d.from.Reset(d.in)
	if d.r == nil {
		d.r = flate.NewReader(&d.from)
	} else if err := d.r.(flate.Resetter).Reset(&d.from, nil); err != nil {
		return nil, damaged("inflate: %w", err)
	}
	d.out.Reset()
	if _, err := d.out.ReadFrom(io.LimitReader(d.r, int64(most)+1)); err != nil {
		return nil, damaged("expected deflated octets: %w", err)
	}
	if d.out.Len() > most || d.from.Len() > 0 {
		return nil, damaged("expected at most %d octets, deflated into all of %d, got %d, and %d left", most, len(deflated), d.out.Len(), d.from.Len())
	}
	return d.out.Bytes(), nil
}

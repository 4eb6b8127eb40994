// Package wire is how readings travel: a batch codec that packs reports into
// columns of few bits, and the messages of the stream between a node and its
// gateway. Everything it decodes comes from the air or from a card that lost
// power, so every length is bounded before it is believed.
//
// # Batch
//
// A batch is a CBOR array followed by a CRC-32C of it (4 octets, big endian):
//
//	[version, boot, seq, schema id (8 octets), flags, columns (octets)]
//
// flags holds the clock quality in its low three bits (0 none, 1 rtc,
// 2 gateway, 3 gps, 4 login) and urgency in the fourth. columns is
//
//	uvarint(reports × 2 + sparse)
//	times, a column of Unix milliseconds
//	if sparse: a bitmap of the metrics that lack values; for each of those a
//	  bitmap of the reports that have one
//	per metric a column of the values that are there
//
// A column of one value is a zigzag varint. A longer one starts with an octet
// mode<<6 | width. In modes 0, 1 and 2 the values, their differences or the
// differences of those are stored as a smallest one (zigzag varint) and what
// exceeds it in width bits each, lowest bits first (width 63 means 64); before
// it stand the first value and the first difference where the mode takes them
// away. In mode 3 width is 0, 1 or 2 for the same three series, stored as
// zigzag varints. So a constant costs nothing per report, a steady counter or
// clock neither, noise costs its bits, and rare leaps cost only themselves.
// The encoder tries them all and takes the smallest, the first on a tie: the
// same batch always gives the same octets.
package wire

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"halo.internal/model"
)

// Version of the batch format.
const Version = 1

// Limits. A batch beyond one of them is neither written nor read.
const (
	MaxBatch   = 64 << 10 // octets, encoded
	MaxReports = 1024     // in a batch
	MaxMetrics = 512      // in a schema
	MaxValues  = 64 << 10 // reports × metrics: what a small batch may unfold to
	MaxName    = 96       // octets of a metric's name
	MaxUnit    = 16       // octets of a unit
	MaxScale   = 12       // decimal places, either way
	MaxCounter = 1<<53 - 1
)

// ErrMalformed is wrapped by every error about octets that are no valid batch,
// schema or message.
var ErrMalformed = errors.New("malformed")

// ErrTooLarge is wrapped by Encode when the batch has to be split.
var ErrTooLarge = errors.New("batch too large")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrMalformed}, args...)...)
}

// BatchID names a batch of one node for ever; events are named the same way.
type BatchID struct {
	_    struct{} `cbor:",toarray"`
	Boot uint64   `json:"boot"`
	Seq  uint64   `json:"seq"`
}

// ID returns the name of batch (or event) seq of that boot.
func ID(boot, seq uint64) BatchID { return BatchID{Boot: boot, Seq: seq} }

// String prints boot.seq.
func (i BatchID) String() string { return fmt.Sprintf("%d.%d", i.Boot, i.Seq) }

func (i BatchID) check() error {
	if i.Boot < 1 || i.Boot > MaxCounter || i.Seq < 1 || i.Seq > MaxCounter {
		return malformed("boot and seq: expected 1 to 2^53-1, got %v", i)
	}
	return nil
}

// Value is one number: an integer to be scaled by its metric (of a float
// metric, the bits of a float64), or missing, which is the zero Value.
type Value struct {
	Bits    int64
	Present bool
}

// Int returns a present integer value.
func Int(i int64) Value { return Value{i, true} }

// Float returns a present value of a float metric.
func Float(f float64) Value { return Value{int64(math.Float64bits(f)), true} }

// Report is what was read at one instant: a value per metric of the schema.
type Report struct {
	Time   int64 // Unix milliseconds
	Values []Value
}

// At returns the instant of the report.
func (r Report) At() time.Time { return time.UnixMilli(r.Time).UTC() }

// Header is what a batch says without its schema.
type Header struct {
	BatchID
	Schema SchemaID
	Clock  model.ClockQuality // of every stamp in it
	Urgent bool               // sent at once, for a reading that crossed a limit
}

// Batch is a run of reports by one schema.
type Batch struct {
	Header
	Reports []Report
}

// Covers tells whether part is the batch itself or a thinned form of it: the
// same header, and none but reports of this batch, in their order.
func (b Batch) Covers(part Batch) bool {
	if b.Header != part.Header {
		return false
	}
	have := b.Reports
	for _, p := range part.Reports {
		i := slices.IndexFunc(have, func(r Report) bool { return r.Time == p.Time && slices.Equal(r.Values, p.Values) })
		if i < 0 {
			return false
		}
		have = have[i+1:]
	}
	return true
}

package wire

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math"
	"regexp"
	"slices"

	"github.com/fxamacker/cbor/v2"
)

// ScaleFloat marks a metric whose values are float64: readings that no decimal
// of 64 bits holds.
const ScaleFloat int8 = 127

// Metric names a series, its unit, and how its integers are to be read: the
// value is the integer divided by 10 to the power of Scale.
type Metric struct {
	_     struct{} `cbor:",toarray"`
	Name  string   // <source>.<thing>.<metric>, e.g. system.cpu.used_percent
	Unit  string   // e.g. "%", "B", "°C"; empty for a plain number
	Scale int8     // decimal places, or ScaleFloat
}

// NewMetric returns a metric; Schema.Check judges it.
func NewMetric(name, unit string, scale int8) Metric {
	return Metric{Name: name, Unit: unit, Scale: scale}
}

// Number returns v as a number in the metric's unit, NaN when it is missing.
func (m Metric) Number(v Value) float64 {
	switch {
	case !v.Present:
		return math.NaN()
	case m.Scale == ScaleFloat:
		return math.Float64frombits(uint64(v.Bits))
	case m.Scale >= 0:
		// Dividing by an exact power of ten rounds once; multiplying by 0.1 would twice.
		return float64(v.Bits) / math.Pow10(int(m.Scale))
	default:
		return float64(v.Bits) * math.Pow10(-int(m.Scale))
	}
}

// SchemaID is the first 8 octets of the SHA-256 of a schema's canonical CBOR.
type SchemaID [8]byte

// String prints it in hex.
func (id SchemaID) String() string { return hex.EncodeToString(id[:]) }

// Schema lists the metrics of a batch, in the order of its columns.
type Schema struct {
	Metrics []Metric
}

var nameForm = regexp.MustCompile(`^[a-z0-9_-]+\.[A-Za-z0-9_-]+\.[a-z0-9_-]+$`)

// Check tells what is wrong with the schema.
func (s Schema) Check() error {
	if n := len(s.Metrics); n < 1 || n > MaxMetrics {
		return malformed("schema: expected 1 to %d metrics, got %d", MaxMetrics, n)
	}
	seen := make(map[string]bool, len(s.Metrics))
	for _, m := range s.Metrics {
		switch {
		case len(m.Name) > MaxName || !nameForm.MatchString(m.Name):
			return malformed("schema: expected a name <source>.<thing>.<metric> of letters, digits, _ and -, at most %d, got %.120q", MaxName, m.Name)
		case seen[m.Name]:
			return malformed("schema: expected each metric once, got %s twice", m.Name)
		case len(m.Unit) > MaxUnit:
			return malformed("schema: %s: expected a unit of at most %d octets, got %d", m.Name, MaxUnit, len(m.Unit))
		case m.Scale != ScaleFloat && (m.Scale < -MaxScale || m.Scale > MaxScale):
			return malformed("schema: %s: expected a scale of -%d to %d or %d for floats, got %d", m.Name, MaxScale, MaxScale, ScaleFloat, m.Scale)
		}
		seen[m.Name] = true
	}
	return nil
}

// Equal tells whether both list the same metrics in the same order.
func (s Schema) Equal(o Schema) bool { return slices.Equal(s.Metrics, o.Metrics) }

// Encode returns the canonical CBOR: an array of [name, unit, scale].
func (s Schema) Encode() []byte {
	b, err := encoding.Marshal(s.Metrics)
	if err != nil {
		panic("wire: schema: " + err.Error()) // strings and small integers always encode
	}
	return b
}

// ID returns the schema's name.
func (s Schema) ID() SchemaID {
	h := sha256.Sum256(s.Encode())
	return SchemaID(h[:8])
}

// DecodeSchema reads a schema and checks it.
func DecodeSchema(b []byte) (Schema, error) {
	if len(b) > MaxBatch {
		return Schema{}, malformed("schema: expected at most %d octets, got %d", MaxBatch, len(b))
	}
	var s Schema
	if err := decoding.Unmarshal(b, &s.Metrics); err != nil {
		return Schema{}, fmt.Errorf("%w: schema: expected an array of [name, unit, scale]: %w", ErrMalformed, err)
	}
	return s, s.Check()
}

// encoding is core deterministic CBOR (RFC 8949, section 4.2).
var encoding = must(cbor.EncOptions{Sort: cbor.SortBytewiseLexical, Time: cbor.TimeRFC3339Nano, OmitEmpty: cbor.OmitEmptyGoValue}.EncMode())

// decoding refuses what the encoder never writes: tags, indefinite lengths,
// deep nesting, keys given twice.
var decoding = must(cbor.DecOptions{
	DupMapKey:        cbor.DupMapKeyEnforcedAPF,
	IndefLength:      cbor.IndefLengthForbidden,
	TagsMd:           cbor.TagsForbidden,
	MaxNestedLevels:  8,
	MaxArrayElements: MaxReports,
	MaxMapPairs:      256,
	UTF8:             cbor.UTF8RejectInvalid,
}.DecMode())

func must[T any](v T, err error) T {
	if err != nil {
		panic("wire: " + err.Error()) // constant options, tried by every test
	}
	return v
}

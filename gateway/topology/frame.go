package topology

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/fxamacker/cbor/v2"

	"halo.internal/model"
	"halo.internal/model/graph"
)

// A frame is a delta as it is written down: an octet that is 0 for plain and 1 for
// deflated, CBOR, and the CRC-32C of both, big endian. A picture is the delta that
// makes it of nothing. Rows name nodes, names and radios by their place in the
// tables before them, from 1 on where there may be none.

// MaxFrame bounds a frame before it is deflated: some 600 nodes with 5,000 links.
const MaxFrame = 1 << 20

const (
	frameVersion = 1
	deflateFrom  = 256 // octets; less is not worth it
	maxRows      = 1 << 15
)

// ErrDamaged is wrapped where octets are no frame.
var ErrDamaged = errors.New("no frame of the history")

type frame struct {
	Version   uint64                          `cbor:"1,keyasint"`
	Run       uint64                          `cbor:"2,keyasint"`
	From      uint64                          `cbor:"3,keyasint,omitempty"`
	Seq       uint64                          `cbor:"4,keyasint"`
	At        int64                           `cbor:"5,keyasint"` // Unix milliseconds
	Gateway   int                             `cbor:"6,keyasint,omitempty"`
	Score     int                             `cbor:"7,keyasint,omitempty"`
	Reasons   []reasonRow                     `cbor:"8,keyasint,omitempty"`
	IDs       [][]byte                        `cbor:"9,keyasint,omitempty"`  // packed canonical IDs, or hardware addresses
	Texts     []string                        `cbor:"10,keyasint,omitempty"` // names of nodes
	Radios    []radioRow                      `cbor:"11,keyasint,omitempty"`
	Nodes     changeRows[nodeRow, int]        `cbor:"12,keyasint"`
	Links     changeRows[linkRow, linkIDRow]  `cbor:"13,keyasint"`
	Routes    changeRows[routeRow, int]       `cbor:"14,keyasint"`
	Cuts      changeRows[cutRow, cutIDRow]    `cbor:"15,keyasint"`
	Conflicts changeRows[conflictRow, []byte] `cbor:"16,keyasint"`
}

type changeRows[T, K any] struct {
	_       struct{} `cbor:",toarray"`
	Added   []T
	Changed []T
	Removed []K
}

type reasonRow struct {
	_                       struct{} `cbor:",toarray"`
	Code, Lost, Node, Value int
}

type radioRow struct {
	_                 struct{} `cbor:",toarray"`
	Iface             string
	FreqKHz, WidthKHz int
}

type nodeRow struct {
	_                                            struct{} `cbor:",toarray"`
	ID, Name, Kind, Report                       int
	Heard                                        int64 // Unix milliseconds, 0 where it is not said
	Addresses                                    []byte
	Neighbours, Overlay, Direct, NextHops, Score int
	Reasons                                      []reasonRow
}

type linkIDRow struct {
	_               struct{} `cbor:",toarray"`
	A, B, Transport int
}

type linkRow struct {
	_               struct{} `cbor:",toarray"`
	Link            linkIDRow
	State, Parallel int
	AB, BA          *directionRow // nil where the end reports nothing
}

type directionRow struct {
	_                                                                    struct{} `cbor:",toarray"`
	Radio, Quality, Limit, Signal, Tx, Rx, Expected, TQ, Retries, Failed int
}

type routeRow struct {
	_                                                                          struct{} `cbor:",toarray"`
	Node, State, Next, Transport, Flags, Hops, Cost, Worst, TQ, Kbps, End, Why int
	Loop                                                                       []int
}

type cutIDRow struct {
	_    struct{} `cbor:",toarray"`
	Node int
	Link *linkIDRow
}

type cutRow struct {
	_     struct{} `cbor:",toarray"`
	Cut   cutIDRow
	Count int
	Split []int
}

type conflictRow struct {
	_       struct{} `cbor:",toarray"`
	Address []byte
	Nodes   []int
}

// What rows have numbers for, from 0 on. New ones go to the end.
var (
	kinds         = []graph.Kind{graph.KindNode, graph.KindGateway, graph.KindStranger}
	freshnesses   = []graph.Freshness{graph.Fresh, graph.Late, graph.Silent, graph.Never}
	overlays      = []graph.Overlay{graph.OverlayUp, graph.OverlayOld, graph.OverlayDown, graph.OverlayUnknown}
	linkStates    = []graph.LinkState{graph.Live, graph.OneWay, graph.Stale}
	limits        = []graph.Limit{"", graph.LimitSignal, graph.LimitLoss, graph.LimitTQ, graph.LimitUnknown}
	routeStates   = []graph.RouteState{graph.RouteOK, graph.RouteLoop, graph.RouteDeadEnd}
	ends          = []string{"", graph.EndNoWay, graph.EndNoReport, graph.EndUnknownHop, graph.EndGatewayOff}
	rowTransports = []model.Transport{"", model.TransportEthernet, model.TransportHaLow, model.TransportWiFi}
)

const (
	flagGuessed = 1 << iota
	flagEstimated
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	frameOut   = must(cbor.EncOptions{Sort: cbor.SortBytewiseLexical}.EncMode())
	frameIn    = must(cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
		MaxNestedLevels: 8, MaxArrayElements: maxRows, MaxMapPairs: 32,
	}.DecMode())
)

func must[T any](v T, err error) T {
	if err != nil {
		panic("topology: " + err.Error()) // constant options, tried by every test
	}
	return v
}

// sealer makes octets to be stored of frames. It keeps what deflating needs, which is
// 800 KB.
type sealer struct{ deflate *flate.Writer }

func (s *sealer) seal(f frame) ([]byte, error) {
	body, err := frameOut.Marshal(f)
	if err != nil {
		return nil, fmt.Errorf("history: %w", err)
	}
	if len(body) > MaxFrame {
		return nil, fmt.Errorf("history: expected a frame of at most %d octets, got %d", MaxFrame, len(body))
	}
	var out bytes.Buffer
	if len(body) < deflateFrom {
		out.WriteByte(0)
		out.Write(body)
	} else {
		out.WriteByte(1)
		if s.deflate == nil {
			s.deflate, _ = flate.NewWriter(nil, flate.DefaultCompression) // fails for levels that there are not
		}
		s.deflate.Reset(&out)
		if _, err = s.deflate.Write(body); err == nil {
			err = s.deflate.Close()
		}
		if err != nil {
			return nil, fmt.Errorf("history: %w", err)
		}
	}
	return binary.BigEndian.AppendUint32(out.Bytes(), crc32.Checksum(out.Bytes(), castagnoli)), nil
}

// unseal reads what seal makes.
func unseal(b []byte) (f frame, err error) {
	const least = 1 + crc32.Size
	if len(b) <= least || len(b) > MaxFrame+least {
		return f, fmt.Errorf("%w: expected %d to %d octets, got %d", ErrDamaged, least+1, MaxFrame+least, len(b))
	}
	head, sum := b[:len(b)-crc32.Size], binary.BigEndian.Uint32(b[len(b)-crc32.Size:])
	if got := crc32.Checksum(head, castagnoli); got != sum {
		return f, fmt.Errorf("%w: expected checksum %08x, got %08x", ErrDamaged, sum, got)
	}
	body := head[1:]
	switch head[0] {
	case 0:
	case 1:
		if body, err = io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(body)), MaxFrame+1)); err != nil {
			return f, fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		if len(body) > MaxFrame {
			return f, fmt.Errorf("%w: expected at most %d octets when it is inflated", ErrDamaged, MaxFrame)
		}
	default:
		return f, fmt.Errorf("%w: expected form 0 or 1, got %d", ErrDamaged, head[0])
	}
	if err := frameIn.Unmarshal(body, &f); err != nil {
		return f, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if f.Version != frameVersion {
		return f, fmt.Errorf("%w: expected version %d, got %d", ErrDamaged, frameVersion, f.Version)
	}
	return f, nil
}

package wire

import (
	"fmt"

	"halo.internal/model"
)

const (
	// NeighboursVersion is that of the packed lists. A gateway ignores reports of
	// another: a node that has them shows without links until it is updated.
	NeighboursVersion = 1

	// MaxNeighbours bounds the body of a report: 128 links take 6 KiB, 256 sessions 4.
	MaxNeighbours = 16 << 10
)

// neighbours is the body of a NeighboursMessage. Lists without anything are left out.
type neighbours struct {
	Version    uint64                 `cbor:"1,keyasint"`
	Seq        uint64                 `cbor:"2,keyasint"`
	Base       uint64                 `cbor:"3,keyasint,omitempty"`
	EveryS     int                    `cbor:"4,keyasint,omitempty"`
	Interfaces model.ReportInterfaces `cbor:"5,keyasint,omitzero"`
	NextHops   model.ReportNextHops   `cbor:"6,keyasint,omitzero"`
	Overlay    model.ReportOverlay    `cbor:"7,keyasint,omitzero"`
}

func neighboursOf(r model.Report) neighbours {
	n := neighbours{Version: NeighboursVersion, Seq: r.Seq, Base: r.Base, EveryS: r.EveryS}
	if len(r.Interfaces) > 0 {
		n.Interfaces = r.Interfaces
	}
	if len(r.NextHops) > 0 {
		n.NextHops = r.NextHops
	}
	if len(r.Overlay) > 0 {
		n.Overlay = r.Overlay
	}
	return n
}

// decodeNeighbours looks at the version first: what follows may be anything in another.
func decodeNeighbours(b []byte) (Message, error) {
	if len(b) > MaxNeighbours {
		return nil, malformed("neighbours: expected at most %d octets, got %d", MaxNeighbours, len(b))
	}
	var head struct {
		Version uint64 `cbor:"1,keyasint"`
	}
	if err := decoding.Unmarshal(b, &head); err != nil {
		return nil, fmt.Errorf("%w: neighbours: expected a map with integer keys: %w", ErrMalformed, err)
	}
	if head.Version != NeighboursVersion {
		return Unknown{typeNeighbours}, nil
	}
	var n neighbours
	if err := decoding.Unmarshal(b, &n); err != nil {
		return nil, fmt.Errorf("%w: neighbours: %w", ErrMalformed, err)
	}
	m := NeighboursMessage{model.Report{Seq: n.Seq, Base: n.Base, EveryS: n.EveryS, Interfaces: n.Interfaces, NextHops: n.NextHops, Overlay: n.Overlay}}
	return m, m.check()
}

// Of returns the report as that of a node and a boot.
func (m NeighboursMessage) Of(node string, boot uint64) model.Report {
	r := m.Report
	r.Node, r.Boot = node, boot
	return r
}

func (m NeighboursMessage) check() error {
	r := m.Report
	if r.Boot == 0 { // as it comes off the wire
		r = m.Of(nobody, 1)
	}
	if err := r.Check(); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return nil
}

// nobody stands where the stream tells the node.
const nobody = "n-aaaaaaaaaaaaaaaaaaaa"

func (NeighboursWanted) check() error { return nil }

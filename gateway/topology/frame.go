package topology

import (
	"bytes"
	"compress/flate"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"time"

	"github.com/fxamacker/cbor/v2"

	"halo.internal/model"
	"halo.internal/model/dot11"
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
	kinds         = []Kind{KindNode, KindGateway, KindStranger}
	freshnesses   = []Freshness{Fresh, Late, Silent, Never}
	overlays      = []Overlay{OverlayUp, OverlayOld, OverlayDown, OverlayUnknown}
	linkStates    = []LinkState{Live, OneWay, Stale}
	limits        = []Limit{"", LimitSignal, LimitLoss, LimitTQ, LimitUnknown}
	routeStates   = []RouteState{RouteOK, RouteLoop, RouteDeadEnd}
	ends          = []string{"", EndNoWay, EndNoReport, EndUnknownHop, EndGatewayOff}
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

// encode makes the octets of a delta.
func (s *sealer) encode(d Delta) ([]byte, error) {
	f, err := frameOf(d)
	if err != nil {
		return nil, err
	}
	return s.seal(f)
}

func frameOf(d Delta) (frame, error) {
	w := frameWriter{ids: map[string]int{}, texts: map[string]int{}, radios: map[radioRow]int{}}
	w.f = frame{Version: frameVersion, Run: d.Run, From: d.From, Seq: d.Seq, At: d.At.UnixMilli(), Score: d.Score}
	w.f.Gateway = w.id(d.Gateway)
	w.f.Reasons = w.reasons(d.Reasons)
	w.f.Nodes = rows(d.Nodes, w.node, w.id)
	w.f.Links = rows(d.Links, w.link, w.linkID)
	w.f.Routes = rows(d.Routes, w.route, w.id)
	w.f.Cuts = rows(d.Cuts, w.cut, w.cutID)
	w.f.Conflicts = rows(d.Conflicts, w.conflict, func(a dot11.MAC) []byte { return a[:] })
	if w.err != nil {
		return frame{}, fmt.Errorf("history: %w", w.err)
	}
	return w.f, nil
}

func rows[T, K, R, Q any](c Changes[T, K], row func(T) R, key func(K) Q) (out changeRows[R, Q]) {
	for _, t := range c.Added {
		out.Added = append(out.Added, row(t))
	}
	for _, t := range c.Changed {
		out.Changed = append(out.Changed, row(t))
	}
	for _, k := range c.Removed {
		out.Removed = append(out.Removed, key(k))
	}
	return out
}

// frameWriter fills the tables while it makes rows.
type frameWriter struct {
	f      frame
	ids    map[string]int
	texts  map[string]int
	radios map[radioRow]int
	err    error
}

// id returns the place of a node in the table, 0 for none.
func (w *frameWriter) id(s string) int {
	if n, ok := w.ids[s]; ok || s == "" {
		return n
	}
	b, err := model.PackNode(nil, s)
	if err != nil {
		a, err := dot11.ParseMAC(s)
		if err != nil {
			w.err = fmt.Errorf("expected a canonical ID or a hardware address, got %.40q", s)
			return 0
		}
		b = a[:]
	}
	w.f.IDs = append(w.f.IDs, b)
	w.ids[s] = len(w.f.IDs)
	return len(w.f.IDs)
}

func (w *frameWriter) idList(list []string) []int {
	out := make([]int, len(list))
	for i, s := range list {
		out[i] = w.id(s)
	}
	return out
}

func (w *frameWriter) text(s string) int {
	if n, ok := w.texts[s]; ok || s == "" {
		return n
	}
	w.f.Texts = append(w.f.Texts, s)
	w.texts[s] = len(w.f.Texts)
	return len(w.f.Texts)
}

func (w *frameWriter) reasons(list []Reason) []reasonRow {
	out := make([]reasonRow, len(list))
	for i, r := range list {
		out[i] = reasonRow{Code: slices.Index(codes[:], r.Code), Lost: r.Lost, Node: w.id(r.Node), Value: r.Value}
	}
	return out
}

func (w *frameWriter) node(n Node) nodeRow {
	row := nodeRow{ID: w.id(n.ID), Name: w.text(n.Name), Kind: slices.Index(kinds, n.Kind), Report: slices.Index(freshnesses, n.Report),
		Neighbours: n.Neighbours, Overlay: slices.Index(overlays, n.Overlay), Direct: n.Direct, NextHops: n.NextHops, Score: n.Score, Reasons: w.reasons(n.Reasons)}
	if !n.Heard.IsZero() {
		row.Heard = n.Heard.UnixMilli()
	}
	for _, a := range n.Addresses {
		row.Addresses = append(row.Addresses, a[:]...)
	}
	return row
}

func (w *frameWriter) linkID(l LinkID) linkIDRow {
	return linkIDRow{A: w.id(l.A), B: w.id(l.B), Transport: slices.Index(rowTransports, l.Transport)}
}

func (w *frameWriter) link(l Link) linkRow {
	return linkRow{Link: w.linkID(l.LinkID), State: slices.Index(linkStates, l.State), Parallel: l.Parallel, AB: w.direction(l.AB), BA: w.direction(l.BA)}
}

func (w *frameWriter) direction(d Direction) *directionRow {
	if d.Iface == "" {
		return nil
	}
	radio := radioRow{Iface: d.Iface, FreqKHz: d.FreqKHz, WidthKHz: d.WidthKHz}
	at, known := w.radios[radio]
	if !known {
		at = len(w.f.Radios)
		w.f.Radios, w.radios[radio] = append(w.f.Radios, radio), at
	}
	return &directionRow{Radio: at, Quality: d.Quality, Limit: slices.Index(limits, d.Limit), Signal: d.SignalDBm, Tx: d.TxKbps, Rx: d.RxKbps,
		Expected: d.ExpectedKbps, TQ: d.TQ, Retries: d.RetryPermille, Failed: d.FailPermille}
}

func (w *frameWriter) route(r Route) routeRow {
	row := routeRow{Node: w.id(r.Node), State: slices.Index(routeStates, r.State), Next: w.id(r.Next), Transport: slices.Index(rowTransports, r.Transport),
		Hops: r.Hops, Cost: r.Cost, Worst: r.Worst, TQ: r.TQ, Kbps: r.Kbps, End: w.id(r.End), Why: slices.Index(ends, r.Why), Loop: w.idList(r.Loop)}
	if r.Guessed {
		row.Flags |= flagGuessed
	}
	if r.Estimated {
		row.Flags |= flagEstimated
	}
	return row
}

func (w *frameWriter) cutID(c CutID) cutIDRow {
	row := cutIDRow{Node: w.id(c.Node)}
	if c.Node == "" {
		link := w.linkID(c.Link)
		row.Link = &link
	}
	return row
}

func (w *frameWriter) cut(c Cut) cutRow {
	return cutRow{Cut: w.cutID(c.CutID), Count: c.Count, Split: w.idList(c.Split)}
}

func (w *frameWriter) conflict(c Conflict) conflictRow {
	return conflictRow{Address: c.Address[:], Nodes: w.idList(c.Nodes)}
}

func unixMilli(ms int64) time.Time { return time.UnixMilli(ms).UTC() }

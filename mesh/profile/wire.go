package profile

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fxamacker/cbor/v2"
	"golang.org/x/crypto/chacha20poly1305"

	"halo.internal/identity"
	"halo.internal/model/bundle"
)

// context keeps the signature from being taken for one of something else.
const context = "halo mesh profile 1"

// The form on the wire and on the card.
type (
	whole struct {
		_         struct{} `cbor:",toarray"`
		Head      []byte
		Signature []byte
		Entries   []byte // of all members, one behind the other
	}
	excerpt struct {
		_         struct{} `cbor:",toarray"`
		Head      []byte
		Signature []byte
		Index     uint64
		Entry     []byte
		Path      []byte // hashes, one behind the other
	}
	head struct {
		_         struct{} `cbor:",toarray"`
		Epoch     uint64
		Serial    uint64
		IssuedMS  int64
		SSID      string
		Mesh      parameters
		Former    []former
		Members   uint64
		Root      []byte
		Ephemeral []byte
		Box       []byte
	}
	former struct {
		_       struct{} `cbor:",toarray"`
		Mesh    parameters
		UntilMS int64
	}
	// parameters is a profile without mesh ID and secret. Those that leave the hop
	// penalty out are written without it, as they were before there was one: cards
	// keep such documents, and members that know no more read them.
	parameters struct {
		basic
		HopPenalty int
	}
	basic struct {
		_              struct{} `cbor:",toarray"`
		Routing        string
		Channel        int
		Width          int
		MFP            string
		SAE            string
		BeaconInterval int
		HaLowChannel   int
		HaLowScheme    string
	}
	penalised struct {
		_          struct{} `cbor:",toarray"`
		Basic      basic
		HopPenalty int
	}
)

const (
	entrySize = tagSize + sealedSize
	maxBox    = 400 // five secrets of 63 octets, and then some
	maxPath   = 10  // hashes: 1024 leaves
)

var (
	encMode = must(cbor.CoreDetEncOptions().EncMode())
	decMode = must(cbor.DecOptions{
		MaxArrayElements: 16, MaxNestedLevels: 6, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
	}.DecMode())
)

func must[T any](v T, err error) T {
	if err != nil {
		panic("profile: " + err.Error()) // constant options are valid or they are not
	}
	return v
}

func parametersOf(m bundle.Mesh) parameters {
	return parameters{HopPenalty: m.HopPenalty, basic: basic{
		Routing: m.Routing, Channel: m.Channel, Width: m.Width, MFP: m.MFP, SAE: m.SAE,
		BeaconInterval: m.BeaconInterval, HaLowChannel: m.HaLowChannel, HaLowScheme: m.HaLowScheme,
	}}
}

// MarshalCBOR writes the shorter form where there is one.
func (p parameters) MarshalCBOR() ([]byte, error) {
	if p.HopPenalty == 0 {
		return encMode.Marshal(p.basic)
	}
	return encMode.Marshal(penalised{Basic: p.basic, HopPenalty: p.HopPenalty})
}

// UnmarshalCBOR reads both: they differ by how many fields they have
// (RFC 8949 3.1).
func (p *parameters) UnmarshalCBOR(b []byte) error {
	if len(b) > 0 && b[0] != 0x80|2 {
		*p = parameters{}
		return decMode.Unmarshal(b, &p.basic)
	}
	var l penalised
	if err := decMode.Unmarshal(b, &l); err != nil {
		return err
	}
	if l.HopPenalty == 0 {
		return errors.New("expected a hop penalty, or the form without")
	}
	*p = parameters{basic: l.Basic, HopPenalty: l.HopPenalty}
	return nil
}

func (p parameters) mesh(ssid string) bundle.Mesh {
	return bundle.Mesh{
		SSID: ssid, Routing: p.Routing, HopPenalty: p.HopPenalty, Channel: p.Channel, Width: p.Width, MFP: p.MFP, SAE: p.SAE,
		BeaconInterval: p.BeaconInterval, HaLowChannel: p.HaLowChannel, HaLowScheme: p.HaLowScheme,
	}
}

func (d Document) encodeHead() []byte {
	h := head{
		Epoch: d.Epoch, Serial: d.Serial, IssuedMS: d.Issued.UnixMilli(), SSID: d.Mesh.SSID, Mesh: parametersOf(d.Mesh), Former: []former{},
		Members: uint64(d.Members), Root: d.root[:], Ephemeral: d.ephemeral[:], Box: d.box,
	}
	for _, f := range d.Former {
		h.Former = append(h.Former, former{Mesh: parametersOf(f.Mesh), UntilMS: f.Until.UnixMilli()})
	}
	return must(encMode.Marshal(h))
}

// Marshal returns the form on the wire: that of a whole document, or of an excerpt.
func (d Document) Marshal() []byte {
	if d.Whole() {
		w := whole{Head: d.head, Signature: d.signature}
		for _, e := range d.entries {
			w.Entries = append(append(w.Entries, e.tag[:]...), e.sealed[:]...)
		}
		return must(encMode.Marshal(w))
	}
	x := excerpt{Head: d.head, Signature: d.signature, Index: uint64(d.index), Path: []byte{}}
	for _, e := range d.entries {
		x.Entry = slices.Concat(e.tag[:], e.sealed[:])
	}
	for _, h := range d.path {
		x.Path = append(x.Path, h[:]...)
	}
	return must(encMode.Marshal(x))
}

// Parse verifies a document of that network, whole or an excerpt. Whether it takes
// the place of another is the caller's to ask.
func Parse(network identity.PublicKey, b []byte) (Document, error) {
	if len(b) > MaxSize {
		return Document{}, fmt.Errorf("%w: expected at most %d octets, got %d", ErrForm, MaxSize, len(b))
	}
	// The forms differ by how many fields they have (RFC 8949 3.1).
	if len(b) > 0 && b[0] == 0x80|5 {
		return parseExcerpt(network, b)
	}
	var w whole
	if err := decMode.Unmarshal(b, &w); err != nil {
		return Document{}, fmt.Errorf("%w: %w", ErrForm, err)
	}
	d, err := parseHead(network, w.Head, w.Signature)
	if err != nil {
		return Document{}, err
	}
	if len(w.Entries) != d.Members*entrySize {
		return Document{}, fmt.Errorf("%w: expected %d entries of %d octets, got %d octets", ErrForm, d.Members, entrySize, len(w.Entries))
	}
	for e := range slices.Chunk(w.Entries, entrySize) {
		d.entries = append(d.entries, parseEntry(e))
	}
	if !slices.IsSortedFunc(d.entries, func(a, b entry) int { return bytes.Compare(a.tag[:], b.tag[:]) }) {
		return Document{}, fmt.Errorf("%w: expected entries in order", ErrForm)
	}
	if root(leaves(d.entries)) != d.root {
		return Document{}, fmt.Errorf("%w: expected the entries that were signed, got others", ErrForm)
	}
	return d, nil
}

func parseExcerpt(network identity.PublicKey, b []byte) (Document, error) {
	if len(b) > MaxExcerpt {
		return Document{}, fmt.Errorf("%w: expected an excerpt of at most %d octets, got %d", ErrForm, MaxExcerpt, len(b))
	}
	var x excerpt
	if err := decMode.Unmarshal(b, &x); err != nil {
		return Document{}, fmt.Errorf("%w: %w", ErrForm, err)
	}
	d, err := parseHead(network, x.Head, x.Signature)
	if err != nil {
		return Document{}, err
	}
	if len(x.Entry) != entrySize || x.Index >= uint64(d.Members) || len(x.Path)%32 != 0 || len(x.Path) > 32*maxPath {
		return Document{}, fmt.Errorf("%w: expected one of %d entries and its path, got %d octets at %d and %d octets", ErrForm, d.Members, len(x.Entry), x.Index, len(x.Path))
	}
	d.index, d.entries = int(x.Index), []entry{parseEntry(x.Entry)}
	for h := range slices.Chunk(x.Path, 32) {
		d.path = append(d.path, [32]byte(h))
	}
	if top, ok := prove(d.index, d.Members, leaf(d.entries[0]), d.path); !ok || top != d.root {
		return Document{}, fmt.Errorf("%w: expected an entry that was signed, got another", ErrForm)
	}
	return d, nil
}

func parseEntry(b []byte) entry {
	return entry{tag: tag(b[:tagSize]), sealed: [sealedSize]byte(b[tagSize:])}
}

func parseHead(network identity.PublicKey, raw, signature []byte) (Document, error) {
	if !network.Verify(context, raw, signature) {
		return Document{}, fmt.Errorf("profile document: %w", identity.ErrSignature)
	}
	var h head
	if err := decMode.Unmarshal(raw, &h); err != nil {
		return Document{}, fmt.Errorf("%w: %w", ErrForm, err)
	}
	d := Document{
		Epoch: h.Epoch, Serial: h.Serial, Issued: time.UnixMilli(h.IssuedMS).UTC(), Mesh: h.Mesh.mesh(h.SSID), Members: int(h.Members),
		network: network, head: bytes.Clone(raw), signature: bytes.Clone(signature), box: h.Box, index: -1,
	}
	for _, f := range h.Former {
		d.Former = append(d.Former, Former{f.Mesh.mesh(h.SSID), time.UnixMilli(f.UntilMS).UTC()})
	}
	if h.Members < 1 || h.Members > MaxMembers {
		return Document{}, fmt.Errorf("%w: expected 1 to %d members, got %d", ErrForm, MaxMembers, h.Members)
	}
	if len(h.Root) != 32 || len(h.Ephemeral) != 32 || len(h.Box) < chacha20poly1305.Overhead || len(h.Box) > maxBox {
		return Document{}, fmt.Errorf("%w: expected two values of 32 octets and up to %d of secrets, got %d, %d and %d", ErrForm, maxBox, len(h.Root), len(h.Ephemeral), len(h.Box))
	}
	copy(d.root[:], h.Root)
	copy(d.ephemeral[:], h.Ephemeral)
	return d, d.check(false)
}

// Package profile is the document by which a network changes its mesh profile:
// the gateway signs which profile is to hold, and which ones held until lately. It
// carries the mesh secrets too, sealed for each member. It has no I/O: halo-mesh
// of the gateway makes it, any member hands it on.
//
// The secrets are encrypted once, under a key that is drawn for the document; that
// key is sealed for each member by its identity key (X25519, HKDF-SHA256,
// ChaCha20-Poly1305), bound to network, document and member. A document takes
// the place of one of a lower epoch, or of the same and a lower serial.
//
// The entries of the members are the leaves of a Merkle tree (RFC 9162 2.1) whose
// root is signed. So one entry can be handed on without the others and still be
// believed: an excerpt of a document is a few hundred octets, and fits one frame.
package profile

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"halo.internal/identity"
	"halo.internal/model/bundle"
)

// Bounds. A network has 250 nodes.
const (
	MaxMembers = 1024
	MaxFormer  = 4
	MaxSize    = 80 << 10 // octets of a whole document
	MaxExcerpt = 1400     // octets of an excerpt: it fits one frame of every transport
)

// Keep is how long members take those in who come with a former profile.
const Keep = 7 * 24 * time.Hour

// Draft is what the gateway puts into a document.
type Draft struct {
	Epoch  uint64 // of the gateway, as in its announcements
	Serial uint64 // rises with each document of an epoch
	Issued time.Time
	Mesh   bundle.Mesh // complete, with its secret
	Former []Former    // the latest first; of the same mesh ID
	// Members are who may have it, the gateway among them: also a gateway may have
	// to be told, when an old card of it comes back.
	Members []identity.PublicKey
	// Random is where ephemeral keys come from; nil: the system. For tests.
	Random io.Reader
}

// Former is a profile that held before, and until when members still know it.
type Former struct {
	Mesh  bundle.Mesh
	Until time.Time
}

// Document is a signed one: whole, or an excerpt, which has one member's entry
// alone. Its profiles are without their secrets; Open adds them. The zero value is
// none.
type Document struct {
	Epoch, Serial uint64
	Issued        time.Time
	Mesh          bundle.Mesh
	Former        []Former
	Members       int // how many may have it

	network   identity.PublicKey
	head      []byte // what is signed, as it came
	signature []byte
	ephemeral [32]byte
	root      [32]byte
	box       []byte // the secrets, encrypted

	entries []entry // in order: all, or the one at index
	index   int     // of an excerpt's entry; -1: the document is whole
	path    [][32]byte
}

// Errors of Parse, ParseExcerpt and Open.
var (
	ErrForm     = errors.New("malformed profile document")
	ErrNoMember = errors.New("the profile document is not for this node")
)

// After tells whether d takes the place of another document, of which the zero
// value is the first.
func (d Document) After(o Document) bool {
	return cmp.Or(cmp.Compare(d.Epoch, o.Epoch), cmp.Compare(d.Serial, o.Serial)) > 0
}

// Whole tells whether it has the entries of all members, and can be handed on to
// each of them.
func (d Document) Whole() bool { return d.head != nil && d.index < 0 }

// tagSize is the length of a member's name in a document.
const tagSize = 16

type tag [tagSize]byte

func tagOf(key identity.PublicKey) tag {
	h := sha256.Sum256(append([]byte("halo profile member 1"), key[:]...))
	return tag(h[:tagSize])
}

// entry is one member's.
type entry struct {
	tag    tag
	sealed [sealedSize]byte
}

// find returns the place of a member's entry.
func (d Document) find(key identity.PublicKey) (int, bool) {
	return slices.BinarySearchFunc(d.entries, tagOf(key), func(e entry, t tag) int { return bytes.Compare(e.tag[:], t[:]) })
}

// Has tells whether the document is for that member, as far as it is at hand.
func (d Document) Has(key identity.PublicKey) bool {
	_, ok := d.find(key)
	return ok
}

// Sign makes a document. Members whose keys cannot be sealed for, which no honest
// node has, are left out.
func Sign(network identity.Key, d Draft) (Document, error) {
	doc := Document{
		Epoch: d.Epoch, Serial: d.Serial, Issued: d.Issued.UTC().Truncate(time.Millisecond),
		Mesh: d.Mesh.WithDefaults(), network: network.Public(), index: -1,
	}
	for _, f := range d.Former {
		doc.Former = append(doc.Former, Former{f.Mesh.WithDefaults(), f.Until.UTC().Truncate(time.Millisecond)})
	}
	if err := doc.check(true); err != nil {
		return Document{}, err
	}
	random := d.Random
	if random == nil {
		random = rand.Reader
	}
	if err := doc.seal(random, d.Members); err != nil {
		return Document{}, err
	}
	doc.root = root(leaves(doc.entries))
	doc.Members = len(doc.entries)
	doc.forget()
	doc.head = doc.encodeHead()
	doc.signature = network.Sign(context, doc.head)
	if n := len(doc.Marshal()); n > MaxSize {
		return Document{}, fmt.Errorf("%w: expected at most %d octets, got %d", ErrForm, MaxSize, n)
	}
	return doc, nil
}

// forget drops the secrets.
func (d *Document) forget() {
	d.Mesh.PSK = ""
	for i := range d.Former {
		d.Former[i].Mesh.PSK = ""
	}
}

// check holds for documents to sign, whose secrets are there, as for those that
// came.
func (d Document) check(secrets bool) error {
	if len(d.Former) > MaxFormer {
		return fmt.Errorf("%w: expected at most %d former profiles, got %d", ErrForm, MaxFormer, len(d.Former))
	}
	for i, m := range d.meshes() {
		if !secrets {
			m.PSK = "a secret that is sealed"
		}
		if err := m.Check(); err != nil {
			return fmt.Errorf("%w: profile %d: %w", ErrForm, i, err)
		}
		if m.SSID != d.Mesh.SSID {
			return fmt.Errorf("%w: profile %d: expected the mesh ID %q, got %q: by another, nodes that were off would not find the mesh", ErrForm, i, d.Mesh.SSID, m.SSID)
		}
	}
	return nil
}

// meshes are the profiles in order: the one that is to hold, then the former ones.
func (d Document) meshes() []bundle.Mesh {
	list := []bundle.Mesh{d.Mesh}
	for _, f := range d.Former {
		list = append(list, f.Mesh)
	}
	return list
}

// Excerpt returns the document with one member's entry alone.
func (d Document) Excerpt(member identity.PublicKey) (Document, error) {
	i, ok := d.find(member)
	if !ok {
		return Document{}, fmt.Errorf("%w: it has no entry for %s", ErrNoMember, member.ID())
	}
	if !d.Whole() {
		return d, nil // it is that member's
	}
	x := d
	x.path = path(i, leaves(d.entries))
	x.entries, x.index = []entry{d.entries[i]}, i
	return x, nil
}

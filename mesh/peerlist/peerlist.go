// Package peerlist is the list of a network's members that the gateway signs: who
// may be an overlay peer of whom, under which keys and addresses. With it, nodes
// speak to each other directly, also while the gateway is off. It has no I/O:
// halo-mesh of the gateway makes it, carries it and keeps it; nodes check it.
//
// A list replaces another of a lower epoch, or of the same and a lower version,
// and no other: an old one cannot come back. It ends at a time of its own, so that
// what a network has forgotten about does not hold for ever.
package peerlist

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/fxamacker/cbor/v2"

	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/order"
	"halo.internal/model/paths"
)

// Bounds. A network has 250 nodes.
const (
	MaxPeers = 1024
	MaxSize  = 192 << 10 // octets of a signed list
	MaxName  = 63        // octets of a name
	// MaxRevoked is how many of those who are no members any more are named: who may
	// still have a secret of the mesh.
	MaxRevoked = 256
)

// Validity is how long a list holds; the gateway signs another when half of it
// has passed.
const Validity = 30 * 24 * time.Hour

// context keeps the signature from being taken for one of something else.
const context = "halo peer list 2"

// List is who the members are.
type List struct {
	Epoch   uint64 // of the gateway, as in its announcements
	Version uint64 // rises with each change within an epoch; see Following
	Issued  time.Time
	Expires time.Time
	Peers   []Peer // by identity key
	// Operators is who may no longer come in at the nodes' doors: certificates of
	// this epoch.
	Operators model.Operators
	Revoked   []string // canonical IDs: who may prove nothing any more
}

// Peer is one member other than the gateway.
type Peer struct {
	Key       identity.PublicKey
	WireGuard [32]byte
	Next      [32]byte     // the key that it will have; zero: it keeps the one that it has
	Overlay   netip.Addr   // in 10.42.0.0/16; its IPv6 address follows from the keys
	Clients   netip.Prefix // of the devices that it serves, within 10.43.0.0/16; the zero value: none
	Name      string       // for people and for .halo; may be empty
	// Boot and Steps order its lives, as in its announcements: peers begin anew
	// with one that has restarted, or whose clock went back.
	Boot  uint64
	Steps uint32
}

// Errors of Parse.
var (
	ErrForm    = errors.New("malformed peer list")
	ErrExpired = errors.New("peer list has expired")
)

// After tells whether l takes the place of another list.
func (l List) After(other List) bool {
	return cmp.Or(cmp.Compare(l.Epoch, other.Epoch), cmp.Compare(l.Version, other.Version)) > 0
}

// livesBits is how many of a version's last bits count the lists that differ from
// the one before in what can wait: in lives, keys and times.
const livesBits = 8

// Following returns the version of the list that takes l's place, and is least at
// the least. One that presses begins another row of versions; after 255 that do not
// one does, which costs no more than a fetch at once.
func (l List) Following(least uint64, presses bool) uint64 {
	if !presses {
		return l.Version + 1
	}
	const row = 1 << livesBits
	return (max(least, l.Version+1) + row - 1) &^ (row - 1)
}

// Presses tells whoever has l whether a list of that epoch and version is to be
// fetched at once: there are others among its members, or others are shut out.
func (l List) Presses(epoch, version uint64) bool {
	return epoch != l.Epoch || version>>livesBits != l.Version>>livesBits
}

// Members tells whether both lists say the same of everything but lives and keys:
// what is worth a write to the card at once.
func (l List) Members(other List) bool {
	a, b := l.Operators, other.Operators
	return a.Floor == b.Floor && a.Codes == b.Codes && slices.Equal(l.Revoked, other.Revoked) && slices.Equal(a.Revoked, b.Revoked) && slices.EqualFunc(l.Peers, other.Peers, func(a, b Peer) bool {
		a.Boot, a.Steps, b.Boot, b.Steps = 0, 0, 0, 0
		a.WireGuard, a.Next = b.WireGuard, b.Next
		return a == b
	})
}

// Withdraws tells whether l shuts somebody or something out that the list before it let
// in: a member, or certificates and codes of people.
func (l List) Withdraws(before List) bool {
	a, b := l.Operators, before.Operators
	return a.Floor > b.Floor || a.Codes > b.Codes ||
		slices.ContainsFunc(a.Revoked, func(serial uint64) bool { return !slices.Contains(b.Revoked, serial) }) ||
		slices.ContainsFunc(l.Revoked, func(id string) bool { return !slices.Contains(before.Revoked, id) }) ||
		slices.ContainsFunc(before.Peers, func(p Peer) bool { _, ok := l.Find(p.Key); return !ok })
}

// Keys tells whether the same members have the same keys of the overlay in both
// lists.
func (l List) Keys(other List) bool {
	return slices.EqualFunc(l.Peers, other.Peers, func(a, b Peer) bool {
		return a.Key == b.Key && a.WireGuard == b.WireGuard && a.Next == b.Next
	})
}

// KeepLives has no member of l be in an earlier life than other knows of.
func (l List) KeepLives(other List) {
	for i := range l.Peers {
		p := &l.Peers[i]
		if o, ok := other.Find(p.Key); ok && (o.Boot > p.Boot || o.Boot == p.Boot && o.Steps > p.Steps) {
			p.Boot, p.Steps = o.Boot, o.Steps
		}
	}
}

// Reborn returns the list with a later life of a member, which that one has told of
// itself, and leaves l as it is. Without news, ok is false.
func (l List) Reborn(key identity.PublicKey, boot uint64, steps uint32) (_ List, ok bool) {
	i, ok := l.index(key)
	if !ok || boot < l.Peers[i].Boot || boot == l.Peers[i].Boot && steps <= l.Peers[i].Steps {
		return List{}, false
	}
	l.Peers = slices.Clone(l.Peers)
	l.Peers[i].Boot, l.Peers[i].Steps = boot, steps
	return l, true
}

// Severed returns the members that are in both lists, and have a key in later under
// which whoever has l takes no handshakes: neither the one that it has there nor its
// next.
func (l List) Severed(later List) (keys []identity.PublicKey) {
	for _, p := range later.Peers {
		if o, ok := l.Find(p.Key); ok && p.WireGuard != o.WireGuard && p.WireGuard != o.Next {
			keys = append(keys, p.Key)
		}
	}
	return keys
}

// Find returns the member with that identity.
func (l List) Find(key identity.PublicKey) (Peer, bool) {
	i, ok := l.index(key)
	if !ok {
		return Peer{}, false
	}
	return l.Peers[i], true
}

func (l List) index(key identity.PublicKey) (int, bool) {
	return slices.BinarySearchFunc(l.Peers, key, func(p Peer, k identity.PublicKey) int { return bytes.Compare(p.Key[:], k[:]) })
}

// Valid returns nil while the list holds. A clock that is a guess must not ask.
func (l List) Valid(now time.Time) error {
	if !now.Before(l.Expires) {
		return fmt.Errorf("%w: on %s, and it is %s", ErrExpired, l.Expires.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return nil
}

// Stale tells the gateway, whose clock says now, to sign another list: half of this
// one's time has passed, or the clock was set back before it.
func (l List) Stale(now time.Time) bool {
	return now.Before(l.Issued) || now.Sub(l.Issued) > Validity/2
}

// The form on the wire and on the card.
type (
	envelope struct {
		_         struct{} `cbor:",toarray"`
		Body      []byte
		Signature []byte
	}
	body struct {
		_         struct{} `cbor:",toarray"`
		Epoch     uint64
		Version   uint64
		IssuedMS  int64
		ExpiresMS int64
		Peers     []entry
		Floor     uint64
		Over      []uint64 // serials of certificates
		Codes     uint32
		Revoked   []string
	}
	entry struct {
		_         struct{} `cbor:",toarray"`
		Key       []byte
		WireGuard []byte
		Next      []byte // none or 32 octets
		Overlay   []byte // 4 octets
		Clients   []byte // address and length, 5 octets, or none
		Name      string
		Boot      uint64
		Steps     uint32
	}
)

var (
	encMode = must(cbor.CoreDetEncOptions().EncMode())
	decMode = must(cbor.DecOptions{
		MaxArrayElements: MaxPeers, MaxNestedLevels: 4, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
	}.DecMode())
)

func must[T any](v T, err error) T {
	if err != nil {
		panic("peerlist: " + err.Error()) // constant options are valid or they are not
	}
	return v
}

// Sign returns the signed form of a list by the network's key. Peers need not be
// in order.
func Sign(network identity.Key, l List) ([]byte, error) {
	order.By(l.Peers, func(a, b Peer) int { return bytes.Compare(a.Key[:], b.Key[:]) })
	if err := l.check(network.Public()); err != nil {
		return nil, err
	}
	b := body{Epoch: l.Epoch, Version: l.Version, IssuedMS: l.Issued.UnixMilli(), ExpiresMS: l.Expires.UnixMilli(), Peers: []entry{}, Floor: l.Operators.Floor, Over: l.Operators.Revoked, Codes: l.Operators.Codes, Revoked: append([]string{}, l.Revoked...)}
	for _, p := range l.Peers {
		e := entry{Key: p.Key[:], WireGuard: p.WireGuard[:], Overlay: p.Overlay.AsSlice(), Clients: []byte{}, Name: p.Name, Boot: p.Boot, Steps: p.Steps}
		if p.Next != [32]byte{} {
			e.Next = p.Next[:]
		} else {
			e.Next = []byte{}
		}
		if p.Clients.IsValid() {
			e.Clients = append(p.Clients.Addr().AsSlice(), byte(p.Clients.Bits()))
		}
		b.Peers = append(b.Peers, e)
	}
	raw, err := encMode.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("peer list: %w", err)
	}
	return encMode.Marshal(envelope{Body: raw, Signature: network.Sign(context, raw)})
}

// Parse verifies a list of that network. Whether it still holds, and takes the
// place of another, is the caller's to ask.
func Parse(network identity.PublicKey, data []byte) (List, error) {
	if len(data) > MaxSize {
		return List{}, fmt.Errorf("%w: expected at most %d octets, got %d", ErrForm, MaxSize, len(data))
	}
	var e envelope
	if err := decMode.Unmarshal(data, &e); err != nil {
		return List{}, fmt.Errorf("%w: %w", ErrForm, err)
	}
	if !network.Verify(context, e.Body, e.Signature) {
		return List{}, fmt.Errorf("peer list: %w", identity.ErrSignature)
	}
	var b body
	if err := decMode.Unmarshal(e.Body, &b); err != nil {
		return List{}, fmt.Errorf("%w: %w", ErrForm, err)
	}
	l := List{Epoch: b.Epoch, Version: b.Version, Issued: time.UnixMilli(b.IssuedMS).UTC(), Expires: time.UnixMilli(b.ExpiresMS).UTC(), Peers: []Peer{},
		Operators: model.Operators{Floor: b.Floor, Revoked: b.Over, Codes: b.Codes}, Revoked: b.Revoked}
	if len(l.Revoked) == 0 {
		l.Revoked = nil
	}
	for i, e := range b.Peers {
		p, err := e.peer()
		if err != nil {
			return List{}, fmt.Errorf("%w: peer %d: %w", ErrForm, i, err)
		}
		l.Peers = append(l.Peers, p)
	}
	return l, l.check(network)
}

func (e entry) peer() (p Peer, err error) {
	for _, f := range []struct {
		name string
		got  []byte
		to   []byte
	}{{"key", e.Key, p.Key[:]}, {"WireGuard key", e.WireGuard, p.WireGuard[:]}} {
		if len(f.got) != len(f.to) {
			return p, fmt.Errorf("%s: expected %d octets, got %d", f.name, len(f.to), len(f.got))
		}
	}
	copy(p.Key[:], e.Key)
	copy(p.WireGuard[:], e.WireGuard)
	switch len(e.Next) {
	case 0:
	case len(p.Next):
		copy(p.Next[:], e.Next)
	default:
		return p, fmt.Errorf("next WireGuard key: expected 0 or %d octets, got %d", len(p.Next), len(e.Next))
	}
	if len(e.Overlay) != 4 {
		return p, fmt.Errorf("overlay address: expected 4 octets, got %d", len(e.Overlay))
	}
	p.Overlay = netip.AddrFrom4([4]byte(e.Overlay))
	switch len(e.Clients) {
	case 0:
	case 5:
		p.Clients = netip.PrefixFrom(netip.AddrFrom4([4]byte(e.Clients)), int(e.Clients[4]))
		if !p.Clients.IsValid() {
			return p, fmt.Errorf("clients: expected a length of 0 to 32, got %d", e.Clients[4])
		}
	default:
		return p, fmt.Errorf("clients: expected 0 or 5 octets, got %d", len(e.Clients))
	}
	p.Name, p.Boot, p.Steps = e.Name, e.Boot, e.Steps
	return p, nil
}

// check holds for lists to sign as for lists that came.
func (l List) check(network identity.PublicKey) error {
	if len(l.Peers) > MaxPeers {
		return fmt.Errorf("%w: expected at most %d peers, got %d", ErrForm, MaxPeers, len(l.Peers))
	}
	if len(l.Revoked) > MaxRevoked {
		return fmt.Errorf("%w: expected at most %d revoked nodes, got %d", ErrForm, MaxRevoked, len(l.Revoked))
	}
	for _, id := range l.Revoked {
		if !identity.ValidID(id) {
			return fmt.Errorf("%w: revoked: expected a canonical ID, got %.40q", ErrForm, id)
		}
	}
	if !l.Expires.After(l.Issued) {
		return fmt.Errorf("%w: expected an end after %s, got %s", ErrForm, l.Issued, l.Expires)
	}
	if err := CheckOperators(l.Operators); err != nil {
		return fmt.Errorf("%w: %w", ErrForm, err)
	}
	type unique struct {
		what  string
		value any
	}
	seen := map[unique]int{}
	for i, p := range l.Peers {
		switch {
		case i > 0 && bytes.Compare(l.Peers[i-1].Key[:], p.Key[:]) >= 0:
			return fmt.Errorf("%w: peer %d: expected keys in order, each once", ErrForm, i)
		case p.Key == network:
			return fmt.Errorf("%w: peer %d: it is the gateway", ErrForm, i)
		case p.WireGuard == [32]byte{}:
			return fmt.Errorf("%w: peer %d: its WireGuard key is zero", ErrForm, i)
		case !p.Overlay.Is4() || !paths.OverlayNet.Contains(p.Overlay) || p.Overlay == paths.OverlayGateway:
			return fmt.Errorf("%w: peer %d: expected an address in %s other than the gateway's, got %s", ErrForm, i, paths.OverlayNet, p.Overlay)
		case len(p.Name) > MaxName:
			return fmt.Errorf("%w: peer %d: expected a name of at most %d octets, got %d", ErrForm, i, MaxName, len(p.Name))
		case p.Clients != (netip.Prefix{}) && (p.Clients != p.Clients.Masked() || p.Clients.Bits() != clientsBits || !paths.ClientsNet.Contains(p.Clients.Addr())):
			return fmt.Errorf("%w: peer %d: expected clients in a /%d of %s, got %s", ErrForm, i, clientsBits, paths.ClientsNet, p.Clients)
		}
		for _, u := range []unique{{"WireGuard key", p.WireGuard}, {"WireGuard key", p.Next}, {"overlay address", p.Overlay}, {"network of clients", p.Clients}} {
			if u.value == (netip.Prefix{}) || u.value == [32]byte{} {
				continue
			}
			if j, dup := seen[u]; dup {
				return fmt.Errorf("%w: peers %d and %d have the same %s", ErrForm, j, i, u.what)
			}
			seen[u] = i
		}
	}
	return nil
}

// CheckOperators tells what is wrong with what a list says of operators.
func CheckOperators(o model.Operators) error {
	if len(o.Revoked) > model.MaxRevoked {
		return fmt.Errorf("revoked: expected at most %d, got %d", model.MaxRevoked, len(o.Revoked))
	}
	for i, n := range o.Revoked {
		if n < o.Floor || i > 0 && n <= o.Revoked[i-1] {
			return fmt.Errorf("revoked: expected numbers from %d on in order, each once, got %d at %d", o.Floor, n, i)
		}
	}
	return nil
}

// clientsBits is the length of each node's network of clients.
const clientsBits = 24

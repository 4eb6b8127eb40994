package mesh

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"halo.internal/identity"
	"halo.internal/mesh/announce"
	"halo.internal/mesh/api"
	"halo.internal/mesh/join"
	"halo.internal/mesh/overlay"
	"halo.internal/model"
	"halo.internal/model/atomicfile"
	"halo.internal/model/paths"
)

// A device's overlay key changes in an order that leaves no gap: the next key is
// drawn, kept, and told to the gateway in what is signed by the identity, with a proof
// that it is the device's own; the list of members (of the gateway's own, its
// announcements) tells it to all, which take handshakes under both from then on; and when all have had the time to hear of it,
// the device begins to use it (see mesh/overlay).

const (
	rekeyOverlap = 2 * time.Minute // for the others to hear of the next key, besides the time in which all fetch a list
	promoteEvery = 50 * time.Millisecond
	rekeyLook    = time.Second
	rekeyAgain   = 10 * time.Second // after a failure
)

// overlayKey is the device's own.
type overlayKey struct {
	// applying is held while WireGuard is given the key, so that a device which is opened
	// meanwhile has the one that is in use. It comes before mu.
	applying sync.Mutex

	mu      sync.Mutex // guards what follows
	private [32]byte
	next    *[32]byte
	told    time.Time // when the others had it; zero: not yet
}

// publicOf returns the public half of a private key of the overlay.
func publicOf(private [32]byte) [32]byte {
	return identity.Key{}.WithWireGuard(private).WireGuardPublic()
}

// public returns the key in use, and the next or nothing.
func (k *overlayKey) public() (now, next []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	p := publicOf(k.private)
	if k.next != nil {
		q := publicOf(*k.next)
		next = q[:]
	}
	return p[:], next
}

// claim is what a node says of its keys: the one in use, and the next with the proof
// that it has it, or nothing.
func (m *core) claim() (now, next, proof []byte) {
	private := m.keys.secrets()
	p := publicOf(private[0])
	if len(private) == 1 {
		return p[:], nil, nil
	}
	proof, err := identity.ProvePossession(m.net, m.id.Key.Public(), private[1])
	if err != nil {
		m.Log.Error("the next overlay key is not told", "err", err)
		return p[:], nil, nil
	}
	q := publicOf(private[1])
	return p[:], q[:], proof
}

func (k *overlayKey) secret() [32]byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.private
}

// secrets are the private keys, in use and next.
func (k *overlayKey) secrets() [][32]byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	list := [][32]byte{k.private}
	if k.next != nil {
		list = append(list, *k.next)
	}
	return list
}

// known takes the next key that the others have heard of.
func (k *overlayKey) known(next [32]byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.next != nil && k.told.IsZero() && publicOf(*k.next) == next {
		k.told = time.Now()
	}
}

// due returns the next key when it is time to use it.
func (k *overlayKey) due(overlap time.Duration) (next [32]byte, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.next == nil || k.told.IsZero() || time.Since(k.told) < overlap {
		return next, false
	}
	return *k.next, true
}

// use makes the next key the one in use.
func (k *overlayKey) use() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.private, k.next, k.told = *k.next, nil, time.Time{}
}

// loadOverlayKey returns the key of the identity, and the next one if a change was
// interrupted.
func (m *core) loadOverlayKey() *overlayKey {
	k := &overlayKey{private: m.id.Key.WireGuard()}
	var next [32]byte
	_, err := m.store.Get(paths.OverlayKey, paths.VaultOverlayKey, func(b []byte) error {
		if len(b) != len(next)+8 || fmt.Sprintf("%08x", crc32.ChecksumIEEE(b[:len(next)])) != string(b[len(next):]) {
			return errors.New("next overlay key: checksum differs")
		}
		next = [32]byte(b[:len(next)])
		return nil
	})
	switch {
	case err == nil && next != k.private:
		k.next = &next
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		m.Log.Warn("a change of the overlay key is given up, what was kept of it is damaged", "err", err)
	}
	return k
}

// drawKey draws the next overlay key. One that was drawn stays.
func (m *core) drawKey() error {
	if err := m.permFailing(); err != nil {
		return fmt.Errorf("%w: the overlay key is not changed while nothing can be kept: %w", api.ErrBusy, err)
	}
	m.keys.mu.Lock()
	defer m.keys.mu.Unlock()
	if m.keys.next != nil {
		return nil
	}
	var next [32]byte
	rand.Read(next[:])
	if kept, err := m.store.Put(paths.OverlayKey, paths.VaultOverlayKey, fmt.Appendf(next[:], "%08x", crc32.ChecksumIEEE(next[:]))); !kept {
		return fmt.Errorf("next overlay key: %w", err)
	}
	m.keys.next = &next
	return nil
}

// useNextKey writes the identity with the next key, and has the overlay use it. A
// key that is not kept is not used: the device would come back with the former one,
// which by then is nobody's.
func (m *core) useNextKey(next [32]byte, device func() *overlay.Device) error {
	if err := m.permFailing(); err != nil {
		return fmt.Errorf("nothing can be kept: %w", err)
	}
	s := m.id
	s.Key = s.Key.WithWireGuard(next)
	kept, err := s.Change(m.store.Dir().File(paths.Identity), m.store.Vault())
	if !kept {
		return fmt.Errorf("identity: %w", err)
	}
	if err != nil {
		m.Log.Warn("identity with the next overlay key is not kept in both places", "err", err)
	}
	if err := atomicfile.Write(m.path(paths.RunIdentity), s.Marshal(), 0o600); err != nil {
		m.Log.Warn("runtime state not written", "err", err)
	}
	if err := m.applyKey(next, device); err != nil {
		return err
	}
	if err := m.store.Remove(paths.OverlayKey, paths.VaultOverlayKey); err != nil {
		m.Log.Warn("what was kept of the change of the overlay key is not removed", "err", err)
	}
	m.events.Add("overlay.rekeyed", model.Info, "this device uses another overlay key")
	return nil
}

// applyKey has the overlay use the next key, if there is one just now.
func (m *core) applyKey(next [32]byte, device func() *overlay.Device) error {
	m.keys.applying.Lock()
	defer m.keys.applying.Unlock()
	if dev := device(); dev != nil {
		if err := dev.SetKey(next); err != nil {
			return err
		}
	}
	m.keys.use()
	return nil
}

// followKeys changes the device's key when it is time, and follows peers that change
// theirs, until ctx ends. The others may have heard of the next key by that much later
// than this device.
func (m *core) followKeys(ctx context.Context, device func() *overlay.Device, later func() time.Duration, used func()) error {
	overlap := m.RekeyOverlap
	if overlap == 0 {
		overlap = rekeyOverlap
	}
	var failed time.Time // at the last try; zero: it went well
	for {
		wait := rekeyLook
		if next, ok := m.keys.due(overlap + later()); ok && time.Since(failed) >= rekeyAgain {
			if err := m.useNextKey(next, device); err != nil {
				if failed.IsZero() {
					m.Log.Error("overlay key not changed, it is tried again", "err", err)
				}
				failed = time.Now()
			} else {
				failed = time.Time{}
				used()
			}
		}
		if dev := device(); dev != nil && dev.Rekeying() {
			wait = promoteEvery
			if err := dev.Promote(); err != nil {
				m.Log.Debug("peers that change their keys are not followed", "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// greetPeers has handshakes come about: a device that only listens would be sent to
// under the old key until its sessions end.
func greetPeers(to ...netip.Addr) {
	for _, a := range to {
		const discard = 9 // nobody listens, and that is as good
		if c, err := net.Dial("udp", netip.AddrPortFrom(a, discard).String()); err == nil {
			_, _ = c.Write([]byte{0})
			_ = c.Close()
		}
	}
}

// RotateKey has the node's overlay key changed.
func (n *node) RotateKey() error {
	if err := n.drawKey(); err != nil {
		return err
	}
	n.search.Ask()
	return nil
}

func (n *node) overlayDevice() *overlay.Device {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.wg
}

// rekeyed tells the gateway and the other members of the key in use.
func (n *node) rekeyed() {
	to := []netip.Addr{paths.OverlayGateway}
	n.mu.Lock()
	n.newKey = true
	for _, p := range n.list.Peers {
		if p.Key != n.id.Key.Public() {
			to = append(to, p.Overlay)
		}
	}
	n.mu.Unlock()
	greetPeers(to...)
	n.search.Ask()
	wake(n.joinNow)
}

// followGatewayKey takes the gateway's key from what it has signed. n.mu is held; it
// tells whether the membership is another.
func (n *node) followGatewayKey(h announce.Gateway) *model.Membership {
	key := base64.StdEncoding.EncodeToString(h.WireGuardKey)
	if n.member == nil || n.member.GatewayWireGuardKey == key {
		return nil
	}
	m := *n.member
	m.GatewayWireGuardKey = key
	n.member = &m
	return &m
}

// keepMember writes the membership as it is now: of changes that come at once, the last
// write has all.
func (n *node) keepMember() error {
	n.keeping.Lock()
	defer n.keeping.Unlock()
	n.mu.Lock()
	m := *n.member
	n.mu.Unlock()
	if _, err := n.store.Keep(paths.Membership, paths.VaultMembership, join.Marshal(m)); err != nil {
		return fmt.Errorf("membership is not kept in both places: %w", err)
	}
	return nil
}

// RotateKey has the gateway's overlay key changed.
func (g *gateway) RotateKey() error {
	if err := g.drawKey(); err != nil {
		return err
	}
	g.voice.Changed()
	return nil
}

// nextKeyTold takes the next key that was announced: whoever hears the gateway at all
// has heard of it when the overlap is over.
func (g *gateway) nextKeyTold(next []byte) {
	if len(next) > 0 {
		g.keys.known([32]byte(next))
	}
}

func (g *gateway) overlayDevice() *overlay.Device {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.wg
}

func (g *gateway) rekeyed() {
	g.voice.Changed()
	g.mu.Lock()
	var to []netip.Addr
	for _, p := range g.known.Peers {
		to = append(to, p.OverlayV4)
	}
	g.mu.Unlock()
	greetPeers(to...)
}

// hearKeys takes the overlay keys that a node says it has, and will have, in a life
// that may have just begun. A next key that it does not prove to have is none: it may
// be another's, which would stand back then. g.mu is held.
func (g *gateway) hearKeys(n announce.Node, reborn bool) (changed bool) {
	node, next := identity.PublicKey(n.Key), n.NextKey
	if len(next) > 0 && !g.id.Key.Possesses(node, next, n.NextProof) {
		next = nil
	}
	return g.known.rekeyed(node.ID(), n.WireGuardKey, next, reborn)
}

// rekeyed records the keys of a node, and tells whether they are others than before.
// A key that somebody else has, or will have, is not taken: it would take that
// peer's place. What gateway-api has admitted goes before what nodes say.
//
// A node that is reborn with the key that it had before has lost the change with its
// card. In the life in which it changed, or an earlier one, the same words are a
// recording.
func (r *registry) rekeyed(node string, now, next []byte, reborn bool) bool {
	i := slices.IndexFunc(r.Peers, func(p knownPeer) bool { return p.Node == node })
	if i < 0 {
		return false
	}
	p, key, will := &r.Peers[i], base64.StdEncoding.EncodeToString(now), base64.StdEncoding.EncodeToString(next)
	if keyOf(will) == ([32]byte{}) {
		will = "" // no key, and what the list of members has for none
	}
	if p.Next != "" && key == p.Next {
		if r.taken(node, key) {
			p.Next = ""
			return true
		}
		p.Was, p.WireGuardKey, p.Next = p.WireGuardKey, p.Next, ""
		return true
	}
	if reborn && p.Was != "" && key == p.Was {
		p.WireGuardKey, p.Next, p.Was = p.Was, "", ""
		return true
	}
	if key != p.WireGuardKey || will == p.Next || will == key || will != "" && r.taken(node, will) {
		return false
	}
	p.Next = will
	return true
}

// taken tells whether another node than this one has that overlay key, had it or
// will have it.
func (r *registry) taken(node, key string) bool {
	return slices.ContainsFunc(r.Peers, func(o knownPeer) bool {
		return o.Node != node && (o.WireGuardKey == key || o.Next == key || o.Was == key)
	})
}

// known returns what is known of a peer that gateway-api hands over. A key that was
// changed since it was told of one is not taken back.
func (r *registry) known(p model.AdmittedPeer) knownPeer {
	k := knownPeer{AdmittedPeer: p}
	for _, old := range r.Peers {
		if old.Node != p.Node {
			continue
		}
		k.Incarnation = old.Incarnation
		switch {
		case p.WireGuardKey == old.WireGuardKey:
			k.Next, k.Was = old.Next, old.Was
		case old.Was != "" && p.WireGuardKey == old.Was:
			k.WireGuardKey, k.Next, k.Was = old.WireGuardKey, old.Next, old.Was
		}
		if keyOf(k.Next) == ([32]byte{}) {
			k.Next = ""
		}
	}
	return k
}

// claims returns what is known of peers that gateway-api hands over, whose keys
// differ. What a node has claimed since is given up where it is another's: by
// gateway-api's word, or by an earlier claim.
func (r *registry) claims(admitted []model.AdmittedPeer) []knownPeer {
	owner := map[string]string{} // of overlay keys: canonical IDs
	for _, p := range admitted {
		owner[p.WireGuardKey] = p.Node
	}
	free := func(key, node string) bool {
		o, has := owner[key]
		return !has || o == node
	}
	peers := make([]knownPeer, 0, len(admitted))
	for _, p := range admitted {
		k := r.known(p)
		if !free(k.WireGuardKey, p.Node) {
			k.WireGuardKey, k.Next, k.Was = p.WireGuardKey, "", ""
		}
		if !free(k.Next, p.Node) {
			k.Next = ""
		}
		owner[k.WireGuardKey] = p.Node
		if k.Next != "" {
			owner[k.Next] = p.Node
		}
		peers = append(peers, k)
	}
	return peers
}

// keyOf reads a key in base64; what is none is zero.
func keyOf(s string) (key [32]byte) {
	if raw, err := base64.StdEncoding.DecodeString(s); err == nil && len(raw) == len(key) {
		copy(key[:], raw)
	}
	return key
}

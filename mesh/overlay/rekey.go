package overlay

import (
	"fmt"
	"slices"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// A peer that changes its key is two for WireGuard meanwhile: one for each key, of
// which only the one in use has its addresses. When a handshake under the next key
// has come about, they move over. Sessions under the old key go on to be received
// from until then, by both ends, so that nothing in flight is lost; what is sent
// waits for the one handshake.

// expand returns the peers as WireGuard is to have them, those without addresses
// first: an address that moves leaves its owner before it comes to another. A next
// key that is another peer's is none: it would take that peer's addresses away.
func (d *Device) expand(peers []Peer) []Peer {
	var first, list []Peer
	owned := map[[32]byte]bool{}
	for _, p := range peers {
		owned[p.Key] = true
	}
	known := map[[32]byte]bool{}
	for _, p := range peers {
		now, other := p, p
		now.Next, other.Next = [32]byte{}, [32]byte{}
		if p.Next != [32]byte{} && !owned[p.Next] {
			other.Key = p.Next
			if d.moved[p.Next] {
				now.Key, other.Key = other.Key, now.Key
			}
			other.Allowed, other.Keepalive = nil, 0
			first = append(first, other)
			known[p.Next], owned[p.Next] = true, true
		}
		list = append(list, now)
	}
	for key := range d.moved {
		if !known[key] {
			delete(d.moved, key) // it is the peer's key by now, or it was given up
		}
	}
	return append(first, list...)
}

// SetKey has this end use another private key. Its peers have to know it as Next,
// and handshakes follow with what is sent next.
func (d *Device) SetKey(private [32]byte) error {
	d.changing.Lock()
	defer d.changing.Unlock()
	key := wgtypes.Key(private)
	if err := d.backend.configure(wgtypes.Config{PrivateKey: &key}); err != nil {
		return fmt.Errorf("overlay: key of %s: %w", d.cfg.Name, err)
	}
	return nil
}

// Rekeying tells whether a peer may begin to use its next key.
func (d *Device) Rekeying() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.ContainsFunc(d.want, d.awaits)
}

func (d *Device) awaits(p Peer) bool {
	return p.Next != [32]byte{} && !d.moved[p.Next] && !slices.ContainsFunc(d.want, func(o Peer) bool { return o.Key == p.Next })
}

// Promote moves the addresses of peers that have begun to use their next key. It is
// to be called several times a second while Rekeying.
func (d *Device) Promote() error {
	live, err := d.backend.peers()
	if err != nil {
		return fmt.Errorf("overlay: read %s: %w", d.cfg.Name, err)
	}
	if !d.promoted(live) {
		return nil
	}
	d.changing.Lock()
	defer d.changing.Unlock()
	return d.apply()
}

// promoted takes down which next keys are in use now, and tells whether that is news.
func (d *Device) promoted(live []wgtypes.Peer) (changed bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, l := range live {
		if l.LastHandshakeTime.IsZero() || l.LastHandshakeTime.Unix() == 0 {
			continue
		}
		if slices.ContainsFunc(d.want, func(p Peer) bool { return d.awaits(p) && p.Next == [32]byte(l.PublicKey) }) {
			d.moved[l.PublicKey] = true
			changed = true
		}
	}
	return changed
}

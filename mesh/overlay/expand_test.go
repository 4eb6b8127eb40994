//go:build !lab

package overlay

import (
	"fmt"
	"net/netip"
	"testing"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// table is a WireGuard that only keeps what it is told.
type table struct {
	calls int
	has   map[wgtypes.Key]wgtypes.PeerConfig
}

func (t *table) configure(c wgtypes.Config) error {
	t.calls++
	for _, p := range c.Peers {
		if p.Remove {
			delete(t.has, p.PublicKey)
			continue
		}
		t.has[p.PublicKey] = p
	}
	return nil
}

func (t *table) peers() (list []wgtypes.Peer, err error) {
	for key := range t.has {
		list = append(list, wgtypes.Peer{PublicKey: key})
	}
	return list, nil
}
func (*table) shakes() ([]shake, error) { return nil, nil }
func (*table) close() error             { return nil }

// TestANextKeyTakesNobodysPlace: what one peer is said to use next and another has
// is the other's.
func TestANextKeyTakesNobodysPlace(t *testing.T) {
	address := func(n byte) []netip.Prefix {
		return []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 42, 0, n}), 32)}
	}
	thief := Peer{Node: "thief", Key: [32]byte{1}, Next: [32]byte{2}, Allowed: address(1)}
	owner := Peer{Node: "owner", Key: [32]byte{2}, Allowed: address(2)}
	rival := Peer{Node: "rival", Key: [32]byte{3}, Next: [32]byte{4}, Allowed: address(3)}
	late := Peer{Node: "late", Key: [32]byte{5}, Next: [32]byte{4}, Allowed: address(5)}
	for name, tc := range map[string]struct {
		peers []Peer
		want  map[[32]byte]string // the node that has the key, and how many addresses
		moves bool
	}{
		"the owner last":  {[]Peer{thief, owner}, map[[32]byte]string{{1}: "thief 1", {2}: "owner 1"}, false},
		"the owner first": {[]Peer{owner, thief}, map[[32]byte]string{{1}: "thief 1", {2}: "owner 1"}, false},
		"two next ones":   {[]Peer{rival, late}, map[[32]byte]string{{3}: "rival 1", {4}: "rival 0", {5}: "late 1"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := &table{has: map[wgtypes.Key]wgtypes.PeerConfig{}}
			d := &Device{backend: w, peers: map[[32]byte]Peer{}, moved: map[[32]byte]bool{}}
			for range 3 {
				if err := d.SetPeers(tc.peers); err != nil {
					t.Fatal(err)
				}
			}
			if w.calls != 1 {
				t.Errorf("the same peers were set %d times, want once", w.calls)
			}
			if got := d.Rekeying(); got != tc.moves {
				t.Errorf("a change of keys is awaited: %v", got)
			}
			got := map[[32]byte]string{}
			for key, p := range w.has {
				got[key] = fmt.Sprintf("%s %d", d.peers[key].Node, len(p.AllowedIPs))
			}
			if fmt.Sprint(got) != fmt.Sprint(tc.want) {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

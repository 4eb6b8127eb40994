//go:build !lab

package overlay

import (
	"fmt"
	"maps"
	"testing"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// shaky is a WireGuard that has no memory left, once.
type shaky struct {
	table
	fails int                 // the call that fails; 0: none
	after int                 // peers of it that are done before
	made  map[wgtypes.Key]int // how often a peer was made, with no session and no time of its last handshake
}

func (s *shaky) configure(c wgtypes.Config) error {
	s.calls++
	for i, p := range c.Peers {
		if s.calls == s.fails && i == s.after {
			return unix.ENOMEM
		}
		if _, there := s.has[p.PublicKey]; !there && !p.Remove {
			s.made[p.PublicKey]++
		}
		if p.Remove {
			delete(s.has, p.PublicKey)
		} else {
			s.has[p.PublicKey] = p
		}
	}
	if s.calls == s.fails {
		return unix.ENOMEM
	}
	return nil
}

// TestAChangeThatFailsOnce has WireGuard fail before, amid and after what is asked of it.
// What is wanted next comes about all the same: who was revoked is out, who has restarted
// is made anew, and the others keep their sessions.
func TestAChangeThatFailsOnce(t *testing.T) {
	a := Peer{Node: "a", Key: [32]byte{1}, Incarnation: Incarnation{Boot: 1}}
	b := Peer{Node: "b", Key: [32]byte{2}, Incarnation: Incarnation{Boot: 1}}
	c := Peer{Node: "c", Key: [32]byte{3}, Incarnation: Incarnation{Boot: 1}}
	again := func(p Peer) Peer { p.Incarnation.Boot++; return p }
	changed := func(p Peer) Peer { p.Keepalive++; return p }
	for _, tc := range []struct {
		name              string
		inherited         []Peer
		had, failed, next []Peer
		call              int // of those that failed makes; 1 removes where there is something to remove
		keep              []Peer
	}{
		{"revoked", nil, []Peer{a, b, c}, []Peer{a}, []Peer{a}, 1, []Peer{a}},
		{"revoked, and admitted anew", nil, []Peer{a, b, c}, []Peer{a}, []Peer{a, b, c}, 1, []Peer{a}},
		{"revoked, and then another", nil, []Peer{a, b, c}, []Peer{a, c}, []Peer{a}, 1, []Peer{a}},
		{"restarted", nil, []Peer{a, b, c}, []Peer{a, again(b), again(c)}, []Peer{a, again(b), again(c)}, 1, []Peer{a}},
		{"restarted, and fails when added", nil, []Peer{a, b, c}, []Peer{a, again(b), again(c)}, []Peer{a, again(b), again(c)}, 2, []Peer{a}},
		{"changed, and restarted then", nil, []Peer{a, b, c}, []Peer{a, changed(b), changed(c)}, []Peer{a, again(b), again(c)}, 1, []Peer{a}},
		{"changed", nil, []Peer{a, b, c}, []Peer{a, changed(b), changed(c)}, []Peer{a, changed(b), changed(c)}, 1, []Peer{a, b, c}},
		{"added, and revoked then", nil, []Peer{a}, []Peer{a, b, c}, []Peer{a}, 1, []Peer{a}},
		{"left by an earlier process", []Peer{a, b, c}, nil, []Peer{a}, []Peer{a}, 1, []Peer{a}},
		{"left by one, and fails when added", []Peer{a, b, c}, nil, []Peer{a}, []Peer{a}, 2, []Peer{a}},
	} {
		for after := range 3 {
			t.Run(fmt.Sprintf("%s, after %d", tc.name, after), func(t *testing.T) {
				w := &shaky{table: table{has: map[wgtypes.Key]wgtypes.PeerConfig{}}, made: map[wgtypes.Key]int{}, after: after}
				d := &Device{backend: w, peers: map[[32]byte]Peer{}, moved: map[[32]byte]bool{}, unsure: map[[32]byte]bool{}}
				for _, p := range tc.inherited {
					w.has[p.Key], w.made[p.Key] = p.config(), 1
					d.unsure[p.Key] = false
				}
				if tc.had != nil {
					if err := d.SetPeers(tc.had); err != nil {
						t.Fatal(err)
					}
				}
				w.fails = w.calls + tc.call
				before := maps.Clone(w.made)
				if err := d.SetPeers(tc.failed); err == nil {
					t.Fatal("it did not fail: the test proves nothing")
				}
				if err := d.SetPeers(tc.next); err != nil {
					t.Fatal(err)
				}
				if len(w.has) != len(tc.next) {
					t.Errorf("WireGuard has %d peers, want %d", len(w.has), len(tc.next))
				}
				for _, p := range tc.next {
					got, there := w.has[p.Key]
					if !there || *got.PersistentKeepaliveInterval != p.Keepalive {
						t.Errorf("%s: there %v, as %+v", p.Node, there, got)
					}
					if was, had := before[p.Key], w.made[p.Key]; p.Incarnation.Boot > 1 && had == was {
						t.Errorf("%s has restarted, and was not made anew", p.Node)
					}
				}
				for _, p := range tc.keep {
					if w.made[p.Key] != before[p.Key] {
						t.Errorf("%s lost its session", p.Node)
					}
				}
				calls := w.calls
				if err := d.SetPeers(tc.next); err != nil || w.calls != calls {
					t.Errorf("what has come about is set again: %v", err)
				}
			})
		}
	}
}

package rogue_test

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"net"
	"testing"
	"time"

	"halo.internal/lab/air/rogue"
	"halo.internal/mesh/peering"
	"halo.internal/mesh/sae"
	"halo.internal/model/dot11"
)

// engine is a member's.
type engine struct {
	*peering.Engine
	link []byte // its Mesh Peering Management element up to the link ID that it chose
}

var (
	own      = net.HardwareAddr{2, 0xbb, 0, 0, 0, 9}
	one, two = dot11.MAC{2, 0, 0, 0, 0, 1}, dot11.MAC{2, 0, 0, 0, 0, 2}
)

// peered returns two members with a link; the rogue heard how they made it.
func peered(t *testing.T, r *rogue.Rogue) map[dot11.MAC]*engine {
	t.Helper()
	now := time.Now()
	all := map[dot11.MAC]*engine{}
	for own, peer := range map[dot11.MAC]dot11.MAC{one: two, two: one} {
		group, err := peering.NewGroupKeys(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		e, err := peering.New(peering.Config{Own: own, MeshID: []byte(rogue.MeshOfTests), Rates: []byte{0x82}, Group: group}, now)
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Offer(now, peer, 1, sae.PMKID{1}, sae.PMK{2}); err != nil {
			t.Fatal(err)
		}
		all[own] = &engine{Engine: e}
	}
	if err := all[one].Connect(now, two); err != nil {
		t.Fatal(err)
	}
	for quiet := false; !quiet; {
		quiet = true
		for _, e := range all {
			frames, _ := e.Take()
			for _, f := range frames {
				quiet = false
				if i := bytes.Index(f.Bytes, []byte{byte(dot11.MeshPeeringManagement), 20, 1, 0}); i > 0 { // of an Open
					e.link = f.Bytes[i+2 : i+6]
				}
				if err := r.Deliver(own, f.Bytes, 4, -60, 2437); err != nil {
					t.Fatal(err)
				}
				all[f.To].Handle(now, f.Bytes)
			}
		}
	}
	if all[one].State(two) != peering.Estab || all[two].State(one) != peering.Estab {
		t.Fatal("no link")
	}
	return all
}

// TestPeeringFramesPassForTheMembers has the members' own engines read what is
// forged: all is well-formed, most of it under the PMKSA that they hold, and
// nothing comes of it.
func TestPeeringFramesPassForTheMembers(t *testing.T) {
	for a, action := range map[rogue.Attack]byte{rogue.Opens: 1, rogue.Confirms: 2, rogue.Closes: 3} {
		t.Run(string(a), func(t *testing.T) {
			r, err := rogue.New(rogue.Config{Attack: a, PerSecond: rogue.MaxPerSecond}, own)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			for _, mac := range []dot11.MAC{one, two} {
				if err := r.Deliver(own, rogue.MeshBeacon(mac), 4, -60, 2437); err != nil {
					t.Fatal(err)
				}
			}
			all := peered(t, r)
			overheard, renamed := 0, 0
			const frames = 160
			for range frames {
				f, err := r.Next()
				if err != nil {
					t.Fatal(err)
				}
				if err := r.Report(f, false, 0, f.Plan); err != nil {
					t.Fatal(err)
				}
				h, body, err := dot11.ParseManagement(f.Data)
				if err != nil || h.Subtype != dot11.Action || binary.BigEndian.Uint16(body) != 15<<8|uint16(action) || all[h.From] == nil || all[h.To] == nil || h.From == h.To {
					t.Fatalf("got %+v, %x, %v", h, body, err)
				}
				if bytes.Contains(body, all[h.From].link) {
					overheard++
				}
				if !bytes.Contains(body, []byte(rogue.MeshOfTests)) {
					renamed++
				}
				all[h.To].Handle(time.Now(), f.Data)
			}
			for mac, e := range all {
				s := e.Stats()
				if s.Malformed != 0 || s.Unverified != frames/2*3/4 || s.UnknownKey != frames/2/4 {
					t.Errorf("of %d frames to %s: %+v", frames/2, mac, s)
				}
			}
			if overheard != frames*3/4 || renamed != frames/8 {
				t.Errorf("of %d, %d with the link ID that was heard, %d of another mesh", frames, overheard, renamed)
			}
			if x, y := all[one].State(two), all[two].State(one); x != peering.Estab || y != peering.Estab {
				t.Errorf("the link is %v and %v", x, y)
			}
		})
	}
}

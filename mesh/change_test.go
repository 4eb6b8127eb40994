package mesh_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"halo.internal/mesh/change"
	"halo.internal/mesh/nstest"
	"halo.internal/model"
)

// changeTiming is shorter than that of a mesh in the air. What a node fetches from a
// gateway that has lost its power may keep it for 20 s.
func changeTiming() change.Timing {
	return change.Timing{
		Trial: 20 * time.Second, Alone: 5 * time.Second, Quiet: 3 * time.Minute, Visit: 8 * time.Second, Longest: 10 * time.Second, Lost: time.Second,
		Prepare: 30 * time.Second, Recall: 5 * time.Second, Countdown: 2 * time.Second, Settle: 30 * time.Second,
	}
}

// segments makes a gateway and nodes on one wire, of which their environment may say more.
func segments(t *testing.T, nodes int, env ...string) []*board {
	t.Helper()
	gwBundle, nodeBundle, _ := bundlesFor(t, nodes)
	boards := []*board{newBoard(t, model.RoleGateway, gwBundle)}
	for range nodes {
		boards = append(boards, newBoard(t, model.RoleNode, nodeBundle))
	}
	var ports []netlink.Link
	for _, b := range boards {
		b.env = append([]string{envSegment + "=1"}, env...)
		b.start()
		ports = append(ports, plug(t, b))
	}
	hub := nstest.Hub(t, fmt.Sprintf("ether%d", laid.Add(1)), ports...)
	for _, b := range boards {
		b.wire = hub
	}
	for _, b := range boards[1:] {
		until(t, "page through the overlay", b.fetch)
	}
	return boards
}

// plug gives a board a wire, and returns its far end.
func plug(t *testing.T, b *board) netlink.Link {
	t.Helper()
	near, far := newCable(t)
	plugIn(t, near, b, wireIface)
	return far
}

// again powers a board on that was off, on the same wire.
func (d *board) again() {
	d.t.Helper()
	d.start()
	far := plug(d.t, d)
	if err := netlink.LinkSetMaster(far, d.wire); err != nil {
		d.t.Fatal(err)
	}
}

func (d *board) profile() model.MeshProfile {
	d.t.Helper()
	p, err := d.mesh.Profile(d.t.Context())
	if err != nil {
		d.t.Fatal(err)
	}
	return p
}

// on tells whether a board uses that channel by that document, and nothing is under
// way.
func (d *board) on(channel int, serial uint64) error {
	p, err := d.mesh.Profile(d.t.Context())
	if err == nil && (p.Channel != channel || p.Serial != serial || p.Phase != string(change.Idle)) {
		err = fmt.Errorf("channel %d, document %d, %s (%s); want channel %d, document %d", p.Channel, p.Serial, p.Phase, p.Outcome, channel, serial)
	}
	return err
}

func (d *board) change(c model.ProfileChange) {
	d.t.Helper()
	if err := d.mesh.PutProfile(d.t.Context(), c); err != nil {
		d.t.Fatal(err)
	}
}

// TestTheMeshComesBack from a profile by which nobody hears anybody; and a node from one
// that the mesh has left while it was off.
func TestTheMeshComesBack(t *testing.T) {
	t.Parallel()
	const home, dead, other = 1, 11, 6
	boards := segments(t, 2, envAir+"=1", envDead+"="+strconv.Itoa(dead))
	gw, nodes := boards[0], boards[1:]
	settled := func(t *testing.T, channel int, outcome string) (serial uint64) {
		t.Helper()
		until(t, fmt.Sprintf("the change is over: %s", outcome), func() error {
			p, err := gw.mesh.Profile(t.Context())
			serial = p.Serial
			if err == nil && (p.Channel != channel || p.Phase != string(change.Idle) || !strings.HasPrefix(p.Outcome, outcome)) {
				err = fmt.Errorf("channel %d, %s %s: %+v", p.Channel, p.Phase, p.Outcome, p.Nodes)
			}
			return err
		})
		return serial
	}
	follow := func(t *testing.T, who []*board, channel int, serial uint64) {
		t.Helper()
		for i, n := range who {
			until(t, fmt.Sprintf("node %d is on the gateway's profile", i), func() error { return n.on(channel, serial) })
			until(t, "page through the overlay", n.fetch)
		}
	}

	t.Run("all, from where nobody is heard", func(t *testing.T) {
		gw.change(model.ProfileChange{Channel: new(dead)})
		for i, n := range nodes {
			until(t, fmt.Sprintf("node %d has gone there", i), func() error { return n.hasEvent("mesh.profile.switched") })
		}
		for i, n := range nodes {
			until(t, fmt.Sprintf("node %d returns by itself", i), func() error { return n.hasEvent("mesh.profile.returned") })
		}
		serial := settled(t, home, "taken back")
		if err := gw.hasEvent("mesh.profile.undone"); err != nil {
			t.Error(err)
		}
		follow(t, nodes, home, serial)
	})

	t.Run("a lone node, by the profiles of before", func(t *testing.T) {
		gw.change(model.ProfileChange{Channel: new(other)})
		follow(t, nodes, other, settled(t, other, "changed"))
		nodes[1].cut()
		gw.change(model.ProfileChange{Channel: new(home), Anyway: true})
		serial := settled(t, home, "changed")
		follow(t, nodes[:1], home, serial)
		nodes[1].again()
		follow(t, nodes[1:], home, serial)
		list, err := nodes[1].mesh.Events(t.Context(), 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		// Nobody could tell it on the channel where it was: it has gone to look.
		if !slices.ContainsFunc(list, func(e model.Event) bool {
			return e.Kind == "mesh.profile.switched" && e.Fields["channel"] == strconv.Itoa(home) && e.Fields["serial"] != fmt.Sprint(serial)
		}) {
			t.Errorf("it did not try the profile of before: %+v", list)
		}
	})
}

func TestTheMeshChangesItsProfile(t *testing.T) {
	t.Parallel()
	boards := segments(t, 3)
	gw, nodes := boards[0], boards[1:]
	first, err := gw.mesh.MeshSecret(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	all := func(t *testing.T, channel int) uint64 {
		t.Helper()
		var serial uint64
		until(t, "the gateway on the new profile", func() error {
			p, err := gw.mesh.Profile(t.Context())
			serial = p.Serial
			if err == nil && (p.Channel != channel || p.Phase != string(change.Idle) || p.Outcome != "changed") {
				err = fmt.Errorf("channel %d, %s %s: %+v", p.Channel, p.Phase, p.Outcome, p.Nodes)
			}
			return err
		})
		return serial
	}
	follows := func(t *testing.T, who []*board, channel int, serial uint64) {
		t.Helper()
		for i, n := range who {
			until(t, fmt.Sprintf("node %d on the new profile", i), func() error { return n.on(channel, serial) })
			until(t, "page through the overlay", n.fetch)
		}
	}

	t.Run("channel", func(t *testing.T) {
		began := time.Now()
		gw.change(model.ProfileChange{Channel: new(6)})
		gw.change(model.ProfileChange{Channel: new(6)}) // again: the same change
		if err := gw.mesh.PutProfile(t.Context(), model.ProfileChange{Channel: new(11)}); err == nil {
			t.Error("another change was begun meanwhile")
		}
		follows(t, nodes, 6, all(t, 6))
		t.Logf("it took %s", time.Since(began))
		at := []time.Time{}
		for _, b := range boards {
			list, err := b.mesh.Events(t.Context(), 0, 0)
			if err != nil {
				t.Fatal(err)
			}
			i := slices.IndexFunc(list, func(e model.Event) bool { return e.Kind == "mesh.profile.switched" })
			if i < 0 {
				t.Fatal("nothing is told of the switch")
			}
			at = append(at, list[i].Time)
		}
		spread := slices.MaxFunc(at, time.Time.Compare).Sub(slices.MinFunc(at, time.Time.Compare))
		t.Logf("all switched within %s", spread)
		if spread > 2*time.Second { // clocks are the gateway's to a second or so
			t.Errorf("they switched within %s", spread)
		}
	})

	t.Run("secret, with a node off", func(t *testing.T) {
		nodes[2].cut()
		gw.change(model.ProfileChange{RotateSecret: true, Anyway: true})
		serial := all(t, 6)
		follows(t, nodes[:2], 6, serial)
		second, err := gw.mesh.MeshSecret(t.Context())
		if err != nil || second.PSK == first.PSK || len(second.PSK) < 26 {
			t.Errorf("the secret is not another: %v", err)
		}
		began := time.Now()
		step := func(what string) { t.Logf("%s after %s", what, time.Since(began).Round(time.Second)) }
		until(t, "a member has the whole document", func() error {
			for _, n := range nodes[:2] {
				b, err := os.ReadFile(filepath.Join(n.root, "perm/halo/mesh-profile"))
				if err == nil && len(b) > 600 {
					return nil
				}
			}
			return errors.New("excerpts alone")
		})
		gw.cut() // it comes back without the gateway
		nodes[2].again()
		step("all but the gateway and the node")
		until(t, "the node that was off has rejoined", func() error { return nodes[2].hasEvent("mesh.profile.rejoined") })
		until(t, "it uses the new secret", func() error { return nodes[2].on(6, serial) })
		step("rejoined")
		gw.again()
		for _, n := range nodes {
			until(t, "page through the overlay", n.fetch)
		}
		step("the gateway is back")
	})

	t.Run("revoked", func(t *testing.T) {
		gone, before := nodes[1].status().Node, gw.profile().Serial
		began := time.Now()
		if err := os.WriteFile(filepath.Join(gw.root, revokeFile), []byte(gone), 0o600); err != nil {
			t.Fatal(err)
		}
		for i, b := range []*board{gw, nodes[0], nodes[2]} {
			until(t, fmt.Sprintf("board %d drops the overlay of the revoked", i), func() error {
				if slices.ContainsFunc(b.status().Overlay, func(p model.OverlayPeer) bool { return p.Node == gone }) {
					return errors.New("it is a peer")
				}
				return nil
			})
		}
		t.Logf("its overlay ended within %s", time.Since(began))
		var serial uint64
		until(t, "another secret", func() error {
			p := gw.profile()
			if serial = p.Serial; serial == before || p.Phase != string(change.Idle) || p.Secret {
				return fmt.Errorf("%s %s, due %v: %+v", p.Phase, p.Outcome, p.Secret, p.Nodes)
			}
			return nil
		})
		follows(t, []*board{nodes[0], nodes[2]}, 6, serial)
		if p := nodes[1].profile(); p.Serial == serial {
			t.Error("the revoked node has the new profile")
		}
	})

	t.Run("revoked, while the gateway starts", func(t *testing.T) {
		gone, before := nodes[2].status().Node, gw.profile().Serial
		gw.cut()
		if err := os.WriteFile(filepath.Join(gw.root, revokeFile), []byte(gone), 0o600); err != nil {
			t.Fatal(err)
		}
		gw.again() // another secret is due before it reaches anybody
		var serial uint64
		until(t, "another secret", func() error {
			p, err := gw.mesh.Profile(t.Context())
			if serial = p.Serial; err == nil && (serial == before || p.Phase != string(change.Idle) || p.Secret) {
				err = fmt.Errorf("%s %s, due %v: %+v", p.Phase, p.Outcome, p.Secret, p.Nodes)
			}
			return err
		})
		follows(t, nodes[:1], 6, serial)
		list, err := nodes[0].mesh.Events(t.Context(), 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(list, func(e model.Event) bool {
			return e.Kind == "mesh.profile.prepared" && e.Fields["serial"] == fmt.Sprint(serial)
		}) {
			t.Error("the node was not awaited: it had to find its way back")
		}
	})
}

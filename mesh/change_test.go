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

	"github.com/fxamacker/cbor/v2"
	"github.com/vishvananda/netlink"

	"halo.internal/mesh/change"
	"halo.internal/mesh/nstest"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// Times of changeTiming that a test has in the place of those of all.
const (
	envQuiet   = "HALO_TEST_QUIET"
	envCount   = "HALO_TEST_COUNTDOWN"
	envPrepare = "HALO_TEST_PREPARE"
	envTrial   = "HALO_TEST_TRIAL"
	envSettle  = "HALO_TEST_SETTLE"
	envAlone   = "HALO_TEST_ALONE"
)

// changeTiming is shorter than that of a mesh in the air. What a node fetches from a
// gateway that has lost its power may keep it for 20 s. Where a test is not about what
// happens when it is over, a time is longer than anything takes for which there is no
// processor: nothing waits for it to pass.
func changeTiming() change.Timing {
	of := func(env string, otherwise time.Duration) time.Duration {
		if d, err := time.ParseDuration(os.Getenv(env)); err == nil {
			return d
		}
		return otherwise
	}
	return change.Timing{
		Trial: of(envTrial, 2*time.Minute), Alone: of(envAlone, 5*time.Second), Quiet: of(envQuiet, 3*time.Minute), Visit: 8 * time.Second, Longest: 10 * time.Second, Lost: time.Second,
		Prepare: of(envPrepare, 2*time.Minute), Recall: 5 * time.Second, Countdown: of(envCount, 2*time.Second), Settle: of(envSettle, 4*time.Minute),
	}
}

// segments makes a gateway and nodes on one wire; env is what their processes are told
// besides.
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

// shaken tells whether a board has shaken hands with another, as its peers are now.
func (d *board) shaken(other *board) error {
	node := other.identity().ID()
	if !slices.ContainsFunc(d.status().Overlay, func(p model.OverlayPeer) bool { return p.Node == node && p.LastHandshake != nil }) {
		return fmt.Errorf("no handshake with %s", node)
	}
	return nil
}

// hasWhole tells whether a node's card has the whole of the document that counts.
func (d *board) hasWhole() error {
	b, err := os.ReadFile(filepath.Join(d.root, paths.State, paths.Profile))
	if err != nil {
		return err
	}
	const sum = 8
	var fields []cbor.RawMessage
	var home []byte
	err = cbor.Unmarshal(b[:len(b)-sum], &fields)
	if err == nil {
		err = cbor.Unmarshal(fields[0], &home)
	}
	if err == nil && (len(home) == 0 || home[0] != 0x80|3) { // an excerpt has five fields
		err = errors.New("an excerpt alone")
	}
	return err
}

// change has a gateway change the profile, as soon as it has heard of the nodes that are
// there.
func (d *board) change(c model.ProfileChange) {
	d.t.Helper()
	until(d.t, "the change begins", func() error { return d.mesh.PutProfile(d.t.Context(), c) })
}

// settled waits until a gateway is done with a change, and uses that channel.
func (d *board) settled(t *testing.T, channel int, outcome string) (serial uint64) {
	t.Helper()
	until(t, "the change is over: "+outcome, func() error {
		p, err := d.mesh.Profile(t.Context())
		serial = p.Serial
		if err == nil && (p.Channel != channel || p.Phase != string(change.Idle) || !strings.HasPrefix(p.Outcome, outcome)) {
			err = fmt.Errorf("channel %d, %s %s: %+v", p.Channel, p.Phase, p.Outcome, p.Nodes)
		}
		return err
	})
	return serial
}

// ordered returns when a board switched, which did so once, to the document that it knew
// of by an event of that kind, and not before the countdown that followed was over. How
// late it may be is another matter: that depends on the host.
func (d *board) ordered(t *testing.T, known string, channel int, serial uint64, countdown time.Duration) (at time.Time) {
	t.Helper()
	var heard time.Time
	switches := 0
	list := d.events()
	for _, e := range list {
		switch {
		case e.Kind == known && e.Fields["serial"] == fmt.Sprint(serial):
			heard = e.Time
		case e.Kind == "mesh.profile.switched" && e.Fields["serial"] == fmt.Sprint(serial) && e.Fields["channel"] == fmt.Sprint(channel):
			at = e.Time
			switches++
		case slices.Contains([]string{"mesh.profile.switched", "mesh.profile.returned", "mesh.profile.rejoined"}, e.Kind):
			t.Errorf("the %s did not go by the order alone: %+v", d.role, e)
		}
	}
	if switches != 1 || heard.IsZero() {
		t.Fatalf("expected the %s to know of document %d, and to switch to it once, got %+v", d.role, serial, list)
	}
	const clocks = 2 * time.Second // may be set meanwhile
	if waited := at.Sub(heard); waited < countdown-clocks {
		t.Errorf("the %s switched %s after it knew of the document, want %s at least: all go together", d.role, waited, countdown)
	}
	return at
}

// follow waits until nodes are where the gateway is.
func follow(t *testing.T, who []*board, channel int, serial uint64) {
	t.Helper()
	for i, n := range who {
		until(t, fmt.Sprintf("node %d is on the gateway's profile", i), func() error { return n.on(channel, serial) })
		until(t, "page through the overlay", n.fetch)
	}
}

// Of channels, on the last nobody hears anybody.
const (
	homeChannel  = 1
	otherChannel = 6
	deadChannel  = 11
)

var inTheAir = []string{envAir + "=1", envDead + "=" + strconv.Itoa(deadChannel)}

// TestTheMeshComesBack from a profile by which nobody hears anybody. None that works is
// tried there, so that it may take less time to give up. Whoever misses the order to go
// there misses all: nobody can tell him where the others are.
func TestTheMeshComesBack(t *testing.T) {
	t.Parallel()
	boards := segments(t, 2, append(slices.Clone(inTheAir), envCount+"=8s", envTrial+"=10s", envSettle+"=15s")...)
	gw, nodes := boards[0], boards[1:]
	gw.change(model.ProfileChange{Channel: new(deadChannel)})
	for i, n := range nodes {
		until(t, fmt.Sprintf("node %d has gone there", i), func() error { return n.hasEvent("mesh.profile.switched") })
	}
	for i, n := range nodes {
		until(t, fmt.Sprintf("node %d returns by itself", i), func() error { return n.hasEvent("mesh.profile.returned") })
	}
	serial := gw.settled(t, homeChannel, "taken back")
	if err := gw.hasEvent("mesh.profile.undone"); err != nil {
		t.Error(err)
	}
	follow(t, nodes, homeChannel, serial)
}

// TestALoneNodeComesBack from a profile that the mesh has left while it was off, by the
// profiles of before.
func TestALoneNodeComesBack(t *testing.T) {
	t.Parallel()
	boards := segments(t, 2, inTheAir...)
	gw, nodes := boards[0], boards[1:]
	gw.change(model.ProfileChange{Channel: new(otherChannel)})
	follow(t, nodes, otherChannel, gw.settled(t, otherChannel, "changed"))
	nodes[1].cut()
	gw.cut()
	gw.again() // and has shaken no hands with it: it does not wait for that one
	until(t, "the gateway knows who is there", func() error { return errors.Join(nodes[0].fetch(), gw.shaken(nodes[0])) })
	gw.change(model.ProfileChange{Channel: new(homeChannel), Anyway: true})
	serial := gw.settled(t, homeChannel, "changed")
	follow(t, nodes[:1], homeChannel, serial)
	nodes[1].again()
	follow(t, nodes[1:], homeChannel, serial)
	list, err := nodes[1].mesh.Events(t.Context(), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	// Nobody could tell it on the channel where it was: it has gone to look.
	if !slices.ContainsFunc(list, func(e model.Event) bool {
		return e.Kind == "mesh.profile.switched" && e.Fields["channel"] == strconv.Itoa(homeChannel) && e.Fields["serial"] != fmt.Sprint(serial)
	}) {
		t.Errorf("it did not try the profile of before: %+v", list)
	}
}

// TestTheMeshChangesItsProfile has nobody look for the mesh by himself, be he alone or
// among others that hear no gateway: who is on another profile was ordered there, or told
// of it.
func TestTheMeshChangesItsProfile(t *testing.T) {
	t.Parallel()
	const countdown = 8 * time.Second // as in TestTheMeshComesBack
	never := (10 * patience).String()
	boards := segments(t, 3, envCount+"="+countdown.String(), envAlone+"="+never, envQuiet+"="+never)
	gw, nodes := boards[0], boards[1:]
	pauses := nstest.WatchPauses(t)

	t.Run("channel", func(t *testing.T) {
		pauses.Clear()
		began := time.Now()
		gw.change(model.ProfileChange{Channel: new(otherChannel)})
		gw.change(model.ProfileChange{Channel: new(otherChannel)}) // again: the same change
		if err := gw.mesh.PutProfile(t.Context(), model.ProfileChange{Channel: new(11)}); err == nil {
			t.Error("another change was begun meanwhile")
		}
		serial := gw.settled(t, otherChannel, "changed")
		follow(t, nodes, otherChannel, serial)
		t.Logf("it took %s", time.Since(began))
		at := []time.Time{gw.ordered(t, "mesh.profile.started", otherChannel, serial, countdown)}
		for _, n := range nodes {
			at = append(at, n.ordered(t, "mesh.profile.prepared", otherChannel, serial, countdown))
		}
		spread := slices.MaxFunc(at, time.Time.Compare).Sub(slices.MinFunc(at, time.Time.Compare))
		t.Logf("all switched within %s, the host paused for up to %s", spread, pauses.Longest())
		// Clocks are the gateway's to a second or so. From the order to the switch are some
		// twenty wakings of threads, and each may be so late.
		if most := 2*time.Second + 20*pauses.Longest(); spread > most {
			t.Errorf("they switched within %s, want at most %s", spread, most)
		}
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
		follow(t, []*board{nodes[0], nodes[2]}, otherChannel, serial)
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
		follow(t, nodes[:1], otherChannel, serial)
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

// TestTheSecretChangesWithoutANode that is off and awaited, until it is not: it learns the
// new one from the others, without the gateway.
func TestTheSecretChangesWithoutANode(t *testing.T) {
	t.Parallel()
	boards := segments(t, 3, envPrepare+"=15s") // who is late for a secret finds it by itself
	gw, nodes := boards[0], boards[1:]
	first, err := gw.mesh.MeshSecret(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	nodes[2].cut()
	gw.change(model.ProfileChange{RotateSecret: true, Anyway: true})
	serial := gw.settled(t, homeChannel, "changed")
	follow(t, nodes[:2], homeChannel, serial)
	second, err := gw.mesh.MeshSecret(t.Context())
	if err != nil || second.PSK == first.PSK || len(second.PSK) < 26 {
		t.Errorf("the secret is not another: %v", err)
	}
	began := time.Now()
	step := func(what string) { t.Logf("%s after %s", what, time.Since(began).Round(time.Second)) }
	until(t, "a member has the whole document", func() error {
		errs := [2]error{}
		for i, n := range nodes[:2] {
			if errs[i] = n.hasWhole(); errs[i] == nil {
				return nil
			}
		}
		return errors.Join(errs[:]...)
	})
	gw.cut() // it comes back without the gateway
	nodes[2].again()
	step("all but the gateway and the node")
	until(t, "the node that was off has rejoined", func() error { return nodes[2].hasEvent("mesh.profile.rejoined") })
	until(t, "it uses the new secret", func() error { return nodes[2].on(homeChannel, serial) })
	step("rejoined")
	gw.again()
	for i, n := range nodes {
		// A handshake from before the gateway heard that the node began anew is lost with
		// the peer of then, and a node that has none is waited for.
		until(t, fmt.Sprintf("page of the gateway, and its peer, for node %d", i), func() error { return errors.Join(n.fetch(), gw.shaken(n)) })
	}
	step("the gateway is back")
}

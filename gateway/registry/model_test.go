package registry

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

// add admits a node with a token, on that board.
func (f *fixture) add(t *testing.T, name, serial string, macs ...string) identity.Key {
	t.Helper()
	node := identity.New()
	req := f.request(node, f.token(1))
	req.Name, req.Serial, req.MACs = name, serial, macs
	if _, err := f.join(t, node, req); err != nil {
		t.Fatal(err)
	}
	return node
}

func (f *fixture) wantNode(t *testing.T, ref string) apitype.Node {
	t.Helper()
	n, err := f.Node(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func wifi(name, mac string) model.Interface {
	return model.Interface{Name: name, Kind: "wifi", MAC: mac}
}

// A node that moves from Ethernet to the mesh and gets other addresses stays one, and so
// does its interface whose radio is replaced.
func TestMovesAndSwaps(t *testing.T) {
	f := newFixture(t)
	mast, hut := f.add(t, "mast", "").ID(), f.add(t, "hut", "").ID()
	says := func(id string, list ...model.Interface) { f.Status(id, model.NodeStatus{Interfaces: list}) }
	says(mast, model.Interface{Name: "eth0", Kind: "ethernet", MAC: "dc:a6:32:00:00:01"})
	says(mast, model.Interface{Name: "eth0", Kind: "ethernet", MAC: "dc:a6:32:00:00:01"}, wifi("mesh0", "00:c0:ca:00:00:02"))
	says(mast, wifi("mesh0", "00:c0:ca:00:00:02"), model.Interface{Name: "wg0", Kind: "overlay"})
	// The address that a radio has after a short start: batman.Turned.
	says(mast, wifi("mesh0", "0a:c0:ca:00:00:02"))
	f.flush(t)
	if kinds := f.kinds(t); slices.Contains(kinds, kindSwapped) || slices.Contains(kinds, kindMoved) {
		t.Errorf("moves of one node: events %q", kinds)
	}
	// The radio is replaced, and later plugged into another node.
	says(mast, wifi("mesh0", "00:c0:ca:00:00:77"))
	says(hut, wifi("mesh0", "00:c0:ca:00:00:02"))
	f.flush(t)
	kinds := f.kinds(t)
	if !slices.Contains(kinds, kindSwapped) || !slices.Contains(kinds, kindMoved) {
		t.Errorf("a swap and a move: events %q", kinds)
	}
	list, err := f.Interfaces(t.Context(), mast)
	if err != nil || len(list) != 3 {
		t.Fatalf("interfaces: got %+v, %v", list, err)
	}
	check := func() {
		t.Helper()
		hw, err := f.Hardware(t.Context(), mast)
		if err != nil || len(hw["mesh0"]) != 2 || hw["mesh0"][0].MAC != "00:c0:ca:00:00:77" || len(hw["eth0"]) != 1 {
			t.Errorf("hardware: got %+v, %v", hw, err)
		}
	}
	f.exec(t, `UPDATE interface_hardware SET first_seen = first_seen - 1 WHERE mac = '00:c0:ca:00:00:02' AND node = ?`, mast)
	check()
	// Over a restart: what is known is no news.
	f.open(t)
	f.Status(mast, model.NodeStatus{Interfaces: []model.Interface{wifi("mesh0", "00:c0:ca:00:00:77")}})
	f.flush(t)
	check()
	if again := f.kinds(t); len(again) != len(kinds) {
		t.Errorf("after a restart: events %q", again[len(kinds):])
	}
	if nodes, err := f.Nodes(t.Context(), "", 10); err != nil || len(nodes.Items) != 3 {
		t.Errorf("nodes: got %d, %v", len(nodes.Items), err)
	}
}

func TestHardwareThatANodeMakesUp(t *testing.T) {
	f := newFixture(t)
	id := f.add(t, "mast", "").ID()
	for i := range 3 * maxHardware {
		f.Status(id, model.NodeStatus{Interfaces: []model.Interface{wifi("wlan0", fmt.Sprintf("00:c0:ca:00:%02x:%02x", i>>8, i&255))}})
		if i%100 == 0 {
			f.flush(t)
		}
	}
	f.flush(t)
	if n := f.count(t, `SELECT count(*) FROM interface_hardware`); n > maxHardware {
		t.Errorf("%d rows, want %d at most", n, maxHardware)
	}
	swaps := 0
	for _, k := range f.kinds(t) {
		if k == kindSwapped {
			swaps++
		}
	}
	if swaps != 1 {
		t.Errorf("%d events within a minute, want one", swaps)
	}
}

// Two nodes that say they have an address: neither is believed, and it is told.
func TestConflicts(t *testing.T) {
	f := newFixture(t)
	a, b := f.add(t, "a", "").ID(), f.add(t, "b", "").ID()
	for _, id := range []string{a, b} {
		f.Online(id, 1)
		f.Status(id, model.NodeStatus{Interfaces: []model.Interface{wifi("wlan0", "00:c0:ca:00:00:01"), {Name: "br0", Kind: "bridge", MAC: "00:c0:ca:00:00:09"}}})
	}
	got := f.Conflicts()
	if len(got) != 1 || got[0].MAC != "00:c0:ca:00:00:01" || len(got[0].Nodes) != 2 {
		t.Errorf("got %+v", got)
	}
	if id, ok := f.ByMAC()["00:c0:ca:00:00:01"]; ok {
		t.Errorf("%s is believed", id)
	}
}

// Lives of a machine do not come back: a node that reboots is no clone, two devices with
// one key are, whoever speaks when.
func TestClones(t *testing.T) {
	life := func(n byte) []byte { return []byte{n, 0, 0, 0, 0, 0, 0, 0} }
	for _, tc := range []struct {
		name   string
		lives  string
		cloned int // at which of them; -1: never
	}{
		{"one that reconnects", "aaaa", -1},
		{"one that reboots again and again", "abcdefghijklmnopqrst", -1},
		{"one that tells no life", "....", -1},
		{"two in turns", "aba", 2},
		{"two, one of which reboots", "abcb", 3},
		{"two, of which one is of an old release", "a.b.a", 4},
		{"two, of which one tells none", "a.a", 2},
		{"two, of which one tells none and was there first", "..a.a", 4},
		{"two, of which one tells none and the other reboots", "a.b.b", 4},
		{"one whose updates are undone", "a.b..c.d", -1},
		{"one back after many reboots of the other", "abcdefga", 7},
		{"the gateway of before knew one", "ab|ab|aba", 8},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFixture(t)
			node := f.add(t, "mast", "")
			id := node.ID()
			var told int
			count := func() { told++ }
			f.OnQuarantine(count)
			got := -1
			for i, l := range tc.lives {
				switch l {
				case '|':
					f.open(t)
					f.OnQuarantine(count)
					continue
				case '.':
					l = 0
				}
				var said []byte
				if l != 0 {
					said = life(byte(l))
				}
				cloned, err := f.Lives(t.Context(), id, said, 7, here)
				if err != nil {
					t.Fatal(err)
				}
				if cloned && got < 0 {
					got = i
				}
			}
			if got != tc.cloned {
				t.Fatalf("found at %d, want %d", got, tc.cloned)
			}
			if (told == 1) != (got >= 0) {
				t.Errorf("told %d times", told)
			}
			n, peers := f.wantNode(t, id), must(f.Peers(t.Context()))(t)
			m := must(f.Member(t.Context(), node.Public()))(t)
			if shut := got >= 0; (n.Quarantined != nil) != shut || m.Quarantined != shut || (len(peers) == 0) != shut {
				t.Errorf("quarantined %+v, member %+v, %d peers", n.Quarantined, m, len(peers))
			}
		})
	}
}

func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestQuarantineIsOverWhenReleased(t *testing.T) {
	f := newFixture(t)
	node := f.add(t, "mast", "")
	changes := f.Changes()
	meet := func(lives string) (cloned bool) {
		for _, l := range lives {
			c := must(f.Lives(t.Context(), node.ID(), []byte{byte(l)}, 7, here))(t)
			cloned = cloned || c
		}
		return cloned
	}
	if !meet("aba") {
		t.Fatal("not found")
	}
	select {
	case <-changes:
	default:
		t.Error("halo-mesh is not told that it is no peer")
	}
	_, err := f.join(t, node, f.request(node, ""))
	wantType(t, err, apitype.ProblemJoinQuarantined)
	f.open(t) // over a restart
	if list := must(f.Quarantined(t.Context()))(t); len(list) != 1 || list[0].Quarantined == nil {
		t.Errorf("quarantined are %+v", list)
	}
	n, err := f.Release(t.Context(), "mast", "user:anna")
	if err != nil || n.Quarantined != nil {
		t.Fatalf("released: %+v, %v", n, err)
	}
	if _, err := f.Release(t.Context(), "mast", "user:anna"); err == nil {
		t.Error("released twice")
	}
	if _, err := f.join(t, node, f.request(node, "")); err != nil {
		t.Errorf("it cannot come back: %v", err)
	}
	for range 2 {
		if meet("b") {
			t.Error("the one that is left is taken for a clone")
		}
	}
	if !meet("ab") {
		t.Error("the clone is there still, and is not found")
	}
	if kinds := f.kinds(t); !slices.Contains(kinds, kindCloned) || !slices.Contains(kinds, kindReleased) {
		t.Errorf("events %q", kinds)
	}
	// The gateway itself is told apart by what it announces.
	for _, l := range "aba" {
		if cloned, err := f.Lives(t.Context(), f.Gateway(), []byte{byte(l)}, 1, here); cloned || err != nil {
			t.Errorf("the gateway is a clone: %v", err)
		}
	}
}

func TestReplacements(t *testing.T) {
	const ethA, ethB, usb = "dc:a6:32:00:00:0a", "dc:a6:32:00:00:0b", "00:c0:ca:00:00:01"
	type board struct {
		name, serial string
		macs         []string
	}
	for _, tc := range []struct {
		name     string
		old, new board
		reasons  string
	}{
		{"the same serial number and addresses", board{"mast", "s1", []string{ethA, usb}}, board{"x", "s1", []string{ethA, usb}}, "MAC " + usb + ", MAC " + ethA + ", serial s1"},
		{"another radio meanwhile", board{"mast", "s1", []string{ethA, usb}}, board{"x", "s1", []string{ethA}}, "MAC " + ethA + ", serial s1"},
		{"a board without serial numbers", board{"mast", "", []string{ethA}}, board{"x", "", []string{ethA}}, "MAC " + ethA},
		{"a release before serial numbers", board{"mast", "", []string{ethA}}, board{"x", "s1", []string{ethA}}, "MAC " + ethA},
		{"another board", board{"mast", "s1", []string{ethA}}, board{"x", "s2", []string{ethB}}, ""},
		{"its radio on another board", board{"mast", "s1", []string{ethA, usb}}, board{"x", "s2", []string{ethB, usb}}, ""},
		{"addresses that software chose", board{"mast", "", []string{"02:00:00:00:00:01"}}, board{"x", "", []string{"02:00:00:00:00:01"}}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFixture(t)
			old := f.add(t, tc.old.name, tc.old.serial, tc.old.macs...)
			f.now = f.now.Add(time.Second)
			next := f.add(t, tc.new.name, tc.new.serial, tc.new.macs...)
			list := must(f.Replacements(t.Context()))(t)
			if tc.reasons == "" {
				if len(list) != 0 {
					t.Errorf("offered: %+v", list)
				}
				return
			}
			if len(list) != 1 || list[0].Node != next.ID() || list[0].Old != old.ID() || strings.Join(list[0].Reasons, ", ") != tc.reasons {
				t.Fatalf("offered: %+v", list)
			}
			offline := f.Online(old.ID(), 1)
			if list := must(f.Replacements(t.Context()))(t); len(list) != 0 {
				t.Errorf("while the old one is there: %+v", list)
			}
			offline()
			if err := f.Dismiss(t.Context(), next.ID(), "user:anna"); err != nil {
				t.Fatal(err)
			}
			if list := must(f.Replacements(t.Context()))(t); len(list) != 0 {
				t.Errorf("dismissed: %+v", list)
			}
			if _, err := f.Adopt(t.Context(), next.ID(), "user:anna"); err == nil {
				t.Error("adopted all the same")
			}
		})
	}
}

func TestACardThatWasWrittenAnew(t *testing.T) {
	f := newFixture(t)
	var moved []string
	refuse := errors.New("not now")
	f.OnAdopt(func(_ context.Context, _ *sql.Tx, old, node string) error {
		if refuse != nil {
			return refuse
		}
		moved = append(moved, old+" "+node)
		return nil
	})
	const mac = "dc:a6:32:00:00:0a"
	first := f.add(t, "mast", "s1", mac)
	if _, err := f.TrustMAC(t.Context(), "user:anna", apitype.TrustMAC{MAC: mac}); err != nil {
		t.Fatal(err)
	}
	was := f.wantNode(t, "mast")
	// It asks without a token, and waits.
	second := identity.New()
	req := f.request(second, "")
	req.Name, req.Serial, req.MACs = "mast", "s1", []string{"dc:a6:32:00:00:ff"}
	_, err := f.join(t, second, req)
	wantType(t, err, apitype.ProblemJoinPending)
	list := must(f.Replacements(t.Context()))(t)
	if len(list) != 1 || !list[0].Waits || list[0].OldName != "mast" {
		t.Fatalf("offered: %+v", list)
	}
	// The old one comes back in the last moment.
	offline := f.Online(first.ID(), 1)
	if _, err := f.Adopt(t.Context(), second.ID(), "user:anna"); err == nil {
		t.Fatal("adopted while the old one is there")
	}
	offline()
	if _, err := f.Adopt(t.Context(), second.ID(), "user:anna"); !errors.Is(err, refuse) {
		t.Fatalf("adopted, though what it has to take over is refused: %v", err)
	}
	if _, err := f.Node(t.Context(), second.ID()); err == nil {
		t.Fatal("an adoption that was refused has admitted the node")
	}
	refuse = nil
	n, err := f.Adopt(t.Context(), second.ID(), "user:anna")
	if err != nil || n.Name != "mast" || n.ID != second.ID() || n.Replaces != first.ID() || n.Clients != was.Clients || n.AdmittedBy != "user:anna" {
		t.Fatalf("adopted: %+v, %v", n, err)
	}
	if old := f.wantNode(t, first.ID()); !old.Revoked || old.Name != first.ID() {
		t.Errorf("the old one: %+v", old)
	}
	if next := must(f.Successor(t.Context(), first.ID()))(t); next != second.ID() {
		t.Errorf("its successor is %q", next)
	}
	if !slices.Equal(moved, []string{first.ID() + " " + second.ID()}) {
		t.Errorf("moved: %q", moved)
	}
	if macs := must(f.TrustedMACs(t.Context(), "", 10))(t); len(macs.Items) != 1 || macs.Items[0].Node != second.ID() {
		t.Errorf("trusted: %+v", macs)
	}
	_, err = f.join(t, first, f.request(first, f.token(1)))
	wantType(t, err, apitype.ProblemJoinRevoked)
	if m, err := f.join(t, second, f.request(second, "")); err != nil || m.Name != "mast" || m.Clients != was.Clients {
		t.Errorf("the new one gets %+v, %v", m, err)
	}
	// And once more: its history is that of both.
	third := identity.New()
	req = f.request(third, f.token(1))
	req.Name, req.Serial = "x", "s1"
	f.now = f.now.Add(time.Second)
	if _, err := f.join(t, third, req); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Adopt(t.Context(), third.ID(), "user:anna"); err != nil {
		t.Fatal(err)
	}
	if past := must(f.Lineage(t.Context(), third.ID()))(t); !slices.Equal(past, []string{second.ID(), first.ID()}) {
		t.Errorf("lineage %q", past)
	}
	if kinds := f.kinds(t); !slices.Contains(kinds, kindReplaced) {
		t.Errorf("events %q", kinds)
	}
	if list := must(f.Replacements(t.Context()))(t); len(list) != 0 {
		t.Errorf("still offered: %+v", list)
	}
}

// Whoever asked for an adoption may hang up once it is stored: it is answered as done, so that
// what has to follow it does.
func TestAnAdoptionIsDoneOnceItIsStored(t *testing.T) {
	f := newFixture(t)
	old := f.add(t, "mast", "s1")
	f.now = f.now.Add(time.Second)
	next := f.add(t, "x", "s1")
	ctx, hangUp := context.WithCancel(t.Context())
	f.OnAdopted(func(string, string) { hangUp() })
	n, err := f.Adopt(ctx, next.ID(), "user:anna")
	if err != nil || ctx.Err() == nil || n.ID != next.ID() || n.Replaces != old.ID() || n.Name != "mast" {
		t.Errorf("got %+v, %v", n, err)
	}
}

// A serial number that a node tells later, by its heartbeat.
func TestASerialNumberByTheHeartbeat(t *testing.T) {
	f := newFixture(t)
	old := f.add(t, "mast", "")
	f.Status(old.ID(), model.NodeStatus{Serial: "s1"})
	f.flush(t)
	if n := f.wantNode(t, "mast"); n.Serial != "s1" {
		t.Errorf("got %q", n.Serial)
	}
	f.now = f.now.Add(time.Second)
	next := f.add(t, "x", "s1")
	if list := must(f.Replacements(t.Context()))(t); len(list) != 1 || list[0].Node != next.ID() {
		t.Errorf("offered: %+v", list)
	}
}

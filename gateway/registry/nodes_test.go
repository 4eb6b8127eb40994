package registry

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"testing"

	"halo.internal/gateway/etag"
	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

// all returns the list of nodes page by page.
func (f *fixture) all(t *testing.T, limit int) (nodes []apitype.Node) {
	t.Helper()
	for cursor := ""; ; {
		l, err := f.Nodes(t.Context(), cursor, limit)
		if err != nil {
			t.Fatal(err)
		}
		if l.Items == nil || len(l.Items) > limit {
			t.Fatalf("%d on a page of %d: %v", len(l.Items), limit, l.Items)
		}
		nodes = append(nodes, l.Items...)
		if cursor = l.Next; cursor == "" {
			return nodes
		}
	}
}

// same tells that the list, on pages of any size, has what each node by itself has.
func (f *fixture) same(t *testing.T, what string) {
	t.Helper()
	var names []string
	nodes := f.all(t, 2)
	for _, n := range nodes {
		alone, err := f.Node(t.Context(), n.ID)
		if err != nil || !reflect.DeepEqual(alone, n) {
			t.Errorf("%s: the list has\n%+v, the node is\n%+v, %v", what, n, alone, err)
		}
		names = append(names, n.Name)
	}
	var stored int
	if err := f.db.Read().QueryRow(`SELECT count(*) FROM nodes`).Scan(&stored); err != nil || stored != len(nodes) {
		t.Errorf("%s: %d nodes are listed of %d, %v", what, len(nodes), stored, err)
	}
	if !slices.IsSorted(names) {
		t.Errorf("%s: not by name: %v", what, names)
	}
	for _, limit := range []int{1, max(1, len(nodes)-1), len(nodes), len(nodes) + 1} {
		if got := f.all(t, limit); !reflect.DeepEqual(got, nodes) {
			t.Errorf("%s: pages of %d have %+v, want %+v", what, limit, got, nodes)
		}
	}
}

// TestTheListIsOfNow: what it has of config.db is what that has, after each kind of change.
func TestTheListIsOfNow(t *testing.T) {
	f := newFixture(t)
	f.same(t, "the gateway alone")
	var keys []identity.Key
	for i, name := range []string{"hill", "mast", "lake"} {
		node := identity.New()
		r := f.request(node, f.token(1))
		r.Name, r.MACs, r.Board = name, []string{fmt.Sprintf("02:00:00:00:00:%02x", i)}, "rpi4b"
		if _, err := f.join(t, node, r); err != nil {
			t.Fatal(err)
		}
		keys = append(keys, node)
		f.same(t, name+" has joined")
	}
	hill, mast, lake := keys[0].ID(), keys[1].ID(), keys[2].ID()
	ctx := t.Context()
	offline := func() {}
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"renamed", func() error { _, err := f.Rename(ctx, hill, etag.Match{}, "zenith"); return err }},
		{"there", func() error { offline = f.Online(mast, 4); return nil }},
		{"says how it is", func() error {
			f.Status(mast, model.NodeStatus{State: "degraded", Missing: "gps", Board: "rpi3b", Version: "v2", Kernel: "6.12", Slot: "b", UptimeS: 7, Volatile: true, Serial: "s1"})
			return nil
		}},
		{"written down", func() error { return f.save(ctx, true) }},
		{"gone", func() error { offline(); return nil }},
		{"quarantined", func() error { return f.quarantine(ctx, lake, "it was there twice", nil) }},
		{"released", func() error { _, err := f.Release(ctx, lake, "user:root"); return err }},
		{"left out", func() error { _, err := f.LeaveOut(ctx, []string{lake}); return err }},
		{"taken back", func() error { _, err := f.Approve(ctx, lake, "user:root"); return err }},
		{"revoked", func() error { _, err := f.Revoke(ctx, mast, etag.Match{}); return err }},
		{"by whoever writes config.db", func() error {
			return f.db.Write(ctx, func(tx *sql.Tx) error { _, err := tx.Exec(`UPDATE nodes SET serial = 's2'`); return err })
		}},
		{"given up", func() error {
			err := f.db.Write(ctx, func(tx *sql.Tx) error {
				_, err := tx.Exec(`UPDATE nodes SET serial = 's3'`)
				return errors.Join(err, errBroken)
			})
			if !errors.Is(err, errBroken) {
				return fmt.Errorf("got %w", err)
			}
			return nil
		}},
		{"after a restart", func() error { f.open(t); return nil }},
	} {
		f.same(t, "before: "+step.what)
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
		f.same(t, step.what)
	}
	if l, err := f.Nodes(ctx, "zenith", 10); err != nil || len(l.Items) != 0 || l.Items == nil || l.Next != "" {
		t.Errorf("after the last: %+v, %v", l, err)
	}
	if l, err := f.Nodes(ctx, "iceberg", 1); err != nil || len(l.Items) != 1 || l.Items[0].Name <= "iceberg" || l.Next == "" {
		t.Errorf("after a name that nobody has: %+v, %v", l, err)
	}
}

var errBroken = errors.New("broken")

// TestTheListFollowsWhoeverWrites, while others read it.
func TestTheListFollowsWhoeverWrites(t *testing.T) {
	f := newFixture(t)
	node := identity.New()
	if _, err := f.join(t, node, f.request(node, f.token(1))); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for ctx.Err() == nil {
				if l, err := f.Nodes(ctx, "", 10); ctx.Err() == nil && (err != nil || len(l.Items) != 2) {
					t.Errorf("got %+v, %v", l, err)
					return
				}
			}
		})
	}
	for i := range 100 {
		name := fmt.Sprintf("n%d", i)
		if _, err := f.Rename(ctx, node.ID(), etag.Match{}, name); err != nil {
			t.Fatal(err)
		}
		l, err := f.Nodes(ctx, "gateway", 10)
		if err != nil || !slices.ContainsFunc(l.Items, func(n apitype.Node) bool { return n.Name == name }) {
			t.Fatalf("it was renamed %s, the list has %+v, %v", name, l.Items, err)
		}
	}
	cancel()
	readers.Wait()
}

package registry

import (
	"database/sql"
	"slices"
	"testing"

	"halo.internal/gateway/etag"
	"halo.internal/identity"
	"halo.internal/model/apitype"
)

// TestWhoIsLeftOutComesBackByAnAdminAlone, whatever token it brings.
func TestWhoIsLeftOutComesBackByAnAdminAlone(t *testing.T) {
	f := newFixture(t)
	token := f.token(9)
	out, stays, late := identity.New(), identity.New(), identity.New()
	for _, k := range []identity.Key{out, stays} {
		if _, err := f.join(t, k, f.request(k, token)); err != nil {
			t.Fatal(err)
		}
	}
	before, err := f.Node(t.Context(), out.ID())
	if err != nil {
		t.Fatal(err)
	}
	members := func(what string, want ...identity.Key) {
		t.Helper()
		peers, err := f.Peers(t.Context())
		if err != nil || len(peers) != len(want) {
			t.Errorf("%s: got %d peers, %v; want %d", what, len(peers), err, len(want))
		}
		for _, k := range want {
			if !slices.ContainsFunc(f.peerIDs(t), func(id string) bool { return id == k.ID() }) {
				t.Errorf("%s: %s is no peer", what, k.ID())
			}
		}
	}
	ids := []string{out.ID(), f.key.ID(), identity.New().ID(), "mast-1"} // of which one can be left out
	for i, want := range []int{1, 0} {
		if gone, err := f.LeaveOut(t.Context(), ids); err != nil || len(gone) != want {
			t.Errorf("time %d: left out %v, %v; want %d", i, gone, err, want)
		}
	}
	members("left out", stays)
	if revoked, err := f.Revoked(t.Context()); err != nil || !slices.Equal(revoked, []string{out.ID()}) {
		t.Errorf("revoked: %v, %v", revoked, err)
	}
	_, err = f.join(t, out, f.request(out, token))
	wantType(t, err, apitype.ProblemJoinRevoked)
	if kinds := f.kinds(t); !slices.Contains(kinds, "node.left-out") {
		t.Errorf("events: %v", kinds)
	}
	f.open(t)
	_, err = f.join(t, out, f.request(out, token))
	wantType(t, err, apitype.ProblemJoinRevoked)

	if n, err := f.Approve(t.Context(), out.ID(), "user:mia"); err != nil || n.Revoked || n.AdmittedBy != "user:mia" || n.Name != before.Name || n.OverlayV4 != before.OverlayV4 || n.Clients != before.Clients {
		t.Errorf("approved: %+v, %v; want it as it was, %+v", n, err, before)
	}
	members("approved", out, stays)
	if m, err := f.join(t, out, f.request(out, "")); err != nil || m.OverlayV4 != before.OverlayV4 {
		t.Errorf("it joins: %+v, %v", m, err)
	}

	// Who was revoked by a person is not taken back by the same words.
	if _, err := f.Revoke(t.Context(), out.ID(), etag.Match{}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Approve(t.Context(), out.ID(), "user:mia"); err != nil {
		t.Logf("approving who was revoked: %v", err)
	} else {
		t.Error("a node that was revoked by a person was taken back")
	}

	// Its network of clients may be another's by then.
	if _, err := f.LeaveOut(t.Context(), []string{stays.ID()}); err != nil {
		t.Fatal(err)
	}
	was, err := f.Node(t.Context(), stays.ID())
	if err != nil {
		t.Fatal(err)
	}
	m, err := f.join(t, late, f.request(late, token))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.db.Write(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.ExecContext(t.Context(), `UPDATE nodes SET clients = (SELECT clients FROM nodes WHERE id = ?) WHERE id = ?`, stays.ID(), m.Node)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if n, err := f.Approve(t.Context(), stays.ID(), "user:mia"); err != nil || n.Clients == was.Clients || !n.Clients.IsValid() {
		t.Errorf("its clients are in %s, %v; another has %s", n.Clients, err, was.Clients)
	}
}

func (f *fixture) peerIDs(t *testing.T) (ids []string) {
	t.Helper()
	peers, err := f.Peers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range peers {
		ids = append(ids, p.Node)
	}
	return ids
}

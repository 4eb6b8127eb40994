package registry

import (
	"database/sql"
	"encoding/hex"
	"fmt"
	"testing"
	"time"

	"halo.internal/gateway/etag"
	"halo.internal/gateway/store"
	"halo.internal/identity"
	"halo.internal/model/apitype"
)

// exec changes the database behind the registry's back.
func (f *fixture) exec(t *testing.T, query string, args ...any) {
	t.Helper()
	err := f.db.Write(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.ExecContext(t.Context(), query, args...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) count(t *testing.T, query string) (n int) {
	t.Helper()
	if err := f.db.Read().QueryRowContext(t.Context(), query).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// fill adds nodes that joined one after the other, the first long ago.
func (f *fixture) fill(t *testing.T, n int, revoked bool) {
	t.Helper()
	f.exec(t, `WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i WHERE n < ?)
		INSERT INTO nodes (id, name, role, identity_key, wireguard_key, overlay_v4, revoked, admitted_by, joined)
		SELECT 'n-' || ? || n, 'x' || ? || n, 'node', 'k' || ? || n, 'w' || ? || n, '10.42.' || (100 + ? + n / 250) || '.' || (n % 250), ?, 'test', n FROM i`,
		n, revoked, revoked, revoked, revoked, map[bool]int{true: 100}[revoked], revoked)
}

func TestRevokedNodesDoNotFillTheNetwork(t *testing.T) {
	f := newFixture(t)
	f.fill(t, maxNodes+10, true)
	node := identity.New()
	if _, err := f.join(t, node, f.request(node, f.token(1))); err != nil {
		t.Fatalf("with %d revoked nodes: %v", maxNodes+10, err)
	}
	f.fill(t, maxNodes-2, false)
	late := identity.New()
	_, err := f.join(t, late, f.request(late, f.token(1)))
	wantType(t, err, "about:blank")
	if _, err := f.Revoke(t.Context(), node.ID(), etag.Match{}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.join(t, late, f.request(late, f.token(1))); err != nil {
		t.Errorf("after one was revoked: %v", err)
	}
}

func TestTheOldestRevokedNodesAreForgotten(t *testing.T) {
	f := newFixture(t)
	node := identity.New()
	r := f.request(node, f.token(1))
	r.MACs = []string{"02:00:00:00:00:09"}
	if _, err := f.TrustMAC(t.Context(), "user:root", apitype.TrustMAC{MAC: r.MACs[0]}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.join(t, node, r); err != nil {
		t.Fatal(err)
	}
	f.exec(t, `UPDATE nodes SET joined = 0 WHERE id = ?`, node.ID()) // the first of all, but its MAC would let it in
	f.fill(t, maxRevokedNodes, true)
	if _, err := f.Revoke(t.Context(), node.ID(), etag.Match{}); err != nil {
		t.Fatal(err)
	}
	last := identity.New()
	if _, err := f.join(t, last, f.request(last, f.token(1))); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Revoke(t.Context(), last.ID(), etag.Match{}); err != nil {
		t.Fatal(err)
	}
	if n := f.count(t, `SELECT count(*) FROM nodes WHERE revoked`); n != maxRevokedNodes {
		t.Errorf("%d revoked nodes are kept, want %d", n, maxRevokedNodes)
	}
	if n := f.count(t, `SELECT count(*) FROM nodes WHERE id IN ('n-11', 'n-12')`); n != 0 {
		t.Errorf("%d of the two that joined first are still there", n)
	}
	for _, key := range []identity.Key{node, last} {
		r := f.request(key, f.token(1))
		r.MACs = []string{"02:00:00:00:00:09"}
		_, err := f.join(t, key, r)
		wantType(t, err, apitype.ProblemJoinRevoked)
	}
	f.kinds(t) // writes the events
	if n := f.count(t, `SELECT count(*) FROM events WHERE kind = 'node.forgotten'`); n != 2 {
		t.Errorf("%d events tell of them, want 2", n)
	}
}

// create makes a token and returns its text and ID.
func (f *fixture) create(t *testing.T, life time.Duration) apitype.JoinToken {
	t.Helper()
	made, err := f.CreateJoinToken(t.Context(), apitype.CreateJoinToken{Uses: 1, ExpiresS: int64(life / time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// A token is forgotten once it has expired, and only then: its text says by
// itself that it is good until then.
func TestDeadTokensAreForgotten(t *testing.T) {
	f := newFixture(t)
	const life = 24 * time.Hour
	used, revoked, long := f.create(t, life), f.create(t, life), f.create(t, 365*life)
	unseen := identity.NewJoinToken(1, f.now.Add(365*life))
	unseenID := hex.EncodeToString(unseen.ID[:])
	node := identity.New()
	if _, err := f.join(t, node, f.request(node, used.Token)); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{revoked.ID, long.ID, unseenID} {
		if err := f.RevokeJoinToken(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	has := func(ids ...string) {
		t.Helper()
		f.create(t, time.Minute) // clears up
		for _, id := range ids {
			if n := f.count(t, `SELECT count(*) FROM join_tokens WHERE id = '`+id+`'`); n != 1 {
				t.Errorf("token %s was forgotten", id)
			}
		}
		if n := f.count(t, `SELECT count(*) FROM join_tokens`); n != len(ids)+1 {
			t.Errorf("%d tokens are kept, want %d", n, len(ids)+1)
		}
	}
	f.now = f.now.Add(life + deadTokenLife - time.Hour)
	has(used.ID, revoked.ID, long.ID, unseenID)
	f.now = f.now.Add(2 * time.Hour)
	has(long.ID, unseenID)
	for _, text := range []string{used.Token, revoked.Token, long.Token, unseen.Text(f.key)} {
		node := identity.New()
		_, err := f.join(t, node, f.request(node, text))
		wantType(t, err, apitype.ProblemJoinPending)
	}
	f.now = f.now.Add(365*life + deadTokenLife)
	has() // the unseen one has told when it expires
}

func TestDeadTokensMakeRoom(t *testing.T) {
	f := newFixture(t)
	fill := func(n int, prefix string, used int, expires time.Time) {
		f.exec(t, `WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i WHERE n < ?)
			INSERT INTO join_tokens (id, uses, used, expires, created) SELECT ? || n, 1, ?, ? + n, 0 FROM i`, n, prefix, used, store.Millis(expires))
	}
	fill(maxJoinTokens, "used", 1, f.now.Add(time.Hour))
	f.create(t, time.Hour) // at a thousand it failed for good
	fill(maxDeadTokens, "expired", 1, f.now.Add(-time.Hour))
	f.create(t, time.Hour)
	for id, want := range map[string]int{"expired1": 0, fmt.Sprint("expired", maxDeadTokens): 1, "used1": 1} {
		if n := f.count(t, `SELECT count(*) FROM join_tokens WHERE id = '`+id+`'`); n != want {
			t.Errorf("%s: %d are there, want %d", id, n, want)
		}
	}
	if n := f.count(t, `SELECT count(*) FROM join_tokens WHERE used > 0`); n != maxDeadTokens {
		t.Errorf("%d dead tokens are kept, want %d", n, maxDeadTokens)
	}
	fill(maxJoinTokens-2, "good", 0, f.now.Add(time.Hour))
	_, err := f.CreateJoinToken(t.Context(), apitype.CreateJoinToken{Uses: 1, ExpiresS: 3600})
	wantType(t, err, apitype.ProblemFull)
}

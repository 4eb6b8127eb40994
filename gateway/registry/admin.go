package registry

import (
	"context"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"halo.internal/gateway/store"
	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

func noRegistration(id string) error {
	return apitype.Refuse(http.StatusNotFound, "", "there is no registration %.64q", id)
}

// Approve admits a node that waits, or was left out (LeaveOut); its next request gets
// the membership. Approving a node that is a member already is no error.
func (r *Registry) Approve(ctx context.Context, id, by string) (apitype.Node, error) {
	if n, err := r.Node(ctx, id); err == nil && n.ID == id {
		switch {
		case !n.Revoked:
			return n, nil
		case n.AdmittedBy == leftOut:
			return r.takeBack(ctx, n, by)
		}
	}
	var w waiter
	var n apitype.Node
	err := r.db.Write(ctx, func(tx *sql.Tx) (err error) {
		if w, err = r.approve(ctx, tx, id, by); err == nil {
			n, err = r.changedNode(ctx, tx, id)
		}
		return err
	})
	if err != nil {
		return apitype.Node{}, err
	}
	r.joined(id, w.name, by, w.request)
	return r.now(n), nil
}

// waiter is a node that waited and was admitted under a name.
type waiter struct {
	request model.JoinRequest
	name    string
}

// approve admits in a transaction a node that waits; joined tells of it.
func (r *Registry) approve(ctx context.Context, tx *sql.Tx, id, by string) (w waiter, err error) {
	var body string
	err = tx.QueryRowContext(ctx, `SELECT request FROM registrations WHERE id = ?`, id).Scan(&body)
	if errors.Is(err, sql.ErrNoRows) {
		return w, noRegistration(id)
	}
	if err != nil {
		return w, err
	}
	if err := json.Unmarshal([]byte(body), &w.request); err != nil {
		return w, fmt.Errorf("stored registration %s: %w", id, err)
	}
	key, err := identity.ParsePublicKey(w.request.IdentityKey)
	if err != nil {
		return w, fmt.Errorf("stored registration %s: %w", id, err)
	}
	w.name, err = r.insert(ctx, tx, key, w.request, by)
	return w, err
}

// Reject has a node's further requests refused; approving it later undoes that.
func (r *Registry) Reject(ctx context.Context, id string) error {
	err := r.db.Write(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `UPDATE registrations SET state = 'rejected' WHERE id = ?`, id)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, noRegistration(id))
		}
		return nil
	})
	if err == nil {
		r.waitingNews.Note(id)
	}
	return err
}

// token reads a join token; nil when none came. One that this network did not
// make is refused.
func (r *Registry) token(text string) (*identity.JoinToken, error) {
	if text == "" {
		return nil, nil
	}
	t, err := identity.ParseJoinToken(text, r.network)
	if err != nil {
		return nil, refuse(apitype.ProblemTokenInvalid, "token: %v", err)
	}
	return &t, nil
}

// spend counts one use of a token, also of one that was written onto cards
// before this gateway first ran. When there is no use left to count, the
// problem says why: the node has still shown that it was once meant to come,
// so that an admin may decide.
func (r *Registry) spend(ctx context.Context, tx *sql.Tx, t *identity.JoinToken) (*apitype.Problem, error) {
	if t == nil {
		return refuse(apitype.ProblemTokenNone, "it brought no join token"), nil
	}
	now := r.clock.Now()
	// A clock that has nothing better than the build or a saved time is late, never early: what
	// has expired by it has expired. The other way round a token may live too long; its uses are counted.
	if t.Valid(now) != nil {
		return refuse(apitype.ProblemTokenExpired, "its join token expired at %s", t.Expires.UTC().Format(time.RFC3339)), nil
	}
	id := hex.EncodeToString(t.ID[:])
	// One that was revoked before it was seen tells only now when it expires.
	if _, err := tx.ExecContext(ctx, `INSERT INTO join_tokens (id, uses, expires, created) VALUES (?, ?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET uses = excluded.uses, expires = excluded.expires WHERE uses = 0`,
		id, t.Uses, store.Millis(t.Expires), store.Millis(now)); err != nil {
		return nil, err
	}
	var uses, used int64
	var revoked bool
	if err := tx.QueryRowContext(ctx, `SELECT uses, used, revoked FROM join_tokens WHERE id = ?`, id).Scan(&uses, &used, &revoked); err != nil {
		return nil, err
	}
	switch {
	case revoked:
		return refuse(apitype.ProblemTokenRevoked, "its join token was revoked"), nil
	case used >= uses:
		return refuse(apitype.ProblemTokenUsedUp, "its join token is used up: it was good for %d", uses), nil
	}
	_, err := tx.ExecContext(ctx, `UPDATE join_tokens SET used = used + 1 WHERE id = ?`, id)
	return nil, err
}

// JoinTokens returns a page of join tokens without their secrets.
func (r *Registry) JoinTokens(ctx context.Context, cursor string, limit int) (apitype.JoinTokenList, error) {
	rows, err := r.db.Read().QueryContext(ctx, `SELECT id, note, uses, used, expires, revoked, created FROM join_tokens WHERE id > ? ORDER BY id LIMIT ?`, cursor, limit+1)
	if err != nil {
		return apitype.JoinTokenList{}, store.Classify(err)
	}
	defer rows.Close()
	list := apitype.JoinTokenList{Items: []apitype.JoinToken{}}
	for rows.Next() {
		var t apitype.JoinToken
		var expires, created int64
		if err := rows.Scan(&t.ID, &t.Note, &t.Uses, &t.Used, &expires, &t.Revoked, &created); err != nil {
			return apitype.JoinTokenList{}, store.Classify(err)
		}
		t.Expires, t.Created = store.Time(expires), store.Time(created)
		list.Items = append(list.Items, t)
	}
	if len(list.Items) > limit {
		list.Items = list.Items[:limit]
		list.Next = list.Items[limit-1].ID
	}
	return list, store.Classify(rows.Err())
}

// CreateJoinToken makes a token; its text is in the answer and nowhere else.
func (r *Registry) CreateJoinToken(ctx context.Context, c apitype.CreateJoinToken) (apitype.JoinToken, error) {
	now := r.clock.Now()
	t := identity.NewJoinToken(c.Uses, now.Add(time.Duration(c.ExpiresS)*time.Second))
	out := apitype.JoinToken{ID: hex.EncodeToString(t.ID[:]), Note: c.Note, Uses: t.Uses, Expires: t.Expires, Created: store.Time(store.Millis(now)), Token: t.Text(r.key)}
	err := r.db.Write(ctx, func(tx *sql.Tx) error {
		dead, err := r.forgetTokens(ctx, tx, now)
		if err != nil {
			return err
		}
		var n int
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM join_tokens`).Scan(&n); err != nil {
			return err
		}
		if n-dead >= maxJoinTokens {
			return apitype.Refuse(http.StatusConflict, apitype.ProblemFull, "there are %d join tokens that admit somebody; revoke some", n-dead)
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO join_tokens (id, note, uses, expires, created) VALUES (?, ?, ?, ?, ?)`, out.ID, out.Note, out.Uses, store.Millis(out.Expires), store.Millis(now))
		return err
	})
	if err != nil {
		return apitype.JoinToken{}, err
	}
	return out, nil
}

// isDead is true of tokens that admit nobody any more; its argument is the time.
const isDead = `(revoked OR used >= uses OR expires < ?)`

// forgetTokens removes tokens that ended long ago, and at the bound the oldest
// of those that have ended, and returns how many of these are left. Only what
// has expired is forgotten: a token that was used up or revoked before would
// admit somebody again, as its own text is all that it needs. Of one that was
// revoked before it was seen (no uses) it is not known when it expires.
func (r *Registry) forgetTokens(ctx context.Context, tx *sql.Tx, now time.Time) (dead int, err error) {
	if _, err := tx.ExecContext(ctx, `DELETE FROM join_tokens WHERE uses > 0 AND (expires < ? OR expires < ? AND used = 0 AND NOT revoked)`,
		store.Millis(r.clock.Aged().Add(-deadTokenLife)), store.Millis(r.clock.Aged())); err != nil {
		return 0, err
	}
	if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM join_tokens WHERE `+isDead, store.Millis(now)).Scan(&dead); err != nil {
		return 0, err
	}
	if dead <= maxDeadTokens {
		return dead, nil
	}
	res, err := tx.ExecContext(ctx, `DELETE FROM join_tokens WHERE id IN (SELECT id FROM join_tokens WHERE uses > 0 AND expires < ? ORDER BY expires LIMIT ?)`,
		store.Millis(now), dead-maxDeadTokens)
	if err != nil {
		return 0, err
	}
	n, err := res.RowsAffected()
	return dead - int(n), err
}

// RevokeJoinToken ends a token, also one that this gateway has not seen yet:
// a card that was lost before its first use.
func (r *Registry) RevokeJoinToken(ctx context.Context, id string) error {
	if b, err := hex.DecodeString(id); err != nil || len(b) != len(identity.JoinToken{}.ID) {
		return apitype.Refuse(http.StatusNotFound, "", "there is no join token %.64q", id)
	}
	now := r.clock.Now()
	return r.db.Write(ctx, func(tx *sql.Tx) error {
		res, err := tx.ExecContext(ctx, `UPDATE join_tokens SET revoked = 1 WHERE id = ?`, id)
		if err != nil {
			return err
		}
		if n, err := res.RowsAffected(); err != nil || n > 0 {
			return err
		}
		dead, err := r.forgetTokens(ctx, tx, now)
		if err != nil {
			return err
		}
		if dead >= maxDeadTokens {
			return apitype.Refuse(http.StatusConflict, apitype.ProblemFull, "%d join tokens have ended and are remembered because they have not expired; no more can be", dead)
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO join_tokens (id, uses, expires, created, revoked) VALUES (?, 0, ?, ?, 1)`, id, store.Millis(now), store.Millis(now))
		return err
	})
}

package auth

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"net/http"
	"net/netip"
	"time"

	"halo.internal/gateway/store"
	"halo.internal/model/apitype"
)

// A session is one login: the family of its refresh tokens. Access tokens name it, and
// end with it, whatever is left of their hour.

const (
	maxSessions = 64  // of one user
	maxRotated  = 128 // tokens of one session that were exchanged, by which a copied one is known
)

// session is what is kept of one, beside its tokens.
type session struct {
	family  []byte
	started time.Time
	remote  netip.Addr
}

func newSession(now time.Time, remote netip.Addr) session {
	return session{family: newFamily(), started: now, remote: remote}
}

func sessionID(family []byte) string { return hex.EncodeToString(family) }

// roomForSession ends those of a user that were used least recently, where with another one
// there would be too many.
func roomForSession(ctx context.Context, tx *sql.Tx, username string) error {
	_, err := tx.ExecContext(ctx, `DELETE FROM refresh_tokens WHERE family IN (
		SELECT family FROM refresh_tokens WHERE username = ? GROUP BY family ORDER BY max(expires) DESC LIMIT -1 OFFSET ?)`, username, maxSessions-1)
	return err
}

// lives tells whether a session has not ended.
func lives(ctx context.Context, q querier, id string) (bool, error) {
	family, err := hex.DecodeString(id)
	if err != nil || len(family) == 0 {
		return false, nil
	}
	var n int
	err = q.QueryRowContext(ctx, `SELECT count(*) FROM (SELECT 1 FROM refresh_tokens WHERE family = ? LIMIT 1)`, family).Scan(&n)
	return n > 0, store.Classify(err)
}

var errEnded = unauthorized("this login has ended; log in again")

// loggedIn returns the user of a login as he is now, or errEnded. What outlives a login is
// made in the transaction that asks: the login may end while the request comes in, which
// may take half a minute, or waits for its turn to write.
func loggedIn(ctx context.Context, q querier, by Principal) (user, error) {
	u, err := readUser(ctx, q, by.Name)
	if errors.Is(err, errNoUser) || err == nil && u.disabled {
		return user{}, errEnded
	}
	if err != nil {
		return user{}, err
	}
	ok, err := lives(ctx, q, by.Session)
	if err == nil && !ok {
		err = errEnded
	}
	return u, err
}

// Sessions returns a page of logins: all for an admin, else the caller's own.
func (s *Service) Sessions(ctx context.Context, by Principal, cursor string, limit int) (apitype.SessionList, error) {
	after, err := hex.DecodeString(cursor)
	if err != nil {
		return apitype.SessionList{}, apitype.Refuse(http.StatusUnprocessableEntity, "", "cursor: expected next of the page before, got %.40q", cursor)
	}
	// The newest token of each is the one that is good: with a single max, SQLite takes the
	// other columns of that row.
	rows, err := s.db.Read().QueryContext(ctx, `SELECT family, username, max(expires), started, remote FROM refresh_tokens
		WHERE family > ? AND (? OR username = ?) AND expires >= ? GROUP BY family ORDER BY family LIMIT ?`,
		after, by.Has(apitype.ScopeAdmin), owner(by), store.Millis(s.clock.Now()), limit+1)
	if err != nil {
		return apitype.SessionList{}, store.Classify(err)
	}
	defer rows.Close()
	list := apitype.SessionList{Items: []apitype.Session{}}
	for rows.Next() {
		var k apitype.Session
		var family []byte
		var expires int64
		var started sql.NullInt64
		var remote sql.NullString
		if err := rows.Scan(&family, &k.Username, &expires, &started, &remote); err != nil {
			return apitype.SessionList{}, store.Classify(err)
		}
		k.ID, k.Expires, k.Started, k.Remote = sessionID(family), store.Time(expires), store.TimePtr(started), remote.String
		k.LastUsed = k.Expires.Add(-refreshLife)
		k.Current = k.ID == by.Session
		list.Items = append(list.Items, k)
	}
	if len(list.Items) > limit {
		list.Items = list.Items[:limit]
		list.Next = list.Items[limit-1].ID
	}
	return list, store.Classify(rows.Err())
}

// owner is whose sessions are a caller's own: a machine has none.
func owner(p Principal) string {
	if p.Kind != "user" {
		return ""
	}
	return p.Name
}

// EndSession ends a login, with all its tokens, at once.
func (s *Service) EndSession(ctx context.Context, by Principal, id string) error {
	family, err := hex.DecodeString(id)
	if err != nil {
		family = nil
	}
	return s.db.Write(ctx, func(tx *sql.Tx) error {
		r, err := tx.ExecContext(ctx, `DELETE FROM refresh_tokens WHERE family = ? AND (? OR username = ?)`, family, by.Has(apitype.ScopeAdmin), owner(by))
		if err != nil {
			return err
		}
		// One of somebody else is as little there as none.
		if n, err := r.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, apitype.Refuse(http.StatusNotFound, "", "there is no session %.40q", id))
		}
		return nil
	})
}

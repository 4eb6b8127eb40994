package auth

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"halo.internal/gateway/store"
	"halo.internal/model/apitype"
)

// A token is its user's: of the person who made it, or who had made the one that it was
// made with. It ends with him, rests while he may not log in, and may what he may now.
// What a machine does under a name is what somebody let it do.

const (
	maxAPITokens = 1000 // of those that are good
	ofUser       = "user:"
)

// APITokens returns a page of API tokens by ID, without their secrets.
func (s *Service) APITokens(ctx context.Context, cursor string, limit int) (apitype.APITokenList, error) {
	rows, err := s.db.Read().QueryContext(ctx, `SELECT id, name, scopes, created, created_by, expires, last_used FROM api_tokens WHERE id > ? ORDER BY id LIMIT ?`, cursor, limit+1)
	if err != nil {
		return apitype.APITokenList{}, store.Classify(err)
	}
	defer rows.Close()
	list := apitype.APITokenList{Items: []apitype.APIToken{}}
	for rows.Next() {
		var t apitype.APIToken
		var scopes string
		var created int64
		var expires, used sql.NullInt64
		if err := rows.Scan(&t.ID, &t.Name, &scopes, &created, &t.By, &expires, &used); err != nil {
			return apitype.APITokenList{}, store.Classify(err)
		}
		t.Scopes, t.Created, t.Expires, t.LastUsed = strings.Fields(scopes), store.Time(created), store.TimePtr(expires), store.TimePtr(used)
		list.Items = append(list.Items, t)
	}
	if len(list.Items) > limit {
		list.Items = list.Items[:limit]
		list.Next = list.Items[limit-1].ID
	}
	return list, store.Classify(rows.Err())
}

// CreateAPIToken makes a token; its secret is in the answer and nowhere else.
func (s *Service) CreateAPIToken(ctx context.Context, by Principal, c apitype.CreateAPIToken) (apitype.APIToken, error) {
	for _, scope := range c.Scopes {
		if !slices.Contains(Scopes(), scope) {
			return apitype.APIToken{}, apitype.Refuse(http.StatusUnprocessableEntity, "", "scopes: expected some of %v, got %q", Scopes(), scope)
		}
	}
	now := store.Time(store.Millis(s.clock.Now()))
	t := apitype.APIToken{ID: strings.ToLower(rand.Text()[:16]), Name: c.Name, Scopes: slices.Compact(slices.Sorted(slices.Values(c.Scopes))), Created: now}
	if c.ExpiresS > 0 {
		e := now.Add(time.Duration(c.ExpiresS) * time.Second)
		t.Expires = &e
	}
	t.Token = newSecret(tokenStart)
	err := s.db.Write(ctx, func(tx *sql.Tx) error {
		err := adopt(ctx, tx) // before whose the new one is, and which go, is looked up
		if err != nil {
			return err
		}
		if t.By, err = userBehind(ctx, tx, by); err != nil {
			return err
		}
		if err := roomForAPIToken(ctx, tx, s.clock.Aged()); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO api_tokens (id, hash, name, scopes, created, created_by, expires) VALUES (?, ?, ?, ?, ?, ?, ?)`,
			t.ID, hashToken(t.Token), t.Name, strings.Join(t.Scopes, " "), store.Millis(now), t.By, store.MillisPtr(t.Expires))
		return err
	})
	if err != nil {
		return apitype.APIToken{}, err
	}
	return t, nil
}

// userBehind returns whose an API token will be. He, his login, or the token that he made,
// may have gone since the request came in.
func userBehind(ctx context.Context, tx *sql.Tx, by Principal) (maker string, err error) {
	if by.Kind != "token" {
		_, err := loggedIn(ctx, tx, by)
		return by.Actor(), err
	}
	err = tx.QueryRowContext(ctx, `SELECT created_by FROM api_tokens WHERE id = ?`, by.Name).Scan(&maker)
	if errors.Is(err, sql.ErrNoRows) {
		err = errEnded
	}
	return maker, err
}

// roomForAPIToken bounds how many there are. Those that have expired, and those of nobody
// who is there, are kept for people to see until their place is needed.
func roomForAPIToken(ctx context.Context, tx *sql.Tx, aged time.Time) error {
	var n int
	count := func() error { return tx.QueryRowContext(ctx, `SELECT count(*) FROM api_tokens`).Scan(&n) }
	if err := count(); err != nil || n < maxAPITokens {
		return err
	}
	if _, err := tx.ExecContext(ctx, `DELETE FROM api_tokens WHERE expires < ? OR created_by NOT IN (SELECT ? || username FROM users)`, store.Millis(aged), ofUser); err != nil {
		return err
	}
	if err := count(); err != nil {
		return err
	}
	if n >= maxAPITokens {
		return apitype.Refuse(http.StatusConflict, apitype.ProblemFull, "there are %d API tokens already; delete some", n)
	}
	return nil
}

// endAPITokens ends all of a user within a transaction.
func endAPITokens(ctx context.Context, tx *sql.Tx, user string) error {
	if err := adopt(ctx, tx); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, `DELETE FROM api_tokens WHERE created_by = ?`, ofUser+user)
	return err
}

// userOf is, in SQL, whose a row of api_tokens is, as created_by says it: a former release,
// before the first update to this one or after one that was undone, has written down the
// other token of those that were made with one. NULL: the other one has gone, and this one
// is nobody's.
const userOf = `(WITH RECURSIVE up (maker) AS (
		VALUES (api_tokens.created_by) UNION SELECT t.created_by FROM up JOIN api_tokens t ON up.maker LIKE 'token:%' AND t.id = substr(up.maker, 7)
	) SELECT maker FROM up WHERE maker LIKE 'user:%')`

const toAdopt = `created_by LIKE 'token:%' AND ` + userOf + ` IS NOT NULL`

// adoptAPITokens gives the tokens that were made with another one to that one's user. Where
// that cannot be stored they are his all the same, and it is done before another goes by which
// that is known.
func (s *Service) adoptAPITokens(ctx context.Context) error {
	var n int
	if err := s.db.Read().QueryRowContext(ctx, `SELECT count(*) FROM api_tokens WHERE `+toAdopt).Scan(&n); err != nil || n == 0 {
		return store.Classify(err)
	}
	err := s.db.Write(ctx, func(tx *sql.Tx) error { return adopt(ctx, tx) })
	if errors.Is(err, store.ErrUnavailable) {
		return nil
	}
	return err
}

// adopt does it within a transaction.
func adopt(ctx context.Context, tx *sql.Tx) error {
	_, err := tx.ExecContext(ctx, `UPDATE api_tokens SET created_by = `+userOf+` WHERE `+toAdopt)
	return err
}

// DeleteAPIToken ends a token at once.
func (s *Service) DeleteAPIToken(ctx context.Context, id string) error {
	return s.db.Write(ctx, func(tx *sql.Tx) error {
		if err := adopt(ctx, tx); err != nil { // what was made with it stays
			return err
		}
		r, err := tx.ExecContext(ctx, `DELETE FROM api_tokens WHERE id = ?`, id)
		if err != nil {
			return err
		}
		if n, err := r.RowsAffected(); err != nil || n == 0 {
			return errors.Join(err, apitype.Refuse(http.StatusNotFound, "", "there is no API token %q", id))
		}
		return nil
	})
}

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

const maxAPITokens = 1000

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
	t := apitype.APIToken{ID: strings.ToLower(rand.Text()[:16]), Name: c.Name, Scopes: slices.Compact(slices.Sorted(slices.Values(c.Scopes))), Created: now, By: by.Actor()}
	if c.ExpiresS > 0 {
		e := now.Add(time.Duration(c.ExpiresS) * time.Second)
		t.Expires = &e
	}
	t.Token = newSecret(tokenStart)
	err := s.db.Write(ctx, func(tx *sql.Tx) error {
		var n int
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM api_tokens`).Scan(&n); err != nil {
			return err
		}
		if n >= maxAPITokens {
			return apitype.Refuse(http.StatusConflict, apitype.ProblemFull, "there are %d API tokens already; delete some", n)
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO api_tokens (id, hash, name, scopes, created, created_by, expires) VALUES (?, ?, ?, ?, ?, ?, ?)`,
			t.ID, hashToken(t.Token), t.Name, strings.Join(t.Scopes, " "), store.Millis(now), t.By, store.MillisPtr(t.Expires))
		return err
	})
	if err != nil {
		return apitype.APIToken{}, err
	}
	return t, nil
}

// DeleteAPIToken ends a token at once.
func (s *Service) DeleteAPIToken(ctx context.Context, id string) error {
	return s.db.Write(ctx, func(tx *sql.Tx) error {
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

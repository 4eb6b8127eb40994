package auth

import (
	"context"
	"database/sql"
	"errors"
	"strings"

	"halo.internal/gateway/store"
)

// Standing returns somebody who has shown who it is before as it is now, or an error when
// the login or the API token has ended.
func (s *Service) Standing(ctx context.Context, p Principal) (Principal, error) {
	if p.Kind != "user" {
		return s.standingToken(ctx, p.Name)
	}
	u, err := loggedIn(ctx, s.db.Read(), p)
	if err != nil {
		return Principal{}, err
	}
	return Principal{Kind: "user", Name: u.name, Role: u.role, Scopes: roleScopes(u.role), Session: p.Session}, nil
}

func (s *Service) standingToken(ctx context.Context, id string) (Principal, error) {
	var scopes string
	var expires sql.NullInt64
	var role sql.NullString // of its user
	var disabled sql.NullBool
	err := s.db.Read().QueryRowContext(ctx, `SELECT t.scopes, t.expires, u.role, u.disabled FROM api_tokens t
		LEFT JOIN users u ON u.username = substr(t.created_by, length(?1) + 1) AND t.created_by = ?1 || u.username WHERE t.id = ?2`, ofUser, id).Scan(&scopes, &expires, &role, &disabled)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return Principal{}, unauthorized("the API token was deleted")
	case err != nil:
		return Principal{}, store.Classify(err)
	case !role.Valid || disabled.Bool:
		return Principal{}, unauthorized("the user whose API token this is was removed or may not log in")
	case expires.Valid && s.clock.Now().After(store.Time(expires.Int64)):
		return Principal{}, unauthorized("the API token has expired")
	}
	return Principal{Kind: "token", Name: id, Scopes: within(strings.Fields(scopes), role.String)}, nil
}

package auth

import (
	"context"
	"crypto/ed25519"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"halo.internal/gateway/store"
	"halo.internal/model/apitype"
)

// How often the last use of an API token is written down: it is for people.
const lastUsedEvery = time.Hour

func unauthorized(format string, args ...any) error {
	return apitype.Refuse(http.StatusUnauthorized, "", format, args...)
}

// Authenticate finds who presents the value of an Authorization header.
func (s *Service) Authenticate(ctx context.Context, header string) (Principal, error) {
	if header == "" {
		return Principal{}, unauthorized("log in and send the access token: Authorization: Bearer …")
	}
	scheme, token, ok := strings.Cut(header, " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") || len(token) > 4096 {
		return Principal{}, unauthorized("expected Authorization: Bearer and a token")
	}
	switch {
	case strings.HasPrefix(token, tokenStart):
		return s.apiToken(ctx, token)
	case strings.HasPrefix(token, ticketStart):
		return s.restorer(token)
	}
	return s.accessToken(ctx, token)
}

func (s *Service) accessToken(ctx context.Context, token string) (Principal, error) {
	var c loginClaims
	_, err := jwt.ParseWithClaims(token, &c, func(*jwt.Token) (any, error) { return s.key.Public().(ed25519.PublicKey), nil },
		jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg()}), jwt.WithIssuer(issuer), jwt.WithExpirationRequired(),
		jwt.WithTimeFunc(s.clock.Now)) // issued-at is not judged: the clock may have stepped back
	if errors.Is(err, jwt.ErrTokenExpired) {
		return Principal{}, unauthorized("the access token has expired; refresh it or log in")
	}
	if err != nil {
		return Principal{}, unauthorized("the access token is not valid here; log in")
	}
	// It was made before the clock was set back, nobody knows how long ago.
	if c.ExpiresAt.After(s.clock.Now().Add(accessLife + clockSlack)) {
		return Principal{}, unauthorized("the access token is of another time; refresh it or log in")
	}
	u, err := loggedIn(ctx, s.db.Read(), Principal{Name: c.Subject, Session: c.Session})
	if err == nil && u.generation != c.Generation {
		err = errEnded
	}
	if err != nil {
		return Principal{}, err
	}
	return Principal{Kind: "user", Name: u.name, Role: u.role, Scopes: roleScopes(u.role), Session: c.Session}, nil
}

func (s *Service) apiToken(ctx context.Context, token string) (Principal, error) {
	var id, scopes, maker string
	var created int64
	var expires, used sql.NullInt64
	var role sql.NullString // of its user
	var disabled sql.NullBool
	err := s.db.Read().QueryRowContext(ctx, `SELECT t.id, t.scopes, t.created_by, t.created, t.expires, t.last_used, u.role, u.disabled FROM api_tokens t
		LEFT JOIN users u ON u.username = substr(t.created_by, length(?1) + 1) AND t.created_by = ?1 || u.username WHERE t.hash = ?2`, ofUser, hashToken(token)).Scan(&id, &scopes, &maker, &created, &expires, &used, &role, &disabled)
	if errors.Is(err, sql.ErrNoRows) {
		return Principal{}, unauthorized("the API token is unknown or was deleted")
	}
	if err != nil {
		return Principal{}, store.Classify(err)
	}
	if !role.Valid && strings.HasPrefix(maker, "token:") { // adoptAPITokens could not store whose it is
		err := s.db.Read().QueryRowContext(ctx, `SELECT role, disabled FROM users WHERE username = (SELECT substr(`+userOf+`, length(?) + 1) FROM api_tokens WHERE id = ?)`, ofUser, id).Scan(&role, &disabled)
		if err != nil && !errors.Is(err, sql.ErrNoRows) {
			return Principal{}, store.Classify(err)
		}
	}
	if !role.Valid || disabled.Bool {
		return Principal{}, unauthorized("the user whose API token this is was removed or may not log in")
	}
	now := s.clock.Now()
	if expires.Valid && now.After(store.Time(expires.Int64)) {
		return Principal{}, unauthorized("the API token has expired")
	}
	if expires.Valid && store.Time(created).After(s.clock.Ahead().Add(clockSlack)) {
		if err := s.rejuvenate(ctx, now); err != nil && !errors.Is(err, store.ErrUnavailable) {
			return Principal{}, fmt.Errorf("API tokens of another time: %w", err)
		}
	}
	if !used.Valid || now.Sub(store.Time(used.Int64)).Abs() > lastUsedEvery {
		err := s.db.Write(ctx, func(tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, `UPDATE api_tokens SET last_used = ? WHERE id = ?`, store.Millis(now), id)
			return err
		})
		if err != nil && !errors.Is(err, store.ErrUnavailable) { // reading must go on while the disk is full
			return Principal{}, fmt.Errorf("last use of API token: %w", err)
		}
	}
	return Principal{Kind: "token", Name: id, Scopes: within(strings.Fields(scopes), role.String)}, nil
}

// rejuvenate has API tokens that were made before the clock was set back live from now on
// for as long as they were to: until they expire by their own time would be too long.
func (s *Service) rejuvenate(ctx context.Context, now time.Time) error {
	return s.db.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE api_tokens SET expires = expires - (created - ?1), created = ?1 WHERE created > ?2 AND expires IS NOT NULL`,
			store.Millis(now), store.Millis(s.clock.Ahead().Add(clockSlack)))
		return err
	})
}

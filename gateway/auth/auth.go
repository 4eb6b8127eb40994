// Package auth knows who may do what: people with passwords and roles, their
// logins (a signed token of an hour and a refresh token that changes at each
// use), API tokens of machines, and the one-time claim with which the first
// admin appears. Guessing is slowed and recorded.
package auth

import (
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"halo.internal/gateway/clock"
	"halo.internal/gateway/events"
	"halo.internal/gateway/seal"
	"halo.internal/gateway/store"
	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

// Lives of tokens.
const (
	accessLife   = 60 * time.Minute
	refreshLife  = 30 * 24 * time.Hour
	clockSlack   = 5 * time.Minute  // by which the clock is set back without anybody's tokens being looked at
	refreshGrace = 30 * time.Second // an answer lost on a bad link may be asked for again
	issuer       = "halo-gateway"
	refreshStart = "halo-refresh-"
	tokenStart   = "halo-api-"
)

// Service answers all questions of who and whether.
type Service struct {
	db      *store.DB
	secret  *seal.Secrets
	clock   *clock.Clock
	events  *events.Log
	hasher  *hasher
	logins  *limiter
	claims  *claims
	tickets *tickets
	key     ed25519.PrivateKey

	network   identity.Key
	epoch     func() uint64
	withdrawn withdrawn
	offerTime func(context.Context, model.TimeOffer)
}

// Config is what New needs.
type Config struct {
	DB      *store.DB
	Secrets *seal.Secrets
	Clock   *clock.Clock
	Events  *events.Log
	Salt    []byte // network key: salt of the claim code

	Key   identity.Key  // the network's, which signs operators' certificates
	Epoch func() uint64 // may rise at any time

	// OfferTime gets the time of who has just proved who he is, before he is given
	// anything that ends by the clock: that may be another after it. It may be nil.
	OfferTime func(context.Context, model.TimeOffer)
}

const secretSigningKey = "login signing key"

// New loads or makes the signing key.
func New(ctx context.Context, c Config) (*Service, error) {
	s := &Service{db: c.DB, secret: c.Secrets, clock: c.Clock, events: c.Events, hasher: newHasher(), logins: newLimiter(), network: c.Key, epoch: c.Epoch, offerTime: c.OfferTime}
	if err := c.Secrets.Adopt(ctx, secretSigningKey, secretClaimCode); err != nil {
		return nil, err
	}
	if err := s.adoptAPITokens(ctx); err != nil {
		return nil, fmt.Errorf("API tokens of a former release: %w", err)
	}
	seed, lost, err := c.Secrets.Initial(ctx, secretSigningKey, newSeed)
	if err != nil {
		return nil, fmt.Errorf("login signing key: %w", err)
	}
	if lost {
		c.Events.Add("auth.key.lost", model.Warning, "", "the key that signs logins could not be opened and is made anew: people log in again", nil)
	}
	if len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("login signing key: expected %d octets, got %d", ed25519.SeedSize, len(seed))
	}
	s.key = ed25519.NewKeyFromSeed(seed)
	s.claims, s.tickets = newClaims(c.Salt), newTickets()
	return s, nil
}

// EndLogins ends all logins in a database that is older than what it replaces:
// some of them had ended in that one. People log in again; API tokens stay,
// since a machine cannot. A new signing key does for access tokens what the
// users' generations cannot: those of the copy may have been passed since, by
// any number, so that one of them would be met again.
func EndLogins(ctx context.Context, db *store.DB, secrets *seal.Secrets) error {
	err := db.Write(ctx, func(tx *sql.Tx) error {
		if err := dropLogins(ctx, tx); err != nil {
			return err
		}
		return secrets.Put(ctx, tx, secretSigningKey, newSeed())
	})
	if err != nil {
		return fmt.Errorf("end the logins of a restored database: %w", err)
	}
	return nil
}

// DropLogins takes all logins out of a database, and the key that signs them: whoever
// uses it has to call EndLogins, or New, which makes another.
func DropLogins(ctx context.Context, tx *sql.Tx) error {
	if err := dropLogins(ctx, tx); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, `DELETE FROM secrets WHERE name = ?`, secretSigningKey)
	return err
}

// dropLogins leaves the key that signs them, whose end would have all copies made anew.
func dropLogins(ctx context.Context, tx *sql.Tx) error {
	if _, err := tx.ExecContext(ctx, `DELETE FROM refresh_tokens`); err != nil {
		return err
	}
	_, err := tx.ExecContext(ctx, `DELETE FROM settings WHERE name = ?`, secretSigningKey) // where a former release has it, from which it would be taken
	return err
}

func newSeed() []byte {
	b := make([]byte, ed25519.SeedSize)
	rand.Read(b)
	return b
}

var errLogin = apitype.Refuse(http.StatusUnauthorized, apitype.ProblemLogin, "user name or password is wrong")

// Login checks a password and starts a login. at is what time it is where the request
// comes from; nil: it does not say.
func (s *Service) Login(ctx context.Context, remote netip.Addr, username, password string, at *time.Time) (apitype.Tokens, error) {
	began := time.Now()
	who := ShareKey(remote)
	by := append(counters("login", remote), counter{key: "login " + who + " " + username})
	var u user
	err := s.attempt(ctx, who, by, func() (err error) {
		u, err = s.user(ctx, username)
		unknown := errors.Is(err, errNoUser)
		if err != nil && !unknown {
			return err
		}
		phc := u.password
		if unknown {
			phc = nobody
		}
		ok, err := verify(phc, password)
		if err != nil {
			return err
		}
		if unknown || !ok || u.disabled {
			s.failed(remote, "auth.login.failed", "a login failed", u.name, by...)
			return errLogin
		}
		s.logins.succeed(by...)
		return s.logins.pace("login " + who + " " + username) // by address: who has his password, too, is not to keep him out
	})
	if err != nil {
		return apitype.Tokens{}, err
	}
	s.offer(ctx, u, remote, at, began)
	return s.issue(ctx, u, newSession(s.clock.Now(), remote), newSecret(refreshStart), func(tx *sql.Tx) error {
		// While the password was checked, it may have been changed, which has ended all logins
		// of that user: one that was under way must not come after them.
		now, err := readUser(ctx, tx, username)
		if errors.Is(err, errNoUser) || err == nil && now != u {
			return errLogin
		}
		if err != nil {
			return err
		}
		if err := roomForSession(ctx, tx, username); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `UPDATE users SET last_login = ? WHERE username = ?`, store.Millis(s.clock.Now()), username)
		return err
	})
}

// offer hands on the time that somebody said to have when his request began to be
// answered, which takes some seconds on a small board. A viewer's is not taken: he
// changes nothing.
func (s *Service) offer(ctx context.Context, u user, remote netip.Addr, at *time.Time, began time.Time) {
	if at == nil || s.offerTime == nil || u.role == apitype.RoleViewer {
		return
	}
	s.offerTime(ctx, model.TimeOffer{Time: at.Add(time.Since(began)), User: u.name, Remote: remote.String()})
}

// failed counts and records a failed attempt. username is that of a user there
// is, or empty: an unknown one may be a password typed into the wrong field.
func (s *Service) failed(remote netip.Addr, kind, message, username string, by ...counter) {
	n := s.logins.fail(by...)
	if n > freeFailures && n%10 != 0 {
		return // slowed by now; the log need not hold each
	}
	s.events.Add(kind, model.Warning, "", message, map[string]string{"remote": remote.String(), "user": username, "failures": fmt.Sprint(n)})
}

type loginClaims struct {
	Role       string `json:"role"`
	Generation int64  `json:"gen"`
	Session    string `json:"sid"`
	jwt.RegisteredClaims
}

const (
	dropExpired = `DELETE FROM refresh_tokens WHERE expires < ?`
	shorten     = `UPDATE refresh_tokens SET expires = ?1 WHERE expires > ?1 AND expires > ?2`
)

// issue makes an access token and stores a refresh token, unless that is there
// already; more runs in the same transaction, before.
func (s *Service) issue(ctx context.Context, u user, in session, refresh string, more func(*sql.Tx) error) (apitype.Tokens, error) {
	now := s.clock.Now()
	access, err := jwt.NewWithClaims(jwt.SigningMethodEdDSA, loginClaims{Role: u.role, Generation: u.generation, Session: sessionID(in.family), RegisteredClaims: jwt.RegisteredClaims{
		Issuer: issuer, Subject: u.name, IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(accessLife)), ID: rand.Text(),
	}}).SignedString(s.key)
	if err != nil {
		return apitype.Tokens{}, fmt.Errorf("sign access token: %w", err)
	}
	err = s.db.Write(ctx, func(tx *sql.Tx) error {
		if more != nil {
			if err := more(tx); err != nil {
				return err
			}
		}
		if _, err := tx.ExecContext(ctx, dropExpired, store.Millis(s.clock.Aged())); err != nil {
			return err
		}
		// Those that were made before the clock was set back would be good for too long. It may
		// be wrong now, and not then: for a while they stay as they are. This only ever shortens.
		if _, err := tx.ExecContext(ctx, shorten, store.Millis(now.Add(refreshLife)), store.Millis(s.clock.Ahead().Add(refreshLife+clockSlack))); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO refresh_tokens (hash, family, username, expires, started, remote) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (hash) DO NOTHING`,
			hashToken(refresh), in.family, u.name, store.Millis(now.Add(refreshLife)), startedOf(in), in.remote.String())
		return err
	})
	if err != nil {
		return apitype.Tokens{}, err
	}
	return apitype.Tokens{AccessToken: access, TokenType: "Bearer", ExpiresIn: int(accessLife / time.Second), RefreshToken: refresh, Username: u.name, Role: u.role}, nil
}

func startedOf(in session) sql.NullInt64 {
	return sql.NullInt64{Int64: store.Millis(in.started), Valid: !in.started.IsZero()}
}

func newFamily() []byte {
	family := make([]byte, 16)
	rand.Read(family)
	return family
}

// newSecret makes a random token; only its hash is stored.
func newSecret(prefix string) string {
	raw := make([]byte, 32)
	rand.Read(raw)
	return prefix + base64.RawURLEncoding.EncodeToString(raw)
}

// successor is the refresh token that follows another: always the same, so
// that who asks again for a lost answer gets it again, while nothing is stored
// from which it could be read.
func (s *Service) successor(token string) string {
	m := hmac.New(sha256.New, s.key.Seed())
	m.Write([]byte("refresh token after " + token))
	return refreshStart + base64.RawURLEncoding.EncodeToString(m.Sum(nil))
}

func hashToken(t string) []byte {
	h := sha256.Sum256([]byte(t))
	return h[:]
}

var errRefresh = apitype.Refuse(http.StatusUnauthorized, apitype.ProblemRefresh, "the refresh token is unknown, used or expired; log in again")

// Refresh exchanges a refresh token for new tokens. For as long as an answer
// may have been lost, and its successor was not used, the token may come again
// and gives the same successor. One that comes later, or after its successor,
// was copied by somebody: its whole login ends.
func (s *Service) Refresh(ctx context.Context, remote netip.Addr, token string) (apitype.Tokens, error) {
	by := counters("refresh", remote)
	if err := s.logins.allow(by...); err != nil {
		return apitype.Tokens{}, err
	}
	var username string
	in := session{remote: remote}
	var expires int64
	var started sql.NullInt64
	err := s.db.Read().QueryRowContext(ctx, `SELECT username, family, expires, started FROM refresh_tokens WHERE hash = ?`, hashToken(token)).Scan(&username, &in.family, &expires, &started)
	if started.Valid {
		in.started = store.Time(started.Int64)
	}
	now := s.clock.Now()
	switch {
	case errors.Is(err, sql.ErrNoRows):
		s.failed(remote, "auth.refresh.failed", "an unknown refresh token was used", "", by...)
		return apitype.Tokens{}, errRefresh
	case err != nil:
		return apitype.Tokens{}, store.Classify(err)
	case now.After(store.Time(expires)):
		return apitype.Tokens{}, errRefresh
	}
	u, err := s.user(ctx, username)
	if errors.Is(err, errNoUser) || err == nil && u.disabled {
		return apitype.Tokens{}, errRefresh
	}
	if err != nil {
		return apitype.Tokens{}, err
	}
	if err := s.logins.pace("refresh " + username); err != nil {
		return apitype.Tokens{}, err
	}
	next := s.successor(token)
	t, err := s.issue(ctx, u, in, next, func(tx *sql.Tx) error { return rotate(ctx, tx, in.family, token, next, now) })
	if !errors.Is(err, errReused) {
		return t, err
	}
	s.events.Add("auth.refresh.reused", model.Warning, "", "a refresh token was used twice; that login has ended", map[string]string{"remote": remote.String(), "user": username})
	if err := s.endFamily(ctx, in.family); err != nil {
		return apitype.Tokens{}, err
	}
	return apitype.Tokens{}, errRefresh
}

var errReused = errors.New("the refresh token was used before")

// rotate notes that a token was exchanged, or returns errReused. All is read
// within the transaction: other requests with the same token come meanwhile,
// as does the logout.
func rotate(ctx context.Context, tx *sql.Tx, family []byte, token, next string, now time.Time) error {
	var rotated, nextRotated sql.NullInt64
	err := tx.QueryRowContext(ctx, `SELECT t.rotated, n.rotated FROM refresh_tokens t LEFT JOIN refresh_tokens n ON n.hash = ? WHERE t.hash = ?`,
		hashToken(next), hashToken(token)).Scan(&rotated, &nextRotated)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return errRefresh
	case err != nil:
		return err
	case !rotated.Valid:
		if _, err := tx.ExecContext(ctx, `UPDATE refresh_tokens SET rotated = ? WHERE hash = ?`, store.Millis(now), hashToken(token)); err != nil {
			return err
		}
		_, err = tx.ExecContext(ctx, `DELETE FROM refresh_tokens WHERE family = ?1 AND rotated < (SELECT rotated FROM refresh_tokens WHERE family = ?1 AND rotated IS NOT NULL ORDER BY rotated DESC LIMIT 1 OFFSET ?2)`,
			family, maxRotated-1)
		return err
	case nextRotated.Valid || now.Sub(store.Time(rotated.Int64)).Abs() > refreshGrace:
		return errReused
	}
	return nil
}

// Logout ends the login that the refresh token belongs to.
func (s *Service) Logout(ctx context.Context, token string) error {
	var family []byte
	err := s.db.Read().QueryRowContext(ctx, `SELECT family FROM refresh_tokens WHERE hash = ?`, hashToken(token)).Scan(&family)
	if errors.Is(err, sql.ErrNoRows) {
		return nil // it has ended already
	}
	if err != nil {
		return store.Classify(err)
	}
	return s.endFamily(ctx, family)
}

func (s *Service) endFamily(ctx context.Context, family []byte) error {
	return s.db.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `DELETE FROM refresh_tokens WHERE family = ?`, family)
		return err
	})
}

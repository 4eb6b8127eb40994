package auth

import (
	"context"
	"database/sql"
	"encoding/base64"
	"errors"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"halo.internal/gateway/store"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/claim"
)

const (
	secretClaimCode = "claim code"
	claimLife       = 2 * time.Minute
	maxExchanges    = 64
)

// claims holds the open claim exchanges. They live in RAM: after a restart the
// client begins anew.
type claims struct {
	salt []byte
	now  func() time.Time // monotonic

	mu   sync.Mutex // guards what follows
	code string     // empty once claimed
	key  *claim.Key // derived at the first exchange, since it costs a second on a board
	open map[string]exchange
}

type exchange struct {
	claim.Exchange
	until time.Time
}

func newClaims(salt []byte) *claims {
	return &claims{salt: salt, now: time.Now, open: map[string]exchange{}}
}

// PrepareClaim returns the code with which the gateway can be claimed, or ""
// when it is claimed: the one kept from an earlier start, else the bundle's,
// else a new one.
func (s *Service) PrepareClaim(ctx context.Context, fromBundle string) (string, error) {
	claimed, err := s.Claimed(ctx)
	if err != nil || claimed {
		return "", err
	}
	code := fromBundle
	if _, err := claim.Normalise(fromBundle); err != nil {
		if fromBundle != "" {
			s.events.Add("auth.claim.code", model.Warning, "", "the bundle's claim code is too short or not letters and digits; a new one was made", nil)
		}
		code = claim.NewCode()
	}
	stored, _, err := s.secret.Initial(ctx, secretClaimCode, func() []byte { return []byte(code) }) // a lost one was shown, as this one is
	if err != nil {
		return "", err
	}
	s.claims.mu.Lock()
	defer s.claims.mu.Unlock()
	s.claims.code = string(stored)
	return s.claims.code, nil
}

// Claimed tells whether there is a user, so that claiming is over.
func (s *Service) Claimed(ctx context.Context) (bool, error) {
	var n int
	err := s.db.Read().QueryRowContext(ctx, `SELECT count(*) FROM (SELECT 1 FROM users LIMIT 1)`).Scan(&n)
	return n > 0, store.Classify(err)
}

var (
	errClaimed = apitype.Refuse(http.StatusConflict, apitype.ProblemAlreadyClaimed, "this gateway is claimed; log in")
	errProof   = apitype.Refuse(http.StatusForbidden, apitype.ProblemClaimProof, "the claim code is wrong, or the exchange ended or was used; begin again")
)

// ClaimStart opens an exchange and proves to the client that this gateway
// knows the code.
func (s *Service) ClaimStart(ctx context.Context, remote netip.Addr, clientNonce string, binding []byte) (apitype.ClaimAnswer, error) {
	if err := s.logins.allow("claim " + remoteKey(remote)); err != nil {
		return apitype.ClaimAnswer{}, err
	}
	nonce, err := base64.StdEncoding.DecodeString(clientNonce)
	if err != nil || len(nonce) != claim.NonceSize {
		return apitype.ClaimAnswer{}, apitype.Refuse(http.StatusUnprocessableEntity, "", "client_nonce: expected %d octets in base64", claim.NonceSize)
	}
	key, err := s.claimKey(ctx)
	if err != nil {
		return apitype.ClaimAnswer{}, err
	}
	e := claim.Exchange{ClientNonce: nonce, ServerNonce: claim.NewNonce(), Binding: binding}
	proof, err := key.ServerProof(e)
	if err != nil {
		return apitype.ClaimAnswer{}, err
	}
	c := s.claims
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forget()
	serverNonce := base64.StdEncoding.EncodeToString(e.ServerNonce)
	c.open[serverNonce] = exchange{e, c.now().Add(claimLife)}
	return apitype.ClaimAnswer{
		Salt: base64.StdEncoding.EncodeToString(c.salt), ServerNonce: serverNonce,
		Proof: base64.StdEncoding.EncodeToString(proof),
	}, nil
}

// forget drops exchanges that ended, and the oldest when there are too many.
func (c *claims) forget() {
	now, oldest := c.now(), ""
	for n, e := range c.open {
		if now.After(e.until) {
			delete(c.open, n)
		} else if oldest == "" || e.until.Before(c.open[oldest].until) {
			oldest = n
		}
	}
	if len(c.open) >= maxExchanges {
		delete(c.open, oldest)
	}
}

func (s *Service) claimKey(ctx context.Context) (claim.Key, error) {
	c := s.claims
	c.mu.Lock()
	code, key := c.code, c.key
	c.mu.Unlock()
	if code == "" {
		return claim.Key{}, errClaimed
	}
	if key != nil {
		return *key, nil
	}
	select { // one derivation at a time, as for passwords
	case s.hasher.slots <- struct{}{}:
		defer s.hasher.release()
	case <-ctx.Done():
		return claim.Key{}, ctx.Err()
	}
	k, err := claim.Derive(code, c.salt)
	if err != nil {
		return claim.Key{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.code == "" {
		return claim.Key{}, errClaimed
	}
	c.key = &k
	return k, nil
}

// ClaimRestore verifies the client's proof and answers with a ticket for a restore.
func (s *Service) ClaimRestore(ctx context.Context, remote netip.Addr, r apitype.ClaimRequest, binding []byte) (apitype.ClaimAnswer, error) {
	r.Username, r.Password = claim.ForRestore, ""
	if err := s.verifyClaim(ctx, remote, r, binding); err != nil {
		return apitype.ClaimAnswer{}, err
	}
	return s.ticket(remote), nil
}

// verifyClaim returns nil for the proof of who knows the claim code.
func (s *Service) verifyClaim(ctx context.Context, remote netip.Addr, r apitype.ClaimRequest, binding []byte) error {
	limit := "claim " + remoteKey(remote)
	if err := s.logins.allow(limit); err != nil {
		return err
	}
	key, err := s.claimKey(ctx)
	if err != nil {
		return err
	}
	c := s.claims
	c.mu.Lock()
	e, ok := c.open[r.ServerNonce]
	delete(c.open, r.ServerNonce) // one attempt
	ok = ok && c.now().Before(e.until)
	c.mu.Unlock()
	proof, err := base64.StdEncoding.DecodeString(r.Proof)
	// The binding is that of this connection: a proof relayed from another one does not fit.
	e.Binding = binding
	if !ok || err != nil || base64.StdEncoding.EncodeToString(e.ClientNonce) != r.ClientNonce || !key.VerifyClient(e.Exchange, r.Username, r.Password, proof) {
		s.failed(remote, "auth.claim.failed", "a claim with a wrong code was refused", "", limit)
		return errProof
	}
	return nil
}

// ClaimFinish verifies the client's proof, makes the first admin, erases the
// code and logs the admin in.
func (s *Service) ClaimFinish(ctx context.Context, remote netip.Addr, r apitype.ClaimRequest, binding []byte) (apitype.Tokens, error) {
	began := time.Now()
	if err := s.verifyClaim(ctx, remote, r, binding); err != nil {
		return apitype.Tokens{}, err
	}
	if err := first(errors.Join(checkUsername(r.Username), checkPassword(r.Username, r.Password))); err != nil {
		return apitype.Tokens{}, err
	}
	phc, err := s.hasher.hash(ctx, r.Password)
	if err != nil {
		return apitype.Tokens{}, err
	}
	u := user{name: r.Username, role: apitype.RoleAdmin, generation: 1}
	s.offer(ctx, u, remote, r.Time, began)
	tokens, err := s.issue(ctx, u, newSession(s.clock.Now(), remote), newSecret(refreshStart), func(tx *sql.Tx) error {
		var n int
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM users`).Scan(&n); err != nil {
			return err
		}
		if n > 0 {
			return errClaimed // somebody else was faster
		}
		if err := s.secret.Delete(ctx, tx, secretClaimCode); err != nil {
			return err
		}
		return insertUser(ctx, tx, u.name, u.role, phc, store.Millis(s.clock.Now()))
	})
	if err != nil {
		return apitype.Tokens{}, err
	}
	c := s.claims
	c.mu.Lock()
	c.code, c.key = "", nil
	clear(c.open)
	c.mu.Unlock()
	s.tickets.end()
	s.events.Add("auth.claimed", model.Info, "", "the gateway was claimed", map[string]string{"user": u.name, "remote": remote.String()})
	return tokens, nil
}

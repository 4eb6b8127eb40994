package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"math"
	"net/http"
	"net/netip"
	"runtime/debug"
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
	maxSpent        = 64
)

// claims is what is kept for claims. Of an exchange that has begun that is nothing, so
// that nobody who begins others can end it: the gateway's nonce tells what it has to
// know of it. After a restart the client begins anew.
type claims struct {
	salt   []byte
	now    func() time.Time // monotonic
	began  time.Time
	secret [sha256.Size]byte // of the nonces

	mu    sync.Mutex           // guards what follows
	code  string               // empty once claimed
	key   *claim.Key           // derived at the first exchange, since it costs a second on a board
	spent map[string]time.Time // nonces that came with the right proof, and when they end
}

func newClaims(salt []byte) *claims {
	c := &claims{salt: salt, now: time.Now, began: time.Now(), spent: map[string]time.Time{}}
	rand.Read(c.secret[:])
	return c
}

// nonce returns the gateway's nonce of an exchange that begins at a time for a client's
// nonce: the time in ms since the process began, and a MAC of both, which cannot be
// foreseen.
func (c *claims) nonce(at time.Time, client []byte) []byte {
	n := binary.BigEndian.AppendUint64(make([]byte, 0, claim.NonceSize), uint64(at.Sub(c.began).Milliseconds()))
	m := hmac.New(sha256.New, c.secret[:])
	m.Write(n)
	m.Write(client)
	return m.Sum(n)[:claim.NonceSize]
}

// begun returns when the exchange with these nonces began; false: there is none.
func (c *claims) begun(server, client []byte) (time.Time, bool) {
	if len(server) != claim.NonceSize || len(client) != claim.NonceSize {
		return time.Time{}, false
	}
	ms := int64(binary.BigEndian.Uint64(server))
	if ms > math.MaxInt64/int64(time.Millisecond) || ms < math.MinInt64/int64(time.Millisecond) {
		return time.Time{}, false
	}
	at := c.began.Add(time.Duration(ms) * time.Millisecond)
	return at, hmac.Equal(server, c.nonce(at, client))
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
	if err := s.logins.allow(counters("claim", remote)...); err != nil {
		return apitype.ClaimAnswer{}, err
	}
	nonce, err := base64.StdEncoding.DecodeString(clientNonce)
	if err != nil || len(nonce) != claim.NonceSize {
		return apitype.ClaimAnswer{}, apitype.Refuse(http.StatusUnprocessableEntity, "", "client_nonce: expected %d octets in base64", claim.NonceSize)
	}
	key, err := s.claimKey(ctx, remote)
	if err != nil {
		return apitype.ClaimAnswer{}, err
	}
	c := s.claims
	e := claim.Exchange{ClientNonce: nonce, ServerNonce: c.nonce(c.now(), nonce), Binding: binding}
	proof, err := key.ServerProof(e)
	if err != nil {
		return apitype.ClaimAnswer{}, err
	}
	return apitype.ClaimAnswer{
		Salt: base64.StdEncoding.EncodeToString(c.salt), ServerNonce: base64.StdEncoding.EncodeToString(e.ServerNonce),
		Proof: base64.StdEncoding.EncodeToString(proof),
	}, nil
}

// spend ends an exchange until its time, or returns false: it has ended. Only who knows
// the code has any of these.
func (c *claims) spend(nonce []byte, until time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, oldest := c.now(), ""
	for n, t := range c.spent {
		if now.After(t) {
			delete(c.spent, n)
		} else if oldest == "" || t.Before(c.spent[oldest]) {
			oldest = n
		}
	}
	if _, again := c.spent[string(nonce)]; again {
		return false
	}
	if len(c.spent) >= maxSpent {
		delete(c.spent, oldest)
	}
	c.spent[string(nonce)] = until
	return true
}

// derived returns the key where it is known, or the code; or that there is none any more.
func (c *claims) derived() (key *claim.Key, code string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.code == "" {
		return nil, "", errClaimed
	}
	return c.key, c.code, nil
}

func (s *Service) claimKey(ctx context.Context, remote netip.Addr) (claim.Key, error) {
	c := s.claims
	key, _, err := c.derived()
	if err != nil {
		return claim.Key{}, err
	}
	if key != nil {
		return *key, nil
	}
	done, err := s.hasher.turn(ctx, ShareKey(remote)) // as for passwords
	if err != nil {
		return claim.Key{}, err
	}
	defer done()
	key, code, err := c.derived()
	if err != nil {
		return claim.Key{}, err
	}
	if key != nil {
		return *key, nil // another who waited has had it derived
	}
	defer debug.FreeOSMemory()
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
	by := counters("claim", remote)
	if err := s.logins.allow(by...); err != nil {
		return err
	}
	key, err := s.claimKey(ctx, remote)
	if err != nil {
		return err
	}
	client, errClient := base64.StdEncoding.DecodeString(r.ClientNonce)
	server, errServer := base64.StdEncoding.DecodeString(r.ServerNonce)
	proof, errProofText := base64.StdEncoding.DecodeString(r.Proof)
	c := s.claims
	at, ok := c.begun(server, client)
	ok = ok && errors.Join(errClient, errServer, errProofText) == nil && c.now().Before(at.Add(claimLife))
	// The binding is that of this connection: a proof relayed from another one does not fit.
	ok = ok && key.VerifyClient(claim.Exchange{ClientNonce: client, ServerNonce: server, Binding: binding}, r.Username, r.Password, proof)
	if !ok || !c.spend(server, at.Add(claimLife)) {
		s.failed(remote, "auth.claim.failed", "a claim with a wrong code was refused", "", by...)
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
	phc, err := s.hasher.hash(ctx, "", r.Password)
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
	clear(c.spent)
	c.mu.Unlock()
	s.tickets.end()
	s.events.Add("auth.claimed", model.Info, "", "the gateway was claimed", map[string]string{"user": u.name, "remote": remote.String()})
	return tokens, nil
}

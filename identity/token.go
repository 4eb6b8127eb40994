package identity

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// JoinToken lets a device join without a person: a bearer secret in a bundle,
// signed by the network's key, so that a gateway accepts tokens that were
// written onto cards before it first started. The gateway counts the uses.
type JoinToken struct {
	ID      [10]byte  // random; what is counted and revoked
	Uses    uint32    // how many nodes it admits
	Expires time.Time // whole seconds
}

const (
	tokenContext = "halo join token 1"
	tokenPrefix  = "halo-join-"
	tokenMax     = 512 // characters
)

// Errors of ParseJoinToken.
var (
	ErrTokenForm    = errors.New("join token is not of the form halo-join-…")
	ErrTokenNetwork = errors.New("join token was not signed by this network's gateway")
	ErrTokenExpired = errors.New("join token has expired")
)

type tokenBody struct {
	_       struct{} `cbor:",toarray"`
	ID      []byte
	Uses    uint32
	Expires int64
}

// NewJoinToken makes a token for uses nodes that ends at expires.
func NewJoinToken(uses uint32, expires time.Time) JoinToken {
	t := JoinToken{Uses: uses, Expires: expires.UTC().Truncate(time.Second)}
	rand.Read(t.ID[:])
	return t
}

// Text signs the token with the network's key and returns the text that goes
// into a bundle.
func (t JoinToken) Text(network Key) string {
	b, err := cbor.Marshal(tokenBody{ID: t.ID[:], Uses: t.Uses, Expires: t.Expires.Unix()})
	if err != nil {
		panic("identity: token: " + err.Error()) // plain values always encode
	}
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(append(b, network.Sign(tokenContext, b)...))
}

// ParseJoinToken checks form and signature of a token's text; whether it has
// expired is for the caller's clock (Valid).
func ParseJoinToken(text string, network PublicKey) (JoinToken, error) {
	enc, ok := strings.CutPrefix(text, tokenPrefix)
	if !ok || len(text) > tokenMax {
		return JoinToken{}, ErrTokenForm
	}
	raw, err := base64.RawURLEncoding.DecodeString(enc)
	if err != nil || len(raw) <= 64 {
		return JoinToken{}, ErrTokenForm
	}
	body, sig := raw[:len(raw)-64], raw[len(raw)-64:]
	if !network.Verify(tokenContext, body, sig) {
		return JoinToken{}, ErrTokenNetwork
	}
	var b tokenBody
	if err := cbor.Unmarshal(body, &b); err != nil || len(b.ID) != 10 {
		return JoinToken{}, ErrTokenForm
	}
	return JoinToken{ID: [10]byte(b.ID), Uses: b.Uses, Expires: time.Unix(b.Expires, 0).UTC()}, nil
}

// Valid returns nil, or an error wrapping ErrTokenExpired.
func (t JoinToken) Valid(now time.Time) error {
	if now.After(t.Expires) {
		return fmt.Errorf("%w: it ended at %s, now is %s", ErrTokenExpired, t.Expires.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return nil
}

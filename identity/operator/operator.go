// Package operator is the certificate with which a person is let in at the door
// of every node, also while the gateway is off. It names the person, what the
// person may do, and a key whose private half has never left the person's
// machine; the network's key has signed it. It has no I/O: gateway-api issues
// it, haloctl keeps and shows it, halo-mesh checks it.
//
// A certificate ends by its own time, when the gateway says in the signed list
// of members that its serial number is revoked, and when a gateway that was
// restored or replaced has raised the epoch.
package operator

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/fxamacker/cbor/v2"

	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

// Bounds.
const (
	Validity    = 30 * 24 * time.Hour // unless another is asked for
	MaxValidity = 90 * 24 * time.Hour
	MaxSize     = 512 // octets of a signed certificate
	maxUser     = 64
)

// Header is the HTTP header with the certificate, in base64, of each request at
// a door.
const Header = "Halo-Operator"

// early is how much later than a clock's time a certificate may have been
// issued: clocks that were set by others differ a little.
const early = 24 * time.Hour

// context keeps the signature from being taken for one of something else.
const context = "halo operator certificate 1"

// Certificate is who an operator is.
type Certificate struct {
	Serial  uint64 // rises with each that a gateway issues in an epoch, from 1
	Epoch   uint64 // of the gateway when it was issued
	User    string
	Role    string             // apitype.RoleViewer, RoleOperator or RoleAdmin
	Key     identity.PublicKey // the operator's own
	Issued  time.Time          // by the gateway's clock
	Expires time.Time
}

// Errors of Parse and Valid.
var (
	ErrForm    = errors.New("malformed operator certificate")
	ErrExpired = errors.New("operator certificate has expired")
	ErrFuture  = errors.New("operator certificate is from the future")
	ErrRevoked = errors.New("operator certificate is revoked")
	ErrEpoch   = errors.New("operator certificate is from before the gateway was restored or replaced")
)

// The form on the wire and in files.
type (
	envelope struct {
		_         struct{} `cbor:",toarray"`
		Body      []byte
		Signature []byte
	}
	body struct {
		_         struct{} `cbor:",toarray"`
		Serial    uint64
		Epoch     uint64
		User      string
		Role      string
		Key       []byte
		IssuedMS  int64
		ExpiresMS int64
	}
)

var (
	encMode = must(cbor.CoreDetEncOptions().EncMode())
	decMode = must(cbor.DecOptions{MaxNestedLevels: 4, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden}.DecMode())
)

func must[T any](v T, err error) T {
	if err != nil {
		panic("operator: " + err.Error()) // constant options are valid or they are not
	}
	return v
}

// Sign returns the signed form of a certificate by the network's key.
func Sign(network identity.Key, c Certificate) ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	raw, err := encMode.Marshal(body{Serial: c.Serial, Epoch: c.Epoch, User: c.User, Role: c.Role, Key: c.Key[:], IssuedMS: c.Issued.UnixMilli(), ExpiresMS: c.Expires.UnixMilli()})
	if err != nil {
		return nil, fmt.Errorf("operator certificate: %w", err)
	}
	return encMode.Marshal(envelope{Body: raw, Signature: network.Sign(context, raw)})
}

// Parse verifies a certificate of that network. Whether it still holds is the
// caller's to ask.
func Parse(network identity.PublicKey, data []byte) (Certificate, error) {
	if len(data) > MaxSize {
		return Certificate{}, fmt.Errorf("%w: expected at most %d octets, got %d", ErrForm, MaxSize, len(data))
	}
	var e envelope
	if err := decMode.Unmarshal(data, &e); err != nil {
		return Certificate{}, fmt.Errorf("%w: %w", ErrForm, err)
	}
	if !network.Verify(context, e.Body, e.Signature) {
		return Certificate{}, fmt.Errorf("operator certificate: %w of network %s", identity.ErrSignature, network.ID())
	}
	var b body
	if err := decMode.Unmarshal(e.Body, &b); err != nil {
		return Certificate{}, fmt.Errorf("%w: %w", ErrForm, err)
	}
	if len(b.Key) != len(identity.PublicKey{}) {
		return Certificate{}, fmt.Errorf("%w: key: expected %d octets, got %d", ErrForm, len(identity.PublicKey{}), len(b.Key))
	}
	c := Certificate{
		Serial: b.Serial, Epoch: b.Epoch, User: b.User, Role: b.Role, Key: identity.PublicKey(b.Key),
		Issued: time.UnixMilli(b.IssuedMS).UTC(), Expires: time.UnixMilli(b.ExpiresMS).UTC(),
	}
	return c, c.check()
}

// check holds for certificates to sign as for those that came.
func (c Certificate) check() error {
	life := c.Expires.Sub(c.Issued)
	switch {
	case c.Serial == 0:
		return fmt.Errorf("%w: expected a serial number from 1 on", ErrForm)
	case c.User == "" || len(c.User) > maxUser:
		return fmt.Errorf("%w: user: expected 1 to %d octets, got %d", ErrForm, maxUser, len(c.User))
	case rank(c.Role) == 0:
		return fmt.Errorf("%w: role: expected viewer, operator or admin, got %.20q", ErrForm, c.Role)
	case life <= 0 || life > MaxValidity:
		return fmt.Errorf("%w: expected an end within %s of %s, got %s", ErrForm, MaxValidity, c.Issued, c.Expires)
	}
	return nil
}

// rank orders roles; 0 is none.
func rank(role string) int {
	return 1 + slices.Index([]string{apitype.RoleViewer, apitype.RoleOperator, apitype.RoleAdmin}, role)
}

// May tells whether the operator may do what needs that role.
func (c Certificate) May(role string) bool { return rank(role) > 0 && rank(c.Role) >= rank(role) }

// Standing is what somebody who checks certificates knows besides the network's
// key.
type Standing struct {
	Epoch uint64 // the highest that is known
	// Withdrawn is what the signed list of members says, ListEpoch that list's, and
	// ListIssued when it was signed. The zero values: there is no list.
	Withdrawn  model.Operators
	ListEpoch  uint64
	ListIssued time.Time

	Now  time.Time
	Sure bool // the clock is more than a guess
}

// Valid returns nil while the certificate holds. A clock that is a guess ends it
// too, since guesses are late: they go on from a time that once was. To a guess the
// list of members is a witness for the time as well; a clock that is none knows
// better, for a gateway whose clock was ahead may have signed it. What a guess can't
// tell is that a certificate came too early.
func (c Certificate) Valid(s Standing) error {
	now := s.Now
	if !s.Sure && s.ListIssued.After(now) {
		now = s.ListIssued
	}
	switch {
	case c.Epoch < s.Epoch:
		return fmt.Errorf("%w: it is of epoch %d, and %d has come", ErrEpoch, c.Epoch, s.Epoch)
	case c.Epoch == s.ListEpoch && c.Serial < s.Withdrawn.Floor:
		return fmt.Errorf("%w: the gateway counts none below number %d any more, this is %d", ErrExpired, s.Withdrawn.Floor, c.Serial)
	case c.Epoch == s.ListEpoch && slices.Contains(s.Withdrawn.Revoked, c.Serial):
		return fmt.Errorf("%w: number %d of %s", ErrRevoked, c.Serial, c.User)
	case !now.Before(c.Expires):
		return fmt.Errorf("%w: on %s, and it is %s", ErrExpired, c.Expires.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	case s.Sure && c.Issued.Sub(s.Now) > early:
		return fmt.Errorf("%w: of %s, and it is %s", ErrFuture, c.Issued.UTC().Format(time.RFC3339), s.Now.UTC().Format(time.RFC3339))
	}
	return nil
}

// Encode is the text of a signed certificate, as Header and files carry it.
func Encode(signed []byte) string { return base64.StdEncoding.EncodeToString(signed) }

// Decode reads that text, unverified.
func Decode(text string) ([]byte, error) {
	if len(text) > base64.StdEncoding.EncodedLen(MaxSize) {
		return nil, fmt.Errorf("%w: expected at most %d characters, got %d", ErrForm, base64.StdEncoding.EncodedLen(MaxSize), len(text))
	}
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("%w: expected base64: %w", ErrForm, err)
	}
	return b, nil
}

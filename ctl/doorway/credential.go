// Package doorway is the way of haloctl to a node without the gateway: the
// operator's key and certificate, what nodes there are as the gateway last said,
// and the connection to a node's door, which is made to the node that was meant
// or not at all.
package doorway

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"halo.internal/identity"
	"halo.internal/model/apitype"
	"halo.internal/model/atomicfile"
)

// Credential is who an operator is to nodes. Seed is a secret: it never leaves
// the file.
type Credential struct {
	Seed        []byte    `json:"seed"`
	Certificate string    `json:"certificate"`
	Serial      uint64    `json:"serial"`
	Username    string    `json:"username"`
	Role        string    `json:"role"`
	Expires     time.Time `json:"expires"`        // by the gateway's clock
	Fetched     time.Time `json:"fetched"`        // by this machine's
	Renew       time.Time `json:"renew,omitzero"` // when another is due, by this machine's
}

// renewAfter is the part of a certificate's life after which another is asked
// for: who has met the gateway is let in for nearly the whole of it.
const renewAfter = 6

const maxFile = 1 << 20

// LoadCredential reads the file at path. Where there is none, the error wraps
// fs.ErrNotExist.
func LoadCredential(path string) (Credential, error) {
	var c Credential
	if err := load(path, &c); err != nil {
		return Credential{}, err
	}
	if len(c.Seed) != ed25519.SeedSize {
		return Credential{}, fmt.Errorf("%s: seed: expected %d octets, got %d", path, ed25519.SeedSize, len(c.Seed))
	}
	return c, nil
}

// NewCredential returns one with a fresh key and no certificate yet.
func NewCredential() Credential { return Credential{Seed: identity.New().Seed()} }

// Key returns the operator's own key.
func (c Credential) Key() (identity.Key, error) { return identity.FromSeed(c.Seed) }

// Take puts a certificate into the credential.
func (c *Credential) Take(o apitype.OperatorCertificate, now time.Time) {
	c.Certificate, c.Serial, c.Username, c.Role = o.Certificate, o.Serial, o.Username, o.Role
	c.Expires, c.Fetched, c.Renew = o.Expires, now.UTC().Truncate(time.Second), now.Add(o.Expires.Sub(o.Issued)/renewAfter).UTC().Truncate(time.Second)
}

// Due tells whether another certificate should be asked for, for a user of that
// name and role.
func (c Credential) Due(now time.Time, username, role string) bool {
	return c.Certificate == "" || now.After(c.Renew) || now.Before(c.Fetched) || c.Username != username || c.Role != role
}

// Save writes the file for its owner alone.
func (c Credential) Save(path string) error { return save(path, c) }

// String shows nothing secret.
func (c Credential) String() string { return fmt.Sprintf("certificate %d of %s", c.Serial, c.Username) }

// GoString is String.
func (c Credential) GoString() string { return c.String() }

func load(path string, v any) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return err
	}
	if len(b) > maxFile {
		return fmt.Errorf("%s: expected at most %d octets", path, maxFile)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: expected a file as haloctl writes it: %w", path, err)
	}
	return nil
}

func save(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return atomicfile.Write(path, append(b, '\n'), 0o600)
}

// ErrNoCredential is returned where an operator has no certificate.
var ErrNoCredential = errors.New("no operator certificate is kept here")

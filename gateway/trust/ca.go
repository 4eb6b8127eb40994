// Package trust is the network's certificate authority: one ECDSA P-256 key
// whose certificate is constrained to the names and addresses that a field
// network can have, so that trusting it on a laptop gives nobody the internet.
// It issues the gateway's own server certificate, for whatever addresses the
// gateway has at the moment.
package trust

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"halo.internal/model/atomicfile"
)

// Files of the CA.
const (
	KeyFile  = "ca.key"
	CertFile = "ca.crt"
)

const (
	caLife = 40 * 365 * 24 * time.Hour // longer than HALO believes a clock: nobody is there to replace it
	caPast = 24 * time.Hour            // before the build: a browser's clock may be a little late
)

// Private and local ranges: a gateway's address in the field is one of these.
var permitted = []string{
	"127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10",
	"::1/128", "fc00::/7", "fe80::/10",
}

// Names below these ("halo" covers gateway.halo).
var permittedNames = []string{"halo", "localhost", "local"}

// CA is the network's certificate authority.
type CA struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

// Open loads the CA from dir or makes it. floor is the time of the build: the
// certificate is valid from then, since nodes may not know a later time.
func Open(dir, network string, floor time.Time) (*CA, error) {
	ca, err := load(dir)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return ca, err
	}
	if ca, err = create(network, floor); err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(ca.key)
	if err != nil {
		return nil, fmt.Errorf("network CA: %w", err)
	}
	// The key first: a key without certificate is made anew, a certificate without key is useless.
	if err := atomicfile.Write(filepath.Join(dir, KeyFile), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		return nil, fmt.Errorf("network CA: %w", err)
	}
	if err := atomicfile.Write(filepath.Join(dir, CertFile), ca.PEM(), 0o644); err != nil {
		return nil, fmt.Errorf("network CA: %w", err)
	}
	return ca, nil
}

// ErrDamaged is wrapped when the CA's files are there but cannot be used.
var ErrDamaged = errors.New("network CA is damaged")

func load(dir string) (*CA, error) {
	keyPEM, err := os.ReadFile(filepath.Join(dir, KeyFile))
	if err != nil {
		return nil, fmt.Errorf("network CA: %w", err)
	}
	certPEM, err := os.ReadFile(filepath.Join(dir, CertFile))
	if err != nil {
		return nil, fmt.Errorf("network CA: %w", err)
	}
	kb, _ := pem.Decode(keyPEM)
	cb, _ := pem.Decode(certPEM)
	if kb == nil || cb == nil {
		return nil, fmt.Errorf("%w: %s and %s: expected PEM", ErrDamaged, KeyFile, CertFile)
	}
	k, err := x509.ParsePKCS8PrivateKey(kb.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, KeyFile, err)
	}
	key, ok := k.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%w: %s: expected an ECDSA key, got %T", ErrDamaged, KeyFile, k)
	}
	cert, err := x509.ParseCertificate(cb.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, CertFile, err)
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return nil, fmt.Errorf("%w: %s is not of the key in %s", ErrDamaged, CertFile, KeyFile)
	}
	return &CA{key: key, cert: cert}, nil
}

// Check tells what is wrong with the CA in dir, if anything.
func Check(dir string) error {
	_, err := load(dir)
	return err
}

// SetAside renames damaged CA files so that Open makes a new CA. The nodes
// learn its hash from the announcements, which the network's key signs.
func SetAside(dir string) error {
	for _, f := range []string{KeyFile, CertFile} {
		p := filepath.Join(dir, f)
		if err := atomicfile.Rename(p, p+".damaged"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("set the damaged CA aside: %w", err)
		}
	}
	return nil
}

func create(network string, floor time.Time) (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("network CA: %w", err)
	}
	t := &x509.Certificate{
		SerialNumber:                serial(),
		Subject:                     pkix.Name{CommonName: "HALO network " + network, Organization: []string{"HALO"}},
		NotBefore:                   floor.Add(-caPast),
		NotAfter:                    floor.Add(caLife),
		IsCA:                        true,
		BasicConstraintsValid:       true,
		MaxPathLenZero:              true,
		KeyUsage:                    x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		PermittedDNSDomainsCritical: true,
		PermittedDNSDomains:         permittedNames,
	}
	for _, p := range permitted {
		_, n, err := net.ParseCIDR(p)
		if err != nil {
			return nil, fmt.Errorf("network CA: %w", err)
		}
		t.PermittedIPRanges = append(t.PermittedIPRanges, n)
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("network CA: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("network CA: %w", err)
	}
	return &CA{key: key, cert: cert}, nil
}

// within moves a clock into the CA's life, so that a server certificate made by
// it lies there as a whole. A clock is outside when an older release runs, whose
// build is the earliest time that it knows, or when it was set to nonsense; a
// certificate that ends before it begins, or is older than its CA, would shut
// everybody out.
func (ca *CA) within(now time.Time) time.Time {
	if first := ca.cert.NotBefore.Add(caPast); now.Before(first) {
		return first
	}
	if last := ca.cert.NotAfter.Add(-serverLife); now.After(last) {
		return last
	}
	return now
}

func serial() *big.Int {
	b := make([]byte, 16)
	rand.Read(b)
	b[0] = b[0]&0x7f | 0x40 // positive and of full length (RFC 5280)
	return new(big.Int).SetBytes(b)
}

// PEM returns the CA's certificate.
func (ca *CA) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw})
}

// SHA256 returns the hex SHA-256 of the CA's certificate (DER): what
// announcements carry and clients pin.
func (ca *CA) SHA256() string {
	h := sha256.Sum256(ca.cert.Raw)
	return hex.EncodeToString(h[:])
}

package join

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
)

// ErrCA is wrapped where the server is not the one that the gateway announced.
var ErrCA = errors.New("server does not belong to the announced CA")

// tlsConfig returns a configuration that accepts exactly the servers whose
// chain ends in the CA of that SHA-256, for that address. The usual roots play
// no part, and neither does this board's clock: it may not know the time yet,
// nor may the gateway that issued the certificate. What keeps others out is the
// CA, which issues to no other server, and the announcement that names it is
// fresh.
func tlsConfig(ca [sha256.Size]byte, server netip.Addr) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		// Verification is replaced, not left out: the standard one knows only
		// roots by certificate, and this CA is known by its hash.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			return verify(s.PeerCertificates, ca, server)
		},
	}
}

func verify(chain []*x509.Certificate, ca [sha256.Size]byte, server netip.Addr) error {
	roots, others := x509.NewCertPool(), x509.NewCertPool()
	found := false
	for _, c := range chain {
		if sha256.Sum256(c.Raw) == ca && c.IsCA {
			roots.AddCert(c)
			found = true
		} else {
			others.AddCert(c)
		}
	}
	if !found || len(chain) == 0 {
		return fmt.Errorf("%w: expected a chain with the CA of SHA-256 %x, got %d certificates without it", ErrCA, ca, len(chain))
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		DNSName: server.String(), Roots: roots, Intermediates: others,
		CurrentTime: chain[0].NotBefore, // the CA must have been valid when it issued this, and that is all
		KeyUsages:   []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCA, err)
	}
	return nil
}

package client

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/url"
)

// Fingerprint is the SHA-256 of a CA's certificate in hex, as the gateway
// announces and shows it.
func Fingerprint(ca *x509.Certificate) string {
	h := sha256.Sum256(ca.Raw)
	return hex.EncodeToString(h[:])
}

// ParseCA reads a network's CA from PEM.
func ParseCA(text string) (*x509.Certificate, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("network CA: expected a certificate in PEM")
	}
	ca, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("network CA: %w", err)
	}
	if !ca.IsCA || !ca.BasicConstraintsValid {
		return nil, errors.New("network CA: the certificate is not that of a CA")
	}
	return ca, nil
}

// EncodeCA is the PEM that ParseCA reads.
func EncodeCA(ca *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw}))
}

// pinned trusts what the network's CA issued for a server, and nothing else.
// The name is not compared: the gateway is reached by addresses that its
// certificate cannot know (a forwarded port, a new lease), and the CA, which
// lives in the gateway alone, issues to no other server.
func pinned(ca *x509.Certificate) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // replaced by VerifyConnection, which runs on each handshake
		VerifyConnection: func(cs tls.ConnectionState) error {
			if err := issued(ca, cs.PeerCertificates); err != nil {
				return &UntrustedError{Err: err}
			}
			return nil
		},
	}
}

// issued tells whether ca issued the chain's first certificate to a server. The
// certificate's dates are the gateway's clock, which without a battery or an
// uplink may be years behind, and say nothing of who it is: neither they nor
// this machine's clock count, but that the CA was valid when it issued this.
func issued(ca *x509.Certificate, chain []*x509.Certificate) error {
	if len(chain) == 0 {
		return errors.New("it sent no certificate")
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	if _, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, CurrentTime: chain[0].NotBefore, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err != nil {
		return fmt.Errorf("its certificate is not from the network's CA %s: %w", Fingerprint(ca), err)
	}
	return nil
}

// FetchCA returns the CA that the server at base presents. Nothing vouches
// for it yet: the caller compares its fingerprint before he trusts it.
func FetchCA(ctx context.Context, base *url.URL) (*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	d := tls.Dialer{Config: &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true}, NetDialer: &net.Dialer{}}
	conn, err := d.DialContext(ctx, "tcp", base.Host)
	if err != nil {
		return nil, explain(base, err)
	}
	defer conn.Close()
	chain := conn.(*tls.Conn).ConnectionState().PeerCertificates
	for _, ca := range chain[1:] {
		if ca.IsCA && issued(ca, chain) == nil {
			return ca, nil
		}
	}
	return nil, &UntrustedError{Gateway: base.Host, Err: errors.New("it does not send its network's CA")}
}

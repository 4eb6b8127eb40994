package trust

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"halo.internal/model/order"
)

// Server certificates live as long as browsers accept, and are renewed when a
// third of that is left.
const (
	serverLife = 397 * 24 * time.Hour
	serverPast = 400 * 24 * time.Hour // how far behind a client's clock may be; with serverLife below Apple's 825 days
)

// Server hands out the gateway's certificate. The key is made at each start
// and never stored: clients trust the CA, not the key.
type Server struct {
	ca    *CA
	key   *ecdsa.PrivateKey
	names []string
	addrs func() ([]netip.Addr, error)
	now   func() time.Time

	mu   sync.Mutex // guards what follows
	cert *tls.Certificate
	have []netip.Addr
}

// NewServer returns a source of certificates for these DNS names and whatever
// addresses addrs returns at the time of a handshake.
func NewServer(ca *CA, names []string, addrs func() ([]netip.Addr, error), now func() time.Time) (*Server, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("server key: %w", err)
	}
	return &Server{ca: ca, key: key, names: names, addrs: addrs, now: now}, nil
}

// Config is the TLS configuration of a listener.
func (s *Server) Config() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS13,
		GetCertificate: s.get,
		NextProtos:     []string{"http/1.1"}, // the stream is a WebSocket; HTTP/2 would cost memory per connection
	}
}

// Leaf returns the certificate in use, issuing it when needed.
func (s *Server) Leaf() (*x509.Certificate, error) {
	c, err := s.get(&tls.ClientHelloInfo{})
	if err != nil {
		return nil, err
	}
	return c.Leaf, nil
}

func (s *Server) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.ca.within(s.now())
	if s.cert != nil && now.After(s.cert.Leaf.NotBefore) && s.cert.Leaf.NotAfter.Sub(now) > serverLife/3 {
		// The address that the client reached is in the certificate: it fits.
		if local, ok := localAddr(hello); !ok || slices.Contains(s.have, local) {
			return s.cert, nil
		}
	}
	addrs, err := s.addrs()
	if err != nil {
		return nil, fmt.Errorf("addresses for the server certificate: %w", err)
	}
	addrs = s.certifiable(addrs)
	if s.cert != nil && now.After(s.cert.Leaf.NotBefore) && s.cert.Leaf.NotAfter.Sub(now) > serverLife/3 && slices.Equal(addrs, s.have) {
		return s.cert, nil
	}
	c, err := s.issue(addrs, now)
	if err != nil {
		return nil, err
	}
	s.cert, s.have = c, addrs
	return c, nil
}

func localAddr(hello *tls.ClientHelloInfo) (netip.Addr, bool) {
	if hello.Conn == nil {
		return netip.Addr{}, false
	}
	t, ok := hello.Conn.LocalAddr().(*net.TCPAddr)
	if !ok {
		return netip.Addr{}, false
	}
	a := t.AddrPort().Addr().Unmap().WithZone("")
	return a, a.IsValid()
}

// certifiable sorts the addresses and leaves out those that the CA may not
// certify, such as a public address on the uplink.
func (s *Server) certifiable(in []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, a := range in {
		a = a.Unmap().WithZone("")
		if slices.ContainsFunc(s.ca.cert.PermittedIPRanges, func(n *net.IPNet) bool { return n.Contains(a.AsSlice()) }) {
			out = append(out, a)
		}
	}
	order.By(out, netip.Addr.Compare)
	return slices.Compact(out)
}

func (s *Server) issue(addrs []netip.Addr, now time.Time) (*tls.Certificate, error) {
	from := now.Add(-serverPast)
	if from.Before(s.ca.cert.NotBefore) {
		from = s.ca.cert.NotBefore
	}
	t := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: s.names[0], Organization: []string{"HALO"}},
		NotBefore:    from,
		NotAfter:     now.Add(serverLife),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:     s.names,
	}
	for _, a := range addrs {
		t.IPAddresses = append(t.IPAddresses, a.AsSlice())
	}
	der, err := x509.CreateCertificate(rand.Reader, t, s.ca.cert, s.key.Public(), s.ca.key)
	if err != nil {
		return nil, fmt.Errorf("server certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("server certificate: %w", err)
	}
	// The CA goes along: a joining node knows its hash alone.
	return &tls.Certificate{Certificate: [][]byte{der, s.ca.cert.Raw}, PrivateKey: s.key, Leaf: leaf}, nil
}

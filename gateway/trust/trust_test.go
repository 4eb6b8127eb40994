package trust

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"
)

var build = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

func newCA(t *testing.T, dir string) *CA {
	t.Helper()
	ca, err := Open(dir, "north-ridge", build)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func verify(ca *CA, leaf *x509.Certificate, host string, at time.Time) error {
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: host, CurrentTime: at})
	return err
}

func TestCAStaysTheSame(t *testing.T) {
	dir := t.TempDir()
	a, b := newCA(t, dir), newCA(t, dir)
	if a.SHA256() != b.SHA256() {
		t.Error("a second start made another CA")
	}
	info, err := os.Stat(filepath.Join(dir, KeyFile))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("key has mode %v, want 0600", info.Mode().Perm())
	}
}

func TestDamagedCAIsSaidAndReplacedOnlyOnRequest(t *testing.T) {
	dir := t.TempDir()
	old := newCA(t, dir).SHA256()
	if err := os.WriteFile(filepath.Join(dir, KeyFile), []byte("garbage"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, "north-ridge", build); !errors.Is(err, ErrDamaged) {
		t.Fatalf("got %v, want ErrDamaged", err)
	}
	if err := SetAside(dir); err != nil {
		t.Fatal(err)
	}
	if newCA(t, dir).SHA256() == old {
		t.Error("the CA is the damaged one")
	}
}

func TestServerCertificateFollowsAddressesAndTime(t *testing.T) {
	ca := newCA(t, t.TempDir())
	addrs := []netip.Addr{netip.MustParseAddr("192.168.7.5"), netip.MustParseAddr("203.0.113.9")}
	now := build
	s, err := NewServer(ca, []string{"gateway.halo", "localhost"}, func() ([]netip.Addr, error) { return addrs, nil }, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	first, err := s.Leaf()
	if err != nil {
		t.Fatal(err)
	}
	for host, ok := range map[string]bool{"gateway.halo": true, "localhost": true, "192.168.7.5": true, "203.0.113.9": false, "example.com": false} {
		if err := verify(ca, first, host, build); (err == nil) != ok {
			t.Errorf("%s: got %v, want accepted %v", host, err, ok)
		}
	}
	if again, _ := s.Leaf(); again != first {
		t.Error("a certificate was issued again without need")
	}

	// A client on an address that came later.
	addrs = append(addrs, netip.MustParseAddr("fd12:3456:789a:1::1"))
	srv, client := net.Pipe()
	defer srv.Close()
	defer client.Close()
	c, err := s.get(&tls.ClientHelloInfo{Conn: addressed{srv, &net.TCPAddr{IP: net.ParseIP("fd12:3456:789a:1::1")}}})
	if err != nil {
		t.Fatal(err)
	}
	if err := verify(ca, c.Leaf, "fd12:3456:789a:1::1", build); err != nil {
		t.Errorf("new address: %v", err)
	}

	// Years later, in one step, as when GPS first gives the time.
	now = build.Add(5 * 365 * 24 * time.Hour)
	late, err := s.Leaf()
	if err != nil {
		t.Fatal(err)
	}
	if err := verify(ca, late, "gateway.halo", now); err != nil {
		t.Errorf("after a step of the clock: %v", err)
	}
	if err := verify(ca, late, "gateway.halo", now.Add(-365*24*time.Hour)); err != nil {
		t.Errorf("for a node whose clock is a year behind: %v", err)
	}
}

// Clients leave out the dates of a server certificate if its CA was valid when
// it was issued, so that must be so whatever the gateway's clock shows.
func TestServerCertificateLiesWithinTheCA(t *testing.T) {
	ca := newCA(t, t.TempDir())
	for _, now := range []time.Time{time.Unix(0, 0), build.AddDate(-3, 0, 0), build, build.AddDate(19, 0, 0), build.AddDate(39, 6, 0), build.AddDate(60, 0, 0)} {
		s, err := NewServer(ca, []string{"gateway.halo"}, func() ([]netip.Addr, error) { return nil, nil }, func() time.Time { return now })
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := s.Leaf()
		if err != nil {
			t.Fatal(err)
		}
		if leaf.NotBefore.Before(ca.cert.NotBefore) || leaf.NotAfter.After(ca.cert.NotAfter) || !leaf.NotBefore.Before(leaf.NotAfter) {
			t.Errorf("clock at %s: valid from %s to %s, the CA from %s to %s", now, leaf.NotBefore, leaf.NotAfter, ca.cert.NotBefore, ca.cert.NotAfter)
		}
		if again, _ := s.Leaf(); again != leaf {
			t.Errorf("clock at %s: a certificate was issued again without need", now)
		}
	}
}

type addressed struct {
	net.Conn
	local net.Addr
}

func (a addressed) LocalAddr() net.Addr { return a.local }

func TestCACannotSpeakForTheInternet(t *testing.T) {
	ca := newCA(t, t.TempDir())
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: serial(), NotBefore: build, NotAfter: build.Add(time.Hour), DNSNames: []string{"bank.example"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca.cert, key.Public(), ca.key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if err := verify(ca, leaf, "bank.example", build); err == nil {
		t.Error("a certificate for the internet verified")
	}
}

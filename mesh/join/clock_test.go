package join

import (
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// Neither end may know the time: a gateway issued its certificate at 1970 or at
// its build, and this board believes in 2000 or in 2040.
func TestClocksOfBothEndsPlayNoPart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // it begins in 2000
		for _, year := range []int{2000, 2040} {
			time.Sleep(time.Until(time.Date(year, 1, 2, 0, 0, 0, 0, time.UTC)))
			for _, issued := range []int{1970, 2026, 2039, 2060} {
				a := newAuthority(t, time.Date(issued, 11, 1, 0, 0, 0, 0, time.UTC), loopback, true)
				if err := shake(t, a, a.hash); err != nil {
					t.Errorf("the gateway's clock at %d, this board's at %d: %v", issued, year, err)
				}
				if err := shake(t, a, [sha256.Size]byte{1}); err == nil {
					t.Errorf("the gateway's clock at %d, this board's at %d: another CA was taken", issued, year)
				}
			}
		}
	})
}

// A server that was certified when its CA was not valid is refused.
func TestCAMustHaveBeenValid(t *testing.T) {
	ca := time.Now()
	for name, issued := range map[string]time.Time{"before the CA": ca.Add(-time.Minute), "after the CA": ca.Add(2 * time.Hour)} {
		a := newAuthorities(t, ca, issued, loopback, true)
		if err := shake(t, a, a.hash); !errors.Is(err, ErrCA) {
			t.Errorf("issued %s: got %v, want ErrCA", name, err)
		}
	}
}

// shake runs a handshake of a node that knows that CA with the authority's
// server, over a pipe.
func shake(t *testing.T, a authority, ca [sha256.Size]byte) error {
	t.Helper()
	near, far := net.Pipe()
	server := tls.Server(far, &tls.Config{Certificates: []tls.Certificate{a.cert}})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Handshake() // the client's verdict is what is tested
		_ = far.Close()
	}()
	defer func() { _ = near.Close(); <-done }()
	return tls.Client(near, tlsConfig(ca, netip.MustParseAddr("127.0.0.1"))).Handshake()
}

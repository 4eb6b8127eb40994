package gateway

import (
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"

	"halo.internal/model/paths"
)

// wg0 comes and goes; the API waits on its address all the time.
func TestListensOnTheOverlayBeforeItExists(t *testing.T) {
	l, err := listener{address: paths.OverlayGateway.String() + ":0"}.open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

type bothEnds struct {
	net.Conn
	local, remote string
}

func (e bothEnds) LocalAddr() net.Addr  { return tcp(e.local) }
func (e bothEnds) RemoteAddr() net.Addr { return tcp(e.remote) }

func tcp(ip string) net.Addr { return &net.TCPAddr{IP: net.ParseIP(ip), Port: 1} }

func TestOnlyMembersReachTheOverlayAddress(t *testing.T) {
	for _, tc := range []struct {
		local, remote string
		tls, want     bool
	}{
		{"10.42.0.1", "10.42.0.10", false, true},
		{"10.42.0.1", "10.42.0.1", false, true},
		{"10.42.0.1", "192.168.1.7", false, false}, // came in by another interface
		{"10.42.0.1", "192.168.1.7", true, false},
		{"10.42.0.1", "10.43.7.20", false, false}, // its way to its node is open to others
		{"10.42.0.1", "10.43.7.20", true, true},
		{"127.0.0.1", "127.0.0.1", false, true},
		{"192.168.1.5", "192.168.1.7", true, true},
	} {
		l := listener{address: "127.0.0.1:0"}
		if tc.tls {
			l.tls = &tls.Config{}
		}
		b, err := l.bounded(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		b.Close()
		if got := b.admissible(bothEnds{local: tc.local, remote: tc.remote}); got != tc.want {
			t.Errorf("%s from %s, TLS %v: admitted %v, want %v", tc.local, tc.remote, tc.tls, got, tc.want)
		}
	}
}

func TestPlainHTTPOnLoopbackAndOverlayOnly(t *testing.T) {
	for address, want := range map[string]bool{
		"127.0.0.1:8080": true, "[::1]:8080": true, "127.1.2.3:0": true, "localhost:8080": true, "[::ffff:127.0.0.1]:8080": true, "10.42.0.1:8080": true,
		"0.0.0.0:8080": false, "[::]:8080": false, ":8080": false, "192.168.1.5:8080": false, "10.42.0.2:8080": false, "gateway.example:8080": false, "8080": false, "": false,
	} {
		err := checkPlain(address)
		if (err == nil) != want {
			t.Errorf("%q: got %v, want it allowed: %v", address, err, want)
		}
	}
	err := Run(t.Context(), Laptop(t.TempDir(), []string{"0.0.0.0:0"}, io.Discard, slog.New(slog.DiscardHandler)))
	if err == nil || !strings.Contains(err.Error(), "--listen-tls") {
		t.Errorf("got %v, want a refusal that names --listen-tls", err)
	}
}

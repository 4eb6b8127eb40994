package gateway

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
)

// queue is a listener of connections that are there already.
type queue struct {
	net.Listener
	conns chan net.Conn
}

func (q queue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	default:
		return nil, io.EOF
	}
}

// from is a connection from somewhere.
type from struct {
	net.Conn
	remote string
	closed bool
}

func (f *from) LocalAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 168, 1, 5), Port: 8443} }
func (f *from) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(f.remote), 4711))
}
func (f *from) Close() error { f.closed = true; return nil }

// TestAnAddressHasAShareOfTheConnections, as all of a global IPv6 /64 have together, and
// another one finds a place all the same. Each node of the mesh has its own.
func TestAnAddressHasAShareOfTheConnections(t *testing.T) {
	for _, tc := range []struct {
		name string
		of   func(i int) string
		want int
	}{
		{"one address", func(int) string { return "192.168.1.7" }, maxConnsEach},
		{"one host's IPv6", func(i int) string { return fmt.Sprintf("2001:db8::%x", i+1) }, maxConnsEach},
		{"one node of the mesh", func(int) string { return "fd12:3456:789a:1::7" }, maxConnsEach},
		{"two nodes of the mesh", func(i int) string { return fmt.Sprintf("fd12:3456:789a:1::%x", 7+i/maxConnsEach%2) }, 2 * maxConnsEach},
		{"all nodes of the mesh", func(i int) string { return fmt.Sprintf("fd12:3456:789a:1::%x", i+1) }, maxConns},
		{"all the world", func(i int) string { return fmt.Sprintf("10.7.%d.%d", i>>8, i&255) }, maxConns},
		{"this device", func(int) string { return "127.0.0.1" }, maxConns},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b, err := listener{address: "127.0.0.1:0"}.bounded(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			q := queue{b.Listener, make(chan net.Conn, 2*maxConns)}
			b.Listener = q
			var open []net.Conn
			accept := func() {
				for {
					c, err := b.Accept()
					if err != nil {
						return
					}
					open = append(open, c)
				}
			}
			all := make([]*from, maxConns+10)
			for i := range all {
				all[i] = &from{remote: tc.of(i)}
				q.conns <- all[i]
			}
			if accept(); len(open) != tc.want {
				t.Errorf("%d connections are open, want %d", len(open), tc.want)
			}
			for i, c := range all {
				if c.closed != (i >= tc.want) {
					t.Fatalf("connection %d: closed %v", i, c.closed)
				}
			}
			if tc.want < maxConns {
				q.conns <- &from{remote: "192.168.1.8"}
				if accept(); len(open) != tc.want+1 {
					t.Error("another address finds no place")
				}
			}
			for _, c := range open {
				c.Close()
				c.Close()
			}
			open = nil
			q.conns <- &from{remote: tc.of(0)}
			if accept(); len(open) != 1 {
				t.Error("places that were left are not free")
			}
		})
	}
}

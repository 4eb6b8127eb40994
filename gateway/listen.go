package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"halo.internal/gateway/api"
	"halo.internal/gateway/auth"
	"halo.internal/model/paths"
)

const (
	headerTimeout = 10 * time.Second
	readTimeout   = time.Minute // links are slow
	writeTimeout  = 2 * time.Minute
	idleTimeout   = 2 * time.Minute
	maxHeader     = 16 << 10
	maxConns      = 1024
	maxConnsEach  = maxConns / 4 // of one auth.ShareKey: many may stand behind an address
	stopTimeout   = 3 * time.Second
	rebindEvery   = 2 * time.Second
)

// listener is one place at which the API answers.
type listener struct {
	address string
	tls     *tls.Config // nil: plain HTTP
}

// serve answers on all listeners until ctx ends. One that cannot be opened is
// tried again: its port may be held by a process that is leaving.
func serve(ctx context.Context, h http.Handler, log *slog.Logger, listeners []listener, bound func(string, error)) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, l := range listeners {
		g.Go(func() error {
			for ctx.Err() == nil {
				nl, err := l.open(ctx)
				bound(l.address, err)
				if err == nil {
					err = serveOne(ctx, nl, h, log)
				}
				if ctx.Err() == nil {
					bound(l.address, err)
				}
				select {
				case <-ctx.Done():
				case <-time.After(rebindEvery):
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// checkPlain refuses an address of plain HTTP at which others could listen in
// on what clients send, passwords and tokens among it.
func checkPlain(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("listen on %q: expected host:port: %w", address, err)
	}
	if host == "localhost" {
		return nil
	}
	if a, err := netip.ParseAddr(host); err == nil && paths.PlainHTTP(a) {
		return nil
	}
	return fmt.Errorf("listen on %s: expected an address of the loopback or the overlay's %s, as plain HTTP is served on these alone; "+
		"keep to 127.0.0.1:%s, and for other machines serve TLS (--listen-tls :%d)", address, paths.OverlayGateway, port, paths.APITLSPort)
}

func (l listener) open(ctx context.Context) (net.Listener, error) {
	b, err := l.bounded(ctx)
	switch {
	case err != nil:
		return nil, err
	case l.tls != nil:
		return tls.NewListener(b, l.tls), nil
	}
	return b, nil
}

func (l listener) bounded(ctx context.Context) (*bounded, error) {
	lc := net.ListenConfig{Control: freebind}
	nl, err := lc.Listen(ctx, "tcp", l.address)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", l.address, err)
	}
	b := &bounded{Listener: nl, overlay: []netip.Prefix{paths.OverlayNet}, of: map[string]int{}}
	if l.tls != nil {
		b.overlay = append(b.overlay, paths.ClientsNet)
	}
	return b, nil
}

func serveOne(ctx context.Context, nl net.Listener, h http.Handler, log *slog.Logger) error {
	srv := &http.Server{
		Handler: h, ReadHeaderTimeout: headerTimeout, ReadTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		ConnContext: api.ConnContext, MaxHeaderBytes: maxHeader, BaseContext: func(net.Listener) context.Context { return context.WithoutCancel(ctx) }, // what is being answered may end in its time
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug), // handshakes of strangers are no news
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(nl) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if err := srv.Shutdown(stop); err != nil {
		_ = srv.Close() // an answer that does not end is cut off: the process is leaving
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// bounded limits the connections of a listener, so that no address has all of them but
// the loopback, whose are this device's own, nor a global IPv6 /64, which one host has,
// and lets only members reach the overlay's address: Linux takes packets for it on every
// interface, while plain HTTP there is only safe for those that WireGuard has vouched for. Members'
// clients come through the overlay too, but have a way before it that others may
// listen in on: they are for TLS. A foreign source address in the overlay's range
// gets no answer, since that would go into the overlay.
type bounded struct {
	net.Listener
	overlay []netip.Prefix // who may reach the overlay's address

	mu   sync.Mutex // guards what follows
	many int
	of   map[string]int // by auth.ShareKey
}

// enter counts a connection until leave is called, which may be once; false: there are
// too many.
func (b *bounded) enter(remote netip.Addr) (leave func(), ok bool) {
	key := auth.ShareKey(remote)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.many >= maxConns || b.of[key] >= maxConnsEach && !remote.IsLoopback() {
		return nil, false
	}
	b.many++
	b.of[key]++
	return func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.many--
		if b.of[key]--; b.of[key] == 0 {
			delete(b.of, key)
		}
	}, true
}

func (b *bounded) Accept() (net.Conn, error) {
	for {
		c, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if !b.admissible(c) {
			_ = c.Close() // refused
			continue
		}
		leave, ok := b.enter(address(c.RemoteAddr()))
		if !ok {
			_ = c.Close() // full: refused
			continue
		}
		return &slotted{Conn: c, free: sync.OnceFunc(leave)}, nil
	}
}

func (b *bounded) admissible(c net.Conn) bool {
	local, remote := address(c.LocalAddr()), address(c.RemoteAddr())
	return local != paths.OverlayGateway || slices.ContainsFunc(b.overlay, func(p netip.Prefix) bool { return p.Contains(remote) })
}

func address(a net.Addr) netip.Addr {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return t.AddrPort().Addr().Unmap()
}

type slotted struct {
	net.Conn
	free func() // once, however often the connection is closed
}

func (s *slotted) Close() error {
	s.free()
	return s.Conn.Close()
}

// localAddresses returns the addresses that this device has now.
func localAddresses() ([]netip.Addr, error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, a := range list {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			out = append(out, p.Addr())
		}
	}
	return out, nil
}

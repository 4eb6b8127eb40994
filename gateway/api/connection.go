package api

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"time"
)

type begunKey struct{}

// ConnContext notes when a connection began (http.Server.ConnContext): what is
// confirmed by one that is older than a change proves nothing.
func ConnContext(ctx context.Context, _ net.Conn) context.Context {
	return context.WithValue(ctx, begunKey{}, time.Now())
}

// connection returns this end of the connection that a request came by, and when it
// began; zero values on a Unix socket, and where that is not known.
func connection(ctx context.Context) (local netip.AddrPort, since time.Time) {
	if a, ok := ctx.Value(http.LocalAddrContextKey).(*net.TCPAddr); ok {
		ap := a.AddrPort()
		local = netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
	}
	since, _ = ctx.Value(begunKey{}).(time.Time)
	return local, since
}

// Package door lets operators in at a node: HTTP over TLS 1.3 on the overlay and
// on client ports, with the routes of halo-mesh's socket that a person may use.
// It needs no gateway: the network's key has signed who an operator is before
// (identity/operator), and what was revoked is in the signed list of members.
//
// The TLS key of a node is its identity, from which its canonical ID follows, so
// that a client knows whom it speaks to without a CA. The client proves the
// operator's own key in the same handshake; the certificate that names this key
// comes with each request, and is worth nothing on a connection of another key.
//
// Whoever can reach it may be hostile: connections, handshakes, sizes and times
// are bounded, failures slow down their source, and both uses and failures are
// events.
package door

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"halo.internal/identity"
	"halo.internal/identity/operator"
	"halo.internal/mesh/listen"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// Kinds of events.
const (
	EventOpened  = "door.opened"  // an operator has come in; fields user, role, serial, remote
	EventUsed    = "door.used"    // and has asked for more than to look, or for much at once; the same, did, and of looks times
	EventDenied  = "door.denied"  // and has asked for what the role may not; the same, asked, needs, times
	EventRefused = "door.refused" // somebody was not let in; fields remote, failures
)

// Bounds.
const (
	maxConns   = 16
	maxConnsOf = 4 // of one client
	maxBody    = 64 << 10
	maxHeader  = 8 << 10
	readWait   = 30 * time.Second // for a request's heading or body, on the slowest link
	idleWait   = time.Minute      // between two requests of a connection
	writeWait  = 30 * time.Second // for one write: who does not read is hung up on
)

// Config of a door.
type Config struct {
	Key      identity.Key // the node's
	Network  identity.PublicKey
	Standing func() operator.Standing // what is known of certificates now
	Routes   http.Handler             // of halo-mesh's socket; the door says which of them it leads to
	Event    func(kind string, s model.Severity, message string, fields ...string)
	Log      *slog.Logger
}

// Door is the door of a node. Its methods may be called from any goroutine.
type Door struct {
	c    Config
	tls  *tls.Config
	mux  *http.ServeMux
	slow *Slow
	book *book
}

// New returns a door that listens nowhere yet.
func New(c Config) (*Door, error) {
	cert, err := operator.TLSCertificate(c.Key.Seed(), c.Key.ID())
	if err != nil {
		return nil, fmt.Errorf("door: %w", err)
	}
	d := &Door{c: c, slow: NewSlow(), book: newBook(c.Event), mux: http.NewServeMux(), tls: &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert},
		// Asked for and not demanded: who has none is told so in words. What it says
		// besides its key is not looked at.
		ClientAuth:             tls.RequestClientCert,
		SessionTicketsDisabled: true, // each connection proves its key
		NextProtos:             []string{"http/1.1"},
	}}
	for _, r := range Routes {
		d.mux.HandleFunc(r.Pattern, d.guard(r))
	}
	d.mux.HandleFunc("/", d.guard(Route{}))
	return d, nil
}

// Serve answers at one place until ctx ends.
func (d *Door) Serve(ctx context.Context, at listen.At) {
	at.Keep(ctx, d.c.Log.With("service", "door"), func(ctx context.Context) error { return d.serve(ctx, at) })
}

func (d *Door) serve(ctx context.Context, at listen.At) error {
	l, err := at.TCP(ctx, paths.DoorPort, listen.Bounds{Most: maxConns, Client: maxConnsOf, Write: writeWait})
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler: d, ReadHeaderTimeout: readWait, ReadTimeout: readWait, IdleTimeout: idleWait, MaxHeaderBytes: maxHeader,
		ErrorLog: log.New(io.Discard, "", 0), // strangers' handshakes are no news
	}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	err = server.Serve(tls.NewListener(&paced{Listener: l, tokens: newBucket(handshakesAtOnce, handshakesPerSecond)}, d.tls))
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// ServeHTTP answers a request of a connection that TLS protects.
func (d *Door) ServeHTTP(w http.ResponseWriter, r *http.Request) { d.mux.ServeHTTP(w, r) }

// guard stands before a route; the zero Route is what the door leads to nowhere
// for.
func (d *Door) guard(to Route) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		remote := remoteOf(r)
		client := listen.Client(remote).String()
		if wait := d.slow.Wait(client); wait > 0 {
			w.Header().Set("Retry-After", fmt.Sprint(int(wait/time.Second)+1))
			http.Error(w, fmt.Sprintf("too many were refused from here; try again in %s", wait.Round(time.Second)), http.StatusTooManyRequests)
			return
		}
		who, err := d.authenticate(r)
		if err != nil {
			n := d.slow.Fail(client)
			d.book.refused(remote, n, err)
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
		d.slow.Succeed(client)
		d.book.came(who, remote)
		switch {
		case to.Pattern == "":
			http.Error(w, fmt.Sprintf("the door of a node does not lead to %s %.80s", r.Method, r.URL.Path), http.StatusNotFound)
			return
		case !who.May(to.Role):
			d.book.denied(who, remote, to)
			http.Error(w, fmt.Sprintf("this needs the role %s, and %s has %s", to.Role, who.User, who.Role), http.StatusForbidden)
			return
		}
		switch {
		case r.Method != http.MethodGet:
			d.book.used(who, remote, to)
		case to.Told:
			d.book.looked(who, remote, to)
		}
		asked, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			http.Error(w, fmt.Sprintf("body: expected at most %d octets within %s: %v", maxBody, readWait, err), http.StatusBadRequest)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(asked))
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // what was asked for may take longer than asking
		d.c.Routes.ServeHTTP(w, r)
	}
}

// authenticate tells who sends a request. It is asked for each, so that what was
// revoked ends at once.
func (d *Door) authenticate(r *http.Request) (operator.Certificate, error) {
	if r.TLS == nil {
		return operator.Certificate{}, errors.New("expected TLS")
	}
	key, err := operator.PeerKey(*r.TLS)
	if err != nil {
		return operator.Certificate{}, fmt.Errorf("expected an operator's key in the TLS handshake: %w", err)
	}
	text := r.Header.Get(operator.Header)
	if text == "" {
		return operator.Certificate{}, fmt.Errorf("expected an operator certificate in the header %s, got none", operator.Header)
	}
	raw, err := operator.Decode(text)
	if err != nil {
		return operator.Certificate{}, err
	}
	c, err := operator.Parse(d.c.Network, raw)
	if err != nil {
		return operator.Certificate{}, err
	}
	if c.Key != key {
		return operator.Certificate{}, errors.New("the operator certificate is of another key than the one of this connection")
	}
	return c, c.Valid(d.c.Standing())
}

// remoteOf returns the other end of a connection.
func remoteOf(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return ap.Addr().Unmap()
}

// paced closes connections that come faster than handshakes may cost.
type paced struct {
	net.Listener
	tokens *bucket
}

const (
	handshakesAtOnce    = 30
	handshakesPerSecond = 10
)

func (p *paced) Accept() (net.Conn, error) {
	for {
		c, err := p.Listener.Accept()
		if err != nil || p.tokens.take(time.Now()) {
			return c, err
		}
		_ = c.Close()
	}
}

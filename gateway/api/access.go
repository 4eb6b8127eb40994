package api

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"halo.internal/gateway/auth"
	"halo.internal/gateway/idempotency"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/paths"
)

// access says what a route needs. The zero value needs an admin.
type access struct {
	open   bool   // no login
	secret bool   // open, but carries a secret (password, claim, token): refused on unprotected connections
	login  bool   // any login or API token
	scope  string // this scope
}

const accessKey = "access"

var (
	open    = access{open: true}
	entry   = access{open: true, secret: true}
	anybody = access{login: true}
	admin   = access{scope: apitype.ScopeAdmin}
)

func scope(s string) access { return access{scope: s} }

func (n access) closed() bool { return !n.open }

func (n access) describe(text string) string {
	need := "Needs an admin."
	switch {
	case n.open:
		need = "Open: no login."
	case n.login:
		need = "Needs a login."
	case n.scope == apitype.ScopeRestore:
		need = "Needs the ticket of a claim for a restore, or an admin."
	case n.scope != "" && n.scope != apitype.ScopeAdmin:
		need = "Needs the scope " + n.scope + "."
	}
	return strings.TrimSpace(text + " " + need)
}

// caller is who makes the request and from where; handlers find it in their
// context.
type caller struct {
	auth.Principal
	remote    netip.Addr
	protected bool // TLS
	actor     string
	target    string

	key    string      // Idempotency-Key of a POST; empty: none
	answer http.Header // of the answer
	room   int         // octets that it takes, as makeRoom counts them

	request *http.Request // for what is read as it comes
	writer  http.ResponseWriter
}

type callerKey struct{}

func callerOf(ctx context.Context) *caller { return ctx.Value(callerKey{}).(*caller) }

// guard stands before every route: transport, login, scope, pace; behind it, audit.
func (a *API) guard(ctx huma.Context, next func(huma.Context)) {
	r, w := humago.Unwrap(ctx)
	need, known := ctx.Operation().Metadata[accessKey].(access)
	if !known {
		need = admin
	}
	c := &caller{remote: remoteOf(r), protected: r.TLS != nil, answer: w.Header(), request: r, writer: w}
	defer a.vacate(c)
	if (need.closed() || need.secret) && !protected(r) {
		refusePlain(w)
		return
	}
	if err := a.admit(ctx.Operation().OperationID, need, c); err != nil {
		apitype.WriteProblem(w, a.problem(r.Context(), ctx.Operation().OperationID, err))
		return
	}
	c.target = ctx.Param("id") + ctx.Param("username") + ctx.Param("mac")
	inner := huma.WithValue(ctx, callerKey{}, c)
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		next(inner)
		return
	}
	record, err := a.begin(r.Context(), ctx.Operation().OperationID, c)
	if err != nil {
		// What nobody could be held to is not done.
		apitype.WriteProblem(w, a.problem(r.Context(), ctx.Operation().OperationID, err))
		return
	}
	status := http.StatusInternalServerError // of a panic, which goes on
	defer func() { record(status) }()
	next(inner)
	status = ctx.Status()
}

// admit finds out who makes a request, and returns nil where he may, at his pace. That comes
// before anything is audited: a flood must not wash out what the log knows.
func (a *API) admit(operation string, need access, c *caller) (err error) {
	ctx, r := c.request.Context(), c.request
	if !need.closed() {
		return a.hold(ctx, operation, c)
	}
	if c.Principal, err = a.authenticate(ctx, operation, r.Header.Get("Authorization"), c.remote); err != nil {
		return err
	}
	c.actor = c.Actor()
	if err := a.hold(ctx, operation, c); err != nil {
		return err
	}
	if !need.login {
		if err := c.Require(cmp.Or(need.scope, apitype.ScopeAdmin)); err != nil {
			return err
		}
	}
	if r.Method == http.MethodPost {
		c.key, err = idempotency.Parse(r.Header.Get("Idempotency-Key"))
	}
	return err
}

// authenticate finds who presents the value of an Authorization header. An address from
// which bad ones come is held to the pace of its questions.
func (a *API) authenticate(ctx context.Context, operation, header string, remote netip.Addr) (auth.Principal, error) {
	p, err := a.Auth.Authenticate(ctx, header)
	if bad, ok := errors.AsType[*apitype.Problem](err); ok && bad.Status == http.StatusUnauthorized {
		err = cmp.Or(a.holdStranger(ctx, operation, remote), err)
	}
	return p, err
}

// begin writes to the audit log that somebody means to change something, and
// returns what writes the outcome. Where a login comes about only by the
// request, it is the outcome alone that is written.
func (a *API) begin(ctx context.Context, operation string, c *caller) (record func(status int), err error) {
	ctx = context.WithoutCancel(ctx)
	entry := func(status int) apitype.AuditEntry {
		return apitype.AuditEntry{Actor: c.actor, Action: operation, Target: c.target, Remote: c.remote.String(), Status: status}
	}
	var id int64
	if c.actor != "" {
		if id, err = a.Audit.Record(ctx, entry(0)); err != nil {
			return nil, err
		}
	}
	return func(status int) {
		var err error
		switch {
		case id != 0:
			err = a.Audit.Complete(ctx, id, c.target, status)
		case c.actor != "":
			_, err = a.Audit.Record(ctx, entry(status))
		}
		if err != nil {
			a.Log.Error("the audit log could not be written", "actor", c.actor, "action", operation, "err", err)
			// Events wait in RAM until the database takes them.
			a.Events.Add("audit.incomplete", model.Error, "", "the audit log lacks what came of a request", map[string]string{
				"actor": c.actor, "action": operation, "target": c.target, "remote": c.remote.String(), "status": strconv.Itoa(status)})
		}
	}, nil
}

// protected tells whether others can listen: not under TLS, nor on the
// loopback, a Unix socket or the overlay.
func protected(r *http.Request) bool {
	if r.TLS != nil {
		return true
	}
	switch local := r.Context().Value(http.LocalAddrContextKey).(type) {
	case *net.UnixAddr:
		return true
	case *net.TCPAddr:
		return paths.PlainHTTP(local.AddrPort().Addr())
	}
	return false
}

// ownName tells whether a request over plain HTTP is meant for this gateway. A web page
// from elsewhere can have its own name lead to a loopback address and so be one origin
// with whatever answers there; over TLS the certificate does not fit such a name.
func ownName(r *http.Request) bool {
	if _, unix := r.Context().Value(http.LocalAddrContextKey).(*net.UnixAddr); unix || r.TLS != nil {
		return true
	}
	host := r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.ToLower(strings.Trim(host, "[]")), ".")
	if _, err := netip.ParseAddr(host); err == nil || host == "" {
		return true
	}
	return host == "localhost" || host == "halo" || strings.HasSuffix(host, ".halo")
}

func refusePlain(w http.ResponseWriter) {
	apitype.WriteProblem(w, apitype.Refuse(http.StatusForbidden, apitype.ProblemPlainHTTP, "secrets do not travel over plain HTTP here; use https on port %d, or the overlay", paths.APITLSPort))
}

// remoteOf returns the client's address; on the Unix socket the loopback.
func remoteOf(r *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.IPv6Loopback()
	}
	return ap.Addr().Unmap().WithZone("")
}

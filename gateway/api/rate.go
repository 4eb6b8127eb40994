package api

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"halo.internal/gateway/auth"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

// pace is a bucket: what may come at once, and how many more each second.
type pace struct {
	what  string
	each  rate.Limit
	burst int
}

// terms are a pace in words.
func (p *pace) terms() string {
	if day := float64(p.each) * 24 * 60 * 60; day < 10_000 {
		return fmt.Sprintf("at most %.0f a day after %d at once", day, p.burst)
	}
	return fmt.Sprintf("at most %g a second after %d at once", float64(p.each), p.burst)
}

// The paces of one caller. A page that shows a network asks a few times a second, a
// script some twenty times. Each change is in the audit log, whatever comes of it, as two
// records of the 50,000 that are kept: who is no admin must not wash out in hours what it
// knows of months.
var (
	reads   = pace{"questions", 50, 200}
	changes = pace{"changes", 1, 100}
	daily   = pace{"changes for a day", 2000. / (24 * 60 * 60), 2000} // besides, of who is no admin
	parts   = pace{"parts of an import", 5, 20}
	files   = pace{"files", 0.2, 10} // each reads or writes a whole database
)

// paces are those of operations that are not told by their method.
var paces = map[string]*pace{
	"import-telemetry": &parts,
	"export-telemetry": &files, "create-backup": &files, "restore-backup": &files, "get-support-bundle": &files, "verify-audit": &files,
}

func paceOf(operation, method string) *pace {
	switch p := paces[operation]; {
	case p != nil:
		return p
	case method == http.MethodGet || method == http.MethodHead:
		return &reads
	}
	return &changes
}

const (
	maxCallers     = 4096
	idleCaller     = 5 * time.Minute // by then all buckets are full again, but that of a day
	heldBackEvents = time.Hour       // between two events about one caller
)

// rates holds callers to their paces. The zero value is ready.
type rates struct {
	mu      sync.Mutex // guards what follows
	callers map[string]*callerRate
	swept   time.Time // when those that are idle were looked for
}

type callerRate struct {
	last, told time.Time // monotonic
	left       map[*pace]*rate.Limiter
}

// full tells whether somebody who is forgotten has no more than he had.
func (c *callerRate) full(now time.Time) bool {
	for p, l := range c.left {
		if l.TokensAt(now) < float64(p.burst) {
			return false
		}
	}
	return true
}

// take returns how long the caller has to wait, 0 when it need not, and whether that is
// the first time in an hour that it has to. Strangers, who come without a login and from
// ever new addresses, share one pace beyond maxCallers.
func (r *rates) take(caller string, stranger bool, p *pace, now time.Time) (wait time.Duration, first bool) {
	return r.takeN(caller, stranger, p, 1, now)
}

// takeN is take of several at once, at most the burst.
func (r *rates) takeN(caller string, stranger bool, p *pace, n int, now time.Time) (wait time.Duration, first bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.callers[caller]
	if c == nil && stranger {
		if len(r.callers) >= maxCallers && now.Sub(r.swept) > time.Second { // a look at all costs more than an answer
			r.swept = now
			for k, c := range r.callers {
				if now.Sub(c.last) > idleCaller && c.full(now) {
					delete(r.callers, k)
				}
			}
		}
		if len(r.callers) >= maxCallers {
			caller = "" // all others
			c = r.callers[caller]
		}
	}
	if c == nil {
		if r.callers == nil {
			r.callers = map[string]*callerRate{}
		}
		c = &callerRate{left: map[*pace]*rate.Limiter{}}
		r.callers[caller] = c
	}
	c.last = now
	l := c.left[p]
	if l == nil {
		l = rate.NewLimiter(p.each, p.burst)
		c.left[p] = l
	}
	turn := l.ReserveN(now, min(n, p.burst))
	if wait = turn.DelayFrom(now); wait == 0 {
		return 0, false
	}
	turn.CancelAt(now)
	if first = c.told.IsZero() || now.Sub(c.told) > heldBackEvents; first {
		c.told = now
	}
	return wait, first
}

// hold returns the problem "rate-limited" while the caller of an operation is beyond its
// pace: a user or an API token, whatever it comes from; without a login, an address that
// asks questions. Everything else that is open (joining, claiming, logging in, renewing a
// session) has limits of its own, since hundreds of nodes may come at once from one network
// or through one gateway. What comes through the Unix socket are this device's own
// processes.
func (a *API) hold(ctx context.Context, operation string, c *caller) error {
	p := paceOf(operation, c.request.Method)
	switch {
	case c.actor != "":
		err := a.holdTo(ctx, operation, c.actor, false, c.remote, p)
		if err == nil && p == &changes && !c.Has(apitype.ScopeAdmin) {
			err = a.holdTo(ctx, operation, c.actor, false, c.remote, &daily)
		}
		return err
	case p == &reads:
		return a.holdStranger(ctx, operation, c.remote)
	}
	return nil
}

// holdStranger is hold for an address that asks without a login, or with a bad token.
func (a *API) holdStranger(ctx context.Context, operation string, remote netip.Addr) error {
	return a.holdTo(ctx, operation, auth.ShareKey(remote), true, remote, &reads)
}

func (a *API) holdTo(ctx context.Context, operation, who string, stranger bool, remote netip.Addr, p *pace) error {
	if _, own := ctx.Value(http.LocalAddrContextKey).(*net.UnixAddr); own || a.unheld {
		return nil
	}
	wait, first := a.rates.take(who, stranger, p, time.Now())
	if wait == 0 {
		return nil
	}
	if first {
		a.Events.Add("api.held_back", model.Warning, "", who+" asks for more than one caller gets and is held back", map[string]string{
			"actor": who, "action": operation, "remote": remote.String()})
	}
	return apitype.Refuse(http.StatusTooManyRequests, apitype.ProblemRateLimited, "%s sent too many %s; expected %s", who, p.what, p.terms()).After(wait)
}

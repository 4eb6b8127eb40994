package live

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/coder/websocket"

	"halo.internal/gateway/auth"
	"halo.internal/model/apitype"
)

// session is one client.
type session struct {
	hub      *Hub
	conn     *websocket.Conn
	remote   netip.Addr
	actor    string
	requests chan apitype.LiveRequest

	// What follows is the writer's alone.
	who   auth.Principal
	token string
	subs  []*subscription
	pause time.Duration
}

// ended is why the gateway ends a connection.
type ended struct {
	reason string
	code   websocket.StatusCode
}

func (e *ended) Error() string { return e.reason }

// Serve serves a client that has shown who it is. When it cannot be served, or asks for no
// WebSocket, it has been answered, or the problem to answer with is returned.
func (h *Hub) Serve(w http.ResponseWriter, r *http.Request, who auth.Principal, token string, remote netip.Addr) error {
	if r.Header.Get("Sec-WebSocket-Key") == "" {
		return apitype.Refuse(http.StatusUpgradeRequired, "", "this is a WebSocket: expected a request for one")
	}
	c := &session{hub: h, remote: remote, actor: who.Actor(), requests: make(chan apitype.LiveRequest, 4), who: who, token: token, pause: usualPause}
	if err := h.enter(c, c.actor); err != nil {
		return err
	}
	defer h.leave(c)
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{apitype.LiveProtocol}, CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return nil // Accept has answered
	}
	conn.SetReadLimit(maxRequest)
	c.conn = conn
	// A hijacked connection is not the HTTP server's any more: it ends here, or by the client.
	c.take(context.WithoutCancel(r.Context()))
	return nil
}

// take runs the connection until it ends.
func (c *session) take(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ends := make(chan error, 3)
	var wg sync.WaitGroup
	for _, f := range []func(context.Context) error{c.read, c.ping, c.tell} {
		wg.Go(func() { ends <- f(ctx) })
	}
	var err error
	select {
	case err = <-ends:
	case <-c.hub.done:
		err = &ended{apitype.LiveEndStopping, websocket.StatusGoingAway}
	}
	// Before the context ends: the connection ends with it.
	if e, ours := errors.AsType[*ended](err); ours {
		c.hub.Log.Info("a live connection was ended", "reason", e.reason, "peer", c.remote.String(), "user", c.actor)
		if e.reason != apitype.LiveEndSlow { // nothing more gets through
			c.leave(ctx, e)
		}
	}
	cancel()
	_ = c.conn.CloseNow()
	wg.Wait()
}

// leave says why the connection ends.
func (c *session) leave(ctx context.Context, e *ended) {
	ctx, stop := context.WithTimeout(ctx, lastWords)
	defer stop()
	b, err := json.Marshal(apitype.LiveMessage{Type: apitype.LiveEnd, Reason: e.reason})
	if err == nil {
		_ = c.conn.Write(ctx, websocket.MessageText, b) // it may be gone already
	}
	closed := make(chan struct{})
	go func() {
		_ = c.conn.Close(e.code, e.reason)
		close(closed)
	}()
	select {
	case <-closed:
	case <-ctx.Done():
		_ = c.conn.CloseNow()
		<-closed
	}
}

// read takes the client's requests.
func (c *session) read(ctx context.Context) error {
	left, at := float64(maxRequests), time.Now()
	for {
		kind, b, err := c.conn.Read(ctx)
		if err != nil {
			if websocket.CloseStatus(err) == -1 && errors.Is(err, websocket.ErrMessageTooBig) {
				return &ended{apitype.LiveEndMessage, websocket.StatusMessageTooBig}
			}
			return err
		}
		now := time.Now()
		left = min(maxRequests, left+float64(now.Sub(at))/float64(requestEvery))
		if at = now; left < 1 {
			return &ended{apitype.LiveEndFlood, websocket.StatusPolicyViolation}
		}
		left--
		var r apitype.LiveRequest
		if kind != websocket.MessageText || json.Unmarshal(b, &r) != nil {
			return &ended{apitype.LiveEndMessage, websocket.StatusInvalidFramePayloadData}
		}
		select {
		case c.requests <- r:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// ping finds out that a client has gone without a word.
func (c *session) ping(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(c.hub.ping):
		}
		limit, cancel := context.WithTimeout(ctx, c.hub.ping)
		err := c.conn.Ping(limit)
		cancel()
		if err != nil {
			return fmt.Errorf("no sign of life: %w", err)
		}
	}
}

// tell writes what there is to tell, and answers requests, in turn.
func (c *session) tell(ctx context.Context) (err error) {
	defer c.drop(func(*subscription) bool { return true })
	defer func() {
		if p := recover(); p != nil { // a source's fault must not end the gateway
			c.hub.Log.Error("a live connection failed badly", "err", p)
			err = &ended{apitype.LiveEndInternal, websocket.StatusInternalError}
		}
	}()
	if err := c.write(ctx, apitype.LiveMessage{Type: apitype.LiveHello, Topics: c.topics()}); err != nil {
		return err
	}
	check := time.NewTicker(c.hub.check)
	defer check.Stop()
	for {
		news := c.hub.news() // before the look
		wrote, again, err := c.look(ctx)
		if err != nil {
			return err
		}
		// After a message the next one waits, so that what comes meanwhile goes together.
		var rest <-chan time.Time
		if wrote {
			news, rest = nil, time.After(c.pause)
		} else if !again.IsZero() {
			rest = time.After(time.Until(again))
		}
	waiting:
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-news:
				break waiting
			case <-rest:
				break waiting
			case r := <-c.requests:
				if err := c.answer(ctx, r); err != nil {
					return err
				}
				if !wrote {
					break waiting
				}
			case <-check.C:
				if err := c.check(ctx, c.token); err != nil {
					return err
				}
			}
		}
	}
}

// topics are those that the client may subscribe to.
func (c *session) topics() (names []string) {
	for _, t := range c.hub.Topics {
		if c.who.Has(t.Scope) {
			names = append(names, t.Name)
		}
	}
	return names
}

// check looks whether a token holds, and is of whom the connection is.
func (c *session) check(ctx context.Context, token string) error {
	p, err := c.hub.Authenticate(ctx, token)
	if problem, ok := errors.AsType[*apitype.Problem](err); err != nil && (!ok || problem.Status != http.StatusUnauthorized) {
		return nil // the database is not there now: it is asked again
	}
	if err != nil || p.Actor() != c.actor || !slices.Equal(p.Scopes, c.who.Scopes) {
		return &ended{apitype.LiveEndLogin, websocket.StatusPolicyViolation}
	}
	c.token = token
	return nil
}

// look writes what is new of all subscriptions. again is when to look once more in any
// case.
func (c *session) look(ctx context.Context) (wrote bool, again time.Time, err error) {
	for _, s := range c.subs {
		told, next, err := c.follow(ctx, s)
		if err != nil {
			return wrote, again, err
		}
		wrote = wrote || told
		if !next.IsZero() && (again.IsZero() || next.Before(again)) {
			again = next
		}
	}
	return wrote, again, nil
}

func (c *session) write(ctx context.Context, m apitype.LiveMessage) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	limit, cancel := context.WithTimeout(ctx, c.hub.write)
	defer cancel()
	err = c.conn.Write(limit, websocket.MessageText, b)
	if limit.Err() != nil && ctx.Err() == nil {
		return &ended{apitype.LiveEndSlow, websocket.StatusPolicyViolation}
	}
	return err
}

func (c *session) refuse(ctx context.Context, id string, err error) error {
	p, ok := errors.AsType[*apitype.Problem](err)
	if !ok {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		c.hub.Log.Warn("a live subscription has to wait", "err", err)
		p = apitype.Refuse(http.StatusServiceUnavailable, apitype.ProblemStore, "the gateway cannot read this now; it tries again")
	}
	return c.write(ctx, apitype.LiveMessage{Type: apitype.LiveError, ID: id, Problem: p})
}

func clip(s string, n int) string { return string(bytes.ToValidUTF8([]byte(s[:min(len(s), n)]), nil)) }

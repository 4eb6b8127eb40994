// Package client speaks the gateway's HTTP API for haloctl: typed calls in the
// vocabulary of model/apitype, TLS verified against the network's own CA and
// nothing else, passwords never over a connection that others can read. What
// the gateway answers is bounded and checked; errors keep apart what a caller
// acts on: not reachable, not trusted, refused.
package client

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"halo.internal/model/apitype"
	"halo.internal/model/version"
)

// Limits on what a gateway may answer and how long it may take. The mesh is
// slow: 16 MiB is never a page, and 30 s is a page at 150 kbit/s.
const (
	maxAnswer   = 16 << 20
	maxProblem  = 64 << 10
	dialTimeout = 8 * time.Second
	timeout     = 30 * time.Second
)

// stall is how long nothing may come or go of what is of any length: for a backup the
// gateway copies a database first, and checks all of a restore at its end.
const stall = 3 * time.Minute

var errStalled = fmt.Errorf("nothing came for %s", stall)

// Tokens gives the bearer token of a request. stale is empty, or the token
// that the gateway just refused.
type Tokens interface {
	Token(ctx context.Context, stale string) (string, error)
}

// Client is a connection to one gateway. Its methods may be called from any
// goroutine.
type Client struct {
	base   *url.URL
	http   *http.Client
	tokens Tokens       // nil: only what needs no login
	clock  atomic.Int64 // the gateway's clock minus ours, from its last answer
}

// New returns a client of the gateway at base. ca is the network's CA, which
// https needs; tokens may be nil.
func New(base *url.URL, ca *x509.Certificate, tokens Tokens) (*Client, error) {
	var conf *tls.Config
	if base.Scheme == "https" {
		if ca == nil {
			return nil, errors.New("https to a gateway needs the network's CA: log in or claim first")
		}
		conf = pinned(ca)
	}
	return newClient(base, conf, tokens), nil
}

func newClient(base *url.URL, conf *tls.Config, tokens Tokens) *Client {
	return &Client{base: base, tokens: tokens, http: &http.Client{
		Transport: &http.Transport{
			Proxy:               nil, // a proxy has no business between an operator and his gateway
			DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
			TLSClientConfig:     conf,
			TLSHandshakeTimeout: dialTimeout,
		},
		// The API redirects nowhere; following one would carry a token or password along.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Close ends idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Now is the time on the gateway's clock, by its last answer. Boards have no
// clock of their own, so that ages computed with ours could be years off.
func (c *Client) Now() time.Time { return time.Now().Add(time.Duration(c.clock.Load())) }

// request is one call of the API.
type request struct {
	method string
	path   string
	query  url.Values
	body   any     // sent as JSON; nil for none
	anon   bool    // needs no login
	status int     // another status whose body is an answer, not a problem
	once   bool    // it makes something: with a key, it may be sent again when its answer is lost
	match  string  // entity tag of what is changed (If-Match); empty: whatever is there
	tag    *string // takes the answer's entity tag
	form   *string // takes the answer's Content-Type

	wait time.Duration // for the whole answer; 0 is timeout
	key  string        // Idempotency-Key

	// What follows is of any length. So is an answer that goes to an io.Writer: such a
	// request may take as long as it likes, while something moves.
	file   []byte    // sent as it is, in the place of body
	stream io.Reader // the same, once: it cannot be read again when a token has ended
	kind   string    // Content-Type of either; empty: application/octet-stream
	most   int64     // octets of an answer that goes to an io.Writer; 0: however many
}

// Requests with once are sent this often at most.
const (
	tries      = 3
	pauseAfter = time.Second
)

// call does r and decodes the answer into answer, unless that is nil. A *[]byte
// takes it as it is, an io.Writer as it comes.
func (c *Client) call(ctx context.Context, r request, answer any) error {
	if !r.once {
		return c.callOnce(ctx, r, answer)
	}
	// The gateway carries it out once, and answers the same each time.
	r.key = rand.Text()
	for n := 1; ; n++ {
		err := c.callOnce(ctx, r, answer)
		_, lost := errors.AsType[*UnreachableError](err)
		if o, ok := errors.AsType[*net.OpError](err); ok && o.Op == "dial" {
			lost = false // nothing was sent
		}
		p, ok := errors.AsType[*apitype.Problem](err)
		if n == tries || !lost && !(ok && p.Type == apitype.ProblemKeyBusy) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pauseAfter):
		}
	}
}

func (c *Client) callOnce(ctx context.Context, r request, answer any) error {
	token := ""
	if !r.anon {
		if c.tokens == nil {
			return &apitype.Problem{Title: "not logged in", Status: http.StatusUnauthorized}
		}
		var err error
		if token, err = c.tokens.Token(ctx, ""); err != nil {
			return err
		}
	}
	err := c.paced(ctx, r, token, answer)
	if p, ok := errors.AsType[*apitype.Problem](err); ok && p.Status == http.StatusUnauthorized && !r.anon {
		// The access token ended, by the gateway's clock and not by ours.
		fresh, terr := c.tokens.Token(ctx, token)
		if terr != nil {
			return terr
		}
		if fresh != token {
			return c.paced(ctx, r, fresh, answer)
		}
	}
	return err
}

// The gateway holds each caller to a pace, and says by when it takes the next request: after
// 5 s at most, for files. Who is told to wait for longer than pacePause is refused for
// something else that has to end first, which people should hear of. All pauses of one
// request are paceWait at most, for callers who share a pace.
const (
	pacePause = 9 * time.Second
	paceWait  = 3 * time.Minute
)

// paced is try, at the pace that the gateway holds its caller to: what it refuses for that
// was not begun. Without a login there is no such pace: there, a refusal keeps people from
// guessing passwords, and is theirs to see.
func (c *Client) paced(ctx context.Context, r request, token string, answer any) error {
	for left := paceWait; ; {
		err := c.try(ctx, r, token, answer)
		p, ok := errors.AsType[*apitype.Problem](err)
		if !ok || p.Type != apitype.ProblemRateLimited || token == "" || r.stream != nil {
			return err
		}
		pause := p.RetryAfter()
		if left -= pause; pause == 0 || pause > pacePause || left < 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

func (c *Client) try(ctx context.Context, r request, token string, answer any) error {
	var body io.Reader
	kind := "application/json"
	switch {
	case r.body != nil:
		b, err := json.Marshal(r.body)
		if err != nil {
			return fmt.Errorf("%s %s: %w", r.method, r.path, err)
		}
		body = bytes.NewReader(b)
	case r.file != nil:
		body, kind = bytes.NewReader(r.file), cmp.Or(r.kind, "application/octet-stream")
	case r.stream != nil:
		body, kind = r.stream, cmp.Or(r.kind, "application/octet-stream")
	}
	to, pours := answer.(io.Writer)
	var moved *time.Timer // nil: all of it has its time
	if pours || r.file != nil || r.stream != nil {
		moving, cancel := context.WithCancelCause(ctx)
		moved = time.AfterFunc(stall, func() { cancel(errStalled) })
		defer moved.Stop()
		defer cancel(nil)
		ctx = moving
		if body != nil {
			body = &watch{Reader: body, timer: moved}
		}
	} else {
		limited, cancel := context.WithTimeout(ctx, cmp.Or(r.wait, timeout))
		defer cancel()
		ctx = limited
	}
	u := c.base.JoinPath(r.path)
	u.RawQuery = r.query.Encode()
	req, err := http.NewRequestWithContext(ctx, r.method, u.String(), body)
	if err != nil {
		return err
	}
	accept := "application/json, application/problem+json"
	switch answer.(type) {
	case *[]byte, io.Writer:
		accept = "*/*, application/problem+json"
	}
	req.Header.Set("Accept", accept)
	req.Header.Set("User-Agent", "haloctl/"+version.Get().Version)
	if body != nil {
		req.Header.Set("Content-Type", kind)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if r.match != "" {
		req.Header.Set("If-Match", r.match)
	}
	if r.key != "" {
		req.Header.Set("Idempotency-Key", `"`+r.key+`"`)
	}
	sent := time.Now()
	resp, err := c.http.Do(req)
	if err != nil {
		return explain(c.base, stalled(ctx, err))
	}
	defer resp.Body.Close()
	if there, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		c.clock.Store(int64(there.Sub(sent)))
	}
	if resp.StatusCode/100 != 2 && (r.status == 0 || resp.StatusCode != r.status) {
		return problem(resp)
	}
	if r.tag != nil {
		*r.tag = resp.Header.Get("ETag")
	}
	if r.form != nil {
		*r.form, _, _ = mime.ParseMediaType(resp.Header.Get("Content-Type"))
	}
	if pours {
		from := &watch{Reader: resp.Body, timer: moved}
		if r.most > 0 {
			from.Reader = io.LimitReader(resp.Body, r.most+1)
		}
		n, err := io.Copy(to, from)
		switch {
		case from.err != nil:
			return explain(c.base, stalled(ctx, from.err))
		case err == nil && r.most > 0 && n > r.most:
			err = fmt.Errorf("%s %s: expected at most %d octets, got more", r.method, r.path, r.most)
		}
		return err
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return explain(c.base, stalled(ctx, err))
	}
	if len(b) > maxAnswer {
		return fmt.Errorf("%s %s: expected at most %d octets, got more", r.method, r.path, maxAnswer)
	}
	switch raw := answer.(type) {
	case nil:
		return nil
	case *[]byte:
		*raw = b
		return nil
	}
	if err := json.Unmarshal(b, answer); err != nil {
		return fmt.Errorf("%s %s: expected the gateway's JSON: %w", r.method, r.path, err)
	}
	return nil
}

// watch ends what its timer is of when nothing has moved for a while.
type watch struct {
	io.Reader
	timer *time.Timer
	err   error // that reading ended with, if not the end
}

// Read implements io.Reader.
func (w *watch) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	w.timer.Reset(stall)
	if err != nil && !errors.Is(err, io.EOF) {
		w.err = err
	}
	return n, err
}

// stalled says why a context ended, where that was for want of movement.
func stalled(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errStalled) {
		return errStalled
	}
	return err
}

// problem reads the error that the gateway sent, or makes one from the status
// when something else answered.
func problem(resp *http.Response) error {
	p := &apitype.Problem{}
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxProblem))
	if err != nil || kind != "application/problem+json" || json.Unmarshal(b, p) != nil {
		p = &apitype.Problem{Detail: "the answer is not from a HALO gateway: " + resp.Status}
	}
	p.Status = resp.StatusCode
	if p.Title == "" {
		p.Title = http.StatusText(resp.StatusCode)
	}
	if s, err := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 31); err == nil {
		p.After(time.Duration(s) * time.Second)
	}
	return p
}

package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/coder/websocket"

	"halo.internal/model/apitype"
)

// Times of a live connection.
const (
	livePing    = 30 * time.Second // between two, and for an answer; a token is renewed as often
	liveWait    = time.Second      // after a connection that ended, doubled each time
	liveWaitMax = 30 * time.Second
	liveLimit   = 1 << 20 // of a message
)

// Live subscribes to what changes, and calls tell with each message of changes and with each
// gap, until ctx ends, which is no error. pace is the least time between two of them; 0: the
// gateway's own. A connection that ends is made anew and goes on where it was; lost is told
// why it ended. That the first one does not come about is an error, and so is what tell
// returns, or what the gateway refuses.
func (c *Client) Live(ctx context.Context, pace time.Duration, subscriptions []apitype.LiveRequest, tell func(apitype.LiveMessage) error, lost func(error)) error {
	l := live{client: c, pace: pace, tell: tell, at: map[string]string{}}
	wait := liveWait
	for {
		err := l.run(ctx, subscriptions)
		if ctx.Err() != nil {
			return nil
		}
		if l.began {
			wait = liveWait
		}
		if _, gone := errors.AsType[*lostError](err); !gone && !(l.ever && unreachable(err)) {
			return err
		}
		lost(err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
			wait = min(2*wait, liveWaitMax)
		}
	}
}

func unreachable(err error) bool {
	_, ok := errors.AsType[*UnreachableError](err)
	return ok
}

// lostError is the end of a connection after which another is made.
type lostError struct{ err error }

func (e *lostError) Error() string { return fmt.Sprintf("the live connection ended: %v", e.err) }
func (e *lostError) Unwrap() error { return e.err }

// live is a series of connections.
type live struct {
	client *Client
	pace   time.Duration
	tell   func(apitype.LiveMessage) error

	at    map[string]string // by the ID of a subscription
	stale string            // token that the gateway has refused
	ever  bool              // some connection has begun
	began bool              // the last one has
}

// run makes one connection and reads from it.
func (l *live) run(ctx context.Context, subscriptions []apitype.LiveRequest) error {
	l.began = false
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	token, err := l.client.tokens.Token(ctx, l.stale)
	if err != nil {
		return err
	}
	conn, resp, err := websocket.Dial(ctx, l.client.base.JoinPath("/v1/live").String(), &websocket.DialOptions{
		HTTPClient: l.client.http, Subprotocols: []string{apitype.LiveProtocol}, HTTPHeader: http.Header{"Authorization": {"Bearer " + token}},
	})
	if resp != nil {
		if there, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
			l.client.clock.Store(int64(time.Until(there)))
		}
	}
	switch {
	case err != nil && resp != nil && resp.StatusCode != http.StatusSwitchingProtocols:
		defer resp.Body.Close()
		err := problem(resp)
		if resp.StatusCode == http.StatusUnauthorized && l.stale != token {
			l.stale = token // it ended by the gateway's clock: another one, at once
			return l.run(ctx, subscriptions)
		}
		if l.ever && resp.StatusCode >= http.StatusInternalServerError {
			return &lostError{err} // it is starting
		}
		return err
	case err != nil:
		return explain(l.client.base, err)
	}
	defer conn.CloseNow()
	conn.SetReadLimit(liveLimit)
	if err := l.subscribe(ctx, conn, subscriptions); err != nil {
		return &lostError{err}
	}
	go l.keep(ctx, cancel, conn, token)
	for {
		_, b, err := conn.Read(ctx)
		if err != nil {
			return &lostError{err}
		}
		var m apitype.LiveMessage
		if err := json.Unmarshal(b, &m); err != nil {
			return fmt.Errorf("/v1/live: expected the gateway's JSON: %w", err)
		}
		l.ever, l.began = true, true
		if err := l.take(m, token); err != nil {
			return err
		}
	}
}

func (l *live) subscribe(ctx context.Context, conn *websocket.Conn, subscriptions []apitype.LiveRequest) error {
	if l.pace > 0 {
		r := apitype.LiveRequest{Op: apitype.LivePace, IntervalMS: int(min(max(l.pace, 20*time.Millisecond), time.Minute).Milliseconds())}
		if err := say(ctx, conn, r); err != nil {
			return err
		}
	}
	for _, r := range subscriptions {
		r.Op = apitype.LiveSubscribe
		if at := l.at[r.ID]; at != "" {
			r.After, r.Since = at, nil
		}
		if err := say(ctx, conn, r); err != nil {
			return err
		}
	}
	return nil
}

func say(ctx context.Context, conn *websocket.Conn, r apitype.LiveRequest) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return conn.Write(ctx, websocket.MessageText, b)
}

// take handles one message.
func (l *live) take(m apitype.LiveMessage, token string) error {
	switch m.Type {
	case apitype.LiveChanges, apitype.LiveGap:
		if err := l.tell(m); err != nil {
			return err
		}
	case apitype.LiveError:
		if m.Problem != nil && m.Problem.Status != http.StatusServiceUnavailable { // that the gateway tries again
			return m.Problem
		}
	case apitype.LiveEnd:
		if m.Reason == apitype.LiveEndLogin {
			l.stale = token
		}
		return &lostError{errors.New(m.Reason)}
	}
	if m.At != "" && m.ID != "" {
		l.at[m.ID] = m.At
	}
	return nil
}

// keep finds out that the gateway has gone without a word, and gives it the next token.
func (l *live) keep(ctx context.Context, end func(), conn *websocket.Conn, token string) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(livePing):
		}
		limit, cancel := context.WithTimeout(ctx, livePing)
		err := conn.Ping(limit)
		if next, terr := l.client.tokens.Token(ctx, ""); err == nil && terr == nil && next != token {
			token = next
			err = say(limit, conn, apitype.LiveRequest{Op: apitype.LiveAuth, Token: token})
		}
		cancel()
		if err != nil {
			end()
			return
		}
	}
}

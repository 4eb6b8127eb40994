package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/coder/websocket"

	"halo.internal/model/apitype"
)

// Fetch returns what is at a path, as it came: for those who want to know how long that takes.
func (a *Admin) Fetch(ctx context.Context, path string, query url.Values) ([]byte, error) {
	return a.fetch(ctx, http.MethodGet, path, query, nil)
}

// maxSamples of one page.
const maxSamples = "10000"

// Samples returns a page of a node's samples, as it made them. cursor is what the page before
// said is next; empty: the first.
func (a *Admin) Samples(ctx context.Context, node string, from, to time.Time, cursor string) (apitype.SampleList, error) {
	q := url.Values{"from": {from.UTC().Format(time.RFC3339Nano)}, "to": {to.UTC().Format(time.RFC3339Nano)}, "limit": {maxSamples}}
	if cursor != "" {
		q.Set("cursor", cursor)
	}
	return get[apitype.SampleList](ctx, a, "/v1/nodes/"+url.PathEscape(node)+"/telemetry/range", q)
}

// Live is a connection by which the gateway tells what changes.
type Live struct{ conn *websocket.Conn }

// Live subscribes to topics.
func (a *Admin) Live(ctx context.Context, wanted ...apitype.LiveRequest) (*Live, error) {
	token, err := a.session(ctx)
	if err != nil {
		return nil, err
	}
	dial, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	client := &http.Client{Transport: a.http.Transport} // without its timeout: it lasts
	conn, resp, err := websocket.Dial(dial, a.base+"/v1/live", &websocket.DialOptions{HTTPClient: client, HTTPHeader: http.Header{"Authorization": {"Bearer " + token}}})
	if err != nil {
		if resp != nil && resp.StatusCode == http.StatusUnauthorized {
			a.setToken("") // the next try has another
		}
		return nil, fmt.Errorf("live: %w", err)
	}
	conn.SetReadLimit(maxAnswer)
	l := &Live{conn}
	for _, r := range wanted {
		b, err := json.Marshal(r)
		if err == nil {
			err = conn.Write(dial, websocket.MessageText, b)
		}
		if err != nil {
			l.Close()
			return nil, fmt.Errorf("live: subscribe to %s: %w", r.Topic, err)
		}
	}
	return l, nil
}

// Next returns the next message. What the gateway says of a request that is wrong, and why it
// ends the connection, are errors.
func (l *Live) Next(ctx context.Context) (m apitype.LiveMessage, err error) {
	_, b, err := l.conn.Read(ctx)
	if err != nil {
		return m, fmt.Errorf("live: %w", err)
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("live: expected the gateway's JSON: %w", err)
	}
	switch m.Type {
	case apitype.LiveError:
		return m, fmt.Errorf("live: %w", m.Problem)
	case apitype.LiveEnd:
		return m, fmt.Errorf("live: the gateway has ended it: %s", m.Reason)
	}
	return m, nil
}

// Close ends the connection.
func (l *Live) Close() { _ = l.conn.CloseNow() } // the gateway may have

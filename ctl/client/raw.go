package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/url"
)

// Raw is a request as somebody wrote it.
type Raw struct {
	Method string
	Path   string     // escaped, from /
	Query  url.Values // not nil
	Body   []byte     // JSON; nil for none
	Match  string     // If-Match
	Key    string     // Idempotency-Key
}

func (r Raw) request() request {
	q := request{method: r.Method, path: r.Path, query: r.Query, match: r.Match, key: r.Key}
	if r.Body != nil {
		q.body = json.RawMessage(r.Body)
	}
	return q
}

// Do makes a request once, and hands its answer to w as it comes, of any length. start is
// called before, with the answer's Content-Type.
func (c *Client) Do(ctx context.Context, r Raw, start func(kind string) io.Writer) error {
	q := r.request()
	var kind string
	q.form = &kind
	return c.call(ctx, q, &opener{open: func() io.Writer { return start(kind) }})
}

// opener is a writer that is opened when something comes.
type opener struct {
	open func() io.Writer
	to   io.Writer
}

// Write implements io.Writer.
func (o *opener) Write(p []byte) (int, error) {
	if o.to == nil {
		o.to = o.open()
	}
	return o.to.Write(p)
}

// All gets all pages of a list as one: what its first page has, with the items of all.
func (c *Client) All(ctx context.Context, r Raw) (map[string]json.RawMessage, error) {
	var first map[string]json.RawMessage
	items, err := all(func(cursor string) ([]json.RawMessage, string, error) {
		q := r.request()
		if cursor != "" {
			q.query = maps.Clone(r.Query)
			q.query.Set("cursor", cursor)
		}
		var answer map[string]json.RawMessage
		if err := c.call(ctx, q, &answer); err != nil {
			return nil, "", err
		}
		var list struct {
			Items *[]json.RawMessage `json:"items"`
			Next  string             `json:"next"`
		}
		for name, to := range map[string]any{"items": &list.Items, "next": &list.Next} {
			if b, ok := answer[name]; ok {
				if err := json.Unmarshal(b, to); err != nil {
					return nil, "", fmt.Errorf("%s: expected a list: %w", r.Path, err)
				}
			}
		}
		if list.Items == nil {
			return nil, "", fmt.Errorf("%s: expected a list, which has items", r.Path)
		}
		if first == nil {
			first = answer
		}
		return *list.Items, list.Next, nil
	})
	if err != nil {
		return nil, err
	}
	delete(first, "next")
	first["items"], err = json.Marshal(items)
	return first, err
}

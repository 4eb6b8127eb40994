package client

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strconv"

	"halo.internal/health"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

func get[T any](ctx context.Context, c *Client, path string, query url.Values) (T, error) {
	var answer T
	err := c.call(ctx, request{method: http.MethodGet, path: path, query: query}, &answer)
	return answer, err
}

// Health asks the gateway how it is. A gateway that is not well answers too.
func (c *Client) Health(ctx context.Context) (health.Report, error) {
	var r health.Report
	err := c.call(ctx, request{method: http.MethodGet, path: "/health", anon: true, status: http.StatusServiceUnavailable}, &r)
	return r, err
}

// Capabilities tells what the gateway can do, and whether it has an admin.
func (c *Client) Capabilities(ctx context.Context) (apitype.Capabilities, error) {
	var k apitype.Capabilities
	err := c.call(ctx, request{method: http.MethodGet, path: "/capabilities", anon: true}, &k)
	return k, err
}

// SystemInfo describes the gateway.
func (c *Client) SystemInfo(ctx context.Context) (apitype.SystemInfo, error) {
	return get[apitype.SystemInfo](ctx, c, "/v1/system/info", nil)
}

// Network is the network and the bundle for its new cards.
func (c *Client) Network(ctx context.Context) (apitype.Network, error) {
	return get[apitype.Network](ctx, c, "/v1/network", nil)
}

// Epoch is the gateway's epoch, and the higher one that nodes have heard.
func (c *Client) Epoch(ctx context.Context) (apitype.NetworkEpoch, error) {
	return get[apitype.NetworkEpoch](ctx, c, "/v1/network/epoch", nil)
}

// RaiseEpoch has the gateway replace every other card of it for good, unless its
// epoch is higher than above already.
func (c *Client) RaiseEpoch(ctx context.Context, above uint64) (apitype.NetworkEpoch, error) {
	var e apitype.NetworkEpoch
	err := c.call(ctx, request{method: http.MethodPost, path: "/v1/network/epoch/raise", body: apitype.RaiseEpoch{Above: &above}}, &e)
	return e, err
}

// Nodes lists all nodes.
func (c *Client) Nodes(ctx context.Context) ([]apitype.Node, error) {
	return all(func(cursor string) ([]apitype.Node, string, error) {
		l, err := get[apitype.NodeList](ctx, c, "/v1/nodes", page(nil, cursor))
		return l.Items, l.Next, err
	})
}

// Node returns one node by canonical ID or name.
func (c *Client) Node(ctx context.Context, node string) (apitype.NodeDetail, error) {
	return get[apitype.NodeDetail](ctx, c, nodePath(node), nil)
}

// NodeInterfaces lists a node's interfaces as it reported them, those too that are gone.
func (c *Client) NodeInterfaces(ctx context.Context, node string) ([]apitype.Interface, error) {
	l, err := get[apitype.InterfaceList](ctx, c, nodePath(node)+"/interfaces", nil)
	return l.Items, err
}

// NodeBoard returns the board that a node is.
func (c *Client) NodeBoard(ctx context.Context, node string) (model.NodeBoard, error) {
	return get[model.NodeBoard](ctx, c, nodePath(node)+"/board", nil)
}

// Boards lists all boards that the gateway knows.
func (c *Client) Boards(ctx context.Context) ([]model.BoardDescription, error) {
	return all(func(cursor string) ([]model.BoardDescription, string, error) {
		l, err := get[apitype.BoardList](ctx, c, "/v1/boards", page(nil, cursor))
		return l.Items, l.Next, err
	})
}

// RenameNode gives a node another name.
func (c *Client) RenameNode(ctx context.Context, node, name string) error {
	return c.call(ctx, request{method: http.MethodPatch, path: nodePath(node), body: apitype.UpdateNode{Name: &name}}, nil)
}

// RevokeNode expels a node.
func (c *Client) RevokeNode(ctx context.Context, node string) error {
	return c.call(ctx, request{method: http.MethodDelete, path: nodePath(node)}, nil)
}

// Telemetry lists the latest readings whose metric begins with prefix, of one
// node or, when node is empty, of all.
func (c *Client) Telemetry(ctx context.Context, node, prefix string) ([]apitype.Reading, error) {
	q := filter(map[string]string{"metric": prefix})
	if node != "" {
		l, err := get[apitype.ReadingList](ctx, c, nodePath(node)+"/telemetry", q)
		return l.Items, err
	}
	return all(func(cursor string) ([]apitype.Reading, string, error) {
		l, err := get[apitype.ReadingList](ctx, c, "/v1/telemetry/latest", page(q, cursor))
		return l.Items, l.Next, err
	})
}

// Coverage says which of a node's batches the gateway has.
func (c *Client) Coverage(ctx context.Context, node string) (apitype.Coverage, error) {
	return get[apitype.Coverage](ctx, c, nodePath(node)+"/telemetry/sequences", nil)
}

// EventFilter chooses events; empty fields choose all.
type EventFilter struct {
	Node     string
	Kind     string // prefix
	Severity string // that and worse
}

func (f EventFilter) query() url.Values {
	return filter(map[string]string{"node": f.Node, "kind": f.Kind, "severity": f.Severity})
}

// Events returns the newest events, newest first.
func (c *Client) Events(ctx context.Context, f EventFilter, limit int) ([]apitype.Event, error) {
	return newest(limit, func(cursor string, n int) ([]apitype.Event, string, error) {
		q := page(f.query(), cursor)
		q.Set("limit", strconv.Itoa(n))
		l, err := get[apitype.EventList](ctx, c, "/v1/events", q)
		return l.Items, l.Next, err
	})
}

// EventsSince returns one page of the events after the one with that ID,
// oldest first.
func (c *Client) EventsSince(ctx context.Context, f EventFilter, id int64) ([]apitype.Event, error) {
	q := f.query()
	q.Set("since", strconv.FormatInt(id, 10))
	q.Set("limit", strconv.Itoa(pageSize))
	l, err := get[apitype.EventList](ctx, c, "/v1/events", q)
	return l.Items, err
}

// Registrations lists the join requests that wait for an admin.
func (c *Client) Registrations(ctx context.Context) ([]apitype.Registration, error) {
	return all(func(cursor string) ([]apitype.Registration, string, error) {
		l, err := get[apitype.RegistrationList](ctx, c, "/v1/admin/registrations", page(nil, cursor))
		return l.Items, l.Next, err
	})
}

// Approve admits a node that asked to join.
func (c *Client) Approve(ctx context.Context, id string) error { return c.decide(ctx, id, "approve") }

// Reject refuses a node that asked to join.
func (c *Client) Reject(ctx context.Context, id string) error { return c.decide(ctx, id, "reject") }

func (c *Client) decide(ctx context.Context, id, verdict string) error {
	path := "/v1/admin/registrations/" + url.PathEscape(id) + "/" + verdict
	return c.call(ctx, request{method: http.MethodPost, path: path}, nil)
}

// JoinTokens lists the join tokens that the gateway knows.
func (c *Client) JoinTokens(ctx context.Context) ([]apitype.JoinToken, error) {
	return all(func(cursor string) ([]apitype.JoinToken, string, error) {
		l, err := get[apitype.JoinTokenList](ctx, c, "/v1/admin/join-tokens", page(nil, cursor))
		return l.Items, l.Next, err
	})
}

// CreateJoinToken makes a join token; its secret is in this answer alone.
func (c *Client) CreateJoinToken(ctx context.Context, t apitype.CreateJoinToken) (apitype.JoinToken, error) {
	var answer apitype.JoinToken
	err := c.call(ctx, request{method: http.MethodPost, path: "/v1/admin/join-tokens", body: t, once: true}, &answer)
	return answer, err
}

// RevokeJoinToken ends a join token.
func (c *Client) RevokeJoinToken(ctx context.Context, id string) error {
	return c.call(ctx, request{method: http.MethodDelete, path: "/v1/admin/join-tokens/" + url.PathEscape(id)}, nil)
}

func nodePath(node string) string { return "/v1/nodes/" + url.PathEscape(node) }

// filter makes query parameters of those that are not empty.
func filter(params map[string]string) url.Values {
	q := url.Values{}
	for k, v := range params {
		if v != "" {
			q.Set(k, v)
		}
	}
	return q
}

// pageSize is what a list is asked for at once: the most the API gives.
const pageSize = 500

// maxPages ends a list that never ends: 500,000 entries are more than any
// gateway keeps.
const maxPages = 1000

func page(q url.Values, cursor string) url.Values {
	out := url.Values{"limit": {strconv.Itoa(pageSize)}}
	maps.Copy(out, q)
	if cursor != "" {
		out.Set("cursor", cursor)
	}
	return out
}

// newest collects the first pages of a list, up to limit entries. The result is
// never nil.
func newest[T any](limit int, fetch func(cursor string, n int) (items []T, next string, err error)) ([]T, error) {
	list := []T{}
	for cursor := ""; len(list) < limit; {
		items, next, err := fetch(cursor, min(limit-len(list), pageSize))
		if err != nil {
			return nil, err
		}
		list = append(list, items...)
		if next == "" || len(items) == 0 {
			break
		}
		cursor = next
	}
	return list[:min(limit, len(list))], nil
}

// pages collects all pages of a list that has nothing beside its items. The result is never
// nil.
func pages[T any](ctx context.Context, c *Client, path string, q url.Values) ([]T, error) {
	return all(func(cursor string) ([]T, string, error) {
		l, err := get[struct {
			Items []T    `json:"items"`
			Next  string `json:"next"`
		}](ctx, c, path, page(q, cursor))
		return l.Items, l.Next, err
	})
}

// all collects the pages of a list. The result is never nil: JSON shows [].
func all[T any](fetch func(cursor string) (items []T, next string, err error)) ([]T, error) {
	list, cursor := []T{}, ""
	for range maxPages {
		items, next, err := fetch(cursor)
		if err != nil {
			return nil, err
		}
		list = append(list, items...)
		if next == "" {
			return list, nil
		}
		if next == cursor {
			return nil, fmt.Errorf("list: the gateway gave the same cursor twice after %d entries", len(list))
		}
		cursor = next
	}
	return nil, fmt.Errorf("list: more than %d pages", maxPages)
}

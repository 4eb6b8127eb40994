package client

import (
	"context"
	"net/http"
	"net/url"
	"strconv"

	"halo.internal/model/apitype"
)

// Me is who the session belongs to.
func (c *Client) Me(ctx context.Context) (apitype.Me, error) {
	return get[apitype.Me](ctx, c, "/api/auth/me", nil)
}

// Users lists the people who may log in.
func (c *Client) Users(ctx context.Context) ([]apitype.User, error) {
	return all(func(cursor string) ([]apitype.User, string, error) {
		l, err := get[apitype.UserList](ctx, c, "/api/auth/users", page(nil, cursor))
		return l.Items, l.Next, err
	})
}

// CreateUser adds a user.
func (c *Client) CreateUser(ctx context.Context, u apitype.CreateUser) (apitype.User, error) {
	var answer apitype.User
	err := c.call(ctx, request{method: http.MethodPost, path: "/api/auth/users", body: u, once: true}, &answer)
	return answer, err
}

// UpdateUser changes a user and ends his logins.
func (c *Client) UpdateUser(ctx context.Context, name string, u apitype.UpdateUser) error {
	return c.call(ctx, request{method: http.MethodPatch, path: "/api/auth/users/" + url.PathEscape(name), body: u}, nil)
}

// DeleteUser removes a user.
func (c *Client) DeleteUser(ctx context.Context, name string) error {
	return c.call(ctx, request{method: http.MethodDelete, path: "/api/auth/users/" + url.PathEscape(name)}, nil)
}

// APITokens lists the API tokens, without their secrets.
func (c *Client) APITokens(ctx context.Context) ([]apitype.APIToken, error) {
	return all(func(cursor string) ([]apitype.APIToken, string, error) {
		l, err := get[apitype.APITokenList](ctx, c, "/api/auth/tokens", page(nil, cursor))
		return l.Items, l.Next, err
	})
}

// CreateAPIToken makes an API token; its secret is in this answer alone.
func (c *Client) CreateAPIToken(ctx context.Context, t apitype.CreateAPIToken) (apitype.APIToken, error) {
	var answer apitype.APIToken
	err := c.call(ctx, request{method: http.MethodPost, path: "/api/auth/tokens", body: t, once: true}, &answer)
	return answer, err
}

// DeleteAPIToken ends an API token.
func (c *Client) DeleteAPIToken(ctx context.Context, id string) error {
	return c.call(ctx, request{method: http.MethodDelete, path: "/api/auth/tokens/" + url.PathEscape(id)}, nil)
}

// Audit returns the newest entries of the audit log, newest first, and the head
// of its chain.
func (c *Client) Audit(ctx context.Context, limit int) ([]apitype.AuditEntry, apitype.AuditHead, error) {
	var head apitype.AuditHead
	entries, err := newest(limit, func(cursor string, n int) ([]apitype.AuditEntry, string, error) {
		q := page(nil, cursor)
		q.Set("limit", strconv.Itoa(n))
		l, err := get[apitype.AuditList](ctx, c, "/v1/audit", q)
		if cursor == "" {
			head = l.Head
		}
		return l.Items, l.Next, err
	})
	return entries, head, err
}

// VerifyAudit has the gateway walk the chain of its audit log.
func (c *Client) VerifyAudit(ctx context.Context) (apitype.AuditVerification, error) {
	return get[apitype.AuditVerification](ctx, c, "/v1/audit/verify", nil)
}

// auditPage is how many records are asked for at once: some 60 KiB.
const auditPage = 200

// AuditRecords returns records after an ID as they are hashed, oldest first: a
// page of them.
func (c *Client) AuditRecords(ctx context.Context, after int64) ([][]byte, error) {
	l, err := get[apitype.AuditRecordList](ctx, c, "/v1/audit/records", url.Values{"since": {strconv.FormatInt(after, 10)}, "limit": {strconv.Itoa(auditPage)}})
	records := make([][]byte, 0, len(l.Items))
	for _, r := range l.Items {
		records = append(records, r.Record)
	}
	return records, err
}

// Sessions lists logins that have not ended.
func (c *Client) Sessions(ctx context.Context) ([]apitype.Session, error) {
	return all(func(cursor string) ([]apitype.Session, string, error) {
		l, err := get[apitype.SessionList](ctx, c, "/api/auth/sessions", page(nil, cursor))
		return l.Items, l.Next, err
	})
}

// EndSession ends a login at once.
func (c *Client) EndSession(ctx context.Context, id string) error {
	return c.call(ctx, request{method: http.MethodDelete, path: "/api/auth/sessions/" + url.PathEscape(id)}, nil)
}

// User returns one user.
func (c *Client) User(ctx context.Context, name string) (apitype.User, error) {
	return get[apitype.User](ctx, c, "/api/auth/users/"+url.PathEscape(name), nil)
}

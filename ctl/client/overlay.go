package client

import (
	"context"
	"net/http"
	"net/url"

	"halo.internal/model/apitype"
)

// RegisterOverlay gives an own device a place in the overlay, or renews it.
func (c *Client) RegisterOverlay(ctx context.Context, r apitype.RegisterOverlay) (apitype.OverlayRegistration, error) {
	var answer apitype.OverlayRegistration
	err := c.call(ctx, request{method: http.MethodPost, path: "/v1/mesh/wg-register", body: r, once: true}, &answer)
	return answer, err
}

// OverlayVisitors lists people's devices in the overlay: all for an admin, else the own.
func (c *Client) OverlayVisitors(ctx context.Context) ([]apitype.OverlayVisitor, error) {
	return all(func(cursor string) ([]apitype.OverlayVisitor, string, error) {
		l, err := get[apitype.OverlayVisitorList](ctx, c, "/v1/mesh/wg-peers", page(nil, cursor))
		return l.Items, l.Next, err
	})
}

// RemoveOverlayVisitor takes a device's place in the overlay away.
func (c *Client) RemoveOverlayVisitor(ctx context.Context, id string) error {
	return c.call(ctx, request{method: http.MethodDelete, path: "/v1/mesh/wg-peers/" + url.PathEscape(id)}, nil)
}

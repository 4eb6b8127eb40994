package client

import (
	"context"
	"net/http"
	"net/url"

	"halo.internal/model/apitype"
)

// TrustedMACs lists the MACs by which devices are admitted.
func (c *Client) TrustedMACs(ctx context.Context) ([]apitype.TrustedMAC, error) {
	return all(func(cursor string) ([]apitype.TrustedMAC, string, error) {
		l, err := get[apitype.TrustedMACList](ctx, c, "/v1/trust/macs", page(nil, cursor))
		return l.Items, l.Next, err
	})
}

// TrustMAC puts a MAC on the list, or returns it as it is there.
func (c *Client) TrustMAC(ctx context.Context, m apitype.TrustMAC) (apitype.TrustedMAC, error) {
	var answer apitype.TrustedMAC
	err := c.call(ctx, request{method: http.MethodPost, path: "/v1/trust/macs", body: m, once: true}, &answer)
	return answer, err
}

// NoteTrustedMAC changes what is noted of a MAC on the list.
func (c *Client) NoteTrustedMAC(ctx context.Context, mac, note string) (apitype.TrustedMAC, error) {
	var answer apitype.TrustedMAC
	err := c.call(ctx, request{method: http.MethodPatch, path: "/v1/trust/macs/" + url.PathEscape(mac), body: apitype.UpdateTrustedMAC{Note: &note}}, &answer)
	return answer, err
}

// DistrustMAC takes a MAC off the list.
func (c *Client) DistrustMAC(ctx context.Context, mac string) error {
	return c.call(ctx, request{method: http.MethodDelete, path: "/v1/trust/macs/" + url.PathEscape(mac)}, nil)
}

// TrustedMAC returns a MAC on the list.
func (c *Client) TrustedMAC(ctx context.Context, mac string) (apitype.TrustedMAC, error) {
	return get[apitype.TrustedMAC](ctx, c, "/v1/trust/macs/"+url.PathEscape(mac), nil)
}

package client

import (
	"context"
	"net/http"
	"net/url"

	"halo.internal/model"
	"halo.internal/model/apitype"
)

// FirewallPolicy returns what people have set of the gateway's firewall.
func (c *Client) FirewallPolicy(ctx context.Context) (apitype.Firewall, error) {
	return get[apitype.Firewall](ctx, c, "/v1/firewall", nil)
}

// FirewallZones returns the zones and what is open to them.
func (c *Client) FirewallZones(ctx context.Context) (apitype.FirewallZoneList, error) {
	return get[apitype.FirewallZoneList](ctx, c, "/v1/firewall/zones", nil)
}

// OpenZone says which services are open to a zone besides those that always are, where the
// draft is still the one with that digest.
func (c *Client) OpenZone(ctx context.Context, zone string, services []string, digest string) (apitype.Firewall, error) {
	return c.replace(ctx, "zones", zone, apitype.OpenZone{Services: services}, digest)
}

// AddFirewallRule adds a rule to the draft.
func (c *Client) AddFirewallRule(ctx context.Context, r apitype.PlaceFirewallRule) (apitype.Firewall, error) {
	return c.firewall(ctx, http.MethodPost, "rules", r)
}

// RemoveFirewallRule takes a rule out of the draft.
func (c *Client) RemoveFirewallRule(ctx context.Context, name string) (apitype.Firewall, error) {
	return c.firewall(ctx, http.MethodDelete, "rules/"+url.PathEscape(name), nil)
}

// AddPortForward adds a port forward to the draft.
func (c *Client) AddPortForward(ctx context.Context, f model.PortForward) (apitype.Firewall, error) {
	return c.firewall(ctx, http.MethodPost, "port-forwards", f)
}

// RemovePortForward takes a port forward out of the draft.
func (c *Client) RemovePortForward(ctx context.Context, name string) (apitype.Firewall, error) {
	return c.firewall(ctx, http.MethodDelete, "port-forwards/"+url.PathEscape(name), nil)
}

// AddForwarding adds a forwarding between zones to the draft.
func (c *Client) AddForwarding(ctx context.Context, f model.Forwarding) (apitype.Firewall, error) {
	return c.firewall(ctx, http.MethodPost, "forwardings", f)
}

// RemoveForwarding takes a forwarding out of the draft.
func (c *Client) RemoveForwarding(ctx context.Context, f model.Forwarding) (apitype.Firewall, error) {
	return c.firewall(ctx, http.MethodDelete, "forwardings/"+url.PathEscape(string(f.From)+"-"+string(f.To)), nil)
}

// PreviewFirewall returns what the draft would change.
func (c *Client) PreviewFirewall(ctx context.Context) (model.FirewallPreview, error) {
	var p model.FirewallPreview
	err := c.call(ctx, request{method: http.MethodPost, path: "/v1/firewall/preview"}, &p)
	return p, err
}

// ApplyFirewall has the draft hold on trial.
func (c *Client) ApplyFirewall(ctx context.Context, a apitype.ApplyFirewall) (apitype.Firewall, error) {
	return c.firewall(ctx, http.MethodPost, "apply", a)
}

// ConfirmFirewall keeps what is on trial.
func (c *Client) ConfirmFirewall(ctx context.Context) (apitype.Firewall, error) {
	return c.firewall(ctx, http.MethodPost, "confirm", nil)
}

// RevertFirewall ends the trial.
func (c *Client) RevertFirewall(ctx context.Context) (apitype.Firewall, error) {
	return c.firewall(ctx, http.MethodPost, "revert", nil)
}

// DiscardFirewall gives the draft up.
func (c *Client) DiscardFirewall(ctx context.Context) (apitype.Firewall, error) {
	return c.firewall(ctx, http.MethodDelete, "draft", nil)
}

func (c *Client) firewall(ctx context.Context, method, path string, body any) (apitype.Firewall, error) {
	var f apitype.Firewall
	err := c.call(ctx, request{method: method, path: "/v1/firewall/" + path, body: body, once: method == http.MethodPost}, &f)
	return f, err
}

// Forwardings returns those of the draft, and those that are always there.
func (c *Client) Forwardings(ctx context.Context) ([]apitype.FirewallForwarding, error) {
	l, err := get[apitype.FirewallForwardingList](ctx, c, "/v1/firewall/forwardings", nil)
	return l.Items, err
}

// FirewallRules returns the rules of the draft in their order.
func (c *Client) FirewallRules(ctx context.Context) ([]model.FirewallRule, error) {
	l, err := get[apitype.FirewallRuleList](ctx, c, "/v1/firewall/rules", nil)
	return l.Items, err
}

// FirewallRule returns a rule of the draft.
func (c *Client) FirewallRule(ctx context.Context, name string) (model.FirewallRule, error) {
	return get[model.FirewallRule](ctx, c, "/v1/firewall/rules/"+url.PathEscape(name), nil)
}

// UpdateFirewallRule changes a rule, where the draft is still the one with that digest.
func (c *Client) UpdateFirewallRule(ctx context.Context, name string, r apitype.PlaceFirewallRule, digest string) (apitype.Firewall, error) {
	return c.replace(ctx, "rules", name, r, digest)
}

// PortForwards returns the port forwards of the draft.
func (c *Client) PortForwards(ctx context.Context) ([]model.PortForward, error) {
	l, err := get[apitype.PortForwardList](ctx, c, "/v1/firewall/port-forwards", nil)
	return l.Items, err
}

// UpdatePortForward changes a port forward, where the draft is still the one with that
// digest.
func (c *Client) UpdatePortForward(ctx context.Context, name string, f model.PortForward, digest string) (apitype.Firewall, error) {
	return c.replace(ctx, "port-forwards", name, f, digest)
}

// replace puts another part of the draft in the place of one.
func (c *Client) replace(ctx context.Context, kind, name string, part any, digest string) (apitype.Firewall, error) {
	var f apitype.Firewall
	err := c.call(ctx, request{method: http.MethodPut, path: "/v1/firewall/" + kind + "/" + url.PathEscape(name), body: part, match: `"` + digest + `"`}, &f)
	return f, err
}

package client

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"halo.internal/model"
	"halo.internal/model/apitype"
)

// CertifyOperator has the network sign a key of the user who is logged in.
func (c *Client) CertifyOperator(ctx context.Context, q apitype.CreateOperatorCertificate) (apitype.OperatorCertificate, error) {
	var o apitype.OperatorCertificate
	err := c.call(ctx, request{method: http.MethodPost, path: "/api/auth/operator-certificates", body: q, once: true}, &o)
	return o, err
}

// OperatorCertificates lists certificates: all for an admin, else the own.
func (c *Client) OperatorCertificates(ctx context.Context) ([]apitype.OperatorCertificate, error) {
	return all(func(cursor string) ([]apitype.OperatorCertificate, string, error) {
		l, err := get[apitype.OperatorCertificateList](ctx, c, "/api/auth/operator-certificates", page(nil, cursor))
		return l.Items, l.Next, err
	})
}

// RevokeOperator ends a certificate.
func (c *Client) RevokeOperator(ctx context.Context, serial uint64) error {
	return c.call(ctx, request{method: http.MethodDelete, path: fmt.Sprintf("/api/auth/operator-certificates/%d", serial)}, nil)
}

// NodeCode returns what a person types at a node's console.
func (c *Client) NodeCode(ctx context.Context, node string) (apitype.NodeCode, error) {
	var n apitype.NodeCode
	err := c.call(ctx, request{method: http.MethodPost, path: nodePath(node) + "/code"}, &n)
	return n, err
}

// RenewNodeCodes gives all nodes other codes.
func (c *Client) RenewNodeCodes(ctx context.Context) (apitype.NodeCodes, error) {
	var n apitype.NodeCodes
	err := c.call(ctx, request{method: http.MethodPost, path: "/v1/trust/node-codes/renew", once: true}, &n)
	return n, err
}

// Leases returns the addresses that the gateway has given, by interface.
func (c *Client) Leases(ctx context.Context) (map[string][]model.Lease, error) {
	list, err := pages[apitype.Lease](ctx, c, "/v1/network/leases", nil)
	if err != nil {
		return nil, err
	}
	given := map[string][]model.Lease{}
	for _, l := range list {
		given[l.Iface] = append(given[l.Iface], l.Lease)
	}
	return given, nil
}

// Reservations returns the addresses that the gateway keeps for single clients.
func (c *Client) Reservations(ctx context.Context) ([]model.Reservation, error) {
	return pages[model.Reservation](ctx, c, "/v1/network/reservations", nil)
}

// Reservation returns the address that the gateway keeps for a client.
func (c *Client) Reservation(ctx context.Context, mac string) (model.Reservation, error) {
	return get[model.Reservation](ctx, c, "/v1/network/reservations/"+url.PathEscape(mac), nil)
}

// PutReservation has the gateway keep an address for a client.
func (c *Client) PutReservation(ctx context.Context, r model.Reservation) error {
	return c.call(ctx, request{method: http.MethodPut, path: "/v1/network/reservations", body: r}, nil)
}

// DeleteReservation gives the address that is kept for a client back.
func (c *Client) DeleteReservation(ctx context.Context, mac string) error {
	return c.call(ctx, request{method: http.MethodDelete, path: "/v1/network/reservations/" + url.PathEscape(mac)}, nil)
}

// Firewall returns what the gateway's firewall does and has counted.
func (c *Client) Firewall(ctx context.Context) (model.FirewallStatus, error) {
	return get[model.FirewallStatus](ctx, c, "/v1/network/firewall", url.Values{})
}

// DNS returns what the gateway's name server knows and has done.
func (c *Client) DNS(ctx context.Context) (model.DNSStatus, error) {
	return get[model.DNSStatus](ctx, c, "/v1/network/dns", url.Values{})
}

// Support writes the gateway's support bundle to w. It is whole, or an error.
func (c *Client) Support(ctx context.Context, w io.Writer) error {
	var file []byte
	if err := c.call(ctx, request{method: http.MethodGet, path: "/v1/system/support", wait: 5 * time.Minute}, &file); err != nil {
		return err
	}
	_, err := w.Write(file)
	return err
}

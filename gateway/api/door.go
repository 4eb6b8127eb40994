package api

import (
	"bytes"
	"context"
	"io"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"halo.internal/local"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

// Services is what can be asked of the gateway's own services for its clients,
// and of the device as a whole. Errors are those of package local.
type Services interface {
	Leases(context.Context) (map[string][]model.Lease, error)
	Reservations(context.Context) ([]model.Reservation, error)
	PutReservation(context.Context, model.Reservation) error
	DeleteReservation(ctx context.Context, mac string) error
	Firewall(context.Context) (model.FirewallStatus, error)
	DNS(context.Context) (model.DNSStatus, error)
	Support(context.Context, io.Writer) error
}

var _ Services = (*local.Mesh)(nil)

// SerialPath names a certificate in a path.
type SerialPath struct {
	Serial uint64 `path:"serial" minimum:"1"`
}

// doorRoutes are what lets people in at nodes without the gateway.
func (a *API) doorRoutes() {
	tags := []string{"auth"}
	register(a, anybody, huma.Operation{
		OperationID: "list-operator-certificates", Method: http.MethodGet, Path: "/api/auth/operator-certificates", Tags: tags,
		Summary: "Certificates with which people come in at nodes' doors: all for an admin, else the own",
	}, func(ctx context.Context, p *Page) (*body[apitype.OperatorCertificateList], error) {
		return answer(a.Auth.OperatorCertificates(ctx, callerOf(ctx).Principal, p.Cursor, p.Limit))
	})
	register(a, anybody, huma.Operation{
		OperationID: "create-operator-certificate", Method: http.MethodPost, Path: "/api/auth/operator-certificates", Tags: tags,
		Summary:     "Have the network sign who you are, for the doors of all nodes",
		Description: "It holds while the gateway is off. It ends by its time, when it is revoked, when the user's password, role or right to log in changes, and when the gateway was restored or replaced. haloctl login asks for it.", DefaultStatus: http.StatusCreated,
	}, func(ctx context.Context, i *In[apitype.CreateOperatorCertificate]) (*body[apitype.OperatorCertificate], error) {
		c := callerOf(ctx)
		o, err := a.Auth.IssueOperator(ctx, c.Principal, i.Body)
		if err == nil {
			c.target = o.Label
			a.changed()
			a.Mesh.Look()
		}
		return answer(o, err)
	})
	register(a, anybody, huma.Operation{
		OperationID: "delete-operator-certificate", Method: http.MethodDelete, Path: "/api/auth/operator-certificates/{serial}", Tags: tags,
		Summary: "Revoke a certificate, such as that of a lost laptop", DefaultStatus: http.StatusNoContent,
		Description: "Nodes learn of it by the list of members. Everybody may revoke the own; the rest needs an admin.",
	}, func(ctx context.Context, i *SerialPath) (*nothing, error) {
		err := a.Auth.RevokeOperator(ctx, callerOf(ctx).Principal, i.Serial)
		if err == nil {
			a.withdrawn()
			a.Mesh.Look()
		}
		return nil, err
	})
	register(a, admin, huma.Operation{
		OperationID: "show-node-code", Method: http.MethodPost, Path: "/v1/nodes/{id}/code", Tags: []string{"nodes"},
		Summary:     "Show the code with which a person logs in at a node's console",
		Description: "The answer is the same each time, until the codes are renewed. It is a POST so that the audit log has who saw it.",
	}, func(ctx context.Context, i *NodePath) (*body[apitype.NodeCode], error) {
		return answer(a.Registry.Code(ctx, i.ID, callerOf(ctx).Actor()))
	})
	register(a, admin, huma.Operation{
		OperationID: "renew-node-codes", Method: http.MethodPost, Path: "/v1/trust/node-codes/renew", Tags: []string{"trust"},
		Summary: "Give all nodes other codes", Description: "A node that is out of reach takes its old code until it hears of it.",
	}, func(ctx context.Context, _ *nothing) (*body[apitype.NodeCodes], error) {
		n, err := a.Registry.RenewCodes(ctx, callerOf(ctx).Actor())
		if err == nil {
			a.withdrawn()
			a.Mesh.Look()
		}
		return answer(apitype.NodeCodes{Generation: n}, err)
	})
}

// serviceRoutes are what the gateway's own services do.
func (a *API) serviceRoutes() {
	tags := []string{"network"}
	register(a, scope(apitype.ScopeSystemRead), huma.Operation{
		OperationID: "list-leases", Method: http.MethodGet, Path: "/v1/network/leases", Tags: tags,
		Summary: "Addresses that the gateway has given, by interface and address",
	}, func(ctx context.Context, p *Page) (*body[apitype.LeaseList], error) {
		given, err := a.Services.Leases(ctx)
		if err != nil {
			return nil, ofRadio(err)
		}
		list := []apitype.Lease{}
		for iface, leases := range given {
			for _, l := range leases {
				list = append(list, apitype.Lease{Iface: iface, Lease: l})
			}
		}
		items, next, err := pageOf(list, *p, 2, func(l apitype.Lease) []string { return []string{l.Iface, addressKey(l.Address)} })
		return answer(apitype.LeaseList{Items: items, Next: next}, err)
	})
	register(a, scope(apitype.ScopeSystemRead), huma.Operation{
		OperationID: "get-firewall", Method: http.MethodGet, Path: "/v1/network/firewall", Tags: tags,
		Summary: "What the gateway's firewall lets through and drops, counted",
	}, func(ctx context.Context, _ *nothing) (*body[model.FirewallStatus], error) {
		f, err := a.Services.Firewall(ctx)
		return answer(f, ofRadio(err))
	})
	register(a, scope(apitype.ScopeSystemRead), huma.Operation{
		OperationID: "get-dns", Method: http.MethodGet, Path: "/v1/network/dns", Tags: tags,
		Summary: "The names that the gateway answers, and what it was asked",
	}, func(ctx context.Context, _ *nothing) (*body[model.DNSStatus], error) {
		d, err := a.Services.DNS(ctx)
		return answer(d, ofRadio(err))
	})
	register(a, scope(apitype.ScopeNodesWrite), huma.Operation{
		OperationID: "get-support-bundle", Method: http.MethodGet, Path: "/v1/system/support", Tags: []string{"system"},
		Summary: "All that the gateway says of itself, as a tar.gz without secrets",
	}, func(ctx context.Context, _ *nothing) (*rawAnswer, error) {
		var file bytes.Buffer // whole, so that what fails is a problem, not half a file
		if err := a.Services.Support(ctx, &file); err != nil {
			return nil, ofRadio(err)
		}
		return &rawAnswer{ContentType: "application/gzip", Body: file.Bytes()}, nil
	})
}

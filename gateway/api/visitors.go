package api

import (
	"cmp"
	"context"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/order"
	"halo.internal/model/paths"
)

// VisitorPath names a device in a path.
type VisitorPath struct {
	ID string `path:"id" maxLength:"64" example:"w-7k3mq0zt4wxpb2c5d8ef"`
}

// Of a visitor's WireGuard: the way to the gateway may be anything.
const (
	visitorMTU       = 1280
	visitorKeepalive = 25 // seconds, so that it stays reachable behind address translation
)

func (a *API) visitorRoutes() {
	tags := []string{"mesh"}
	register(a, scope(apitype.ScopeNodesWrite), huma.Operation{
		OperationID: "register-overlay-peer", Method: http.MethodPost, Path: "/v1/mesh/wg-register", Tags: tags,
		Summary: "Give an own device, such as a laptop, a place in the overlay", DefaultStatus: http.StatusCreated,
		Description: "It becomes a WireGuard peer of the gateway, with an address of 10.42.255.0/24, and reaches what members reach in the overlay; a member of the mesh it is not. " +
			"The place holds as long as the operator's certificate that it is registered with; the same key registered again, with another certificate, renews it. " +
			"Nodes get their place by joining. haloctl overlay register does all this.",
	}, func(ctx context.Context, i *In[apitype.RegisterOverlay]) (*body[apitype.OverlayRegistration], error) {
		c := callerOf(ctx)
		m, err := a.Tables.Membership(ctx) // halo-mesh knows the gateway's key, which may have changed
		if err != nil {
			return nil, apitype.Refuse(http.StatusServiceUnavailable, apitype.ProblemMeshAbsent, "halo-mesh does not answer, which knows the gateway's key; nothing was changed").After(5 * time.Second)
		}
		v, err := a.Visitors.Register(ctx, c.Principal, i.Body)
		if err != nil {
			return nil, err
		}
		c.target = v.ID
		a.changed()
		a.Mesh.Look()
		return answer(a.registration(ctx, v, m.GatewayWireGuardKey), nil)
	})
	register(a, anybody, huma.Operation{
		OperationID: "list-overlay-peers", Method: http.MethodGet, Path: "/v1/mesh/wg-peers", Tags: tags,
		Summary: "Devices of people's in the overlay: all for an admin, else the own",
	}, func(ctx context.Context, p *Page) (*body[apitype.OverlayVisitorList], error) {
		l, err := a.Visitors.List(ctx, callerOf(ctx).Principal, p.Cursor, p.Limit)
		if s, err := a.Radios.Status(ctx); err == nil {
			for k := range l.Items {
				v := &l.Items[k]
				if n := slices.IndexFunc(s.Overlay, func(o model.OverlayPeer) bool { return o.Node == v.ID }); n >= 0 {
					v.LastHandshake, v.Endpoint = s.Overlay[n].LastHandshake, s.Overlay[n].Endpoint
				}
			}
		}
		return answer(l, err)
	})
	register(a, anybody, huma.Operation{
		OperationID: "remove-overlay-peer", Method: http.MethodDelete, Path: "/v1/mesh/wg-peers/{id}", Tags: tags,
		Summary: "Take a device's place in the overlay away: an admin any, others their own", DefaultStatus: http.StatusNoContent,
	}, func(ctx context.Context, i *VisitorPath) (*nothing, error) {
		err := a.Visitors.Remove(ctx, callerOf(ctx).Principal, i.ID)
		if err == nil {
			a.withdrawn()
			a.Mesh.Look()
		}
		return nil, err
	})
}

// registration is what the device's WireGuard has to be told.
func (a *API) registration(ctx context.Context, v apitype.OverlayVisitor, key string) apitype.OverlayRegistration {
	network := a.Registry.Network()
	r := apitype.OverlayRegistration{
		OverlayVisitor: v, Endpoints: []apitype.OverlayEndpoint{}, DNS: paths.OverlayGateway, MTU: visitorMTU, KeepaliveS: visitorKeepalive,
		AllowedIPs: []netip.Prefix{paths.OverlayNet, paths.ClientsNet}, Gateway: key,
	}
	s, ok := a.Mesh.Last()
	if !ok {
		return r
	}
	open := a.wireGuardZones(ctx)
	add := func(addr netip.Addr, z model.Zone) {
		r.Endpoints = append(r.Endpoints, apitype.OverlayEndpoint{Address: netip.AddrPortFrom(addr, paths.WireGuardPort), Zone: z, Open: slices.Contains(open, z)})
	}
	for _, i := range s.Interfaces {
		zone := model.ZoneUplink
		switch {
		case i.Name == paths.ClientBridge:
			zone = model.ZoneClients
		case i.PortRole != "uplink":
			continue
		}
		for _, p := range i.Addresses {
			if a := p.Addr(); !a.IsLinkLocalUnicast() && (zone == model.ZoneUplink || a.Is4()) {
				add(a, zone)
			}
		}
	}
	add(paths.UnderlayGateway, model.ZoneMesh)
	add(identity.Underlay(network, network), model.ZoneMesh)
	asked, _ := connection(ctx)
	order.By(r.Endpoints, func(a, b apitype.OverlayEndpoint) int {
		rank := func(e apitype.OverlayEndpoint) int {
			switch {
			case e.Address.Addr() == asked.Addr():
				return 0 // the caller has a way to it, if only for TCP as yet; to others it need have none
			case e.Open && e.Zone != model.ZoneMesh:
				return 1
			case e.Zone != model.ZoneMesh:
				return 2
			}
			return 3 // on the mesh itself are few laptops
		}
		return cmp.Compare(rank(a), rank(b))
	})
	return r
}

// wireGuardZones are the zones from which the firewall lets WireGuard in.
func (a *API) wireGuardZones(ctx context.Context) (zones []model.Zone) {
	f, err := a.Services.Firewall(ctx)
	if err != nil {
		return nil // it can't be told
	}
	for _, s := range f.Services {
		if s.Name == "wireguard" {
			zones = append(append(zones, s.Zones...), s.Opened...)
		}
	}
	return zones
}

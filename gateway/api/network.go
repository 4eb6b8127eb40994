package api

import (
	"cmp"
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"halo.internal/model"
	"halo.internal/model/apitype"
)

// Tables is what halo-mesh's kernel knows. Errors are those of package local.
type Tables interface {
	Interfaces(context.Context) ([]model.InterfaceDetail, error)
	NeighbourTable(context.Context) ([]model.NeighbourEntry, error)
	Clients(context.Context) ([]model.Client, error)
	Batman(ctx context.Context, table string) (model.BatmanTables, error)
	// Membership of the gateway has the overlay key that it uses now.
	Membership(context.Context) (model.Membership, error)
}

// OfNode asks for another device than the gateway.
type OfNode struct {
	Node string `query:"node" maxLength:"64" doc:"canonical ID or name; the gateway, if left out"`
}

// networkRoutes are the gateway's networks, and those of nodes as far as they report
// them.
func (a *API) networkRoutes() {
	tags, read := []string{"network"}, scope(apitype.ScopeSystemRead)
	register(a, read, huma.Operation{
		OperationID: "list-network-interfaces", Method: http.MethodGet, Path: "/v1/network/interfaces", Tags: tags,
		Summary: "Network interfaces with what their drivers count", Description: "Of a node: as it last reported them, without detail.",
	}, func(ctx context.Context, i *OfNode) (*body[apitype.NetworkInterfaceList], error) {
		id, own, err := a.device(ctx, i.Node)
		out := apitype.NetworkInterfaceList{Node: id, Items: []model.InterfaceDetail{}}
		switch {
		case err != nil:
			return nil, err
		case own:
			list, err := a.Tables.Interfaces(ctx)
			out.Items = append(out.Items, list...)
			return answer(out, ofRadio(err))
		}
		list, err := a.Registry.Interfaces(ctx, id)
		for _, f := range list {
			if f.Present {
				out.Items = append(out.Items, model.InterfaceDetail{Interface: f.Interface})
			}
		}
		return answer(out, err)
	})
	register(a, read, huma.Operation{
		OperationID: "list-network-neighbours", Method: http.MethodGet, Path: "/v1/network/neighbours", Tags: tags,
		Summary: "Hosts whose hardware addresses the gateway knows, by ARP and neighbour discovery",
	}, func(ctx context.Context, i *struct {
		OfNode
		Page
	}) (*body[apitype.NetworkNeighbourList], error) {
		id, err := a.gatewayAlone(ctx, i.Node, "its neighbours", "haloctl --node")
		if err != nil {
			return nil, err
		}
		list, err := a.Tables.NeighbourTable(ctx)
		if err != nil {
			return nil, ofRadio(err)
		}
		items, next, err := pageOf(list, i.Page, 2, func(e model.NeighbourEntry) []string { return []string{e.Iface, addressKey(e.Address)} })
		nodes := a.Registry.ByMAC()
		for k := range items {
			items[k].Node = cmp.Or(items[k].Node, nodes[items[k].MAC])
		}
		return answer(apitype.NetworkNeighbourList{Node: id, Items: items, Next: next}, err)
	})
	register(a, read, huma.Operation{
		OperationID: "list-wireless", Method: http.MethodGet, Path: "/v1/network/wireless", Tags: tags,
		Summary: "Radios: channel, width, power, and what was done to bring one back",
	}, func(ctx context.Context, i *OfNode) (*body[apitype.WirelessList], error) {
		radios, id, err := a.radios(ctx, i.Node)
		if err != nil {
			return nil, err
		}
		for k := range radios {
			radios[k].Peers = []model.RadioPeer{}
		}
		return answer(apitype.WirelessList{Node: id, Items: radios}, nil)
	})
	register(a, read, huma.Operation{
		OperationID: "list-associations", Method: http.MethodGet, Path: "/v1/network/associations", Tags: tags,
		Summary: "Stations that radios have links with: signal, rates, repetitions",
	}, func(ctx context.Context, i *struct {
		OfNode
		Page
	}) (*body[apitype.AssociationList], error) {
		radios, id, err := a.radios(ctx, i.Node)
		if err != nil {
			return nil, err
		}
		list := []apitype.Association{}
		for _, r := range radios {
			for _, p := range r.Peers {
				list = append(list, apitype.Association{Radio: r.Name, Iface: r.Iface, RadioPeer: p})
			}
		}
		items, next, err := pageOf(list, i.Page, 3, func(s apitype.Association) []string { return []string{s.Radio, s.Iface, s.MAC} })
		return answer(apitype.AssociationList{Node: id, Items: items, Next: next}, err)
	})
}

// device finds the one that is meant, and tells whether it is the gateway.
func (a *API) device(ctx context.Context, ref string) (id string, own bool, err error) {
	if ref == "" {
		return a.Registry.Gateway(), true, nil
	}
	n, err := a.Registry.Node(ctx, ref)
	return n.ID, n.ID == a.Registry.Gateway(), err
}

// gatewayAlone refuses nodes: they do not report what is asked for.
func (a *API) gatewayAlone(ctx context.Context, ref, what, how string) (id string, err error) {
	id, own, err := a.device(ctx, ref)
	if err == nil && !own {
		err = apitype.Refuse(http.StatusNotFound, "", "the node does not report %s to the gateway; ask it at its door, with %s %s", what, how, ref)
	}
	return id, err
}

// radios are the gateway's, with the nodes of their peers.
func (a *API) radios(ctx context.Context, ref string) (radios []model.Radio, id string, err error) {
	if id, err = a.gatewayAlone(ctx, ref, "its radios", "haloctl mesh status --node"); err != nil {
		return nil, "", err
	}
	s, err := a.meshStatus(ctx)
	return append([]model.Radio{}, s.Radios...), id, err
}

// batmanRoutes are the tables of the gateway's batman-adv.
func (a *API) batmanRoutes() {
	tags, read := []string{"mesh"}, scope(apitype.ScopeSystemRead)
	register(a, read, huma.Operation{
		OperationID: "get-mesh-config", Method: http.MethodGet, Path: "/v1/mesh/config", Tags: tags,
		Summary: "How the gateway's routing is set: algorithm, intervals, penalties, interfaces",
	}, func(ctx context.Context, _ *nothing) (*body[apitype.MeshConfig], error) {
		c, err := a.Tables.Batman(ctx, model.BatmanConfigTable)
		if err != nil {
			return nil, ofRadio(err)
		}
		i, err := a.Tables.Batman(ctx, model.BatmanInterfaces)
		return answer(apitype.MeshConfig{Config: c.Config, Interfaces: some(i.Interfaces)}, ofRadio(err))
	})
	register(a, read, huma.Operation{
		OperationID: "list-batman-interfaces", Method: http.MethodGet, Path: "/v1/mesh/batman/interfaces", Tags: tags,
		Summary: "Interfaces of the gateway that carry the mesh",
	}, func(ctx context.Context, _ *nothing) (*body[apitype.BatmanInterfaceList], error) {
		t, err := a.Tables.Batman(ctx, model.BatmanInterfaces)
		return answer(apitype.BatmanInterfaceList{Items: some(t.Interfaces)}, ofRadio(err))
	})
	register(a, read, huma.Operation{
		OperationID: "list-batman-originators", Method: http.MethodGet, Path: "/v1/mesh/batman/originators", Tags: tags,
		Summary: "All ways to the nodes of the mesh that the gateway's routing knows, those not in use included",
	}, func(ctx context.Context, p *Page) (*body[apitype.BatmanOriginatorList], error) {
		t, err := a.Tables.Batman(ctx, model.BatmanOriginators)
		if err != nil {
			return nil, ofRadio(err)
		}
		items, next, err := pageOf(t.Originators, *p, 4, func(o model.BatmanOriginator) []string {
			return []string{o.MAC, ordered(o.Best), o.NextHop, o.Iface}
		})
		nodes := a.Registry.ByMAC()
		for k := range items {
			o := &items[k]
			o.Node, o.NextHopNode = cmp.Or(o.Node, nodes[o.MAC]), cmp.Or(o.NextHopNode, nodes[o.NextHop])
		}
		return answer(apitype.BatmanOriginatorList{Items: items, Next: next}, err)
	})
	register(a, read, huma.Operation{
		OperationID: "list-batman-neighbours", Method: http.MethodGet, Path: "/v1/mesh/batman/neighbours", Tags: tags,
		Summary: "Nodes that the gateway's routing hears directly, and how well",
	}, func(ctx context.Context, p *Page) (*body[apitype.BatmanNeighbourList], error) {
		t, err := a.Tables.Batman(ctx, model.BatmanNeighbours)
		if err != nil {
			return nil, ofRadio(err)
		}
		items, next, err := pageOf(t.Neighbours, *p, 2, func(n model.Neighbour) []string { return []string{n.Iface, n.MAC} })
		nodes := a.Registry.ByMAC()
		for k := range items {
			items[k].Node = cmp.Or(items[k].Node, nodes[items[k].MAC])
		}
		return answer(apitype.BatmanNeighbourList{Items: items, Next: next}, err)
	})
	register(a, read, huma.Operation{
		OperationID: "list-batman-local-clients", Method: http.MethodGet, Path: "/v1/mesh/batman/translation/local", Tags: tags,
		Summary: "Hardware addresses that the gateway tells the mesh to be behind it",
	}, func(ctx context.Context, p *Page) (*body[apitype.BatmanClientList], error) {
		t, err := a.Tables.Batman(ctx, model.BatmanLocal)
		if err != nil {
			return nil, ofRadio(err)
		}
		return answer(a.translation(t.Local, *p))
	})
	register(a, read, huma.Operation{
		OperationID: "list-batman-global-clients", Method: http.MethodGet, Path: "/v1/mesh/batman/translation/global", Tags: tags,
		Summary: "Hardware addresses that other nodes tell the mesh to be behind them",
	}, func(ctx context.Context, p *Page) (*body[apitype.BatmanClientList], error) {
		t, err := a.Tables.Batman(ctx, model.BatmanGlobal)
		if err != nil {
			return nil, ofRadio(err)
		}
		return answer(a.translation(t.Global, *p))
	})
	register(a, read, huma.Operation{
		OperationID: "list-batman-gateways", Method: http.MethodGet, Path: "/v1/mesh/batman/gateways", Tags: tags,
		Summary: "Nodes that announce a way out of the mesh",
	}, func(ctx context.Context, p *Page) (*body[apitype.BatmanGatewayList], error) {
		t, err := a.Tables.Batman(ctx, model.BatmanGateways)
		if err != nil {
			return nil, ofRadio(err)
		}
		items, next, err := pageOf(t.Gateways, *p, 3, func(g model.BatmanGateway) []string { return []string{g.MAC, g.NextHop, g.Iface} })
		nodes := a.Registry.ByMAC()
		for k := range items {
			items[k].Node = cmp.Or(items[k].Node, nodes[items[k].MAC])
		}
		return answer(apitype.BatmanGatewayList{Items: items, Next: next}, err)
	})
}

// translation is a page of a translation table.
func (a *API) translation(list []model.BatmanClient, p Page) (apitype.BatmanClientList, error) {
	items, next, err := pageOf(list, p, 2, func(c model.BatmanClient) []string { return []string{c.MAC, c.Originator} })
	nodes := a.Registry.ByMAC()
	for k := range items {
		items[k].Node = cmp.Or(items[k].Node, nodes[items[k].Originator])
	}
	return apitype.BatmanClientList{Items: items, Next: next}, err
}

package api

import (
	"cmp"
	"context"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"halo.internal/gateway/endpoints"
	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/order"
	"halo.internal/model/paths"
)

// EndpointPath names an endpoint in a path.
type EndpointPath struct {
	ID string `path:"id" maxLength:"64" example:"c-7k3mq0zt4wxpb2c5d8ef"`
}

func (a *API) modelRoutes() {
	tags, read := []string{"model"}, scope(apitype.ScopeNodesRead)
	register(a, read, huma.Operation{
		OperationID: "get-model", Method: http.MethodGet, Path: "/v1/model", Tags: tags,
		Summary: "The network in numbers: nodes, Sensors, Clients, and what does not fit",
	}, func(ctx context.Context, _ *nothing) (*body[apitype.ModelSummary], error) {
		return answer(a.summary(ctx))
	})
	register(a, read, huma.Operation{
		OperationID: "list-model-networks", Method: http.MethodGet, Path: "/v1/model/networks", Tags: tags,
		Summary: "The HALO network: its key, prefixes and meshes",
	}, func(ctx context.Context, _ *nothing) (*body[apitype.ModelNetworkList], error) {
		return answer(apitype.ModelNetworkList{Items: []apitype.ModelNetwork{a.modelNetwork()}}, nil)
	})
	register(a, read, huma.Operation{
		OperationID: "list-model-meshes", Method: http.MethodGet, Path: "/v1/model/meshes", Tags: tags,
		Summary: "Meshes: authenticated RF domains, and the transports that carry them",
	}, func(ctx context.Context, _ *nothing) (*body[apitype.ModelMeshList], error) {
		m, err := a.modelMeshes(ctx)
		return answer(apitype.ModelMeshList{Items: m}, err)
	})
	register(a, read, huma.Operation{
		OperationID: "list-model-domains", Method: http.MethodGet, Path: "/v1/model/domains", Tags: tags,
		Summary: "Underlay domains: the media of a mesh, and who has an interface there",
	}, func(ctx context.Context, _ *nothing) (*body[apitype.UnderlayDomainList], error) {
		out := apitype.UnderlayDomainList{Items: []apitype.UnderlayDomain{}}
		meshes, err := a.modelMeshes(ctx)
		for _, m := range meshes {
			out.Items = append(out.Items, m.Domains...)
		}
		return answer(out, err)
	})
	register(a, read, huma.Operation{
		OperationID: "get-model-node", Method: http.MethodGet, Path: "/v1/model/nodes/{id}", Tags: tags,
		Summary:     "A node with all that is its own: roles, interfaces and their hardware, telemetry sources, hosts behind it",
		Description: "One identity for each device: what moves, is replaced or gets another address stays its child.",
	}, func(ctx context.Context, i *NodePath) (*body[apitype.ModelNode], error) {
		return answer(a.modelNode(ctx, i.ID))
	})
	register(a, read, huma.Operation{
		OperationID: "list-model-interfaces", Method: http.MethodGet, Path: "/v1/model/interfaces", Tags: tags,
		Summary: "Interfaces of all nodes, with the hardware that each has had", Description: "A page holds whole nodes: limit counts nodes.",
	}, func(ctx context.Context, p *Page) (*body[apitype.ModelInterfaceList], error) {
		out := apitype.ModelInterfaceList{Items: []apitype.ModelInterface{}}
		nodes, err := a.Registry.Nodes(ctx, p.Cursor, p.Limit)
		for _, n := range nodes.Items {
			list, err := a.modelInterfaces(ctx, n.ID)
			if err != nil {
				return nil, err
			}
			out.Items = append(out.Items, list...)
		}
		out.Next = nodes.Next
		return answer(out, err)
	})
	register(a, read, huma.Operation{
		OperationID: "list-model-sources", Method: http.MethodGet, Path: "/v1/model/sources", Tags: tags,
		Summary: "What readings come from, of all nodes", Description: "A page holds whole nodes: limit counts nodes.",
	}, func(ctx context.Context, p *Page) (*body[apitype.TelemetrySourceList], error) {
		out := apitype.TelemetrySourceList{Items: []apitype.TelemetrySource{}}
		nodes, err := a.Registry.Nodes(ctx, p.Cursor, p.Limit)
		for _, n := range nodes.Items {
			out.Items = append(out.Items, sourcesOf(n.ID, a.readings(n.ID, ""))...)
		}
		out.Next = nodes.Next
		return answer(out, err)
	})
	register(a, read, huma.Operation{
		OperationID: "list-model-conflicts", Method: http.MethodGet, Path: "/v1/model/conflicts", Tags: tags,
		Summary: "What does not fit: keys that were there twice, hardware addresses that several nodes say they have", Description: "limit counts both, of which quarantined nodes come first.",
	}, func(ctx context.Context, p *Page) (*body[apitype.ModelConflicts], error) {
		return answer(a.conflicts(ctx, *p))
	})
	a.replacementRoutes(tags)
	a.endpointRoutes()
}

// conflicts is a page of what does not fit.
func (a *API) conflicts(ctx context.Context, p Page) (c apitype.ModelConflicts, err error) {
	quarantined, err := a.Registry.Quarantined(ctx)
	if err != nil {
		return c, err
	}
	type conflict struct {
		node *apitype.Node
		mac  apitype.MACConflict
	}
	list := []conflict{}
	for i := range quarantined {
		list = append(list, conflict{node: &quarantined[i]})
	}
	for _, m := range a.Registry.Conflicts() {
		list = append(list, conflict{mac: m})
	}
	items, next, err := pageOf(list, p, 2, func(c conflict) []string {
		if c.node != nil {
			return []string{ordered(true), c.node.Name}
		}
		return []string{ordered(false), c.mac.MAC}
	})
	c = apitype.ModelConflicts{Quarantined: []apitype.Node{}, MACs: []apitype.MACConflict{}, Next: next}
	for _, i := range items {
		if i.node != nil {
			c.Quarantined = append(c.Quarantined, *i.node)
		} else {
			c.MACs = append(c.MACs, i.mac)
		}
	}
	return c, err
}

func (a *API) replacementRoutes(tags []string) {
	register(a, admin, huma.Operation{
		OperationID: "list-replacements", Method: http.MethodGet, Path: "/v1/model/replacements", Tags: tags,
		Summary: "Nodes with a new key that look like others whose card was written anew",
	}, func(ctx context.Context, p *Page) (*body[apitype.ReplacementList], error) {
		l, err := a.Registry.Replacements(ctx)
		if err != nil {
			return nil, err
		}
		items, next, err := pageOf(l, *p, 1, func(r apitype.Replacement) []string { return []string{r.Node} })
		return answer(apitype.ReplacementList{Items: items, Next: next}, err)
	})
	register(a, admin, huma.Operation{
		OperationID: "adopt-replacement", Method: http.MethodPost, Path: "/v1/model/replacements/{id}/adopt", Tags: tags,
		Summary: "Have a node take the place of the offered old one",
		Description: "Name, history, assignments, network of clients and trusted MACs go over, and the old key is revoked. A node that waits for approval is admitted. " +
			"409 still-online: the old one is there.",
	}, func(ctx context.Context, i *NodePath) (*body[apitype.Node], error) {
		n, err := a.Registry.Adopt(ctx, i.ID, callerOf(ctx).Actor())
		if err == nil {
			a.Stream.Disconnect(n.Replaces)
			a.Commands.Drop(n.Replaces)
			a.withdrawn()
		}
		return answer(n, err)
	})
	register(a, admin, huma.Operation{
		OperationID: "dismiss-replacement", Method: http.MethodPost, Path: "/v1/model/replacements/{id}/dismiss", Tags: tags,
		Summary: "Say that a node does not take the offered one's place", DefaultStatus: http.StatusNoContent,
	}, func(ctx context.Context, i *NodePath) (*nothing, error) {
		return nil, a.Registry.Dismiss(ctx, i.ID, callerOf(ctx).Actor())
	})
	register(a, admin, huma.Operation{
		OperationID: "release-node", Method: http.MethodPost, Path: "/v1/nodes/{id}/release", Tags: []string{"nodes"},
		Summary:     "End a node's quarantine",
		Description: "When only one device is left that has its key; if its clone is there still, both are quarantined again.",
	}, func(ctx context.Context, i *NodePath) (*body[apitype.Node], error) {
		n, err := a.Registry.Release(ctx, i.ID, callerOf(ctx).Actor())
		if err == nil {
			a.changed()
		}
		return answer(n, err)
	})
}

func (a *API) endpointRoutes() {
	tags, read := []string{"endpoints"}, scope(apitype.ScopeNodesRead)
	register(a, read, huma.Operation{
		OperationID: "list-endpoints", Method: http.MethodGet, Path: "/v1/endpoints", Tags: tags,
		Summary:     "Clients: hosts behind nodes that are no members, such as phones and cameras",
		Description: "Seen by leases, neighbour tables and the mesh's translation tables.",
	}, func(ctx context.Context, i *struct {
		Page
		Node    string `query:"node" maxLength:"64" doc:"canonical ID or name: only those behind it"`
		Present string `query:"present" enum:"true,false" doc:"only those that are there, or that are not"`
	}) (*body[apitype.EndpointList], error) {
		q := endpoints.Query{Cursor: i.Cursor, Limit: i.Limit}
		if i.Present != "" {
			there := i.Present == "true"
			q.Present = &there
		}
		if i.Node != "" {
			n, err := a.Registry.Node(ctx, i.Node)
			if err != nil {
				return nil, err
			}
			q.Node = n.ID
		}
		at, err := a.places(ctx)
		if err != nil {
			return nil, err
		}
		return answer(a.Endpoints.List(q, at), nil)
	})
	register(a, read, huma.Operation{
		OperationID: "list-node-endpoints", Method: http.MethodGet, Path: "/v1/nodes/{id}/endpoints", Tags: []string{"nodes"},
		Summary: "Clients behind a node",
	}, func(ctx context.Context, i *struct {
		NodePath
		Page
	}) (*body[apitype.EndpointList], error) {
		n, err := a.Registry.Node(ctx, i.ID)
		if err != nil {
			return nil, err
		}
		at, err := a.places(ctx)
		return answer(a.Endpoints.List(endpoints.Query{Node: n.ID, Cursor: i.Cursor, Limit: i.Limit}, at), err)
	})
	register(a, read, huma.Operation{
		OperationID: "get-endpoint", Method: http.MethodGet, Path: "/v1/endpoints/{id}", Tags: tags, Summary: "A client, and where it was", Description: "Its ETag is of what people say of it: name and note.",
	}, func(ctx context.Context, i *EndpointPath) (*tagged[apitype.EndpointDetail], error) {
		at, err := a.places(ctx)
		if err != nil {
			return nil, err
		}
		e, err := a.Endpoints.Get(i.ID, at)
		return tag(e, endpoints.Tag(e.Endpoint), err)
	})
	register(a, scope(apitype.ScopeNodesWrite), huma.Operation{
		OperationID: "update-endpoint", Method: http.MethodPatch, Path: "/v1/endpoints/{id}", Tags: tags, Summary: "Give a client a name or a note",
	}, func(ctx context.Context, i *struct {
		EndpointPath
		IfMatch
		In[apitype.UpdateEndpoint]
	}) (*tagged[apitype.Endpoint], error) {
		m, err := i.match()
		if err != nil {
			return nil, err
		}
		at, err := a.places(ctx)
		if err != nil {
			return nil, err
		}
		e, err := a.Endpoints.Update(ctx, i.ID, m, i.Body, at)
		return tag(e, endpoints.Tag(e), err)
	})
	register(a, scope(apitype.ScopeNodesWrite), huma.Operation{
		OperationID: "forget-endpoint", Method: http.MethodDelete, Path: "/v1/endpoints/{id}", Tags: tags,
		Summary: "Forget a client", DefaultStatus: http.StatusNoContent, Description: "One that is there is known anew, under another ID, when its node reports it next.",
	}, func(ctx context.Context, i *struct {
		EndpointPath
		IfMatch
	}) (*nothing, error) {
		m, err := i.match()
		if err != nil {
			return nil, err
		}
		return nil, a.Endpoints.Forget(ctx, i.ID, m)
	})
}

// everyNode calls f for each node, revoked ones too.
func (a *API) everyNode(ctx context.Context, f func(apitype.Node)) error {
	for cursor := ""; ; {
		page, err := a.Registry.Nodes(ctx, cursor, 500)
		if err != nil {
			return err
		}
		for _, n := range page.Items {
			f(n)
		}
		if cursor = page.Next; cursor == "" {
			return nil
		}
	}
}

// places tells of each node its name and whether it is there.
func (a *API) places(ctx context.Context) (endpoints.Places, error) {
	nodes := map[string]apitype.Node{}
	err := a.everyNode(ctx, func(n apitype.Node) { nodes[n.ID] = n })
	return func(id string) (string, bool) { n := nodes[id]; return n.Name, n.Online }, err
}

// readings are a node's latest values.
func (a *API) readings(node, prefix string) []apitype.Reading {
	return a.Telemetry.Latest().Node(node, prefix)
}

func (a *API) summary(ctx context.Context) (apitype.ModelSummary, error) {
	s := apitype.ModelSummary{Network: a.modelNetwork().Name, Gateway: a.Registry.Gateway()}
	nodes := map[string]apitype.Node{}
	err := a.everyNode(ctx, func(n apitype.Node) {
		nodes[n.ID] = n
		if n.Revoked {
			return
		}
		s.Nodes.All++
		if n.Online {
			s.Nodes.Online++
		}
		if n.Quarantined != nil {
			s.Nodes.Quarantined++
		}
		if n.Role != model.RoleGateway && len(a.readings(n.ID, "")) > 0 {
			s.Sensors++
		}
	})
	if err != nil {
		return s, err
	}
	s.Clients, s.Present = a.Endpoints.Count(func(id string) (string, bool) { n := nodes[id]; return n.Name, n.Online })
	s.Conflict = s.Nodes.Quarantined + len(a.Registry.Conflicts())
	meshes, err := a.modelMeshes(ctx)
	s.Meshes = len(meshes)
	return s, err
}

func (a *API) modelNetwork() apitype.ModelNetwork {
	key := a.Registry.Network()
	ula := func(a netip.Addr, bits int) string { return netip.PrefixFrom(a, bits).Masked().String() }
	n := apitype.ModelNetwork{
		ID: key.Base64(), Gateway: a.Registry.Gateway(), Epoch: a.Epoch.Now(), Meshes: []string{},
		Overlay:  []string{paths.OverlayNet.String(), ula(identity.Overlay(key, key), 64)},
		Underlay: []string{paths.UnderlayNet.String(), ula(identity.Underlay(key, key), 64)},
		Clients:  []string{paths.ClientsNet.String(), ula(identity.Overlay(key, key), 48)},
	}
	if a.Bundle != nil {
		n.Name, n.Country = a.Bundle.Network, a.Bundle.Country
	}
	if s, ok := a.Mesh.Last(); ok {
		n.Name, n.Country = cmp.Or(n.Name, s.Network), cmp.Or(s.Country, n.Country)
	}
	if id := a.meshID(); id != "" {
		n.Meshes = append(n.Meshes, id)
	}
	return n
}

// meshID is the name of the mesh that the gateway is in.
func (a *API) meshID() string {
	if s, ok := a.Mesh.Last(); ok && s.Mesh != "" {
		return s.Mesh
	}
	if a.Bundle != nil {
		return a.Bundle.Mesh.SSID
	}
	return ""
}

// transportOf is the medium of an interface that carries the mesh, or "".
func transportOf(i model.Interface) string {
	switch {
	case i.Kind == "halow":
		return "halow"
	case i.Kind == "wifi" && strings.HasPrefix(i.Name, "mesh"):
		return "wifi"
	case i.Kind == "macsec", i.Kind == "ethernet" && i.PortRole == "mesh":
		return "ethernet"
	}
	return ""
}

// modelMeshes is the mesh with its domains, as far as nodes have told of interfaces.
func (a *API) modelMeshes(ctx context.Context) ([]apitype.ModelMesh, error) {
	id := a.meshID()
	if id == "" {
		return []apitype.ModelMesh{}, nil
	}
	m := apitype.ModelMesh{ID: id, Network: a.modelNetwork().Name, Domains: []apitype.UnderlayDomain{}}
	if p, err := a.Radios.Profile(ctx); err == nil {
		m.Routing = p.Routing
	} else if a.Bundle != nil {
		m.Routing = a.Bundle.Mesh.Routing
	}
	var radios []model.Radio
	if s, err := a.Radios.Status(ctx); err == nil {
		radios = s.Radios
	}
	members := map[string][]string{}
	var list []apitype.Node
	err := a.everyNode(ctx, func(n apitype.Node) {
		if !n.Revoked && n.Quarantined == nil {
			list = append(list, n)
		}
	})
	for _, n := range list {
		m.Nodes++
		interfaces, err := a.Registry.Interfaces(ctx, n.ID)
		if err != nil {
			return nil, err
		}
		for _, i := range interfaces {
			t := transportOf(i.Interface)
			if t != "" && i.Present && !slices.Contains(members[t], n.ID) {
				members[t] = append(members[t], n.ID)
			}
		}
	}
	for _, t := range []string{"wifi", "halow", "ethernet"} {
		if len(members[t]) > 0 {
			slices.Sort(members[t])
			m.Domains = append(m.Domains, apitype.UnderlayDomain{ID: id + "/" + t, Mesh: id, Transport: t, Channel: channelOn(t, radios), Nodes: members[t]})
		}
	}
	return []apitype.ModelMesh{m}, err
}

// channelOn is the channel of the gateway's radio on a medium.
func channelOn(transport string, radios []model.Radio) string {
	for _, r := range radios {
		switch {
		case transport == "halow" && r.HaLow != "":
			return r.HaLow
		case transport == "wifi" && r.HaLow == "" && r.Channel != 0:
			return strconv.Itoa(r.Channel)
		}
	}
	return ""
}

func (a *API) modelInterfaces(ctx context.Context, id string) ([]apitype.ModelInterface, error) {
	list, err := a.Registry.Interfaces(ctx, id)
	if err != nil {
		return nil, err
	}
	hardware, err := a.Registry.Hardware(ctx, id)
	out := []apitype.ModelInterface{}
	for _, i := range list {
		out = append(out, apitype.ModelInterface{ID: id + "/" + i.Name, Node: id, Interface: i, Hardware: some(hardware[i.Name])})
	}
	return out, err
}

// sourcesOf groups a node's metrics by the first two words of their names.
func sourcesOf(node string, readings []apitype.Reading) []apitype.TelemetrySource {
	out := []apitype.TelemetrySource{}
	at := map[string]int{}
	for _, r := range readings {
		words := strings.SplitN(r.Metric, ".", 3)
		if len(words) < 2 {
			continue
		}
		key := words[0] + "." + words[1]
		k, known := at[key]
		if !known {
			k = len(out)
			at[key] = k
			out = append(out, apitype.TelemetrySource{ID: node + "/" + key, Node: node, Source: words[0], Thing: words[1], Metrics: []string{}})
		}
		s := &out[k]
		if !slices.Contains(s.Metrics, r.Metric) {
			s.Metrics = append(s.Metrics, r.Metric)
		}
		if t := r.Time; s.Latest == nil || t.After(*s.Latest) {
			s.Latest = &t
		}
	}
	order.By(out, func(a, b apitype.TelemetrySource) int { return cmp.Compare(a.ID, b.ID) })
	for i := range out {
		slices.Sort(out[i].Metrics)
	}
	return out
}

func (a *API) modelNode(ctx context.Context, ref string) (apitype.ModelNode, error) {
	n, err := a.Registry.Node(ctx, ref)
	if err != nil {
		return apitype.ModelNode{}, err
	}
	m := apitype.ModelNode{Node: n, Network: a.modelNetwork().Name, Mesh: a.meshID(), Domains: []string{}, Roles: []apitype.ModelRole{apitype.RoleOf(string(n.Role), "")}}
	if m.Children, err = a.modelInterfaces(ctx, n.ID); err != nil {
		return m, err
	}
	m.Sources = sourcesOf(n.ID, a.readings(n.ID, ""))
	at, err := a.places(ctx)
	if err != nil {
		return m, err
	}
	m.Endpoints = a.Endpoints.List(endpoints.Query{Node: n.ID}, at).Items
	if n.Role != model.RoleGateway && len(m.Sources) > 0 {
		m.Roles = append(m.Roles, apitype.RoleOf("data-provider", strconv.Itoa(len(m.Sources))+" telemetry sources"))
	}
	if len(m.Endpoints) > 0 {
		m.Roles = append(m.Roles, apitype.RoleOf("access", strconv.Itoa(len(m.Endpoints))+" clients"))
	}
	meshes, err := a.modelMeshes(ctx)
	if err != nil {
		return m, err
	}
	for _, mesh := range meshes {
		for _, d := range mesh.Domains {
			if slices.Contains(d.Nodes, n.ID) {
				m.Domains = append(m.Domains, d.ID)
			}
		}
	}
	if m.Replaced, err = a.Registry.Lineage(ctx, n.ID); err != nil {
		return m, err
	}
	if n.Revoked {
		m.ReplacedBy, err = a.Registry.Successor(ctx, n.ID)
	}
	return m, err
}

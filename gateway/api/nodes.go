package api

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"halo.internal/gateway/registry"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

func (a *API) nodeRoutes() {
	nodes := []string{"nodes"}
	register(a, entry, huma.Operation{
		OperationID: "join-node", Method: http.MethodPost, Path: "/v1/nodes/join", Tags: nodes,
		Summary:     "Join the network, signed by the node's key",
		Description: "Without a nonce the answer is the problem join-nonce; post again, signed over that nonce. Admitted by join token, by a trusted MAC or by an admin (problem join-pending until then, with what is wrong with its token in detail). A node that is known gets its membership again.",
	}, func(ctx context.Context, i *In[model.JoinRequest]) (*body[model.Membership], error) {
		if a.Mesh.Aside() {
			return nil, apitype.Refuse(http.StatusServiceUnavailable, apitype.ProblemGatewayTwin, "another gateway with this one's key serves the network, and this one has stood down: it admits nobody").After(time.Minute)
		}
		return answer(a.Registry.Join(ctx, callerOf(ctx).remote, i.Body))
	})
	register(a, scope(apitype.ScopeNodesRead), huma.Operation{
		OperationID: "list-nodes", Method: http.MethodGet, Path: "/v1/nodes", Tags: nodes, Summary: "All nodes, by name",
	}, func(ctx context.Context, p *Page) (*body[apitype.NodeList], error) {
		return answer(a.Registry.Nodes(ctx, p.Cursor, p.Limit))
	})
	register(a, scope(apitype.ScopeNodesRead), huma.Operation{
		OperationID: "get-node", Method: http.MethodGet, Path: "/v1/nodes/{id}", Tags: nodes,
		Summary: "A node with its interfaces and what the mesh says of it", Description: "Its ETag is of what people change: its name, and whether it is revoked.",
	}, func(ctx context.Context, i *NodePath) (*tagged[apitype.NodeDetail], error) {
		n, err := a.node(ctx, i.ID)
		return tag(n, registry.Tag(n.Node), err)
	})
	register(a, scope(apitype.ScopeNodesWrite), huma.Operation{
		OperationID: "update-node", Method: http.MethodPatch, Path: "/v1/nodes/{id}", Tags: nodes, Summary: "Rename a node",
	}, func(ctx context.Context, i *struct {
		NodePath
		IfMatch
		In[apitype.UpdateNode]
	}) (*tagged[apitype.Node], error) {
		n, err := a.updateNode(ctx, i.ID, i.IfMatch, i.Body)
		return tag(n, registry.Tag(n), err)
	})
	register(a, admin, huma.Operation{
		OperationID: "revoke-node", Method: http.MethodDelete, Path: "/v1/nodes/{id}", Tags: nodes,
		Summary: "Shut a node out for good", DefaultStatus: http.StatusNoContent,
		Description: "It loses its place in the overlay and its stream, and cannot join again. What it sent stays.",
	}, func(ctx context.Context, i *struct {
		NodePath
		IfMatch
	}) (*nothing, error) {
		m, err := i.match()
		if err != nil {
			return nil, err
		}
		id, err := a.Registry.Revoke(ctx, i.ID, m)
		if err == nil {
			a.Stream.Disconnect(id)
			a.Commands.Drop(id)
			a.withdrawn()
		}
		return nil, err
	})
	register(a, scope(apitype.ScopeNodesRead), huma.Operation{
		OperationID: "list-node-interfaces", Method: http.MethodGet, Path: "/v1/nodes/{id}/interfaces", Tags: nodes,
		Summary: "A node's network interfaces, those that went away included",
	}, func(ctx context.Context, i *struct {
		NodePath
		Page
	}) (*body[apitype.InterfaceList], error) {
		n, err := a.Registry.Node(ctx, i.ID)
		if err != nil {
			return nil, err
		}
		list, err := a.Registry.Interfaces(ctx, n.ID)
		if err != nil {
			return nil, err
		}
		items, next, err := pageOf(list, i.Page, 1, func(f apitype.Interface) []string { return []string{f.Name} })
		return answer(apitype.InterfaceList{Items: items, Next: next}, err)
	})
}

func (a *API) boardRoutes() {
	tags := []string{"boards"}
	register(a, scope(apitype.ScopeNodesRead), huma.Operation{
		OperationID: "list-boards", Method: http.MethodGet, Path: "/v1/boards", Tags: tags, Summary: "All boards that are known: those of the release, and those that files on nodes describe",
	}, func(_ context.Context, p *Page) (*body[apitype.BoardList], error) {
		items, next, err := pageOf(a.Registry.Boards(), *p, 2, func(b model.BoardDescription) []string { return []string{b.Name, b.Digest} })
		return answer(apitype.BoardList{Items: items, Next: next}, err)
	})
	register(a, scope(apitype.ScopeNodesRead), huma.Operation{
		OperationID: "get-node-board", Method: http.MethodGet, Path: "/v1/nodes/{id}/board", Tags: tags,
		Summary:     "The board that a node is: its header, buses, ports, radios, lamps, buttons, power, outputs and inputs",
		Description: "As the node has found it by its device tree. Files in /perm/halo/boards/ on the node go before those of the release; ref says which it is, and what is wrong in them.",
	}, func(ctx context.Context, i *NodePath) (*body[model.NodeBoard], error) {
		return answer(a.Registry.NodeBoard(ctx, i.ID))
	})
}

// withPast returns the canonical ID of the node that is meant and those of the nodes whose
// place it has taken: what was about them is about it. Nothing, where none is meant.
func (a *API) withPast(ctx context.Context, ref string) ([]string, error) {
	if ref == "" {
		return nil, nil
	}
	n, err := a.Registry.Node(ctx, ref)
	if err != nil {
		return nil, err
	}
	past, err := a.Registry.Lineage(ctx, n.ID)
	return append([]string{n.ID}, past...), err
}

func (a *API) updateNode(ctx context.Context, ref string, c IfMatch, u apitype.UpdateNode) (apitype.Node, error) {
	m, err := c.match()
	if err != nil {
		return apitype.Node{}, err
	}
	if u.Name == nil {
		n, err := a.Registry.Node(ctx, ref)
		if err == nil {
			err = m.Check(registry.Tag(n))
		}
		return n, err
	}
	n, err := a.Registry.Rename(ctx, ref, m, *u.Name)
	if err == nil {
		a.changed()
	}
	return n, err
}

func (a *API) node(ctx context.Context, ref string) (apitype.NodeDetail, error) {
	n, err := a.Registry.Node(ctx, ref)
	if err != nil {
		return apitype.NodeDetail{}, err
	}
	d := apitype.NodeDetail{Node: n}
	if d.Interfaces, err = a.Registry.Interfaces(ctx, n.ID); err != nil {
		return d, err
	}
	s, err := a.meshStatus(ctx)
	if err != nil {
		return d, nil // a node without what the mesh says of it
	}
	self := n.ID == a.Registry.Gateway()
	for _, p := range s.Overlay {
		switch {
		case self:
			d.Overlays = append(d.Overlays, p)
		case p.Node == n.ID:
			d.Overlay = &p
		}
	}
	for _, v := range s.Neighbours {
		if self || v.Node == n.ID {
			d.Neighbours = append(d.Neighbours, v)
		}
	}
	return d, nil
}

// describeStream documents the WebSocket, which huma does not serve, and adds
// its route.
func (a *API) describeStream() {
	const path = "/v1/nodes/stream"
	a.mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
		if !protected(r) {
			refusePlain(w)
			return
		}
		a.Stream.ServeHTTP(&textProblem{ResponseWriter: w}, r)
	})
	a.huma.OpenAPI().AddOperation(&huma.Operation{
		OperationID: "stream-node", Method: http.MethodGet, Path: path, Tags: []string{"nodes"},
		Summary:     "What a node sends: a WebSocket",
		Description: open.describe("The node proves its key on the gateway's challenge and has to come from its own overlay address. Messages are those of model/wire."),
		Responses:   map[string]*huma.Response{"101": {Description: "Switching Protocols"}, "426": {Description: "Not a WebSocket request", Content: problemContent(a.huma.OpenAPI().Components.Schemas)}},
		Metadata:    map[string]any{accessKey: open},
	})
}

package api

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"halo.internal/gateway/etag"
	"halo.internal/local"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/bundle"
)

// Radios is what can be asked of the gateway's own radios, and of how it has
// recovered. Errors are those of
// package local.
type Radios interface {
	Status(context.Context) (model.MeshStatus, error)
	Scan(context.Context, model.ScanRequest) (model.RadioScan, error)
	Channels(context.Context) ([]model.RadioChannels, error)
	Legal(context.Context) ([]model.Legality, error)
	Timeline(context.Context) ([]model.Recovery, error)
	Topology(context.Context) (model.MeshTopology, error)
	Doctor(context.Context) (model.DoctorReport, error)
	Examine(context.Context) (model.DoctorReport, error)
	Capture(context.Context, model.CaptureRequest, io.Writer) error
	Profile(context.Context) (model.MeshProfile, error)
	PutProfile(context.Context, model.ProfileChange) error
	// MeshSecret returns the mesh profile in use with its secret.
	MeshSecret(context.Context) (bundle.Mesh, error)
}

var _ Radios = (*local.Mesh)(nil)

func (a *API) meshRoutes() {
	tags := []string{"mesh"}
	register(a, scope(apitype.ScopeSystemRead), huma.Operation{
		OperationID: "get-mesh-status", Method: http.MethodGet, Path: "/v1/mesh/status", Tags: tags,
		Summary: "The mesh as the gateway's halo-mesh sees it",
	}, func(ctx context.Context, _ *nothing) (*body[model.MeshStatus], error) {
		return answer(a.meshStatus(ctx))
	})
	register(a, scope(apitype.ScopeSystemRead), huma.Operation{
		OperationID: "list-mesh-peers", Method: http.MethodGet, Path: "/v1/mesh/peers", Tags: tags,
		Summary:     "The members of the mesh that the gateway reaches directly, by radio or by cable",
		Description: "Those on the way to a link are among them, and why there is none. Those by radio come first.",
	}, func(ctx context.Context, p *Page) (*body[apitype.MeshPeerList], error) {
		s, err := a.meshStatus(ctx)
		if err != nil {
			return nil, err
		}
		items, next, err := pageOf(s.Peers(), *p, 3, func(p model.MeshPeer) []string {
			return []string{ordered(p.Transport == "radio"), p.Iface, p.MAC}
		})
		return answer(apitype.MeshPeerList{Items: items, Next: next}, err)
	})
	register(a, scope(apitype.ScopeSystemRead), huma.Operation{
		OperationID: "get-mesh-topology", Method: http.MethodGet, Path: "/v1/mesh/topology", Tags: tags,
		Summary:     "The mesh as the gateway's routing sees it: by which neighbour each node is reached, and how well",
		Description: "Which node an address is of, is what nodes say themselves; on ports it was proven.",
	}, func(ctx context.Context, _ *nothing) (*body[model.MeshTopology], error) {
		t, err := a.Radios.Topology(ctx)
		return answer(located(t, a.Registry.ByMAC()), ofRadio(err))
	})
	register(a, scope(apitype.ScopeSystemRead), huma.Operation{
		OperationID: "list-mesh-channels", Method: http.MethodGet, Path: "/v1/mesh/channels", Tags: tags,
		Summary: "The channels of the gateway's radios, and what country and hardware allow on them",
	}, func(ctx context.Context, _ *nothing) (*body[apitype.RadioChannelsList], error) {
		c, err := a.Radios.Channels(ctx)
		return answer(apitype.RadioChannelsList{Items: c}, ofRadio(err))
	})
	register(a, scope(apitype.ScopeSystemRead), huma.Operation{
		OperationID: "list-mesh-legality", Method: http.MethodGet, Path: "/v1/mesh/legality", Tags: tags,
		Summary:     "What the law lets the gateway's radios do, and where that is known from",
		Description: "Wi-Fi by the kernel's database; HaLow by a table, whether there is such a radio or not.",
	}, func(ctx context.Context, _ *nothing) (*body[apitype.LegalityList], error) {
		l, err := a.Radios.Legal(ctx)
		return answer(apitype.LegalityList{Items: l}, ofRadio(err))
	})
	register(a, scope(apitype.ScopeSystemRead), huma.Operation{
		OperationID: "list-mesh-recoveries", Method: http.MethodGet, Path: "/v1/mesh/timeline", Tags: tags,
		Summary:     "How each recovery of the gateway went, stage by stage, oldest first",
		Description: "From the start of the machine, or from where the chain from the radio to the gateway broke, until readings were acknowledged again.",
	}, func(ctx context.Context, _ *nothing) (*body[apitype.RecoveryList], error) {
		l, err := a.Radios.Timeline(ctx)
		return answer(apitype.RecoveryList{Items: l}, ofRadio(err))
	})
	register(a, scope(apitype.ScopeSystemRead), huma.Operation{
		OperationID: "get-mesh-doctor", Method: http.MethodGet, Path: "/v1/mesh/doctor", Tags: tags,
		Summary: "What the paths from the gateway to its nodes carry, and what was found and mended",
	}, func(ctx context.Context, _ *nothing) (*body[model.DoctorReport], error) {
		r, err := a.Radios.Doctor(ctx)
		return answer(r, ofRadio(err))
	})
	register(a, scope(apitype.ScopeNodesWrite), huma.Operation{
		OperationID: "examine-mesh", Method: http.MethodPost, Path: "/v1/mesh/doctor", Tags: tags,
		Summary:     "Have the gateway examine the paths to its nodes, and mend what it can",
		Description: "It takes a second where all is well. After 20 s the answer says how many are being examined still.",
	}, func(ctx context.Context, _ *nothing) (*body[model.DoctorReport], error) {
		r, err := a.Radios.Examine(ctx)
		return answer(r, ofRadio(err))
	})
	register(a, scope(apitype.ScopeNodesWrite), huma.Operation{
		OperationID: "scan-mesh", Method: http.MethodPost, Path: "/v1/mesh/scan", Tags: tags,
		Summary:     "Have a radio of the gateway look which meshes and networks there are",
		Description: "It takes up to 20 s, in which the radio is away from the mesh for a moment at a time.",
	}, func(ctx context.Context, i *In[model.ScanRequest]) (*body[model.RadioScan], error) {
		callerOf(ctx).target = i.Body.Radio
		s, err := a.Radios.Scan(ctx, i.Body)
		return answer(s, ofRadio(err))
	})
	register(a, admin, huma.Operation{
		OperationID: "capture-mesh", Method: http.MethodPost, Path: "/v1/mesh/capture", Tags: tags,
		Summary:     "Record what a radio of the gateway hears and sends",
		Description: "The answer comes when the time is over: a pcap whose frames have radiotap headers. An event and the audit log say who asked for it.",
	}, func(ctx context.Context, i *In[model.CaptureRequest]) (*rawAnswer, error) {
		callerOf(ctx).target = i.Body.Radio
		return a.capture(ctx, i.Body)
	})
}

func (a *API) profileRoutes() {
	tags := []string{"mesh"}
	const how = "The gateway hands the new profile to all nodes, waits until those that are there have it on their cards, and has all switch at once; " +
		"nodes that do not hear it there go back by themselves, and a change to which too few come is taken back. The answer says how far it is. " +
		"While a change is under way, the same one asked for again is no error, and another is refused (409)."
	register(a, scope(apitype.ScopeSystemRead), huma.Operation{
		OperationID: "get-mesh-profile", Method: http.MethodGet, Path: "/v1/mesh/profile", Tags: tags,
		Summary: "The mesh profile in use, and how far a change of it is", Description: "Its ETag is of what the mesh is to have, which is the target while a change is under way.",
	}, func(ctx context.Context, _ *nothing) (*tagged[model.MeshProfile], error) {
		p, err := a.Radios.Profile(ctx)
		return tag(p, profileTag(p), ofRadio(err))
	})
	register(a, admin, huma.Operation{
		OperationID: "change-mesh-profile", Method: http.MethodPut, Path: "/v1/mesh/profile", Tags: tags,
		Summary: "Change the mesh profile or rotate the mesh secret", Description: how,
	}, func(ctx context.Context, i *struct {
		IfMatch
		In[model.ProfileChange]
	}) (*tagged[model.MeshProfile], error) {
		callerOf(ctx).target = "profile"
		return a.changeProfile(ctx, i.IfMatch, profileTag, i.Body)
	})
	register(a, scope(apitype.ScopeSystemRead), huma.Operation{
		OperationID: "get-mesh-channel", Method: http.MethodGet, Path: "/v1/mesh/channel", Tags: tags,
		Summary: "The channel of the mesh", Description: "Its ETag is of the channel alone, the next one while the mesh moves.",
	}, func(ctx context.Context, _ *nothing) (*tagged[apitype.MeshChannel], error) {
		p, err := a.Radios.Profile(ctx)
		return tag(channelOf(p), channelTag(p), ofRadio(err))
	})
	register(a, admin, huma.Operation{
		OperationID: "change-mesh-channel", Method: http.MethodPut, Path: "/v1/mesh/channel", Tags: tags,
		Summary: "Move the mesh to another channel", Description: "What the law has against it is checked before anybody is told of it. " + how,
	}, func(ctx context.Context, i *struct {
		IfMatch
		In[apitype.ChangeMeshChannel]
	}) (*tagged[model.MeshProfile], error) {
		callerOf(ctx).target = "channel"
		c := model.ProfileChange{Anyway: i.Body.Anyway}
		for _, f := range []struct {
			to   **int
			from int
		}{{&c.Channel, i.Body.Channel}, {&c.Width, i.Body.Width}, {&c.HaLowChannel, i.Body.HaLowChannel}} {
			if f.from != 0 {
				*f.to = &f.from
			}
		}
		return a.changeProfile(ctx, i.IfMatch, channelTag, c)
	})
}

// changeProfile has the mesh profile changed, if what is there meets the condition, and
// tells what came of it. of says of what the condition's tags are, and the answer's.
func (a *API) changeProfile(ctx context.Context, c IfMatch, of func(model.MeshProfile) string, change model.ProfileChange) (*tagged[model.MeshProfile], error) {
	m, err := c.match()
	if err != nil {
		return nil, err
	}
	a.profiling.Lock()
	defer a.profiling.Unlock()
	if m.Given() {
		p, err := a.Radios.Profile(ctx)
		if err != nil {
			return nil, ofRadio(err)
		}
		if err := m.Check(of(p)); err != nil {
			return nil, err
		}
	}
	if err := a.Radios.PutProfile(ctx, change); err != nil {
		return nil, ofRadio(err)
	}
	a.changed()
	p, err := a.Radios.Profile(ctx)
	return tag(p, of(p), ofRadio(err))
}

// wanted is what the mesh is to have.
func wanted(p model.MeshProfile) model.MeshParameters {
	if p.Target != nil {
		return *p.Target
	}
	return p.MeshParameters
}

// profileTag returns the entity tag of a mesh profile.
func profileTag(p model.MeshProfile) string { return etag.Of(wanted(p)) }

// channelTag returns the entity tag of its channel.
func channelTag(p model.MeshProfile) string {
	w := wanted(p)
	return etag.Of(model.MeshParameters{Channel: w.Channel, Width: w.Width, HaLowChannel: w.HaLowChannel})
}

func channelOf(p model.MeshProfile) apitype.MeshChannel {
	return apitype.MeshChannel{Channel: p.Channel, Width: p.Width, HaLowChannel: p.HaLowChannel, HaLowScheme: p.HaLowScheme, Phase: p.Phase}
}

// meshStatus is halo-mesh's status. Which node has which radio, the nodes
// have told the gateway.
func (a *API) meshStatus(ctx context.Context) (model.MeshStatus, error) {
	s, err := a.Radios.Status(ctx)
	if err != nil {
		return s, apitype.Refuse(http.StatusServiceUnavailable, apitype.ProblemMeshAbsent, "halo-mesh does not answer").After(5 * time.Second)
	}
	return named(s, a.Registry.ByMAC()), nil
}

// named fills in the nodes of radio peers; the status stays as it is.
func named(s model.MeshStatus, nodes map[string]string) model.MeshStatus {
	radio := map[string]bool{}
	radios := make([]model.Radio, len(s.Radios))
	for i, r := range s.Radios {
		radio[r.Iface] = true
		r.Peers = append([]model.RadioPeer{}, r.Peers...)
		for k := range r.Peers {
			r.Peers[k].Node = cmp.Or(r.Peers[k].Node, nodes[r.Peers[k].MAC])
		}
		radios[i] = r
	}
	neighbours := append([]model.Neighbour{}, s.Neighbours...)
	for i, n := range neighbours {
		if radio[n.Iface] { // those on ports have proved who they are
			neighbours[i].Node = cmp.Or(n.Node, nodes[n.MAC])
		}
	}
	s.Radios, s.Neighbours = radios, neighbours
	return s
}

// located fills in the nodes whose addresses routing alone does not tell: they have
// told the gateway of their interfaces.
func located(t model.MeshTopology, nodes map[string]string) model.MeshTopology {
	for i := range t.Originators {
		o := &t.Originators[i]
		o.Node, o.NextHopNode = cmp.Or(o.Node, nodes[o.MAC]), cmp.Or(o.NextHopNode, nodes[o.NextHop])
	}
	for i := range t.Neighbours {
		if n := &t.Neighbours[i]; n.Transport == "radio" { // those on ports have proved who they are
			n.Node = cmp.Or(n.Node, nodes[n.MAC])
		}
	}
	return t
}

func (a *API) capture(ctx context.Context, q model.CaptureRequest) (*rawAnswer, error) {
	a.Events.Add("mesh.radio.capture", model.Warning, "", "frames of a radio are recorded, for "+callerOf(ctx).Actor(),
		map[string]string{"radio": q.Radio, "seconds": fmt.Sprint(q.Seconds), "by": callerOf(ctx).Actor()})
	var file bytes.Buffer // whole, so that what fails is a problem, not half a file
	if err := a.Radios.Capture(ctx, q, &file); err != nil {
		return nil, ofRadio(err)
	}
	return &rawAnswer{ContentType: "application/vnd.tcpdump.pcap", Body: file.Bytes()}, nil
}

// ofRadio makes a problem of what halo-mesh answers. Its words are for people.
func ofRadio(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, local.ErrAbsent) {
		return apitype.Refuse(http.StatusServiceUnavailable, apitype.ProblemMeshAbsent, "%v", err).After(5 * time.Second)
	}
	status, text := http.StatusBadGateway, err.Error()
	if r, ok := errors.AsType[*local.Refusal](err); ok {
		text = r.Text
		if r.Status/100 == 4 {
			status = r.Status
		}
	}
	return apitype.Refuse(status, "", "%s", text)
}

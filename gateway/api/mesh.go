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

	"halo.internal/local"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

// Radios is what can be asked of the gateway's own radios, and of how it has
// recovered. Errors are those of
// package local.
type Radios interface {
	Scan(context.Context, model.ScanRequest) (model.RadioScan, error)
	Channels(context.Context) ([]model.RadioChannels, error)
	Legal(context.Context) ([]model.Legality, error)
	Timeline(context.Context) ([]model.Recovery, error)
	Doctor(context.Context) (model.DoctorReport, error)
	Examine(context.Context) (model.DoctorReport, error)
	Capture(context.Context, model.CaptureRequest, io.Writer) error
}

var _ Radios = (*local.Mesh)(nil)

func (a *API) meshRoutes() {
	tags := []string{"mesh"}
	register(a, scope(apitype.ScopeSystemRead), huma.Operation{
		OperationID: "get-mesh-status", Method: http.MethodGet, Path: "/v1/mesh/status", Tags: tags,
		Summary: "The mesh as the gateway's halo-mesh sees it",
	}, func(context.Context, *nothing) (*body[model.MeshStatus], error) { return answer(a.meshStatus()) })
	register(a, scope(apitype.ScopeSystemRead), huma.Operation{
		OperationID: "list-mesh-peers", Method: http.MethodGet, Path: "/v1/mesh/peers", Tags: tags,
		Summary:     "The members of the mesh that the gateway reaches directly, by radio or by cable",
		Description: "Those on the way to a link are among them, and why there is none.",
	}, func(context.Context, *nothing) (*body[apitype.MeshPeerList], error) {
		s, err := a.meshStatus()
		return answer(apitype.MeshPeerList{Items: s.Peers()}, err)
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

// meshStatus is halo-mesh's last status. Which node has which radio, the nodes
// have told the gateway.
func (a *API) meshStatus() (model.MeshStatus, error) {
	s, ok := a.Mesh.Status()
	if !ok {
		return s, apitype.Refuse(http.StatusServiceUnavailable, "", "halo-mesh does not answer").After(5 * time.Second)
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
		return apitype.Refuse(http.StatusServiceUnavailable, "", "%v", err).After(5 * time.Second)
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

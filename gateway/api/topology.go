package api

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"halo.internal/gateway/topology"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/graph"
	"halo.internal/model/version"
)

// Topology is the network's picture.
type Topology interface {
	Picture() graph.Picture
	// At returns the network as it was. Errors wrap topology.ErrNotRecorded and
	// topology.ErrFuture.
	At(time.Time) (graph.Picture, error)
	// Since returns what changed; ok is false where a client needs the picture whole.
	Since(run, seq uint64) (d graph.Delta, ok bool)
	// News returns the number of the present picture, and a channel that the next one closes.
	News() (seq uint64, next <-chan struct{})
	// Moments returns what happened, see topology.Engine.
	Moments(from, to time.Time, most int, on bool) (list []graph.Moment, more bool, err error)
	// Report returns what a node reported last.
	Report(node string) (model.Report, bool)
	// Unreachable returns the nodes that cannot be reached, in order, see topology.Engine.
	Unreachable() (ids []string, known bool)
}

var _ Topology = (*topology.Engine)(nil)

// Instant is when the network is looked at.
type Instant struct {
	At time.Time `query:"at" example:"2026-11-29T14:03:00Z" doc:"an instant that is over; now when left out"`
}

// Packing is how an answer may be packed.
type Packing struct {
	Accept string `header:"Accept-Encoding" maxLength:"256" example:"gzip" doc:"the picture of a large network is a tenth of its size with gzip"`
}

// maxWait is for how long a question for changes is held open.
const maxWait = 55

func (a *API) topologyRoutes() {
	read, tags := scope(apitype.ScopeSystemRead), []string{"topology"}
	const known = "Where nobody was writing then, or what was written is dropped or damaged, the answer is the problem not-recorded."
	register(a, read, packed[graph.Picture](a, huma.Operation{
		OperationID: "get-topology", Method: http.MethodGet, Path: "/v1/topology", Tags: tags,
		Summary:     "The network's picture: nodes, links with their quality both ways, ways to the gateway, what cuts off what, health",
		Description: "Drawn from what all nodes report of their ends; docs/topology.md says what the numbers mean. With at it is the network as it was then, but for what merely wavered. " + known,
	}), func(_ context.Context, i *struct {
		Instant
		Packing
	}) (*packedAnswer, error) {
		p, err := a.picture(i.At)
		return a.pack(p, i.Packing, err)
	})
	register(a, read, packed[graph.NetJSON](a, huma.Operation{
		OperationID: "export-topology", Method: http.MethodGet, Path: "/v1/topology/netjson", Tags: tags,
		Summary:     "The network's picture as a NetJSON NetworkGraph",
		Description: "A link for each pair of nodes, with the cost of the best live one; all links of the pair are among its properties. " + known,
	}), func(_ context.Context, i *struct {
		Instant
		Packing
	}) (*packedAnswer, error) {
		p, err := a.picture(i.At)
		return a.pack(p.NetJSON(a.networkName(), a.Registry.Gateway(), version.Get().Version), i.Packing, err)
	})
	register(a, read, packed[apitype.TopologyChanges](a, huma.Operation{
		OperationID: "get-topology-changes", Method: http.MethodGet, Path: "/v1/topology/changes", Tags: tags,
		Summary:     "What changed in the network's picture since one that the client has",
		Description: "Without run and seq, or where the gateway does not know any more, the answer has the picture whole. With wait_s the answer comes when something has changed, or after that time without anything.",
	}), func(ctx context.Context, i *struct {
		Run   uint64 `query:"run" maximum:"9007199254740991" example:"4711" doc:"of the picture that the client has"`
		Seq   uint64 `query:"seq" maximum:"9007199254740991" example:"1041" doc:"likewise"`
		WaitS int    `query:"wait_s" minimum:"0" maximum:"55" default:"0" example:"30" doc:"for how long to wait for changes, in seconds"`
		Packing
	}) (*packedAnswer, error) {
		return a.pack(a.topologyChanges(ctx, i.Run, i.Seq, time.Duration(min(i.WaitS, maxWait))*time.Second), i.Packing, nil)
	})
	register(a, read, packed[apitype.TopologyHistory](a, huma.Operation{
		OperationID: "list-topology-history", Method: http.MethodGet, Path: "/v1/topology/history", Tags: tags,
		Summary:     "What happened to the network: links made and lost, next hops, nodes without a way, oldest first",
		Description: "The first item tells how things were in the beginning, where that is known. An item with anew follows a time of which nothing is known. For the whole picture of an instant, ask get-topology.",
	}), func(_ context.Context, i *struct {
		From   time.Time `query:"from" example:"2026-11-29T13:00:00Z" doc:"first instant; an hour before to when left out"`
		To     time.Time `query:"to" example:"2026-11-29T15:00:00Z" doc:"last instant; now when left out"`
		Limit  int       `query:"limit" minimum:"1" maximum:"500" default:"100" example:"100" doc:"items on a page"`
		Cursor string    `query:"cursor" maxLength:"64" example:"2026-11-29T14:03:20.5Z" doc:"next of the page before"`
		Packing
	}) (*packedAnswer, error) {
		h, err := a.topologyHistory(i.From, i.To, i.Limit, i.Cursor)
		return a.pack(h, i.Packing, err)
	})
	register(a, scope(apitype.ScopeNodesRead), huma.Operation{
		OperationID: "get-node-topology", Method: http.MethodGet, Path: "/v1/nodes/{id}/topology", Tags: tags,
		Summary: "A node in the network's picture: its links, its way to the gateway, its health, whom it cuts off", Description: known,
	}, func(ctx context.Context, i *struct {
		NodePath
		Instant
	}) (*body[apitype.NodeTopology], error) {
		n, err := a.Registry.Node(ctx, i.ID)
		if err != nil {
			return nil, err
		}
		p, err := a.picture(i.At)
		if err != nil {
			return nil, err
		}
		return answer(nodeTopology(p, n))
	})
	register(a, scope(apitype.ScopeNodesRead), huma.Operation{
		OperationID: "get-node-neighbourhood", Method: http.MethodGet, Path: "/v1/nodes/{id}/neighbourhood", Tags: tags,
		Summary:     "What a node reported last of what it sees around it",
		Description: "Made whole of what it sent since. Nothing of it is proven but who sent it.",
	}, func(ctx context.Context, i *NodePath) (*body[apitype.NodeNeighbourhood], error) {
		n, err := a.Registry.Node(ctx, i.ID)
		if err != nil {
			return nil, err
		}
		r, ok := a.Topology.Report(n.ID)
		if !ok {
			return nil, apitype.Refuse(http.StatusNotFound, apitype.ProblemNotRecorded, "%s has not reported since the gateway started", n.Name)
		}
		out := apitype.NodeNeighbourhood{Report: r}
		if is, ok := a.Topology.Picture().Node(n.ID); ok {
			out.Heard = is.Heard
		}
		return answer(out, nil)
	})
}

// picture is the network as it is, or was at an instant.
func (a *API) picture(at time.Time) (graph.Picture, error) {
	p, err := a.Topology.Picture(), error(nil)
	if !at.IsZero() {
		p, err = a.Topology.At(at)
	}
	switch {
	case errors.Is(err, topology.ErrNotRecorded):
		return p, apitype.Refuse(http.StatusNotFound, apitype.ProblemNotRecorded, "%v", err)
	case errors.Is(err, topology.ErrFuture):
		return p, apitype.Refuse(http.StatusUnprocessableEntity, "", "at: %v", err)
	case err == nil && p.Seq == 0:
		return p, apitype.Refuse(http.StatusServiceUnavailable, "", "the first picture since the start is being drawn").After(time.Second)
	}
	return p, err
}

func (a *API) topologyChanges(ctx context.Context, run, seq uint64, wait time.Duration) apitype.TopologyChanges {
	late := time.After(wait)
	for {
		_, next := a.Topology.News() // before the look: what changes meanwhile closes it
		d, ok := a.Topology.Since(run, seq)
		switch {
		case !ok:
			p := a.Topology.Picture()
			return apitype.TopologyChanges{Run: p.Run, Seq: p.Seq, Picture: &p}
		case d.Len() > 0:
			return apitype.TopologyChanges{Run: d.Run, Seq: d.Seq, Delta: &d}
		}
		select {
		case <-next:
		case <-late:
			return apitype.TopologyChanges{Run: d.Run, Seq: d.Seq}
		case <-ctx.Done():
			return apitype.TopologyChanges{Run: d.Run, Seq: d.Seq}
		}
	}
}

func (a *API) topologyHistory(from, to time.Time, limit int, cursor string) (h apitype.TopologyHistory, err error) {
	if to.IsZero() {
		to = a.Clock.Now()
	}
	if from.IsZero() {
		from = to.Add(-time.Hour)
	}
	if cursor != "" {
		if from, err = time.Parse(time.RFC3339Nano, cursor); err != nil {
			return h, notACursor()
		}
	}
	if to.Before(from) {
		return h, apitype.Refuse(http.StatusUnprocessableEntity, "", "to: expected an instant after %s, got %s", from.UTC().Format(time.RFC3339), to.UTC().Format(time.RFC3339))
	}
	var more bool
	if h.Items, more, err = a.Topology.Moments(from, to, limit, cursor != ""); err == nil && more {
		h.Next = h.Items[len(h.Items)-1].At.UTC().Format(time.RFC3339Nano)
	}
	return h, err
}

func nodeTopology(p graph.Picture, n apitype.Node) (apitype.NodeTopology, error) {
	is, ok := p.Node(n.ID)
	if !ok {
		return apitype.NodeTopology{}, apitype.Refuse(http.StatusNotFound, apitype.ProblemNotRecorded, "%s is not in the picture of %s", n.Name, p.At.UTC().Format(time.RFC3339))
	}
	out := apitype.NodeTopology{At: p.At, Node: is, Path: p.Path(n.ID), Links: []graph.Link{}}
	if r, ok := p.Route(n.ID); ok {
		out.Route = &r
	}
	for _, l := range p.Links {
		if l.A == n.ID || l.B == n.ID {
			out.Links = append(out.Links, l)
		}
	}
	if c, ok := p.Cut(graph.CutID{Node: n.ID}); ok {
		out.Cut = &c
	}
	return out, nil
}

// packedAnswer is a JSON answer that may be packed: a picture of 250 nodes is half a
// megabyte, which takes half a minute on a slow link.
type packedAnswer struct {
	ContentType string `header:"Content-Type"`
	Encoding    string `header:"Content-Encoding"`
	Vary        string `header:"Vary"`
	Body        []byte
}

// packFrom is from how many octets on an answer is packed.
const packFrom = 2 << 10

// packed documents an operation that answers with a T by pack.
func packed[T any](a *API, op huma.Operation) huma.Operation {
	schema := a.huma.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[T](), true, op.OperationID)
	op.Responses = map[string]*huma.Response{"200": {Description: "OK", Content: map[string]*huma.MediaType{"application/json": {Schema: schema}}}}
	return op
}

func (a *API) pack(v any, how Packing, err error) (*packedAnswer, error) {
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("answer: %w", err)
	}
	out := &packedAnswer{ContentType: "application/json", Vary: "Accept-Encoding", Body: b}
	if len(b) < packFrom || !takesGzip(how.Accept) {
		return out, nil
	}
	var small bytes.Buffer
	w, ok := a.packers.Get().(*gzip.Writer)
	if !ok {
		if w, err = gzip.NewWriterLevel(&small, gzip.BestSpeed); err != nil {
			return nil, fmt.Errorf("answer: %w", err)
		}
	}
	defer a.packers.Put(w)
	w.Reset(&small)
	if _, err := w.Write(b); err != nil {
		return nil, fmt.Errorf("answer: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("answer: %w", err)
	}
	out.Encoding, out.Body = "gzip", small.Bytes()
	return out, nil
}

// takesGzip reads an Accept-Encoding (RFC 9110, 12.5.3).
func takesGzip(accept string) bool {
	for part := range strings.SplitSeq(accept, ",") {
		name, weight, _ := strings.Cut(strings.ReplaceAll(part, " ", ""), ";")
		if strings.EqualFold(name, "gzip") {
			return weight == "" || strings.Trim(strings.TrimPrefix(weight, "q="), "0.") != ""
		}
	}
	return false
}

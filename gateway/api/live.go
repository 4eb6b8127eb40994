package api

import (
	"net/http"
	"reflect"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"halo.internal/model"
	"halo.internal/model/apitype"
)

// liveRoute adds the WebSocket of people's programs, which huma does not serve, and
// documents it.
func (a *API) liveRoute() {
	const path, operation = "/v1/live", "live"
	a.mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
		if !protected(r) {
			refusePlain(w)
			return
		}
		token, remote := liveToken(r), remoteOf(r)
		p, err := a.authenticate(r.Context(), operation, token, remote)
		if err == nil {
			err = a.Live.Serve(&textProblem{ResponseWriter: w}, r, p, strings.TrimPrefix(token, "Bearer "), remote)
		}
		if err != nil {
			apitype.WriteProblem(w, a.problem(r.Context(), operation, err))
		}
	})
	doc := a.huma.OpenAPI()
	schema := func(t reflect.Type) *huma.Schema { return doc.Components.Schemas.Schema(t, true, "") }
	messages := &huma.Schema{OneOf: []*huma.Schema{schema(reflect.TypeFor[apitype.LiveMessage]()), schema(reflect.TypeFor[apitype.LiveRequest]())}}
	items := &huma.Schema{}
	for _, t := range []reflect.Type{reflect.TypeFor[apitype.Event](), reflect.TypeFor[apitype.LiveReadings](), reflect.TypeFor[apitype.Node](), reflect.TypeFor[apitype.Registration](), reflect.TypeFor[model.Recovery](), reflect.TypeFor[apitype.TopologyPiece](), reflect.TypeFor[apitype.Job]()} {
		items.AnyOf = append(items.AnyOf, schema(t))
	}
	doc.Components.Schemas.Map()["LiveMessage"].Properties["items"].Items = items
	doc.AddOperation(&huma.Operation{
		OperationID: operation, Method: http.MethodGet, Path: path, Tags: []string{"live"},
		Summary: "What changes, as it changes: a WebSocket",
		Description: anybody.describe("The client subscribes to topics with LiveRequests, and gets LiveMessages; docs/live.md says how. Each topic needs its scope. " +
			"A browser, which can set no header, offers the subprotocols halo.live.v1 and halo.bearer.TOKEN; the first is chosen."),
		Responses: map[string]*huma.Response{
			"101": {Description: "Switching Protocols: one JSON text message each, LiveRequest to the gateway and LiveMessage from it", Content: map[string]*huma.MediaType{"application/json": {Schema: messages}}},
			"426": {Description: "Not a WebSocket request", Content: problemContent(a.huma.OpenAPI().Components.Schemas)},
		},
		Security: []map[string][]string{{"bearer": {}}},
		Metadata: map[string]any{accessKey: anybody},
	})
}

// liveToken returns what would be in Authorization: a browser cannot set that, and offers
// its token as a subprotocol. It is never in the URL, which ends up in logs.
func liveToken(r *http.Request) string {
	if h := r.Header.Get("Authorization"); h != "" {
		return h
	}
	for _, field := range r.Header.Values("Sec-WebSocket-Protocol") {
		for p := range strings.SplitSeq(field, ",") {
			if token, ok := strings.CutPrefix(strings.TrimSpace(p), apitype.LiveBearer); ok {
				return "Bearer " + token
			}
		}
	}
	return ""
}

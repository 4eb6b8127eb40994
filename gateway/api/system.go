package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"halo.internal/gateway/audit"
	"halo.internal/gateway/epoch"
	"halo.internal/health"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/bundle"
	"halo.internal/model/version"
)

type healthAnswer struct {
	Status int
	Body   health.Report
}

// rawAnswer is an answer that is no JSON of ours.
type rawAnswer struct {
	ContentType string `header:"Content-Type"`
	CSP         string `header:"Content-Security-Policy"`
	Body        []byte
}

func (a *API) systemRoutes() {
	register(a, open, huma.Operation{
		OperationID: "get-health", Method: http.MethodGet, Path: "/health", Tags: []string{"system"},
		Summary:     "Is the gateway well, and if not, what is missing",
		Description: "200 while it works, with less than all or not; 503 otherwise. The report is in both.",
	}, func(context.Context, *nothing) (*healthAnswer, error) {
		r := a.Health.Report()
		status := http.StatusOK
		if r.State == health.Failed || r.State == health.Starting {
			status = http.StatusServiceUnavailable
		}
		return &healthAnswer{status, r}, nil
	})
	register(a, open, huma.Operation{
		OperationID: "get-capabilities", Method: http.MethodGet, Path: "/capabilities", Tags: []string{"system"},
		Summary: "What this gateway can do",
	}, func(ctx context.Context, _ *nothing) (*body[apitype.Capabilities], error) {
		claimed, err := a.Auth.Claimed(ctx)
		_, mesh := a.Mesh.Last()
		return answer(apitype.Capabilities{
			API: "v1", Version: version.Get().Version, Claimed: claimed, Mesh: mesh, Features: a.can,
		}, err)
	})
	register(a, open, huma.Operation{
		OperationID: "get-openapi", Method: http.MethodGet, Path: "/openapi.json", Tags: []string{"system"},
		Summary: "This API as an OpenAPI 3.1 document",
	}, func(context.Context, *nothing) (*rawAnswer, error) {
		return &rawAnswer{ContentType: "application/vnd.oai.openapi+json;version=3.1", Body: a.openapi}, nil
	})
	register(a, open, huma.Operation{
		OperationID: "get-docs", Method: http.MethodGet, Path: "/docs", Tags: []string{"system"},
		Summary: "This API as a page to read",
	}, func(context.Context, *nothing) (*rawAnswer, error) {
		return &rawAnswer{ContentType: "text/html; charset=utf-8", CSP: docsPolicy, Body: a.docs}, nil
	})
	register(a, scope(apitype.ScopeSystemRead), huma.Operation{
		OperationID: "get-system-info", Method: http.MethodGet, Path: "/v1/system/info", Tags: []string{"system"},
		Summary: "The gateway: identity, build, clock, databases",
	}, func(ctx context.Context, _ *nothing) (*body[apitype.SystemInfo], error) { return answer(a.info(ctx)) })
	register(a, admin, huma.Operation{
		OperationID: "get-network", Method: http.MethodGet, Path: "/v1/network", Tags: []string{"system"},
		Summary:     "The network, and the bundle for new cards",
		Description: "The bundle holds the mesh secret. A join token from create-join-token may be added to it as [join] token.",
	}, func(ctx context.Context, _ *nothing) (*body[apitype.Network], error) { return answer(a.network(ctx)) })
	register(a, admin, huma.Operation{
		OperationID: "get-network-epoch", Method: http.MethodGet, Path: "/v1/network/epoch", Tags: []string{"system"},
		Summary: "The gateway's epoch, and a higher one if nodes have heard one",
	}, func(context.Context, *nothing) (*body[apitype.NetworkEpoch], error) { return answer(a.epoch(), nil) })
	register(a, admin, huma.Operation{
		OperationID: "raise-network-epoch", Method: http.MethodPost, Path: "/v1/network/epoch/raise", Tags: []string{"system"},
		Summary:     "Have this gateway replace every other card of it for good",
		Description: "The epoch becomes higher than it is and than nodes have heard. Nodes believe this gateway again, join it anew, and refuse a card with a lower epoch from then on. With above in the body it can be asked for again when the answer was lost: an epoch that is higher than that stays.",
	}, func(ctx context.Context, i *struct{ Body *apitype.RaiseEpoch }) (*body[apitype.NetworkEpoch], error) {
		var above *uint64
		if i.Body != nil {
			above = i.Body.Above
		}
		return answer(a.raiseEpoch(ctx, above))
	})
}

func (a *API) info(ctx context.Context) (apitype.SystemInfo, error) {
	id := a.Registry.Gateway()
	n, err := a.Registry.Node(ctx, id)
	if err != nil {
		return apitype.SystemInfo{}, err
	}
	sqlite, err := a.Config.Config.Version(ctx)
	if err != nil {
		return apitype.SystemInfo{}, err
	}
	config, err := a.Config.Config.Bytes(ctx)
	if err != nil {
		return apitype.SystemInfo{}, err
	}
	return apitype.SystemInfo{
		Node: id, Name: n.Name, Role: n.Role, Network: a.networkName(), NetworkKey: a.Registry.Network().Base64(), CASHA256: a.CASHA256,
		Build: version.Get(), Started: a.started, Time: a.Clock.Now(), Clock: a.Clock.Quality(), Boot: a.Boot, SQLite: sqlite,
		Config:    apitype.Database{Bytes: config, Commits: a.Config.Config.Commits()},
		Telemetry: apitype.Database{Bytes: a.Telemetry.Bytes(), Budget: a.Telemetry.Limit(), Thinned: a.Telemetry.Thinned(), Commits: a.Telemetry.Commits()},
	}, nil
}

func (a *API) epoch() apitype.NetworkEpoch {
	if s, ok := a.Mesh.Last(); ok {
		a.Epoch.Hear(s.HeardEpoch)
	}
	return apitype.NetworkEpoch{Epoch: a.Epoch.Now(), Heard: a.Epoch.Heard()}
}

func (a *API) raiseEpoch(ctx context.Context, above *uint64) (apitype.NetworkEpoch, error) {
	old := a.epoch()
	if above != nil && old.Epoch > *above {
		return old, nil // asked for once more
	}
	if _, ok := a.Mesh.Last(); !ok && !a.Alone {
		return old, apitype.Refuse(http.StatusServiceUnavailable, apitype.ProblemMeshAbsent, "halo-mesh does not answer: it knows which epoch the nodes have heard, and a raise that is not above that one has no effect; nothing was changed").After(5 * time.Second)
	}
	if a.Mesh.Aside() {
		return old, apitype.Refuse(http.StatusConflict, apitype.ProblemGatewayTwin, "another gateway with this one's key serves the network, and nodes stay with it whatever this one's epoch; "+
			"switch the other off first: this one then serves by itself; nothing was changed")
	}
	now, raised, err := uint64(0), true, error(nil)
	if above == nil {
		now, err = a.Epoch.Raise(ctx)
	} else {
		now, raised, err = a.Epoch.RaiseAbove(ctx, *above)
	}
	switch {
	case errors.Is(err, epoch.ErrHighest):
		return old, apitype.Refuse(http.StatusConflict, apitype.ProblemEpochKept, "%v", err)
	case err != nil:
		return old, err
	case !raised:
		return a.epoch(), nil
	}
	a.Mesh.Look()
	a.Events.Add("gateway.epoch-raised", model.Warning, "", fmt.Sprintf("the epoch went from %d to %d; cards of this gateway with a lower one are refused from now on", old.Epoch, now),
		map[string]string{"epoch": fmt.Sprint(old.Epoch), "heard": fmt.Sprint(old.Heard), "raised": fmt.Sprint(now), "by": callerOf(ctx).Actor()})
	a.changed()
	return a.epoch(), nil
}

func (a *API) networkName() string {
	if a.Bundle != nil {
		return a.Bundle.Network
	}
	s, _ := a.Mesh.Last()
	return s.Network
}

func (a *API) network(ctx context.Context) (apitype.Network, error) {
	n := apitype.Network{
		Name: a.networkName(), NetworkKey: a.Registry.Network().Base64(), Gateway: a.Registry.Gateway(),
		Epoch: a.Registry.Epoch(), CA: string(a.CA), CASHA256: a.CASHA256,
	}
	if b := a.Bundle; b != nil {
		mesh, err := a.Radios.MeshSecret(ctx)
		switch {
		case a.Alone:
			mesh = b.Mesh
		case err != nil: // a card with a secret that does not hold any more would never join
			return n, ofRadio(err)
		}
		n.Country, n.Mesh, n.Routing = b.Country, mesh.SSID, mesh.Routing
		card := bundle.Bundle{
			Network: b.Network, Role: model.RoleNode, Country: b.Country, Mesh: mesh,
			Gateway: bundle.Gateway{PublicKey: a.Registry.Network().Base64()},
		}
		text, err := card.Marshal()
		if err != nil {
			return n, err
		}
		n.Bundle = string(text)
		by := callerOf(ctx).Actor()
		a.Events.Add(audit.SecretShown, model.Info, "", "the mesh's secret was shown to "+by+", in a bundle for new cards", map[string]string{"by": by})
	}
	return n, nil
}

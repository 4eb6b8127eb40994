package gateway

import (
	"context"
	"time"

	"halo.internal/gateway/auth"
	"halo.internal/gateway/events"
	"halo.internal/gateway/live"
	"halo.internal/gateway/registry"
	"halo.internal/model"
)

// recoveriesEvery is how often halo-mesh is asked how it recovers while somebody looks.
const recoveriesEvery = 2 * time.Second

// newLive makes what tells people's programs of changes.
func (d *daemon) newLive(p *prepared, log *events.Log, latest live.Readings, nodes *registry.Registry, logins *auth.Service, recoveries func(context.Context) ([]model.Recovery, error)) (*live.Hub, *live.Recoveries) {
	r := live.NewRecoveries(recoveriesEvery, recoveries)
	return live.New(live.Config{
		Topics: live.Topics(live.Sources{Events: log, Epoch: p.epoch.Now, Latest: latest, Registry: nodes, Recoveries: r}),
		Authenticate: func(ctx context.Context, token string) (auth.Principal, error) {
			return logins.Authenticate(ctx, "Bearer "+token)
		},
		Node: func(ctx context.Context, ref string) (string, error) {
			n, err := nodes.Node(ctx, ref)
			return n.ID, err
		},
		Log: d.Log,
	}), r
}

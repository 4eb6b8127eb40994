package gateway

import (
	"context"
	"time"

	"halo.internal/gateway/auth"
	"halo.internal/gateway/live"
)

// recoveriesEvery is how often halo-mesh is asked how it recovers while somebody looks.
const recoveriesEvery = 2 * time.Second

// newLive makes what tells people's programs of changes.
func (d *daemon) newLive(sources live.Sources, logins *auth.Service) *live.Hub {
	return live.New(live.Config{
		Topics: live.Topics(sources),
		Authenticate: func(ctx context.Context, token string) (auth.Principal, error) {
			return logins.Authenticate(ctx, "Bearer "+token)
		},
		Node: func(ctx context.Context, ref string) (string, error) {
			n, err := sources.Registry.Node(ctx, ref)
			return n.ID, err
		},
		Log: d.Log,
	})
}

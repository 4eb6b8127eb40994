package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"halo.internal/gateway/settings"
	"halo.internal/model/apitype"
)

func (a *API) settingsRoutes() {
	tags := []string{"settings"}
	register(a, scope(apitype.ScopeSystemRead), huma.Operation{
		OperationID: "get-settings", Method: http.MethodGet, Path: "/v1/settings", Tags: tags,
		Summary: "What people have set, and the rest as the release has it",
	}, func(_ context.Context, c *IfNoneMatch) (*tagged[apitype.Settings], error) {
		now := a.Settings.Get()
		return unlessHad(*c, now, settings.Tag(now), nil)
	})
	register(a, admin, huma.Operation{
		OperationID: "update-settings", Method: http.MethodPatch, Path: "/v1/settings", Tags: tags,
		Summary: "Change settings: those that are named", Description: "They hold at once. All of a change holds or, when something is wrong with it, nothing.",
	}, func(ctx context.Context, i *struct {
		IfMatch
		In[apitype.UpdateSettings]
	}) (*tagged[apitype.Settings], error) {
		callerOf(ctx).target = settings.Names(i.Body)
		m, err := i.match()
		if err != nil {
			return nil, err
		}
		now, err := a.Settings.UpdateIf(ctx, m, i.Body)
		if err == nil {
			a.changed()
		}
		return tag(now, settings.Tag(now), err)
	})
}

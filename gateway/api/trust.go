package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"halo.internal/model/apitype"
)

func (a *API) trustRoutes() {
	tags := []string{"trust"}
	register(a, admin, huma.Operation{
		OperationID: "list-trusted-macs", Method: http.MethodGet, Path: "/v1/trust/macs", Tags: tags,
		Summary: "MACs by which devices are admitted",
	}, func(ctx context.Context, p *Page) (*body[apitype.TrustedMACList], error) {
		return answer(a.Registry.TrustedMACs(ctx, p.Cursor, p.Limit))
	})
	register(a, admin, huma.Operation{
		OperationID: "trust-mac", Method: http.MethodPost, Path: "/v1/trust/macs", Tags: tags,
		Summary: "Admit the device with this MAC without token and approval", DefaultStatus: http.StatusCreated,
		Description: "A MAC is weak proof: it can be heard and imitated. Each admits one device. One that is on the list already stays as it is.",
	}, func(ctx context.Context, i *In[apitype.TrustMAC]) (*body[apitype.TrustedMAC], error) {
		c := callerOf(ctx)
		m, err := a.Registry.TrustMAC(ctx, c.Actor(), i.Body)
		if err == nil {
			c.target = m.MAC
			a.changed()
		}
		return answer(m, err)
	})
	register(a, admin, huma.Operation{
		OperationID: "distrust-mac", Method: http.MethodDelete, Path: "/v1/trust/macs/{mac}", Tags: tags,
		Summary: "Take a MAC off the list", DefaultStatus: http.StatusNoContent,
		Description: "A node that was admitted by it stays: revoke it, if that is meant.",
	}, func(ctx context.Context, i *struct {
		MAC string `path:"mac" maxLength:"32"`
	}) (*nothing, error) {
		err := a.Registry.DistrustMAC(ctx, i.MAC)
		if err == nil {
			a.withdrawn()
		}
		return nil, err
	})
}

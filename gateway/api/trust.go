package api

import (
	"context"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"halo.internal/gateway/registry"
	"halo.internal/model/apitype"
)

// MACPath names a MAC in a path.
type MACPath struct {
	MAC string `path:"mac" maxLength:"32" doc:"six octets in hex, e.g. 02:00:00:00:00:01"`
}

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
	}, func(ctx context.Context, i *In[apitype.TrustMAC]) (*tagged[apitype.TrustedMAC], error) {
		c := callerOf(ctx)
		m, err := a.Registry.TrustMAC(ctx, c.Actor(), i.Body)
		if err != nil {
			return nil, err
		}
		c.target = m.MAC
		a.changed()
		return &tagged[apitype.TrustedMAC]{http.StatusCreated, registry.MACTag(m), m}, nil
	})
	register(a, admin, huma.Operation{
		OperationID: "get-trusted-mac", Method: http.MethodGet, Path: "/v1/trust/macs/{mac}", Tags: tags,
		Summary: "A MAC by which a device is admitted", Description: "Its ETag is of the entry, not of who came with it.",
	}, func(ctx context.Context, i *MACPath) (*tagged[apitype.TrustedMAC], error) {
		m, err := a.Registry.TrustedMAC(ctx, i.MAC)
		return tag(m, registry.MACTag(m), err)
	})
	register(a, admin, huma.Operation{
		OperationID: "update-trusted-mac", Method: http.MethodPatch, Path: "/v1/trust/macs/{mac}", Tags: tags,
		Summary: "Change what is noted of a MAC",
	}, func(ctx context.Context, i *struct {
		MACPath
		IfMatch
		In[apitype.UpdateTrustedMAC]
	}) (*tagged[apitype.TrustedMAC], error) {
		c, err := i.match()
		if err != nil {
			return nil, err
		}
		m, err := a.Registry.UpdateTrustedMAC(ctx, i.MAC, c, i.Body)
		if err == nil {
			a.changed()
		}
		return tag(m, registry.MACTag(m), err)
	})
	register(a, admin, huma.Operation{
		OperationID: "distrust-mac", Method: http.MethodDelete, Path: "/v1/trust/macs/{mac}", Tags: tags,
		Summary: "Take a MAC off the list", DefaultStatus: http.StatusNoContent,
		Description: "A node that was admitted by it stays: revoke it, if that is meant.",
	}, func(ctx context.Context, i *struct {
		MACPath
		IfMatch
	}) (*nothing, error) {
		c, err := i.match()
		if err == nil {
			err = a.Registry.DistrustMAC(ctx, i.MAC, c)
		}
		if err == nil {
			a.withdrawn()
		}
		return nil, err
	})
}

package api

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"halo.internal/gateway/etag"
	"halo.internal/gateway/registry"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

// reservationRoutes are those of addresses that the gateway keeps for single hosts.
// halo-mesh has them; the API judges conditions between a look and the change, one
// request at a time, so that a change at the gateway's own door may come in between.
func (a *API) reservationRoutes() {
	read, write, tags := scope(apitype.ScopeSystemRead), scope(apitype.ScopeNodesWrite), []string{"network"}
	register(a, read, huma.Operation{
		OperationID: "list-reservations", Method: http.MethodGet, Path: "/v1/network/reservations", Tags: tags,
		Summary: "Addresses that the gateway keeps for single hosts: clients of its own, and guests of the mesh",
	}, func(ctx context.Context, p *Page) (*body[apitype.ReservationList], error) {
		l, err := a.Services.Reservations(ctx)
		if err != nil {
			return nil, ofRadio(err)
		}
		items, next, err := pageOf(l, *p, 2, func(r model.Reservation) []string { return []string{addressKey(r.Address), r.MAC} })
		return answer(apitype.ReservationList{Items: items, Next: next}, err)
	})
	register(a, read, huma.Operation{
		OperationID: "get-reservation", Method: http.MethodGet, Path: "/v1/network/reservations/{mac}", Tags: tags,
		Summary: "The address that is kept for a host", Description: "Its ETag is of address and name.",
	}, func(ctx context.Context, i *MACPath) (*tagged[model.Reservation], error) {
		r, err := a.reservation(ctx, i.MAC)
		if err == nil && r == nil {
			err = apitype.Refuse(http.StatusNotFound, "", "no address is kept for %.40q", i.MAC)
		}
		if err != nil {
			return nil, err
		}
		return tag(*r, reservationTag(*r), nil)
	})
	register(a, write, huma.Operation{
		OperationID: "put-reservation", Method: http.MethodPut, Path: "/v1/network/reservations", Tags: tags,
		Summary: "Keep an address for a host, in the place of what was kept for it", DefaultStatus: http.StatusNoContent,
		Description: "It holds at once. The address is one of 10.43.0.0/24, the gateway's clients', or of 10.41.0.0/16, the mesh's, where guests on bridged ports are. 409: another host has it.",
	}, func(ctx context.Context, i *struct {
		IfMatch
		New string `header:"If-None-Match" maxLength:"8" doc:"*: only if nothing is kept for the host yet (412, etag-mismatch)"`
		In[model.Reservation]
	}) (*changedTag, error) {
		callerOf(ctx).target = i.Body.MAC
		err := a.reserve(ctx, i.Body.MAC, i.IfMatch, i.New, func() error { return a.Services.PutReservation(ctx, i.Body) })
		if err != nil {
			return nil, err
		}
		r, err := a.reservation(ctx, i.Body.MAC)
		if err != nil || r == nil {
			return &changedTag{}, nil // it is done all the same
		}
		return &changedTag{reservationTag(*r)}, nil
	})
	register(a, write, huma.Operation{
		OperationID: "delete-reservation", Method: http.MethodDelete, Path: "/v1/network/reservations/{mac}", Tags: tags,
		Summary: "Give the address that is kept for a client of the gateway back", DefaultStatus: http.StatusNoContent,
	}, func(ctx context.Context, i *struct {
		MACPath
		IfMatch
	}) (*nothing, error) {
		callerOf(ctx).target = i.MAC
		return nil, a.reserve(ctx, i.MAC, i.IfMatch, "", func() error { return a.Services.DeleteReservation(ctx, i.MAC) })
	})
}

// reservationTag returns the entity tag of a reservation; whether it waits is none of
// it.
func reservationTag(r model.Reservation) string {
	r.Waits = false
	return etag.Of(r)
}

// reservation returns what is kept for a host, or nil.
func (a *API) reservation(ctx context.Context, mac string) (*model.Reservation, error) {
	mac, err := registry.ParseMAC(mac)
	if err != nil {
		return nil, err
	}
	list, err := a.Services.Reservations(ctx)
	if err != nil {
		return nil, ofRadio(err)
	}
	i := slices.IndexFunc(list, func(r model.Reservation) bool { return strings.EqualFold(r.MAC, mac) })
	if i < 0 {
		return nil, nil
	}
	return &list[i], nil
}

// reserve makes a change of what is kept for a host, if it meets the conditions.
func (a *API) reserve(ctx context.Context, mac string, c IfMatch, onlyNew string, change func() error) error {
	m, err := c.match()
	if err != nil {
		return err
	}
	n, err := etag.Parse("If-None-Match", onlyNew)
	if err != nil {
		return err
	}
	a.reserving.Lock()
	defer a.reserving.Unlock()
	if m.Given() || n.Given() {
		r, err := a.reservation(ctx, mac)
		switch {
		case err != nil:
			return err
		case r == nil:
			err = m.CheckNone()
		case n.Has(reservationTag(*r)):
			err = apitype.Refuse(http.StatusPreconditionFailed, apitype.ProblemETag, "If-None-Match: %s is kept for %s already", r.Address, r.MAC)
		default:
			err = m.Check(reservationTag(*r))
		}
		if err != nil {
			return err
		}
	}
	return ofRadio(change())
}

package api

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"halo.internal/gateway/etag"
	"halo.internal/gateway/firewall"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/order"
)

// RulePath names a part of the firewall's policy in a path.
type RulePath struct {
	ID string `path:"id" maxLength:"24" doc:"its name; of a forwarding both zones, such as clients-mesh" example:"no-mail"`
}

// partEnd is the input of routes that take a part of the draft away.
type partEnd struct {
	RulePath
	IfMatch
}

// firewallAnswer tells what is edited with its entity tag. One that has the connection of
// the request end has the next request, which may confirm what this one did, come by a new
// one.
type firewallAnswer struct {
	ETag       string `header:"ETag" doc:"of the draft, for If-Match"`
	Connection string `header:"Connection"`
	Body       apitype.Firewall
}

func firewallNow(f apitype.Firewall, err error) (*firewallAnswer, error) {
	if err != nil {
		return nil, err
	}
	return &firewallAnswer{ETag: firewall.Tag(f), Body: f}, nil
}

func (a *API) firewallCaller(ctx context.Context) firewall.Caller {
	c := callerOf(ctx)
	local, since := connection(ctx)
	if c.remote.IsLoopback() { // nobody within the device is locked out
		return firewall.Caller{Actor: c.Actor()}
	}
	return firewall.Caller{Actor: c.Actor(), Remote: c.remote, Local: local, Since: since}
}

func (a *API) firewallRoutes() {
	tags := []string{"firewall"}
	read := scope(apitype.ScopeSystemRead)
	const how = "What is edited is a draft: it holds when it is applied, and for good when that is confirmed."
	register(a, read, huma.Operation{
		OperationID: "get-firewall-policy", Method: http.MethodGet, Path: "/v1/firewall", Tags: tags,
		Summary: "What people have set of the gateway's firewall: what holds, what is edited, and what is on trial", Description: "Its ETag is of the draft, which all that edits it changes.",
	}, func(ctx context.Context, _ *nothing) (*firewallAnswer, error) {
		return firewallNow(a.Firewall.State(ctx))
	})
	register(a, admin, huma.Operation{
		OperationID: "discard-firewall-draft", Method: http.MethodDelete, Path: "/v1/firewall/draft", Tags: tags,
		Summary: "Give up what was edited and not applied",
	}, func(ctx context.Context, i *IfMatch) (*firewallAnswer, error) {
		callerOf(ctx).target = "draft"
		m, err := i.match()
		if err != nil {
			return nil, err
		}
		return firewallNow(a.Firewall.Discard(ctx, m))
	})
	register(a, admin, huma.Operation{
		OperationID: "preview-firewall", Method: http.MethodPost, Path: "/v1/firewall/preview", Tags: tags,
		Summary:     "What the draft would change, and whom it would shut out",
		Description: "Nothing is changed. A draft that does not fit the gateway is 422.",
	}, func(ctx context.Context, _ *nothing) (*body[model.FirewallPreview], error) {
		return answer(a.Firewall.Preview(ctx, a.firewallCaller(ctx)))
	})
	register(a, admin, huma.Operation{
		OperationID: "apply-firewall", Method: http.MethodPost, Path: "/v1/firewall/apply", Tags: tags,
		Summary: "Have the draft hold, on trial",
		Description: "What held before comes back by itself unless the draft is confirmed in time, by a connection that began after it held; this answer ends its own. " +
			"It also comes back when the gateway, or a process of it, starts again. A draft that would shut out whoever asks, or what the network needs, is refused without anyway (409 firewall-locks-out).",
	}, func(ctx context.Context, i *In[apitype.ApplyFirewall]) (*firewallAnswer, error) {
		callerOf(ctx).target = "draft"
		f, err := a.Firewall.Apply(ctx, a.firewallCaller(ctx), i.Body)
		if err != nil {
			return nil, err
		}
		return &firewallAnswer{ETag: firewall.Tag(f), Connection: "close", Body: f}, nil
	})
	register(a, admin, huma.Operation{
		OperationID: "confirm-firewall", Method: http.MethodPost, Path: "/v1/firewall/confirm", Tags: tags,
		Summary: "Keep what is on trial",
	}, func(ctx context.Context, _ *nothing) (*firewallAnswer, error) {
		f, err := a.Firewall.Confirm(ctx, a.firewallCaller(ctx))
		if err == nil {
			a.withdrawn()
		}
		return firewallNow(f, err)
	})
	register(a, admin, huma.Operation{
		OperationID: "revert-firewall", Method: http.MethodPost, Path: "/v1/firewall/revert", Tags: tags,
		Summary: "End the trial: what held before holds again", Description: "The draft stays as it is.",
	}, func(ctx context.Context, _ *nothing) (*firewallAnswer, error) {
		return firewallNow(a.Firewall.Revert(ctx, a.firewallCaller(ctx)))
	})

	register(a, read, huma.Operation{
		OperationID: "list-firewall-zones", Method: http.MethodGet, Path: "/v1/firewall/zones", Tags: tags,
		Summary: "Zones of the gateway's firewall: their interfaces, what is open to them, and what was refused",
	}, func(ctx context.Context, _ *nothing) (*body[apitype.FirewallZoneList], error) {
		return answer(a.zones(ctx))
	})
	register(a, admin, huma.Operation{
		OperationID: "open-firewall-zone", Method: http.MethodPut, Path: "/v1/firewall/zones/{id}", Tags: tags,
		Summary: "Which of the gateway's services are open to a zone besides those that always are", Description: how,
	}, func(ctx context.Context, i *struct {
		ID model.Zone `path:"id" enum:"uplink,mesh,clients,overlay" doc:"the zone"`
		MustMatch
		In[apitype.OpenZone]
	}) (*firewallAnswer, error) {
		services := slices.Compact(slices.Sorted(slices.Values(i.Body.Services)))
		return a.edit(ctx, i.match, "zone "+string(i.ID), func(p *model.FirewallPolicy) error {
			p.Openings = slices.DeleteFunc(p.Openings, func(o model.ZoneOpening) bool { return o.Zone == i.ID })
			if len(services) > 0 {
				p.Openings = append(p.Openings, model.ZoneOpening{Zone: i.ID, Services: services})
			}
			order.By(p.Openings, func(a, b model.ZoneOpening) int { return strings.Compare(string(a.Zone), string(b.Zone)) })
			return nil
		})
	})

	register(a, read, huma.Operation{
		OperationID: "list-firewall-forwardings", Method: http.MethodGet, Path: "/v1/firewall/forwardings", Tags: tags,
		Summary: "From which zones to which connections may go through the gateway, by the draft",
	}, func(ctx context.Context, _ *nothing) (*body[apitype.FirewallForwardingList], error) {
		return answer(a.forwardings(ctx))
	})
	register(a, admin, huma.Operation{
		OperationID: "create-firewall-forwarding", Method: http.MethodPost, Path: "/v1/firewall/forwardings", Tags: tags,
		Summary: "Let connections go through the gateway from one zone to another", Description: how, DefaultStatus: http.StatusCreated,
	}, func(ctx context.Context, i *In[model.Forwarding]) (*firewallAnswer, error) {
		return a.edit(ctx, whatever, "forwarding "+i.Body.String(), func(p *model.FirewallPolicy) error {
			if !slices.Contains(p.Forwardings, i.Body) {
				p.Forwardings = append(p.Forwardings, i.Body)
			}
			return nil
		})
	})
	register(a, admin, huma.Operation{
		OperationID: "delete-firewall-forwarding", Method: http.MethodDelete, Path: "/v1/firewall/forwardings/{id}", Tags: tags,
		Summary: "Take a forwarding away", Description: how + " One that the gateway has without anybody's configuration stays; a rule can deny it.",
	}, func(ctx context.Context, i *partEnd) (*firewallAnswer, error) {
		from, to, _ := strings.Cut(i.ID, "-")
		f := model.Forwarding{From: model.Zone(from), To: model.Zone(to)}
		return a.edit(ctx, i.match, "forwarding "+f.String(), func(p *model.FirewallPolicy) error {
			k := slices.Index(p.Forwardings, f)
			if k < 0 {
				return noPart("forwarding", f.String())
			}
			p.Forwardings = slices.Delete(p.Forwardings, k, k+1)
			return nil
		})
	})
	a.ruleRoutes(tags, read, how)
	a.portForwardRoutes(tags, read, how)
}

func noPart(what, name string) error {
	return apitype.Refuse(http.StatusNotFound, "", "the draft has no %s %s", what, name)
}

func partTaken(what, name string) error {
	return apitype.Refuse(http.StatusConflict, apitype.ProblemNameTaken, "the draft has a %s %s already", what, name)
}

// edit changes the draft, for the audit log as target.
func (a *API) edit(ctx context.Context, match func() (etag.Match, error), target string, f func(*model.FirewallPolicy) error) (*firewallAnswer, error) {
	c := callerOf(ctx)
	c.target = target
	m, err := match()
	if err != nil {
		return nil, err
	}
	return firewallNow(a.Firewall.Edit(ctx, c.Actor(), m, f))
}

// whatever is the condition of those who add something: there is none.
func whatever() (etag.Match, error) { return etag.Match{}, nil }

func (a *API) ruleRoutes(tags []string, read access, how string) {
	index := func(p *model.FirewallPolicy, name string) int {
		return slices.IndexFunc(p.Rules, func(r model.FirewallRule) bool { return r.Name == name })
	}
	// place puts a rule where it belongs; at is where it was, or -1.
	place := func(p *model.FirewallPolicy, at int, r apitype.PlaceFirewallRule) error {
		if at >= 0 {
			p.Rules = slices.Delete(p.Rules, at, at+1)
		} else {
			at = len(p.Rules)
		}
		if r.Before != "" {
			if at = index(p, r.Before); at < 0 {
				return noPart("rule", r.Before)
			}
		}
		p.Rules = slices.Insert(p.Rules, at, r.FirewallRule)
		return nil
	}
	register(a, read, huma.Operation{
		OperationID: "list-firewall-rules", Method: http.MethodGet, Path: "/v1/firewall/rules", Tags: tags,
		Summary: "People's rules of the draft, in the order in which they are asked", Description: "The first that fits a new connection decides; one that is open stays open.",
	}, func(ctx context.Context, _ *nothing) (*body[apitype.FirewallRuleList], error) {
		f, err := a.Firewall.State(ctx)
		return answer(apitype.FirewallRuleList{Items: some(f.Draft.Rules)}, err)
	})
	register(a, read, huma.Operation{
		OperationID: "get-firewall-rule", Method: http.MethodGet, Path: "/v1/firewall/rules/{id}", Tags: tags, Summary: "One of people's rules of the draft",
	}, func(ctx context.Context, i *RulePath) (*body[model.FirewallRule], error) {
		f, err := a.Firewall.State(ctx)
		if err != nil {
			return nil, err
		}
		k := index(&f.Draft, i.ID)
		if k < 0 {
			return nil, noPart("rule", i.ID)
		}
		return answer(f.Draft.Rules[k], nil)
	})
	register(a, admin, huma.Operation{
		OperationID: "create-firewall-rule", Method: http.MethodPost, Path: "/v1/firewall/rules", Tags: tags,
		Summary: "Allow or deny connections", Description: how, DefaultStatus: http.StatusCreated,
	}, func(ctx context.Context, i *In[apitype.PlaceFirewallRule]) (*firewallAnswer, error) {
		return a.edit(ctx, whatever, "rule "+i.Body.Name, func(p *model.FirewallPolicy) error {
			if index(p, i.Body.Name) >= 0 {
				return partTaken("rule", i.Body.Name)
			}
			return place(p, -1, i.Body)
		})
	})
	register(a, admin, huma.Operation{
		OperationID: "update-firewall-rule", Method: http.MethodPut, Path: "/v1/firewall/rules/{id}", Tags: tags,
		Summary: "Change a rule, its name or its place", Description: how,
	}, func(ctx context.Context, i *struct {
		RulePath
		MustMatch
		In[apitype.PlaceFirewallRule]
	}) (*firewallAnswer, error) {
		return a.edit(ctx, i.match, "rule "+i.ID, func(p *model.FirewallPolicy) error {
			k := index(p, i.ID)
			switch {
			case k < 0:
				return noPart("rule", i.ID)
			case i.Body.Name != i.ID && index(p, i.Body.Name) >= 0:
				return partTaken("rule", i.Body.Name)
			case i.Body.Before == i.ID || i.Body.Before != "" && i.Body.Before == i.Body.Name:
				return apitype.Refuse(http.StatusUnprocessableEntity, "", "before: expected another rule than the one that is placed")
			}
			return place(p, k, i.Body)
		})
	})
	register(a, admin, huma.Operation{
		OperationID: "delete-firewall-rule", Method: http.MethodDelete, Path: "/v1/firewall/rules/{id}", Tags: tags,
		Summary: "Take a rule away", Description: how,
	}, func(ctx context.Context, i *partEnd) (*firewallAnswer, error) {
		return a.edit(ctx, i.match, "rule "+i.ID, func(p *model.FirewallPolicy) error {
			k := index(p, i.ID)
			if k < 0 {
				return noPart("rule", i.ID)
			}
			p.Rules = slices.Delete(p.Rules, k, k+1)
			return nil
		})
	})
}

func (a *API) portForwardRoutes(tags []string, read access, how string) {
	index := func(p *model.FirewallPolicy, name string) int {
		return slices.IndexFunc(p.PortForwards, func(f model.PortForward) bool { return f.Name == name })
	}
	register(a, read, huma.Operation{
		OperationID: "list-port-forwards", Method: http.MethodGet, Path: "/v1/firewall/port-forwards", Tags: tags,
		Summary: "Which ports of the gateway's uplinks lead to clients and nodes, by the draft",
	}, func(ctx context.Context, _ *nothing) (*body[apitype.PortForwardList], error) {
		f, err := a.Firewall.State(ctx)
		return answer(apitype.PortForwardList{Items: some(f.Draft.PortForwards)}, err)
	})
	register(a, admin, huma.Operation{
		OperationID: "create-port-forward", Method: http.MethodPost, Path: "/v1/firewall/port-forwards", Tags: tags,
		Summary: "Have a port of the uplinks lead to a client or a node", Description: how, DefaultStatus: http.StatusCreated,
	}, func(ctx context.Context, i *In[model.PortForward]) (*firewallAnswer, error) {
		return a.edit(ctx, whatever, "port forward "+i.Body.Name, func(p *model.FirewallPolicy) error {
			if index(p, i.Body.Name) >= 0 {
				return partTaken("port forward", i.Body.Name)
			}
			p.PortForwards = append(p.PortForwards, i.Body)
			return nil
		})
	})
	register(a, admin, huma.Operation{
		OperationID: "update-port-forward", Method: http.MethodPut, Path: "/v1/firewall/port-forwards/{id}", Tags: tags,
		Summary: "Change a port forward", Description: how,
	}, func(ctx context.Context, i *struct {
		RulePath
		MustMatch
		In[model.PortForward]
	}) (*firewallAnswer, error) {
		return a.edit(ctx, i.match, "port forward "+i.ID, func(p *model.FirewallPolicy) error {
			k := index(p, i.ID)
			switch {
			case k < 0:
				return noPart("port forward", i.ID)
			case i.Body.Name != i.ID && index(p, i.Body.Name) >= 0:
				return partTaken("port forward", i.Body.Name)
			}
			p.PortForwards[k] = i.Body
			return nil
		})
	})
	register(a, admin, huma.Operation{
		OperationID: "delete-port-forward", Method: http.MethodDelete, Path: "/v1/firewall/port-forwards/{id}", Tags: tags,
		Summary: "Take a port forward away", Description: how,
	}, func(ctx context.Context, i *partEnd) (*firewallAnswer, error) {
		return a.edit(ctx, i.match, "port forward "+i.ID, func(p *model.FirewallPolicy) error {
			k := index(p, i.ID)
			if k < 0 {
				return noPart("port forward", i.ID)
			}
			p.PortForwards = slices.Delete(p.PortForwards, k, k+1)
			return nil
		})
	})
}

// some is a list that is not null in JSON.
func some[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func (a *API) zones(ctx context.Context) (apitype.FirewallZoneList, error) {
	out := apitype.FirewallZoneList{Items: []apitype.FirewallZoneDetail{}, Services: []model.FirewallService{}}
	s, err := a.Services.Firewall(ctx)
	if err != nil {
		return out, ofRadio(err)
	}
	f, err := a.Firewall.State(ctx)
	if err != nil {
		return out, err
	}
	out.Services = some(s.Services)
	for _, z := range s.Zones {
		if z.Zone == "" {
			continue
		}
		zone := apitype.FirewallZoneDetail{FirewallZone: z, Opened: []string{}, Services: []model.FirewallService{}}
		for _, o := range f.Draft.Openings {
			if o.Zone == z.Zone {
				zone.Opened = o.Services
			}
		}
		for _, svc := range s.Services {
			if slices.Contains(svc.Zones, z.Zone) || slices.Contains(svc.Opened, z.Zone) {
				zone.Services = append(zone.Services, svc)
			}
		}
		out.Items = append(out.Items, zone)
	}
	return out, nil
}

func (a *API) forwardings(ctx context.Context) (apitype.FirewallForwardingList, error) {
	out := apitype.FirewallForwardingList{Items: []apitype.FirewallForwarding{}}
	s, err := a.Services.Firewall(ctx)
	if err != nil {
		return out, ofRadio(err)
	}
	f, err := a.Firewall.State(ctx)
	if err != nil {
		return out, err
	}
	for _, b := range s.Forwardings {
		out.Items = append(out.Items, apitype.FirewallForwarding{Forwarding: b, Builtin: true})
	}
	for _, o := range f.Draft.Forwardings {
		out.Items = append(out.Items, apitype.FirewallForwarding{Forwarding: o})
	}
	return out, nil
}

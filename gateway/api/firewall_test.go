package api

import (
	"context"
	"encoding/json"
	"net/http"
	"net/netip"
	"slices"
	"testing"

	"halo.internal/local"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

// loginAs logs in as a new user of that role.
func (f *fixture) loginAs(role string) string {
	f.t.Helper()
	f.want(http.StatusCreated, "POST", "/api/auth/users", apitype.CreateUser{Username: "as-" + role, Password: password, Role: role}, nil)
	return f.login("as-" + role)
}

// wall is halo-mesh's part of the firewall.
type wall struct {
	err     error
	orders  []model.FirewallOrder
	asked   model.FirewallQuestion
	preview model.FirewallPreview
}

func (w *wall) PutFirewallPolicy(_ context.Context, o model.FirewallOrder) error {
	if w.err == nil {
		w.orders = append(w.orders, o)
	}
	return w.err
}

func (w *wall) PreviewFirewall(_ context.Context, q model.FirewallQuestion) (model.FirewallPreview, error) {
	w.asked = q
	return w.preview, w.err
}

func TestFirewallRoutes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	names := func(want ...string) {
		t.Helper()
		var list apitype.FirewallRuleList
		f.want(200, "GET", "/v1/firewall/rules", nil, &list)
		got := []string{}
		for _, r := range list.Items {
			got = append(got, r.Name)
		}
		if !slices.Equal(got, want) {
			t.Errorf("rules: got %q, want %q", got, want)
		}
	}
	rule := func(name, before string) apitype.PlaceFirewallRule {
		return apitype.PlaceFirewallRule{FirewallRule: model.FirewallRule{Name: name, Action: model.Deny, From: model.ZoneUplink, To: model.ZoneLocal}, Before: before}
	}
	f.want(201, "POST", "/v1/firewall/rules", rule("a", ""), nil)
	f.want(201, "POST", "/v1/firewall/rules", rule("b", ""), nil)
	f.want(201, "POST", "/v1/firewall/rules", rule("c", "a"), nil)
	f.want(409, "POST", "/v1/firewall/rules", rule("c", ""), nil)
	f.want(404, "POST", "/v1/firewall/rules", rule("d", "x"), nil)
	f.want(422, "POST", "/v1/firewall/rules", rule("halo-d", ""), nil)
	f.want(422, "POST", "/v1/firewall/rules", map[string]any{"name": "d", "action": "maybe", "from": "uplink", "to": "local"}, nil)
	names("c", "a", "b")
	f.headers = map[string]string{"If-Match": "*"} // conditions have a test of their own
	f.want(200, "PUT", "/v1/firewall/rules/b", rule("b", "c"), nil)
	f.want(422, "PUT", "/v1/firewall/rules/b", rule("b", "b"), nil)
	f.want(409, "PUT", "/v1/firewall/rules/b", rule("a", ""), nil)
	f.want(200, "PUT", "/v1/firewall/rules/a", rule("z", ""), nil)
	names("b", "c", "z")
	f.want(200, "DELETE", "/v1/firewall/rules/c", nil, nil)
	f.want(404, "DELETE", "/v1/firewall/rules/c", nil, nil)
	var one model.FirewallRule
	if f.want(200, "GET", "/v1/firewall/rules/z", nil, &one); one.Name != "z" {
		t.Errorf("got %+v", one)
	}
	f.want(404, "GET", "/v1/firewall/rules/c", nil, nil)

	web := model.PortForward{Name: "web", Proto: "tcp", Port: model.SinglePort(8081), To: netip.MustParseAddr("10.43.0.9"), ToPort: 80}
	f.want(201, "POST", "/v1/firewall/port-forwards", web, nil)
	f.want(409, "POST", "/v1/firewall/port-forwards", web, nil)
	web.Port = model.PortRange{First: 8081, Last: 8082}
	f.want(422, "PUT", "/v1/firewall/port-forwards/web", web, nil) // a range keeps its numbers
	web.ToPort = 0
	f.want(200, "PUT", "/v1/firewall/port-forwards/web", web, nil)
	f.want(404, "PUT", "/v1/firewall/port-forwards/x", web, nil)
	var ports apitype.PortForwardList
	if f.want(200, "GET", "/v1/firewall/port-forwards", nil, &ports); len(ports.Items) != 1 || ports.Items[0].Port != web.Port {
		t.Errorf("port forwards: got %+v", ports)
	}

	way := model.Forwarding{From: model.ZoneClients, To: model.ZoneMesh}
	f.want(201, "POST", "/v1/firewall/forwardings", way, nil)
	f.want(422, "POST", "/v1/firewall/forwardings", map[string]string{"from": "moon", "to": "mesh"}, nil)
	f.want(404, "DELETE", "/v1/firewall/forwardings/mesh-clients", nil, nil)
	f.want(404, "DELETE", "/v1/firewall/forwardings/mesh-moon", nil, nil)
	f.want(200, "PUT", "/v1/firewall/zones/clients", apitype.OpenZone{Services: []string{"field", "door", "field"}}, nil)
	f.want(422, "PUT", "/v1/firewall/zones/local", apitype.OpenZone{}, nil)

	house := &house{}
	f.Services = house
	var zones apitype.FirewallZoneList
	if f.want(200, "GET", "/v1/firewall/zones", nil, &zones); len(zones.Items) != 1 || !slices.Equal(zones.Items[0].Opened, []string{"door", "field"}) || len(zones.Items[0].Services) != 1 {
		t.Errorf("zones: got %+v", zones)
	}
	var ways apitype.FirewallForwardingList
	if f.want(200, "GET", "/v1/firewall/forwardings", nil, &ways); len(ways.Items) != 2 || !ways.Items[0].Builtin || ways.Items[1].Builtin {
		t.Errorf("forwardings: got %+v", ways)
	}
	f.want(200, "DELETE", "/v1/firewall/forwardings/clients-mesh", nil, nil)
}

func TestFirewallIsAppliedAndConfirmed(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	rule := model.FirewallRule{Name: "a", Action: model.Deny, From: model.ZoneUplink, To: model.ZoneLocal}
	f.want(409, "POST", "/v1/firewall/apply", apitype.ApplyFirewall{}, nil) // nothing to apply
	f.want(409, "POST", "/v1/firewall/confirm", nil, nil)
	f.want(201, "POST", "/v1/firewall/rules", apitype.PlaceFirewallRule{FirewallRule: rule}, nil)

	f.wall.preview = model.FirewallPreview{LocksOut: "a: deny anything from uplink to local", Breaks: []string{"clients to uplink, by a"}}
	var p apitype.Problem
	if f.want(409, "POST", "/v1/firewall/apply", apitype.ApplyFirewall{}, &p); p.Type != apitype.ProblemFirewallLocksOut || len(p.Errors) != 1 {
		t.Errorf("got %+v", p)
	}
	f.wall.err = local.ErrAbsent
	f.want(503, "POST", "/v1/firewall/preview", nil, nil)
	f.want(503, "POST", "/v1/firewall/apply", apitype.ApplyFirewall{Anyway: true}, nil)
	f.wall.err = &local.Refusal{Status: 422, Text: "opening of zone uplink: there is no service telnet"}
	if f.want(422, "POST", "/v1/firewall/preview", nil, &p); p.Detail != "opening of zone uplink: there is no service telnet" {
		t.Errorf("got %+v", p)
	}
	f.wall.err = nil

	resp, b := f.do("POST", "/v1/firewall/apply", apitype.ApplyFirewall{Anyway: true, ConfirmS: 30})
	var state apitype.Firewall
	if err := json.Unmarshal(b, &state); err != nil || resp.StatusCode != 200 || !resp.Close || state.Trial == nil || state.Trial.By != "user:root" {
		t.Fatalf("got %s, close %v: %s", resp.Status, resp.Close, b)
	}
	if o := f.wall.orders; len(o) != 1 || o[0].TrialS != 30 || len(o[0].Policy.Rules) != 1 {
		t.Errorf("orders: got %+v", o)
	}
	f.want(409, "POST", "/v1/firewall/apply", apitype.ApplyFirewall{Anyway: true}, nil)
	state = apitype.Firewall{}
	f.want(200, "POST", "/v1/firewall/confirm", nil, &state)
	if state.Trial != nil || state.Edited || len(state.Kept.Rules) != 1 || state.KeptBy != "user:root" {
		t.Errorf("confirmed: got %+v", state)
	}
	f.want(200, "DELETE", "/v1/firewall/rules/a", nil, nil)
	f.want(200, "POST", "/v1/firewall/apply", apitype.ApplyFirewall{Anyway: true, Digest: model.FirewallPolicy{}.Digest()}, nil)
	state = apitype.Firewall{}
	f.want(200, "POST", "/v1/firewall/revert", nil, &state)
	if len(state.Kept.Rules) != 1 || !state.Edited || state.Reverted == nil || state.Reverted.Reason != "asked" {
		t.Errorf("reverted: got %+v", state)
	}
	state = apitype.Firewall{}
	f.want(200, "DELETE", "/v1/firewall/draft", nil, &state)
	if state.Edited {
		t.Errorf("discarded: got %+v", state)
	}
	f.token = f.loginAs(apitype.RoleOperator)
	f.want(200, "GET", "/v1/firewall", nil, nil)
	for _, path := range []string{"apply", "confirm", "revert", "preview"} {
		f.want(http.StatusForbidden, "POST", "/v1/firewall/"+path, map[string]any{}, nil)
	}
}

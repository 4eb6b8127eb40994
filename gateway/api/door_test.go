package api

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"halo.internal/identity"
	"halo.internal/identity/operator"
	"halo.internal/local"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

// house is what halo-mesh says of its services, or what is wrong with it.
type house struct {
	err  error
	last string // what was to be changed

	leases   []model.Lease // of eth1; one more is on br0
	reserved []model.Reservation
}

func (h *house) Leases(context.Context) (map[string][]model.Lease, error) {
	return map[string][]model.Lease{"br0": {{Name: "phone"}}, "eth1": h.leases}, h.err
}
func (h *house) Reservations(context.Context) ([]model.Reservation, error) {
	return append([]model.Reservation{{MAC: "02:00:00:00:00:07", Name: "camera"}}, h.reserved...), h.err
}
func (h *house) PutReservation(_ context.Context, r model.Reservation) error {
	h.last = r.MAC + " " + r.Address.String()
	return h.err
}
func (h *house) DeleteReservation(_ context.Context, mac string) error {
	h.last = mac
	return h.err
}
func (h *house) Firewall(context.Context) (model.FirewallStatus, error) {
	return model.FirewallStatus{
		Zones: []model.FirewallZone{{Zone: model.ZoneClients}, {Zone: ""}}, Rules: []model.FirewallCount{}, Forwardings: []model.Forwarding{{From: model.ZoneClients, To: model.ZoneUplink}},
		Services: []model.FirewallService{{Name: "field", Proto: "tcp", Zones: []model.Zone{model.ZoneClients}, Opened: []model.Zone{model.ZoneUplink}}, {Name: "door", Proto: "tcp"}},
	}, h.err
}
func (h *house) DNS(context.Context) (model.DNSStatus, error) {
	return model.DNSStatus{Names: []model.DNSName{{Name: "mast"}}}, h.err
}
func (h *house) Support(_ context.Context, w io.Writer) error {
	_, err := io.WriteString(w, "a tar")
	if err == nil {
		err = h.err
	}
	return err
}

func TestOperatorCertificateRoutes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	if _, err := f.Auth.CreateUser(t.Context(), apitype.CreateUser{Username: "anna", Password: password, Role: apitype.RoleViewer}); err != nil {
		t.Fatal(err)
	}
	root := f.token
	f.token = f.login("anna")
	const path = "/api/auth/operator-certificates"
	key := identity.New()
	var c apitype.OperatorCertificate
	f.want(http.StatusCreated, "POST", path, apitype.CreateOperatorCertificate{Key: key.Public().Base64(), Label: "laptop"}, &c)
	raw, err := operator.Decode(c.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	if o, err := operator.Parse(f.Registry.Network(), raw); err != nil || o.User != "anna" || o.Role != apitype.RoleViewer || o.Key != key.Public() || o.Epoch != 40_000 {
		t.Errorf("got %+v, %v", o, err)
	}
	f.want(http.StatusUnprocessableEntity, "POST", path, apitype.CreateOperatorCertificate{Key: "x"}, nil)
	f.want(http.StatusUnprocessableEntity, "POST", path, map[string]any{"key": c.Key, "days": 91}, nil)
	f.want(http.StatusForbidden, "POST", "/v1/nodes/gateway/code", nil, nil)
	f.want(http.StatusForbidden, "GET", "/v1/system/support", nil, nil)

	f.token = root
	var token apitype.APIToken
	f.want(http.StatusCreated, "POST", "/api/auth/tokens", apitype.CreateAPIToken{Name: "machine", Scopes: []string{apitype.ScopeAdmin}}, &token)
	f.token = token.Token
	f.want(http.StatusForbidden, "POST", path, apitype.CreateOperatorCertificate{Key: c.Key}, nil)

	f.token = root
	var list apitype.OperatorCertificateList
	f.want(http.StatusOK, "GET", path, nil, &list)
	if len(list.Items) != 1 || list.Items[0].Serial != c.Serial || list.Items[0].Certificate != "" {
		t.Errorf("got %+v", list)
	}
	f.want(http.StatusNoContent, "DELETE", fmt.Sprintf("%s/%d", path, c.Serial), nil, nil)
	f.want(http.StatusNotFound, "DELETE", path+"/999", nil, nil)
	var log apitype.AuditList
	f.want(http.StatusOK, "GET", "/v1/audit?limit=20", nil, &log)
	seen := map[string]bool{}
	for _, e := range log.Items {
		seen[e.Action+" "+e.Actor] = true
	}
	if !seen["create-operator-certificate user:anna"] || !seen["delete-operator-certificate user:root"] {
		t.Errorf("audit: %v", seen)
	}
}

func TestNodeCodeRoutes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var first, again, next apitype.NodeCode
	f.want(http.StatusOK, "POST", "/v1/nodes/gateway/code", nil, &first)
	f.want(http.StatusOK, "POST", "/v1/nodes/"+f.Registry.Gateway()+"/code", nil, &again)
	if first != again || len(first.Code) != 19 || first.Generation != 0 {
		t.Errorf("got %+v and %+v", first, again)
	}
	f.want(http.StatusNotFound, "POST", "/v1/nodes/nobody/code", nil, nil)
	var codes apitype.NodeCodes
	f.want(http.StatusOK, "POST", "/v1/trust/node-codes/renew", nil, &codes)
	f.want(http.StatusOK, "POST", "/v1/nodes/gateway/code", nil, &next)
	if codes.Generation != 1 || next.Generation != 1 || next.Code == first.Code {
		t.Errorf("got %+v, %+v", codes, next)
	}
}

func TestServiceRoutes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	h := &house{}
	f.Services = h
	for path, want := range map[string]string{
		"/v1/network/leases": `"name":"phone"`, "/v1/network/reservations": `"name":"camera"`, "/v1/network/firewall": `"zone":"clients"`, "/v1/network/dns": `"name":"mast"`, "/v1/system/support": "a tar",
	} {
		h.err = nil
		if resp, b := f.do("GET", path, nil); resp.StatusCode != http.StatusOK || !strings.Contains(string(b), want) {
			t.Errorf("%s: got %s %s", path, resp.Status, b)
		}
		h.err = fmt.Errorf("%w: hangs", local.ErrAbsent)
		f.want(http.StatusServiceUnavailable, "GET", path, nil, nil)
		h.err = &local.Refusal{Status: http.StatusNotFound, Text: "this device gives no addresses"}
		f.want(http.StatusNotFound, "GET", path, nil, nil)
	}
	h.err = nil
	const path, mac = "/v1/network/reservations", "02:00:00:00:00:07"
	r := model.Reservation{MAC: mac, Address: netip.MustParseAddr("10.43.0.20")}
	if f.want(http.StatusNoContent, "PUT", path, r, nil); h.last != mac+" 10.43.0.20" {
		t.Errorf("reserved: %q", h.last)
	}
	if f.want(http.StatusNoContent, "DELETE", path+"/"+mac, nil, nil); h.last != mac {
		t.Errorf("not reserved: %q", h.last)
	}
	h.err = &local.Refusal{Status: http.StatusConflict, Text: "the address is in use"}
	f.want(http.StatusConflict, "PUT", path, r, nil)
	f.want(http.StatusUnprocessableEntity, "PUT", path, map[string]string{"mac": mac, "address": "nowhere"}, nil)
}

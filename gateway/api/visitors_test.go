package api

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"testing"

	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

// certify has the one who is logged in certified.
func (f *fixture) certify(key identity.Key) uint64 {
	f.t.Helper()
	var c apitype.OperatorCertificate
	f.want(http.StatusCreated, "POST", "/api/auth/operator-certificates", apitype.CreateOperatorCertificate{Key: key.Public().Base64()}, &c)
	return c.Serial
}

// laptop is a registration by the owner of a certificate.
func (f *fixture) laptop(owner identity.Key, serial uint64, wg identity.Key, label string) apitype.RegisterOverlay {
	f.t.Helper()
	public, private := wg.WireGuardPublic(), wg.WireGuard()
	proof, err := identity.ProvePossession(f.key.Public(), owner.Public(), private)
	if err != nil {
		f.t.Fatal(err)
	}
	return apitype.RegisterOverlay{PublicKey: base64.StdEncoding.EncodeToString(public[:]), Possession: base64.StdEncoding.EncodeToString(proof), Certificate: serial, Label: label}
}

func (f *fixture) visitors(want ...string) {
	f.t.Helper()
	list, err := f.Visitors.Present(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	got := []string{}
	for _, v := range list {
		got = append(got, v.Name)
	}
	if slices.Sort(got); fmt.Sprint(got) != fmt.Sprint(append([]string{}, want...)) {
		f.t.Errorf("halo-mesh is told of %q, want %q", got, want)
	}
}

func TestALaptopInTheOverlay(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.Tables, f.Services = &kernel{}, &house{}
	uplink := model.Interface{Name: "eth0", PortRole: "uplink", Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.5/24"), netip.MustParsePrefix("fe80::1/64")}}
	root, anna, olga := f.token, identity.New(), identity.New()
	f.token = f.loginAs(apitype.RoleViewer)
	f.want(http.StatusForbidden, "POST", "/v1/mesh/wg-register", f.laptop(anna, f.certify(anna), identity.New(), "x"), nil)
	f.token = root
	f.token = f.loginAs(apitype.RoleOperator)
	serial, wg := f.certify(anna), identity.New()
	ask := f.laptop(anna, serial, wg, "laptop")

	mesh := &air{status: model.MeshStatus{Interfaces: []model.Interface{uplink, {Name: "br0", Addresses: []netip.Prefix{netip.MustParsePrefix("10.43.0.1/24")}}, {Name: "eth1", PortRole: "mesh"}}}}
	f.Mesh, f.Radios = mesh, mesh
	var r apitype.OverlayRegistration
	f.want(http.StatusCreated, "POST", "/v1/mesh/wg-register", ask, &r)
	if r.OverlayV4 != netip.MustParseAddr("10.42.255.1") || r.Username != "as-operator" || r.Gateway != "the key in use" || r.Ended || r.Certificate != serial {
		t.Errorf("got %+v", r)
	}
	if len(r.Endpoints) != 4 || r.Endpoints[0].Address.String() != "192.0.2.5:51820" || r.Endpoints[0].Open {
		t.Errorf("endpoints: got %+v", r.Endpoints)
	}
	f.visitors("laptop")
	// The way by which the laptop asks is one, others need not be.
	mesh.status.Interfaces = append(mesh.status.Interfaces, model.Interface{Name: "eth2", PortRole: "uplink", Addresses: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8")}})
	r = apitype.OverlayRegistration{}
	f.want(http.StatusCreated, "POST", "/v1/mesh/wg-register", ask, &r)
	if len(r.Endpoints) != 5 || r.Endpoints[0].Address.String() != "127.0.0.1:51820" || r.Endpoints[1].Address.String() != "192.0.2.5:51820" {
		t.Errorf("endpoints: got %+v, want that first at which it was asked", r.Endpoints)
	}

	// What is not one's own.
	for name, change := range map[string]func(*apitype.RegisterOverlay){
		"another's proof":         func(a *apitype.RegisterOverlay) { a.Possession = f.laptop(olga, serial, wg, "").Possession },
		"no proof":                func(a *apitype.RegisterOverlay) { a.Possession = "" },
		"another key's":           func(a *apitype.RegisterOverlay) { a.Possession = f.laptop(anna, serial, olga, "").Possession },
		"somebody's certificate":  func(a *apitype.RegisterOverlay) { a.Certificate = serial - 1 },
		"a certificate of nobody": func(a *apitype.RegisterOverlay) { a.Certificate = 1 << 62 },
	} {
		bad := ask
		change(&bad)
		var p apitype.Problem
		if f.want(http.StatusForbidden, "POST", "/v1/mesh/wg-register", bad, &p); p.Type != apitype.ProblemOverlayKey && p.Type != apitype.ProblemOverlayCertificate {
			t.Errorf("%s: got %+v", name, p)
		}
	}
	f.want(422, "POST", "/v1/mesh/wg-register", apitype.RegisterOverlay{PublicKey: base64.StdEncoding.EncodeToString(make([]byte, 32)), Certificate: serial}, nil)
	// A node's key, had the operator its private half.
	node := identity.New()
	f.ask(node, "mast")
	if _, err := f.Registry.Approve(t.Context(), node.ID(), "user:root"); err != nil {
		t.Fatal(err)
	}
	f.want(http.StatusConflict, "POST", "/v1/mesh/wg-register", f.laptop(anna, serial, node, "mast"), nil)

	// Again, with another certificate: the same place.
	second := f.certify(anna)
	r = apitype.OverlayRegistration{}
	f.want(http.StatusCreated, "POST", "/v1/mesh/wg-register", f.laptop(anna, second, wg, "laptop"), &r)
	if r.OverlayV4 != netip.MustParseAddr("10.42.255.1") || r.Certificate != second {
		t.Errorf("renewed: got %+v", r)
	}
	// Each user has his own, an admin sees all.
	mesh.status.Overlay = []model.OverlayPeer{{Node: r.ID, Endpoint: "192.0.2.9:4242"}}
	operator := f.token
	f.token = root
	other := f.certify(olga)
	f.want(http.StatusConflict, "POST", "/v1/mesh/wg-register", f.laptop(olga, other, wg, "stolen"), nil)
	f.want(http.StatusCreated, "POST", "/v1/mesh/wg-register", f.laptop(olga, other, identity.New(), "tablet"), nil)
	var list apitype.OverlayVisitorList
	if f.want(200, "GET", "/v1/mesh/wg-peers", nil, &list); len(list.Items) != 2 {
		t.Errorf("an admin sees %+v", list)
	}
	f.token = operator
	list = apitype.OverlayVisitorList{}
	if f.want(200, "GET", "/v1/mesh/wg-peers", nil, &list); len(list.Items) != 1 || list.Items[0].Label != "laptop" || list.Items[0].Endpoint != "192.0.2.9:4242" {
		t.Errorf("the operator sees %+v", list)
	}
	// It ends with the certificate: the first is not it any more, the second is.
	f.want(http.StatusNoContent, "DELETE", fmt.Sprint("/api/auth/operator-certificates/", serial), nil, nil)
	f.want(http.StatusNoContent, "DELETE", fmt.Sprint("/api/auth/operator-certificates/", second), nil, nil)
	f.visitors("tablet")
	f.want(http.StatusCreated, "POST", "/v1/mesh/wg-register", f.laptop(anna, f.certify(anna), wg, "laptop"), nil)
	// With what ends the user's logins.
	f.token = root
	disabled := true
	f.want(204, "PATCH", "/api/auth/users/as-operator", apitype.UpdateUser{Disabled: &disabled}, nil)
	f.visitors("tablet")
	// When it is removed.
	r = apitype.OverlayRegistration{}
	f.want(http.StatusCreated, "POST", "/v1/mesh/wg-register", f.laptop(olga, f.certify(olga), identity.New(), "phone"), &r)
	f.visitors("phone", "tablet")
	f.want(http.StatusNotFound, "DELETE", "/v1/mesh/wg-peers/w-nobody", nil, nil)
	f.want(http.StatusNoContent, "DELETE", "/v1/mesh/wg-peers/"+r.ID, nil, nil)
	f.visitors("tablet")
	// And with a higher epoch.
	f.want(200, "POST", "/v1/network/epoch/raise", nil, nil)
	f.visitors()
}

func TestNoMoreDevicesThanBounds(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.Tables, f.Services = &kernel{}, &house{}
	anna := identity.New()
	serial := f.certify(anna)
	for i := range 8 {
		f.want(http.StatusCreated, "POST", "/v1/mesh/wg-register", f.laptop(anna, serial, identity.New(), fmt.Sprint(i)), nil)
	}
	f.want(http.StatusConflict, "POST", "/v1/mesh/wg-register", f.laptop(anna, serial, identity.New(), "9"), nil)
	f.visitors("0", "1", "2", "3", "4", "5", "6", "7")
}

package api

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"halo.internal/identity"
	"halo.internal/local"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

// kernel is what halo-mesh's kernel knows.
type kernel struct {
	err     error
	clients []model.Client
	asked   []string

	neighbours []model.NeighbourEntry
	tables     model.BatmanTables // besides what is always there
}

func (k *kernel) Interfaces(context.Context) ([]model.InterfaceDetail, error) {
	return []model.InterfaceDetail{{Interface: model.Interface{Name: "eth0"}, Detail: &model.InterfaceCounters{MTU: 1500}}}, k.err
}
func (k *kernel) NeighbourTable(context.Context) ([]model.NeighbourEntry, error) {
	return append([]model.NeighbourEntry{{Iface: "br0", MAC: "02:00:00:00:00:07", State: "stale"}}, k.neighbours...), k.err
}
func (k *kernel) Membership(context.Context) (model.Membership, error) {
	return model.Membership{GatewayWireGuardKey: "the key in use"}, k.err
}
func (k *kernel) Clients(context.Context) ([]model.Client, error) { return k.clients, k.err }
func (k *kernel) Batman(_ context.Context, table string) (model.BatmanTables, error) {
	k.asked = append(k.asked, table)
	t := k.tables
	t.Config = &model.BatmanConfig{Routing: "BATMAN_V"}
	t.Originators = append([]model.BatmanOriginator{{MAC: "02:00:00:00:00:07"}}, t.Originators...)
	t.Global = append([]model.BatmanClient{{MAC: "02:00:00:00:00:09", Originator: "02:00:00:00:00:07"}}, t.Global...)
	return t, k.err
}

func TestNetworkRoutes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	k := &kernel{}
	f.Tables = k
	gateway := f.Registry.Gateway()
	f.Registry.Status(gateway, model.NodeStatus{Interfaces: []model.Interface{{Name: "mesh0", MAC: "02:00:00:00:00:07"}}})
	air := &air{status: model.MeshStatus{Radios: []model.Radio{{Name: "phy0", Iface: "mesh0", Channel: 6, Peers: []model.RadioPeer{{MAC: "02:00:00:00:00:07", SignalDBm: -60}}}}}}
	f.Mesh, f.Radios = air, air
	for path, want := range map[string]string{
		"/v1/network/interfaces":                 `"mtu":1500`,
		"/v1/network/interfaces?node=" + gateway: `"mtu":1500`,
		"/v1/network/neighbours":                 `"node":"` + gateway,
		"/v1/network/wireless":                   `"channel":6`,
		"/v1/network/associations":               `"radio":"phy0","iface":"mesh0","mac":"02:00:00:00:00:07","node":"` + gateway,
		"/v1/mesh/config":                        `"routing":"BATMAN_V"`,
		"/v1/mesh/batman/interfaces":             `"items":[]`,
		"/v1/mesh/batman/originators":            `"node":"` + gateway,
		"/v1/mesh/batman/neighbours":             `"items":[]`,
		"/v1/mesh/batman/translation/local":      `"items":[]`,
		"/v1/mesh/batman/translation/global":     `"node":"` + gateway,
		"/v1/mesh/batman/gateways":               `"items":[]`,
	} {
		if resp, b := f.do("GET", path, nil); resp.StatusCode != http.StatusOK || !strings.Contains(string(b), want) {
			t.Errorf("%s: got %s %s", path, resp.Status, b)
		}
	}
	if len(air.status.Radios[0].Peers) != 1 || air.status.Radios[0].Peers[0].Node != "" {
		t.Error("halo-mesh's status was changed")
	}
	k.err = fmt.Errorf("%w: hangs", local.ErrAbsent)
	for _, path := range []string{"/v1/network/interfaces", "/v1/network/neighbours", "/v1/mesh/config", "/v1/mesh/batman/originators"} {
		f.want(http.StatusServiceUnavailable, "GET", path, nil, nil)
	}
	f.want(http.StatusNotFound, "GET", "/v1/network/interfaces?node=nobody", nil, nil)

	id := f.join("mast")
	f.Registry.Status(id, model.NodeStatus{Interfaces: []model.Interface{{Name: "wlan0"}}})
	var list apitype.NetworkInterfaceList
	if f.want(200, "GET", "/v1/network/interfaces?node=mast", nil, &list); len(list.Items) != 1 || list.Items[0].Name != "wlan0" || list.Items[0].Detail != nil || list.Node != id {
		t.Errorf("a node's: got %+v", list)
	}
	for _, what := range []string{"neighbours", "wireless", "associations"} {
		var p apitype.Problem
		if f.want(404, "GET", "/v1/network/"+what+"?node=mast", nil, &p); !strings.Contains(p.Detail, "at its door") {
			t.Errorf("%s: got %+v", what, p)
		}
	}
}

// join admits a new node, by an admin's approval, and returns its canonical ID.
func (f *fixture) join(name string, change ...func(*model.JoinRequest)) string {
	f.t.Helper()
	id := f.ask(identity.New(), name, change...)
	if _, err := f.Registry.Approve(f.t.Context(), id, "user:root"); err != nil {
		f.t.Fatal(err)
	}
	return id
}

// ask has a node with that key ask to join; without a token it waits.
func (f *fixture) ask(key identity.Key, name string, change ...func(*model.JoinRequest)) string {
	f.t.Helper()
	wg := key.WireGuardPublic()
	proof, err := identity.ProvePossession(f.Registry.Network(), key.Public(), key.WireGuard())
	if err != nil {
		f.t.Fatal(err)
	}
	ask := model.JoinRequest{
		Network: f.Registry.Network().Base64(), IdentityKey: key.Public().Base64(), WireGuardKey: base64.StdEncoding.EncodeToString(wg[:]),
		Possession: base64.StdEncoding.EncodeToString(proof), Name: name, Boot: 1,
	}
	for _, c := range change {
		c(&ask)
	}
	var p apitype.Problem
	f.want(401, "POST", "/v1/nodes/join", ask, &p)
	ask.Nonce = p.Nonce
	ask.Signature = base64.StdEncoding.EncodeToString(key.Sign(model.JoinContext, ask.SignedBytes()))
	f.do("POST", "/v1/nodes/join", ask)
	return key.ID()
}

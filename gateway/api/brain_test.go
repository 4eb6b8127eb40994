package api

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

// joined admits a node, and returns its canonical ID and its name.
func (f *fixture) joined(name string) string {
	f.t.Helper()
	node := identity.New()
	wg := node.WireGuardPublic()
	proof, err := identity.ProvePossession(f.Registry.Network(), node.Public(), node.WireGuard())
	if err != nil {
		f.t.Fatal(err)
	}
	ask := model.JoinRequest{Network: f.Registry.Network().Base64(), IdentityKey: node.Public().Base64(), Name: name, Boot: 1,
		WireGuardKey: base64.StdEncoding.EncodeToString(wg[:]), Possession: base64.StdEncoding.EncodeToString(proof)}
	var p apitype.Problem
	f.want(http.StatusUnauthorized, "POST", "/v1/nodes/join", ask, &p)
	ask.Nonce = p.Nonce
	ask.Signature = base64.StdEncoding.EncodeToString(node.Sign(model.JoinContext, ask.SignedBytes()))
	f.want(http.StatusForbidden, "POST", "/v1/nodes/join", ask, nil)
	f.want(http.StatusOK, "POST", "/v1/admin/registrations/"+node.ID()+"/approve", nil, nil)
	return node.ID()
}

// given makes a request with headers, and returns the answer's entity tag.
func (f *fixture) given(status int, method, path string, in any, headers map[string]string, out any) string {
	f.t.Helper()
	f.headers = headers
	defer func() { f.headers = nil }()
	resp, b := f.do(method, path, in)
	if resp.StatusCode != status {
		f.t.Fatalf("%s %s: got %s, want %d: %s", method, path, resp.Status, status, b)
	}
	if out != nil {
		if err := json.Unmarshal(b, out); err != nil {
			f.t.Fatalf("%s %s: %v: %s", method, path, err, b)
		}
	}
	if status == http.StatusNotModified && len(b) > 0 {
		f.t.Errorf("%s %s: 304 with a body: %s", method, path, b)
	}
	return resp.Header.Get("ETag")
}

func TestNeurons(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	mesh := &heardMesh{}
	f.Mesh = mesh
	var changed int
	f.Changed = func() { changed++ }
	mast, hill := f.joined("mast"), f.joined("hill")
	mesh.looked, changed = 0, 0

	const all, n01 = "/v1/brain/neurons", "/v1/brain/neurons/n01"
	var n apitype.Neuron
	first := f.given(http.StatusCreated, "POST", all, apitype.CreateNeuron{Name: "n01", Description: "weather", Needs: []model.Component{model.Sensor}}, nil, &n)
	if first == "" || n.Name != "n01" || n.By != "user:root" || len(n.Components) != 4 || n.Components[3].Name != "brain-send-n01" {
		t.Errorf("made: %s %+v", first, n)
	}
	if again := f.given(http.StatusCreated, "POST", all, apitype.CreateNeuron{Name: "n01", Description: "weather", Needs: []model.Component{model.Sensor}}, nil, nil); again != first {
		t.Errorf("the same again has the tag %s, want %s", again, first)
	}
	var p apitype.Problem
	f.want(http.StatusConflict, "POST", all, apitype.CreateNeuron{Name: "n01"}, &p)
	if p.Type != apitype.ProblemNameTaken {
		t.Errorf("another of that name: %+v", p)
	}

	// Who reads it again is told whether there is anything new.
	if tag := f.given(http.StatusOK, "GET", n01, nil, map[string]string{"If-None-Match": `"another"`}, nil); tag != first {
		t.Errorf("the tag is %s, want %s", tag, first)
	}
	f.given(http.StatusNotModified, "GET", n01, nil, map[string]string{"If-None-Match": `"another", W/` + first}, nil)

	part := func(c model.Component, kind, target string) string {
		return n01 + "/components/" + string(c) + "/parts/" + kind + "/" + target
	}
	second := f.given(http.StatusOK, "PUT", part(model.Sensor, "device", "mast"), nil, map[string]string{"If-Match": first}, &n)
	if want := []model.Part{{Kind: model.PartDevice, ID: mast}}; second == first || !reflect.DeepEqual(n.Components[0].Parts, want) {
		t.Errorf("assigned: %s %+v", second, n.Components[0])
	}
	f.headers = map[string]string{"If-Match": first}
	for _, stale := range []struct {
		method, path string
		in           any
	}{
		{"PATCH", n01, apitype.UpdateNeuron{}},
		{"PUT", n01 + "/components/send", apitype.AssignComponent{Parts: []model.Part{}}},
		{"PUT", part(model.Send, "device", "mast"), nil},
		{"DELETE", part(model.Sensor, "device", "mast"), nil},
		{"DELETE", n01, nil},
	} {
		p = apitype.Problem{}
		f.want(http.StatusPreconditionFailed, stale.method, stale.path, stale.in, &p)
		if p.Type != apitype.ProblemETag || !strings.Contains(p.Detail, second) {
			t.Errorf("%s %s: %+v", stale.method, stale.path, p)
		}
	}
	f.headers = map[string]string{"If-Match": "rubbish"}
	f.want(http.StatusBadRequest, "DELETE", n01, nil, nil)
	f.headers = nil

	both := []model.Part{{Kind: model.PartProcess, ID: "halo-agent@hill"}, {Kind: model.PartDevice, ID: "mast"}}
	f.given(http.StatusOK, "PUT", n01+"/components/sensor", apitype.AssignComponent{Parts: both}, map[string]string{"If-Match": "*"}, &n)
	if want := []model.Part{{Kind: model.PartDevice, ID: mast}, {Kind: model.PartProcess, ID: "halo-agent@" + hill}}; !reflect.DeepEqual(n.Components[0].Parts, want) {
		t.Errorf("got %+v", n.Components[0])
	}
	f.want(http.StatusOK, "PUT", part(model.Send, "process", "halo-mesh@mast"), nil, nil)
	names, err := f.Brain.Names(t.Context())
	if want := []model.BrainName{{Name: "brain-sensor-n01", Nodes: []string{mast, hill}}, {Name: "brain-send-n01", Nodes: []string{mast}}}; err != nil || !reflect.DeepEqual(names, want) {
		t.Errorf("names for halo-mesh: %v, %v", names, err)
	}

	f.Registry.Status(mast, model.NodeStatus{State: "degraded", Missing: "gps"})
	defer f.Registry.Online(mast, 1)()
	var h apitype.NeuronHealth
	f.want(http.StatusOK, "GET", n01+"/health", nil, &h)
	if h.State != apitype.NeuronDegraded || h.Reason != "sensor hill halo-agent: it has never been heard" || h.Components[0].Live != 1 || len(h.Lacks) != 3 || h.Lacks[0].Node != "mast" || h.Lacks[0].Lacks != "degraded: gps" {
		t.Errorf("health: %+v", h)
	}
	var o apitype.Brain
	f.want(http.StatusOK, "GET", "/v1/brain?node=hill", nil, &o)
	if o.State != apitype.NeuronDegraded || o.Neurons != 1 || o.Degraded != 1 || o.Devices != 2 || len(o.Items) != 1 || o.Items[0].Name != "n01" {
		t.Errorf("overview: %+v", o)
	}
	f.want(http.StatusOK, "GET", "/v1/brain?node=gateway", nil, &o)
	if o.Neurons != 1 || len(o.Items) != 0 {
		t.Errorf("of a device without a part: %+v", o)
	}

	name := "n02"
	f.want(http.StatusOK, "PATCH", n01, apitype.UpdateNeuron{Name: &name, Needs: &[]model.Component{}}, &n)
	f.want(http.StatusNotFound, "GET", n01, nil, nil)
	f.want(http.StatusNoContent, "DELETE", all+"/n02/components/send/parts/process/halo-mesh@"+mast, nil, nil)
	f.want(http.StatusNotFound, "DELETE", all+"/n02/components/send/parts/process/halo-mesh@"+mast, nil, nil)
	var list apitype.NeuronList
	f.want(http.StatusOK, "GET", all, nil, &list)
	if len(list.Items) != 1 || list.Items[0].Name != "n02" || list.Items[0].Needs != nil {
		t.Errorf("list: %+v", list)
	}
	f.want(http.StatusNoContent, "DELETE", all+"/n02", nil, nil)
	const changes = 8 // two that made the same, one part, all parts, another part, renamed, a part off, removed
	if mesh.looked != changes || changed != changes {
		t.Errorf("halo-mesh was told %d times, copies asked for %d times, want %d", mesh.looked, changed, changes)
	}

	f.headers = map[string]string{"If-Match": "*"}
	for _, bad := range []struct {
		method, path string
		in           any
		status       int
	}{
		{"POST", all, apitype.CreateNeuron{Name: "N01"}, 422},
		{"POST", all, apitype.CreateNeuron{Name: strings.Repeat("x", 50)}, 422},
		{"POST", all, apitype.CreateNeuron{Name: "a-"}, 422},
		{"POST", all, map[string]any{"name": "n03", "needs": []string{"camera"}}, 422},
		{"POST", all, map[string]any{"name": "n03", "needs": "sensor"}, 422},
		{"POST", all, map[string]any{"name": "n03", "colour": "red"}, 422},
		{"PUT", "/v1/brain/neurons/n03/components/camera/parts/device/mast", nil, 422},
		{"PUT", "/v1/brain/neurons/n03/components/sensor/parts/sensor/mast", nil, 422},
		{"PUT", "/v1/brain/neurons/n03/components/sensor/parts/device/mast", nil, 404},
		{"PUT", "/v1/brain/neurons/n03/components/sensor/parts/device/nobody", nil, 404},
		{"PUT", "/v1/brain/neurons/n03/components/sensor", map[string]any{"parts": nil}, 422},
		{"PUT", "/v1/brain/neurons/n03/components/sensor", map[string]any{"parts": []map[string]string{{"kind": "camera", "id": "x"}}}, 422},
		{"PUT", "/v1/brain/neurons/n03/components/sensor", map[string]any{"parts": []map[string]string{{"kind": "process", "id": "sh@mast"}}}, 404},
		{"GET", "/v1/brain/neurons/n03/health", nil, 404},
		{"GET", "/v1/brain?node=nobody", nil, 404},
	} {
		f.want(bad.status, bad.method, bad.path, bad.in, nil)
	}
}

func TestWhoMayChangeNeurons(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	root := f.token
	f.want(http.StatusCreated, "POST", "/api/auth/users", apitype.CreateUser{Username: "vera", Password: password, Role: apitype.RoleViewer}, nil)
	f.want(http.StatusCreated, "POST", "/api/auth/users", apitype.CreateUser{Username: "olaf", Password: password, Role: apitype.RoleOperator}, nil)
	vera, olaf := f.login("vera"), f.login("olaf")
	for _, tc := range []struct {
		method, path string
		in           any
		status       int
	}{
		{"POST", "/v1/brain/neurons", apitype.CreateNeuron{Name: "n01"}, 201},
		{"PATCH", "/v1/brain/neurons/n01", apitype.UpdateNeuron{}, 200},
		{"PUT", "/v1/brain/neurons/n01/components/memory", apitype.AssignComponent{Parts: []model.Part{}}, 200},
		{"PUT", "/v1/brain/neurons/n01/components/memory/parts/device/gateway", nil, 200},
		{"DELETE", "/v1/brain/neurons/n01/components/memory/parts/device/gateway", nil, 204},
		{"DELETE", "/v1/brain/neurons/n01", nil, 204},
	} {
		f.headers = map[string]string{"If-Match": "*"}
		if tc.method == http.MethodPost {
			f.headers = nil
		}
		f.token = vera
		f.want(http.StatusForbidden, tc.method, tc.path, tc.in, nil)
		f.token = olaf
		f.want(tc.status, tc.method, tc.path, tc.in, nil)
		f.token = vera
		f.want(http.StatusOK, "GET", "/v1/brain/neurons", nil, nil)
		f.want(http.StatusOK, "GET", "/v1/brain", nil, nil)
	}
	f.headers = nil
	f.token = root
	var l apitype.AuditList
	f.want(http.StatusOK, "GET", "/v1/audit?limit=6", nil, &l)
	var got []string
	for _, e := range l.Items {
		got = append(got, fmt.Sprintf("%s %s %s %d", e.Actor, e.Action, e.Target, e.Status))
	}
	want := []string{
		"user:olaf delete-neuron n01 204",
		"user:olaf unassign-part brain-memory-n01 device gateway 204",
		"user:olaf assign-part brain-memory-n01 device gateway 200",
		"user:olaf assign-component brain-memory-n01 200",
		"user:olaf update-neuron n01 200",
		"user:olaf create-neuron n01 201",
	}
	if !slices.Equal(got, want) {
		t.Errorf("audited, newest first:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"halo.internal/local"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/bundle"
)

// air is a halo-mesh with a radio, or what is wrong with it.
type air struct {
	err     error
	status  model.MeshStatus
	scanned model.ScanRequest
	asked   model.CaptureRequest
	change  *model.ProfileChange
}

func (a *air) Last() (model.MeshStatus, bool)                   { return a.status, a.err == nil }
func (a *air) Status(context.Context) (model.MeshStatus, error) { return a.status, a.err }
func (a *air) Look()                                            {}
func (a *air) Aside() bool                                      { return false }
func (a *air) Scan(_ context.Context, q model.ScanRequest) (model.RadioScan, error) {
	a.scanned = q
	return model.RadioScan{Radio: "phy0", Networks: []model.RadioNetwork{{BSSID: "02:00:00:00:00:01", Kind: "mesh"}}}, a.err
}
func (a *air) Channels(context.Context) ([]model.RadioChannels, error) {
	return []model.RadioChannels{{Radio: "phy0", Country: "DE", Channels: []model.RadioChannel{{Channel: 1, Usable: true}}}}, a.err
}
func (a *air) Legal(context.Context) ([]model.Legality, error) {
	return []model.Legality{{Radio: "phy0", Allowed: true, Reasons: []string{"because"}}}, a.err
}
func (a *air) Timeline(context.Context) ([]model.Recovery, error) {
	return []model.Recovery{{Cause: model.CausePowerOn, State: model.RecoveryOver, TotalMS: 4711, Stages: []model.RecoveryMark{}}}, a.err
}
func (a *air) Topology(context.Context) (model.MeshTopology, error) {
	return model.MeshTopology{
		Routing: "BATMAN_IV", Names: map[string]string{},
		Originators: []model.MeshOriginator{{MAC: "02:00:00:00:00:02", NextHop: "02:00:00:00:00:03"}},
		Neighbours:  []model.MeshPeer{{Transport: "radio", MAC: "02:00:00:00:00:03"}, {Transport: "ethernet", MAC: "02:00:00:00:00:03"}},
	}, a.err
}
func (a *air) Doctor(context.Context) (model.DoctorReport, error) {
	return model.DoctorReport{Examining: 1, Peers: []model.DoctorPeer{}, Findings: []model.DoctorFinding{}}, a.err
}
func (a *air) Examine(context.Context) (model.DoctorReport, error) {
	return model.DoctorReport{OctetsSent: 5, Peers: []model.DoctorPeer{}, Findings: []model.DoctorFinding{}}, a.err
}
func (a *air) Capture(_ context.Context, q model.CaptureRequest, w io.Writer) error {
	a.asked = q
	_, err := w.Write([]byte("frames"))
	return errors.Join(err, a.err)
}

func (a *air) Profile(context.Context) (model.MeshProfile, error) {
	p := model.MeshProfile{MeshParameters: model.MeshParameters{Routing: "BATMAN_IV", Channel: 1, Width: 20, MFP: "required", SAE: "hash-to-element"}, SSID: "M", Phase: "idle", Nodes: []model.NodeProfile{}, Former: []model.FormerProfile{}}
	if a.change != nil {
		p.Phase = "preparing"
	}
	return p, a.err
}

func (a *air) PutProfile(_ context.Context, c model.ProfileChange) error {
	if a.err == nil {
		a.change = &c
	}
	return a.err
}

func (a *air) MeshSecret(context.Context) (bundle.Mesh, error) {
	return bundle.Mesh{SSID: "ETHRX0001-8A", PSK: "the secret that holds now", Routing: "BATMAN_V"}, a.err
}

func TestTheProfileIsChangedByAdmins(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	mesh := &air{}
	f.Mesh, f.Radios, f.Alone = mesh, mesh, false
	var p model.MeshProfile
	f.want(http.StatusOK, "GET", "/v1/mesh/profile", nil, &p)
	if p.Channel != 1 || p.Phase != "idle" {
		t.Errorf("got %+v", p)
	}
	var c apitype.MeshChannel
	f.want(http.StatusOK, "GET", "/v1/mesh/channel", nil, &c)
	if c.Channel != 1 || c.Width != 20 {
		t.Errorf("got %+v", c)
	}
	f.want(http.StatusOK, "PUT", "/v1/mesh/channel", apitype.ChangeMeshChannel{Channel: 6, Anyway: true}, &p)
	if g := mesh.change; g == nil || *g.Channel != 6 || g.Width != nil || !g.Anyway || p.Phase != "preparing" {
		t.Errorf("asked %+v, got %+v", g, p)
	}
	f.want(http.StatusOK, "PUT", "/v1/mesh/profile", model.ProfileChange{RotateSecret: true}, &p)
	if !mesh.change.RotateSecret || mesh.change.Channel != nil {
		t.Errorf("asked %+v", mesh.change)
	}
	f.want(http.StatusUnprocessableEntity, "PUT", "/v1/mesh/channel", map[string]int{"width": 80}, nil)
	f.want(http.StatusUnprocessableEntity, "PUT", "/v1/mesh/profile", map[string]string{"psk": "a secret of my own"}, nil)

	var n apitype.Network
	f.want(http.StatusOK, "GET", "/v1/network", nil, &n)
	if n.Routing != "BATMAN_V" || !strings.Contains(n.Bundle, "the secret that holds now") {
		t.Errorf("a new card gets the profile of the bundle, not the one that holds: %+v", n)
	}
	for _, role := range []string{apitype.RoleViewer, apitype.RoleOperator} {
		f.want(http.StatusCreated, "POST", "/api/auth/users", apitype.CreateUser{Username: role, Password: password, Role: role}, nil)
		admin := f.token
		f.token = f.login(role)
		f.want(http.StatusForbidden, "PUT", "/v1/mesh/profile", model.ProfileChange{}, nil)
		f.want(http.StatusForbidden, "PUT", "/v1/mesh/channel", apitype.ChangeMeshChannel{Channel: 6}, nil)
		f.want(http.StatusOK, "GET", "/v1/mesh/profile", nil, nil)
		f.token = admin
	}
	var audit apitype.AuditList
	f.want(http.StatusOK, "GET", "/v1/audit", nil, &audit)
	for _, action := range []string{"change-mesh-channel", "change-mesh-profile"} {
		if !slices.ContainsFunc(audit.Items, func(e apitype.AuditEntry) bool { return e.Action == action && e.Status == http.StatusOK }) {
			t.Errorf("audit log lacks %s: %+v", action, audit.Items)
		}
	}
	mesh.err = &local.Refusal{Status: http.StatusConflict, Text: "another change is preparing"}
	var problem apitype.Problem
	f.want(http.StatusConflict, "PUT", "/v1/mesh/channel", apitype.ChangeMeshChannel{Channel: 11}, &problem)
	if !strings.HasPrefix(problem.Detail, "another change") {
		t.Errorf("got %q", problem.Detail)
	}
}

func TestMeshOfRadios(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	const member = "n-bbbbbbbbbbbbbbbbbbbb"
	mesh := &air{status: model.MeshStatus{
		Radios:     []model.Radio{{Name: "phy0", Iface: "mesh0", Member: true, Peers: []model.RadioPeer{{MAC: "02:00:00:00:00:01", Linked: true}, {MAC: "02:00:00:00:00:02"}}, Dropped: model.Dropped{PeeringUnverified: 7}}},
		Neighbours: []model.Neighbour{{Iface: "mesh0", MAC: "02:00:00:00:00:01", TQ: 255}, {Iface: "eth1", MAC: "02:00:00:00:00:01", Node: "n-proven"}, {Iface: "eth2", MAC: "02:00:00:00:00:01"}},
	}}
	f.Mesh, f.Radios = mesh, mesh
	f.Registry.Status(member, model.NodeStatus{Interfaces: []model.Interface{{Name: "mesh0", MAC: "02:00:00:00:00:01"}, {Name: "mesh1", MAC: "02:00:00:00:00:02"}}})
	f.Registry.Status("n-liar", model.NodeStatus{Interfaces: []model.Interface{{Name: "mesh0", MAC: "02:00:00:00:00:02"}}})

	var s model.MeshStatus
	f.want(http.StatusOK, "GET", "/v1/mesh/status", nil, &s)
	if d := s.Radios[0].Dropped; d != (model.Dropped{PeeringUnverified: 7}) {
		t.Errorf("dropped: got %+v", d)
	}
	if p := s.Radios[0].Peers; p[0].Node != member || p[1].Node != "" {
		t.Errorf("peers: got %+v, want the first known, and the second, whom two claim to be, not", p)
	}
	if n := s.Neighbours; n[0].Node != member || n[1].Node != "n-proven" || n[2].Node != "" {
		t.Errorf("neighbours: got %+v", n)
	}
	if mesh.status.Radios[0].Peers[0].Node != "" || mesh.status.Neighbours[0].Node != "" {
		t.Error("what halo-mesh said was changed")
	}

	var peers apitype.MeshPeerList
	f.want(http.StatusOK, "GET", "/v1/mesh/peers", nil, &peers)
	if len(peers.Items) != 4 {
		t.Fatalf("got %+v", peers)
	}
	for i, want := range []struct {
		transport, iface, node string
		radio, routing         bool
	}{{"radio", "mesh0", member, true, true}, {"radio", "mesh0", "", true, false}, {"ethernet", "eth1", "n-proven", false, true}, {"ethernet", "eth2", "", false, true}} {
		if p := peers.Items[i]; p.Transport != want.transport || p.Iface != want.iface || p.Node != want.node || (p.Radio != nil) != want.radio || (p.Routing != nil) != want.routing {
			t.Errorf("peer %d: got %+v, want %+v", i, p, want)
		}
	}

	var channels apitype.RadioChannelsList
	f.want(http.StatusOK, "GET", "/v1/mesh/channels", nil, &channels)
	var legal apitype.LegalityList
	f.want(http.StatusOK, "GET", "/v1/mesh/legality", nil, &legal)
	if len(channels.Items) != 1 || !channels.Items[0].Channels[0].Usable || len(legal.Items) != 1 || !legal.Items[0].Allowed {
		t.Errorf("got %+v, %+v", channels, legal)
	}
	var topology model.MeshTopology
	f.want(http.StatusOK, "GET", "/v1/mesh/topology", nil, &topology)
	if len(topology.Originators) != 1 || len(topology.Neighbours) != 2 {
		t.Errorf("got %+v", topology)
	}
	var recoveries apitype.RecoveryList
	f.want(http.StatusOK, "GET", "/v1/mesh/timeline", nil, &recoveries)
	if len(recoveries.Items) != 1 || recoveries.Items[0].TotalMS != 4711 {
		t.Errorf("got %+v", recoveries)
	}
	var known, examined model.DoctorReport
	f.want(http.StatusOK, "GET", "/v1/mesh/doctor", nil, &known)
	f.want(http.StatusOK, "POST", "/v1/mesh/doctor", nil, &examined)
	if known.Examining != 1 || examined.OctetsSent != 5 {
		t.Errorf("got %+v, %+v", known, examined)
	}
	var scan model.RadioScan
	f.want(http.StatusOK, "POST", "/v1/mesh/scan", model.ScanRequest{Radio: "phy0"}, &scan)
	if len(scan.Networks) != 1 || mesh.scanned.Radio != "phy0" {
		t.Errorf("got %+v, asked %+v", scan, mesh.scanned)
	}
}

func TestACaptureIsForAdminsAndIsTold(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	mesh := &air{}
	f.Mesh, f.Radios = mesh, mesh
	resp, b := f.do("POST", "/v1/mesh/capture", model.CaptureRequest{Radio: "phy0", Seconds: 3})
	if resp.StatusCode != http.StatusOK || string(b) != "frames" || resp.Header.Get("Content-Type") != "application/vnd.tcpdump.pcap" {
		t.Errorf("got %d %q of %s", resp.StatusCode, b, resp.Header.Get("Content-Type"))
	}
	if mesh.asked != (model.CaptureRequest{Radio: "phy0", Seconds: 3, Bytes: model.CaptureBytes}) {
		t.Errorf("asked %+v", mesh.asked)
	}
	f.want(http.StatusUnprocessableEntity, "POST", "/v1/mesh/capture", model.CaptureRequest{Seconds: 61}, nil)

	var audit apitype.AuditList
	f.want(http.StatusOK, "GET", "/v1/audit", nil, &audit)
	if !slices.ContainsFunc(audit.Items, func(e apitype.AuditEntry) bool { return e.Action == "capture-mesh" && e.Target == "phy0" }) {
		t.Errorf("audit log: %+v", audit.Items)
	}
	var events apitype.EventList
	f.want(http.StatusOK, "GET", "/v1/events?kind=mesh.radio.capture", nil, &events)
	if len(events.Items) != 1 || events.Items[0].Fields["by"] != "user:root" {
		t.Errorf("events: %+v", events.Items)
	}

	for _, role := range []string{apitype.RoleViewer, apitype.RoleOperator} {
		f.want(http.StatusCreated, "POST", "/api/auth/users", apitype.CreateUser{Username: role, Password: password, Role: role}, nil)
		admin := f.token
		f.token = f.login(role)
		f.want(http.StatusForbidden, "POST", "/v1/mesh/capture", model.CaptureRequest{}, nil)
		scan := http.StatusOK
		if role == apitype.RoleViewer {
			scan = http.StatusForbidden // it disturbs the mesh
		}
		f.want(scan, "POST", "/v1/mesh/scan", model.ScanRequest{}, nil)
		f.want(http.StatusOK, "GET", "/v1/mesh/peers", nil, nil)
		f.token = admin
	}
}

func TestWhatRadiosRefuseIsSaid(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for name, tc := range map[string]struct {
		err    error
		status int
		detail string
	}{
		"halo-mesh is gone":  {fmt.Errorf("%w on a socket", local.ErrAbsent), 503, "halo-mesh does not answer"},
		"no such radio":      {fmt.Errorf("POST: %w", &local.Refusal{Status: 404, Text: "there is no such radio"}), 404, "there is no such radio"},
		"busy":               {&local.Refusal{Status: 409, Text: "another scan is under way"}, 409, "another scan is under way"},
		"a radio that fails": {&local.Refusal{Status: 500, Text: "the driver gave up"}, 502, "the driver gave up"},
	} {
		t.Run(name, func(t *testing.T) {
			f.Radios = &air{err: tc.err}
			for _, path := range []string{"/v1/mesh/scan", "/v1/mesh/capture"} {
				var p apitype.Problem
				f.want(tc.status, "POST", path, struct{}{}, &p)
				if !strings.HasPrefix(p.Detail, tc.detail) {
					t.Errorf("%s: got %q, want %q", path, p.Detail, tc.detail)
				}
			}
		})
	}
}

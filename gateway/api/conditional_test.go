package api

import (
	"context"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"halo.internal/gateway/endpoints"
	"halo.internal/gateway/events"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

// reserving keeps reservations as halo-mesh does.
type reserving struct {
	house
	kept []model.Reservation
}

func (s *reserving) Reservations(context.Context) ([]model.Reservation, error) {
	return slices.Clone(s.kept), nil
}

func (s *reserving) PutReservation(ctx context.Context, r model.Reservation) error {
	_ = s.DeleteReservation(ctx, r.MAC)
	s.kept = append(s.kept, r)
	return nil
}

func (s *reserving) DeleteReservation(_ context.Context, mac string) error {
	s.kept = slices.DeleteFunc(s.kept, func(r model.Reservation) bool { return r.MAC == mac })
	return nil
}

// dial is a mesh whose profile changes as it is told.
type dial struct {
	air
	p model.MeshProfile
}

func (d *dial) Profile(context.Context) (model.MeshProfile, error) { return d.p, nil }

func (d *dial) PutProfile(_ context.Context, c model.ProfileChange) error {
	to := d.p.MeshParameters
	if c.Channel != nil {
		to.Channel = *c.Channel
	}
	d.p.Target, d.p.Phase = &to, "preparing"
	return nil
}

// editable is a route that changes or ends something with an entity tag.
type editable struct {
	path, read string // in the fixture's network; read is where its tag comes from
	in         any
	status     int  // of success
	must       bool // a condition is needed
}

// conditional are all routes that change something in place, by operation, and endings
// those that change nothing of what is there but end it, which is the same twice.
func conditional(f *fixture) (map[string]editable, []string) {
	f.t.Helper()
	f.want(http.StatusCreated, "POST", "/api/auth/users", apitype.CreateUser{Username: "vera", Password: password, Role: apitype.RoleViewer}, nil)
	f.want(http.StatusCreated, "POST", "/v1/trust/macs", apitype.TrustMAC{MAC: "02:00:00:00:00:01"}, nil)
	f.want(http.StatusCreated, "POST", "/v1/brain/neurons", apitype.CreateNeuron{Name: "n01"}, nil)
	f.Services = &reserving{kept: []model.Reservation{{MAC: "02:00:00:00:00:07", Address: netip.MustParseAddr("10.43.0.7")}}}
	f.Radios = &dial{p: model.MeshProfile{MeshParameters: model.MeshParameters{Routing: "BATMAN_V", Channel: 1, Width: 20}, Phase: "idle"}}
	mast := f.joined("mast")
	f.Registry.Status(mast, model.NodeStatus{Clients: phones("02:00:00:00:00:09")})
	client := "/v1/endpoints/" + f.Endpoints.List(endpoints.Query{Limit: 1}, func(string) (string, bool) { return "", true }).Items[0].ID
	rule := apitype.PlaceFirewallRule{FirewallRule: model.FirewallRule{Name: "no-mail", Action: model.Deny, From: model.ZoneClients, To: model.ZoneUplink, Proto: "tcp"}}
	forward := model.PortForward{Name: "camera", Proto: "tcp", Port: model.PortRange{First: 8081, Last: 8081}, To: netip.MustParseAddr("10.43.1.7"), ToPort: 80}
	const policy = "/v1/firewall"
	f.want(http.StatusCreated, "POST", policy+"/rules", rule, nil)
	f.want(http.StatusCreated, "POST", policy+"/port-forwards", forward, nil)
	f.want(http.StatusCreated, "POST", policy+"/forwardings", model.Forwarding{From: model.ZoneClients, To: model.ZoneMesh}, nil)
	rule.Action, forward.ToPort = model.Allow, 81
	const retention = "/v1/events/retention"
	kept := events.DefaultRetention()
	kept.Info.Days = 7
	operator, note, channel, name, budget := apitype.RoleOperator, "the truck", 6, "hill", int64(1<<29)
	const user, mac, reserved = "/api/auth/users/vera", "/v1/trust/macs/02:00:00:00:00:01", "/v1/network/reservations/02:00:00:00:00:07"
	const neuron, memory = "/v1/brain/neurons/n01", "/v1/brain/neurons/n01/components/memory"
	chip := model.SensorChip{Bus: "i2c.1", Address: 0x76, State: model.SensorOK, Chip: "bme280", Label: "bme280"}
	if err := f.Hardware.Report(f.t.Context(), mast, "d1", model.Inventory{Buses: []model.SensorBus{{Path: "i2c.1"}}, Sensors: []model.SensorChip{chip}}); err != nil {
		f.t.Fatal(err)
	}
	const sensor, template = "/v1/sensors/i2c.1-76@mast", "/v1/sensor-templates/odd"
	f.want(http.StatusOK, "PUT", template, apitype.PutSensorTemplate{Text: oddTemplate}, nil)
	return map[string]editable{
		"update-sensor":          {sensor, sensor, apitype.UpdateSensor{Name: &note}, 200, false},
		"put-sensor-template":    {template, template, apitype.PutSensorTemplate{Text: oddTemplate + "# changed\n"}, 200, false},
		"delete-sensor-template": {template, template, nil, 204, false},

		"update-user":         {user, user, apitype.UpdateUser{Role: &operator}, 204, false},
		"delete-user":         {user, user, nil, 204, false},
		"update-node":         {"/v1/nodes/mast", "/v1/nodes/mast", apitype.UpdateNode{Name: &name}, 200, false},
		"revoke-node":         {"/v1/nodes/mast", "/v1/nodes/mast", nil, 204, false},
		"update-trusted-mac":  {mac, mac, apitype.UpdateTrustedMAC{Note: &note}, 200, false},
		"distrust-mac":        {mac, mac, nil, 204, false},
		"update-settings":     {"/v1/settings", "/v1/settings", apitype.UpdateSettings{Telemetry: &apitype.UpdateTelemetrySettings{BudgetBytes: &budget}}, 200, false},
		"put-reservation":     {"/v1/network/reservations", reserved, model.Reservation{MAC: "02:00:00:00:00:07", Address: netip.MustParseAddr("10.43.0.8")}, 204, false},
		"delete-reservation":  {reserved, reserved, nil, 204, false},
		"change-mesh-profile": {"/v1/mesh/profile", "/v1/mesh/profile", model.ProfileChange{Channel: &channel}, 200, false},
		"change-mesh-channel": {"/v1/mesh/channel", "/v1/mesh/channel", apitype.ChangeMeshChannel{Channel: 6}, 200, false},
		"update-neuron":       {neuron, neuron, apitype.UpdateNeuron{Needs: &[]model.Component{model.Send}}, 200, false},
		"delete-neuron":       {neuron, neuron, nil, 204, false},
		"assign-component":    {memory, neuron, apitype.AssignComponent{Parts: []model.Part{{Kind: model.PartDevice, ID: "gateway"}}}, 200, true},
		"assign-part":         {memory + "/parts/device/gateway", neuron, nil, 200, false},
		"unassign-part":       {memory + "/parts/device/mast", neuron, nil, 204, false},

		"discard-firewall-draft":     {policy + "/draft", policy, nil, 200, false},
		"open-firewall-zone":         {policy + "/zones/uplink", policy, apitype.OpenZone{Services: []string{"field"}}, 200, true},
		"delete-firewall-forwarding": {policy + "/forwardings/clients-mesh", policy, nil, 200, false},
		"update-firewall-rule":       {policy + "/rules/no-mail", policy, rule, 200, true},
		"delete-firewall-rule":       {policy + "/rules/no-mail", policy, nil, 200, false},
		"update-port-forward":        {policy + "/port-forwards/camera", policy, forward, 200, true},
		"delete-port-forward":        {policy + "/port-forwards/camera", policy, nil, 200, false},
		"set-event-retention":        {retention, retention, kept, 200, true},
		"update-endpoint":            {client, client, apitype.UpdateEndpoint{Name: &name}, 200, false},
		"forget-endpoint":            {client, client, nil, 204, false},
		"update-camera":              {"/v1/nodes/mast/cameras/usb-1", "/v1/nodes/mast/cameras/usb-1", apitype.UpdateCamera{FPS: new(2.5)}, 200, false},
	}, []string{"cancel-job", "delete-api-token", "delete-operator-certificate", "end-session", "forget-sensor", "remove-overlay-peer", "revoke-join-token"}
}

// Whoever adds a route that changes something says here what its condition is.
func TestAllThatCanBeEditedHasConditions(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	routes, endings := conditional(f)
	for _, r := range f.routes() {
		if r.method == http.MethodGet || r.method == http.MethodPost {
			continue
		}
		_, ok := routes[r.operation]
		if delete(routes, r.operation); !ok && !slices.Contains(endings, r.operation) {
			t.Errorf("%s: its condition is not tested", r.operation)
		}
		if !ok {
			continue
		}
		t.Run(r.operation, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			f.t = t
			again, _ := conditional(f)
			e := again[r.operation] // IDs that are drawn are others
			if r.operation == "unassign-part" {
				f.want(http.StatusOK, "PUT", e.path, nil, nil)
			}
			tagNow := func() string {
				t.Helper()
				tag := f.given(http.StatusOK, "GET", e.read, nil, nil, nil)
				if len(tag) < 3 || tag[0] != '"' {
					t.Fatalf("GET %s has the ETag %q, want a strong one", e.read, tag)
				}
				return tag
			}
			before := tagNow()
			var p apitype.Problem
			for _, stale := range []string{`"of-before"`, "W/" + before, `"a", "b"`} {
				p = apitype.Problem{}
				f.given(http.StatusPreconditionFailed, r.method, e.path, e.in, map[string]string{"If-Match": stale}, &p)
				if p.Type != apitype.ProblemETag {
					t.Errorf("If-Match: %s: %+v", stale, p)
				}
			}
			f.given(http.StatusBadRequest, r.method, e.path, e.in, map[string]string{"If-Match": "rubbish"}, nil)
			if e.must {
				p = apitype.Problem{}
				f.given(http.StatusPreconditionRequired, r.method, e.path, e.in, nil, &p)
				if p.Type != apitype.ProblemCondition {
					t.Errorf("without If-Match: %+v", p)
				}
			}
			if now := tagNow(); now != before {
				t.Errorf("the tag of what was refused went from %s to %s", before, now)
			}
			answered := f.given(e.status, r.method, e.path, e.in, map[string]string{"If-Match": `"other", ` + before}, nil)
			if r.method == http.MethodDelete && e.path == e.read && !strings.HasPrefix(e.path, "/v1/nodes/") {
				f.want(http.StatusNotFound, "GET", e.read, nil, nil)
				return
			}
			switch r.operation {
			case "update-node":
				e.read = "/v1/nodes/hill"
			case "revoke-node":
				return // its name is free: it is found by its ID alone
			}
			if now := tagNow(); now == before || r.method != http.MethodDelete && now != answered {
				t.Errorf("changed: the tag was %s, the answer has %s, then it is %s", before, answered, now)
			}
		})
	}
	for operation := range routes {
		t.Errorf("there is no route %s that changes something", operation)
	}
}

// What nodes say of themselves does not change what people have read.
func TestTheTagOfANodeIsOfWhatPeopleChange(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.joined("mast")
	before := f.given(http.StatusOK, "GET", "/v1/nodes/mast", nil, nil, nil)
	defer f.Registry.Online(id, 7)()
	f.Registry.Status(id, model.NodeStatus{State: "degraded", Missing: "gps", UptimeS: 7})
	if now := f.given(http.StatusOK, "GET", "/v1/nodes/mast", nil, nil, nil); now != before {
		t.Errorf("a heartbeat changed the tag from %s to %s", before, now)
	}
	name := "hill"
	f.want(http.StatusOK, "PATCH", "/v1/nodes/mast", apitype.UpdateNode{Name: &name}, nil)
	renamed := f.given(http.StatusOK, "GET", "/v1/nodes/hill", nil, nil, nil)
	f.want(http.StatusNoContent, "DELETE", "/v1/nodes/hill", nil, nil)
	revoked := f.given(http.StatusOK, "GET", "/v1/nodes/"+id, nil, nil, nil)
	if renamed == before || revoked == renamed {
		t.Errorf("tags: %s, renamed %s, revoked %s", before, renamed, revoked)
	}
	// Again, for what it is now: that is no change, and no error.
	f.given(http.StatusNoContent, "DELETE", "/v1/nodes/"+id, nil, map[string]string{"If-Match": revoked}, nil)
	f.given(http.StatusPreconditionFailed, "DELETE", "/v1/nodes/"+id, nil, map[string]string{"If-Match": renamed}, nil)
}

func TestAReservationThatIsMeantToBeNew(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.Services = &reserving{}
	const path, mac = "/v1/network/reservations", "02:00:00:00:00:07"
	r := model.Reservation{MAC: mac, Address: netip.MustParseAddr("10.43.0.20")}
	anew := map[string]string{"If-None-Match": "*"}
	f.given(http.StatusPreconditionFailed, "PUT", path, r, map[string]string{"If-Match": "*"}, nil)
	made := f.given(http.StatusNoContent, "PUT", path, r, anew, nil)
	if tag := f.given(http.StatusOK, "GET", path+"/"+mac, nil, nil, nil); tag != made || made == "" {
		t.Errorf("the answer has %s, then it is %s", made, tag)
	}
	f.given(http.StatusPreconditionFailed, "PUT", path, r, anew, nil)
	f.want(http.StatusNotFound, "GET", path+"/02:00:00:00:00:08", nil, nil)
	f.want(http.StatusUnprocessableEntity, "GET", path+"/rubbish", nil, nil)
	f.want(http.StatusNoContent, "PUT", path, r, nil)
}

// Two who change a user's role and his right to log in at once, without conditions,
// each change what they name and no more.
func TestChangesOfAUserDoNotUndoEachOther(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	conditional(f)
	operator, disabled, fresh := apitype.RoleOperator, true, "another long secret"
	done := make(chan error, 3)
	root, err := f.Auth.Authenticate(t.Context(), "Bearer "+f.token)
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range []apitype.UpdateUser{{Password: &fresh}, {Role: &operator}, {Disabled: &disabled}} {
		go func() {
			var none IfMatch
			m, err := none.match()
			if err == nil {
				_, err = f.Auth.UpdateUser(t.Context(), root, "vera", m, u)
			}
			done <- err
		}()
	}
	for range 3 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	var u apitype.User
	f.want(http.StatusOK, "GET", "/api/auth/users/vera", nil, &u)
	if u.Role != operator || !u.Disabled {
		t.Errorf("got %+v, want both changes", u)
	}
	f.want(http.StatusNotFound, "GET", "/api/auth/users/nobody", nil, nil)
	f.want(http.StatusCreated, "POST", "/api/auth/users", apitype.CreateUser{Username: "olaf", Password: password, Role: apitype.RoleOperator}, nil)
	f.token = f.login("olaf")
	f.want(http.StatusOK, "GET", "/api/auth/users/olaf", nil, nil)
	f.want(http.StatusForbidden, "GET", "/api/auth/users/vera", nil, nil)
}

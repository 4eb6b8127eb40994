package api

import (
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"halo.internal/gateway/alerts"
	"halo.internal/gateway/telemetry"
	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/wire"
)

// phones are behind a node.
func phones(macs ...string) (list []model.Client) {
	for _, m := range macs {
		list = append(list, model.Client{MAC: m, Hostname: "phone", Name: "phone", Iface: "br0", Present: true, Addresses: []netip.Addr{netip.MustParseAddr("10.43.1.7")}})
	}
	return list
}

// reads has a node's newest value be that.
func (f *fixture) reads(node, metric string, value int64) {
	f.t.Helper()
	f.readsAt(node, metric, value, time.Now())
}

func (f *fixture) readsAt(node, metric string, value int64, at time.Time) {
	f.t.Helper()
	s := wire.Schema{Metrics: []wire.Metric{wire.NewMetric(metric, "%", 0)}}
	if err := f.Telemetry.PutSchema(f.t.Context(), node, s); err != nil {
		f.t.Fatal(err)
	}
	b := wire.Batch{Header: wire.Header{BatchID: wire.ID(1, f.read[node]+1), Schema: s.ID(), Clock: model.ClockGPS}, Reports: []wire.Report{{Time: at.UnixMilli(), Values: []wire.Value{wire.Int(value)}}}}
	f.read[node]++
	data, err := b.Encode(s)
	if err != nil {
		f.t.Fatal(err)
	}
	if _, err := f.Telemetry.Append(f.t.Context(), []telemetry.Entry{{Node: node, Schema: s, Batch: b, Data: data}}); err != nil {
		f.t.Fatal(err)
	}
}

func TestTheModel(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	air := &air{status: model.MeshStatus{Network: "north-ridge", Mesh: "ETHRX0001-8A", Radios: []model.Radio{{Name: "phy0", Iface: "mesh0", Channel: 6}, {Name: "phy1", Iface: "mesh1", HaLow: "863.5"}}}}
	f.Mesh, f.Radios = air, air
	gateway := f.Registry.Gateway()
	mast := f.join("mast")
	defer f.Registry.Online(mast, 1)()
	f.Registry.Status(gateway, model.NodeStatus{Interfaces: []model.Interface{{Name: "mesh0", Kind: "wifi", MAC: "00:c0:ca:00:00:01"}, {Name: "mesh1", Kind: "halow"}, {Name: "eth0", Kind: "ethernet", PortRole: "uplink"}}})
	f.Registry.Status(mast, model.NodeStatus{
		Interfaces: []model.Interface{{Name: "mesh0", Kind: "wifi", MAC: "00:c0:ca:00:00:02"}, {Name: "eth0", Kind: "ethernet", PortRole: "mesh", MAC: "dc:a6:32:00:00:02"}, {Name: "wlan1", Kind: "wifi"}, {Name: "mesh1", Kind: "halow"}},
		Clients:    phones("02:00:00:00:00:07", "02:00:00:00:00:08"),
	})
	f.reads(mast, "storage.perm.used_percent", 12)

	var s apitype.ModelSummary
	f.want(200, "GET", "/v1/model", nil, &s)
	if s.Network != "north-ridge" || s.Meshes != 1 || s.Nodes != (apitype.NodeCounts{All: 2, Online: 1}) || s.Clients != 2 || s.Present != 2 || s.Sensors != 1 || s.Conflict != 0 {
		t.Errorf("summary: got %+v", s)
	}
	var networks apitype.ModelNetworkList
	if f.want(200, "GET", "/v1/model/networks", nil, &networks); len(networks.Items) != 1 || !slices.Equal(networks.Items[0].Meshes, []string{"ETHRX0001-8A"}) || len(networks.Items[0].Overlay) != 2 {
		t.Errorf("networks: got %+v", networks)
	}
	var domains apitype.UnderlayDomainList
	f.want(200, "GET", "/v1/model/domains", nil, &domains)
	var got []string
	for _, d := range domains.Items {
		got = append(got, d.ID+" "+d.Channel+" "+strings.NewReplacer(gateway, "gw", mast, "mast").Replace(strings.Join(d.Nodes, "+")))
	}
	slices.Sort(got)
	if len(got) != 3 || got[0] != "ETHRX0001-8A/ethernet  mast" || !strings.HasPrefix(got[1], "ETHRX0001-8A/halow 863.5 ") || !strings.Contains(got[1], "gw") || !strings.Contains(got[1], "mast") || !strings.HasPrefix(got[2], "ETHRX0001-8A/wifi 6 ") {
		t.Errorf("domains: got %q", got)
	}
	var n apitype.ModelNode
	f.want(200, "GET", "/v1/model/nodes/mast", nil, &n)
	roles := []string{}
	for _, r := range n.Roles {
		roles = append(roles, r.Role+" "+r.Label)
	}
	if !slices.Equal(roles, []string{"node Node", "data-provider Sensor", "access Access for clients"}) || len(n.Children) != 4 || len(n.Sources) != 1 || len(n.Endpoints) != 2 || len(n.Domains) != 3 {
		t.Errorf("the mast: roles %q, %+v", roles, n)
	}
	if n.Sources[0].ID != mast+"/storage.perm" || n.Children[0].ID != mast+"/eth0" || n.Endpoints[0].DNS != "phone.mast.halo" || n.Endpoints[0].NodeName != "mast" {
		t.Errorf("children: %+v %+v %+v", n.Sources[0], n.Children[0], n.Endpoints[0])
	}
	var interfaces apitype.ModelInterfaceList
	if f.want(200, "GET", "/v1/model/interfaces?limit=1", nil, &interfaces); len(interfaces.Items) != 3 || interfaces.Next == "" {
		t.Errorf("interfaces: got %+v", interfaces)
	}
	var sources apitype.TelemetrySourceList
	if f.want(200, "GET", "/v1/model/sources", nil, &sources); len(sources.Items) != 1 {
		t.Errorf("sources: got %+v", sources)
	}
	f.want(404, "GET", "/v1/model/nodes/nobody", nil, nil)

	// The same address at two nodes.
	hut := f.join("hut")
	defer f.Registry.Online(hut, 1)()
	f.Registry.Status(hut, model.NodeStatus{Interfaces: []model.Interface{{Name: "mesh0", Kind: "wifi", MAC: "00:c0:ca:00:00:02"}}})
	var c apitype.ModelConflicts
	if f.want(200, "GET", "/v1/model/conflicts", nil, &c); len(c.MACs) != 1 || len(c.MACs[0].Nodes) != 2 || len(c.Quarantined) != 0 {
		t.Errorf("conflicts: got %+v", c)
	}
}

func TestEndpointRoutes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	mast := f.join("mast")
	offline := f.Registry.Online(mast, 1)
	f.Registry.Status(mast, model.NodeStatus{Clients: phones("02:00:00:00:00:07", "02:00:00:00:00:08")})
	var l apitype.EndpointList
	f.want(200, "GET", "/v1/endpoints?present=true", nil, &l)
	if len(l.Items) != 2 || !strings.HasPrefix(l.Items[0].ID, "c-") {
		t.Fatalf("got %+v", l)
	}
	id := l.Items[0].ID
	l = apitype.EndpointList{}
	if f.want(200, "GET", "/v1/nodes/mast/endpoints?limit=1", nil, &l); len(l.Items) != 1 || l.Next == "" {
		t.Errorf("of the node: got %+v", l)
	}
	f.want(200, "GET", "/v1/endpoints?node=mast", nil, nil)
	f.want(404, "GET", "/v1/endpoints?node=nobody", nil, nil)
	f.want(422, "GET", "/v1/endpoints?present=perhaps", nil, nil)
	var e apitype.Endpoint
	if f.want(200, "PATCH", "/v1/endpoints/"+id, map[string]string{"name": "Anna"}, &e); e.Name != "Anna" {
		t.Errorf("named: got %+v", e)
	}
	offline()
	var d apitype.EndpointDetail
	if f.want(200, "GET", "/v1/endpoints/"+id, nil, &d); d.Name != "Anna" || d.Present || len(d.Places) != 1 {
		t.Errorf("its node is offline: got %+v", d)
	}
	f.want(204, "DELETE", "/v1/endpoints/"+id, nil, nil)
	f.want(404, "GET", "/v1/endpoints/"+id, nil, nil)
	f.want(404, "PATCH", "/v1/endpoints/"+id, map[string]string{"name": "Anna"}, nil)
	f.token = f.loginAs(apitype.RoleViewer)
	f.want(200, "GET", "/v1/endpoints", nil, nil)
	f.want(http.StatusForbidden, "PATCH", "/v1/endpoints/x", map[string]string{"name": "Anna"}, nil)
}

func TestACardThatWasWrittenAnewOverTheAPI(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	board := func(r *model.JoinRequest) { r.Serial, r.MACs = "10000000abcdef01", []string{"dc:a6:32:00:00:01"} }
	old := f.join("mast", board)
	offline := f.Registry.Online(old, 1)
	f.Registry.Status(old, model.NodeStatus{Clients: phones("02:00:00:00:00:07")})
	offline()
	f.Events.Add("node.test", model.Info, old, "long ago", nil)
	f.reads(old, "storage.perm.used_percent", 12)
	f.want(201, "POST", "/v1/brain/neurons", apitype.CreateNeuron{Name: "n01"}, nil)
	for _, part := range []string{"device/mast", "process/halo-agent@mast"} {
		f.want(200, "PUT", "/v1/brain/neurons/n01/components/sensor/parts/"+part, nil, nil)
	}
	f.want(200, "PUT", "/v1/brain/neurons/n01/components/send/parts/device/gateway", nil, nil)
	if names, err := f.Brain.Names(t.Context()); err != nil || len(names) != 2 || names[0].Nodes[0] != old {
		t.Fatalf("names: %+v, %v", names, err)
	}
	for _, table := range []string{"locate", "speed-test"} {
		f.exec(`INSERT INTO jobs (epoch, boot, kind, node, by, request, state, created, ended) VALUES (1, 1, '` + table + `', '` + old + `', 'user:root', '{}', 'done', 1, 2)`)
	}
	f.exec(`INSERT INTO alerts (kind, node, subject, severity, message, fields, opened, closed) VALUES ('disk.full', '` + old + `', 'perm', 1, 'full', 'null', 1, 2)`)
	next := f.ask(identity.New(), "mast", board) // and waits
	var l apitype.ReplacementList
	f.want(200, "GET", "/v1/model/replacements", nil, &l)
	if len(l.Items) != 1 || !l.Items[0].Waits || l.Items[0].OldName != "mast" || !slices.Contains(l.Items[0].Reasons, "serial 10000000abcdef01") {
		t.Fatalf("offered: %+v", l)
	}
	var regs apitype.RegistrationList
	if f.want(200, "GET", "/v1/admin/registrations", nil, &regs); len(regs.Items) != 1 || regs.Items[0].Serial == "" {
		t.Errorf("registrations: %+v", regs)
	}
	f.want(404, "POST", "/v1/model/replacements/"+old+"/adopt", nil, nil)
	var n apitype.Node
	f.want(200, "POST", "/v1/model/replacements/"+next+"/adopt", nil, &n)
	if n.Name != "mast" || n.ID != next || n.Replaces != old {
		t.Errorf("adopted: %+v", n)
	}
	var m apitype.ModelNode
	f.want(200, "GET", "/v1/model/nodes/mast", nil, &m)
	if !slices.Equal(m.Replaced, []string{old}) || len(m.Endpoints) != 1 || m.Endpoints[0].Node != next {
		t.Errorf("what it has taken over: %+v", m)
	}
	m = apitype.ModelNode{}
	if f.want(200, "GET", "/v1/model/nodes/"+old, nil, &m); m.ReplacedBy != next || !m.Revoked {
		t.Errorf("the old one: %+v", m)
	}
	var neuron apitype.Neuron
	f.want(200, "GET", "/v1/brain/neurons/n01", nil, &neuron)
	parts := []model.Part{{Kind: model.PartDevice, ID: next}, {Kind: model.PartProcess, ID: "halo-agent@" + next}}
	if got := neuron.Components[0].Parts; !slices.Equal(got, parts) || len(neuron.Components[3].Parts) != 1 {
		t.Errorf("the neuron: %+v", neuron)
	}
	if names, err := f.Brain.Names(t.Context()); err != nil || len(names) != 2 || !slices.Equal(names[0].Nodes, []string{next}) {
		t.Errorf("names: %+v, %v", names, err)
	}
	// Its readings and events are those of both.
	f.reads(next, "storage.perm.used_percent", 13)
	var samples apitype.SampleList
	if f.want(200, "GET", "/v1/nodes/mast/telemetry/range", nil, &samples); len(samples.Items) != 2 || samples.Items[0].Value != 12 || samples.Items[1].Value != 13 {
		t.Errorf("readings: %+v", samples)
	}
	var series apitype.SeriesList
	if f.want(200, "GET", "/v1/telemetry/range?metric=storage.*&step_s=60", nil, &series); len(series.Items) != 1 || series.Items[0].Node != next {
		t.Errorf("series: %+v", series)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		var events apitype.EventList
		f.want(200, "GET", "/v1/events?node=mast&kind=node.test", nil, &events)
		if len(events.Items) == 1 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("events of the mast: %+v", events)
		}
	}
	// So are its jobs, speed tests and alerts, which are found by the old one too.
	for _, ref := range []string{"mast", next, old} {
		for path, want := range map[string]int{"/v1/jobs?node=" + ref: 2, "/v1/jobs?kind=locate&node=" + ref: 1, "/v1/nodes/" + ref + "/commands": 1, "/v1/speed-tests?node=" + ref: 1, "/v1/alerts?state=all&node=" + ref: 1} {
			var list struct{ Items []struct{ Node string } }
			if f.want(200, "GET", path, nil, &list); len(list.Items) != want || list.Items[0].Node != old {
				t.Errorf("%s: %+v", path, list.Items)
			}
		}
	}
	live := f.follow(f.token, apitype.LiveRequest{Topic: apitype.TopicEvents, Nodes: []string{"mast"}, Kind: "node.test"})
	f.Events.Add("node.test", model.Info, old, "late", nil)
	item(live, apitype.TopicEvents, func(e apitype.Event) bool { return e.Message == "late" && e.Node == old })
	f.want(404, "POST", "/v1/model/replacements/"+next+"/dismiss", nil, nil)
}

func TestQuarantineOverTheAPI(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.join("mast")
	f.want(409, "POST", "/v1/nodes/mast/release", nil, nil)
	for _, life := range "aba" {
		if _, err := f.Registry.Lives(t.Context(), id, []byte{byte(life)}, 1, netip.Addr{}); err != nil {
			t.Fatal(err)
		}
	}
	var n apitype.Node
	if f.want(200, "GET", "/v1/nodes/mast", nil, &n); n.Quarantined == nil {
		t.Errorf("got %+v", n)
	}
	var c apitype.ModelConflicts
	if f.want(200, "GET", "/v1/model/conflicts", nil, &c); len(c.Quarantined) != 1 {
		t.Errorf("conflicts: got %+v", c)
	}
	n = apitype.Node{}
	if f.want(200, "POST", "/v1/nodes/mast/release", nil, &n); n.Quarantined != nil {
		t.Errorf("released: got %+v", n)
	}
}

func TestAlertRoutes(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id := f.join("mast")
	is, err := f.Conditions(t.Context(), func(alerts.Key) bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(is, func(c alerts.Condition) bool { return c.Kind == alerts.KindOffline && c.Node == id }) {
		t.Errorf("conditions: got %+v", is)
	}
	f.exec(`INSERT INTO alerts (kind, node, subject, severity, message, fields, opened) VALUES ('node.offline', '` + id + `', '', 1, 'mast is offline', 'null', 1)`)
	var l apitype.AlertList
	if f.want(200, "GET", "/v1/alerts?severity=warning&node=mast&kind=node.", nil, &l); len(l.Items) != 1 || l.Items[0].Node != id {
		t.Fatalf("got %+v", l)
	}
	path := "/v1/alerts/1"
	f.want(200, "GET", path, nil, nil)
	var a apitype.Alert
	if f.want(200, "POST", path+"/acknowledge", apitype.Acknowledge{Note: "on my way"}, &a); a.Acknowledged == nil || a.Acknowledged.By != "user:root" {
		t.Errorf("acknowledged: got %+v", a)
	}
	f.want(404, "POST", "/v1/alerts/99/acknowledge", apitype.Acknowledge{}, nil)
	f.want(404, "GET", "/v1/alerts/99", nil, nil)
	f.want(422, "GET", "/v1/alerts?state=perhaps", nil, nil)
	l = apitype.AlertList{}
	if f.want(200, "GET", "/v1/alerts?state=closed", nil, &l); len(l.Items) != 0 {
		t.Errorf("closed: got %+v", l)
	}

	var events apitype.EventList
	for end := time.Now().Add(time.Minute); len(events.Items) == 0; time.Sleep(20 * time.Millisecond) {
		f.want(200, "GET", "/v1/events?acknowledged=false", nil, &events)
		if time.Now().After(end) {
			t.Fatal("no event")
		}
	}
	event := "/v1/events/" + strconv.FormatInt(events.Items[0].ID, 10)
	f.want(200, "GET", event, nil, nil)
	var e apitype.Event
	if f.want(200, "POST", event+"/acknowledge", apitype.Acknowledge{Note: "seen"}, &e); e.Acknowledged == nil || e.Acknowledged.Note != "seen" {
		t.Errorf("acknowledged: got %+v", e)
	}
	events = apitype.EventList{}
	if f.want(200, "GET", "/v1/events?acknowledged=true", nil, &events); len(events.Items) != 1 {
		t.Errorf("got %+v", events)
	}
	var r apitype.EventRetention
	f.want(200, "GET", "/v1/events/retention", nil, &r)
	r.Info.Days = 7
	f.headers = map[string]string{"If-Match": "*"}
	f.want(200, "PUT", "/v1/events/retention", r, nil)
	r.Info.Days = 0
	f.want(422, "PUT", "/v1/events/retention", r, nil)
	again := apitype.EventRetention{}
	if f.want(200, "GET", "/v1/events/retention", nil, &again); again.Info.Days != 7 {
		t.Errorf("kept: got %+v", again)
	}
	f.token = f.loginAs(apitype.RoleViewer)
	f.want(http.StatusForbidden, "POST", path+"/acknowledge", apitype.Acknowledge{}, nil)
	f.want(http.StatusForbidden, "PUT", "/v1/events/retention", r, nil)
}

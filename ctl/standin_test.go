package ctl_test

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"halo.internal/health"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/auditlog"
	"halo.internal/model/bundle"
	"halo.internal/model/version"
)

// standIn answers like a gateway whose network never changes, at a time that
// stands still, so that what haloctl prints can be compared with golden files.
// What a real gateway decides is tested against the real one.
type standIn struct {
	routes map[string]any // "GET /path" → body of the answer, or a func that gives it
	live   liveStandIn

	mu       sync.Mutex // guards what follows
	sessions int        // logins and refreshes so far; the last one's tokens are good
	ended    bool
	told     *time.Time // by the last login
}

// pcapFile is an answer that is no JSON.
type pcapFile string

// standInNow is the time on its clock.
var standInNow = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

const (
	standInUser     = "admin"
	standInPassword = "correct horse battery"
)

func newStandIn(t testing.TB) (*standIn, string) {
	t.Helper()
	g := &standIn{routes: routes(t)}
	maps.Copy(g.routes, firewallRoutes())
	maps.Copy(g.routes, tableRoutes())
	maps.Copy(g.routes, modelRoutes())
	maps.Copy(g.routes, singleRoutes())
	maps.Copy(g.routes, cameraRoutes())
	s := httptest.NewServer(g)
	t.Cleanup(s.Close)
	return g, s.URL
}

func (g *standIn) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/v1/live" {
		g.serveLive(w, r)
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	w.Header().Set("Date", standInNow.Format(http.TimeFormat))
	body := json.RawMessage("{}")
	if r.Method != http.MethodGet && r.Header.Get("Content-Type") == "application/json" {
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			reply(w, http.StatusBadRequest, apitype.Problem{Title: "Bad Request", Detail: err.Error()})
			return
		}
	}
	call := r.Method + " " + r.URL.Path
	if g.authenticate(w, r, call, body) {
		return
	}
	if v, ok := g.routes[call]; ok {
		if f, ok := v.(func(*http.Request) any); ok {
			v = f(r.WithContext(context.WithValue(r.Context(), bodyKey{}, body)))
		}
		if file, ok := v.(pcapFile); ok {
			w.Header().Set("Content-Type", "application/vnd.tcpdump.pcap")
			_, _ = w.Write([]byte(file)) // haloctl reads it or the test fails
			return
		}
		status := http.StatusOK
		if p, ok := v.(apitype.Problem); ok {
			status = p.Status
		}
		reply(w, status, v)
		return
	}
	reply(w, http.StatusNotFound, apitype.Problem{Title: "Not Found", Detail: "there is no " + strings.TrimPrefix(r.URL.Path, "/v1/")})
}

// authenticate handles the calls about sessions, and refuses others without
// the last session's access token.
func (g *standIn) authenticate(w http.ResponseWriter, r *http.Request, call string, body []byte) (done bool) {
	bad := apitype.Problem{Type: apitype.ProblemLogin, Title: "Unauthorized", Detail: "wrong user name or password"}
	switch call {
	case "GET /health", "GET /capabilities":
		return false
	case "POST /api/auth/login":
		var l apitype.LoginRequest
		if json.Unmarshal(body, &l) != nil || l.Username != standInUser || l.Password != standInPassword {
			reply(w, http.StatusUnauthorized, bad)
			return true
		}
		g.told = l.Time
		reply(w, http.StatusOK, g.tokens())
		return true
	case "POST /api/auth/refresh":
		var l apitype.RefreshRequest
		if json.Unmarshal(body, &l) != nil || g.ended || l.RefreshToken != fmt.Sprint("refresh-", g.sessions) {
			bad.Type, bad.Detail = apitype.ProblemRefresh, "the refresh token was used or ended"
			reply(w, http.StatusUnauthorized, bad)
			return true
		}
		reply(w, http.StatusOK, g.tokens())
		return true
	}
	if g.ended || r.Header.Get("Authorization") != fmt.Sprint("Bearer access-", g.sessions) {
		reply(w, http.StatusUnauthorized, apitype.Problem{Title: "Unauthorized", Detail: "expected a bearer token"})
		return true
	}
	if call == "POST /api/auth/logout" {
		g.ended = true
		w.WriteHeader(http.StatusNoContent)
		return true
	}
	return false
}

func (g *standIn) tokens() apitype.Tokens {
	g.sessions++
	g.ended = false
	return apitype.Tokens{
		AccessToken: fmt.Sprint("access-", g.sessions), RefreshToken: fmt.Sprint("refresh-", g.sessions),
		TokenType: "Bearer", ExpiresIn: 3600, Username: standInUser, Role: apitype.RoleAdmin,
	}
}

// set changes one answer.
func (g *standIn) set(call string, v any) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.routes[call] = v
}

func (g *standIn) logins() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.sessions
}

// end ends the session on the gateway's side.
func (g *standIn) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.ended = true
}

func reply(w http.ResponseWriter, status int, v any) {
	kind := "application/json"
	if p, ok := v.(apitype.Problem); ok {
		p.Status = status
		v, kind = p, "application/problem+json"
	}
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // haloctl reads it or the test fails
}

const (
	gatewayID = "n-aaaaaaaaaaaaaaaaaaaa"
	nodeID    = "n-bbbbbbbbbbbbbbbbbbbb"
	waitingID = "n-cccccccccccccccccccc"
)

func ago(d time.Duration) time.Time     { return standInNow.Add(-d) }
func agoPtr(d time.Duration) *time.Time { t := ago(d); return &t }

func routes(t testing.TB) map[string]any {
	t.Helper()
	build := version.Info{Version: "v0.1.0", Commit: "abc", Built: ago(240 * time.Hour), Go: "go1.26"}
	gw := apitype.Node{ID: gatewayID, Name: "gw", Role: model.RoleGateway, Online: true, State: "ok", Board: "qemu", Kernel: "6.12", Version: "v0.1.0", Slot: "a",
		UptimeS: 7200, Boot: 3, OverlayV4: netip.MustParseAddr("10.42.0.1"), Underlay: netip.MustParseAddr("fd12::1"), AdmittedBy: "self", Joined: ago(48 * time.Hour)}
	n01 := apitype.Node{ID: nodeID, Name: "n01", Role: model.RoleNode, State: "ok", Board: "Raspberry Pi 4 Model B", Kernel: "6.12", Version: "v0.1.0", Slot: "b",
		UptimeS: 90, Boot: 12, OverlayV4: netip.MustParseAddr("10.42.0.2"), Underlay: netip.MustParseAddr("fd12::2"), AdmittedBy: "token:0102", Joined: ago(3 * time.Hour), LastSeen: agoPtr(4 * time.Minute)}
	peer := model.OverlayPeer{Node: nodeID, Endpoint: "[fd12::2]:51820", LastHandshake: agoPtr(100 * time.Second), RxBytes: 123456, TxBytes: 1 << 30}
	link := model.Neighbour{Iface: "eth1", MAC: "02:00:00:00:00:02", Node: nodeID, LastSeenMS: 900, TQ: 255}
	key := base64.StdEncoding.EncodeToString(make([]byte, 32))
	b, err := bundle.Bundle{Network: "north-ridge", Role: model.RoleNode, Country: "DE", Gateway: bundle.Gateway{PublicKey: key},
		Mesh: bundle.Mesh{SSID: "ETHRX0001-8A", PSK: "a secret of the mesh", Routing: "BATMAN_IV"}}.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	event := func(id int64, d time.Duration, s model.Severity, kind, text string) apitype.Event {
		source := nodeID
		if strings.HasPrefix(kind, "node.") {
			source = "gateway-api"
		}
		return apitype.Event{ID: id, Received: ago(d), Source: source, Event: model.Event{Time: ago(d), Node: nodeID, Kind: kind, Severity: s, Message: text}}
	}
	mesh := meshStatus(link, peer)
	all := telemetryRoutes()
	maps.Copy(all, map[string]any{
		"GET /health": health.Report{Name: "gateway-api", Build: build, State: health.Degraded, Missing: "halo-mesh", Detail: "no socket", Started: ago(2 * time.Hour), Checks: []health.Check{
			{Name: "store", State: health.OK, Since: ago(2 * time.Hour)},
			{Name: "halo-mesh", Needs: []string{"store"}, State: health.Degraded, Detail: "no socket", Since: ago(time.Minute)}}},
		"GET /v1/system/info": apitype.SystemInfo{Node: gatewayID, Name: "gw", Role: model.RoleGateway, Network: "north-ridge", NetworkKey: key, CASHA256: strings.Repeat("ab", 32), Build: build,
			Started: ago(2 * time.Hour), Time: standInNow, Clock: model.ClockRTC, Config: apitype.Database{Bytes: 120 << 10}, Telemetry: apitype.Database{Bytes: 3 << 20, Budget: 512 << 20}},
		"GET /v1/mesh/status": mesh,
		"GET /v1/mesh/peers":  apitype.MeshPeerList{Items: mesh.Peers()},
		"GET /v1/mesh/channels": apitype.RadioChannelsList{Items: []model.RadioChannels{{Radio: "phy0", Country: "DE", Channels: []model.RadioChannel{
			{Channel: 1, FreqMHz: 2412, Usable: true, InUse: true, MaxPowerDBm: 20, NoiseDBm: -92, BusyPercent: 12.5},
			{Channel: 2, FreqMHz: 2417, Usable: true, MaxPowerDBm: 20},
			{Channel: 14, FreqMHz: 2484, Why: "regulation or the hardware disables it", MaxPowerDBm: 20, Flags: []string{"disabled"}},
			{Channel: 52, FreqMHz: 5260, Why: "radar may be there", MaxPowerDBm: 20, Flags: []string{"no-ir", "radar"}}}}}},
		"GET /v1/mesh/legality": apitype.LegalityList{Items: []model.Legality{
			{Radio: "phy0", Wanted: "DE", Country: "DE", Channel: "channel 1, 2412 MHz (20 MHz wide)", Allowed: true, MaxEIRPDBm: 20, MaxWidthMHz: 40, Reasons: []string{"rules: the kernel's database", "band: 2400 to 2483.5 MHz"}},
			{Wanted: "DE", Country: "DE", Channel: "HaLow: channel 1 to channel 9", Allowed: true, MaxEIRPDBm: 16, MaxWidthMHz: 1, DutyCyclePct: 2.8, AirtimeS: 12.5, AirtimeMaxS: 100.8, Reasons: []string{"a table"}}}},
		"GET /v1/network/reservations":                      apitype.ReservationList{Items: reservations()},
		"PUT /v1/network/reservations":                      nil,
		"DELETE /v1/network/reservations/02:00:00:00:00:20": nil,
		"GET /v1/mesh/topology":                             topology(),
		"GET /v1/topology":                                  pictureAt,
		"GET /v1/topology/changes":                          changes(),
		"GET /v1/topology/history":                          happened,
		"GET /v1/topology/netjson":                          picture().NetJSON("north-ridge", gatewayID, "1"),
		"GET /v1/nodes/n01/topology":                        nodePicture,
		"GET /v1/mesh/timeline":                             apitype.RecoveryList{Items: recoveries()},
		"GET /v1/mesh/doctor":                               doctorReport(0),
		"POST /v1/mesh/doctor":                              doctorReport(1),
		"POST /v1/mesh/scan": model.RadioScan{Radio: "phy0", Iface: "mesh0", Networks: []model.RadioNetwork{
			{BSSID: "02:00:00:00:00:02", Kind: "mesh", Name: "ETHRX0001-8A", Own: true, Secured: true, Channel: 1, FreqMHz: 2412, SignalDBm: -48.5, SeenMS: 400},
			{BSSID: "02:00:00:00:00:09", Kind: "access point", Name: "caf\x1b[31m", Channel: 6, FreqMHz: 2437, SignalDBm: -80, SeenMS: 2500}}},
		"GET /v1/mesh/profile":         meshProfile(),
		"PUT /v1/mesh/profile":         meshProfile(),
		"POST /v1/mesh/capture":        pcapFile("frames"),
		"GET /v1/network":              apitype.Network{Name: "north-ridge", Bundle: string(b)},
		"GET /v1/network/epoch":        apitype.NetworkEpoch{Epoch: 328000, Heard: 329001},
		"POST /v1/network/epoch/raise": apitype.NetworkEpoch{Epoch: 329002},
		"GET /v1/nodes":                apitype.NodeList{Items: []apitype.Node{gw, n01}},
		"GET /v1/nodes/n01": apitype.NodeDetail{Node: n01, Overlay: &peer, Neighbours: []model.Neighbour{link}, Interfaces: []apitype.Interface{
			{Interface: model.Interface{Name: "eth0", Kind: "ethernet", MAC: "02:00:00:00:00:02", Up: true, PortRole: "mesh", RxBytes: 2048, TxBytes: 10, Addresses: []netip.Prefix{netip.MustParsePrefix("fe80::2/64")}}, Present: true},
			{Interface: model.Interface{Name: "wlan1", Kind: "wifi"}, LastSeen: ago(time.Hour)}}},
		"GET /v1/brain":                                                    brainOverview(),
		"GET /v1/brain/neurons":                                            apitype.NeuronList{Items: []apitype.Neuron{weather()}},
		"GET /v1/brain/neurons/weather":                                    weather(),
		"GET /v1/brain/neurons/weather/health":                             weatherHealth(),
		"POST /v1/brain/neurons":                                           weather(),
		"PATCH /v1/brain/neurons/weather":                                  weather(),
		"DELETE /v1/brain/neurons/weather":                                 nil,
		"PUT /v1/brain/neurons/weather/components/sensor/parts/device/n01": weather(),
		"PUT /v1/brain/neurons/weather/components/send/parts/process/halo-agent@n01":    weather(),
		"DELETE /v1/brain/neurons/weather/components/send/parts/process/halo-agent@n01": nil,
		"PATCH /v1/nodes/n01":  n01,
		"DELETE /v1/nodes/n01": nil,
		"GET /v1/telemetry/latest": func(*http.Request) any {
			list := []apitype.Reading{
				{Node: gatewayID, Metric: "system.memory.free_bytes", Unit: "byte", Value: 123456789, Time: ago(65 * time.Second), Clock: model.ClockRTC, Boot: 3, Seq: 700},
				{Node: nodeID, Metric: "system.cpu.used_percent", Unit: "percent", Value: 12.34567, Time: ago(95 * time.Second), Clock: model.ClockGateway, Boot: 12, Seq: 7}}
			return apitype.ReadingList{Items: list}
		},
		"GET /v1/nodes/n01/telemetry/sequences": apitype.Coverage{Node: nodeID, Boots: []apitype.BootCoverage{
			{Boot: 11, First: 1, Last: 40, Count: 40}, {Boot: 12, First: 1, Last: 7, Count: 5, Missing: []apitype.SeqRange{{From: 3, To: 4}}}}},
		"GET /v1/events": apitype.EventList{Items: []apitype.Event{
			event(2, time.Minute, model.Warning, "mesh.port.refused", "a stranger\x1b[31m on eth1"), event(1, time.Hour, model.Info, "node.joined", "n01 joined by token")}},
		"GET /v1/admin/registrations": apitype.RegistrationList{Items: []apitype.Registration{
			{ID: waitingID, Name: "n02", Board: "Raspberry Pi Zero 2 W", Remote: "fd12::3", State: "pending", Reason: apitype.ProblemTokenUsedUp, Requested: ago(time.Hour), LastTry: ago(100 * time.Second), MACs: []string{"02:00:00:00:00:03"}}}},
		"POST /v1/admin/registrations/" + waitingID + "/approve": nil,
		"POST /v1/admin/registrations/" + waitingID + "/reject":  nil,
		"GET /v1/admin/join-tokens": apitype.JoinTokenList{Items: []apitype.JoinToken{
			{ID: "0102", Uses: 5, Used: 1, Expires: standInNow.Add(80 * time.Hour), Note: "first cards"},
			{ID: "0103", Uses: 1, Used: 1, Expires: standInNow.Add(90 * time.Minute)},
			{ID: "0104", Uses: 1, Expires: ago(time.Hour)},
			{ID: "0105", Uses: 1, Expires: standInNow.Add(90 * time.Minute), Revoked: true}}},
		"POST /v1/admin/join-tokens":        apitype.JoinToken{ID: "0106", Token: "halo-join-secret"},
		"DELETE /v1/admin/join-tokens/0102": nil,
		"GET /api/auth/me":                  apitype.Me{Kind: "user", Name: standInUser, Role: apitype.RoleAdmin},
		"GET /api/auth/users": apitype.UserList{Items: []apitype.User{
			{Username: standInUser, Role: apitype.RoleAdmin, Created: ago(48 * time.Hour), LastLogin: agoPtr(time.Minute)},
			{Username: "vera", Role: apitype.RoleViewer, Disabled: true, Created: ago(time.Hour)}}},
		"POST /api/auth/users":        apitype.User{Username: "olaf", Role: apitype.RoleOperator, Created: standInNow},
		"PATCH /api/auth/users/vera":  nil,
		"PATCH /api/auth/users/admin": nil,
		"DELETE /api/auth/users/vera": nil,
		"GET /api/auth/tokens": apitype.APITokenList{Items: []apitype.APIToken{
			{ID: "abcd", Name: "grafana", Scopes: []string{apitype.ScopeNodesRead, apitype.ScopeTelemetryRead}, Created: ago(time.Hour), By: "user:admin", LastUsed: agoPtr(time.Minute)},
			{ID: "efgh", Name: "backup", Scopes: []string{apitype.ScopeAdmin}, Created: ago(time.Hour), By: "user:admin", Expires: agoPtr(-72 * time.Hour)}}},
		"POST /api/auth/tokens":        apitype.APIToken{ID: "ijkl", Name: "probe", Token: "halo-secret"},
		"DELETE /api/auth/tokens/abcd": nil,
		"GET /v1/audit": apitype.AuditList{Items: []apitype.AuditEntry{
			{ID: 3, Time: ago(time.Minute), Actor: "user:admin", Action: "revoke-node", Target: "n01", Remote: "192.0.2.9", Status: 204},
			{ID: 2, Time: ago(30 * time.Minute), Actor: "user:admin", Action: "raise-network-epoch", Remote: "192.0.2.9"},
			{ID: 1, Time: ago(time.Hour), Actor: "token:abcd", Action: "update-node", Target: "gw\x1b[31m", Remote: "192.0.2.8", Status: 403}}, Head: auditChain(3).verification().Head},
		"GET /v1/audit/verify":  auditChain(3).verification(),
		"GET /v1/audit/records": auditChain(3).records,
		"GET /v1/trust/macs": apitype.TrustedMACList{Items: []apitype.TrustedMAC{
			{MAC: "02:00:00:00:00:02", Node: nodeID, Used: agoPtr(time.Hour), Created: ago(3 * time.Hour), By: "user:admin", Note: "mast\x1b[31m"},
			{MAC: "02:00:00:00:00:03", Created: ago(time.Minute), By: "user:admin"}}},
		"POST /v1/trust/macs":                     apitype.TrustedMAC{MAC: "02:00:00:00:00:04", Created: standInNow, By: "user:admin"},
		"PATCH /v1/trust/macs/02:00:00:00:00:02":  apitype.TrustedMAC{MAC: "02:00:00:00:00:02", Note: "west slope"},
		"DELETE /v1/trust/macs/02:00:00:00:00:02": nil,

		"GET /v1/jobs":    apitype.JobList{Items: []apitype.Job{commandJob(46, "reboot", "queued", ""), commandJob(45, "capture", "failed", `{}`), commandJob(44, "scan", "done", radioScan), commandJob(43, "speed-test", "running", "")}},
		"GET /v1/jobs/42": commandJob(42, "locate", "done", `{"leds":["ACT"]}`), "GET /v1/jobs/43": commandJob(43, "speed-test", "done", speedResult), "GET /v1/jobs/44": commandJob(44, "scan", "done", radioScan),
		"GET /v1/jobs/45": commandJob(45, "capture", "failed", ""), "GET /v1/jobs/46": commandJob(46, "reboot", "queued", ""), "GET /v1/jobs/47": commandJob(47, "capture", "done", ""), "GET /v1/jobs/48": commandJob(48, "config", "done", agentConfig),
		"GET /v1/jobs/47/file": pcapFile("captured"), "DELETE /v1/jobs/46": commandJob(46, "reboot", "cancelled", ""),
		"POST /v1/nodes/gw/commands":  apitype.Problem{Type: apitype.ProblemNodeCannot, Title: "Conflict", Status: http.StatusConflict, Detail: "gw cannot: no-led: the board has no LED that HALO may use"},
		"POST /v1/nodes/n01/commands": commandOf, "POST /v1/speed-tests": commandJob(43, "speed-test", "queued", ""),
		"GET /v1/nodes/n01/capabilities": apitype.NodeCapabilities{Node: nodeID, Online: true, Known: true, Items: []model.Ability{{Kind: model.CommandReboot}, {Kind: model.CommandLocate, Code: model.CodeNoLED, Text: "none\x1b[31m"}}},
		"GET /v1/nodes/gw/capabilities":  apitype.NodeCapabilities{Node: gatewayID, Items: []model.Ability{}},
		"GET /v1/speed-tests": apitype.SpeedTestList{Items: []apitype.SpeedTest{
			{Job: 43, Node: nodeID, Peer: gatewayID, Time: ago(time.Minute), State: "done", Result: &model.SpeedResult{Down: model.Way(2_000_000, 4*time.Second, false), Up: model.Way(300_000, 15*time.Second, true), LatencyMS: 12.34}},
			{Job: 41, Node: nodeID, Peer: waitingID, Time: ago(time.Hour), State: "refused", Code: "airtime", Text: "n01: radio halow0 may send for 36 s of an hour"}}},
	})
	return all
}

const (
	radioScan   = `{"radio":"phy0","iface":"mesh0","networks":[{"bssid":"02:00:00:00:00:09","kind":"mesh","name":"ETHRX0001-8A","own":true,"secured":true,"freq_mhz":2412,"channel":1,"signal_dbm":-61,"seen_ms":40}]}`
	speedResult = `{"down":{"mbps":4,"bytes":2000000,"seconds":4},"up":{"mbps":0.16,"bytes":300000,"seconds":15,"cut":true},"latency_ms":12.34}`
	agentConfig = `{"sample_s":5,"send_s":60,"spool_delay_s":120,"spool_budget_mib":64}`
)

// commandJob is a job of n01's.
func commandJob(id int64, kind, state, result string) apitype.Job {
	j := apitype.Job{ID: id, Kind: kind, Node: nodeID, By: "user:admin", State: state, Created: ago(time.Minute), Expires: agoPtr(-4 * time.Minute), Request: json.RawMessage(`{"kind":"` + kind + `"}`)}
	if j.Final() {
		j.Ended = agoPtr(30 * time.Second)
	}
	switch {
	case state == "failed":
		j.Code, j.Message = "timeout", "not done within 40s\x1b[31m"
	case state == "running":
		j.Progress, j.Message = 10, "n01 measures"
	case kind == "capture":
		j.File = &apitype.JobFile{Bytes: 8, Type: "application/vnd.tcpdump.pcap"}
	case result != "":
		j.Result = json.RawMessage(result)
	}
	return j
}

// commandOf makes a job of a command to n01.
func commandOf(r *http.Request) any {
	id := map[string]int64{"locate": 42, "scan": 44, "reboot": 46, "restart": 45, "capture": 47, "config": 48}
	var c apitype.CreateCommand
	b, _ := r.Context().Value(bodyKey{}).(json.RawMessage)
	if json.Unmarshal(b, &c) != nil || id[string(c.Kind)] == 0 || c.Check() != nil {
		return apitype.Problem{Title: "Unprocessable Entity", Status: http.StatusUnprocessableEntity, Detail: string(b)}
	}
	return commandJob(id[string(c.Kind)], string(c.Kind), "queued", "")
}

// bodyKey is where a request that is answered by a function has its body.
type bodyKey struct{}

// auditChain is an audit log of that many records.
type auditChain int64

func (n auditChain) all() (list []apitype.AuditRecord) {
	var before []byte
	for id := int64(1); id <= int64(n); id++ {
		r := auditlog.Record{Before: before, ID: id, Actor: "user:admin", Status: 200}
		before = r.Hash()
		list = append(list, apitype.AuditRecord{ID: id, Record: r.Encode(), Hash: hex.EncodeToString(before)})
	}
	return list
}

func (n auditChain) verification() apitype.AuditVerification {
	v := apitype.AuditVerification{Intact: true, Records: int64(n), Since: agoPtr(time.Hour)}
	for _, r := range n.all() {
		v.Head = apitype.AuditHead{ID: r.ID, Hash: r.Hash}
	}
	return v
}

// records answers in pages of two.
func (n auditChain) records(r *http.Request) any {
	since, err := strconv.ParseInt(r.URL.Query().Get("since"), 10, 64)
	if err != nil {
		return apitype.Problem{Title: "Bad Request", Status: http.StatusBadRequest}
	}
	list := n.all()[min(since, int64(n)):]
	return apitype.AuditRecordList{Items: list[:min(2, len(list))]}
}

// meshProfile is in the middle of a change.
func meshProfile() model.MeshProfile {
	now := model.MeshParameters{Routing: "BATMAN_IV", Channel: 1, Width: 20, MFP: "required", SAE: "hash-to-element", BeaconInterval: 1000}
	to, said, issued := now, standInNow.Add(-4*time.Second), standInNow.Add(-time.Hour)
	to.Channel, to.HaLowChannel, to.HaLowScheme = 6, 44, "802.11-2020"
	return model.MeshProfile{
		MeshParameters: now, SSID: "ETHRX0001-8A", Epoch: 40_000, Serial: 7, Issued: &issued, Phase: "preparing", Target: &to, Secret: true,
		Nodes:  []model.NodeProfile{{Node: nodeID, Awaited: true, Prepared: true, Said: &said}, {Node: "n-bbbbbbbbbbbbbbbbbbbb"}},
		Former: []model.FormerProfile{{MeshParameters: now, Until: standInNow.Add(6 * 24 * time.Hour)}},
	}
}

func reservations() []model.Reservation {
	return []model.Reservation{
		{MAC: "02:00:00:00:00:20", Address: netip.MustParseAddr("10.43.0.20"), Name: "camera"},
		{MAC: "02:00:00:00:00:21", Address: netip.MustParseAddr("10.43.255.20"), Waits: true},
	}
}

// topology has a neighbour by radio, one by cable, a node behind it, and one that is
// lost.
func topology() model.MeshTopology {
	s := meshStatus(model.Neighbour{Iface: "eth1", MAC: "02:00:00:00:00:02", Node: nodeID, LastSeenMS: 900, TQ: 255}, model.OverlayPeer{})
	peers := s.Peers()
	return model.MeshTopology{
		Node: gatewayID, Gateway: gatewayID, Routing: "BATMAN_IV",
		Names: map[string]string{gatewayID: "gw", nodeID: "n01\x1b[31m"},
		Originators: []model.MeshOriginator{
			{MAC: "02:00:00:00:00:02", Node: nodeID, NextHop: "02:00:00:00:00:02", NextHopNode: nodeID, Iface: "eth1", LastSeenMS: 900, TQ: 255, Others: 1},
			{MAC: "02:00:00:00:00:07", Node: waitingID, NextHop: "02:00:00:00:00:02", NextHopNode: nodeID, Iface: "eth1", LastSeenMS: 2400, TQ: 120},
			{MAC: "02:00:00:00:00:08", LastSeenMS: 61_000, Others: 2}},
		Neighbours: []model.MeshPeer{peers[0], peers[3]},
	}
}

// doctorReport is of a device that had the three faults, and has not got rid of all.
func doctorReport(examining int) model.DoctorReport {
	flooding := true
	return model.DoctorReport{
		At: standInNow, Examining: examining, OctetsSent: 12345, Flooding: &flooding,
		Peers: []model.DoctorPeer{
			{Node: gatewayID, Gateway: true, Examined: agoPtr(2 * time.Second), Answers: true, LatencyMS: 12.34, OverlayMTU: 1420, UnderlayMTU: 1500, Multicast: "yes", MulticastAt: agoPtr(time.Second)},
			{Node: nodeID, Name: "n01\x1b[31m", Examined: agoPtr(time.Minute), Answers: true, LatencyMS: 80, OverlayMTU: 1312, UnderlayMTU: 1392, Limit: 1312, Fragment: 1392, Multicast: "filtered"},
			{Node: waitingID, Examined: agoPtr(time.Hour), LatencyMS: 9},
			{Node: "n-dddddddddddddddddddd"},
		},
		Route: &model.DoctorRoute{Iface: "eth0", Detail: "a route to everywhere through eth0, of metric 5, comes before the overlay's"},
		Findings: []model.DoctorFinding{
			{Fault: model.FaultRoute, Detail: "a route to everywhere through eth0, of metric 5, comes before the overlay's", Found: ago(time.Minute), Times: 3},
			{Fault: model.FaultMTU, Peer: nodeID, Detail: "packets of more than 1312 octets through the overlay vanish on the way", Found: ago(time.Hour), Times: 1, Treatment: "packets into the overlay are held to 1312 octets", Mended: agoPtr(time.Hour)},
			{Fault: model.FaultMulticast, Peer: gatewayID, Detail: "nothing arrives", Found: ago(3 * time.Hour), Times: 1, Ended: agoPtr(2 * time.Hour)},
		},
	}
}

// meshStatus has a radio with a peer, one on its way, and a radio that the mesh
// does not have.
// recoveries are a start of the gateway, and a wedged radio that it has brought back.
func recoveries() []model.Recovery {
	mark := func(name string, ms int64) model.RecoveryMark { return model.RecoveryMark{Name: name, MS: ms} }
	restart, reload := mark("restart", 62000), mark("reload", 125300)
	restart.Detail, reload.Detail = "radio phy0 leaves the mesh and joins it anew", "wifi ath9k_htc was brought back (reloaded)"
	return []model.Recovery{
		{Boot: 6, Cause: model.CausePowerOn, State: model.RecoveryCut, Began: *agoPtr(50 * time.Hour), Missing: "peers", Stages: []model.RecoveryMark{mark("address", 3100)}},
		{Boot: 7, Cause: model.CausePowerOn, State: model.RecoveryOver, Began: *agoPtr(48 * time.Hour), TotalMS: 21340, Stages: []model.RecoveryMark{
			mark("address", 3120), mark("driver", 4000), mark("interface", 4210), mark("mesh", 4250), mark("peer", 6900), mark("originator", 8010), mark("gateway", 8900), mark("join", 9500), mark("overlay", 9960), mark("telemetry", 21340)}},
		{Boot: 7, Cause: model.CauseBroken, Check: "peers", Detail: "no member has proved itself on mesh0\x1b[31m", State: model.RecoveryLasts, BeganMS: 9000000, Began: *agoPtr(3 * time.Minute), Missing: "routes",
			Stages: []model.RecoveryMark{mark("driver", 126000), mark("peer", 131000)}, Steps: []model.RecoveryMark{restart, reload}},
	}
}

func meshStatus(link model.Neighbour, peer model.OverlayPeer) model.MeshStatus {
	air := model.Neighbour{Iface: "mesh0", MAC: "02:00:00:00:01:02", Node: nodeID, LastSeenMS: 300, TQ: 250}
	return model.MeshStatus{
		Node: gatewayID, Name: "gw", Mesh: "ETHRX0001-8A", Country: "DE", Originators: 1, Neighbours: []model.Neighbour{link, air}, Overlay: []model.OverlayPeer{peer},
		Ports: []model.Port{{Iface: "eth0", Role: "uplink"}, {Iface: "eth1", Role: "mesh", Members: []string{nodeID}, MACsec: &model.MACsec{State: "encrypted", Iface: "macsec-eth1", KeyAgeS: 7200, Invalid: 3}}},
		Relay: &model.RelayStatus{Groups: []model.RelayGroup{
			{Group: netip.MustParseAddrPort("224.10.10.1:17012")}, {Group: netip.MustParseAddrPort("239.2.3.1:6969"), Joined: true, Members: []string{nodeID}},
		}},
		Radios: []model.Radio{
			{Name: "phy0", Iface: "mesh0", MAC: "02:00:00:00:01:01", Member: true, Channel: 1, FreqMHz: 2412, WidthMHz: 20, Country: "DE", TxPowerDBm: 20, Peers: []model.RadioPeer{
				{MAC: "02:00:00:00:01:02", Node: nodeID, Linked: true, SAE: "Accepted", Peering: "ESTAB", Since: agoPtr(2 * time.Hour), SignalDBm: -61.6, InactiveMS: 1200, TxMbps: 65, RxMbps: 58.5, TxBytes: 4096, RxBytes: 100},
				{MAC: "02:00:00:00:01:03", SAE: "Committed", Peering: "LISTEN", SignalDBm: -80, InactiveMS: 30_000, Failures: 4, Reason: "wrong password\x1b[31m", RetryMS: 12_000},
				{MAC: "02:00:00:00:01:04", SAE: "Accepted", Peering: "LISTEN", SignalDBm: -81, InactiveMS: 1000, Full: true, RetryMS: 4000}},
				Dropped: model.Dropped{SAEUnverified: 4, PeeringUnverified: 3, PeeringMismatched: 1},
				Healing: &model.Healing{Rung: "restart", Evidence: "unreported", Reason: "radio phy0 was handed 13 frames in 30s, and says of none that it was sent", Searches: 12, Restarts: 2}},
			{Name: "phy1", Country: "DE", Detail: "it is in use: wlan0 is an access point on it", Peers: []model.RadioPeer{}}},
	}
}

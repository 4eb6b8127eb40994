package api

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/argon2"
	"golang.org/x/sync/errgroup"

	"halo.internal/gateway/alerts"
	"halo.internal/gateway/audit"
	"halo.internal/gateway/auth"
	"halo.internal/gateway/brain"
	"halo.internal/gateway/cameras"
	"halo.internal/gateway/clock"
	"halo.internal/gateway/commands"
	"halo.internal/gateway/endpoints"
	"halo.internal/gateway/epoch"
	"halo.internal/gateway/events"
	"halo.internal/gateway/firewall"
	"halo.internal/gateway/hardware"
	"halo.internal/gateway/idempotency"
	"halo.internal/gateway/ingest"
	"halo.internal/gateway/jobs"
	"halo.internal/gateway/live"
	"halo.internal/gateway/registry"
	"halo.internal/gateway/seal"
	"halo.internal/gateway/settings"
	"halo.internal/gateway/speedtest"
	"halo.internal/gateway/store"
	"halo.internal/gateway/store/storetest"
	"halo.internal/gateway/telemetry"
	"halo.internal/gateway/topology"
	"halo.internal/gateway/visitors"
	"halo.internal/health"
	"halo.internal/identity"
	"halo.internal/local"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/bundle"
)

func TestMain(m *testing.M) {
	flag.Parse()
	// Databases wait for the disk more than they work.
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

const password = "correct horse battery"

// stored is that password as a database has it, by a derivation that costs nothing: each
// test logs in.
var stored = fmt.Sprintf("$argon2id$v=%d$m=8,t=1,p=1$%s$%s", argon2.Version, base64.RawStdEncoding.EncodeToString([]byte("0123456789abcdef")),
	base64.RawStdEncoding.EncodeToString(argon2.IDKey([]byte(password), []byte("0123456789abcdef"), 1, 8, 1, 32)))

type noMesh struct{}

func (noMesh) Last() (model.MeshStatus, bool) { return model.MeshStatus{}, false }
func (noMesh) Look()                          {}
func (noMesh) Aside() bool                    { return false }

type fixture struct {
	*API
	t       testing.TB
	url     string
	local   net.Addr // where the server believes to be reached
	token   string
	headers map[string]string // of the next requests, besides
	wall    *wall
	read    map[string]uint64 // batches of nodes, by reads
	lens    *lens
	key     identity.Key // of the network
}

func newFixture(t testing.TB) *fixture {
	t.Helper()
	dir := t.TempDir()
	storetest.PutConfig(t, filepath.Join(dir, "config.db"))
	config, _, err := store.OpenConfig(t.Context(), filepath.Join(dir, "config.db"))
	if err != nil {
		t.Fatal(err)
	}
	series, _, err := telemetry.OpenJournal(t.Context(), filepath.Join(dir, "telemetry.db"))
	if err != nil {
		t.Fatal(err)
	}
	build := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	c, quiet, key := clock.New(time.Now, build), slog.New(slog.DiscardHandler), identity.New()
	network := key.Public()
	log := events.New(config, c, 1, quiet)
	logins, err := auth.New(t.Context(), auth.Config{DB: config, Secrets: secrets(t, dir, config), Clock: c, Events: log, Salt: network[:], Key: key, Epoch: func() uint64 { return 40_000 }})
	if err != nil {
		t.Fatal(err)
	}
	generation := epoch.NewKeeper(config, filepath.Join(dir, "epoch"), 40_000)
	clients, err := endpoints.New(t.Context(), endpoints.Config{DB: config, Clock: c, Events: log, Gateway: key.ID()})
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{t: t, key: key, wall: &wall{}, read: map[string]uint64{}, lens: &lens{key: key}}
	var nodes *registry.Registry
	seen := cameras.New(cameras.Config{
		Key: key, Now: c.Now, Log: quiet, Linger: time.Millisecond, Dial: f.lens.dial,
		Node: func(ctx context.Context, ref string) (apitype.Node, error) { return nodes.Node(ctx, ref) },
	})
	nodes, err = registry.New(t.Context(), registry.Config{Clients: clients.Report, Cameras: seen.Report, DB: config, Clock: c, Events: log, Key: key, Epoch: generation.Now})
	if err != nil {
		t.Fatal(err)
	}
	readings, err := telemetry.Open(t.Context(), telemetry.Config{Journal: series, Dir: filepath.Join(dir, "telemetry"), Retention: telemetry.Retention{Budget: 1 << 30}, Now: c.Now, Sure: func() bool { return true }, Events: log, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	chosen, _, err := settings.Open(t.Context(), config, apitype.Settings{Telemetry: apitype.TelemetrySettings{KeepRawS: 1 << 22, KeepMinuteS: 1 << 23, KeepQuarterS: 1 << 24, KeepHourS: 1 << 25, BudgetBytes: 1 << 30}})
	if err != nil {
		t.Fatal(err)
	}
	b := &bundle.Bundle{Version: bundle.Version, Network: "north-ridge", Role: model.RoleGateway, Country: "DE",
		Gateway: bundle.Gateway{PublicKey: network.Base64(), Seed: network.Base64(), ClaimCode: "7K3M-Q0ZT-4WXPB"},
		Mesh:    bundle.Mesh{SSID: "ETHRX0001-8A", PSK: "a secret of the mesh", Routing: "BATMAN_IV"}}
	once, err := idempotency.New(config, c, key)
	if err != nil {
		t.Fatal(err)
	}
	recoveries := live.NewRecoveries(10*time.Millisecond, func(ctx context.Context) ([]model.Recovery, error) { return f.Radios.Timeline(ctx) })
	orders := commands.New(commands.Config{Key: key, Epoch: generation.Now, Boot: 1, Clock: c, Events: log, Log: quiet})
	speed := speedtest.New(speedtest.Config{Commands: orders, Registry: nodes})
	work, err := jobs.New(t.Context(), jobs.Config{DB: config, Clock: c, Epoch: generation.Now, Boot: 1, Files: filepath.Join(dir, "jobs"), Log: quiet, Kinds: append(orders.Kinds(), speed.Kind())})
	if err != nil {
		t.Fatal(err)
	}
	orders.Start(work)
	speed.Start(work)
	picture := topology.New(topology.Config{Members: func(context.Context) ([]topology.Member, error) {
		return []topology.Member{{ID: key.ID(), Name: "gateway", Gateway: true}}, nil
	}, Store: topology.NewMemory(1 << 20), Events: log, Now: c.Now, Log: quiet, Settle: time.Nanosecond})
	hub := live.New(live.Config{
		Topics: live.Topics(live.Sources{Events: log, Epoch: generation.Now, Latest: readings.Latest(), Registry: nodes, Recoveries: recoveries, Topology: picture, Jobs: work}),
		Authenticate: func(ctx context.Context, token string) (auth.Principal, error) {
			return logins.Authenticate(ctx, "Bearer "+token)
		},
		Node: func(ctx context.Context, ref string) (string, error) {
			n, err := nodes.Node(ctx, ref)
			return n.ID, err
		},
		Log: quiet,
	})
	rules, err := firewall.New(t.Context(), firewall.Config{DB: config, Clock: c, Events: log, Mesh: f.wall})
	if err != nil {
		t.Fatal(err)
	}
	chips, err := hardware.New(t.Context(), hardware.Config{DB: config, Clock: c, Events: log, Log: quiet, Command: func(context.Context, string, model.Command) error { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	neurons := brain.New(brain.Config{DB: config, Clock: c, Devices: nodes, Sensors: chips.Condition, Own: func(string) (health.State, string, bool) { return "", "", false }})
	nodes.OnAdopt(neurons.Adopt)
	nodes.OnAdopted(neurons.Adopted)
	nodes.OnAdopted(clients.Adopt)
	nodes.OnAdopted(func(old, node string) { readings.Succeed(node, old) })
	alarms, err := alerts.New(t.Context(), alerts.Config{DB: config, Clock: c, Events: log, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	a := New(Config{
		Topology: picture, Jobs: work, Commands: orders, SpeedTests: speed,
		Firewall: rules, Tables: &kernel{err: local.ErrAbsent}, Visitors: visitors.New(visitors.Config{DB: config, Clock: c, Events: log, Key: key, Epoch: generation.Now}),
		Endpoints: clients, Alerts: alarms, Cameras: seen, Hardware: chips,
		Live: hub, Idempotency: once, Log: quiet, Health: health.New("gateway-api"), Clock: c, Config: config, Telemetry: readings, Settings: chosen, Events: log,
		Audit: audit.New(config, c), Auth: logins, Registry: nodes, Backups: &shelf{}, Brain: neurons, Mesh: noMesh{}, Radios: &air{err: local.ErrAbsent}, Services: &house{err: local.ErrAbsent}, Alone: true, Epoch: generation, Bundle: b, CA: []byte("PEM"), CASHA256: "00",
		Stream: ingest.New(ingest.Config{Registry: nodes, Telemetry: readings, Events: log, Clock: c, Log: quiet}), Claimed: func() {},
	})
	f.API = a
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f.local != nil {
			r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, f.local))
		}
		a.ServeHTTP(w, r)
	}))
	ctx, cancel := context.WithCancel(context.Background())
	running, stop := errgroup.WithContext(ctx)
	for _, run := range []func(context.Context) error{log.Run, hub.Run, recoveries.Run, seen.Run} {
		running.Go(func() error { return run(stop) })
	}
	t.Cleanup(func() {
		cancel()
		if err := running.Wait(); err != nil {
			t.Error(err)
		}
		srv.Close()
		config.Close()
		readings.Close()
		series.Close()
	})
	f.url = srv.URL
	f.exec("INSERT INTO users (username, role, password, created) VALUES ('root', 'admin', '" + stored + "', 0)")
	f.token = f.login("root")
	return f
}

func secrets(t testing.TB, dir string, db *store.DB) *seal.Secrets {
	t.Helper()
	box, _, err := seal.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return seal.New(db, box)
}

func (f *fixture) login(name string) string {
	f.t.Helper()
	var tokens apitype.Tokens
	f.want(http.StatusOK, "POST", "/api/auth/login", apitype.LoginRequest{Username: name, Password: password}, &tokens)
	return tokens.AccessToken
}

// do makes a request with the fixture's token and returns the answer.
func (f *fixture) do(method, path string, in any) (*http.Response, []byte) {
	f.t.Helper()
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			f.t.Fatal(err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(f.t.Context(), method, f.url+path, body)
	if err != nil {
		f.t.Fatal(err)
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if f.token != "" {
		req.Header.Set("Authorization", "Bearer "+f.token)
	}
	for k, v := range f.headers {
		req.Header.Set(k, v)
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		f.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	return resp, b
}

// want makes a request and checks the status; errors have to be problems.
func (f *fixture) want(status int, method, path string, in, out any) {
	f.t.Helper()
	resp, b := f.do(method, path, in)
	if resp.StatusCode != status {
		f.t.Fatalf("%s %s: got %s, want %d: %s", method, path, resp.Status, status, b)
	}
	if status >= 400 && resp.Header.Get("Content-Type") != "application/problem+json" {
		f.t.Errorf("%s %s: an error of type %q", method, path, resp.Header.Get("Content-Type"))
	}
	if out != nil {
		if err := json.Unmarshal(b, out); err != nil {
			f.t.Fatalf("%s %s: %v: %s", method, path, err, b)
		}
	}
}

type route struct{ method, path, operation, needs string }

// routes are all of the OpenAPI document.
func (f *fixture) routes() []route {
	var all []route
	for path, item := range f.OpenAPI().Paths {
		for method, op := range operations(item) {
			all = append(all, route{method, path, op.OperationID, ""})
		}
	}
	slices.SortFunc(all, func(a, b route) int { return strings.Compare(a.path+a.method, b.path+b.method) })
	return all
}

// The only routes that need no login.
var openRoutes = []string{
	"GET /health", "GET /capabilities", "GET /openapi.json", "GET /docs", "POST /api/auth/claim", "POST /api/auth/login", "POST /api/auth/refresh",
	"POST /v1/nodes/join", "GET /v1/nodes/stream", "GET /v1/camera-links/{ticket}",
}

func TestAllButTheOpenRoutesNeedALogin(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.unheld = true
	f.token = ""
	var open []string
	for _, r := range f.routes() {
		path := strings.NewReplacer("{id}", "x", "{username}", "x", "{mac}", "x", "{serial}", "7").Replace(r.path)
		resp, b := f.do(r.method, path, nil)
		name := r.method + " " + r.path
		var p apitype.Problem
		closed := resp.StatusCode == http.StatusUnauthorized && json.Unmarshal(b, &p) == nil && p.Type == "about:blank"
		if !closed {
			open = append(open, name)
		} else if resp.Header.Get("WWW-Authenticate") != "Bearer" {
			t.Errorf("%s: 401 without WWW-Authenticate", name)
		}
		if secured := f.OpenAPI().Paths[r.path]; closed != (len(operations(secured)[r.method].Security) > 0) {
			t.Errorf("%s: the OpenAPI document is wrong about who may use it", name)
		}
	}
	slices.Sort(open)
	want := slices.Sorted(slices.Values(openRoutes))
	if !slices.Equal(open, want) {
		t.Errorf("open are\n%s\nwant\n%s", strings.Join(open, "\n"), strings.Join(want, "\n"))
	}
}

func TestNothingSecretOverPlainHTTP(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for _, tc := range []struct {
		local     string
		protected bool
	}{{"127.0.0.1:8080", true}, {"[::1]:8080", true}, {"10.42.0.1:8080", true}, {"192.168.1.5:8080", false}, {"10.41.0.1:8080", false}} {
		a, err := net.ResolveTCPAddr("tcp", tc.local)
		if err != nil {
			t.Fatal(err)
		}
		f.local = a
		for _, r := range f.routes() {
			path := strings.NewReplacer("{id}", "x", "{username}", "x", "{mac}", "x", "{serial}", "7").Replace(r.path)
			_, b := f.do(r.method, path, nil)
			var p apitype.Problem
			_ = json.Unmarshal(b, &p) // what is no problem has no type
			public := slices.Contains([]string{"/health", "/capabilities", "/openapi.json", "/docs"}, r.path)
			if refused := p.Type == apitype.ProblemPlainHTTP; refused != (!tc.protected && !public) {
				t.Errorf("%s %s at %s: refused %v", r.method, r.path, tc.local, refused)
			}
		}
	}
}

var row = regexp.MustCompile(`(?m)^\| (GET|POST|PUT|PATCH|DELETE) (\S+) \| (\S+) \| (.+) \|$`)

func TestTheTableInDocsIsTheAPI(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	page, err := os.ReadFile("../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented, real []string
	for _, m := range row.FindAllStringSubmatch(string(page), -1) {
		documented = append(documented, fmt.Sprintf("%s %s %s open=%v", m[1], m[2], m[3], strings.HasPrefix(m[4], "open")))
	}
	for _, r := range f.routes() {
		real = append(real, fmt.Sprintf("%s %s %s open=%v", r.method, r.path, r.operation, slices.Contains(openRoutes, r.method+" "+r.path)))
	}
	slices.Sort(documented)
	slices.Sort(real)
	if d := cmp.Diff(documented, real); d != "" {
		t.Errorf("docs/api.md has -, the API has +:\n%s", d)
	}
}

func TestOpenAPIAndDocs(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.token = ""
	var doc struct {
		OpenAPI string `json:"openapi"`
		Paths   map[string]map[string]struct {
			OperationID string `json:"operationId"`
			Summary     string `json:"summary"`
			Tags        []string
			Responses   map[string]json.RawMessage
		} `json:"paths"`
		Components struct{ Schemas map[string]json.RawMessage } `json:"components"`
	}
	f.want(http.StatusOK, "GET", "/openapi.json", nil, &doc)
	if !strings.HasPrefix(doc.OpenAPI, "3.1.") {
		t.Errorf("OpenAPI %q, want 3.1", doc.OpenAPI)
	}
	kebab := regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`)
	seen := map[string]bool{}
	for path, methods := range doc.Paths {
		for method, op := range methods {
			if !kebab.MatchString(op.OperationID) || seen[op.OperationID] || op.Summary == "" || len(op.Tags) != 1 {
				t.Errorf("%s %s: operation %q, summary %q, tags %v", method, path, op.OperationID, op.Summary, op.Tags)
			}
			seen[op.OperationID] = true
		}
	}
	_, raw := f.do("GET", "/openapi.json", nil)
	for _, ref := range regexp.MustCompile(`#/components/schemas/(\w+)`).FindAllStringSubmatch(string(raw), -1) {
		if _, ok := doc.Components.Schemas[ref[1]]; !ok {
			t.Errorf("the document refers to %s, which it does not have", ref[0])
		}
	}
	resp, html := f.do("GET", "/docs", nil)
	policy := resp.Header.Get("Content-Security-Policy")
	if !strings.HasPrefix(policy, "default-src 'none'; style-src 'sha256-") || strings.Contains(policy, "unsafe") {
		t.Errorf("policy of /docs: %s", policy)
	}
	for _, foreign := range []string{"<script", "http://", "https://", "//cdn"} {
		if bytes.Contains(html, []byte(foreign)) {
			t.Errorf("/docs contains %q", foreign)
		}
	}
	if !bytes.Contains(html, []byte(`id="join-node"`)) || !bytes.Contains(html, []byte(`id="type-Membership"`)) {
		t.Error("/docs lacks an operation or a type")
	}
}

func TestProblems(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for _, tc := range []struct {
		name, method, path string
		in                 any
		status             int
		typ                string
	}{
		{"no such route", "GET", "/v2/nodes", nil, 404, "about:blank"},
		{"wrong method", "DELETE", "/v1/nodes", nil, 405, "about:blank"},
		{"no such node", "GET", "/v1/nodes/nobody", nil, 404, "about:blank"},
		{"unknown parameter", "GET", "/v1/nodes?colour=red", nil, 422, "about:blank"},
		{"limit beyond bounds", "GET", "/v1/nodes?limit=501", nil, 422, "about:blank"},
		{"bad cursor", "GET", "/v1/events?cursor=x", nil, 400, "about:blank"},
		{"bad severity", "GET", "/v1/events?severity=bad", nil, 422, "about:blank"},
		{"unknown key", "POST", "/v1/admin/join-tokens", map[string]any{"colour": "red"}, 422, "about:blank"},
		{"bad scope", "POST", "/api/auth/tokens", apitype.CreateAPIToken{Name: "x", Scopes: []string{"all"}}, 422, "about:blank"},
		{"no mesh", "GET", "/v1/mesh/status", nil, 503, apitype.ProblemMeshAbsent},
		{"weak password", "POST", "/api/auth/users", apitype.CreateUser{Username: "vera", Password: "short", Role: "viewer"}, 422, apitype.ProblemPassword},
		{"wrong password", "POST", "/api/auth/login", apitype.LoginRequest{Username: "root", Password: "no"}, 401, apitype.ProblemLogin},
		{"already claimed", "POST", "/api/auth/claim", apitype.ClaimRequest{ClientNonce: "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}, 409, apitype.ProblemAlreadyClaimed},
		{"too large", "POST", "/api/auth/login", apitype.LoginRequest{Username: strings.Repeat("x", maxBody)}, 413, "about:blank"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f.t = t
			var p apitype.Problem
			f.want(tc.status, tc.method, tc.path, tc.in, &p)
			if p.Type != tc.typ || p.Status != tc.status || p.Title == "" {
				t.Errorf("got %+v, want type %s", p, tc.typ)
			}
		})
	}
}

func TestAProblemRepeatsNoPassword(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	secret := strings.Repeat("hunter2 ", 40) // too long: refused by the schema
	for _, path := range []string{"/api/auth/login", "/api/auth/users"} {
		if _, b := f.do("POST", path, map[string]any{"username": "vera", "password": secret, "role": "viewer"}); bytes.Contains(b, []byte("hunter2")) {
			t.Errorf("%s repeats the password: %s", path, b)
		}
	}
}

func TestScopesAreEnforcedAndChangesAudited(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	root := f.token
	f.want(http.StatusCreated, "POST", "/api/auth/users", apitype.CreateUser{Username: "vera", Password: password, Role: apitype.RoleViewer}, nil)
	f.want(http.StatusCreated, "POST", "/api/auth/users", apitype.CreateUser{Username: "olaf", Password: password, Role: apitype.RoleOperator}, nil)
	vera, olaf := f.login("vera"), f.login("olaf")
	name := "base"
	for _, tc := range []struct {
		who, method, path string
		in                any
		status            int
	}{
		{vera, "GET", "/v1/nodes", nil, 200},
		{vera, "PATCH", "/v1/nodes/gateway", apitype.UpdateNode{Name: &name}, 403},
		{vera, "GET", "/v1/network", nil, 403},
		{vera, "GET", "/v1/audit", nil, 403},
		{vera, "GET", "/v1/network/epoch", nil, 403},
		{olaf, "POST", "/v1/network/epoch/raise", nil, 403},
		{root, "POST", "/v1/network/epoch/raise", nil, 200},
		{olaf, "PATCH", "/v1/nodes/gateway", apitype.UpdateNode{Name: &name}, 200},
		{olaf, "DELETE", "/v1/nodes/base", nil, 403},
		{root, "DELETE", "/v1/nodes/base", nil, 409}, // the gateway itself
		{olaf, "POST", "/v1/trust/macs", apitype.TrustMAC{MAC: "02:00:00:00:00:01"}, 403},
		{root, "POST", "/v1/trust/macs", apitype.TrustMAC{MAC: "02-00-00-00-00-01"}, 201},
		{root, "POST", "/v1/trust/macs", apitype.TrustMAC{MAC: "rubbish"}, 422},
		{root, "GET", "/v1/trust/macs", nil, 200},
		{root, "DELETE", "/v1/trust/macs/02:00:00:00:00:01", nil, 204},
		{root, "DELETE", "/v1/trust/macs/02:00:00:00:00:01", nil, 404},
		{root, "PATCH", "/api/auth/users/vera", map[string]any{"disabled": true}, 204},
		{vera, "GET", "/v1/nodes", nil, 401},
	} {
		f.token = tc.who
		f.want(tc.status, tc.method, tc.path, tc.in, nil)
	}
	f.token = root
	var got []string
	for path := "/v1/audit?limit=3"; path != ""; {
		var list apitype.AuditList
		f.want(http.StatusOK, "GET", path, nil, &list)
		for _, e := range list.Items {
			got = append(got, fmt.Sprintf("%s %s %s %d", e.Actor, e.Action, e.Target, e.Status))
		}
		if path = ""; list.Next != "" {
			path = "/v1/audit?limit=3&cursor=" + list.Next
		}
	}
	want := []string{
		"user:root update-user vera 204",
		"user:root distrust-mac 02:00:00:00:00:01 404", "user:root distrust-mac 02:00:00:00:00:01 204", "user:root trust-mac  422", "user:root trust-mac 02:00:00:00:00:01 201",
		"user:root revoke-node base 409", "user:olaf update-node gateway 200", "user:root raise-network-epoch  200",
		"user:olaf login  200", "user:vera login  200", "user:root create-user olaf 201", "user:root create-user vera 201", "user:root login  200",
	}
	if !slices.Equal(got, want) {
		t.Errorf("audited, newest first:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// heardMesh is a halo-mesh to which nodes have shown a higher epoch.
type heardMesh struct {
	heard  uint64
	silent bool // it does not answer
	aside  bool
	looked int
}

func (m *heardMesh) Last() (model.MeshStatus, bool) {
	if m.silent {
		return model.MeshStatus{}, false
	}
	return model.MeshStatus{HeardEpoch: m.heard}, true
}
func (m *heardMesh) Look()       { m.looked++ }
func (m *heardMesh) Aside() bool { return m.aside }

// A gateway that has stood down for another with its key admits nobody and raises
// nothing.
func TestAGatewayThatHasStoodDownDoesNotServe(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	mesh := &heardMesh{aside: true}
	f.Mesh = mesh
	node := identity.New()
	wg := node.WireGuardPublic()
	ask := model.JoinRequest{Network: f.Registry.Network().Base64(), IdentityKey: node.Public().Base64(), WireGuardKey: base64.StdEncoding.EncodeToString(wg[:]), Boot: 1}
	f.want(http.StatusServiceUnavailable, "POST", "/v1/nodes/join", ask, nil)
	f.want(http.StatusConflict, "POST", "/v1/network/epoch/raise", nil, nil)
	if got := f.Epoch.Now(); got != 40_000 || mesh.looked != 0 {
		t.Errorf("epoch %d, announced %d times", got, mesh.looked)
	}
	mesh.aside = false
	f.want(http.StatusUnauthorized, "POST", "/v1/nodes/join", ask, nil) // which asks for a nonce
	f.want(http.StatusOK, "POST", "/v1/network/epoch/raise", nil, nil)
}

func TestTheEpochRisesAboveWhatNodesHaveHeard(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	mesh := &heardMesh{heard: 40_007}
	f.Mesh = mesh
	const path = "/v1/network/epoch"
	var e apitype.NetworkEpoch
	f.want(http.StatusOK, "GET", path, nil, &e)
	if e != (apitype.NetworkEpoch{Epoch: 40_000, Heard: 40_007}) {
		t.Errorf("got %+v", e)
	}
	for _, want := range []uint64{40_008, 40_009} {
		e = apitype.NetworkEpoch{}
		f.want(http.StatusOK, "POST", path+"/raise", nil, &e)
		if e != (apitype.NetworkEpoch{Epoch: want}) {
			t.Errorf("got %+v, want %d and nothing heard above it", e, want)
		}
	}
	if mesh.looked != 2 {
		t.Errorf("halo-mesh was told %d times, want each time", mesh.looked)
	}
	var n apitype.Network
	f.want(http.StatusOK, "GET", "/v1/network", nil, &n)
	if n.Epoch != 40_009 {
		t.Errorf("the network has epoch %d", n.Epoch)
	}
	mesh.heard = 1<<53 - 1
	f.want(http.StatusConflict, "POST", path+"/raise", nil, nil)
}

// What nodes have heard is known to halo-mesh alone, until gateway-api has asked
// once: a raise below it would look done and change nothing.
func TestNoRaiseWithoutEffect(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	mesh := &heardMesh{silent: true}
	f.Mesh, f.Alone = mesh, false
	const path = "/v1/network/epoch"
	var p apitype.Problem
	f.want(http.StatusServiceUnavailable, "POST", path+"/raise", nil, &p)
	if f.Epoch.Now() != 40_000 || !strings.Contains(p.Detail, "halo-mesh does not answer") {
		t.Errorf("epoch %d, %q", f.Epoch.Now(), p.Detail)
	}
	mesh.silent, mesh.heard = false, 40_020
	f.want(http.StatusOK, "GET", path, nil, nil)
	mesh.heard = 0 // it has restarted
	var e apitype.NetworkEpoch
	f.want(http.StatusOK, "GET", path, nil, &e)
	if e != (apitype.NetworkEpoch{Epoch: 40_000, Heard: 40_020}) {
		t.Errorf("after a restart of halo-mesh: %+v", e)
	}
	e = apitype.NetworkEpoch{}
	f.want(http.StatusOK, "POST", path+"/raise", nil, &e)
	if e != (apitype.NetworkEpoch{Epoch: 40_021}) {
		t.Errorf("got %+v, want more than was heard before the restart", e)
	}
}

func TestARaiseThatIsAskedForAgain(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	mesh := &heardMesh{heard: 40_007}
	f.Mesh, f.Alone = mesh, false
	raise := func(above, want uint64) {
		t.Helper()
		var e apitype.NetworkEpoch
		f.want(http.StatusOK, "POST", "/v1/network/epoch/raise", apitype.RaiseEpoch{Above: &above}, &e)
		if e != (apitype.NetworkEpoch{Epoch: want}) {
			t.Errorf("above %d: got %+v, want %d", above, e, want)
		}
	}
	raise(40_000, 40_008)
	raise(40_000, 40_008)
	mesh.silent = true
	raise(0, 40_008)
	mesh.silent = false
	raise(40_008, 40_009)
	if mesh.looked != 2 {
		t.Errorf("halo-mesh was told %d times, want once for each raise", mesh.looked)
	}
	f.want(http.StatusUnprocessableEntity, "POST", "/v1/network/epoch/raise", map[string]any{"above": -1}, nil)
}

func TestTheNetworksBundleIsANodesBundle(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var n apitype.Network
	f.want(http.StatusOK, "GET", "/v1/network", nil, &n)
	b, err := bundle.Parse("export", []byte(n.Bundle))
	if err != nil {
		t.Fatal(err)
	}
	if b.Role != model.RoleNode || b.Gateway.Seed != "" || b.Gateway.ClaimCode != "" || b.Mesh.PSK != "a secret of the mesh" || n.Name != "north-ridge" {
		t.Errorf("got %+v", b)
	}
	var token apitype.JoinToken
	f.want(http.StatusCreated, "POST", "/v1/admin/join-tokens", apitype.CreateJoinToken{Uses: 2, ExpiresS: 600}, &token)
	b.Join.Token = token.Token
	if _, err := b.Marshal(); err != nil {
		t.Errorf("with a join token: %v", err)
	}
	var list apitype.JoinTokenList
	f.want(http.StatusOK, "GET", "/v1/admin/join-tokens", nil, &list)
	if len(list.Items) != 1 || list.Items[0].Token != "" || list.Items[0].Uses != 2 {
		t.Errorf("got %+v, want the token without its secret", list.Items)
	}
}

func TestEventsPage(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for i := range 7 {
		f.Events.Add("test.event", model.Severity([]model.Severity{model.Info, model.Warning, model.Error}[i%3]), "", fmt.Sprint(i), nil)
	}
	follow := func(query string) (got []string) {
		for next := ""; ; {
			var l apitype.EventList
			f.want(http.StatusOK, "GET", "/v1/events?kind=test.&limit=2"+query+next, nil, &l)
			for _, e := range l.Items {
				got = append(got, e.Message)
			}
			if l.Next == "" {
				return got
			}
			next = "&cursor=" + l.Next
		}
	}
	for end := time.Now().Add(2 * time.Minute); len(follow("")) < 7 && time.Now().Before(end); {
		time.Sleep(20 * time.Millisecond)
	}
	for query, want := range map[string]string{"": "6543210", "&since=0": "0123456", "&severity=error": "52", "&severity=warning": "5421"} {
		if got := strings.Join(follow(query), ""); got != want {
			t.Errorf("%q: got %s, want %s", query, got, want)
		}
	}
}

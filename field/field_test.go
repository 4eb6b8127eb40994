package field

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"halo.internal/health"
	"halo.internal/local"
	"halo.internal/model"
	"halo.internal/model/paths"
)

const limit = 30 * time.Second

var now = time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) *time.Time { t := now.Add(-d); return &t }

func TestStates(t *testing.T) {
	carrier := model.Port{Iface: "eth0", Role: "searching"}
	proven := model.Port{Iface: "eth0", Role: "mesh", Members: []string{"n-a"}}
	neighbour := []model.Neighbour{{Iface: "eth0"}}
	peer := []model.OverlayPeer{{Node: "n-a", LastHandshake: ago(time.Minute)}}
	loading := &health.Report{Checks: []health.Check{{Name: "bat0", State: health.Starting}}}
	for _, tc := range []struct {
		st   *model.MeshStatus
		h    *health.Report
		want State
	}{
		{nil, nil, Unknown},
		{&model.MeshStatus{}, loading, DriverLoading},
		{&model.MeshStatus{}, nil, NoRadio},
		{&model.MeshStatus{Ports: []model.Port{{Iface: "eth0", Role: "uplink"}}}, nil, NoRadio},
		{&model.MeshStatus{Ports: []model.Port{carrier}}, nil, Searching},
		{&model.MeshStatus{Ports: []model.Port{proven}}, nil, Authenticating},
		{&model.MeshStatus{Ports: []model.Port{proven}, Neighbours: neighbour}, nil, NoRoute},
		{&model.MeshStatus{Ports: []model.Port{proven}, Neighbours: neighbour, Originators: 1}, nil, NoGateway},
		{&model.MeshStatus{Ports: []model.Port{proven}, Neighbours: neighbour, Originators: 1, GatewayHeard: ago(time.Hour)}, nil, NoGateway},
		{&model.MeshStatus{Ports: []model.Port{proven}, Neighbours: neighbour, Originators: 1, GatewayHeard: ago(time.Second)}, nil, NoOverlay},
		{&model.MeshStatus{Ports: []model.Port{proven}, Neighbours: neighbour, Originators: 1, GatewayHeard: ago(time.Second), Overlay: []model.OverlayPeer{{LastHandshake: ago(time.Hour)}}}, nil, NoOverlay},
		{&model.MeshStatus{Ports: []model.Port{proven}, Neighbours: neighbour, Originators: 1, GatewayHeard: ago(time.Second), Overlay: []model.OverlayPeer{{LastHandshake: ago(-time.Hour)}}}, nil, NoOverlay}, // of before the clock was set back
		{&model.MeshStatus{Ports: []model.Port{proven}, Neighbours: neighbour, Originators: 1, GatewayHeard: ago(time.Second), Overlay: peer}, nil, Online},
	} {
		if tc.st != nil {
			tc.st.Time = now
		}
		if got := judge(tc.st, tc.h); got != tc.want {
			t.Errorf("%+v: got %q, want %q", tc.st, got, tc.want)
		}
		if advice[tc.want] == "" {
			t.Errorf("%q has no advice", tc.want)
		}
	}
}

func TestHosts(t *testing.T) {
	for host, want := range map[string]bool{
		"10.42.0.7": true, "10.42.0.7:80": true, "[fd00::1]": true, "[fd00::1]:80": true, "localhost": true, "localhost:8080": true,
		"mast-2.halo": true, "MAST-2.HALO:80": true,
		"": false, "halo": false, ".halo": false, "evil.example": false, "mast.halo.evil.example": false, "10.42.0.7.evil.example": false, "evil-halo": false,
	} {
		if got := ownHost(host); got != want {
			t.Errorf("%q: got %v, want %v", host, got, want)
		}
	}
}

// serveJSON answers on a socket below root as a process of the node does.
func serveJSON(t *testing.T, socket string, answers map[string]any) {
	t.Helper()
	mux := http.NewServeMux()
	for route, v := range answers {
		mux.HandleFunc("GET "+route, func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(v) })
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- local.Serve(ctx, socket, mux) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	for deadline := time.Now().Add(limit); ; time.Sleep(5 * time.Millisecond) {
		if c, err := net.Dial("unix", socket); err == nil {
			c.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s never answered", socket)
		}
	}
}

// node serves the sockets of a node that is online, and returns its pages.
func node(t *testing.T) http.Handler {
	t.Helper()
	root := t.TempDir()
	path := func(p string) string { return filepath.Join(root, p) }
	serveJSON(t, path(paths.MeshSocket), map[string]any{
		"/v1/status": model.MeshStatus{
			Node: "n-abcdefghij234567klmn", Name: "<script>alert(1)</script>", Network: "north-ridge", Time: now, Clock: model.ClockGateway, Joined: true, OverlayV4: "10.42.0.7",
			GatewayHeard: ago(3 * time.Second), Originators: 2, Ports: []model.Port{{Iface: "eth0", Role: "mesh", Members: []string{"n-a"}}},
			Neighbours: []model.Neighbour{{Iface: "eth0", Node: "n-a", TQ: 251, LastSeenMS: 40}}, Overlay: []model.OverlayPeer{{Node: "n-a", LastHandshake: ago(20 * time.Second)}},
		},
		"/health": health.Report{Name: "halo-mesh", State: health.OK},
	})
	serveJSON(t, path(paths.AgentSocket), map[string]any{
		"/v1/status": model.AgentStatus{Time: now, Readings: []model.Reading{
			{Metric: "system.cpu.used_percent", Value: 12.5, Unit: "%"}, {Metric: "storage.perm.free_kib", Value: 3 << 20, Unit: "KiB"}, {Metric: "system.host.uptime_s", Value: 3725, Unit: "s"},
		}},
		"/health": health.Report{Name: "halo-agent", State: health.Degraded, Missing: "gateway", Detail: "connect: refused"},
	})
	if err := os.WriteFile(path(paths.BootReport), []byte(`{"slot":"b","committed":true}`), 0o600); err != nil {
		t.Fatal(err)
	}
	return pages(t, path)
}

func pages(t *testing.T, path func(string) string) http.Handler {
	t.Helper()
	g := health.New("halo-field")
	g.Declare(checkListen)
	g.Declare(checkMesh)
	g.Declare(checkAgent)
	v := newView(path, g)
	v.refresh(t.Context())
	h, err := handler(v)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func get(h http.Handler, method, target, host string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, nil)
	r.Host = host
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestPage(t *testing.T) {
	w := get(node(t), http.MethodGet, "/", "10.43.7.1")
	body := w.Body.String()
	for _, want := range []string{
		`state good`, "online", "north-ridge", "n-abcdefghij234567klmn", "10.42.0.7", "3s ago", "251/255", "20s ago",
		"12.5 %", "3 GiB free", "1h2m5s", "halo-agent", "missing gateway", "connect: refused", "&lt;script&gt;", "<dd>b</dd>",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("%q is not on the page", want)
		}
	}
	if w.Code != http.StatusOK || strings.Contains(body, "<script") {
		t.Errorf("status %d, or a script on the page:\n%s", w.Code, body)
	}
	if m := regexp.MustCompile(`(?i)(src|href|url)\s*[=(]\s*["']?(https?:)?//`).FindString(body); m != "" {
		t.Errorf("the page loads something from elsewhere: %s", m)
	}
	if csp := w.Header().Get("Content-Security-Policy"); csp != policy || strings.Contains(csp, "unsafe") {
		t.Errorf("policy: got %q", csp)
	}
}

// How soon a hang is noticed is tested in package local; here, that it hides
// nothing of the others.
func TestAHungHaloMeshIsNamed(t *testing.T) {
	root := t.TempDir()
	path := func(p string) string { return filepath.Join(root, p) }
	serveJSON(t, path(paths.AgentSocket), map[string]any{
		"/v1/status": model.AgentStatus{Time: now}, "/health": health.Report{Name: "halo-agent", State: health.OK},
	})
	l, err := net.Listen("unix", path(paths.MeshSocket)) // connections are taken and never served
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	g := health.New("halo-field")
	g.Declare(checkMesh)
	g.Declare(checkAgent, checkMesh)
	v := newView(path, g)
	v.refresh(t.Context())
	r := g.Report()
	if r.Missing != checkMesh || r.State != health.Failed || r.Checks[1].State != health.OK {
		t.Errorf("got missing %q: %s, and %+v; want halo-mesh missing and the agent ok", r.Missing, r.Detail, r.Checks)
	}
	if d := v.latest(); d.Mesh != nil || d.Agent == nil {
		t.Errorf("on the page: mesh %v, agent %v; want the agent alone", d.Mesh, d.Agent)
	}
}

func TestDiag(t *testing.T) {
	w := get(node(t), http.MethodGet, "/api/diag", "mast-2.halo")
	var d Diag
	if err := json.Unmarshal(w.Body.Bytes(), &d); err != nil {
		t.Fatal(err)
	}
	if d.State != Online || d.Mesh == nil || d.Agent == nil || d.Boot == nil || d.Boot.Slot != "b" || len(d.Health) != 3 {
		t.Errorf("got %+v", d)
	}
}

func TestAloneItSaysWhatIsMissing(t *testing.T) {
	root := t.TempDir()
	h := pages(t, func(p string) string { return filepath.Join(root, p) })
	body := get(h, http.MethodGet, "/", "localhost").Body.String()
	for _, want := range []string{"state bad", "unknown", "halo-mesh does not answer"} {
		if !strings.Contains(body, want) {
			t.Errorf("%q is not on the page", want)
		}
	}
	w := get(h, http.MethodGet, "/health", "localhost")
	var r health.Report
	if err := json.Unmarshal(w.Body.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	if w.Code != http.StatusServiceUnavailable || r.State != health.Failed {
		t.Errorf("health: got %d, %+v", w.Code, r)
	}
}

func TestStrangersGetNothing(t *testing.T) {
	h := node(t)
	for _, tc := range []struct {
		method, target, host string
		code                 int
	}{
		{http.MethodGet, "/", "evil.example", http.StatusMisdirectedRequest},
		{http.MethodGet, "/api/diag", "evil.example:80", http.StatusMisdirectedRequest},
		{http.MethodPost, "/", "10.42.0.7", http.StatusMethodNotAllowed},
		{http.MethodGet, "/../etc/passwd", "10.42.0.7", http.StatusTemporaryRedirect},
		{http.MethodGet, "/page/page.html", "10.42.0.7", http.StatusNotFound},
		{http.MethodGet, "/style.css", "10.42.0.7", http.StatusOK},
	} {
		w := get(h, tc.method, tc.target, tc.host)
		if w.Code != tc.code {
			t.Errorf("%s %s of %s: got %d, want %d", tc.method, tc.target, tc.host, w.Code, tc.code)
		}
		if w.Header().Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s %s: headers are missing", tc.method, tc.target)
		}
	}
}

// TestRun serves for real, on a port that is taken at first.
func TestRun(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := taken.Addr().String()
	root := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- Run(ctx, Config{Root: root, Listen: address, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	}()
	socket := local.NewAgent(filepath.Join(root, paths.FieldSocket)) // any client reads /health
	waitFor(t, "health that names the listener", func() bool {
		r, err := socket.Health(t.Context())
		return err == nil && r.Missing == checkListen && r.Name == "halo-field"
	})
	taken.Close()
	waitFor(t, "the page", func() bool {
		resp, err := http.Get("http://" + address + "/")
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode == http.StatusOK && strings.Contains(string(b), "HALO node")
	})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it never came: %s", what)
		}
	}
}

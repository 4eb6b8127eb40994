package local

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"halo.internal/health"
	"halo.internal/model"
)

// serve runs Serve in the background, waits until it answers and checks at the
// end of the test that it stopped cleanly.
func serve(t *testing.T, socket string, h http.Handler) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, socket, h) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if c, err := net.Dial("unix", socket); err == nil {
			c.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the socket never answered")
		}
	}
}

func TestClientSpeaksTheRoutes(t *testing.T) {
	mux := http.NewServeMux()
	var asked []string
	answer := func(pattern string, v any) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			var body any
			_ = json.NewDecoder(r.Body).Decode(&body) // a GET has none
			b, _ := json.Marshal(body)
			asked = append(asked, r.Method+" "+r.URL.RequestURI()+" "+string(b))
			if v != nil {
				_ = json.NewEncoder(w).Encode(v)
			}
		})
	}
	graph := health.New("halo-mesh")
	graph.Declare("bat0")
	mux.Handle("GET /health", graph) // starting: 503 with a body
	answer("GET /v1/status", model.MeshStatus{Node: "n-x", BootCounter: 7})
	answer("GET /v1/events", []model.Event{{Boot: 3, Seq: 5, Kind: "test"}})
	answer("PUT /v1/overlay/peers", nil)
	answer("PUT /v1/announce", nil)
	answer("PUT /v1/operators", nil)
	answer("PUT /v1/names", nil)
	answer("POST /v1/code", nil)
	answer("PUT /v1/boot/claim-code", nil)
	answer("DELETE /v1/boot/claim-code", nil)
	answer("GET /v1/radios/channels", []model.RadioChannels{{Radio: "phy0"}})
	answer("GET /v1/net/reservations", []model.Reservation{{Name: "camera"}})
	answer("PUT /v1/net/reservations", nil)
	answer("DELETE /v1/net/reservations/{mac}", nil)
	answer("GET /v1/mesh/topology", model.MeshTopology{Routing: "BATMAN_V"})
	answer("GET /v1/radios/legal", []model.Legality{{Allowed: true}})
	answer("GET /v1/net/leases", map[string][]model.Lease{"br0": {{Name: "phone"}}})
	answer("GET /v1/net/firewall", model.FirewallStatus{Zones: []model.FirewallZone{{Zone: model.ZoneClients}}})
	answer("GET /v1/doctor", model.DoctorReport{Examining: 3})
	answer("POST /v1/doctor", model.DoctorReport{Examining: 4})
	answer("GET /v1/net/dns", model.DNSStatus{NoUpstream: "no uplink"})
	answer("POST /v1/radios/scan", model.RadioScan{Iface: "mesh0"})
	answer("POST /v1/radios/capture", "frames")
	mux.HandleFunc("GET /v1/membership", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "not joined", http.StatusNotFound)
	})
	socket := filepath.Join(t.TempDir(), "run", "mesh.sock")
	serve(t, socket, mux)

	m, ctx := NewMesh(socket), t.Context()
	if r, err := m.Health(ctx); err != nil || r.Missing != "bat0" {
		t.Errorf("Health: got %+v, %v, want missing bat0", r, err)
	}
	if s, err := m.Status(ctx); err != nil || s.BootCounter != 7 {
		t.Errorf("Status: got %+v, %v", s, err)
	}
	if e, err := m.Events(ctx, 3, 4); err != nil || len(e) != 1 || e[0].Seq != 5 {
		t.Errorf("Events: got %+v, %v", e, err)
	}
	if _, err := m.Membership(ctx); !errors.Is(err, ErrNone) || !strings.Contains(err.Error(), "not joined") {
		t.Errorf("Membership: got %v, want ErrNone with the reason", err)
	}
	for _, err := range []error{
		m.PutPeers(ctx, []model.AdmittedPeer{{Node: "n-a"}}),
		m.PutAnnounce(ctx, model.Announce{APIPort: 8443, CASHA256: "ab"}),
		m.PutOperators(ctx, model.Operators{Floor: 3}),
		m.PutNames(ctx, []model.BrainName{{Name: "brain-send-n01", Nodes: []string{"n-a"}}}),
		m.CheckCode(ctx, model.CodeTry{Code: "7K3M", Where: "tty1"}),
		m.PutClaimCode(ctx, "7K3M"),
		m.DeleteClaimCode(ctx),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	if c, err := m.Channels(ctx); err != nil || len(c) != 1 || c[0].Radio != "phy0" {
		t.Errorf("Channels: got %+v, %v", c, err)
	}
	if t2, err := m.Topology(ctx); err != nil || t2.Routing != "BATMAN_V" {
		t.Errorf("Topology: got %+v, %v", t2, err)
	}
	if l, err := m.Reservations(ctx); err != nil || len(l) != 1 || l[0].Name != "camera" {
		t.Errorf("Reservations: got %+v, %v", l, err)
	}
	if err := errors.Join(m.PutReservation(ctx, model.Reservation{MAC: "a"}), m.DeleteReservation(ctx, "02:00:00:00:00:07")); err != nil {
		t.Error(err)
	}
	if l, err := m.Legal(ctx); err != nil || len(l) != 1 || !l[0].Allowed {
		t.Errorf("Legal: got %+v, %v", l, err)
	}
	if l, err := m.Leases(ctx); err != nil || len(l["br0"]) != 1 || l["br0"][0].Name != "phone" {
		t.Errorf("Leases: got %+v, %v", l, err)
	}
	if f, err := m.Firewall(ctx); err != nil || len(f.Zones) != 1 {
		t.Errorf("Firewall: got %+v, %v", f, err)
	}
	if r, err := m.Doctor(ctx); err != nil || r.Examining != 3 {
		t.Errorf("path doctor: got %+v, %v", r, err)
	}
	if r, err := m.Examine(ctx); err != nil || r.Examining != 4 {
		t.Errorf("examination: got %+v, %v", r, err)
	}
	if d, err := m.DNS(ctx); err != nil || d.NoUpstream != "no uplink" {
		t.Errorf("DNS: got %+v, %v", d, err)
	}
	if s, err := m.Brief(ctx); err != nil || s.Node != "n-x" {
		t.Errorf("Brief: got %+v, %v", s, err)
	}
	if s, err := m.Scan(ctx, model.ScanRequest{Radio: "phy0"}); err != nil || s.Iface != "mesh0" {
		t.Errorf("Scan: got %+v, %v", s, err)
	}
	var file strings.Builder
	if err := m.Capture(ctx, model.CaptureRequest{Seconds: 3}, &file); err != nil || file.String() != "\"frames\"\n" {
		t.Errorf("Capture: got %q, %v", file.String(), err)
	}
	want := []string{
		`GET /v1/status null`,
		`GET /v1/events?after=3.4 null`,
		`PUT /v1/overlay/peers [{"identity_key":"","node":"n-a","overlay_v4":"","overlay_v6":"","wireguard_key":""}]`,
		`PUT /v1/announce {"api_port":8443,"ca_sha256":"ab"}`,
		`PUT /v1/operators {"floor":3}`,
		`PUT /v1/names [{"name":"brain-send-n01","nodes":["n-a"]}]`,
		`POST /v1/code {"code":"7K3M","where":"tty1"}`,
		`PUT /v1/boot/claim-code {"code":"7K3M"}`,
		`DELETE /v1/boot/claim-code null`,
		`GET /v1/radios/channels null`,
		`GET /v1/mesh/topology null`,
		`GET /v1/net/reservations null`,
		`PUT /v1/net/reservations {"address":"","mac":"a"}`,
		`DELETE /v1/net/reservations/02:00:00:00:00:07 null`,
		`GET /v1/radios/legal null`,
		`GET /v1/net/leases null`,
		`GET /v1/net/firewall null`,
		`GET /v1/doctor null`,
		`POST /v1/doctor null`,
		`GET /v1/net/dns null`,
		`GET /v1/status?brief null`,
		`POST /v1/radios/scan {"radio":"phy0"}`,
		`POST /v1/radios/capture {"seconds":3}`,
	}
	if got := strings.Join(asked, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("asked\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
}

// TestRefusals have a kind that callers act on, and words for people.
func TestRefusals(t *testing.T) {
	status := http.StatusOK
	socket := filepath.Join(t.TempDir(), "mesh.sock")
	serve(t, socket, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "the reason\nmore", status) }))
	for code, kind := range map[int]error{http.StatusNotFound: ErrNone, http.StatusConflict: ErrBusy, http.StatusUnprocessableEntity: ErrInvalid, http.StatusInternalServerError: nil} {
		status = code
		_, err := NewMesh(socket).Scan(t.Context(), model.ScanRequest{})
		r, ok := errors.AsType[*Refusal](err)
		if !ok || r.Status != code || r.Text != "the reason" || kind != nil && !errors.Is(err, kind) {
			t.Errorf("%d: got %v", code, err)
		}
		var file strings.Builder
		if err := NewMesh(socket).Capture(t.Context(), model.CaptureRequest{}, &file); err == nil || file.Len() > 0 {
			t.Errorf("%d: a capture of %d octets, %v", code, file.Len(), err)
		}
	}
}

func TestAbsentServerIsSaidPlainly(t *testing.T) {
	if _, err := NewMesh(filepath.Join(t.TempDir(), "none.sock")).Status(t.Context()); !errors.Is(err, ErrAbsent) {
		t.Errorf("got %v, want ErrAbsent", err)
	}
}

func TestServeReplacesAStaleSocketOnly(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "mesh.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false) // as a killed process leaves it
	l.Close()
	serve(t, socket, http.NotFoundHandler())
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("socket: got %v, %v, want mode 0660", info.Mode(), err)
	}
	if err := Serve(t.Context(), socket, http.NotFoundHandler()); err == nil {
		t.Error("a second server took over a live socket")
	}
}

func TestServeBoundsBodies(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "mesh.sock")
	read := make(chan error, 1)
	serve(t, socket, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var v []model.AdmittedPeer
		read <- json.NewDecoder(r.Body).Decode(&v)
	}))
	huge := []model.AdmittedPeer{{Node: strings.Repeat("x", maxBody)}}
	_ = NewMesh(socket).PutPeers(t.Context(), huge) // the server may close early; what counts is what it read
	if err := <-read; err == nil {
		t.Error("the server read a body beyond the limit")
	}
}

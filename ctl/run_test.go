package ctl_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"halo.internal/ctl"
	"halo.internal/ctl/profile"
	"halo.internal/model"
)

// user is somebody with profiles of his own.
type user struct {
	dir      profile.Dir
	terminal ctl.Terminal
	environ  map[string]string
	socket   string // of halo-mesh
}

func newUser(t *testing.T) *user {
	return &user{dir: profile.Dir(t.TempDir()), environ: map[string]string{}}
}

// run is one haloctl: its exit status and what it printed.
func (u *user) run(ctx context.Context, args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = ctl.Run(ctx, ctl.Env{Args: args, Stdout: &out, Stderr: &errs, Terminal: u.terminal, Profiles: u.dir, Getenv: func(k string) string { return u.environ[k] }, MeshSocket: u.socket})
	return code, out.String(), errs.String()
}

func (u *user) must(t *testing.T, args ...string) string {
	t.Helper()
	code, out, errs := u.run(t.Context(), args...)
	if code != ctl.ExitOK {
		t.Fatalf("haloctl %s: exit status %d: %s", strings.Join(args, " "), code, errs)
	}
	return out
}

func (u *user) login(t *testing.T, gateway string) {
	t.Helper()
	u.environ["HALO_PASSWORD"] = standInPassword
	u.must(t, "login", "--gateway", gateway)
	delete(u.environ, "HALO_PASSWORD")
}

// TestLoginTellsTheTime to a gateway that may not know it, unless haloctl runs on a
// device that is no better off.
func TestLoginTellsTheTime(t *testing.T) {
	g, url := newStandIn(t)
	u := newUser(t)
	told := func() *time.Time {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.told
	}
	before := time.Now().Add(-time.Second)
	u.login(t, url)
	if at := told(); at == nil || at.Before(before) || at.After(time.Now().Add(time.Second)) {
		t.Errorf("a laptop says %v", at)
	}
	u.socket = filepath.Join(t.TempDir(), "mesh.sock")
	if err := os.WriteFile(u.socket, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	u.login(t, url)
	if at := told(); at != nil {
		t.Errorf("a device says %v", at)
	}
}

func TestManyCommandsShareOneRefresh(t *testing.T) {
	g, url := newStandIn(t)
	u := newUser(t)
	u.login(t, url)
	if err := profile.Update(u.dir.Path("north-ridge"), func(p *profile.Profile) error { p.AccessEnds = time.Time{}; return nil }); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if code, _, errs := u.run(t.Context(), "node", "list"); code != ctl.ExitOK {
				t.Errorf("exit status %d: %s", code, errs)
			}
		})
	}
	wg.Wait()
	if n := g.logins(); n != 2 {
		t.Errorf("%d sessions were made, want the login and one refresh", n)
	}
}

func TestASessionThatTheGatewayForgotIsRenewedOrEnds(t *testing.T) {
	g, url := newStandIn(t)
	u := newUser(t)
	u.login(t, url)
	for _, command := range [][]string{{"node", "list"}, {"logout"}} {
		err := profile.Update(u.dir.Path("north-ridge"), func(p *profile.Profile) error { p.AccessToken = "signed with an old key"; return nil })
		if err != nil {
			t.Fatal(err)
		}
		u.must(t, command...)
	}
	u.login(t, url)
	g.end()
	code, _, errs := u.run(t.Context(), "node", "list")
	if code != ctl.ExitUnauthorised || !strings.Contains(errs, "haloctl login") {
		t.Errorf("exit status %d: %s", code, errs)
	}
}

// TestLocalAsksTheDevice itself, without a session.
func TestLocalAsksTheDevice(t *testing.T) {
	mux := http.NewServeMux()
	say := func(route string, v any) {
		mux.HandleFunc(route, func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(v) })
	}
	say("GET /v1/status", meshStatus(model.Neighbour{Iface: "eth1"}, model.OverlayPeer{}))
	say("GET /v1/radios/channels", []model.RadioChannels{{Radio: "phy0", Channels: []model.RadioChannel{{Channel: 36}}}})
	say("GET /v1/radios/legal", []model.Legality{{Radio: "phy0"}})
	say("POST /v1/radios/capture", "frames")
	say("GET /v1/mesh/topology", topology())
	say("GET /v1/doctor", doctorReport(0))
	mux.HandleFunc("POST /v1/radios/scan", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "there is no such radio", http.StatusNotFound)
	})
	dir, err := os.MkdirTemp("", "haloctl-") // short: a socket's path is limited
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "mesh.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(mux)
	s.Listener.Close()
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
	run := func(args ...string) (int, string, string) {
		var out, errs bytes.Buffer
		code := ctl.Run(t.Context(), ctl.Env{Args: append([]string{"mesh", "--local"}, args...), Stdout: &out, Stderr: &errs, Profiles: profile.Dir(dir), Getenv: func(string) string { return "" }, MeshSocket: socket})
		return code, out.String(), errs.String()
	}
	for args, want := range map[string]string{"status": "phy0", "peers": nodeID, "channels": "36", "legal": "phy0", "topology": "BATMAN_IV", "doctor --last": "1312", "capture --out -": "frames"} {
		if code, out, errs := run(strings.Fields(args)...); code != ctl.ExitOK || !strings.Contains(out, want) {
			t.Errorf("mesh %s: exit status %d, %q, %s", args, code, out, errs)
		}
	}
	if code, _, errs := run("scan"); code != ctl.ExitNotFound || !strings.Contains(errs, "there is no such radio") || !strings.Contains(errs, "next: haloctl mesh status") {
		t.Errorf("scan: exit status %d, %s", code, errs)
	}
}

// output is what a command prints as JSON, one value a line.
type output struct {
	d *json.Decoder
	r *io.PipeReader
}

// background runs a command until the test ends, and returns what it prints.
// It must end with success when it is interrupted.
func (u *user) background(t *testing.T, args ...string) output {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer w.Close()
		code := ctl.Run(ctx, ctl.Env{Args: args, Stdout: w, Stderr: t.Output(), Profiles: u.dir, Getenv: func(string) string { return "" }})
		if code != ctl.ExitOK {
			t.Errorf("haloctl %s: exit status %d", strings.Join(args, " "), code)
		}
	}()
	t.Cleanup(func() { cancel(); r.Close(); <-done })
	return output{json.NewDecoder(r), r}
}

// next waits for the next value.
func next[T any](t *testing.T, o output) T {
	t.Helper()
	late := time.AfterFunc(time.Minute, func() { o.r.CloseWithError(errors.New("nothing came within a minute")) })
	defer late.Stop()
	var v T
	if err := o.d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

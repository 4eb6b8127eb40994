package agent_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"halo.internal/ctl"
	"halo.internal/ctl/profile"
	"halo.internal/hal/led"
	"halo.internal/local"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// console is the gateway's, on which it shows its claim code.
type console struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (c *console) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.b.Write(b)
}

func (c *console) code() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if m := regexp.MustCompile(`Claim code of this gateway: (\S+)`).FindStringSubmatch(c.b.String()); m != nil {
		return m[1]
	}
	return ""
}

// operator is somebody with haloctl.
type operator struct {
	t   *testing.T
	dir profile.Dir
	env map[string]string
}

func (o *operator) run(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = ctl.Run(o.t.Context(), ctl.Env{Args: args, Stdout: &out, Stderr: &errs, Profiles: o.dir, Getenv: func(k string) string { return o.env[k] }})
	return code, out.String(), errs.String()
}

func (o *operator) must(args ...string) string {
	o.t.Helper()
	code, out, errs := o.run(args...)
	if code != ctl.ExitOK {
		o.t.Fatalf("haloctl %s: %d: %s", strings.Join(args, " "), code, errs)
	}
	return out
}

// gokrazy stands in for the supervisor of the board.
type gokrazy struct {
	s      *site
	mu     sync.Mutex // guards what follows
	pid    map[string]int
	killed []string
	boot   chan struct{} // a token for each reboot
}

func startGokrazy(s *site) *gokrazy {
	g := &gokrazy{s: s, pid: map[string]int{"halo-mesh": 10, "halo-agent": 11, "halo-field": 12}, boot: make(chan struct{}, 4)}
	mux := http.NewServeMux()
	find := func(w http.ResponseWriter, r *http.Request) (string, bool) {
		name := strings.TrimPrefix(r.FormValue("path"), "/user/")
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.pid[name] == 0 {
			http.Error(w, "service not found", http.StatusNotFound)
		}
		return name, g.pid[name] != 0
	}
	mux.HandleFunc("/status", func(w http.ResponseWriter, r *http.Request) {
		if name, ok := find(w, r); ok {
			g.mu.Lock()
			defer g.mu.Unlock()
			_ = json.NewEncoder(w).Encode(map[string]any{"Pid": g.pid[name], "Stopped": false})
		}
	})
	mux.HandleFunc("/restart", func(w http.ResponseWriter, r *http.Request) {
		if name, ok := find(w, r); ok {
			g.ends(name)
			g.mu.Lock()
			defer g.mu.Unlock()
			g.killed = append(g.killed, name)
			w.WriteHeader(http.StatusSeeOther)
		}
	})
	mux.HandleFunc("/reboot", func(http.ResponseWriter, *http.Request) { g.boot <- struct{}{} })
	socket := s.path(paths.GokrazySocket)
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		s.t.Fatal(err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		s.t.Fatal(err)
	}
	srv := &http.Server{Handler: mux}
	go func() { _ = srv.Serve(l) }()
	s.t.Cleanup(func() { srv.Close() })
	return g
}

// ends is what gokrazy does when a process has ended: it starts another.
func (g *gokrazy) ends(name string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pid[name] += 100
}

// lamp gives the board an LED.
func (s *site) lamp() (trigger func() string) {
	dir := filepath.Join(s.root, led.Class, "ACT")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		s.t.Fatal(err)
	}
	for f, v := range map[string]string{"trigger": "none [mmc0]", "brightness": "0", "max_brightness": "255"} {
		if err := os.WriteFile(filepath.Join(dir, f), []byte(v), 0o644); err != nil {
			s.t.Fatal(err)
		}
	}
	return func() string {
		b, err := os.ReadFile(filepath.Join(dir, "trigger"))
		if err != nil {
			s.t.Fatal(err)
		}
		return string(b)
	}
}

// awaited is the end of the agent's process.
func (s *site) awaited() error {
	s.t.Helper()
	done := make(chan error, 1)
	go func() { done <- s.agent.Wait() }()
	select {
	case err := <-done:
		s.agent = nil
		return err
	case <-time.After(limit):
		s.t.Fatal("the agent does not end")
		return nil
	}
}

// TestAnOperatorsCommandReachesTheBoard goes the whole way: haloctl, the gateway's
// API, its stream, the agent's process, and what it asks of the board.
func TestAnOperatorsCommandReachesTheBoard(t *testing.T) {
	c := &console{}
	var scans atomic.Int32
	s := newSiteWith(t, c, func(mux *http.ServeMux) {
		mux.HandleFunc("POST "+local.RouteScan, func(w http.ResponseWriter, r *http.Request) {
			scans.Add(1)
			var q model.ScanRequest
			_ = json.NewDecoder(r.Body).Decode(&q)
			if q.Radio == "phy9" {
				http.Error(w, "there is no such radio as \"phy9\"", http.StatusNotFound)
				return
			}
			_ = json.NewEncoder(w).Encode(model.RadioScan{Radio: "phy0", Networks: []model.RadioNetwork{{Name: "ETHRX0001-8A", Own: true}}})
		})
		mux.HandleFunc("POST "+local.RouteCapture, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, strings.Repeat("frame", 30_000))
		})
	})
	s.network.Store(s.key.Public().Base64())
	g, trigger := startGokrazy(s), s.lamp()
	s.nextBoot()
	s.start()
	waitFor(t, "the claim code", func() bool { return c.code() != "" })
	o := &operator{t: t, dir: profile.Dir(t.TempDir()), env: map[string]string{"HALO_CLAIM_CODE": c.code(), "HALO_PASSWORD": "correct horse battery"}}
	o.must("--gateway", "http://"+s.address, "claim")
	var can string
	waitFor(t, "what the node can do", func() bool {
		can = o.must("node", "capabilities", "gateway")
		return strings.Contains(can, "reboot")
	})
	for _, want := range []string{`locate +yes`, `scan +yes`, `restart +yes`, `set-output +no +no-output`, `speed-test +no +no-overlay`} {
		if !regexp.MustCompile(want).MatchString(can) {
			t.Errorf("capabilities lack %q:\n%s", want, can)
		}
	}

	if out := o.must("node", "scan", "gateway"); !strings.Contains(out, "ETHRX0001-8A") || scans.Load() != 1 {
		t.Errorf("scan: %s", out)
	}
	if code, _, errs := o.run("node", "scan", "gateway", "phy9"); code != ctl.ExitError || !strings.Contains(errs, "refused: no-radio") {
		t.Errorf("no such radio: %d, %s", code, errs)
	}
	file := filepath.Join(t.TempDir(), "frames.pcap")
	o.must("node", "capture", "gateway", "--for", "1s", "--out", file)
	if b, err := os.ReadFile(file); err != nil || len(b) != 150_000 {
		t.Errorf("a capture of %d octets, %v", len(b), err)
	}
	if code, _, errs := o.run("node", "set-output", "gateway", "siren", "on"); code != ctl.ExitError || !strings.Contains(errs, "no-output") {
		t.Errorf("an output: %d, %s", code, errs)
	}

	o.must("node", "locate", "gateway", "--for", "1s")
	if got := trigger(); got != "mmc0" {
		t.Errorf("after it blinked, the trigger is %q", got)
	}
	// A process that is killed while they blink leaves them so, and the next one does not.
	if err := os.WriteFile(filepath.Join(s.root, led.Class, "ACT", "trigger"), []byte("none [mmc0]"), 0o644); err != nil {
		t.Fatal(err)
	}
	o.must("node", "scan", "gateway") // what the device can do is told at a command's end: that file had no brackets at that of the last
	o.must("node", "locate", "gateway", "--for", "60s", "--no-wait")
	waitFor(t, "it blinks", func() bool { return trigger() == "none" })
	s.kill()
	s.start()
	waitFor(t, "the LED is as it was", func() bool { return trigger() == "mmc0" })

	// The settings are changed, and the agent starts anew with them.
	done := make(chan string, 1)
	go func() { _, out, errs := o.run("node", "config", "gateway", "--spool-budget", "32"); done <- out + errs }()
	err := s.awaited()
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 1 {
		t.Errorf("the agent ended with %v: gokrazy would not start it again", err)
	}
	s.start()
	if out := <-done; !strings.Contains(out, "32.0 MiB") || !regexp.MustCompile(`every +0\.1 s`).MatchString(out) {
		t.Errorf("config: %s", out)
	}
	if b, err := os.ReadFile(filepath.Join(s.root, paths.State, paths.AgentTOML)); err != nil || string(b) != "spool_budget_mib = 32\n" {
		t.Errorf("agent.toml has %q, %v", b, err)
	}
	if out := o.must("node", "config", "gateway"); !strings.Contains(out, "32.0 MiB") {
		t.Errorf("after the restart: %s", out)
	}

	// Processes start anew: the agent itself, one that ends when asked, one that hangs.
	restart := func(name string) (out string) {
		t.Helper()
		go func() { _, out, errs := o.run("node", "restart", "gateway", name, "--json"); done <- out + errs }()
		if name == "halo-agent" {
			if err := s.awaited(); err == nil {
				t.Error("the agent ended with 0: gokrazy would not start it again")
			}
			g.ends(name)
			s.start()
		}
		return <-done
	}
	if out := restart("halo-agent"); !strings.Contains(out, `"state": "done"`) {
		t.Errorf("halo-agent: %s", out)
	}
	field := make(chan error, 1)
	serveField := func() {
		go func() {
			err := local.Serve(context.WithoutCancel(t.Context()), s.path(paths.FieldSocket), http.NotFoundHandler())
			g.ends("halo-field")
			field <- err
		}()
	}
	serveField()
	go func() {
		if err := <-field; errors.Is(err, local.ErrRestart) {
			serveField()
		}
	}()
	if out := restart("halo-field"); !strings.Contains(out, `"ended": "in order"`) {
		t.Errorf("halo-field: %s", out)
	}
	if out := restart("gateway-api"); !strings.Contains(out, model.CodeNoComponent) {
		t.Errorf("what gokrazy does not have: %s", out)
	}

	// The machine starts anew.
	go func() { _, out, errs := o.run("node", "reboot", "gateway", "--json"); done <- out + errs }()
	<-g.boot
	s.end(syscall.SIGTERM) // as gokrazy does
	s.nextBoot()
	s.start()
	if out := <-done; !strings.Contains(out, `"state": "done"`) || !strings.Contains(out, fmt.Sprintf("for the %d. time", s.boot)) {
		t.Errorf("reboot: %s", out)
	}
	if n := len(g.boot); n != 0 {
		t.Errorf("the machine was started anew %d times more", n)
	}
	out := o.must("audit", "list")
	for _, want := range []string{"reboot", "capture", "config"} {
		if !regexp.MustCompile(`create-node-command +\S+ ` + want).MatchString(out) {
			t.Errorf("the audit log lacks %s:\n%s", want, out)
		}
	}
	if out := o.must("event", "list", "--kind", "agent.command.begun"); strings.Count(out, "user:admin") < 8 {
		t.Errorf("events of the board:\n%s", out)
	}
}

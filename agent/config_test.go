package agent

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"halo.internal/health"
	"halo.internal/identity"
	"halo.internal/local"
	"halo.internal/model"
	"halo.internal/model/paths"
)

const whole = `sample = "5s"
send = "30s"
spool_delay = "1m"
spool_budget_mib = 8
gateway = "ws://10.42.0.1:8080/v1/nodes/stream"
`

func TestSettings(t *testing.T) {
	s, err := parseSettings("agent.toml", []byte(whole))
	if err != nil || s.check() != nil {
		t.Fatal(err, s.check())
	}
	if time.Duration(s.Sample) != 5*time.Second || s.SpoolBudgetMiB != 8 {
		t.Errorf("got %+v", s)
	}
	for _, tc := range []struct{ name, from, to, want string }{
		{"unknown key", "send =", "sned =", `agent.toml:2: unknown key "sned"; expected sample,`},
		{"no duration", `"5s"`, `"often"`, `agent.toml:1:`},
		{"no toml", "sample =", "sample", "agent.toml:1:"},
		{"too often", `"5s"`, `"1ms"`, "sample: expected 100ms to 1h0m0s, got 1ms"},
		{"sent before read", `"30s"`, `"1s"`, "send: expected 5s to 1h0m0s, got 1s"},
		{"on disk before sent", `"1m"`, `"20s"`, "spool_delay: expected 30s to 1h0m0s, got 20s"},
		{"budget", "= 8", "= 0x7fffffffffffffff", "spool_budget_mib: expected"},
		{"gateway", "ws://", "https://", "gateway: expected ws://host:port/path"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, err := parseSettings("agent.toml", []byte(strings.Replace(whole, tc.from, tc.to, 1)))
			if err == nil {
				err = s.check()
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestFlagsComeBeforeTheFileBeforeDefaults(t *testing.T) {
	c := Config{Root: t.TempDir(), Role: model.RoleGateway, Flags: Settings{Send: Duration(20 * time.Second)}}
	dir := c.path(paths.State)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		if err := os.WriteFile(filepath.Join(dir, paths.AgentTOML), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("sample = \"2s\"\nsend = \"40s\"\n")
	s, err := c.settings()
	if err != nil {
		t.Fatal(err)
	}
	want := Settings{Sample: Duration(2 * time.Second), Send: Duration(20 * time.Second), SpoolDelay: defaultDelay, SpoolBudgetMiB: defaultBudget, Gateway: paths.LoopbackStreamURL}
	if !reflect.DeepEqual(s, want) {
		t.Errorf("got %+v, want %+v", s, want)
	}
	write("sample = \"2s\"\nwrong = 1\n")
	s, err = c.settings()
	if err == nil || !strings.Contains(err.Error(), "agent.toml:2") || s.Sample != defaultSample || s.Send != want.Send {
		t.Errorf("wrong file: got %+v, %v, want the flags over the defaults and the line", s, err)
	}
}

// TestHealthNamesWhatIsMissing brings an agent up step by step.
func TestHealthNamesWhatIsMissing(t *testing.T) {
	c := Config{Root: t.TempDir(), Role: model.RoleNode, BootID: "this-boot", Flags: Settings{Gateway: "ws://127.0.0.1:1/none"}, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	background(t, func(ctx context.Context) error { return Run(ctx, c) })
	client := local.NewAgent(c.path(paths.AgentSocket))
	missing := func(want string, state health.State) {
		t.Helper()
		var r health.Report
		var err error
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			if r, err = client.Health(t.Context()); err == nil && r.Missing == want && r.State == state {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("got %+v, %v, want %s missing and %s", r, err, want, state)
			}
		}
	}
	missing(checkMesh, health.Failed)
	id := identity.State{Key: identity.New(), BootCounter: 1, BootID: "last-boot"}
	put := func() {
		if err := os.WriteFile(c.path(paths.RunIdentity), id.Marshal(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(model.MeshStatus{Node: id.Key.ID(), Clock: model.ClockRTC})
	})
	background(t, func(ctx context.Context) error { return local.Serve(ctx, c.path(paths.MeshSocket), mux) })
	missing(checkIdentity, health.Starting)
	id.BootID = "this-boot"
	put()
	missing(checkGateway, health.Degraded)
	if st, err := client.Status(t.Context()); err != nil || st.Clock != model.ClockRTC {
		t.Errorf("got %+v, %v, want the clock quality of halo-mesh", st, err)
	}
}

// background runs f until the end of the test and checks how it ended.
func background(t *testing.T, f func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func FuzzSettings(f *testing.F) {
	f.Add([]byte(whole))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := parseSettings("fuzz", b); err != nil && !strings.HasPrefix(err.Error(), "fuzz") {
			t.Errorf("the error does not name the file: %v", err)
		}
	})
}

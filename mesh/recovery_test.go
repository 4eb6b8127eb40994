package mesh

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/health"
	"halo.internal/local"
	"halo.internal/mesh/batman"
	"halo.internal/mesh/clock"
	"halo.internal/mesh/events"
	"halo.internal/mesh/state"
	"halo.internal/mesh/timeline"
	"halo.internal/mesh/wireless"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// recovering is a device below root, all of whose checks but perm are well.
func recovering(t *testing.T, root string) *core {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	m := &core{Config: Config{Root: root, Log: log}, graph: newGraph()}
	m.past.look = make(chan struct{}, 1)
	m.clock = clock.New(fixedClock{}, time.Unix(0, 0))
	m.id.BootCounter = 7
	m.store = state.New(paths.Dir(m.path(paths.State)), nil)
	if err := os.MkdirAll(m.path(paths.Run), 0o755); err != nil {
		t.Fatal(err)
	}
	m.events = events.Open(m.path(paths.RunEvents), "n-x", 7, m.clock.Now, log)
	for _, c := range m.graph.Report().Checks {
		m.graph.Set(c.Name, health.OK, "")
	}
	m.graph.Set(checkPerm, health.Degraded, "in RAM")
	m.startTimeline()
	return m
}

// fixedClock is a clock that nobody sets.
type fixedClock struct{}

func (fixedClock) Now() time.Time          { return time.Unix(1_800_000_000, 0) }
func (fixedClock) Set(time.Time) error     { return nil }
func (fixedClock) RTC() (time.Time, error) { return time.Time{}, errors.New("none") }

// TestARecoveryOfADevice is from its graph and its events to the card.
func TestARecoveryOfADevice(t *testing.T) {
	root := t.TempDir()
	m := recovering(t, root)
	m.chain.links, m.chain.originators = 1, 1
	m.record(false)
	m.agent.acked = 1
	m.record(false)
	list := m.Timeline()
	if len(list) != 1 || list[0].Cause != model.CausePowerOn || list[0].State != model.RecoveryOver || len(list[0].Stages) != len(model.RecoveryStages) || list[0].Boot != 7 {
		t.Fatalf("the start: %+v", list)
	}
	told := m.events.After(0, 0)
	if n := len(told); n == 0 || told[n-1].Kind != EventRecovered || told[n-1].Fields["cause"] != "power-on" || told[n-1].Fields["total_ms"] == "" || told[n-1].Fields["telemetry"] == "" {
		t.Errorf("events: %+v", told)
	}
	if m.watchIn() != watchEvery {
		t.Errorf("looks every %s while all is well", m.watchIn())
	}
	if b, err := os.ReadFile(m.path(filepath.Join(paths.State, paths.Timeline))); err != nil {
		t.Error(err)
	} else if kept, err := timeline.Parse(b); err != nil || len(kept) != 1 {
		t.Errorf("on the card: %v, %+v", err, kept)
	}

	// A radio works with less, and the gateway is not heard: this is what broke.
	m.graph.Set(checkDriver, health.Degraded, "radio phy1 is not there")
	m.graph.Set(checkGateway, health.Failed, "silent")
	m.record(false)
	m.noteStep(model.Event{Kind: wireless.EventRestarted, Message: "radio phy0 leaves the mesh"})
	m.noteStep(model.Event{Kind: "clock.corrected"})
	m.record(false)
	list = m.Timeline()
	if c := list[1]; c.Cause != model.CauseBroken || c.Check != checkGateway || c.Detail != "silent" || len(c.Steps) != 1 || c.Steps[0].Name != "restart" {
		t.Errorf("what broke: %+v", c)
	}
	if m.watchIn() != hurryEvery {
		t.Errorf("looks every %s while a recovery lasts", m.watchIn())
	}
	for lasted, want := range map[time.Duration]time.Duration{0: hurryEvery, 30 * time.Second: hurryEvery, time.Minute: time.Second, time.Hour: watchEvery} {
		if got := lookIn(lasted); got != want {
			t.Errorf("after %s: looks every %s, expected %s", lasted, got, want)
		}
	}

	// The process is restarted, and the recovery goes on.
	again := recovering(t, root)
	list = again.Timeline()
	if c := list[len(list)-1]; len(list) != 2 || c.Check != checkGateway || len(c.Steps) != 2 || c.Steps[1].Name != "restart" || c.State != model.RecoveryLasts {
		t.Errorf("after a restart of the process: %+v", list)
	}
	again.chain.links = 1
	again.record(true)
	if kept, _, err := again.kept(); err != nil || len(kept) != 2 || kept[1].State != model.RecoveryLasts {
		t.Errorf("at the end of the process: %+v, %v", kept, err)
	}

	// The machine is started anew: what is in RAM is gone.
	if err := os.RemoveAll(again.path(paths.Run)); err != nil {
		t.Fatal(err)
	}
	next := recovering(t, root)
	if list = next.Timeline(); len(list) != 3 || list[1].State != model.RecoveryCut || list[2].Cause != model.CausePowerOn {
		t.Errorf("after a start of the machine: %+v", list)
	}

	// A card that keeps rubbish starts anew.
	if err := errors.Join(os.RemoveAll(next.path(paths.Run)), os.WriteFile(next.path(filepath.Join(paths.State, paths.Timeline)), []byte(`[{"cause":"x"}]`), 0o600)); err != nil {
		t.Fatal(err)
	}
	if list = recovering(t, root).Timeline(); len(list) != 1 {
		t.Errorf("with a damaged file: %+v", list)
	}
}

// kept reads what is on the card.
func (m *core) kept() (list []model.Recovery, b []byte, err error) {
	if b, err = os.ReadFile(m.path(filepath.Join(paths.State, paths.Timeline))); err == nil {
		list, err = timeline.Parse(b)
	}
	return list, b, err
}

// TestFirstLinkExplains what rests on it, whatever works with less before it.
func TestFirstLinkExplains(t *testing.T) {
	for _, tc := range []struct {
		name   string
		set    map[string]health.State
		whole  bool
		broken string
	}{
		{"all is well", nil, true, ""},
		{"of the device itself", map[string]health.State{checkPerm: health.Failed, checkClock: health.Degraded}, true, ""},
		{"a radio of two", map[string]health.State{checkMesh: health.Degraded}, false, checkMesh},
		{"a radio of two, and the overlay", map[string]health.State{checkMesh: health.Degraded, checkOverlay: health.Failed}, false, checkOverlay},
		{"two work with less", map[string]health.State{checkMesh: health.Degraded, checkTelemetry: health.Degraded}, false, checkMesh},
		{"two are broken", map[string]health.State{checkRoutes: health.Failed, checkOverlay: health.Failed}, false, checkRoutes},
		{"not known yet", map[string]health.State{checkGateway: health.Starting, checkOverlay: health.Failed}, false, checkGateway},
	} {
		m := recovering(t, t.TempDir())
		for name, s := range tc.set {
			m.graph.Set(name, s, "")
		}
		if f := m.facts(); f.Whole != tc.whole || f.Broken != tc.broken {
			t.Errorf("%s: whole %v, broken %q, want %v, %q", tc.name, f.Whole, f.Broken, tc.whole, tc.broken)
		}
	}
}

// TestTheAgentIsAsked for its stream and its acknowledgements.
func TestTheAgentIsAsked(t *testing.T) {
	dir, err := os.MkdirTemp("", "halo-agent-") // short: a socket's path is limited
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "agent.sock")
	g := health.New("halo-agent")
	g.Declare(agentStream)
	mux := http.NewServeMux()
	mux.Handle("GET "+local.RouteHealth, g)
	mux.HandleFunc("GET "+local.RouteStatus, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"spool":{"acked":42}}`)) // the test asks
	})
	agent := local.NewAgent(socket)
	if state, detail, acked := askAgent(t.Context(), agent); state != health.Degraded || !strings.Contains(detail, "halo-agent does not answer") || acked != 0 {
		t.Errorf("absent: %s %q %d", state, detail, acked)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- local.Serve(ctx, socket, mux) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if _, detail, _ := askAgent(t.Context(), agent); !strings.Contains(detail, "does not answer") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the stand-in does not answer")
		}
	}
	for _, tc := range []struct {
		set, want    health.State
		said, detail string
	}{
		{health.Starting, health.Degraded, "", "halo-agent has no stream to the gateway yet"},
		{health.Failed, health.Degraded, "gateway refused: revoked", "gateway refused: revoked"},
		{health.OK, health.OK, "", ""},
	} {
		g.Set(agentStream, tc.set, tc.said)
		if state, detail, acked := askAgent(t.Context(), agent); state != tc.want || detail != tc.detail || acked != 42 {
			t.Errorf("%s: got %s %q %d", tc.set, state, detail, acked)
		}
	}
}

// lostBat answers until it is taken away.
type lostBat struct{ answers []error }

func (b *lostBat) Info() (batman.Info, error) {
	err := b.answers[0]
	b.answers = b.answers[min(1, len(b.answers)-1):]
	return batman.Info{}, err
}

func TestBatIsMadeAnewWhenItIsGone(t *testing.T) {
	gone := errors.New("no such device")
	for name, tc := range map[string]struct {
		answers []error
		after   time.Duration // 0: never
	}{
		"it is there":         {[]error{nil}, 0},
		"it fails once":       {[]error{nil, gone, nil}, 0},
		"it is gone":          {[]error{nil, nil, gone}, 4 * guardEvery},
		"gone from the start": {[]error{gone}, 2 * guardEvery},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begun := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				err := guardBat(ctx, cancel, &lostBat{slices.Clone(tc.answers)})
				switch took := time.Since(begun); {
				case tc.after == 0 && (err != nil || took < time.Hour):
					t.Errorf("ended after %s: %v", took, err)
				case tc.after > 0 && (!errors.Is(err, gone) || took != tc.after || ctx.Err() == nil):
					t.Errorf("ended after %s: %v, want %s", took, err, tc.after)
				}
			})
		})
	}
}

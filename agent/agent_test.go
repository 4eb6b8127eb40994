package agent_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"halo.internal/agent"
	"halo.internal/gateway"
	"halo.internal/gateway/store"
	"halo.internal/gateway/telemetry"
	"halo.internal/gateway/topology"
	"halo.internal/gateway/topology/archive"
	"halo.internal/health"
	"halo.internal/identity"
	"halo.internal/local"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/dot11"
	"halo.internal/model/graph"
	"halo.internal/model/paths"
)

const limit = 60 * time.Second // generous: reached only by a failure

// child is what the parent tells the agent that it starts as a process of its
// own, so that it can be killed like one.
type child struct {
	Root   string
	BootID string
	Flags  agent.Settings
	Chips  bool // there is a bus with some, which are played
}

const childEnv = "HALO_AGENT_TEST"

func TestMain(m *testing.M) {
	text := os.Getenv(childEnv)
	if text == "" {
		os.Exit(m.Run())
	}
	var c child
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		panic(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	config := agent.Config{Root: c.Root, Role: model.RoleGateway, BootID: c.BootID, Flags: c.Flags, Log: log}
	if c.Chips {
		config.Buses = playedBuses()
	}
	if err := agent.Run(ctx, config); err != nil {
		log.Error("agent", "err", err)
		os.Exit(1)
	}
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it never came: %s", what)
		}
	}
}

// site is a gateway-api that runs alone and one board whose agent talks to it.
// Its key is the gateway's: such an agent may come over the loopback.
type site struct {
	t       *testing.T
	address string
	data    string // of the gateway
	root    string // of the board
	key     identity.Key
	boot    uint64
	network atomic.Value         // string: its key, as halo-mesh says it
	console io.Writer            // of the gateway
	more    func(*http.ServeMux) // routes of halo-mesh
	chips   bool                 // see child
	agent   *exec.Cmd
	stderr  bytes.Buffer
	stopGW  func()

	mu     sync.Mutex // guards what follows
	events []model.Event
	radios []model.Radio
	asked  [2]int // for a whole status, and for a brief one
}

func newSite(t *testing.T) *site { return newSiteWith(t, io.Discard, func(*http.ServeMux) {}) }

func newSiteWith(t *testing.T, console io.Writer, more func(*http.ServeMux)) *site {
	t.Helper()
	t.Setenv("TMPDIR", "/dev/shm") // both databases sync a lot
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, address: l.Addr().String(), data: t.TempDir(), root: t.TempDir(), console: console, more: more}
	l.Close()
	s.startGateway()
	waitFor(t, "the gateway", s.gatewayUp)
	st, err := identity.Load(paths.Dir(s.data).File(paths.Identity), nil)
	if err != nil {
		t.Fatal(err)
	}
	s.key = st.Key
	s.network.Store("valley")
	t.Cleanup(func() {
		s.kill()
		s.stopGW()
		if t.Failed() {
			t.Logf("the agent said\n%s", s.stderr.String())
		}
	})
	s.startMesh()
	return s
}

func (s *site) gatewayUp() bool {
	resp, err := http.Get("http://" + s.address + "/health")
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	var r health.Report
	return json.NewDecoder(resp.Body).Decode(&r) == nil && !slices.ContainsFunc(r.Checks, func(c health.Check) bool {
		return c.State == health.Starting || strings.HasSuffix(c.Name, "-db") && c.State != health.OK
	})
}

func (s *site) startGateway() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	c := gateway.Laptop(s.data, []string{s.address}, s.console, slog.New(slog.NewTextHandler(io.Discard, nil)))
	c.Every = 20 * time.Millisecond
	go func() { done <- gateway.Run(ctx, c) }()
	s.stopGW = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Errorf("gateway: %v", err)
		}
	})
}

func (s *site) path(p string) string { return filepath.Join(s.root, p) }

// startMesh stands in for halo-mesh on its socket.
func (s *site) startMesh() {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		st := model.MeshStatus{Node: s.key.ID(), Name: "site", Role: model.RoleGateway, Clock: model.ClockGateway, Joined: true, NetworkKey: s.network.Load().(string), BootCounter: s.boot, Time: time.Now()}
		if r.URL.Query().Has("brief") {
			s.asked[1]++
		} else {
			if st.Radios = s.radios; st.Radios == nil {
				st.Radios = []model.Radio{{Name: "phy0", Iface: "mesh0"}}
			}
			s.asked[0]++
		}
		s.mu.Unlock()
		_ = json.NewEncoder(w).Encode(st)
	})
	s.more(mux)
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(health.Report{Name: "halo-mesh", State: health.OK})
	})
	mux.HandleFunc("GET /v1/events", func(w http.ResponseWriter, r *http.Request) {
		var boot, seq uint64
		if _, err := fmt.Sscanf(r.URL.Query().Get("after"), "%d.%d", &boot, &seq); err != nil {
			s.t.Errorf("after=%q: %v", r.URL.Query().Get("after"), err)
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		out := []model.Event{}
		for _, e := range s.events {
			if e.Boot > boot || e.Boot == boot && e.Seq > seq {
				out = append(out, e)
			}
		}
		_ = json.NewEncoder(w).Encode(out)
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- local.Serve(ctx, s.path(paths.MeshSocket), mux) }()
	s.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Error(err)
		}
	})
}

// nextBoot is what halo-mesh does at the start of the machine.
func (s *site) nextBoot() {
	s.t.Helper()
	s.mu.Lock()
	s.boot++
	s.mu.Unlock()
	if err := os.RemoveAll(s.path(paths.RunAgent)); err != nil {
		s.t.Fatal(err)
	}
	st := identity.State{Key: s.key, BootCounter: s.boot, BootID: fmt.Sprint("boot-", s.boot)}
	if err := os.MkdirAll(s.path(paths.Run), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(s.path(paths.RunIdentity), st.Marshal(), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) happen(kind string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, model.Event{Boot: s.boot, Seq: uint64(len(s.events) + 1), Time: time.Now().UTC(), Clock: model.ClockGateway, Kind: kind, Severity: model.Info, Message: kind})
}

var fast = agent.Settings{Sample: agent.Duration(100 * time.Millisecond), Send: agent.Duration(300 * time.Millisecond), SpoolDelay: agent.Duration(time.Second)}

func (s *site) start() {
	s.t.Helper()
	c := child{Root: s.root, BootID: fmt.Sprint("boot-", s.boot), Flags: fast, Chips: s.chips}
	c.Flags.Gateway = "ws://" + s.address + "/v1/nodes/stream"
	b, err := json.Marshal(c)
	if err != nil {
		s.t.Fatal(err)
	}
	s.agent = exec.Command(os.Args[0])
	s.agent.Env = append(os.Environ(), childEnv+"="+string(b))
	s.agent.Stderr = &s.stderr
	s.agent.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.agent.Start(); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) kill() { s.end(syscall.SIGKILL) }

func (s *site) end(sig syscall.Signal) {
	if s.agent == nil {
		return
	}
	_ = s.agent.Process.Signal(sig) // it may have ended by itself: Wait tells
	err := s.agent.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && sig == syscall.SIGKILL && !exit.Exited() {
		err = nil
	}
	if err != nil {
		s.t.Errorf("agent: %v", err)
	}
	s.agent = nil
}

func (s *site) status() (model.AgentStatus, error) {
	return local.NewAgent(s.path(paths.AgentSocket)).Status(s.t.Context())
}

// drained waits until the agent has nothing left that is not acknowledged.
func (s *site) drained() {
	s.t.Helper()
	waitFor(s.t, "an empty spool", func() bool {
		st, err := s.status()
		return err == nil && st.Spool.Ready && st.Spool.Live == 0 && st.Spool.Segments == 0
	})
}

// stored stops the gateway and returns what its database has of the node.
func (s *site) stored() (apitype.Coverage, []apitype.Sample) {
	s.t.Helper()
	s.stopGW()
	db, _, err := telemetry.OpenJournal(s.t.Context(), paths.Dir(s.data).File(paths.SeriesDB))
	if err != nil {
		s.t.Fatal(err)
	}
	defer db.Close()
	j, err := telemetry.Open(s.t.Context(), telemetry.Config{Journal: db, Dir: paths.Dir(s.data).File(paths.SeriesDir), Retention: telemetry.Retention{Budget: 1 << 30}, Now: time.Now, Sure: func() bool { return true }, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		s.t.Fatal(err)
	}
	defer j.Close()
	c := j.Coverage(s.key.ID())
	var samples []apitype.Sample
	q := telemetry.SampleQuery{Node: s.key.ID(), From: time.Unix(0, 0), To: time.Now().Add(time.Hour), Metrics: []string{"system.host.uptime_s"}, Limit: 1000}
	for {
		page, err := j.Samples(s.t.Context(), q)
		if err != nil {
			s.t.Fatal(err)
		}
		samples = append(samples, page.Items...)
		if q.Cursor = page.Next; q.Cursor == "" {
			return c, samples
		}
	}
}

// kinds counts the events that the gateway has stored.
func (s *site) kinds() map[string]int {
	s.t.Helper()
	db, _, err := store.OpenConfig(s.t.Context(), paths.Dir(s.data).File(paths.ConfigDB))
	if err != nil {
		s.t.Fatal(err)
	}
	defer db.Close()
	rows, err := db.Read().QueryContext(s.t.Context(), "SELECT kind, count(*) FROM events GROUP BY kind")
	if err != nil {
		s.t.Fatal(err)
	}
	defer rows.Close()
	kinds := map[string]int{}
	for rows.Next() {
		var k string
		var n int
		if err := rows.Scan(&k, &n); err != nil {
			s.t.Fatal(err)
		}
		kinds[k] = n
	}
	return kinds
}

// TestKilledAtAnyInstant kills the agent again and again, restarts the gateway
// under it, and cuts the power of the board. Every boot's numbers are at the
// gateway without a hole, no batch came with two contents, and of what was
// read without a gateway in reach a power cut has cost no more than the delay.
func TestKilledAtAnyInstant(t *testing.T) {
	s := newSite(t)
	const enough = 3  // batches of each boot
	var cut time.Time // the latest reading before the power is cut, in the second boot
	for range 3 {
		s.nextBoot()
		s.happen("test.booted")
		for life := range 3 {
			s.start()
			time.Sleep(time.Duration(200+rand.IntN(500)) * time.Millisecond)
			if life == 1 {
				s.stopGW()
				time.Sleep(300 * time.Millisecond)
				s.startGateway()
			}
			if s.boot == 2 && life == 2 {
				s.stopGW()
				time.Sleep(2500 * time.Millisecond) // longer than the delay
			}
			if life == 2 { // the last: so many have got away by then, however slow the machine is
				waitFor(t, "batches that are acknowledged or written", func() bool {
					st, err := s.status()
					if s.boot == 2 {
						cut = st.Time
					}
					return err == nil && st.Spool.Ready && st.Spool.Batches >= enough+uint64(st.Spool.Live)
				})
				time.Sleep(time.Duration(rand.IntN(300)) * time.Millisecond)
			}
			s.kill()
		}
		if s.boot == 2 {
			s.startGateway()
		}
	}
	s.nextBoot()
	s.start()
	s.drained()
	s.end(syscall.SIGTERM)
	coverage, samples := s.stored()
	if len(coverage.Boots) < 3 {
		t.Fatalf("got %d boots, want 3 and what came of the fourth: %+v", len(coverage.Boots), coverage)
	}
	for _, b := range coverage.Boots[:3] {
		if b.First != 1 || len(b.Missing) != 0 || b.Count < enough {
			t.Errorf("boot %d: got %+v, want %d batches and more, from the first on, without a hole", b.Boot, b, enough)
		}
	}
	var last time.Time // stored of the second boot
	for _, sample := range samples {
		if !sample.Time.After(cut) && sample.Time.After(last) {
			last = sample.Time
		}
	}
	if lost := cut.Sub(last); lost > time.Duration(fast.SpoolDelay)+2*time.Second { // some for a slow test machine
		t.Errorf("the power cut cost %v, want at most %v", lost, time.Duration(fast.SpoolDelay))
	}
	kinds := s.kinds()
	if kinds["test.booted"] != 3 || kinds["telemetry.conflict"] != 0 || kinds["telemetry.malformed"] != 0 {
		t.Errorf("events: got %v, want three of test.booted, none of conflict and malformed", kinds)
	}
}

// TestConnectedNodeWritesNothing: what the gateway acknowledges in time never
// reaches the card.
func TestConnectedNodeWritesNothing(t *testing.T) {
	s := newSite(t)
	s.nextBoot()
	s.start()
	// One comes every 0.3 s: the first of so many would have been written, at an age of 1 s.
	const many = 10
	waitFor(t, "batches that are acknowledged", func() bool {
		st, err := s.status()
		return err == nil && st.Spool.Ready && len(st.Readings) > 10 && st.Spool.Batches >= many+uint64(st.Spool.Live)
	})
	names, err := os.ReadDir(filepath.Join(s.path(paths.State), paths.SpoolDir))
	if err != nil {
		t.Fatal(err)
	}
	if len(names) != 1 || names[0].Name() != "owner" {
		t.Errorf("got %v on disk, want nothing but whose it is", names)
	}
	s.end(syscall.SIGTERM)
	if c, _ := s.stored(); len(c.Boots) != 1 || c.Boots[0].Count < many || len(c.Boots[0].Missing) != 0 {
		t.Errorf("got %+v", c)
	}
}

// TestWhatIsAroundIsReported, for which the kernel is asked seldom.
func TestWhatIsAroundIsReported(t *testing.T) {
	s := newSite(t)
	s.radios = []model.Radio{{Name: "phy0", Iface: "mesh0", MAC: "02:00:00:00:00:07", FreqMHz: 2412, WidthMHz: 20, Member: true}}
	s.nextBoot()
	s.start()
	asked := func() (whole, brief int) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.asked[0], s.asked[1]
	}
	waitFor(t, "brief questions", func() bool {
		_, brief := asked()
		return brief >= 4
	})
	if whole, brief := asked(); whole > brief { // until the gateway is reached it is asked for all
		t.Errorf("asked %d times for a whole status, %d for a brief one", whole, brief)
	}
	s.end(syscall.SIGTERM)
	s.stopGW()
	history, err := archive.Open(t.Context(), archive.Config{Path: paths.Dir(s.data).File(paths.TopologyDB)})
	if err != nil {
		t.Fatal(err)
	}
	defer history.Close()
	p, err := topology.Reader{Store: history}.At(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	n, ok := p.Node(s.key.ID())
	if want := (dot11.MAC{2, 0, 0, 0, 0, 7}); !ok || n.Report != graph.Fresh || n.Kind != graph.KindGateway || !slices.Contains(n.Addresses, want) {
		t.Errorf("got %+v", p.Nodes)
	}
}

// TestShutdownKeepsEverything: what is not acknowledged when the process is
// told to end is on disk.
func TestShutdownKeepsEverything(t *testing.T) {
	s := newSite(t)
	s.stopGW()
	s.nextBoot()
	s.start()
	waitFor(t, "unacknowledged batches", func() bool {
		st, err := s.status()
		return err == nil && st.Spool.Live > 2
	})
	s.end(syscall.SIGTERM)
	s.startGateway()
	s.nextBoot()
	s.start()
	s.drained()
	s.end(syscall.SIGTERM)
	if c, _ := s.stored(); len(c.Boots) < 1 || c.Boots[0].Count < 3 || len(c.Boots[0].Missing) != 0 {
		t.Errorf("got %+v", c)
	}
}

// TestCardOfAnotherNetwork gives a card with unsent readings to another
// network, whose gateway gets none of them and is told so.
func TestCardOfAnotherNetwork(t *testing.T) {
	s := newSite(t)
	s.stopGW()
	s.nextBoot()
	s.start()
	waitFor(t, "unacknowledged batches", func() bool {
		st, err := s.status()
		return err == nil && st.Spool.Live > 2
	})
	s.end(syscall.SIGTERM)
	s.network.Store("ridge")
	s.startGateway()
	s.nextBoot()
	s.start()
	waitFor(t, "readings of the new network", func() bool {
		st, err := s.status()
		return err == nil && st.Spool.Ready && len(st.Readings) > 0
	})
	s.end(syscall.SIGTERM) // what is not sent by now, the next boot sends
	s.nextBoot()
	s.start()
	s.drained()
	s.end(syscall.SIGTERM)
	c, _ := s.stored()
	if len(c.Boots) == 0 || slices.ContainsFunc(c.Boots, func(b apitype.BootCoverage) bool { return b.Boot == 1 }) {
		t.Errorf("expected readings, and none of the other network's boot 1, got %+v", c)
	}
	if n := s.kinds()["telemetry.spool.aside"]; n != 1 {
		t.Errorf("expected one event that says so, got %d", n)
	}
}

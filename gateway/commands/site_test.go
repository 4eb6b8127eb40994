package commands_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"halo.internal/agent/command"
	"halo.internal/agent/send"
	"halo.internal/agent/spool"
	"halo.internal/gateway/clock"
	"halo.internal/gateway/commands"
	"halo.internal/gateway/events"
	"halo.internal/gateway/ingest"
	"halo.internal/gateway/jobs"
	"halo.internal/gateway/registry"
	"halo.internal/gateway/speedtest"
	"halo.internal/gateway/store"
	"halo.internal/gateway/store/storetest"
	"halo.internal/gateway/telemetry"
	"halo.internal/health"
	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

const patience = time.Minute // reached only by a failure

// site is a gateway and its nodes, joined by the real protocol on the loopback.
type site struct {
	t     *testing.T
	dir   string
	key   identity.Key
	epoch atomic.Uint64
	boot  uint64
	now   atomic.Pointer[model.ClockQuality]
	speed *speedtest.Engine

	db       *store.DB
	registry *registry.Registry
	jobs     *jobs.Engine
	commands *commands.Engine
	log      *events.Log
	clock    *clock.Clock
	handler  atomic.Pointer[ingest.Server]
	stop     func()
}

func newSite(t *testing.T) *site {
	t.Helper()
	t.Setenv("TMPDIR", "/dev/shm") // databases sync a lot
	s := &site{t: t, dir: t.TempDir(), key: identity.New()}
	s.epoch.Store(40_000)
	quality := model.ClockGPS
	s.now.Store(&quality)
	storetest.PutConfig(t, filepath.Join(s.dir, "config.db"))
	s.start()
	return s
}

// start is a start of gateway-api; the machine starts with it.
func (s *site) start() {
	s.t.Helper()
	s.boot++
	ctx := context.Background()
	config, _, err := store.OpenConfig(ctx, filepath.Join(s.dir, "config.db"))
	if err != nil {
		s.t.Fatal(err)
	}
	series, _, err := telemetry.OpenJournal(ctx, filepath.Join(s.dir, "telemetry.db"))
	if err != nil {
		s.t.Fatal(err)
	}
	s.db = config
	s.clock = clock.New(time.Now, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	s.clock.SetQuality(*s.now.Load())
	quiet := slog.New(slog.DiscardHandler)
	log := events.New(config, s.clock, s.boot, quiet)
	s.log = log
	if s.registry, err = registry.New(ctx, registry.Config{DB: config, Clock: s.clock, Events: log, Key: s.key, Boot: s.boot, Epoch: s.epoch.Load}); err != nil {
		s.t.Fatal(err)
	}
	s.commands = commands.New(commands.Config{Key: s.key, Epoch: s.epoch.Load, Boot: s.boot, Clock: s.clock, Events: log, Log: quiet})
	s.speed = speedtest.New(speedtest.Config{Commands: s.commands, Registry: s.registry, Limit: time.Second})
	kinds := append(s.commands.Kinds(), s.speed.Kind())
	if s.jobs, err = jobs.New(ctx, jobs.Config{DB: config, Clock: s.clock, Epoch: s.epoch.Load, Boot: s.boot, Files: filepath.Join(s.dir, "jobs"), Log: quiet, Kinds: kinds}); err != nil {
		s.t.Fatal(err)
	}
	s.commands.Start(s.jobs)
	s.speed.Start(s.jobs)
	readings, err := telemetry.Open(ctx, telemetry.Config{Journal: series, Dir: filepath.Join(s.dir, "telemetry"), Retention: telemetry.Retention{Budget: 1 << 30}, Now: s.clock.Now, Sure: func() bool { return true }, Events: log, Log: quiet})
	if err != nil {
		s.t.Fatal(err)
	}
	server := ingest.New(ingest.Config{Registry: s.registry, Commands: s.commands, Telemetry: readings, Events: log, Clock: s.clock, Log: quiet, Every: 10 * time.Millisecond})
	inner, cancel := context.WithCancel(ctx)
	done := make(chan error, 5)
	for _, f := range []func(context.Context) error{server.Run, readings.Run, log.Run, s.jobs.Run, s.commands.Run} {
		go func() { done <- f(inner) }()
	}
	s.handler.Store(server)
	s.stop = sync.OnceFunc(func() {
		s.handler.Store(nil)
		cancel()
		for range cap(done) {
			if err := <-done; err != nil && !errors.Is(err, context.Canceled) { // what it was at when it ended
				s.t.Error(err)
			}
		}
		if err := errors.Join(config.Close(), series.Close()); err != nil {
			s.t.Error(err)
		}
	})
	s.t.Cleanup(func() { s.stop() })
}

func (s *site) restart() {
	s.stop()
	s.start()
}

// admit joins a node and returns its address.
func (s *site) admit(node identity.Key) netip.Addr {
	s.t.Helper()
	wg := node.WireGuardPublic()
	proof, err := identity.ProvePossession(s.key.Public(), node.Public(), node.WireGuard())
	if err != nil {
		s.t.Fatal(err)
	}
	r := model.JoinRequest{Network: s.key.Public().Base64(), IdentityKey: node.Public().Base64(), WireGuardKey: base64.StdEncoding.EncodeToString(wg[:]),
		Possession: base64.StdEncoding.EncodeToString(proof), Token: identity.NewJoinToken(1, time.Now().Add(time.Hour)).Text(s.key)}
	_, err = s.registry.Join(s.t.Context(), netip.Addr{}, r)
	p, ok := errors.AsType[*apitype.Problem](err)
	if !ok {
		s.t.Fatal(err)
	}
	r.Nonce = p.Nonce
	r.Signature = base64.StdEncoding.EncodeToString(node.Sign(model.JoinContext, r.SignedBytes()))
	m, err := s.registry.Join(s.t.Context(), netip.Addr{}, r)
	if err != nil {
		s.t.Fatal(err)
	}
	return m.OverlayV4
}

// from makes the gateway believe that connections come from an overlay address: what
// WireGuard vouches for on a board.
type from struct {
	net.Listener
	remote netip.Addr
}

func (f from) Accept() (net.Conn, error) {
	c, err := f.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return fromConn{c, net.TCPAddrFromAddrPort(netip.AddrPortFrom(f.remote, 4711))}, nil
}

type fromConn struct {
	net.Conn
	remote net.Addr
}

func (c fromConn) RemoteAddr() net.Addr { return c.remote }

// board is a node over its starts.
type board struct {
	*site
	key     identity.Key
	address netip.Addr
	url     string
	perm    string
	run     string
	boot    uint64
	actions map[model.CommandKind]command.Action
	epoch   atomic.Uint64
	keeps   atomic.Bool // /perm is there
	engine  *command.Engine
	spool   *spool.Spool
	off     func()
}

func (s *site) board(actions map[model.CommandKind]command.Action) *board {
	s.t.Helper()
	b := &board{site: s, key: identity.New(), perm: s.t.TempDir(), run: s.t.TempDir(), actions: actions, off: func() {}}
	b.keeps.Store(true)
	b.address = s.admit(b.key)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h := s.handler.Load(); h != nil {
			h.ServeHTTP(w, r)
			return
		}
		http.Error(w, "the gateway is off", http.StatusServiceUnavailable)
	}))
	srv.Listener = from{srv.Listener, b.address}
	srv.Start()
	s.t.Cleanup(srv.Close)
	b.url = "ws" + strings.TrimPrefix(srv.URL, "http") + "/v1/nodes/stream"
	s.t.Cleanup(func() { b.off() })
	return b
}

func (b *board) id() string { return b.key.ID() }

// power starts the machine.
func (b *board) power() {
	b.t.Helper()
	b.off()
	b.boot++
	if err := os.RemoveAll(b.run); err != nil {
		b.t.Fatal(err)
	}
	b.process()
}

// process starts halo-agent anew.
func (b *board) process() {
	b.t.Helper()
	b.off()
	b.until("the stream has ended", func() bool { _, _, online := b.commands.Abilities(b.id()); return !online })
	quiet := slog.New(slog.DiscardHandler)
	sp, err := spool.Open(spool.Options{
		Live: b.run, Disk: filepath.Join(b.perm, "spool"), Boot: b.boot, Owner: spool.Owner{Network: "x", Node: b.id()}, Budget: 1 << 20, Delay: time.Minute,
		Clock: func() (time.Time, model.ClockQuality) { return time.Now(), model.ClockGateway }, Log: quiet,
	})
	if err != nil {
		b.t.Fatal(err)
	}
	b.spool = sp
	memory, err := command.OpenMemory(b.site.key.Public().Base64(), b.id(), b.keeps.Load, filepath.Join(b.perm, "commands"), filepath.Join(b.run, "commands"))
	if err != nil {
		b.t.Fatal(err)
	}
	b.engine = command.New(command.Config{Network: b.site.key.Public(), Node: b.id(), Boot: b.boot, Epoch: b.epoch.Load, Actions: b.actions, Memory: memory, Event: sp.AddEvent, Log: quiet})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { b.engine.Run(ctx) })
	running.Go(func() {
		err := send.Run(ctx, send.Options{
			URL: b.url, Key: b.key, Version: "test", Interval: time.Minute, Spool: sp, Commands: b.engine,
			Status: func() model.NodeStatus { return model.NodeStatus{Name: "board", Role: model.RoleNode} }, Health: func(health.State, string) {}, Log: quiet,
			MinPause: 5 * time.Millisecond, MaxPause: 20 * time.Millisecond, StatusCheck: 50 * time.Millisecond,
		})
		if err != nil {
			b.t.Error(err)
		}
	})
	b.off = sync.OnceFunc(func() {
		cancel()
		running.Wait()
	})
}

// there waits until the gateway has heard what the node can do.
func (b *board) there() {
	b.t.Helper()
	b.until("the node is there", func() bool { _, known, online := b.commands.Abilities(b.id()); return known && online })
}

func (s *site) until(what string, ok func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("it never came: %s", what)
		}
	}
}

func (b *board) give(c model.Command) apitype.Job {
	b.t.Helper()
	j, err := b.try(c, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	return j
}

func (b *board) try(c model.Command, wait time.Duration) (apitype.Job, error) {
	b.t.Helper()
	n, err := b.registry.Node(b.t.Context(), b.id())
	if err != nil {
		b.t.Fatal(err)
	}
	return b.commands.Create(b.t.Context(), commands.Request{Node: n, Command: c, By: "user:root", Wait: wait})
}

// ends waits until a job has ended, and compares how.
func (s *site) ends(id int64, state, code string) apitype.Job {
	s.t.Helper()
	var j apitype.Job
	for deadline := time.Now().Add(patience); ; {
		var err error
		if j, err = s.jobs.Wait(s.t.Context(), id, time.Second); err != nil {
			s.t.Fatal(err)
		}
		if j.Final() || time.Now().After(deadline) {
			break
		}
	}
	if j.State != state || j.Code != code {
		s.t.Fatalf("job %d (%s) is %s, %q, %q; want %s, %q", id, j.Kind, j.State, j.Code, j.Message, state, code)
	}
	return j
}

// counter counts what was done.
type counter struct {
	mu   sync.Mutex
	done []string
}

func (c *counter) add(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done = append(c.done, fmt.Sprintf(format, args...))
}

func (c *counter) all() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Join(c.done, " ")
}

func jobsOf(node string) jobs.Query { return jobs.Query{Nodes: []string{node}, Limit: 100} }

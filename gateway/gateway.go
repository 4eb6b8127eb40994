// Package gateway is gateway-api, the control plane of a HALO network: it
// waits for the device's identity, opens the databases, and runs the API, the
// nodes' streams and the link to halo-mesh until told to stop. It answers
// /health from the start, and says there what it waits for.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"halo.internal/gateway/alerts"
	"halo.internal/gateway/api"
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
	"halo.internal/gateway/live"
	"halo.internal/gateway/meshlink"
	"halo.internal/gateway/registry"
	"halo.internal/gateway/telemetry"
	"halo.internal/gateway/topology"
	"halo.internal/gateway/trust"
	"halo.internal/gateway/visitors"
	"halo.internal/health"
	"halo.internal/local"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/claim"
	"halo.internal/model/paths"
	"halo.internal/model/version"
)

// Checks of the health graph, besides those of meshlink.
const (
	checkPerm      = "perm"
	checkIdentity  = "identity"
	checkConfig    = "config-db"
	checkTelemetry = "telemetry-db"
	checkListen    = "listeners"
	checkTopology  = "topology-db"
	checkEpoch     = "epoch"
	checkConfined  = "confined"
)

// Config says where things are.
type Config struct {
	State    paths.Dir        // where HALO keeps its files
	Alone    bool             // no halo-mesh on this device: make an identity, print the claim code
	Identity string           // file that halo-mesh writes; unused when alone
	Plain    []string         // addresses of plain HTTP: loopback and overlay only
	TLS      []string         // addresses of TLS
	Socket   string           // own Unix socket; empty: none
	Mesh     string           // halo-mesh's socket; unused when alone
	Budget   int64            // bytes of telemetry
	Every    time.Duration    // between commits of what is not urgent
	Poll     time.Duration    // between looks at halo-mesh: how soon /health tells of its loss
	LinkLost time.Duration    // for how long a link has to be gone before people are told; 0: half a minute
	Console  io.Writer        // for the claim code, when alone
	Now      func() time.Time // the system's clock; nil: time.Now
	Confine  bool             // give up what the process does not need; it cannot have it back
	Log      *slog.Logger
}

// Board is the configuration on a gateway's board.
func Board(log *slog.Logger) Config {
	port := fmt.Sprint(paths.APIPort)
	return Config{
		State: paths.State, Identity: paths.RunIdentity,
		Plain:  []string{"127.0.0.1:" + port, "[::1]:" + port, paths.OverlayGateway.String() + ":" + port},
		TLS:    []string{fmt.Sprintf(":%d", paths.APITLSPort)},
		Socket: paths.GatewaySocket, Mesh: paths.MeshSocket,
		Budget: 1 << 30, Every: 10 * time.Second, Poll: local.FollowEvery, Log: log,
	}
}

// Laptop is the configuration of a gateway that runs alone.
func Laptop(dir string, plain []string, console io.Writer, log *slog.Logger) Config {
	return Config{State: paths.Dir(dir), Alone: true, Plain: plain, Budget: 1 << 30, Every: time.Second, Poll: time.Minute, Console: console, Log: log}
}

// newDaemon returns a gateway that has not started.
func newDaemon(c Config) *daemon {
	if c.Now == nil {
		c.Now = time.Now
	}
	d := &daemon{Config: c, health: health.New("gateway-api"), clock: clock.New(c.Now, version.Get().Built), stopAnswering: func() {}, closed: map[string]error{}, restored: make(chan struct{})}
	d.health.Declare(checkPerm)
	d.health.Declare(meshlink.CheckMesh)
	if c.Alone {
		d.health.Declare(checkIdentity, checkPerm)
	} else {
		d.health.Declare(checkIdentity, meshlink.CheckMesh)
	}
	d.health.Declare(checkConfig, checkPerm)
	d.health.Declare(checkEpoch, checkConfig)
	d.health.Declare(checkTelemetry, checkPerm)
	d.health.Declare(checkTopology, checkPerm)
	d.health.Declare(checkListen)
	if c.Confine {
		d.health.Declare(checkConfined)
	}
	d.health.Declare(meshlink.CheckOverlay, meshlink.CheckMesh)
	d.health.Watch(func(k health.Check) {
		d.Log.Info("health changed", "check", k.Name, "state", string(k.State), "detail", k.Detail)
	})
	d.handler.Store(&handler{early(d.health)})
	return d
}

// Run runs the gateway until ctx ends. It refuses addresses of plain HTTP other
// than those of the loopback and the overlay.
func Run(ctx context.Context, c Config) error {
	for _, a := range c.Plain {
		if err := checkPlain(a); err != nil {
			return err
		}
	}
	for {
		err := runOnce(ctx, c)
		if !errors.Is(err, errRestored) || ctx.Err() != nil {
			return err
		}
	}
}

// runOnce runs the gateway until ctx ends or, alone, it has to start as another.
func runOnce(ctx context.Context, c Config) error {
	d := newDaemon(c)
	asked := ctx
	g, ctx := errgroup.WithContext(ctx)
	ctx, d.stopAnswering = context.WithCancel(ctx)
	defer d.stopAnswering()
	if c.Socket != "" {
		l, err := local.Listen(ctx, c.Socket) // before this process gives up writing there (confine)
		if err != nil {
			return err
		}
		d.answering.Add(1)
		g.Go(func() error {
			defer d.answering.Done()
			return local.ServeOn(ctx, l, d)
		})
	}
	plain := make([]listener, len(c.Plain))
	for i, a := range c.Plain {
		plain[i] = listener{address: a}
	}
	d.answering.Add(1)
	g.Go(func() error {
		defer d.answering.Done()
		return serve(ctx, d, d.Log, plain, d.bound)
	})
	g.Go(func() error { return d.run(ctx) })
	err := g.Wait()
	if asked.Err() != nil && errors.Is(err, context.Canceled) {
		return nil // what was on its way when the end was asked for says so
	}
	return err
}

// daemon is a running gateway.
type daemon struct {
	Config
	health  *health.Graph
	clock   *clock.Clock
	handler atomic.Pointer[handler]

	stopAnswering func()         // ends the listeners that are open from the start
	answering     sync.WaitGroup // those

	mu     sync.Mutex // guards closed
	closed map[string]error

	restored chan struct{} // closed when a gateway that runs alone has to start as another
}

type handler struct{ http.Handler }

// ServeHTTP answers with the API, or before it is ready with /health alone.
func (d *daemon) ServeHTTP(w http.ResponseWriter, r *http.Request) { d.handler.Load().ServeHTTP(w, r) }

func early(g *health.Graph) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /health", g)
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		apitype.WriteProblem(w, apitype.Refuse(http.StatusServiceUnavailable, "", "the gateway is starting; /health says what it waits for").After(2*time.Second))
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		api.Secure(w.Header())
		mux.ServeHTTP(w, r)
	})
}

// bound notes that a listener is open, or why not. One that is closed leaves
// the others: the gateway then works with less.
func (d *daemon) bound(address string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil {
		d.Log.Info("listening", "address", address)
		delete(d.closed, address)
	} else {
		d.closed[address] = err
	}
	if err := errors.Join(slices.Collect(maps.Values(d.closed))...); err != nil {
		d.health.Set(checkListen, health.Degraded, err.Error())
		return
	}
	d.health.Set(checkListen, health.OK, "")
}

// run opens everything and runs it.
func (d *daemon) run(ctx context.Context) (err error) {
	p, err := d.prepare(ctx)
	if err != nil {
		return ignoreEnd(ctx, err)
	}
	defer func() { err = errors.Join(err, p.config.Close(), p.telemetry.Close()) }()

	horizon, err := d.horizon(ctx, p)
	if err != nil {
		return ignoreEnd(ctx, err)
	}
	log := events.New(p.config, d.clock, p.identity.BootCounter, d.Log)
	changes := audit.New(p.config, d.clock)
	log.Witness = changes
	p.tell(log)
	d.watch(p.config, "config", checkConfig, log)
	d.watch(p.telemetry, "telemetry", checkTelemetry, log)
	ca, err := d.ca(p, log)
	if err != nil {
		return err
	}
	var link *meshlink.Link
	logins, err := auth.New(ctx, auth.Config{
		DB: p.config, Secrets: p.secrets, Clock: d.clock, Events: log, Salt: p.network[:], Key: p.identity.Key, Epoch: p.epoch.Now,
		OfferTime: func(ctx context.Context, o model.TimeOffer) {
			if err := link.OfferTime(ctx, o); err != nil && !d.Alone {
				d.Log.Warn("the time of a login is of no use", "err", err)
			}
		},
	})
	if err != nil {
		return ignoreEnd(ctx, err)
	}
	clients, err := endpoints.New(ctx, endpoints.Config{DB: p.config, Clock: d.clock, Events: log, Gateway: p.identity.Key.ID()})
	if err != nil {
		return ignoreEnd(ctx, err)
	}
	var nodes *registry.Registry
	seen := cameras.New(cameras.Config{
		Key: p.identity.Key, Now: d.clock.Now, Log: d.Log,
		Node: func(ctx context.Context, ref string) (apitype.Node, error) { return nodes.Node(ctx, ref) },
	})
	nodes, err = registry.New(ctx, registry.Config{Clients: clients.Report, Cameras: seen.Report, DB: p.config, Clock: d.clock, Events: log, Key: p.identity.Key, Name: p.name(), CA: string(ca.PEM()), Boot: p.identity.BootCounter, Epoch: p.epoch.Now})
	if err != nil {
		return ignoreEnd(ctx, err)
	}
	nodes.OnAdopted(clients.Adopt)
	if err := p.followCA(ctx, ca.SHA256(), log); err != nil {
		return ignoreEnd(ctx, err)
	}
	p.epoch.Watch = d.showEpoch
	d.showEpoch(p.epoch.Now(), 0)
	series, err := telemetry.Open(ctx, telemetry.Config{
		Journal: p.telemetry, Dir: d.State.File(paths.SeriesDir), Retention: telemetry.Retention{Budget: d.Budget}, Now: d.clock.Now, Aged: d.clock.Aged, Ahead: d.clock.Ahead,
		Sure:   d.sure,
		Events: log, Log: d.Log,
	})
	if err != nil {
		return ignoreEnd(ctx, err)
	}
	defer func() { err = errors.Join(err, series.Close()) }()
	chosen, err := d.settings(ctx, p, log)
	if err != nil {
		return ignoreEnd(ctx, err)
	}
	chosen.Watch(func(s apitype.Settings) { series.SetRetention(retention(s.Telemetry)) })
	former, err := nodes.Lineages(ctx)
	if err != nil {
		return ignoreEnd(ctx, err)
	}
	for id, before := range former {
		series.Succeed(id, before...)
		for _, old := range before {
			clients.Adopt(old, id) // the power may have gone before that was kept
		}
	}
	nodes.OnAdopted(func(old, node string) { series.Succeed(node, old) })
	for _, id := range nodes.IDs() {
		nodes.Heard(id, series.Latest().At(id))
	}
	work, err := d.jobs(ctx, p, log, nodes)
	if err != nil {
		return ignoreEnd(ctx, err)
	}
	kept := d.openHistory(ctx, log)
	defer func() { err = errors.Join(err, kept.close()) }()
	picture := topology.New(topology.Config{Members: membersOf(nodes), Changed: nodes.Changes(), Store: kept, Events: log, Now: d.clock.Now, Log: d.Log, LinkLost: d.LinkLost})
	chips, err := hardware.New(ctx, hardware.Config{DB: p.config, Clock: d.clock, Events: log, Log: d.Log, Command: func(ctx context.Context, node string, c model.Command) error {
		n, err := nodes.Node(ctx, node)
		if err != nil {
			return err
		}
		if !n.Online {
			return fmt.Errorf("%s is off", n.Name)
		}
		_, err = work.commands.Create(ctx, commands.Request{Node: n, Command: c, By: "gateway"})
		return err
	}})
	if err != nil {
		return ignoreEnd(ctx, err)
	}
	nodes.OnAdopt(chips.Adopt)
	nodes.OnAdopted(chips.Adopted)
	stream := ingest.New(ingest.Config{Neighbours: picture, Hardware: chips, Registry: nodes, Telemetry: series, Commands: work.commands, Events: log, Clock: d.clock, Log: d.Log, Every: d.Every})
	server, err := trust.NewServer(ca, []string{"gateway.halo", "localhost", nodeName(p) + ".halo"}, localAddresses, d.clock.Now)
	if err != nil {
		return err
	}
	leaf, err := server.Leaf()
	if err != nil {
		return err
	}
	lag, err := p.config.Lag(ctx)
	if err != nil {
		return ignoreEnd(ctx, err)
	}
	copies := newCopies(d.copyOf(p.config, log), p.config.Copied(), nodes.Changes(), d.Log)
	copies.catchUp(lag)
	nodes.OnQuarantine(copies.withdrawn) // a copy would let the cloned key in again
	judge := epoch.Judge{Keeper: p.epoch, Fresh: p.replaces(nodes), Aside: func() bool { return link.Aside() }, Events: log, Log: d.Log}
	mesh := d.meshClient(p.identity.Key)
	neurons := brain.New(brain.Config{DB: p.config, Clock: d.clock, Devices: nodes, Own: d.ownProcess, Sensors: chips.Condition})
	nodes.OnAdopt(neurons.Adopt)
	nodes.OnAdopted(neurons.Adopted)
	rules, err := firewall.New(ctx, firewall.Config{DB: p.config, Clock: d.clock, Events: log, Mesh: mesh})
	if err != nil {
		return ignoreEnd(ctx, err)
	}
	guests := visitors.New(visitors.Config{DB: p.config, Clock: d.clock, Events: log, Key: p.identity.Key, Epoch: p.epoch.Now})
	link = meshlink.New(meshlink.Config{
		Client: mesh, Clock: d.clock, Health: d.health, Missing: d.meshMissing(), Peers: nodes.Peers, Revoked: nodes.Revoked, Changes: nodes.Changes(),
		Announce: func() model.Announce {
			return model.Announce{APIPort: paths.APITLSPort, CASHA256: ca.SHA256(), Epoch: p.epoch.Now()}
		},
		Operators: func(ctx context.Context) (model.Operators, error) {
			o, err := logins.Operators(ctx)
			o.Codes = nodes.Codes()
			return o, err
		},
		Names:    neurons.Names,
		Heard:    judge.Heard,
		Firewall: rules.Follow,
		Visitors: guests.Present,
		LeftOut: func(ctx context.Context, ids []string) error {
			gone, err := nodes.LeaveOut(ctx, ids)
			for _, id := range gone {
				stream.Disconnect(id)
				work.commands.Drop(id)
				copies.withdrawn()
			}
			return err
		},
		Every: d.Poll,
	})
	code, err := logins.PrepareClaim(ctx, p.claimCode())
	if err != nil {
		return ignoreEnd(ctx, err)
	}
	d.showCode(link, code)
	network := p.name()
	if p.bundle != nil {
		network = p.bundle.Network
	}
	saved := d.newBackups(p, series, d.meshKeeper(p), network, logins, nodes, log, func() uint64 {
		s, _ := link.Last()
		return s.HeardEpoch
	})
	once, err := idempotency.New(p.config, d.clock, p.identity.Key)
	if err != nil {
		return err
	}
	recoveries := live.NewRecoveries(recoveriesEvery, mesh.Timeline)
	hub := d.newLive(live.Sources{Events: log, Epoch: p.epoch.Now, Latest: series.Latest(), Registry: nodes, Recoveries: recoveries, Topology: picture, Jobs: work.jobs}, logins)
	var a *api.API
	alarms, err := alerts.New(ctx, alerts.Config{
		DB: p.config, Clock: d.clock, Events: log, Log: d.Log,
		Look: func(ctx context.Context, open func(alerts.Key) bool) ([]alerts.Condition, error) {
			return a.Conditions(ctx, open)
		},
	})
	if err != nil {
		return ignoreEnd(ctx, err)
	}
	a = api.New(api.Config{
		Log: d.Log, Health: d.health, Clock: d.clock, Config: p.config, Telemetry: series, Settings: chosen,
		Events: log, Audit: changes, Auth: logins, Registry: nodes, Brain: neurons, Backups: saved, Stream: stream, Mesh: link, Radios: mesh, Services: mesh, Alone: d.Alone, Epoch: p.epoch, Bundle: p.bundle,
		Firewall: rules, Tables: mesh, Visitors: guests, Endpoints: clients, Alerts: alarms, Cameras: seen, Hardware: chips,
		CA: ca.PEM(), CASHA256: ca.SHA256(), Binding: claim.Binding(leaf), Boot: p.identity.BootCounter,
		Idempotency: once, Live: hub, Topology: picture, Jobs: work.jobs, Commands: work.commands, SpeedTests: work.speed,
		Claimed: func() { link.ShowClaimCode("") }, Changed: copies.request, Withdrawn: copies.withdrawn,
	})
	d.handler.Store(&handler{a})

	secure := make([]listener, len(d.TLS))
	for i, at := range d.TLS {
		secure[i] = listener{address: at, tls: server.Config()}
	}
	// What a request that is answered meanwhile changes is written, and the events
	// of all that come last.
	return inStages(ctx, stage{
		stream.Run,
		series.Run,
		work.jobs.Run,
		work.commands.Run,
		seen.Run,
		chips.Run,
		link.Run,
		hub.Run,
		recoveries.Run,
		picture.Run,
		horizon,
		func(ctx context.Context) error { return p.reserve.Run(ctx, d.tellRoom(log)) },
		func(ctx context.Context) error { return changes.Watch(ctx, log, d.Log) },
		func(ctx context.Context) error { return serve(ctx, d, d.Log, secure, d.bound) },
		alarms.Run,
		d.untilAnswered,
		func(ctx context.Context) error { return p.followRestored(ctx, nodes) },
		d.untilRestored,
	}, stage{nodes.Run, clients.Run, copies.run, kept.run}, stage{log.Run})
}

// ownProcess tells how a process of this device is, as far as gateway-api knows.
func (d *daemon) ownProcess(process string) (s health.State, lacks string, known bool) {
	r := d.health.Report()
	if process == r.Name {
		return r.State, r.Missing, true
	}
	for _, c := range r.Checks {
		if c.Name == process { // halo-mesh
			return c.State, c.Detail, true
		}
	}
	return "", "", false
}

// untilAnswered ends when the listeners that are open from the start have ended.
func (d *daemon) untilAnswered(ctx context.Context) error {
	<-ctx.Done()
	d.stopAnswering()
	d.answering.Wait()
	return nil
}

// untilRestored ends the gateway when it has to start as another.
func (d *daemon) untilRestored(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-d.restored:
		return errRestored
	}
}

// stage is what ends together.
type stage []func(context.Context) error

// inStages runs everything until ctx ends or something fails, and then ends one
// stage after the other.
func inStages(ctx context.Context, stages ...stage) error {
	kept := context.WithoutCancel(ctx)
	ctx, fail := context.WithCancel(ctx)
	ends, groups := make([]context.CancelFunc, len(stages)), make([]errgroup.Group, len(stages))
	for i, s := range stages {
		end := fail
		if i > 0 {
			ctx, end = context.WithCancel(kept)
		}
		ends[i] = end
		run := ctx
		for _, f := range s {
			groups[i].Go(func() error {
				err := f(run)
				if err != nil {
					fail()
				}
				return err
			})
		}
	}
	var errs []error
	for i := range stages {
		if i > 0 {
			ends[i]()
		}
		errs = append(errs, groups[i].Wait())
	}
	fail()
	return errors.Join(errs...)
}

// showEpoch says in /health whether the nodes go by another card of this gateway.
func (d *daemon) showEpoch(now, heard uint64) {
	if heard < now {
		d.health.Set(checkEpoch, health.OK, "")
		return
	}
	d.health.Set(checkEpoch, health.Degraded, epoch.Behind(now, heard))
}

func ignoreEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

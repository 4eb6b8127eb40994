// Package mesh is halo-mesh: the daemon that makes a device part of its network.
// It settles who the device is, what network it belongs to and what time it is,
// carries the mesh over proven ports, finds the gateway or is it, joins, and
// keeps the overlay. The order and what may be missing at each step are in
// ARCHITECTURE.md; /health names what is.
package mesh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"halo.internal/health"
	"halo.internal/identity"
	"halo.internal/identity/operator"
	"halo.internal/local"
	"halo.internal/mesh/announce"
	"halo.internal/mesh/api"
	"halo.internal/mesh/batman"
	"halo.internal/mesh/change"
	"halo.internal/mesh/clock"
	"halo.internal/mesh/doctor"
	"halo.internal/mesh/door"
	"halo.internal/mesh/events"
	"halo.internal/mesh/lan"
	"halo.internal/mesh/overlay"
	"halo.internal/mesh/provision"
	"halo.internal/mesh/relay"
	"halo.internal/mesh/state"
	"halo.internal/mesh/support"
	"halo.internal/model"
	"halo.internal/model/atomicfile"
	"halo.internal/model/bundle"
	"halo.internal/model/paths"
	"halo.internal/model/version"
)

// Config is what the daemon stands on; main fills in the machine, tests
// something smaller.
type Config struct {
	Root     string         // prefix of all paths; empty on a board
	Role     model.Role     // of the image
	BootID   string         // the kernel's name for this start of the machine
	Vault    identity.Vault // second copies; nil where there is no disk to keep them on
	Boot     provision.Boot
	Console  func() (io.WriteCloser, error)
	Clock    clock.System
	Underlay func(UnderlayConfig) Underlay
	// ChangeTiming is that of changes of the mesh profile; zero: as it is meant.
	ChangeTiming change.Timing
	// AnnounceTiming is that of finding out who is there; zero: as it is meant.
	AnnounceTiming announce.Timing
	// RekeyOverlap is how long both overlay keys of a device hold; zero: two minutes.
	RekeyOverlap time.Duration
	// RejoinPause is the least time between two successful joins; zero: a minute.
	RejoinPause time.Duration
	// Restart has the machine restart in an orderly way; nil: somebody does it by hand.
	Restart func() error
	// RestartHung does so where a driver hangs in the kernel, by which the orderly way may
	// hang too, until ctx ends; nil: somebody does it by hand.
	RestartHung func(ctx context.Context) error
	// Userspace has the overlay in this process, see overlay.Config; not on boards.
	Userspace bool
	Log       *slog.Logger
}

func (c Config) path(p string) string { return filepath.Join(c.Root, p) }

// Checks of the health graph.
const (
	checkPerm    = "perm"
	checkBundle  = "bundle"
	checkBat     = "bat0"
	checkGateway = "gateway"
	checkClock   = "clock"
	checkJoin    = "join"
	checkOverlay = "overlay"
	checkClients = "clients"
	checkKernel  = "kernel"
)

// Of what carries the mesh (chain.go), and what it is for (telemetry.go).
const (
	checkDriver    = "driver"
	checkInterface = "interface"
	checkMesh      = "mesh"
	checkPeers     = "peers"
	checkRoutes    = "routes"
	checkTelemetry = "telemetry"
)

func newGraph() *health.Graph {
	g := health.New("halo-mesh")
	g.Declare(checkKernel)
	g.Set(checkKernel, health.OK, "") // until it is waited for in vain
	g.Declare(checkPerm)
	g.Declare(checkBundle)
	g.Declare(checkBat, checkBundle)
	g.Declare(checkDriver, checkBat)
	g.Declare(checkInterface, checkDriver)
	g.Declare(checkMesh, checkInterface)
	g.Declare(checkPeers, checkMesh)
	g.Declare(checkRoutes, checkPeers)
	g.Declare(checkGateway, checkRoutes)
	g.Declare(checkClock, checkGateway)
	g.Declare(checkJoin, checkGateway)
	g.Declare(checkOverlay, checkJoin)
	g.Declare(checkTelemetry, checkOverlay)
	g.Declare(checkClients, checkBundle)
	return g
}

// core is what all parts of the daemon share once the device is settled: they
// read it without a lock, so its fields do not change from then on.
type core struct {
	Config
	store   *state.Store
	id      identity.State
	bundle  bundle.Bundle
	net     identity.PublicKey // the network's key
	clock   *clock.Clock
	events  *events.Log
	graph   *health.Graph
	under   Underlay
	lan     *lan.LAN       // nil until the device has a network
	doctor  *doctor.Doctor // likewise
	relay   *relay.Relay
	picture *picture[model.MeshStatus] // nil until the parts run
	sketch  *picture[model.MeshStatus] // the brief one
	seen    seen                       // the sketch's alone
	around  atomic.Uint64              // see MeshStatus.Around

	gpsRefused atomic.Bool // the last time of GPS was not taken, which has been told
	// contact is awake when a link was made.
	contact chan struct{}
	// meetNow is awake when members may have come to be at other addresses.
	meetNow chan struct{}
	// met is in which lives members were heard last.
	metMu sync.Mutex // guards met
	met   map[identity.PublicKey]life
	// serveNow is awake when clients may have to be served otherwise.
	serveNow chan struct{}
	begun    time.Time    // start of the process
	chain    chain        // watchHealth's alone
	silent   atomic.Int64 // for how long the kernel has not answered, in nanoseconds
	agent    agentView
	past     recoveries
	codes    *door.Slow // wrong codes that were typed
	reserved reserver
	policies *policies  // of people's for the firewall; nil on a node
	ports    *portPasts // what they have proved to be; nil on a node

	keys      *overlayKey
	shut      revoked                  // who is no member any more
	overheard chan overheard           // what was said past the mesh
	hidden    func() []string          // secrets of the mesh, and codes, that have come since the bundle; nil: none have
	elsewhere func(model.RadioNetwork) // gets where a lonely node has heard its mesh; nil on a gateway
	logged    support.Lines            // what this process wrote to its log
	boot      bootSeen
	problems  map[string]bool // of the boot report, that are events already; nil: not known yet
}

// note is something to tell before the event log is open.
type note struct {
	kind     string
	severity model.Severity
	message  string
	fields   []string
}

// Run is the daemon. It returns when ctx ends, or when the machine lacks what
// no waiting will bring.
func Run(ctx context.Context, c Config) error {
	if c.Role != model.RoleGateway && c.Role != model.RoleNode {
		return fmt.Errorf("role of the image: expected gateway or node, got %q", c.Role)
	}
	var notes []note
	tell := func(kind string, s model.Severity, message string, fields ...string) {
		notes = append(notes, note{kind, s, message, fields})
	}
	m := &core{Config: c, graph: newGraph(), contact: make(chan struct{}, 1), meetNow: make(chan struct{}, 1), serveNow: make(chan struct{}, 1), overheard: make(chan overheard, maxOverheard), begun: time.Now(), codes: door.NewSlow()}
	m.Log = slog.New(slog.NewMultiHandler(c.Log.Handler(), slog.NewTextHandler(&m.logged, nil)))
	c.Log = m.Log
	if err := os.MkdirAll(c.path(paths.Run), 0o755); err != nil {
		return fmt.Errorf("runtime directory: %w", err)
	}
	if err := atomicfile.Sweep(c.path(paths.State)); err != nil {
		c.Log.Warn("what power cuts left is not removed", "err", err)
	}
	m.past.look = make(chan struct{}, 1)
	m.store = state.New(paths.Dir(c.path(paths.State)), c.Vault)
	if c.Role == model.RoleGateway {
		restore(c, m.store, tell)
	}
	m.clock = clock.New(c.Clock, version.Get().Built)
	resumed := m.startClock(tell)
	var changed bool
	var unsettled error
	m.id, m.bundle, changed, unsettled = settle(c, m.store, tell)
	m.events = events.Open(c.path(paths.RunEvents), m.id.Key.ID(), m.id.BootCounter, m.clock.Now, c.Log)
	if !resumed {
		m.tellBoot()
	}
	before := m.events.After(0, 0)
	for _, n := range notes {
		if errors.Is(unsettled, state.ErrUnread) && slices.ContainsFunc(before, func(e model.Event) bool { return e.Kind == n.kind && e.Message == n.message }) {
			continue // the process has started anew a minute later, and found the same
		}
		m.events.Add(n.kind, n.severity, n.message, n.fields...)
	}
	if unsettled != nil {
		m.graph.Set(checkBundle, health.Failed, unsettled.Error())
		m.watchPerm()
		return m.waitForBundle(ctx, unsettled, unreadWait)
	}
	var err error
	if m.net, err = identity.ParsePublicKey(m.bundle.Gateway.PublicKey); err != nil {
		return err // Import has checked it
	}
	m.graph.Set(checkBundle, health.OK, "")
	if changed {
		m.forgetNetwork()
	}
	m.lan = m.newLAN()
	m.loadReservations()
	if c.Role == model.RoleGateway {
		m.policies = m.newPolicies()
	}
	m.lan.Begin()
	m.startTimeline()
	started, _ := m.bootReport() // without one, no slot can be named, and what is not there is no HaLow radio
	m.keys = m.loadOverlayKey()
	carried := m.bundle
	carried.Mesh = m.startProfile()
	under := UnderlayConfig{Key: m.id.Key, Turn: batman.Turn(m.id.BootCounter), Network: m.net, Bundle: carried, HaLow: m.path(paths.HaLow(started.Slot)), Admit: m.shut.admit, Strange: m.strange, Found: m.found, Notify: m.noteUnderlay, Log: c.Log}
	if c.Role == model.RoleGateway {
		m.ports = m.loadPortPasts()
		under.Memory = m.ports
	}
	m.under = c.Underlay(under)
	c.Log.Info("halo-mesh runs", "node", m.id.Key.ID(), "role", c.Role, "network", m.bundle.Network, "boot", m.id.BootCounter)
	if c.Role == model.RoleGateway {
		return m.run(ctx, newGateway(m))
	}
	n := newNode(m)
	m.elsewhere = n.profiles.Elsewhere
	return m.run(ctx, n)
}

// side is what differs between a gateway and a node.
type side interface {
	api.Daemon
	run(ctx context.Context) error
	// status asks the kernel what is to be known, unless it is to be brief.
	status(brief bool) model.MeshStatus
	// greet makes the device known to whom it has just met.
	greet()
	// serves returns what clients are served with, but for the ports.
	serves() lan.Wanted
	// around is what the path doctor looks at; ok is false while there is no overlay.
	around() (own doctor.Own, peers []doctor.Peer, ok bool)
	// own is what around says of this device.
	own() (own doctor.Own, ok bool)
	// relays returns between whom multicast is carried, and the keys of these members.
	relays() (relay.Wanted, []identity.PublicKey)
	// overlay returns the open overlay, nil while there is none.
	overlay() *overlay.Device
	// watch brings the health graph up to date.
	watch()
	// roll is the other members, as far as they are known.
	roll() []identity.PublicKey
	// standing is what is known of operators' certificates now.
	standing() operator.Standing
}

// run keeps all parts going until ctx ends or one of them cannot go on.
func (m *core) run(ctx context.Context, s side) error {
	m.doctor = m.newDoctor(s)
	m.relay = m.newRelay(s)
	m.picture = newPicture(pictureWait, func() model.MeshStatus { return s.status(false) })
	m.sketch = newPicture(pictureWait, func() model.MeshStatus { return s.status(true) })
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { m.store.Run(ctx); return nil })
	g.Go(func() error { return m.picture.run(ctx) })
	g.Go(func() error { return m.sketch.run(ctx) })
	g.Go(func() error { return m.watchKernel(ctx) })
	routes := m.withSupport(api.Handler(s, m.graph))
	g.Go(func() error { return local.Serve(ctx, m.path(paths.MeshSocket), m.bookConsole(routes)) })
	g.Go(func() error { return m.keepDoor(ctx, s, routes) })
	g.Go(func() error { return m.doctor.Run(ctx) })
	g.Go(func() error { return m.under.Run(ctx) })
	g.Go(func() error { return m.lan.Run(ctx) })
	g.Go(func() error { return m.relay.Run(ctx) })
	g.Go(func() error { return m.followServices(ctx, s) })
	g.Go(func() error { return s.run(ctx) })
	g.Go(func() error { return m.keepClock(ctx) })
	g.Go(func() error { return m.watchHealth(ctx, s) })
	g.Go(func() error { return m.followAgent(ctx) })
	g.Go(func() error { return m.vouch(ctx) })
	if m.ports != nil {
		g.Go(func() error { return m.keepPortPasts(ctx) })
	}
	g.Go(func() error { return m.keepLast(ctx) })
	g.Go(func() error { return m.keepMet(ctx, s.roll) })
	g.Go(func() error { return followContacts(ctx, m.contact, contactAfter, s.greet) })
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// unreadWait is how long a device is without a network whose bundle could not be read,
// before it looks again.
const unreadWait = time.Minute

// waitForBundle answers /health and status until somebody brings a bundle: that
// needs the card in another computer, or a new card, so a restart follows. Where the card
// has not given the bundle it returns why after unread, so that the process is started anew.
func (m *core) waitForBundle(ctx context.Context, why error, unread time.Duration) error {
	m.Log.Error("no network to be part of", "node", m.id.Key.ID(), "err", why)
	if errors.Is(why, state.ErrUnread) {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, unread)
		defer cancel()
	}
	g, run := errgroup.WithContext(ctx)
	g.Go(func() error { m.store.Run(run); return nil })
	g.Go(func() error {
		for t := time.NewTicker(watchEvery); ; {
			select {
			case <-run.Done():
				t.Stop()
				return nil
			case <-t.C:
				m.watchPerm()
			}
		}
	})
	g.Go(func() error {
		return local.Serve(run, m.path(paths.MeshSocket), m.withSupport(api.Handler(unprovisioned{m}, m.graph)))
	})
	if err := g.Wait(); err != nil || !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return err
	}
	return why
}

// forgetNetwork drops what belonged to the network of an earlier bundle.
func (m *core) forgetNetwork() {
	for name, entry := range map[string]string{paths.Membership: paths.VaultMembership, paths.Evidence: paths.VaultEvidence, paths.Peers: "", paths.PeerList: "", paths.Reservations: "", paths.Firewall: "", paths.Profile: paths.VaultProfile, paths.StoodDown: paths.VaultStoodDown, paths.PortPasts: paths.VaultPortPasts} {
		if err := m.store.Remove(name, entry); err != nil {
			m.events.Add("perm.failing", model.Warning, "state of the network before is not removed: "+err.Error(), "file", name)
		}
	}
}

// name returns the device's name for people.
func (m *core) name() string {
	if m.bundle.Name != "" {
		return m.bundle.Name
	}
	return string(m.Role) + "-" + m.id.Key.ID()[2:8]
}

func (m *core) saveRun(name string, b []byte) {
	if err := atomicfile.Write(m.path(name), b, 0o600); err != nil {
		m.Log.Warn("runtime state not written", "err", err)
	}
}

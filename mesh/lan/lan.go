// Package lan is the local network of a device's clients: hosts that are no
// members, behind its Ethernet ports. They are routed, not
// bridged: each device has one bridge, br0, with an IPv4 network of its own and the
// IPv6 one that goes with it, and gives addresses, names and the time there. On a
// gateway it serves addresses and time to the nodes on the mesh as well, and names
// on the overlay. The firewall of the device is applied here, since it depends on
// the same things: which ports lead where, and which networks are its own.
//
// A LAN is told what is wanted (Set) and makes it so, whatever was there before,
// and again whenever something else has changed it.
package lan

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"halo.internal/identity"
	"halo.internal/mesh/batman"
	"halo.internal/mesh/dhcp/server"
	"halo.internal/mesh/dns"
	"halo.internal/mesh/firewall"
	"halo.internal/mesh/listen"
	"halo.internal/mesh/mdns"
	"halo.internal/mesh/ntp"
	"halo.internal/model"
	"halo.internal/model/order"
	"halo.internal/model/paths"
)

// Kinds of events.
const (
	EventFailed     = "clients.failed"    // the bridge or an address of it
	EventRecovered  = "clients.recovered" // works again
	EventFirewall   = "firewall.failed"   // the rules are not as they should be
	EventFirewallOK = "firewall.recovered"
)

// checkEvery is how often it is looked whether all is as it was made.
const checkEvery = 30 * time.Second

// Config says whose clients these are.
type Config struct {
	Role    model.Role
	Network identity.PublicKey
	Node    identity.PublicKey // this device
	Root    string             // prefix of all paths; empty on a board
	Open    []string           // names of services that are opened to uplinks besides the gateway's API
	Groups  []netip.AddrPort   // multicast that is listened to for clients
	// Underlay is the interface of the mesh, bat0 if empty; Guests are the ports that are
	// bridged into it.
	Underlay string
	Guests   []string
	Door     uint16 // port of halo-mesh's door, 0: there is none

	Clock  func() ntp.Reading
	Notify func(model.Event) // must not block
	Log    *slog.Logger
}

// Wanted is what a LAN is to be like.
type Wanted struct {
	Name    string       // of the device, for multicast DNS; may be empty
	Clients netip.Prefix // IPv4 network of its clients, a /24; the zero value: none, so that br0 serves nobody
	Ports   []string     // bridge ports that lead to clients
	Trial   []string     // of these, those that a gateway has found out about by itself
	Uplinks []string
	Hosts   []dns.Host // names of the network
	Aside   bool       // a gateway: another one serves the mesh
}

func (w Wanted) equal(o Wanted) bool {
	return w.Name == o.Name && w.Clients == o.Clients && w.Aside == o.Aside && slices.Equal(w.Ports, o.Ports) && slices.Equal(w.Trial, o.Trial) && slices.Equal(w.Uplinks, o.Uplinks) &&
		slices.EqualFunc(w.Hosts, o.Hosts, sameHost)
}

func sameHost(a, b dns.Host) bool { return a.Name == b.Name && slices.Equal(a.Addresses, b.Addresses) }

// LAN may be used from any goroutine.
type LAN struct {
	Config
	gateway  bool
	firewall firewall.Firewall
	names    *dns.Server
	time     *ntp.Server
	now      chan struct{} // look at once
	leased   chan struct{} // clients have come or gone: only names change

	// applying is held while the firewall is brought to what is wanted, before mu.
	applying sync.Mutex

	// reserving is held while reservations change, and while a server that is to have
	// them is made.
	reserving sync.Mutex

	mu       sync.Mutex // guards what follows
	wanted   Wanted
	trial    time.Time // until when leases of clients are short
	reserved []server.Reservation
	leases   map[string]*server.Server // by interface
	policy   model.FirewallPolicy      // of people's
	unfit    error                     // why it does not hold as a whole
	visitors netip.Prefix              // of the overlay, that may reach members; the zero value: none
	err      error                     // of br0
	rules    error                     // of the firewall
}

// New returns a LAN of which nothing is there yet.
func New(c Config) *LAN {
	c.Underlay = cmp.Or(c.Underlay, paths.BatIface)
	l := &LAN{Config: c, gateway: c.Role == model.RoleGateway, now: make(chan struct{}, 1), leased: make(chan struct{}, 1), leases: map[string]*server.Server{}}
	names := dns.Config{ULA: ula(c.Network), Upstream: l.upstream, Log: c.Log}
	if !l.gateway {
		names.Gateway = netip.AddrPortFrom(paths.OverlayGateway, paths.DNSPort)
	}
	l.names = dns.New(names)
	l.time = ntp.New(ntp.Config{Clock: c.Clock, Log: c.Log})
	return l
}

func ula(network identity.PublicKey) netip.Prefix {
	return netip.PrefixFrom(identity.Overlay(network, network), 48).Masked()
}

func (l *LAN) path(name string) string { return filepath.Join(l.Root, name) }

// upstream returns whom to ask for names that are not the network's: a node asks its
// gateway, and the name servers of its own uplink, if it has one, after that.
func (l *LAN) upstream() ([]netip.AddrPort, error) {
	own, err := dns.ResolvConf(l.path(paths.Upstreams))()
	if l.gateway {
		return own, err
	}
	return append([]netip.AddrPort{netip.AddrPortFrom(paths.OverlayGateway, paths.DNSPort)}, own...), nil
}

// Set says what is wanted from now on.
func (l *LAN) Set(w Wanted) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.wanted.equal(w) {
		return
	}
	for _, p := range w.Trial {
		if !slices.Contains(l.wanted.Trial, p) {
			l.trial = time.Now().Add(trialFor)
		}
	}
	l.wanted = w
	wake(l.now)
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // awake already
	}
}

// Begin shuts the device to all that need not come in, before its first interface
// goes up, and makes the bridge. An error is kept for Err, and Run tries again.
func (l *LAN) Begin() { l.apply(l.state()) }

func (l *LAN) state() Wanted {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.wanted
}

// Err returns what is wrong with br0 or the firewall, nil when nothing is.
func (l *LAN) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.err, l.rules)
}

// Run keeps all as wanted until ctx ends. Bridge and firewall stay then, so that
// clients notice little of a restart of the process.
func (l *LAN) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var owned sync.WaitGroup
	defer owned.Wait()
	defer cancel()
	l.always(ctx, &owned)
	check := time.NewTicker(checkEvery)
	defer check.Stop()
	var named []dns.Host
	var serving, mesh service
	defer func() { serving.stop(); mesh.stop() }()
	for ok, all := false, true; ; {
		w := l.state()
		l.setLease(time.Now())
		if all { // clients that come and go, as fast as they like, are no reason to
			ok = l.apply(w)
		}
		if hosts := l.hosts(w); !slices.EqualFunc(hosts, named, sameHost) {
			named = hosts
			if err := l.names.Set(hosts); err != nil {
				l.Log.Warn("some names are left out", "err", err)
			}
		}
		if want := (of{len(w.Ports) > 0, w.Clients, w.Name}); serving.of != want && ok {
			serving.stop()
			serving = l.serve(ctx, want)
		}
		if w.Aside {
			mesh.stop()
		} else if l.gateway && mesh.cancel == nil {
			mesh = l.serveMesh(ctx)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-l.now:
			all = true
		case <-l.leased:
			all = false
		case <-check.C:
			all = true
		}
	}
}

// apply makes bridge and firewall as wanted and tells whether the bridge is.
func (l *LAN) apply(w Wanted) bool {
	rules := l.applyRules()
	// Forwarding begins behind rules alone.
	if rules == nil {
		rules = sysctls(l.Log)
	}
	err := l.bridge(w)
	l.mu.Lock()
	wasErr, wasRules := l.err, l.rules
	l.err, l.rules = err, rules
	l.mu.Unlock()
	l.tell(wasErr, err, EventFailed, EventRecovered, "the network of clients")
	l.tell(wasRules, rules, EventFirewall, EventFirewallOK, "the firewall")
	return err == nil
}

func (l *LAN) tell(was, is error, failed, recovered, what string) {
	switch {
	case is != nil && (was == nil || was.Error() != is.Error()):
		l.Notify(model.Event{Kind: failed, Severity: model.Error, Message: what + " does not work: " + is.Error()})
	case is == nil && was != nil:
		l.Notify(model.Event{Kind: recovered, Severity: model.Info, Message: what + " works again"})
	}
}

// hosts returns the names of the network, and below the device's own those of its
// clients, as they call themselves.
func (l *LAN) hosts(w Wanted) []dns.Host {
	out := slices.Clone(w.Hosts)
	own := dns.Label(w.Name)
	l.mu.Lock()
	clients := l.leases[paths.ClientBridge]
	l.mu.Unlock()
	if own == "" || clients == nil {
		return out
	}
	for _, c := range clients.Leases() {
		if c.Name != "" {
			out = append(out, dns.Host{Name: c.Name + "." + own, Addresses: []netip.Addr{c.Address}})
		}
	}
	return out
}

// rulesFor returns the firewall's configuration, without what people have set.
func (l *LAN) rulesFor(w Wanted) firewall.Config {
	own := []netip.Prefix{}
	guard := firewall.Guard{Ports: w.Ports, Own: []netip.Addr{l.linkLocal()}}
	if w.Clients.IsValid() {
		six := identity.Clients(l.Network, w.Clients)
		own = append(own, w.Clients, six)
		guard.Own = append(guard.Own, w.Clients.Addr().Next(), six.Addr().Next())
	}
	services := firewall.Services(l.gateway, l.Door)
	for i, s := range services {
		if l.gateway && s.Name == "portal" || slices.Contains(l.Open, s.Name) {
			services[i].Zones = append(slices.Clone(s.Zones), model.ZoneUplink)
		}
	}
	services = append(services, firewall.Multicast(l.Groups)...)
	return firewall.Config{
		Gateway: l.gateway,
		Interfaces: map[model.Zone][]string{
			model.ZoneUplink: w.Uplinks, model.ZoneMesh: {l.Underlay},
			model.ZoneClients: {paths.ClientBridge}, model.ZoneOverlay: {paths.OverlayIface},
		},
		Networks: firewall.HALONetworks(l.Network, own...), Services: services, Forwardings: firewall.Forwardings(l.gateway), Guard: guard,
		Guests: l.guests(),
	}
}

// guests keeps what is behind ports that are bridged into the mesh from this device's
// address there, and from the gateway's. Other members may come by such a port: devices
// with ports on one network speak over that, as batman-adv's loop avoidance wants it,
// and one of them hands the gateway's broadcasts on to it.
func (l *LAN) guests() firewall.Guard {
	g := firewall.Guard{Ports: l.Guests, Own: []netip.Addr{paths.UnderlayGateway, identity.Underlay(l.Network, l.Node)}}
	for turn := range uint8(batman.Turns) {
		if !l.gateway && len(l.Guests) > 0 {
			g.Stations = append(g.Stations, batman.MAC(l.Network, turn))
		}
	}
	return g
}

// always starts what does not depend on the network of clients.
func (l *LAN) always(ctx context.Context, owned *sync.WaitGroup) {
	loopback := netip.MustParseAddr("127.0.0.1")
	owned.Go(func() {
		l.names.Serve(ctx, listen.At{Iface: "lo", Addr: loopback, From: []netip.Prefix{netip.PrefixFrom(loopback, 8).Masked()}})
	})
	if err := dns.Stub(l.path(paths.Resolv)); err != nil {
		l.Log.Warn("this device's own programs resolve no names", "err", err)
	}
	if !l.gateway {
		return
	}
	nets := firewall.HALONetworks(l.Network)
	overlay := listen.At{Iface: paths.OverlayIface, Addr: paths.OverlayGateway, From: slices.Concat(nets.Overlay, nets.Clients)}
	owned.Go(func() { l.names.Serve(ctx, overlay) })
	owned.Go(func() { l.time.Serve(ctx, overlay) })
}

// Leases returns the addresses that are given, by interface.
func (l *LAN) Leases() map[string][]server.Lease {
	l.mu.Lock()
	servers := maps.Clone(l.leases)
	l.mu.Unlock()
	out := map[string][]server.Lease{}
	for iface, s := range servers {
		out[iface] = s.Leases()
	}
	return out
}

// DNS returns what names there are, and what became of questions for them.
func (l *LAN) DNS() model.DNSStatus {
	s := model.DNSStatus{Names: []model.DNSName{}, Upstreams: []netip.AddrPort{}, Counts: l.names.Counts()}
	for _, h := range l.hosts(l.state()) {
		s.Names = append(s.Names, model.DNSName{Name: h.Name, Addresses: h.Addresses})
	}
	order.By(s.Names, func(a, b model.DNSName) int { return strings.Compare(a.Name, b.Name) })
	list, err := l.upstream()
	if s.Upstreams = append(s.Upstreams, list...); err != nil {
		s.NoUpstream = err.Error()
	}
	return s
}

// mdnsFor answers by multicast DNS where clients are.
func (l *LAN) mdnsFor(name string) mdns.Config {
	return mdns.Config{Iface: paths.ClientBridge, Node: dns.Label(name), Notify: l.Notify, Log: l.Log}
}

package lan

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"halo.internal/identity"
	"halo.internal/mesh/advert"
	"halo.internal/mesh/batman"
	"halo.internal/mesh/dhcp/server"
	"halo.internal/mesh/listen"
	"halo.internal/mesh/mdns"
	"halo.internal/model/paths"
)

// Leases of clients and of nodes. A phone comes and goes; a node keeps its
// address as long as it may.
const (
	clientLease = 12 * time.Hour
	nodeLease   = 7 * 24 * time.Hour
)

// of is what the services on br0 depend on.
type of struct {
	ports   bool // there are some
	clients netip.Prefix
	name    string
}

// service is what runs for one network of clients.
type service struct {
	of
	cancel context.CancelFunc
	owned  *sync.WaitGroup
}

func (s *service) stop() {
	if s.cancel != nil {
		s.cancel()
		s.owned.Wait()
	}
	*s = service{}
}

// serve starts what clients on br0 may ask.
func (l *LAN) serve(ctx context.Context, o of) service {
	if !o.ports {
		return service{of: o} // nobody is there to ask
	}
	ctx, cancel := context.WithCancel(ctx)
	s := service{of: o, cancel: cancel, owned: &sync.WaitGroup{}}
	s.owned.Go(func() { mdns.Run(ctx, l.mdnsFor(o.name)) })
	if !o.clients.IsValid() {
		return s
	}
	six := identity.Clients(l.Network, o.clients)
	for _, p := range []netip.Prefix{o.clients, six} {
		at := listen.At{Iface: paths.ClientBridge, Addr: p.Addr().Next(), From: []netip.Prefix{p}}
		s.owned.Go(func() { l.names.Serve(ctx, at) })
		s.owned.Go(func() { l.time.Serve(ctx, at) })
	}
	s.owned.Go(func() { l.lease(ctx, l.clientLeases(o)) })
	s.owned.Go(func() { l.advertise(ctx, six) })
	return s
}

// serveMesh starts what nodes on the mesh may ask a gateway.
func (l *LAN) serveMesh(ctx context.Context) service {
	ctx, cancel := context.WithCancel(ctx)
	s := service{cancel: cancel, owned: &sync.WaitGroup{}}
	s.owned.Go(func() {
		l.time.Serve(ctx, listen.At{Iface: l.Underlay, Addr: paths.UnderlayGateway, From: []netip.Prefix{paths.UnderlayNet}})
	})
	s.owned.Go(func() { l.lease(ctx, underlayLeases(l)) })
	return s
}

// clientLeases serves clients: .1 is the device's own address, .2 to .9 are left to
// people.
func (l *LAN) clientLeases(o of) server.Config {
	router := o.clients.Addr().Next()
	b := o.clients.Addr().As4()
	at := func(n byte) netip.Addr { b[3] = n; return netip.AddrFrom4(b) }
	return server.Config{
		Iface: paths.ClientBridge, Address: netip.PrefixFrom(router, o.clients.Bits()), First: at(10), Last: at(254), Lease: clientLease,
		Options: server.Options{Router: router, DNS: []netip.Addr{router}, NTP: []netip.Addr{router}, Domain: "halo"},
	}
}

// underlayLeases serves nodes on the mesh: nothing but an address and the time.
func underlayLeases(l *LAN) server.Config {
	return server.Config{
		Iface: l.Underlay, Address: netip.PrefixFrom(paths.UnderlayGateway, paths.UnderlayNet.Bits()),
		First: netip.MustParseAddr("10.41.1.0"), Last: netip.MustParseAddr("10.41.254.255"), Lease: nodeLease,
		// A node that starts anew comes with another address of its mesh interface,
		// and keeps its lease: others know it by that.
		SameClient: batman.AnyTurn,
		Options:    server.Options{NTP: []netip.Addr{paths.UnderlayGateway}},
	}
}

// Reserve has the hosts with these MACs, and nobody else, get these addresses from now
// on. Those outside of Networks wait for theirs. An error is that of server.Reserve, and
// leaves all as it was.
func (l *LAN) Reserve(list []server.Reservation) error {
	l.reserving.Lock()
	defer l.reserving.Unlock()
	l.mu.Lock()
	clients, before := l.wanted.Clients, l.reserved
	l.mu.Unlock()
	var configs []server.Config
	if clients.IsValid() {
		configs = append(configs, l.clientLeases(of{clients: clients}))
	}
	if l.gateway {
		configs = append(configs, underlayLeases(l))
	}
	for i, c := range configs {
		if err := l.reserve(c, list); err != nil {
			for _, c := range configs[:i] {
				_ = l.reserve(c, before) // it held a moment ago
			}
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reserved = slices.Clone(list)
	return nil
}

// reserve has the server of that configuration keep its part of the list; where it does
// not run, it checks whether it could. l.reserving is held.
func (l *LAN) reserve(c server.Config, list []server.Reservation) error {
	l.mu.Lock()
	s := l.leases[c.Iface]
	l.mu.Unlock()
	if s != nil {
		return s.Reserve(within(s.Network(), list))
	}
	c.Reservations = within(c.Address.Masked(), list)
	return c.Check()
}

// MayHave tells whether an address may be given to a host of one of HALO's IPv4
// networks, of which the first is that of the device that gives them.
func MayHave(network netip.Prefix, a netip.Addr) bool {
	return a.Is4() && network.Contains(a) && network.Addr().Next().Less(a) && network.Contains(a.Next()) // the last is that of broadcasts
}

// within returns those reservations that a network may have.
func within(network netip.Prefix, list []server.Reservation) (out []server.Reservation) {
	for _, r := range list {
		if MayHave(network, r.Address) {
			out = append(out, r)
		}
	}
	return out
}

// Networks returns those of which this device gives addresses: that of its clients, once
// they have one, and a gateway that of the mesh, for nodes and for guests on bridged
// ports.
func (l *LAN) Networks() (list []netip.Prefix) {
	if c := l.state().Clients; c.IsValid() {
		list = append(list, c)
	}
	if l.gateway {
		list = append(list, paths.UnderlayNet)
	}
	return list
}

// newServer makes a server, with the reservations there are by then.
func (l *LAN) newServer(c server.Config) (*server.Server, error) {
	l.reserving.Lock()
	defer l.reserving.Unlock()
	l.mu.Lock()
	c.Reservations = within(c.Address.Masked(), l.reserved)
	l.mu.Unlock()
	s, err := server.New(c)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leases[c.Iface] = s
	return s, nil
}

// lease runs a DHCP server.
func (l *LAN) lease(ctx context.Context, c server.Config) {
	c.File, c.Notify, c.Log = l.path(paths.State)+"/"+paths.Leases(c.Iface), l.Notify, l.Log
	c.NameTaken = l.Named
	s, err := l.newServer(c)
	if err != nil {
		panic("lan: " + err.Error()) // it follows from what has been checked
	}
	following, end := context.WithCancel(ctx)
	var owned sync.WaitGroup
	owned.Go(func() { l.follow(following, s) })
	if err := s.Run(ctx); err != nil {
		l.Log.Error("DHCP server ended", "iface", c.Iface, "err", err)
	}
	end()
	owned.Wait()
	l.mu.Lock()
	delete(l.leases, c.Iface)
	l.mu.Unlock()
}

// follow has names brought up to date when clients come and go.
func (l *LAN) follow(ctx context.Context, s *server.Server) {
	for {
		_, changed := s.Watch()
		wake(l.leased)
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// Named tells whether a name is taken by a device of the network.
func (l *LAN) Named(name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, h := range l.wanted.Hosts {
		if h.Name == name {
			return true
		}
	}
	return false
}

// advertise tells clients of IPv6: the network's ULA, and no way out of it.
func (l *LAN) advertise(ctx context.Context, p netip.Prefix) {
	a, err := advert.New(advert.Config{
		Iface: paths.ClientBridge, Prefix: p, DNS: []netip.Addr{p.Addr().Next()}, Search: []string{"halo"},
		Routes: []netip.Prefix{ula(l.Network)}, Log: l.Log,
	})
	if err != nil {
		panic("lan: " + err.Error()) // it follows from the network's key
	}
	if err := a.Run(ctx); err != nil {
		l.Log.Error("router advertisements ended", "err", err)
	}
}

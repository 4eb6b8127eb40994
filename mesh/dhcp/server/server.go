// Package server gives addresses to the hosts of one of HALO's own networks by
// DHCP (RFC 2131): to nodes on bat0, and to clients on a node's bridge.
//
// Its clients are strangers, and the board that it runs on has no clock and may
// lose power. So:
//
//   - A client is known by its MAC together with the identifier that it sends
//     (option 61), and a message counts only when its frame came from the MAC
//     that it speaks of: nobody gives back, declines or takes over what is
//     another's without forging frames. Bridges that translate MACs, and relays,
//     are not served.
//   - An address that is new to a client is probed by ARP before it is offered,
//     while others are answered. One that is in use is set aside for a while.
//   - An offer is kept for seconds, new clients are taken up at a bounded rate,
//     those that ask again before those that never did, and what a client once
//     had is reused last. When addresses run short, newcomers get them for a
//     short time, and in full when they come back for more.
//   - Times of leases are measured, never read from the clock. After a restart
//     nobody knows how long it took, so that each lease counts as if it had just
//     been given. Renewals change nothing in the file, then, and cost no write.
//
// New leases are on the card within a minute or later, not before they are
// given as RFC 2131 has it: a client whose lease was lost asks for its address
// again, and gets it, if a probe finds nobody else there.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"halo.internal/model"
	"halo.internal/model/order"
)

// Kinds of events; all have the field iface.
const (
	EventExhausted = "mesh.dhcp.exhausted" // no address is free; field clients: turned away since the last event
	EventConflict  = "mesh.dhcp.conflict"  // fields address, mac: who was asked to have it; holder (of an ARP answer) or by = client (it declined)
	EventStore     = "mesh.dhcp.store"     // the file of leases was damaged, or is not written
)

// Bounds of a configuration.
const (
	ShortestLease = 2 * time.Minute
	LongestLease  = 7 * 24 * time.Hour
	maxServers    = 4 // of each kind of option
	maxReserved   = 1024
)

// Config of a server on one interface.
type Config struct {
	Iface   string
	Address netip.Prefix // the server's own address on Iface, which others put there, with the network's prefix
	First   netip.Addr   // pool, from First
	Last    netip.Addr   // to Last, both included
	Lease   time.Duration

	Options      Options
	Reservations []Reservation
	RapidCommit  bool // two messages instead of four, where a client asks for it (RFC 4039): only where no other server is

	// SameClient returns the address under which a client is known that comes with
	// another one now and then, so that it keeps its lease; nil: each is a client's own.
	SameClient func(net.HardwareAddr) net.HardwareAddr

	NameTaken func(string) bool // names that no client may have, such as those of nodes; may be nil
	File      string            // keeps the leases over restarts; empty: nothing does
	Notify    func(model.Event) // must not block; may be nil
	Log       *slog.Logger

	timing timing // tests are in more of a hurry
}

// Options are what clients are told besides their address (RFC 2132).
type Options struct {
	Router netip.Addr   // may be the zero Addr: none
	DNS    []netip.Addr // at most four
	NTP    []netip.Addr // at most four
	Domain string       // such as "halo"; may be empty
	MTU    uint16       // of the interface, in octets, 576 or more; zero: not told
}

// Reservation is the address of one client, known by its MAC or by its
// identifier (option 61, all octets of it), and of no other.
type Reservation struct {
	MAC      net.HardwareAddr
	ClientID []byte
	Address  netip.Addr // in the network; in the pool or not
	Name     string     // as a host name; may be empty: the client's own
}

// timing of what clients wait for. RFC 5227 probes for up to seven seconds;
// clients ask again after three or four.
type timing struct {
	probes     int           // sent for one address
	probeEvery time.Duration // between them, and after the last
	quarantine time.Duration // of an address that is in use
	saveFirst  time.Duration // from a change to its writing,
	saveGap    time.Duration // between writes, doubled while changes go on,
	saveLongst time.Duration // up to this
	shortest   time.Duration // lease that may be configured
}

var usual = timing{
	probes: 3, probeEvery: 300 * time.Millisecond, quarantine: 10 * time.Minute,
	saveFirst: 10 * time.Second, saveGap: time.Minute, saveLongst: 30 * time.Minute,
	shortest: ShortestLease,
}

// Lease is an address that a client has.
type Lease = model.Lease

// Server of one interface. Leases and Watch may be called from any goroutine.
type Server struct {
	c Config

	mu      sync.Mutex // guards what follows
	e       *engine
	changed chan struct{} // closed at the next change of the leases
}

// New checks the configuration and reads the file of leases. A file that can't
// be read is an event and no error: the server goes on with what it could read.
func New(c Config) (*Server, error) {
	if c.timing == (timing{}) {
		c.timing = usual
	}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("DHCP server on %s: %w", c.Iface, err)
	}
	s := &Server{c: c, e: newEngine(c), changed: make(chan struct{})}
	s.load(time.Now())
	return s, nil
}

func (c Config) check() error {
	network := c.Address.Masked()
	if !c.Address.IsValid() || !c.Address.Addr().Is4() || c.Address.Bits() < 8 || c.Address.Bits() > 30 {
		return fmt.Errorf("address: expected IPv4 with a prefix of 8 to 30 bits, got %s", c.Address)
	}
	host := func(a netip.Addr) bool { return a.IsValid() && isHost(network, a) }
	if !host(c.Address.Addr()) {
		return fmt.Errorf("address: expected a host's in %s, got %s", network, c.Address.Addr())
	}
	if !host(c.First) || !host(c.Last) || c.Last.Less(c.First) {
		return fmt.Errorf("pool: expected two addresses of hosts in %s, the lower first, got %s to %s", network, c.First, c.Last)
	}
	if c.First == c.Last && c.First == c.Address.Addr() {
		return errors.New("pool: expected more than the server's own address")
	}
	if c.Lease < c.timing.shortest || c.Lease > LongestLease {
		return fmt.Errorf("lease: expected %s to %s, got %s", c.timing.shortest, LongestLease, c.Lease)
	}
	if err := c.Options.check(network); err != nil {
		return err
	}
	return c.checkReservations(host)
}

func (o Options) check(network netip.Prefix) error {
	if o.Router.IsValid() && !isHost(network, o.Router) {
		return fmt.Errorf("router: expected a host in %s, got %s", network, o.Router)
	}
	for _, l := range [][]netip.Addr{o.DNS, o.NTP} {
		if len(l) > maxServers {
			return fmt.Errorf("servers: expected %d of a kind at most, got %d", maxServers, len(l))
		}
		for _, a := range l {
			if !a.Is4() || !a.IsGlobalUnicast() {
				return fmt.Errorf("servers: expected IPv4 addresses of hosts, got %s", a)
			}
		}
	}
	if o.Domain != "" && !isDomain(o.Domain) {
		return fmt.Errorf("domain: expected labels of lower-case letters, digits and hyphens, got %q", o.Domain)
	}
	if o.MTU != 0 && o.MTU < 576 {
		return fmt.Errorf("MTU: expected 576 octets or more, got %d", o.MTU)
	}
	return nil
}

func (c Config) checkReservations(host func(netip.Addr) bool) error {
	if len(c.Reservations) > maxReserved {
		return fmt.Errorf("reservations: expected %d at most, got %d", maxReserved, len(c.Reservations))
	}
	addrs, clients, names := map[netip.Addr]bool{}, map[string]bool{}, map[string]bool{}
	for _, r := range c.Reservations {
		who := "MAC " + r.MAC.String()
		if len(r.ClientID) > 0 {
			who = fmt.Sprintf("client identifier %x", r.ClientID)
		}
		switch {
		case (len(r.MAC) == 0) == (len(r.ClientID) == 0) || len(r.MAC) > 0 && len(r.MAC) != 6 || len(r.ClientID) > maxClientID:
			return fmt.Errorf("reservation of %s: expected a MAC of 6 octets, or a client identifier of %d at most, got MAC %q and identifier %x", r.Address, maxClientID, r.MAC, r.ClientID)
		case !host(r.Address) || r.Address == c.Address.Addr():
			return fmt.Errorf("reservation of %s: expected another host's address in %s, got %s", who, c.Address.Masked(), r.Address)
		case r.Name != "" && hostname(r.Name) != r.Name:
			return fmt.Errorf("reservation of %s: expected a name of lower-case letters, digits and hyphens, got %q", who, r.Name)
		case addrs[r.Address] || clients[who] || r.Name != "" && names[r.Name]:
			return fmt.Errorf("reservation of %s: %s, %q: is there twice", who, r.Address, r.Name)
		}
		addrs[r.Address], clients[who], names[r.Name] = true, true, true
	}
	return nil
}

// ErrInUse is wrapped where an address cannot be reserved since another client has it.
var ErrInUse = errors.New("the address is in use")

// Reserve makes these the reservations there are, from now on: a client for which
// another address was reserved moves there when it renews its lease. An address that
// another client has is refused with ErrInUse, one of which a Config could not have
// with what is wrong; then all stays as it was.
func (s *Server) Reserve(list []Reservation) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, now := s.e.c, time.Now()
	c.Reservations = slices.Clone(list)
	if err := c.check(); err != nil {
		return err
	}
	for _, r := range list {
		if who, until, ok := s.e.holder(now, r); ok {
			return fmt.Errorf("%w: %s has %s for %s more, unless it comes back for it: choose another, or have that client release it", ErrInUse, who.mac, r.Address, until.Sub(now).Round(time.Second))
		}
	}
	s.e.reserve(c.Reservations)
	return nil
}

// Check tells what is wrong with a configuration, as New does.
func (c Config) Check() error {
	c.timing = usual
	return c.check()
}

// Hostname returns what a host of that name is called in a network of hosts: empty
// where that leaves nothing.
func Hostname(name string) string { return hostname(name) }

// isHost tells whether a may be one host's address in a network.
func isHost(network netip.Prefix, a netip.Addr) bool {
	return network.Contains(a) && a != network.Addr() && a != broadcast(network) && a.IsGlobalUnicast()
}

func broadcast(network netip.Prefix) netip.Addr {
	b := network.Addr().As4()
	for i := network.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}

// Network is the one of whose addresses it gives.
func (s *Server) Network() netip.Prefix { return s.c.Address.Masked() }

// Leases returns the leases there are, by address.
func (s *Server) Leases() []Lease {
	l, _ := s.Watch()
	return l
}

// Watch returns the leases there are, and a channel that is closed when they
// are others: addresses, clients or names, not the times of expiry.
func (s *Server) Watch() ([]Lease, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	var list []Lease
	for _, l := range s.e.byAddr {
		if !l.ended && now.Before(l.until) {
			list = append(list, Lease{
				Address: l.addr, MAC: l.mac.String(), ClientID: fmt.Sprintf("%x", l.client.id),
				Hostname: l.host, Name: l.name, Expires: now.Add(l.until.Sub(now)).Round(0), Heard: l.heard,
				Reserved: s.e.reservation(l.client) == l.addr,
			})
		}
	}
	order.By(list, func(a, b Lease) int { return a.Address.Compare(b.Address) })
	return list, s.changed
}

// Ignored returns how many messages were ignored so far, by reason.
func (s *Server) Ignored() map[string]uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]uint64, len(s.e.ignored))
	for k, v := range s.e.ignored {
		out[k] = v
	}
	return out
}

const reopenAfter = 2 * time.Second // between tries to open the socket

// Run serves until ctx ends, also when the interface comes later or is made
// anew; then it writes what is not written yet.
func (s *Server) Run(ctx context.Context) error {
	keeper := newKeeper(s.c)
	defer keeper.close(s)
	told := false
	for ctx.Err() == nil {
		w, err := open(s.c.Iface, s.c.Address.Masked())
		if err == nil {
			if told {
				s.c.Log.Info("DHCP server runs", "iface", s.c.Iface)
				told = false
			}
			err = s.serve(ctx, w, keeper)
		}
		if err != nil && ctx.Err() == nil {
			if !told { // the interface may come much later: one line says what is missing
				s.c.Log.Warn("DHCP server waits for its interface", "iface", s.c.Iface, "err", err)
				told = true
			}
			sleep(ctx, reopenAfter)
		}
	}
	return nil
}

func (s *Server) serve(ctx context.Context, w *wire, keeper *keeper) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var owned sync.WaitGroup
	owned.Go(func() { cancel(w.readMessages(ctx)) })
	owned.Go(func() { cancel(w.readARP(ctx)) })
	owned.Go(func() { cancel(w.check(ctx)) })
	s.loop(ctx, w, keeper)
	cause := context.Cause(ctx)
	cancel(nil)
	err := w.close()
	owned.Wait()
	return errors.Join(cause, err)
}

func (s *Server) loop(ctx context.Context, w *wire, keeper *keeper) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	silent := false
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-w.messages:
			s.step(func(now time.Time) { s.e.handle(now, m) })
		case a := <-w.arp:
			s.step(func(now time.Time) { s.e.hear(now, a) })
		case err := <-keeper.written:
			keeper.wrote(time.Now(), err)
		case <-timer.C:
			s.step(s.e.advance)
		}
		due, dirty := s.act(w, &silent)
		if dirty {
			keeper.note(time.Now())
		}
		if save := keeper.due(); !save.IsZero() {
			if !time.Now().Before(save) {
				keeper.start(s.snapshot())
			} else if due.IsZero() || save.Before(due) {
				due = save
			}
		}
		if due.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(due))
		}
	}
}

func (s *Server) step(f func(time.Time)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(time.Now())
}

// act sends and tells what the engine has to send and to tell. It returns when
// the engine wants to be advanced, and whether the file has changes to take.
func (s *Server) act(w *wire, silent *bool) (due time.Time, dirty bool) {
	s.mu.Lock()
	out := s.e.take()
	if out.changed {
		close(s.changed)
		s.changed = make(chan struct{})
	}
	due = s.e.next()
	s.mu.Unlock()
	var errs error
	for _, a := range out.probes {
		errs = errors.Join(errs, w.probe(a))
	}
	for _, r := range out.replies {
		errs = errors.Join(errs, w.send(s.c.Address.Addr(), r))
	}
	if failing := errs != nil; failing != *silent { // frames get lost; that they always do is news
		*silent = failing
		if failing {
			s.c.Log.Warn("DHCP server can't send", "iface", s.c.Iface, "err", errs)
		}
	}
	if s.c.Notify != nil {
		for _, e := range out.events {
			s.c.Notify(e)
		}
	}
	return due, out.dirty
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(max(d, 0))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

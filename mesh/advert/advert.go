// Package advert tells the hosts on one of HALO's own interfaces by router
// advertisements (RFC 4861) which ULA they are in, so that they address
// themselves, where names are resolved (RFC 8106), and which networks are reached
// through this machine. It calls itself no default router: a phone that is told of
// one where there is no way out gives up its mobile network.
//
// Hosts that ask are answered one by one, which a radio carries faster and more
// surely than what goes to all; of many at a time, all by one advertisement.
package advert

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/mdlayher/ndp"
	"golang.org/x/net/ipv6"
)

// Lifetimes of what is advertised. Hosts move from node to node, and forget the
// prefix of the last one soon (RFC 9096, 3.3).
const (
	routerFor    = 3 * maxInterval // default router, routes, name servers
	prefixFor    = 90 * time.Minute
	preferredFor = 45 * time.Minute
)

// Bounds of a configuration: what is advertised fits into the smallest packet
// that IPv6 knows.
const (
	maxDNS     = 3
	maxDomains = 232 // octets in an option of 248, which is the longest that ndp makes
	maxRoutes  = 4
	minMTU     = 1280 // RFC 8200, 5
)

// Config of an advertiser on one interface, which others bring up, and give an
// address in Prefix.
type Config struct {
	Iface  string
	Prefix netip.Prefix   // /64, of addresses that hosts make themselves
	DNS    []netip.Addr   // at most three
	Search []string       // domains, such as "halo"; few
	MTU    uint32         // octets, 1280 or more; zero: not told
	Routes []netip.Prefix // networks that are reached through this machine (RFC 4191), at most four
	Log    *slog.Logger
}

// Advertiser of one interface.
type Advertiser struct {
	c Config
}

// New checks the configuration.
func New(c Config) (*Advertiser, error) {
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("router advertisements on %s: %w", c.Iface, err)
	}
	return &Advertiser{c: c}, nil
}

func (c Config) check() error {
	p := c.Prefix
	if !p.IsValid() || !p.Addr().Is6() || p.Bits() != 64 || p.Masked() != p || !p.Addr().IsGlobalUnicast() {
		return fmt.Errorf("prefix: expected an IPv6 network of 64 bits, got %s", p)
	}
	if len(c.DNS) > maxDNS || len(c.Routes) > maxRoutes {
		return fmt.Errorf("expected at most %d name servers and %d routes, got %d and %d", maxDNS, maxRoutes, len(c.DNS), len(c.Routes))
	}
	for _, a := range c.DNS {
		if !a.Is6() || a.Is4In6() || a.IsMulticast() || a.IsUnspecified() || a.Zone() != "" {
			return fmt.Errorf("name server: expected an IPv6 address of a host, got %s", a)
		}
	}
	for _, r := range c.Routes {
		if !r.IsValid() || !r.Addr().Is6() || r.Masked() != r || r.Bits() == 0 {
			return fmt.Errorf("route: expected an IPv6 network, got %s", r)
		}
	}
	if c.MTU != 0 && c.MTU < minMTU {
		return fmt.Errorf("MTU: expected %d octets or more, got %d", minMTU, c.MTU)
	}
	size := 0
	for _, d := range c.Search {
		if size += len(d) + 2; size > maxDomains {
			return fmt.Errorf("domains: expected %d octets at most in all, got %q", maxDomains, c.Search)
		}
		if !isDomain(d) {
			return fmt.Errorf("domain: expected labels of 1 to 63 letters, digits and hyphens, got %q", d)
		}
	}
	return nil
}

func isDomain(s string) bool {
	for label := range strings.SplitSeq(s, ".") {
		if len(label) < 1 || len(label) > 63 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") != "" {
			return false
		}
	}
	return true
}

// message is what is advertised: or, finally, that this machine serves nobody any
// more. Addresses stay: hosts go on to reach each other.
func (c Config) message(final bool, hw net.HardwareAddr) *ndp.RouterAdvertisement {
	lifetime := routerFor
	if final {
		lifetime = 0
	}
	m := &ndp.RouterAdvertisement{CurrentHopLimit: 64}
	m.Options = append(m.Options, &ndp.PrefixInformation{
		PrefixLength: uint8(c.Prefix.Bits()), Prefix: c.Prefix.Addr(), OnLink: true, AutonomousAddressConfiguration: true,
		ValidLifetime: prefixFor, PreferredLifetime: preferredFor,
	})
	if c.MTU > 0 {
		m.Options = append(m.Options, ndp.NewMTU(c.MTU))
	}
	for _, r := range c.Routes {
		m.Options = append(m.Options, &ndp.RouteInformation{PrefixLength: uint8(r.Bits()), Prefix: r.Addr(), RouteLifetime: lifetime})
	}
	if len(c.DNS) > 0 {
		m.Options = append(m.Options, &ndp.RecursiveDNSServer{Lifetime: lifetime, Servers: c.DNS})
	}
	if len(c.Search) > 0 {
		m.Options = append(m.Options, &ndp.DNSSearchList{Lifetime: lifetime, DomainNames: c.Search})
	}
	if len(hw) == 6 {
		m.Options = append(m.Options, &ndp.LinkLayerAddress{Direction: ndp.Source, Addr: hw})
	}
	return m
}

// Times of the socket's life.
const (
	reopenAfter = time.Second // between tries to open it: an address is tentative at first
	checkEvery  = 2 * time.Second
)

// Run advertises until ctx ends, also when the interface comes later or is made
// anew; then it says goodbye.
func (a *Advertiser) Run(ctx context.Context) error {
	told := false
	for ctx.Err() == nil {
		w, err := open(a.c.Iface)
		if err == nil {
			if told {
				a.c.Log.Info("router advertisements run", "iface", a.c.Iface)
				told = false
			}
			err = a.serve(ctx, w)
		}
		if err != nil && ctx.Err() == nil {
			if !told { // the interface may come much later: one line says what is missing
				a.c.Log.Warn("router advertisements wait for their interface", "iface", a.c.Iface, "err", err)
				told = true
			}
			sleep(ctx, reopenAfter)
		}
	}
	return nil
}

func (a *Advertiser) serve(ctx context.Context, w *wire) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var owned sync.WaitGroup
	owned.Go(func() { cancel(w.read(ctx)) })
	owned.Go(func() { cancel(w.check(ctx)) })
	err := a.loop(ctx, w)
	cancel(err)
	err = context.Cause(ctx)
	if errors.Is(err, context.Canceled) {
		_ = w.send(a.c.message(true, w.hardware()), allNodes) // lost, if the interface is gone
	}
	errs := errors.Join(err, w.close())
	owned.Wait()
	return errs
}

func (a *Advertiser) loop(ctx context.Context, w *wire) error {
	s := newSchedule(time.Now())
	timer := time.NewTimer(0)
	defer timer.Stop()
	silent := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case from := <-w.solicitations:
			s.solicit(time.Now(), from)
		case <-timer.C:
		}
		for _, to := range s.take(time.Now()) {
			err := w.send(a.c.message(false, w.hardware()), to)
			if failing := err != nil && to == allNodes; failing != silent && (failing || to == allNodes) {
				silent = failing
				if failing {
					a.c.Log.Warn("router advertisements can't be sent", "iface", a.c.Iface, "err", err)
				}
			}
		}
		timer.Reset(time.Until(s.next()))
	}
}

// Well-known groups (RFC 4291, 2.7.1).
var (
	allNodes   = netip.MustParseAddr("ff02::1")
	allRouters = netip.MustParseAddr("ff02::2")
)

// wire is the socket of one interface.
type wire struct {
	iface         string
	index         int
	own           netip.Addr // link-local
	conn          *ndp.Conn
	solicitations chan netip.Addr // senders; the zero Addr is one without an address
}

func open(iface string) (*wire, error) {
	ifi, err := net.InterfaceByName(iface)
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", iface, err)
	}
	// Package net remembers for a minute which index a name has: after the interface
	// was made anew that is the wrong one, so it is named by its index.
	ifi.Name = strconv.Itoa(ifi.Index)
	conn, own, err := ndp.Listen(ifi, ndp.LinkLocal)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", iface, err)
	}
	var filter ipv6.ICMPFilter
	filter.SetAll(true)
	filter.Accept(ipv6.ICMPTypeRouterSolicitation)
	if err := errors.Join(conn.SetICMPFilter(&filter), conn.SetControlMessage(ipv6.FlagHopLimit, true), conn.JoinGroup(allRouters)); err != nil {
		return nil, errors.Join(fmt.Errorf("listen on %s: %w", iface, err), conn.Close())
	}
	return &wire{iface, ifi.Index, own.WithZone(""), conn, make(chan netip.Addr, 16)}, nil
}

func (w *wire) close() error { return w.conn.Close() }

// solicitationsASecond bounds what is read; the kernel drops the rest.
const solicitationsASecond = 500

func (w *wire) read(ctx context.Context) error {
	window, left := time.Now(), solicitationsASecond
	for {
		m, cm, from, err := w.conn.ReadFrom()
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		if time.Since(window) >= time.Second {
			window, left = time.Now(), solicitationsASecond
		}
		if left--; left < 0 && !sleep(ctx, time.Second-time.Since(window)) {
			return nil
		}
		rs, ok := m.(*ndp.RouterSolicitation)
		if !ok || cm == nil || cm.HopLimit != ndp.HopLimit || !valid(rs, from) {
			continue
		}
		select {
		case w.solicitations <- answerTo(from):
		case <-ctx.Done():
			return nil
		}
	}
}

// valid is RFC 4861, 6.1.1, as far as the kernel has not looked.
func valid(m *ndp.RouterSolicitation, from netip.Addr) bool {
	if !from.IsUnspecified() {
		return !from.IsMulticast()
	}
	for _, o := range m.Options {
		if l, ok := o.(*ndp.LinkLayerAddress); ok && l.Direction == ndp.Source {
			return false
		}
	}
	return true
}

// answerTo returns the zero Addr for whom an answer to all must do: hosts ask
// from where they are on the link.
func answerTo(from netip.Addr) netip.Addr {
	if from = from.WithZone(""); from.IsLinkLocalUnicast() {
		return from
	}
	return netip.Addr{}
}

func (w *wire) send(m *ndp.RouterAdvertisement, to netip.Addr) error {
	return w.conn.WriteTo(m, nil, to)
}

// hardware is the interface's MAC as it is now: a bridge has that of another
// port at times.
func (w *wire) hardware() net.HardwareAddr {
	ifi, err := net.InterfaceByIndex(w.index)
	if err != nil {
		return nil
	}
	return ifi.HardwareAddr
}

// check returns when the interface under the socket is not the one any more that
// has its name, or has another address.
func (w *wire) check(ctx context.Context) error {
	for sleep(ctx, checkEvery) {
		ifi, err := net.InterfaceByName(w.iface)
		if err != nil {
			return fmt.Errorf("interface %s: %w", w.iface, err)
		}
		if ifi.Index != w.index {
			return fmt.Errorf("interface %s: was made anew", w.iface)
		}
		addrs, err := ifi.Addrs()
		if err != nil {
			return fmt.Errorf("interface %s: %w", w.iface, err)
		}
		there := false
		for _, a := range addrs {
			n, ok := a.(*net.IPNet)
			there = there || ok && n.IP.Equal(w.own.AsSlice())
		}
		if !there {
			return fmt.Errorf("interface %s: lost its address %s", w.iface, w.own)
		}
	}
	return nil
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

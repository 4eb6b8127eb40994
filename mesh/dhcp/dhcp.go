// Package dhcp configures the ports that lead upstream: by DHCP, or with fixed
// settings. It keeps a lease for as long as the server does, and takes address,
// routes and name servers away again when it ends. It also fetches the address
// that a node has on the mesh's own interface.
//
// An upstream network is not trusted. A lease that would put HALO's own
// networks upstream is refused, routes beyond the default one are not asked for
// (option 121 could name a network more narrowly than the overlay does), and
// both the route to the upstream network and the default route have a high
// metric (Metric): whoever else sets a default route on a node, as the overlay
// does, comes first.
//
// On the mesh (Config.Own) it is the other way round: only an address of that
// very network is taken, and nothing besides, since the way out and the name
// servers are the overlay's business.
package dhcp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"

	"halo.internal/model"
)

// Metric is the least that a route upstream has; the port's index is added.
// Routes into the overlay have a lower one.
const Metric = 1024

// Kinds of events; fields iface, address, router.
const (
	EventUp      = "mesh.uplink.up"
	EventChanged = "mesh.uplink.changed"
	EventDown    = "mesh.uplink.down"
)

// Kinds of events of the address in a network of HALO's own; fields iface,
// address.
const (
	EventAddressUp      = "mesh.address.up"
	EventAddressChanged = "mesh.address.changed"
	EventAddressDown    = "mesh.address.down"
)

// Waiting for servers.
const (
	answerWait  = 4 * time.Second // for one answer
	seekFirst   = time.Second     // between attempts, doubled each time
	seekLongest = 30 * time.Second
	acquireWait = time.Minute // for a lease from a server that is there
)

// Config of uplinks, or, with Own, of an interface of the mesh.
type Config struct {
	Own      netip.Prefix      // network of HALO in which leases must lie, such as paths.UnderlayNet; zero: outside of all
	Hostname string            // told to servers
	Static   map[string]Static // by port: fixed settings instead of DHCP
	Resolv   string            // file for the resolver, e.g. paths.Resolv
	Notify   func(model.Event) // must not block
	Log      *slog.Logger
}

// Static is the fixed settings of a port.
type Static struct {
	Address netip.Prefix
	Router  netip.Addr   // may be the zero Addr: no default route
	DNS     []netip.Addr // name servers
}

// Client configures uplinks. Its methods may be called for several ports at a
// time.
type Client struct {
	c      Config
	resolv *resolv
}

// New checks the fixed settings.
func New(c Config) (*Client, error) {
	for iface, s := range c.Static {
		if err := settings(s).check(c.Own); err != nil {
			return nil, fmt.Errorf("port %s: %w", iface, err)
		}
	}
	return &Client{c: c, resolv: newResolv(c.Resolv)}, nil
}

// Errors that end a lease.
var (
	ErrNoServer = errors.New("no DHCP server gave a lease")
	ErrExpired  = errors.New("the lease ended and was not renewed")
)

// Discover asks for DHCP servers, ever more slowly, and returns nil when one has
// made an acceptable offer. A port with fixed settings needs none.
func (c *Client) Discover(ctx context.Context, iface string) error {
	if _, ok := c.c.Static[iface]; ok {
		return nil
	}
	return c.patiently(ctx, func() error {
		return c.exchange(iface, func(n *nclient4.Client) error {
			offer, err := n.DiscoverOffer(ctx, c.options()...)
			if err != nil {
				return err
			}
			_, err = readLease(offer, c.c.Own)
			return err
		})
	})
}

// Run configures the port and keeps it so until ctx ends or, with an error,
// until the lease does.
func (c *Client) Run(ctx context.Context, iface string) error {
	if s, ok := c.c.Static[iface]; ok {
		return c.hold(ctx, iface, s)
	}
	return c.lease(ctx, iface)
}

func (c *Client) hold(ctx context.Context, iface string, s Static) (err error) {
	defer func() { err = errors.Join(err, c.withdraw(iface, settings(s))) }()
	if err := c.configure(iface, nil, settings(s), 0); err != nil {
		return err
	}
	c.notify(EventUp, model.Info, iface, settings(s), nil)
	<-ctx.Done()
	c.notify(EventDown, model.Info, iface, settings(s), nil)
	return nil
}

// lease acquires, renews and, when ctx ends, gives back.
func (c *Client) lease(ctx context.Context, iface string) (err error) {
	held, s, err := c.acquire(ctx, iface)
	if err != nil || held == nil {
		return err
	}
	defer func() { err = errors.Join(err, c.withdraw(iface, s.settings)) }()
	if err := c.configure(iface, nil, s.settings, s.duration); err != nil {
		return err
	}
	c.c.Log.Info("interface has a lease", "iface", iface, "address", s.Address, "router", s.Router)
	c.notify(EventUp, model.Info, iface, s.settings, nil)
	for {
		renewed, next, err := c.renew(ctx, iface, held, s)
		if ctx.Err() != nil {
			c.release(iface, held)
			c.notify(EventDown, model.Info, iface, s.settings, nil)
			return nil
		}
		if err != nil {
			c.notify(EventDown, model.Warning, iface, s.settings, err)
			return err
		}
		if err := c.configure(iface, &s.settings, next.settings, next.duration); err != nil {
			return err
		}
		if !next.settings.equal(s.settings) {
			c.notify(EventChanged, model.Info, iface, next.settings, nil)
		}
		held, s = renewed, next
	}
}

// acquire returns a lease, or nil when ctx ended.
func (c *Client) acquire(ctx context.Context, iface string) (held *nclient4.Lease, l lease, err error) {
	within, cancel := context.WithTimeout(ctx, acquireWait)
	defer cancel()
	var last error
	err = c.patiently(within, func() error {
		last = c.exchange(iface, func(n *nclient4.Client) (err error) {
			if held, err = n.Request(within, c.options()...); err != nil {
				return err
			}
			l, err = readLease(held.ACK, c.c.Own)
			return err
		})
		return last
	})
	switch {
	case ctx.Err() != nil:
		return nil, lease{}, nil
	case err != nil:
		return nil, lease{}, fmt.Errorf("%w on port %s within %s: %w", ErrNoServer, iface, acquireWait, last)
	}
	return held, l, nil
}

// renew waits until it is time, then asks until the server agrees or the lease
// has ended. Requests go out as broadcasts, which reach the server's successor
// as well.
func (c *Client) renew(ctx context.Context, iface string, held *nclient4.Lease, l lease) (renewed *nclient4.Lease, next lease, err error) {
	expires := held.CreationTime.Add(l.duration)
	within, cancel := context.WithDeadline(ctx, expires)
	defer cancel()
	wait := l.renewal
	for {
		if !sleep(ctx, wait) {
			return nil, lease{}, ctx.Err()
		}
		err := c.exchange(iface, func(n *nclient4.Client) (err error) {
			if renewed, err = n.Renew(within, held, c.options()...); err != nil {
				return err
			}
			next, err = readLease(renewed.ACK, c.c.Own)
			return err
		})
		if err == nil {
			return renewed, next, nil
		}
		if nak, refused := errors.AsType[*nclient4.ErrNak](err); refused {
			return nil, lease{}, fmt.Errorf("%w: the server took it back: %w", ErrExpired, nak)
		}
		left := time.Until(expires)
		if left <= 0 {
			return nil, lease{}, fmt.Errorf("%w: %w", ErrExpired, err)
		}
		// RFC 2131, 4.4.5: half of what is left, but not oftener than each minute;
		// short leases have no minute to lose.
		wait = min(max(left/2, min(time.Minute, l.duration/8)), left)
	}
}

// release tells the server, which needs no answer; who is unplugged can't. It
// goes out from the address that is given back: servers do not take it from
// nowhere.
func (c *Client) release(iface string, held *nclient4.Lease) {
	from := nclient4.WithUnicast(&net.UDPAddr{IP: held.ACK.YourIPAddr, Port: nclient4.ClientPort})
	err := c.exchange(iface, func(n *nclient4.Client) error { return n.Release(held) }, from)
	if err != nil {
		c.c.Log.Info("lease could not be given back", "iface", iface, "err", err)
	}
}

// exchange opens a raw socket for the time of one exchange only: in between it
// would be handed every packet of the uplink.
func (c *Client) exchange(iface string, f func(*nclient4.Client) error, how ...nclient4.ClientOpt) error {
	ifi, err := net.InterfaceByName(iface)
	if err != nil {
		return fmt.Errorf("DHCP on port %s: %w", iface, err)
	}
	c4, err := open(ifi)
	if err != nil {
		return fmt.Errorf("DHCP on port %s: %w", iface, err)
	}
	n, err := nclient4.NewWithConn(c4, ifi.HardwareAddr, append(how, nclient4.WithTimeout(answerWait), nclient4.WithRetry(1))...)
	if err != nil {
		return fmt.Errorf("DHCP on port %s: %w", iface, err)
	}
	err = f(n)
	return errors.Join(err, n.Close())
}

func (c *Client) options() []dhcpv4.Modifier {
	if c.c.Hostname == "" {
		return nil
	}
	return []dhcpv4.Modifier{dhcpv4.WithOption(dhcpv4.OptHostName(c.c.Hostname))}
}

// patiently calls f until it succeeds or ctx ends, ever more slowly.
func (c *Client) patiently(ctx context.Context, f func() error) error {
	for wait := seekFirst; ; wait = min(2*wait, seekLongest) {
		if f() == nil {
			return nil
		}
		if !sleep(ctx, wait-wait/4+rand.N(wait/2)) {
			return ctx.Err()
		}
	}
}

func (c *Client) notify(kind string, severity model.Severity, iface string, s settings, why error) {
	if c.c.Notify == nil {
		return
	}
	fields := map[string]string{"iface": iface, "address": s.Address.String()}
	if s.Router.IsValid() {
		fields["router"] = s.Router.String()
	}
	format := map[string]string{
		EventUp:      "port %s is uplink with %s",
		EventChanged: "uplink %s has new settings: %s",
		EventDown:    "uplink %s lost %s",
	}[kind]
	if c.c.Own.IsValid() {
		own := map[string][2]string{
			EventUp:      {EventAddressUp, "%s has the address %s in the mesh"},
			EventChanged: {EventAddressChanged, "%s has another address in the mesh: %s"},
			EventDown:    {EventAddressDown, "%s lost its address %s in the mesh"},
		}[kind]
		kind, format = own[0], own[1]
	}
	message := fmt.Sprintf(format, iface, s.Address)
	if why != nil {
		message += ": " + why.Error()
	}
	c.c.Notify(model.Event{Kind: kind, Severity: severity, Message: message, Fields: maps.Clone(fields)})
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

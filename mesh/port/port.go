// Package port decides what each Ethernet port of a device is for. It finds the
// ports, plugged in at any time, and lets nothing happen on one before it is
// known whose cable that is: members of the network prove themselves to each
// other (package proof), and only then does the port carry the mesh. It does so
// under MACsec, on an interface of its own above the port (package macsec), by
// keys that the members hand to each other (package sak). A member whose kernel
// has none says so, and to that one alone the bare port carries the mesh. On a
// gateway a port that hears a DHCP server becomes the uplink; members that are
// heard behind it are told of, but the mesh does not run there, unless the port
// carried it before. A port where there is neither is given to clients. What a port
// proved to be before is waited for longer (Past). The network's configuration can
// pin every role.
//
// When halo-mesh stops, ports stay as they are, filters included, so that a
// restart of the process does not tear the mesh apart; the next start closes
// the filters until the members have proved themselves again, which takes about
// a second.
package port

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"

	"halo.internal/identity"
	"halo.internal/mesh/port/proof"
	"halo.internal/mesh/port/sak"
	"halo.internal/model"
	"halo.internal/model/bundle"
	"halo.internal/model/order"
)

// Roles of a port: those that can be pinned, and that of one whose use is not
// known yet.
const (
	Mesh      = "mesh"
	Uplink    = "uplink"
	Client    = "client"
	Bridged   = bundle.RoleBridge
	Unused    = "unused"
	Searching = "searching"
)

// Kinds of events.
const (
	EventFound   = "mesh.port.found"
	EventGone    = "mesh.port.gone"
	EventRole    = "mesh.port.role"    // fields role, was
	EventProven  = "mesh.port.proven"  // fields peer, mac
	EventLost    = "mesh.port.lost"    // fields peer, mac
	EventRefused = "mesh.port.refused" // fields peer, mac
	EventFailed  = "mesh.port.failed"
	EventBehind  = "mesh.port.behind" // field mac: members that only the uplink leads to
	EventBack    = "mesh.port.back"   // an uplink that carried the mesh before is the mesh's again
	EventClear   = "mesh.port.clear"  // fields peer, mac: a member is reached in the clear
)

// Carrier carries the mesh over a port, as batman.Mesh does.
type Carrier interface {
	Enslave(iface string) error
	Release(iface string) error
	// Rate says how many Mbit/s an interface of the mesh carries that can't tell
	// itself.
	Rate(iface string, mbit float64) error
}

// Bridge is what clients' ports are in, as bridge.Ports.
type Bridge interface {
	Enslave(iface string) error
	Release(iface string) error
	// Holds tells whether the port is in it.
	Holds(iface string) (bool, error)
}

// Upstream makes a port an uplink, as dhcp.Client does.
type Upstream interface {
	// Discover returns nil as soon as a server upstream answers on the port.
	Discover(ctx context.Context, iface string) error
	// Run configures the port and keeps it so; it returns when upstream is lost.
	Run(ctx context.Context, iface string) error
}

// Config says who this device is and what its ports may become.
type Config struct {
	Key      identity.Key
	Network  identity.PublicKey
	PSK      string            // the mesh's
	Pins     map[string]string // interface → role
	Carrier  Carrier
	Clients  Bridge   // of clients; nil: there is none
	Guests   Bridge   // into the mesh; nil: there is none
	Upstream Upstream // nil: no port may be an uplink
	Gateway  bool     // ports that are not pinned may become uplinks
	Memory   Memory   // of what a gateway's ports have proved to be; nil: nothing is remembered
	// Physical tells which links are ports; nil: those of Ethernet adapters.
	Physical func(netlink.Link) bool
	// Address returns the address that a port's MACsec interface sends from, which
	// is no other port's; it is given one that follows from the port's. nil: that one.
	Address func(net.HardwareAddr) net.HardwareAddr

	// Admit says why a device that proved the secret is no member, e.g. that it
	// was revoked. nil admits all. It must not block.
	Admit func(identity.PublicKey) error
	// Notify gets what happens; boot, number and time are the receiver's to set.
	// It is called from several goroutines and must not block.
	Notify func(model.Event)
	Log    *slog.Logger
}

// Ports is all Ethernet ports of the device.
type Ports struct {
	c      Config
	secret proof.Secret
	timing timing
	kernel kernel

	mu    sync.Mutex // guards what follows
	ports map[int]*port
}

// timing is what tests shorten.
type timing struct {
	proof   proof.Timing
	client  time.Duration // how long a port is alone until it is given to clients
	leave   time.Duration // from the last member's loss until the port is taken from the mesh
	retry   time.Duration // after a failure of the system
	carrier time.Duration // how long an uplink's cable may be out
	settle  time.Duration // after a change of links, for more of them
	loyal   time.Duration // how long a port is for what it proved to be alone
	proved  time.Duration // after which an uplink has a lease for certain: the client gives up sooner
	lasting time.Duration // after which another role of a port's is no passing one
	forget  time.Duration // after which an uplink carries the mesh no more than any other
	stray   time.Duration // how long members greet behind an uplink until that is said
	silent  time.Duration // how long they don't until they are forgotten
	idle    time.Duration // how long an interface stays in the mesh that the members do not need, while they need the other
	poll    time.Duration // between looks at what MACsec counts
	keys    sak.Timing
}

// New prepares the ports. It derives the mesh's secret, which takes a moment.
func New(c Config) (*Ports, error) {
	for iface, role := range c.Pins {
		if !slices.Contains(bundle.PortRoles, role) {
			return nil, fmt.Errorf("port %s: expected one of %s, got %q", iface, strings.Join(bundle.PortRoles, ", "), role)
		}
		if role == Bridged && c.Guests == nil {
			return nil, fmt.Errorf("port %s: is pinned as bridge, but this device can't have one", iface)
		}
		if role == Uplink && c.Upstream == nil {
			return nil, fmt.Errorf("port %s: is pinned as uplink, but this device can't have one", iface)
		}
	}
	if c.Physical == nil {
		c.Physical = physical
	}
	return &Ports{
		c:      c,
		secret: proof.Derive(c.PSK, c.Network),
		timing: timing{client: 15 * time.Second, leave: 3 * time.Minute, retry: 5 * time.Second, carrier: 10 * time.Second, settle: 200 * time.Millisecond, loyal: 10 * time.Minute, proved: 2 * time.Minute, lasting: time.Hour, forget: 7 * 24 * time.Hour, stray: 10 * time.Second, silent: 35 * time.Second, idle: 10 * time.Second, poll: 5 * time.Second},
		kernel: macsecKernel{},
		ports:  make(map[int]*port),
	}, nil
}

// Run finds ports and serves them until ctx ends.
func (ps *Ports) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var owned sync.WaitGroup
	defer owned.Wait()
	defer cancel()
	for {
		err := ps.follow(ctx, &owned)
		if ctx.Err() != nil {
			return nil
		}
		// The kernel drops a listener that falls behind; what was missed is listed
		// again by the next turn.
		ps.c.Log.Warn("lost the subscription to links, subscribing again", "err", err)
		if !sleep(ctx, ps.timing.retry) {
			return nil
		}
	}
}

// follow keeps the ports equal to the system's links until the subscription
// ends.
func (ps *Ports) follow(ctx context.Context, owned *sync.WaitGroup) error {
	updates, done := make(chan netlink.LinkUpdate), make(chan struct{})
	var broken error
	err := netlink.LinkSubscribeWithOptions(updates, done, netlink.LinkSubscribeOptions{
		ErrorCallback: func(err error) { broken = err },
	})
	if err != nil {
		close(done)
		return fmt.Errorf("subscribe to links: %w", err)
	}
	defer func() {
		close(done)
		for range updates { // the subscription's goroutine ends when it is rid of its last update
		}
	}()
	for {
		if err := ps.reconcile(ctx, owned); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-updates:
			if !ok {
				return errors.Join(errors.New("subscription to links ended"), broken)
			}
		}
		// One cable makes several updates: list once for all of them.
		settled := time.After(ps.timing.settle)
		for waiting := true; waiting; {
			select {
			case <-settled:
				waiting = false
			case _, ok := <-updates:
				if !ok {
					return errors.Join(errors.New("subscription to links ended"), broken)
				}
			}
		}
	}
}

// reconcile starts what is new, stops what is gone, and tells the others about
// their cable.
func (ps *Ports) reconcile(ctx context.Context, owned *sync.WaitGroup) error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	present := make(map[int]bool, len(links))
	for _, link := range links {
		a := link.Attrs()
		if !ps.c.Physical(link) {
			continue
		}
		p := ps.get(a.Index)
		if p != nil && p.name != a.Name {
			ps.remove(p) // renamed: a port of another name, and perhaps another pin
			p = nil
		}
		if p == nil {
			p = newPort(ctx, ps, a)
			ps.mu.Lock()
			ps.ports[a.Index] = p
			ps.mu.Unlock()
			owned.Go(p.serve)
		}
		p.setCable(hasCable(a))
		present[a.Index] = true
	}
	for _, p := range ps.all() {
		if !present[p.index] {
			ps.remove(p)
		}
	}
	return nil
}

func (ps *Ports) remove(p *port) {
	p.stop()
	ps.mu.Lock()
	delete(ps.ports, p.index)
	ps.mu.Unlock()
	p.notify(EventGone, model.Warning, "Ethernet port "+p.name+" is gone", nil)
}

func (ps *Ports) get(index int) *port {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return ps.ports[index]
}

// List returns the state of all ports, by name.
func (ps *Ports) List() []model.Port {
	var list []model.Port
	for _, p := range ps.all() {
		list = append(list, p.status())
	}
	order.By(list, func(a, b model.Port) int { return strings.Compare(a.Iface, b.Iface) })
	return list
}

// Member returns the canonical ID of the member that proved itself on that port
// from that address, or has that address on its MACsec interface.
func (ps *Ports) Member(iface string, mac net.HardwareAddr) (string, bool) {
	for _, p := range ps.all() {
		switch iface {
		case p.name:
			return p.member(mac)
		case p.secureName:
			return p.securedMember(mac)
		}
	}
	return "", false
}

// Recheck asks Admit again about every member: call it after a revocation.
func (ps *Ports) Recheck() {
	for _, p := range ps.all() {
		select {
		case p.recheck <- struct{}{}:
		default: // one is waiting already
		}
	}
}

// own returns the port that has that address, or nil.
func (ps *Ports) own(mac proof.MAC) *port {
	for _, p := range ps.all() {
		if p.mac == net.HardwareAddr(mac[:]).String() {
			return p
		}
	}
	return nil
}

func (ps *Ports) all() []*port {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	list := make([]*port, 0, len(ps.ports))
	for _, p := range ps.ports {
		list = append(list, p)
	}
	return list
}

// sleep returns false when ctx ended first.
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

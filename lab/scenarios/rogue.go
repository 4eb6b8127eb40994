package scenarios

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"halo.internal/lab/host"
	"halo.internal/lab/network"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// MACs of hosts that belong to no machine.
var (
	rogueMAC   = host.MAC{0x02, 'R', 'O', 'G', 1, 0}
	clientMAC  = host.MAC{0x02, 'C', 'L', 'I', 1, 0}
	visitorMAC = host.MAC{0x02, 'C', 'L', 'I', 2, 0}
)

// Attacks by cable last so long: several of everybody's intervals.
const (
	attackFor   = 20 * time.Second
	attackEvery = 100 * time.Millisecond
)

// steadfast checks that no member takes the stranger for anything: that all keep
// their gateway, and no port changes its role.
func (w *World) steadfast(ctx context.Context, before map[string]model.MeshStatus, stranger host.MAC) error {
	for _, m := range w.Members {
		s, _, err := w.status(ctx, m)
		if err != nil {
			return err
		}
		was := before[m.Name()]
		if s.Gateway != was.Gateway {
			return fmt.Errorf("%s: expected gateway %q still, got %q", m.Name(), was.Gateway, s.Gateway)
		}
		for _, n := range s.Neighbours {
			if n.MAC == stranger.String() {
				return fmt.Errorf("%s has the stranger for a neighbour: %+v", m.Name(), n)
			}
		}
		// Ports for clients may be found out about meanwhile; none carries the mesh, or
		// leads upstream, that did not.
		for _, role := range []string{"mesh", "uplink"} {
			if had, has := ports(was, role), ports(s, role); !slices.Equal(had, has) {
				return fmt.Errorf("%s: expected role %s of ports %v still, got %v", m.Name(), role, had, has)
			}
		}
	}
	return nil
}

// ports are those that have a role.
func ports(s model.MeshStatus, role string) (names []string) {
	for _, p := range s.Ports {
		if p.Role == role {
			names = append(names, p.Iface)
		}
	}
	slices.Sort(names)
	return names
}

// statuses are those of all members.
func (w *World) statuses(ctx context.Context) (map[string]model.MeshStatus, error) {
	all := map[string]model.MeshStatus{}
	for _, m := range w.Members {
		s, _, err := w.status(ctx, m)
		if err != nil {
			return nil, err
		}
		all[m.Name()] = s
	}
	return all, nil
}

// serving returns when so many ports of a machine serve clients.
func (w *World) serving(ctx context.Context, m *network.Machine, want int) error {
	return w.eventually(ctx, m.Name()+" serves clients", func() error {
		s, _, err := w.status(ctx, m)
		if err != nil {
			return err
		}
		return expect(len(ports(s, "client")) >= want, "%d ports for clients, got %+v", want, s.Ports)
	})
}

// attack calls forge again and again for as long as an attack lasts, and checks all
// the while.
func (w *World) attack(ctx context.Context, forge func(i int) error, check func() error) error {
	end := time.Now().Add(attackFor)
	next := time.Now()
	for i := 0; time.Now().Before(end); i++ {
		if err := forge(i); err != nil {
			return err
		}
		if time.Now().After(next) {
			if err := check(); err != nil {
				return err
			}
			next = time.Now().Add(2 * time.Second)
		}
		if err := w.pass(ctx, attackEvery); err != nil {
			return err
		}
	}
	return check()
}

// rogueGateway has a stranger on the switch, who hears what all are told, and a
// client of a node announce themselves as the gateway: by the gateway's own words,
// by these changed here and there, and by words of their own that another key has
// signed.
func rogueGateway(ctx context.Context, w *World, r *Result) error {
	node := w.nodes()[0]
	if err := w.serving(ctx, node, 1); err != nil {
		return err
	}
	before, err := w.statuses(ctx)
	if err != nil {
		return err
	}
	o, err := w.Begin(ctx)
	if err != nil {
		return err
	}
	stranger, unplug, err := w.onSwitch("rogue", rogueMAC)
	if err != nil {
		return err
	}
	defer unplug()
	client, leave, err := w.plug(node, 0, "rogue", clientMAC)
	if err != nil {
		return err
	}
	defer leave()

	var mu sync.Mutex
	var heard, routing [][]byte // announcements, and batman-adv's own packets
	sealed := false             // what members say is encrypted
	stop := stranger.Hear(func(f host.Frame) {
		mu.Lock()
		defer mu.Unlock()
		if a, ok := announcement(f); ok && len(heard) < 16 {
			heard = append(heard, bytes.Clone(a))
		}
		sealed = sealed || f.Kind() == paths.EtherTypeMACsec
		if f.Kind() == paths.EtherTypeBatman && len(routing) < 16 {
			routing = append(routing, bytes.Clone(f.Payload()))
		}
	})
	// The gateway announces itself twice a minute. Where the cable is encrypted, there
	// is nothing to hear.
	_ = w.within(ctx, time.Minute, "an announcement", func() error {
		mu.Lock()
		defer mu.Unlock()
		return expect(sealed || len(heard) > 1 && len(routing) > 0, "announcements, got %d", len(heard))
	})
	stop()
	mu.Lock()
	overheard := slices.Clone(heard)
	mu.Unlock()
	forged, err := forge(overheard)
	if err != nil {
		return err
	}
	r.note("%d announcements were overheard, %d forged", len(overheard), len(forged))
	group := netip.AddrPortFrom(paths.AnnounceGroup, paths.AnnouncePort)
	err = w.attack(ctx, func(i int) error {
		text := forged[i%len(forged)]
		var errs []error
		for _, h := range []*host.Host{stranger, client} {
			packet := host.UDP6(netip.AddrPortFrom(h.LinkLocal(), paths.AnnouncePort), group, text)
			plain := host.Ether(host.Group(group.Addr()), h.MAC, host.TypeIPv6, packet)
			errs = append(errs, h.Send(plain), h.Send(host.Ether(host.Broadcast, h.MAC, paths.EtherTypeBatman, inBatman(h.MAC, i, plain))))
			if len(routing) > 0 { // somebody's own words, from another
				errs = append(errs, h.Send(host.Ether(host.Broadcast, h.MAC, paths.EtherTypeBatman, routing[i%len(routing)])))
			}
		}
		return errors.Join(errs...)
	}, func() error {
		return errors.Join(w.steadfast(ctx, before, rogueMAC), w.steadfast(ctx, before, clientMAC))
	})
	if err != nil {
		return err
	}
	r.Since = "the attack began"
	return w.Recovered(ctx, o, r)
}

// rogueDHCP has a client of a node offer addresses to another client, advertise
// itself as a router and claim the node's address; and a stranger on the switch do
// so among the members. None of that reaches anybody.
func rogueDHCP(ctx context.Context, w *World, r *Result) error {
	node := w.nodes()[0]
	if err := w.serving(ctx, node, 2); err != nil {
		return err
	}
	before, err := w.statuses(ctx)
	if err != nil {
		return err
	}
	o, err := w.Begin(ctx)
	if err != nil {
		return err
	}
	victim, leave, err := w.plug(node, 0, "victim", clientMAC)
	if err != nil {
		return err
	}
	defer leave()
	client, unplug, err := w.plug(node, 1, "rogue", rogueMAC)
	if err != nil {
		return err
	}
	defer unplug()
	stranger, away, err := w.onSwitch("rogue", rogueMAC)
	if err != nil {
		return err
	}
	defer away()

	var mu sync.Mutex
	var caught error
	asked := 0
	victim.Hear(func(f host.Frame) {
		from, advert := host.AdvertisedBy(f)
		mu.Lock()
		defer mu.Unlock()
		if f.From() == rogueMAC && f.To() == host.Broadcast || advert && from == client.LinkLocal() {
			caught = errors.Join(caught, fmt.Errorf("a client was reached by a frame of type %#04x from the rogue", f.Kind()))
		}
	})
	at, offered := netip.MustParseAddr("10.66.0.1"), netip.MustParseAddr("10.66.0.99")
	for _, h := range []*host.Host{client, stranger} {
		answers := make(chan host.Frame, 16)
		defer h.Hear(func(f host.Frame) {
			a, ok := h.Answers(f, at, offered)
			if !ok {
				return
			}
			mu.Lock()
			asked++
			mu.Unlock()
			select {
			case answers <- a:
			default:
			}
		})()
		done := make(chan struct{})
		defer close(done)
		go func() { // whoever reads must not wait for his own words
			for {
				select {
				case a := <-answers:
					_ = h.Send(a) // the cable may be pulled by now
				case <-done:
					return
				}
			}
		}()
	}
	limit, cancel := context.WithTimeout(ctx, Limit)
	defer cancel()
	lease, err := victim.DHCP(limit)
	if err != nil {
		return err
	}
	prefix := netip.MustParsePrefix("2001:db8:66::/64")
	err = w.attack(ctx, func(i int) error {
		var errs []error
		for _, h := range []*host.Host{client, stranger} {
			if i%10 == 0 {
				errs = append(errs, h.Send(h.RouterAdvert(prefix)), h.Send(h.Claims(lease.Router)))
			}
		}
		if i%50 == 0 {
			again, err := victim.Discover(limit)
			if err == nil && again.Server != lease.Router {
				err = fmt.Errorf("expected an offer of %s, got one of %s", lease.Router, again.Server)
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	}, func() error {
		mu.Lock()
		defer mu.Unlock()
		return errors.Join(caught, w.steadfast(ctx, before, rogueMAC))
	})
	if err != nil {
		return err
	}
	mu.Lock()
	r.note("the rogues were asked for an address %d times", asked)
	mu.Unlock()
	if err := expect(paths.ClientsNet.Contains(lease.Address) && lease.Server == lease.Router, "an address of the node's, got %+v", lease); err != nil {
		return err
	}
	if err := victim.Ping(limit, lease.Router, lease.Router); err != nil {
		return err
	}
	r.Since = "the attack began"
	return w.Recovered(ctx, o, r)
}

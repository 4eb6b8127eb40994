package scenarios

import (
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

// steadfast checks that no member takes strangers for anything: that all keep their
// gateway, and no port changes its role.
func (w *World) steadfast(ctx context.Context, before map[string]model.MeshStatus, strangers ...host.MAC) error {
	for _, m := range w.Members {
		s, _, err := w.status(ctx, m)
		if err != nil {
			return err
		}
		was := before[m.Name()]
		if s.Gateway != was.Gateway {
			return fmt.Errorf("%s: expected gateway %q still, got %q", m.Name(), was.Gateway, s.Gateway)
		}
		if s.Twin != nil || s.HeardEpoch != was.HeardEpoch || s.Joined != was.Joined {
			return fmt.Errorf("%s: expected no other gateway, epoch %d heard and joined %v, got %+v, %d and %v", m.Name(), was.HeardEpoch, was.Joined, s.Twin, s.HeardEpoch, s.Joined)
		}
		for _, n := range s.Neighbours {
			if slices.ContainsFunc(strangers, func(m host.MAC) bool { return m.String() == n.MAC }) {
				return fmt.Errorf("%s has a stranger for a neighbour: %+v", m.Name(), n)
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
	err = expect(asked > 0, "the rogues to hear a question, and to answer it: got none")
	mu.Unlock()
	if err != nil {
		return err
	}
	if err := expect(paths.ClientsNet.Contains(lease.Address) && lease.Server == lease.Router, "an address of the node's, got %+v", lease); err != nil {
		return err
	}
	if err := victim.Ping(limit, lease.Router, lease.Router); err != nil {
		return err
	}
	r.Since = "the attack began"
	return w.Recovered(ctx, o, r)
}

package lan

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"halo.internal/mesh/firewall"
	"halo.internal/model"
)

// ErrPolicy is wrapped where a policy of people's does not fit the device.
var ErrPolicy = errors.New("firewall policy")

// visitorsRule lets visitors of the overlay through a gateway to members.
const visitorsRule = model.OwnRulePrefix + "visitors"

// applyRules brings the firewall to what is wanted.
func (l *LAN) applyRules() error {
	l.applying.Lock()
	defer l.applying.Unlock()
	return l.applyHeld()
}

// applyHeld is applyRules; l.applying is held. A policy may cease to fit when the
// device's own services change. What it allows is gone then, and what it denies is
// kept, as far as that fits: shut is safe.
func (l *LAN) applyHeld() error {
	l.mu.Lock()
	w, p := l.wanted, l.policy
	l.mu.Unlock()
	base := l.base(w)
	c, unfit := base.With(p)
	if unfit != nil {
		p.Openings, p.Forwardings, p.PortForwards = nil, nil, nil
		p.Rules = slices.DeleteFunc(slices.Clone(p.Rules), func(r model.FirewallRule) bool { return r.Action != model.Deny })
		var err error
		if c, err = base.With(p); err != nil {
			c = base
		}
	}
	l.mu.Lock()
	l.unfit = unfit
	l.mu.Unlock()
	return l.firewall.Apply(c)
}

// base is the firewall's configuration but for people's policy.
func (l *LAN) base(w Wanted) firewall.Config {
	c := l.rulesFor(w)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.visitors.IsValid() {
		c.Rules = append(c.Rules, model.FirewallRule{Name: visitorsRule, Action: model.Allow, From: model.ZoneOverlay, To: model.ZoneOverlay, Sources: []netip.Prefix{l.visitors}})
	}
	return c
}

// SetPolicy has people's policy in force from now on. One that does not fit, or that
// the kernel does not take, changes nothing.
func (l *LAN) SetPolicy(p model.FirewallPolicy) error {
	l.applying.Lock()
	defer l.applying.Unlock()
	l.mu.Lock()
	was, w := l.policy, l.wanted
	l.mu.Unlock()
	if _, err := l.base(w).With(p); err != nil {
		return fmt.Errorf("%w: %w", ErrPolicy, err)
	}
	set := func(p model.FirewallPolicy) error {
		l.mu.Lock()
		l.policy = p
		l.mu.Unlock()
		return l.applyHeld()
	}
	if err := set(p.Clone()); err != nil {
		return errors.Join(err, set(was))
	}
	return nil
}

// BeginWith is Begin's policy: it holds as far as it fits, and from the first rule on.
func (l *LAN) BeginWith(p model.FirewallPolicy) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.policy = p.Clone()
}

// SetVisitors says which addresses of the overlay are those of visitors, who reach
// members through a gateway; the zero value: there are none.
func (l *LAN) SetVisitors(p netip.Prefix) error {
	l.mu.Lock()
	same := l.visitors == p
	l.visitors = p
	l.mu.Unlock()
	if same {
		return nil
	}
	return l.applyRules()
}

// Unfit says why the policy does not hold as a whole; nil: it does.
func (l *LAN) Unfit() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.unfit
}

// Preview tells what a policy would change.
func (l *LAN) Preview(q model.FirewallQuestion) (model.FirewallPreview, error) {
	l.mu.Lock()
	w, p := l.wanted, l.policy
	l.mu.Unlock()
	base := l.base(w)
	now, err := base.With(p)
	if err != nil {
		now = base
	}
	next, err := base.With(q.Policy)
	if err != nil {
		return model.FirewallPreview{}, fmt.Errorf("%w: %w", ErrPolicy, err)
	}
	caller, err := l.caller(next, q)
	if err != nil {
		return model.FirewallPreview{}, err
	}
	return next.Preview(now, caller)
}

// caller is a new connection like the one that the question came by; nil for one
// within the device, which no rule stops.
func (l *LAN) caller(c firewall.Config, q model.FirewallQuestion) (*firewall.Probe, error) {
	if !q.Remote.IsValid() || !q.Local.IsValid() || q.Remote.IsLoopback() || q.Remote == q.Local.Addr() {
		return nil, nil
	}
	routes, err := netlink.RouteGet(q.Remote.WithZone("").AsSlice())
	if err != nil || len(routes) == 0 {
		return nil, fmt.Errorf("%w: no way back to %s, by which this is asked: %w", ErrPolicy, q.Remote, err)
	}
	link, err := netlink.LinkByIndex(routes[0].LinkIndex)
	if err != nil {
		return nil, fmt.Errorf("the interface towards %s: %w", q.Remote, err)
	}
	if link.Attrs().Name == "lo" {
		return nil, nil
	}
	return &firewall.Probe{
		From: q.Remote.WithZone(""), To: q.Local.Addr().WithZone(""), In: c.ZoneOf(link.Attrs().Name), Out: model.ZoneLocal,
		Proto: unix.IPPROTO_TCP, SPort: 49152, DPort: q.Local.Port(),
	}, nil
}

// Firewall returns what the firewall does.
func (l *LAN) Firewall() (model.FirewallStatus, error) {
	s, err := l.firewall.Status()
	if err != nil {
		return s, err
	}
	own := firewall.Services(l.gateway, l.Door)
	base := l.base(l.state())
	s.Forwardings = base.Forwardings
	for _, svc := range base.Services {
		f := model.FirewallService{Name: svc.Name, Proto: svc.Proto, Ports: svc.Ports, Zones: svc.Zones}
		if i := slices.IndexFunc(own, func(o model.Service) bool { return o.Name == svc.Name && o.Proto == svc.Proto }); i >= 0 {
			f.Zones = own[i].Zones
		}
		for _, z := range svc.Zones {
			if !slices.Contains(f.Zones, z) {
				f.Opened = append(f.Opened, z)
			}
		}
		for _, o := range l.inForce().Openings {
			if slices.Contains(o.Services, svc.Name) && !slices.Contains(svc.Zones, o.Zone) {
				f.Opened = append(f.Opened, o.Zone)
			}
		}
		s.Services = append(s.Services, f)
	}
	return s, nil
}

func (l *LAN) inForce() model.FirewallPolicy {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.policy
}

package firewall

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"halo.internal/model"
)

// Probe is the first packet of a new connection, of which Judge tells what would
// become of it.
type Probe struct {
	From, To     netip.Addr
	In           model.Zone // that it comes from; empty: from an interface in no zone
	Out          model.Zone // that it is for; ZoneLocal: the device itself
	Proto        uint8      // of IP
	SPort, DPort uint16
	ICMP         uint8 // type
}

// Verdict is what becomes of a packet.
type Verdict struct {
	Passes  bool
	Counter string // of the line that decides; empty: none does, and the chain's policy holds
	Words   string // what that one counts
}

// judge walks a packet through the rules as the kernel would (traffic_test holds it to
// that). Whoever it is of is within all bounds, and comes by the interface by which
// answers would go.
func (r ruleset) judge(p Probe) Verdict {
	t := r[0] // of family inet
	w := walk{t: t, Probe: p, state: fresh}
	if v, done := w.through(hookSource); done && v.verdict == drop {
		return w.verdict(v)
	}
	if w.translated(p.In == model.ZoneUplink && p.Out == model.ZoneLocal) {
		w.forwarded = true
	}
	at := hookForward
	if w.Out == model.ZoneLocal {
		at = hookInput
	}
	v, done := w.through(at)
	if !done {
		return Verdict{}
	}
	return w.verdict(v)
}

type walk struct {
	Probe
	t         table
	state     uint32
	forwarded bool
}

func (w *walk) verdict(l line) Verdict {
	v := Verdict{Passes: l.verdict == accept, Counter: l.counter}
	if i := slices.IndexFunc(w.t.counters, func(c counter) bool { return c.name == l.counter }); i >= 0 {
		v.Words = w.t.counters[i].words
	}
	return v
}

// through returns the line that decides in the chain of a hook.
func (w *walk) through(h hook) (line, bool) {
	for _, ch := range w.t.chains {
		if ch.hook == h {
			return w.chain(ch)
		}
	}
	return line{}, false
}

func (w *walk) chain(ch *chain) (line, bool) {
	for _, l := range ch.lines {
		if !w.fits(l.match) {
			continue
		}
		switch l.verdict {
		case leave:
			return line{}, false
		case notrack:
			w.state = 0
			return l, true
		case jump:
			i := slices.IndexFunc(w.t.chains, func(c *chain) bool { return c.name == l.jump })
			if d, done := w.chain(w.t.chains[i]); done {
				return d, true
			}
		case accept, drop, reject:
			return l, true
		}
	}
	return line{}, false
}

// translated makes of the destination what a port forward makes of it.
func (w *walk) translated(may bool) bool {
	if !may {
		return false
	}
	for _, ch := range w.t.chains {
		if ch.hook != hookDNAT {
			continue
		}
		for _, l := range ch.lines {
			if l.verdict == dnat && w.fits(l.match) {
				w.To, w.DPort = l.to.Addr(), cmp.Or(l.to.Port(), w.DPort)
				w.Out = model.ZoneClients // or the overlay: such lines ask for neither
				return true
			}
		}
	}
	return false
}

func (w *walk) fits(m match) bool {
	switch {
	case m.in != "" && m.in != string(w.In), m.out != "" && m.out != string(w.Out),
		m.loopback, m.noWayBack, m.fragment, m.station != "", m.etherType != 0, m.sender.IsValid(), m.target.IsValid():
		return false // what comes by the loopback meets no rule, and the rest is of bridges
	case m.state != 0 && m.state&w.state == 0,
		m.family != 0 && m.family != family(w.From),
		m.from.IsValid() && !m.from.Contains(w.From), m.to.IsValid() && !m.to.Contains(w.To),
		m.proto != 0 && m.proto != w.Proto, m.icmp != 0 && m.icmp != w.ICMP, m.hops != 0,
		m.sport != 0 && m.sport != w.SPort, m.dport != (model.PortRange{}) && !m.dport.Contains(w.DPort),
		m.forwarded && !w.forwarded, m.local && w.Out != model.ZoneLocal,
		m.syn && w.Proto != unix.IPPROTO_TCP:
		return false
	case m.meter != nil:
		return m.meter.rate != 0 && !m.meter.over // within it
	}
	return true
}

// Preview tells what c would change of what now is, and what its rules would shut
// that the device needs. caller, if it is there, is like a connection that must be
// able to begin anew.
func (c Config) Preview(now Config, caller *Probe) (model.FirewallPreview, error) {
	p := model.FirewallPreview{Added: []string{}, Removed: []string{}, Breaks: []string{}}
	rules, err := compile(c)
	if err != nil {
		return p, err
	}
	was, err := compile(now)
	if err != nil {
		return p, err
	}
	before, after := was.passing(), rules.passing()
	for _, w := range after {
		if !slices.Contains(before, w) {
			p.Added = append(p.Added, w)
		}
	}
	for _, w := range before {
		if !slices.Contains(after, w) {
			p.Removed = append(p.Removed, w)
		}
	}
	if before, after := order(now.Rules, c.Rules), order(c.Rules, now.Rules); !slices.Equal(before, after) {
		p.Added = append(p.Added, "the rules are asked in another order")
	}
	if caller != nil {
		if v := rules.judge(*caller); !v.Passes {
			p.LocksOut = cmp.Or(v.Words, "from an interface in no zone")
		}
	}
	bare := c
	bare.Rules = slices.DeleteFunc(slices.Clone(c.Rules), func(r model.FirewallRule) bool { return r.Action == model.Deny })
	free, err := compile(bare)
	if err != nil {
		return p, err
	}
	for _, n := range c.needs() {
		if v := rules.judge(n.Probe); !v.Passes && free.judge(n.Probe).Passes {
			p.Breaks = append(p.Breaks, fmt.Sprintf("%s, by %s", n.words, v.Words))
		}
	}
	return p, nil
}

// passing are the words of all that is not refused by default: what people and the
// device let through, and what people deny.
func (r ruleset) passing() (words []string) {
	for _, c := range r[0].counters {
		if !c.drop {
			words = append(words, c.words)
		}
	}
	return words
}

// order are the names of rules that the other list has too.
func order(list, other []model.FirewallRule) (names []string) {
	for _, r := range list {
		if slices.ContainsFunc(other, func(o model.FirewallRule) bool { return o.Name == r.Name }) {
			names = append(names, r.Name)
		}
	}
	return names
}

// need is a connection that the device does not work well without.
type need struct {
	Probe
	words string
}

// needs are one packet to each of the device's services from each zone that it is open
// to, and one through it for each forwarding: from somebody there whom no rule is
// likely to mean, so that rules for all are found, and those for some are not.
func (c Config) needs() (list []need) {
	for _, s := range c.Services {
		for _, z := range s.Zones {
			for _, from := range c.somebody(z) {
				for _, port := range s.Ports {
					p := Probe{From: from, To: c.mine(from), In: z, Out: model.ZoneLocal, Proto: protocol(s.Proto), SPort: 49152, DPort: port.First}
					for _, to := range s.To {
						if to.Addr().Is4() == from.Is4() {
							p.To = to.Addr()
						}
					}
					if len(s.To) > 0 && !slices.ContainsFunc(s.To, func(n netip.Prefix) bool { return n.Contains(p.To) }) {
						continue // of the other family
					}
					list = append(list, need{p, fmt.Sprintf("%s to the device: %s (%s port %s)", z, s.Name, s.Proto, port)})
				}
			}
		}
	}
	for _, f := range c.Forwardings {
		for _, from := range c.somebody(f.From) {
			for _, to := range c.somebody(f.To) {
				if from.Is4() == to.Is4() {
					list = append(list, need{Probe{From: from, To: to, In: f.From, Out: f.To, Proto: unix.IPPROTO_TCP, SPort: 49152, DPort: 49153}, f.String()})
				}
			}
		}
	}
	seen := map[string]bool{}
	return slices.DeleteFunc(list, func(n need) bool {
		key := fmt.Sprint(n.words, n.From.Is4())
		was := seen[key]
		seen[key] = true
		return was
	})
}

// somebody returns an address of each family that a host in a zone may have.
func (c Config) somebody(z model.Zone) (list []netip.Addr) {
	if z == model.ZoneUplink {
		return []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")} // documentation, RFC 5737 and 3849
	}
	nets := c.Networks.Underlay
	switch z {
	case model.ZoneOverlay:
		nets = c.Networks.Overlay
	case model.ZoneClients:
		nets = c.ownClients()
	}
	for _, four := range []bool{true, false} {
		if i := slices.IndexFunc(nets, func(p netip.Prefix) bool { return p.Addr().Is4() == four }); i >= 0 {
			list = append(list, last(nets[i]))
		}
	}
	return list
}

// last is the last address of a network but one, which hosts are not likely to have.
func last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	b[len(b)-1]--
	a, _ := netip.AddrFromSlice(b)
	return a
}

// mine is an address of the device as somebody with that address knows it.
func (c Config) mine(from netip.Addr) netip.Addr {
	for _, n := range slices.Concat(c.Networks.Underlay, c.Networks.Overlay, c.ownClients()) {
		if n.Contains(from) {
			return n.Addr().Next()
		}
	}
	if from.Is4() {
		return netip.MustParseAddr("192.0.2.2")
	}
	return netip.MustParseAddr("2001:db8::2")
}

// ZoneOf returns the zone of an interface; empty: none.
func (c Config) ZoneOf(iface string) model.Zone {
	for z, names := range c.Interfaces {
		if slices.Contains(names, iface) {
			return z
		}
	}
	return ""
}

// With returns c with what people have set. An error says which of it the device does
// not know, or what is wrong with it.
func (c Config) With(p model.FirewallPolicy) (Config, error) {
	if err := p.Validate(); err != nil {
		return c, err
	}
	c.Services = slices.Clone(c.Services)
	for _, o := range p.Openings {
		for _, name := range o.Services {
			found := false
			for i, s := range c.Services {
				if s.Name != name {
					continue
				}
				if found = true; !slices.Contains(s.Zones, o.Zone) {
					c.Services[i].Zones = append(slices.Clone(s.Zones), o.Zone)
				}
			}
			if !found {
				return c, fmt.Errorf("opening of zone %s: there is no service %s", o.Zone, name)
			}
		}
	}
	for _, f := range p.Forwardings {
		if slices.Contains(c.Forwardings, f) {
			return c, fmt.Errorf("forwarding %s: it is there without anybody's configuration", f)
		}
	}
	c.Forwardings = slices.Concat(c.Forwardings, p.Forwardings)
	c.Rules = slices.Concat(p.Rules, c.Rules)
	c.Ports = slices.Concat(c.Ports, p.PortForwards)
	return c, c.Validate()
}

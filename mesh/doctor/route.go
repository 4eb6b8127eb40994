package doctor

import (
	"fmt"
	"net/netip"
	"slices"
)

// routeEntry is a route of the kernel's main table, of IPv4.
type routeEntry struct {
	dst    netip.Prefix
	iface  string // empty: it leads nowhere, or several ways
	metric int
	mtu    int  // 0: the interface's
	dead   bool // blackhole, unreachable, prohibit
	raw    any  // the kernel's own form, to take it out by
}

// ruleEntry is a rule of the kernel's, of IPv4.
type ruleEntry struct {
	priority int
	table    int
	from     netip.Prefix // zero: of all
	iif      string
	words    string
	raw      any
}

// outlook is what the kernel does with a node's traffic for outside.
type outlook struct {
	overlay string // name of its interface
	metric  int
	wanted  []netip.Prefix // what is to lead through it
	halo    []string       // interfaces that are HALO's: nobody else has routes there
	nets    []netip.Prefix // HALO's networks
	routes  []routeEntry
	rules   []ruleEntry
	// leads is through which interface the kernel sends this device's own packets, and
	// clients those of its clients; empty: nowhere. Nil: it was not asked.
	leads, clients *string
}

// Ways to mend.
type remedy int

const (
	remedyNone remedy = iota // somebody else's: it is told of, and left
	remedyPut
	remedyRoute
	remedyRule
)

// routeFault is something that keeps traffic for outside from following.
type routeFault struct {
	what   string // the same as long as the fault is
	detail string
	remedy remedy
	dst    netip.Prefix // of remedyPut
	raw    any          // of what is taken out
	done   string       // what was done, in words
}

// judge returns what is wrong, if only that nobody knows what.
func (o outlook) judge() []routeFault {
	if list := o.faults(); len(list) > 0 || !o.astray() {
		return list
	}
	return []routeFault{o.unexplained()}
}

// standard are the kernel's own rules: local, main, default.
var standard = map[int]int{0: 255, 32766: 254, 32767: 253}

// everything tells whether a route is for all that no other is for, or for half of
// it, which is how some take traffic over without a word to the default route.
func everything(p netip.Prefix) bool { return p.Addr().Is4() && p.Bits() <= 1 }

// faults returns what is wrong, in an order in which it can be mended.
func (o outlook) faults() (list []routeFault) {
	for _, dst := range o.wanted {
		if !slices.ContainsFunc(o.routes, func(r routeEntry) bool {
			return r.dst == dst && r.iface == o.overlay && r.metric == o.metric && !r.dead
		}) {
			list = append(list, routeFault{
				what:   "missing " + dst.String(),
				detail: fmt.Sprintf("the route to %s through the overlay is gone", everywhere(dst)),
				remedy: remedyPut, dst: dst, done: fmt.Sprintf("the route to %s through the overlay was put back", everywhere(dst)),
			})
		}
	}
	for _, r := range o.routes {
		ours := r.iface == o.overlay && r.metric == o.metric && !r.dead
		if ours || !everything(r.dst) || r.dst.Bits() == 0 && r.metric >= o.metric {
			continue
		}
		way := "through " + r.iface
		if r.iface == "" {
			way = "that leads several ways"
		}
		f := routeFault{
			what:   fmt.Sprintf("foreign %s %s %d", r.dst, r.iface, r.metric),
			detail: fmt.Sprintf("a route to %s %s, of metric %d, comes before the overlay's", everywhere(r.dst), way, r.metric),
		}
		if r.dead || slices.Contains(o.halo, r.iface) {
			if r.dead {
				f.detail = fmt.Sprintf("a route of metric %d drops what is for %s", r.metric, everywhere(r.dst))
			}
			f.remedy, f.raw, f.done = remedyRoute, r.raw, "it was taken out"
		} else {
			f.detail += "; it is not on an interface of HALO's, so it stays: whoever put it there has to take it out"
		}
		list = append(list, f)
	}
	return append(list, o.ruleFaults()...)
}

// otherMTU returns those of the wanted routes that have not that MTU.
func (o outlook) otherMTU(mtu int) (list []netip.Prefix) {
	for _, r := range o.routes {
		if r.iface == o.overlay && r.metric == o.metric && r.mtu != mtu && slices.Contains(o.wanted, r.dst) {
			list = append(list, r.dst)
		}
	}
	return list
}

// ruleFaults are rules by which traffic goes astray. Those that do it no harm stay.
func (o outlook) ruleFaults() (list []routeFault) {
	if !o.astray() {
		return nil
	}
	for _, r := range o.rules {
		if table, ok := standard[r.priority]; ok && table == r.table || r.priority > 32766 {
			continue
		}
		f := routeFault{what: "rule " + r.words, detail: "a rule takes traffic away from the overlay: " + r.words}
		ours := r.iif != "" && slices.Contains(o.halo, r.iif) ||
			r.from.IsValid() && r.from.Bits() > 0 && slices.ContainsFunc(o.nets, func(p netip.Prefix) bool { return p.Overlaps(r.from) })
		if ours {
			f.remedy, f.raw, f.done = remedyRule, r.raw, "it was taken out"
		} else {
			f.detail += "; it does not name HALO's networks or interfaces, so it stays"
		}
		list = append(list, f)
	}
	return list
}

// astray tells whether traffic goes elsewhere than through the overlay.
func (o outlook) astray() bool {
	return o.leads != nil && *o.leads != o.overlay || o.clients != nil && *o.clients != o.overlay
}

// unexplained is what to say when traffic goes astray and no fault says why.
func (o outlook) unexplained() routeFault {
	way := "nowhere"
	if o.leads != nil && *o.leads != "" {
		way = "through " + *o.leads
	}
	return routeFault{what: "unexplained", detail: fmt.Sprintf("the kernel sends what is for outside %s, and no route or rule says why", way)}
}

func everywhere(p netip.Prefix) string {
	switch {
	case p.Bits() == 0:
		return "everywhere"
	case everything(p):
		return p.String() + ", half of everywhere,"
	}
	return p.String()
}

// steady keeps those faults that were there the last time too: interfaces come and
// go, and their routes with them.
type steady struct {
	before map[string]bool // nil: there was no last time
	own    Own             // what was right then
	mtu    int
}

// well tells whether nothing was wrong then, and the same is right now.
func (s *steady) well(own Own, mtu int) bool {
	return s.before != nil && len(s.before) == 0 && s.mtu == mtu && s.own.V4 == own.V4 && s.own.Clients == own.Clients && slices.Equal(s.own.Routes, own.Routes)
}

func (s *steady) keep(faults []routeFault) (list []routeFault) {
	now := map[string]bool{}
	for _, f := range faults {
		now[f.what] = true
		if s.before[f.what] {
			list = append(list, f)
		}
	}
	s.before = now
	return list
}

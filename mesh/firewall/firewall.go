// Package firewall holds what may come to, go through and leave a device, by
// nftables: zones of interfaces, the services and forwardings of each, people's
// own rules, translation at a gateway's uplinks, and what clients of a bridge may
// say to each other. A Config compiles to rules without I/O; Apply puts them into
// the kernel in one transaction and leaves all other tables alone. The kernel
// keeps them when the process ends, counters and all, so that a restart leaves no
// moment without rules: the first Apply of a boot belongs before the first
// interface goes up.
//
// The caller sets what is no rule: net.ipv4.ip_forward and
// net.ipv6.conf.all.forwarding to 1 where Forwardings are given, and to 0
// elsewhere; net.ipv6.conf.<uplink>.accept_ra to 2 with Upstream6 (1 is ignored
// while forwarding); net.netfilter.nf_conntrack_max to what the memory holds
// (some 400 octets each); net.bridge.bridge-nf-call-{ip,ip6,arp}tables to 0 where
// bridge netfilter is in the kernel, or clients of one bridge are taken for
// forwarded. net.ipv4.conf.*.rp_filter may stay 0. Between stations
// of one hotspot no frame comes to a bridge unless the access point isolates
// them (ap_isolate) and its port hairpins.
package firewall

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// tableName is that of both tables, inet and bridge.
const tableName = "halo"

// Firewall is the firewall of the network namespace that it is used in.
type Firewall struct {
	mu      sync.Mutex
	config  Config  // as applied last
	applied ruleset // compiled of it
}

// Apply makes c the rules, whatever was there before: all of them, or, with an
// error, none. Connections that are open stay open, also those that c would not
// let begin. It is cheap enough to call whenever an interface comes or goes, and
// puts right what others changed in HALO's tables.
func (f *Firewall) Apply(c Config) error {
	rules, err := compile(c)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := apply(rules); err != nil {
		return fmt.Errorf("firewall: %w; is the module of a kind of rule missing, or the right to change them?", err)
	}
	f.config, f.applied = c, rules
	return nil
}

// Remove takes all rules away.
func (f *Firewall) Remove() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := apply(nil); err != nil {
		return fmt.Errorf("firewall: remove: %w", err)
	}
	f.config, f.applied = Config{}, nil
	return nil
}

// apply changes what is there into rules. Base chains stay, and only their rules
// are replaced, which the kernel does between two packets. A base chain that is
// deleted and made anew would drop for an instant, or let pass: the policy of the
// new one counts a moment after its rules, and the old one is empty before it is
// gone. So that is done only where the chains there are of another shape.
func apply(rules ruleset) error {
	there, err := list()
	if err != nil {
		return err
	}
	err = change(rules, there, false)
	if err != nil && len(there) > 0 {
		if err2 := change(rules, there, true); err2 != nil {
			return errors.Join(err, err2)
		}
		return nil
	}
	return err
}

// existing is what the kernel has of one of HALO's tables.
type existing struct {
	table  *nftables.Table
	chains []*nftables.Chain
	sets   []*nftables.Set
	objs   []nftables.Obj
}

func list() (there []existing, err error) {
	c, err := nftables.New()
	if err != nil {
		return nil, err
	}
	for _, family := range []nftables.TableFamily{nftables.TableFamilyINet, nftables.TableFamilyBridge} {
		tables, err := c.ListTablesOfFamily(family)
		if err != nil {
			return nil, fmt.Errorf("list tables: %w", err)
		}
		i := slices.IndexFunc(tables, func(t *nftables.Table) bool { return t.Name == tableName })
		if i < 0 {
			continue
		}
		e := existing{table: &nftables.Table{Family: family, Name: tableName}}
		chains, err := c.ListChainsOfTableFamily(family)
		if err != nil {
			return nil, fmt.Errorf("list chains: %w", err)
		}
		for _, ch := range chains {
			if ch.Table.Name == tableName {
				ch.Table = e.table
				e.chains = append(e.chains, ch)
			}
		}
		if e.sets, err = c.GetSets(e.table); err != nil {
			return nil, fmt.Errorf("list sets: %w", err)
		}
		if e.objs, err = c.GetNamedObjects(e.table); err != nil {
			return nil, fmt.Errorf("list counters: %w", err)
		}
		there = append(there, e)
	}
	return there, nil
}

// change sends one transaction that makes rules of what is there; anew: without
// keeping anything of it.
func change(rules ruleset, there []existing, anew bool) error {
	c, err := nftables.New(nftables.WithSockOptions(acknowledgementsOnly))
	if err != nil {
		return err
	}
	for _, e := range there {
		i := slices.IndexFunc(rules, func(t table) bool { return t.family() == e.table.Family })
		switch {
		case anew || i < 0:
			c.DelTable(e.table)
		default:
			e.clear(c, rules[i])
		}
	}
	for _, t := range rules {
		if err := t.send(c); err != nil {
			return err
		}
	}
	return c.Flush()
}

// acknowledgementsOnly has the socket receive nothing else: the library asks for
// the new rules to be sent back, and does not expect more of them than fit one
// message. There is room for what the bounds allow.
func acknowledgementsOnly(c *netlink.Conn) error {
	const room = 8 << 20
	b := binary.NativeEndian.AppendUint16(nil, unix.NLMSG_ERROR)
	filter, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 4, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(binary.BigEndian.Uint16(b)), SkipFalse: 1},
		bpf.RetConstant{Val: 1 << 18},
		bpf.RetConstant{Val: 0},
	})
	if err != nil {
		return err
	}
	return errors.Join(c.SetBPF(filter), c.SetReadBuffer(room), c.SetWriteBuffer(room))
}

// clear empties chains and sets that stay and deletes what t does not have.
func (e existing) clear(c *nftables.Conn, t table) {
	for _, ch := range e.chains {
		c.FlushChain(ch)
	}
	for _, ch := range e.chains {
		if !slices.ContainsFunc(t.chains, func(o *chain) bool { return o.name == ch.Name }) {
			c.DelChain(ch)
		}
	}
	for _, s := range e.sets {
		switch {
		case slices.ContainsFunc(t.ifaces, func(o ifaceSet) bool { return o.name == s.Name }):
			c.FlushSet(s)
		case slices.ContainsFunc(t.stations, func(o stationSet) bool { return o.name == s.Name }):
			c.FlushSet(s)
		case slices.ContainsFunc(t.meters, func(o meterSet) bool { return o.name == s.Name }):
		default:
			c.DelSet(s)
		}
	}
	for _, o := range e.objs {
		if n, ok := o.(*nftables.NamedObj); !ok || !slices.ContainsFunc(t.counters, func(o counter) bool { return o.name == n.Name }) {
			c.DeleteObject(o)
		}
	}
}

func (t table) family() nftables.TableFamily {
	if t.bridge {
		return nftables.TableFamilyBridge
	}
	return nftables.TableFamilyINet
}

// send adds t, or the parts of it that are not there.
func (t table) send(c *nftables.Conn) error {
	table := c.AddTable(&nftables.Table{Family: t.family(), Name: tableName})
	ids := map[string]uint32{}
	number := func(name string) uint32 {
		ids[name] = uint32(len(ids) + 1)
		return ids[name]
	}
	for _, s := range t.ifaces {
		elements := make([]nftables.SetElement, len(s.names))
		for i, n := range s.names {
			elements[i].Key = ifname(n)
		}
		if err := c.AddSet(&nftables.Set{Table: table, ID: number(s.name), Name: s.name, KeyType: nftables.TypeIFName, KeyByteOrder: binaryutil.NativeEndian}, elements); err != nil {
			return fmt.Errorf("set %s: %w", s.name, err)
		}
	}
	for _, s := range t.stations {
		elements := make([]nftables.SetElement, len(s.addrs))
		for i, a := range s.addrs {
			elements[i].Key = a
		}
		if err := c.AddSet(&nftables.Set{Table: table, ID: number(s.name), Name: s.name, KeyType: nftables.TypeEtherAddr}, elements); err != nil {
			return fmt.Errorf("set %s: %w", s.name, err)
		}
	}
	for _, m := range t.meters {
		s := &nftables.Set{Table: table, ID: number(m.name), Name: m.name, KeyType: nftables.TypeIPAddr, Dynamic: true, Size: meterSize}
		if m.six {
			s.KeyType = nftables.TypeIP6Addr
		}
		if m.kind.connections == 0 { // else the kernel forgets a source with its last connection
			s.HasTimeout, s.Timeout = true, meterSeconds*time.Second
		}
		if err := c.AddSet(s, nil); err != nil {
			return fmt.Errorf("set %s: %w", s.Name, err)
		}
	}
	for _, n := range t.counters {
		c.AddObj(&nftables.NamedObj{Table: table, Name: n.name, Type: nftables.ObjTypeCounter, Obj: &expr.Counter{}})
	}
	chains := map[string]*nftables.Chain{}
	for _, ch := range t.chains {
		n := ch.hook.chain()
		n.Table, n.Name = table, ch.name
		chains[ch.name] = c.AddChain(n)
	}
	for _, ch := range t.chains {
		for _, l := range ch.lines {
			c.AddRule(&nftables.Rule{Table: table, Chain: chains[ch.name], Exprs: l.lower(t.bridge, ids), UserData: t.comment(l.counter)})
		}
	}
	return nil
}

// comment is what the counter of a rule counts, for who lists the table.
func (t table) comment(name string) []byte {
	const most = 127 // nft's bound, less the 0 at the end
	i := slices.IndexFunc(t.counters, func(c counter) bool { return c.name == name })
	if i < 0 {
		return nil
	}
	words := t.counters[i].words
	return userdata.AppendString(nil, userdata.TypeComment, words[:min(len(words), most)])
}

// chain is what a hook asks of nftables.
func (h hook) chain() *nftables.Chain {
	base := func(kind nftables.ChainType, at *nftables.ChainHook, priority *nftables.ChainPriority, policy nftables.ChainPolicy) *nftables.Chain {
		return &nftables.Chain{Type: kind, Hooknum: at, Priority: priority, Policy: &policy}
	}
	const filter, nat = nftables.ChainTypeFilter, nftables.ChainTypeNAT
	const pass, refuse = nftables.ChainPolicyAccept, nftables.ChainPolicyDrop
	switch h {
	case hookSource:
		return base(filter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw, pass)
	case hookInput:
		return base(filter, nftables.ChainHookInput, nftables.ChainPriorityFilter, refuse)
	case hookForward:
		return base(filter, nftables.ChainHookForward, nftables.ChainPriorityFilter, refuse)
	case hookOutput:
		return base(filter, nftables.ChainHookOutput, nftables.ChainPriorityFilter, pass)
	case hookUntracked:
		return base(filter, nftables.ChainHookOutput, nftables.ChainPriorityRaw, pass)
	case hookClamp:
		return base(filter, nftables.ChainHookForward, nftables.ChainPriorityMangle, pass)
	case hookDNAT:
		return base(nat, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest, pass)
	case hookSNAT:
		return base(nat, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource, pass)
	case hookBridge:
		return base(filter, nftables.ChainHookPrerouting, nftables.ChainPriorityRef(-300), pass) // NF_BR_PRI_NAT_DST_BRIDGED
	}
	return &nftables.Chain{}
}

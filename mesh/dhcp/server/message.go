package server

import (
	"encoding/binary"
	"net"
	"net/netip"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"
)

// message is what came in, and how.
type message struct {
	from   mac // of the frame
	source netip.Addr
	data   []byte
}

// reply is a message to one client, which is always sent to its MAC: a flag for
// broadcasts, which a mesh carries to all, says only what its IP takes.
type reply struct {
	to   mac
	addr netip.Addr
	data []byte
}

// Reasons to ignore a message.
const (
	ignoredForm   = "malformed"
	ignoredRelay  = "relayed"
	ignoredForged = "of another MAC"
	ignoredRate   = "too many"
	ignoredOther  = "for another server"
	ignoredNoSuch = "of no lease"
	ignoredKind   = "no request"
)

func (e *engine) ignore(reason string) { e.ignored[reason]++ }

// handle takes one message (RFC 2131, 4.3).
func (e *engine) handle(now time.Time, in message) {
	m, err := dhcpv4.FromBytes(in.data)
	if err != nil || m.HWType != iana.HWTypeEthernet || len(m.ClientHWAddr) != 6 {
		e.ignore(ignoredForm)
		return
	}
	hw := mac(m.ClientHWAddr)
	c := client{e.same(hw), string(m.Options.Get(dhcpv4.OptionClientIdentifier))}
	switch {
	case m.OpCode != dhcpv4.OpcodeBootRequest:
		e.ignore(ignoredKind)
		return
	case !m.GatewayIPAddr.IsUnspecified():
		e.ignore(ignoredRelay)
		return
	case hw != in.from || hw[0]&1 != 0:
		e.ignore(ignoredForged)
		return
	case len(c.id) > maxClientID:
		e.ignore(ignoredForm)
		return
	}
	if server := m.ServerIdentifier(); server != nil && addr(server) != e.c.Address.Addr() {
		delete(e.offers, c) // it has taken another's
		e.ignore(ignoredOther)
		return
	}
	e.expire(now)
	switch m.MessageType() {
	case dhcpv4.MessageTypeDiscover:
		e.discover(now, c, m)
	case dhcpv4.MessageTypeRequest:
		e.request(now, c, m)
	case dhcpv4.MessageTypeDecline:
		e.decline(now, c, m)
	case dhcpv4.MessageTypeRelease:
		if l := e.byClient[c]; l != nil && !l.ended && l.addr == addr(m.ClientIPAddr) {
			e.end(now, l)
		} else {
			e.ignore(ignoredNoSuch)
		}
	case dhcpv4.MessageTypeInform:
		e.inform(now, in.source, m)
	default:
		e.ignore(ignoredKind)
	}
}

// addr returns the zero Addr for what is no address of a host.
func addr(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip.To4())
	if a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}

// rapid tells whether the client is to have its lease by one answer.
func (e *engine) rapid(m *dhcpv4.DHCPv4) bool {
	return e.c.RapidCommit && m.MessageType() == dhcpv4.MessageTypeDiscover && m.Options.Has(dhcpv4.OptionRapidCommit)
}

func (e *engine) discover(now time.Time, c client, m *dhcpv4.DHCPv4) {
	if l := e.byClient[c]; l != nil && !l.ended && e.mayKeep(now, l) {
		if e.rapid(m) {
			e.acknowledge(now, c, l.addr, m)
		} else {
			e.reply(m, dhcpv4.MessageTypeOffer, l.addr, e.duration(c))
		}
		return
	}
	if o := e.offers[c]; o != nil && now.Before(o.until) {
		switch {
		case o.probing():
			o.m = m
		case e.rapid(m):
			e.acknowledge(now, c, o.addr, m)
		default:
			e.reply(m, dhcpv4.MessageTypeOffer, o.addr, e.duration(c))
		}
		return
	}
	if !e.admit(now, c) {
		e.ignore(ignoredRate)
		return
	}
	a := e.choose(now, c, addr(m.RequestedIPAddress()))
	if !a.IsValid() {
		e.exhausted(now)
		return
	}
	e.probe(now, c, a, m, 1)
}

// mayKeep tells whether a lease is still what the configuration wants: a client
// for which an address was reserved moves there.
func (e *engine) mayKeep(now time.Time, l *lease) bool {
	own := e.reservation(l.client)
	return e.allowed(l.client, l.addr) && (!own.IsValid() || own == l.addr || !e.free(now, l.client, own))
}

func (e *engine) request(now time.Time, c client, m *dhcpv4.DHCPv4) {
	selecting := m.ServerIdentifier() != nil
	want := addr(m.ClientIPAddr) // renewing, rebinding
	if wish := addr(m.RequestedIPAddress()); wish.IsValid() && (selecting || !want.IsValid()) {
		want = wish
	}
	if !want.IsValid() {
		e.ignore(ignoredForm)
		return
	}
	if l := e.byClient[c]; l != nil && !l.ended && l.addr == want && e.mayKeep(now, l) {
		e.acknowledge(now, c, want, m)
		return
	}
	o := e.offers[c]
	if o != nil && o.addr == want && now.Before(o.until) {
		if o.probing() {
			o.m = m
		} else {
			e.acknowledge(now, c, want, m)
		}
		return
	}
	own := e.reservation(c)
	l := e.byClient[c]
	if selecting || l != nil && !l.ended || !e.network.Contains(want) || !e.allowed(c, want) || !e.free(now, c, want) ||
		own.IsValid() && own != want && e.free(now, c, own) {
		e.refuse(now, m)
		return
	}
	// Nobody knows of it, as after a lost file, and nothing speaks against it.
	if !e.admit(now, c) {
		e.ignore(ignoredRate)
		return
	}
	e.probe(now, c, want, m, 1)
}

func (e *engine) decline(now time.Time, c client, m *dhcpv4.DHCPv4) {
	a := addr(m.RequestedIPAddress())
	l, o := e.byClient[c], e.offers[c]
	leased, offered := l != nil && !l.ended && l.addr == a, o != nil && o.addr == a
	if !leased && !offered {
		e.ignore(ignoredNoSuch)
		return
	}
	if !e.declines.take(now) {
		e.ignore(ignoredRate)
		return
	}
	delete(e.offers, c)
	if leased {
		e.forget(l)
	}
	e.setAside(now, c, a, map[string]string{"by": "client"},
		m.ClientHWAddr.String()+" says that "+a.String()+" on "+e.c.Iface+" is in use by another host: take it out of the pool, or find that host")
}

// inform tells a host with an address of its own the rest.
func (e *engine) inform(now time.Time, source netip.Addr, m *dhcpv4.DHCPv4) {
	a := addr(m.ClientIPAddr)
	switch {
	case !a.IsValid() || a != source || !isHost(e.network, a) || a == e.c.Address.Addr():
		e.ignore(ignoredForm)
	case !e.stateless.take(now):
		e.ignore(ignoredRate)
	default:
		r := e.answer(m, dhcpv4.MessageTypeAck)
		r.ClientIPAddr = a.AsSlice()
		e.tell(m, r)
		e.send(m, a, r)
	}
}

func (e *engine) acknowledge(now time.Time, c client, a netip.Addr, m *dhcpv4.DHCPv4) {
	l := e.bind(now, c, mac(m.ClientHWAddr), a, said(m))
	e.reply(m, dhcpv4.MessageTypeAck, a, l.granted)
}

// refuse makes the client begin anew.
func (e *engine) refuse(now time.Time, m *dhcpv4.DHCPv4) {
	if !e.stateless.take(now) {
		e.ignore(ignoredRate)
		return
	}
	e.send(m, everybody, e.answer(m, dhcpv4.MessageTypeNak))
}

var everybody = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// reply offers or acknowledges an address.
func (e *engine) reply(m *dhcpv4.DHCPv4, kind dhcpv4.MessageType, a netip.Addr, d time.Duration) {
	r := e.answer(m, kind)
	r.YourIPAddr = a.AsSlice()
	seconds := func(o dhcpv4.OptionCode, d time.Duration) {
		r.Options.Update(dhcpv4.OptGeneric(o, binary.BigEndian.AppendUint32(nil, uint32(d/time.Second))))
	}
	seconds(dhcpv4.OptionIPAddressLeaseTime, d)
	seconds(dhcpv4.OptionRenewTimeValue, d/2)
	seconds(dhcpv4.OptionRebindingTimeValue, d/8*7)
	if e.rapid(m) && kind == dhcpv4.MessageTypeAck {
		r.Options.Update(dhcpv4.OptGeneric(dhcpv4.OptionRapidCommit, nil))
	}
	e.tell(m, r)
	if res, ok := e.reserved[a]; ok && res.Name != "" && asked(m, dhcpv4.OptionHostName) {
		r.Options.Update(dhcpv4.OptHostName(res.Name))
	}
	to := a
	switch {
	case addr(m.ClientIPAddr).IsValid():
		r.ClientIPAddr = m.ClientIPAddr
		to = addr(m.ClientIPAddr)
	case m.IsBroadcast():
		to = everybody
	}
	e.send(m, to, r)
}

// answer is what all answers have. Options of relays are not repeated.
func (e *engine) answer(m *dhcpv4.DHCPv4, kind dhcpv4.MessageType) *dhcpv4.DHCPv4 {
	r := &dhcpv4.DHCPv4{
		OpCode: dhcpv4.OpcodeBootReply, HWType: m.HWType, TransactionID: m.TransactionID, Flags: m.Flags,
		ClientIPAddr: net.IPv4zero, YourIPAddr: net.IPv4zero, ServerIPAddr: net.IPv4zero, GatewayIPAddr: net.IPv4zero,
		ClientHWAddr: m.ClientHWAddr, Options: dhcpv4.Options{},
	}
	r.Options.Update(dhcpv4.OptMessageType(kind))
	r.Options.Update(dhcpv4.OptServerIdentifier(e.c.Address.Addr().AsSlice()))
	if id := m.Options.Get(dhcpv4.OptionClientIdentifier); len(id) > 0 { // RFC 6842
		r.Options.Update(dhcpv4.OptGeneric(dhcpv4.OptionClientIdentifier, id))
	}
	return r
}

// tell adds what the client is to know besides its address.
func (e *engine) tell(m, r *dhcpv4.DHCPv4) {
	o := e.c.Options
	r.Options.Update(dhcpv4.OptSubnetMask(net.CIDRMask(e.network.Bits(), 32)))
	if o.Router.IsValid() {
		r.Options.Update(dhcpv4.OptRouter(o.Router.AsSlice()))
	}
	if len(o.DNS) > 0 {
		r.Options.Update(dhcpv4.OptDNS(ips(o.DNS)...))
	}
	if len(o.NTP) > 0 && asked(m, dhcpv4.OptionNTPServers) {
		r.Options.Update(dhcpv4.OptNTPServers(ips(o.NTP)...))
	}
	if o.Domain != "" {
		r.Options.Update(dhcpv4.OptDomainName(o.Domain))
	}
	if o.MTU > 0 && asked(m, dhcpv4.OptionInterfaceMTU) {
		r.Options.Update(dhcpv4.OptGeneric(dhcpv4.OptionInterfaceMTU, binary.BigEndian.AppendUint16(nil, o.MTU)))
	}
}

// asked tells whether the client wants an option; one without a list, all.
func asked(m *dhcpv4.DHCPv4, o dhcpv4.OptionCode) bool {
	return len(m.Options.Get(dhcpv4.OptionParameterRequestList)) == 0 || m.IsOptionRequested(o)
}

func ips(list []netip.Addr) []net.IP {
	out := make([]net.IP, len(list))
	for i, a := range list {
		out[i] = a.AsSlice()
	}
	return out
}

func (e *engine) send(m *dhcpv4.DHCPv4, to netip.Addr, r *dhcpv4.DHCPv4) {
	e.out.replies = append(e.out.replies, reply{mac(m.ClientHWAddr), to, r.ToBytes()})
}

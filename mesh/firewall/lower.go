package firewall

import (
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"halo.internal/model"
)

// Constants of the kernel's that no package has.
const (
	ctStatusDNAT     = 1 << 5 // IPS_DST_NAT, linux/netfilter/nf_conntrack_common.h
	tcpMaxSegment    = 2      // TCP option, RFC 9293
	icmpxUnreachable = 2      // NFT_REJECT_ICMPX_UNREACH
	icmpxProhibited  = 3      // NFT_REJECT_ICMPX_ADMIN_PROHIBITED
)

// lower turns a line into nftables' expressions; sets are their numbers in the
// transaction.
func (l line) lower(bridge bool, sets map[string]uint32) []expr.Any {
	e := l.match.lower(bridge, sets)
	if l.counter != "" {
		e = append(e, &expr.Objref{Type: int(nftables.ObjTypeCounter), Name: l.counter})
	}
	return append(e, l.action()...)
}

func (l line) action() []expr.Any {
	switch l.verdict {
	case accept:
		return []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}
	case reject:
		return []expr.Any{&expr.Reject{Type: icmpxUnreachable, Code: icmpxProhibited}}
	case leave:
		return []expr.Any{&expr.Verdict{Kind: expr.VerdictReturn}}
	case jump:
		return []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: l.jump}}
	case notrack:
		return []expr.Any{&expr.Notrack{}, &expr.Verdict{Kind: expr.VerdictAccept}}
	case masquerade:
		return []expr.Any{&expr.Masq{}}
	case clamp:
		return []expr.Any{
			&expr.Rt{Register: 1, Key: expr.RtTCPMSS},
			&expr.Byteorder{SourceRegister: 1, DestRegister: 1, Op: expr.ByteorderHton, Len: 2, Size: 2},
			&expr.Exthdr{SourceRegister: 1, Type: tcpMaxSegment, Offset: 2, Len: 2, Op: expr.ExthdrOpTcpopt},
		}
	case dnat:
		n := &expr.NAT{Type: expr.NATTypeDestNAT, Family: nfproto(family(l.to.Addr())), RegAddrMin: 1}
		e := []expr.Any{&expr.Immediate{Register: 1, Data: l.to.Addr().AsSlice()}}
		if l.to.Port() != 0 {
			e = append(e, &expr.Immediate{Register: 2, Data: big16(l.to.Port())})
			n.RegProtoMin, n.Specified = 2, true
		}
		return append(e, n)
	}
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}
}

func (m match) lower(bridge bool, sets map[string]uint32) (e []expr.Any) {
	add := func(x ...expr.Any) { e = append(e, x...) }
	if m.loopback {
		add(meta(expr.MetaKeyIIFNAME), equal(ifname("lo")))
	}
	if m.in != "" {
		add(meta(expr.MetaKeyIIFNAME), &expr.Lookup{SourceRegister: 1, SetName: m.in, SetID: sets[m.in]})
	}
	if m.out != "" {
		add(meta(expr.MetaKeyOIFNAME), &expr.Lookup{SourceRegister: 1, SetName: m.out, SetID: sets[m.out]})
	}
	if m.state != 0 {
		add(&expr.Ct{Key: expr.CtKeySTATE, Register: 1})
		add(anyBit(m.state)...)
	}
	if m.forwarded {
		add(&expr.Ct{Key: expr.CtKeySTATUS, Register: 1})
		add(anyBit(ctStatusDNAT)...)
	}
	if m.station != "" {
		add(payload(expr.PayloadBaseLLHeader, 6, 6), &expr.Lookup{SourceRegister: 1, SetName: m.station, SetID: sets[m.station]})
	}
	switch {
	case m.etherType != 0:
		add(meta(expr.MetaKeyPROTOCOL), equal(big16(m.etherType)))
	case m.family != 0:
		add(m.familyIs(bridge)...)
	}
	if m.from.IsValid() {
		add(prefix(m.from, false)...)
	}
	if m.to.IsValid() {
		add(prefix(m.to, true)...)
	}
	if m.hops != 0 {
		add(payload(expr.PayloadBaseNetworkHeader, 7, 1), equal([]byte{m.hops}))
	}
	if m.fragment {
		add(&expr.Exthdr{DestRegister: 1, Type: unix.IPPROTO_FRAGMENT, Len: 1, Flags: unix.NFT_EXTHDR_F_PRESENT, Op: expr.ExthdrOpIpv6}, equal([]byte{1}))
	}
	if m.sender.IsValid() {
		add(payload(expr.PayloadBaseNetworkHeader, 14, 4), equal(m.sender.AsSlice()))
	}
	if m.proto != 0 {
		add(meta(expr.MetaKeyL4PROTO), equal([]byte{m.proto}))
	}
	if m.icmp != 0 {
		add(payload(expr.PayloadBaseTransportHeader, 0, 1), equal([]byte{m.icmp}))
	}
	if m.target.IsValid() {
		add(payload(expr.PayloadBaseTransportHeader, 8, 16), equal(m.target.AsSlice()))
	}
	if m.sport != 0 {
		add(payload(expr.PayloadBaseTransportHeader, 0, 2), equal(big16(m.sport)))
	}
	if m.dport != (model.PortRange{}) {
		add(payload(expr.PayloadBaseTransportHeader, 2, 2))
		if m.dport.First == m.dport.Last {
			add(equal(big16(m.dport.First)))
		} else {
			add(&expr.Range{Op: expr.CmpOpEq, Register: 1, FromData: big16(m.dport.First), ToData: big16(m.dport.Last)})
		}
	}
	if m.syn { // of SYN and RST, SYN alone
		add(meta(expr.MetaKeyL4PROTO), equal([]byte{unix.IPPROTO_TCP}), payload(expr.PayloadBaseTransportHeader, 13, 1),
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{6}, Xor: []byte{0}}, equal([]byte{2}))
	}
	if m.local {
		add(&expr.Fib{Register: 1, FlagDADDR: true, ResultADDRTYPE: true}, equal(binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)))
	}
	if m.noWayBack {
		add(&expr.Fib{Register: 1, FlagSADDR: true, FlagIIF: true, FlagPRESENT: true, ResultOIF: true}, equal(make([]byte, 4)))
	}
	if m.meter != nil {
		add(m.meter.lower(sets)...)
	}
	return e
}

func (m *meter) lower(sets map[string]uint32) []expr.Any {
	e := []expr.Any{payload(expr.PayloadBaseNetworkHeader, 12, 4)}
	if m.six {
		e[0] = payload(expr.PayloadBaseNetworkHeader, 8, 16)
		if m.net {
			e = append(e, mask(64, 16))
		}
	}
	set := &expr.Dynset{SrcRegKey: 1, SetName: m.set, SetID: sets[m.set]}
	if m.connections != 0 {
		set.Operation = unix.NFT_DYNSET_OP_ADD
		set.Exprs = []expr.Any{&expr.Connlimit{Count: m.connections, Flags: expr.NFT_CONNLIMIT_F_INV}}
	} else {
		set.Operation = unix.NFT_DYNSET_OP_UPDATE
		set.Exprs = []expr.Any{&expr.Limit{Type: expr.LimitTypePkts, Rate: uint64(m.rate), Unit: expr.LimitTimeSecond, Burst: m.burst, Over: m.over}}
	}
	return append(e, set)
}

// familyIs matches IPv4 or IPv6: on a bridge, all is of the bridge's family.
func (m match) familyIs(bridge bool) []expr.Any {
	if bridge && m.family == 4 {
		return []expr.Any{meta(expr.MetaKeyPROTOCOL), equal(big16(unix.ETH_P_IP))}
	}
	if bridge {
		return []expr.Any{meta(expr.MetaKeyPROTOCOL), equal(big16(unix.ETH_P_IPV6))}
	}
	return []expr.Any{meta(expr.MetaKeyNFPROTO), equal([]byte{byte(nfproto(m.family))})}
}

func nfproto(family int) uint32 {
	if family == 4 {
		return unix.NFPROTO_IPV4
	}
	return unix.NFPROTO_IPV6
}

func meta(k expr.MetaKey) expr.Any { return &expr.Meta{Key: k, Register: 1} }

func equal(b []byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: b} }

func payload(base expr.PayloadBase, offset, length uint32) expr.Any {
	return &expr.Payload{DestRegister: 1, Base: base, Offset: offset, Len: length}
}

func mask(bits, size int) expr.Any {
	return &expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: uint32(size), Mask: net.CIDRMask(bits, size*8), Xor: make([]byte, size)}
}

func anyBit(bits uint32) []expr.Any {
	zero := make([]byte, 4)
	return []expr.Any{
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: zero},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: zero},
	}
}

// prefix matches the source or destination of a family that is known.
func prefix(p netip.Prefix, destination bool) []expr.Any {
	size := p.Addr().BitLen() / 8
	offset := uint32(12)
	if size == 16 {
		offset = 8
	}
	if destination {
		offset += uint32(size)
	}
	if p.Bits() == 0 {
		return nil
	}
	e := []expr.Any{payload(expr.PayloadBaseNetworkHeader, offset, uint32(size))}
	if p.Bits() < size*8 {
		e = append(e, mask(p.Bits(), size))
	}
	return append(e, equal(p.Addr().AsSlice()))
}

func big16(n uint16) []byte { return binary.BigEndian.AppendUint16(nil, n) }

func ifname(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}

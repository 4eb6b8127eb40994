package overlay

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// fenceTable holds nothing but the fence of the overlay of that name.
func fenceTable(iface string) *nftables.Table {
	return &nftables.Table{Family: nftables.TableFamilyINet, Name: "halo-" + iface}
}

// fence drops what comes for or from overlay addresses by another way than the
// overlay. Linux takes a packet for any of its addresses from any interface, so
// that without it whoever is on the mesh could speak to services that trust
// the overlay, in the clear and under any overlay address. Hosts at inner
// interfaces may reach the device's own overlay addresses, but have none. What is
// for port, WireGuard's, passes first: each of its packets pays for every rule
// before, and it knows by itself who they are from.
func fence(iface string, port uint16, inner []string, overlays []netip.Prefix) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("overlay: fence: %w", err)
	}
	table := c.AddTable(fenceTable(iface)) // so that there is one to delete
	c.DelTable(table)
	table = c.AddTable(fenceTable(iface))
	accept := nftables.ChainPolicyAccept
	chain := c.AddChain(&nftables.Chain{
		Name: "input", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter, Policy: &accept,
	})
	rule := func(e ...expr.Any) { c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: e}) }
	accepted := func(from ...string) {
		for _, name := range from {
			rule(
				&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: ifname(name)},
				&expr.Verdict{Kind: expr.VerdictAccept},
			)
		}
	}
	dropped := func(destination bool) {
		for _, p := range overlays {
			rule(append(matchPrefix(p.Masked(), destination), &expr.Verdict{Kind: expr.VerdictDrop})...)
		}
	}
	rule(
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_UDP}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.BigEndian.AppendUint16(nil, port)},
		&expr.Verdict{Kind: expr.VerdictAccept},
	)
	accepted(iface, "lo")
	dropped(false)
	accepted(inner...)
	dropped(true)
	if err := c.Flush(); err != nil {
		return fmt.Errorf("overlay: fence around %s: %w", iface, err)
	}
	return nil
}

func ifname(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}

// matchPrefix matches packets to or from a prefix.
func matchPrefix(p netip.Prefix, destination bool) []expr.Any {
	family, offset, size := byte(unix.NFPROTO_IPV4), uint32(12), uint32(4)
	if p.Addr().Is6() {
		family, offset, size = unix.NFPROTO_IPV6, 8, 16
	}
	if destination {
		offset += size
	}
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{family}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: size, Mask: net.CIDRMask(p.Bits(), int(size)*8), Xor: make([]byte, size)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: p.Addr().AsSlice()},
	}
}

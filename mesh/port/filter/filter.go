// Package filter decides, in the kernel and before anything else sees a frame,
// what an Ethernet port accepts: an nftables table of family netdev per port,
// with one chain at ingress. While a port looks for members nothing but their
// proofs comes in; when it carries the mesh, MACsec and batman frames come in from
// proven addresses alone. Whatever replaces a table does so in one transaction, and
// what it leaves open for an instant is closed, never the other way round.
package filter

import (
	"encoding/binary"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"halo.internal/mesh/port/proof"
	"halo.internal/model/paths"
)

// Policy is what a port accepts beside proofs of membership and requests to rejoin,
// which always may come in. The zero Policy accepts nothing else.
type Policy struct {
	DHCP    bool        // answers of DHCP servers
	Members []proof.MAC // sources of batman frames
	Batman  bool        // batman frames of anybody: where the kernel lets only members speak
	Secured []proof.MAC // sources of MACsec frames, which the kernel takes from members' keys alone
}

// Names in nftables.
const (
	tablePrefix = "halo-port-"
	chainName   = "ingress"
	setMembers  = "members"
	setSecured  = "secured"
)

// Apply makes p the policy of the port, whatever was there before.
func Apply(iface string, p Policy) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("filter: port %s: %w", iface, err)
	}
	table := replace(c, iface)
	drop := nftables.ChainPolicyDrop
	chain := c.AddChain(&nftables.Chain{
		Table: table, Name: chainName, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookIngress, Priority: nftables.ChainPriorityFilter,
		Device: iface, Policy: &drop,
	})
	rule := func(e ...expr.Any) {
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: append(e, &expr.Verdict{Kind: expr.VerdictAccept})})
	}
	rule(etherType(paths.EtherTypeProof)...)
	rule(etherType(paths.EtherTypeRejoin)...)
	if p.DHCP {
		rule(append(etherType(unix.ETH_P_IP), dhcpAnswer()...)...)
	}
	if p.Batman {
		rule(etherType(paths.EtherTypeBatman)...)
	}
	// IDs link sets and rules within this transaction. The library would number
	// them from a counter that ports changed at the same time race for.
	for id, from := range []struct {
		name      string
		etherType uint16
		sources   []proof.MAC
	}{{setMembers, paths.EtherTypeBatman, p.Members}, {setSecured, paths.EtherTypeMACsec, p.Secured}} {
		if len(from.sources) == 0 {
			continue
		}
		set := &nftables.Set{Table: table, ID: uint32(id) + 1, Name: from.name, KeyType: nftables.TypeEtherAddr}
		elements := make([]nftables.SetElement, len(from.sources))
		for i, m := range from.sources {
			elements[i].Key = m[:]
		}
		if err := c.AddSet(set, elements); err != nil {
			return fmt.Errorf("filter: port %s: %s: %w", iface, from.name, err)
		}
		rule(append(etherType(from.etherType),
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseLLHeader, Offset: 6, Len: 6},
			&expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID},
		)...)
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("filter: port %s: %w", iface, err)
	}
	return nil
}

// Open removes the port's filter.
func Open(iface string) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("filter: port %s: %w", iface, err)
	}
	c.DelTable(replace(c, iface))
	if err := c.Flush(); err != nil {
		return fmt.Errorf("filter: port %s: %w", iface, err)
	}
	return nil
}

// replace empties the port's table within c's transaction. Deleting a table
// that is not there would fail, so it is added first.
func replace(c *nftables.Conn, iface string) *nftables.Table {
	t := &nftables.Table{Family: nftables.TableFamilyNetdev, Name: tablePrefix + iface}
	c.AddTable(t)
	c.DelTable(t)
	return c.AddTable(t)
}

func etherType(t uint16) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.BigEndian.AppendUint16(nil, t)},
	}
}

// dhcpAnswer matches UDP from port 67 to port 68.
func dhcpAnswer() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{unix.IPPROTO_UDP}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 4},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: append(binaryutil.BigEndian.PutUint16(67), binaryutil.BigEndian.PutUint16(68)...)},
	}
}

package nl80211

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Only has the kernel leave out events of other interfaces: in a dense cell they
// are many, and whoever owns one radio has no use for them. Events that name no
// interface, as those of radios, still come.
func (l *Listener) Only(index int) error {
	program, err := bpf.Assemble(only(l.fam.ID, uint32(index)))
	if err != nil {
		return fmt.Errorf("nl80211: filter: %w", err)
	}
	if err := l.conn.SetBPF(program); err != nil {
		return fmt.Errorf("nl80211: filter: %w", err)
	}
	return nil
}

// only is the filter: of messages of the family, those whose interface is
// another are dropped. It loads big-endian what messages have in the order of
// the machine.
func only(family uint16, index uint32) []bpf.Instruction {
	const (
		kind = 4                         // of the message
		body = unix.NLMSG_HDRLEN         // the header of generic netlink
		tlvs = body + unix.GENL_HDRLEN   // the attributes
		all  = uint32(1<<32 - 1)         // octets of the message that pass
		self = uint32(unix.SizeofNlAttr) // from an attribute to its value
		want = unix.NL80211_ATTR_IFINDEX // 4 octets
	)
	native := func(v []byte) (n uint32) {
		for _, b := range v {
			n = n<<8 | uint32(b)
		}
		return n
	}
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: kind, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: native(binary.NativeEndian.AppendUint16(nil, family)), SkipTrue: 7},
		bpf.LoadConstant{Dst: bpf.RegX, Val: want},
		bpf.LoadConstant{Dst: bpf.RegA, Val: tlvs},
		bpf.LoadExtension{Num: bpf.ExtNetlinkAttr}, // where it is; 0: nowhere
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipTrue: 3},
		bpf.TAX{},
		bpf.LoadIndirect{Off: self, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: native(binary.NativeEndian.AppendUint32(nil, index)), SkipTrue: 1},
		bpf.RetConstant{Val: all},
		bpf.RetConstant{Val: 0},
	}
}

package macsec

import (
	"bytes"
	"fmt"
	"maps"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"halo.internal/mesh/port/sak"
)

// Steps from one state to another.
const (
	dropChannel  step = iota + 1
	dropReceive       // association of a channel
	addChannel        //
	addReceive        //
	dropTransmit      // association
	addTransmit       //
	encode            // send by that association
)

type step int

// String names the step, for errors.
func (s step) String() string {
	return [...]string{"", "drop channel", "drop key of channel", "add channel", "add key of channel", "drop own key", "add own key", "send by key"}[s]
}

// op is one step.
type op struct {
	kind step
	sci  sak.SCI
	sa   sak.Association // or only its number
}

// plan returns the steps from what the kernel has to what is wanted: who is heard
// no more comes first, the key that is sent by comes after all that is heard.
func plan(have secy, want sak.State) (ops []op) {
	wanted := make(map[sak.SCI]sak.Channel, len(want.Receive))
	for _, c := range want.Receive {
		wanted[c.SCI] = c
	}
	scis := slices.SortedFunc(maps.Keys(have.receive), func(a, b sak.SCI) int { return bytes.Compare(a[:], b[:]) })
	var drops, adds []op
	for _, sci := range scis {
		if _, ok := wanted[sci]; !ok || !have.receive[sci].active {
			drops = append(drops, op{kind: dropChannel, sci: sci})
		}
	}
	for _, c := range want.Receive {
		had, ok := have.receive[c.SCI]
		if !ok || !had.active {
			had = channel{}
			adds = append(adds, op{kind: addChannel, sci: c.SCI})
		}
		drop, add := change(had.sas, c.Associations)
		for _, an := range drop {
			drops = append(drops, op{kind: dropReceive, sci: c.SCI, sa: sak.Association{AN: an}})
		}
		for _, a := range add {
			adds = append(adds, op{kind: addReceive, sci: c.SCI, sa: a})
		}
	}
	ops = append(drops, adds...)
	drop, add := change(have.transmit, []sak.Association{want.Transmit})
	if len(add) > 0 && slices.Contains(drop, want.Transmit.AN) { // its number is used
		ops = append(ops, op{kind: dropTransmit, sa: sak.Association{AN: want.Transmit.AN}})
		drop = slices.DeleteFunc(drop, func(an uint8) bool { return an == want.Transmit.AN })
	}
	for _, a := range add {
		ops = append(ops, op{kind: addTransmit, sa: a})
	}
	if have.encoding != want.Transmit.AN {
		ops = append(ops, op{kind: encode, sa: sak.Association{AN: want.Transmit.AN}})
	}
	for _, an := range drop {
		ops = append(ops, op{kind: dropTransmit, sa: sak.Association{AN: an}})
	}
	return ops
}

// change returns what must go, and what must come. One with the right key stays
// as it is: it knows how far its packet numbers are.
func change(have map[uint8]sa, want []sak.Association) (drop []uint8, add []sak.Association) {
	fine := make(map[uint8]bool, len(want))
	for _, a := range want {
		had, ok := have[a.AN]
		if fine[a.AN] = ok && had.active && had.id == identify(a.Key); !fine[a.AN] {
			add = append(add, a)
		}
	}
	for _, an := range slices.Sorted(maps.Keys(have)) {
		if !fine[an] {
			drop = append(drop, an)
		}
	}
	return drop, add
}

func (i *Interface) do(o op) error {
	if err := i.perform(o); err != nil {
		return fmt.Errorf("macsec: %s: %s %d: %w", i.name, o.kind, o.sa.AN, err)
	}
	return nil
}

func (i *Interface) perform(o op) error {
	ask := func(command uint8, attributes ...*nl.RtAttr) error {
		_, err := i.genl.request(command, unix.NLM_F_ACK, append([]*nl.RtAttr{ifindexAttribute(i.index)}, attributes...)...)
		return err
	}
	switch o.kind {
	case dropChannel:
		return ask(cmdDropRxSC, channelAttribute(o.sci, false))
	case addChannel:
		return ask(cmdAddRxSC, channelAttribute(o.sci, true))
	case addReceive:
		return ask(cmdAddRxSA, channelAttribute(o.sci, false), addAttribute(o.sa))
	case dropReceive: // the kernel drops none that is active
		if err := ask(cmdSetRxSA, channelAttribute(o.sci, false), numberAttribute(o.sa.AN, true)); err != nil {
			return err
		}
		return ask(cmdDropRxSA, channelAttribute(o.sci, false), numberAttribute(o.sa.AN, false))
	case addTransmit:
		id := identify(o.sa.Key)
		if i.spent[id] {
			return fmt.Errorf("the key was sent by already, and its packet numbers are lost: %w", ErrChanged)
		}
		i.spent[id] = true
		return ask(cmdAddTxSA, addAttribute(o.sa))
	case dropTransmit:
		if err := ask(cmdSetTxSA, numberAttribute(o.sa.AN, true)); err != nil {
			return err
		}
		return ask(cmdDropTxSA, numberAttribute(o.sa.AN, false))
	case encode:
		return i.encode(o.sa.AN)
	}
	return fmt.Errorf("expected a step, got %d", o.kind)
}

// encode has the interface send by another association: that is a matter of the
// link, not of the family.
func (i *Interface) encode(an uint8) error {
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(i.index)
	req.AddData(msg)
	req.AddData(encodingAttributes(an))
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// count adds what was dropped since the last look. A channel takes its counters
// with it when it goes.
func (i *Interface) count(have secy) {
	now := make(map[sak.SCI]tally, len(have.receive)+1)
	for sci, c := range have.receive {
		now[sci] = c.tally
	}
	now[have.sci] = tally{invalid: have.invalid} // the interface's own
	for sci, t := range now {
		was := i.last[sci]
		if t.late < was.late || t.invalid < was.invalid {
			was = tally{} // made anew
		}
		i.sum.Late += t.late - was.late
		i.sum.Invalid += t.invalid - was.invalid
	}
	i.last = now
}

package model

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"halo.internal/model/dot11"
)

// How the lists of a report are packed, each as one CBOR byte string: a report
// crosses links of 150 kbit/s from each node, again and again.
//
//	interfaces: count, then for each name, transport, kHz, width in kHz, addresses,
//	  count of links, and those
//	link: flags, then what they name: address, node, numbers in the order of the bits
//	next hops: count, then node, address, flags, interface, TQ, kbit/s, next node
//	overlay: count, then node, (seconds + 1) × 2 + direct; 1: gone
//
// Numbers are varints, zigzag where they may be negative; texts and addresses have
// their count before them; canonical IDs take 13 octets, hardware addresses 6. What
// is not known takes no room. The same lists always give the same octets, and the
// reader takes no others.

// Flags of a packed link and of a packed next hop.
const (
	hasPeer = 1 << iota // the first seven, which links over the air have, take one octet
	hasSignal
	hasTx
	hasRx
	hasTQ
	hasInactive
	hasRetry
	hasNode
	hasExpected
	hasFail
	isGone
	linkFlags = iota

	nextHasNode = 1
)

var transports = [...]Transport{"", TransportHaLow, TransportWiFi, TransportEthernet}

func transportNumber(t Transport) int {
	for n, known := range transports {
		if t == known {
			return n
		}
	}
	return 0
}

// number is a field of a packed link and its flag.
type number struct {
	flag  uint64
	value *int
}

// numbers are a link's fields in the order of their flags.
func (l *ReportLink) numbers() [8]number {
	return [...]number{{hasSignal, &l.SignalDBm}, {hasTx, &l.TxKbps}, {hasRx, &l.RxKbps}, {hasTQ, &l.TQ}, {hasInactive, &l.InactiveMS},
		{hasRetry, &l.RetryPermille}, {hasExpected, &l.ExpectedKbps}, {hasFail, &l.FailPermille}}
}

// MarshalBinary packs the list.
func (list ReportInterfaces) MarshalBinary() ([]byte, error) {
	b := binary.AppendUvarint(nil, uint64(len(list)))
	for _, i := range list {
		b = appendText(b, i.Name)
		t := uint64(transportNumber(i.Transport)) << 1
		if i.Gone {
			t |= 1
		}
		b = binary.AppendUvarint(b, t)
		b = binary.AppendUvarint(b, uint64(i.FreqKHz))
		b = binary.AppendUvarint(b, uint64(i.WidthKHz))
		b = binary.AppendUvarint(b, uint64(len(i.Addresses)))
		for _, a := range i.Addresses {
			b = append(b, a[:]...)
		}
		b = binary.AppendUvarint(b, uint64(len(i.Links)))
		for _, l := range i.Links {
			var err error
			if b, err = l.append(b); err != nil {
				return nil, fmt.Errorf("interface %s: %w", i.Name, err)
			}
		}
	}
	return b, nil
}

func (l ReportLink) append(b []byte) (_ []byte, err error) {
	var flags uint64
	if l.Peer != (dot11.MAC{}) {
		flags |= hasPeer
	}
	if l.Node != "" {
		flags |= hasNode
	}
	for _, n := range l.numbers() {
		if *n.value != 0 {
			flags |= n.flag
		}
	}
	if l.Gone {
		flags |= isGone
	}
	b = binary.AppendUvarint(b, flags)
	if flags&hasPeer != 0 {
		b = append(b, l.Peer[:]...)
	}
	if flags&hasNode != 0 {
		if b, err = PackNode(b, l.Node); err != nil {
			return nil, err
		}
	}
	for _, n := range l.numbers() {
		switch {
		case flags&n.flag == 0:
		case n.flag == hasSignal:
			b = binary.AppendVarint(b, int64(*n.value))
		default:
			b = binary.AppendUvarint(b, uint64(*n.value))
		}
	}
	return b, nil
}

// UnmarshalBinary reads what MarshalBinary writes, within the bounds of a report.
func (list *ReportInterfaces) UnmarshalBinary(b []byte) error {
	r := packedReader{rest: b}
	*list = make(ReportInterfaces, r.count(MaxReportInterfaces))
	links := 0
	for n := range *list {
		i := &(*list)[n]
		i.Name = r.text(maxIfaceName)
		t := r.count(len(transports)*2 - 1)
		i.Transport, i.Gone = transports[t>>1], t&1 != 0
		i.FreqKHz, i.WidthKHz = r.uint(), r.uint()
		i.Addresses = make([]dot11.MAC, r.count(MaxReportAddresses))
		for k := range i.Addresses {
			i.Addresses[k] = r.mac()
		}
		count := r.count(MaxReportLinks - links)
		links += count
		if count > 0 {
			i.Links = make([]ReportLink, count)
		}
		for k := range i.Links {
			i.Links[k] = r.link()
		}
	}
	return r.end("interfaces")
}

// MarshalBinary packs the list.
func (list ReportNextHops) MarshalBinary() (b []byte, err error) {
	b = binary.AppendUvarint(nil, uint64(len(list)))
	for _, h := range list {
		if b, err = PackNode(b, h.Node); err != nil {
			return nil, err
		}
		b = append(b, h.Next[:]...)
		var flags uint64
		if h.NextNode != "" {
			flags = nextHasNode
		}
		b = binary.AppendUvarint(b, flags)
		b = appendText(b, h.Iface)
		b = binary.AppendUvarint(b, uint64(h.TQ))
		b = binary.AppendUvarint(b, uint64(h.Kbps))
		if flags != 0 {
			if b, err = PackNode(b, h.NextNode); err != nil {
				return nil, err
			}
		}
	}
	return b, nil
}

// UnmarshalBinary reads what MarshalBinary writes.
func (list *ReportNextHops) UnmarshalBinary(b []byte) error {
	r := packedReader{rest: b}
	*list = make(ReportNextHops, r.count(MaxReportNextHops))
	for n := range *list {
		h := &(*list)[n]
		h.Node, h.Next = r.node(), r.mac()
		flags := r.count(nextHasNode)
		h.Iface, h.TQ, h.Kbps = r.text(maxIfaceName), r.uint(), r.uint()
		if flags != 0 {
			h.NextNode = r.node()
		}
	}
	return r.end("next hops")
}

// MarshalBinary packs the list.
func (list ReportOverlay) MarshalBinary() (b []byte, err error) {
	b = binary.AppendUvarint(nil, uint64(len(list)))
	for _, p := range list {
		if b, err = PackNode(b, p.Node); err != nil {
			return nil, err
		}
		age := uint64(p.HandshakeS+1) << 1
		if p.Direct || p.Gone {
			age |= 1
		}
		b = binary.AppendUvarint(b, age)
	}
	return b, nil
}

// UnmarshalBinary reads what MarshalBinary writes.
func (list *ReportOverlay) UnmarshalBinary(b []byte) error {
	r := packedReader{rest: b}
	*list = make(ReportOverlay, r.count(MaxReportOverlay))
	for n := range *list {
		p := &(*list)[n]
		p.Node = r.node()
		age := r.uint()
		p.HandshakeS, p.Direct, p.Gone = age>>1-1, age&1 != 0 && age != 1, age == 1
	}
	return r.end("overlay")
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

var errPacked = errors.New("expected a packed list, got other octets")

// packedReader takes values off the front. After an error all are zero.
type packedReader struct {
	rest []byte
	bad  bool
}

func (r *packedReader) take(n int) []byte {
	if r.bad || n > len(r.rest) {
		r.bad = true
		return make([]byte, n)
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

// uint refuses numbers that no field may have, and those in more octets than needed.
func (r *packedReader) uint() int {
	v, n := binary.Uvarint(r.rest)
	if r.bad || n <= 0 || v > math.MaxUint32 || n > 1 && r.rest[n-1] == 0 {
		r.bad = true
		return 0
	}
	r.rest = r.rest[n:]
	return int(v)
}

func (r *packedReader) int() int {
	u := r.uint()
	return u>>1 ^ -(u & 1)
}

// count is a number of at most most.
func (r *packedReader) count(most int) int {
	n := r.uint()
	if n > most {
		r.bad = true
		return 0
	}
	return n
}

func (r *packedReader) text(most int) string { return string(r.take(r.count(most))) }

func (r *packedReader) mac() dot11.MAC { return dot11.MAC(r.take(len(dot11.MAC{}))) }

func (r *packedReader) node() string {
	id, err := UnpackNode(r.take(idOctets))
	if err != nil {
		r.bad = true
	}
	return id
}

func (r *packedReader) link() (l ReportLink) {
	flags := uint64(r.count(1<<linkFlags - 1))
	if flags&hasPeer != 0 {
		l.Peer = r.mac()
		r.bad = r.bad || l.Peer == dot11.MAC{}
	}
	if flags&hasNode != 0 {
		l.Node = r.node()
	}
	for _, n := range l.numbers() {
		switch {
		case flags&n.flag == 0:
			continue
		case n.flag == hasSignal:
			*n.value = r.int()
		default:
			*n.value = r.uint()
		}
		r.bad = r.bad || *n.value == 0 // what is zero has no flag
	}
	l.Gone = flags&isGone != 0
	return l
}

func (r *packedReader) end(what string) error {
	if r.bad || len(r.rest) != 0 {
		return fmt.Errorf("%s: %w", what, errPacked)
	}
	return nil
}

package relay

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"halo.internal/model"
	"halo.internal/model/order"
)

// Messages between members, one in each datagram; numbers have the highest octet
// first.
//
//	data:     kind 1 | TTL | source, its port | group, its port | payload
//	interest: kind 2 | flags | lifetime in s (2) | count | count × (group, its port)
//
// Addresses are IPv4 and have 4 octets, ports 2. An interest says all that a member
// wants, in rising order, and replaces what it said before.
const (
	kindData     = 1
	kindInterest = 2

	flagAsk = 1 // the sender wants to know the same of the receiver

	dataHead     = 14
	interestHead = 5
	endpointSize = 6
)

// MaxPayload is the most octets of a datagram that are carried. Cursor-on-Target has
// some hundred; what is longer than a packet is split on its way.
const MaxPayload = 8 << 10

// maxMessage is the longest message.
const maxMessage = dataHead + MaxPayload

// maxLifetime bounds for how long a member may speak in advance.
const maxLifetime = 4 * time.Hour

// datagram is what a client has said to a group.
type datagram struct {
	ttl     uint8 // as it came
	from    netip.AddrPort
	group   netip.AddrPort
	payload []byte
}

// interest is what groups a member's clients listen to.
type interest struct {
	ask      bool
	lifetime time.Duration // whole seconds
	groups   []netip.AddrPort
}

var errForm = errors.New("malformed message of the multicast relay")

func (d datagram) marshal() []byte {
	b := make([]byte, 0, dataHead+len(d.payload))
	b = append(b, kindData, d.ttl)
	b = appendEndpoint(appendEndpoint(b, d.from), d.group)
	return append(b, d.payload...)
}

func (i interest) marshal() []byte {
	b := make([]byte, 0, interestHead+len(i.groups)*endpointSize)
	flags := byte(0)
	if i.ask {
		flags = flagAsk
	}
	b = append(b, kindInterest, flags)
	b = binary.BigEndian.AppendUint16(b, uint16(i.lifetime/time.Second))
	b = append(b, byte(len(i.groups)))
	for _, g := range i.groups {
		b = appendEndpoint(b, g)
	}
	return b
}

func appendEndpoint(b []byte, e netip.AddrPort) []byte {
	return binary.BigEndian.AppendUint16(append(b, e.Addr().AsSlice()...), e.Port())
}

func endpoint(b []byte) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b)), binary.BigEndian.Uint16(b[4:]))
}

// parse returns a datagram, whose payload is part of b, or an interest.
func parse(b []byte) (*datagram, *interest, error) {
	if len(b) == 0 {
		return nil, nil, fmt.Errorf("%w: it is empty", errForm)
	}
	switch b[0] {
	case kindData:
		d, err := parseData(b)
		return d, nil, err
	case kindInterest:
		i, err := parseInterest(b)
		return nil, i, err
	}
	return nil, nil, fmt.Errorf("%w: expected kind 1 or 2, got %d", errForm, b[0])
}

func parseData(b []byte) (*datagram, error) {
	if len(b) < dataHead || len(b) > maxMessage {
		return nil, fmt.Errorf("%w: data: expected %d to %d octets, got %d", errForm, dataHead, maxMessage, len(b))
	}
	d := &datagram{ttl: b[1], from: endpoint(b[2:]), group: endpoint(b[8:]), payload: b[dataHead:]}
	if a := d.from.Addr(); d.ttl == 0 || d.from.Port() == 0 || a.IsMulticast() || a.IsUnspecified() || a.IsLoopback() || a.IsLinkLocalUnicast() {
		return nil, fmt.Errorf("%w: data: expected a TTL and the source of one host, got %d and %s", errForm, d.ttl, d.from)
	}
	if err := model.CheckMulticastGroup(d.group); err != nil {
		return nil, fmt.Errorf("%w: data: %w", errForm, err)
	}
	return d, nil
}

func parseInterest(b []byte) (*interest, error) {
	if len(b) < interestHead || len(b) != interestHead+int(b[4])*endpointSize || b[1]&^flagAsk != 0 {
		return nil, fmt.Errorf("%w: interest: %d octets that do not fit their count or flags", errForm, len(b))
	}
	i := &interest{ask: b[1]&flagAsk != 0, lifetime: time.Duration(binary.BigEndian.Uint16(b[2:])) * time.Second}
	if n := int(b[4]); n > model.MaxMulticastGroups {
		return nil, fmt.Errorf("%w: interest: expected at most %d groups, got %d", errForm, model.MaxMulticastGroups, n)
	}
	if i.lifetime > maxLifetime {
		return nil, fmt.Errorf("%w: interest: expected at most %s, got %s", errForm, maxLifetime, i.lifetime)
	}
	for b = b[interestHead:]; len(b) > 0; b = b[endpointSize:] {
		g := endpoint(b)
		if err := model.CheckMulticastGroup(g); err != nil {
			return nil, fmt.Errorf("%w: interest: %w", errForm, err)
		}
		if n := len(i.groups); n > 0 && i.groups[n-1].Compare(g) >= 0 {
			return nil, fmt.Errorf("%w: interest: expected groups in rising order, got %s after %s", errForm, g, i.groups[n-1])
		}
		i.groups = append(i.groups, g)
	}
	return i, nil
}

// inOrder sorts groups as interest has them.
func inOrder(groups []netip.AddrPort) {
	order.By(groups, func(a, b netip.AddrPort) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Port(), b.Port()))
	})
}

package nl80211

import (
	"encoding/binary"
	"fmt"
	"net"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// walk calls f for each attribute. Every kernel may add attributes, so an
// unknown one is passed over; a known one of the wrong size is an error.
func walk(b []byte, f func(d *netlink.AttributeDecoder)) error {
	d, err := netlink.NewAttributeDecoder(b)
	if err != nil {
		return fmt.Errorf("attributes: %w", err)
	}
	for d.Next() {
		f(d)
	}
	if err := d.Err(); err != nil {
		return fmt.Errorf("attributes: %w", err)
	}
	return nil
}

// nested calls f for each attribute inside the present one.
func nested(d *netlink.AttributeDecoder, f func(n *netlink.AttributeDecoder)) {
	d.Nested(func(n *netlink.AttributeDecoder) error {
		for n.Next() {
			f(n)
		}
		return n.Err()
	})
}

// each calls f for each attribute inside each attribute inside the present one:
// the kernel's lists.
func each(d *netlink.AttributeDecoder, begin func(), f func(n *netlink.AttributeDecoder)) {
	nested(d, func(n *netlink.AttributeDecoder) {
		begin()
		nested(n, f)
	})
}

// mac returns the present attribute as an address.
func mac(d *netlink.AttributeDecoder) (a net.HardwareAddr) {
	d.Do(func(b []byte) error {
		if len(b) != 6 {
			return fmt.Errorf("MAC address: expected 6 octets, got %d", len(b))
		}
		a = append(a, b...)
		return nil
	})
	return a
}

// octets returns a copy of the present attribute.
func octets(d *netlink.AttributeDecoder) []byte { return append([]byte(nil), d.Bytes()...) }

// words returns the present attribute as an array of 32-bit numbers.
func words(d *netlink.AttributeDecoder) (all []uint32) {
	d.Do(func(b []byte) error {
		if len(b)%4 != 0 {
			return fmt.Errorf("expected 32-bit numbers, got %d octets", len(b))
		}
		for ; len(b) > 0; b = b[4:] {
			all = append(all, binary.NativeEndian.Uint32(b))
		}
		return nil
	})
	return all
}

// pair returns the present attribute as two 32-bit numbers.
func pair(d *netlink.AttributeDecoder) (first, second uint32) {
	d.Do(func(b []byte) error {
		if len(b) != 8 {
			return fmt.Errorf("expected two 32-bit numbers, got %d octets", len(b))
		}
		first, second = binary.NativeEndian.Uint32(b), binary.NativeEndian.Uint32(b[4:])
		return nil
	})
	return first, second
}

func milliseconds(v uint64) time.Duration { return time.Duration(v) * time.Millisecond }

// encodePair is the opposite of pair.
func encodePair(first, second uint32) []byte {
	return binary.NativeEndian.AppendUint32(binary.NativeEndian.AppendUint32(nil, first), second)
}

// ifindex adds which interface a request is about.
func ifindex(e *netlink.AttributeEncoder, index int) {
	e.Uint32(unix.NL80211_ATTR_IFINDEX, uint32(index))
}

// wiphy adds which radio a request is about.
func wiphy(e *netlink.AttributeEncoder, index int) { e.Uint32(unix.NL80211_ATTR_WIPHY, uint32(index)) }

// fill adds an attribute that is a list of others.
func fill(e *netlink.AttributeEncoder, kind uint16, f func(n *netlink.AttributeEncoder)) {
	e.Nested(kind, func(n *netlink.AttributeEncoder) error {
		f(n)
		return nil
	})
}

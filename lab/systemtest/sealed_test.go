package systemtest

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"halo.internal/model/paths"
)

func u16(n int) []byte { return binary.BigEndian.AppendUint16(nil, uint16(n)) }

func ether(kind int, payload ...[]byte) []byte {
	return slices.Concat([]byte("\x02AAAAA\x02BBBBB"), u16(kind), bytes.Join(payload, nil))
}

func bat(kind byte, head int, payload []byte) []byte {
	h := make([]byte, head)
	h[0], h[1], h[2] = kind, 15, 50
	return ether(paths.EtherTypeBatman, h, payload)
}

func ip(next byte, payload ...[]byte) []byte {
	body := bytes.Join(payload, nil)
	return ether(0x86dd, []byte{6 << 4, 0, 0, 0}, u16(len(body)), []byte{next, 64}, make([]byte, 32), body)
}

func udp(to int, message []byte) []byte {
	return ip(17, u16(40000), u16(to), u16(8+len(message)), u16(0), message)
}

func tcp(from, to int, number uint32, flags byte, data string) []byte {
	return ip(6, u16(from), u16(to), binary.BigEndian.AppendUint32(nil, number), make([]byte, 4), []byte{5 << 4, flags}, make([]byte, 6), []byte(data))
}

// fragments splits a packet as batman-adv does: from its end.
func fragments(f []byte, size int) (parts [][]byte) {
	p := f[etherHead:]
	total := len(p)
	for n := byte(0); len(p) > 0; n++ {
		cut := max(0, len(p)-size)
		h := make([]byte, 20)
		h[0], h[1], h[3] = batFragment, 15, n<<4
		copy(h[18:], u16(total))
		parts = append(parts, ether(paths.EtherTypeBatman, h, p[cut:]))
		p = p[:cut]
	}
	return parts
}

func TestSealed(t *testing.T) {
	const syn, ack = 2, 16
	wireguard := append([]byte{4, 0, 0, 0}, make([]byte, 28)...)
	in := func(f []byte) []byte { return bat(batUnicast, 10, f) }
	plain := in(udp(8125, []byte("celsius:21.5|g, and so on, for more than one fragment")))
	for _, tc := range []struct {
		name   string
		frames [][]byte
		want   string // of the last one's error; empty: none has any
	}{
		{"a proof", [][]byte{ether(paths.EtherTypeProof, []byte("noise"))}, ""},
		{"MACsec", [][]byte{ether(paths.EtherTypeMACsec, []byte{0x2c, 0}, make([]byte, 60))}, ""},
		{"batman-adv's own", [][]byte{bat(batOGM, 24, nil), bat(batELP, 16, nil), bat(batOGM2, 20, nil), bat(batUnicastTables, 20, nil)}, ""},
		{"an announcement", [][]byte{bat(batBroadcast, 14, udp(paths.AnnouncePort, []byte("signed")))}, ""},
		{"a listener's report", [][]byte{bat(batBroadcast, 14, ip(0, []byte{58, 0, 5, 2, 0, 0, 1, 0}, []byte{143, 0, 0, 0}))}, ""},
		{"a neighbour's advertisement", [][]byte{bat(batUnicast4, 18, ip(58, []byte{136, 0, 0, 0}))}, ""},
		{"ARP", [][]byte{bat(batUnicast4, 18, ether(0x0806, make([]byte, 28)))}, ""},
		{"WireGuard", [][]byte{in(udp(paths.WireGuardPort, wireguard))}, ""},
		{"WireGuard in fragments", fragments(in(udp(paths.WireGuardPort, wireguard)), 40), ""},
		{"TLS", [][]byte{in(tcp(5, 8443, 7, syn, "")), in(tcp(8443, 5, 99, syn|ack, "")), in(tcp(5, 8443, 8, ack, "")),
			in(tcp(5, 8443, 8, ack, "\x16\x03\x01")), in(tcp(8443, 5, 100, ack, "\x16\x03\x03")), in(tcp(5, 8443, 11, ack, "rest"))}, ""},

		{"a stub", [][]byte{[]byte("stub")}, "expected an Ethernet header"},
		{"IPv6 beside the mesh", [][]byte{udp(paths.WireGuardPort, wireguard)}, "EtherType 0x86dd, expected"},
		{"MACsec that only authenticates", [][]byte{ether(paths.EtherTypeMACsec, []byte{0x20, 0}, make([]byte, 60))}, "not encrypted"},
		{"MACsec cut off", [][]byte{ether(paths.EtherTypeMACsec, []byte{0x2c, 0}, make([]byte, 20))}, "of 22 octets"},
		{"another version", [][]byte{ether(paths.EtherTypeBatman, make([]byte, 20))}, "version 0"},
		{"network coding", [][]byte{bat(2, 46, nil)}, "type 0x02"},
		{"cut off", [][]byte{bat(batUnicast, 10, []byte("short"))}, "of 15 octets"},
		{"IPv4", [][]byte{in(ether(0x0800, []byte("E")))}, "EtherType 0x0800 on bat0"},
		{"plain telemetry", [][]byte{plain}, "UDP from port 40000 to 8125"},
		{"in fragments", fragments(plain, 40), "UDP from port 40000 to 8125"},
		{"on WireGuard's port", [][]byte{in(udp(paths.WireGuardPort, []byte("celsius:21.5|g of a node that is not warm")))}, "no message of WireGuard"},
		{"plain HTTP", [][]byte{in(tcp(5, 8080, 7, syn, ""))}, "TCP from port 5 to 8080"},
		{"HTTP on the port of TLS", [][]byte{in(tcp(5, 8443, 7, syn, "")), in(tcp(5, 8443, 8, ack, "GET /"))}, "does not begin with a record"},
		{"an empty fragment", [][]byte{bat(batFragment, 20, nil)}, "fragments of 0 octets"},
		{"an IPv6 fragment", [][]byte{in(ip(44, make([]byte, 8), []byte("x")))}, "next header 44"},
	} {
		var s Sealed
		for i, f := range tc.frames {
			err := s.Check(f)
			switch last := i == len(tc.frames)-1; {
			case tc.want == "" || !last:
				if err != nil {
					t.Errorf("%s: frame %d: %v", tc.name, i, err)
				}
			case err == nil || !strings.Contains(err.Error(), tc.want):
				t.Errorf("%s: got %v, want an error with %q", tc.name, err, tc.want)
			}
		}
		if len(s.parts) != 0 {
			t.Errorf("%s: %d packets are not put together", tc.name, len(s.parts))
		}
	}
	for n := range len(plain) {
		_ = (&Sealed{}).Check(plain[:n]) // must not fall
	}
}

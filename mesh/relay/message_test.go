package relay

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"slices"
	"testing"
	"time"
)

func TestMessages(t *testing.T) {
	d := datagram{ttl: 64, from: netip.MustParseAddrPort("10.43.7.20:50000"), group: sa, payload: []byte("<event/>")}
	b := d.marshal()
	if want := "01" + "40" + "0a2b0714c350" + "ef0203011b39" + hex.EncodeToString(d.payload); hex.EncodeToString(b) != want {
		t.Errorf("got  %x\nwant %s", b, want)
	}
	got, _, err := parse(b)
	if err != nil || got.ttl != 64 || got.from != d.from || got.group != sa || !bytes.Equal(got.payload, d.payload) {
		t.Errorf("got %+v, %v", got, err)
	}
	i := interest{ask: true, lifetime: 195 * time.Second, groups: []netip.AddrPort{chat, sa}}
	b = i.marshal()
	if want := "02" + "01" + "00c3" + "02" + "e00a0a014274" + "ef0203011b39"; hex.EncodeToString(b) != want {
		t.Errorf("got  %x\nwant %s", b, want)
	}
	_, back, err := parse(b)
	if err != nil || !back.ask || back.lifetime != i.lifetime || !slices.Equal(back.groups, i.groups) {
		t.Errorf("got %+v, %v", back, err)
	}
}

func TestWhatIsNoMessage(t *testing.T) {
	for name, text := range map[string]string{
		"empty":                  "",
		"another kind":           "03",
		"cut in its head":        "01400a2b0714c350ef0203011b",
		"time is up":             "01000a2b0714c350ef0203011b39",
		"a source of many":       "0140e00a0a01c350ef0203011b39",
		"a source of nobody":     "014000000000c350ef0203011b39",
		"a source of itself":     "01407f000001c350ef0203011b39",
		"no source port":         "01400a2b07140000ef0203011b39",
		"no group":               "01400a2b0714c3500a2b08141b39",
		"a group of one link":    "01400a2b0714c350e00000fb14e9",
		"no port of the group":   "01400a2b0714c350ef0203010000",
		"unknown flags":          "02020000" + "00",
		"fewer than it says":     "02000000" + "01",
		"more than it says":      "02000000" + "00" + "ef0203011b39",
		"twice the same":         "02000000" + "02" + "ef0203011b39" + "ef0203011b39",
		"not in order":           "02000000" + "02" + "ef0203011b39" + "e00a0a014274",
		"a group that is a host": "02000000" + "01" + "0a0203011b39",
		"for a day":              "0200ffff" + "00",
	} {
		b, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		if d, i, err := parse(b); err == nil {
			t.Errorf("%s: got %+v %+v", name, d, i)
		}
	}
	long := append([]byte{2, 0, 0, 0, 17}, make([]byte, 17*endpointSize)...)
	for i := range 17 {
		copy(long[interestHead+i*endpointSize:], []byte{239, 0, 0, byte(i), 1, 1})
	}
	if _, _, err := parse(long); err == nil {
		t.Error("17 groups were taken")
	}
	d := said(1, sa, MaxPayload)
	if _, _, err := parse(append(d.marshal(), 0)); err == nil {
		t.Error("a payload over the bound was taken")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(said(1, sa, 5).marshal())
	f.Add(interest{ask: true, lifetime: time.Minute, groups: []netip.AddrPort{chat, sa}}.marshal())
	f.Add([]byte{kindInterest, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		d, i, err := parse(b)
		switch {
		case err != nil:
		case d != nil:
			if !bytes.Equal(d.marshal(), b) {
				t.Errorf("not as it came: %x", d.marshal())
			}
			reassemble(t, packets(*d, 576, 7), *d)
		case i != nil:
			if !bytes.Equal(i.marshal(), b) {
				t.Errorf("not as it came: %x", i.marshal())
			}
		default:
			t.Error("neither an error nor a message")
		}
	})
}

// reassemble puts packets together as a receiver does.
func reassemble(t *testing.T, list [][]byte, d datagram) {
	t.Helper()
	var u []byte
	for i, p := range list {
		if len(p) > 576 || int(binary.BigEndian.Uint16(p[2:])) != len(p) || netip.AddrFrom4([4]byte(p[12:])) != d.from.Addr() || netip.AddrFrom4([4]byte(p[16:])) != d.group.Addr() {
			t.Fatalf("packet %d: %x", i, p[:ipHead])
		}
		field := binary.BigEndian.Uint16(p[6:])
		if int(field&0x1fff)*8 != len(u) || (field&0x2000 != 0) != (i < len(list)-1) {
			t.Fatalf("packet %d: fragment field %#x after %d octets", i, field, len(u))
		}
		u = append(u, p[ipHead:]...)
	}
	sum := binary.BigEndian.Uint16(u[6:])
	u[6], u[7] = 0, 0
	if binary.BigEndian.Uint16(u) != d.from.Port() || binary.BigEndian.Uint16(u[2:]) != d.group.Port() || int(binary.BigEndian.Uint16(u[4:])) != len(u) ||
		sum != checksum(d.from.Addr().As4(), d.group.Addr().As4(), u) || !bytes.Equal(u[udpHead:], d.payload) {
		t.Fatalf("got datagram %x", u)
	}
}

func TestFragments(t *testing.T) {
	for _, size := range []int{0, 1, 547, 548, 549, 1472, MaxPayload} {
		d := said(1, sa, size)
		for i := range d.payload {
			d.payload[i] = byte(i * 7)
		}
		reassemble(t, packets(d, 576, 7), d)
	}
	for ttl, want := range map[uint8]byte{1: 1, 2: 1, 16: 15, 64: maxTTL, 255: maxTTL} {
		d := said(1, sa, 1)
		d.ttl = ttl
		if got := packets(d, 1500, 1)[0][8]; got != want {
			t.Errorf("TTL %d: got %d, want %d", ttl, got, want)
		}
	}
}

// FuzzJoins reads what a kernel says: an entry of IPv4 at port 5, one of the bridge
// itself, one of IPv6, and one of another bridge.
func FuzzJoins(f *testing.F) {
	entry := func(port uint32, proto uint16, group ...byte) []byte {
		e := binary.NativeEndian.AppendUint32(nil, port)
		e = append(append(e, 0, 0, 0, 0), append(group, make([]byte, 16-len(group))...)...)
		e = append(binary.BigEndian.AppendUint16(e, proto), 0, 0)
		return attribute(mdbaInfo, append(e, attribute(1, []byte{1, 2, 3, 4})...))
	}
	entries := slices.Concat(entry(5, 0x0800, 239, 2, 3, 1), entry(9, 0x0800, 224, 10, 10, 1), entry(5, 0x86dd, 0xff, 5), entry(6, 0x0800, 239, 5, 5, 55))
	message := append([]byte{7, 0, 0, 0}, binary.NativeEndian.AppendUint32(nil, 9)...)
	message = append(message, attribute(mdba|0x8000, attribute(mdbaEntry|0x8000, entries))...)
	f.Add(message)
	got, err := parseJoins(message, 9)
	if err != nil || !slices.Equal(got, []netip.Addr{sa.Addr(), netip.MustParseAddr("239.5.5.55")}) {
		f.Errorf("got %v, %v", got, err)
	}
	if got, err := parseJoins(message, 8); err != nil || got != nil {
		f.Errorf("of another bridge: got %v, %v", got, err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		groups, err := parseJoins(b, 9)
		if err == nil && len(groups) > len(b)/entrySize {
			t.Errorf("%d groups of %d octets", len(groups), len(b))
		}
	})
}

func attribute(kind uint16, value []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
	b = append(binary.NativeEndian.AppendUint16(b, kind), value...)
	return append(b, make([]byte, -len(b)&3)...)
}

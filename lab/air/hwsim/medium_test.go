package hwsim

import (
	"bytes"
	"net"
	"testing"

	"github.com/mdlayher/netlink"
)

func attrs(t testing.TB, list ...netlink.Attribute) []byte {
	t.Helper()
	b, err := netlink.MarshalAttributes(list)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParseFrame(t *testing.T) {
	data := make([]byte, 24)
	got, err := parseFrame(attrs(t,
		netlink.Attribute{Type: attrTransmitter, Data: []byte{0x42, 0, 0, 0, 0, 1}},
		netlink.Attribute{Type: attrFrame, Data: data},
		netlink.Attribute{Type: attrFlags, Data: []byte{WantStatus, 0, 0, 0}},
		netlink.Attribute{Type: attrCookie, Data: []byte{9, 0, 0, 0, 0, 0, 0, 0}},
		netlink.Attribute{Type: attrFreq, Data: []byte{0x6c, 9, 0, 0}},
		netlink.Attribute{Type: attrTxInfo, Data: []byte{7, 2, 4, 1, 0x13, 1, 0xff, 0}},
		netlink.Attribute{Type: txInfoFlags, Data: []byte{7, 8, 0, 4, 0, 0, 0x13, 0, 1, 0xff, 0, 0}},
	))
	if err != nil {
		t.Fatal(err)
	}
	want := Attempts{{7, 2}, {4, 1}, {0x13, 1}, {-1, 0}}
	if got.Plan != want || got.Kinds != [4]Kind{HT, Legacy, VHT, Legacy} || got.Cookie != 9 || got.FreqMHz != 2412 || got.Flags != WantStatus || !bytes.Equal(got.Data, data) {
		t.Errorf("got %+v", got)
	}
	if !bytes.Equal(want.encode(), []byte{7, 2, 4, 1, 0x13, 1, 0xff, 0}) {
		t.Errorf("encoded: got %x", want.encode())
	}
	for name, b := range map[string][]byte{
		"empty":         nil,
		"no frame":      attrs(t, netlink.Attribute{Type: attrTransmitter, Data: make([]byte, 6)}),
		"short frame":   attrs(t, netlink.Attribute{Type: attrTransmitter, Data: make([]byte, 6)}, netlink.Attribute{Type: attrFrame, Data: make([]byte, 9)}),
		"short plan":    attrs(t, netlink.Attribute{Type: attrTxInfo, Data: make([]byte, 7)}),
		"short address": attrs(t, netlink.Attribute{Type: attrTransmitter, Data: make([]byte, 5)}, netlink.Attribute{Type: attrFrame, Data: data}),
	} {
		if _, err := parseFrame(b); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestAddress(t *testing.T) {
	mac := net.HardwareAddr{2, 0, 0, 0, 3, 0}
	if got := Address(mac).String(); got != "42:00:00:00:03:00" || mac[0] != 2 {
		t.Errorf("got %s", got)
	}
}

func FuzzParseFrame(f *testing.F) {
	f.Add(attrs(f, netlink.Attribute{Type: attrTransmitter, Data: make([]byte, 6)}, netlink.Attribute{Type: attrFrame, Data: make([]byte, 24)}, netlink.Attribute{Type: txInfoFlags, Data: make([]byte, 13)}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if frame, err := parseFrame(b); err == nil && len(frame.Data) < 10 {
			t.Errorf("a frame without a receiver: %+v", frame)
		}
	})
}

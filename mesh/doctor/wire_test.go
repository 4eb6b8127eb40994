package doctor

import (
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/sys/unix"

	"halo.internal/mesh/nstest"
	"halo.internal/model/paths"
)

// TestFloodedProbesAreSeen has frames come in of which one alone is a probe to the
// group that nobody joins.
func TestFloodedProbesAreSeen(t *testing.T) {
	near, far := nstest.Cable(t, "flood0", "flood1")
	ifi, err := net.InterfaceByName("flood1")
	if err != nil {
		t.Fatal(err)
	}
	seen, err := openFlood(ifi)
	if err != nil {
		t.Fatal(err)
	}
	defer seen.Close()
	out, err := packet.Listen(&net.Interface{Index: near.Attrs().Index, Name: "flood0"}, packet.Raw, unix.ETH_P_IPV6, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	want := message{kind: kindToAll, id: 7, index: 3, group: groupFlood}
	frame := func(change func(ip []byte)) []byte {
		payload := want.append(nil)
		ip := make([]byte, headers, headers+len(payload))
		ip[0], ip[5], ip[6], ip[7] = 6<<4, byte(8+len(payload)), unix.IPPROTO_UDP, 1
		copy(ip[24:], paths.DoctorFlood.AsSlice())
		ip[42], ip[43], ip[45] = paths.DoctorPort>>8, paths.DoctorPort&0xff, byte(8+len(payload))
		change(ip)
		eth := append([]byte{0x33, 0x33, 0, 0, 0x42, 0x5a}, near.Attrs().HardwareAddr...)
		return append(append(append(eth, 0x86, 0xdd), ip...), payload...)
	}
	others := []func(ip []byte){
		func(ip []byte) { ip[6] = unix.IPPROTO_TCP },
		func(ip []byte) { ip[24] = 0xfe },
		func(ip []byte) { ip[31] = 1 },
		func(ip []byte) { ip[35] = 1 },
		func(ip []byte) { ip[39] = 0x59 },
		func(ip []byte) { ip[43]++ },
		func([]byte) {},
	}
	b := make([]byte, 2000)
	for limit, got := time.Now().Add(time.Minute), 0; got < 3; { // a cable drops frames until it has a carrier
		for _, change := range others {
			if _, err := out.WriteTo(frame(change), &packet.Addr{HardwareAddr: far.Attrs().HardwareAddr}); err != nil {
				t.Fatal(err)
			}
		}
		if err := seen.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		n, _, err := seen.ReadFrom(b)
		if errors.Is(err, os.ErrDeadlineExceeded) && time.Now().Before(limit) {
			continue
		}
		if err != nil || n < headers || b[6] != unix.IPPROTO_UDP || b[43] != paths.DoctorPort&0xff {
			t.Fatalf("got %x, %v, want the last frame", b[:n], err)
		}
		if m, err := parse(b[headers:n]); err != nil || m != want {
			t.Errorf("got %+v, %v, want %+v", m, err, want)
		}
		got++
	}
}

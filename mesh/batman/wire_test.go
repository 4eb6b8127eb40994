package batman

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/genetlink/genltest"
	mnl "github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"halo.internal/identity"
)

// recorded holds answers of Linux 6.12 (batman-adv 2024.2, arm64) for two nodes
// joined by a veth cable, by "ALGORITHM table".
func recorded(t testing.TB) map[string][]byte {
	t.Helper()
	f, err := os.Open("testdata/kernel-6.12.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all := make(map[string][]byte)
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) != 3 {
			t.Fatalf("testdata: expected three fields, got %q", s.Text())
		}
		b, err := hex.DecodeString(fields[2])
		if err != nil {
			t.Fatal(err)
		}
		all[fields[0]+" "+fields[1]] = b
	}
	return all
}

func hw(t testing.TB, s string) net.HardwareAddr {
	t.Helper()
	m, err := net.ParseMAC(s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// kernel returns a Mesh whose kernel answers each command with the recording of
// that algorithm.
func kernel(t *testing.T, algorithm string) (*Mesh, *[]genetlink.Message) {
	t.Helper()
	answers := recorded(t)
	var asked []genetlink.Message
	conn := genltest.Dial(func(g genetlink.Message, _ mnl.Message) ([]genetlink.Message, error) {
		if g.Header.Command == 0 {
			return nil, nil // the library reads on, for the acknowledgement
		}
		asked = append(asked, g)
		table, ok := map[uint8]string{1: "info", 8: "originators", 9: "neighbours", 10: "gateways"}[g.Header.Command]
		if !ok {
			return nil, nil
		}
		return []genetlink.Message{{Data: answers[algorithm+" "+table]}}, nil
	})
	t.Cleanup(func() { _ = conn.Close() })
	return &Mesh{name: "bat0", index: 4, conn: conn, fam: genetlink.Family{ID: 30, Version: 1}}, &asked
}

func TestTables(t *testing.T) {
	iv, v := hw(t, "f6:fb:cf:cd:29:d8"), hw(t, "da:c5:40:7d:36:50")
	own := hw(t, "02:aa:00:00:00:00")
	for _, test := range []struct {
		algorithm   string
		info        Info
		originators []Originator
		neighbours  []Neighbour
		gateways    []Gateway
	}{
		{
			IV,
			Info{Version: "2024.2", Algorithm: IV, MAC: own, DAT: true, HopPenalty: 30, OGMInterval: 500 * time.Millisecond},
			[]Originator{{MAC: iv, NextHop: iv, Iface: "va", LastSeen: 472 * time.Millisecond, Best: true, TQ: 226}},
			[]Neighbour{{MAC: iv, Iface: "va", LastSeen: 476 * time.Millisecond, TQ: 226}},
			[]Gateway{{MAC: iv, NextHop: iv, Iface: "va", TQ: 226, DownMbit: 10, UpMbit: 2}},
		},
		{
			V,
			Info{Version: "2024.2", Algorithm: V, MAC: own, DAT: true, HopPenalty: 30, OGMInterval: 500 * time.Millisecond},
			[]Originator{{MAC: v, NextHop: v, Iface: "va", LastSeen: 76 * time.Millisecond, Best: true, Throughput: 1e4}},
			[]Neighbour{{MAC: v, Iface: "va", LastSeen: 24 * time.Millisecond, Throughput: 1e4}},
			[]Gateway{{MAC: v, NextHop: v, Iface: "va", Throughput: 10000, DownMbit: 10, UpMbit: 2}},
		},
	} {
		t.Run(test.algorithm, func(t *testing.T) {
			m, _ := kernel(t, test.algorithm)
			compare(t, "info", test.info, m.Info)
			compare(t, "originators", test.originators, m.Originators)
			compare(t, "neighbours", test.neighbours, m.Neighbours)
			compare(t, "gateways", test.gateways, m.Gateways)
		})
	}
}

func compare[T any](t *testing.T, what string, want T, read func() (T, error)) {
	t.Helper()
	got, err := read()
	if err != nil {
		t.Errorf("%s: %v", what, err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-expected +got):\n%s", what, diff)
	}
}

// TestClients has no recording: the numbers are those of the kernel's interface.
func TestClients(t *testing.T) {
	client, node := hw(t, "02:aa:00:00:00:00"), hw(t, "f6:fb:cf:cd:29:d8")
	e := mnl.NewAttributeEncoder()
	e.Bytes(16, client) // BATADV_ATTR_TT_ADDRESS
	e.Bytes(9, node)    // BATADV_ATTR_ORIG_ADDRESS
	e.Uint16(20, 1)     // BATADV_ATTR_TT_VID
	e.Flag(22, true)    // BATADV_ATTR_FLAG_BEST
	b, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseClient(b)
	if diff := cmp.Diff(Client{client, node, true}, got); err != nil || diff != "" {
		t.Errorf("%v (-expected +got):\n%s", err, diff)
	}
	if _, err := parseClient(b[:8]); err == nil {
		t.Error("an address of four octets was taken")
	}
}

func TestRequests(t *testing.T) {
	m, asked := kernel(t, IV)
	if err := m.set(Config{OGMInterval: 5 * time.Second}); err != nil {
		t.Fatal(err)
	}
	if err := m.set(Config{HopPenalty: 15, Bridged: true, Gateway: GatewayServer}); err != nil {
		t.Fatal(err)
	}
	if err := m.SetPort("lo", Port{HopPenalty: 7, ELPInterval: 2 * time.Second, Throughput: 0.3}); err != nil {
		t.Fatal(err)
	}
	if err := m.SetHopPenalty(255); err != nil {
		t.Fatal(err)
	}
	if err := m.SetOGMInterval(250 * time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if err := m.SetGateway(GatewayClient); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Originators(); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, g := range *asked {
		got = append(got, fmt.Sprintf("%d %x", g.Header.Command, g.Data))
	}
	// Mesh index (3) 4; bridge-loop avoidance (46) 0, distributed ARP table (47) 1,
	// multicast to all (55) 1, OGM interval (57) 5000 ms, gateway mode (51) 0; then
	// with hop penalty (53) 15, as a server.
	// A port (6) has its hop penalty, ELP interval (58) 2000 ms and throughput (59).
	const index = "0800030004000000"
	want := []string{
		"15 " + index + "05002e0000000000" + "05002f0001000000" + "0500370001000000" + "0800390088130000" + "0500330000000000",
		"15 " + index + "05002e0001000000" + "05002f0001000000" + "0500370001000000" + "08003900e8030000" + "050035000f000000" + "0500330002000000",
		"16 " + index + "0800060001000000" + "0500350007000000" + "08003a00d0070000" + "08003b0003000000",
		"15 " + index + "05003500ff000000",
		"15 " + index + "08003900fa000000",
		"15 " + index + "0500330001000000",
		"8 " + index,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("requests (-expected +got):\n%s", diff)
	}
}

func TestNewLink(t *testing.T) {
	var b []byte
	for _, a := range linkAttributes(Config{Name: "bat0", Algorithm: V, MAC: hw(t, "02:aa:00:00:00:01")}) {
		b = append(b, a.Serialize()...)
	}
	// IFLA_IFNAME, IFLA_ADDRESS, IFLA_LINKINFO{IFLA_INFO_KIND, IFLA_INFO_DATA{algorithm}}
	want := "09000300" + "6261743000000000" +
		"0a000100" + "02aa000000010000" +
		"24001200" + "0a000100" + "6261746164760000" + "14000200" + "0d000100" + "4241544d414e5f5600000000"
	if got := hex.EncodeToString(b); got != want {
		t.Errorf("link attributes: expected\n%s, got\n%s", want, got)
	}
}

func TestTablesWithoutPorts(t *testing.T) {
	conn := genltest.Dial(func(g genetlink.Message, _ mnl.Message) ([]genetlink.Message, error) {
		err := unix.ENOENT
		if g.Header.Command == cmdGetMesh {
			err = unix.ENODEV
		}
		return nil, &mnl.OpError{Op: "receive", Err: err}
	})
	defer conn.Close()
	m := &Mesh{name: "bat0", index: 4, conn: conn}
	compare(t, "originators", []Originator{}, m.Originators)
	compare(t, "neighbours", nil, m.Neighbours)
	compare(t, "gateways", []Gateway{}, m.Gateways)
	if _, err := m.Info(); !errors.Is(err, unix.ENODEV) {
		t.Errorf("without bat0: expected ENODEV, got %v", err)
	}
}

func TestDamagedAnswers(t *testing.T) {
	for _, test := range []struct{ name, attributes string }{
		{"cut short", "0a000900f6fb"},
		{"address of four octets", "08000900f6fbcfcd"},
		{"quality of two octets", "06001900e2000000"},
		{"length below the header's", "02000900"},
	} {
		b, err := hex.DecodeString(test.attributes)
		if err != nil {
			t.Fatal(err)
		}
		if o, _, err := parseOriginator(b); err == nil {
			t.Errorf("%s: expected an error, got %+v", test.name, o)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	good := Config{Name: "bat0", Algorithm: IV, MAC: hw(t, "02:aa:00:00:00:01")}
	for name, change := range map[string]func(*Config){
		"BATMAN_VI": func(c *Config) { c.Algorithm = "BATMAN_VI" },
		"4 octets":  func(c *Config) { c.MAC = c.MAC[:4] },
		"kind":      func(c *Config) { c.Name = "lo" },
	} {
		c := good
		change(&c)
		if _, err := Open(c); err == nil || !strings.Contains(err.Error(), strings.Split(name, " ")[0]) {
			t.Errorf("%s: expected an error that names it, got %v", name, err)
		}
	}
}

func TestMAC(t *testing.T) {
	a, b := MAC(identity.PublicKey{1}, 0), MAC(identity.PublicKey{2}, 0)
	if a[0]&3 != 2 || b[0]&3 != 2 || bytes.Equal(a, b) {
		t.Errorf("expected two different, locally administered unicast addresses, got %s and %s", a, b)
	}
	if want := hw(t, "c6:eb:06:17:ec:06"); !bytes.Equal(a, want) {
		t.Errorf("the address of a node must not change: expected %s, got %s", want, a)
	}
}

func TestAnyTurn(t *testing.T) {
	for _, node := range []identity.PublicKey{{1}, {2}, {3}} {
		for turn := range uint8(Turns) {
			if got, want := AnyTurn(MAC(node, turn)), AnyTurn(MAC(node, 0)); !bytes.Equal(got, want) {
				t.Errorf("turn %d: expected %s, got %s", turn, want, got)
			}
		}
	}
	if a := hw(t, "0c:16:cf:00:00:01"); !bytes.Equal(AnyTurn(a), a) {
		t.Error("an address that no turn has made is another's")
	}
}

func TestTurned(t *testing.T) {
	for _, own := range []string{"00:16:cf:00:00:01", "02:48:41:4c:00:00", "0e:ff:ff:ff:ff:ff"} {
		seen := map[string]bool{}
		for turn := range uint8(2 * Turns) {
			a := Turned(hw(t, own), turn)
			if a[0]&1 != 0 || turn%Turns > 0 && a[0]&2 == 0 || !bytes.Equal(a[1:], hw(t, own)[1:]) {
				t.Errorf("%s at turn %d: %s", own, turn, a)
			}
			seen[a.String()] = true
		}
		if len(seen) != Turns || !seen[own] {
			t.Errorf("%s: %v, want %d addresses, it among them", own, seen, Turns)
		}
	}
}

// FuzzParse holds that no answer makes the parsers fail otherwise than by an
// error.
func FuzzParse(f *testing.F) {
	for _, b := range recorded(f) {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if o, _, err := parseOriginator(b); err == nil && len(o.MAC) != 0 && len(o.MAC) != 6 {
			t.Errorf("originator of %d octets", len(o.MAC))
		}
		if n, _, err := parseNeighbour(b); err == nil && len(n.MAC) != 0 && len(n.MAC) != 6 {
			t.Errorf("neighbour of %d octets", len(n.MAC))
		}
		if g, err := parseGateway(b); err == nil && len(g.NextHop) != 0 && len(g.NextHop) != 6 {
			t.Errorf("next hop of %d octets", len(g.NextHop))
		}
		if c, err := parseClient(b); err == nil && len(c.Originator) != 0 && len(c.Originator) != 6 {
			t.Errorf("originator of %d octets", len(c.Originator))
		}
		if i, err := parseInfo(b); err == nil && i.OGMInterval < 0 {
			t.Errorf("interval %s", i.OGMInterval)
		}
	})
}

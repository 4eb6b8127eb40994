package filter

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"

	"halo.internal/mesh/nstest"
	"halo.internal/mesh/port/proof"
	"halo.internal/model/paths"
)

func TestMain(m *testing.M) { os.Exit(nstest.Main(m)) }

var (
	member   = proof.MAC{2, 0, 0, 0, 0, 1}
	member2  = proof.MAC{2, 0, 0, 0, 0, 2}
	stranger = proof.MAC{2, 0, 0, 0, 0, 9}
)

const (
	typeIPv4 = 0x0800
	typeARP  = 0x0806
	typeIPv6 = 0x86dd
)

// frame is one kind of traffic that may meet a port.
type frame struct {
	name    string
	from    proof.MAC
	kind    uint16
	payload []byte
}

func udp(from, to uint16) []byte {
	b := make([]byte, 28)
	b[0], b[8], b[9] = 0x45, 64, 17
	binary.BigEndian.PutUint16(b[2:], 28)
	copy(b[12:], []byte{192, 0, 2, 1})
	copy(b[16:], []byte{255, 255, 255, 255})
	binary.BigEndian.PutUint16(b[20:], from)
	binary.BigEndian.PutUint16(b[22:], to)
	binary.BigEndian.PutUint16(b[24:], 8)
	var sum uint32
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	binary.BigEndian.PutUint16(b[10:], ^uint16(sum+sum>>16))
	return b
}

var traffic = []frame{
	{"proof from anyone", stranger, paths.EtherTypeProof, []byte("any")},
	{"batman from a member", member, paths.EtherTypeBatman, []byte("any")},
	{"batman from another", member2, paths.EtherTypeBatman, []byte("any")},
	{"batman from a stranger", stranger, paths.EtherTypeBatman, []byte("any")},
	{"MACsec from a member", member, paths.EtherTypeMACsec, []byte("any")},
	{"MACsec from a stranger", stranger, paths.EtherTypeMACsec, []byte("any")},
	{"ARP", stranger, typeARP, []byte("any")},
	{"IPv6 from a member", member, typeIPv6, append([]byte{0x60}, make([]byte, 39)...)},
	{"DHCP answer", stranger, typeIPv4, udp(67, 68)},
	{"DHCP request", stranger, typeIPv4, udp(68, 67)},
	{"other UDP", member, typeIPv4, udp(53, 68)},
	{"LLDP", stranger, 0x88cc, []byte("any")},
}

// wire sends frames into one end and sees what comes out of the filter at the
// other: a socket for one EtherType is behind it.
type wire struct {
	out *packet.Conn
	in  map[uint16]*packet.Conn
}

func newWire(t *testing.T) wire {
	t.Helper()
	a, b := nstest.Cable(t, "inside", "outside")
	w := wire{out: listen(t, b, 0x88cd), in: map[uint16]*packet.Conn{}}
	for _, f := range traffic {
		if w.in[f.kind] == nil {
			w.in[f.kind] = listen(t, a, f.kind)
		}
	}
	return w
}

func listen(t *testing.T, l netlink.Link, kind uint16) *packet.Conn {
	t.Helper()
	c, err := packet.Listen(&net.Interface{Index: l.Attrs().Index, Name: l.Attrs().Name}, packet.Raw, int(kind), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func (w wire) send(t *testing.T, f frame) {
	t.Helper()
	b := slices.Concat(proof.Broadcast[:], f.from[:], binary.BigEndian.AppendUint16(nil, f.kind), f.payload)
	if _, err := w.out.WriteTo(b, &packet.Addr{HardwareAddr: proof.Broadcast[:]}); err != nil {
		t.Fatal(err)
	}
}

// passes sends f and a proof behind it, and tells whether f came through before
// or shortly after that.
func (w wire) passes(t *testing.T, f frame, mark int) bool {
	t.Helper()
	w.send(t, f)
	marker := frame{"marker", stranger, paths.EtherTypeProof, fmt.Appendf(nil, "marker %d", mark)}
	w.send(t, marker)
	if f.kind == paths.EtherTypeProof {
		return w.await(t, f, 5*time.Second) && w.await(t, marker, 5*time.Second)
	}
	if !w.await(t, marker, 5*time.Second) {
		t.Fatal("not even a proof came through")
	}
	return w.await(t, f, 20*time.Millisecond)
}

// await reads until f comes; the host itself sends IPv6 on the cable.
func (w wire) await(t *testing.T, f frame, limit time.Duration) bool {
	t.Helper()
	c, buf := w.in[f.kind], make([]byte, 2000)
	if err := c.SetReadDeadline(time.Now().Add(limit)); err != nil {
		t.Fatal(err)
	}
	for {
		n, _, err := c.ReadFrom(buf)
		if err != nil {
			if e, ok := err.(net.Error); ok && e.Timeout() {
				return false
			}
			t.Fatal(err)
		}
		if n >= 14+len(f.payload) && proof.MAC(buf[6:12]) == f.from && slices.Equal(buf[14:14+len(f.payload)], f.payload) {
			return true
		}
	}
}

func TestWhatComesThrough(t *testing.T) {
	w := newWire(t)
	mark := 0
	for _, test := range []struct {
		name   string
		apply  func() error
		passes []string
	}{
		{"searching", func() error { return Apply("inside", Policy{}) }, []string{"proof from anyone"}},
		{"searching upstream too", func() error { return Apply("inside", Policy{DHCP: true}) }, []string{"proof from anyone", "DHCP answer"}},
		{"one member", func() error { return Apply("inside", Policy{Members: []proof.MAC{member}}) }, []string{"proof from anyone", "batman from a member"}},
		{"two members", func() error { return Apply("inside", Policy{Members: []proof.MAC{member, member2}}) }, []string{"proof from anyone", "batman from a member", "batman from another"}},
		{"the first is lost", func() error { return Apply("inside", Policy{Members: []proof.MAC{member2}}) }, []string{"proof from anyone", "batman from another"}},
		{"members with MACsec", func() error { return Apply("inside", Policy{Secured: []proof.MAC{member, member2}}) }, []string{"proof from anyone", "MACsec from a member"}},
		{"one with and one without", func() error {
			return Apply("inside", Policy{Members: []proof.MAC{member2}, Secured: []proof.MAC{member}})
		}, []string{"proof from anyone", "batman from another", "MACsec from a member"}},
		{"a radio", func() error { return Apply("inside", Policy{Batman: true}) }, []string{"proof from anyone", "batman from a member", "batman from another", "batman from a stranger"}},
		{"nobody is left", func() error { return Apply("inside", Policy{}) }, []string{"proof from anyone"}},
		{"open", func() error { return Open("inside") }, names(traffic)},
		{"open as before", func() error { return Open("inside") }, names(traffic)},
	} {
		t.Run(test.name, func(t *testing.T) {
			if err := test.apply(); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range traffic {
				mark++
				if w.passes(t, f, mark) {
					got = append(got, f.name)
				}
			}
			if !slices.Equal(got, test.passes) {
				t.Errorf("expected through: %q, got %q", test.passes, got)
			}
		})
	}
}

func names(list []frame) (n []string) {
	for _, f := range list {
		n = append(n, f.name)
	}
	return n
}

// The kernel says what it holds.
func TestReadBack(t *testing.T) {
	nstest.Cable(t, "inside", "outside")
	if err := Apply("inside", Policy{Members: []proof.MAC{member, member2}}); err != nil {
		t.Fatal(err)
	}
	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyNetdev)
	if err != nil {
		t.Fatal(err)
	}
	if len(chains) != 1 || chains[0].Table.Name != "halo-port-inside" || chains[0].Policy == nil || *chains[0].Policy != nftables.ChainPolicyDrop {
		t.Fatalf("expected one chain, of table halo-port-inside, that drops; got %+v", chains)
	}
	rules, err := c.GetRules(chains[0].Table, chains[0])
	if err != nil {
		t.Fatal(err)
	}
	if len(rules) != 3 {
		t.Errorf("expected three rules, got %d", len(rules))
	}
	set, err := c.GetSetByName(chains[0].Table, setMembers)
	if err != nil {
		t.Fatal(err)
	}
	elements, err := c.GetSetElements(set)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range elements {
		got = append(got, proof.MAC(e.Key).String())
	}
	slices.Sort(got)
	if want := []string{member.String(), member2.String()}; !slices.Equal(got, want) {
		t.Errorf("members: expected %v, got %v", want, got)
	}
	if err := Open("inside"); err != nil {
		t.Fatal(err)
	}
	if tables, err := c.ListTablesOfFamily(nftables.TableFamilyNetdev); err != nil || len(tables) != 0 {
		t.Errorf("after Open: expected no table, got %v, %v", tables, err)
	}
}

func TestOpenWithoutPort(t *testing.T) {
	if err := Open("nosuch"); err != nil {
		t.Errorf("opening a port that is gone: expected no error, got %v", err)
	}
}

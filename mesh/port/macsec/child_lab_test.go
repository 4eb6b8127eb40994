//go:build lab

package macsec_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/rpc"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"halo.internal/identity"
	"halo.internal/mesh/batman"
	"halo.internal/mesh/nstest"
	"halo.internal/mesh/port"
	"halo.internal/model"
)

// childConfig says what a process of its own is to be: a member with one port,
// in a namespace.
type childConfig struct {
	Key  byte
	Port string
	Turn uint8
}

const (
	group   = "ff02::4500"
	udpPort = 4500
)

func testKey(n byte) identity.Key {
	k, err := identity.FromSeed(slices.Repeat([]byte{n}, 32))
	if err != nil {
		panic(err)
	}
	return k
}

func (c childConfig) socket() string { return fmt.Sprintf("/tmp/member-%d.sock", c.Key) }

func ula(key byte) string { return fmt.Sprintf("fd00::%d", key) }

// TestChild is that process. It ends with its parent's test.
func TestChild(t *testing.T) {
	if flag.NArg() == 0 {
		return // it is run as a test like the others
	}
	var c childConfig
	if err := json.Unmarshal([]byte(flag.Arg(0)), &c); err != nil {
		t.Fatal(err)
	}
	if err := runChild(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

// Member answers for the process.
type Member struct {
	c     childConfig
	bat   *batman.Mesh
	ports *port.Ports
	conn  *ipv6.PacketConn

	mu      sync.Mutex
	refused map[identity.PublicKey]bool
	heard   map[string][]int // how often each number came, by sender's mark
	events  []string
}

func runChild(ctx context.Context, c childConfig) error {
	m := &Member{c: c, refused: map[identity.PublicKey]bool{}, heard: map[string][]int{}}
	var err error
	m.bat, err = batman.Open(batman.Config{Name: "bat0", Algorithm: batman.IV, MAC: batman.MAC(testKey(c.Key).Public(), c.Turn), Gateway: batman.GatewayClient})
	if err != nil {
		return err
	}
	link, err := netlink.LinkByName("bat0")
	if err != nil {
		return err
	}
	addr, err := netlink.ParseAddr(ula(c.Key) + "/64")
	if err != nil {
		return err
	}
	addr.Flags = unix.IFA_F_NODAD
	if err := netlink.AddrReplace(link, addr); err != nil {
		return err
	}
	m.ports, err = port.New(port.Config{
		Key: testKey(c.Key), Network: testKey(99).Public(), PSK: "a mesh for tests", Carrier: m.bat,
		Physical: func(l netlink.Link) bool { return l.Attrs().Name == c.Port },
		Address:  func(own net.HardwareAddr) net.HardwareAddr { return batman.Turned(own, c.Turn) },
		Admit: func(k identity.PublicKey) error {
			m.mu.Lock()
			defer m.mu.Unlock()
			if m.refused[k] {
				return errors.New("revoked")
			}
			return nil
		},
		Notify: func(e model.Event) {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.events = append(m.events, e.Kind+" "+e.Message)
		},
		Log: slog.New(slog.NewTextHandler(os.Stdout, nil)),
	})
	if err != nil {
		return err
	}
	if err := m.listen(); err != nil {
		return err
	}
	_ = os.Remove(c.socket()) // of a life before
	l, err := net.Listen("unix", c.socket())
	if err != nil {
		return err
	}
	s := rpc.NewServer()
	if err := s.Register(m); err != nil {
		return err
	}
	go s.Accept(l)
	return m.ports.Run(ctx)
}

// listen takes what comes over bat0, to this member or to all.
func (m *Member) listen() error {
	pc, err := net.ListenPacket("udp6", fmt.Sprintf("[::]:%d", udpPort))
	if err != nil {
		return err
	}
	if err := pc.(*net.UDPConn).SetReadBuffer(4 << 20); err != nil {
		return err
	}
	iface, err := net.InterfaceByName("bat0")
	if err != nil {
		return err
	}
	m.conn = ipv6.NewPacketConn(pc)
	if err := errors.Join(m.conn.JoinGroup(iface, &net.UDPAddr{IP: net.ParseIP(group)}), m.conn.SetMulticastInterface(iface), m.conn.SetMulticastLoopback(false)); err != nil {
		return err
	}
	go func() {
		buf := make([]byte, 2000)
		for {
			n, _, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			var mark string
			var number int
			if _, err := fmt.Sscan(string(buf[:n]), &mark, &number); err != nil {
				continue
			}
			m.mu.Lock()
			for len(m.heard[mark]) <= number {
				m.heard[mark] = append(m.heard[mark], 0)
			}
			m.heard[mark][number]++
			m.mu.Unlock()
		}
	}()
	return nil
}

// Load is numbered datagrams.
type Load struct {
	To       string
	Mark     string
	Count    int
	Size     int
	Interval time.Duration
}

// Send sends them all.
func (m *Member) Send(l Load, _ *bool) error {
	to := &net.UDPAddr{IP: net.ParseIP(l.To), Port: udpPort}
	if strings.HasPrefix(l.To, "ff02:") {
		to.Zone = "bat0"
	}
	for i := range l.Count {
		b := fmt.Appendf(nil, "%s %d ", l.Mark, i)
		b = append(b, make([]byte, max(0, l.Size-len(b)))...)
		if _, err := m.conn.WriteTo(b, nil, to); err != nil {
			return err
		}
		time.Sleep(l.Interval)
	}
	return nil
}

// Heard tells how often each datagram of that mark came.
func (m *Member) Heard(mark string, times *[]int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	*times = slices.Clone(m.heard[mark])
	return nil
}

// Refuse has a member turned away.
func (m *Member) Refuse(key byte, _ *bool) error {
	m.mu.Lock()
	m.refused[testKey(key).Public()] = true
	m.mu.Unlock()
	m.ports.Recheck()
	return nil
}

// Status is what the process tells of itself.
type Status struct {
	Ports      []model.Port
	Neighbours map[string]string // canonical ID → interface
	Links      map[string]int    // index, by name
	MTU        map[string]int
	Events     []string
}

// Status tells.
func (m *Member) Status(_ bool, s *Status) error {
	*s = Status{Ports: m.ports.List(), Neighbours: map[string]string{}, Links: map[string]int{}, MTU: map[string]int{}}
	list, err := m.bat.Neighbours()
	if err != nil {
		return err
	}
	for _, n := range list {
		id, ok := m.ports.Member(n.Iface, n.MAC)
		if !ok {
			id = n.MAC.String()
		}
		if n.LastSeen < 10*time.Second {
			s.Neighbours[id] = n.Iface
		}
	}
	links, err := netlink.LinkList()
	if err != nil {
		return err
	}
	for _, l := range links {
		s.Links[l.Attrs().Name], s.MTU[l.Attrs().Name] = l.Attrs().Index, l.Attrs().MTU
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s.Events = slices.Clone(m.events)
	return nil
}

// member is such a process as the test sees it.
type member struct {
	t    *testing.T
	c    childConfig
	host *nstest.Host
	*nstest.Process
}

func (m *member) start() {
	m.t.Helper()
	_ = os.Remove(m.c.socket())
	text, err := json.Marshal(m.c)
	ok(m.t, err)
	m.Process = m.host.Start(m.t, "/proc/self/exe", "-test.run=^TestChild$", "-test.timeout=0", "--", string(text))
	until(m.t, "the process answers", func() error { return m.try("Status", false, new(Status)) })
}

func (m *member) try(method string, args, reply any) error {
	c, err := rpc.Dial("unix", m.c.socket())
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Call("Member."+method, args, reply)
}

func (m *member) call(method string, args, reply any) {
	m.t.Helper()
	ok(m.t, m.try(method, args, reply))
}

func (m *member) status() (s Status) {
	m.t.Helper()
	m.call("Status", false, &s)
	return s
}

func (m *member) send(to, mark string, count, size int, interval time.Duration) {
	m.t.Helper()
	m.call("Send", Load{to, mark, count, size, interval}, new(bool))
}

// count returns how many datagrams of that mark came, each counted once.
func (m *member) count(mark string) (n int) {
	m.t.Helper()
	var times []int
	m.call("Heard", mark, &times)
	for _, t := range times {
		if t > 0 {
			n++
		}
	}
	return n
}

// reaches sends datagrams until one arrives.
func (m *member) reaches(other *member, to, mark string) {
	m.t.Helper()
	until(m.t, fmt.Sprintf("member %d reaches %d at %s", m.c.Key, other.c.Key, to), func() error {
		m.send(to, mark, 1, 0, 0)
		time.Sleep(200 * time.Millisecond)
		if other.count(mark) == 0 {
			s, o := m.status(), other.status()
			return fmt.Errorf("nothing came; %+v %+v; %+v %+v", s.Ports, s.Neighbours, o.Ports, o.Neighbours)
		}
		return nil
	})
}

func (m *member) macsec() model.MACsec {
	m.t.Helper()
	for _, p := range m.status().Ports {
		if p.MACsec != nil {
			return *p.MACsec
		}
	}
	return model.MACsec{}
}

func (m *member) await(state string) {
	m.t.Helper()
	until(m.t, fmt.Sprintf("member %d: %s", m.c.Key, state), func() error {
		if s := m.macsec(); s.State != state {
			return fmt.Errorf("MACsec: %+v, events %q", s, m.status().Events)
		}
		return nil
	})
}

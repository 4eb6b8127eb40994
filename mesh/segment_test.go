package mesh_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"

	"halo.internal/identity"
	"halo.internal/mesh"
	"halo.internal/mesh/port"
	"halo.internal/model"
	"halo.internal/model/bundle"
	"halo.internal/model/dot11"
	"halo.internal/model/paths"
)

const (
	envSegment  = "HALO_TEST_SEGMENT"
	wireIface   = "eth9" // of a board whose underlay is a segment
	helloType   = 0x88B7 // stands for whatever keeps links up
	deafProfile = "deaf" // file: while it is there, the board hears nobody on the channel that it names
)

// segment is an underlay on which only those hear each other who use the same mesh
// profile: bat0 is a VXLAN over the wire, by a number that follows from the profile.
// What is said past the mesh goes over the wire itself.
type segment struct {
	noRadios
	c    mesh.UnderlayConfig
	root string

	mu    sync.Mutex
	mesh  bundle.Mesh
	err   error
	heard map[dot11.MAC]time.Time
	out   *packet.Conn
	own   net.HardwareAddr
	again chan struct{}
}

func newSegment(c mesh.UnderlayConfig, root string) *segment {
	return &segment{c: c, root: root, mesh: c.Bundle.Mesh.WithDefaults(), err: errors.New("no wire yet"), heard: map[dot11.MAC]time.Time{}, again: make(chan struct{}, 1)}
}

func (s *segment) number() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, _ := json.Marshal(s.mesh)
	h := sha256.Sum256(b)
	return int(binary.BigEndian.Uint32(h[:]) >> 9)
}

func (s *segment) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := s.serve(ctx); err != nil {
			s.set(err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}

func (s *segment) set(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *segment) serve(ctx context.Context) error {
	wire, err := netlink.LinkByName(wireIface)
	if err != nil {
		return err
	}
	h := sha256.Sum256([]byte(s.c.Key.ID()))
	address := &netlink.Addr{IPNet: &net.IPNet{IP: net.IPv4(172, 16+h[0]%16, h[1], 1+h[2]%254), Mask: net.CIDRMask(12, 32)}}
	if err := errors.Join(netlink.LinkSetUp(wire), netlink.AddrReplace(wire, address)); err != nil {
		return err
	}
	if old, err := netlink.LinkByName(paths.BatIface); err == nil {
		if err := netlink.LinkDel(old); err != nil {
			return err
		}
	}
	a := netlink.NewLinkAttrs()
	a.Name = paths.BatIface
	if err := netlink.LinkAdd(&netlink.Vxlan{LinkAttrs: a, VxlanId: s.number(), VtepDevIndex: wire.Attrs().Index, Port: 4789, Group: net.IPv4(239, 1, 1, 1), Learning: true}); err != nil {
		return err
	}
	if err := mesh.AddressUnderlay(paths.BatIface, identity.Underlay(s.c.Network, s.c.Key.Public())); err != nil {
		return err
	}
	bat, err := net.InterfaceByName(paths.BatIface)
	if err != nil {
		return err
	}
	under, err := net.InterfaceByName(wireIface)
	if err != nil {
		return err
	}
	hello, err := packet.Listen(bat, packet.Raw, helloType, nil)
	if err != nil {
		return err
	}
	out, err := packet.Listen(under, packet.Raw, paths.EtherTypeRejoin, nil)
	if err != nil {
		return errors.Join(err, hello.Close())
	}
	s.mu.Lock()
	s.out, s.own, s.err = out, under.HardwareAddr, nil
	clear(s.heard)
	s.mu.Unlock()
	var owned sync.WaitGroup
	defer owned.Wait()
	defer func() { _, _ = hello.Close(), out.Close() }() // there is nothing to flush
	owned.Go(func() { s.listen(hello) })
	owned.Go(func() { s.overhear(out) })
	t := time.NewTicker(300 * time.Millisecond)
	defer t.Stop()
	for {
		f := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, bat.HardwareAddr...)
		f = append(binary.BigEndian.AppendUint16(f, helloType), make([]byte, 46)...)
		_, _ = hello.WriteTo(f, &packet.Addr{HardwareAddr: net.HardwareAddr(f[:6])}) // another follows
		select {
		case <-ctx.Done():
			return nil
		case <-s.again:
			return nil
		case <-t.C:
		}
	}
}

func (s *segment) listen(c *packet.Conn) {
	b := make([]byte, 100)
	for {
		n, _, err := c.ReadFrom(b)
		if err != nil {
			return
		}
		if n < 14 {
			continue
		}
		s.mu.Lock()
		at, known := s.heard[dot11.MAC(b[6:12])]
		s.heard[dot11.MAC(b[6:12])] = time.Now()
		s.mu.Unlock()
		if !known || time.Since(at) > 2*time.Second {
			s.c.Notify(model.Event{Kind: port.EventProven, Severity: model.Info, Message: "a member is there"})
		}
	}
}

func (s *segment) overhear(c *packet.Conn) {
	b := make([]byte, 2000)
	for {
		n, _, err := c.ReadFrom(b)
		if err != nil {
			return
		}
		if n >= 14 && string(b[6:12]) != string(s.own) {
			s.c.Strange(mesh.Stranger{Iface: wireIface, MAC: dot11.MAC(b[6:12])}, append([]byte{}, b[14:n]...))
		}
	}
}

func (s *segment) Switch(m bundle.Mesh) {
	s.mu.Lock()
	s.mesh = m.WithDefaults()
	clear(s.heard)
	s.mu.Unlock()
	s.again <- struct{}{}
}

// Permit takes what the file does not forbid.
func (s *segment) Permit(m bundle.Mesh) error {
	if _, err := os.Stat(filepath.Join(s.root, "forbid")); err == nil {
		return errors.New("channel is not allowed here")
	}
	return nil
}

func (s *segment) Say(to mesh.Stranger, payload []byte) {
	mac := to.MAC
	if to == (mesh.Stranger{}) {
		mac = dot11.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.out == nil {
		return
	}
	f := append(append([]byte{}, mac[:]...), s.own...)
	f = binary.BigEndian.AppendUint16(f, paths.EtherTypeRejoin)
	_, _ = s.out.WriteTo(append(f, payload...), &packet.Addr{HardwareAddr: mac[:]}) // it is said again
}

func (*segment) Recheck() {}

func (s *segment) Ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *segment) Ports() []model.Port {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := model.Port{Iface: wireIface, Role: "mesh"}
	for mac, at := range s.heard {
		if time.Since(at) < 2*time.Second {
			p.Members = append(p.Members, mac.String())
		}
	}
	return []model.Port{p}
}

func (*segment) Neighbours() ([]model.Neighbour, error) { return []model.Neighbour{}, nil }
func (*segment) Originators() (int, error)              { return 0, nil }

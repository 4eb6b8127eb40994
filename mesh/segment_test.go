package mesh_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"

	"halo.internal/identity"
	"halo.internal/mesh"
	"halo.internal/mesh/batman"
	"halo.internal/mesh/doctor"
	"halo.internal/mesh/port"
	"halo.internal/model"
	"halo.internal/model/bundle"
	"halo.internal/model/dot11"
	"halo.internal/model/paths"
)

const (
	envSegment = "HALO_TEST_SEGMENT"
	envAir     = "HALO_TEST_AIR"  // the wire stands for radios: also what is said past the mesh is heard on its channel alone
	envDead    = "HALO_TEST_DEAD" // a channel on which nothing is heard
	wireIface  = "eth9"           // of a board whose underlay is a segment
	helloType  = 0x88B7           // stands for whatever keeps links up
)

// segment is an underlay on which only those hear each other who use the same mesh
// profile: bat0 is a tap, and what goes through it has a number on the wire that
// follows from the profile. What is said past the mesh goes over the wire itself.
type segment struct {
	noRadios
	c    mesh.UnderlayConfig
	root string

	mu    sync.Mutex
	mesh  bundle.Mesh
	err   error
	heard map[dot11.MAC]time.Time
	out   *packet.Conn
	early []func() // what was said before the wire was open
	own   net.HardwareAddr
	again chan struct{}
}

func (*segment) Ways([]identity.PublicKey) (mesh.Ways, error) { return mesh.Ways{}, nil }

func (*segment) NextHop() *model.ReportNextHop { return nil }

func (*segment) Tables(...string) (mesh.Tables, error) { return mesh.Tables{}, nil }

func (*segment) Present() map[dot11.MAC]bool { return nil }

// There is no batman-adv to flood.
func (*segment) Flooding() (bool, error)                 { return false, fs.ErrNotExist }
func (*segment) Flood() error                            { return fs.ErrNotExist }
func (*segment) Servers() ([]doctor.Server, bool, error) { return nil, false, nil }

func newSegment(c mesh.UnderlayConfig, root string) *segment {
	return &segment{c: c, root: root, mesh: c.Bundle.Mesh.WithDefaults(), err: errors.New("no wire yet"), heard: map[dot11.MAC]time.Time{}, again: make(chan struct{}, 1)}
}

func (s *segment) number() uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, _ := json.Marshal(s.mesh)
	h := sha256.Sum256(b)
	return binary.BigEndian.Uint32(h[:])
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

// tapMTU leaves room for the header on the wire.
const tapMTU = 1400

func (s *segment) serve(ctx context.Context) error {
	wire, err := netlink.LinkByName(wireIface)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(wire); err != nil {
		return err
	}
	if old, err := netlink.LinkByName(paths.BatIface); err == nil {
		if err := netlink.LinkDel(old); err != nil {
			return err
		}
	}
	a := netlink.NewLinkAttrs()
	a.Name = paths.BatIface
	tap := &netlink.Tuntap{LinkAttrs: a, Mode: netlink.TUNTAP_MODE_TAP, Flags: netlink.TUNTAP_NO_PI | netlink.TUNTAP_ONE_QUEUE, Queues: 1, NonPersist: true}
	if err := netlink.LinkAdd(tap); err != nil {
		return err
	}
	end := tap.Fds[0]
	defer end.Close()
	// The address follows from the key, as that of the real one, or neighbours would
	// have to find it again.
	if err := errors.Join(netlink.LinkSetMTU(tap, tapMTU), netlink.LinkSetHardwareAddr(tap, batman.MAC(s.c.Key.Public(), 0))); err != nil {
		return err
	}
	if err := mesh.AddressUnderlay(paths.BatIface, identity.Underlay(s.c.Network, s.c.Key.Public())); err != nil {
		return err
	}
	under, err := net.InterfaceByName(wireIface)
	if err != nil {
		return err
	}
	in, err := packet.Listen(under, packet.Raw, helloType, nil)
	if err != nil {
		return err
	}
	out, err := packet.Listen(under, packet.Raw, paths.EtherTypeRejoin, nil)
	if err != nil {
		return errors.Join(err, in.Close())
	}
	s.mu.Lock()
	s.out, s.own, s.err = out, under.HardwareAddr, nil
	clear(s.heard)
	early := s.early
	s.early = nil
	s.mu.Unlock()
	for _, say := range early {
		say()
	}
	number := s.number()
	var owned sync.WaitGroup
	defer owned.Wait()
	defer func() { _, _, _ = in.Close(), out.Close(), end.Close() }() // there is nothing to flush
	send := func(frame []byte) {
		f := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, under.HardwareAddr...)
		f = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(f, helloType), number)
		_, _ = in.WriteTo(append(f, frame...), &packet.Addr{HardwareAddr: net.HardwareAddr(f[:6])}) // lost, as on any wire
	}
	owned.Go(func() { s.listen(in, end, number) })
	owned.Go(func() { s.overhear(out) })
	owned.Go(func() {
		b := make([]byte, 2000)
		for {
			n, err := end.Read(b)
			if err != nil {
				return
			}
			send(b[:n])
		}
	})
	t := time.NewTicker(300 * time.Millisecond)
	defer t.Stop()
	for {
		send(nil)
		select {
		case <-ctx.Done():
			return nil
		case <-s.again:
			return nil
		case <-t.C:
		}
	}
}

// listen hands what members send to bat0; an empty frame says that one is there.
func (s *segment) listen(c *packet.Conn, to io.Writer, number uint32) {
	const header = 14 + 4
	b := make([]byte, 2000)
	for {
		n, _, err := c.ReadFrom(b)
		if err != nil {
			return
		}
		if s.dead() || n < header || binary.BigEndian.Uint32(b[14:]) != number || string(b[6:12]) == string(s.own) {
			continue
		}
		s.mu.Lock()
		at, known := s.heard[dot11.MAC(b[6:12])]
		s.heard[dot11.MAC(b[6:12])] = time.Now()
		s.mu.Unlock()
		if !known || time.Since(at) > 2*time.Second {
			s.c.Notify(model.Event{Kind: port.EventProven, Severity: model.Info, Message: "a member is there"})
		}
		if n >= header+14 {
			_, _ = to.Write(b[header:n]) // lost, as on any wire
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
		if n < 15 || string(b[6:12]) == string(s.own) || s.dead() || os.Getenv(envAir) != "" && b[14] != s.channel() {
			continue
		}
		s.c.Strange(mesh.Stranger{Iface: wireIface, MAC: dot11.MAC(b[6:12])}, append([]byte{}, b[15:n]...))
	}
}

func (s *segment) channel() byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return byte(s.mesh.Channel)
}

func (s *segment) dead() bool { return os.Getenv(envDead) == strconv.Itoa(int(s.channel())) }

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
	if s.out == nil { // a device asks once as it starts, and then not for 20 s
		s.early = append(s.early, func() { s.Say(to, payload) })
		return
	}
	f := append(append([]byte{}, mac[:]...), s.own...)
	f = append(binary.BigEndian.AppendUint16(f, paths.EtherTypeRejoin), byte(s.mesh.Channel))
	_, _ = s.out.WriteTo(append(f, payload...), &packet.Addr{HardwareAddr: mac[:]}) // it is said again
}

func (*segment) Recheck()                       {}
func (*segment) Lacking() error                 { return nil }
func (*segment) Hangs() (string, time.Duration) { return "", 0 }
func (*segment) Carries() bool                  { return true }
func (*segment) Aside(bool) error               { return nil }

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

func (*segment) Neighbours() ([]model.Neighbour, error)       { return []model.Neighbour{}, nil }
func (*segment) Originators() (int, error)                    { return 0, nil }
func (*segment) Meet([]mesh.Acquaintance, bool) (bool, error) { return true, nil }

package doctor

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/mdlayher/packet"
	"golang.org/x/net/bpf"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"halo.internal/mesh/listen"
	"halo.internal/model/paths"
)

// wire is the sockets of the doctor: one on the overlay, by which it asks and
// answers, and on bat0 one that has joined the doctor's group and one that sees what
// is flooded. They come and go with the interfaces. Packets leave whole, whatever a
// route says of its MTU, or not at all.
type wire struct {
	witness *witness
	deaf    func() // a peer says that nothing of it arrives here
	opened  func() // a socket on an interface that is new, or new to this process; neither may block
	sent    atomic.Int64

	mu      sync.Mutex // guards what follows
	overlay socket
	mesh    *meshSocket
	waiting map[waitKey]chan message
}

// socket is a UDP socket.
type socket interface {
	net.PacketConn
	syscall.Conn
	WriteToUDPAddrPort(b []byte, to netip.AddrPort) (int, error)
}

// waitKey is which answer somebody waits for.
type waitKey struct {
	from  netip.Addr
	kind  kind
	id    uint64
	index uint16
}

// Errors of asking.
var (
	errClosed = errors.New("the interface is not there")
	errSilent = errors.New("no answer")
)

func newWire(w *witness, deaf, opened func()) *wire {
	return &wire{witness: w, deaf: deaf, opened: opened, waiting: map[waitKey]chan message{}}
}

// randomID returns an ID that nobody can guess.
func randomID() uint64 {
	var b [8]byte
	rand.Read(b[:])
	return binary.BigEndian.Uint64(b[:])
}

// ask sends a question through the overlay and returns its answer and how long it
// took. Errors wrap errSilent when none came in time, errTooLong, errClosed, or say
// why the kernel did not send it.
func (w *wire) ask(ctx context.Context, to netip.Addr, m message, wait time.Duration) (message, time.Duration, error) {
	key := waitKey{to, kindEchoed, m.id, m.index}
	if m.kind == kindWatch {
		key.kind, key.index = kindSeen, 0
	}
	came := make(chan message, 1)
	w.mu.Lock()
	s := w.overlay
	w.waiting[key] = came
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		delete(w.waiting, key)
		w.mu.Unlock()
	}()
	if s == nil {
		return message{}, 0, fmt.Errorf("%s: %w", paths.OverlayIface, errClosed)
	}
	begun := time.Now()
	if err := w.send(s, m, netip.AddrPortFrom(to, paths.DoctorPort)); err != nil {
		return message{}, 0, err
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return message{}, 0, ctx.Err()
	case <-timer.C:
		return message{}, 0, errSilent
	case answer := <-came:
		return answer, time.Since(begun), nil
	}
}

// probe sends a probe over bat0, to a peer or a group.
func (w *wire) probe(m message, to netip.Addr) error {
	w.mu.Lock()
	s := w.mesh
	w.mu.Unlock()
	if s == nil {
		return fmt.Errorf("underlay: %w", errClosed)
	}
	if to.IsMulticast() {
		to = to.WithZone(s.zone)
	}
	return w.send(s, m, netip.AddrPortFrom(to, paths.DoctorPort))
}

func (w *wire) send(s socket, m message, to netip.AddrPort) error {
	b := m.append(nil)
	n, err := s.WriteToUDPAddrPort(b, to)
	switch {
	case errors.Is(err, unix.EMSGSIZE):
		return fmt.Errorf("%d octets: %w", len(b)+headers, errTooLong)
	case err != nil:
		return fmt.Errorf("probe to %s: %w", to, err)
	}
	w.sent.Add(int64(n + headers))
	return nil
}

// whole makes a socket send packets whole.
func whole(s syscall.Conn) error {
	c, err := s.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = c.Control(func(fd uintptr) {
		set = errors.Join(
			unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE),
			unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_DONTFRAG, 1))
	})
	return errors.Join(err, set)
}

// serveOverlay answers and hears answers until ctx ends.
func (w *wire) serveOverlay(ctx context.Context, at listen.At) error {
	c, err := at.UDP(ctx, paths.DoctorPort)
	if err != nil {
		return err
	}
	s := c.(socket)
	defer context.AfterFunc(ctx, func() { _ = s.Close() })()
	if err := whole(s); err != nil {
		return errors.Join(fmt.Errorf("socket on %s: %w", at.Iface, err), s.Close())
	}
	w.setOverlay(s)
	w.opened()
	defer w.setOverlay(nil)
	b := make([]byte, 1<<16)
	for {
		n, from, err := s.ReadFrom(b)
		if err != nil {
			return err
		}
		m, err := parse(b[:n])
		if err != nil {
			continue
		}
		w.take(s, from.(*net.UDPAddr).AddrPort().Addr().WithZone(""), m)
	}
}

func (w *wire) take(s socket, from netip.Addr, m message) {
	switch m.kind {
	case kindEchoed, kindSeen:
		w.mu.Lock()
		came := w.waiting[waitKey{from, m.kind, m.id, m.index}]
		w.mu.Unlock()
		select {
		case came <- m: // or nobody waits: a nil channel takes nothing
		default:
		}
	case kindEcho, kindWatch:
		answer, deaf, ok := w.witness.ask(time.Now(), from, m)
		if deaf {
			w.deaf()
		}
		if ok {
			_ = w.send(s, answer, netip.AddrPortFrom(from, paths.DoctorPort)) // the peer asks again
		}
	}
}

func (w *wire) setOverlay(s socket) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.overlay = s
}

// meshSocket is the one that has joined the group.
type meshSocket struct {
	*net.UDPConn
	multicast *ipv6.PacketConn
	iface     *net.Interface
	zone      string
}

var joined = &net.UDPAddr{IP: paths.DoctorGroup.AsSlice()}

// serveMesh hears probes over bat0 until ctx ends. Nothing is answered there.
func (w *wire) serveMesh(ctx context.Context, iface string) error {
	s, err := openMesh(ctx, iface)
	if err != nil {
		return err
	}
	flooded, err := openFlood(s.iface)
	if err != nil {
		return errors.Join(err, s.Close())
	}
	w.setMesh(s)
	w.opened()
	defer w.setMesh(nil)
	var reader sync.WaitGroup
	defer reader.Wait()
	stop := context.AfterFunc(ctx, func() { _, _ = s.Close(), flooded.Close() })
	defer func() {
		if stop() {
			_, _ = s.Close(), flooded.Close()
		}
	}()
	reader.Go(func() {
		b := make([]byte, 1<<11)
		for {
			n, _, err := flooded.ReadFrom(b)
			if errors.Is(err, unix.ENETDOWN) {
				continue // said once each time that the interface goes down, or is down at first
			}
			if err != nil {
				return // it is closed with the other
			}
			if n >= headers {
				w.hear(b[headers:n], groupFlood)
			}
		}
	})
	b := make([]byte, 1<<16)
	for {
		n, _, err := s.ReadFromUDPAddrPort(b)
		if err != nil {
			return err
		}
		w.hear(b[:n], groupJoined)
	}
}

func (w *wire) hear(b []byte, at uint8) {
	if m, err := parse(b); err == nil && (m.kind == kindToAll || m.kind == kindUnicast) {
		w.witness.probe(time.Now(), m, at)
	}
}

func (w *wire) setMesh(s *meshSocket) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mesh = s
}

// rejoin leaves the group and joins it anew, so that whoever counts listeners hears
// of it again.
func (w *wire) rejoin() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mesh == nil {
		return fmt.Errorf("underlay: %w", errClosed)
	}
	return errors.Join(w.mesh.multicast.LeaveGroup(w.mesh.iface, joined), w.mesh.multicast.JoinGroup(w.mesh.iface, joined))
}

func openMesh(ctx context.Context, iface string) (*meshSocket, error) {
	ifi, err := net.InterfaceByName(iface)
	if err != nil {
		return nil, fmt.Errorf("interface %s: %w", iface, err)
	}
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var bind error
		err := c.Control(func(fd uintptr) { bind = unix.BindToDevice(int(fd), iface) })
		return errors.Join(err, bind)
	}}
	c, err := lc.ListenPacket(ctx, "udp6", net.JoinHostPort("::", strconv.Itoa(paths.DoctorPort)))
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", iface, err)
	}
	s := &meshSocket{UDPConn: c.(*net.UDPConn), multicast: ipv6.NewPacketConn(c), iface: ifi, zone: strconv.Itoa(ifi.Index)}
	if err := errors.Join(
		whole(s),
		s.multicast.JoinGroup(ifi, joined),
		s.multicast.SetMulticastInterface(ifi),
		s.multicast.SetMulticastLoopback(false),
		s.multicast.SetMulticastHopLimit(1),
	); err != nil {
		return nil, errors.Join(fmt.Errorf("socket on %s: %w", iface, err), s.Close())
	}
	return s, nil
}

// flooding takes packets that came in for the group that nobody joins: IPv6 without
// extension headers, UDP, the doctor's port.
var flooding = sync.OnceValue(func() []bpf.RawInstruction {
	group := paths.DoctorFlood.As16()
	word := func(i int) uint32 { return binary.BigEndian.Uint32(group[i:]) }
	prog := []bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtProto},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.ETH_P_IPV6, SkipTrue: 13},
		bpf.LoadAbsolute{Off: 6, Size: 1}, // next header
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: unix.IPPROTO_UDP, SkipTrue: 11},
		bpf.LoadAbsolute{Off: 24, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: word(0), SkipTrue: 9},
		bpf.LoadAbsolute{Off: 28, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: word(4), SkipTrue: 7},
		bpf.LoadAbsolute{Off: 32, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: word(8), SkipTrue: 5},
		bpf.LoadAbsolute{Off: 36, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: word(12), SkipTrue: 3},
		bpf.LoadAbsolute{Off: 42, Size: 2}, // destination port
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: paths.DoctorPort, SkipTrue: 1},
		bpf.RetConstant{Val: 1 << 10},
		bpf.RetConstant{Val: 0},
	}
	raw, err := bpf.Assemble(prog)
	if err != nil {
		panic("doctor: filter: " + err.Error()) // it is constant
	}
	return raw
})

// openFlood opens the socket that sees what arrives at the interface, whether the
// kernel passes it on or not.
func openFlood(ifi *net.Interface) (*packet.Conn, error) {
	c, err := packet.Listen(ifi, packet.Datagram, unix.ETH_P_ALL, &packet.Config{Filter: flooding()})
	if err != nil {
		return nil, fmt.Errorf("packet socket on %s: %w", ifi.Name, err)
	}
	raw, err := c.SyscallConn()
	if err == nil {
		var set error
		// Or the kernel would look at all that this device sends, too.
		err = raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1) })
		err = errors.Join(err, set)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("packet socket on %s: %w", ifi.Name, err), c.Close())
	}
	return c, nil
}

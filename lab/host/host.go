// Package host is a host at the end of a cable that needs no machine: it speaks
// Ethernet as QEMU sends it, asks for an address by DHCP, answers ARP and pings
// others. One that means ill serves addresses itself, advertises itself as a router
// and sends whatever frames it likes. It needs no root.
package host

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// MAC is an Ethernet address.
type MAC [6]byte

// String is the usual form.
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// Broadcast is everybody's.
var Broadcast = MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// Frame is one of Ethernet, without its checksum.
type Frame []byte

// To returns whom a frame is for; a frame has at least a header.
func (f Frame) To() MAC { return MAC(f[0:6]) }

// From returns who sent it.
func (f Frame) From() MAC { return MAC(f[6:12]) }

// Kind is its EtherType.
func (f Frame) Kind() uint16 { return binary.BigEndian.Uint16(f[12:14]) }

// Payload is what follows the header.
func (f Frame) Payload() []byte { return f[14:] }

// Ether makes a frame.
func Ether(to, from MAC, kind uint16, payload ...[]byte) Frame {
	f := append(slices.Clone(to[:]), from[:]...)
	f = binary.BigEndian.AppendUint16(f, kind)
	for _, p := range payload {
		f = append(f, p...)
	}
	return f
}

// EtherTypes.
const (
	TypeIPv4 = 0x0800
	TypeARP  = 0x0806
	TypeIPv6 = 0x86dd
)

// Sizes of a frame.
const (
	header   = 14
	maxFrame = 16 << 10
)

// Host is at one end of a cable. Its methods may be called from any goroutine.
type Host struct {
	MAC  MAC
	conn net.Conn
	wg   sync.WaitGroup

	sending sync.Mutex

	mu      sync.Mutex // guards what follows
	address netip.Addr // for which it answers ARP; may be the zero Addr
	ears    map[int]func(Frame)
	next    int
}

// New returns a host at the near end, and the far end of its cable.
func New(mac MAC) (*Host, net.Conn) {
	near, far := net.Pipe()
	h := &Host{MAC: mac, conn: near, ears: map[int]func(Frame){}}
	h.wg.Go(h.read)
	return h, far
}

// Close pulls the cable.
func (h *Host) Close() error {
	err := h.conn.Close()
	h.wg.Wait()
	return err
}

func (h *Host) read() {
	for {
		var length [4]byte
		if _, err := io.ReadFull(h.conn, length[:]); err != nil {
			return
		}
		n := binary.BigEndian.Uint32(length[:])
		if n < header || n > maxFrame {
			return
		}
		f := make(Frame, n)
		if _, err := io.ReadFull(h.conn, f); err != nil {
			return
		}
		if f.From() == h.MAC {
			continue // a switch that does not know better
		}
		h.answer(f)
		h.mu.Lock()
		var ears []func(Frame)
		for _, e := range h.ears {
			ears = append(ears, e)
		}
		h.mu.Unlock()
		for _, e := range ears {
			e(f)
		}
	}
}

// Hear calls ear, which must not block, with each frame until stop is called.
func (h *Host) Hear(ear func(Frame)) (stop func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.next++
	n := h.next
	h.ears[n] = ear
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.ears, n)
	}
}

// Send puts a frame onto the cable.
func (h *Host) Send(f Frame) error {
	h.sending.Lock()
	defer h.sending.Unlock()
	_, err := h.conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(f))), f...))
	return err
}

// ask sends a frame again and again until take has found an answer among the frames
// that come, which it says by true.
func (h *Host) ask(ctx context.Context, what string, every time.Duration, frame func() Frame, take func(Frame) bool) error {
	got := make(chan struct{}, 1)
	defer h.Hear(func(f Frame) {
		if take(f) {
			select {
			case got <- struct{}{}:
			default:
			}
		}
	})()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if err := h.Send(frame()); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
		select {
		case <-got:
			return nil
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s: no answer: %w", what, context.Cause(ctx))
		}
	}
}

// SetAddress gives the host an address by itself.
func (h *Host) SetAddress(a netip.Addr) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.address = a
}

// Address returns the host's address; the zero Addr: it has none.
func (h *Host) Address() netip.Addr {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.address
}

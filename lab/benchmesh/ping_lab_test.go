//go:build lab

package benchmesh_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// pinger asks an address for echoes, through one interface alone, whether that is
// there yet or not.
type pinger struct {
	fd    int
	iface string
	bound bool
	to    netip.Addr
	seq   uint16
}

const echoID = 0x4841

func (s *space) pinger(iface string, to netip.Addr) (*pinger, error) {
	p := &pinger{iface: iface, to: to}
	err := s.within(func() (err error) {
		p.fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_ICMP)
		return err
	})
	return p, err
}

func (p *pinger) close() { _ = unix.Close(p.fd) }

// ask sends a request, which nobody need be there for, and returns its number.
func (p *pinger) ask() uint16 {
	p.seq++
	if !p.bound { // the interface may come later
		p.bound = unix.SetsockoptString(p.fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, p.iface) == nil
	}
	if !p.bound {
		return p.seq
	}
	b := make([]byte, 16)
	b[0] = 8
	binary.BigEndian.PutUint16(b[4:], echoID)
	binary.BigEndian.PutUint16(b[6:], p.seq)
	sum := uint32(0)
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(b[2:], ^uint16(sum+sum>>16))
	_ = unix.Sendto(p.fd, b, 0, &unix.SockaddrInet4{Addr: p.to.As4()}) // no route yet, no key yet
	return p.seq
}

// reply waits for a reply to a request of at least that number.
func (p *pinger) reply(from uint16, wait time.Duration) bool {
	b := make([]byte, 2048)
	for deadline := time.Now().Add(wait); ; {
		left := time.Until(deadline)
		if left <= 0 {
			return false
		}
		fds := []unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, int(left.Milliseconds())+1); err != nil && !errors.Is(err, unix.EINTR) {
			return false
		}
		n, _, err := unix.Recvfrom(p.fd, b, 0)
		if err != nil || n < 20 {
			continue
		}
		head := int(b[0]&0xf) * 4
		if n < head+8 || netip.AddrFrom4([4]byte(b[12:16])) != p.to {
			continue
		}
		if q := b[head:n]; p.bound && q[0] == 0 && binary.BigEndian.Uint16(q[4:]) == echoID && binary.BigEndian.Uint16(q[6:]) >= from {
			return true
		}
	}
}

// until asks at that pace until there is a reply to what was asked since the call.
func (p *pinger) until(pace, limit time.Duration) (time.Time, error) {
	first := p.seq + 1
	for deadline := time.Now().Add(limit); time.Now().Before(deadline); {
		p.ask()
		if p.reply(first, pace) {
			return time.Now(), nil
		}
	}
	return time.Time{}, fmt.Errorf("no reply of %s through %s within %s", p.to, p.iface, limit)
}

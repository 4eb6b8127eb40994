package overlay

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"net"
	"sync"
	"time"

	"github.com/mdlayher/genetlink"
	"golang.org/x/sys/unix"
)

// Of include/uapi/linux/wireguard.h.
const (
	cmdGetDevice = 0

	deviceName  = 2
	devicePeers = 8

	peerKey       = 1
	peerHandshake = 6 // struct __kernel_timespec
)

// shakesBuffer is as much as the kernel gives of a table at once.
const shakesBuffer = 32 << 10

// shakes asks the kernel for handshakes alone: they are looked at every other second,
// for 250 peers, of which wgctrl makes some thousand values each time, and asks in
// steps of a page.
type shakes struct {
	family uint16
	name   string // of the interface

	mu  sync.Mutex // guards what follows
	fd  int        // of the namespace in which it was made
	buf []byte
}

func newShakes(name string) (*shakes, error) {
	c, err := genetlink.Dial(nil)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	f, err := c.GetFamily("wireguard")
	if err != nil {
		return nil, err
	}
	s := &shakes{family: f.ID, name: name, fd: -1, buf: make([]byte, shakesBuffer)}
	return s, s.open()
}

// open opens a socket anew: what an answer that was given up has left in one would be
// taken for the next. s.mu is held, or nobody else has s yet.
func (s *shakes) open() (err error) {
	s.end()
	s.fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_GENERIC)
	return err
}

func (s *shakes) end() {
	if s.fd >= 0 {
		_ = unix.Close(s.fd)
		s.fd = -1
	}
}

// close ends it.
func (s *shakes) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end()
}

// list returns with whom the interface has shaken hands.
func (s *shakes) list() ([]shake, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return nil, net.ErrClosed
	}
	defer clear(s.buf) // the interface's private key is in the kernel's answer
	list, err := s.ask()
	if err != nil {
		err = errors.Join(err, s.open())
	}
	return list, err
}

func (s *shakes) ask() (list []shake, err error) {
	if err := unix.Sendto(s.fd, s.request(), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, err
	}
	for {
		n, _, flags, _, err := unix.Recvmsg(s.fd, s.buf, nil, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, err
		case flags&unix.MSG_TRUNC != 0:
			return nil, fmt.Errorf("expected at most %d octets of the table at once, got more", len(s.buf))
		}
		more, done, err := parseShakes(s.buf[:n])
		list = append(list, more...)
		if done || err != nil {
			return list, err
		}
	}
}

// request asks for all of the interface.
func (s *shakes) request() []byte {
	name := append([]byte(s.name), 0)
	attribute := unix.SizeofNlAttr + len(name)
	size := unix.NLMSG_HDRLEN + unix.GENL_HDRLEN + (attribute+3)&^3
	b := binary.NativeEndian.AppendUint32(make([]byte, 0, size), uint32(size))
	b = binary.NativeEndian.AppendUint16(b, s.family)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0) // number of the question, and the socket's own port
	b = append(b, cmdGetDevice, 1, 0, 0)
	b = binary.NativeEndian.AppendUint16(b, uint16(attribute))
	b = binary.NativeEndian.AppendUint16(b, deviceName)
	return append(append(b, name...), make([]byte, size-len(b)-len(name))...)
}

// parseShakes reads a part of the kernel's answer; done: it was the last one.
func parseShakes(b []byte) (list []shake, done bool, err error) {
	for len(b) > 0 {
		if len(b) < unix.NLMSG_HDRLEN {
			return list, false, fmt.Errorf("expected a message of netlink, got %d octets", len(b))
		}
		size, kind := int(binary.NativeEndian.Uint32(b)), binary.NativeEndian.Uint16(b[4:])
		if size < unix.NLMSG_HDRLEN || size > len(b) {
			return list, false, fmt.Errorf("expected a message of netlink of at most %d octets, got one of %d", len(b), size)
		}
		body := b[unix.NLMSG_HDRLEN:size]
		b = b[min((size+3)&^3, len(b)):]
		switch {
		case kind == unix.NLMSG_DONE, kind == unix.NLMSG_ERROR:
			if len(body) < 4 {
				return list, true, fmt.Errorf("expected the end of a table, got %d octets", len(body))
			}
			if code := int32(binary.NativeEndian.Uint32(body)); code < 0 {
				err = unix.Errno(-code)
			}
			return list, true, err
		case len(body) < unix.GENL_HDRLEN:
			return list, false, fmt.Errorf("expected an answer about an interface, got %d octets", len(body))
		}
		for kind, v := range attributes(body[unix.GENL_HDRLEN:]) {
			if kind != devicePeers {
				continue
			}
			for _, p := range attributes(v) {
				if s, ok := parseShake(p); ok {
					list = append(list, s)
				}
			}
		}
	}
	return list, false, nil
}

// parseShake reads a peer; ok is false where hands were never shaken, and in what
// follows of a peer that is in two parts.
func parseShake(b []byte) (s shake, ok bool) {
	for kind, v := range attributes(b) {
		switch {
		case kind == peerKey && len(v) == len(s.key):
			s.key = [32]byte(v)
		case kind == peerHandshake && len(v) == 16:
			sec, nsec := int64(binary.NativeEndian.Uint64(v)), int64(binary.NativeEndian.Uint64(v[8:]))
			if ok = sec != 0; ok {
				s.at = time.Unix(sec, nsec).UTC()
			}
		}
	}
	return s, ok && s.key != [32]byte{}
}

// attributes are those of netlink (struct nlattr), until one is no longer whole.
func attributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofNlAttr {
			size := int(binary.NativeEndian.Uint16(b))
			if size < unix.SizeofNlAttr || size > len(b) {
				return
			}
			if !yield(binary.NativeEndian.Uint16(b[2:])&^unix.NLA_F_NESTED, b[unix.SizeofNlAttr:size]) {
				return
			}
			b = b[min((size+3)&^3, len(b)):]
		}
	}
}

// Package webcam is a USB camera that is played: it is plugged into the kernel's own
// virtual port (vhci-hcd) over USB/IP, and what drives it there is the kernel's driver
// for real cameras, uvcvideo. It sends JPEG frames, whole or broken as a test wants
// them, over a bulk endpoint, has a control for its brightness, and can be unplugged
// at any octet.
//
// Sources: Documentation/usb/usbip_protocol.rst of the kernel, the USB 2.0
// specification, chapter 9, and the USB Device Class Definition for Video Devices 1.1.
package webcam

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// attachFile takes the port, the descriptor of a socket, the device's number and its
// speed.
const attachFile = "/sys/devices/platform/vhci_hcd.0/attach"

const (
	devid     = 0x00010002 // bus 1, device 2: what the other end of USB/IP would call it
	speedHigh = 3          // [USB_SPEED_HIGH]
)

// Commands of USB/IP, with headers of 48 octets, big endian.
const (
	cmdSubmit  = 1
	cmdUnlink  = 2
	retSubmit  = 3
	retUnlink  = 4
	headerSize = 48
	maxURB     = 1 << 20
)

const (
	pipeError = -32  // -EPIPE: a stall, which says that a request is not known
	connReset = -104 // -ECONNRESET: taken back
)

// urb is what the kernel waits for.
type urb struct {
	seqnum uint32
	length int
}

// link is the socket to the kernel.
type link struct {
	conn *os.File

	mu      sync.Mutex // guards what follows, and writes
	waiting []urb      // of the bulk endpoint
	more    chan struct{}
}

// plug connects a device with a port of the kernel's.
func plug(port int) (*link, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket pair: %w", err)
	}
	defer unix.Close(fds[1]) // the kernel has it by then
	if err := os.WriteFile(attachFile, fmt.Appendf(nil, "%d %d %d %d", port, fds[1], devid, speedHigh), 0); err != nil {
		_ = unix.Close(fds[0])
		return nil, fmt.Errorf("plug in: %w; is vhci-hcd loaded, and port %d free?", err, port)
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		return nil, err
	}
	return &link{conn: os.NewFile(uintptr(fds[0]), "usbip"), more: make(chan struct{}, 1)}, nil
}

// serve answers the kernel until the link ends: control has what comes to endpoint 0.
func (l *link) serve(control func(setup [8]byte, out []byte) (in []byte, ok bool)) error {
	head := make([]byte, headerSize)
	for {
		if _, err := io.ReadFull(l.conn, head); err != nil {
			if errors.Is(err, os.ErrClosed) || errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) {
				return nil
			}
			return err
		}
		command, seqnum, dir, ep := be(head, 0), be(head, 4), be(head, 12), be(head, 16)
		switch command {
		case cmdUnlink:
			if err := l.unlink(seqnum, be(head, 20)); err != nil {
				return err
			}
		case cmdSubmit:
			length := int(be(head, 24))
			if length > maxURB {
				return fmt.Errorf("usbip: expected at most %d octets, got %d", maxURB, length)
			}
			var out []byte
			if dir == 0 {
				out = make([]byte, length)
				if _, err := io.ReadFull(l.conn, out); err != nil {
					return err
				}
			}
			if ep != 0 {
				l.wait(urb{seqnum, length})
				continue
			}
			in, ok := control([8]byte(head[40:48]), out)
			status, n := int32(0), len(out)
			if dir != 0 {
				in = in[:min(len(in), length)]
				n = len(in)
			}
			if !ok {
				status, in, n = pipeError, nil, 0
			}
			if dir == 0 {
				in = nil
			}
			if err := l.answer(retSubmit, seqnum, status, n, in); err != nil {
				return err
			}
		default:
			return fmt.Errorf("usbip: expected a submission or its end, got command %d", command)
		}
	}
}

func be(b []byte, at int) uint32 { return binary.BigEndian.Uint32(b[at:]) }

// answer writes an answer; data only for what goes to the kernel.
func (l *link) answer(command, seqnum uint32, status int32, length int, data []byte) error {
	b := make([]byte, headerSize, headerSize+len(data))
	binary.BigEndian.PutUint32(b, command)
	binary.BigEndian.PutUint32(b[4:], seqnum)
	binary.BigEndian.PutUint32(b[20:], uint32(status))
	if command == retSubmit {
		binary.BigEndian.PutUint32(b[24:], uint32(length))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := l.conn.Write(append(b, data...))
	return err
}

func (l *link) wait(u urb) {
	l.mu.Lock()
	l.waiting = append(l.waiting, u)
	l.mu.Unlock()
	select {
	case l.more <- struct{}{}:
	default:
	}
}

// next takes what the kernel waits for longest.
func (l *link) next() (urb, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) == 0 {
		return urb{}, false
	}
	u := l.waiting[0]
	l.waiting = l.waiting[1:]
	return u, true
}

func (l *link) unlink(seqnum, of uint32) error {
	l.mu.Lock()
	status := int32(0) // it was answered already
	for i, u := range l.waiting {
		if u.seqnum == of {
			l.waiting = append(l.waiting[:i:i], l.waiting[i+1:]...)
			status = connReset
			break
		}
	}
	l.mu.Unlock()
	return l.answer(retUnlink, seqnum, status, 0, nil)
}

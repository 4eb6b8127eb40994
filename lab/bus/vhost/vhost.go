// Package vhost is the device's side of vhost-user, by which QEMU leaves a virtio
// device to another process: QEMU hands over the guest's memory and the places of
// the queues in it, and the guest's requests then pass by QEMU (QEMU, docs/interop/
// vhost-user.rst; virtio 1.2, sections 2.7 and 5).
//
// Neither QEMU nor the guest is trusted with more than the guest's own memory: what
// they say is checked, copied and bounded before it is used, and a guest that breaks
// the rules of a queue is not served on that queue any more.
//
// Hosts whose octets are in another order than virtio's (big-endian ones) are not
// meant.
package vhost

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Device is what a virtio device does.
type Device interface {
	Features() uint64 // bits of the device's own kind
	Queues() int
	Config() []byte // its configuration space; nil: it has none
	// Handle takes a request from a queue. It is called for one request of a queue
	// after the other, and Reply must be called for each some time, in any order.
	// When ctx ends, nobody waits for an answer any more.
	Handle(ctx context.Context, queue int, r *Request)
	// Stopped says that a queue has ended, and its requests with it.
	Stopped(queue int)
}

// Bounds of what a front end or a guest may ask for.
const (
	maxPayload = 4096 // octets of a message
	maxFiles   = 8    // descriptors in a message, as many as regions of memory
	maxQueue   = 1024 // entries of a queue
	maxRequest = 1<<16 + 64
)

// Features and requests of the protocol.
const (
	featureProtocol = 1 << 30 // VHOST_USER_F_PROTOCOL_FEATURES
	featureVersion1 = 1 << 32 // VIRTIO_F_VERSION_1
	protocolReply   = 1 << 3  // VHOST_USER_PROTOCOL_F_REPLY_ACK
	protocolConfig  = 1 << 9  // VHOST_USER_PROTOCOL_F_CONFIG

	headerSize = 12
	version1   = 1
	flagReply  = 1 << 2
	flagAsk    = 1 << 3 // an answer is wanted to what has none of its own
)

const (
	getFeatures         = 1
	setFeatures         = 2
	setOwner            = 3
	resetOwner          = 4
	setMemTable         = 5
	setVringNum         = 8
	setVringAddr        = 9
	setVringBase        = 10
	getVringBase        = 11
	setVringKick        = 12
	setVringCall        = 13
	setVringErr         = 14
	getProtocolFeatures = 15
	setProtocolFeatures = 16
	getQueueNum         = 17
	setVringEnable      = 18
	getConfig           = 24
	setConfig           = 25
)

var le = binary.LittleEndian

// session is one connection to a front end.
type session struct {
	device Device
	conn   *net.UnixConn
	log    *slog.Logger
	memory *memory // shared with the queues
	queues []*queue
	answer bool // the front end may ask for answers
}

// Serve plays the device for the front end at the other end of a Unix socket, until
// that is gone or ctx ends. It closes the connection. That the front end has ended is
// no error.
func Serve(ctx context.Context, conn net.Conn, d Device, log *slog.Logger) error {
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return errors.Join(fmt.Errorf("vhost-user: expected a Unix socket, which passes file descriptors, got %T", conn), conn.Close())
	}
	s := &session{device: d, conn: c, log: log, memory: &memory{}}
	for i := range d.Queues() {
		s.queues = append(s.queues, &queue{index: i, session: s})
	}
	ctx, end := context.WithCancel(ctx)
	defer end()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	err := s.messages(ctx)
	for _, q := range s.queues {
		q.stop()
		q.close()
	}
	s.memory.replace(nil)
	c.Close()
	if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) || ctx.Err() != nil {
		return nil
	}
	return err
}

func (s *session) messages(ctx context.Context) error {
	for {
		m, err := receive(s.conn)
		if err != nil {
			return err
		}
		reply, err := s.handle(ctx, &m)
		m.close()
		if err != nil {
			return fmt.Errorf("vhost-user: request %d: %w", m.request, err)
		}
		if reply == nil && s.answer && m.flags&flagAsk != 0 {
			reply = u64(0) // done
		}
		if reply == nil {
			continue
		}
		b := le.AppendUint32(nil, m.request)
		b = le.AppendUint32(b, version1|flagReply)
		b = le.AppendUint32(b, uint32(len(reply)))
		if _, err := s.conn.Write(append(b, reply...)); err != nil {
			return err
		}
	}
}

// message is one of the front end's.
type message struct {
	request, flags uint32
	payload        []byte
	files          []int // descriptors that nobody has taken
}

// take hands over a descriptor, -1 where there is none.
func (m *message) take() int {
	if len(m.files) == 0 {
		return -1
	}
	fd := m.files[0]
	m.files = m.files[1:]
	return fd
}

func (m *message) close() {
	for _, fd := range m.files {
		_ = unix.Close(fd)
	}
	m.files = nil
}

// receive reads a message. Descriptors come with its first octets.
func receive(c *net.UnixConn) (m message, err error) {
	header := make([]byte, headerSize)
	oob := make([]byte, unix.CmsgSpace(4*maxFiles))
	n, on, flags, _, err := c.ReadMsgUnix(header, oob)
	if err == nil && n == 0 {
		err = io.EOF
	}
	if err != nil {
		return m, err
	}
	defer func() {
		if err != nil {
			m.close()
		}
	}()
	controls, err := unix.ParseSocketControlMessage(oob[:on])
	if err != nil {
		return m, fmt.Errorf("vhost-user: %w", err)
	}
	for i := range controls {
		fds, err := unix.ParseUnixRights(&controls[i])
		if err != nil {
			return m, fmt.Errorf("vhost-user: %w", err)
		}
		m.files = append(m.files, fds...)
	}
	if flags&unix.MSG_CTRUNC != 0 {
		return m, fmt.Errorf("vhost-user: expected at most %d descriptors in a message", maxFiles)
	}
	if _, err := io.ReadFull(c, header[n:]); err != nil {
		return m, err
	}
	m.request, m.flags = le.Uint32(header), le.Uint32(header[4:])
	size := le.Uint32(header[8:])
	if size > maxPayload {
		return m, fmt.Errorf("vhost-user: request %d: expected at most %d octets, got %d", m.request, maxPayload, size)
	}
	m.payload = make([]byte, size)
	_, err = io.ReadFull(c, m.payload)
	return m, err
}

// least is how many octets a request has at least.
func least(request uint32) int {
	switch request {
	case setFeatures, setMemTable, setVringNum, setVringBase, getVringBase, setVringKick, setVringCall, setVringErr, setProtocolFeatures, setVringEnable:
		return 8
	case setVringAddr:
		return 40
	case getConfig, setConfig:
		return 12
	}
	return 0
}

// handle carries a message out; the answer is nil where it has none of its own.
func (s *session) handle(ctx context.Context, m *message) ([]byte, error) {
	p := m.payload
	if len(p) < least(m.request) {
		return nil, fmt.Errorf("expected at least %d octets, got %d", least(m.request), len(p))
	}
	switch m.request {
	case getFeatures:
		return u64(featureVersion1 | featureProtocol | s.device.Features()), nil
	case getProtocolFeatures:
		features := uint64(protocolReply)
		if s.device.Config() != nil {
			features |= protocolConfig
		}
		return u64(features), nil
	case setProtocolFeatures:
		s.answer = le.Uint64(p)&protocolReply != 0
	case getQueueNum:
		return u64(uint64(len(s.queues))), nil
	case getConfig:
		return s.config(p)
	case setMemTable:
		regions, err := mapRegions(m)
		if err != nil {
			return nil, err
		}
		s.memory.replace(regions)
	case setVringNum, setVringAddr, setVringBase, getVringBase, setVringKick, setVringCall, setVringErr:
		number := le.Uint32(p)
		if m.request == setVringKick || m.request == setVringCall || m.request == setVringErr {
			number &= 0xff // bit 8: without a descriptor
		}
		if number >= uint32(len(s.queues)) {
			return nil, fmt.Errorf("expected a queue below %d, got %d", len(s.queues), number)
		}
		return s.queues[number].handle(ctx, m)
	case setFeatures, setOwner, resetOwner, setVringEnable:
		// QEMU 7.2 tells the guest of features of rings that were not offered; see queue.
	default:
		return nil, errors.New("expected none that was not offered")
	}
	return nil, nil
}

// config answers with a window of the configuration space.
func (s *session) config(p []byte) ([]byte, error) {
	config := s.device.Config()
	offset, size := uint64(le.Uint32(p)), uint64(le.Uint32(p[4:]))
	if size > uint64(len(p))-12 || offset > uint64(len(config)) {
		return nil, fmt.Errorf("expected a window of %d octets, got %d from %d", len(config), size, offset)
	}
	window := p[12 : 12+size]
	clear(window)
	copy(window, config[offset:])
	return p, nil
}

func u64(v uint64) []byte { return le.AppendUint64(nil, v) }

// event makes an event's descriptor a file; nil where there is none.
func event(fd int) (*os.File, error) {
	if fd < 0 {
		return nil, nil
	}
	if err := unix.SetNonblock(fd, true); err != nil { // so that closing ends a read
		return nil, errors.Join(err, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "vhost-user event"), nil
}

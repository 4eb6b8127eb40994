package nl80211

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"
	"sync"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// DefaultReceiveBuffer holds some thousand beacons' worth of events, or a flood
// of frames until it is noticed.
const DefaultReceiveBuffer = 1 << 20

// maxQueue bounds the events that wait for Next.
const maxQueue = 4096

// Groups of events.
const (
	GroupConfig     = unix.NL80211_MULTICAST_GROUP_CONFIG // radios and interfaces
	GroupScan       = unix.NL80211_MULTICAST_GROUP_SCAN
	GroupRegulatory = unix.NL80211_MULTICAST_GROUP_REG
	GroupMLME       = unix.NL80211_MULTICAST_GROUP_MLME // stations, candidates, frame status, channel switches
	GroupVendor     = unix.NL80211_MULTICAST_GROUP_VENDOR
)

// AllGroups returns all groups that are known here.
func AllGroups() []string {
	return []string{GroupConfig, GroupScan, GroupRegulatory, GroupMLME, GroupVendor}
}

// Listener receives events and registered frames. Its methods may be called from
// any goroutine, Next from one at a time. A goroutine reads the socket until
// Close, so that the kernel's buffer is for bursts alone.
type Listener struct {
	conn *genetlink.Conn
	fam  genetlink.Family
	done chan struct{} // closed when the reader has ended

	mu    sync.Mutex
	queue []Event
	ready chan struct{} // holds one token while the queue is not empty or the reader has ended
	acks  map[uint32]chan error
	err   error // why the reader ended
}

// Listen opens a socket for events of the named groups.
func Listen(c Config, groups ...string) (*Listener, error) {
	conn, fam, err := dial(c)
	if err != nil {
		return nil, err
	}
	size := c.ReceiveBuffer
	if size == 0 {
		size = DefaultReceiveBuffer
	}
	if err := setReceiveBuffer(conn, size); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	for _, name := range groups {
		i := slices.IndexFunc(fam.Groups, func(g genetlink.MulticastGroup) bool { return g.Name == name })
		if i < 0 {
			return nil, errors.Join(fmt.Errorf("nl80211: the kernel has no events of group %s", name), conn.Close())
		}
		if err := conn.JoinGroup(fam.Groups[i].ID); err != nil {
			return nil, errors.Join(fmt.Errorf("nl80211: listen to %s: %w", name, err), conn.Close())
		}
	}
	l := &Listener{conn: conn, fam: fam, done: make(chan struct{}), ready: make(chan struct{}, 1), acks: map[uint32]chan error{}}
	go l.read()
	return l, nil
}

// setReceiveBuffer goes beyond the system's limit where the process may.
func setReceiveBuffer(conn *genetlink.Conn, size int) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("nl80211: receive buffer: %w", err)
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		if set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, size); errors.Is(set, unix.EPERM) {
			set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, size)
		}
	})
	if err := errors.Join(err, set); err != nil {
		return fmt.Errorf("nl80211: receive buffer: %w", err)
	}
	return nil
}

// Close ends the registrations and the reader and waits for it.
func (l *Listener) Close() error {
	err := l.conn.Close()
	<-l.done
	return err
}

// Next returns the next event. After Close the error wraps net.ErrClosed; other
// errors are those of the socket, and final, or of ctx.
func (l *Listener) Next(ctx context.Context) (Event, error) {
	for {
		l.mu.Lock()
		if len(l.queue) > 0 {
			e := l.queue[0]
			l.queue = l.queue[1:]
			if len(l.queue) > 0 {
				l.wake()
			}
			l.mu.Unlock()
			return e, nil
		}
		if l.err != nil {
			l.wake()
			defer l.mu.Unlock()
			return nil, l.err
		}
		l.mu.Unlock()
		select {
		case <-l.ready:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// wake lets one Next look at the queue; the lock is held.
func (l *Listener) wake() {
	select {
	case l.ready <- struct{}{}:
	default:
	}
}

// RegisterFrame asks for frames of a type (FrameAuthentication, FrameAction …)
// whose body begins with match, and which the kernel does not handle itself. The
// error wraps unix.EALREADY when another socket has them. It ends with the
// listener or the interface.
func (l *Listener) RegisterFrame(ctx context.Context, index int, frame uint16, match []byte) error {
	r := request{command: unix.NL80211_CMD_REGISTER_FRAME, attrs: func(e *netlink.AttributeEncoder) {
		ifindex(e, index)
		e.Uint16(unix.NL80211_ATTR_FRAME_TYPE, frame)
		e.Bytes(unix.NL80211_ATTR_FRAME_MATCH, match)
	}}
	err := l.request(ctx, r)
	for errors.Is(err, errLost) { // in a flood of events; ask again whether it was done
		if err = l.request(ctx, r); errors.Is(err, unix.EALREADY) {
			err = nil
		}
	}
	if err != nil {
		return fmt.Errorf("nl80211: register for frames %#06x %x: %w", frame, match, err)
	}
	return nil
}

// request sends a request on the event socket, to which registrations belong,
// and waits until the reader has its acknowledgement.
func (l *Listener) request(ctx context.Context, r request) error {
	m, err := r.message(l.fam.Version)
	if err != nil {
		return err
	}
	// The reader may have the acknowledgement before Send tells its number, so the
	// lock is held until it is noted.
	ack := make(chan error, 1)
	l.mu.Lock()
	if l.err != nil {
		defer l.mu.Unlock()
		return l.err
	}
	sent, err := l.conn.Send(m, l.fam.ID, netlink.Request|netlink.Acknowledge)
	if err == nil {
		l.acks[sent.Header.Sequence] = ack
	}
	l.mu.Unlock()
	if err != nil {
		return err
	}
	select {
	case err := <-ack:
		return err
	case <-ctx.Done():
		l.mu.Lock()
		delete(l.acks, sent.Header.Sequence)
		l.mu.Unlock()
		return ctx.Err()
	}
}

func (l *Listener) read() {
	defer close(l.done)
	for {
		generic, raw, err := l.conn.Receive()
		if err == nil {
			for i, h := range raw {
				if h.Header.Type == netlink.Error {
					l.acknowledge(h.Header.Sequence, nil)
				} else if h.Header.Type == netlink.HeaderType(l.fam.ID) {
					l.push(parseEvent(generic[i]))
				}
			}
			continue
		}
		op, ok := errors.AsType[*netlink.OpError](err)
		switch {
		case ok && op.Sequence != 0:
			l.acknowledge(op.Sequence, err)
		case errors.Is(err, unix.ENOBUFS):
			l.overflow()
		default:
			l.end(err)
			return
		}
	}
}

func (l *Listener) acknowledge(sequence uint32, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ack, ok := l.acks[sequence]; ok {
		ack <- err
		delete(l.acks, sequence)
	}
}

// errLost is what a request gets whose acknowledgement may have been lost.
var errLost = errors.New("the acknowledgement was lost with other events")

// overflow notes that the kernel dropped events, and fails the requests whose
// acknowledgement may be among them.
func (l *Listener) overflow() {
	l.mu.Lock()
	for sequence, ack := range l.acks {
		ack <- errLost
		delete(l.acks, sequence)
	}
	l.mu.Unlock()
	l.push(Overflow{})
}

// push queues an event. A full queue is emptied: whoever is so late has to read
// everything anew in any case.
func (l *Listener) push(e Event) {
	if e == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queue) >= maxQueue {
		l.queue = []Event{Overflow{}}
	}
	if _, ok := e.(Overflow); ok && len(l.queue) > 0 && l.queue[len(l.queue)-1] == e {
		return // one after the other says no more than one
	}
	l.queue = append(l.queue, e)
	l.wake()
}

func (l *Listener) end(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if errors.Is(err, unix.EBADF) || errors.Is(err, fs.ErrClosed) {
		err = errors.Join(net.ErrClosed, err)
	}
	l.err = fmt.Errorf("nl80211: events: %w", err)
	for sequence, ack := range l.acks {
		ack <- l.err
		delete(l.acks, sequence)
	}
	l.wake()
}

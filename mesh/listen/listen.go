// Package listen opens sockets for services that may be asked only where they
// are meant to be: at one address of one interface, by sources of given
// networks. What comes from elsewhere, as a forged source does, is dropped
// unanswered, so that no service of HALO can be made to send to a stranger.
package listen

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"halo.internal/mesh/iface"
)

// At is where a service may be asked.
type At struct {
	Iface string         // packets that come in elsewhere are not for it, whatever their destination
	Addr  netip.Addr     // need not be there yet
	From  []netip.Prefix // sources that are answered; none: nobody

	Except []netip.Prefix // of those, sources that are not
}

func (a At) String() string { return a.Addr.WithZone("").String() + "%" + a.Iface }

const reopenAfter = 2 * time.Second // between tries to open a socket

// Keep has serve open its sockets and answer, until ctx ends. serve is started
// anew when it fails, and when the interface was removed and made anew: a socket
// of the one before hears nothing any more. serve has to return when its context
// ends.
func (a At) Keep(ctx context.Context, log *slog.Logger, serve func(context.Context) error) {
	log = log.With("iface", a.Iface, "addr", a.Addr)
	told := false
	for ctx.Err() == nil {
		err := a.once(ctx, serve)
		if ctx.Err() != nil {
			return
		}
		if err == nil || errors.Is(err, iface.ErrAnew) {
			told = false
			continue
		}
		if !told { // an interface may come much later: one line says what is missing
			log.Warn("service waits for its socket", "err", err)
			told = true
		}
		select {
		case <-ctx.Done():
		case <-time.After(reopenAfter):
		}
	}
}

func (a At) once(ctx context.Context, serve func(context.Context) error) error {
	under, err := iface.Find(a.Iface)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel(nil)
	watch.Go(func() { cancel(under.Watch(ctx)) })
	err = serve(ctx)
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// Allowed tells whether a source is answered.
func (a At) Allowed(source netip.Addr) bool {
	source = source.Unmap().WithZone("")
	in := func(p netip.Prefix) bool { return p.Contains(source) }
	return slices.ContainsFunc(a.From, in) && !slices.ContainsFunc(a.Except, in)
}

func (a At) target(port uint16) (string, error) {
	addr := a.Addr
	if addr.IsLinkLocalUnicast() && addr.Is6() {
		under, err := iface.Find(a.Iface) // Go would remember the index of a name from before it was made anew
		if err != nil {
			return "", err
		}
		addr = addr.WithZone(strconv.Itoa(under.Index))
	}
	return net.JoinHostPort(addr.String(), strconv.Itoa(int(port))), nil
}

// config binds to the interface, and to an address that may come later: of IPv6,
// it does so only after its duplicates were looked for.
func (a At) config() net.ListenConfig {
	return net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var set error
		err := c.Control(func(fd uintptr) {
			set = unix.BindToDevice(int(fd), a.Iface)
			if a.Addr.Is4() {
				set = errors.Join(set, unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_FREEBIND, 1))
			} else {
				set = errors.Join(set, unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_FREEBIND, 1))
			}
		})
		return errors.Join(err, set)
	}}
}

// UDP opens the address's port. Whatever is read from it is from an allowed
// source.
func (a At) UDP(ctx context.Context, port uint16) (net.PacketConn, error) {
	target, err := a.target(port)
	if err != nil {
		return nil, err
	}
	lc := a.config()
	c, err := lc.ListenPacket(ctx, "udp", target)
	if err != nil {
		return nil, fmt.Errorf("listen at %s: %w", a, err)
	}
	return &packetConn{c.(*net.UDPConn), a}, nil
}

type packetConn struct {
	*net.UDPConn
	at At
}

func (c *packetConn) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, from, err := c.ReadFromUDPAddrPort(b)
		if err != nil {
			return n, nil, err
		}
		if c.at.Allowed(from.Addr()) {
			return n, net.UDPAddrFromAddrPort(from), nil
		}
	}
}

// Bounds of the connections to one listener.
type Bounds struct {
	Most   int           // at a time
	Client int           // of one client at a time, see Client
	Write  time.Duration // for one write: who does not read is hung up on
}

// TCP opens the address's port. Connections that it accepts are from allowed
// sources; those over the bounds are closed at once.
func (a At) TCP(ctx context.Context, port uint16, b Bounds) (net.Listener, error) {
	target, err := a.target(port)
	if err != nil {
		return nil, err
	}
	lc := a.config()
	l, err := lc.Listen(ctx, "tcp", target)
	if err != nil {
		return nil, fmt.Errorf("listen at %s: %w", a, err)
	}
	return &listener{Listener: l, at: a, bounds: b, clients: make(map[netip.Addr]int)}, nil
}

type listener struct {
	net.Listener
	at     At
	bounds Bounds

	mu      sync.Mutex // guards what follows
	open    int
	clients map[netip.Addr]int
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr()
		if client := Client(from); l.at.Allowed(from) && l.take(client) {
			return &conn{Conn: c, l: l, client: client}, nil
		}
		_ = c.Close()
	}
}

func (l *listener) take(client netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open >= l.bounds.Most || l.clients[client] >= l.bounds.Client {
		return false
	}
	l.open++
	l.clients[client]++
	return true
}

func (l *listener) give(client netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open--
	if l.clients[client]--; l.clients[client] == 0 {
		delete(l.clients, client)
	}
}

type conn struct {
	net.Conn
	l      *listener
	client netip.Addr
	once   sync.Once
}

func (c *conn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.l.bounds.Write)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}

func (c *conn) Close() error {
	c.once.Do(func() { c.l.give(c.client) })
	return c.Conn.Close()
}

// Client is whom bounds count together: an address or, of IPv6 beyond the link,
// a /64, of which a client may take as many addresses as it likes.
func Client(from netip.Addr) netip.Addr {
	from = from.Unmap().WithZone("")
	if from.Is4() || from.IsLinkLocalUnicast() {
		return from
	}
	return netip.PrefixFrom(from, 64).Masked().Addr()
}

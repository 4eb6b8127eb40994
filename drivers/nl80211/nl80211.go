// Package nl80211 speaks the kernel's wireless interface: which radios there are
// and what they can do, mesh interfaces, stations, keys, management frames,
// channels, regulation, and the events of all that. It is what iw and
// wpa_supplicant would be needed for, and knows nothing of SAE or of HALO.
//
// Requests go through a Conn, events come through a Listener, each with a socket
// of its own: on one that carries both, an answer could not be told from what
// happened meanwhile. Names and units follow the kernel's include/uapi/linux/
// nl80211.h.
package nl80211

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"sync"
	"sync/atomic"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Config says where a socket is opened.
type Config struct {
	// NetNS is the descriptor of a network namespace; 0 is the caller's. It may be
	// closed once the socket is open.
	NetNS int
	// ReceiveBuffer is the size of a Listener's receive buffer in octets; 0 is
	// DefaultReceiveBuffer. The kernel doubles it.
	ReceiveBuffer int
}

// Conn makes requests. Its methods may be called from any goroutine; they wait
// for the kernel alone, never for the air. Errors of the kernel can be told by
// errors.Is: fs.ErrNotExist (ENOENT), unix.ENODEV, unix.EBUSY, unix.EOPNOTSUPP …
type Conn struct {
	mu   sync.Mutex // one request at a time
	conn *genetlink.Conn
	fam  genetlink.Family
	left atomic.Bool // Abandon was called
}

// Dial opens a socket for requests. The error wraps fs.ErrNotExist where the
// kernel has no cfg80211, which the kernel loads with the first driver.
func Dial(c Config) (*Conn, error) {
	conn, fam, err := dial(c)
	if err != nil {
		return nil, err
	}
	return &Conn{conn: conn, fam: fam}, nil
}

func dial(c Config) (*genetlink.Conn, genetlink.Family, error) {
	conn, err := genetlink.Dial(&netlink.Config{NetNS: c.NetNS})
	if err != nil {
		return nil, genetlink.Family{}, fmt.Errorf("nl80211: generic netlink: %w", err)
	}
	fam, err := conn.GetFamily(unix.NL80211_GENL_NAME)
	if err != nil {
		if errors.Is(err, unix.ENOENT) {
			err = errors.Join(fs.ErrNotExist, err)
		}
		return nil, genetlink.Family{}, errors.Join(fmt.Errorf("nl80211: the kernel has no cfg80211: %w", err), conn.Close())
	}
	// Best effort: the kernel's own words on what it does not like.
	_ = conn.SetOption(netlink.ExtendedAcknowledge, true)
	return conn, fam, nil
}

// Close closes the socket. What was made with an owner (see MeshSetup) ends with
// it.
func (c *Conn) Close() error { return c.conn.Close() }

// Abandon has all further requests fail with net.ErrClosed. Unlike Close it does not
// wait for one that hangs in the kernel, and whoever made that can do nothing more by
// this connection, whenever it comes back.
func (c *Conn) Abandon() { c.left.Store(true) }

// request is a command with its attributes.
type request struct {
	command uint8
	flags   netlink.HeaderFlags
	attrs   func(e *netlink.AttributeEncoder)
}

// do makes a request and returns all messages that answer it. The kernel's
// acknowledgement comes last and on its own, so that it ends the answer whether
// or not there are others before it.
func (c *Conn) do(what string, r request) ([]genetlink.Message, error) {
	m, err := r.message(c.fam.Version)
	if err != nil {
		return nil, fmt.Errorf("nl80211: %s: %w", what, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left.Load() {
		return nil, fmt.Errorf("nl80211: %s: the connection was abandoned: %w", what, net.ErrClosed)
	}
	answers, err := c.exchange(m, netlink.Request|netlink.Acknowledge|r.flags)
	if err != nil {
		return nil, fmt.Errorf("nl80211: %s: %w", what, err)
	}
	return answers, nil
}

func (r request) message(version uint8) (genetlink.Message, error) {
	m := genetlink.Message{Header: genetlink.Header{Command: r.command, Version: version}}
	if r.attrs == nil {
		return m, nil
	}
	e := netlink.NewAttributeEncoder()
	r.attrs(e)
	var err error
	m.Data, err = e.Encode()
	return m, err
}

// errStale ends a dump during which something changed.
var errStale = errors.New("what is listed changed meanwhile")

func (c *Conn) exchange(m genetlink.Message, flags netlink.HeaderFlags) ([]genetlink.Message, error) {
	sent, err := c.conn.Send(m, c.fam.ID, flags)
	if err != nil {
		return nil, err
	}
	var answers []genetlink.Message
	for {
		generic, raw, err := c.conn.Receive()
		if err != nil {
			if op, ok := errors.AsType[*netlink.OpError](err); ok && op.Sequence != 0 && op.Sequence != sent.Header.Sequence {
				continue // of an earlier request
			}
			return nil, err
		}
		stale := false
		for i, h := range raw {
			if h.Header.Sequence != sent.Header.Sequence {
				continue
			}
			stale = stale || h.Header.Flags&netlink.DumpInterrupted != 0
			if h.Header.Type == netlink.Error {
				return answers, nil
			}
			answers = append(answers, generic[i])
		}
		if flags&netlink.Dump != netlink.Dump {
			continue
		}
		// Receive has read to the end of the dump, which no acknowledgement follows.
		if stale {
			return nil, errStale
		}
		return answers, nil
	}
}

// dumpTries is how often a listing is begun again when something changed in it.
const dumpTries = 5

// dump lists things: parse is called for each message. A listing that changed
// meanwhile is begun again, by reset.
func (c *Conn) dump(what string, r request, reset func(), parse func(b []byte) error) error {
	r.flags |= netlink.Dump
	for try := 1; ; try++ {
		answers, err := c.do(what, r)
		if errors.Is(err, errStale) && try < dumpTries {
			continue
		}
		if err != nil {
			return err
		}
		reset()
		for _, a := range answers {
			if err := parse(a.Data); err != nil {
				return fmt.Errorf("nl80211: %s: %w", what, err)
			}
		}
		return nil
	}
}

// set makes a request whose answer says no more than that it was done.
func (c *Conn) set(what string, command uint8, attrs func(e *netlink.AttributeEncoder)) error {
	_, err := c.do(what, request{command: command, attrs: attrs})
	return err
}

// get makes a request that one message answers.
func (c *Conn) get(what string, command uint8, attrs func(e *netlink.AttributeEncoder)) ([]byte, error) {
	answers, err := c.do(what, request{command: command, attrs: attrs})
	if err != nil {
		return nil, err
	}
	if len(answers) != 1 {
		return nil, fmt.Errorf("nl80211: %s: expected one answer, got %d", what, len(answers))
	}
	return answers[0].Data, nil
}

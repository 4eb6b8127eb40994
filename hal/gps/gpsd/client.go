package gpsd

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
)

// watch is what a client wants to be told unasked.
type watch uint8

const (
	watchJSON watch = 1 << iota
	watchNMEA
	watchPPS
)

// client is one connection.
type client struct {
	server *Server
	conn   net.Conn
	from   netip.Addr
	out    chan []byte
	slow   chan struct{} // closed when it reads too slowly
	once   sync.Once

	// Guarded by the server's mu.
	policy policy
}

// watches tells whether the client wants that. The server's mu is held.
func (c *client) watches(what watch) bool {
	p := c.policy
	if !p.Enable || p.Device != "" && c.server.device != nil && p.Device != c.server.device.Path {
		return false
	}
	return what == watchJSON && p.JSON || what == watchNMEA && (p.NMEA || p.Raw > 0) || what == watchPPS && p.PPS
}

// queue has a message sent. A client whose queue is full goes: what it would read later is
// old, and what waits takes room that others need.
func (c *client) queue(b []byte) {
	select {
	case c.out <- b:
	default:
		c.once.Do(func() { close(c.slow) })
	}
}

// run serves the client until it goes, or has to.
func (c *client) run(ctx context.Context) {
	defer c.conn.Close() // nothing that matters is left in it
	var both sync.WaitGroup
	defer both.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	both.Go(func() {
		defer cancel()
		c.write(ctx)
	})
	stop := context.AfterFunc(ctx, func() { _ = c.conn.Close() }) // it ends the read
	defer stop()
	r := bufio.NewReaderSize(c.conn, maxRequest)
	for {
		if err := c.conn.SetReadDeadline(time.Now().Add(idleLimit)); err != nil {
			return
		}
		line, err := r.ReadSlice('\n')
		if errors.Is(err, os.ErrDeadlineExceeded) && c.enabled() {
			continue // it listens
		}
		if errors.Is(err, bufio.ErrBufferFull) || err != nil && !errors.Is(err, io.EOF) {
			return // longer than any request, or gone
		}
		for _, m := range c.server.answer(c, line) {
			c.queue(m)
		}
		if err != nil {
			// What was asked before the end is answered yet.
			c.drain()
			return
		}
	}
}

func (c *client) enabled() bool {
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	return c.policy.Enable
}

// drain waits until what is queued was written, a little while.
func (c *client) drain() {
	limit := time.NewTimer(time.Second)
	defer limit.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for len(c.out) > 0 {
		select {
		case <-limit.C:
			return
		case <-tick.C:
		}
	}
	time.Sleep(5 * time.Millisecond) // the last one is being written
}

// write sends what is queued.
func (c *client) write(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.slow:
			c.drop()
			return
		case b := <-c.out:
			if err := c.conn.SetWriteDeadline(time.Now().Add(writeLimit)); err != nil {
				return
			}
			if _, err := c.conn.Write(b); err != nil {
				if errors.Is(err, os.ErrDeadlineExceeded) {
					c.drop()
				}
				return
			}
		}
	}
}

func (c *client) drop() {
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	c.server.dropped++
	c.server.log.Info("a client of the GPS receiver does not read and was dropped", "peer", c.from)
}

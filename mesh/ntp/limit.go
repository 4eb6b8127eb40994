package ntp

import (
	"container/list"
	"net/netip"
	"sync"
	"time"
)

const (
	burst      = 16              // requests at once: a client that starts sends some
	every      = 2 * time.Second // one more
	kissEvery  = 8 * time.Second // that a client is told to be slower
	maxClients = 2048            // that are remembered
)

// verdict on a request.
type verdict int

const (
	answered verdict = iota
	slower           // to be told
	silent
)

// limit is how often each client may ask. Who was not heard for long is
// forgotten first.
type limit struct {
	now func() time.Time

	mu      sync.Mutex // guards what follows
	order   *list.List // of *client, the latest in front
	clients map[netip.Addr]*list.Element
}

type client struct {
	addr   netip.Addr
	left   float64   // requests
	at     time.Time // when that was so
	kissed time.Time
}

func newLimit(now func() time.Time) *limit {
	return &limit{now: now, order: list.New(), clients: make(map[netip.Addr]*list.Element)}
}

func (l *limit) ask(addr netip.Addr) verdict {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	e, ok := l.clients[addr]
	if !ok {
		if len(l.clients) >= maxClients {
			delete(l.clients, l.order.Remove(l.order.Back()).(*client).addr)
		}
		e = l.order.PushFront(&client{addr: addr, left: burst, at: now})
		l.clients[addr] = e
	}
	l.order.MoveToFront(e)
	c := e.Value.(*client)
	c.left = min(burst, c.left+float64(now.Sub(c.at))/float64(every))
	c.at = now
	switch {
	case c.left >= 1:
		c.left--
		return answered
	case c.kissed.IsZero() || now.Sub(c.kissed) >= kissEvery:
		c.kissed = now
		return slower
	}
	return silent
}

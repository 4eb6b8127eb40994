package vhost

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"
)

// Flags of descriptors (virtio 2.7.5).
const (
	descNext     = 1
	descWrite    = 2
	descIndirect = 4
	descSize     = 16
)

// queue is a split virtqueue. QEMU 7.2 tells guests that they may use indirect
// descriptors and event indexes, whatever the device offers: both are understood, and
// the guest is told of each request's end, and tells of each request.
type queue struct {
	index   int
	session *session

	// Set while the queue is stopped.
	num                uint64
	descs, avail, used uint64 // addresses of the front end
	last               uint16 // next entry of the available ring
	cancel             context.CancelFunc
	done               chan struct{} // closed when nobody serves it
	kick               *os.File

	mu     sync.Mutex // guards what follows
	run    int        // counts starts: a reply to a request of an earlier one is late
	filled uint16     // entries of the used ring, in all
	call   *os.File
}

// Request is one request of the guest.
type Request struct {
	Out  []byte // what the guest says
	Room int    // octets that it has for the answer

	queue *queue
	run   int
	head  uint16
	in    []piece
	done  atomic.Bool
}

// piece is a part of the guest's memory.
type piece struct {
	addr uint64
	size uint32
}

// handle carries out a message that is about the queue.
func (q *queue) handle(ctx context.Context, m *message) ([]byte, error) {
	p := m.payload
	switch m.request {
	case setVringNum:
		n := le.Uint32(p[4:])
		if n == 0 || n > maxQueue || n&(n-1) != 0 {
			return nil, fmt.Errorf("expected a power of two of entries up to %d, got %d", maxQueue, n)
		}
		q.stop()
		q.num = uint64(n)
	case setVringAddr:
		q.stop()
		q.descs, q.used, q.avail = le.Uint64(p[8:]), le.Uint64(p[16:]), le.Uint64(p[24:])
		return nil, q.resume()
	case setVringBase:
		q.stop()
		q.last = uint16(le.Uint32(p[4:]))
	case getVringBase: // which also stops it
		q.stop()
		return le.AppendUint32(le.AppendUint32(nil, uint32(q.index)), uint32(q.last)), nil
	case setVringKick:
		f, err := event(m.take())
		if err != nil {
			return nil, err
		}
		q.stop()
		q.start(ctx, f)
	case setVringCall:
		f, err := event(m.take())
		if err != nil {
			return nil, err
		}
		q.mu.Lock()
		old := q.call
		q.call = f
		q.mu.Unlock()
		closeFile(old)
	case setVringErr: // nobody listens to it
	}
	return nil, nil
}

func closeFile(f *os.File) {
	if f != nil {
		f.Close()
	}
}

// resume takes over how far the used ring is filled.
func (q *queue) resume() error {
	m := q.session.memory
	m.RLock()
	defer m.RUnlock()
	r, err := q.rings()
	if err == nil {
		q.mu.Lock()
		q.filled = uint16(atomic.LoadUint32(r.used) >> 16)
		q.mu.Unlock()
	}
	return err
}

// start serves the queue until stop.
func (q *queue) start(ctx context.Context, kick *os.File) {
	ctx, q.cancel = context.WithCancel(ctx)
	q.kick, q.done = kick, make(chan struct{})
	go func() {
		defer close(q.done)
		b := make([]byte, 8)
		for {
			if err := q.drain(ctx); err != nil {
				if ctx.Err() == nil {
					q.session.log.Warn("a virtual device is not served any more: the guest broke the rules of virtio", "queue", q.index, "err", err)
				}
				return
			}
			if kick == nil {
				return
			}
			if _, err := kick.Read(b); err != nil {
				return
			}
		}
	}()
}

// stop ends serving. Requests without a reply get none.
func (q *queue) stop() {
	if q.done == nil {
		return
	}
	q.cancel()
	closeFile(q.kick)
	<-q.done
	q.done, q.kick = nil, nil
	q.mu.Lock()
	q.run++
	q.mu.Unlock()
	q.session.device.Stopped(q.index)
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	closeFile(q.call)
	q.call = nil
}

// rings are the queue's parts in the guest's memory.
type rings struct {
	descs, availRing, usedRing []byte
	avail, used                *uint32 // flags, and in the upper half the index
}

var errRings = errors.New("expected the rings in the guest's memory, at multiples of four octets")

// rings finds them; the memory is locked.
func (q *queue) rings() (r rings, err error) {
	m := q.session.memory
	if q.num == 0 {
		return r, errors.New("expected the size of the queue first")
	}
	r.descs = m.userAt(q.descs, descSize*q.num)
	r.availRing = m.userAt(q.avail, 6+2*q.num)
	r.usedRing = m.userAt(q.used, 6+8*q.num)
	if r.descs == nil || r.availRing == nil || r.usedRing == nil {
		return r, errRings
	}
	r.avail, r.used = word(r.availRing), word(r.usedRing)
	if r.avail == nil || r.used == nil {
		return r, errRings
	}
	return r, nil
}

// word is the first word of a ring, nil where it can't be read at once.
func word(b []byte) *uint32 {
	p := unsafe.Pointer(&b[0])
	if uintptr(p)%4 != 0 {
		return nil
	}
	return (*uint32)(p)
}

// drain handles all that is available.
func (q *queue) drain(ctx context.Context) error {
	for ctx.Err() == nil {
		r, err := q.next()
		if err != nil || r == nil {
			return err
		}
		q.session.device.Handle(ctx, q.index, r)
	}
	return ctx.Err()
}

// next takes the next request, nil if there is none.
func (q *queue) next() (*Request, error) {
	m := q.session.memory
	m.RLock()
	defer m.RUnlock()
	r, err := q.rings()
	if err != nil {
		return nil, err
	}
	waiting := uint16(atomic.LoadUint32(r.avail)>>16) - q.last
	if waiting == 0 {
		// The guest is to tell of the next one. One that came meanwhile is seen behind
		// the barrier.
		le.PutUint16(r.usedRing[4+8*q.num:], q.last)
		var barrier uint32
		atomic.AddUint32(&barrier, 1)
		waiting = uint16(atomic.LoadUint32(r.avail)>>16) - q.last
	}
	if waiting == 0 {
		return nil, nil
	}
	if uint64(waiting) > q.num {
		return nil, fmt.Errorf("expected at most %d requests at once, got %d", q.num, waiting)
	}
	head := le.Uint16(r.availRing[4+2*(uint64(q.last)%q.num):])
	q.last++
	q.mu.Lock()
	req := &Request{queue: q, run: q.run, head: head}
	q.mu.Unlock()
	return req, req.walk(m, r.descs, head)
}

// walk reads the chain of descriptors of a request. Every descriptor is copied before
// it is looked at, since the guest may change it at any time.
func (r *Request) walk(m *memory, table []byte, at uint16) error {
	total, indirect := 0, false
	for n := 0; ; n++ {
		if n*descSize >= len(table) || int(at)*descSize+descSize > len(table) {
			return fmt.Errorf("expected a chain of descriptors in a table of %d, got one that leaves it or has no end", len(table)/descSize)
		}
		var d [descSize]byte
		copy(d[:], table[int(at)*descSize:])
		addr, size, flags := le.Uint64(d[:]), le.Uint32(d[8:]), le.Uint16(d[12:])
		if flags&descIndirect != 0 {
			if indirect || flags&descNext != 0 || size == 0 || size%descSize != 0 || size > maxQueue*descSize {
				return fmt.Errorf("expected one table of at most %d descriptors at the end of the chain, got %d octets", maxQueue, size)
			}
			if table = m.guestAt(addr, uint64(size)); table == nil {
				return fmt.Errorf("expected a table in memory, got %d octets at %#x", size, addr)
			}
			indirect, n, at = true, -1, 0
			continue
		}
		if total += int(size); size > maxRequest || total > maxRequest {
			return fmt.Errorf("expected a request of at most %d octets, got more", maxRequest)
		}
		b := m.guestAt(addr, uint64(size))
		switch {
		case b == nil:
			return fmt.Errorf("expected a buffer in memory, got %d octets at %#x", size, addr)
		case flags&descWrite != 0:
			r.in = append(r.in, piece{addr, size})
			r.Room += int(size)
		case len(r.in) > 0:
			return errors.New("expected what the guest says before its room for the answer")
		default:
			r.Out = append(r.Out, b...)
		}
		if flags&descNext == 0 {
			return nil
		}
		at = le.Uint16(d[14:])
	}
}

// Reply answers the request, by as much as there is room for, and tells the guest. It
// may be called from any goroutine; a second time, and after the queue has stopped, it
// does nothing.
func (r *Request) Reply(answer []byte) {
	if r.done.Swap(true) {
		return
	}
	q := r.queue
	m := q.session.memory
	m.RLock()
	defer m.RUnlock()
	q.mu.Lock()
	defer q.mu.Unlock()
	if r.run != q.run {
		return
	}
	rings, err := q.rings()
	if err != nil {
		return // its memory is gone
	}
	n := 0
	for _, p := range r.in {
		b := m.guestAt(p.addr, uint64(p.size))
		if b == nil || n == len(answer) {
			break
		}
		n += copy(b, answer[n:])
	}
	e := rings.usedRing[4+8*(uint64(q.filled)%q.num):]
	le.PutUint32(e, uint32(r.head))
	le.PutUint32(e[4:], uint32(n))
	q.filled++
	atomic.StoreUint32(rings.used, uint32(q.filled)<<16)
	if q.call != nil {
		_, _ = q.call.Write(u64(1)) // one that is full has told already
	}
}

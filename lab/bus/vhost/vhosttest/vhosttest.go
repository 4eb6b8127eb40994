//go:build linux

// Package vhosttest is QEMU and a guest for tests of devices of vhost-user: it hands
// over memory and queues as QEMU does, and makes requests as a driver does, or such as
// none would.
package vhosttest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"halo.internal/lab/machine"
)

// Layout of the guest's memory: a piece for each queue, and what is left for buffers.
const (
	Size      = 1 << 20
	GuestBase = 1 << 30 // address for the guest
	UserBase  = 1 << 40 // address for the front end
	Entries   = 8       // of each queue

	queueSize = 0x10000
	availAt   = 0x4000
	usedAt    = 0x8000
	buffersAt = 0x80000
)

// Limit is how long a test waits for what must happen.
const Limit = 30 * time.Second

var le = binary.LittleEndian

// Guest is a guest behind a front end.
type Guest struct {
	Memory []byte
	Served <-chan error // how the device's side ended

	t       testing.TB
	conn    *net.UnixConn
	memfd   int
	queues  []*queue
	buffers int
}

type queue struct {
	kick, call  *os.File
	avail, used uint16
	free        [Entries]bool
	answers     map[uint16]*Pending
}

// Pending is a request that is under way.
type Pending struct {
	g     *Guest
	queue int
	room  int
	at    int // of its room in memory
	done  bool
	n     uint32
}

// New starts a guest whose device is served by serve.
func New(t testing.TB, queues int, serve func(net.Conn) error) *Guest {
	t.Helper()
	near, far, err := machine.Wire()
	must(t, err)
	theirs, err := net.FileConn(far)
	must(t, errors.Join(err, far.Close()))
	served := make(chan error, 1)
	go func() { served <- serve(theirs) }()
	g := &Guest{t: t, Served: served, conn: near.(*net.UnixConn)}
	g.memfd = Memfd(t, Size, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW)
	g.Memory, err = unix.Mmap(g.memfd, 0, Size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	for range queues {
		g.queues = append(g.queues, &queue{answers: map[uint16]*Pending{}})
	}
	t.Cleanup(g.close)
	return g
}

// Memfd returns memory with seals.
func Memfd(t testing.TB, size int64, seals int) int {
	t.Helper()
	fd, err := unix.MemfdCreate("guest", unix.MFD_ALLOW_SEALING|unix.MFD_CLOEXEC)
	must(t, err)
	must(t, unix.Ftruncate(fd, size))
	_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals)
	must(t, err)
	return fd
}

func (g *Guest) close() {
	g.conn.Close()
	select {
	case <-g.Served:
	case <-time.After(Limit):
		g.t.Error("the device is served on, although its guest is gone")
	}
	for _, q := range g.queues {
		if q.kick != nil {
			q.kick.Close()
			q.call.Close()
		}
	}
	_ = unix.Close(g.memfd)
	_ = unix.Munmap(g.Memory)
}

func must(t testing.TB, err error) {
	if err != nil {
		t.Helper()
		t.Fatal(err)
	}
}

// Send sends a message without waiting for an answer.
func (g *Guest) Send(request uint32, payload []byte, fds ...int) error {
	b := le.AppendUint32(nil, request)
	b = le.AppendUint32(b, 1)
	b = le.AppendUint32(b, uint32(len(payload)))
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	_, _, err := g.conn.WriteMsgUnix(append(b, payload...), oob, nil)
	return err
}

// Ask sends a message and returns the answer.
func (g *Guest) Ask(request uint32, payload []byte) ([]byte, error) {
	if err := g.Send(request, payload); err != nil {
		return nil, err
	}
	if err := g.conn.SetReadDeadline(time.Now().Add(Limit)); err != nil {
		return nil, err
	}
	header := make([]byte, 12)
	if _, err := io.ReadFull(g.conn, header); err != nil {
		return nil, err
	}
	b := make([]byte, le.Uint32(header[8:]))
	if got := le.Uint32(header); got != request {
		return nil, fmt.Errorf("expected an answer to %d, got one to %d", request, got)
	}
	_, err := io.ReadFull(g.conn, b)
	return b, err
}

func words(v ...uint32) (b []byte) {
	for _, w := range v {
		b = le.AppendUint32(b, w)
	}
	return b
}

// Start hands memory and queues over.
func (g *Guest) Start() {
	g.t.Helper()
	for _, request := range []uint32{1, 15} { // features
		b, err := g.Ask(request, nil)
		must(g.t, err)
		must(g.t, g.Send(request+1, b))
	}
	must(g.t, g.Send(3, nil))
	must(g.t, g.Send(5, g.Region(0, Size), g.memfd))
	for i := range g.queues {
		g.StartQueue(i, 0)
	}
}

// Region is the payload of the message that hands memory over.
func (g *Guest) Region(offset, size uint64) []byte {
	b := words(1, 0)
	for _, v := range []uint64{GuestBase + offset, size, UserBase + offset, offset} {
		b = le.AppendUint64(b, v)
	}
	return b
}

// StartQueue hands one over, whose next request is the n-th.
func (g *Guest) StartQueue(i int, n uint32) {
	g.t.Helper()
	q := g.queues[i]
	q.kick, q.call = eventfd(g.t), eventfd(g.t)
	number := uint32(i)
	must(g.t, g.Send(8, words(number, Entries)))
	must(g.t, g.Send(10, words(number, n)))
	must(g.t, g.Send(9, g.Addresses(i)))
	must(g.t, g.Send(13, le.AppendUint64(nil, uint64(i)), int(q.call.Fd())))
	must(g.t, g.Send(12, le.AppendUint64(nil, uint64(i)), int(q.kick.Fd())))
}

// Addresses is the payload of the message that says where a queue is.
func (g *Guest) Addresses(i int) []byte {
	b := words(uint32(i), 0)
	at := uint64(UserBase + i*queueSize)
	for _, v := range []uint64{at, at + usedAt, at + availAt, 0} {
		b = le.AppendUint64(b, v)
	}
	return b
}

func eventfd(t testing.TB) *os.File {
	t.Helper()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	must(t, err)
	return os.NewFile(uintptr(fd), "eventfd")
}

// Descriptor writes one into a queue's table, or wherever table is.
func (g *Guest) Descriptor(table, n int, addr uint64, size uint32, flags, next uint16) {
	b := g.Memory[table+16*n:]
	le.PutUint64(b, addr)
	le.PutUint32(b[8:], size)
	le.PutUint16(b[12:], flags)
	le.PutUint16(b[14:], next)
}

// Table is where a queue's descriptors are in memory.
func (g *Guest) Table(queue int) int { return queue * queueSize }

// Buffer takes memory for a request.
func (g *Guest) Buffer(size int) (at int) {
	size = (size + 15) &^ 15
	if g.buffers+size > Size-buffersAt {
		g.buffers = 0
	}
	at = buffersAt + g.buffers
	g.buffers += size
	return at
}

// Submit makes a request by an indirect table, as QEMU's guests do, and tells the
// device. Out is in two parts, as the drivers have it.
func (g *Guest) Submit(queue int, out []byte, room int) *Pending {
	g.t.Helper()
	p := g.Add(queue, out, room)
	g.Kick(queue)
	return p
}

// Add makes a request without telling.
func (g *Guest) Add(queue int, out []byte, room int) *Pending {
	g.t.Helper()
	at := g.Buffer(len(out))
	copy(g.Memory[at:], out)
	in := g.Buffer(room)
	clear(g.Memory[in : in+room])
	table := g.Buffer(4 * 16)
	first := min(8, len(out))
	g.Descriptor(table, 0, uint64(GuestBase+at), uint32(first), 1, 1)
	next := 1
	if len(out) > first {
		g.Descriptor(table, 1, uint64(GuestBase+at+first), uint32(len(out)-first), 1, 2)
		next = 2
	}
	g.Descriptor(table, next, uint64(GuestBase+in), uint32(room), 2, 0)
	q := g.queues[queue]
	head := -1
	for i, taken := range q.free {
		if !taken {
			head = i
			break
		}
	}
	if head < 0 {
		g.t.Fatal("the queue is full")
	}
	q.free[head] = true
	g.Descriptor(g.Table(queue), head, uint64(GuestBase+table), uint32(16*(next+1)), 4, 0)
	p := &Pending{g: g, queue: queue, room: room, at: in}
	q.answers[uint16(head)] = p
	g.Offer(queue, uint16(head))
	return p
}

// Offer makes a descriptor available.
func (g *Guest) Offer(queue int, head uint16) {
	q := g.queues[queue]
	avail := g.Memory[queue*queueSize+availAt:]
	le.PutUint16(avail[4+2*int(q.avail%Entries):], head)
	q.avail++
	g.SetIndex(queue, q.avail)
}

// AwaitTaken waits until the device has taken all that is available.
func (g *Guest) AwaitTaken(queue int) {
	g.t.Helper()
	event := queue*queueSize + usedAt + 4 + 8*Entries // the device says from where on it wants to be told
	for end := time.Now().Add(Limit); le.Uint16(g.Memory[event:]) != g.queues[queue].avail; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			g.t.Fatal("the device does not take what is there")
		}
	}
}

// SetIndex says how many are available in all.
func (g *Guest) SetIndex(queue int, n uint16) {
	p := (*uint32)(unsafe.Pointer(&g.Memory[queue*queueSize+availAt]))
	atomic.StoreUint32(p, uint32(n)<<16)
}

// Kick tells the device.
func (g *Guest) Kick(queue int) {
	_, err := g.queues[queue].kick.Write(le.AppendUint64(nil, 1))
	must(g.t, err)
}

// Stop stops a queue.
func (g *Guest) Stop(queue int) {
	g.t.Helper()
	_, err := g.Ask(11, words(uint32(queue), 0))
	must(g.t, err)
}

// collect takes what is in the used ring.
func (g *Guest) collect(queue int) {
	q := g.queues[queue]
	used := g.Memory[queue*queueSize+usedAt:]
	for q.used != uint16(atomic.LoadUint32((*uint32)(unsafe.Pointer(&used[0])))>>16) {
		e := used[4+8*int(q.used%Entries):]
		head := uint16(le.Uint32(e))
		if p := q.answers[head]; p != nil {
			p.done, p.n = true, le.Uint32(e[4:])
			delete(q.answers, head)
			q.free[head] = false
		}
		q.used++
	}
}

// Done tells whether the device has answered by now.
func (p *Pending) Done() bool {
	p.g.collect(p.queue)
	return p.done
}

// Wait waits for the answer.
func (p *Pending) Wait() []byte {
	p.g.t.Helper()
	call := p.g.queues[p.queue].call
	must(p.g.t, call.SetReadDeadline(time.Now().Add(Limit)))
	for !p.Done() {
		if _, err := call.Read(make([]byte, 8)); err != nil {
			p.g.t.Fatalf("no answer: %v", err)
		}
	}
	return p.g.Memory[p.at : p.at+int(p.n) : p.at+p.room]
}

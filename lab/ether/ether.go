// Package ether is the Ethernet between virtual machines: a learning switch
// whose cables are Unix sockets with QEMU's stream framing. Each cable and each
// pair of cables can lose, delay and slow down frames, and groups of cables can
// be cut off from each other, all while machines run; what passes can be
// captured. Everything a machine sends is bounded: frames, addresses, queues.
package ether

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"halo.internal/model/pcap"
)

// Limits on what machines can make the switch hold.
const (
	maxAddresses = 1024            // learned; beyond it, frames are flooded
	addressLife  = 5 * time.Minute // since last seen as a source
	queueFrames  = 2048            // on their way to one machine
	queueTime    = time.Second     // that a frame waits for a slow line; later ones are dropped
)

// ErrNoLink is wrapped where a name is not that of a cable.
var ErrNoLink = errors.New("no such link")

type mac [6]byte

// multicast tells whether a is a group address, broadcast included.
func (a mac) multicast() bool { return a[0]&1 != 0 }

type station struct {
	link *link
	seen time.Time
}

type pair struct{ from, to string }

// Switch connects cables. Its methods may be called from any goroutine.
type Switch struct {
	log     *slog.Logger
	running sync.WaitGroup // readers and writers of the cables

	mu      sync.Mutex // guards what follows, and all links
	random  *rand.Rand
	links   map[string]*link
	lines   map[pair]*line // between two cables, one per direction
	table   map[mac]station
	groups  map[string]int // of a partition; nil when there is none
	capture *pcap.Writer
	closed  bool
}

// Capture records every frame that a machine sends, lost or not, until it is
// called with nil.
func (s *Switch) Capture(c *pcap.Writer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.capture = c
}

// New returns a switch without cables. The seed decides which frames are lost.
func New(log *slog.Logger, seed uint64) *Switch {
	return &Switch{
		log: log, random: rand.New(rand.NewPCG(seed, 0)),
		links: map[string]*link{}, lines: map[pair]*line{}, table: map[mac]station{},
	}
}

// Plug connects a machine by the cable of that name until either side closes
// conn. Name, conditions and counters of a cable outlive the connection: a
// machine that starts again is plugged into the same one, and an older
// connection is cut.
func (s *Switch) Plug(name string, conn net.Conn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errors.New("plug " + name + ": the switch is closed")
	}
	l := s.links[name]
	if l == nil {
		l = &link{name: name}
		s.links[name] = l
	}
	s.unplug(l)
	e := &end{conn: conn, wake: make(chan struct{}, 1), gone: make(chan struct{})}
	l.end = e
	s.running.Go(func() { s.read(l, e) })
	s.running.Go(func() { s.write(e) })
	return nil
}

// unplug ends the connection on a cable, if there is one.
func (s *Switch) unplug(l *link) {
	if l.end == nil {
		return
	}
	close(l.end.gone)
	l.end.conn.Close()
	l.end = nil
	maps.DeleteFunc(s.table, func(_ mac, st station) bool { return st.link == l })
}

// read forwards what a machine sends until its connection ends.
func (s *Switch) read(l *link, e *end) {
	err := readFrames(e.conn, func(frame []byte) { s.forward(l, frame) })
	s.mu.Lock()
	defer s.mu.Unlock()
	if l.end != e {
		return // unplugged by us
	}
	s.unplug(l)
	if err != nil {
		s.log.Warn("cable is dead", "iface", l.name, "err", err)
	}
}

// Close cuts all cables and returns when nothing of the switch runs any more.
func (s *Switch) Close() {
	s.mu.Lock()
	s.closed = true
	for _, l := range s.links {
		s.unplug(l)
	}
	s.mu.Unlock()
	s.running.Wait()
}

// forward takes one frame from a machine. The frame is kept.
func (s *Switch) forward(from *link, frame []byte) {
	now := time.Now()
	dst, src := mac(frame[0:6]), mac(frame[6:12])
	s.mu.Lock()
	defer s.mu.Unlock()
	from.count.SentFrames++
	from.count.SentBytes += uint64(len(frame))
	if s.capture != nil {
		if err := s.capture.Write(now, frame); err != nil {
			s.capture = nil
			s.log.Warn("capture ended", "err", err)
		}
	}
	s.learn(from, src, now)
	if s.lost(from.line) {
		from.count.Lost++
		return
	}
	due, ok := from.up.pass(now, now, len(frame), from.line.Rate)
	if !ok {
		from.count.Overflow++
		return
	}
	if st, ok := s.table[dst]; ok && !dst.multicast() && now.Sub(st.seen) < addressLife {
		if st.link != from {
			s.deliver(from, st.link, frame, now, due)
		}
		return
	}
	for _, to := range s.links {
		if to != from {
			s.deliver(from, to, frame, now, due)
		}
	}
}

func (s *Switch) learn(l *link, a mac, now time.Time) {
	if a.multicast() {
		return
	}
	if _, known := s.table[a]; !known && len(s.table) >= maxAddresses {
		maps.DeleteFunc(s.table, func(_ mac, st station) bool { return now.Sub(st.seen) >= addressLife })
		if len(s.table) >= maxAddresses {
			return
		}
	}
	s.table[a] = station{l, now}
}

// deliver puts a frame, which left its own cable at due, on the way to another
// one.
func (s *Switch) deliver(from, to *link, frame []byte, now, due time.Time) {
	if to.end == nil {
		return
	}
	if s.groups != nil && s.groups[from.name] != s.groups[to.name] {
		to.count.Blocked++
		return
	}
	between := s.lines[pair{from.name, to.name}]
	if between == nil {
		between = &line{}
		s.lines[pair{from.name, to.name}] = between
	}
	if s.lost(between.Condition) || s.lost(to.line) {
		to.count.Lost++
		return
	}
	due, ok := between.pass(now, due, len(frame), between.Rate)
	if ok {
		due, ok = to.down.pass(now, due, len(frame), to.line.Rate)
	}
	if !ok || len(to.end.queue) >= queueFrames {
		to.count.Overflow++
		return
	}
	due = due.Add(s.delay(from.line) + s.delay(between.Condition) + s.delay(to.line))
	// Jitter reorders nothing: a cable does not, nor do radios, which repeat a frame
	// before they send the next.
	if due.Before(between.last) {
		due = between.last
	}
	between.last = due
	to.count.ReceivedFrames++
	to.count.ReceivedBytes += uint64(len(frame))
	to.end.put(frame, due)
}

func (s *Switch) lost(c Condition) bool { return c.Loss > 0 && s.random.Float64() < c.Loss }

func (s *Switch) delay(c Condition) time.Duration {
	if c.Jitter == 0 {
		return c.Delay
	}
	return c.Delay + time.Duration(s.random.Int64N(int64(c.Jitter)+1))
}

// Names returns the names of all cables that were ever plugged in, sorted.
func (s *Switch) Names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.links))
}

func (s *Switch) link(name string) (*link, error) {
	if l := s.links[name]; l != nil {
		return l, nil
	}
	return nil, fmt.Errorf("%w: expected one of %v, got %q", ErrNoLink, slices.Sorted(maps.Keys(s.links)), name)
}

package ether

import (
	"bufio"
	"container/heap"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"
)

// Sizes of a frame without its checksum. QEMU puts the length before each, as
// 32 bits in network order.
const (
	minFrame = 14       // Ethernet header
	maxFrame = 16 << 10 // jumbo frames and then some
)

// Counters of a cable, as its machine would count.
type Counters struct {
	SentFrames     uint64 `json:"sent_frames"`
	SentBytes      uint64 `json:"sent_bytes"`
	ReceivedFrames uint64 `json:"received_frames"`
	ReceivedBytes  uint64 `json:"received_bytes"`
	Lost           uint64 `json:"lost" doc:"by a condition"`
	Blocked        uint64 `json:"blocked" doc:"by a partition"`
	Overflow       uint64 `json:"overflow" doc:"the line or the machine was too slow"`
}

// link is a cable.
type link struct {
	name     string
	end      *end // nil when no machine is plugged in
	line     Condition
	up, down shaper
	count    Counters
}

// end is a machine's connection to its cable. The switch's lock guards queue.
type end struct {
	conn  net.Conn
	queue queue
	count uint64        // frames ever put into the queue
	wake  chan struct{} // holds a token when there is a new head of the queue
	gone  chan struct{} // closed when the cable is unplugged
}

// delayed is a frame that must not arrive before due.
type delayed struct {
	frame  []byte
	due    time.Time
	number uint64 // keeps the order among equals
}

// queue is a heap: frames from different machines overtake each other.
type queue []delayed

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	if c := q[i].due.Compare(q[j].due); c != 0 {
		return c < 0
	}
	return q[i].number < q[j].number
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(delayed)) }
func (q *queue) Pop() any {
	last := len(*q) - 1
	d := (*q)[last]
	(*q)[last] = delayed{} // let go of the frame
	*q = (*q)[:last]
	return d
}

func (e *end) put(frame []byte, due time.Time) {
	e.count++
	heap.Push(&e.queue, delayed{frame, due, e.count})
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

// ready takes what is due out of the queue, and tells how long to wait for the
// next; negative without one.
func (s *Switch) ready(e *end) (frames [][]byte, wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for len(e.queue) > 0 && !e.queue[0].due.After(now) {
		frames = append(frames, heap.Pop(&e.queue).(delayed).frame)
	}
	if len(e.queue) == 0 {
		return frames, -1
	}
	return frames, e.queue[0].due.Sub(now)
}

// write sends a machine its frames, each when it is due, until the cable is
// unplugged.
func (s *Switch) write(e *end) {
	w := bufio.NewWriter(e.conn)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		frames, wait := s.ready(e)
		for _, f := range frames {
			if err := writeFrame(w, f); err != nil {
				return // the reader sees the end too, and unplugs
			}
		}
		if len(frames) > 0 {
			if err := w.Flush(); err != nil {
				return
			}
			continue // time has passed
		}
		if wait < 0 {
			timer.Stop()
		} else {
			timer.Reset(wait)
		}
		select {
		case <-e.gone:
			return
		case <-e.wake:
		case <-timer.C:
		}
	}
}

func writeFrame(w io.Writer, frame []byte) error {
	var head [4]byte
	binary.BigEndian.PutUint32(head[:], uint32(len(frame)))
	if _, err := w.Write(head[:]); err != nil {
		return err
	}
	_, err := w.Write(frame)
	return err
}

// readFrames calls take with each frame, which take may keep, until r ends. The
// end of r between two frames is no error. After a length that cannot be there
// is no way to find the next frame.
func readFrames(r io.Reader, take func([]byte)) error {
	b := bufio.NewReader(r)
	for {
		var head [4]byte
		switch _, err := io.ReadFull(b, head[:]); {
		case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed), errors.Is(err, syscall.ECONNRESET):
			return nil // the last of them when a machine lost its power with frames unread
		case err != nil:
			return fmt.Errorf("length of a frame: %w", err)
		}
		n := binary.BigEndian.Uint32(head[:])
		if n < minFrame || n > maxFrame {
			return fmt.Errorf("length of a frame: expected %d to %d, got %d", minFrame, maxFrame, n)
		}
		frame := make([]byte, n)
		if _, err := io.ReadFull(b, frame); err != nil {
			return fmt.Errorf("frame of %d octets: %w", n, err)
		}
		take(frame)
	}
}

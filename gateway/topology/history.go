package topology

import (
	"iter"
	"sync"
	"time"
)

// FrameKind is what a stored frame is.
type FrameKind uint8

// Kinds of frames. Their numbers are stored.
const (
	FrameFull  FrameKind = 1 // a whole picture: reading may begin here
	FrameDelta FrameKind = 2 // what changed since the frame before that is no mark
	FrameMark  FrameKind = 3 // nothing changed; it has no octets
)

// Frame is a piece of the history.
type Frame struct {
	At   time.Time
	Kind FrameKind
	Data []byte
}

// Store keeps the frames of the history.
type Store interface {
	// Append adds a frame behind all others, whatever their times. When it returns,
	// the frame will be in Range, though it need not be on the card yet.
	Append(at time.Time, kind FrameKind, data []byte) error
	// Range returns the frames from from to to, both included, in the order in which
	// they were appended, which is not that of their times where the clock was set
	// back. It ends with the first error.
	Range(from, to time.Time) iter.Seq2[Frame, error]
}

// Memory is a Store in memory that drops the oldest frames beyond a bound of octets:
// for a gateway without a card, and for tests.
type Memory struct {
	most int

	mu     sync.Mutex // guards what follows
	frames []Frame
	octets int
}

var _ Store = (*Memory)(nil)

const frameOverhead = 64 // octets that a frame takes besides its own

// NewMemory returns a store of at most that many octets.
func NewMemory(most int) *Memory { return &Memory{most: most} }

// Append adds a frame. It never fails.
func (m *Memory) Append(at time.Time, kind FrameKind, data []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.frames, m.octets = append(m.frames, Frame{at, kind, data}), m.octets+len(data)+frameOverhead
	for len(m.frames) > 1 && m.octets > m.most {
		m.octets -= len(m.frames[0].Data) + frameOverhead
		m.frames[0].Data = nil
		m.frames = m.frames[1:]
	}
	return nil
}

// Range returns frames as Store says, those that are there when it is called.
func (m *Memory) Range(from, to time.Time) iter.Seq2[Frame, error] {
	m.mu.Lock()
	frames := append([]Frame(nil), m.frames...)
	m.mu.Unlock()
	return func(yield func(Frame, error) bool) {
		for _, f := range frames {
			if !f.At.Before(from) && !f.At.After(to) && !yield(f, nil) {
				return
			}
		}
	}
}

// Octets returns how much is kept.
func (m *Memory) Octets() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.octets
}

package bus

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"

	"halo.internal/lab/bus/vhost"
)

var le = binary.LittleEndian

// The virtio GPIO device (virtio 1.2, 5.15).
const (
	gpioIRQ = 1 << 0 // feature: interrupts

	gpioNames        = 1
	gpioGetDirection = 2
	gpioSetDirection = 3
	gpioGetValue     = 4
	gpioSetValue     = 5
	gpioSetIRQ       = 6

	directionNone = 0
	directionOut  = 1
	directionIn   = 2

	irqRising  = 1
	irqFalling = 2
	irqHigh    = 4
	irqLow     = 8

	gpioOK      = 0
	gpioError   = 1
	irqInvalid  = 0
	irqValid    = 1
	requestSize = 8 // octets of a request
)

// GPIO is a chip of lines. Each floats until the machine drives it, and then has the
// level that the host gives it.
type GPIO struct {
	names []string

	mu      sync.Mutex // guards what follows, and what sessions hold
	lines   []line
	current *gpioSession // of the machine's present start
}

type line struct {
	outside   bool // the level that it has where nobody drives it
	driven    bool // the machine's level
	direction byte
	edges     int // changes of the level, in all
}

// LineStatus is what is known of a line.
type LineStatus struct {
	Line      string `json:"line"`
	Direction string `json:"direction" doc:"as the machine has it: unused, in or out"`
	High      bool   `json:"high"`
	Changes   int    `json:"changes" doc:"of its level, in all"`
}

// maxLines bounds a chip.
const maxLines = 64

var lineForm = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,30}$`)

func newGPIO(names []string) (*GPIO, error) {
	if len(names) > maxLines {
		return nil, fmt.Errorf("expected at most %d lines, got %d", maxLines, len(names))
	}
	for i, n := range names {
		if !lineForm.MatchString(n) {
			return nil, fmt.Errorf("expected a name of a line such as BUTTON, got %.40q", n)
		}
		for _, o := range names[:i] {
			if o == n {
				return nil, fmt.Errorf("two lines are called %s", n)
			}
		}
	}
	return &GPIO{names: names, lines: make([]line, len(names))}, nil
}

func (l *line) high() bool {
	if l.direction == directionOut {
		return l.driven
	}
	return l.outside
}

// Set gives a line a level from outside.
func (g *GPIO) Set(name string, high bool) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, n := range g.names {
		if n != name {
			continue
		}
		l := &g.lines[i]
		if l.direction == directionOut {
			return fmt.Errorf("%s is an output: the machine drives it", name)
		}
		g.update(i, func() { l.outside = high })
		return nil
	}
	return fmt.Errorf("no such line: expected one of %s, got %.40q", strings.Join(g.names, ", "), name)
}

// update changes a line, and tells the machine of the edge that comes of it.
func (g *GPIO) update(i int, change func()) {
	l := &g.lines[i]
	before := l.high()
	change()
	if l.high() != before {
		l.edges++
		if g.current != nil {
			g.current.edge(i, l.high())
		}
	}
}

// Status says how the lines stand.
func (g *GPIO) Status() []LineStatus {
	g.mu.Lock()
	defer g.mu.Unlock()
	var list []LineStatus
	for i, l := range g.lines {
		direction := [3]string{"unused", "out", "in"}[l.direction]
		list = append(list, LineStatus{g.names[i], direction, l.high(), l.edges})
	}
	return list
}

// gpioSession is the chip for one start of a machine.
type gpioSession struct {
	chip *GPIO
	irqs []irq // by line; guarded by the chip's lock
}

// irq is what the machine wants to hear of a line.
type irq struct {
	wanted  byte
	latched bool           // an edge came while nobody waited
	waiting *vhost.Request // answered when there is something to tell
}

func (g *GPIO) session() *gpioSession {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range g.lines { // a machine that starts drives nothing
		g.update(i, func() { g.lines[i].direction = directionNone })
	}
	g.current = &gpioSession{chip: g, irqs: make([]irq, len(g.lines))}
	return g.current
}

// float ends what a start of the machine had done with the lines, unless there has been
// another since.
func (g *GPIO) float(s *gpioSession) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.current != s {
		return
	}
	g.current = nil
	for i := range g.lines {
		g.update(i, func() { g.lines[i].direction = directionNone })
	}
}

func (s *gpioSession) Features() uint64 { return gpioIRQ }
func (s *gpioSession) Queues() int      { return 2 }

func (s *gpioSession) text() []byte { return []byte(strings.Join(s.chip.names, "\x00") + "\x00") }

func (s *gpioSession) Config() []byte {
	b := le.AppendUint16(nil, uint16(len(s.chip.names)))
	b = le.AppendUint16(b, 0)
	return le.AppendUint32(b, uint32(len(s.text())))
}

func (s *gpioSession) Stopped(int) {
	s.chip.mu.Lock()
	defer s.chip.mu.Unlock()
	clear(s.irqs)
}

func (s *gpioSession) Handle(_ context.Context, queue int, r *vhost.Request) {
	s.chip.mu.Lock()
	defer s.chip.mu.Unlock()
	if queue == 1 {
		s.wait(r)
		return
	}
	if len(r.Out) < requestSize {
		r.Reply(nil)
		return
	}
	kind, number, value := le.Uint16(r.Out), int(le.Uint16(r.Out[2:])), le.Uint32(r.Out[4:])
	if kind == gpioNames {
		r.Reply(append([]byte{gpioOK}, s.text()...))
		return
	}
	answer, err := s.request(kind, number, value)
	if err != nil {
		r.Reply([]byte{gpioError, 0})
		return
	}
	r.Reply([]byte{gpioOK, answer})
}

var errRequest = errors.New("expected a request of virtio 1.2, 5.15.6")

// request carries out what is about one line.
func (s *gpioSession) request(kind uint16, number int, value uint32) (answer byte, err error) {
	if number >= len(s.irqs) {
		return 0, errRequest
	}
	l := &s.chip.lines[number]
	switch kind {
	case gpioGetDirection:
		return l.direction, nil
	case gpioSetDirection:
		if value > directionIn {
			return 0, errRequest
		}
		s.chip.update(number, func() { l.direction = byte(value) })
	case gpioGetValue:
		if l.high() {
			return 1, nil
		}
	case gpioSetValue:
		if value > 1 {
			return 0, errRequest
		}
		s.chip.update(number, func() { l.driven = value == 1 })
	case gpioSetIRQ:
		if value > irqLow {
			return 0, errRequest
		}
		i := &s.irqs[number]
		i.wanted, i.latched = byte(value), false
		if value == 0 && i.waiting != nil {
			i.waiting.Reply([]byte{irqInvalid})
			i.waiting = nil
		}
	default:
		return 0, errRequest
	}
	return 0, nil
}

// wait keeps a request until there is something to tell.
func (s *gpioSession) wait(r *vhost.Request) {
	if len(r.Out) < 2 || int(le.Uint16(r.Out)) >= len(s.irqs) {
		r.Reply([]byte{irqInvalid})
		return
	}
	number := int(le.Uint16(r.Out))
	i := &s.irqs[number]
	if i.wanted == 0 || i.waiting != nil {
		r.Reply([]byte{irqInvalid})
		return
	}
	i.waiting = r
	s.tell(number)
}

// edge notes that a line has changed.
func (s *gpioSession) edge(number int, high bool) {
	i := &s.irqs[number]
	if high && i.wanted&irqRising != 0 || !high && i.wanted&irqFalling != 0 {
		i.latched = true
	}
	s.tell(number)
}

// tell answers who waits for a line.
func (s *gpioSession) tell(number int) {
	i := &s.irqs[number]
	high := s.chip.lines[number].high()
	level := i.wanted == irqHigh && high || i.wanted == irqLow && !high
	if i.waiting == nil || !i.latched && !level {
		return
	}
	r := i.waiting
	i.waiting, i.latched = nil, false
	r.Reply([]byte{irqValid})
}

var _ vhost.Device = (*gpioSession)(nil)

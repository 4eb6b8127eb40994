package bus

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"halo.internal/lab/bus/vhost"
	"halo.internal/lab/chips"
)

// Addresses that chips may have: others mean something to buses.
const (
	firstAddr = 0x08
	lastAddr  = 0x77
)

// I2C is one bus of a machine.
type I2C struct {
	number int
	parts  []*part // as wired; what they hold is guarded by mu

	mu           sync.Mutex
	freed        chan struct{} // nil: the bus is not stuck; closed when it is no longer
	lose         int
	transactions int
	failed       int
}

// part is a chip with what is wrong with it.
type part struct {
	kind   *kind
	addr   uint16
	chip   chips.Chip
	set    func([]float64)
	values []float64 // as kind.quantities
	absent bool
	fault  Fault
	asked  bool // the question behind its identity was the last one
	count  int
}

// Fault is what is wrong with a chip.
type Fault struct {
	NAK      bool  `json:"nak,omitempty" doc:"it does not acknowledge"`
	Identity bool  `json:"identity,omitempty" doc:"its register of identity says that it is another chip"`
	SlowMS   int64 `json:"slow_ms,omitempty" doc:"each of its transactions takes so much longer"`
}

// maxSlow bounds what a fault may add to a transaction.
const maxSlow = time.Minute

func newI2C(number int) *I2C { return &I2C{number: number} }

func (b *I2C) add(w Wired) error {
	k, ok := kindOf(w.Kind)
	if !ok {
		return fmt.Errorf("no such chip: expected one of %v, got %.40q", Kinds(), w.Kind)
	}
	p := &part{kind: k, addr: w.Addr}
	if p.addr == 0 {
		p.addr = k.addr
	}
	if p.addr < firstAddr || p.addr > lastAddr {
		return fmt.Errorf("%s: expected an address from %#02x to %#02x, got %#02x", k.name, firstAddr, lastAddr, p.addr)
	}
	for _, o := range b.parts {
		if o.addr == p.addr {
			return fmt.Errorf("%s and %s have one address, %#02x", o.kind.name, k.name, p.addr)
		}
	}
	for _, q := range k.quantities {
		p.values = append(p.values, q.usual)
	}
	p.chip, p.set = k.make(p.values)
	b.parts = append(b.parts, p)
	return nil
}

// name is kind@bus/address.
func (p *part) name(bus int) string { return fmt.Sprintf("%s@%d/%#02x", p.kind.name, bus, p.addr) }

func (b *I2C) change(p *part, c ChipChange) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	values := append([]float64(nil), p.values...)
	for name, v := range c.Values {
		if err := p.kind.assign(values, name, v); err != nil {
			return err
		}
	}
	if f := c.Fault; f != nil {
		if f.Identity && p.kind.identity == nil {
			return fmt.Errorf("%s has no register of identity that could be wrong", p.kind.name)
		}
		if f.SlowMS < 0 || f.SlowMS > maxSlow.Milliseconds() {
			return fmt.Errorf("slow: expected at most %s, got %d ms", maxSlow, f.SlowMS)
		}
		p.fault = *f
	}
	if len(c.Values) > 0 {
		p.values = values
		p.set(values)
	}
	if c.Plugged != nil {
		if p.absent = !*c.Plugged; p.absent {
			p.losePower()
		}
	}
	return nil
}

func (p *part) losePower() {
	if c, ok := p.chip.(interface{ LosePower() }); ok {
		c.LosePower()
	}
	p.asked = false
}

func (b *I2C) losePower() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.parts {
		p.losePower()
	}
}

func (b *I2C) disturb(c BusChange) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c.Lose != nil {
		b.lose = max(0, *c.Lose)
	}
	if c.Stuck == nil {
		return
	}
	switch {
	case *c.Stuck && b.freed == nil:
		b.freed = make(chan struct{})
	case !*c.Stuck && b.freed != nil:
		close(b.freed)
		b.freed = nil
	}
}

func (b *I2C) status() (BusStatus, []ChipStatus) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []ChipStatus
	for _, p := range b.parts {
		s := ChipStatus{Name: p.name(b.number), Kind: p.kind.name, Bus: b.number, Addr: p.addr, Plugged: !p.absent, Fault: p.fault, Transactions: p.count}
		for i, q := range p.kind.quantities {
			s.Values = append(s.Values, Value{q.name, q.unit, p.values[i]})
		}
		if d, ok := p.chip.(interface{ Picture() []string }); ok && !p.absent {
			s.Picture = d.Picture()
		}
		list = append(list, s)
	}
	return BusStatus{Bus: b.number, Stuck: b.freed != nil, Lose: b.lose, Transactions: b.transactions, Failed: b.failed}, list
}

// ErrStuck is of a transaction on a bus that had been stuck.
var ErrStuck = errors.New("the bus was stuck")

// Tx is one transaction with an address: w is written, then r is read behind a
// repeated start. It returns when ctx ends, whatever is wrong with the bus.
func (b *I2C) Tx(ctx context.Context, addr uint16, w, r []byte) (err error) {
	b.mu.Lock()
	b.transactions++
	freed, p := b.freed, b.at(addr)
	var slow time.Duration
	if p != nil {
		slow = time.Duration(p.fault.SlowMS) * time.Millisecond
	}
	b.mu.Unlock()
	defer func() {
		if err != nil {
			b.mu.Lock()
			b.failed++
			b.mu.Unlock()
		}
	}()
	if freed != nil {
		select {
		case <-freed:
			return ErrStuck
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if slow > 0 {
		t := time.NewTimer(slow)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if p = b.at(addr); p == nil {
		return fmt.Errorf("%w by %#02x", chips.ErrNAK, addr)
	}
	p.count++
	if b.lose > 0 {
		b.lose--
		return fmt.Errorf("%w by %#02x: noise", chips.ErrNAK, addr)
	}
	clear(r)
	if err := p.chip.Tx(w, r); err != nil {
		return err
	}
	if len(w) > 0 {
		p.asked = bytes.Equal(w, p.kind.identity)
	}
	if p.fault.Identity && p.asked {
		for i := range r {
			r[i] ^= 0xff
		}
	}
	return nil
}

// at returns the chip that answers at an address, nil if there is none.
func (b *I2C) at(addr uint16) *part {
	for _, p := range b.parts {
		if p.addr == addr && !p.absent && !p.fault.NAK {
			return p
		}
	}
	return nil
}

// The virtio I2C adapter (virtio 1.2, 5.13).
const (
	i2cZeroLength = 1 << 0 // feature: messages may be empty
	i2cFailNext   = 1 << 0 // flag: a message of the same transaction follows
	i2cRead       = 1 << 1
	i2cHeader     = 8 // octets before what is written
	i2cOK         = 0
	i2cError      = 1
	maxMessages   = 64 // of a transaction; Linux's I2C_RDWR has 42
)

// i2cSession is the adapter of one start of a machine.
type i2cSession struct {
	bus *I2C

	mu      sync.Mutex // Stopped comes from another goroutine
	pending []*vhost.Request
}

func (s *i2cSession) Features() uint64 { return i2cZeroLength }
func (s *i2cSession) Queues() int      { return 1 }
func (s *i2cSession) Config() []byte   { return nil }

func (s *i2cSession) Stopped(int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending = nil
}

// Handle gathers the messages of a transaction, and carries it out with the last.
func (s *i2cSession) Handle(ctx context.Context, _ int, r *vhost.Request) {
	if len(r.Out) < i2cHeader || r.Room < 1 {
		r.Reply(nil) // there is no room to say anything
		return
	}
	s.mu.Lock()
	s.pending = append(s.pending, r)
	all := s.pending
	more := flags(r)&i2cFailNext != 0
	if more && len(all) < maxMessages {
		s.mu.Unlock()
		return
	}
	s.pending = nil
	s.mu.Unlock()
	answers, err := make([][]byte, len(all)), error(nil)
	if more {
		err = fmt.Errorf("expected a transaction of at most %d messages", maxMessages)
	} else {
		err = s.transfer(ctx, all, answers)
	}
	if ctx.Err() != nil {
		return // nobody waits any more
	}
	for i, r := range all {
		answer := make([]byte, r.Room)
		status := byte(i2cOK)
		if err != nil {
			status = i2cError
		} else {
			copy(answer, answers[i])
		}
		answer[r.Room-1] = status
		r.Reply(answer)
	}
}

func flags(r *vhost.Request) uint32 { return le.Uint32(r.Out[4:]) }

// transfer carries messages out: a read behind a write to the same address is one
// transaction of the chip with it.
func (s *i2cSession) transfer(ctx context.Context, all []*vhost.Request, answers [][]byte) error {
	for i := 0; i < len(all); i++ {
		var w, r []byte
		addr := le.Uint16(all[i].Out) >> 1
		if flags(all[i])&i2cRead == 0 {
			w = all[i].Out[i2cHeader:]
			if i+1 < len(all) && flags(all[i+1])&i2cRead != 0 && le.Uint16(all[i+1].Out)>>1 == addr {
				i++
			}
		}
		if flags(all[i])&i2cRead != 0 {
			r = make([]byte, all[i].Room-1)
			answers[i] = r
		}
		if err := s.bus.Tx(ctx, addr, w, r); err != nil {
			return err
		}
	}
	return nil
}

var _ vhost.Device = (*i2cSession)(nil)

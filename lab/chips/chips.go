// Package chips plays chips on an I2C bus: what their data sheets say that they
// answer, down to busy times, loss of power and octets of checksums. A Bus is what a
// driver's test reads from in place of a board's bus, and what a virtual machine's
// bus passes its transactions to.
//
// A model is of a chip's registers, and takes what is to be measured in physical
// units. Where a data sheet computes physical units from raw numbers, the model
// looks for the raw numbers by the data sheet's own integer arithmetic: a driver
// that uses another of its formulas is checked by it.
//
// Models read the clock, so that busy times are real ones, or those of a test's
// bubble (testing/synctest).
package chips

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"periph.io/x/conn/v3/i2c"
	"periph.io/x/conn/v3/physic"
)

// Chip is what answers at an address. Tx is one transaction, from start to stop: w
// is written, then r is read behind a repeated start; either may be empty.
type Chip interface {
	Tx(w, r []byte) error
}

// What comes of transactions.
var (
	ErrNAK     = errors.New("not acknowledged")
	ErrTimeout = errors.New("timed out") // of a bus that is stuck
)

// Bus is a bus with chips on it. It may be used from several goroutines.
type Bus struct {
	mu    sync.Mutex
	chips map[uint16]Chip
	after int // transactions that still go well before the next fail
	fail  int
	stuck time.Duration
	count map[uint16]int
	wrote map[uint16]int
}

// NewBus returns an empty bus.
func NewBus() *Bus {
	return &Bus{chips: map[uint16]Chip{}, count: map[uint16]int{}, wrote: map[uint16]int{}}
}

// Attach plugs a chip in, in place of one that is there.
func (b *Bus) Attach(addr uint16, c Chip) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.chips[addr] = c
}

// Detach unplugs what is at an address.
func (b *Bus) Detach(addr uint16) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.chips, addr)
}

// Fail lets n transactions come to nothing, as noise on the wires does, after some
// others.
func (b *Bus) Fail(after, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.after, b.fail = after, n
}

// Stick lets each transaction take so long and then fail, as if a line were held
// down; 0 ends that.
func (b *Bus) Stick(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.stuck = d
}

// Count is how many transactions with an address there were, and in how many of
// them something was written.
func (b *Bus) Count(addr uint16) (all, written int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.count[addr], b.wrote[addr]
}

// String implements i2c.Bus.
func (b *Bus) String() string { return "chips" }

// SetSpeed implements i2c.Bus: the bus has none.
func (b *Bus) SetSpeed(physic.Frequency) error { return nil }

// Tx implements i2c.Bus.
func (b *Bus) Tx(addr uint16, w, r []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.count[addr]++
	if len(w) > 0 {
		b.wrote[addr]++
	}
	if b.stuck > 0 {
		time.Sleep(b.stuck)
		return ErrTimeout
	}
	c, ok := b.chips[addr]
	if !ok {
		return fmt.Errorf("%w by %#02x", ErrNAK, addr)
	}
	if b.after > 0 {
		b.after--
	} else if b.fail > 0 {
		b.fail--
		return fmt.Errorf("%w by %#02x", ErrNAK, addr)
	}
	// A chip must not see what the reader's memory held before.
	clear(r)
	return c.Tx(w, r)
}

var _ i2c.Bus = (*Bus)(nil)

// clamp rounds to the nearest whole number within bounds.
func clamp(x float64, low, high int) int {
	switch {
	case !(x > float64(low)):
		return low
	case x > float64(high):
		return high
	case x < 0:
		return int(x - 0.5)
	}
	return int(x + 0.5)
}

package i2cbus

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"periph.io/x/conn/v3/i2c"
	"periph.io/x/conn/v3/physic"
)

// Wire is one open bus of the kernel's, or one of tests'. Its calls may hang.
type Wire interface {
	// Transfer writes and then reads, in one transaction.
	Transfer(addr uint16, w, r []byte) error
	// Quick addresses a chip for writing, and sends nothing (SMBus Quick).
	Quick(addr uint16) error
	Close() error
}

// Options of a bus.
type Options struct {
	Timeout time.Duration // of a transaction; 0: DefaultTimeout
}

// Bus is a bus that is used. Its methods may be called from any goroutine; transactions
// are made one after the other.
type Bus struct {
	path    string
	timeout time.Duration
	jobs    chan job
	ended   chan struct{}
	end     sync.Once
}

var _ i2c.BusCloser = (*Bus)(nil)

type job struct {
	do   func(Wire) error
	done chan error // has room for one: nobody may wait any more
	ctx  context.Context
}

// Open opens a bus of the kernel; dev is where its devices are.
func Open(b Info, dev string, o Options) (*Bus, error) {
	w, err := openWire(b, dev)
	if err != nil {
		return nil, err
	}
	return Over(b.Path, w, o), nil
}

// Over makes a bus of a wire. Close closes the wire too.
func Over(path string, w Wire, o Options) *Bus {
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	b := &Bus{path: path, timeout: o.Timeout, jobs: make(chan job), ended: make(chan struct{})}
	go b.work(w)
	return b
}

// work makes transactions. While one hangs in the kernel, nobody else's begins, and they
// end with Stuck.
func (b *Bus) work(w Wire) {
	defer w.Close() // nobody is left to hear of it
	for {
		select {
		case <-b.ended:
			return
		case j := <-b.jobs:
			if err := j.ctx.Err(); err != nil {
				j.done <- err
				continue
			}
			j.done <- j.do(w)
		}
	}
}

func (b *Bus) String() string { return b.path }

// Close ends the bus. A transaction that hangs is left to the kernel.
func (b *Bus) Close() error {
	b.end.Do(func() { close(b.ended) })
	return nil
}

// SetSpeed is refused: the kernel has no way for programs to set it. The device tree does.
func (b *Bus) SetSpeed(physic.Frequency) error {
	return errors.New("i2c bus " + b.path + ": its clock is set by the device tree (clock-frequency), not by programs")
}

// Tx writes w and then reads into r, in one transaction.
func (b *Bus) Tx(addr uint16, w, r []byte) error {
	return b.TxContext(context.Background(), addr, w, r)
}

// TxContext is Tx that ends no later than ctx. What is read is in r when there was no
// error, and r is left alone afterwards, whatever hangs in the kernel.
func (b *Bus) TxContext(ctx context.Context, addr uint16, w, r []byte) error {
	if addr > 0x7f {
		return &Error{b.path, addr, Unable, errors.New("expected an address of 7 bits")}
	}
	if len(w) > maxLength || len(r) > maxLength {
		return &Error{b.path, addr, Unable, fmt.Errorf("expected at most %d octets each way, got %d and %d", maxLength, len(w), len(r))}
	}
	if len(w) == 0 && len(r) == 0 {
		return nil
	}
	out, in := append([]byte(nil), w...), make([]byte, len(r)) // the kernel may use them after we have given up
	err := b.run(ctx, addr, func(x Wire) error { return x.Transfer(addr, out, in) })
	if err == nil {
		copy(r, in)
	}
	return err
}

// run has the worker do something, and waits for it as long as a transaction may take.
func (b *Bus) run(ctx context.Context, addr uint16, do func(Wire) error) error {
	limit, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	select {
	case <-b.ended: // before the worker has seen it
		return &Error{b.path, addr, Gone, nil}
	default:
	}
	j := job{do, make(chan error, 1), limit}
	select {
	case b.jobs <- j:
	case <-b.ended:
		return &Error{b.path, addr, Gone, nil}
	case <-limit.Done():
		return b.late(ctx, addr)
	}
	select {
	case err := <-j.done:
		if err == nil {
			return nil
		}
		if limit.Err() != nil && errors.Is(err, limit.Err()) {
			return b.late(ctx, addr)
		}
		return &Error{b.path, addr, kindOf(err), err}
	case <-limit.Done():
		return b.late(ctx, addr)
	}
}

// late is what a transaction ends with whose time was over.
func (b *Bus) late(ctx context.Context, addr uint16) error {
	if err := ctx.Err(); err != nil {
		return &Error{b.path, addr, Timeout, err}
	}
	return &Error{b.path, addr, Stuck, nil}
}

const firstAddr, lastAddr = 0x08, 0x77

// Present tells at which addresses something answers, without disturbing what is there:
// not at those in use, and otherwise as i2cdetect does. Chips that take a written octet
// for a command for good, EEPROMs and write protection, are read from; others are only
// addressed.
func (b *Bus) Present(ctx context.Context, inUse []uint16) ([]uint16, error) {
	var there []uint16
	used := map[uint16]bool{}
	for _, a := range inUse {
		used[a] = true
	}
	for addr := uint16(firstAddr); addr <= lastAddr; addr++ {
		if used[addr] {
			continue
		}
		var kind Kind
		var failed error
		if readOnly(addr) {
			failed = b.TxContext(ctx, addr, nil, make([]byte, 1))
		} else if failed = b.run(ctx, addr, func(w Wire) error { return w.Quick(addr) }); errors.Is(failed, Unable) {
			failed = b.TxContext(ctx, addr, nil, make([]byte, 1))
		}
		switch {
		case failed == nil:
			there = append(there, addr)
		case ctx.Err() != nil:
			return there, ctx.Err()
		case errors.As(failed, &kind) && (kind == Stuck || kind == Timeout || kind == Gone):
			return there, failed // at each further address it would be the same, and take as long
		}
	}
	return there, nil
}

func readOnly(addr uint16) bool {
	return addr >= 0x30 && addr <= 0x37 || addr >= 0x50 && addr <= 0x5f
}

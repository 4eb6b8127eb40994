package i2c

import (
	"context"
	"errors"
	"fmt"
	"time"

	"periph.io/x/conn/v3/i2c"

	"halo.internal/drivers/i2c/formula"
)

// octet is written as it is, or as its formula says.
type octet struct {
	value   byte
	formula *formula.Formula
}

// step is one transaction, or a wait.
type step struct {
	write []octet
	read  int // octets on the wire
	crc   CRC
	block int // that keeps the answer; -1: none
	until *until
	wait  time.Duration // between writing and reading; alone where there is neither
}

// until repeats a transaction until it is answered so.
type until struct {
	Check
	every, limit time.Duration
}

// runner does the steps of one chip.
type runner struct {
	bus     i2c.Bus
	addr    uint16
	frame   *formula.Frame
	blocks  [][]byte
	retries int
	w, r    [maxOctets]byte
}

// run does steps in their order, and stops at the first that fails.
func (x *runner) run(ctx context.Context, steps []step) error {
	for i := range steps {
		if err := x.do(ctx, &steps[i]); err != nil {
			return err
		}
	}
	return nil
}

func (x *runner) do(ctx context.Context, s *step) error {
	if len(s.write) == 0 && s.read == 0 {
		return sleep(ctx, s.wait)
	}
	w, err := x.octets(s.write)
	if err != nil {
		return err
	}
	var data []byte
	if s.until != nil {
		data, err = x.poll(ctx, s, w)
	} else {
		data, err = x.transact(ctx, w, s.wait, s.read, s.crc)
	}
	if err != nil {
		return err
	}
	if s.block >= 0 {
		copy(x.blocks[s.block], data)
	}
	return nil
}

// octets computes what is written.
func (x *runner) octets(from []octet) ([]byte, error) {
	w := x.w[:len(from)]
	for i, o := range from {
		if w[i] = o.value; o.formula == nil {
			continue
		}
		v, err := o.formula.Eval(x.frame)
		if err != nil {
			return nil, fmt.Errorf("octet %d to be written: %w", i, err)
		}
		if v < 0 || v > 255 || v != float64(byte(v)) {
			return nil, fmt.Errorf("octet %d to be written: expected a whole number from 0 to 255, got %v", i, v)
		}
		w[i] = byte(v)
	}
	return w, nil
}

// retryPause is how long the bus is left alone before a transaction is tried
// again, the more the oftener.
const retryPause = 2 * time.Millisecond

// transact writes and reads, again when that fails, and returns the answer without
// checksums.
func (x *runner) transact(ctx context.Context, w []byte, wait time.Duration, read int, crc CRC) ([]byte, error) {
	for try := 0; ; try++ {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		began := time.Now()
		data, err := exchange(ctx, x.bus, x.addr, w, wait, x.r[:read], crc)
		if err == nil {
			return data, nil
		}
		// A bus that is stuck is not noise: each further try would cost a second.
		if try >= x.retries || time.Since(began) > wait+stuckAfter || ctx.Err() != nil {
			return nil, x.failed(w, read, err)
		}
		if err := sleep(ctx, retryPause*time.Duration(try+1)); err != nil {
			return nil, err
		}
	}
}

func (x *runner) failed(w []byte, read int, err error) error {
	return &BusError{x.addr, append([]byte(nil), w...), read, err}
}

// poll asks until the answer is the one that is waited for. A chip may as well not
// answer at all while it is busy.
func (x *runner) poll(ctx context.Context, s *step, w []byte) ([]byte, error) {
	deadline := time.Now().Add(s.until.limit)
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		data, err := exchange(ctx, x.bus, x.addr, w, s.wait, x.r[:s.read], s.crc)
		if err == nil && s.until.holds(data) {
			return data, nil
		}
		if !time.Now().Before(deadline) {
			if err == nil {
				err = fmt.Errorf("%w: after %v expected %s, got % x", ErrNotReady, s.until.limit, s.until.expected(), data)
			}
			return nil, x.failed(w, s.read, err)
		}
		if err := sleep(ctx, s.until.every); err != nil {
			return nil, err
		}
	}
}

// identify asks whether this is the chip at all: another may have been plugged in
// at its address. What proves nothing does not count against the person who said
// that the chip is there.
func (x *runner) identify(ctx context.Context, s *Spec) error {
	if s.WeakIdentity {
		return nil
	}
	for i := range s.Identity {
		check := &s.Identity[i]
		got, err := x.transact(ctx, check.Write, check.Wait, check.Read, check.CRC)
		if errors.Is(err, ErrCRC) && check.Any {
			return &IdentityError{s.Name, x.addr, *check, nil}
		}
		if err != nil {
			return err
		}
		if !check.holds(got) {
			return &IdentityError{s.Name, x.addr, *check, append([]byte(nil), got...)}
		}
	}
	return nil
}

// bound is how long steps may wait for a chip, the bus's time apart, when all
// succeed at the last of their tries.
func bound(steps []step, retries int) (d time.Duration) {
	for _, s := range steps {
		switch {
		case s.until != nil:
			d += s.until.limit + s.wait
		case len(s.write) > 0 && s.read > 0:
			d += s.wait * time.Duration(1+retries)
		default:
			d += s.wait
		}
	}
	return d
}

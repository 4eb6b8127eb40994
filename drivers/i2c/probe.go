package i2c

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"periph.io/x/conn/v3/i2c"
)

// Found is an address at which something answers.
type Found struct {
	Addr uint16
	// Chip is what is there beyond doubt: its identity is one that no other driver's
	// chip has. It is nil where there is doubt.
	Chip Driver
	// Candidates are what may be there, likeliest first: those whose weak identity
	// fits, then those that have none. They are for a person to choose from.
	Candidates []Driver
}

// Survey is what Probe may do on a bus.
type Survey struct {
	// Drivers of chips to look for, by name, each once.
	Drivers []Driver
	// InUse are addresses that somebody reads or has bound a kernel's driver to.
	// Nothing is sent to them.
	InUse []uint16
	// Present are addresses that are known to answer. Where it is nil, Probe reads
	// an octet from each address that is not in use.
	Present []uint16
}

// neverWrite are addresses that are read from, but not written to by Probe, not
// even the number of a register: EEPROMs (0x50 to 0x57), of which some take a
// number for the first octet of what is to be stored, and the write protection of
// memory modules (0x30 to 0x35), where the number alone is for good.
func neverWrite(addr uint16) bool {
	return addr >= 0x50 && addr <= 0x57 || addr >= 0x30 && addr <= 0x35
}

// ErrStuck is of a bus on which nothing ends in time: somebody holds a line down.
var ErrStuck = errors.New("the bus is stuck: a transaction did not end in time")

// stuckAfter is far longer than a single octet takes, and shorter than the patience
// of kernels' drivers, which is a second for each of 112 addresses.
const stuckAfter = 300 * time.Millisecond

// Probe tells what answers on a bus. It asks for identities only: of chips that may
// be at an address, those with the shortest questions first, and no more once
// there is no doubt. A question is the number of a register and a read, which has
// no effect on registers. Sensirion's commands have two octets, which a chip with
// registers of 8 bits would take for a value to be written: they are asked last.
//
// Chips that keep silent until they are spoken to (Spec.IdleNAK) are spoken to at
// their addresses. A multiplexer takes the number of a register for the channels
// that it is to open: its address must be in use.
func Probe(ctx context.Context, bus i2c.Bus, s Survey) ([]Found, error) {
	var found []Found
	for addr := uint16(firstAddr); addr <= lastAddr; addr++ {
		if slices.Contains(s.InUse, addr) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return found, err
		}
		there := slices.Contains(s.Present, addr)
		if s.Present == nil {
			began := time.Now()
			there = bus.Tx(addr, nil, make([]byte, 1)) == nil
			if !there && time.Since(began) > stuckAfter {
				return found, ErrStuck
			}
		}
		if f, ok := examine(ctx, bus, addr, there, s.Drivers); ok {
			found = append(found, f)
		}
	}
	return found, ctx.Err()
}

// examine asks what is at an address. there says that something is.
func examine(ctx context.Context, bus i2c.Bus, addr uint16, there bool, drivers []Driver) (Found, bool) {
	var proven, weak, open []Driver
	proof := 0 // octets of the question that proved something
	for _, d := range candidates(addr, drivers) {
		s := d.Spec()
		if !there && !s.IdleNAK {
			continue
		}
		if len(s.Identity) == 0 || neverWrite(addr) {
			open = append(open, d)
			continue
		}
		if len(proven) > 0 && question(s) > proof {
			continue
		}
		switch identified(ctx, bus, addr, s) {
		case no:
			continue
		case silent:
			// A chip that has not understood a question may not hear the next at once.
			if sleep(ctx, retryPause) != nil {
				return Found{}, false
			}
			if s.WeakIdentity {
				open = append(open, d)
			}
			continue
		}
		there = true
		if s.WeakIdentity {
			weak = append(weak, d)
		} else {
			proven, proof = append(proven, d), question(s)
		}
	}
	f := Found{Addr: addr}
	switch {
	case len(proven) == 1:
		f.Chip = proven[0]
	case len(proven) > 1:
		f.Candidates = proven
	case there:
		f.Candidates = append(weak, open...)
	}
	return f, there
}

// candidates are the drivers of chips that may be at an address: those with the
// shortest questions first, those without any last.
func candidates(addr uint16, drivers []Driver) []Driver {
	var list []Driver
	for _, d := range drivers {
		if d.Spec().answersAt(addr) {
			list = append(list, d)
		}
	}
	slices.SortStableFunc(list, func(a, b Driver) int {
		return cmp.Or(cmp.Compare(question(a.Spec()), question(b.Spec())), strings.Compare(a.Spec().Name, b.Spec().Name))
	})
	return list
}

// question is how many octets are written at most to identify a chip.
func question(s *Spec) int {
	if len(s.Identity) == 0 {
		return maxOctets
	}
	n := 0
	for i := range s.Identity {
		n = max(n, len(s.Identity[i].Write))
	}
	return n
}

type verdict int

const (
	yes verdict = iota
	no
	silent // the bus or the chip did not answer
)

func identified(ctx context.Context, bus i2c.Bus, addr uint16, s *Spec) verdict {
	var room [maxCheckRead]byte
	for i := range s.Identity {
		_, ok, err := s.Identity[i].ask(ctx, bus, addr, room[:])
		if err != nil {
			return silent
		}
		if !ok {
			return no
		}
	}
	return yes
}

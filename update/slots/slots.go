// Package slots decides which of the card's two systems boots. State is a
// plain value that is kept in a raw sector, and every step from one state to
// the next is a function without side effects: halo-init and its guard carry
// out what they say, tests need no machine.
package slots

import (
	"bytes"
	"fmt"
)

// Slot names one of the two systems; its values are those of halo.slot= and of
// the slot directories.
type Slot byte

// Slots.
const (
	A Slot = 'a'
	B Slot = 'b'
)

// Other returns the other slot.
func (s Slot) Other() Slot {
	if s == A {
		return B
	}
	return A
}

// Parse reads "a" or "b".
func Parse(s string) (Slot, error) {
	if s == "a" || s == "b" {
		return Slot(s[0]), nil
	}
	return 0, fmt.Errorf("slot: expected a or b, got %q", s)
}

// String returns "a" or "b".
func (s Slot) String() string { return string(rune(s)) }

func (s Slot) index() int { return int(s - A) }

// State is what the card remembers about its slots. It is comparable.
type State struct {
	Active    Slot    // the one that the firmware is to boot
	Committed bool    // the active one was healthy once
	Tries     uint8   // starts left for an active slot that is not committed
	Bad       [2]bool // A, B: failed its check or ran out of tries
	Boots     uint32  // starts since the last healthy one
	Reason    string  // why the active slot is not the one before, for people
}

// New returns the state of a fresh card: slot A, committed.
func New() State { return State{Active: A, Committed: true} }

// IsBad tells whether the slot failed.
func (s State) IsBad(x Slot) bool { return s.Bad[x.index()] }

// Boot is the step of a start in the slot running, while slot.txt names
// written. With restart, slot.txt must be made to name the new state's active
// slot and the machine be restarted; otherwise the start goes on. In either
// case the new state is stored first.
func (s State) Boot(running, written Slot) (next State, restart bool) {
	if running != s.Active && written != s.Active {
		// Power failed between the state and slot.txt: the state is right.
		return s, true
	}
	if running != s.Active {
		// The firmware knew of slot.txt and started the other one all the
		// same, so the active one cannot be started. A slot that never was
		// committed is given up, the other was committed before it.
		if !s.Committed {
			s.Bad[s.Active.index()] = true
		}
		s = s.Switch(running, fmt.Sprintf("slot %s: the firmware booted slot %s instead", s.Active, running))
	}
	if !s.Committed {
		if s.Tries == 0 {
			next, ok := s.Fail(s.Active, "not healthy within its tries")
			if ok {
				return next, true
			}
			// There is nothing to fall back to: go on with what is there.
		} else {
			s.Tries--
		}
	}
	if s.Boots != 1<<32-1 {
		s.Boots++
	}
	return s, false
}

// Fail is the step when slot x turned out to be broken. ok tells that the
// other slot, not known to be bad, is active now: slot.txt must follow and the
// machine be restarted. Otherwise both are bad and the active one stays.
func (s State) Fail(x Slot, reason string) (next State, ok bool) {
	s.Bad[x.index()] = true
	if s.IsBad(x.Other()) {
		return s, false
	}
	return s.Switch(x.Other(), fmt.Sprintf("slot %s: %s", x, reason)), true
}

// Switch makes slot x active, whatever is known of it: the last resort when
// neither slot passes its check, since a read error may have been the card's
// mood.
func (s State) Switch(x Slot, reason string) State {
	s.Active, s.Committed, s.Tries = x, true, 0
	s.Reason = clip(reason)
	return s
}

// Healthy is the step when the running slot has proved itself: it is
// committed, and the counters start anew.
func (s State) Healthy(running Slot) State {
	s.Active, s.Committed, s.Tries, s.Boots = running, true, 0, 0
	s.Bad[running.index()] = false
	return s
}

// maxReason bounds Reason, so that the state fits its sector.
const maxReason = 256

func clip(s string) string { return s[:min(len(s), maxReason)] }

// The stored form: version, active, flags, tries, boots (4, little endian),
// reason.
const (
	version   = 1
	fixedSize = 8

	flagCommitted = 1 << 0
	flagBadA      = 1 << 1
	flagBadB      = 1 << 2
)

// MarshalBinary returns the stored form, at most 264 octets.
func (s State) MarshalBinary() ([]byte, error) {
	if s.Active != A && s.Active != B {
		return nil, fmt.Errorf("slot state: active: expected a or b, got %q", byte(s.Active))
	}
	var flags byte
	for i, set := range []bool{s.Committed, s.Bad[0], s.Bad[1]} {
		if set {
			flags |= 1 << i
		}
	}
	b := []byte{version, byte(s.Active), flags, s.Tries, byte(s.Boots), byte(s.Boots >> 8), byte(s.Boots >> 16), byte(s.Boots >> 24)}
	return append(b, clip(s.Reason)...), nil
}

// UnmarshalBinary reads the stored form.
func (s *State) UnmarshalBinary(b []byte) error {
	if len(b) < fixedSize {
		return fmt.Errorf("slot state: expected at least %d octets, got %d", fixedSize, len(b))
	}
	if b[0] != version {
		return fmt.Errorf("slot state: expected version %d, got %d", version, b[0])
	}
	active, err := Parse(string(b[1:2]))
	if err != nil {
		return fmt.Errorf("slot state: active: %w", err)
	}
	if b[2]&^(flagCommitted|flagBadA|flagBadB) != 0 {
		return fmt.Errorf("slot state: flags: expected at most %#x, got %#x", flagCommitted|flagBadA|flagBadB, b[2])
	}
	if n := len(b) - fixedSize; n > maxReason {
		return fmt.Errorf("slot state: reason: expected at most %d octets, got %d", maxReason, n)
	}
	*s = State{
		Active:    active,
		Committed: b[2]&flagCommitted != 0,
		Tries:     b[3],
		Bad:       [2]bool{b[2]&flagBadA != 0, b[2]&flagBadB != 0},
		Boots:     uint32(b[4]) | uint32(b[5])<<8 | uint32(b[6])<<16 | uint32(b[7])<<24,
		Reason:    string(bytes.ToValidUTF8(b[fixedSize:], []byte("?"))),
	}
	return nil
}

// Area is where the state is kept: hal/card's slot state area.
type Area interface {
	Load() ([]byte, error)
	Store([]byte) error
}

// Load reads the state from its area.
func Load(a Area) (State, error) {
	b, err := a.Load()
	if err != nil {
		return State{}, err
	}
	var s State
	return s, s.UnmarshalBinary(b)
}

// Store writes the state to its area.
func Store(a Area, s State) error {
	b, err := s.MarshalBinary()
	if err != nil {
		return err
	}
	return a.Store(b)
}

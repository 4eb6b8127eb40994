package card

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// Area is a value that is kept in two places of the disk. It is not safe for
// concurrent use, and has one writer on the whole machine.
type Area struct {
	dev   Device
	name  string
	magic [8]byte
	at    [2]int64
	size  int
}

// A copy starts with magic, generation, length of the value, and the SHA-256
// of those three and the value.
const (
	genAt    = 8
	lenAt    = 16
	sumAt    = 20
	headSize = sumAt + sha256.Size
)

// Max is the longest value that fits.
func (a *Area) Max() int { return a.size - headSize }

// copyState is what one of the two places holds.
type copyState struct {
	valid bool
	blank bool // nothing but zeroes in its header: never written
	gen   uint64
	value []byte
}

// Load returns the value of the newest whole copy. The error wraps
// fs.ErrNotExist when the area was never written, ErrDamaged when both copies
// were read and neither is whole. Any other is the disk's, which may read them
// another time.
func (a *Area) Load() ([]byte, error) {
	c, errs := a.read()
	if i := newest(c); i >= 0 {
		return c[i].value, nil
	}
	err := errors.Join(errs[:]...)
	switch {
	// The first value is in both places before Store returns: where one is blank
	// and the other cannot be read, there was none.
	case c[0].blank && c[1].blank, err != nil && (c[0].blank || c[1].blank):
		return nil, empty(a.name)
	case err != nil:
		return nil, fmt.Errorf("%s: read: %w", a.name, err)
	}
	return nil, fmt.Errorf("%s: %w", a.name, ErrDamaged)
}

// Store replaces the value: first the older copy, and when that is on the
// disk, the other one too, so that a sector that rots later takes nothing
// back. Of a longer value before it nothing is left behind the new one: it may
// have been a secret. After an error the value is the old one or the new one.
func (a *Area) Store(value []byte) error {
	if len(value) > a.Max() {
		return fmt.Errorf("%s: expected at most %d octets, got %d", a.name, a.Max(), len(value))
	}
	c, errs := a.read()
	if errs[0] != nil && errs[1] != nil {
		return fmt.Errorf("%s: read: %w", a.name, errs[0])
	}
	first, gen := 0, uint64(1)
	if i := newest(c); i >= 0 {
		first, gen = 1-i, c[i].gen+1
	}
	b := a.encode(value, gen)
	for _, i := range [2]int{first, 1 - first} {
		// Before the copy, so that a copy that is whole never has a tail.
		if err := a.wipeBehind(i, len(b)); err != nil {
			return err
		}
		if _, err := a.dev.WriteAt(b, a.at[i]); err != nil {
			return fmt.Errorf("%s: write copy %d: %w", a.name, i, err)
		}
		if err := a.dev.Sync(); err != nil {
			return fmt.Errorf("%s: sync copy %d: %w", a.name, i, err)
		}
	}
	return nil
}

// wipeBehind zeroes what lies in a copy's place behind its first n octets. It
// looks rather than trust a length: that of a write which was cut off may be
// any. What is blank already costs no write.
func (a *Area) wipeBehind(i, n int) error {
	const chunk = 32 << 10
	zero := make([]byte, min(chunk, a.size-n))
	for b := make([]byte, len(zero)); n < a.size; n += len(b) {
		b = b[:min(len(b), a.size-n)]
		at := a.at[i] + int64(n)
		if _, err := a.dev.ReadAt(b, at); err == nil && bytes.Equal(b, zero[:len(b)]) {
			continue
		}
		if _, err := a.dev.WriteAt(zero[:len(b)], at); err != nil {
			return fmt.Errorf("%s: wipe behind copy %d: %w", a.name, i, err)
		}
	}
	return nil
}

// read returns both copies, and why one of them cannot be read.
func (a *Area) read() (c [2]copyState, errs [2]error) {
	for i, off := range a.at {
		head := make([]byte, SectorSize)
		if _, errs[i] = a.dev.ReadAt(head, off); errs[i] != nil {
			continue
		}
		n := int64(binary.LittleEndian.Uint32(head[lenAt:]))
		if n > int64(a.Max()) {
			continue
		}
		b := head
		if n > SectorSize-headSize {
			b = make([]byte, headSize+int(n))
			if _, errs[i] = a.dev.ReadAt(b, off); errs[i] != nil {
				continue
			}
		}
		c[i] = a.decode(b[:headSize+int(n)])
	}
	return c, errs
}

// encode returns a copy, filled up to whole sectors.
func (a *Area) encode(value []byte, gen uint64) []byte {
	n := headSize + len(value)
	b := make([]byte, (n+SectorSize-1)/SectorSize*SectorSize)
	copy(b, a.magic[:])
	binary.LittleEndian.PutUint64(b[genAt:], gen)
	binary.LittleEndian.PutUint32(b[lenAt:], uint32(len(value)))
	copy(b[headSize:], value)
	sum := checksum(b[:n])
	copy(b[sumAt:], sum[:])
	return b
}

func (a *Area) decode(b []byte) copyState {
	if !bytes.Equal(b[:genAt], a.magic[:]) {
		return copyState{blank: len(bytes.Trim(b[:headSize], "\x00")) == 0}
	}
	if sum := checksum(b); !bytes.Equal(b[sumAt:headSize], sum[:]) {
		return copyState{}
	}
	return copyState{valid: true, gen: binary.LittleEndian.Uint64(b[genAt:]), value: b[headSize:]}
}

// checksum covers all of a copy but the checksum itself.
func checksum(b []byte) [sha256.Size]byte {
	h := sha256.New()
	h.Write(b[:sumAt])
	h.Write(b[headSize:])
	return [sha256.Size]byte(h.Sum(nil))
}

// newest returns the index of the valid copy with the higher generation, or
// -1. Of two equal ones it returns the second, so that the first is the one
// that is overwritten first.
func newest(c [2]copyState) int {
	switch {
	case c[1].valid && (!c[0].valid || c[1].gen >= c[0].gen):
		return 1
	case c[0].valid:
		return 0
	}
	return -1
}

// Package disk is the card of a virtual machine: what was written lies over a
// base image that stays as it is, and is served to QEMU over the NBD protocol.
// Like a real card it has a volatile cache: when power is cut, writes that were
// not flushed survive or vanish sector by sector, in any order. What the guest
// writes is counted.
package disk

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

const (
	sectorSize = 512
	blockSize  = 4096 // unit of the overlay
	maxCache   = 16 << 20
)

// Counters of a card.
type Counters struct {
	ReadBytes    int64 `json:"read_bytes"`
	WrittenBytes int64 `json:"written_bytes"`
	Writes       int64 `json:"writes"`
	Flushes      int64 `json:"flushes"`
}

// Disk is a card. Its methods may be called from any goroutine.
type Disk struct {
	size int64

	mu      sync.Mutex // guards what follows
	base    *os.File
	overlay *os.File         // blocks that were written, at their own places
	written []uint64         // bit set of those blocks
	cache   map[int64][]byte // sectors by number: written, not flushed
	random  *rand.Rand
	count   Counters
	wornOut bool // takes no more writes
}

// errWornOut is what a machine gets to hear as an I/O error.
var errWornOut = errors.New("the card takes no more writes")

// Create makes a card that starts as a copy of the image base, which must not
// be changed in place while the card is in use; what differs is kept in the
// file overlay, which is made anew. The seed decides what a power cut takes.
func Create(base, overlay string, seed uint64) (*Disk, error) {
	b, err := os.Open(base)
	if err != nil {
		return nil, err
	}
	info, err := b.Stat()
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	size := info.Size()
	if !info.Mode().IsRegular() || size == 0 || size%blockSize != 0 {
		return nil, errors.Join(fmt.Errorf("%s: expected a disk image of a multiple of %d octets, got %d", base, blockSize, size), b.Close())
	}
	o, err := os.OpenFile(overlay, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return &Disk{
		size: size, base: b, overlay: o, written: make([]uint64, size/blockSize/64+1),
		cache: map[int64][]byte{}, random: rand.New(rand.NewPCG(seed, 0)),
	}, nil
}

// WearOut makes the card refuse all that machines write from now on, as cards
// do at the end of their life, or take it again. What is in its cache stays
// there.
func (d *Disk) WearOut(worn bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.wornOut = worn
}

// Card is what was written to a card that has been taken out.
type Card struct {
	overlay *os.File
	written []uint64
}

// Close lets go of a card that is out.
func (c *Card) Close() error { return c.overlay.Close() }

// Exchange takes the card out of a machine that is off and puts another in: one that was
// out, or with nil one that is as the image is. What was not flushed is lost with the
// cache.
func (d *Disk) Exchange(c *Card) (out *Card, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c == nil {
		f, err := os.CreateTemp(filepath.Dir(d.overlay.Name()), "card-*.overlay")
		if err != nil {
			return nil, err
		}
		c = &Card{f, make([]uint64, len(d.written))}
	}
	out = &Card{d.overlay, d.written}
	d.overlay, d.written, d.wornOut = c.overlay, c.written, false
	clear(d.cache)
	return out, nil
}

// Close lets go of the files.
func (d *Disk) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return errors.Join(d.base.Close(), d.overlay.Close())
}

// Size returns the size of the card in octets.
func (d *Disk) Size() int64 { return d.size }

// Counters returns what machines have read and written so far; what the lab
// itself does to the card is not in it.
func (d *Disk) Counters() Counters {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.count
}

// ReadAt implements io.ReaderAt: what a machine would read.
func (d *Disk) ReadAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.readAt(p, off)
}

func (d *Disk) readAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= d.size {
		return 0, io.EOF
	}
	end := error(nil)
	if left := d.size - off; int64(len(p)) > left {
		p, end = p[:left], io.EOF
	}
	for n := 0; n < len(p); {
		at := off + int64(n)
		from := d.base
		if d.isWritten(at / blockSize) {
			from = d.overlay
		}
		part := p[n:min(len(p), n+int(blockSize-at%blockSize))]
		if got, err := from.ReadAt(part, at); got < len(part) {
			if !errors.Is(err, io.EOF) {
				return n, err
			}
			clear(part[got:]) // the overlay ends behind the last block that was written
		}
		n += len(part)
	}
	if len(d.cache) > 0 {
		d.readCache(p, off)
	}
	return len(p), end
}

// readCache lays the cached sectors over p.
func (d *Disk) readCache(p []byte, off int64) {
	for s := off / sectorSize; s*sectorSize < off+int64(len(p)); s++ {
		sector, ok := d.cache[s]
		if !ok {
			continue
		}
		at := s*sectorSize - off
		if at < 0 {
			copy(p, sector[-at:])
		} else {
			copy(p[at:], sector)
		}
	}
}

// WriteAt implements io.WriterAt, past the cache and the counters: the hand
// that writes or damages a card while its machine is off.
func (d *Disk) WriteAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.flush(); err != nil {
		return 0, err
	}
	if off < 0 || off+int64(len(p)) > d.size {
		return 0, fmt.Errorf("write of %d octets at %d: the card has %d", len(p), off, d.size)
	}
	return len(p), d.writeThrough(p, off)
}

// Sync makes Disk a card.Device; WriteAt leaves nothing to do.
func (d *Disk) Sync() error { return nil }

func (d *Disk) isWritten(block int64) bool { return d.written[block/64]&(1<<(block%64)) != 0 }

// writeThrough writes to the overlay, whose blocks are filled up from the base
// at their first write.
func (d *Disk) writeThrough(p []byte, off int64) error {
	for len(p) > 0 {
		block, start := off/blockSize, off%blockSize
		part := p[:min(len(p), int(blockSize-start))]
		if !d.isWritten(block) && len(part) < blockSize {
			whole := make([]byte, blockSize)
			if _, err := d.base.ReadAt(whole, block*blockSize); err != nil {
				return err
			}
			copy(whole[start:], part)
			if _, err := d.overlay.WriteAt(whole, block*blockSize); err != nil {
				return err
			}
		} else if _, err := d.overlay.WriteAt(part, off); err != nil {
			return err
		}
		d.written[block/64] |= 1 << (block % 64)
		p, off = p[len(part):], off+int64(len(part))
	}
	return nil
}

// guestWrite is a machine's write: whole sectors, into the cache.
func (d *Disk) guestWrite(p []byte, off int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.wornOut {
		return errWornOut
	}
	d.count.Writes++
	d.count.WrittenBytes += int64(len(p))
	for i := 0; i < len(p); i += sectorSize {
		d.cache[(off+int64(i))/sectorSize] = slices.Clone(p[i : i+sectorSize])
	}
	if len(d.cache) > maxCache/sectorSize {
		return d.flush()
	}
	return nil
}

// guestRead is a machine's read.
func (d *Disk) guestRead(p []byte, off int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.count.ReadBytes += int64(len(p))
	_, err := d.readAt(p, off)
	return err
}

// guestFlush is a machine's flush.
func (d *Disk) guestFlush() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.count.Flushes++
	return d.flush()
}

// flush empties the cache onto the overlay.
func (d *Disk) flush() error {
	for _, s := range slices.Sorted(maps.Keys(d.cache)) {
		if err := d.writeThrough(d.cache[s], s*sectorSize); err != nil {
			return err
		}
	}
	clear(d.cache)
	return nil
}

// Unplug ends a machine's use of the card in good order: the cache is kept, as
// when a machine restarts without losing power.
func (d *Disk) Unplug() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.flush()
}

// Cut is the loss of power: each sector that was not flushed survives or not.
// It returns how many were lost.
func (d *Disk) Cut() (lost int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range slices.Sorted(maps.Keys(d.cache)) {
		if d.random.IntN(2) == 0 {
			delete(d.cache, s)
			lost++
		}
	}
	return lost, d.flush()
}

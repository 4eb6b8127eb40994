package vhost

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// region is a piece of the guest's memory.
type region struct {
	guest, user uint64 // where it begins for the guest, and for the front end
	size        uint64
	octets      []byte // nil: it is not to be used
}

// memory is the guest's. A view of it lasts as long as its lock is held for reading.
type memory struct {
	sync.RWMutex
	regions []region
}

// mapRegions maps what a message hands over. Memory that its owner might cut short
// under us, which would end this process, is left out: what lies there is outside.
func mapRegions(m *message) (regions []region, err error) {
	n := int(le.Uint32(m.payload))
	if n < 0 || n > maxFiles || n != len(m.files) || len(m.payload) < 8+32*n {
		return nil, fmt.Errorf("expected at most %d regions of memory with a descriptor each, got %d with %d and %d octets", maxFiles, n, len(m.files), len(m.payload))
	}
	defer func() {
		if err != nil {
			unmap(regions)
			regions = nil
		}
	}()
	for i := range n {
		b := m.payload[8+32*i:]
		r := region{guest: le.Uint64(b), size: le.Uint64(b[8:]), user: le.Uint64(b[16:])}
		offset := le.Uint64(b[24:])
		fd := m.take()
		r.octets, err = mapFile(fd, offset, r.size)
		_ = unix.Close(fd)
		if err != nil {
			return regions, err
		}
		regions = append(regions, r)
	}
	return regions, nil
}

// mapFile maps a piece of a file that has it, and has it for good.
func mapFile(fd int, offset, size uint64) ([]byte, error) {
	const most = 1 << 40
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, fmt.Errorf("memory: %w", err)
	}
	if size == 0 || size > most || offset > most || offset+size > uint64(st.Size) {
		return nil, fmt.Errorf("memory: expected a piece of a file of %d octets, got %d from %d", st.Size, size, offset)
	}
	if !lasting(fd) {
		return nil, nil
	}
	b, err := unix.Mmap(fd, int64(offset), int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("memory: %w", err)
	}
	return b, nil
}

func unmap(regions []region) {
	for _, r := range regions {
		if r.octets != nil {
			_ = unix.Munmap(r.octets)
		}
	}
}

// replace puts other memory into the place of that which there was.
func (m *memory) replace(regions []region) {
	m.Lock()
	defer m.Unlock()
	unmap(m.regions)
	m.regions = regions
}

// guestAt returns the memory at an address of the guest, nil where that is outside.
func (m *memory) guestAt(addr, size uint64) []byte {
	return m.at(addr, size, func(r *region) uint64 { return r.guest })
}

// userAt returns the memory at an address of the front end.
func (m *memory) userAt(addr, size uint64) []byte {
	return m.at(addr, size, func(r *region) uint64 { return r.user })
}

func (m *memory) at(addr, size uint64, base func(*region) uint64) []byte {
	for i := range m.regions {
		r := &m.regions[i]
		from := addr - base(r)
		if addr >= base(r) && from <= r.size && size <= r.size-from && r.octets != nil {
			return r.octets[from : from+size : from+size]
		}
	}
	return nil
}

package card

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Disk is the disk that the machine runs from. It is read and written without
// the page cache: a sector written here must not take back what another path
// to the same disk has written next to it.
type Disk struct {
	f     *os.File
	Name  string // as in /sys/block, e.g. mmcblk0
	Size  int64  // octets
	Table *Table
}

var _ Device = (*Disk)(nil)

// OpenRoot opens the disk that the running kernel's command line names, the one
// of that name if several are alike; an empty name leaves the choice to Find.
func OpenRoot(name string) (*Disk, error) {
	b, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return nil, err
	}
	r, err := ParseRoot(string(b))
	if err != nil {
		return nil, err
	}
	if name != "" {
		return Open(name, r.GUID)
	}
	return Find(r.GUID)
}

// Find opens the disk whose first partition has that GUID. Of several, such as
// a copy of the card in a reader, it is the first that Names lists. The error
// wraps fs.ErrNotExist when there is none, which may change as drivers find
// disks.
func Find(guid string) (*Disk, error) {
	names, err := Names()
	if err != nil {
		return nil, err
	}
	return first(names, func(name string) (*Disk, error) { return Open(name, guid) }, guid)
}

func first(names []string, open func(string) (*Disk, error), guid string) (*Disk, error) {
	seen := []string{}
	for _, n := range names {
		d, err := open(n)
		if err == nil {
			return d, nil
		}
		seen = append(seen, fmt.Sprintf("%s: %v", n, err))
	}
	return nil, fmt.Errorf("disk with PARTUUID=%s (saw %s): %w", guid, strings.Join(seen, "; "), fs.ErrNotExist)
}

// Names lists the disks that there are, in the order in which one is chosen.
func Names() ([]string, error) {
	entries, err := os.ReadDir("/sys/block")
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return ranked(names), nil
}

// ranked puts the SD slot first, from which boards start before they try USB,
// and leaves out what has no partitions of its own.
func ranked(names []string) []string {
	names = slices.DeleteFunc(slices.Clone(names), func(n string) bool {
		return strings.HasPrefix(n, "loop") || strings.HasPrefix(n, "ram") || strings.HasPrefix(n, "dm-")
	})
	slices.SortFunc(names, func(a, b string) int {
		if InSlot(a) != InSlot(b) {
			if InSlot(a) {
				return -1
			}
			return 1
		}
		return strings.Compare(a, b)
	})
	return names
}

// InSlot tells whether a disk of that name is an SD card in the board's slot, or
// soldered in its place.
func InSlot(name string) bool { return strings.HasPrefix(name, "mmcblk") }

// Open opens the disk of that name if its first partition has that GUID.
func Open(name, guid string) (*Disk, error) {
	d, err := open(filepath.Join("/dev", name))
	if err != nil {
		return nil, err
	}
	if d.Table.GUID(1) != guid {
		return nil, errors.Join(errors.New("another disk"), d.Close())
	}
	return d, nil
}

func open(path string) (*Disk, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		return nil, err
	}
	d := &Disk{f: f, Name: filepath.Base(path)}
	if d.Size, err = f.Seek(0, 2); err == nil {
		d.Table, err = ReadTable(d, d.Size)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return d, nil
}

// Node returns the device node of partition n, or of the whole disk for 0.
func (d *Disk) Node(n int) string {
	p := "/dev/" + d.Name
	if n == 0 {
		return p
	}
	if c := d.Name[len(d.Name)-1]; c >= '0' && c <= '9' {
		p += "p"
	}
	return fmt.Sprint(p, n)
}

// Fd returns the file descriptor of the disk, for ioctls.
func (d *Disk) Fd() int { return int(d.f.Fd()) }

// Close closes the disk.
func (d *Disk) Close() error { return d.f.Close() }

// Sync waits until all that was written is on the disk.
func (d *Disk) Sync() error { return d.f.Sync() }

// ReadAt reads any range.
func (d *Disk) ReadAt(p []byte, off int64) (int, error) {
	start := off &^ (SectorSize - 1)
	end := (off + int64(len(p)) + SectorSize - 1) &^ (SectorSize - 1)
	b := aligned(int(end - start))
	n, err := d.f.ReadAt(b, start)
	got := copy(p, b[min(int(off-start), n):n])
	if got == len(p) {
		return got, nil
	}
	return got, err
}

// WriteAt writes whole sectors.
func (d *Disk) WriteAt(p []byte, off int64) (int, error) {
	if off%SectorSize != 0 || len(p)%SectorSize != 0 {
		return 0, fmt.Errorf("%s: expected whole sectors, got %d octets at %d", d.Name, len(p), off)
	}
	b := aligned(len(p))
	copy(b, p)
	return d.f.WriteAt(b, off)
}

// aligned returns memory as direct I/O wants it.
func aligned(n int) []byte {
	const page = 4096
	b := make([]byte, n+page)
	skip := -int(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) & (page - 1)
	return b[skip : skip+n : skip+n]
}

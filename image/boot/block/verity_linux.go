// Package block builds block devices out of others: a root whose every block
// is checked (dm-verity), a file as a disk (loop), a partition that has grown.
// It speaks to the kernel by ioctl, since the appliance has no dmsetup, losetup
// or partx.
package block

import (
	"encoding/binary"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Verity describes a device-mapper target "verity" of format 1 with SHA-256,
// whose hash tree lies on the device behind the data.
type Verity struct {
	Device    string // path
	DataSize  int64  // octets, a multiple of BlockSize
	BlockSize int64
	Hash      string // hex
	Salt      string // hex
}

// params is the target's line as the kernel's documentation lays it down.
func (v Verity) params() string {
	blocks := v.DataSize / v.BlockSize
	return fmt.Sprintf("1 %s %s %d %d %d %d sha256 %s %s", v.Device, v.Device, v.BlockSize, v.BlockSize, blocks, blocks, v.Hash, v.Salt)
}

// dmIoctl is struct dm_ioctl of linux/dm-ioctl.h.
type dmIoctl struct {
	version     [3]uint32
	dataSize    uint32
	dataStart   uint32
	targetCount uint32
	openCount   int32
	flags       uint32
	eventNr     uint32
	_           uint32
	dev         uint64
	name        [128]byte
	uuid        [129]byte
	_           [7]byte
}

const (
	dmSize       = 312
	dmTargetSize = 40

	dmReadOnly = 1 << 0

	dmCreate  = 3
	dmRemove  = 4
	dmSuspend = 6 // without the suspend flag: resume
	dmLoad    = 9
)

var _ [dmSize]byte = [unsafe.Sizeof(dmIoctl{})]byte{}

// Open creates the mapped device under that name and returns its node.
func (v Verity) Open(name string) (node string, err error) {
	control, err := os.OpenFile("/dev/mapper/control", os.O_RDWR, 0)
	if err != nil {
		return "", fmt.Errorf("device mapper: %w", err)
	}
	defer control.Close()
	h, err := dm(control, dmCreate, name, dmReadOnly, nil)
	if err != nil {
		return "", fmt.Errorf("verity %s: create: %w", v.Device, err)
	}
	defer func() {
		if err != nil {
			// What is left half made has no reader; the first error counts.
			_, _ = dm(control, dmRemove, name, 0, nil)
		}
	}()
	if _, err := dm(control, dmLoad, name, dmReadOnly, target("verity", v.DataSize/512, v.params())); err != nil {
		return "", fmt.Errorf("verity %s: table %q: %w", v.Device, v.params(), err)
	}
	if _, err := dm(control, dmSuspend, name, 0, nil); err != nil {
		return "", fmt.Errorf("verity %s: resume: %w", v.Device, err)
	}
	return fmt.Sprintf("/dev/dm-%d", unix.Minor(h.dev)), nil
}

// target is struct dm_target_spec and its parameters.
func target(kind string, sectors int64, params string) []byte {
	size := (dmTargetSize + len(params) + 1 + 7) &^ 7
	b := make([]byte, size)
	binary.NativeEndian.PutUint64(b[8:], uint64(sectors))
	binary.NativeEndian.PutUint32(b[20:], uint32(size)) // where the next one would be
	copy(b[24:dmTargetSize], kind)
	copy(b[dmTargetSize:], params)
	return b
}

// dm makes one call with the target tables behind its header.
func dm(control *os.File, nr uintptr, name string, flags uint32, tables []byte) (dmIoctl, error) {
	// The kernel answers into the same memory.
	b := make([]byte, max(dmSize+len(tables), 4096))
	h := dmIoctl{version: [3]uint32{4, 0, 0}, dataSize: uint32(len(b)), dataStart: dmSize, flags: flags}
	copy(h.name[:len(h.name)-1], name)
	if tables != nil {
		h.targetCount = 1
	}
	copy(b, unsafe.Slice((*byte)(unsafe.Pointer(&h)), dmSize))
	copy(b[dmSize:], tables)
	request := uintptr(3<<30 | dmSize<<16 | 0xfd<<8 | nr)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, control.Fd(), request, uintptr(unsafe.Pointer(&b[0]))); errno != 0 {
		return h, errno
	}
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&h)), dmSize), b)
	return h, nil
}

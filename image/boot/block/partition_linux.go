package block

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ResizePartition tells the kernel the new size of partition n of the disk
// behind fd. It may be mounted.
func ResizePartition(fd, n int, start, size int64) error {
	p := unix.BlkpgPartition{Start: start, Length: size, Pno: int32(n)}
	arg := unix.BlkpgIoctlArg{Op: unix.BLKPG_RESIZE_PARTITION, Datalen: int32(unsafe.Sizeof(p)), Data: (*byte)(unsafe.Pointer(&p))}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.BLKPG, uintptr(unsafe.Pointer(&arg))); errno != 0 {
		return fmt.Errorf("partition %d: tell the kernel of its size %d: %w", n, size, errno)
	}
	return nil
}

// RereadPartitions makes the kernel read the partition table behind fd again.
func RereadPartitions(fd int) error {
	if err := unix.IoctlSetInt(fd, unix.BLKRRPART, 0); err != nil {
		return fmt.Errorf("read the partition table again: %w", err)
	}
	return nil
}

// Discard tells the disk behind fd that nobody needs that range any more. Disks that
// cannot forget refuse.
func Discard(fd int, start, size int64) error {
	r := [2]uint64{uint64(start), uint64(size)}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.BLKDISCARD, uintptr(unsafe.Pointer(&r))); errno != 0 {
		return fmt.Errorf("discard %d octets at %d: %w", size, start, errno)
	}
	return nil
}

// Requests of linux/fs.h that x/sys does not name.
const (
	ioctlFileBlock = 1 // FIBMAP
	ioctlBlockSize = 2 // FIGETBSZ
)

// FirstSector returns where on its file system's device a file begins, in
// octets. Its content up to the next file-system block lies there in one piece,
// so that it can be replaced without the file system's hand: neither directory
// nor allocation table is written.
func FirstSector(fd int) (int64, error) {
	size, err := unix.IoctlGetInt(fd, ioctlBlockSize)
	if err != nil {
		return 0, fmt.Errorf("block size of the file system: %w", err)
	}
	block := int32(0) // number in the file, then on the device
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), ioctlFileBlock, uintptr(unsafe.Pointer(&block))); errno != 0 {
		return 0, fmt.Errorf("place of the file: %w", errno)
	}
	if block <= 0 {
		return 0, fmt.Errorf("place of the file: expected a block number, got %d", block)
	}
	return int64(block) * int64(size), nil
}

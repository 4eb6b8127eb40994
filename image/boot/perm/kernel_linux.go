package perm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// kernel is the running kernel's ext4 and tmpfs.
type kernel struct{}

var _ filesystem = kernel{}

const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOATIME

// commit=30: names and times that nobody syncs are on the card within half a minute, and not
// within five seconds; octets take as long by themselves (vm.dirty_expire_centisecs). Each time
// that a file is written to it has another time and version (i_version, which is why lazytime
// would not help): three blocks of the journal and later one more, also where its blocks stay
// what they are. A database's log is written to every ten seconds.
func (kernel) mount(device, target string) error {
	if err := unix.Mount(device, target, "ext4", flags, "errors=remount-ro,commit=30"); err != nil {
		return fmt.Errorf("mount %s: %w", device, err)
	}
	return nil
}

func (kernel) mountReadOnly(device, target string, superblock int64) error {
	data := "noload,errors=continue"
	if superblock != 0 {
		data += ",sb=" + strconv.FormatInt(superblock, 10)
	}
	if err := unix.Mount(device, target, "ext4", flags|unix.MS_RDONLY, data); err != nil {
		return fmt.Errorf("mount %s read-only, %s: %w", device, data, err)
	}
	return nil
}

func (kernel) mountRAM(target string) error {
	if err := unix.Mount("tmpfs", target, "tmpfs", flags, "size=25%,mode=0755"); err != nil {
		return fmt.Errorf("mount tmpfs: %w", err)
	}
	return nil
}

func (kernel) sync(target string) error {
	d, err := os.Open(target)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(d.Fd())), d.Close())
}

func (kernel) unmount(target string) error {
	if err := unix.Unmount(target, 0); err != nil {
		return fmt.Errorf("unmount %s: %w", target, err)
	}
	return nil
}

func (kernel) errors(device string) (int, error) {
	b, err := os.ReadFile(filepath.Join("/sys/fs/ext4", filepath.Base(device), "errors_count"))
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(b)))
}

// resizeFS is EXT4_IOC_RESIZE_FS, _IOW('f', 16, __u64).
const resizeFS = 1<<30 | 8<<16 | 'f'<<8 | 16

// worth is the least growth that is worth it, octets.
const worth = 16 << 20

// grow enlarges the mounted file system to size octets, unless what there is
// to win is not worth it: ext4 would refuse a last group too small for its
// tables.
func (kernel) grow(device, target string, size int64) (bool, error) {
	have, err := ext4Size(device)
	if err != nil {
		return false, err
	}
	if size-have < worth {
		return false, nil
	}
	var st unix.Statfs_t
	if err := unix.Statfs(target, &st); err != nil {
		return false, err
	}
	d, err := os.Open(target)
	if err != nil {
		return false, err
	}
	blocks := uint64(size / st.Bsize)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, d.Fd(), resizeFS, uintptr(unsafe.Pointer(&blocks)))
	if errno != 0 {
		err = fmt.Errorf("grow to %d blocks: %w", blocks, errno)
	}
	return errno == 0, errors.Join(err, d.Close())
}

// ext4Size reads from the superblock how large the file system is, in octets.
func ext4Size(device string) (int64, error) {
	s, err := readSuperblock(device)
	if err != nil {
		return 0, err
	}
	if !s.ext4() || s.size() == 0 {
		return 0, fmt.Errorf("%s: expected an ext4 superblock", device)
	}
	return s.size(), nil
}

func (kernel) usage(target string) (size, free int64, readOnly bool, err error) { return Usage(target) }

// Usage measures the file system that is mounted there.
func Usage(target string) (size, free int64, readOnly bool, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(target, &st); err != nil {
		return 0, 0, false, fmt.Errorf("%s: %w", target, err)
	}
	return int64(st.Blocks) * st.Bsize, int64(st.Bavail) * st.Bsize, st.Flags&unix.ST_RDONLY != 0, nil
}

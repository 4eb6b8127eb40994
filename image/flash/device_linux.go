package flash

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Refusals that --force overrides.
var (
	ErrMounted      = errors.New("is in use")
	ErrNotRemovable = errors.New("is not removable")
)

// Device is an opened card reader.
type Device struct {
	*os.File
	Size int64
}

// Open opens a whole disk for writing, after checking that it is a card: not a
// partition, removable, and not in use. force skips the latter two.
func Open(path string, force bool) (*Device, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFBLK {
		return nil, fmt.Errorf("%s: expected a disk such as /dev/sdb or /dev/mmcblk0", path)
	}
	number := fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	if err := check("/sys", "/proc", path, number, force); err != nil {
		return nil, err
	}
	flags := os.O_RDWR
	if !force {
		flags |= os.O_EXCL // the kernel's own word that nobody has mounted it
	}
	f, err := os.OpenFile(path, flags, 0)
	if errors.Is(err, unix.EBUSY) {
		return nil, fmt.Errorf("%s %w", path, ErrMounted)
	}
	if err != nil {
		return nil, err
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &Device{f, size}, nil
}

// check reads sysfs and proc, below the given roots, about the disk of that
// device number.
func check(sys, proc, path, number string, force bool) error {
	dir, err := filepath.EvalSymlinks(filepath.Join(sys, "dev/block", number))
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "partition")); err == nil {
		return fmt.Errorf("%s: expected a whole disk, got a partition of %s", path, filepath.Base(filepath.Dir(dir)))
	}
	if force {
		return nil
	}
	if !removable(dir) {
		return fmt.Errorf("%s %w: expected a card reader or a USB stick; --force writes to it all the same", path, ErrNotRemovable)
	}
	numbers, err := family(dir, number)
	if err != nil {
		return err
	}
	users, err := mounts(filepath.Join(proc, "self/mountinfo"), numbers)
	if err != nil {
		return err
	}
	holders, err := filepath.Glob(filepath.Join(dir, "*", "holders", "*")) // device-mapper, RAID
	if err != nil {
		return err
	}
	for _, h := range holders {
		users = append(users, filepath.Base(h))
	}
	if len(users) > 0 {
		return fmt.Errorf("%s %w (%s): unmount it first", path, ErrMounted, strings.Join(users, ", "))
	}
	return nil
}

// removable is true for media that can be taken out, and for disks on USB and
// cards in a slot, many of which do not say so.
func removable(dir string) bool {
	b, err := os.ReadFile(filepath.Join(dir, "removable"))
	if err == nil && strings.TrimSpace(string(b)) == "1" {
		return true
	}
	kind, err := os.ReadFile(filepath.Join(dir, "device", "type"))
	return strings.Contains(dir, "/usb") || err == nil && strings.TrimSpace(string(kind)) == "SD"
}

// family returns the numbers of the disk and its partitions.
func family(dir, number string) (map[string]bool, error) {
	numbers := map[string]bool{number: true}
	parts, err := filepath.Glob(filepath.Join(dir, "*", "partition"))
	if err != nil {
		return nil, err
	}
	for _, p := range parts {
		b, err := os.ReadFile(filepath.Join(filepath.Dir(p), "dev"))
		if err != nil {
			return nil, err
		}
		numbers[strings.TrimSpace(string(b))] = true
	}
	return numbers, nil
}

// mounts returns where file systems of those devices are mounted.
func mounts(mountinfo string, numbers map[string]bool) ([]string, error) {
	f, err := os.Open(mountinfo)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var at []string
	s := bufio.NewScanner(f)
	for s.Scan() {
		if fields := strings.Fields(s.Text()); len(fields) > 4 && numbers[fields[2]] {
			at = append(at, fields[4])
		}
	}
	return at, s.Err()
}

// Flush drops what the kernel keeps of the device, so that reads reach the
// card.
func (d *Device) Flush() error {
	if err := unix.IoctlSetInt(int(d.Fd()), unix.BLKFLSBUF, 0); err != nil {
		return fmt.Errorf("flush buffers of %s: %w", d.Name(), err)
	}
	return nil
}

// Reread tells the kernel that the partition table changed.
func (d *Device) Reread() error {
	if err := unix.IoctlSetInt(int(d.Fd()), unix.BLKRRPART, 0); err != nil {
		return fmt.Errorf("read partition table of %s again: %w", d.Name(), err)
	}
	return nil
}

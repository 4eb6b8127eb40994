package provision

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// BootPartition is the boot FAT at its mount point. It is read-only but for
// the moments in which something on it is overwritten.
type BootPartition struct{ Dir string }

// Writable runs f while the partition can be written.
func (b BootPartition) Writable(f func() error) (err error) {
	const flags = unix.MS_REMOUNT | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME
	if err := unix.Mount("", b.Dir, "", flags, ""); err != nil {
		return fmt.Errorf("make %s writable: %w", b.Dir, err)
	}
	defer func() {
		if e := unix.Mount("", b.Dir, "", flags|unix.MS_RDONLY, ""); e != nil {
			err = errors.Join(err, fmt.Errorf("make %s read-only again: %w", b.Dir, e))
		}
	}()
	return f()
}

package collect

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"

	"github.com/prometheus/procfs/blockdevice"
	"golang.org/x/sys/unix"
)

// storageFull is the used share, in tenths of a percent, that is urgent.
const storageFull = 950

// storage tells how full the mounts are, and what whole disks have read and
// written: a card wears by what is written to it.
type storage struct {
	disks  blockdevice.FS
	mounts map[string]string // label → path
	statfs func(path string) (total, free uint64, err error)
}

func newStorage(disks blockdevice.FS, mounts map[string]string, statfs func(string) (uint64, uint64, error)) storage {
	return storage{disks, mounts, statfs}
}

func (storage) Name() string { return "storage" }

// wholeDisk matches disks, not their partitions, loops or RAM disks.
var wholeDisk = regexp.MustCompile(`^(mmcblk\d+|nvme\d+n\d+|[sv]d[a-z]+)$`)

const sector = 512 // octets, in /proc/diskstats whatever the disk uses

func (s storage) Collect(context.Context) ([]Reading, error) {
	var out []Reading
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(s.mounts)) {
		total, free, err := s.statfs(s.mounts[name])
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.mounts[name], err))
			continue
		}
		used := integer("storage."+name+".used_percent", "%", 1, permille(float64(total)-float64(free), float64(total)))
		used.Urgent = used.Value.Bits >= storageFull
		out = append(out, used, integer("storage."+name+".free_kib", "KiB", 0, int64(free/1024)))
	}
	disks, err := s.disks.ProcDiskstats()
	if err != nil {
		return out, errors.Join(append(errs, err)...)
	}
	for _, d := range disks {
		if wholeDisk.MatchString(d.DeviceName) {
			out = append(out,
				integer("storage."+d.DeviceName+".read_kib", "KiB", 0, int64(d.ReadSectors*sector/1024)),
				integer("storage."+d.DeviceName+".written_kib", "KiB", 0, int64(d.WriteSectors*sector/1024)))
		}
	}
	return out, errors.Join(errs...)
}

func statfs(path string) (total, free uint64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, 0, err
	}
	return st.Blocks * uint64(st.Bsize), st.Bavail * uint64(st.Bsize), nil
}

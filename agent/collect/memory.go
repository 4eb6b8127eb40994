package collect

import (
	"context"
	"errors"

	"github.com/prometheus/procfs"
)

// memoryShort is the share of memory left, in tenths of a percent, below which
// the kernel is about to kill something.
const memoryShort = 50

type memory struct{ fs procfs.FS }

func newMemory(fs procfs.FS) memory { return memory{fs} }

func (memory) Name() string { return "memory" }

func (m memory) Collect(context.Context) ([]Reading, error) {
	info, err := m.fs.Meminfo()
	if err != nil {
		return nil, err
	}
	if info.MemTotal == nil || info.MemAvailable == nil {
		return nil, errors.New("meminfo: expected MemTotal and MemAvailable")
	}
	total, available := float64(*info.MemTotal), float64(*info.MemAvailable)
	used := integer("system.memory.used_percent", "%", 1, permille(total-available, total))
	used.Urgent = used.Value.Bits > 1000-memoryShort
	return []Reading{
		used,
		integer("system.memory.available_kib", "KiB", 0, int64(*info.MemAvailable)),
	}, nil
}

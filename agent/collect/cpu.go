package collect

import (
	"context"

	"github.com/prometheus/procfs"
)

// cpu measures how the processors spent the time since the last call. The
// first call measures since the start of the machine.
type cpu struct {
	fs   procfs.FS
	last procfs.CPUStat
}

func newCPU(fs procfs.FS) *cpu { return &cpu{fs: fs} }

func (*cpu) Name() string { return "cpu" }

func (c *cpu) Collect(context.Context) ([]Reading, error) {
	stat, err := c.fs.Stat()
	if err != nil {
		return nil, err
	}
	now, was := stat.CPUTotal, c.last
	c.last = now
	// Guest time is part of user time already.
	total := func(s procfs.CPUStat) float64 {
		return s.User + s.Nice + s.System + s.Idle + s.Iowait + s.IRQ + s.SoftIRQ + s.Steal
	}
	// The kernel's idle and iowait may step back a little: never below zero.
	idle, wait := max(now.Idle-was.Idle, 0), max(now.Iowait-was.Iowait, 0)
	all := max(total(now)-total(was), idle+wait)
	return []Reading{
		integer("system.cpu.used_percent", "%", 1, permille(all-idle-wait, all)),
		integer("system.cpu.iowait_percent", "%", 1, permille(wait, all)),
	}, nil
}

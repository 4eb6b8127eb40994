// Package sched says how the kernel's scheduler is to treat the calling process
// beside the device's others, sched(7).
package sched

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Nice has the process run with the nice value n, -20 (most favoured) to 19: one step
// is about a tenth more or less of a processor that others want too, and nothing on
// one that nobody else wants. Less than the value it has takes CAP_SYS_NICE.
func Nice(n int) error {
	return threads(func(tid int) error { return unix.Setpriority(unix.PRIO_PROCESS, tid, n) })
}

// Realtime has the process run before all that have no real-time priority (SCHED_RR,
// the lowest of its priorities). It takes CAP_SYS_NICE, and must sleep most of the
// time: by default the kernel leaves the others a twentieth.
func Realtime() error {
	return threads(func(tid int) error {
		return unix.SchedSetAttr(tid, &unix.SchedAttr{Policy: unix.SCHED_RR, Priority: 1}, 0)
	})
}

// threads does f to every thread of the process until it finds none that is new: to
// Linux priorities are a thread's, and a new thread has those of the one that made it.
func threads(f func(tid int) error) error {
	done := map[int]bool{}
	for more := true; more; {
		more = false
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return fmt.Errorf("expected the process's threads: %w", err)
		}
		for _, t := range tasks {
			tid, err := strconv.Atoi(t.Name())
			if err != nil || done[tid] {
				continue
			}
			if err := f(tid); err != nil && err != unix.ESRCH {
				return fmt.Errorf("priority of thread %d: %w", tid, err)
			}
			done[tid], more = true, true
		}
	}
	return nil
}

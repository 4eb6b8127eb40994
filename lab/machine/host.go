package machine

import (
	"os"
	"runtime"
	"time"

	"github.com/prometheus/procfs"
)

// Accelerator returns how the host runs the guest's processor: by itself where
// it is of the same kind, translated otherwise; and what the kernel should
// know of that.
func Accelerator() (args []string, kernel string) {
	if runtime.GOARCH == "arm64" {
		if runtime.GOOS == "darwin" {
			return []string{"-accel", "hvf", "-cpu", "host"}, ""
		}
		if f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0); err == nil {
			f.Close()
			return []string{"-accel", "kvm", "-cpu", "host"}, ""
		}
	}
	// Isolating page tables, which this processor would not need but for the random
	// place of its kernel, flushes the TLB at each system call. That costs an emulator
	// a fifth of its time.
	return []string{"-accel", "tcg", "-cpu", "cortex-a72"}, "kpti=off"
}

// usage returns the processor time and the memory of a process, zero where the
// host does not tell.
func usage(pid int) (cpu time.Duration, resident int64) {
	p, err := procfs.NewProc(pid)
	if err != nil {
		return 0, 0
	}
	s, err := p.Stat()
	if err != nil {
		return 0, 0
	}
	return time.Duration(s.CPUTime() * float64(time.Second)), int64(s.ResidentMemory())
}

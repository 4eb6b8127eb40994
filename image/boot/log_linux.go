package boot

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"

	"golang.org/x/sys/unix"
)

// OpenKernelLog mounts what a first program needs to speak at all, /proc, /sys
// and /dev, and returns a logger into the kernel's log. A file system that is
// there already is no error.
func OpenKernelLog(program string) (*slog.Logger, error) {
	for _, m := range []struct{ kind, target string }{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}} {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return nil, err
		}
		if err := unix.Mount(m.kind, m.target, m.kind, 0, ""); err != nil && err != unix.EBUSY {
			return nil, fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	// Programs may write more than ten lines in five seconds.
	if err := os.WriteFile("/proc/sys/kernel/printk_devkmsg", []byte("on\n"), 0); err != nil {
		return nil, err
	}
	return KernelLog(program)
}

// KernelLog returns a logger into the kernel's log, which the console shows
// and which outlives this process.
func KernelLog(program string) (*slog.Logger, error) {
	f, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	return slog.New(slog.NewTextHandler(kernelLog{f, program}, &slog.HandlerOptions{
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && a.Key == slog.TimeKey {
				return slog.Attr{} // the kernel stamps
			}
			return a
		},
	})), nil
}

// kernelLog makes each line that slog writes one message of the kernel's.
type kernelLog struct {
	f       *os.File
	program string
}

// maxMessage is what the kernel takes in one write.
const maxMessage = 976

func (k kernelLog) Write(line []byte) (int, error) {
	level, rest := 6, line
	for name, l := range map[string]int{"ERROR": 3, "WARN": 4, "INFO": 6} {
		if r, ok := bytes.CutPrefix(line, []byte("level="+name+" ")); ok {
			level, rest = l, r
		}
	}
	b := fmt.Appendf(nil, "<%d>%s: %s", level, k.program, rest)
	if len(b) > maxMessage {
		b = append(b[:maxMessage-1], '\n')
	}
	if _, err := k.f.Write(b); err != nil {
		return 0, err
	}
	return len(line), nil
}

package machine

import (
	"strconv"
	"syscall"

	"github.com/prometheus/procfs"
)

// OwnChild puts QEMU into a process group of its own, where no terminal's
// interrupt reaches it, and has the kernel end it when we end.
func OwnChild() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// startTime returns when a process started, in ticks since the host did.
func startTime(pid int) (string, error) {
	p, err := procfs.NewProc(pid)
	if err != nil {
		return "", err
	}
	s, err := p.Stat()
	return strconv.FormatUint(s.Starttime, 10), err
}

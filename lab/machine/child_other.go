//go:build !linux

package machine

import (
	"fmt"
	"os/exec"
	"strings"
	"syscall"
)

// OwnChild puts QEMU into a process group of its own. Where the kernel does not
// end it with us, the next command finds it by its PID file.
func OwnChild() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// startTime returns when a process started, as ps prints it.
func startTime(pid int) (string, error) {
	out, err := exec.Command("ps", "-o", "lstart=", "-p", fmt.Sprint(pid)).Output()
	return strings.TrimSpace(string(out)), err
}

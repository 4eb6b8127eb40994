package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
)

// outside is a variable that names the network namespace from which Apart was called.
const outside = "HALO_LOAD_OUTSIDE"

// namespace names the network namespace of this process.
func namespace() (string, error) { return os.Readlink("/proc/self/ns/net") }

// IsApart tells whether Apart has started this process: nothing else is in its network.
func IsApart() bool {
	from := os.Getenv(outside)
	here, err := namespace()
	return from != "" && err == nil && here != from
}

// patience is how long a program that was told to end may take.
const patience = time.Minute

// Apart runs this program once more, with those arguments and in a network of its own, which
// has all addresses of the overlay when it calls Overlay, and returns its exit status.
// Without root, a user namespace gives the rights. It ends in order when ctx does.
func Apart(ctx context.Context, args []string, stdout, stderr io.Writer) (status int, err error) {
	here, err := namespace()
	if err != nil {
		return 0, err
	}
	c := exec.CommandContext(ctx, "/proc/self/exe", args...)
	c.Env = append(os.Environ(), outside+"="+here)
	c.Stdout, c.Stderr = stdout, stderr
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.WaitDelay = patience
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if uid, gid := os.Getuid(), os.Getgid(); uid != 0 {
		c.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		c.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		c.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: gid, Size: 1}}
	}
	// The child dies with the thread that starts it, which must not end before.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err = c.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() >= 0 {
		return exit.ExitCode(), nil
	}
	if err != nil {
		return 0, fmt.Errorf("run in a network namespace: %w", err)
	}
	return 0, nil
}

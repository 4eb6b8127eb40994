package testvm

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"halo.internal/hal/module"
	"halo.internal/model/paths"
)

// first is the machine's first process. It prepares the machine, runs the tests,
// reports and switches off.
func first() {
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, "test machine:", err) // the kernel's console
	}
	unix.Sync()
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		panic(err) // the kernel panics with its first process, and the machine ends too
	}
	select {}
}

func serve() error {
	if err := mount(); err != nil {
		return err
	}
	answer, err := openPort(resultPort)
	if err != nil {
		return err
	}
	output, err := openPort(outputPort)
	if err != nil {
		return err
	}
	go func() { // ends with the machine
		_, err := io.Copy(io.Discard, answer)
		fmt.Fprintln(os.Stderr, "test machine: the host is gone:", err)
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	}()
	r, err := tests(output)
	if err != nil {
		r.Err = err.Error()
	}
	return errors.Join(json.NewEncoder(answer).Encode(r), drain(answer), drain(output))
}

func mount() error {
	for _, m := range []struct{ source, target, kind, data string }{
		{"proc", "/proc", "proc", ""},
		{"sysfs", "/sys", "sysfs", ""},
		{"devtmpfs", "/dev", "devtmpfs", ""},
		{"tmpfs", "/tmp", "tmpfs", ""},
		{"tmpfs", "/run", "tmpfs", ""},
		{"debugfs", "/sys/kernel/debug", "debugfs", ""},
	} {
		if err := unix.Mount(m.source, m.target, m.kind, 0, m.data); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	return nil
}

// patience is how long to wait for what the kernel does by itself.
const patience = time.Minute

// openPort opens the serial port of that name, which appears some time after the
// kernel has started.
func openPort(name string) (*os.File, error) {
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		files, err := filepath.Glob("/sys/class/virtio-ports/*/name")
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			if b, err := os.ReadFile(f); err == nil && string(bytes.TrimSpace(b)) == name {
				return os.OpenFile(filepath.Join("/dev", filepath.Base(filepath.Dir(f))), os.O_RDWR, 0)
			}
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("serial port %s: not there after %s", name, patience)
		}
	}
}

// drain returns when the host has taken what was written: the port is writable
// again only then.
func drain(port *os.File) error {
	fds := []unix.PollFd{{Fd: int32(port.Fd()), Events: unix.POLLOUT}}
	for {
		if _, err := unix.Poll(fds, int(patience.Milliseconds())); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func tests(output *os.File) (result, error) {
	j, err := readJob()
	if err != nil {
		return result{}, err
	}
	if err := prepare(j); err != nil {
		return result{}, err
	}
	before := map[string]string{}
	if err := readTestdata(workDir, func(name string, b []byte) { before[name] = string(b) }); err != nil {
		return result{}, err
	}
	cmd := exec.Command(initial, j.Args...)
	cmd.Dir = workDir
	cmd.Env = append([]string{"HOME=/root", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR=/tmp", "TERM=dumb", inside + "=1"}, j.Env...)
	cmd.Stdout, cmd.Stderr = output, output
	if err := cmd.Run(); err != nil {
		if _, ok := errors.AsType[*exec.ExitError](err); !ok {
			return result{}, err
		}
	}
	r := result{Status: cmd.ProcessState.ExitCode(), Files: map[string][]byte{}}
	if r.Status < 0 {
		r.Status, err = 2, fmt.Errorf("the tests ended by %v", cmd.ProcessState)
	}
	return r, errors.Join(err, readTestdata(workDir, func(name string, b []byte) {
		if old, ok := before[name]; !ok || old != string(b) {
			r.Files[name] = b
		}
	}))
}

func readJob() (j job, err error) {
	b, err := os.ReadFile(jobFile)
	if err != nil {
		return j, err
	}
	return j, json.Unmarshal(b, &j)
}

// prepare makes the kernel what the tests expect.
func prepare(j job) error {
	if err := os.WriteFile("/proc/sys/kernel/modprobe", []byte(initial), 0); err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	if len(j.Modules) == 0 {
		return nil
	}
	l, err := loader(j)
	if err != nil {
		return err
	}
	for _, m := range j.Modules {
		name, _, _ := strings.Cut(m, " ")
		if err := l.Load(name); err != nil {
			return err
		}
	}
	return nil
}

func loader(j job) (*module.Loader, error) {
	release, err := module.Release()
	if err != nil {
		return nil, err
	}
	var words []string // as on a kernel command line
	for _, m := range j.Modules {
		f := strings.Fields(m)
		for _, p := range f[min(1, len(f)):] {
			words = append(words, f[0]+"."+p)
		}
	}
	return module.NewLoader(filepath.Join(paths.ModulesDir, release), module.Running{}, module.Params(strings.Join(words, " ")))
}

// modprobe loads what the kernel asks for and ends the process. A name that no
// module has is what the kernel asks for most.
func modprobe(name string) {
	err := func() error {
		j, err := readJob()
		if err != nil {
			return err
		}
		l, err := loader(j)
		if err != nil {
			return err
		}
		return l.Load(name)
	}()
	if err != nil && !errors.Is(err, module.ErrUnknown) {
		fmt.Fprintf(os.Stderr, "test machine: kernel asks for %s: %v\n", name, err)
		os.Exit(1)
	}
	os.Exit(0)
}

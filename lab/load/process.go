package load

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// AnyCore leaves it to the kernel where a process runs.
const AnyCore = -1

// Pin binds all threads of a process to a core; those that they start later are bound too.
func Pin(pid, core int) error {
	var set unix.CPUSet
	set.Set(core)
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil {
		return err
	}
	for _, t := range threads {
		id, err := strconv.Atoi(filepath.Base(t))
		if err != nil {
			return err
		}
		if err := unix.SchedSetaffinity(id, &set); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("bind process %d to core %d: %w", pid, core, err)
		}
	}
	return nil
}

// Process is a server that runs until it is stopped or this process ends.
type Process struct {
	cmd   *exec.Cmd
	log   logged
	ended chan struct{} // closed when it has
}

// maxLog is how much is kept of what a process writes, in octets: the first and the last half.
const maxLog = 128 << 10

// logged is what a process has written.
type logged struct {
	mu          sync.Mutex // guards what follows
	first, last []byte
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := min(len(b), maxLog/2-len(l.first))
	l.first, l.last = append(l.first, b[:n]...), append(l.last, b[n:]...)
	if over := len(l.last) - maxLog/2; over > maxLog/2 {
		l.last = append(l.last[:0], l.last[over:]...)
	}
	return len(b), nil
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.first) + string(l.last)
}

// Start starts a program with variables besides this process's own, on a core or AnyCore.
func Start(core int, env []string, program string, args ...string) (*Process, error) {
	p := &Process{cmd: exec.Command(program, args...), ended: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	// A child has the cores of the thread that starts it, which must not end before it.
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread goes with the goroutine
		if core != AnyCore {
			var set unix.CPUSet
			set.Set(core)
			if err := unix.SchedSetaffinity(0, &set); err != nil {
				started <- fmt.Errorf("core %d: %w", core, err)
				return
			}
		}
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait() // what became of it is in ProcessState
			close(p.ended)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// stopTimeout is how long a process may take to end in order.
const stopTimeout = 30 * time.Second

// Stop ends the process in order. An error says that it ended otherwise.
func (p *Process) Stop() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	force := time.AfterFunc(stopTimeout, p.Kill)
	defer force.Stop()
	<-p.ended
	if s := p.cmd.ProcessState; !s.Success() {
		return fmt.Errorf("%s: %s: %s", filepath.Base(p.cmd.Path), s, p.Tail())
	}
	return nil
}

// Kill ends the process at once (SIGKILL).
func (p *Process) Kill() { _ = p.cmd.Process.Kill() } // it may have ended

// Ended is closed when the process has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Log is what it has written, but for the middle of it where that is long.
func (p *Process) Log() string { return p.log.String() }

// Tail is what it has written last.
func (p *Process) Tail() string {
	const most = 4000
	text := p.log.String()
	return text[max(0, len(text)-most):]
}

// CPU is the processor time that the process has used, in and out of the kernel.
func (p *Process) CPU() (time.Duration, error) {
	select {
	case <-p.ended:
		return p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime(), nil
	default:
	}
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	// What is before the last bracket is its name; utime and stime are fields 14 and 15 (proc_pid_stat(5)).
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(fields) < 13 {
		return 0, fmt.Errorf("expected the state of a process, got %q", data)
	}
	const hz = 100 // USER_HZ, of all platforms
	var ticks int
	for _, f := range fields[11:13] {
		n, err := strconv.Atoi(f)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / hz, nil
}

// Memory is the resident memory in octets: now, and at most since the start.
func (p *Process) Memory() (now, most int64, err error) {
	v, err := p.values("status", "VmRSS", "VmHWM")
	return v[0] << 10, v[1] << 10, err
}

// Written is how many octets the process has had the kernel put on a disk: whole pages, and
// of what the file system writes for itself nothing (proc_pid_io(5)).
func (p *Process) Written() (int64, error) {
	v, err := p.values("io", "write_bytes", "cancelled_write_bytes")
	return v[0] - v[1], err
}

// values reads two numbers of a file of /proc.
func (p *Process) values(file, first, second string) (v [2]int64, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.cmd.Process.Pid, file))
	if err != nil {
		return v, err
	}
	found := 0
	for line := range strings.Lines(string(data)) {
		name, rest, _ := strings.Cut(line, ":")
		for i, wanted := range []string{first, second} {
			if name == wanted {
				if v[i], err = strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64); err != nil {
					return v, fmt.Errorf("%s of %s: %w", name, file, err)
				}
				found++
			}
		}
	}
	if found != len(v) {
		return v, fmt.Errorf("expected %s and %s in %s, got %q", first, second, file, data)
	}
	return v, nil
}

package nstest

import (
	"bufio"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// Host is a machine at the end of a cable: a further namespace, in which
// programs run.
type Host struct{ ns netns.NsHandle }

// NewHost moves the interface into a namespace of its own, up.
func NewHost(t testing.TB, l netlink.Link) *Host {
	t.Helper()
	h := &Host{ns: netns.None()}
	Away(t, l, func(netlink.Link) (err error) {
		h.ns, err = netns.Get()
		return err
	})
	t.Cleanup(func() { _ = h.ns.Close() })
	return h
}

// Do calls f in the host's namespace.
func (h *Host) Do(t testing.TB, f func() error) {
	t.Helper()
	must(t, h.do(f))
}

func (h *Host) do(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: see Away
		if err := netns.Set(h.ns); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

// Run runs a program to its end and returns what it said.
func (h *Host) Run(t testing.TB, name string, args ...string) (string, error) {
	t.Helper()
	var out []byte
	err := h.do(func() (err error) {
		out, err = exec.Command(name, args...).CombinedOutput()
		return err
	})
	return string(out), err
}

// Process is a program that runs on a host until it ends or the test does.
type Process struct {
	t     testing.TB
	name  string
	cmd   *exec.Cmd
	lines chan string
	said  []string // what the test has read
}

// Start starts a program.
func (h *Host) Start(t testing.TB, name string, args ...string) *Process {
	t.Helper()
	p := &Process{t: t, name: name, cmd: exec.Command(name, args...), lines: make(chan string, 1<<12)}
	out, err := p.cmd.StdoutPipe()
	must(t, err)
	p.cmd.Stderr = p.cmd.Stdout
	h.Do(t, p.cmd.Start)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer close(p.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			p.lines <- s.Text()
		}
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it may have ended
		for range p.lines {
		}
		<-ended
		_ = p.cmd.Wait()
	})
	return p
}

// Await returns the rest of the next line that begins with prefix.
func (p *Process) Await(prefix string, limit time.Duration) string {
	p.t.Helper()
	timeout := time.After(limit)
	for {
		select {
		case line, ok := <-p.lines:
			if !ok {
				p.t.Fatalf("%s ended before it said %q; it said:\n%s", p.name, prefix, strings.Join(p.said, "\n"))
			}
			p.said = append(p.said, line)
			if rest, ok := strings.CutPrefix(line, prefix); ok {
				return strings.TrimSpace(rest)
			}
		case <-timeout:
			p.t.Fatalf("%s did not say %q within %s; it said:\n%s", p.name, prefix, limit, strings.Join(p.said, "\n"))
		}
	}
}

// Signal sends a signal to the program.
func (p *Process) Signal(s os.Signal) {
	p.t.Helper()
	must(p.t, p.cmd.Process.Signal(s))
}

// Mounts returns the command that runs another with mounts of its own. In a chroot
// whose / is no mount, nothing can be said of how it spreads.
func Mounts(t testing.TB) []string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 4 && f[4] == "/" { // proc_pid_mountinfo(5)
			return []string{"unshare", "--mount"}
		}
	}
	return []string{"unshare", "--mount", "--propagation", "unchanged"}
}

package confine

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The child is this binary, started again: what it gives up it cannot take back.
const envChild = "HALO_TEST_CONFINE"

func TestMain(m *testing.M) {
	if dir := os.Getenv(envChild); dir != "" {
		child(dir)
		return
	}
	os.Exit(m.Run())
}

// report is what the child found it could do.
type report struct {
	Outcome Outcome
	Done    map[string]string // what was tried, and the error
	Threads map[string]string // what any of them may write outside; empty: none may
	Caps    uint64            // effective and permitted
	NoNew   int               // no_new_privs
}

func child(dir string) {
	own, other := filepath.Join(dir, "own"), filepath.Join(dir, "other")
	// Threads that are there before.
	const threads = 6
	var ready, done sync.WaitGroup
	confined := make(chan struct{})
	var mu sync.Mutex
	r := report{Done: map[string]string{}, Threads: map[string]string{}}
	for i := range threads {
		ready.Add(1)
		done.Add(1)
		go func() {
			runtime.LockOSThread()
			defer done.Done()
			ready.Done()
			<-confined
			if err := os.WriteFile(filepath.Join(other, fmt.Sprint("thread", i)), nil, 0o600); err == nil {
				mu.Lock()
				r.Threads[fmt.Sprint(i)] = "wrote"
				mu.Unlock()
			}
		}()
	}
	ready.Wait()
	var err error
	r.Outcome, err = Process(Needs{Write: []string{own}, Read: append(System(), filepath.Join(dir, "read"), filepath.Join(dir, "none"))})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	close(confined)
	done.Wait()
	try := func(what string, f func() error) { r.Done[what] = fmt.Sprint(f()) }
	file := func(elem ...string) string { return filepath.Join(append([]string{dir}, elem...)...) }
	try("make own", func() error { return os.WriteFile(file("own", "a"), []byte("a"), 0o600) })
	try("make own folder", func() error { return os.MkdirAll(file("own", "sub", "sub"), 0o700) })
	try("rename own", func() error { return os.Rename(file("own", "a"), file("own", "b")) })
	try("move own", func() error { return os.Rename(file("own", "b"), file("own", "sub", "b")) })
	try("read own", func() error { _, err := os.ReadFile(file("own", "sub", "b")); return err })
	try("truncate own", func() error { return os.Truncate(file("own", "sub", "b"), 0) })
	try("remove own", func() error { return os.RemoveAll(file("own", "sub")) })
	try("listen own", func() error {
		l, err := net.Listen("unix", file("own", "s"))
		if err == nil {
			err = l.Close()
		}
		return err
	})
	try("read other", func() error { _, err := os.ReadFile(file("read", "f")); return err })
	try("write read-only", func() error { return os.WriteFile(file("read", "f"), nil, 0o600) })
	try("connect", func() error {
		c, err := net.Dial("unix", file("read", "sock"))
		if err == nil {
			err = c.Close()
		}
		return err
	})
	try("listen", func() error {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err == nil {
			err = l.Close()
		}
		return err
	})
	try("null", func() error { return os.WriteFile(os.DevNull, []byte("x"), 0) })
	try("write outside", func() error { return os.WriteFile(file("other", "f"), nil, 0o600) })
	try("read outside", func() error { _, err := os.ReadFile(file("other", "secret")); return err })
	try("remove outside", func() error { return os.Remove(file("other", "secret")) })
	try("link in", func() error { return os.Link(file("other", "secret"), file("own", "link")) })
	try("move out", func() error {
		return errors.Join(os.WriteFile(file("own", "c"), nil, 0o600), os.Rename(file("own", "c"), file("other", "c")))
	})
	try("symbolic link", func() error {
		if err := os.Symlink(file("other", "secret"), file("own", "way")); err != nil {
			return err
		}
		_, err := os.ReadFile(file("own", "way"))
		return err
	})
	try("run", func() error { return exec.Command("/proc/self/exe", "-test.list=none").Run() })
	try("signal", func() error { return syscall.Kill(os.Getppid(), 0) })
	try("mount", func() error { return unix.Mount("tmpfs", own, "tmpfs", 0, "") })
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var caps [2]unix.CapUserData
	if err := unix.Capget(&head, &caps[0]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	for i, c := range caps {
		r.Caps |= uint64(c.Effective|c.Permitted|c.Inheritable) << (32 * i)
	}
	r.NoNew, _ = unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	_ = json.NewEncoder(os.Stdout).Encode(r) // the test fails without it
}

func TestAConfinedProcessKeepsToItsFolders(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"own", "other", "read"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"other/secret", "read/f"} {
		if err := os.WriteFile(filepath.Join(dir, f), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("unix", filepath.Join(dir, "read", "sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), envChild+"="+dir)
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s%s", err, out, errs.String())
	}
	var r report
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Log(r.Outcome)
	may := []string{"make own", "make own folder", "rename own", "move own", "read own", "truncate own", "remove own", "listen own", "read other", "connect", "listen", "null"}
	confined := []string{"write read-only", "write outside", "read outside", "remove outside", "link in", "move out", "symbolic link", "run"}
	for _, what := range slices.Sorted(maps.Keys(r.Done)) {
		did := r.Done[what] == "<nil>"
		var want bool
		switch {
		case slices.Contains(may, what):
			want = true
		case slices.Contains(confined, what):
			want = r.Outcome.ABI == 0 // a kernel without landlock lets it
		case what == "signal":
			want = !r.Outcome.Scoped
		}
		if did != want {
			t.Errorf("%s: %s, want it done: %v", what, r.Done[what], want)
		}
	}
	if r.Outcome.ABI > 0 && len(r.Threads) > 0 {
		t.Errorf("threads that were there before are not confined: %v", r.Threads)
	}
	if r.Caps&^kept != 0 {
		t.Errorf("it has the capabilities %x", r.Caps)
	}
	if r.NoNew != 1 {
		t.Error("a program that it runs could have more")
	}
}

func TestOutcomesAreSaid(t *testing.T) {
	for want, o := range map[string]Outcome{
		"nothing is confined": {},
		"confined: files by landlock 6, signals, capabilities": {6, true, true},
		"confined: capabilities":                               {Capabilities: true},
	} {
		if got := o.String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

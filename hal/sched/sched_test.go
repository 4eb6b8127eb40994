package sched_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"halo.internal/hal/sched"
)

const childEnv = "HALO_TEST_SCHED"

func TestMain(m *testing.M) {
	how := os.Getenv(childEnv)
	if how == "" {
		os.Exit(m.Run())
	}
	if err := child(how); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// child sets its priority among many threads, has more made, and prints what each
// has: policy and nice value, proc_pid_stat(5).
func child(how string) error {
	many(8)
	set := sched.Realtime
	if how == "nice" {
		set = func() error { return sched.Nice(7) }
	}
	if err := set(); err != nil {
		return err
	}
	many(16)
	tasks, err := filepath.Glob("/proc/self/task/*/stat")
	if err != nil {
		return err
	}
	for _, t := range tasks {
		b, err := os.ReadFile(t)
		if err != nil {
			return err
		}
		_, after, _ := strings.Cut(string(b), ") ") // the third field begins
		f := strings.Fields(after)
		fmt.Println("policy", f[41-3], "nice", f[19-3])
	}
	return nil
}

// many has n goroutines hold a thread each at once.
func many(n int) {
	var wg, all sync.WaitGroup
	all.Add(n)
	for range n {
		wg.Go(func() {
			runtime.LockOSThread()
			all.Done()
			all.Wait()
			runtime.UnlockOSThread()
		})
	}
	wg.Wait()
}

// TestEveryThread: those that the process has, and those that it makes later.
func TestEveryThread(t *testing.T) {
	for how, want := range map[string]string{"nice": "policy 0 nice 7", "realtime": "policy 2 "} {
		t.Run(how, func(t *testing.T) {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), childEnv+"="+how)
			cmd.Stderr = os.Stderr
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			lines := strings.Split(strings.TrimSpace(string(out)), "\n")
			if len(lines) < 8 {
				t.Errorf("got %d threads, want eight and more", len(lines))
			}
			if i := slices.IndexFunc(lines, func(l string) bool { return !strings.HasPrefix(l, want) }); i >= 0 {
				t.Errorf("a thread has %q, want %q", lines[i], want)
			}
		})
	}
}

//go:build lab

package endtest_test

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"halo.internal/lab/machine"
	"halo.internal/lab/testvm"
)

// task is the environment variable that says what the tests in the machine do.
const task = "HALO_ENDTEST"

func TestMain(m *testing.M) {
	if testvm.Inside() || os.Getenv(task) != "" {
		testvm.Main(m, testvm.Options{})
	}
	os.Exit(m.Run())
}

// TestTask does what is asked, inside the machine.
func TestTask(t *testing.T) {
	switch os.Getenv(task) {
	case "fail":
		t.Error("as was asked")
	case "exit 7":
		os.Exit(7)
	case "crash":
		if err := os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0); err != nil {
			t.Error(err)
		}
	case "kill":
		if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
			t.Error(err)
		}
	case "hang":
		fmt.Println("hanging")
		select {}
	}
}

// again returns this program as the host's part of a machine.
func again(t *testing.T, do string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], append([]string{"-test.run=^TestTask$"}, args...)...)
	cmd.Env = append(os.Environ(), task+"="+do)
	return cmd
}

func TestEnds(t *testing.T) {
	for _, tc := range []struct {
		do     string
		status int
		says   []string
	}{
		{"pass", 0, []string{"PASS"}},
		{"fail", 1, []string{"as was asked", "FAIL", "--- kernel log"}},
		{"exit 7", 7, []string{"--- kernel log"}},
		{"kill", 2, []string{"the tests ended by signal: killed"}},
		{"crash", 1, []string{"the machine ended without a result", "Kernel panic - not syncing: sysrq triggered crash"}},
	} {
		t.Run(tc.do, func(t *testing.T) {
			out, err := again(t, tc.do).CombinedOutput()
			status := 0
			if exit, ok := err.(*exec.ExitError); ok {
				status = exit.ExitCode()
			}
			if status != tc.status {
				t.Errorf("status: got %d, want %d", status, tc.status)
			}
			for _, want := range tc.says {
				if !strings.Contains(string(out), want) {
					t.Errorf("%q is not in what it says", want)
				}
			}
			if t.Failed() {
				t.Logf("%s", out)
			}
		})
	}
	t.Run("timeout", func(t *testing.T) {
		out, err := again(t, "hang", "-test.timeout=1s").CombinedOutput()
		if err == nil || !strings.Contains(string(out), "panic: test timed out after 1s") {
			t.Errorf("got %v: %s", err, out)
		}
	})
}

// child returns the only child of a process, whichever of its threads made it.
func child(t *testing.T, parent int) machine.Process {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", parent))
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, f := range threads {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, strings.Fields(string(b))...)
	}
	if len(all) != 1 {
		t.Fatalf("children: got %q, want QEMU alone", all)
	}
	pid, err := strconv.Atoi(all[0])
	if err != nil {
		t.Fatal(err)
	}
	p, err := machine.Lookup(pid)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestNothingIsLeft kills the host's part without a warning.
func TestNothingIsLeft(t *testing.T) {
	cmd := again(t, "hang", "-test.v")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := bufio.NewScanner(out)
	for s.Scan() && s.Text() != "hanging" {
	}
	if s.Text() != "hanging" {
		t.Fatalf("the machine never ran: %v", cmd.Wait())
	}
	qemu := child(t, cmd.Process.Pid)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, out)
	_ = cmd.Wait() // it was killed
	for deadline := time.Now().Add(time.Minute); qemu.Alive(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("QEMU %d lives on", qemu.PID)
		}
	}
}

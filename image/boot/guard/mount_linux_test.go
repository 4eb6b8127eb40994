package guard

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// own is set in the process that has mounts of its own.
const own = "HALO_TEST_OWN_MOUNTS"

// TestNoMountIsMissed mounts at any instant of the wait, many times.
func TestNoMountIsMissed(t *testing.T) {
	if os.Getenv(own) == "" {
		c := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestNoMountIsMissed$", "-test.v")
		c.Env = append(os.Environ(), own+"=1")
		c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v (needs root)\n%s", err, out)
		}
		return
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	const rounds, steps = 300, 60
	for i := range rounds {
		done := make(chan error, 1)
		go func() { done <- awaitMount(dir) }()
		time.Sleep(time.Duration(i%steps) * 5 * time.Microsecond)
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("round %d: the mount was missed", i)
		}
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Fatal(err)
		}
	}
}

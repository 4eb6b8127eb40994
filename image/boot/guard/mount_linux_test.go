package guard

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestNoMountIsMissed mounts at any instant of the wait, many times.
func TestNoMountIsMissed(t *testing.T) {
	dir := t.TempDir()
	const rounds, steps = 300, 60
	for i := range rounds {
		done := make(chan error, 1)
		go func() { done <- awaitMount(dir) }()
		time.Sleep(time.Duration(i%steps) * 5 * time.Microsecond)
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
			t.Fatalf("mounting a tmpfs needs root: %v", err)
		}
		var err error
		select {
		case err = <-done:
		case <-time.After(20 * time.Second):
			t.Errorf("round %d: the mount was missed", i)
		}
		if gone := unix.Unmount(dir, unix.MNT_DETACH); gone != nil {
			t.Fatal(gone)
		}
		if err != nil || t.Failed() {
			t.Fatal(err)
		}
	}
}

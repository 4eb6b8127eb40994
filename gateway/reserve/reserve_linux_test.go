package reserve

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// small mounts a file system of that many octets.
func small(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatalf("mounting a tmpfs needs root: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill writes until nothing goes any more.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(make([]byte, 64<<10))
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
}

func TestReserveIsGivenUpAndTakenBack(t *testing.T) {
	dir := small(t, "32m")
	r := New(dir)
	if err := r.Look(); err != nil {
		t.Fatalf("with room: %v", err)
	}
	filler := filepath.Join(dir, "filler")
	fill(t, filler)
	if err := r.Look(); !errors.Is(err, ErrFull) {
		t.Fatalf("full: got %v, want %v", err, ErrFull)
	}
	if err := os.WriteFile(filepath.Join(dir, "event"), make([]byte, Size-low), 0o600); err != nil {
		t.Errorf("the room that was reserved cannot be used: %v", err)
	}
	if err := r.Look(); !errors.Is(err, ErrFull) {
		t.Errorf("full without a reserve: got %v, want %v", err, ErrFull)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if err := r.Look(); err != nil {
		t.Errorf("with room again: %v", err)
	}
	if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() != Size {
		t.Errorf("the reserve is not back: %v, %v", info, err)
	}
}

// Power may go while the reserve is written.
func TestHalfAReserveIsNone(t *testing.T) {
	dir := small(t, "32m")
	if err := os.WriteFile(filepath.Join(dir, name), make([]byte, 100), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := New(dir).Look(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() != Size {
		t.Errorf("got %v, %v, want %d octets", info, err, Size)
	}
}

func TestNoReserveWhereNoneFits(t *testing.T) {
	dir := small(t, "8m")
	if err := New(dir).Look(); !errors.Is(err, ErrFull) {
		t.Errorf("got %v, want %v", err, ErrFull)
	}
	if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
		t.Error("it took what little room there was")
	}
}

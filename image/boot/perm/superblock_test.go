package perm

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// keeper keeps a superblock in memory.
type keeper []byte

func (k *keeper) Load() ([]byte, error) {
	if *k == nil {
		return nil, fs.ErrNotExist
	}
	return slices.Clone(*k), nil
}

func (k *keeper) Store(b []byte) error { *k = slices.Clone(b); return nil }

// ext4 makes a file system of 16 MiB.
func ext4(t *testing.T) Volume {
	t.Helper()
	v := Volume{Device: filepath.Join(t.TempDir(), "perm"), Size: 16 << 20, Log: slog.New(slog.DiscardHandler), Superblocks: new(keeper)}
	run(t, "mkfs.ext4", "-q", "-F", "-b", "4096", "-O", "metadata_csum", v.Device, "16M")
	return v
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	program, err := exec.LookPath(name)
	if err != nil {
		program = "/usr/sbin/" + name // not in everybody's PATH
	}
	if out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", name, err, out)
	}
}

// tear gives the second sector of the superblock another content.
func tear(t *testing.T, v Volume) {
	t.Helper()
	f, err := os.OpenFile(v.Device, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte("as it was before"), superblockAt+900)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestTornSuperblockIsMended(t *testing.T) {
	v := ext4(t)
	if mended, err := v.mendSuperblock(); mended || err != nil {
		t.Errorf("a whole one: mended %v, %v", mended, err)
	}
	if err := v.keepSuperblock(); err != nil {
		t.Fatal(err)
	}
	tear(t, v)
	if s, err := readSuperblock(v.Device); err != nil || s.valid() {
		t.Fatalf("the test tears nothing: %v", err)
	}
	if mended, err := v.mendSuperblock(); !mended || err != nil {
		t.Fatalf("mended %v, %v", mended, err)
	}
	run(t, "e2fsck", "-fn", v.Device)
}

func TestWhatIsNoSuperblockIsNotPutInPlace(t *testing.T) {
	v := ext4(t)
	tear(t, v)
	if mended, err := v.mendSuperblock(); mended || !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a copy: mended %v, %v", mended, err)
	}
	if err := v.keepSuperblock(); err != nil {
		t.Errorf("a torn one: %v", err)
	}
	if _, err := v.Superblocks.Load(); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a torn one was kept")
	}
	junk := keeper("junk")
	v.Superblocks = &junk
	if mended, err := v.mendSuperblock(); mended || err == nil {
		t.Errorf("with junk for a copy: mended %v, %v", mended, err)
	}
	large := ext4(t)
	if err := large.keepSuperblock(); err != nil {
		t.Fatal(err)
	}
	v.Superblocks, v.Size = large.Superblocks, 8<<20
	if mended, err := v.mendSuperblock(); mended || err == nil {
		t.Errorf("with the copy of a larger volume: mended %v, %v", mended, err)
	}
}

// A copy is written when there is something new in it, not at each start.
func TestSuperblockIsKeptOnce(t *testing.T) {
	v := ext4(t)
	if err := v.keepSuperblock(); err != nil {
		t.Fatal(err)
	}
	before, _ := v.Superblocks.Load() // it was stored just now
	run(t, "tune2fs", "-C", "7", v.Device)
	if err := v.keepSuperblock(); err != nil {
		t.Fatal(err)
	}
	if after, err := v.Superblocks.Load(); err != nil || !slices.Equal(before, after) {
		t.Errorf("stored anew for a counter (%v)", err)
	}
	run(t, "tune2fs", "-U", "random", v.Device)
	if err := v.keepSuperblock(); err != nil {
		t.Fatal(err)
	}
	if after, err := v.Superblocks.Load(); err != nil || slices.Equal(before, after) {
		t.Errorf("another file system's was not stored (%v)", err)
	}
}

func TestNoBackupIsSoughtBehindTheEnd(t *testing.T) {
	for size, want := range map[int64]int{96 << 20: 1, 128 << 20: 1, 129 << 20: 2, 32 << 30: 4} {
		if got := backups(size); len(got) != want {
			t.Errorf("a volume of %d octets: got %v, want %d places", size, got, want)
		}
	}
}

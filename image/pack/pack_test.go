package pack

import (
	"bytes"
	"compress/gzip"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"halo.internal/hal/card"
	"halo.internal/image/layout"
	"halo.internal/image/prepare"
	"halo.internal/model/version"
	"halo.internal/update/slots"
)

// build makes a builder with a small root, whose files have the given time.
func build(t *testing.T, when time.Time) *builder {
	t.Helper()
	b := &builder{work: t.TempDir(), prepared: &prepare.Result{Stamp: version.Info{Built: version.Unstamped}}}
	b.root = b.path("root")
	for _, name := range []string{"gokrazy/init", "user/halo-mesh", "etc/hostname"} {
		path := filepath.Join(b.root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, bytes.Repeat([]byte(name), 9000), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, when, when); err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func TestRootDependsOnItsFilesAlone(t *testing.T) {
	ctx := context.Background()
	one, two := build(t, time.Unix(1e9, 0)), build(t, time.Unix(2e9, 0))
	t.Setenv("SOURCE_DATE_EPOCH", "5")
	for _, b := range []*builder{one, two} {
		if err := b.packRoot(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if one.rootRef != two.rootRef {
		t.Errorf("got %+v and %+v", one.rootRef, two.rootRef)
	}
	a, err := os.ReadFile(one.path("root.img"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(two.path("root.img"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		t.Error("the same files give other octets")
	}
	if !bytes.Contains(a, bytes.Repeat([]byte("etc/hostname"), 100)) {
		t.Error("the root is compressed: updates could not be deltas against it")
	}
	if err := os.WriteFile(filepath.Join(two.root, "etc/hostname"), []byte("other"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := two.packRoot(ctx); err != nil || two.rootRef.Hash == one.rootRef.Hash || two.rootRef.Salt == one.rootRef.Salt {
		t.Errorf("other files give the same hash (%v)", err)
	}
}

const size = layout.PermStart + 64<<20

// flat makes a file with the partition table that gok writes.
func flat(t *testing.T, path string, parts ...int64) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte(strings.Repeat("boot code", 40)), 0); err != nil {
		t.Fatal(err)
	}
	writeTable(t, f, size, parts...)
}

func TestAssemble(t *testing.T) {
	b := build(t, time.Unix(1e9, 0))
	b.prepared.Manifest.ImageBytes = size
	var perm bytes.Buffer
	z := gzip.NewWriter(&perm)
	if _, err := z.Write([]byte("empty ext4")); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	b.prepared.Perm = perm.Bytes()
	flat(t, b.path("flat.img"), layout.BootOffset, layout.RootAStart, layout.RootBStart, layout.PermStart)
	for name, text := range map[string]string{"boot.img": "the boot FAT", "root.img": "the root"} {
		if err := os.WriteFile(b.path(name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.assemble(context.Background()); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(b.path("card.img"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for at, want := range map[int64]string{
		0: "\x00\x00\x00\x00", layout.BootOffset: "the boot FAT",
		layout.RootAStart: "the root", layout.RootBStart: "the root", layout.PermStart: "empty ext4",
	} {
		got := make([]byte, len(want))
		if _, err := f.ReadAt(got, at); err != nil || string(got) != want {
			t.Errorf("at %d: got %q, %v, want %q", at, got, err, want)
		}
	}
	table, err := card.ReadTable(f, size)
	if err != nil || table.FromCopy {
		t.Fatalf("partition table: from the copy %v, %v", table != nil && table.FromCopy, err)
	}
	if _, err := f.WriteAt(make([]byte, 512), 512); err != nil {
		t.Fatal(err)
	}
	if table, err = card.ReadTable(f, size); err != nil || !table.FromCopy {
		t.Errorf("the table's second copy: %v", err)
	}
	state, err := slots.Load(card.SlotState(f))
	if err != nil || state != slots.New() {
		t.Errorf("slot state: got %+v, %v", state, err)
	}
}

func TestBootGUID(t *testing.T) {
	path := filepath.Join(t.TempDir(), "flat.img")
	flat(t, path, layout.BootOffset, layout.RootAStart, layout.RootBStart, layout.PermStart)
	guid, err := bootGUID(path, size)
	if err != nil || guid != "01010101-0101-0101-0101-010101010101" {
		t.Errorf("got %s, %v", guid, err)
	}
	flat(t, path, layout.BootOffset, layout.RootAStart+1<<20, layout.RootBStart, layout.PermStart)
	if _, err := bootGUID(path, size); err == nil || !strings.Contains(err.Error(), "partition 2 of gok's image: expected it at") {
		t.Errorf("another layout: got %v", err)
	}
}

func TestProgramBudget(t *testing.T) {
	b := build(t, time.Unix(1e9, 0))
	if err := b.programs(); err != nil {
		t.Error(err)
	}
	if err := os.Truncate(filepath.Join(b.root, "user/halo-mesh"), MaxProgram+1); err != nil {
		t.Fatal(err)
	}
	if err := b.programs(); err == nil || !strings.Contains(err.Error(), "program halo-mesh: expected at most 20.0 MiB") {
		t.Errorf("got %v", err)
	}
}

func TestBudget(t *testing.T) {
	var b builder
	if err := b.within("initramfs", MaxInitramfs, MaxInitramfs); err != nil {
		t.Error(err)
	}
	if len(b.figures) != 1 || !strings.HasSuffix(b.figures[0], " 4.0 of 4 MiB") {
		t.Errorf("figures: got %q", b.figures)
	}
	if err := b.within("initramfs", MaxInitramfs+1<<20, MaxInitramfs); err == nil || err.Error() != "initramfs: expected at most 4.0 MiB, got 5.0 MiB" {
		t.Errorf("got %v", err)
	}
}

func TestUnknownNamesComeBeforeAnyWork(t *testing.T) {
	for _, tc := range []struct{ board, role, want string }{
		{"rpi9", "node", `board: expected one of qemu-virt, rpi3b, rpi4b, zero2w, got "rpi9"`},
		{"rpi4b", "router", `role: expected gateway or node, got "router"`},
	} {
		_, err := Build(context.Background(), quiet(), Options{Options: prepare.Options{Root: "../.."}, Board: tc.board, Role: tc.role})
		if err == nil || err.Error() != tc.want {
			t.Errorf("got %v, want %s", err, tc.want)
		}
	}
}

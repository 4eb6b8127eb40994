package disk

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"halo.internal/lab/cardtest"
)

func TestBootPartition(t *testing.T) {
	path := cardtest.Image(t, nil)
	d, err := Create(path, path+".overlay", 1)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	dir, ctx := t.TempDir(), t.Context()
	edit := func(do func(Boot)) {
		t.Helper()
		b, err := d.OpenBoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		do(b)
		if err := errors.Join(b.Commit(), b.Close()); err != nil {
			t.Fatal(err)
		}
	}
	edit(func(b Boot) {
		if _, err := b.Read(ctx, "halo.toml"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a file that is not there: got %v, want fs.ErrNotExist", err)
		}
		for _, text := range []string{"first", "the second, longer"} {
			if err := b.Write(ctx, "halo.toml", []byte(text)); err != nil {
				t.Fatal(err)
			}
		}
	})
	edit(func(b Boot) {
		if got, err := b.Read(ctx, "halo.toml"); err != nil || string(got) != "the second, longer" {
			t.Errorf("read %q, %v", got, err)
		}
		if err := b.CopyOut(ctx, "halo.toml", dir); err != nil {
			t.Error(err)
		}
	})
	if got, err := os.ReadFile(filepath.Join(dir, "halo.toml")); err != nil || string(got) != "the second, longer" {
		t.Errorf("copied out %q, %v", got, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "partition-*")); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestACardWithoutTable(t *testing.T) {
	d, _ := fresh(t)
	if b, err := d.OpenBoot(t.TempDir()); err == nil {
		t.Error("a boot partition was found in random octets")
		b.Close()
	}
}

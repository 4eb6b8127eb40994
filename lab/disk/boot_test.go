package disk

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// cardImage makes an image with a partition table and a FAT in partition 1.
func cardImage(t *testing.T) string {
	t.Helper()
	const size, start, end = 48 << 20, 4 << 20, 44 << 20
	dir := t.TempDir()
	path := filepath.Join(dir, "card.img")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	le := binary.LittleEndian
	entries := make([]byte, 128*128)
	entries[0], entries[16] = 1, 1 // type and GUID: any but zero
	le.PutUint64(entries[32:], start/512)
	le.PutUint64(entries[40:], end/512-1)
	head := make([]byte, 92)
	copy(head, "EFI PART")
	le.PutUint32(head[8:], 0x10000)
	le.PutUint32(head[12:], 92)
	le.PutUint64(head[24:], 1)
	le.PutUint64(head[32:], size/512-1)
	le.PutUint64(head[72:], 2)
	le.PutUint32(head[80:], 128)
	le.PutUint32(head[84:], 128)
	le.PutUint32(head[88:], crc32.ChecksumIEEE(entries))
	le.PutUint32(head[16:], crc32.ChecksumIEEE(head))
	fat := filepath.Join(dir, "fat")
	if err := os.WriteFile(fat, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(fat, end-start); err != nil {
		t.Fatal(err)
	}
	mkfs, err := exec.LookPath("mkfs.vfat")
	if err != nil {
		mkfs = "/usr/sbin/mkfs.vfat" // not in the PATH of everybody
	}
	if out, err := exec.Command(mkfs, fat).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	content, err := os.ReadFile(fat)
	if err != nil {
		t.Fatal(err)
	}
	_, err1 := f.WriteAt(head, 512)
	_, err2 := f.WriteAt(entries, 1024)
	_, err3 := f.WriteAt(content, start)
	if err := errors.Join(f.Truncate(size), err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestBootPartition(t *testing.T) {
	path := cardImage(t)
	d, err := Create(path, path+".overlay", 1)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	dir, ctx := t.TempDir(), t.Context()
	edit := func(do func(*Boot)) {
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
	edit(func(b *Boot) {
		if _, err := b.Read(ctx, "halo.toml"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a file that is not there: got %v, want fs.ErrNotExist", err)
		}
		for _, text := range []string{"first", "the second, longer"} {
			if err := b.Write(ctx, "halo.toml", []byte(text)); err != nil {
				t.Fatal(err)
			}
		}
	})
	edit(func(b *Boot) {
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
	if left, _ := filepath.Glob(filepath.Join(dir, "boot-*")); len(left) != 0 {
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

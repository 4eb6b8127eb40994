// Package cardtest makes small card images for the tests of the lab: a
// partition table and a boot partition with given files, and nothing to boot.
package cardtest

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"testing"
)

const (
	size  = 48 << 20
	start = 4 << 20 // of the boot partition
	end   = 44 << 20
)

// Image makes a card image whose boot partition holds the given files, by
// slash-separated name, and returns its path.
func Image(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	content := fat(t, dir, files)
	card := filepath.Join(dir, "card.img")
	f, err := os.Create(card)
	if err != nil {
		t.Fatal(err)
	}
	header, entries := table()
	_, err1 := f.WriteAt(header, 512)
	_, err2 := f.WriteAt(entries, 1024)
	_, err3 := f.WriteAt(content, start)
	if err := errors.Join(f.Truncate(size), err1, err2, err3, f.Close()); err != nil {
		t.Fatal(err)
	}
	return card
}

// table is a GUID partition table with one partition.
func table() (header, entries []byte) {
	le := binary.LittleEndian
	entries = make([]byte, 128*128)
	entries[0], entries[16] = 1, 1 // type and GUID: any but zero
	le.PutUint64(entries[32:], start/512)
	le.PutUint64(entries[40:], end/512-1)
	header = make([]byte, 92)
	copy(header, "EFI PART")
	le.PutUint32(header[8:], 0x10000)
	le.PutUint32(header[12:], 92)
	le.PutUint64(header[24:], 1)
	le.PutUint64(header[32:], size/512-1)
	le.PutUint64(header[72:], 2)
	le.PutUint32(header[80:], 128)
	le.PutUint32(header[84:], 128)
	le.PutUint32(header[88:], crc32.ChecksumIEEE(entries))
	le.PutUint32(header[16:], crc32.ChecksumIEEE(header))
	return header, entries
}

func fat(t testing.TB, dir string, files map[string]string) []byte {
	t.Helper()
	img := filepath.Join(dir, "fat")
	if err := os.WriteFile(img, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(img, end-start); err != nil {
		t.Fatal(err)
	}
	mkfs, err := exec.LookPath("mkfs.vfat")
	if err != nil {
		mkfs = "/usr/sbin/mkfs.vfat" // not in everybody's PATH
	}
	run(t, mkfs, img)
	made := map[string]bool{".": true}
	for name, text := range files {
		if d := path.Dir(name); !made[d] {
			made[d] = true
			run(t, "mmd", "-i", img, "::"+d)
		}
		tmp := filepath.Join(dir, "file")
		if err := os.WriteFile(tmp, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		run(t, "mcopy", "-i", img, tmp, "::"+name)
	}
	content, err := os.ReadFile(img)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func run(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", name, err, out)
	}
}

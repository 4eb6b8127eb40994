package fat

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const size = 80 << 20

var when = time.Date(2026, 11, 5, 6, 7, 8, 0, time.UTC)

func create(t *testing.T, path string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{
		"config.txt":       []byte("include slot.txt\n"),
		"slot-a/vmlinuz":   bytes.Repeat([]byte("kernel"), 100_000),
		"slot-a/slot.json": []byte("{}"),
		"slot-b/slot.json": []byte("{ }"),
	}
	if err := Create(context.Background(), path, size, when, files); err != nil {
		t.Fatal(err)
	}
	return files
}

func TestSameFilesSameOctets(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	create(t, a)
	t.Setenv("TZ", "Pacific/Auckland")
	create(t, b)
	one, err := os.ReadFile(a)
	if err != nil {
		t.Fatal(err)
	}
	two, err := os.ReadFile(b)
	if err != nil {
		t.Fatal(err)
	}
	if len(one) != size || !bytes.Equal(one, two) {
		t.Errorf("two file systems of %d and %d octets differ", len(one), len(two))
	}
}

func TestVolumeInsideAnImage(t *testing.T) {
	ctx := context.Background()
	dir := t.TempDir()
	files := create(t, filepath.Join(dir, "fat"))
	raw, err := os.ReadFile(filepath.Join(dir, "fat"))
	if err != nil {
		t.Fatal(err)
	}
	const offset = 4 << 20
	image := filepath.Join(dir, "image")
	if err := os.WriteFile(image, append(bytes.Repeat([]byte{0xAA}, offset), raw...), 0o644); err != nil {
		t.Fatal(err)
	}
	v := Volume{image, offset}
	for name, want := range files {
		if got, err := v.Read(ctx, name); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: got %d octets, %v, want %d", name, len(got), err, len(want))
		}
	}
	if _, err := v.Read(ctx, "halo.toml"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: got %v, want fs.ErrNotExist", err)
	}
	if err := v.Remove(ctx, "halo.toml"); err != nil {
		t.Errorf("removing it: %v", err)
	}
	for _, text := range []string{"first", "second, longer"} {
		if err := v.Write(ctx, "halo.toml", []byte(text)); err != nil {
			t.Fatal(err)
		}
		if got, err := v.Read(ctx, "halo.toml"); err != nil || string(got) != text {
			t.Errorf("got %q, %v, want %q", got, err, text)
		}
	}
	if err := v.Remove(ctx, "halo.toml"); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Read(ctx, "halo.toml"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a removed file: got %v, want fs.ErrNotExist", err)
	}
	if b, err := os.ReadFile(image); err != nil || !bytes.Equal(b[:offset], bytes.Repeat([]byte{0xAA}, offset)) {
		t.Errorf("what lies before the volume was changed (%v)", err)
	}
}

func TestWriteKeepsTheOldFileUntilTheNewOneIsWhole(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "fat")
	if err := Create(ctx, path, size, when, map[string][]byte{"HALO.TOML": []byte("from Windows"), "fill": make([]byte, size-4<<20)}); err != nil {
		t.Fatal(err)
	}
	v := Volume{Path: path}
	err := v.Write(ctx, "halo.toml", make([]byte, 8<<20))
	if !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "halo.toml of 8388608 octets: no room") {
		t.Errorf("a file without room: got %v", err)
	}
	if got, err := v.Read(ctx, "halo.toml"); err != nil || string(got) != "from Windows" {
		t.Errorf("the old file: got %q, %v", got, err)
	}
	if err := v.Write(ctx, "halo.toml", []byte("new")); err != nil {
		t.Fatal(err)
	}
	list, err := v.run(ctx, "", "mdir", "-b", "::")
	if got := strings.Fields(string(list)); err != nil || !slices.Equal(got, []string{"::/halo.toml", "::/fill"}) {
		t.Errorf("files: got %q, %v", got, err)
	}
	if got, err := v.Read(ctx, "HALO.toml"); err != nil || string(got) != "new" {
		t.Errorf("the new file, by another case: got %q, %v", got, err)
	}
}

func TestTooMuchIsNamed(t *testing.T) {
	err := Create(context.Background(), filepath.Join(t.TempDir(), "fat"), size, when, map[string][]byte{"slot-a/modules.img": make([]byte, size)})
	if err == nil || !strings.Contains(err.Error(), "slot-a/modules.img") {
		t.Errorf("got %v, want an error that names the file", err)
	}
}

func TestNoFileSystem(t *testing.T) {
	path := filepath.Join(t.TempDir(), "noise")
	if err := os.WriteFile(path, bytes.Repeat([]byte{0x5A}, 1<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := (Volume{Path: path}).Read(context.Background(), "halo.toml"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want an error that is not fs.ErrNotExist", err)
	}
}

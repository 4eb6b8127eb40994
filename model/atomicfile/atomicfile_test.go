package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestWriteReplacesWholeAndLeavesNothingElse(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state")
	for _, text := range []string{"a long first state", "short"} {
		if err := Write(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		info, err2 := os.Stat(path)
		if err := errors.Join(err, err2); err != nil || string(got) != text || info.Mode().Perm() != 0o600 {
			t.Errorf("expected %q with mode 0600, got %q, %v, %v", text, got, info, err)
		}
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 1 {
		t.Errorf("expected the file alone, got %v, %v", list, err)
	}
	if err := Write(filepath.Join(dir, "no", "state"), nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no such directory: got %v", err)
	}
}

func TestRename(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "a"), filepath.Join(dir, "sub", "b")
	if err := errors.Join(os.Mkdir(filepath.Dir(to), 0o700), os.WriteFile(from, []byte("x"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := Rename(from, to); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(to); err != nil || string(got) != "x" {
		t.Errorf("got %q, %v", got, err)
	}
	if err := Rename(from, to); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing to rename: got %v, want it told", err)
	}
}

func TestSweepRemovesWhatPowerCutsLeft(t *testing.T) {
	dir := t.TempDir()
	keep := []string{".tmp-dir/.tmp-2", "identity.json", "x.tmp-1"}
	for _, name := range append(keep, ".tmp-1", ".tmp-300") {
		p := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o700), os.WriteFile(p, []byte("key"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := Sweep(dir); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range keep {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Errorf("it took too much: %v", err)
		}
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != len(keep) {
		t.Errorf("expected %q alone, got %v, %v", keep, list, err)
	}
	if err := Sweep(filepath.Join(dir, "no")); err != nil {
		t.Errorf("no such directory: %v", err)
	}
}

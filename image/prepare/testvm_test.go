package prepare

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"halo.internal/model/cpio"
)

func TestWhatIsTakenOfTestPackages(t *testing.T) {
	for _, tc := range []struct {
		name             string
		library, program bool
	}{
		{"lib/aarch64-linux-gnu/libc.so.6", true, true},
		{"lib/ld-linux-aarch64.so.1", true, true},
		{"usr/lib/aarch64-linux-gnu/libnl-3.so.200.26.0", true, true},
		{"usr/lib/aarch64-linux-gnu/gconv/UTF-16.so", false, true},
		{"usr/share/doc/iw/changelog.so.1", false, false},
		{"usr/share/man/man8/iw.8.gz", false, false},
		{"sbin/wpa_supplicant", false, true},
		{"usr/bin/soelim", false, true},
	} {
		if got := isLibrary(tc.name); got != tc.library {
			t.Errorf("%s as a library: got %v", tc.name, got)
		}
		if got := isNoManual(tc.name); got != tc.program {
			t.Errorf("%s of the package itself: got %v", tc.name, got)
		}
	}
}

func TestAddTree(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "lib"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{"lib/a.so.1.2": 0o644, "tool": 0o755} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("content of "+name), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("a.so.1.2", filepath.Join(dir, "lib/a.so.1")); err != nil {
		t.Fatal(err)
	}
	a := cpio.Archive{}
	if err := addTree(a, dir, isLibrary); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := a.Write(&b); err != nil {
		t.Fatal(err)
	}
	if got := b.String(); len(a) != 3 || !strings.Contains(got, "content of lib/a.so.1.2") || !strings.Contains(got, "lib/a.so.1\x00") || strings.Contains(got, "tool") {
		t.Errorf("got %d entries: %q", len(a), got)
	}
}

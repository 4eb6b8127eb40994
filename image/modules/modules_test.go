package modules

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"halo.internal/image/apt"
	"halo.internal/image/kernel"
)

func source(t *testing.T, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, f := range files {
		path := filepath.Join(dir, f)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(f), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestSum: what a build leaves behind changes nothing, what is compiled does.
func TestSum(t *testing.T) {
	first, err := sum(source(t, "Kbuild", "a.c", "dot11ah/b.c"))
	if err != nil {
		t.Fatal(err)
	}
	built := source(t, "Kbuild", "a.c", "dot11ah/b.c", "a.o", ".a.o.cmd", "a.ko", "a.mod", "a.mod.c", "Module.symvers", "modules.order", ".git/config")
	if again, err := sum(built); err != nil || again != first {
		t.Errorf("after a build: %v, %v", again == first, err)
	}
	if other, err := sum(source(t, "Kbuild", "a.c", "dot11ah/c.c")); err != nil || other == first {
		t.Errorf("another file: %v, %v", other == first, err)
	}
	if _, err := sum(source(t, "a.c")); err == nil || !strings.Contains(err.Error(), "expected a Kbuild or Makefile") {
		t.Errorf("no Kbuild: %v", err)
	}
	linked := source(t, "Kbuild")
	if err := os.Symlink("/etc/passwd", filepath.Join(linked, "a.c")); err != nil {
		t.Fatal(err)
	}
	if _, err := sum(linked); err == nil || !strings.Contains(err.Error(), "files and folders only") {
		t.Errorf("a link: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	tree := kernel.Tree{Release: "6.12.9+deb12-arm64"}
	for name, tc := range map[string]struct {
		o    Options
		want string
	}{
		"a program for make": {Options{Source: source(t, "Kbuild"), Vars: []string{"CC=sh -c true"}, Kernel: tree}, `got "CC=sh -c true"`},
		"an option of make":  {Options{Source: source(t, "Kbuild"), Vars: []string{"--eval=x"}, Kernel: tree}, "expected a variable for make"},
		"no source":          {Options{Source: "/nowhere", Kernel: tree}, "/nowhere"},
		"a vendor's kernel":  {Options{Source: source(t, "Kbuild"), Cache: t.TempDir(), Kernel: kernel.Tree{Release: "6.6.1"}}, "built by its vendor's means"},
		"a broken record":    {Options{Source: source(t, "Kbuild"), Out: source(t, RecordFile), Kernel: tree}, RecordFile},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.o.Out == "" {
				tc.o.Out = t.TempDir()
			}
			if _, err := Build(context.Background(), tc.o); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestClean(t *testing.T) {
	dir := source(t, RecordFile, SymbolsFile, "old.ko")
	if err := clean(dir); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
	photos := source(t, "old.ko", "holiday.jpg")
	if err := clean(photos); err == nil || !strings.Contains(err.Error(), "holiday.jpg") {
		t.Errorf("a folder of something else: %v", err)
	}
	if _, err := os.Stat(filepath.Join(photos, "old.ko")); err != nil {
		t.Error("something of it was removed")
	}
}

func TestDigestIsOfThePackages(t *testing.T) {
	a := &toolchain{packages: []apt.Package{{Name: "x", SHA256: strings.Repeat("1", 64)}}}
	b := &toolchain{packages: []apt.Package{{Name: "x", SHA256: strings.Repeat("2", 64)}}}
	if a.digest() == b.digest() || len(a.digest()) != 64 {
		t.Error("other packages make the same toolchain")
	}
}

package initramfs

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"halo.internal/image/kernel"
	"halo.internal/image/layout"
)

func input(t *testing.T) Input {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"init": "program", "modules.dep": "kernel/fs/ext4.ko: kernel/lib/crc16.ko\nkernel/lib/crc16.ko:\n",
		"modules.softdep": "", "modules.alias": "alias fs-ext4 ext4\n", "modules.builtin": "",
		"kernel/fs/ext4.ko": "ext4!", "kernel/lib/crc16.ko": "crc",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return Input{
		Init: filepath.Join(dir, "init"), Kernel: kernel.Tree{Release: "6.12.9-test", Modules: dir},
		Modules: []string{"ext4"}, Load: []string{"ext4"}, Perm: []byte("gz"),
	}
}

// read is a reader of the newc format, as the kernel's is: a file in a folder
// that was not made before is an error.
func read(t *testing.T, b []byte) map[string]string {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	dirs := map[string]bool{".": true}
	for at := 0; ; {
		if string(raw[at:at+6]) != "070701" {
			t.Fatalf("no header at %d", at)
		}
		field := func(n int) int {
			v, err := strconv.ParseUint(string(raw[at+6+8*n:at+14+8*n]), 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			return int(v)
		}
		size, nameSize, mode := field(6), field(11), field(1)
		if field(2) != 0 || field(3) != 0 || field(5) != 0 {
			t.Errorf("entry at %d has an owner or a time", at)
		}
		name := string(raw[at+110 : at+110+nameSize-1])
		data := (at + 110 + nameSize + 3) &^ 3
		if name == "TRAILER!!!" {
			return files
		}
		if !dirs[filepath.Dir(name)] {
			t.Errorf("%s comes before its folder", name)
		}
		if mode&0o170000 == 0o040000 {
			dirs[name] = true
		} else {
			files[name] = string(raw[data : data+size])
		}
		at = (data + size + 3) &^ 3
	}
}

func TestBuild(t *testing.T) {
	in := input(t)
	b, err := Build(context.Background(), in)
	if err != nil {
		t.Fatal(err)
	}
	files := read(t, b)
	for name, want := range map[string]string{
		"init": "program", layout.PermTemplate[1:]: "gz", layout.BootModules[1:]: "ext4\n",
		"lib/modules/6.12.9-test/kernel/fs/ext4.ko":   "ext4!",
		"lib/modules/6.12.9-test/kernel/lib/crc16.ko": "crc",
		"lib/modules/6.12.9-test/modules.alias":       "alias fs-ext4 ext4\n",
	} {
		if got, ok := files[name]; !ok || got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	again, err := Build(context.Background(), in)
	if err != nil || !bytes.Equal(b, again) {
		t.Errorf("a second build differs (%v)", err)
	}
}

func TestBuildRefusesMissingModule(t *testing.T) {
	in := input(t)
	in.Modules = []string{"squashfs"}
	if _, err := Build(context.Background(), in); err == nil || !strings.Contains(err.Error(), "module squashfs") {
		t.Errorf("got %v", err)
	}
}

func TestPermTemplate(t *testing.T) {
	b, err := PermTemplate(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > 128<<10 {
		t.Errorf("template: got %d octets, want at most 128 KiB", len(b))
	}
	again, err := PermTemplate(context.Background())
	if err != nil || !bytes.Equal(b, again) {
		t.Errorf("a second template differs (%v)", err)
	}
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "perm")
	if err := os.WriteFile(path, raw, 0o644); err != nil {
		t.Fatal(err)
	}
	// e2fsck and resize2fs come with mkfs.ext4.
	for _, args := range [][]string{
		{"e2fsck", "-fn", path},
		{"resize2fs", path, "2G"},
		{"e2fsck", "-fn", path},
	} {
		if out, err := exec.Command("env", append([]string{"PATH=" + os.Getenv("PATH") + ":/usr/sbin:/sbin"}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
}

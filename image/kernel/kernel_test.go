package kernel

import (
	"bytes"
	"compress/gzip"
	"context"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"halo.internal/hal/module"
	"halo.internal/image/tool"
)

const release = "6.12.9-test"

// tree makes a tree of modules as depmod leaves it.
func tree(t *testing.T) Tree {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"modules.dep": `kernel/fs/ext4/ext4.ko.xz: kernel/lib/crc16.ko.xz kernel/fs/jbd2/jbd2.ko.xz
kernel/fs/jbd2/jbd2.ko.xz:
kernel/lib/crc16.ko.xz:
kernel/crypto/crc32c_generic.ko.xz:
kernel/net/batman-adv/batman-adv.ko.xz: kernel/lib/crc16.ko.xz
kernel/drivers/gpu/broken.ko.xz: kernel/lib/absent.ko.xz
kernel/drivers/gpu/vc4.ko.xz:
`,
		"modules.softdep": "# comment\nsoftdep ext4 pre: crypto-crc32c\nsoftdep vc4 pre: snd-nowhere post: mmc_block\n",
		"modules.alias": "alias crypto-crc32c crc32c_generic\nalias rtnl-link-batadv batman_adv\nalias of:Na b Cx vc4\n" +
			"alias of:N*T*Cbrcm,bcm2835-vc4 vc4\nalias of:N*T*Cbrcm,bcm2711-vc5C* vc4\nalias of:N*T*Cbrcm,bcm2711-vc5C* broken\nalias pci:v00001AF4d*sv*sd*b ext4\n",
		"modules.builtin": "kernel/drivers/mmc/core/mmc_block.ko\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "modules.builtin.modinfo"), []byte("sha.alias=crypto-sha256\x00sha.license=GPL\x00"), 0o644); err != nil {
		t.Fatal(err)
	}
	return Tree{Release: release, Modules: dir}
}

func TestSelect(t *testing.T) {
	x, err := tree(t).Index()
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		names []string
		want  string // names of the modules selected
		err   string
	}{
		"dependencies and soft dependencies": {[]string{"ext4"}, "crc32c_generic ext4 jbd2 crc16", ""},
		"hyphen or underscore":               {[]string{"batman_adv"}, "crc16 batman_adv", ""},
		"by alias":                           {[]string{"rtnl-link-batadv"}, "crc16 batman_adv", ""},
		"built in":                           {[]string{"mmc-block", "crypto-sha256"}, "", ""},
		"not there":                          {[]string{"ext4", "morse"}, "", "module morse (named in the packing manifest) is not in this kernel"},
		"dependency not there":               {[]string{"broken"}, "", "module kernel/lib/absent.ko.xz (dependency of broken)"},
		"soft dependency not there":          {[]string{"vc4"}, "", "module snd-nowhere (soft dependency of vc4)"},
	} {
		t.Run(name, func(t *testing.T) {
			paths, err := x.Select(tc.names)
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Fatalf("got %v, want %q", err, tc.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range paths {
				got = append(got, Name(p))
			}
			if strings.Join(got, " ") != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func TestFor(t *testing.T) {
	x, err := tree(t).Index()
	if err != nil {
		t.Fatal(err)
	}
	for modalias, want := range map[string]string{
		"of:NgpuT(null)Cbrcm,bcm2835-vc4":             "vc4",
		"of:NgpuT(null)Cbrcm,bcm2711-vc5Cother":       "broken vc4",
		"of:NgpuT(null)Cbrcm,bcm2712-vc6":             "",
		"usb:v0424pEC00d0200dcFFdsc00dp01":            "",
		"pci:v00001AF4d00001000sv00001AF4sd00000001b": "ext4",
		"rtnl-link-batadv":                            "",
	} {
		if got := strings.Join(x.For(modalias), " "); got != want {
			t.Errorf("%s: got %q, want %q", modalias, got, want)
		}
	}
}

// packModule writes a module as Debian packs it.
func packModule(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	b, err := tool.Command{Name: "xz", Args: []string{"--stdout"}, Stdin: []byte(content)}.Run(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestFilesAreCutToTheSelection(t *testing.T) {
	tr := tree(t)
	x, err := tr.Index()
	if err != nil {
		t.Fatal(err)
	}
	paths, err := x.Select([]string{"ext4"})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range paths {
		packModule(t, filepath.Join(tr.Modules, p), "module "+Name(p))
	}
	files, err := x.Files(context.Background(), paths, []string{"morse"})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"modules.dep": `kernel/crypto/crc32c_generic.ko:
kernel/fs/ext4/ext4.ko: kernel/lib/crc16.ko kernel/fs/jbd2/jbd2.ko
kernel/fs/jbd2/jbd2.ko:
kernel/lib/crc16.ko:
`,
		"kernel/fs/ext4/ext4.ko": "module ext4",
		"kernel/lib/crc16.ko":    "module crc16",
		"modules.softdep":        "softdep ext4 pre: crypto-crc32c\n",
		"modules.alias":          "alias crypto-crc32c crc32c_generic\nalias pci:v00001AF4d*sv*sd*b ext4\n",
		"modules.builtin":        "kernel/drivers/mmc/core/mmc_block.ko\n",
		module.Held:              "blacklist morse\n",
	} {
		if got := string(files[name]); got != want {
			t.Errorf("%s: got\n%swant\n%s", name, got, want)
		}
	}
	if len(files) != 9 {
		t.Errorf("got %d files, want 4 modules and 5 indexes", len(files))
	}
	if err := os.Remove(filepath.Join(tr.Modules, "kernel/fs/ext4/ext4.ko.xz")); err != nil {
		t.Fatal(err)
	}
	if again, err := x.Files(context.Background(), paths, []string{"morse"}); err != nil || string(again["kernel/fs/ext4/ext4.ko"]) != "module ext4" {
		t.Errorf("a second time: got %q, %v, want what was unpacked before", again["kernel/fs/ext4/ext4.ko"], err)
	}
}

func TestDamagedIndexNamesTheLine(t *testing.T) {
	tr := tree(t)
	for name, text := range map[string]string{
		"modules.dep":     "kernel/a.ko\n",
		"modules.softdep": "\nsoftdep\n",
		"modules.alias":   "alias\n",
	} {
		good, err := os.ReadFile(filepath.Join(tr.Modules, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(tr.Modules, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := tr.Index(); err == nil || !strings.Contains(err.Error(), name+":") {
			t.Errorf("%s: got %v", name, err)
		}
		if err := os.WriteFile(filepath.Join(tr.Modules, name), good, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// vendor makes a vendor's folder with a gzip'd kernel.
func vendor(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	if _, err := w.Write([]byte("the kernel")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"boot/vmlinuz-" + release:                     z.Bytes(),
		"lib/modules/" + release + "/modules.order":   nil,
		"lib/modules/" + release + "/modules.builtin": nil,
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestFromDir(t *testing.T) {
	dir, cache := vendor(t), t.TempDir()
	first, err := FromDir(context.Background(), cache, dir)
	if err != nil {
		t.Fatal(err)
	}
	if first.Release != release {
		t.Errorf("release: got %s, want %s", first.Release, release)
	}
	if b, err := os.ReadFile(first.Image); err != nil || string(b) != "the kernel" {
		t.Errorf("kernel: got %q, %v, want it unpacked", b, err)
	}
	if _, err := first.Index(); err != nil {
		t.Errorf("indexes: %v", err)
	}
	second, err := FromDir(context.Background(), cache, dir)
	if err != nil || !reflect.DeepEqual(second, first) {
		t.Errorf("again: got %+v, %v, want %+v", second, err, first)
	}
	if err := os.WriteFile(filepath.Join(dir, "lib/modules", release, "modules.order"), []byte("x\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	third, err := FromDir(context.Background(), cache, dir)
	if err != nil || third.Digest == first.Digest {
		t.Errorf("a changed folder has the same digest (%v)", err)
	}
	left, err := filepath.Glob(filepath.Join(cache, "kernel", "unpack-*"))
	if err != nil || !slices.Equal(left, nil) {
		t.Errorf("scratch folders are left: %q, %v", left, err)
	}
}

func TestFromDirRefusals(t *testing.T) {
	dir := vendor(t)
	if err := os.Remove(filepath.Join(dir, "boot/vmlinuz-"+release)); err != nil {
		t.Fatal(err)
	}
	if _, err := FromDir(context.Background(), t.TempDir(), dir); err == nil || !strings.Contains(err.Error(), "expected boot/vmlinuz-"+release) {
		t.Errorf("no kernel: got %v", err)
	}
	if _, err := FromDir(context.Background(), t.TempDir(), t.TempDir()); err == nil || !strings.Contains(err.Error(), "expected one folder in lib/modules, got 0") {
		t.Errorf("empty folder: got %v", err)
	}
}

package kernel

import (
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const magic = release + " SMP mod_unload modversions aarch64"

// described is a module that says its name and which kernel it is for.
func described(name, vermagic string) []byte {
	return ko(".modinfo", "name="+name+"\x00vermagic="+vermagic+"\x00depends=\x00license=GPL\x00")
}

// outside makes a folder of modules.
func outside(t *testing.T, modules map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	for name, b := range modules {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// wireless is a kernel of a few modules.
func wireless(t *testing.T) (Tree, string) {
	t.Helper()
	dir, cache := vendor(t), t.TempDir()
	for _, name := range []string{"cfg80211", "mac80211_hwsim"} {
		path := filepath.Join(dir, "lib/modules", release, "kernel/net", name+".ko")
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, described(name, magic), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := FromDir(context.Background(), cache, dir)
	if err != nil {
		t.Fatal(err)
	}
	return tree, cache
}

func TestWithOutside(t *testing.T) {
	tree, cache := wireless(t)
	dir := outside(t, map[string][]byte{
		"morse.ko": described("morse", magic), "cfg80211.ko": append(described("cfg80211", magic), "patched"...),
		"Module.symvers": []byte("0x00000011\tieee80211_new\tcfg80211\tEXPORT_SYMBOL\t\n"), "build.json": []byte("{}"),
	})
	made, err := WithOutside(context.Background(), cache, tree, dir)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(made.Outside, []string{"cfg80211", "morse"}) || made.Digest == tree.Digest || made.Release != release {
		t.Errorf("got %+v", made)
	}
	x, err := made.Index()
	if err != nil {
		t.Fatal(err)
	}
	paths, err := x.Select([]string{"morse", "cfg80211", "mac80211_hwsim"})
	if want := []string{"kernel/net/mac80211_hwsim.ko", "updates/cfg80211.ko", "updates/morse.ko"}; err != nil || !slices.Equal(paths, want) {
		t.Errorf("selected %q, %v, want %q", paths, err, want)
	}
	files, err := x.Files(context.Background(), paths, nil)
	if err != nil || !strings.HasSuffix(string(files["updates/cfg80211.ko"]), "patched") {
		t.Errorf("the module in the place of the kernel's own is not there: %v", err)
	}
	if err := made.CheckVersions(context.Background(), x, paths); err != nil {
		t.Error(err)
	}
	// A module of the kernel's that was built with its own cfg80211.
	uses := func(crc uint32) []byte {
		entry := make([]byte, 64)
		binary.LittleEndian.PutUint32(entry, crc)
		copy(entry[8:], "ieee80211_new")
		return ko("__versions", string(entry))
	}
	hwsim := filepath.Join(made.Modules, "kernel/net/mac80211_hwsim.ko")
	for crc, want := range map[uint32]string{0x11: "", 0x22: "module mac80211_hwsim uses ieee80211_new of a module from outside in an older form"} {
		if err := os.WriteFile(hwsim, uses(crc), 0o644); err != nil {
			t.Fatal(err)
		}
		err := made.CheckVersions(context.Background(), x, paths)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("checksum %#x: got %v, want %q", crc, err, want)
		}
	}
	// The kernel itself is as it was.
	if own, err := tree.Index(); err != nil || len(own.modules) == len(x.modules) {
		t.Errorf("the kernel's own modules changed: %v", err)
	}
}

func TestOutsideRefusals(t *testing.T) {
	tree, cache := wireless(t)
	for name, tc := range map[string]struct {
		files map[string][]byte
		want  string
	}{
		"none":             {map[string][]byte{"README": nil}, "found none: halo-image modules makes them"},
		"another kernel":   {map[string][]byte{"morse.ko": described("morse", "6.1.0 SMP aarch64")}, `morse.ko of DIR was built for another kernel: expected vermagic "` + magic + `", got "6.1.0 SMP aarch64": build it anew`},
		"another name":     {map[string][]byte{"morse.ko": described("dot11ah", magic)}, `morse.ko of DIR calls itself "dot11ah"`},
		"no module at all": {map[string][]byte{"morse.ko": []byte("404")}, "expected an ELF file"},
		"bad symbols":      {map[string][]byte{"morse.ko": described("morse", magic), "Module.symvers": []byte("x\ty\tz\n")}, "Module.symvers:1: expected a checksum"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := outside(t, tc.files)
			_, err := WithOutside(context.Background(), cache, tree, dir)
			if err == nil || !strings.Contains(err.Error(), strings.ReplaceAll(tc.want, "DIR", dir)) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func FuzzVersions(f *testing.F) {
	f.Add(ko("__versions", strings.Repeat("x", 64)))
	f.Add(ko("__versions", "short"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if uses, err := versions(b); err == nil && len(uses) > len(b)/64+1 {
			t.Errorf("%d symbols in %d octets", len(uses), len(b))
		}
	})
}

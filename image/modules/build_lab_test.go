//go:build lab

package modules

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"halo.internal/image/apt"
	"halo.internal/image/kernel"
)

// These tests fetch headers, a compiler and the kernel's source through apt, once.

func realKernel(t *testing.T) (kernel.Tree, string) {
	t.Helper()
	cache := os.Getenv("HALO_CACHE")
	if cache == "" {
		var err error
		if cache, err = filepath.Abs("../../.cache"); err != nil {
			t.Fatal(err)
		}
	}
	deb, _, err := archive(t, cache).Fetch(t.Context(), "kernel", "linux-image-6.12.", regexp.MustCompile(`linux-image-6\.12\.[0-9]+(\+[a-z0-9.]+)?-arm64`))
	if err != nil {
		t.Fatal(err)
	}
	tree, err := kernel.FromDeb(t.Context(), cache, deb)
	if err != nil {
		t.Fatal(err)
	}
	return tree, cache
}

// archive is Debian's, with the versions that images are built from.
func archive(t *testing.T, cache string) *apt.Client {
	t.Helper()
	lock, err := apt.ReadLock("../../gokr-packer.lock.json")
	if err != nil {
		t.Fatal(err)
	}
	return &apt.Client{Cache: cache, Arch: target, Lock: lock, Warn: func(string) {}}
}

// TestBuild builds a module twice, in other folders with another toolchain folder
// the second time: the octets are the same. What is built already is not built
// again.
func TestBuild(t *testing.T) {
	tree, cache := realKernel(t)
	out := t.TempDir()
	first, err := Build(t.Context(), Options{Source: "testdata/hello", Out: out, Cache: cache, Kernel: tree})
	if err != nil {
		t.Fatal(err)
	}
	other := t.TempDir() // a cache with the packages and nothing made of them
	for _, name := range []string{"deb", "host/deb"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(other, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join(cache, name), filepath.Join(other, name)); err != nil {
			t.Fatal(err)
		}
	}
	again := t.TempDir()
	b, err := os.ReadFile(filepath.Join(out, RecordFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(again, RecordFile), b, 0o644); err != nil {
		t.Fatal(err)
	}
	second, err := Build(t.Context(), Options{Source: "testdata/hello", Out: again, Cache: other, Kernel: tree})
	if err != nil {
		t.Fatal(err)
	}
	if len(first.Modules) != 1 || !maps.Equal(first.Modules, second.Modules) {
		t.Errorf("modules %q, and %q elsewhere", first.Modules, second.Modules)
	}
	ko := filepath.Join(again, "halo_hello.ko")
	if b, err = os.ReadFile(ko); err != nil {
		t.Fatal(err)
	}
	for _, trace := range []string{other, os.TempDir() + "/halo-modules"} {
		if bytes.Contains(b, []byte(trace)) {
			t.Errorf("the module tells where it was built: %s", trace)
		}
	}
	// Without its compiler the cache answers all the same.
	if err := os.Rename(filepath.Join(second.toolchain(other), "usr/bin"), filepath.Join(other, "bin")); err != nil {
		t.Fatal(err)
	}
	if third, err := Build(t.Context(), Options{Source: "testdata/hello", Out: again, Cache: other, Kernel: tree}); err != nil || !maps.Equal(third.Modules, first.Modules) {
		t.Errorf("from the cache: %q, %v", third.Modules, err)
	}
	// A module of another kernel goes into no image.
	if err := os.WriteFile(ko, bytes.Replace(b, []byte("vermagic="+tree.Release), []byte("vermagic=9"+tree.Release[1:]), 1), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := kernel.WithOutside(t.Context(), t.TempDir(), tree, again); err == nil || !strings.Contains(err.Error(), "was built for another kernel") {
		t.Errorf("another kernel's: %v", err)
	}
}

// toolchain is the folder of the record's toolchain.
func (r Record) toolchain(cache string) string {
	t := &toolchain{packages: r.Packages}
	return filepath.Join(cache, "toolchain", t.digest())
}

// TestModuleOfTheKernel builds the kernel's own mac80211_hwsim from Debian's
// source, as a patched one would be, and puts it in the place of the kernel's.
func TestModuleOfTheKernel(t *testing.T) {
	tree, cache := realKernel(t)
	dir := hwsimSource(t, tree, cache)
	out := t.TempDir()
	if _, err := Build(t.Context(), Options{Source: dir, Out: out, Cache: cache, Kernel: tree}); err != nil {
		t.Fatal(err)
	}
	made, err := kernel.WithOutside(t.Context(), cache, tree, out)
	if err != nil {
		t.Fatal(err)
	}
	x, err := made.Index()
	if err != nil {
		t.Fatal(err)
	}
	paths, err := x.Select(made.Outside)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(paths, "updates/mac80211_hwsim.ko") || !slices.ContainsFunc(paths, func(p string) bool { return strings.HasSuffix(p, "/mac80211.ko.xz") }) {
		t.Errorf("selected %q: want ours and what it depends on", paths)
	}
	if err := made.CheckVersions(t.Context(), x, paths); err != nil {
		t.Error(err)
	}
}

// TestVirtualDrivers builds the drivers of virtual machines' buses, whose mends fit the
// kernel that images are built from.
func TestVirtualDrivers(t *testing.T) {
	tree, cache := realKernel(t)
	dir, _, err := Source(t.Context(), archive(t, cache), tree.Release, Virtual())
	if err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	r, err := Build(t.Context(), Options{Source: dir, Out: out, Cache: cache, Kernel: tree})
	if err != nil {
		t.Fatal(err)
	}
	if got := slices.Sorted(maps.Keys(r.Modules)); !slices.Equal(got, []string{"gpio-virtio.ko", "i2c-virtio.ko"}) {
		t.Errorf("modules %q", got)
	}
	made, err := kernel.WithOutside(t.Context(), cache, tree, out)
	if err != nil {
		t.Fatal(err)
	}
	x, err := made.Index()
	if err != nil {
		t.Fatal(err)
	}
	for modalias, want := range map[string]string{"virtio:d00000022v00001AF4": "i2c_virtio", "virtio:d00000029v00001AF4": "gpio_virtio"} {
		if got := x.For(modalias); !slices.Equal(got, []string{want}) {
			t.Errorf("%s finds %q, want %s", modalias, got, want)
		}
	}
}

// hwsimSource takes the driver out of Debian's source of the very kernel.
func hwsimSource(t *testing.T, tree kernel.Tree, cache string) string {
	t.Helper()
	const folder = "drivers/net/wireless/virtual/"
	dir, p, err := Source(t.Context(), archive(t, cache), tree.Release, []Driver{
		{Module: "mac80211_hwsim", Files: []string{folder + "mac80211_hwsim.c", folder + "mac80211_hwsim.h"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("source %s for kernel %s", p.Version, tree.Release)
	return dir
}

//go:build lab

package pack_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"halo.internal/hal/card"
	"halo.internal/image/fat"
	"halo.internal/image/layout"
	"halo.internal/image/tool"
	"halo.internal/update/slots"
)

// clone makes a fresh clone of the last commit, in a folder of its own name.
func clone(t testing.TB, name string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), name)
	if _, err := tool.Run(context.Background(), "git", "clone", "-q", "../..", dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// image builds a gateway for the Pi 3B, which QEMU has, in a clone.
func image(t testing.TB, dir string) string {
	t.Helper()
	cache := os.Getenv("HALO_CACHE")
	if cache == "" {
		var err error
		if cache, err = filepath.Abs("../../.cache"); err != nil {
			t.Fatal(err)
		}
	}
	_, err := tool.Command{
		Name: "go", Dir: dir, Env: []string{"HALO_CACHE=" + cache},
		Args: []string{"run", "./cmd/halo-image", "image", "--board", "rpi3b", "--role", "gateway", "--out", "out"},
	}.Run(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "out", "halo-gateway-rpi3b.img")
}

func digest(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func TestSameCommitSameImage(t *testing.T) {
	one, two := clone(t, "one"), clone(t, "another-folder")
	first := image(t, one)
	t.Setenv("TZ", "Pacific/Auckland")
	second := image(t, two)
	for _, ext := range []string{".img", ".cdx.json"} {
		a, b := first[:len(first)-len(".img")]+ext, second[:len(second)-len(".img")]+ext
		if digest(t, a) != digest(t, b) {
			t.Errorf("%s and %s differ", a, b)
		}
	}
	out, err := tool.Run(context.Background(), "git", "-C", one, "status", "--porcelain")
	if err != nil || len(out) != 0 {
		t.Errorf("building changed committed files: %s, %v", out, err)
	}
	checkCard(t, first)
	checkRoot(t, first)
}

// checkCard checks what the firmware and halo-init will read.
func checkCard(t *testing.T, path string) {
	t.Helper()
	ctx := context.Background()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if state, err := slots.Load(card.SlotState(f)); err != nil || state != slots.New() {
		t.Errorf("slot state: got %+v, %v", state, err)
	}
	boot := fat.Volume{Path: path, Offset: layout.BootOffset}
	for _, slot := range []byte{'a', 'b'} {
		dir := layout.SlotDir(slot) + "/"
		raw, err := boot.Read(ctx, dir+layout.Manifest)
		if err != nil {
			t.Fatal(err)
		}
		ref, err := layout.ParseSlot(raw)
		if err != nil {
			t.Fatal(err)
		}
		modules, err := boot.Read(ctx, dir+layout.Modules)
		if err != nil {
			t.Fatal(err)
		}
		if sum := sha256.Sum256(modules); hex.EncodeToString(sum[:]) != ref.ModulesSHA256 {
			t.Errorf("slot %c: the modules image does not have the hash of its manifest", slot)
		}
		for _, name := range []string{layout.Kernel, layout.Initrd, layout.Cmdline, "bcm2837-rpi-3-b.dtb"} {
			if _, err := boot.Read(ctx, dir+name); err != nil {
				t.Errorf("slot %c: %v", slot, err)
			}
		}
	}
	for name, want := range map[string]string{
		layout.SlotTXT:     "os_prefix=slot-a/",
		layout.ConfigTXT:   "include slot.txt",
		"bootcode.bin":     "",
		"start.elf":        "",
		"LICENSE.broadcom": "Broadcom",
	} {
		if b, err := boot.Read(ctx, name); err != nil || !bytes.Contains(b, []byte(want)) {
			t.Errorf("%s: got %d octets, %v, want %q in it", name, len(b), err, want)
		}
	}
}

// checkRoot looks at the files of root A.
func checkRoot(t *testing.T, path string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "root")
	if _, err := tool.Run(context.Background(), "unsquashfs", "-quiet", "-no-progress", "-o", "109051904", "-d", dir, path); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"gokrazy/init", "user/halo-mesh", "user/gateway-api", "lib/firmware/regulatory.db", "lib/modules", "boot"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"etc/gokr-pw.txt", "etc/localtime", "etc/ssl/ca-bundle.pem", "gokrazy/dhcp", "gokrazy/ntp", "user/halo-air"} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			t.Errorf("%s is on the image", name)
		}
	}
	if b, err := os.ReadFile(filepath.Join(dir, "etc/halo/image.json")); err != nil || string(b) != "{\"role\":\"gateway\"}\n" {
		t.Errorf("role: got %q, %v", b, err)
	}
}

// BenchmarkRebuild measures how long it takes from a changed line in every
// node's program to the card image that has it.
func BenchmarkRebuild(b *testing.B) {
	dir := clone(b, "rebuild")
	image(b, dir)
	program := filepath.Join(dir, "cmd", "halo-mesh", "main.go")
	text, err := os.ReadFile(program)
	if err != nil {
		b.Fatal(err)
	}
	for i := 0; b.Loop(); i++ {
		if err := os.WriteFile(program, fmt.Appendf(text, "\nvar _ = %d\n", i), 0o600); err != nil {
			b.Fatal(err)
		}
		image(b, dir)
	}
	b.ReportMetric(b.Elapsed().Seconds()/float64(b.N), "s/rebuild")
}

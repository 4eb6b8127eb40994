//go:build lab

package prepare

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"halo.internal/image/apt"
	"halo.internal/image/drivers"
	"halo.internal/image/manifest"
)

// realKernel gets the kernel that images are built from.
func realKernel(t *testing.T) *Result {
	t.Helper()
	r := &Result{opts: Options{Root: "../..", Cache: os.Getenv("HALO_CACHE")}}
	var err error
	if r.opts.Cache == "" {
		if r.opts.Cache, err = filepath.Abs("../../.cache"); err != nil {
			t.Fatal(err)
		}
	}
	if r.Manifest, err = manifest.Read(r.opts.Root); err != nil {
		t.Fatal(err)
	}
	if r.Boards, err = manifest.Boards(r.opts.Root); err != nil {
		t.Fatal(err)
	}
	lock, err := apt.ReadLock(filepath.Join(r.opts.Root, LockFile))
	if err != nil {
		t.Fatal(err)
	}
	c := &apt.Client{Cache: r.opts.Cache, Arch: architecture, Lock: lock, Warn: func(string) {}}
	if r.Kernel, _, err = fetchKernel(context.Background(), c, r.opts, r.Manifest.Kernel); err != nil {
		t.Fatal(err)
	}
	if r.Kernel, _, err = virtualModules(context.Background(), c, r.Kernel); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestEveryDeviceOfEveryBoardFindsItsDriver(t *testing.T) {
	r := realKernel(t)
	if err := r.drivers(context.Background()); err != nil {
		t.Error(err)
	}
	// A modalias that nothing answers to is mistyped.
	index, err := r.Kernel.Index()
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range r.Boards {
		for _, d := range b.Devices {
			if len(index.For(d)) == 0 {
				t.Errorf("%s: no module for %s", b.Name, d)
			}
		}
	}
}

// Each of these was, or could be, forgotten.
func TestMissingDriversAreNamed(t *testing.T) {
	r := realKernel(t)
	index, err := r.Kernel.Index()
	if err != nil {
		t.Fatal(err)
	}
	trees := map[string]map[string][]byte{}
	for _, b := range r.Boards {
		if trees[b.Name], err = r.DeviceTrees(context.Background(), b); err != nil {
			t.Fatal(err)
		}
	}
	for module, want := range map[string]string{
		"gpio-regulator": "board rpi4b: /regulator-sd-io-1v8 needs module gpio_regulator",
		"fixed":          "/emmc2bus/mmc@7e340000 cannot do without /regulator-sd-vcc, which needs module fixed",
		"sdhci-iproc":    "/emmc2bus/mmc@7e340000 needs module sdhci_iproc: expected it in kernel.modules.boot",
		"bcm2835":        "/soc/mmc@7e202000 needs module bcm2835",
		"genet":          "/scb/ethernet@7d580000 needs module genet",
		"brcmfmac":       "sdio:c00v02D0dA9A6 needs module brcmfmac",
		"lan78xx":        "usb:v0424p7800d0300dcFFdsc00dp00icFFisc00ipFFin00 needs module lan78xx",
		"bcm2835_wdt":    "platform:bcm2835-wdt needs module bcm2835_wdt",
		"virtio_net":     "board qemu-virt: virtio:d00000001v00001AF4 needs module virtio_net",
	} {
		t.Run(module, func(t *testing.T) {
			less := r.Manifest.Kernel
			less.Modules = map[string][]string{}
			for purpose, names := range r.Manifest.Kernel.Modules {
				without := func(n string) bool { return n == module || n == "brcmfmac-wcc" } // the latter needs brcmfmac
				less.Modules[purpose] = slices.DeleteFunc(slices.Clone(names), without)
			}
			var errs []error
			for _, b := range r.Boards {
				errs = append(errs, drivers.Check(index, less, b, trees[b.Name]))
			}
			if err := errors.Join(errs...); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %q", err, want)
			}
		})
	}
}

// TestRadiosAskForFirmware: what the build checks is not empty.
func TestRadiosAskForFirmware(t *testing.T) {
	r := realKernel(t)
	index, err := r.Kernel.Index()
	if err != nil {
		t.Fatal(err)
	}
	paths, err := index.Select(r.Manifest.Kernel.Modules["radio"])
	if err != nil {
		t.Fatal(err)
	}
	asked, err := index.Firmware(t.Context(), paths)
	if err != nil {
		t.Fatal(err)
	}
	got := slices.Sorted(maps.Keys(asked))
	if want := []string{"ath9k_htc", "brcmfmac", "cfg80211", "mt76x0u", "mt76x2u", "rtl8xxxu"}; !slices.Equal(got, want) {
		t.Errorf("modules that ask for firmware: got %q, want %q", got, want)
	}
	if err := drivers.CheckFirmware(asked, manifest.Manifest{}); err == nil || !strings.Contains(err.Error(), "module ath9k_htc loads firmware ath9k_htc/htc_9271-1.4.0.fw") {
		t.Errorf("an image without firmware: %v", err)
	}
}

// A parameter that the kernel does not know is left out in silence.
func TestTheKernelKnowsItsParameters(t *testing.T) {
	r := realKernel(t)
	b, err := os.ReadFile(filepath.Join(r.Kernel.Modules, "modules.builtin.modinfo"))
	if err != nil {
		t.Fatal(err)
	}
	known := strings.Split(string(b), "\x00")
	for _, p := range strings.Fields(r.Manifest.Kernel.Cmdline) {
		name, _, _ := strings.Cut(p, "=")
		module, parameter, ofModule := strings.Cut(name, ".")
		if ofModule && !slices.ContainsFunc(known, func(s string) bool { return strings.HasPrefix(s, module+".parm="+parameter+":") }) {
			t.Errorf("%s: no module in the kernel has such a parameter", p)
		}
	}
}

package module

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestParseLoaded(t *testing.T) {
	got := parseLoaded([]byte(`mac80211 1 2 mac80211_hwsim,ath9k_htc, Live 0x0
ccm 1 3 - Live 0x0
i6300esb 1 0 [permanent], Live 0x0
nls_ascii 1 - - Live 0x0
ath 1 1 ath9k, Unloading 0x0
short
`))
	if len(got) != 4 || got["mac80211"].Refs != 2 || !slices.Equal(got["mac80211"].Holders, []string{"mac80211_hwsim", "ath9k_htc"}) ||
		got["ccm"].Refs != 3 || got["ccm"].Holders != nil || got["i6300esb"].Holders != nil {
		t.Errorf("got %+v", got)
	}
}

func TestLoadWith(t *testing.T) {
	l, r := tree(t, map[string]string{"crc16": "fast=1", "ext4": "of the command line"})
	if err := l.LoadWith("ext4", "debug=1 x=y"); err != nil {
		t.Fatal(err)
	}
	if want := "kernel/fs/ext4.ko.xz debug=1 x=y"; !slices.Contains(r.got, want) || !slices.Contains(r.got, "kernel/lib/crc16.ko.xz fast=1") {
		t.Errorf("got %q, want %q", r.got, want)
	}
	if err := l.LoadWith("ext4", "debug=0"); !errors.Is(err, ErrLoaded) || !strings.Contains(err.Error(), "unload it first") {
		t.Errorf("a second load: %v", err)
	}
	if err := l.LoadWith("amba-pl011", "x=y"); err == nil || !strings.Contains(err.Error(), "kernel command line") {
		t.Errorf("a part of the kernel: %v", err)
	}
	if err := l.LoadWith("virtio:d00000001v1", "x=y"); !errors.Is(err, ErrUnknown) {
		t.Errorf("an alias: %v", err)
	}
	r.fails = "kernel/net/virtio_net.ko.xz"
	if err := l.LoadWith("virtio_net", "x=y"); err == nil || !strings.Contains(err.Error(), r.dir+"/"+r.fails) {
		t.Errorf("a file that does not load: %v, want its path", err)
	}
}

// TestFaster has another process load a module between the look and the load.
func TestFaster(t *testing.T) {
	l, r := tree(t, nil)
	blind := &blindKernel{record: r}
	l.kernel = blind
	r.loaded = map[string]State{"virtio_net": {}}
	if err := l.Load("virtio_net"); err != nil {
		t.Errorf("without parameters: %v", err)
	}
	if err := l.LoadWith("virtio_net", "x=y"); !errors.Is(err, ErrLoaded) {
		t.Errorf("with parameters: %v", err)
	}
}

// blindKernel does not tell what is loaded.
type blindKernel struct{ *record }

func (blindKernel) Loaded() (map[string]State, error) { return map[string]State{}, nil }

func TestHint(t *testing.T) {
	for err, want := range map[error]string{
		unix.ENOEXEC: "another kernel", unix.ENOENT: "symbol", unix.EINVAL: "parameter", unix.ENODEV: "no device", unix.EIO: "",
	} {
		if got := hint(err); !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("%v: got %q", err, got)
		}
	}
}

// TestHeld loads a held module by its name, and never by an alias.
func TestHeld(t *testing.T) {
	l, r := tree(t, nil)
	if err := l.index.addHeld("blacklist virtio-net"); err != nil {
		t.Fatal(err)
	}
	if err := l.Load("virtio:d00000001v00001AF4"); !errors.Is(err, ErrUnknown) || r.got != nil {
		t.Errorf("by its device: %v, loaded %q", err, r.got)
	}
	if err := l.LoadWith("virtio_net", "x=y"); err != nil {
		t.Errorf("by name: %v", err)
	}
	if err := l.index.addHeld("install virtio_net /bin/true"); err == nil {
		t.Error("a line of another kind was taken")
	}
}

// stack is morse on dot11ah on mac80211, as the kernel has them loaded.
func stack() map[string]State {
	return map[string]State{
		"cfg80211": {2, []string{"mac80211", "morse"}},
		"mac80211": {2, []string{"morse", "dot11ah"}},
		"dot11ah":  {1, []string{"morse"}},
		"morse":    {},
	}
}

func TestUnload(t *testing.T) {
	for name, tc := range map[string]struct {
		unload  string
		change  func(*record)
		force   bool
		removed string
		err     string
	}{
		"dependents first":       {unload: "dot11ah", removed: "morse dot11ah"},
		"all":                    {unload: "cfg80211", removed: "morse dot11ah mac80211 cfg80211"},
		"not loaded":             {unload: "ath9k", removed: ""},
		"part of the kernel":     {unload: "amba_pl011", err: "part of this kernel"},
		"an interface is up":     {unload: "dot11ah", change: func(r *record) { r.users = map[string][]string{"morse": {"interface mesh0 (up)"}} }, err: "unload morse: it is in use by interface mesh0 (up): end that first"},
		"forced":                 {unload: "dot11ah", change: func(r *record) { r.users = map[string][]string{"morse": {"interface mesh0 (up)"}} }, force: true, removed: "morse dot11ah"},
		"a file is open":         {unload: "dot11ah", change: func(r *record) { r.loaded["morse"] = State{1, nil} }, err: "unload morse: it is in use by 1 uses that the kernel does not name"},
		"a file is open, forced": {unload: "dot11ah", change: func(r *record) { r.loaded["morse"] = State{1, nil} }, force: true, err: "unload morse"},
		"in use below":           {unload: "dot11ah", change: func(r *record) { r.loaded["dot11ah"] = State{2, []string{"morse"}} }, removed: "morse", err: "unload dot11ah: it is in use by 1 uses"},
		"a holder that went": {unload: "dot11ah", change: func(r *record) {
			r.loaded["morse"] = State{0, nil}
			r.loaded["dot11ah"] = State{1, []string{"morse", "gone"}}
		}, removed: "morse dot11ah"},
	} {
		t.Run(name, func(t *testing.T) {
			l, r := tree(t, nil)
			r.loaded = stack()
			if tc.change != nil {
				tc.change(r)
			}
			unload := l.Unload
			if tc.force {
				unload = l.ForceUnload
			}
			err := unload(t.Context(), tc.unload)
			if tc.err == "" && err != nil || tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)) {
				t.Errorf("got %v, want %q", err, tc.err)
			}
			if strings.Contains(tc.err, "in use") {
				if _, ok := errors.AsType[*InUseError](err); !ok {
					t.Errorf("%T is no InUseError", err)
				}
			}
			if got := strings.Join(r.removed, " "); got != tc.removed {
				t.Errorf("removed %q, want %q", got, tc.removed)
			}
		})
	}
}

// TestLoadAgain loads after another process has unloaded.
func TestLoadAgain(t *testing.T) {
	l, r := tree(t, nil)
	if err := l.Load("virtio_net"); err != nil {
		t.Fatal(err)
	}
	delete(r.loaded, "virtio_net")
	if err := l.Load("virtio_net"); err != nil || len(r.got) != 2 {
		t.Errorf("loaded %q, %v, want it twice", r.got, err)
	}
	if err := l.Unload(t.Context(), "virtio-net"); err != nil || !slices.Equal(r.removed, []string{"virtio_net"}) {
		t.Errorf("removed %q, %v", r.removed, err)
	}
	if err := l.LoadWith("virtio_net", "x=y"); err != nil {
		t.Errorf("after it was unloaded: %v", err)
	}
}

func TestDriverHangs(t *testing.T) {
	l, r := tree(t, nil)
	r.loaded, r.hangs = stack(), make(chan struct{})
	t.Cleanup(func() { close(r.hangs) })
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		err := l.Unload(ctx, "dot11ah")
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "unload morse: its driver does not let go") {
			t.Errorf("got %v", err)
		}
	}
	if n := r.asked.Load(); n != 1 {
		t.Errorf("the kernel was told %d times, want once: each hangs for ever", n)
	}
}

// fakeSys makes files, links (whose content begins with ->) and folders.
func fakeSys(t *testing.T, files map[string]string) string {
	t.Helper()
	sys := t.TempDir()
	for name, content := range files {
		path := filepath.Join(sys, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		to, link := strings.CutPrefix(content, "->")
		err := error(nil)
		if link {
			err = os.Symlink(to, path)
		} else {
			err = os.WriteFile(path, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return sys
}

func TestInterfacesUp(t *testing.T) {
	sys := fakeSys(t, map[string]string{
		"class/net/mesh0/flags": "0x1003\n", "class/net/mesh0/device/driver/module": "->../../../../module/mac80211_hwsim",
		"class/net/wlan1/flags": "0x1002\n", "class/net/wlan1/device/driver/module": "->../../../../module/mac80211_hwsim",
		"class/net/eth0/flags": "0x1003\n", "class/net/eth0/device/driver/module": "->../../../../module/genet",
		"class/net/bat0/flags": "0x1003\n",
	})
	if got := interfacesUp(sys, "mac80211-hwsim"); !slices.Equal(got, []string{"interface mesh0 (up)"}) {
		t.Errorf("got %q", got)
	}
}

func TestRebind(t *testing.T) {
	sys := fakeSys(t, map[string]string{
		"bus/sdio/devices/mmc1:0001:1/modalias": "sdio:c07v325Bd0709\n",
		"bus/sdio/devices/mmc1:0001:1/driver":   "->../../drivers/morse_sdio",
		"bus/sdio/devices/mmc1:0001:2/modalias": "sdio:c07v325Bd0709\n",
		"bus/sdio/devices/mmc2:0001:1/modalias": "sdio:c00v02D0dA9A6\n",
		"bus/sdio/drivers/morse_sdio/bind":      "",
		"bus/sdio/drivers/morse_sdio/unbind":    "",
		"bus/sdio/devices/mmc3:0001:1/modalias": "sdio:c00v02D0dA9A6\n",
		"bus/sdio/devices/mmc3:0001:1/driver":   "->../../drivers/gone",
	})
	all, err := Devices(sys, "sdio", "sdio:c*v325Bd*")
	if err != nil || len(all) != 2 || all[0].Name != "mmc1:0001:1" {
		t.Fatalf("got %v, %v", all, err)
	}
	bound, unbound := all[0], all[1]
	if err := bound.Rebind(); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"bind", "unbind"} {
		if b, err := os.ReadFile(filepath.Join(sys, "bus/sdio/drivers/morse_sdio", f)); err != nil || string(b) != "mmc1:0001:1" {
			t.Errorf("%s: got %q, %v", f, b, err)
		}
	}
	if err := unbound.Rebind(); err == nil || !strings.Contains(err.Error(), "no driver has it: load the module for sdio:c07v325Bd0709") {
		t.Errorf("without a driver: %v", err)
	}
	if err := unbound.Unbind(); err != nil {
		t.Errorf("unbind what is not bound: %v", err)
	}
	if err := unbound.Bind("morse_spi"); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "driver morse_spi is not there") {
		t.Errorf("a driver that is not loaded: %v", err)
	}
	if err := (Device{sys, "sdio", "mmc9:0001:1"}).Rebind(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no such device: %v", err)
	}
	if err := (Device{sys, "sdio", "mmc3:0001:1"}).Rebind(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a driver that went: %v", err)
	}
	if none, err := Devices(sys, "spi", "*"); err != nil || none != nil {
		t.Errorf("no such bus: %v, %v", none, err)
	}
}

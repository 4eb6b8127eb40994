//go:build lab

package wifi_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"halo.internal/drivers"
	"halo.internal/drivers/nl80211"
	"halo.internal/drivers/wifi"
	"halo.internal/hal/module"
	"halo.internal/lab/testvm"
	"halo.internal/mesh/radio"
	"halo.internal/model/paths"
)

// These tests run in the test machine, which has no radio until they load one.
func TestMain(m *testing.M) { testvm.Main(m, testvm.Options{}) }

// patience is far beyond what any of this takes.
const patience = 2 * time.Minute

const simulated = "mac80211_hwsim"

func loader(t *testing.T) *module.Loader {
	t.Helper()
	release, err := module.Release()
	if err != nil {
		t.Fatal(err)
	}
	l, err := module.NewLoader(filepath.Join(paths.ModulesDir, release), module.Running{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// until polls what no event tells.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, patience)
		}
	}
}

// anything carries the mesh over nothing.
type anything struct{}

func (anything) Enslave(string) error { return nil }

// members makes each radio that the machine has a member of one mesh, for as long
// as the test runs.
func members(t *testing.T) *radio.Radios {
	t.Helper()
	rs := radio.NewRadios(radio.RadiosConfig{
		Member: radio.Config{
			MeshID: "valley", Password: "a password of the lab", BeaconInterval: 100,
			Channel: nl80211.Channel{FreqMHz: 2412, Width: nl80211.Width20},
			Log:     slog.New(slog.NewTextHandler(t.Output(), nil)),
		},
		Carrier: anything{}, Retry: 100 * time.Millisecond,
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- rs.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return rs
}

// linked waits until that many radios are members, each with a link.
func linked(t *testing.T, rs *radio.Radios, n int) {
	t.Helper()
	until(t, "the radios are members that have a link", func() bool {
		all := rs.List()
		for _, s := range all {
			if s.Detail != "" || len(s.Peers) != 1 || s.Peers[0].Since.IsZero() {
				return false
			}
		}
		return len(all) == n
	})
}

// TestLifecycle takes a driver through its life under a mesh that uses its radios:
// loaded with parameters, refused while in use, taken away in the middle of a scan,
// loaded anew; each time the radios come back as members by themselves.
func TestLifecycle(t *testing.T) {
	l := loader(t)
	d := wifi.New(wifi.Config{Module: simulated, Params: "radios=2 channels=1", Modules: l})
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(d.Prepare())
	must(d.Load(t.Context()))
	if b, err := os.ReadFile("/sys/module/" + simulated + "/parameters/radios"); err != nil || strings.TrimSpace(string(b)) != "2" {
		t.Errorf("parameter radios: %q, %v", b, err)
	}
	radios, err := d.Wiphys()
	if err != nil || len(radios) != 2 {
		t.Fatalf("radios: %+v, %v", radios, err)
	}
	if err := radios[0].Check(nl80211.SecureMesh()...); err != nil {
		t.Error(err)
	}
	if err := d.Load(t.Context()); !errors.Is(err, module.ErrLoaded) {
		t.Errorf("loaded twice: %v", err)
	}
	rs := members(t)
	linked(t, rs, 2)
	must(d.Health(t.Context()))

	// In use: by name, and nothing has changed.
	err = drivers.Reload(t.Context(), d)
	if inUse, ok := errors.AsType[*module.InUseError](err); !ok || inUse.Module != simulated || !strings.Contains(err.Error(), "interface mesh0 (up)") {
		t.Fatalf("unloaded under a mesh: %v", err)
	}
	linked(t, rs, 2)
	// What others are built on is in use as well: mac80211 by the same interfaces.
	if err := l.Unload(t.Context(), "mac80211"); err == nil || !strings.Contains(err.Error(), "unload "+simulated) {
		t.Errorf("unloaded below a mesh: %v", err)
	}

	// In the middle of a scan, the driver goes.
	conn, err := nl80211.Dial(nl80211.Config{})
	must(err)
	defer conn.Close()
	i, err := net.InterfaceByName("mesh0")
	must(err)
	must(conn.StartScan(i.Index, nl80211.Scan{SSIDs: [][]byte{{}}}))
	start := time.Now()
	must(d.ForceUnload(t.Context()))
	t.Logf("gone after %.2f s", time.Since(start).Seconds())
	if loaded, err := (module.Running{}).Loaded(); err != nil {
		t.Error(err)
	} else if _, ok := loaded[simulated]; ok {
		t.Errorf("%s is still there", simulated)
	}
	until(t, "the radios are gone from the mesh", func() bool { return len(rs.List()) == 0 })
	if err := d.Health(t.Context()); err == nil {
		t.Error("healthy without a radio")
	}
	if err := d.Reset(t.Context()); !errors.Is(err, drivers.ErrNoReset) {
		t.Errorf("reset of what is on no bus: %v", err)
	}

	start = time.Now()
	must(d.Load(t.Context()))
	linked(t, rs, 2)
	t.Logf("members again after %.2f s", time.Since(start).Seconds())

	// And all in one.
	start = time.Now()
	step, err := drivers.Recover(t.Context(), d)
	if err != nil || step != drivers.Reloaded {
		t.Fatalf("recovery: %s, %v", step, err)
	}
	linked(t, rs, 2)
	t.Logf("recovered, members again after %.2f s", time.Since(start).Seconds())
	must(d.ForceUnload(t.Context()))
	until(t, "the radios are gone from the mesh", func() bool { return len(rs.List()) == 0 })
	// Nothing is left but what was there before: all of it can go.
	must(l.Unload(t.Context(), "cfg80211"))
}

// TestHeldOpen holds a driver by a file of its own, which the kernel counts and
// does not name: not even force helps, and the error says so.
func TestHeldOpen(t *testing.T) {
	l := loader(t)
	d := wifi.New(wifi.Config{Module: simulated, Params: "radios=1", Modules: l})
	if err := d.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("/sys/kernel/debug/ieee80211/*/hwsim/ps")
	if err != nil || len(files) != 1 {
		t.Fatalf("files of the driver: %q, %v", files, err)
	}
	f, err := os.Open(files[0])
	if err != nil {
		t.Fatal(err)
	}
	err = d.ForceUnload(t.Context())
	if inUse, ok := errors.AsType[*module.InUseError](err); !ok || inUse.Refs != 1 {
		t.Errorf("unloaded with an open file: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := d.ForceUnload(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestNoDevice loads a driver whose device is not there: the wait ends, and says
// what is missing.
func TestNoDevice(t *testing.T) {
	d := wifi.New(wifi.Config{Module: "ath9k_htc", Modules: loader(t), Patience: 3 * time.Second})
	err := d.Load(t.Context())
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "ath9k_htc is loaded and has no radio") {
		t.Errorf("got %v", err)
	}
	if err := d.Unload(t.Context()); err != nil {
		t.Error(err)
	}
}

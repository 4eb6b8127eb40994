//go:build lab

package testvm_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"halo.internal/lab/testvm"
)

func TestMain(m *testing.M) {
	testvm.Main(m, testvm.Options{Modules: []string{"mac80211_hwsim radios=3", "wireguard"}, Packages: []string{"iw", "wpasupplicant"}})
}

func TestMachineIsReady(t *testing.T) {
	if !testvm.Inside() {
		t.Fatal("not in the machine")
	}
	for _, p := range []string{"/proc/self/exe", "/sys/kernel/debug/ieee80211", "/dev/null", "/tmp", "/lib/firmware/regulatory.db"} {
		if _, err := os.Stat(p); err != nil {
			t.Error(err)
		}
	}
	radios, err := filepath.Glob("/sys/class/ieee80211/phy*")
	if err != nil || len(radios) != 3 {
		t.Errorf("radios: got %q, %v, want 3", radios, err)
	}
	if b, err := os.ReadFile("testdata/greeting.txt"); err != nil || string(b) != "from the host\n" {
		t.Errorf("testdata: got %q, %v", b, err)
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil || lo.Attrs().Flags&1 == 0 {
		t.Errorf("lo: got %v, %v, want it up", lo, err)
	}
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if !strings.HasPrefix(l.Attrs().Name, "wlan") && !strings.HasPrefix(l.Attrs().Name, "hwsim") && l.Attrs().Name != "lo" {
			t.Errorf("link %s: the machine is to have no network", l.Attrs().Name)
		}
	}
}

// TestKernelAsksForModules has the kernel load what a link of an unknown kind
// needs.
func TestKernelAsksForModules(t *testing.T) {
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "a"}, PeerName: "b"}); err != nil {
		t.Error(err)
	}
	if err := netlink.LinkAdd(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Name: "x"}, LinkType: "nosuchkind"}); err == nil {
		t.Error("a link of a kind that does not exist was made")
	}
}

func TestDebianPackages(t *testing.T) {
	out, err := exec.Command("iw", "phy").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "mesh point") {
		t.Errorf("iw: %v: %s", err, out)
	}
	out, err = exec.Command("wpa_supplicant", "-v").CombinedOutput()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok || !strings.Contains(string(out), "wpa_supplicant v2.10") {
		t.Errorf("wpa_supplicant: %v: %s", err, out)
	}
}

// BenchmarkMachine's only purpose is the time of an empty run.
func BenchmarkMachine(b *testing.B) {
	for b.Loop() {
	}
}

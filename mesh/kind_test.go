package mesh

import (
	"os"
	"path/filepath"
	"testing"
)

// TestHardwareKind has HaLow told from Wi-Fi by the radio's module.
func TestHardwareKind(t *testing.T) {
	sys := t.TempDir()
	link := func(at, to string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(sys, filepath.Dir(at)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(to, filepath.Join(sys, at)); err != nil {
			t.Fatal(err)
		}
	}
	for name, module := range map[string]string{"wlan0": "ath9k_htc", "wlan1": "morse", "wlan2": ""} {
		radio := filepath.Join("devices", name, "phy80211")
		if err := os.MkdirAll(filepath.Join(sys, radio, "device/driver"), 0o755); err != nil {
			t.Fatal(err)
		}
		if module != "" {
			link(filepath.Join(radio, "device/driver/module"), "../../../../module/"+module)
		}
		link(filepath.Join("class/net", name), filepath.Join(sys, "devices", name))
	}
	if err := os.MkdirAll(filepath.Join(sys, "class/net/eth0"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"wlan0": "wifi", "wlan1": "halow", "wlan2": "wifi", "eth0": "ethernet"} {
		if got := hardwareKind(sys, name); got != want {
			t.Errorf("%s: expected %s, got %s", name, want, got)
		}
	}
}

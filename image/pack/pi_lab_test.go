//go:build lab && soak

package pack_test

import (
	"encoding/base64"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"halo.internal/identity"
	"halo.internal/identity/nodecode"
	"halo.internal/lab/disk"
	"halo.internal/lab/machine"
	"halo.internal/model"
	"halo.internal/model/bundle"
	"halo.internal/model/claim"
	"halo.internal/model/paths"
)

// cardSize is a power of two, as QEMU wants an SD card's.
const cardSize = 2 << 30

// TestAPiStarts starts a gateway's image for the Raspberry Pi 3B on QEMU's Pi, from its SD
// card, with the device tree that lies on it. QEMU's has no Ethernet, so that all is seen
// at the serial port, where somebody logs in. What QEMU stands in for is the Pi's firmware.
// Four cores take minutes: it is part of `make soak`.
func TestAPiStarts(t *testing.T) {
	card := image(t, clone(t, "pi"))
	if err := os.Truncate(card, cardSize); err != nil {
		t.Fatal(err)
	}
	d, err := disk.Create(card, filepath.Join(t.TempDir(), "overlay"), 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	key, claimCode := identity.New(), claim.NewCode()
	text, err := bundle.Bundle{
		Version: bundle.Version, Network: "valley", Role: model.RoleGateway, Name: "gateway", Country: "DE",
		Gateway: bundle.Gateway{PublicKey: key.Public().Base64(), Seed: base64.StdEncoding.EncodeToString(key.Seed()), ClaimCode: claimCode},
		Mesh:    bundle.Mesh{SSID: "valley", PSK: "a password of the lab", Routing: "BATMAN_IV"},
	}.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	boot, err := d.OpenBoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(boot.Write(t.Context(), filepath.Base(paths.Bundle), text), boot.Commit(), boot.Close()); err != nil {
		t.Fatal(err)
	}
	code, err := nodecode.New(key, key.Public(), 0)
	if err != nil {
		t.Fatal(err)
	}
	m, err := machine.New(machine.Config{Name: "pi", Dir: t.TempDir(), Disk: d, Pi: true, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.PowerOn(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.PowerCut(); err != nil && !errors.Is(err, machine.ErrOff) {
			t.Error(err)
		}
	})
	seen := 0
	for _, s := range []struct{ types, shows string }{
		{"", "halo-init: msg=started slot=a perm=ok"},
		{"", "halo-guard: msg=healthy slot=a"}, // halo-mesh and gateway-api say so
		{"", claimCode},                        // gateway-api has it shown
		{"\r", "Code: "},
		{code + "\r", "Logged in."},
		{"board --local\r", "Raspberry Pi 3 Model B"}, // as halo-agent has found
		{"health\r", "bat0       ok"},
		{"exit\r", "Logged out."},
	} {
		if s.types != "" {
			if err := m.Type(s.types); err != nil {
				t.Fatal(err)
			}
		}
		for deadline := time.Now().Add(5 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
			text, err := os.ReadFile(m.Console())
			if err != nil {
				t.Fatal(err)
			}
			if i := strings.Index(string(text[min(seen, len(text)):]), s.shows); i >= 0 {
				seen += i + len(s.shows)
				break
			}
			if now := m.Status(); time.Now().After(deadline) || now.Starts > 1 || now.State != machine.Running {
				t.Fatalf("the console never showed %q: %+v\n%s", s.shows, now, text[max(0, len(text)-6000):])
			}
		}
	}
}

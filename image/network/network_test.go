package network

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"halo.internal/identity"
	"halo.internal/image/fat"
	"halo.internal/image/layout"
	"halo.internal/model/bundle"
	"halo.internal/model/paths"
)

var expires = time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)

func options() Options {
	return Options{Name: "valley", Country: "DE", Uses: 3, Expires: expires, Mesh: bundle.Mesh{Routing: "BATMAN_IV"}}
}

func TestNew(t *testing.T) {
	n, err := New(options())
	if err != nil {
		t.Fatal(err)
	}
	seed, err := base64.StdEncoding.DecodeString(n.Gateway.Gateway.Seed)
	if err != nil {
		t.Fatal(err)
	}
	key, err := identity.FromSeed(seed)
	if err != nil {
		t.Fatal(err)
	}
	if key.Public().Base64() != n.Node.Gateway.PublicKey || n.Gateway.Gateway.PublicKey != n.Node.Gateway.PublicKey {
		t.Error("the node's trust anchor is not the gateway's key")
	}
	token, err := identity.ParseJoinToken(n.Node.Join.Token, key.Public())
	if err != nil || token.Uses != 3 || !token.Expires.Equal(expires) {
		t.Errorf("join token: got %+v, %v", token, err)
	}
	if n.Node.Gateway.Seed != "" || n.Node.Gateway.ClaimCode != "" || n.Gateway.Join.Token != "" {
		t.Error("a secret of one is in the bundle of the other")
	}
	halow := options()
	halow.HaLowChannel = 3
	if n, err := New(halow); err != nil || n.Node.Mesh.HaLowChannel != 3 {
		t.Errorf("with HaLow: got %+v, %v", n.Node.Mesh, err)
	}
	if code := strings.ReplaceAll(n.Gateway.Gateway.ClaimCode, "-", ""); len(code)*5 < 60 {
		t.Errorf("claim code: got %d bits, want at least 60", len(code)*5)
	}
	if n.Node.Mesh != n.Gateway.Mesh || len(n.Node.Mesh.PSK) < 20 {
		t.Error("mesh profile: expected the same one, with a drawn secret")
	}
	other, err := New(options())
	if err != nil || other.Node.Gateway.PublicKey == n.Node.Gateway.PublicKey || other.Node.Mesh.PSK == n.Node.Mesh.PSK {
		t.Errorf("a second network shares secrets with the first (%v)", err)
	}
}

func TestNewRefusals(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*Options)
		want   string
	}{
		"no name":             {func(o *Options) { o.Name = "" }, "network"},
		"country":             {func(o *Options) { o.Country = "Germany" }, "country"},
		"routing":             {func(o *Options) { o.Routing = "OLSR" }, "mesh.routing"},
		"channel":             {func(o *Options) { o.Channel = 200 }, "mesh.channel"},
		"HaLow channel":       {func(o *Options) { o.HaLowChannel = 44 }, "EU (fixed) has no S1G channel 44"},
		"HaLow without rules": {func(o *Options) { o.Country, o.HaLowChannel = "BR", 1 }, "HaLow stays off"},
		"HaLow numbering":     {func(o *Options) { o.Country, o.HaLowChannel = "AU", 43 }, "name that of the driver"},
		"weak secret":         {func(o *Options) { o.PSK = "12345" }, "mesh.psk"},
		"no uses":             {func(o *Options) { o.Uses = 0 }, "at least one use"},
	} {
		t.Run(name, func(t *testing.T) {
			o := options()
			tc.change(&o)
			_, err := New(o)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
			if err != nil && o.PSK != "" && strings.Contains(err.Error(), o.PSK) {
				t.Errorf("the error repeats the secret: %v", err)
			}
		})
	}
}

// card makes an image whose boot partition holds the given files.
func card(t *testing.T, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	if err := fat.Create(context.Background(), filepath.Join(dir, "fat"), layout.BootSize, expires, files); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "fat"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "card.img")
	if err := os.WriteFile(path, append(make([]byte, layout.BootOffset), raw...), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func slotJSON(t *testing.T, role string) []byte {
	t.Helper()
	b, err := layout.Slot{
		Role: role, KernelRelease: "6.12.9", ModulesSHA256: strings.Repeat("a", 64), ModulesSize: 1,
		Root: layout.Root{Size: 8192, Hash: strings.Repeat("b", 64), Salt: strings.Repeat("c", 64)},
	}.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestPut(t *testing.T) {
	ctx := context.Background()
	n, err := New(options())
	if err != nil {
		t.Fatal(err)
	}
	path := card(t, map[string][]byte{"slot-a/slot.json": slotJSON(t, "node"), "claim.txt": []byte("OLD")})
	if err := Put(ctx, n.Gateway, path); !errors.Is(err, ErrRole) {
		t.Errorf("a gateway's bundle for a node's card: got %v, want ErrRole", err)
	}
	n.Node.Name = "mast-3"
	if err := Put(ctx, n.Node, path); err != nil {
		t.Fatal(err)
	}
	boot := fat.Volume{Path: path, Offset: layout.BootOffset}
	raw, err := boot.Read(ctx, "halo.toml")
	if err != nil {
		t.Fatal(err)
	}
	got, err := bundle.Parse("halo.toml", raw)
	if err != nil || got.Name != "mast-3" || got.Join != n.Node.Join {
		t.Errorf("got %+v, %v", got.Name, err)
	}
	if _, err := boot.Read(ctx, "claim.txt"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the old claim notice is still there (%v)", err)
	}
}

// TestPutWithoutRoom fills a card: what was on it stays.
func TestPutWithoutRoom(t *testing.T) {
	ctx := context.Background()
	n, err := New(options())
	if err != nil {
		t.Fatal(err)
	}
	const kib = 1 << 10 // a cluster, of which the FAT itself takes some
	files := map[string][]byte{"slot-a/slot.json": slotJSON(t, "node"), "claim.txt": []byte("OLD"), "fill": make([]byte, layout.BootSize-840*kib)}
	path := card(t, files)
	boot := fat.Volume{Path: path, Offset: layout.BootOffset}
	for _, size := range []int{8 * kib, 1} { // the rest, to the last cluster
		for i, err := 0, error(nil); err == nil; i++ {
			err = boot.Write(ctx, fmt.Sprintf("fill%d-%d", size, i), make([]byte, size))
		}
	}
	if err := Put(ctx, n.Node, path); !errors.Is(err, fat.ErrFull) {
		t.Errorf("got %v, want fat.ErrFull", err)
	}
	if left, err := boot.Read(ctx, "claim.txt"); err != nil || string(left) != "OLD" {
		t.Errorf("the claim notice: got %q, %v", left, err)
	}
	if _, err := boot.Read(ctx, "halo.toml"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("half a bundle is there (%v)", err)
	}
}

func TestPutOntoAFlatImage(t *testing.T) {
	n, err := New(options())
	if err != nil {
		t.Fatal(err)
	}
	flat := card(t, map[string][]byte{"cmdline.txt": []byte("console=tty1"), path.Base(paths.BootReserve): make([]byte, layout.ReserveSize)})
	if err := Put(context.Background(), n.Gateway, flat); err != nil {
		t.Error(err)
	}
	if _, err := (fat.Volume{Path: flat, Offset: layout.BootOffset}).Read(context.Background(), path.Base(paths.BootReserve)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what keeps room for the bundle is still there (%v)", err)
	}
	if err := Put(context.Background(), n.Gateway, card(t, map[string][]byte{"readme.txt": nil})); err == nil || !strings.Contains(err.Error(), "expected a HALO image or card") {
		t.Errorf("a strange card: got %v", err)
	}
}

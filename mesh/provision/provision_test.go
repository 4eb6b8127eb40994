package provision

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"halo.internal/identity"
	"halo.internal/mesh/state"
	"halo.internal/model"
	"halo.internal/model/bundle"
	"halo.internal/model/paths"
)

// memory is a vault in RAM.
type memory map[string][]byte

func (m memory) Get(name string) ([]byte, error) {
	if b, ok := m[name]; ok {
		return b, nil
	}
	return nil, fs.ErrNotExist
}

func (m memory) Put(name string, b []byte) error {
	m[name] = b
	return nil
}

// fat is a boot partition that counts how often it was made writable.
type fat struct {
	opened int
	broken error
}

func (f *fat) Writable(g func() error) error {
	f.opened++
	if f.broken != nil {
		return f.broken
	}
	return g()
}

// card is a device's card in a test.
type card struct {
	t      *testing.T
	file   string
	dir    string
	vault  memory
	boot   fat
	kinds  []string
	saying string
}

func newCard(t *testing.T) *card {
	dir := t.TempDir()
	return &card{t: t, file: filepath.Join(dir, "halo.toml"), dir: filepath.Join(dir, "perm"), vault: memory{}}
}

func (c *card) put(b []byte) {
	c.t.Helper()
	if err := os.WriteFile(c.file, b, 0o600); err != nil {
		c.t.Fatal(err)
	}
}

func (c *card) read() []byte {
	c.t.Helper()
	b, err := os.ReadFile(c.file)
	if err != nil {
		c.t.Fatal(err)
	}
	return b
}

// start imports as at a start of the machine.
func (c *card) start(role model.Role) (bundle.Bundle, bool, error) {
	c.kinds, c.saying = nil, ""
	return Importer{
		File: c.file, Role: role, Store: state.New(paths.Dir(c.dir), c.vault), Boot: &c.boot,
		Report: func(kind string, _ model.Severity, message string, fields ...string) {
			c.kinds = append(c.kinds, kind)
			c.saying += message + strings.Join(fields, " ") + "\n"
		},
	}.Import()
}

func (c *card) expectKinds(kinds ...string) {
	c.t.Helper()
	if strings.Join(c.kinds, " ") != strings.Join(kinds, " ") {
		c.t.Errorf("reported %v, want %v\n%s", c.kinds, kinds, c.saying)
	}
}

const psk = "correct horse battery"

func bundleFor(t *testing.T, role model.Role, key identity.Key) bundle.Bundle {
	t.Helper()
	b := bundle.Bundle{
		Version: bundle.Version, Network: "ridge", Role: role, Country: "DE",
		Gateway: bundle.Gateway{PublicKey: key.Public().Base64()},
		Mesh:    bundle.Mesh{SSID: "RIDGE-1", PSK: psk, Routing: "BATMAN_IV"},
	}
	if role == model.RoleGateway {
		b.Gateway.Seed, b.Gateway.ClaimCode = base64.StdEncoding.EncodeToString(key.Seed()), "7K3M-Q0ZT-4WXPB"
	} else {
		b.Join.Token = identity.NewJoinToken(1, time.Now().Add(time.Hour)).Text(key)
	}
	return b
}

func marshal(t *testing.T, b bundle.Bundle) []byte {
	t.Helper()
	data, err := b.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestImportKeepsAndBlanks(t *testing.T) {
	c, b := newCard(t), bundleFor(t, model.RoleNode, identity.New())
	data := marshal(t, b)
	c.put(data)
	got, changed, err := c.start(model.RoleNode)
	if err != nil || !changed || got.Mesh != b.Mesh {
		t.Fatalf("first start: %+v, %v, %v", got, changed, err)
	}
	c.expectKinds("bundle.imported")
	blank := c.read()
	if len(blank) != len(data) || bytes.Contains(blank, []byte(psk)) || bytes.Contains(blank, []byte(b.Join.Token)) {
		t.Errorf("file after the import:\n%s", blank)
	}
	if strings.Contains(c.saying, psk) || strings.Contains(c.saying, b.Join.Token) {
		t.Errorf("a report has a secret: %s", c.saying)
	}
	opened := c.boot.opened
	if got, changed, err = c.start(model.RoleNode); err != nil || changed || got.Join != b.Join {
		t.Errorf("second start: %+v, %v, %v", got, changed, err)
	}
	c.expectKinds()
	if c.boot.opened != opened {
		t.Error("a blanked bundle was written again")
	}
	// Either copy alone is enough.
	if err := os.RemoveAll(c.dir); err != nil {
		t.Fatal(err)
	}
	if got, _, err = c.start(model.RoleNode); err != nil || got.Join != b.Join {
		t.Errorf("from the vault: %+v, %v", got, err)
	}
	clear(c.vault)
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, _, err = c.start(model.RoleNode); !errors.Is(err, ErrNone) {
		t.Errorf("with neither: %v, want ErrNone", err)
	}
}

func TestChangedBundleIsImportedAgain(t *testing.T) {
	c, key := newCard(t), identity.New()
	c.put(marshal(t, bundleFor(t, model.RoleNode, key)))
	if _, _, err := c.start(model.RoleNode); err != nil {
		t.Fatal(err)
	}
	next := bundleFor(t, model.RoleNode, key)
	next.Mesh.SSID = "RIDGE-2"
	c.put(marshal(t, next))
	got, changed, err := c.start(model.RoleNode)
	if err != nil || !changed || got.Mesh.SSID != "RIDGE-2" {
		t.Errorf("got %+v, %v, %v", got, changed, err)
	}
}

// TestInterruptedBlanking cuts the power after every octet that blanking
// writes: the next start must live on and finish it.
func TestInterruptedBlanking(t *testing.T) {
	c, b := newCard(t), bundleFor(t, model.RoleGateway, identity.New())
	data := marshal(t, b)
	c.put(data)
	if _, _, err := c.start(model.RoleGateway); err != nil {
		t.Fatal(err)
	}
	blank := c.read()
	for n := 0; n <= len(data); n += 7 {
		half := append(bytes.Clone(blank[:n]), data[n:]...)
		c.put(half)
		got, changed, err := c.start(model.RoleGateway)
		if err != nil || changed || got.Mesh != b.Mesh {
			t.Fatalf("cut after %d octets: %+v, %v, %v", n, got.Mesh, changed, err)
		}
		if left := c.read(); bytes.Contains(left, []byte(b.Gateway.Seed)) || bytes.Contains(left, []byte(psk)) || bytes.Contains(left, []byte(b.Gateway.ClaimCode)) {
			t.Fatalf("cut after %d octets: a whole secret is left\n%s", n, left)
		}
	}
}

func TestFaultsAreReportedAndNothingIsTouched(t *testing.T) {
	key, other := identity.New(), identity.New()
	node := bundleFor(t, model.RoleNode, key)
	data := marshal(t, node)
	foreign := node
	foreign.Join.Token = identity.NewJoinToken(1, time.Now()).Text(other)
	swapped := bundleFor(t, model.RoleGateway, key)
	swapped.Gateway.Seed = base64.StdEncoding.EncodeToString(other.Seed())
	for _, tc := range []struct {
		name string
		role model.Role
		data []byte
		want string
	}{
		{"half-written", model.RoleNode, data[:len(data)/2], "cut short"},
		{"corrupt", model.RoleNode, bytes.Replace(data, []byte("RIDGE"), []byte("RIDGF"), 1), "checksum"},
		{"unknown key", model.RoleNode, append([]byte("colour = 'red'\n"), data[bytes.IndexByte(data, '\n')+1:]...), "unknown key"},
		{"empty", model.RoleNode, nil, "empty file"},
		{"binary", model.RoleNode, bytes.Repeat([]byte{0xff}, 100), "UTF-8"},
		{"oversize", model.RoleNode, bytes.Repeat([]byte("#"), bundle.MaxSize+1), "at most"},
		{"wrong role", model.RoleGateway, data, "expected gateway"},
		{"token of another network", model.RoleNode, marshal(t, foreign), "not signed by this network"},
		{"seed of another key", model.RoleGateway, marshal(t, swapped), "another key"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newCard(t)
			c.put(tc.data)
			_, _, err := c.start(tc.role)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want mention of %q", err, tc.want)
			}
			c.expectKinds("bundle.refused")
			if strings.Contains(c.saying, psk) {
				t.Errorf("the report has a secret: %s", c.saying)
			}
			if !bytes.Equal(c.read(), tc.data) || c.boot.opened > 0 {
				t.Error("a bundle that was not imported was touched")
			}
		})
	}
}

func TestFaultyBundleDoesNotEndAWorkingNode(t *testing.T) {
	c := newCard(t)
	b := bundleFor(t, model.RoleNode, identity.New())
	c.put(marshal(t, b))
	if _, _, err := c.start(model.RoleNode); err != nil {
		t.Fatal(err)
	}
	c.put([]byte("network = "))
	got, changed, err := c.start(model.RoleNode)
	if err != nil || changed || got.Join != b.Join {
		t.Errorf("got %+v, %v, %v, want the kept bundle", got, changed, err)
	}
	c.expectKinds("bundle.refused")
}

func TestBundleThatCannotBeKeptStaysOnTheCard(t *testing.T) {
	c := newCard(t)
	data := marshal(t, bundleFor(t, model.RoleNode, identity.New()))
	c.put(data)
	if err := os.WriteFile(c.dir, nil, 0o600); err != nil { // no directory can be made there
		t.Fatal(err)
	}
	importer := Importer{File: c.file, Role: model.RoleNode, Store: state.New(paths.Dir(c.dir), nil), Boot: &c.boot,
		Report: func(kind string, _ model.Severity, _ string, _ ...string) { c.kinds = append(c.kinds, kind) }}
	if _, changed, err := importer.Import(); err != nil || !changed {
		t.Errorf("got %v, %v, want it used", changed, err)
	}
	if !bytes.Equal(c.read(), data) {
		t.Error("the only copy was blanked")
	}
	if c.kinds[0] != "bundle.damaged" && c.kinds[0] != "bundle.not-kept" {
		t.Errorf("reported %v", c.kinds)
	}
}

func TestBlankingThatFailsIsReportedAndTriedAgain(t *testing.T) {
	c := newCard(t)
	c.put(marshal(t, bundleFor(t, model.RoleNode, identity.New())))
	c.boot.broken = errors.New("card is write-protected")
	if _, _, err := c.start(model.RoleNode); err != nil {
		t.Fatal(err)
	}
	c.expectKinds("bundle.not-blanked", "bundle.imported")
	c.boot.broken = nil
	if _, changed, err := c.start(model.RoleNode); err != nil || changed {
		t.Errorf("got %v, %v", changed, err)
	}
	if bytes.Contains(c.read(), []byte(psk)) {
		t.Error("not blanked at the second start")
	}
}

func TestFoundedNetworkIsABundle(t *testing.T) {
	key := identity.New()
	a, b := Found(key), Found(key)
	data := marshal(t, a)
	if _, err := bundle.Parse("founded", data); err != nil {
		t.Error(err)
	}
	if a.Mesh.PSK == b.Mesh.PSK || a.Gateway.ClaimCode == b.Gateway.ClaimCode || a.Network != b.Network {
		t.Errorf("secrets are not new, or the name is: %s %s", a.Network, b.Network)
	}
	if k, err := GatewayKey(a); err != nil || k.Public() != key.Public() {
		t.Errorf("key: %v, %v", k, err)
	}
}

func TestMakeRoom(t *testing.T) {
	reserve := filepath.Join(t.TempDir(), "reserve.bin")
	if err := os.WriteFile(reserve, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	there := func() bool {
		_, err := os.Stat(reserve)
		return err == nil
	}
	if err := makeRoom(reserve, func() error { return nil }); err != nil || !there() {
		t.Errorf("with room: %v, the reserve is there: %v", err, there())
	}
	full := func() error {
		if there() {
			return syscall.ENOSPC
		}
		return nil
	}
	if err := makeRoom(reserve, full); err != nil || there() {
		t.Errorf("without room: %v, the reserve is there: %v", err, there())
	}
	if err := makeRoom(reserve, func() error { return syscall.ENOSPC }); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("without room and reserve: got %v", err)
	}
}

type buffer struct{ bytes.Buffer }

func (*buffer) Close() error { return nil }

func TestNotice(t *testing.T) {
	var console buffer
	boot := &fat{}
	n := Notice{File: filepath.Join(t.TempDir(), "claim.txt"), Boot: boot, Console: func() (io.WriteCloser, error) { return &console, nil }}
	for range 2 {
		if err := n.Show("ridge", "7K3M-Q0ZT-4WXPB"); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := os.ReadFile(n.File); err != nil || !strings.Contains(string(b), "7K3M-Q0ZT-4WXPB") {
		t.Errorf("file: %q, %v", b, err)
	}
	if strings.Count(console.String(), "7K3M-Q0ZT-4WXPB") != 2 || boot.opened != 1 {
		t.Errorf("console %q, partition written %d times, want 2 lines and 1 write", console.String(), boot.opened)
	}
	if err := n.Show("ridge", "no code\n"); err == nil {
		t.Error("something else than a code was shown")
	}
	for range 2 { // the second time there is nothing to erase
		if err := n.Erase(); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(n.File); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("file is still there: %v", err)
	}
}

package mesh

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"halo.internal/identity"
	"halo.internal/mesh/clock"
	"halo.internal/mesh/state"
	"halo.internal/model"
	"halo.internal/model/bundle"
	"halo.internal/model/paths"
)

// shelf is a vault whose writes fail from one on, as when power goes.
type shelf struct {
	entries map[string][]byte
	left    int  // writes that succeed; negative: all
	dies    bool // the process does not see them fail: it ends
}

var errGone = errors.New("the power has gone")

func (v *shelf) Get(name string) ([]byte, error) {
	b, ok := v.entries[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return b, nil
}

func (v *shelf) Put(name string, b []byte) error {
	if v.left == 0 && v.dies {
		panic(errGone)
	}
	if v.left == 0 {
		return errGone
	}
	v.left--
	v.entries[name] = bytes.Clone(b)
	return nil
}

// lostGateway is what a backup has of a gateway.
func lostGateway(t *testing.T) (identity.Key, model.MeshRestore) {
	t.Helper()
	key := identity.New()
	b := bundle.Bundle{
		Version: bundle.Version, Network: "north-ridge", Role: model.RoleGateway, Country: "DE",
		Gateway: bundle.Gateway{PublicKey: key.Public().Base64(), Seed: base64.StdEncoding.EncodeToString(key.Seed())},
		Mesh:    bundle.Mesh{SSID: "ETHRX0001-8A", PSK: "a secret of the mesh", Routing: "BATMAN_IV"},
	}
	text, err := b.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	reserved, err := parseReservations(marshalReservations([]model.Reservation{}))
	if err != nil {
		t.Fatal(err)
	}
	return key, model.MeshRestore{ID: "b1", Made: time.Date(2026, 11, 20, 1, 2, 3, 0, time.UTC), MeshBackup: model.MeshBackup{
		Bundle: text, Profile: keptProfile{Had: []string{"n-a"}}.marshal(), Reservations: marshalReservations(reserved), Boot: 57 + bootsAhead,
	}}
}

// freshCard is a device that has been the gateway of a network of its own.
func freshCard(t *testing.T) (Config, *state.Store, *shelf) {
	t.Helper()
	c := Config{Root: t.TempDir(), Role: model.RoleGateway}
	v := &shelf{entries: map[string][]byte{}, left: -1}
	s := state.New(paths.Dir(c.path(paths.State)), v)
	if err := os.MkdirAll(c.path(paths.State), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := (identity.State{Key: identity.New(), BootCounter: 3, BootID: "boot"}).Save(s.Dir().File(paths.Identity), v); err != nil {
		t.Fatal(err)
	}
	for name, entry := range map[string]string{paths.Peers: "", paths.StoodDown: paths.VaultStoodDown, paths.OverlayKey: paths.VaultOverlayKey, paths.PortPasts: paths.VaultPortPasts, paths.Reservations: ""} {
		if _, err := s.Put(name, entry, []byte("of the fresh network")); err != nil {
			t.Fatal(err)
		}
	}
	return c, s, v
}

type tale []string

func (l *tale) tell(kind string, _ model.Severity, message string, _ ...string) {
	*l = append(*l, kind+": "+message)
}

// kinds of what was told.
func (l *tale) kinds() (list []string) {
	for _, s := range *l {
		kind, _, _ := strings.Cut(s, ":")
		list = append(list, kind)
	}
	return list
}

func TestARestoreIsCarriedOutWhereverPowerFails(t *testing.T) {
	key, r := lostGateway(t)
	done := false
	for cut := 0; !done; cut++ {
		c, s, v := freshCard(t)
		if _, err := s.Put(paths.Restore, "", marshalRestore(r)); err != nil {
			t.Fatal(err)
		}
		// The power goes at a write, and the machine starts again.
		v.left, v.dies = cut, true
		var l tale
		func() {
			defer func() { done = recover() == nil }()
			restore(c, s, l.tell)
		}()
		if v.left = -1; !done {
			l = nil
			restore(c, s, l.tell)
		}
		if !slices.Equal(l.kinds(), []string{"gateway.restored"}) {
			t.Fatalf("cut at %d: told %q", cut, l)
		}
		for place, load := range map[string]func() (identity.State, error){
			"file":  func() (identity.State, error) { return identity.Load(s.Dir().File(paths.Identity), nil) },
			"vault": func() (identity.State, error) { return identity.Load(filepath.Join(c.Root, "none"), v) },
		} {
			if id, err := load(); err != nil || id.Key.Public() != key.Public() || id.BootCounter != 57+bootsAhead {
				t.Errorf("cut at %d: in the %s is %s, boot %d, %v", cut, place, id.Key.ID(), id.BootCounter, err)
			}
		}
		b, err := os.ReadFile(s.Dir().File(paths.BundleCopy))
		if err != nil || !bytes.Contains(b, []byte(key.Public().Base64())) {
			t.Errorf("cut at %d: the bundle is\n%s\n%v", cut, b, err)
		}
		for name, want := range map[string][]byte{paths.Profile: r.Profile, paths.Reservations: r.Reservations, paths.Peers: nil, paths.StoodDown: nil, paths.OverlayKey: nil, paths.PortPasts: nil, paths.Restore: nil} {
			if b, err := os.ReadFile(s.Dir().File(name)); !bytes.Equal(b, want) || (err != nil) != (want == nil) {
				t.Errorf("cut at %d: %s is %q, %v", cut, name, b, err)
			}
		}
		if b, err := v.Get(paths.VaultClock); err != nil || !bytes.Equal(state.Unseal(b), clock.Marshal(r.Made)) {
			t.Errorf("cut at %d: the saved clock is %s, %v", cut, b, err)
		}
		for _, entry := range []string{paths.VaultStoodDown, paths.VaultOverlayKey, paths.VaultPortPasts} {
			if len(state.Unseal(v.entries[entry])) != 0 {
				t.Errorf("cut at %d: the vault still has %s", cut, entry)
			}
		}
		var note model.Restored
		b, err = os.ReadFile(s.Dir().File(paths.Restored))
		if err := errors.Join(err, json.Unmarshal(b, &note)); err != nil || note != (model.Restored{ID: "b1", Node: key.ID()}) {
			t.Errorf("cut at %d: gateway-api is told %+v, %v", cut, note, err)
		}
		l = nil
		if restore(c, s, l.tell); len(l) != 0 {
			t.Errorf("cut at %d: the start after it does something again: %q", cut, l)
		}
		if cut > 50 {
			t.Fatal("there is no end to it")
		}
	}
}

// A card whose vault cannot be written is restored, and says so.
func TestARestoreNeedsOneOfTheTwoPlaces(t *testing.T) {
	key, r := lostGateway(t)
	c, s, v := freshCard(t)
	v.left = 0
	if _, err := s.Put(paths.Restore, "", marshalRestore(r)); err != nil {
		t.Fatal(err)
	}
	var l tale
	restore(c, s, l.tell)
	if !slices.Equal(l.kinds(), []string{"gateway.restored-once", "gateway.restored"}) {
		t.Errorf("told %q", l)
	}
	if id, err := identity.Load(s.Dir().File(paths.Identity), v); err != nil || id.Key.Public() != key.Public() {
		t.Errorf("it is %s, %v", id.Key.ID(), err)
	}
}

func TestWhatIsNoRestoreChangesNothing(t *testing.T) {
	key, good := lostGateway(t)
	other := identity.New()
	with := func(change func(*model.MeshRestore)) []byte {
		r := good
		change(&r)
		return marshalRestore(r)
	}
	flipped := marshalRestore(good)
	flipped[len(flipped)/2] ^= 1
	wrongSeed := bytes.Replace(good.Bundle, []byte(base64.StdEncoding.EncodeToString(key.Seed())), []byte(base64.StdEncoding.EncodeToString(other.Seed())), 1)
	for name, b := range map[string][]byte{
		"cut short":               marshalRestore(good)[:100],
		"empty":                   {},
		"flipped":                 flipped,
		"no ID":                   with(func(r *model.MeshRestore) { r.ID = "" }),
		"no bundle":               with(func(r *model.MeshRestore) { r.Bundle = nil }),
		"another key's seed":      with(func(r *model.MeshRestore) { r.Bundle = uncheck(wrongSeed) }),
		"damaged profile":         with(func(r *model.MeshRestore) { r.Profile = r.Profile[1:] }),
		"damaged reservations":    with(func(r *model.MeshRestore) { r.Reservations = []byte("[]") }),
		"more starts than can be": with(func(r *model.MeshRestore) { r.Boot = 1 << 24 }),
	} {
		c, s, v := freshCard(t)
		if err := os.WriteFile(s.Dir().File(paths.Restore), b, 0o600); err != nil {
			t.Fatal(err)
		}
		before := maps.Clone(v.entries)
		var l tale
		restore(c, s, l.tell)
		if !slices.Equal(l.kinds(), []string{"gateway.not-restored"}) {
			t.Errorf("%s: told %q", name, l)
		}
		if strings.Contains(fmt.Sprint(l), "a secret of the mesh") {
			t.Errorf("%s: a secret is told: %q", name, l)
		}
		if !maps.EqualFunc(before, v.entries, bytes.Equal) {
			t.Errorf("%s: the vault was changed", name)
		}
		if _, err := os.Stat(s.Dir().File(paths.Restore)); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: the next start tries it again: %v", name, err)
		}
	}
}

// uncheck takes the checksum off a bundle: an edited one has none.
func uncheck(b []byte) []byte {
	_, rest, _ := bytes.Cut(b, []byte("\n"))
	return rest
}

func FuzzParseRestore(f *testing.F) {
	f.Add([]byte("0\n{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := parseRestore(b); err == nil && (r.ID == "" || len(r.Bundle) == 0) {
			t.Errorf("%q was taken", b)
		}
	})
}

package identity

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"halo.internal/model/paths"
)

func key(t testing.TB, b byte) Key {
	t.Helper()
	k, err := FromSeed(bytes.Repeat([]byte{b}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestDerivationsAreForEver: a changed value would make every node a stranger.
func TestDerivationsAreForEver(t *testing.T) {
	network, node := key(t, 1).Public(), key(t, 2).Public()
	for what, pair := range map[string][2]string{
		"public key":    {network.Base64(), "iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w="},
		"canonical ID":  {network.ID(), goldenID},
		"underlay":      {Underlay(network, node).String(), goldenUnderlay},
		"overlay":       {Overlay(network, node).String(), goldenOverlay},
		"own, underlay": {Underlay(network, network).String(), goldenGateway},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: got %s, want %s", what, pair[0], pair[1])
		}
	}
	if !ValidID(network.ID()) {
		t.Errorf("%s is not valid", network.ID())
	}
	if p := netip.MustParsePrefix("fc00::/7"); !p.Contains(Underlay(network, node)) {
		t.Error("underlay is no ULA")
	}
}

func TestValidID(t *testing.T) {
	for _, bad := range []string{"", "n-", "n-aaaaaaaaaaaaaaaaaaa", "n-aaaaaaaaaaaaaaaaaaaaa", "n-AAAAAAAAAAAAAAAAAAAA", "n-aaaaaaaaaaaaaaaaaaa1", "m-aaaaaaaaaaaaaaaaaaaa"} {
		if ValidID(bad) {
			t.Errorf("%q is valid", bad)
		}
	}
}

func TestSignaturesKeepTheirContext(t *testing.T) {
	k := key(t, 1)
	sig := k.Sign("a", []byte("b"))
	p := k.Public()
	if !p.Verify("a", []byte("b"), sig) {
		t.Fatal("own signature does not verify")
	}
	for _, tc := range []struct{ context, payload string }{{"a", "c"}, {"b", "b"}, {"a\x00b", ""}, {"", "a\x00b"}} {
		if p.Verify(tc.context, []byte(tc.payload), sig) {
			t.Errorf("verifies as %q of %q", tc.payload, tc.context)
		}
	}
	if p.Verify("a", []byte("b"), sig[:63]) || key(t, 2).Public().Verify("a", []byte("b"), sig) {
		t.Error("a wrong signature verifies")
	}
}

func TestKeysDoNotPrint(t *testing.T) {
	k := New()
	secret := []string{fmt.Sprint(k.seed[:]), fmt.Sprintf("%x", k.seed), fmt.Sprint(k.wireguard[:])}
	for _, s := range []string{fmt.Sprint(k), fmt.Sprintf("%+v", k), fmt.Sprintf("%#v", k), fmt.Sprint(&k)} {
		for _, no := range secret {
			if strings.Contains(s, no) {
				t.Errorf("%s prints a secret", s)
			}
		}
		if !strings.Contains(s, k.ID()) {
			t.Errorf("%s does not name the key", s)
		}
	}
}

func TestParsePublicKey(t *testing.T) {
	p := key(t, 1).Public()
	if got, err := ParsePublicKey(p.Base64()); err != nil || got != p {
		t.Errorf("got %v, %v", got, err)
	}
	for _, bad := range []string{"", "AAAA", p.Base64() + "AAAA", "not base64"} {
		if _, err := ParsePublicKey(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	if _, err := FromSeed(make([]byte, 31)); err == nil {
		t.Error("a short seed was taken")
	}
}

func TestJoinToken(t *testing.T) {
	network, other := key(t, 1), key(t, 2)
	expires := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	tok := NewJoinToken(5, expires)
	text := tok.Text(network)
	got, err := ParseJoinToken(text, network.Public())
	if err != nil || got != tok {
		t.Fatalf("got %+v, %v, want %+v", got, err, tok)
	}
	if err := got.Valid(expires); err != nil {
		t.Errorf("at its end: %v", err)
	}
	if err := got.Valid(expires.Add(time.Second)); !errors.Is(err, ErrTokenExpired) {
		t.Errorf("after its end: %v", err)
	}
	if _, err := ParseJoinToken(text, other.Public()); !errors.Is(err, ErrTokenNetwork) {
		t.Errorf("another network: %v", err)
	}
	for i := range text {
		for _, bad := range []string{text[:i], text[:i] + "-" + text[i+1:]} {
			if bad == text {
				continue
			}
			if forged, err := ParseJoinToken(bad, network.Public()); err == nil && forged != tok {
				t.Fatalf("changed at %d: taken as %+v", i, forged)
			}
		}
	}
	if _, err := ParseJoinToken(tokenPrefix+strings.Repeat("A", tokenMax), network.Public()); !errors.Is(err, ErrTokenForm) {
		t.Errorf("oversize: %v", err)
	}
}

// memory is a Vault in RAM.
type memory struct {
	m      map[string][]byte
	fail   error
	unread error
}

func (m *memory) Get(name string) ([]byte, error) {
	if m.unread != nil {
		return nil, m.unread
	}
	if b, ok := m.m[name]; ok {
		return b, nil
	}
	return nil, fs.ErrNotExist
}

func (m *memory) Put(name string, b []byte) error {
	if m.fail == nil {
		m.m[name] = b
	}
	return m.fail
}

func TestStoredIdentitySurvivesDamage(t *testing.T) {
	older := State{Key: key(t, 1), BootCounter: 7, BootID: "a"}
	newer := State{Key: older.Key, BootCounter: 8, BootID: "b"}
	bad := older.Marshal()
	bad[20] ^= 1
	for _, tc := range []struct {
		name        string
		file, vault []byte
		want        State
		err         error
	}{
		{"neither", nil, nil, State{}, fs.ErrNotExist},
		{"file alone", older.Marshal(), nil, older, nil},
		{"vault alone", nil, older.Marshal(), older, nil},
		{"file is newer", newer.Marshal(), older.Marshal(), newer, nil},
		{"vault is newer: an old card was put back", older.Marshal(), newer.Marshal(), newer, nil},
		{"file damaged", bad, older.Marshal(), older, nil},
		{"vault damaged", older.Marshal(), bad, older, nil},
		{"both damaged", bad, bad, State{}, ErrCorrupt},
		{"file damaged, no vault", bad, nil, State{}, ErrCorrupt},
		{"file cut short", older.Marshal()[:50], nil, State{}, ErrCorrupt},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), paths.Identity)
			v := &memory{m: map[string][]byte{}}
			if tc.file != nil {
				if err := os.WriteFile(path, tc.file, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if tc.vault != nil {
				v.m[paths.VaultIdentity] = tc.vault
			}
			got, err := Load(path, v)
			if got != tc.want || !errors.Is(err, tc.err) {
				t.Errorf("got %+v, %v, want %+v, %v", got, err, tc.want, tc.err)
			}
		})
	}
}

// What cannot be read may be whole: it is no damage, over which a new identity
// would be written.
func TestAnIdentityThatCannotBeRead(t *testing.T) {
	good := State{Key: key(t, 1), BootCounter: 7, BootID: "a"}
	bad := good.Marshal()
	bad[20] ^= 1
	for _, tc := range []struct {
		name   string
		file   []byte // nil: not there
		noFile bool   // cannot be read either
		vault  error
		want   error
	}{
		{"vault unreadable, no file", nil, false, syscall.EIO, ErrUnread},
		{"vault unreadable, file damaged", bad, false, syscall.EIO, ErrUnread},
		{"vault unreadable, file good", good.Marshal(), false, syscall.EIO, nil},
		{"file unreadable, vault empty", nil, true, fs.ErrNotExist, ErrUnread},
		{"file unreadable, vault damaged", nil, true, ErrCorrupt, ErrUnread},
		{"vault damaged, no file", nil, false, ErrCorrupt, ErrCorrupt},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), paths.Identity)
			if tc.noFile {
				if err := os.Mkdir(path, 0o700); err != nil { // EISDIR
					t.Fatal(err)
				}
			}
			if tc.file != nil {
				if err := os.WriteFile(path, tc.file, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, err := Load(path, &memory{unread: tc.vault})
			if !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
			if tc.want == nil && got != good {
				t.Errorf("got %+v, want %+v", got, good)
			}
		})
	}
}

func TestSaveTriesBothPlaces(t *testing.T) {
	s := State{Key: New(), BootCounter: 3}
	dir := t.TempDir()
	v := &memory{m: map[string][]byte{}}
	if err := s.Save(filepath.Join(dir, "none", "x"), v); err == nil {
		t.Error("a directory that is not there was no error")
	}
	if got, err := Load(filepath.Join(dir, "x"), v); err != nil || got != s {
		t.Errorf("vault: got %+v, %v", got, err)
	}
	before := maps.Clone(v.m)
	v.fail = errors.New("disk is gone")
	if err := s.Save(filepath.Join(dir, "x"), v); !errors.Is(err, v.fail) {
		t.Errorf("got %v, want the vault's error", err)
	}
	if got, err := Load(filepath.Join(dir, "x"), &memory{m: map[string][]byte{}}); err != nil || got != s {
		t.Errorf("file: got %+v, %v (vault had %d)", got, err, len(before))
	}
	if info, err := os.Stat(filepath.Join(dir, "x")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of the file: %v, %v", info.Mode(), err)
	}
}

// TestAChangeIsKeptOrNot: it must not be in the vault alone, where Load would not
// find it.
func TestAChangeIsKeptOrNot(t *testing.T) {
	old := State{Key: New(), BootCounter: 3}
	changed := State{Key: old.Key.WithWireGuard([32]byte{7}), BootCounter: 3}
	full := errors.New("no space")
	for name, tc := range map[string]struct {
		noFile bool
		vault  error
		kept   bool
	}{
		"both": {false, nil, true}, "no file": {true, nil, false}, "no vault": {false, full, true}, "neither": {true, full, false},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x")
			v := &memory{m: map[string][]byte{}}
			if err := old.Save(path, v); err != nil {
				t.Fatal(err)
			}
			v.fail = tc.vault
			to := path
			if tc.noFile {
				to = filepath.Join(path, "below a file")
			}
			kept, err := changed.Change(to, v)
			if kept != tc.kept || (err != nil) != (tc.noFile || tc.vault != nil) {
				t.Errorf("kept %v, %v", kept, err)
			}
			want := old
			if tc.kept {
				want = changed
			}
			if got, err := Load(path, v); err != nil || got != want {
				t.Errorf("after a restart: %+v, %v", got, err)
			}
			if alone, err := Unmarshal(v.m[paths.VaultIdentity]); err != nil || !tc.kept && alone != old {
				t.Errorf("the vault has what was not kept: %v", err)
			}
		})
	}
}

func FuzzUnmarshal(f *testing.F) {
	f.Add(State{Key: key(f, 1), BootCounter: 7, BootID: "a"}.Marshal())
	f.Add([]byte(`{"seed":""}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Unmarshal(b)
		if err != nil {
			return
		}
		if again, err := Unmarshal(s.Marshal()); err != nil || again != s {
			t.Fatalf("does not survive: %+v, %v", again, err)
		}
	})
}

func FuzzParseJoinToken(f *testing.F) {
	network := key(f, 1)
	f.Add(NewJoinToken(1, time.Unix(1e9, 0)).Text(network))
	f.Add("halo-join-")
	f.Fuzz(func(t *testing.T, s string) {
		tok, err := ParseJoinToken(s, network.Public())
		if err != nil {
			return
		}
		if again, err := ParseJoinToken(tok.Text(network), network.Public()); err != nil || again != tok {
			t.Fatalf("does not survive: %+v, %v", again, err)
		}
	})
}

const (
	goldenID       = "n-j3mpqiwueglpswkle3za"
	goldenUnderlay = "fd49:ff89:50b4:1:67b0:bab2:2aff:e53f"
	goldenOverlay  = "fd49:ff89:50b4:2:67b0:bab2:2aff:e53f"
	goldenGateway  = "fd49:ff89:50b4:1:4a88:e609:7bf8:4ebf"
)

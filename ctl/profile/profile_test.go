package profile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"halo.internal/model/apitype"
)

func sample() Profile {
	p := Profile{Network: "north-ridge", NetworkKey: "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", Gateway: "https://192.0.2.7:8443", CA: "PEM"}
	p.Start(apitype.Tokens{AccessToken: "access-secret", RefreshToken: "refresh-secret", ExpiresIn: 3600, Username: "admin", Role: apitype.RoleAdmin}, time.Unix(1_800_000_000, 5))
	return p
}

func TestRoundTripForTheOwnerAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "north-ridge.json")
	if err := sample().Save(path); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
	dir, err := os.Stat(filepath.Dir(path))
	if err != nil || dir.Mode().Perm() != 0o700 {
		t.Errorf("directory's mode %v, %v; want 0700", dir.Mode(), err)
	}
	got, err := Load(path)
	if err != nil || got != sample() {
		t.Errorf("got %v, %v", got, err)
	}
	got.End()
	if got.AccessToken != "" || got.RefreshToken != "" || !got.AccessEnds.IsZero() || got.CA != "PEM" {
		t.Error("the end of a session must forget it and keep the CA")
	}
}

func TestAProfileDoesNotPrint(t *testing.T) {
	for _, s := range []string{fmt.Sprintf("%v", sample()), fmt.Sprintf("%+v", sample()), fmt.Sprintf("%#v", sample())} {
		if strings.Contains(s, "secret") {
			t.Errorf("printed as %q", s)
		}
	}
}

func TestDamageIsSaidNotGuessed(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"cut", `{"gateway":"https://`, "expected a profile"},
		{"unknown key", `{"gateway":"https://a","tokn":"x"}`, `unknown field "tokn"`},
		{"empty", `{}`, "no gateway"},
		{"huge", strings.Repeat(" ", maxSize+1), "at most"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "p.json")
			if err := os.WriteFile(path, []byte(tc.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Load(path); err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("got %v, want the path and %q", err, tc.want)
			}
		})
	}
}

// A refresh token is good once: of many commands at the same time, each must
// see what the one before it wrote.
func TestUpdatesTakeTurns(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p.json")
	p := sample()
	p.RefreshToken = ""
	if err := p.Save(path); err != nil {
		t.Fatal(err)
	}
	const many = 20
	var wg sync.WaitGroup
	for range many {
		wg.Go(func() {
			err := Update(path, func(p *Profile) error { p.RefreshToken += "x"; return nil })
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got, err := Load(path); err != nil || len(got.RefreshToken) != many {
		t.Errorf("%d of %d updates are there, %v", len(got.RefreshToken), many, err)
	}
	refused := errors.New("refused")
	if err := Update(path, func(p *Profile) error { p.End(); return refused }); !errors.Is(err, refused) {
		t.Errorf("got %v", err)
	}
	if got, err := Load(path); err != nil || got.RefreshToken == "" {
		t.Errorf("a failed update was written, %v", err)
	}
}

func TestNetworksKeepApart(t *testing.T) {
	d := Dir(filepath.Join(t.TempDir(), "halo"))
	if list, err := d.List(); err != nil || len(list) != 0 {
		t.Errorf("no directory: got %v, %v", list, err)
	}
	a, b := sample(), sample()
	b.NetworkKey = "//8CAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	for _, p := range []Profile{a, b, a} {
		if err := p.Save(d.PathFor(p)); err != nil {
			t.Fatal(err)
		}
	}
	if list, err := d.List(); err != nil || len(list) != 2 {
		t.Errorf("two networks of the same name: got %v, %v", list, err)
	}
	if got, err := Load(d.Path(a.Network)); err != nil || got.NetworkKey != a.NetworkKey {
		t.Errorf("the first network's profile is %v, %v", got, err)
	}
	if _, err := Load(d.Path("unknown")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

// TestChosen: one of several is meant where none is named, until it is forgotten with all that
// is beside it, and nothing else.
func TestChosen(t *testing.T) {
	d := Dir(t.TempDir())
	chosen := func(want string) {
		t.Helper()
		if got, err := d.Chosen(); err != nil || got != want {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	chosen("")
	north, south := sample(), sample()
	north.Network, south.Network = "chosen", "south" // the name of the file that says so, too
	for _, p := range []Profile{north, south} {
		if err := p.Save(d.Path(p.Network)); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Choose(d.Path("unknown")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	chosen("")
	for _, p := range []Profile{south, north} {
		if err := d.Choose(d.Path(p.Network)); err != nil {
			t.Fatal(err)
		}
		chosen(d.Path(p.Network))
	}
	var want []string
	for name, stays := range map[string]bool{"chosen.operator": false, "chosen.json.lock": false, "chosen-2.json": true, "chosen-2.nodes": true, "south.operator": true, "south.json": true} {
		if err := os.WriteFile(filepath.Join(string(d), name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if stays {
			want = append(want, name)
		}
	}
	if err := d.Remove(d.Path("chosen")); err != nil {
		t.Fatal(err)
	}
	chosen("")
	var got []string
	entries, err := os.ReadDir(string(d))
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if slices.Sort(want); err != nil || !slices.Equal(got, want) {
		t.Errorf("left are %q, %v, want %q", got, err, want)
	}
	if err := d.Remove(d.Path("chosen")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	for _, text := range []string{"", "\n", "../../etc/passwd", strings.Repeat("x", 1<<20), "gone\n"} {
		if err := os.WriteFile(filepath.Join(string(d), "chosen"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		chosen("")
	}
}

// A haloctl that renews a session while another forgets the network, or waits to, must not
// bring it back.
func TestWhatIsForgottenStaysSo(t *testing.T) {
	for range 50 {
		d := Dir(t.TempDir())
		path := d.Path("north")
		if err := sample().Save(path); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		begun := make(chan struct{})
		wg.Go(func() {
			err := Update(path, func(p *Profile) error {
				close(begun)
				time.Sleep(time.Millisecond) // the gateway's answer
				p.RefreshToken = "renewed"
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
		<-begun
		for range 4 {
			wg.Go(func() {
				err := Update(path, func(p *Profile) error { p.RefreshToken += "x"; return nil })
				if err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Error(err)
				}
			})
		}
		if err := d.Remove(path); err != nil {
			t.Error(err)
		}
		wg.Wait()
		if left, err := os.ReadDir(string(d)); err != nil || len(left) != 0 {
			t.Fatalf("left are %v, %v", left, err)
		}
	}
}

// A name must not be taken for a flag; that of a file that is there stays what it is.
func TestNoNameIsAFlag(t *testing.T) {
	d := Dir(t.TempDir())
	a, b := sample(), sample()
	b.NetworkKey = "//8CAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	if err := a.Save(d.PathFor(a)); err != nil {
		t.Fatal(err)
	}
	path := d.PathFor(b)
	if Name(path) != "net--8CAwQF-north-ridge" || d.Path(Name(path)) != path {
		t.Errorf("got %q, %q", path, d.Path(Name(path)))
	}
	long := d.Path("-" + strings.Repeat("x", 300))
	if err := b.Save(long); err != nil {
		t.Fatal(err)
	}
	if err := d.Choose(long); err != nil {
		t.Fatal(err)
	}
	if got, err := d.Chosen(); err != nil || got != long {
		t.Errorf("got %q, %v, want %q", got, err, long)
	}
	old := filepath.Join(string(d), "--8CAwQF-north-ridge.json")
	if err := b.Save(old); err != nil {
		t.Fatal(err)
	}
	if d.PathFor(b) != old || d.Path("--8CAwQF-north-ridge") != old {
		t.Errorf("got %q, %q, want %q", d.PathFor(b), d.Path("--8CAwQF-north-ridge"), old)
	}
	if err := d.Choose(old); err != nil {
		t.Fatal(err)
	}
	if got, err := d.Chosen(); err != nil || got != old {
		t.Errorf("got %q, %v, want %q", got, err, old)
	}
}

func FuzzPath(f *testing.F) {
	f.Add("north-ridge")
	f.Add("../../etc/passwd")
	f.Add("")
	f.Add("/8CA")
	f.Add(strings.Repeat("x", 300))
	f.Fuzz(func(t *testing.T, network string) {
		path := Dir("profiles").Path(network)
		if filepath.Dir(path) != "profiles" || filepath.Base(path) == suffix || filepath.Base(path)[0] == '-' || len(filepath.Base(path)) > 255 {
			t.Fatalf("network %q has the profile %q", network, path)
		}
	})
}

func TestAuditMark(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "north-ridge.audit")
	if _, err := LoadAuditMark(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	want := AuditMark{NetworkKey: sample().NetworkKey, ID: 7, Hash: "abcd", Time: time.Unix(1_800_000_000, 0).UTC()}
	if err := want.Save(path); err != nil {
		t.Fatal(err)
	}
	if got, err := LoadAuditMark(path); err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
	for _, text := range []string{"", `{"id":`, `{"id":1,"hash":"xyz"}`, strings.Repeat(" ", maxSize+1)} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadAuditMark(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%.20q: got %v, want the path", text, err)
		}
	}
}

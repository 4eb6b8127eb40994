package seal

import (
	"bytes"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"halo.internal/gateway/store"
)

func load(t *testing.T, dir string) (*Box, string) {
	t.Helper()
	b, lost, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return b, lost
}

func TestASecretIsBoundToItsPlaceAndKey(t *testing.T) {
	box, _ := load(t, t.TempDir())
	other, _ := load(t, t.TempDir())
	secret := []byte("a password of a switch")
	sealed := box.Seal("systems/7", secret)
	if again := box.Seal("systems/7", secret); bytes.Equal(sealed, again) || bytes.Contains(sealed, secret) {
		t.Error("the same secret is sealed alike, or not at all")
	}
	if got, err := box.Open("systems/7", sealed); err != nil || !bytes.Equal(got, secret) {
		t.Fatalf("got %q, %v", got, err)
	}
	later := bytes.Clone(sealed)
	later[0]++
	for name, try := range map[string]func() ([]byte, error){
		"another place": func() ([]byte, error) { return box.Open("systems/8", sealed) },
		"another key":   func() ([]byte, error) { return other.Open("systems/7", sealed) },
		"another form":  func() ([]byte, error) { return box.Open("systems/7", later) },
		"cut short":     func() ([]byte, error) { return box.Open("systems/7", sealed[:20]) },
		"nothing":       func() ([]byte, error) { return box.Open("systems/7", nil) },
	} {
		if got, err := try(); !errors.Is(err, ErrLost) || got != nil {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
	for at := range sealed {
		flipped := bytes.Clone(sealed)
		flipped[at] ^= 1
		if _, err := box.Open("systems/7", flipped); !errors.Is(err, ErrLost) {
			t.Errorf("octet %d flipped: got %v", at, err)
		}
	}
}

func TestTheKeyOutlivesTheLossOfEitherCopy(t *testing.T) {
	dir := t.TempDir()
	box, lost := load(t, dir)
	if lost != "" {
		t.Fatalf("a first start says that something is lost: %s", lost)
	}
	sealed := box.Seal("x", []byte("secret"))
	files := []string{filepath.Join(dir, KeyFile), filepath.Join(dir, secondFile)}
	good, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func(string) error{
		"removed": os.Remove,
		"cut":     func(p string) error { return os.Truncate(p, 30) },
		"emptied": func(p string) error { return os.Truncate(p, 0) },
		"flipped": func(p string) error {
			b := bytes.Clone(good)
			b[20] ^= 1
			return os.WriteFile(p, b, 0o600)
		},
		"huge": func(p string) error { return os.WriteFile(p, make([]byte, maxFile+1), 0o600) },
	} {
		for _, f := range files {
			if err := damage(f); err != nil {
				t.Fatal(err)
			}
			box, lost := load(t, dir)
			if got, err := box.Open("x", sealed); lost != "" || err != nil || string(got) != "secret" {
				t.Fatalf("%s %s: got %q, %v, lost %q", f, name, got, err, lost)
			}
			for _, f := range files {
				b, err := os.ReadFile(f)
				info, statErr := os.Stat(f)
				if err := errors.Join(err, statErr); err != nil || !bytes.Equal(b, good) || info.Mode().Perm() != 0o600 {
					t.Errorf("%s %s: not put right: %v", f, name, err)
				}
			}
		}
	}
	for _, f := range files {
		if err := os.Truncate(f, 40); err != nil {
			t.Fatal(err)
		}
	}
	box, lost = load(t, dir)
	if _, err := box.Open("x", sealed); lost == "" || !errors.Is(err, ErrLost) {
		t.Errorf("both damaged: lost %q, %v", lost, err)
	}
	if strings.Contains(lost, strings.Fields(string(good))[1][:8]) {
		t.Errorf("it repeats the key: %s", lost)
	}
	if _, lost := load(t, dir); lost != "" {
		t.Errorf("the next start says so again: %s", lost)
	}
	if _, _, err := Load(filepath.Join(dir, "no", "folder")); err == nil {
		t.Error("a key that cannot be kept is used")
	}
}

// A database as a former release left it, an update, one that is undone, and the
// update again.
func TestWhatAFormerReleaseKeptInTheClearIsTaken(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "config.db")
	db, _, err := store.OpenConfig(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	box, _ := load(t, dir)
	s := New(db, box)
	for _, clear := range []string{"the first key in the clear", "the key of a release that was gone back to"} {
		for range 20 { // enough to move it about
			if err := db.PutSetting(t.Context(), "key", []byte(clear)); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(db.Copy(t.Context()), db.Copy(t.Context())); err != nil {
			t.Fatal(err)
		}
		if err := s.Adopt(t.Context(), "key", "another"); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Get(t.Context(), "key"); err != nil || string(got) != clear {
			t.Fatalf("got %q, %v", got, err)
		}
		lag, err := db.Lag(t.Context())
		if err != nil || !lag.Withdrawal {
			t.Errorf("the copies with the clear secret need not be replaced: %+v, %v", lag, err)
		}
		if err := db.Copy(t.Context()); err != nil {
			t.Fatal(err)
		}
		list, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			b, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil || bytes.Contains(b, []byte(clear)) {
				t.Errorf("%s still has it in the clear (%v)", e.Name(), err)
			}
		}
	}
	if _, err := s.Get(t.Context(), "another"); !errors.Is(err, ErrNone) {
		t.Errorf("one that never was: got %v", err)
	}
}

func TestSecretsThatCannotBeOpenedAreMadeAnew(t *testing.T) {
	dir := t.TempDir()
	db, _, err := store.OpenConfig(t.Context(), filepath.Join(dir, "config.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	box, _ := load(t, dir)
	s := New(db, box)
	initial := func(text string) func() []byte { return func() []byte { return []byte(text) } }
	for i, want := range []struct {
		secret string
		lost   bool
	}{{"one", false}, {"one", false}, {"three", true}, {"three", false}} {
		if i == 2 {
			other, _ := load(t, t.TempDir())
			s = New(db, other)
		}
		got, lost, err := s.Initial(t.Context(), "k", initial([]string{"one", "two", "three", "four"}[i]))
		if err != nil || string(got) != want.secret || lost != want.lost {
			t.Errorf("%d: got %q, lost %v, %v", i, got, lost, err)
		}
	}
	err = db.Write(t.Context(), func(tx *sql.Tx) error {
		return errors.Join(s.Delete(t.Context(), tx, "k"), s.Delete(t.Context(), tx, "none"))
	})
	if _, gone := s.Get(t.Context(), "k"); err != nil || !errors.Is(gone, ErrNone) {
		t.Errorf("got %v, %v", gone, err)
	}
}

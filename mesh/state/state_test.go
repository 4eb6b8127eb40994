package state

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"halo.internal/model/paths"
)

// memory is a vault in RAM.
type memory struct {
	m    map[string][]byte
	fail error
}

func (m *memory) Get(name string) ([]byte, error) {
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

func good(b []byte) error {
	if len(b) == 0 || b[0] != 'g' {
		return errors.New("not good")
	}
	return nil
}

func TestGet(t *testing.T) {
	for _, tc := range []struct {
		name        string
		file, vault string // empty: not there
		want        string
		err         error
		repaired    bool
	}{
		{"neither", "", "", "", fs.ErrNotExist, false},
		{"both", "g1", "g2", "g1", nil, false},
		{"file alone", "g1", "", "g1", nil, true},
		{"vault alone", "", "g2", "g2", nil, true},
		{"file damaged", "x", "g2", "g2", nil, true},
		{"vault damaged", "g1", "x", "g1", nil, true},
		{"both damaged", "x", "x", "", ErrDamaged, false},
		{"file damaged, vault empty", "x", "", "", ErrDamaged, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v := &memory{m: map[string][]byte{}}
			s := New(paths.Dir(t.TempDir()), v)
			if tc.file != "" {
				if err := os.WriteFile(s.Dir().File("value"), []byte(tc.file), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if tc.vault != "" {
				v.m["entry"] = []byte(tc.vault)
			}
			b, err := s.Get("value", "entry", good)
			if !errors.Is(err, tc.err) || err == nil && string(b) != tc.want {
				t.Fatalf("got %q, %v, want %q, %v", b, err, tc.want, tc.err)
			}
			if tc.repaired {
				file, _ := os.ReadFile(s.Dir().File("value"))
				if string(file) != tc.want || string(v.m["entry"]) != tc.want {
					t.Errorf("not repaired: file %q, vault %q", file, v.m["entry"])
				}
			}
		})
	}
}

func TestPutAndRemove(t *testing.T) {
	v := &memory{m: map[string][]byte{}}
	s := New(paths.Dir(filepath.Join(t.TempDir(), "halo")), v)
	if kept, err := s.Put("value", "entry", []byte("g")); !kept || err != nil {
		t.Fatalf("got %v, %v", kept, err)
	}
	if err := s.Remove("value", "entry"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get("value", "entry", good); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after removing: %v", err)
	}
	v.fail = errors.New("disk is gone")
	if kept, err := s.Put("value", "entry", []byte("g")); !kept || !errors.Is(err, v.fail) {
		t.Errorf("one place: got %v, %v, want it kept and the error", kept, err)
	}
}

// mount gives the test a file system of its own.
func mount(t *testing.T, fstype, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("none", dir, fstype, 0, options); err != nil {
		t.Fatalf("mount %s: %v", fstype, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestFailing(t *testing.T) {
	ram := mount(t, "tmpfs", "size=64k")
	if err := New(paths.Dir(ram), nil).Failing(); err == nil {
		t.Error("a file system in RAM counts as a card")
	}
	if err := New(paths.Dir(filepath.Join(ram, "none")), nil).Failing(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory that is not there: %v", err)
	}

	s := New(paths.Dir(ram), nil)
	big := make([]byte, 128<<10)
	kept, err := s.Put("value", "", big)
	if kept || !errors.Is(err, unix.ENOSPC) {
		t.Errorf("full: got %v, %v", kept, err)
	}
	if err := unix.Mount("none", ram, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if kept, err := s.Put("value", "", []byte("g")); kept || !errors.Is(err, unix.EROFS) {
		t.Errorf("read-only: got %v, %v", kept, err)
	}

	card := New(paths.Dir(t.TempDir()), nil)
	if err := card.Failing(); err != nil {
		t.Fatalf("a directory of this machine: %v", err)
	}
	card.NoteFile("value", errors.New("input/output error"))
	if err := card.Failing(); err == nil {
		t.Error("a write that failed is forgotten")
	}
	if _, err := card.Put("value", "", []byte("g")); err != nil {
		t.Fatal(err)
	}
	if err := card.Failing(); err != nil {
		t.Errorf("after the next write went well: %v", err)
	}
}

// Where the folder could not be synced, what was removed may come back after a power cut: the
// next removal, which finds nothing, syncs it.
func TestRemoveSyncsWhatWasRemovedBefore(t *testing.T) {
	s := New(paths.Dir(t.TempDir()), nil)
	if kept, err := s.Put("value", "", []byte("g")); !kept || err != nil {
		t.Fatalf("got %v, %v", kept, err)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := limit
	none.Cur = 0 // a folder is opened to be synced, and not to remove a file
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	first, second := s.Remove("value", ""), s.Remove("value", "")
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(first, unix.EMFILE) || !errors.Is(second, unix.EMFILE) {
		t.Errorf("unsynced: got %v, then %v", first, second)
	}
	for _, dir := range []paths.Dir{s.Dir(), paths.Dir(filepath.Join(string(s.Dir()), "none"))} {
		if err := New(dir, nil).Remove("value", ""); err != nil {
			t.Errorf("what is not there: %v", err)
		}
	}
}

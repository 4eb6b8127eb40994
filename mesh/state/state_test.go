package state

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"halo.internal/model/paths"
)

// memory is a vault in RAM.
type memory struct {
	m      map[string][]byte
	fail   error // of Put
	late   bool  // it fails after it has written
	unread error // of Get
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
	if m.fail == nil || m.late {
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
	worn := errors.New("input/output error")
	gone := seal(2, nil)
	for _, tc := range []struct {
		name      string
		file      string // empty: not there
		fileOrder uint64
		vault     []byte // nil: not there
		vaultErr  error
		want      string
		err       error
		repaired  bool // both have it then
	}{
		{name: "neither", err: fs.ErrNotExist},
		{name: "both, of an earlier version", file: "g1", vault: []byte("g2"), want: "g1", repaired: true},
		{name: "the same", file: "g1", fileOrder: 3, vault: seal(3, []byte("g1")), want: "g1", repaired: true},
		{name: "the same, the file without its order", file: "g1", vault: seal(3, []byte("g1")), want: "g1", repaired: true},
		{name: "the vault alone took the last", file: "g1", fileOrder: 3, vault: seal(4, []byte("g2")), want: "g2", repaired: true},
		{name: "the file alone took the last", file: "g1", fileOrder: 4, vault: seal(3, []byte("g2")), want: "g1", repaired: true},
		{name: "the file was copied", file: "g1", vault: seal(4, []byte("g2")), want: "g2", repaired: true},
		{name: "the vault is of an earlier version", file: "g1", fileOrder: 1, vault: []byte("g2"), want: "g1", repaired: true},
		{name: "an order beyond all", file: "g1", fileOrder: maxOrder + 1, vault: seal(4, []byte("g2")), want: "g2", repaired: true},
		{name: "file alone", file: "g1", want: "g1", repaired: true},
		{name: "vault alone", vault: []byte("g2"), want: "g2", repaired: true},
		{name: "file damaged", file: "x", vault: []byte("g2"), want: "g2", repaired: true},
		{name: "file damaged and later", file: "x", fileOrder: 5, vault: seal(4, []byte("g2")), want: "g2", repaired: true},
		{name: "vault damaged", file: "g1", vault: []byte("x"), want: "g1", repaired: true},
		{name: "vault damaged and later", file: "g1", fileOrder: 3, vault: seal(4, []byte("x")), want: "g1", repaired: true},
		{name: "vault cannot be read", file: "g1", fileOrder: 3, vault: seal(4, []byte("g2")), vaultErr: worn, want: "g1"},
		{name: "both damaged", file: "x", vault: []byte("x"), err: ErrDamaged},
		{name: "file damaged, vault has none", file: "x", err: ErrDamaged},
		{name: "file damaged, vault cannot be read", file: "x", vault: seal(4, []byte("g2")), vaultErr: worn, err: ErrUnread},
		{name: "no file, vault cannot be read", vault: seal(4, []byte("g2")), vaultErr: worn, err: ErrUnread},
		{name: "removed", vault: gone, err: fs.ErrNotExist},
		{name: "removed, the file stayed", file: "g1", fileOrder: 1, vault: gone, err: fs.ErrNotExist},
		{name: "removed, a damaged file stayed", file: "x", fileOrder: 1, vault: gone, err: fs.ErrNotExist},
		{name: "put after it was removed", file: "g1", fileOrder: 3, vault: gone, want: "g1", repaired: true},
		{name: "removed by an earlier version, put since", file: "g1", vault: []byte{}, want: "g1", repaired: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v := &memory{m: map[string][]byte{}, unread: tc.vaultErr}
			s := New(paths.Dir(t.TempDir()), v)
			if tc.file != "" {
				if err := s.writeFile("value", tc.fileOrder, []byte(tc.file)); err != nil {
					t.Fatal(err)
				}
			}
			if tc.vault != nil {
				v.m["entry"] = tc.vault
			}
			var read string
			b, err := s.Get("value", "entry", func(b []byte) error { read = string(b); return good(b) })
			if !errors.Is(err, tc.err) || err == nil && string(b) != tc.want {
				t.Fatalf("got %q, %v, want %q, %v", b, err, tc.want, tc.err)
			}
			if err == nil && read != tc.want {
				t.Errorf("it read %q last, and returned %q", read, tc.want)
			}
			file, fileErr := os.ReadFile(s.Dir().File("value"))
			if vault := readVault(v, "entry"); tc.repaired && (string(file) != tc.want || string(vault.value) != tc.want) {
				t.Errorf("not repaired: file %q, vault %q", file, vault.value)
			}
			if tc.err == fs.ErrNotExist && !errors.Is(fileErr, fs.ErrNotExist) {
				t.Error("what was removed has its file")
			}
			if tc.vaultErr != nil && string(v.m["entry"]) != string(tc.vault) {
				t.Error("a vault that could not be read was written over")
			}
		})
	}
}

// worn is a file system that takes nothing while it is told to, and a vault likewise.
type worn struct {
	t   *testing.T
	dir string
	v   *memory
}

func newWorn(t *testing.T) *worn {
	return &worn{t, mount(t, "tmpfs", "size=1m"), &memory{m: map[string][]byte{}}}
}

// starts returns the store of a device that starts with it.
func (w *worn) starts() *Store { return New(paths.Dir(w.dir), w.v) }

func (w *worn) takes(file, vault bool) {
	w.t.Helper()
	flags := uintptr(unix.MS_REMOUNT)
	if !file {
		flags |= unix.MS_RDONLY
	}
	if err := unix.Mount("none", w.dir, "", flags, ""); err != nil {
		w.t.Fatal(err)
	}
	if w.v.fail = nil; !vault {
		w.v.fail = errors.New("input/output error")
	}
}

// What one place alone has taken is there after a power cut, whichever it was and whatever
// the other has, and what was removed is not.
func TestTheLastWriteCounts(t *testing.T) {
	both := [2]bool{true, true}
	for name, tc := range map[string]struct {
		file, vault bool
	}{"the file alone": {true, false}, "the vault alone": {false, true}} {
		t.Run(name, func(t *testing.T) {
			w := newWorn(t)
			for _, value := range []string{"g1", "g2", "g1"} { // it may become what it was
				w.takes(both[0], both[1])
				if kept, err := w.starts().Put("value", "entry", []byte("g0")); !kept || err != nil {
					t.Fatalf("got %v, %v", kept, err)
				}
				w.takes(tc.file, tc.vault)
				if kept, err := w.starts().Put("value", "entry", []byte(value)); !kept || err == nil {
					t.Fatalf("got %v, %v, want it kept, and an error", kept, err)
				}
				for range 2 { // the first repairs nothing, since it cannot
					if b, err := w.starts().Get("value", "entry", good); err != nil || string(b) != value {
						t.Errorf("got %q, %v, want %q", b, err, value)
					}
				}
				err := w.starts().Remove("value", "entry")
				if err == nil {
					t.Error("it was removed where nothing can be")
				}
				b, err := w.starts().Get("value", "entry", good)
				if there := err == nil && string(b) == value; there == tc.vault || tc.vault && !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("after it was removed: %q, %v", b, err)
				}
			}
		})
	}
}

// A device that starts without its vault, and has it again at the next start, goes by
// what it has written meanwhile.
func TestAVaultThatComesBack(t *testing.T) {
	w := newWorn(t)
	for i, s := range []*Store{w.starts(), w.starts(), New(paths.Dir(w.dir), nil)} {
		if kept, err := s.Put("value", "entry", fmt.Appendf(nil, "g%d", i)); !kept || err != nil {
			t.Fatalf("got %v, %v", kept, err)
		}
	}
	if b, err := w.starts().Get("value", "entry", good); err != nil || string(b) != "g2" {
		t.Errorf("got %q, %v", b, err)
	}
}

// Whatever fails, and whenever power goes, what is read is what was kept last, or what
// was tried since.
func TestAnyOrderOfFailures(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		w := newWorn(t)
		s, may := w.starts(), map[string]bool{"": true} // empty: none
		var story []string
		for step := range 200 {
			file, vault := r.IntN(3) > 0, r.IntN(3) > 0
			w.takes(file, vault)
			w.v.late = r.IntN(3) == 0
			what := fmt.Sprintf("file %v, vault %v, written all the same %v: ", file, vault, w.v.late)
			switch r.IntN(4) {
			case 0, 1:
				value := fmt.Sprintf("g%d", r.IntN(4))
				kept, _ := s.Put("value", "entry", []byte(value))
				if kept {
					clear(may)
				}
				may[value] = true
				what += fmt.Sprintf("put %s, kept %v", value, kept)
			case 2:
				err := s.Remove("value", "entry")
				if err == nil {
					clear(may)
				}
				may[""] = true
				what += fmt.Sprintf("removed, %v", err)
			case 3:
				s = w.starts()
				b, err := s.Get("value", "entry", good)
				what += fmt.Sprintf("started, %q, %v", b, err)
				if err != nil && !errors.Is(err, fs.ErrNotExist) || !may[string(b)] {
					t.Fatalf("seed %d, step %d: expected one of %v\n%s\n%s", seed, step, may, strings.Join(story, "\n"), what)
				}
				clear(may)
				may[string(b)] = true
			}
			story = append(story, what)
		}
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

// A vault that takes nothing and has none does not keep what the file alone has kept.
func TestRemoveWhereTheVaultHasNone(t *testing.T) {
	for name, entry := range map[string][]byte{"never": nil, "removed before": seal(1, nil)} {
		t.Run(name, func(t *testing.T) {
			v := &memory{m: map[string][]byte{}, fail: errors.New("input/output error")}
			if entry != nil {
				v.m["entry"] = entry
			}
			dir := paths.Dir(t.TempDir())
			if kept, err := New(dir, v).Put("value", "entry", []byte("g")); !kept || err == nil {
				t.Fatalf("got %v, %v, want it kept, and an error", kept, err)
			}
			if err := New(dir, v).Remove("value", "entry"); err != nil {
				t.Fatal(err)
			}
			if b, err := New(dir, v).Get("value", "entry", good); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("after it was removed: %q, %v", b, err)
			}
		})
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
	worn := errors.New("input/output error")
	if err := card.Try("value", func() error { return worn }); err != worn {
		t.Fatal(err)
	}
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

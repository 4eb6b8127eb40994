package state

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/model/paths"
)

// frail is a card that takes nothing while it is told to: a file is where its folder
// should be.
type frail struct {
	t    *testing.T
	dir  string
	mu   sync.Mutex // guards what follows
	v    *memory
	puts int // tries to write to the vault
}

func (f *frail) Get(name string) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.v.Get(name)
}

func (f *frail) Put(name string, b []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.puts++
	return f.v.Put(name, b)
}

func newFrail(t *testing.T) *frail {
	return &frail{t: t, dir: filepath.Join(t.TempDir(), "halo"), v: &memory{m: map[string][]byte{}}}
}

func (f *frail) starts() *Store { return New(paths.Dir(f.dir), f) }

func (f *frail) takes(file, vault bool) {
	f.t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := os.Stat(f.dir)
	switch {
	case err == nil && !info.IsDir() && file:
		err = os.Remove(f.dir)
	case errors.Is(err, fs.ErrNotExist) && !file:
		err = os.WriteFile(f.dir, nil, 0o600)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		f.t.Fatal(err)
	}
	if f.v.fail = nil; !vault {
		f.v.fail = errors.New("input/output error")
	}
}

// has returns what a device that starts with the card finds; empty: nothing.
func (f *frail) has() string {
	f.t.Helper()
	b, err := f.starts().Get("value", "entry", good)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		f.t.Error(err)
	}
	return string(b)
}

// runs has the store try again until the function it returns is called.
func runs(t *testing.T, s *Store) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() { s.Run(ctx) })
	return func() { cancel(); done.Wait() }
}

// What a card refuses for a moment is there once it takes it again, and nothing is said to
// be failing then; what was given up or replaced meanwhile does not come back.
func TestWhatTheCardHasNotTakenIsTriedAgain(t *testing.T) {
	keep := func(value string, want bool) func(*testing.T, *Store) {
		return func(t *testing.T, s *Store) {
			if kept, err := s.Keep("value", "entry", []byte(value)); kept != want || err == nil {
				t.Fatalf("got %v, %v, want kept %v, and an error", kept, err, want)
			}
		}
	}
	put := func(t *testing.T, s *Store) {
		if kept, err := s.Put("value", "entry", []byte("g9")); kept || err == nil {
			t.Fatalf("got %v, %v", kept, err)
		}
	}
	remove := func(_ *testing.T, s *Store) { _ = s.Remove("value", "entry") }
	get := func(_ *testing.T, s *Store) { _, _ = s.Get("value", "entry", good) }
	for _, tc := range []struct {
		name  string
		vault bool // takes it
		does  []func(*testing.T, *Store)
		want  string
	}{
		{"in no place", false, []func(*testing.T, *Store){keep("g1", false)}, "g1"},
		{"in the vault alone", true, []func(*testing.T, *Store){keep("g1", true)}, "g1"},
		{"the later of two", false, []func(*testing.T, *Store){keep("g1", false), keep("g2", false)}, "g2"},
		{"read meanwhile", false, []func(*testing.T, *Store){keep("g1", false), get}, "g1"},
		{"removed meanwhile", false, []func(*testing.T, *Store){keep("g1", false), remove}, ""},
		{"given up", false, []func(*testing.T, *Store){put}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFrail(t)
				s := f.starts()
				defer runs(t, s)()
				f.takes(false, tc.vault)
				for _, do := range tc.does {
					do(t, s)
				}
				time.Sleep(againFirst + time.Second)
				if s.Failing() == nil && tc.name != "removed meanwhile" {
					t.Error("a card that takes nothing is said to be well")
				}
				f.takes(true, true)
				time.Sleep(2 * againFirst)
				synctest.Wait()
				if _, err := os.Stat(f.dir); tc.want != "" && err != nil {
					t.Fatal(err)
				}
				file := readFile(s.dir.File("value"))
				if got := f.has(); got != tc.want || string(file.value) != tc.want {
					t.Errorf("the card has %q, the file %q, want %q", got, file.value, tc.want)
				}
				if err := os.MkdirAll(f.dir, 0o755); err != nil {
					t.Fatal(err)
				}
				if err := s.Failing(); err != nil {
					t.Errorf("the card is well again: %v", err)
				}
				if list, err := filepath.Glob(filepath.Join(f.dir, ".*")); err != nil || len(list) > 0 {
					t.Errorf("it left %q, %v", list, err)
				}
			})
		})
	}
}

// What was written since is not taken back.
func TestALaterWriteIsNotTakenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFrail(t)
		s := f.starts()
		f.takes(false, false)
		if kept, err := s.Keep("value", "entry", []byte("g1")); kept || err == nil {
			t.Fatalf("got %v, %v", kept, err)
		}
		f.takes(true, true)
		if kept, err := s.Put("value", "entry", []byte("g2")); !kept || err != nil {
			t.Fatalf("got %v, %v", kept, err)
		}
		stop := runs(t, s)
		time.Sleep(time.Hour)
		stop()
		if got := f.has(); got != "g2" {
			t.Errorf("the card has %q", got)
		}
	})
}

// A dead card is not written to death: of what it refuses, it gets each a few times an
// hour. The last try is when the process ends.
func TestADeadCard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFrail(t)
		s := f.starts()
		f.takes(false, false)
		stop := runs(t, s)
		if kept, err := s.Keep("value", "entry", []byte("g1")); kept || err == nil {
			t.Fatalf("got %v, %v", kept, err)
		}
		time.Sleep(24*time.Hour + time.Minute)
		synctest.Wait()
		f.mu.Lock()
		if most := int(24*time.Hour/againLast) + 5; f.puts > most || f.puts < most/2 {
			t.Errorf("it was tried %d times in a day, want at most %d", f.puts, most)
		}
		f.mu.Unlock()
		f.takes(true, true)
		stop()
		if got := f.has(); got != "g1" {
			t.Errorf("at the end the card has %q", got)
		}
	})
}

// What fails while something else has failed for long is tried again soon.
func TestAFreshFailureDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFrail(t)
		s := f.starts()
		stop := runs(t, s)
		defer stop()
		if err := s.Try("stuck", func() error { return errors.New("input/output error") }); err == nil {
			t.Fatal("it was taken")
		}
		time.Sleep(24*time.Hour + time.Minute)
		f.takes(false, false)
		if kept, err := s.Keep("value", "entry", []byte("g1")); kept || err == nil {
			t.Fatalf("got %v, %v", kept, err)
		}
		f.takes(true, true)
		time.Sleep(againFirst + time.Second)
		synctest.Wait()
		if got := f.has(); got != "g1" {
			t.Errorf("after %s the card has %q", againFirst, got)
		}
	})
}

// A card that does not take a value's file is not well because it takes others.
func TestAFileThatCannotBeReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(paths.Dir(filepath.Join(t.TempDir(), "halo")), nil)
		defer runs(t, s)()
		file := s.dir.File("value")
		if err := os.MkdirAll(filepath.Join(file, "in the way"), 0o755); err != nil {
			t.Fatal(err)
		}
		if kept, err := s.Put("value", "", []byte("g1")); kept || err == nil {
			t.Fatalf("got %v, %v", kept, err)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if s.Failing() == nil {
			t.Error("it is said to be well")
		}
	})
}

package choice

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"halo.internal/hal/card"
	"halo.internal/image/layout"
	"halo.internal/update/slots"
)

const slotTXT = layout.BootOffset + 1<<20

func keeper(t *testing.T, txt string) (Keeper, *os.File) {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(layout.BootOffset + layout.BootSize); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte(txt), slotTXT); err != nil {
		t.Fatal(err)
	}
	return Keeper{Disk: f, SlotTXT: func() (int64, error) { return slotTXT, nil }}, f
}

func TestStoreWritesTheLineInPlace(t *testing.T) {
	k, f := keeper(t, layout.SlotLine('a')+"behind")
	s, err := k.Load(slots.A)
	if err != nil || s != slots.New() {
		t.Fatalf("fresh card: got %+v, %v", s, err)
	}
	s, ok := s.Fail(slots.A, "modules")
	if !ok {
		t.Fatal("no fall-back")
	}
	if err := k.Store(s); err != nil {
		t.Fatal(err)
	}
	if w, err := k.Written(); err != nil || w != slots.B {
		t.Errorf("slot.txt: got %s, %v", w, err)
	}
	if got, err := k.Load(slots.B); err != nil || got != s {
		t.Errorf("state: got %+v, %v, want %+v", got, err, s)
	}
	b := make([]byte, len(layout.SlotLine('b')+"behind"))
	if _, err := f.ReadAt(b, slotTXT); err != nil || string(b) != layout.SlotLine('b')+"behind" {
		t.Errorf("sector: got %q, %v", b, err)
	}
}

func TestStoreKeepsTheStateWhenSlotTXTIsGone(t *testing.T) {
	k, f := keeper(t, "kernel=vmlinuz\n")
	s := slots.State{Active: slots.B, Tries: 2}
	if err := k.Store(s); err == nil {
		t.Fatal("somebody else's sector was overwritten")
	}
	b := make([]byte, 15)
	if _, err := f.ReadAt(b, slotTXT); err != nil || string(b) != "kernel=vmlinuz\n" {
		t.Errorf("sector: got %q, %v", b, err)
	}
	if got, err := k.Load(slots.A); err != nil || got != s {
		t.Errorf("state: got %+v, %v, want %+v", got, err, s)
	}
	for _, at := range []int64{0, layout.BootOffset + 7, layout.BootOffset + layout.BootSize} {
		k.SlotTXT = func() (int64, error) { return at, nil }
		if _, err := k.Written(); err == nil {
			t.Errorf("offset %d was believed", at)
		}
	}
}

func TestLoadFromRottenSectors(t *testing.T) {
	k, f := keeper(t, layout.SlotLine('a'))
	for _, at := range []int64{1 << 20, 2 << 20} {
		if _, err := f.WriteAt([]byte("rot"), at); err != nil {
			t.Fatal(err)
		}
	}
	s, err := k.Load(slots.B)
	if !errors.Is(err, card.ErrDamaged) {
		t.Errorf("got %v, want ErrDamaged", err)
	}
	if s.Active != slots.B || !s.Committed {
		t.Errorf("got %+v, want the running slot, committed", s)
	}
}

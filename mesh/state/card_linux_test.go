package state

import (
	"errors"
	"io/fs"
	"testing"

	"halo.internal/hal/card/disktest"
	"halo.internal/model/paths"
)

// What was put is there after a power cut, and what was removed does not come back.
func TestCutCard(t *testing.T) {
	disk := disktest.New(t)
	s := New(paths.Dir(disk.Dir), nil)
	found := func() error {
		_, err := New(paths.Dir(disk.Cut(t).Dir), nil).Get("value", "", good)
		return err
	}
	for range 2 {
		if kept, err := s.Put("value", "", []byte("g")); !kept || err != nil {
			t.Fatalf("got %v, %v", kept, err)
		}
		if err := found(); err != nil {
			t.Errorf("what was put: %v", err)
		}
		if err := s.Remove("value", ""); err != nil {
			t.Fatal(err)
		}
		if err := found(); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("what was removed: %v", err)
		}
	}
}

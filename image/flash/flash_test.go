package flash

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"halo.internal/image/layout"
)

const imageSize = layout.PermStart + 8<<20

// sparse makes a file of that size with some marks.
func sparse(t *testing.T, size int64, marks map[int64]string) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for at, text := range marks {
		if _, err := f.WriteAt([]byte(text), at); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

var marks = map[int64]string{
	0: "table", 5 << 20: "boot", layout.RootAStart: "root a", layout.RootAStart + 9<<20 + 5: "end of root a",
	layout.RootBStart: "root b", layout.PermStart: "perm", imageSize - 5: "table",
}

func at(t *testing.T, f *os.File, off int64, n int) string {
	t.Helper()
	b := make([]byte, n)
	if _, err := f.ReadAt(b, off); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestWrite(t *testing.T) {
	image := sparse(t, imageSize, marks)
	const vault = 1<<20 + 256<<10
	card := sparse(t, imageSize+1<<20, map[int64]string{
		vault: "an old vault", layout.PermStart + 4096: "old perm", layout.RootAStart + 8<<20: "old root", layout.RootBStart + 300<<20: "unread",
	})
	flushed, last := false, 0.0
	err := Write(context.Background(), card, image, imageSize, func() error { flushed = true; return nil }, func(share float64) {
		if share < last {
			t.Errorf("progress went back from %f to %f", last, share)
		}
		last = share
	})
	if err != nil {
		t.Fatal(err)
	}
	if !flushed || last != 1 {
		t.Errorf("flushed %v, progress ended at %f", flushed, last)
	}
	for off, want := range marks {
		if got := at(t, card, off, len(want)); got != want {
			t.Errorf("at %d: got %q, want %q", off, got, want)
		}
	}
	for _, off := range []int64{vault, layout.PermStart + 4096, layout.RootAStart + 8<<20} {
		if got := at(t, card, off, 5); got != "\x00\x00\x00\x00\x00" {
			t.Errorf("at %d the old card shines through: %q", off, got)
		}
	}
	if got := at(t, card, layout.RootBStart+300<<20, 6); got != "unread" {
		t.Errorf("the unused end of a root was written: %q", got)
	}
}

// worn forgets what is written to one place.
type worn struct {
	*os.File
	at int64
}

func (w worn) ReadAt(b []byte, off int64) (int, error) {
	n, err := w.File.ReadAt(b, off)
	if off <= w.at && w.at < off+int64(n) {
		b[w.at-off] ^= 0x10
	}
	return n, err
}

func TestWornCardIsFound(t *testing.T) {
	image := sparse(t, imageSize, marks)
	card := worn{sparse(t, imageSize, nil), layout.RootAStart + 9<<20}
	err := Write(context.Background(), card, image, imageSize, func() error { return nil }, func(float64) {})
	if !errors.Is(err, ErrVerify) {
		t.Errorf("got %v, want ErrVerify", err)
	}
}

func TestWriteStops(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	image, card := sparse(t, imageSize, marks), sparse(t, imageSize, nil)
	err := Write(ctx, card, image, imageSize, func() error { return nil }, func(float64) { cancel() })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want it to stop", err)
	}
	if err := Write(context.Background(), card, image, 1<<20, nil, nil); err == nil {
		t.Error("a file that is no image: got no error")
	}
}

func TestImageRefusesFolders(t *testing.T) {
	if _, _, err := Image(t.TempDir()); err == nil {
		t.Error("got no error")
	}
	f := sparse(t, 4096, nil)
	g, size, err := Image(f.Name())
	if err != nil || size != 4096 {
		t.Fatalf("got %d, %v", size, err)
	}
	var b [1]byte
	if _, err := g.ReadAt(b[:], 0); err != nil || !bytes.Equal(b[:], []byte{0}) {
		t.Errorf("got %v, %v", b, err)
	}
	if err := g.Close(); err != nil {
		t.Error(err)
	}
}

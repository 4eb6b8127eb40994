package flash

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"halo.internal/image/layout"
)

const imageSize = layout.PermStart + 8<<20

// memory is a disk that keeps only what is not zero.
type memory struct {
	pages map[int64][]byte
	size  int64
}

const page = 64 << 10

// each calls f for the parts of b, which lies at off, page by page.
func (m *memory) each(b []byte, off int64, f func(part []byte, number, in int64)) (int, error) {
	if off+int64(len(b)) > m.size {
		return 0, io.ErrUnexpectedEOF
	}
	for done := int64(0); done < int64(len(b)); {
		at := off + done
		n := min(page-at%page, int64(len(b))-done)
		f(b[done:done+n], at/page, at%page)
		done += n
	}
	return len(b), nil
}

func (m *memory) ReadAt(b []byte, off int64) (int, error) {
	return m.each(b, off, func(part []byte, number, in int64) {
		clear(part)
		if p, ok := m.pages[number]; ok {
			copy(part, p[in:])
		}
	})
}

func (m *memory) WriteAt(b []byte, off int64) (int, error) {
	zero := make([]byte, page)
	return m.each(b, off, func(part []byte, number, in int64) {
		if _, ok := m.pages[number]; !ok {
			if bytes.Equal(part, zero[:len(part)]) {
				return
			}
			m.pages[number] = make([]byte, page)
		}
		copy(m.pages[number][in:], part)
	})
}

func (m *memory) Sync() error { return nil }

// disk makes a disk of that size with some marks.
func disk(t *testing.T, size int64, marks map[int64]string) *memory {
	t.Helper()
	m := &memory{pages: map[int64][]byte{}, size: size}
	for at, text := range marks {
		if _, err := m.WriteAt([]byte(text), at); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

var marks = map[int64]string{
	0: "table", 5 << 20: "boot", layout.RootAStart: "root a", layout.RootAStart + 9<<20 + 5: "end of root a",
	layout.RootBStart: "root b", layout.PermStart: "perm", imageSize - 5: "table",
}

func at(t *testing.T, f io.ReaderAt, off int64, n int) string {
	t.Helper()
	b := make([]byte, n)
	if _, err := f.ReadAt(b, off); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestWrite(t *testing.T) {
	image := disk(t, imageSize, marks)
	const vault = 1<<20 + 256<<10
	card := disk(t, imageSize+1<<20, map[int64]string{
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
	*memory
	at int64
}

func (w worn) ReadAt(b []byte, off int64) (int, error) {
	n, err := w.memory.ReadAt(b, off)
	if off <= w.at && w.at < off+int64(n) {
		b[w.at-off] ^= 0x10
	}
	return n, err
}

func TestWornCardIsFound(t *testing.T) {
	image := disk(t, imageSize, marks)
	card := worn{disk(t, imageSize, nil), layout.RootAStart + 9<<20}
	err := Write(context.Background(), card, image, imageSize, func() error { return nil }, func(float64) {})
	if !errors.Is(err, ErrVerify) {
		t.Errorf("got %v, want ErrVerify", err)
	}
}

func TestWriteStops(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	image, card := disk(t, imageSize, marks), disk(t, imageSize, nil)
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
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, make([]byte, 4096), 0o644); err != nil {
		t.Fatal(err)
	}
	f, size, err := Image(path)
	if err != nil || size != 4096 {
		t.Fatalf("got %d, %v", size, err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

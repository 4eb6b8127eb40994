// Package flash writes a card image to a card reader: it refuses what does not
// look like a card, writes what the image holds, and reads it back past the
// page cache, because worn cards accept writes that they do not keep.
package flash

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"halo.internal/image/layout"
)

// chunk is the unit of writing and comparing.
const chunk = 4 << 20

// Target is a card, or a file that stands for one.
type Target interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// extent is a part of the image.
type extent struct{ from, to int64 }

// extents tells what must be written: all but the ends of the root partitions,
// which nothing reads. Everything else is written even where it is zero: an old
// card's vault or file systems must not shine through.
func extents(image io.ReaderAt, size int64) ([]extent, error) {
	if size < layout.PermStart {
		return nil, fmt.Errorf("image: expected at least %d octets, got %d", layout.PermStart, size)
	}
	list := []extent{{0, layout.RootAStart}}
	for _, start := range []int64{layout.RootAStart, layout.RootBStart} {
		end, err := used(image, start, start+layout.RootSize)
		if err != nil {
			return nil, err
		}
		list = append(list, extent{start, end})
	}
	return append(list, extent{layout.PermStart, size}), nil
}

// used returns where the zeros at the end of a part begin, rounded up to a
// chunk.
func used(image io.ReaderAt, from, to int64) (int64, error) {
	buf, zero := make([]byte, chunk), make([]byte, chunk)
	for to > from {
		at := max(from, to-chunk)
		b := buf[:to-at]
		if _, err := image.ReadAt(b, at); err != nil {
			return 0, err
		}
		if !bytes.Equal(b, zero[:len(b)]) {
			return to, nil
		}
		to = at
	}
	return from, nil
}

// Write writes the image of that size and verifies it. flush must make the
// following reads come from the card. progress is told the share done, 0 to 1,
// writing being the first half.
func Write(ctx context.Context, card Target, image io.ReaderAt, size int64, flush func() error, progress func(float64)) error {
	list, err := extents(image, size)
	if err != nil {
		return err
	}
	var total, done int64
	for _, e := range list {
		total += 2 * (e.to - e.from)
	}
	// each calls f with the image's content, a chunk at a time.
	each := func(f func(b []byte, at int64) error) error {
		buf := make([]byte, chunk)
		for _, e := range list {
			for at := e.from; at < e.to; at += chunk {
				if err := ctx.Err(); err != nil {
					return err
				}
				b := buf[:min(chunk, e.to-at)]
				if _, err := image.ReadAt(b, at); err != nil {
					return fmt.Errorf("read image at %d: %w", at, err)
				}
				if err := f(b, at); err != nil {
					return err
				}
				done += int64(len(b))
				progress(float64(done) / float64(total))
			}
		}
		return nil
	}
	err = each(func(b []byte, at int64) error {
		if _, err := card.WriteAt(b, at); err != nil {
			return fmt.Errorf("write card at %d: %w", at, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := errors.Join(card.Sync(), flush()); err != nil {
		return fmt.Errorf("write card: %w", err)
	}
	back := make([]byte, chunk)
	return each(func(b []byte, at int64) error {
		got := back[:len(b)]
		if _, err := card.ReadAt(got, at); err != nil {
			return fmt.Errorf("read card at %d: %w", at, err)
		}
		if !bytes.Equal(got, b) {
			return fmt.Errorf("%w in the %d octets at %d", ErrVerify, len(b), at)
		}
		return nil
	})
}

// ErrVerify is wrapped when the card does not give back what was written.
var ErrVerify = errors.New("the card gives back other octets than were written: it is worn out, counterfeit or badly seated")

// Image opens an image file and tells its size.
func Image(path string) (*os.File, int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s: expected an image file", path)
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, st.Size(), nil
}

package backup

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"

	"filippo.io/age"
)

// Reader reads a backup once, from its beginning to its end.
type Reader struct {
	Manifest Manifest

	source *source
	plain  *bufio.Reader // what age has opened
	gzip   *gzip.Reader
	tar    *tar.Reader
	sums   map[string]sum
	total  int64
}

// source remembers an error of where the file comes from: that is not the file's fault.
type source struct {
	io.Reader
	err error
}

// Read implements io.Reader.
func (s *source) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// magic is how files of age begin, and armour how they do as text.
const (
	magic  = "age-encryption.org/v1\n"
	armour = "-----BEGIN AGE"
)

// Open reads the manifest. The error wraps ErrPassphrase, ErrDamaged, ErrNotBackup or
// ErrNewer where the file is to blame; any other is that of r.
func Open(r io.Reader, passphrase string) (*Reader, error) {
	b := &Reader{source: &source{Reader: r}, sums: map[string]sum{}}
	in := bufio.NewReader(b.source)
	if head, err := in.Peek(len(magic)); string(head) != magic {
		switch {
		case b.source.err != nil:
			return nil, b.source.err
		case strings.HasPrefix(string(head), armour):
			return nil, fmt.Errorf("%w: it was turned into text (armoured); age turns it back", ErrNotBackup)
		case err != nil && strings.HasPrefix(magic, string(head)):
			return nil, fmt.Errorf("%w: it has %d octets", ErrDamaged, len(head))
		}
		return nil, ErrNotBackup
	}
	id, err := age.NewScryptIdentity(passphrase)
	if err != nil {
		return nil, fmt.Errorf("%w: it is empty", ErrPassphrase)
	}
	id.SetMaxWorkFactor(mostWork)
	plain, err := age.Decrypt(in, id)
	if err != nil {
		var wrong *age.NoIdentityMatchError
		switch {
		case b.source.err != nil:
			return nil, b.source.err
		case errors.As(err, &wrong):
			return nil, ErrPassphrase
		}
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return b.begin(plain)
}

// begin reads the manifest of what age has opened.
func (b *Reader) begin(plain io.Reader) (_ *Reader, err error) {
	b.plain = bufio.NewReader(plain)
	if b.gzip, err = gzip.NewReader(b.plain); err != nil {
		return nil, b.damage(err)
	}
	b.gzip.Multistream(false)
	b.tar = tar.NewReader(b.gzip)
	name, part, err := b.next()
	if err != nil {
		return nil, err
	}
	if name != partManifest {
		return nil, fmt.Errorf("%w: expected %s first, got %q", ErrNotBackup, partManifest, name)
	}
	text, err := b.small(part, name, maxManifest)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &b.Manifest); err != nil || b.Manifest.Format < 1 {
		return nil, fmt.Errorf("%w: its manifest cannot be read: %v", ErrNotBackup, err)
	}
	if f := b.Manifest.Format; f > Format {
		return nil, fmt.Errorf("%w: its format is %d, this release reads up to %d; it was made by %s: bring this device up to that first", ErrNewer, f, Format, b.Manifest.MadeBy.Version)
	}
	return b, nil
}

// damage says whose fault an error is.
func (b *Reader) damage(err error) error {
	switch {
	case b.source.err != nil:
		return b.source.err
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("%w: %w", ErrDamaged, err)
}

// next returns the next part.
func (b *Reader) next() (name string, part io.Reader, err error) {
	h, err := b.tar.Next()
	if err != nil {
		return "", nil, b.damage(err) // the last part ends the reading, before the tar does
	}
	_, twice := b.sums[h.Name]
	switch b.total += h.Size; {
	case h.Typeflag != tar.TypeReg || len(h.Name) > maxName || twice:
		return "", nil, fmt.Errorf("%w: %.130q is no part of one", ErrNotBackup, h.Name)
	case b.total > MaxSize || len(b.sums) >= MaxParts:
		return "", nil, fmt.Errorf("%w: expected at most %d octets in %d parts", ErrTooLarge, MaxSize, MaxParts)
	}
	return h.Name, b.tar, nil
}

// small reads a part that has to fit into RAM.
func (b *Reader) small(part io.Reader, name string, most int64) ([]byte, error) {
	var text bytes.Buffer
	counted, err := b.copy(&text, part, name, most)
	if err != nil {
		return nil, err
	}
	b.sums[name] = counted
	return text.Bytes(), nil
}

// copy copies a part and returns what there is to say of it.
func (b *Reader) copy(to io.Writer, part io.Reader, name string, most int64) (sum, error) {
	h := sha256.New()
	w := &writeError{Writer: to}
	n, err := io.Copy(io.MultiWriter(h, w), io.LimitReader(part, most+1))
	switch {
	case w.err != nil:
		return sum{}, w.err
	case err != nil:
		return sum{}, b.damage(err)
	case n > most:
		return sum{}, fmt.Errorf("%w: %s has more than %d octets", ErrTooLarge, name, most)
	}
	return sum{n, hex.EncodeToString(h.Sum(nil))}, nil
}

// writeError remembers that it was the writing which failed.
type writeError struct {
	io.Writer
	err error
}

// Write implements io.Writer.
func (w *writeError) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	if err != nil {
		w.err = err
	}
	return n, err
}

// Parts calls f for each part in turn, which returns where it goes, and how many octets
// may go there at most. What was written counts only when Parts has returned nil: all
// was there then and is what was saved. An error of f or of a writer is returned as it
// is; a writer that is an io.Closer is closed.
func (b *Reader) Parts(f func(name string) (to io.Writer, most int64, err error)) error {
	for {
		name, part, err := b.next()
		if err != nil {
			return err
		}
		if name == partSums {
			text, err := b.small(part, name, maxSums)
			if err != nil {
				return err
			}
			delete(b.sums, partSums) // it does not count itself
			if err := b.compare(text); err != nil {
				return err
			}
			return b.end()
		}
		to, most, err := f(name)
		if err != nil {
			return err
		}
		counted, err := b.copy(to, part, name, most)
		if c, ok := to.(io.Closer); ok {
			err = errors.Join(err, c.Close())
		}
		if err != nil {
			return err
		}
		b.sums[name] = counted
	}
}

func (b *Reader) compare(text []byte) error {
	var want map[string]sum
	if err := json.Unmarshal(text, &want); err != nil {
		return b.damage(err)
	}
	if !maps.Equal(want, b.sums) {
		return fmt.Errorf("%w: its parts are not those that %s says", ErrDamaged, partSums)
	}
	return nil
}

// end makes sure that nothing follows: where age has come to its end, the file was not
// cut.
func (b *Reader) end() error {
	if _, err := b.tar.Next(); !errors.Is(err, io.EOF) {
		return b.damage(errors.Join(err, errors.New("expected the end after the last part")))
	}
	// gzip's own sum comes after the tar's end.
	n, err := io.Copy(io.Discard, io.LimitReader(b.gzip, 1))
	if err == nil {
		_, err = b.plain.Peek(1)
	}
	if n == 0 && errors.Is(err, io.EOF) {
		return nil
	}
	return b.damage(errors.Join(err, errors.New("expected the end after the last part")))
}

package backup

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"filippo.io/age"
)

// Writer writes a backup. A file that was not closed is seen to be cut short.
type Writer struct {
	age  io.WriteCloser
	gzip *gzip.Writer
	tar  *tar.Writer
	when Manifest
	sums map[string]sum

	total int64
}

// NewWriter begins a backup. Deriving the key takes 32 MiB and up to some seconds.
func NewWriter(w io.Writer, passphrase string, m Manifest) (*Writer, error) {
	m.Format = Format
	return newWriter(w, passphrase, workFactor, m)
}

func newWriter(w io.Writer, passphrase string, work int, m Manifest) (*Writer, error) {
	r, err := age.NewScryptRecipient(passphrase)
	if err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	r.SetWorkFactor(work)
	a, err := age.Encrypt(w, r)
	if err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	z, err := gzip.NewWriterLevel(a, gzip.BestSpeed)
	if err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	b := &Writer{age: a, gzip: z, tar: tar.NewWriter(z), when: m, sums: map[string]sum{}}
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("backup: %w", err)
	}
	return b, b.AddBytes(partManifest, append(text, '\n'))
}

// AddBytes adds a part.
func (w *Writer) AddBytes(name string, b []byte) error {
	return w.Add(name, int64(len(b)), bytes.NewReader(b))
}

// Add adds a part of that many octets. One that is longer or shorter is an error. What
// nobody could read for its size is refused (ErrTooLarge).
func (w *Writer) Add(name string, size int64, r io.Reader) error {
	if _, twice := w.sums[name]; twice || len(name) > maxName {
		return fmt.Errorf("backup: %.130q: expected a name of at most %d octets that is not there yet", name, maxName)
	}
	if w.total += size; w.total > MaxSize {
		return fmt.Errorf("backup: %s: %w: expected at most %d octets in all parts", name, ErrTooLarge, int64(MaxSize))
	}
	err := w.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o600, ModTime: w.when.Created, Format: tar.FormatPAX})
	if err != nil {
		return fmt.Errorf("backup: %s: %w", name, err)
	}
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(w.tar, h), r)
	if err == nil && n != size {
		err = fmt.Errorf("expected %d octets, got %d", size, n)
	}
	if err != nil {
		return fmt.Errorf("backup: %s: %w", name, err)
	}
	w.sums[name] = sum{n, hex.EncodeToString(h.Sum(nil))}
	return nil
}

// Close ends the backup: only now it is whole.
func (w *Writer) Close() error {
	text, err := json.MarshalIndent(w.sums, "", "  ")
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	if err := w.AddBytes(partSums, append(text, '\n')); err != nil {
		return err
	}
	if err := errors.Join(w.tar.Close(), w.gzip.Close(), w.age.Close()); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	return nil
}

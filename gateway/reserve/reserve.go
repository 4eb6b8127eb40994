// Package reserve holds room on the data partition for a gateway whose card
// has become full: a file that is given up when nothing else is left, so that
// the databases open, people can log in and make room, and events say why.
package reserve

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Sizes in octets.
const (
	// Size is enough for the logs of both databases at their limit of a MiB,
	// and some thousand events and logins.
	Size = 4 << 20
	low  = 1 << 20   // free: give the reserve up
	high = 16 << 20  // free: there is room for a reserve again
	name = "reserve" // of the file
)

const lookEvery = 10 * time.Second

// Reserve is the file. Look and Run are not for two goroutines at once.
type Reserve struct {
	path string
	free func() (int64, error)
}

// New returns the reserve in dir, which has to be there.
func New(dir string) *Reserve {
	return &Reserve{path: filepath.Join(dir, name), free: func() (int64, error) { return Free(dir) }}
}

// ErrFull is returned by Look while there is no room beside the reserve, or not
// even for it.
var ErrFull = errors.New("the data partition is full, or nearly so")

// Look makes the reserve where there is room for it, and gives it up where
// there is none left. It returns nil while the reserve is held.
func (r *Reserve) Look() error {
	n, err := r.free()
	if err != nil {
		return err
	}
	info, err := os.Stat(r.path)
	held := err == nil && info.Size() >= Size
	switch {
	case held && n >= low:
		return nil
	case !held && n >= high:
		return r.hold()
	}
	if err := os.Remove(r.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: give up %s: %w", ErrFull, r.path, err)
	}
	if n, err = r.free(); err != nil {
		return err
	}
	return fmt.Errorf("%w: %d KiB are left of it: make room, or replace the card by a larger one", ErrFull, n>>10)
}

// GiveUp gives the reserve up where there is no room, and makes none: for what has to be
// written before it is known whose folder this is.
func (r *Reserve) GiveUp() error {
	n, err := r.free()
	if err != nil || n >= low {
		return err
	}
	if err := os.Remove(r.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("give up %s: %w", r.path, err)
	}
	return nil
}

// hold makes the file. Its content is of no meaning, but is written: a hole
// would hold nothing.
func (r *Reserve) hold() error {
	f, err := os.OpenFile(r.path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(make([]byte, Size))
	return errors.Join(err, f.Sync(), f.Close())
}

// Run looks again and again until ctx ends, and tells report each outcome.
func (r *Reserve) Run(ctx context.Context, report func(error)) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		report(r.Look())
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

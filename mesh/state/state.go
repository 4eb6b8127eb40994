// Package state keeps halo-mesh's small values, each in two places: a file on
// /perm and the vault outside of it. A value survives the loss of either; what
// is missing in one is put back from the other, and of two that differ the one
// that was written later counts (see copied). What the card has not taken is tried
// again (see Run). It also tells whether /perm keeps anything at all: a node whose data partition is full, read-only or gone
// runs on, and says so.
package state

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"halo.internal/identity"
	"halo.internal/model/paths"
)

// minFree is how much /perm must have free before it counts as full: halo-mesh
// needs kilobytes, but the spool and the databases beside it need more.
const minFree = 1 << 20

// Store keeps values. Its methods may be called from any goroutine.
type Store struct {
	dir   paths.Dir
	vault identity.Vault // nil where there is none
	fails chan struct{}  // something has, that had not

	mu     sync.Mutex // guards what follows
	values map[string]*value
	failed map[string]*failure // by file: the last write, where that failed
	held   error               // why nothing is written any more
}

// New returns a store over that directory and vault, which may be nil.
func New(dir paths.Dir, vault identity.Vault) *Store {
	return &Store{dir: dir, vault: vault, values: map[string]*value{}, failed: map[string]*failure{}, fails: make(chan struct{}, 1)}
}

// Dir returns the directory.
func (s *Store) Dir() paths.Dir { return s.dir }

// Vault returns the vault or nil.
func (s *Store) Vault() identity.Vault { return s.vault }

// Hold has nothing written from now on, for that reason: what is on the card may
// be better than what this process knows.
func (s *Store) Hold(reason error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = reason
}

func (s *Store) holds() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held
}

// Failing returns nil while /perm keeps what is written to it, otherwise what
// is wrong: it is not there, lies in RAM, is read-only, full, or held.
func (s *Store) Failing() error {
	if err := s.holds(); err != nil {
		return err
	}
	var fsys unix.Statfs_t
	if err := unix.Statfs(string(s.dir), &fsys); err != nil {
		return fmt.Errorf("%s: %w", s.dir, err)
	}
	switch free := fsys.Bavail * uint64(fsys.Bsize); {
	case fsys.Type == unix.TMPFS_MAGIC:
		return fmt.Errorf("%s: expected a file system on the card, got one in RAM", s.dir)
	case fsys.Flags&unix.ST_RDONLY != 0:
		return fmt.Errorf("%s: %w", s.dir, unix.EROFS)
	case free < minFree:
		return fmt.Errorf("%s: expected %d octets free, got %d: %w", s.dir, minFree, free, unix.ENOSPC)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.failed {
		return f.err
	}
	return nil
}

package state

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"halo.internal/model/atomicfile"
)

// ErrDamaged is wrapped where a value is there, but no copy of it is valid.
var ErrDamaged = errors.New("no copy is valid")

// ErrUnread is wrapped where a valid copy may be there, but could not be read, as when a
// card fails for a moment.
var ErrUnread = errors.New("it cannot be read now")

// Get returns the valid copy of a value, of two the one that was written later, and
// repairs the other. entry is the name in the vault, or empty for a value that is kept
// in the file alone. What valid was called with last is what is returned, so that it
// may keep what it has read. The error wraps fs.ErrNotExist when there never was a
// value, or it was removed, ErrDamaged when there was, and ErrUnread when there may be one.
func (s *Store) Get(name, entry string, valid func([]byte) error) ([]byte, error) {
	val := s.lock(name)
	defer val.mu.Unlock()
	f := readFile(s.dir.File(name))
	if f.err == nil {
		f.err = valid(f.value)
	}
	if entry == "" || s.vault == nil {
		return f.value, describe(name, f, copied{})
	}
	v := readVault(s.vault, entry)
	val.saw(f, v)
	repairs := s.holds() == nil // one that fails shows in Failing; the value itself is at hand
	if v.removed && f.before(v) && !f.unread {
		if repairs && f.there() {
			s.repair(name, func() error { return s.removeFile(name) })
		}
		return nil, describe(name, v, copied{})
	}
	switch {
	case v.err != nil:
	case f.err == nil && bytes.Equal(f.value, v.value):
		return f.value, nil
	default:
		v.err = valid(v.value)
	}
	switch {
	case f.err == nil && (v.err != nil || !f.before(v)):
		if repairs && !v.unread {
			s.repair(name, func() error { return s.vault.Put(entry, seal(f.order, f.value)) })
		}
		return f.value, describe(name, copied{err: valid(f.value)}, copied{})
	case v.err == nil:
		if repairs && !f.unread {
			s.repair(name, func() error { return s.writeFile(name, v.order, v.value) })
		}
		return v.value, nil
	}
	return nil, describe(name, f, v)
}

func describe(name string, f, v copied) error {
	switch {
	case f.err == nil:
		return nil
	case f.unread || v.unread:
		return fmt.Errorf("%s: %w: %w", name, ErrUnread, errors.Join(f.err, v.err))
	case errors.Is(f.err, fs.ErrNotExist) && (v.err == nil || errors.Is(v.err, fs.ErrNotExist)):
		return fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	return fmt.Errorf("%s: %w: %w", name, ErrDamaged, errors.Join(f.err, v.err))
}

// Put writes a value to the vault, if entry is not empty, and to the file. It
// tries both and returns the errors of both; one is enough to keep the value, since
// what the other has is older from then on, and is tried again. What is not kept at all is
// given up: the caller may go on without it, or tries again by itself.
func (s *Store) Put(name, entry string, b []byte) (kept bool, err error) {
	return s.put(name, entry, b, false)
}

// Keep is Put of a value that holds in any case: it is tried again until the file has it,
// or it is replaced or removed.
func (s *Store) Keep(name, entry string, b []byte) (kept bool, err error) {
	return s.put(name, entry, b, true)
}

func (s *Store) put(name, entry string, b []byte, insist bool) (kept bool, err error) {
	if err := s.holds(); err != nil {
		return false, fmt.Errorf("%s: not written: %w", name, err)
	}
	val := s.lock(name)
	defer val.mu.Unlock()
	fileErr, vaultErr := s.write(val, name, entry, b)
	kept = fileErr == nil || entry != "" && s.vault != nil && vaultErr == nil
	again := func() error { return s.probe(name, len(b)) }
	if kept || insist {
		b = bytes.Clone(b)
		again = func() error {
			err, _ := s.write(val, name, entry, b)
			return err
		}
	}
	s.note(name, fileErr, again)
	return kept, errors.Join(fileErr, vaultErr)
}

// write writes both copies of a value, which is locked.
func (s *Store) write(val *value, name, entry string, b []byte) (fileErr, vaultErr error) {
	var order uint64
	if entry != "" {
		var v copied
		order, v = s.next(val, name, entry)
		if v.err == nil && bytes.Equal(v.value, b) && v.order > 0 && v.order == val.order {
			order = v.order // the vault has it, and is not written again
		}
		val.order = order
		if s.vault != nil {
			vaultErr = s.vault.Put(entry, seal(order, b))
		}
	}
	fileErr = os.MkdirAll(string(s.dir), 0o755)
	if fileErr == nil {
		fileErr = s.writeFile(name, order, b)
	}
	return fileErr, vaultErr
}

// Remove forgets a value in both places. When it has returned nil, a power cut does not
// bring it back. With another error it is forgotten all the same if the vault, which
// comes first, has taken that: what the file has is older.
func (s *Store) Remove(name, entry string) error {
	if err := s.holds(); err != nil {
		return fmt.Errorf("%s: not removed: %w", name, err)
	}
	val := s.lock(name)
	defer val.mu.Unlock()
	s.note(name, nil, nil) // what waits to be written is not wanted any more
	if entry != "" && s.vault != nil {
		order, v := s.next(val, name, entry)
		if f := readFile(s.dir.File(name)); !v.removed || f.there() && !f.before(v) {
			val.order = order
			// A vault has no removal: empty stands for it. Without it the file stays as well,
			// or the vault's copy would count, which may be the older one; but a vault that
			// has none, and takes nothing, brings nothing back.
			if err := s.vault.Put(entry, seal(order, nil)); err != nil && !errors.Is(v.err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return s.removeFile(name)
}

func (s *Store) removeFile(name string) error {
	file := s.dir.File(name)
	err := os.Remove(file)
	if err == nil || errors.Is(err, fs.ErrNotExist) { // also what was removed before, when that failed
		err = atomicfile.SyncDir(filepath.Dir(file))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// unknown is how far the order goes on where a copy cannot be read: further than that
// one's can be ahead.
const unknown = 1 << 32

// next returns the order of the next write of a value, which is locked, and the vault's
// copy.
func (s *Store) next(val *value, name, entry string) (uint64, copied) {
	f := readFile(s.dir.File(name))
	v := copied{err: errors.New("no vault"), unread: true} // there may be one at the next start
	if s.vault != nil {
		v = readVault(s.vault, entry)
	}
	val.saw(f, v)
	if f.unread || v.unread {
		return val.order + unknown, v
	}
	return val.order + 1, v
}

// value is what the store remembers of one.
type value struct {
	mu    sync.Mutex // held while its copies are read or change
	order uint64     // the highest that was read or given
}

// lock returns the value of that name, locked.
func (s *Store) lock(name string) *value {
	s.mu.Lock()
	val := s.values[name]
	if val == nil {
		val = &value{}
		s.values[name] = val
	}
	s.mu.Unlock()
	val.mu.Lock()
	return val
}

func (val *value) saw(list ...copied) {
	for _, c := range list {
		val.order = max(val.order, c.order)
	}
}

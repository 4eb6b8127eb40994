package state

import (
	"context"
	"os"
	"time"

	"halo.internal/model/atomicfile"
)

// Between two tries of what the card has not taken. A card that takes nothing has each
// of it no more often than the longest.
const (
	againFirst = time.Minute // it doubles
	againLast  = 15 * time.Minute
)

// failure is a write that failed: nothing is kept, or one of two copies lacks it.
type failure struct {
	err   error
	again func() error // does it once more; the value is locked
}

// note records how the last write of a value went, and what is tried again if it failed.
// The value is locked.
func (s *Store) note(name string, err error, again func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		if s.failed[name] == nil {
			select {
			case s.fails <- struct{}{}:
			default: // Run has not looked yet
			}
		}
		s.failed[name] = &failure{err, again}
	} else {
		delete(s.failed, name)
	}
}

// repair does what brings a copy in line with the other, unless a write waits that
// replaces both.
func (s *Store) repair(name string, do func() error) {
	if s.waiting(name) == nil {
		s.note(name, do(), do)
	}
}

func (s *Store) waiting(name string) *failure {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed[name]
}

// probe tells whether the card takes so many octets in the file of a value, which is
// locked: what it has anew, or where there is nothing, a file that nobody misses.
func (s *Store) probe(name string, size int) error {
	if err := os.MkdirAll(string(s.dir), 0o755); err != nil {
		return err
	}
	switch f := readFile(s.dir.File(name)); {
	case f.err == nil:
		return s.writeFile(name, f.order, f.value)
	case f.unread:
		return f.err
	}
	file := s.dir.File(".tmp-probe") // which atomicfile.Sweep removes
	if err := atomicfile.Write(file, make([]byte, size), 0o600); err != nil {
		return err
	}
	return os.Remove(file)
}

// Try writes a file beside the values by that function, now, and again until it has
// returned nil.
func (s *Store) Try(name string, write func() error) error {
	if err := s.holds(); err != nil {
		return err
	}
	val := s.lock(name)
	defer val.mu.Unlock()
	err := write()
	s.note(name, err, write)
	return err
}

// Run tries again what the card has not taken, until ctx ends, and then once more. What
// fails anew does not wait as long as what has failed for hours.
func (s *Store) Run(ctx context.Context) {
	wait := againFirst
	due := time.NewTimer(wait)
	defer due.Stop()
	for at := time.Now().Add(wait); ; {
		select {
		case <-ctx.Done():
			s.retry()
			return
		case <-s.fails:
			if wait = againFirst; time.Until(at) <= wait {
				continue
			}
		case <-due.C:
			if wait = min(2*wait, againLast); s.retry() {
				wait = againFirst
			}
		}
		at = time.Now().Add(wait)
		due.Reset(wait)
	}
}

// retry tries all that failed once more, and tells whether the card has it now.
func (s *Store) retry() (all bool) {
	if s.holds() != nil {
		return true // it keeps what it has
	}
	s.mu.Lock()
	names := make([]string, 0, len(s.failed))
	for name := range s.failed {
		names = append(names, name)
	}
	s.mu.Unlock()
	all = true
	for _, name := range names {
		val := s.lock(name)
		if f := s.waiting(name); f != nil { // else it was written, or removed, meanwhile
			err := f.again()
			s.note(name, err, f.again)
			all = all && err == nil
		}
		val.mu.Unlock()
	}
	return all
}

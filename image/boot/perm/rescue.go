package perm

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"halo.internal/model/atomicfile"
	"halo.internal/model/paths"
)

// saved is what was read from a /perm that is about to be made anew. It lives
// in RAM, so it is bounded.
type saved struct {
	files []savedFile
	size  int64
	lost  []string
}

type savedFile struct {
	name string // below the root of /perm
	mode fs.FileMode
	data []byte // nil for a directory
}

// rank orders what is saved while there is room: first what makes the node the
// one it is, then what it was told, then what can be measured again.
func rank(name string) int {
	state := strings.TrimPrefix(paths.State, paths.Perm+"/")
	rel, err := filepath.Rel(state, name)
	if err != nil || !filepath.IsLocal(rel) {
		return 9 // not HALO's
	}
	switch {
	case !strings.Contains(rel, "/"):
		return 0 // identity, bundle, membership, clock, peers
	case strings.HasPrefix(rel, paths.SeriesDB), strings.HasPrefix(rel, paths.SeriesDir+"/"):
		return 4
	case strings.HasPrefix(rel, paths.TopologyDB):
		return 5
	case strings.HasPrefix(rel, paths.GatewayDir+"/"):
		return 1
	case strings.HasPrefix(rel, paths.SpoolDir+"/"):
		return 2
	}
	return 3
}

// save reads all files below dir that can be read, up to limit octets.
func save(dir string, limit int64) saved {
	var s saved
	var names []string
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		rel, relErr := filepath.Rel(dir, p)
		if relErr != nil || rel == "." || rel == "lost+found" {
			return errors.Join(relErr, err)
		}
		switch {
		case err != nil:
			s.lost = append(s.lost, rel) // a directory that cannot be read; its neighbours may
		case d.Type().IsRegular() && atomicfile.Unfinished(rel): // of an earlier power cut; it would take the room of others
		case d.IsDir(), d.Type().IsRegular():
			names = append(names, rel)
		}
		return nil
	})
	if err != nil {
		s.lost = append(s.lost, ".")
	}
	slices.SortStableFunc(names, func(a, b string) int { return rank(a) - rank(b) })
	for _, name := range names {
		if f, err := s.read(dir, name, limit); err == nil {
			s.files = append(s.files, f)
			s.size += int64(len(f.data))
		} else {
			s.lost = append(s.lost, name)
		}
	}
	return s
}

var errNoRoom = errors.New("no room to keep it meanwhile")

func (s *saved) read(dir, name string, limit int64) (savedFile, error) {
	p := filepath.Join(dir, name)
	info, err := os.Lstat(p)
	if err != nil {
		return savedFile{}, err
	}
	f := savedFile{name: name, mode: info.Mode()}
	if info.IsDir() {
		return f, nil
	}
	if s.size+info.Size() > limit {
		return f, errNoRoom
	}
	r, err := os.Open(p)
	if err != nil {
		return f, err
	}
	defer r.Close()
	f.data, err = io.ReadAll(io.LimitReader(r, limit-s.size+1))
	if err == nil && int64(len(f.data)) != info.Size() {
		err = io.ErrUnexpectedEOF // a size from a damaged inode
	}
	return f, err
}

// restore writes everything below dir, what is worth most first, and has each
// rank on the card before the next: power may go again. What cannot be written
// is lost.
func (s *saved) restore(dir string, sync func(dir string) error) {
	for i, f := range s.files {
		if i > 0 && rank(f.name) != rank(s.files[i-1].name) {
			s.settle(dir, sync)
		}
		p := filepath.Join(dir, f.name)
		var err error
		if f.mode.IsDir() {
			err = os.MkdirAll(p, f.mode.Perm())
		} else {
			err = errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, f.data, f.mode.Perm()))
		}
		if err != nil {
			s.lost = append(s.lost, f.name)
		}
	}
	s.settle(dir, sync)
}

// settle syncs; what may not have reached the card is lost, as far as anybody
// can tell.
func (s *saved) settle(dir string, sync func(dir string) error) {
	if err := sync(dir); err != nil {
		s.lost = append(s.lost, "sync: "+err.Error())
	}
}

// summary says for people what came through.
func (s *saved) summary() string {
	n := 0
	for _, f := range s.files {
		if !f.mode.IsDir() {
			n++
		}
	}
	return fmt.Sprintf("saved %d files, %d octets, lost %d", n, s.size, len(s.lost))
}

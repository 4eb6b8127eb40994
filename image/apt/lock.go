package apt

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"halo.internal/model/atomicfile"
)

// Lock is the lock file: which package each key stood for when last fetched.
type Lock struct {
	path     string
	packages map[string]Package
	changed  bool
}

// ReadLock reads the lock file; one that is not there yet is empty.
func ReadLock(path string) (*Lock, error) {
	l := &Lock{path: path, packages: map[string]Package{}}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&l.packages); err != nil {
		return nil, fmt.Errorf("lock file %s: %w", path, err)
	}
	for key, p := range l.packages {
		if !nameForm.MatchString(p.Name) || !versionForm.MatchString(p.Version) || !sha256Form.MatchString(p.SHA256) {
			return nil, fmt.Errorf("lock file %s: %s: expected package, version and SHA-256, got %q %q %q", path, key, p.Name, p.Version, p.SHA256)
		}
	}
	return l, nil
}

// Get returns what is locked under key.
func (l *Lock) Get(key string) (Package, bool) {
	p, ok := l.packages[key]
	return p, ok
}

// Set locks key to p.
func (l *Lock) Set(key string, p Package) {
	if l.packages[key] != p {
		l.packages[key], l.changed = p, true
	}
}

// Save writes the file if Set changed anything.
func (l *Lock) Save() error {
	if !l.changed {
		return nil
	}
	b, err := json.MarshalIndent(l.packages, "", "  ")
	if err != nil {
		return err
	}
	l.changed = false
	return atomicfile.Write(l.path, append(b, '\n'), 0o644)
}

// Package profile keeps what haloctl knows of a network between two commands:
// where its gateway is, the CA that it was found to have, and the session. One
// file per network, readable by its owner alone, and one that names the network which is
// meant where none is named.
package profile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"halo.internal/model/apitype"
	"halo.internal/model/atomicfile"
)

// maxSize bounds what is read; a profile has some 2 KiB.
const maxSize = 64 << 10

// Profile is the content of one file. Session fields are secrets.
type Profile struct {
	Network      string    `json:"network"`
	NetworkKey   string    `json:"network_key"`
	Gateway      string    `json:"gateway"`
	CA           string    `json:"ca,omitempty"` // PEM; absent for a gateway reached by plain HTTP alone
	Username     string    `json:"username"`
	Role         string    `json:"role,omitempty"`
	AccessToken  string    `json:"access_token,omitempty"`
	AccessEnds   time.Time `json:"access_ends,omitzero"` // by this machine's clock
	RefreshToken string    `json:"refresh_token,omitempty"`
}

// Start puts a session into the profile.
func (p *Profile) Start(t apitype.Tokens, now time.Time) {
	p.Username, p.Role = t.Username, t.Role
	p.AccessToken, p.RefreshToken = t.AccessToken, t.RefreshToken
	p.AccessEnds = now.Add(time.Duration(t.ExpiresIn) * time.Second).UTC().Truncate(time.Second)
}

// End takes the session out; gateway and CA stay for the next login.
func (p *Profile) End() { p.AccessToken, p.RefreshToken, p.AccessEnds = "", "", time.Time{} }

// String shows nothing secret.
func (p Profile) String() string { return p.Network + " at " + p.Gateway }

// GoString is String.
func (p Profile) GoString() string { return p.String() }

// Load reads the profile at path.
func Load(path string) (Profile, error) {
	f, err := os.Open(path)
	if err != nil {
		return Profile{}, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return Profile{}, err
	}
	if len(b) > maxSize {
		return Profile{}, fmt.Errorf("%s: expected at most %d octets", path, maxSize)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	var p Profile
	if err := d.Decode(&p); err != nil {
		return Profile{}, fmt.Errorf("%s: expected a profile as haloctl writes it: %w", path, err)
	}
	if p.Gateway == "" {
		return Profile{}, fmt.Errorf("%s: no gateway in it", path)
	}
	return p, nil
}

// Save writes the profile to path for its owner alone.
func (p Profile) Save(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	b, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	return atomicfile.Write(path, append(b, '\n'), 0o600)
}

// Update loads the profile at path, lets change alter it, and saves it, while
// no other haloctl does the same: a refresh token is good once. One that is not there, or
// not any more, is not made: the error wraps fs.ErrNotExist.
func Update(path string, change func(*Profile) error) error {
	held, err := lock(path)
	if err != nil {
		return err
	}
	defer held.Close()
	p, err := Load(path)
	if errors.Is(err, fs.ErrNotExist) {
		return errors.Join(err, os.Remove(held.Name())) // a lock of nothing
	}
	if err != nil {
		return err
	}
	before := p
	if err := change(&p); err != nil {
		return err
	}
	if p == before {
		return nil
	}
	return p.Save(path)
}

const lockSuffix = ".lock"

// lock waits until nobody else writes the profile at path, or removes it. Closing the file
// gives the lock back.
func lock(path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path+lockSuffix, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, err
		}
		err = flock(f)
		if err != nil {
			err = fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		mine, merr := f.Stat()
		there, terr := os.Stat(f.Name())
		if errors.Is(terr, fs.ErrNotExist) {
			terr = nil
		}
		if err = errors.Join(err, merr, terr); err != nil {
			f.Close()
			return nil, err
		}
		if there != nil && os.SameFile(mine, there) {
			return f, nil
		}
		f.Close() // who had it before has removed it: others would not wait for ours
	}
}

// flock waits for the lock; closing the file gives it back.
func flock(f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Dir holds a user's profiles.
type Dir string

// List returns the paths of all profiles.
func (d Dir) List() ([]string, error) {
	entries, err := os.ReadDir(string(d))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var list []string
	for _, e := range entries {
		if e.Type().IsRegular() && filepath.Ext(e.Name()) == suffix {
			list = append(list, filepath.Join(string(d), e.Name()))
		}
	}
	return list, nil
}

const suffix = ".json"

// chosen is the file that names the chosen profile. Its name has no suffix, so that no
// network can be called so.
const chosen = "chosen"

// Choose has the profile at path be the one that is meant where none is named.
func (d Dir) Choose(path string) error {
	if _, err := Load(path); err != nil {
		return err
	}
	return atomicfile.Write(filepath.Join(string(d), chosen), []byte(Name(path)+"\n"), 0o600)
}

// Chosen returns the path of the chosen profile, or nothing where none is, or none that is
// there.
func (d Dir) Chosen() (string, error) {
	f, err := os.Open(filepath.Join(string(d), chosen))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxName+1))
	if err != nil {
		return "", err
	}
	name := strings.TrimSpace(string(b))
	if name == "" {
		return "", nil
	}
	path := d.Path(name)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return path, nil
}

// Remove forgets the profile at path, with all that is kept beside it, while no other
// haloctl writes it: one that renews its session just then would bring it back.
func (d Dir) Remove(path string) (err error) {
	held, err := lock(path)
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, os.Remove(held.Name()), held.Close())
	}()
	if was, err := d.Chosen(); err == nil && was == path {
		if err := os.Remove(filepath.Join(string(d), chosen)); err != nil {
			return err
		}
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	entries, err := os.ReadDir(string(d))
	for _, e := range entries {
		// Only the suffix is another. Files of a network whose name begins so have more
		// before it.
		if n := e.Name(); n != chosen && Name(n) == Name(path) {
			err = errors.Join(err, os.Remove(filepath.Join(string(d), n)))
		}
	}
	return err
}

// Name is what a profile is called: its file's name, made of its network's.
func Name(path string) string {
	return strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
}

// PathFor returns where the profile of p's network belongs: in the file of
// that name, or, when another network of the same name has it, in one that
// begins with the network's key.
func (d Dir) PathFor(p Profile) string {
	path := d.Path(p.Network)
	if other, err := Load(path); err == nil && other.NetworkKey != p.NetworkKey {
		return d.Path(p.NetworkKey[:min(8, len(p.NetworkKey))] + "-" + p.Network)
	}
	return path
}

// Path returns the file for a network's name. A command would take a name that begins with
// "-" for a flag: it gets something before it, unless an older haloctl has made that file.
func (d Dir) Path(network string) string {
	name := fileName(network)
	path := filepath.Join(string(d), name+suffix)
	if !strings.HasPrefix(name, "-") {
		return path
	}
	if _, err := os.Lstat(path); err == nil {
		return path
	}
	name = "net" + name
	return filepath.Join(string(d), name[:min(len(name), maxName)]+suffix)
}

// maxName bounds a file's name; networks have at most 63 characters.
const maxName = 80

// fileName keeps of a network's name, which may hold anything, what is
// harmless in a path.
func fileName(network string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_':
			return r
		}
		return '-'
	}, network)
	if name == "" {
		return "network"
	}
	return name[:min(len(name), maxName)]
}

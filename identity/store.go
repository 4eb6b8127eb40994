package identity

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"halo.internal/model/atomicfile"
	"halo.internal/model/paths"
)

// Vault keeps a second copy outside the /perm file system (hal/card). Get
// returns an error wrapping fs.ErrNotExist for a name that was never put, and
// one wrapping ErrCorrupt where the whole was read and is damaged.
type Vault interface {
	Get(name string) ([]byte, error)
	Put(name string, value []byte) error
}

// State is what identity.json holds.
type State struct {
	Key         Key
	BootCounter uint64 // starts of the machine so far
	BootID      string // the kernel's boot ID that the counter was raised for
}

type file struct {
	Seed        string `json:"seed"`
	WireGuard   string `json:"wireguard"`
	BootCounter uint64 `json:"boot_counter"`
	BootID      string `json:"boot_id"`
	SHA256      string `json:"sha256"` // over the other fields
}

func (f file) sum() string {
	h := sha256.Sum256(fmt.Appendf(nil, "%s\n%s\n%d\n%s", f.Seed, f.WireGuard, f.BootCounter, f.BootID))
	return hex.EncodeToString(h[:])
}

// Marshal returns the stored form, checksummed.
func (s State) Marshal() []byte {
	f := file{
		Seed:        base64.StdEncoding.EncodeToString(s.Key.seed[:]),
		WireGuard:   base64.StdEncoding.EncodeToString(s.Key.wireguard[:]),
		BootCounter: s.BootCounter, BootID: s.BootID,
	}
	f.SHA256 = f.sum()
	b, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		panic("identity: " + err.Error()) // strings and numbers always encode
	}
	return append(b, '\n')
}

// ErrCorrupt is wrapped where a stored identity, or the vault, was read and is
// damaged.
var ErrCorrupt = errors.New("stored state is damaged")

// ErrUnread is wrapped where a stored identity may be there, but could not be
// read, as when a card fails for a moment.
var ErrUnread = errors.New("stored identity cannot be read")

// Unmarshal reads the stored form. Damage is an error wrapping ErrCorrupt.
func Unmarshal(b []byte) (State, error) {
	var f file
	if err := json.Unmarshal(b, &f); err != nil {
		return State{}, fmt.Errorf("%w: %v", ErrCorrupt, err)
	}
	if f.sum() != f.SHA256 {
		return State{}, fmt.Errorf("%w: checksum differs", ErrCorrupt)
	}
	s := State{BootCounter: f.BootCounter, BootID: f.BootID}
	for _, p := range []struct {
		name string
		text string
		to   *[32]byte
	}{{"seed", f.Seed, &s.Key.seed}, {"wireguard", f.WireGuard, &s.Key.wireguard}} {
		raw, err := base64.StdEncoding.DecodeString(p.text)
		if err != nil || len(raw) != 32 {
			return State{}, fmt.Errorf("%w: %s: expected 32 octets of base64", ErrCorrupt, p.name)
		}
		*p.to = [32]byte(raw)
	}
	s.Key.public = publicOf(s.Key.seed)
	return s, nil
}

// Load reads the identity from path and from the vault (which may be nil) and
// returns the one with the higher boot counter: a copy restored from an old
// card must not take the counter back. It returns an error wrapping
// fs.ErrNotExist when neither holds one, ErrCorrupt when what is there was read
// and is damaged, and ErrUnread when there may be a good one that cannot be
// read now: then nothing may be written over it. Trouble with one copy alone is
// no error.
func Load(path string, v Vault) (State, error) {
	var best State
	var errs []error
	found := false
	try := func(b []byte, err error) {
		if err == nil {
			var s State
			if s, err = Unmarshal(b); err == nil {
				if !found || s.BootCounter > best.BootCounter {
					best, found = s, true
				}
				return
			}
		}
		errs = append(errs, err)
	}
	try(os.ReadFile(path))
	if v != nil {
		try(v.Get(paths.VaultIdentity))
	}
	if found {
		return best, nil
	}
	worst := fmt.Errorf("identity: %w", fs.ErrNotExist)
	for _, err := range errs {
		switch {
		case errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR): // ENOTDIR: no file system is there
		case errors.Is(err, ErrCorrupt):
			worst = err
		default:
			return State{}, fmt.Errorf("%w: %w", ErrUnread, err)
		}
	}
	return State{}, worst
}

// Change writes an identity whose keys are others than before, to path and then to
// the vault (which may be nil). It is kept once the file has it, and the vault does
// not hear of it before: of two copies of the same count Load takes the file's, so
// that the change would be taken back.
func (s State) Change(path string, v Vault) (kept bool, err error) {
	b := s.Marshal()
	if err := atomicfile.Write(path, b, 0o600); err != nil {
		return false, err
	}
	if v != nil {
		err = v.Put(paths.VaultIdentity, b)
	}
	return true, err
}

// Save writes the identity to path and to the vault (which may be nil). It
// tries both and returns the errors of both. What a place has already is not written
// again.
func (s State) Save(path string, v Vault) error {
	b := s.Marshal()
	old, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(old, b) {
		err = atomicfile.Write(path, b, 0o600)
	}
	if v != nil {
		err = errors.Join(err, v.Put(paths.VaultIdentity, b))
	}
	return err
}

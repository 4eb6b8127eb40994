package card

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"github.com/fxamacker/cbor/v2"

	"halo.internal/identity"
)

// Vault is a small map of named values outside of the /perm file system: the
// second copy of what a node cannot lose. One process of the machine writes
// it; its methods may be called from any goroutine.
type Vault struct {
	mu   sync.Mutex // guards area: a Put is a read, a change and a write
	area *Area
}

var _ identity.Vault = (*Vault)(nil)

// maxEntries bounds what a forged vault can make the decoder allocate.
const maxEntries = 64

// NewVault returns the vault of a disk.
func NewVault(d Device) *Vault { return &Vault{area: vaultArea(d)} }

// Get returns the value of that name. The error wraps fs.ErrNotExist when none
// was put, ErrDamaged and identity.ErrCorrupt when the vault was read and holds
// nothing whole. Any other is the disk's, which may read it another time.
func (v *Vault) Get(name string) ([]byte, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	m, err := v.load()
	if errors.Is(err, ErrDamaged) {
		err = fmt.Errorf("%w: %w", identity.ErrCorrupt, err)
	}
	if err != nil {
		return nil, err
	}
	b, ok := m[name]
	if !ok {
		return nil, fmt.Errorf("vault: %s: %w", name, fs.ErrNotExist)
	}
	return b, nil
}

// Put keeps the value under that name. The same value again costs no write. A
// damaged vault starts anew: what it held is still in /perm, whose owners put
// it again. One that cannot be read is left as it is.
func (v *Vault) Put(name string, value []byte) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	m, err := v.load()
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrDamaged) {
		m, err = map[string][]byte{}, nil
	}
	if err != nil {
		return err
	}
	if old, ok := m[name]; ok && bytes.Equal(old, value) {
		return nil
	}
	m[name] = value
	if len(m) > maxEntries {
		return fmt.Errorf("vault: %s: expected at most %d names", name, maxEntries)
	}
	enc, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		return fmt.Errorf("vault: %w", err)
	}
	b, err := enc.Marshal(m)
	if err != nil {
		return fmt.Errorf("vault: %s: %w", name, err)
	}
	return v.area.Store(b)
}

// Clear forgets all values: nothing of them is left on the disk.
func (v *Vault) Clear() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.area.Store([]byte{0xa0}) // an empty map
}

func (v *Vault) load() (map[string][]byte, error) {
	b, err := v.area.Load()
	if err != nil {
		return nil, err
	}
	dec, err := cbor.DecOptions{MaxMapPairs: maxEntries, MaxArrayElements: 16, MaxNestedLevels: 4, DupMapKey: cbor.DupMapKeyEnforcedAPF}.DecMode()
	if err != nil {
		return nil, fmt.Errorf("vault: %w", err)
	}
	m := map[string][]byte{}
	if err := dec.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("vault: %w: %v", ErrDamaged, err)
	}
	return m, nil
}

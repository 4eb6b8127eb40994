package state

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"halo.internal/identity"
	"halo.internal/model/atomicfile"
)

// maxValue bounds what is read from a file: the largest value is a bundle.
const maxValue = 1 << 20

// copied is one of the two copies of a value. Each write of a value has a number, its
// order, which both copies carry and which rises: a power cut may leave either of the
// two behind, and a card that is full or read-only takes one of them alone. The file's is
// an extended attribute, since others read the file, and both have to change in one step;
// the vault's is before the value. A copy without one, such as a file that was copied, or
// one of an earlier version, is older than those that have one.
type copied struct {
	value   []byte
	order   uint64 // of the write that made it; 0: none
	removed bool   // by that write; err says that there is none then
	unread  bool   // there may be one, that cannot be read now
	err     error  // wraps fs.ErrNotExist where there is none
}

func (c copied) there() bool { return c.err == nil || !absent(c.err) }

// before tells whether c was written before the other. Of two without an order the
// file's counts, which is neither.
func (c copied) before(other copied) bool { return c.order < other.order }

// absent tells whether an error says that there is no such file.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) // ENOTDIR: no file system is there
}

const (
	orderAttribute = "user.halo.order" // xattr(7), a decimal number
	maxOrder       = 1 << 62           // what is above was not written here
)

// readFile returns the copy in a file.
func readFile(path string) (c copied) {
	f, err := os.Open(path)
	if err != nil {
		return copied{err: err, unread: !absent(err)}
	}
	defer f.Close()
	var text [20]byte
	if n, err := unix.Fgetxattr(int(f.Fd()), orderAttribute, text[:]); err == nil {
		if order, err := strconv.ParseUint(string(text[:n]), 10, 64); err == nil && order <= maxOrder {
			c.order = order
		}
	}
	c.value, err = io.ReadAll(io.LimitReader(f, maxValue+1))
	switch {
	case err != nil:
		c.err, c.unread = err, true
	case len(c.value) > maxValue:
		c.err = fmt.Errorf("%s: expected at most %d octets, got more", path, maxValue)
	}
	return c
}

// writeFile writes the file's copy; without an order it has no attribute.
func (s *Store) writeFile(name string, order uint64, b []byte) error {
	return atomicfile.WriteWith(s.dir.File(name), b, 0o600, func(f *os.File) error {
		if order == 0 {
			return nil
		}
		err := unix.Fsetxattr(int(f.Fd()), orderAttribute, strconv.AppendUint(nil, order, 10), 0)
		if errors.Is(err, unix.ENOTSUP) {
			return nil // ext4, which /perm is, has them; elsewhere there is no vault
		}
		return err
	})
}

// sealMagic begins a copy in the vault that has an order, 8 octets, big-endian; what
// follows is the value. Others are values alone.
const sealMagic = "\x00order\x00\x01"

// seal returns what the vault keeps of a value; nil: that it was removed.
func seal(order uint64, value []byte) []byte {
	return append(binary.BigEndian.AppendUint64([]byte(sealMagic), order), value...)
}

func unseal(b []byte) (order uint64, value []byte) {
	if rest, ok := bytes.CutPrefix(b, []byte(sealMagic)); ok && len(rest) >= 8 {
		if order := binary.BigEndian.Uint64(rest); order <= maxOrder {
			return order, rest[8:]
		}
	}
	return 0, b
}

// Unseal returns the value of an entry of the vault; empty: it was removed.
func Unseal(entry []byte) []byte {
	_, value := unseal(entry)
	return value
}

// readVault returns the copy in the vault.
func readVault(vault identity.Vault, entry string) (c copied) {
	b, err := vault.Get(entry)
	if err != nil {
		return copied{err: err, unread: !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, identity.ErrCorrupt)}
	}
	c.order, c.value = unseal(b)
	if len(c.value) == 0 {
		c.removed, c.err = true, fmt.Errorf("vault: %s was removed: %w", entry, fs.ErrNotExist)
	}
	return c
}

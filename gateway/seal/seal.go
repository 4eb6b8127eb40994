// Package seal keeps the secrets of config.db under a key that lies in a file of its
// own: whoever gets at the database alone, a copy of it, a damaged one that was set
// aside, or a page of it on a card that was thrown away, has none of them. Each is
// bound to its place, so that none can be put where another belongs. Who has the whole
// card has the key too.
package seal

import (
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/chacha20poly1305"

	"halo.internal/model/atomicfile"
)

// KeyFile and a second copy of it lie beside config.db, for the gateway's eyes alone.
const (
	KeyFile    = "seal.key"
	secondFile = "seal.key.copy"
)

const (
	header  = "halo-seal-1" // of the file
	version = 1             // the first octet of what is sealed
	domain  = "halo secret 1"
	maxFile = 1 << 10
)

// ErrLost is wrapped where a secret cannot be opened: it was sealed under another key,
// moved, or damaged.
var ErrLost = errors.New("secret cannot be opened with this gateway's key")

// Box seals and opens. It may be used from any goroutine.
type Box struct{ aead cipher.AEAD }

// Load returns the box of the key in dir. A copy of the key that is missing or damaged
// is put right from the other. lost says what was wrong where neither could be read: a
// new key was made then, and what was sealed under the former cannot be opened again.
// Where there was none it is empty.
func Load(dir string) (box *Box, lost string, err error) {
	first, second := filepath.Join(dir, KeyFile), filepath.Join(dir, secondFile)
	a, errA := readKey(first)
	b, errB := readKey(second)
	var key []byte
	switch {
	case errA == nil && errB == nil && string(a) == string(b):
		return newBox(a), "", nil
	case errA == nil: // the first is written first
		key = a
	case errB == nil:
		key = b
	case errors.Is(errA, fs.ErrNotExist) && errors.Is(errB, fs.ErrNotExist):
		key = newKey()
	case isDamage(errA) && isDamage(errB):
		key, lost = newKey(), errors.Join(errA, errB).Error()
		for _, p := range []string{first, second} {
			if err := atomicfile.Rename(p, p+".damaged"); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, "", fmt.Errorf("set the damaged key of secrets aside: %w", err)
			}
		}
	default:
		return nil, "", fmt.Errorf("key of secrets: %w", errors.Join(errA, errB)) // a card that fails may read it another time
	}
	text := marshal(key)
	for path, had := range map[string][]byte{first: a, second: b} {
		if string(had) == string(key) {
			continue
		}
		if err := atomicfile.Write(path, text, 0o600); err != nil {
			return nil, "", fmt.Errorf("key of secrets: %w", err)
		}
	}
	return newBox(key), lost, nil
}

var errDamaged = errors.New("damaged")

func isDamage(err error) bool { return errors.Is(err, errDamaged) || errors.Is(err, fs.ErrNotExist) }

func newKey() []byte {
	key := make([]byte, chacha20poly1305.KeySize)
	rand.Read(key)
	return key
}

func newBox(key []byte) *Box {
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		panic("seal: " + err.Error()) // the key has its length
	}
	return &Box{aead}
}

func marshal(key []byte) []byte {
	text := header + " " + base64.StdEncoding.EncodeToString(key)
	sum := sha256.Sum256([]byte(text))
	return []byte(text + " " + hex.EncodeToString(sum[:4]) + "\n")
}

func readKey(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("%s: %w: expected at most %d octets, got %d", path, errDamaged, maxFile, info.Size())
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	key, err := Check(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

// Check returns the key in a file of Load's, or says that it is damaged; what is in it
// is not repeated.
func Check(file []byte) ([]byte, error) {
	parts := strings.Split(strings.TrimSuffix(string(file), "\n"), " ")
	if len(parts) != 3 || parts[0] != header {
		return nil, fmt.Errorf("%w: expected a line that begins with %s", errDamaged, header)
	}
	key, err := base64.StdEncoding.DecodeString(parts[1])
	if err != nil || len(key) != chacha20poly1305.KeySize || string(marshal(key)) != strings.TrimSuffix(string(file), "\n")+"\n" {
		return nil, fmt.Errorf("%w: checksum differs", errDamaged)
	}
	return key, nil
}

// Seal encrypts a secret for its place, such as a table and a row. What follows is its
// version, 24 octets of nonce and the ciphertext of XChaCha20-Poly1305.
func (b *Box) Seal(place string, secret []byte) []byte {
	out := make([]byte, 1+chacha20poly1305.NonceSizeX, 1+chacha20poly1305.NonceSizeX+len(secret)+chacha20poly1305.Overhead)
	out[0] = version
	rand.Read(out[1:])
	return b.aead.Seal(out, out[1:], secret, about(place))
}

// Open returns the secret that was sealed for that place.
func (b *Box) Open(place string, sealed []byte) ([]byte, error) {
	if len(sealed) < 1+chacha20poly1305.NonceSizeX || sealed[0] != version {
		return nil, fmt.Errorf("%s: %w: expected form %d", place, ErrLost, version)
	}
	nonce, rest := sealed[1:1+chacha20poly1305.NonceSizeX], sealed[1+chacha20poly1305.NonceSizeX:]
	secret, err := b.aead.Open(nil, nonce, rest, about(place))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", place, ErrLost)
	}
	return secret, nil
}

func about(place string) []byte { return []byte(domain + "\x00" + place) }

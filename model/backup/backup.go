// Package backup is the file in which a gateway is taken from one card to another:
// a tar of its databases, keys and settings, compressed by gzip and encrypted to a
// passphrase in the format of age (age-encryption.org/v1, scrypt). Where nothing of
// HALO is at hand, age -d FILE | tar xz opens it. It is written and read as a stream,
// so that no part of it has to fit into RAM, and what is read counts only when all of
// it has been: then nothing is missing and nothing was changed.
package backup

import (
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"halo.internal/model/version"
)

// Format is that of the files that this release writes. It reads those up to it.
const Format = 1

// Limits, in octets where nothing else is said.
const (
	// workFactor is the logarithm of scrypt's cost: 32 MiB of RAM and about a second on
	// the smallest board, which makes and opens backups itself.
	workFactor = 15
	// mostWork is what is opened at most: 128 MiB.
	mostWork = 17

	MaxSize       = 2 << 30 // of all parts together
	MaxParts      = 4096
	maxName       = 128
	maxManifest   = 64 << 10
	maxSums       = 1 << 20
	MinPassphrase = 12 // characters
	MaxPassphrase = 256
)

// Names of the parts that every backup has, besides those that follow.
const (
	partManifest = "manifest.json"
	partSums     = "sums.json" // the last: length and SHA-256 of all others
)

// Parts that make a gateway. Telemetry is what lies below its own.
const (
	Bundle       = "mesh/bundle.toml"  // with the network's key
	Profile      = "mesh/profile"      // profile documents; absent: the bundle's profile was never changed
	Reservations = "mesh/reservations" // absent: none
	Config       = "gateway/config.db"
	Epoch        = "gateway/epoch"
	CAKey        = "gateway/ca.key"
	CACert       = "gateway/ca.crt"
	SealKey      = "gateway/seal.key"   // opens the secrets in config.db
	Telemetry    = "gateway/telemetry/" // and a file name
)

// Manifest says what a backup is of, and who made it.
type Manifest struct {
	Format     int          `json:"format"`
	ID         string       `json:"id"` // of this backup
	Created    time.Time    `json:"created"`
	MadeBy     version.Info `json:"made_by"`
	Network    string       `json:"network"`     // name
	NetworkKey string       `json:"network_key"` // public, base64
	Node       string       `json:"node"`        // canonical ID of the gateway
	Epoch      uint64       `json:"epoch"`
	Boot       uint64       `json:"boot"`   // the gateway's boot counter
	Schema     int64        `json:"schema"` // version of config.db
	Telemetry  bool         `json:"telemetry"`
}

// Errors that are wrapped by those of this package.
var (
	ErrPassphrase = errors.New("the passphrase is wrong, or the beginning of the file is damaged")
	ErrDamaged    = errors.New("the backup is damaged or cut short")
	ErrNotBackup  = errors.New("this is no backup of a HALO gateway")
	ErrNewer      = errors.New("a newer release made this backup")
	ErrTooLarge   = errors.New("the backup is larger than any gateway's")
)

// sum is what the last part says of another.
type sum struct {
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"` // hex
}

// CheckPassphrase tells what is wrong with a passphrase for a new backup.
func CheckPassphrase(p string) error {
	switch n := utf8.RuneCountInString(p); {
	case !utf8.ValidString(p) || strings.ContainsFunc(p, unicode.IsControl):
		return errors.New("passphrase: expected characters that can be typed")
	case n < MinPassphrase:
		return fmt.Errorf("passphrase: expected at least %d characters, got %d", MinPassphrase, n)
	case len(p) > MaxPassphrase:
		return fmt.Errorf("passphrase: expected at most %d octets, got %d", MaxPassphrase, len(p))
	}
	return nil
}

// NewPassphrase makes one of 120 bits, to be written down.
func NewPassphrase() string {
	const group, groups = 4, 6
	text := strings.ToLower(rand.Text())
	var parts []string
	for i := range groups {
		parts = append(parts, text[i*group:(i+1)*group])
	}
	return strings.Join(parts, "-")
}

// NewID makes the ID of a backup.
func NewID() string { return strings.ToLower(rand.Text()) }

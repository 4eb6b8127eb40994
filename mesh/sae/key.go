package sae

import (
	"fmt"
	"io"
	"log/slog"
)

// Sizes of keys in octets.
const (
	PMKSize   = 32
	PMKIDSize = 16
)

// PMK is the pairwise master key of two stations. It prints as a placeholder.
type PMK [PMKSize]byte

const hidden = "PMK(hidden)"

// Format keeps the key out of whatever is printed.
func (PMK) Format(f fmt.State, _ rune) { io.WriteString(f, hidden) }

// LogValue keeps the key out of logs.
func (PMK) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalText keeps the key out of JSON.
func (PMK) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// PMKID names a PMK. It is no secret and proves nothing: it is made of what the
// Commits say in the open, so that two sides with different passwords have the
// same.
type PMKID [PMKIDSize]byte

// String returns it in hexadecimal.
func (id PMKID) String() string { return fmt.Sprintf("%x", id[:]) }

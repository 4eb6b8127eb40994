package model

import (
	"encoding/base32"
	"fmt"
	"strings"
)

// A canonical ID is "n-" and 100 bits in base32, which package identity makes of a
// key. Packed it is those bits in 13 octets, the last four bits zero.
const (
	idPrefix = "n-"
	idDigits = 20
	idOctets = 13
	alphabet = "abcdefghijklmnopqrstuvwxyz234567"
)

var idEncoding = base32.NewEncoding(alphabet).WithPadding(base32.NoPadding)

// validNode tells whether s has the form of a canonical ID.
func validNode(s string) bool {
	return len(s) == len(idPrefix)+idDigits && strings.HasPrefix(s, idPrefix) && strings.Trim(s[len(idPrefix):], alphabet) == ""
}

// PackNode appends the packed form of a canonical ID.
func PackNode(b []byte, id string) ([]byte, error) {
	if !validNode(id) {
		return b, fmt.Errorf("expected a canonical ID, got %.40q", id)
	}
	whole := id[len(idPrefix):] + alphabet[:1] + alphabet[:1] + alphabet[:1] + alphabet[:1] // 24 digits are 15 octets
	var bits [15]byte
	if _, err := idEncoding.Decode(bits[:], []byte(whole)); err != nil {
		return b, err
	}
	return append(b, bits[:idOctets]...), nil
}

// UnpackNode reads a canonical ID that PackNode has written, of exactly its length.
func UnpackNode(b []byte) (string, error) {
	if len(b) != idOctets || b[idOctets-1]&0x0f != 0 {
		return "", fmt.Errorf("expected a canonical ID of 100 bits in %d octets, got %x", idOctets, b[:min(len(b), idOctets)])
	}
	var bits [15]byte
	copy(bits[:], b)
	return idPrefix + idEncoding.EncodeToString(bits[:])[:idDigits], nil
}

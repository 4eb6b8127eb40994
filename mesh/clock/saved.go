package clock

import (
	"fmt"
	"hash/crc32"
	"strings"
	"time"
)

// maxSaved bounds a saved clock: a time and a checksum.
const maxSaved = 64

// Marshal returns the saved form of a time: one line with its checksum.
func Marshal(t time.Time) []byte {
	s := t.UTC().Format(time.RFC3339)
	return fmt.Appendf(nil, "%s %08x\n", s, crc32.ChecksumIEEE([]byte(s)))
}

// Unmarshal reads the saved form.
func Unmarshal(b []byte) (time.Time, error) {
	if len(b) > maxSaved {
		return time.Time{}, fmt.Errorf("saved clock: expected at most %d octets, got %d", maxSaved, len(b))
	}
	text, sum, ok := strings.Cut(strings.TrimSuffix(string(b), "\n"), " ")
	if want := fmt.Sprintf("%08x", crc32.ChecksumIEEE([]byte(text))); !ok || sum != want {
		return time.Time{}, fmt.Errorf("saved clock: expected a time and its checksum %s, got %q", want, sum)
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return time.Time{}, fmt.Errorf("saved clock: %w", err)
	}
	return t, nil
}

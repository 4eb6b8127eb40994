package dot11

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
)

// KDF fills out with the key derivation function KDF-SHA-256 of 12.7.1.7.2: HMACs
// of a counter, label, context and the length in bits, which is len(out)*8.
func KDF(out, key []byte, label string, context ...[]byte) {
	bits := binary.LittleEndian.AppendUint16(nil, uint16(len(out)*8))
	h := hmac.New(sha256.New, key)
	var counter [2]byte
	var block [sha256.Size]byte
	for i, rest := uint16(1), out; len(rest) > 0; i++ {
		binary.LittleEndian.PutUint16(counter[:], i)
		h.Reset()
		h.Write(counter[:])
		h.Write([]byte(label))
		for _, c := range context {
			h.Write(c)
		}
		h.Write(bits)
		rest = rest[copy(rest, h.Sum(block[:0])):]
	}
	clear(block[:])
}

// Package nodecode is each node's code: what a person who stands before it types
// at its console. It follows from the keys of the network and of the node, so
// that the gateway can show it to an admin and the node can check it with no
// word between them, also while the gateway is off. All codes become others when
// the gateway raises their generation.
//
// A node can compute its own code: who has a node's card has what the code
// protects there already, and learns nothing of other nodes' codes.
package nodecode

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"strings"

	"halo.internal/identity"
	"halo.internal/model/claim"
)

// symbols of 5 bits each: 80 bits. No hashing makes up for a short code, so that
// it is long instead; it is checked in no time and needs no memory for that.
const symbols = 16

// alphabet is Crockford's base32, as of claim codes.
const alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

// ErrWrong is returned for a code that is not the node's.
var ErrWrong = errors.New("the code is not this node's")

// New returns the code of a generation, such as "7K3M-Q0ZT-4WXP-B2D9", from one
// of the two private keys and the other public key: the network's and the
// node's. The gateway's own is from its key alone.
func New(own identity.Key, other identity.PublicKey, generation uint32) (string, error) {
	raw, err := own.Agree(other, fmt.Sprintf("halo node code 1 %d", generation), symbols)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for i, r := range raw {
		if i > 0 && i%4 == 0 {
			b.WriteByte('-')
		}
		b.WriteByte(alphabet[r&31])
	}
	return b.String(), nil
}

// Check returns nil when a person has typed that code: in any case, with or
// without separators, O for 0, I or L for 1.
func Check(code, typed string) error {
	want, err := claim.Normalise(code)
	if err != nil {
		return err
	}
	got, err := claim.Normalise(typed)
	if err != nil || subtle.ConstantTimeCompare([]byte(want), []byte(got)) != 1 {
		return ErrWrong
	}
	return nil
}

package proof

import (
	"encoding/binary"
	"time"

	"github.com/flynn/noise"

	"halo.internal/identity"
)

// session is a proven peer. The ciphers' nonce 0 was spent on the statements;
// keep-alives and messages count from 1, together, and carry their number, since
// frames get lost.
type session struct {
	id        uint64 // of this engine's
	peer      identity.PublicKey
	nonce     nonce // the peer's run
	send      noise.Cipher
	receive   noise.Cipher
	sent      uint64
	received  uint64
	since     time.Time
	heard     time.Time
	nextAlive time.Time

	proof   []byte // the responder's: the initiator's statement, and
	confirm []byte // what answers it, should it come again
}

func newSession(peer identity.PublicKey, n nonce, send, receive noise.Cipher) *session {
	return &session{peer: peer, nonce: n, send: send, receive: receive}
}

// ask is the bit of a keep-alive's number that wants one in return.
const ask = 1 << 63

// alive returns the next keep-alive.
func (s *session) alive(asking bool) []byte {
	s.sent++
	n := s.sent
	if asking {
		n |= ask
	}
	return build(kindAlive, binary.BigEndian.AppendUint64(nil, n), s.send.Encrypt(nil, n, build(kindAlive), nil))
}

// accept tells whether body is a keep-alive of the peer that was not heard yet,
// and whether it wants one in return.
func (s *session) accept(body []byte) (ok, asked bool) {
	n := binary.BigEndian.Uint64(body)
	if n&^ask <= s.received {
		return false, false
	}
	if _, err := s.receive.Decrypt(nil, n, build(kindAlive), body[counterSize:]); err != nil {
		return false, false
	}
	s.received = n &^ ask
	return true, n&ask != 0
}

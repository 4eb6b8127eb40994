package proof

import (
	"encoding/binary"
	"time"

	"github.com/flynn/noise"

	"halo.internal/identity"
)

// session is a proven peer. The ciphers' nonce 0 was spent on the statements;
// keep-alives count from 1 and say their number, since frames get lost.
type session struct {
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

// alive returns the next keep-alive.
func (s *session) alive() []byte {
	s.sent++
	count := binary.BigEndian.AppendUint64(nil, s.sent)
	return build(kindAlive, count, s.send.Encrypt(nil, s.sent, build(kindAlive), nil))
}

// accept tells whether body is a keep-alive of the peer that was not heard yet.
func (s *session) accept(body []byte) bool {
	count := binary.BigEndian.Uint64(body)
	if count <= s.received {
		return false
	}
	if _, err := s.receive.Decrypt(nil, count, build(kindAlive), body[counterSize:]); err != nil {
		return false
	}
	s.received = count
	return true
}

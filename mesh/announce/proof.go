package announce

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"halo.internal/identity"
)

// A question proves at little cost, before its signature is looked at, that only the
// member in whose name it comes can have made it: the second half of its nonce is a code
// by a secret that the member and the gateway have together, over the stamp and the first
// half. To a gateway of a former release it is a nonce like any other. It is no signature:
// the rest of the question is not bound, and who has caught one can send it with another
// body, until the gateway has had one with that stamp.
const (
	proofContext = "halo announce question 1"
	proofDraw    = NonceSize / 2 // octets of a nonce that are drawn
	proofSecret  = 32
)

// proofOf returns the second half of a nonce. secret is what both ends agree on; draw is
// the first half.
func proofOf(secret []byte, s Stamp, draw []byte) []byte {
	h := hmac.New(sha256.New, secret)
	h.Write(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, s.Boot), s.Seq))
	h.Write(draw)
	return h.Sum(nil)[:NonceSize-proofDraw]
}

// drawNonce makes the nonce of a question to the gateway. Without a secret, since the
// network's key has none to agree on, all of it is drawn.
func drawNonce(secret []byte, s Stamp) []byte {
	nonce := make([]byte, NonceSize)
	rand.Read(nonce)
	if secret != nil {
		copy(nonce[proofDraw:], proofOf(secret, s, nonce[:proofDraw]))
	}
	return nonce
}

// maxProvers bounds the members that proofs remembers; a network has 250.
const maxProvers = 1024

// prover is a member that may prove its questions.
type prover struct {
	secret []byte // nil: there is none to agree on
	last   Stamp  // of the last question that it proved
}

// proofs checks the questions of members at the gateway. It is for one goroutine.
type proofs struct {
	key     identity.Key
	codec   Codec
	members map[identity.PublicKey]*prover
}

// proven tells whether a datagram from a member's address is a question that it has proved,
// later than the last one: what was recorded of it is not. It costs less than to receive it
// did, but once for each member, when a secret is agreed on.
func (p *proofs) proven(from Owner, b []byte) bool {
	if from.Kin != KinMember {
		return false
	}
	n, ok := p.codec.peekNode(b)
	if !ok || len(n.Nonce) != NonceSize || !slices.Equal(n.Key, from.Key[:]) {
		return false
	}
	m := p.members[from.Key]
	if m == nil {
		if len(p.members) >= maxProvers {
			clear(p.members)
		}
		m = &prover{}
		m.secret, _ = p.key.Agree(from.Key, proofContext, proofSecret) // a key without one proves nothing
		p.members[from.Key] = m
	}
	if m.secret == nil || !n.Stamp.After(m.last) || n.Stamp.Epoch != 0 || !hmac.Equal(n.Nonce[proofDraw:], proofOf(m.secret, n.Stamp, n.Nonce[:proofDraw])) {
		return false
	}
	m.last = n.Stamp
	return true
}

// peekNode reads what a node says without looking at its signature.
func (c Codec) peekNode(b []byte) (n Node, ok bool) {
	e, err := c.open(b)
	return n, err == nil && e.Kind == kindNode && decMode.Unmarshal(e.Body, &n) == nil
}

// peekAnswer reads which nonce a gateway answers without looking at its signature.
func (c Codec) peekAnswer(b []byte) (nonce []byte, ok bool) {
	e, err := c.open(b)
	if err != nil {
		return nil, false
	}
	switch e.Kind {
	case kindGateway:
		var g Gateway
		ok = decMode.Unmarshal(e.Body, &g) == nil
		return g.Nonce, ok
	case kindPast:
		var p Past
		ok = decMode.Unmarshal(e.Body, &p) == nil
		return p.Nonce, ok
	}
	return nil, false
}

package doctor

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// kind of a message. The first four go through the overlay, where WireGuard says
// from whom they are; the last two over bat0, where their key does.
type kind uint8

const (
	kindEcho    kind = iota + 1 // a packet of that size: has it come?
	kindEchoed                  // it has
	kindWatch                   // probes under that key will come over bat0: which have?
	kindSeen                    // these
	kindUnicast                 // a probe over bat0, of that size
	kindToAll                   // a probe over bat0, to a group
)

// groups of kindToAll.
const (
	groupJoined = iota // the kernel passes it on to who has joined
	groupFlood         // nobody joins it: it arrives where all is flooded
	groups
)

// Sizes of messages. Answers are never longer than what they answer.
const (
	keySize  = 16
	macSize  = 16
	headSize = 12 // "HD", version, kind, ID

	echoSize  = headSize + 4
	watchSize = headSize + 1 + keySize
	seenSize  = headSize + 4
	probeSize = headSize + 4 + macSize

	version = 1

	// headers are those of IPv6 and UDP: sizes of packets count them.
	headers = 40 + 8
)

// maxIndex is how many probes to a group one session may have.
const maxIndex = 8

// message is any message of the protocol, as its kind uses it.
type message struct {
	kind kind
	id   uint64 // of an echo or a session, random
	// index tells messages of one ID apart; of kindUnicast and kindEcho it counts
	// tries.
	index uint16
	size  uint16 // of the IP packet: as sent, or of kindEchoed as received; of kindSeen the largest kindUnicast
	key   [keySize]byte
	deaf  bool          // of kindWatch: who asks was told that nothing came, and does not believe in the path
	seen  [groups]uint8 // of kindSeen: a bit for each index
	group uint8         // of kindToAll
	mac   [macSize]byte
}

// errForm is wrapped when octets are no message.
var errForm = errors.New("malformed probe")

// append writes the message. Probes are as long as their size says, with zeros at
// the end.
func (m message) append(b []byte) []byte {
	start := len(b)
	b = append(b, 'H', 'D', version, byte(m.kind))
	b = binary.BigEndian.AppendUint64(b, m.id)
	switch m.kind {
	case kindEcho, kindEchoed:
		b = binary.BigEndian.AppendUint16(b, m.index)
		b = binary.BigEndian.AppendUint16(b, m.size)
	case kindWatch:
		b = append(b, bit(m.deaf))
		b = append(b, m.key[:]...)
	case kindSeen:
		b = append(b, m.seen[groupJoined], m.seen[groupFlood])
		b = binary.BigEndian.AppendUint16(b, m.size)
	case kindUnicast, kindToAll:
		b = binary.BigEndian.AppendUint16(b, m.index)
		if m.kind == kindToAll {
			b = append(b, m.group, 0)
		} else {
			b = binary.BigEndian.AppendUint16(b, m.size)
		}
		b = append(b, m.mac[:]...)
	}
	if m.kind == kindEcho || m.kind == kindUnicast {
		if pad := int(m.size) - headers - (len(b) - start); pad > 0 {
			b = append(b, make([]byte, pad)...)
		}
	}
	return b
}

// parse reads a message that came in a UDP packet of IPv6. What it says of its own
// size is true, or it is none.
func parse(b []byte) (m message, err error) {
	if len(b) < headSize || b[0] != 'H' || b[1] != 'D' || b[2] != version {
		return m, fmt.Errorf("%w: expected %d octets or more that begin with HD and %d, got %d octets", errForm, headSize, version, len(b))
	}
	m.kind, m.id = kind(b[3]), binary.BigEndian.Uint64(b[4:])
	body := b[headSize:]
	var want int
	switch m.kind {
	case kindEcho, kindEchoed:
		want = echoSize
	case kindWatch:
		want = watchSize
	case kindSeen:
		want = seenSize
	case kindUnicast, kindToAll:
		want = probeSize
	default:
		return m, fmt.Errorf("%w: kind %d is not known", errForm, b[3])
	}
	padded := m.kind == kindEcho || m.kind == kindUnicast
	if len(b) < want || len(b) > want && !padded {
		return m, fmt.Errorf("%w: kind %d: expected %d octets, got %d", errForm, m.kind, want, len(b))
	}
	switch m.kind {
	case kindWatch:
		if body[0] > 1 {
			return m, fmt.Errorf("%w: expected a flag of 0 or 1, got %d", errForm, body[0])
		}
		m.deaf, m.key = body[0] == 1, [keySize]byte(body[1:])
		return m, nil
	case kindSeen:
		m.seen, m.size = [groups]uint8{body[0], body[1]}, binary.BigEndian.Uint16(body[2:])
		return m, nil
	}
	m.index = binary.BigEndian.Uint16(body)
	if m.kind == kindToAll {
		if m.group, m.mac = body[2], [macSize]byte(body[4:]); m.group >= groups || body[3] != 0 || m.index >= maxIndex {
			return m, fmt.Errorf("%w: expected a group below %d and an index below %d, got %d and %d", errForm, groups, maxIndex, m.group, m.index)
		}
		return m, nil
	}
	m.size = binary.BigEndian.Uint16(body[2:])
	if padded && int(m.size) != len(b)+headers {
		return m, fmt.Errorf("%w: it says that its packet has %d octets, got %d", errForm, m.size, len(b)+headers)
	}
	if m.kind == kindUnicast {
		m.mac = [macSize]byte(body[4:])
	}
	return m, nil
}

// sum is the MAC of a probe over bat0: HMAC-SHA256 over all that it says, cut to
// 128 bits. Padding is not part of it; its length is.
func (m message) sum(key [keySize]byte) (mac [macSize]byte) {
	h := hmac.New(sha256.New, key[:])
	size := m.size
	m.mac, m.size = [macSize]byte{}, 0 // and so no padding
	h.Write(m.append(nil))
	h.Write(binary.BigEndian.AppendUint16(nil, size))
	return [macSize]byte(h.Sum(nil))
}

// sealed returns the probe with its MAC.
func (m message) sealed(key [keySize]byte) message {
	m.mac = m.sum(key)
	return m
}

// genuine tells whether a probe was made by who has the key.
func (m message) genuine(key [keySize]byte) bool {
	want := m.sum(key)
	return hmac.Equal(m.mac[:], want[:])
}

func bit(b bool) byte {
	if b {
		return 1
	}
	return 0
}

package chips

import "time"

// sensirion is a chip of commands, whose answers have a checksum behind each two
// octets. A read that no finished command came before is not acknowledged.
type sensirion struct {
	answer []byte
	ready  time.Time
}

// say prepares words, to be read when the chip has had its time.
func (s *sensirion) say(after time.Duration, words ...uint16) {
	s.answer = nil
	for _, w := range words {
		b := []byte{byte(w >> 8), byte(w)}
		s.answer = append(s.answer, b[0], b[1], sum(b))
	}
	s.ready = time.Now().Add(after)
}

// busy does something that has no answer.
func (s *sensirion) busy(d time.Duration) {
	s.answer, s.ready = nil, time.Now().Add(d)
}

func (s *sensirion) read(r []byte) error {
	if len(r) == 0 {
		return nil
	}
	if s.answer == nil || time.Now().Before(s.ready) {
		return ErrNAK
	}
	n := copy(r, s.answer)
	for i := n; i < len(r); i++ {
		r[i] = 0xff
	}
	s.answer = nil
	return nil
}

// checked tells whether the words of a command have their checksums.
func checked(args []byte) bool {
	for ; len(args) >= 3; args = args[3:] {
		if sum(args[:2]) != args[2] {
			return false
		}
	}
	return len(args) == 0
}

// sum is Sensirion's checksum: x⁸+x⁵+x⁴+1, from 0xff.
func sum(b []byte) byte {
	s := byte(0xff)
	for _, x := range b {
		s ^= x
		for range 8 {
			if s&0x80 != 0 {
				s = s<<1 ^ 0x31
			} else {
				s <<= 1
			}
		}
	}
	return s
}

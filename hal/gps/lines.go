package gps

// maxLine bounds a sentence. NMEA 0183 has 82; what receivers add of their own, such as
// u-blox's PUBX,03, comes to several times as much.
const maxLine = 512

// Lines finds sentences in what comes from a receiver: half a sentence after a reset of
// the line, UBX and RTCM frames between sentences, noise of a wrong rate.
type Lines struct {
	buf [maxLine]byte
	n   int  // octets of the open sentence, with its $
	in  bool // there is one
	LineStats
}

// LineStats count.
type LineStats struct {
	Sentences uint64 // valid
	Damaged   uint64 // with a checksum that is wrong, or none
	Noise     uint64 // octets of no sentence, and of such as were broken off
}

// Feed calls f with each sentence whose checksum is right, from its $ or ! to its checksum.
func (l *Lines) Feed(b []byte, f func(string)) {
	for _, c := range b {
		switch {
		case c == '$' || c == '!' && !l.in:
			l.drop()
			l.in = true
			l.buf[0], l.n = c, 1
		case !l.in:
			if c != '\r' && c != '\n' {
				l.Noise++
			}
		case c == '\r' || c == '\n':
			if sum(l.buf[:l.n]) {
				l.Sentences++
				f(string(l.buf[:l.n]))
			} else {
				l.Damaged++
			}
			l.in, l.n = false, 0
		case c < ' ' || c > '~' || l.n == maxLine:
			l.drop()
			l.Noise++
		default:
			l.buf[l.n] = c
			l.n++
		}
	}
}

// drop breaks a sentence off.
func (l *Lines) drop() {
	l.Noise += uint64(l.n)
	l.in, l.n = false, 0
}

// sum tells whether a sentence ends with the checksum of what is between its first octet
// and the asterisk.
func sum(b []byte) bool {
	end := len(b) - 3
	if end < 2 || b[end] != '*' {
		return false
	}
	high, low := hex(b[end+1]), hex(b[end+2])
	if high < 0 || low < 0 {
		return false
	}
	var x byte
	for _, c := range b[1:end] {
		x ^= c
	}
	return int(x) == high<<4|low
}

func hex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	}
	return -1
}

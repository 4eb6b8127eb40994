package mjpeg

import "time"

// Pace bounds the frames and the octets of a second. A frame may be larger than what
// there is: then it is owed, and the next one waits for longer.
type Pace struct {
	gap  time.Duration // between two frames
	rate float64       // octets a second

	next time.Time
	left float64 // octets; below 0: owed
	at   time.Time
}

// NewPace returns one of so many frames and kbit a second, which are more than 0.
func NewPace(fps float64, kbit int) *Pace {
	rate := float64(kbit) * 1000 / 8
	return &Pace{gap: time.Duration(float64(time.Second) / fps), rate: rate, left: rate}
}

// As returns what goes on at other bounds: what is owed, a capture owes that comes
// after, or each snapshot would begin with a second's worth.
func (p *Pace) As(fps float64, kbit int) *Pace {
	n := NewPace(fps, kbit)
	if p != nil {
		n.left, n.at = min(p.left, n.left), p.at
		if n.gap >= p.gap {
			n.next = p.next
		}
	}
	return n
}

// Want tells whether a frame that is there now may go out. It may come a little early:
// a device of just this rate keeps no exact time.
func (p *Pace) Want(now time.Time) bool {
	if now.Before(p.next.Add(-p.gap / 8)) {
		return false
	}
	p.fill(now)
	if p.left <= 0 {
		return false
	}
	if p.next = p.next.Add(p.gap); !p.next.After(now) {
		p.next = now.Add(p.gap)
	}
	return true
}

// fill adds what the time that has passed allows: of a second at most, so that a pause
// is no reason for a burst.
func (p *Pace) fill(now time.Time) {
	if !p.at.IsZero() {
		if passed := now.Sub(p.at).Seconds(); passed > 0 {
			p.left = min(p.left+passed*p.rate, p.rate)
		}
	}
	p.at = now
}

// Spend counts what goes out.
func (p *Pace) Spend(now time.Time, octets int) {
	p.fill(now)
	p.left -= float64(octets)
}

package relay

import "time"

// bucket is a budget that fills with time. The zero value of its state is full.
type bucket struct {
	rate, burst float64 // per second; the most that it holds
	spent       float64
	at          time.Time // when that was so
}

// left tells how much there is.
func (b *bucket) left(now time.Time) float64 {
	if passed := now.Sub(b.at).Seconds(); passed > 0 {
		b.spent = max(0, b.spent-passed*b.rate)
		b.at = now
	}
	return b.burst - b.spent
}

// take takes n, if there is any at all: what is too much is owed.
func (b *bucket) take(now time.Time, n float64) bool {
	if b.left(now) <= 0 {
		return false
	}
	b.spent += n
	return true
}

// ready returns when there will be something again.
func (b *bucket) ready(now time.Time) time.Time {
	left := b.left(now)
	if left > 0 {
		return now
	}
	return now.Add(time.Duration(-left/b.rate*float64(time.Second)) + time.Millisecond)
}

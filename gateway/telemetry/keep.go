package telemetry

import "time"

// Keep is for how long readings are kept in which form, at most.
type Keep struct {
	Raw     time.Duration // as they were made
	Minute  time.Duration // minutes of them, or as they were made where that is smaller
	Quarter time.Duration // quarters of an hour
	Hour    time.Duration // hours
}

// DefaultKeep is what holds where nobody has decided otherwise.
func DefaultKeep() Keep {
	const day = 24 * time.Hour
	return Keep{Raw: 90 * day, Minute: 365 * day, Quarter: 2 * 365 * day, Hour: 5 * 365 * day}
}

// Retention is how much is kept, and for how long.
type Retention struct {
	Keep   Keep
	Budget int64 // octets of all files; a third of the file system at most
}

// Retention returns those that hold.
func (s *Store) Retention() Retention { return *s.retention.Load() }

// SetRetention changes how much is kept; what that is too much of is thinned soon.
func (s *Store) SetRetention(l Retention) {
	s.retention.Store(&l)
	s.wake()
}

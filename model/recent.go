package model

import "time"

// Recent tells whether at is less than within away from now, where either was read
// from a clock that is set now and then. One that is that far ahead is as old as one
// that is that far behind: it was stamped before the clock was set back, and nobody
// knows how long ago. Zero is never recent.
func Recent(now, at time.Time, within time.Duration) bool { return now.Sub(at).Abs() < within }

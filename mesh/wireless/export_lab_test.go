//go:build lab

package wireless

import "time"

// HaLowDriver is what a stand-in for Morse's driver has.
type HaLowDriver = halowDriver

// StandIn has a driver by that module stand for Morse's, and be looked after as
// quickly as a test wants it.
func (w *Wireless) StandIn(module string, d HaLowDriver) {
	w.halowModule, w.look, w.again = module, 200*time.Millisecond, time.Second
	w.newHaLow = func() (halowDriver, error) { return d, nil }
}

//go:build lab

package wireless

import (
	"time"

	"halo.internal/mesh/heal"
)

// HaLowDriver is what a stand-in for Morse's driver has.
type HaLowDriver = halowDriver

// StandIn has a driver by that module stand for Morse's, and be looked after as
// quickly as a test wants it.
func (w *Wireless) StandIn(module string, d HaLowDriver) {
	w.halowModule, w.again = module, time.Second
	w.Hurry()
	w.newHaLow = func() (halowDriver, error) { return d, nil }
}

// Hurry has the ladder take seconds for what takes it minutes on a board.
func (w *Wireless) Hurry() {
	l := heal.DefaultLimits
	l.Search, l.Stand, l.Alone = time.Second, 6*time.Second, 10*time.Second
	l.Restart, l.Reload = heal.Waits{First: 5 * time.Second, Last: time.Minute}, heal.Waits{First: 5 * time.Second, Last: time.Minute}
	w.look, w.healer = time.Second, newHealer(l)
}

package card

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
)

// resetTries is how many starts carry out a request: a card that takes nothing any more
// must not keep a device from starting for ever.
const resetTries = 3

// maxBy bounds who has asked.
const maxBy = 128

// Reset is a request for the factory reset, which the next start carries out before
// anything of the data partition is read. Power may go at any time: until Done, the next
// start begins with it again.
type Reset struct{ area *Area }

// NewReset returns the request of a disk.
func NewReset(d Device) Reset {
	return Reset{&Area{dev: d, name: "reset", magic: [8]byte([]byte("halorset")), at: [2]int64{reset0, reset1}, size: SectorSize}}
}

type resetText struct {
	By    string `json:"by"`
	Tries int    `json:"tries"` // starts that may still begin with it; 0: it is done, or given up
}

// Ask makes the next start a factory reset.
func (r Reset) Ask(by string) error { return r.store(resetText{by[:min(len(by), maxBy)], resetTries}) }

// Begin tells who has asked for a reset that is to be carried out now; empty: nobody. It
// costs the request a try.
func (r Reset) Begin() (by string, err error) {
	b, err := r.area.Load()
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err // never a reason to delete everything
	}
	var t resetText
	if err := json.Unmarshal(b, &t); err != nil {
		return "", fmt.Errorf("reset: %w: %v", ErrDamaged, err)
	}
	if t.Tries < 1 || t.Tries > resetTries {
		return "", nil
	}
	if t.By == "" {
		t.By = "somebody"
	}
	t.Tries--
	return t.By, r.store(t)
}

// Done ends the request.
func (r Reset) Done() error { return r.store(resetText{}) }

func (r Reset) store(t resetText) error {
	b, err := json.Marshal(t)
	if err != nil {
		return err
	}
	return r.area.Store(b)
}

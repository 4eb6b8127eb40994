package card

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
)

// resetTries is how many starts may begin to carry out a request: one that never gets as
// far as the data partition is given up.
const resetTries = 3

// maxBy bounds who has asked.
const maxBy = 128

// Reset is a request for the factory reset, which the next start carries out before
// anything of the data partition is read. Power may go at any time: until the vault is
// empty the device is as it was, and from then on until Done each start goes on with it.
type Reset struct{ area *Area }

// NewReset returns the request of a disk.
func NewReset(d Device) Reset {
	return Reset{&Area{dev: d, name: "reset", magic: [8]byte([]byte("halorset")), at: [2]int64{reset0, reset1}, size: SectorSize}}
}

type resetText struct {
	By    string `json:"by"`             // empty: nobody asks for one
	Tries int    `json:"tries"`          // starts that may still begin with it
	Wipe  bool   `json:"wipe,omitempty"` // it has begun: nothing in the data partition is believed
}

// Ask makes the next start a factory reset. One that has begun goes on as it is.
func (r Reset) Ask(by string) error {
	if t, err := r.load(); err == nil && t.Wipe {
		return nil
	}
	if by == "" {
		by = "somebody"
	}
	return r.store(resetText{By: by[:min(len(by), maxBy)], Tries: resetTries})
}

// Withdraw takes back a request with which no start has begun, and tells who had made it;
// empty: there was none.
func (r Reset) Withdraw() (by string, err error) {
	t, err := r.load()
	if err != nil || t.Wipe || t.By == "" {
		return "", err
	}
	return t.By, r.store(resetText{})
}

// Begin tells who has asked for a reset that is to be carried out now; empty: nobody. The
// vault is empty then, and whatever becomes of this start, nothing in the data partition
// may be believed before it was made anew and Done was called. With an error the device
// goes on as it was.
func (r Reset) Begin(v *Vault) (by string, err error) {
	t, err := r.load()
	switch {
	case err != nil:
		return "", err // never a reason to delete everything
	case t.Wipe:
		return t.By, nil
	case t.By == "":
		return "", nil
	case t.Tries == 0:
		return "", errors.Join(fmt.Errorf("reset: asked for by %s, and given up: %d starts ended before it began", t.By, resetTries), r.store(resetText{}))
	}
	t.Tries--
	if err := r.store(t); err != nil {
		return "", err
	}
	if err := v.Clear(); err != nil {
		return "", err
	}
	t.Wipe = true
	if err := r.store(t); err != nil {
		// What the next start would go on with is begun, even if only one copy says so.
		if now, again := r.load(); again != nil || !now.Wipe {
			return "", err
		}
	}
	return t.By, nil
}

// Done ends the request: nothing is left of what the device was.
func (r Reset) Done() error { return r.store(resetText{}) }

func (r Reset) load() (t resetText, err error) {
	b, err := r.area.Load()
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if err != nil {
		return t, err
	}
	if err := json.Unmarshal(b, &t); err != nil {
		return resetText{}, fmt.Errorf("reset: %w: %v", ErrDamaged, err)
	}
	if t.Tries < 0 || t.Tries > resetTries || t.By == "" {
		return resetText{}, nil
	}
	return t, nil
}

func (r Reset) store(t resetText) error {
	b, err := json.Marshal(t)
	if err != nil {
		return err
	}
	return r.area.Store(b)
}

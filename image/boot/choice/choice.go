// Package choice carries out what update/slots decides: it keeps the state of
// the slots on the card and makes slot.txt, from which the firmware learns
// where to boot from, follow it.
package choice

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"halo.internal/hal/card"
	"halo.internal/image/layout"
	"halo.internal/update/slots"
)

// Keeper reads and writes a card's choice of slot. It is not safe for
// concurrent use.
type Keeper struct {
	Disk card.Device
	// SlotTXT returns the place of slot.txt on the disk, in octets.
	SlotTXT func() (int64, error)
}

// Load returns the state. A card that never had one, or whose both copies rot,
// starts anew from the running slot, which is known to start; the error then
// wraps card.ErrDamaged and the state is good all the same.
func (k Keeper) Load(running slots.Slot) (slots.State, error) {
	s, err := slots.Load(card.SlotState(k.Disk))
	if err == nil {
		return s, nil
	}
	s = slots.New()
	s.Active = running
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	return s, err
}

// Store keeps the state, and then makes slot.txt name its active slot, so that
// after a power cut in between the state tells what was meant.
func (k Keeper) Store(s slots.State) error {
	if err := slots.Store(card.SlotState(k.Disk), s); err != nil {
		return err
	}
	at, err := k.SlotTXT()
	if err != nil {
		return fmt.Errorf("%s: %w", layout.SlotTXT, err)
	}
	sector, err := k.sector(at)
	if err != nil {
		return err
	}
	line := layout.SlotLine(byte(s.Active))
	if bytes.HasPrefix(sector, []byte(line)) {
		return nil
	}
	copy(sector, line)
	if _, err := k.Disk.WriteAt(sector, at); err != nil {
		return fmt.Errorf("write %s: %w", layout.SlotTXT, err)
	}
	return k.Disk.Sync()
}

// Written returns the slot that slot.txt names.
func (k Keeper) Written() (slots.Slot, error) {
	at, err := k.SlotTXT()
	if err != nil {
		return 0, fmt.Errorf("%s: %w", layout.SlotTXT, err)
	}
	sector, err := k.sector(at)
	if err != nil {
		return 0, err
	}
	if bytes.HasPrefix(sector, []byte(layout.SlotLine(byte(slots.B)))) {
		return slots.B, nil
	}
	return slots.A, nil
}

// sector reads the sector of slot.txt. One that does not hold its line is an
// error: it is somebody else's, and must not be written to.
func (k Keeper) sector(at int64) ([]byte, error) {
	b := make([]byte, card.SectorSize)
	if at < layout.BootOffset || at > layout.BootOffset+layout.BootSize-card.SectorSize || at%card.SectorSize != 0 {
		return nil, fmt.Errorf("%s: expected a sector of the boot partition, got offset %d", layout.SlotTXT, at)
	}
	if _, err := k.Disk.ReadAt(b, at); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %w", layout.SlotTXT, err)
	}
	for _, s := range []slots.Slot{slots.A, slots.B} {
		if bytes.HasPrefix(b, []byte(layout.SlotLine(byte(s)))) {
			return b, nil
		}
	}
	return nil, fmt.Errorf("%s: expected %q, got %.20q", layout.SlotTXT, layout.SlotLine('a'), b)
}

// Package card reads and writes what lies on the disk outside of any file
// system: the partition table, and the raw areas between it and the first
// partition, where the slot state, the vault and the last kernel messages are
// kept. Raw areas survive a ruined file system, and a write to them ends as
// the old content or the new, whole, wherever power fails.
package card

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// Device is a disk, or a file that stands for one.
type Device interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// SectorSize is the unit in which disks write; no write tears within it.
const SectorSize = 512

// Places of the raw areas, below layout.BootOffset.
const (
	slotState0 = 1 << 20
	slotState1 = 2 << 20
	vault0     = slotState0 + 256<<10
	vault1     = slotState1 + 256<<10
	vaultSize  = 256 << 10
	crash0     = slotState0 + 512<<10
	crash1     = slotState1 + 512<<10
	crashSize  = 64 << 10
	super0     = slotState0 + 640<<10
	super1     = slotState1 + 640<<10
	superSize  = 2 << 10
	reset0     = slotState0 + 704<<10
	reset1     = slotState1 + 704<<10
)

// ErrDamaged is wrapped where an area holds something, but neither of its
// copies is whole.
var ErrDamaged = errors.New("both copies are damaged")

// SlotState is the area of which system boots (update/slots): one sector, kept
// twice.
func SlotState(d Device) *Area {
	return &Area{dev: d, name: "slot state", magic: [8]byte([]byte("haloslot")), at: [2]int64{slotState0, slotState1}, size: SectorSize}
}

// Crash is the area of the last kernel messages before a fall.
func Crash(d Device) *Area {
	return &Area{dev: d, name: "crash", magic: [8]byte([]byte("halocrsh")), at: [2]int64{crash0, crash1}, size: crashSize}
}

// Superblock is the area of a copy of the data partition's superblock, whose
// own is torn when power goes at the wrong instant.
func Superblock(d Device) *Area {
	return &Area{dev: d, name: "superblock", magic: [8]byte([]byte("halosupr")), at: [2]int64{super0, super1}, size: superSize}
}

// vaultArea is what NewVault keeps its map in.
func vaultArea(d Device) *Area {
	return &Area{dev: d, name: "vault", magic: [8]byte([]byte("halovalt")), at: [2]int64{vault0, vault1}, size: vaultSize}
}

// empty is returned where an area was never written.
func empty(name string) error { return fmt.Errorf("%s: never written: %w", name, fs.ErrNotExist) }

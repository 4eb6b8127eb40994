// Package layout is what the two halves of the image room agree on: halo-image
// writes these files into the boot FAT and the initramfs on the build host,
// halo-init reads them on the board. Sectors outside of any file system are
// hal/card's.
package layout

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
)

// Places on the card, as gok partitions it.
const (
	SectorSize = 512
	BootOffset = 4 << 20   // partition 1, the boot FAT
	BootSize   = 100 << 20 //
	RootSize   = 500 << 20 // partitions 2 (slot a) and 3 (slot b)
	RootAStart = BootOffset + BootSize
	RootBStart = RootAStart + RootSize
	PermStart  = RootBStart + RootSize // partition 4, to the end of the card
)

// Files at the top of the boot FAT.
const (
	ConfigTXT = "config.txt" // read by the Raspberry Pi's firmware
	SlotTXT   = "slot.txt"   // included by ConfigTXT; see SlotLine
)

// Files of a slot's directory, and of a flat image's boot FAT where they lie
// at the top, without Modules and Manifest.
const (
	Kernel   = "vmlinuz" // gzip'd in a slot, plain in a flat image
	Initrd   = "initrd.bin"
	Cmdline  = "cmdline.txt"
	Modules  = "modules.img" // SquashFS, mounted over /lib/modules
	Manifest = "slot.json"
	HaLow    = "halow.json" // the board's [halow] (drivers/halow.Settings); only for a board that has it
)

// ReserveSize is the size of paths.BootReserve in a flat image's boot FAT, which
// gok makes just as large as what it holds: it is removed to make room for a
// bundle or a claim notice.
const ReserveSize = 128 << 10

// Files of the initramfs.
const (
	Init         = "/init"
	BootModules  = "/boot-modules" // modules to load at once, in this order, one name a line
	PermTemplate = "/perm.ext4.gz" // an empty ext4, written to partition 4 when /perm must be made anew
)

// SlotDir is the directory of slot 'a' or 'b' in the boot FAT.
func SlotDir(slot byte) string { return "slot-" + string(slot) }

// SlotLine is the whole content of SlotTXT: of the same length for both slots,
// so that it is overwritten in place, within one sector.
func SlotLine(slot byte) string { return "os_prefix=" + SlotDir(slot) + "/\n" }

// Slot is slot.json: which release a slot holds and what its parts must hash
// to.
type Slot struct {
	Format        int    `json:"format"`
	Version       string `json:"version"` // HALO's, as in model/version
	Commit        string `json:"commit"`
	Board         string `json:"board"`
	Role          string `json:"role"`
	KernelRelease string `json:"kernel_release"` // as in uname -r
	ModulesSHA256 string `json:"modules_sha256"` // hex, of the whole modules image
	ModulesSize   int64  `json:"modules_size"`
	Root          Root   `json:"root"`
}

// Root describes the root partition's content: Size octets of SquashFS (a
// multiple of BlockSize), and right behind them the dm-verity hash tree
// (format 1, SHA-256, no superblock).
type Root struct {
	Size int64  `json:"size"`
	Hash string `json:"hash"` // hex, of the tree's top block
	Salt string `json:"salt"` // hex
}

// BlockSize is dm-verity's block size, for data and for hashes.
const BlockSize = 4096

// Format is the version of slot.json that this package reads and writes.
const Format = 1

// MaxManifest is the most octets a slot.json may have.
const MaxManifest = 16 << 10

var releaseForm = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z.+_~-]{0,63}$`)

// ParseSlot reads slot.json. A file that was damaged or made for another
// format is an error, never a half-filled Slot.
func ParseSlot(b []byte) (Slot, error) {
	if len(b) > MaxManifest {
		return Slot{}, fmt.Errorf("%s: expected at most %d octets, got %d", Manifest, MaxManifest, len(b))
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	var s Slot
	if err := d.Decode(&s); err != nil {
		return Slot{}, fmt.Errorf("%s: %w", Manifest, err)
	}
	if err := s.Check(); err != nil {
		return Slot{}, fmt.Errorf("%s: %w", Manifest, err)
	}
	return s, nil
}

// Check tells all that is wrong with the values.
func (s Slot) Check() error {
	var errs []error
	bad := func(key, expected string, got any) {
		errs = append(errs, fmt.Errorf("%s: expected %s, got %q", key, expected, fmt.Sprint(got)))
	}
	digest := func(key, v string) {
		if raw, err := hex.DecodeString(v); err != nil || len(raw) != 32 {
			bad(key, "64 hexadecimal digits", v)
		}
	}
	if s.Format != Format {
		bad("format", fmt.Sprint(Format), s.Format)
	}
	if !releaseForm.MatchString(s.KernelRelease) {
		bad("kernel_release", "a kernel release such as 6.12.1-arm64", s.KernelRelease)
	}
	if s.ModulesSize <= 0 || s.ModulesSize > BootSize {
		bad("modules_size", fmt.Sprintf("1 to %d", BootSize), s.ModulesSize)
	}
	if s.Root.Size <= 0 || s.Root.Size >= RootSize || s.Root.Size%BlockSize != 0 {
		bad("root.size", fmt.Sprintf("a multiple of %d below %d", BlockSize, RootSize), s.Root.Size)
	}
	digest("modules_sha256", s.ModulesSHA256)
	digest("root.hash", s.Root.Hash)
	digest("root.salt", s.Root.Salt)
	return errors.Join(errs...)
}

// Marshal returns the file.
func (s Slot) Marshal() ([]byte, error) {
	s.Format = Format
	if err := s.Check(); err != nil {
		return nil, fmt.Errorf("%s: %w", Manifest, err)
	}
	b, err := json.MarshalIndent(s, "", "  ")
	return append(b, '\n'), err
}

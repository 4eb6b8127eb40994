package halow

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// mostFile bounds what is read of a file of the firmware's: the largest that is
// published has half of it.
const mostFile = 1 << 20

// readELF reads a file as Morse's driver takes them: ELF of 32 bits, little
// endian.
func readELF(dir, name, what string) (*elf.File, error) {
	path := filepath.Join(dir, name)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s %s is not in %s: halo-image image --firmware puts it there (it is the radio maker's, and no part of HALO): %w", what, name, dir, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, mostFile+1))
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", what, path, err)
	}
	if len(b) > mostFile {
		return nil, fmt.Errorf("%s %s: expected at most %d octets", what, path, mostFile)
	}
	return parseELF(b, what+" "+path)
}

func parseELF(b []byte, what string) (*elf.File, error) {
	x, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("%s: expected an ELF file, as the driver takes them: %w", what, err)
	}
	if x.Class != elf.ELFCLASS32 || x.Data != elf.ELFDATA2LSB {
		return nil, fmt.Errorf("%s: expected ELF of 32 bits, little endian, got %s %s: is it for another chip?", what, x.Class, x.Data)
	}
	return x, nil
}

// checkFirmware says why the driver would not take the firmware.
func checkFirmware(dir, name string) error {
	x, err := readELF(dir, name, "firmware")
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(x.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_LOAD && p.Memsz > 0 }) {
		return fmt.Errorf("firmware %s: nothing in it is to be loaded", filepath.Join(dir, name))
	}
	return nil
}

// checkCalibration says why the driver would not take the calibration file for a
// region. With a region that is not in it the driver gives up; without the file
// the chip runs in a mode in which its radio is dead.
func checkCalibration(dir, name, region string) error {
	x, err := readELF(dir, name, "calibration file")
	if err != nil {
		return err
	}
	regions, err := calibrated(x)
	if err != nil {
		return fmt.Errorf("calibration file %s: %w", filepath.Join(dir, name), err)
	}
	if !slices.Contains(regions, region) {
		return fmt.Errorf("calibration file %s has no data for %s, only for %s: take the file for this module and region", filepath.Join(dir, name), region, strings.Join(regions, ", "))
	}
	return nil
}

// calibrated returns the regions that a calibration file has data for.
func calibrated(x *elf.File) (regions []string, err error) {
	config := false
	for _, s := range x.Sections {
		config = config || s.Name == ".board_config" && s.Size > 0
		if r, ok := strings.CutPrefix(s.Name, ".regdom_"); ok && s.Size > 0 {
			regions = append(regions, r)
		}
	}
	if !config || regions == nil {
		return nil, errors.New("expected the sections .board_config and .regdom_…: it is no calibration file of Morse's")
	}
	slices.Sort(regions)
	return regions, nil
}

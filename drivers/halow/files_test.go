package halow

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// elf32 makes an ELF file of 32 bits, little endian, with sections of those
// names and, when load is set, something to be loaded.
func elf32(load bool, sections ...string) []byte {
	const header, program, section = 52, 32, 40
	var names bytes.Buffer
	names.WriteByte(0)
	sections = append(sections, ".shstrtab")
	at := make([]uint32, len(sections))
	for i, s := range sections {
		at[i] = uint32(names.Len())
		names.WriteString(s + "\x00")
	}
	data := uint32(header + program)
	strings := data + 16
	table := strings + uint32(names.Len())
	var b bytes.Buffer
	put := func(v ...any) {
		for _, x := range v {
			_ = binary.Write(&b, binary.LittleEndian, x) // to memory
		}
	}
	b.Write([]byte{0x7f, 'E', 'L', 'F', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	put(uint16(2), uint16(243), uint32(1), uint32(0x100000), uint32(header), table, uint32(0),
		uint16(header), uint16(program), uint16(1), uint16(section), uint16(len(sections)+1), uint16(len(sections)))
	kind := uint32(0)
	if load {
		kind = 1
	}
	put(kind, data, uint32(0x100000), uint32(0x100000), uint32(16), uint32(16), uint32(5), uint32(4))
	b.Write(make([]byte, 16))
	b.Write(names.Bytes())
	b.Write(make([]byte, section))
	for i := range sections {
		offset, size, sort := data, uint32(16), uint32(1)
		if i == len(sections)-1 {
			offset, size, sort = strings, uint32(names.Len()), 3
		}
		put(at[i], sort, uint32(0), uint32(0), offset, size, uint32(0), uint32(0), uint32(1), uint32(0))
	}
	return b.Bytes()
}

func write(t *testing.T, dir, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	big := elf32(true, ".board_config", ".regdom_US")
	big[4], big[5] = 2, 2 // 64 bits, big endian
	write(t, dir, "fw.bin", elf32(true, ".text"))
	write(t, dir, "empty.bin", nil)
	write(t, dir, "text.bin", []byte("<html>404 Not Found</html>"))
	write(t, dir, "big.bin", big)
	write(t, dir, "huge.bin", make([]byte, mostFile+1))
	write(t, dir, "hollow.bin", elf32(false, ".text"))
	write(t, dir, "bcf.bin", elf32(false, ".board_config", ".regdom_US", ".regdom_AU"))
	write(t, dir, "noregion.bin", elf32(false, ".board_config"))
	for name, tc := range map[string]struct {
		err  error
		want string
	}{
		"firmware":               {checkFirmware(dir, "fw.bin"), ""},
		"no firmware":            {checkFirmware(dir, "mm6108.bin"), "firmware mm6108.bin is not in " + dir + ": halo-image image --firmware puts it there"},
		"empty":                  {checkFirmware(dir, "empty.bin"), "expected an ELF file"},
		"a page of the web":      {checkFirmware(dir, "text.bin"), filepath.Join(dir, "text.bin") + ": expected an ELF file"},
		"huge":                   {checkFirmware(dir, "huge.bin"), "at most 1048576 octets"},
		"nothing to load":        {checkFirmware(dir, "hollow.bin"), "nothing in it is to be loaded"},
		"calibration":            {checkCalibration(dir, "bcf.bin", "US"), ""},
		"for another country":    {checkCalibration(dir, "bcf.bin", "EU"), "has no data for EU, only for AU, US: take the file for this module and region"},
		"no calibration":         {checkCalibration(dir, "bcf_default.bin", "US"), "calibration file bcf_default.bin is not in " + dir},
		"firmware instead of it": {checkCalibration(dir, "fw.bin", "US"), "no calibration file of Morse's"},
		"without regions":        {checkCalibration(dir, "noregion.bin", "US"), "no calibration file of Morse's"},
		"for another processor":  {checkCalibration(dir, "big.bin", "US"), "ELF"},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.want == "" && tc.err == nil {
				return
			}
			if tc.want == "" || tc.err == nil || !strings.Contains(tc.err.Error(), tc.want) {
				t.Errorf("got %v, want %q", tc.err, tc.want)
			}
		})
	}
}

func FuzzCalibration(f *testing.F) {
	f.Add(elf32(false, ".board_config", ".regdom_US"))
	f.Add(elf32(true, ".text"))
	f.Add([]byte("\x7fELF"))
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := parseELF(b, "calibration file")
		if err != nil {
			return
		}
		regions, err := calibrated(x)
		if err == nil && (len(regions) == 0 || !slices.IsSorted(regions)) {
			t.Errorf("regions %q", regions)
		}
	})
}

package pack

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"
	"os"
	"testing"

	"halo.internal/image/layout"
	"halo.internal/image/step"
)

func quiet() step.Printer { return step.NewPrinter(io.Discard) }

// writeTable writes a GPT and its copy, with partitions that start at the given
// places and end where the next begins; partition n has n in all octets of its
// GUID.
func writeTable(t *testing.T, f *os.File, size int64, starts ...int64) {
	t.Helper()
	const entries = 128 * 128
	last := size/layout.SectorSize - 1
	table := make([]byte, entries)
	for i, start := range starts {
		end := last - 33
		if i+1 < len(starts) {
			end = starts[i+1]/layout.SectorSize - 1
		}
		e := table[128*i:]
		copy(e, bytes.Repeat([]byte{0xEE}, 16))
		copy(e[16:], bytes.Repeat([]byte{byte(i + 1)}, 16))
		binary.LittleEndian.PutUint64(e[32:], uint64(start/layout.SectorSize))
		binary.LittleEndian.PutUint64(e[40:], uint64(end))
	}
	for _, h := range []struct{ at, other, entries int64 }{{1, last, 2}, {last, 1, last - 32}} {
		sector := make([]byte, layout.SectorSize)
		copy(sector, "EFI PART\x00\x00\x01\x00")
		binary.LittleEndian.PutUint32(sector[12:], 92)
		for off, v := range map[int]int64{24: h.at, 32: h.other, 40: 34, 48: last - 33, 72: h.entries} {
			binary.LittleEndian.PutUint64(sector[off:], uint64(v))
		}
		binary.LittleEndian.PutUint32(sector[80:], 128)
		binary.LittleEndian.PutUint32(sector[84:], 128)
		binary.LittleEndian.PutUint32(sector[88:], crc32.ChecksumIEEE(table))
		binary.LittleEndian.PutUint32(sector[16:], crc32.ChecksumIEEE(sector[:92]))
		for at, b := range map[int64][]byte{h.at: sector, h.entries: table} {
			if _, err := f.WriteAt(b, at*layout.SectorSize); err != nil {
				t.Fatal(err)
			}
		}
	}
}

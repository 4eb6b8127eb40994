package card

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// Table is a GUID partition table (UEFI specification, chapter 5) with 128
// entries of 128 octets, as gok and all common tools write it.
type Table struct {
	header    [headerSize]byte
	entries   [entriesSize]byte
	FromCopy  bool   // the primary is damaged, this is the copy at the end of the disk
	backupLBA uint64 // where the table says that its copy is
}

const (
	headerSize   = 92
	entryCount   = 128
	entrySize    = 128
	entriesSize  = entryCount * entrySize
	entriesLBAs  = entriesSize / SectorSize
	gptSignature = "EFI PART"
)

// Offsets in the header and in an entry.
const (
	hdrCRC        = 16
	hdrCurrent    = 24
	hdrBackup     = 32
	hdrLastUsable = 48
	hdrEntriesLBA = 72
	hdrCount      = 80
	hdrEntrySize  = 84
	hdrEntriesCRC = 88

	entType  = 0
	entGUID  = 16
	entFirst = 32
	entLast  = 40
)

// Partition is the place of a partition in octets.
type Partition struct{ Start, Size int64 }

// ReadTable reads the partition table of a disk of that size: the primary, or
// when it is damaged, the copy in the last sector.
func ReadTable(d Device, size int64) (*Table, error) {
	t, err := readTable(d, 1, size)
	if err == nil {
		return t, nil
	}
	last := size/SectorSize - 1
	t, err2 := readTable(d, uint64(last), size)
	if err2 != nil {
		return nil, errors.Join(fmt.Errorf("partition table: %w", err), fmt.Errorf("its copy: %w", err2))
	}
	t.FromCopy = true
	return t, nil
}

func readTable(d Device, lba uint64, size int64) (*Table, error) {
	sectors := uint64(size / SectorSize)
	if sectors < 2+2*(1+entriesLBAs) || lba >= sectors {
		return nil, fmt.Errorf("expected a disk with room for a table, got %d octets", size)
	}
	sector := make([]byte, SectorSize)
	if _, err := d.ReadAt(sector, int64(lba)*SectorSize); err != nil {
		return nil, err
	}
	t := &Table{header: [headerSize]byte(sector)}
	h := t.header[:]
	if string(h[:8]) != gptSignature {
		return nil, fmt.Errorf("expected signature %q, got %q", gptSignature, h[:8])
	}
	if n := binary.LittleEndian.Uint32(h[12:]); n != headerSize {
		return nil, fmt.Errorf("header size: expected %d, got %d", headerSize, n)
	}
	if got, want := t.headerSum(), binary.LittleEndian.Uint32(h[hdrCRC:]); got != want {
		return nil, fmt.Errorf("header checksum: expected %#x, got %#x", want, got)
	}
	if n, s := binary.LittleEndian.Uint32(h[hdrCount:]), binary.LittleEndian.Uint32(h[hdrEntrySize:]); n != entryCount || s != entrySize {
		return nil, fmt.Errorf("expected %d entries of %d octets, got %d of %d", entryCount, entrySize, n, s)
	}
	at := binary.LittleEndian.Uint64(h[hdrEntriesLBA:])
	if at < 2 || at > sectors-entriesLBAs {
		return nil, fmt.Errorf("entries at sector %d: expected 2 to %d", at, sectors-entriesLBAs)
	}
	if _, err := d.ReadAt(t.entries[:], int64(at)*SectorSize); err != nil {
		return nil, err
	}
	if got, want := crc32.ChecksumIEEE(t.entries[:]), binary.LittleEndian.Uint32(h[hdrEntriesCRC:]); got != want {
		return nil, fmt.Errorf("entries checksum: expected %#x, got %#x", want, got)
	}
	t.backupLBA = binary.LittleEndian.Uint64(h[hdrBackup:])
	return t, nil
}

// headerSum is the checksum of the header with the checksum's field zero.
func (t *Table) headerSum() uint32 {
	h := t.header
	clear(h[hdrCRC : hdrCRC+4])
	return crc32.ChecksumIEEE(h[:])
}

func (t *Table) entry(n int) []byte { return t.entries[(n-1)*entrySize : n*entrySize] }

// GUID returns the unique GUID of partition n (from 1), in the lower-case form
// of root=PARTUUID=.
func (t *Table) GUID(n int) string {
	g := t.entry(n)[entGUID : entGUID+16]
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", binary.LittleEndian.Uint32(g),
		binary.LittleEndian.Uint16(g[4:]), binary.LittleEndian.Uint16(g[6:]), g[8:10], g[10:])
}

// Partition returns the place of partition n (from 1); false when the table
// has none of that number.
func (t *Table) Partition(n int) (Partition, bool) {
	e := t.entry(n)
	first, last := binary.LittleEndian.Uint64(e[entFirst:]), binary.LittleEndian.Uint64(e[entLast:])
	if len(bytes.Trim(e[entType:entType+16], "\x00")) == 0 || last < first || last >= 1<<54 {
		return Partition{}, false
	}
	return Partition{Start: int64(first) * SectorSize, Size: int64(last-first+1) * SectorSize}, true
}

// Grow makes partition n, which must be the last on the disk, reach to the end
// of a disk of that size and moves the table's copy there. It returns the
// partition's new place, and whether anything changed; Write puts it on disk.
func (t *Table) Grow(n int, size int64) (Partition, bool, error) {
	p, ok := t.Partition(n)
	if !ok {
		return p, false, fmt.Errorf("partition %d: not in the table", n)
	}
	for i := 1; i <= entryCount; i++ {
		if q, ok := t.Partition(i); ok && i != n && q.Start+q.Size > p.Start {
			return p, false, fmt.Errorf("partition %d: expected it to be the last on the disk, partition %d ends behind its start", n, i)
		}
	}
	lastLBA := uint64(size/SectorSize) - 1
	lastUsable := lastLBA - entriesLBAs - 1
	// Ends on a whole MiB, as file systems and flash like it.
	end := int64(lastUsable+1) * SectorSize &^ (1<<20 - 1)
	grown := p
	if end > p.Start+p.Size {
		grown.Size = end - p.Start
	}
	if grown == p && t.backupLBA == lastLBA {
		return p, false, nil
	}
	if grown.Start+grown.Size > int64(lastUsable+1)*SectorSize {
		return p, false, fmt.Errorf("partition %d: ends at %d, behind the end of the disk at %d", n, p.Start+p.Size, size)
	}
	binary.LittleEndian.PutUint64(t.entry(n)[entLast:], uint64((grown.Start+grown.Size)/SectorSize)-1)
	binary.LittleEndian.PutUint64(t.header[hdrLastUsable:], lastUsable)
	t.backupLBA = lastLBA
	return grown, true, nil
}

// Write writes the table: first its copy at the end, and when that is on the
// disk, the primary, so that one of the two is whole at every instant.
func (t *Table) Write(d Device) error {
	if err := t.writeAt(d, t.backupLBA, 1, t.backupLBA-entriesLBAs); err != nil {
		return fmt.Errorf("copy of the partition table: %w", err)
	}
	if err := t.writeAt(d, 1, t.backupLBA, 2); err != nil {
		return fmt.Errorf("partition table: %w", err)
	}
	t.FromCopy = false
	return nil
}

func (t *Table) writeAt(d Device, lba, other, entries uint64) error {
	h := t.header[:]
	binary.LittleEndian.PutUint64(h[hdrCurrent:], lba)
	binary.LittleEndian.PutUint64(h[hdrBackup:], other)
	binary.LittleEndian.PutUint64(h[hdrEntriesLBA:], entries)
	binary.LittleEndian.PutUint32(h[hdrEntriesCRC:], crc32.ChecksumIEEE(t.entries[:]))
	binary.LittleEndian.PutUint32(h[hdrCRC:], t.headerSum())
	sector := make([]byte, SectorSize)
	copy(sector, h)
	if _, err := d.WriteAt(t.entries[:], int64(entries)*SectorSize); err != nil {
		return err
	}
	if _, err := d.WriteAt(sector, int64(lba)*SectorSize); err != nil {
		return err
	}
	return d.Sync()
}

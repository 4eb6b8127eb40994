package card

import (
	"encoding/binary"
	"testing"
)

const (
	testGUID = "60c24cc1-f3f9-427a-8199-f5f1d4b20001"
	mib      = 1 << 20
)

// gptDisk returns a disk of size octets whose table was written for one of
// made octets, with the four partitions of a HALO card in small.
func gptDisk(t testing.TB, made, size int64) *memory {
	t.Helper()
	m := &memory{b: make([]byte, size), power: -1}
	tab := &Table{backupLBA: uint64(made/SectorSize) - 1}
	copy(tab.header[:], gptSignature)
	binary.LittleEndian.PutUint32(tab.header[8:], 0x10000)
	binary.LittleEndian.PutUint32(tab.header[12:], headerSize)
	binary.LittleEndian.PutUint32(tab.header[hdrCount:], entryCount)
	binary.LittleEndian.PutUint32(tab.header[hdrEntrySize:], entrySize)
	binary.LittleEndian.PutUint64(tab.header[hdrLastUsable:], uint64(made/SectorSize)-34)
	for i, p := range []Partition{{4 * mib, mib}, {5 * mib, mib}, {6 * mib, mib}, {7 * mib, made - 7*mib - 34*SectorSize}} {
		e := tab.entry(i + 1)
		copy(e[entType:], "a partition type")
		copy(e[entGUID:], "\xc1\x4c\xc2\x60\xf9\xf3\x7a\x42\x81\x99\xf5\xf1\xd4\xb2\x00")
		e[entGUID+15] = byte(i + 1)
		binary.LittleEndian.PutUint64(e[entFirst:], uint64(p.Start/SectorSize))
		binary.LittleEndian.PutUint64(e[entLast:], uint64((p.Start+p.Size)/SectorSize)-1)
	}
	if err := tab.Write(m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestReadTable(t *testing.T) {
	m := gptDisk(t, 10*mib, 10*mib)
	tab, err := ReadTable(m, 10*mib)
	if err != nil {
		t.Fatal(err)
	}
	if got := tab.GUID(1); got != testGUID {
		t.Errorf("GUID: got %s, want %s", got, testGUID)
	}
	if p, ok := tab.Partition(2); !ok || p != (Partition{5 * mib, mib}) {
		t.Errorf("partition 2: got %v, %v", p, ok)
	}
	if _, ok := tab.Partition(5); ok {
		t.Error("partition 5: got one, want none")
	}
}

// TestGrowTorn cuts the power while a grown table is written, at steps of a
// prime, so that cuts fall everywhere in a sector; a table with all partitions
// must be readable at every instant.
func TestGrowTorn(t *testing.T) {
	const made, size = 10 * mib, 16 * mib
	pristine := gptDisk(t, made, size)
	m := &memory{b: make([]byte, size)}
	tables := []Partition{{0, 40 * SectorSize}, {made - 40*SectorSize, 40 * SectorSize}, {size - 40*SectorSize, 40 * SectorSize}}
	for cut := 0; ; cut += 7 {
		for _, r := range tables {
			copy(m.b[r.Start:r.Start+r.Size], pristine.b[r.Start:])
		}
		m.power = -1
		tab, err := ReadTable(m, size)
		if err != nil {
			t.Fatal(err)
		}
		p, changed, err := tab.Grow(4, size)
		if err != nil || !changed || p != (Partition{7 * mib, size - 8*mib}) {
			t.Fatalf("grow: got %v, %v, %v", p, changed, err)
		}
		m.power = cut
		err = tab.Write(m)
		m.power = -1
		after, rerr := ReadTable(m, size)
		if rerr != nil {
			t.Fatalf("cut at %d: %v", cut, rerr)
		}
		if after.GUID(1) != testGUID {
			t.Fatalf("cut at %d: the first partition's GUID changed", cut)
		}
		if q, ok := after.Partition(4); !ok || q != p && q != (Partition{7 * mib, 3*mib - 34*SectorSize}) {
			t.Fatalf("cut at %d: partition 4 is %v, %v", cut, q, ok)
		}
		if err == nil {
			if _, changed, err := after.Grow(4, size); changed || err != nil {
				t.Errorf("growing again: changed %v, %v", changed, err)
			}
			return
		}
	}
}

func TestGrowRefusals(t *testing.T) {
	tab, err := ReadTable(gptDisk(t, 10*mib, 10*mib), 10*mib)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := tab.Grow(2, 10*mib); err == nil {
		t.Error("partition 2 grew over those behind it")
	}
	if _, _, err := tab.Grow(7, 10*mib); err == nil {
		t.Error("a partition that is not there grew")
	}
	if _, _, err := tab.Grow(4, 8*mib); err == nil {
		t.Error("a partition behind the end of the disk was accepted")
	}
}

func TestParseRoot(t *testing.T) {
	for name, tc := range map[string]struct {
		in   string
		want Root
		ok   bool
	}{
		"slot a":       {"console=ttyAMA0 root=PARTUUID=60C24CC1-f3f9-427a-8199-f5f1d4b20001/PARTNROFF=1 ro\n", Root{testGUID, 2}, true},
		"slot b":       {"root=PARTUUID=" + testGUID + "/PARTNROFF=2", Root{testGUID, 3}, true},
		"offset 0":     {"root=PARTUUID=" + testGUID + "/PARTNROFF=0", Root{}, false},
		"device node":  {"root=/dev/vda2", Root{}, false},
		"short":        {"root=PARTUUID=60c24cc1/PARTNROFF=1", Root{}, false},
		"none":         {"console=ttyAMA0", Root{}, false},
		"looks like":   {"myroot=PARTUUID=" + testGUID + "/PARTNROFF=1", Root{}, false},
		"two digits":   {"root=PARTUUID=" + testGUID + "/PARTNROFF=12", Root{}, false},
		"empty offset": {"root=PARTUUID=" + testGUID + "/PARTNROFF=", Root{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseRoot(tc.in)
			if got != tc.want || (err == nil) != tc.ok {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

func FuzzReadTable(f *testing.F) {
	const size = 10 * mib
	m := gptDisk(f, size, size)
	f.Add(m.b[:4*SectorSize])
	disk := &memory{b: make([]byte, size), power: -1}
	f.Fuzz(func(t *testing.T, head []byte) {
		clear(disk.b[:64*SectorSize])
		clear(disk.b[size-64*SectorSize:])
		copy(disk.b[:64*SectorSize], head)
		tab, err := ReadTable(disk, size)
		if err != nil {
			return
		}
		for n := 1; n <= entryCount; n++ {
			if p, ok := tab.Partition(n); ok && (p.Size <= 0 || p.Start < 0) {
				t.Errorf("partition %d: %v", n, p)
			}
			_, _, _ = tab.Grow(n, size)
		}
	})
}

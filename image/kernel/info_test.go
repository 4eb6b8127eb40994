package kernel

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"
)

// ko makes an ELF file of 64 bits with one section beside its names.
func ko(section, content string) []byte {
	const header, entry = 64, 64
	names := "\x00" + section + "\x00.shstrtab\x00"
	var b bytes.Buffer
	put := func(v ...any) {
		for _, x := range v {
			_ = binary.Write(&b, binary.LittleEndian, x) // to memory
		}
	}
	table := uint64(header + len(content) + len(names))
	b.Write([]byte{0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	put(uint16(1), uint16(183), uint32(1), uint64(0), uint64(0), table, uint32(0), uint16(header), uint16(0), uint16(0), uint16(entry), uint16(3), uint16(2))
	b.WriteString(content + names)
	b.Write(make([]byte, entry))
	put(uint32(1), uint32(1), uint64(0), uint64(0), uint64(header), uint64(len(content)), uint32(0), uint32(0), uint64(1), uint64(0))
	put(uint32(len(section)+2), uint32(3), uint64(0), uint64(0), uint64(header+len(content)), uint64(len(names)), uint32(0), uint32(0), uint64(1), uint64(0))
	return b.Bytes()
}

func TestInfo(t *testing.T) {
	info, err := Info(ko(".modinfo", "firmware=a.bin\x00vermagic=6.12.1 SMP mod_unload\x00firmware=b.bin\x00depends=\x00nothing\x00"))
	if err != nil || !slices.Equal(info["firmware"], []string{"a.bin", "b.bin"}) || !slices.Equal(info["depends"], []string{""}) || len(info) != 3 {
		t.Errorf("got %q, %v", info, err)
	}
	for name, tc := range map[string]struct {
		b    []byte
		want string
	}{
		"no ELF":    {[]byte("#!/bin/sh\n"), "expected an ELF file"},
		"no module": {ko(".text", "x"), "no kernel module"},
		"empty":     {nil, "expected an ELF file"},
	} {
		if _, err := Info(tc.b); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want %q", name, err, tc.want)
		}
	}
}

func FuzzInfo(f *testing.F) {
	f.Add(ko(".modinfo", "vermagic=1\x00"))
	f.Add(ko(".text", ""))
	f.Fuzz(func(t *testing.T, b []byte) {
		info, err := Info(b)
		if err == nil && info == nil {
			t.Error("nothing, and no error")
		}
	})
}

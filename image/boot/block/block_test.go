package block

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
)

// TestVerityTable checks what the kernel is told, against the layout of
// linux/dm-ioctl.h and the words of its verity documentation.
func TestVerityTable(t *testing.T) {
	v := Verity{Device: "/dev/vda2", DataSize: 8 << 20, BlockSize: 4096, Hash: strings.Repeat("ab", 32), Salt: strings.Repeat("01", 32)}
	want := "1 /dev/vda2 /dev/vda2 4096 4096 2048 2048 sha256 " + v.Hash + " " + v.Salt
	if got := v.params(); got != want {
		t.Fatalf("params: got %q, want %q", got, want)
	}
	b := target("verity", v.DataSize/512, want)
	if len(b)%8 != 0 {
		t.Errorf("%d octets, want a multiple of 8", len(b))
	}
	if n := binary.NativeEndian.Uint64(b[8:]); n != 16384 {
		t.Errorf("length: got %d sectors, want 16384", n)
	}
	if kind, _, _ := bytes.Cut(b[24:40], []byte{0}); string(kind) != "verity" {
		t.Errorf("type: got %q", kind)
	}
	if params, _, ok := bytes.Cut(b[40:], []byte{0}); !ok || string(params) != want {
		t.Errorf("got %q behind the header", params)
	}
}

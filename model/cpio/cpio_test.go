package cpio

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"testing"
)

// list reads an archive by the format's own fields: one line per entry.
func list(t *testing.T, raw []byte) (lines []string, rest []byte) {
	t.Helper()
	for at := 0; ; {
		field := func(n int) int {
			v, err := strconv.ParseUint(string(raw[at+6+8*n:at+14+8*n]), 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			return int(v)
		}
		mode, size, nameSize := field(1), field(6), field(11)
		name := string(raw[at+110 : at+110+nameSize-1])
		data := (at + 110 + nameSize + 3) &^ 3
		at = (data + size + 3) &^ 3
		if name == "TRAILER!!!" {
			return lines, raw[at:]
		}
		lines = append(lines, fmt.Sprintf("%o %s %q", mode, name, raw[data:data+size]))
	}
}

func TestWrite(t *testing.T) {
	first, second := Archive{}, Archive{}
	first.File("/lib/modules/a.ko", 0o644, []byte("old"))
	first.Dir("proc")
	first.File("lib/modules/b.ko", 0o600, []byte("b"))
	second.Symlink("lib/c.ko", "modules/b.ko")
	second.File("init", 0o755, []byte("program"))
	var b bytes.Buffer
	for _, a := range []Archive{first, second} {
		if err := a.Write(&b); err != nil {
			t.Fatal(err)
		}
		if b.Len()%4 != 0 {
			t.Errorf("%d octets: the kernel looks for the next archive at a multiple of 4", b.Len())
		}
	}
	got, rest := list(t, b.Bytes())
	if want := []string{`40755 lib ""`, `40755 lib/modules ""`, `100644 lib/modules/a.ko "old"`, `100600 lib/modules/b.ko "b"`, `40755 proc ""`}; !slices.Equal(got, want) {
		t.Errorf("first archive: got %q, want %q", got, want)
	}
	got, rest = list(t, rest)
	if want := []string{`100755 init "program"`, `40755 lib ""`, `120777 lib/c.ko "modules/b.ko"`}; !slices.Equal(got, want) || len(rest) != 0 {
		t.Errorf("second archive: got %q and %d octets, want %q", got, len(rest), want)
	}
}

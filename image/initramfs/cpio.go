package initramfs

import (
	"bytes"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
)

// entry is one file or, when it has no content, directory of the archive.
type entry struct {
	name string // without the leading slash
	mode uint32 // with the type bits
	data []byte
}

const (
	typeDir  = 0o040000
	typeFile = 0o100000
)

// archive collects files and writes them as a "newc" cpio archive, sorted and
// without owners or times, so that the same files give the same octets.
type archive map[string]entry

func (a archive) file(name string, mode uint32, data []byte) {
	name = strings.TrimPrefix(path.Clean(name), "/")
	a[name] = entry{name, typeFile | mode, data}
	a.dir(path.Dir(name))
}

// dir adds a directory and those above it: the kernel makes none by itself.
func (a archive) dir(name string) {
	for name = strings.TrimPrefix(path.Clean(name), "/"); name != "." && name != ""; name = path.Dir(name) {
		a[name] = entry{name, typeDir | 0o755, nil}
	}
}

func (a archive) writeTo(w io.Writer) error {
	names := make([]string, 0, len(a))
	for n := range a {
		names = append(names, n)
	}
	slices.Sort(names) // a directory sorts before what it holds
	for i, n := range names {
		if err := writeEntry(w, i+1, a[n]); err != nil {
			return err
		}
	}
	return writeEntry(w, 0, entry{name: "TRAILER!!!"})
}

func writeEntry(w io.Writer, inode int, e entry) error {
	links := 1
	if e.mode&typeDir != 0 {
		links = 2
	}
	var b bytes.Buffer
	b.WriteString("070701")
	for _, field := range []int{
		inode, int(e.mode), 0, 0, links, 0, len(e.data),
		0, 0, 0, 0, len(e.name) + 1, 0, // devices, length of the name, no checksum
	} {
		fmt.Fprintf(&b, "%08X", field)
	}
	b.WriteString(e.name)
	b.WriteByte(0)
	pad(&b)
	b.Write(e.data)
	pad(&b)
	_, err := w.Write(b.Bytes())
	return err
}

func pad(b *bytes.Buffer) {
	for b.Len()%4 != 0 {
		b.WriteByte(0)
	}
}

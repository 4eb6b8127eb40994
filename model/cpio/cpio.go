// Package cpio writes the archives that the kernel unpacks into its first root:
// "newc" cpio, sorted, without owners or times, so that the same files give the
// same octets. Several archives, one behind the other, are unpacked one after
// the other.
package cpio

import (
	"bytes"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
)

// Archive is what an archive holds, by name without the leading slash. Its zero
// value is not usable; make it with a composite literal.
type Archive map[string]entry

// entry is a file, a directory, or a symbolic link with its target as data.
type entry struct {
	mode uint32 // with the type bits
	data []byte
}

// Type bits of an entry's mode, as in stat(2).
const (
	typeMask = 0o170000
	typeDir  = 0o040000
	typeFile = 0o100000
	typeLink = 0o120000
)

func clean(name string) string { return strings.TrimPrefix(path.Clean(name), "/") }

// File adds a file with the permissions mode, and the directories above it: the
// kernel makes none by itself.
func (a Archive) File(name string, mode uint32, data []byte) {
	name = clean(name)
	a[name] = entry{typeFile | mode, data}
	a.Dir(path.Dir(name))
}

// Symlink adds a symbolic link, and the directories above it.
func (a Archive) Symlink(name, target string) {
	name = clean(name)
	a[name] = entry{typeLink | 0o777, []byte(target)}
	a.Dir(path.Dir(name))
}

// Dir adds a directory and those above it.
func (a Archive) Dir(name string) {
	for name = clean(name); name != "." && name != ""; name = path.Dir(name) {
		if _, ok := a[name]; !ok {
			a[name] = entry{typeDir | 0o755, nil}
		}
	}
}

// Write writes the archive to w.
func (a Archive) Write(w io.Writer) error {
	names := make([]string, 0, len(a))
	for n := range a {
		names = append(names, n)
	}
	slices.Sort(names) // a directory sorts before what it holds
	for i, n := range names {
		if err := writeEntry(w, i+1, n, a[n]); err != nil {
			return err
		}
	}
	return writeEntry(w, 0, "TRAILER!!!", entry{})
}

func writeEntry(w io.Writer, inode int, name string, e entry) error {
	links := 1
	if e.mode&typeMask == typeDir {
		links = 2
	}
	var b bytes.Buffer
	b.WriteString("070701")
	for _, field := range []int{
		inode, int(e.mode), 0, 0, links, 0, len(e.data),
		0, 0, 0, 0, len(name) + 1, 0, // devices, length of the name, no checksum
	} {
		fmt.Fprintf(&b, "%08X", field)
	}
	b.WriteString(name)
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

// Package powercut tells tests what a power cut may leave of SQLite's databases: it records
// what SQLite does to its files, and makes of that the files of any instant, in which each
// sector is there or not that nobody had synced. It is stricter than file systems are, which
// keep more in order than they have to.
package powercut

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
)

const sector = 512 // octets, which a card writes whole or not at all

// step is what SQLite did to a file or its folder.
type step struct {
	kind kind
	file int    // by number, in the order in which they were made
	name string // below the folder
	at   int64  // offset, or the new size
	data []byte
}

type kind int

const (
	create kind = iota
	remove
	syncFolder
	write
	truncate
	syncFile
)

// Disk is the files as they are after some of the steps.
type Disk struct {
	steps []step
	done  int
	files map[int]*file
	names map[string]int // of files, as they are on the medium
	moves []step         // of names, which are not, in their order
}

// file is what is on the medium, and what was done since that need not be.
type file struct {
	there   []byte
	changes []step
}

// Forward goes on to where that many steps are done.
func (d *Disk) Forward(steps int) {
	for ; d.done < steps; d.done++ {
		d.do(d.steps[d.done])
	}
}

func (d *Disk) do(s step) {
	switch s.kind {
	case create:
		d.files[s.file] = &file{}
		d.moves = append(d.moves, s)
	case remove:
		d.moves = append(d.moves, s)
	case syncFolder:
		move(d.names, d.moves)
		d.moves = nil
	case write, truncate:
		f := d.files[s.file]
		f.changes = append(f.changes, s)
	case syncFile:
		f := d.files[s.file]
		for _, c := range f.changes {
			f.there = change(f.there, c)
		}
		f.changes = nil
	}
}

func move(names map[string]int, moves []step) {
	for _, m := range moves {
		if m.kind == create {
			names[m.name] = m.file
		} else {
			delete(names, m.name)
		}
	}
}

// change returns a file after a write or a truncation of it.
func change(b []byte, s step) []byte {
	end := s.at + int64(len(s.data))
	if int64(len(b)) < end {
		b = append(b, make([]byte, end-int64(len(b)))...)
	}
	if s.kind == truncate {
		return b[:end:end]
	}
	copy(b[s.at:], s.data)
	return b
}

// Cut writes into a folder what is left when power is cut now. Of names that were not
// synced the first so many are there. What was written and not synced is lost, there, there
// up to some instant, or there sector by sector, each as it was at an instant of its own.
func (d *Disk) Cut(random *rand.Rand, folder string) error {
	names := map[string]int{}
	for name, f := range d.names {
		names[name] = f
	}
	how := random.IntN(6)
	move(names, d.moves[:d.some(random, how, len(d.moves))])
	for name, number := range names {
		f := d.files[number]
		b := append([]byte(nil), f.there...)
		n := d.some(random, how, len(f.changes))
		if how < torn {
			for _, c := range f.changes[:n] {
				b = change(b, c)
			}
		} else {
			b = tear(random, b, f.changes, n)
		}
		path := filepath.Join(folder, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, b, 0o600)); err != nil {
			return err
		}
	}
	return nil
}

// What becomes of all that was not synced.
const (
	lost = iota
	kept
	upTo
	torn // and more
)

func (d *Disk) some(random *rand.Rand, how, of int) int {
	switch how {
	case lost:
		return 0
	case kept:
		return of
	}
	return random.IntN(of + 1)
}

// tear gives a file the length that it had after n of its changes, and each sector what it
// had after some of them.
func tear(random *rand.Rand, there []byte, changes []step, n int) []byte {
	length, longest := len(there), len(there)
	for i, c := range changes {
		end := int(c.at) + len(c.data)
		longest = max(longest, end)
		if i < n && (c.kind == truncate || end > length) {
			length = end
		}
	}
	now, torn := make([]byte, longest), make([]byte, longest)
	copy(now, there)
	copy(torn, there)
	after := make([]int, longest/sector+1)
	for s := range after {
		after[s] = random.IntN(len(changes) + 1)
	}
	for i, c := range changes {
		from, to := int(c.at), int(c.at)+len(c.data)
		copy(now[from:to], c.data)
		if c.kind == truncate {
			to = longest
			clear(now[from:])
		}
		for s := from / sector; s*sector < to; s++ {
			if after[s] > i {
				copy(torn[s*sector:], now[s*sector:min((s+1)*sector, longest)])
			}
		}
	}
	return torn[:length]
}

package spool

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"halo.internal/model/atomicfile"
	"halo.internal/model/order"
	"halo.internal/model/wire"
)

const (
	segmentSize   = 128 << 10 // a segment is closed once it has as much
	segmentSuffix = ".seg"
	noSegment     = math.MaxUint64
)

// disk is the tier on /perm: segments in the order of their hexadecimal names.
// A process only appends to a segment that it began itself, so that whatever a
// power cut left at the end of an older one stays behind all that is valid.
type disk struct {
	dir      string
	budget   int64
	segments []segment // oldest first
	total    int64     // octets of all segments
	active   *os.File  // the last segment, while it is appended to
	written  map[wire.SchemaID]bool
}

type segment struct {
	index uint64
	size  int64
	level byte            // how often thinned
	done  [Event + 1]bool // kinds of which nothing in it waits any more, as far as is known
}

func openDisk(dir string, budget int64) (*disk, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := atomicfile.Sweep(dir); err != nil { // of interrupted thinnings
		return nil, err
	}
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	d := &disk{dir: dir, budget: budget}
	for _, n := range names {
		hex, ok := strings.CutSuffix(n.Name(), segmentSuffix)
		index, err := strconv.ParseUint(hex, 16, 63)
		if !ok || err != nil || n.Name() != segmentName(index) {
			continue
		}
		info, err := n.Info()
		if err != nil {
			return nil, err
		}
		d.segments = append(d.segments, segment{index: index, size: info.Size(), level: d.level(index)})
		d.total += info.Size()
	}
	order.By(d.segments, func(a, b segment) int { return cmp.Compare(a.index, b.index) })
	return d, nil
}

func segmentName(index uint64) string { return fmt.Sprintf("%016x%s", index, segmentSuffix) }

func (d *disk) path(index uint64) string { return filepath.Join(d.dir, segmentName(index)) }

// level reads how often a segment was thinned; one that can't be read is left
// for load to judge.
func (d *disk) level(index uint64) byte {
	f, err := os.Open(d.path(index))
	if err != nil {
		return 0
	}
	defer f.Close()
	var head [headerSize]byte
	if _, err := io.ReadFull(f, head[:]); err != nil {
		return 0
	}
	return head[len(magic)]
}

// append writes items with one write and one sync, after it has made room.
// Either all of them are on disk afterwards or none.
func (d *disk) append(items []Item, schemas map[wire.SchemaID]wire.Schema, pinned uint64) (made, error) {
	fresh := d.active == nil || d.segments[len(d.segments)-1].size >= segmentSize
	if fresh {
		if err := d.close(); err != nil {
			return made{}, err
		}
		d.written = make(map[wire.SchemaID]bool)
	}
	var b []byte
	if fresh {
		b = segmentHeader(0)
	}
	before := len(d.written)
	b = appendItems(b, items, schemas, d.written)
	m, err := d.makeRoom(int64(len(b)), pinned)
	if err == nil && fresh {
		err = d.begin()
	}
	if err == nil {
		err = d.write(b)
	}
	for n := len(d.segments) - 1; err == nil && len(items) > 0; items = items[1:] {
		d.segments[n].done[items[0].Kind] = false
	}
	if err != nil && len(d.written) > before {
		d.written = nil
		err = errors.Join(err, d.close()) // its schemas are in doubt: the next append begins another
	}
	return m, err
}

func (d *disk) begin() error {
	next := uint64(1)
	if n := len(d.segments); n > 0 {
		next = d.segments[n-1].index + 1
	}
	f, err := os.OpenFile(d.path(next), os.O_WRONLY|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	if err := atomicfile.SyncDir(d.dir); err != nil {
		return errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	d.active = f
	d.segments = append(d.segments, segment{index: next, done: [Event + 1]bool{Batch: true, Event: true}})
	return nil
}

// write appends to the active segment, or leaves it as it was.
func (d *disk) write(b []byte) error {
	last := &d.segments[len(d.segments)-1]
	_, err := d.active.Write(b)
	if err == nil {
		err = d.active.Sync()
	}
	if err == nil {
		last.size += int64(len(b))
		d.total += int64(len(b))
		return nil
	}
	// A full disk takes part of a write. Cut it off; if even that fails, no more
	// is appended behind it.
	if cut := d.active.Truncate(last.size); cut != nil || last.size == 0 {
		empty, index := last.size == 0, last.index
		err = errors.Join(err, cut, d.close())
		if empty {
			err = errors.Join(err, d.remove(index))
		}
	}
	return err
}

func (d *disk) close() error {
	if d.active == nil {
		return nil
	}
	f := d.active
	d.active = nil
	return f.Close()
}

// oldest returns the segment whose items of a kind are to be sent next. It is not appended to
// any more.
func (d *disk) oldest(kind Kind) (segment, bool) {
	i := slices.IndexFunc(d.segments, func(s segment) bool { return !s.done[kind] })
	if i < 0 {
		return segment{}, false
	}
	if i == len(d.segments)-1 {
		_ = d.close() // written and synced already
	}
	return d.segments[i], true
}

// finish notes that nothing of a kind in a segment waits any more. The segment goes when that
// is so of both.
func (d *disk) finish(index uint64, kind Kind) error {
	i := slices.IndexFunc(d.segments, func(s segment) bool { return s.index == index })
	if i < 0 {
		return nil // dropped to make room
	}
	s := &d.segments[i]
	if s.done[kind] = true; s.done[Batch] && s.done[Event] {
		return d.remove(index)
	}
	return nil
}

// trim writes what waits in a segment anew where it is half of it at most: it may wait for
// long, and would take that much of the room, and after a start all of it would be sent again.
func (d *disk) trim(index uint64) error {
	i := slices.IndexFunc(d.segments, func(s segment) bool { return s.index == index })
	if i < 0 {
		return nil // nothing is left of it
	}
	s := &d.segments[i]
	c, err := d.load(*s)
	if err != nil || c.damaged > 0 { // the other kind finds out
		return err
	}
	if len(c.items) == 0 {
		return d.remove(index)
	}
	if b := encodeSegment(c); int64(len(b)) <= s.size/2 {
		return d.replace(s, b)
	}
	return nil
}

// replace writes a segment anew.
func (d *disk) replace(s *segment, b []byte) error {
	if err := atomicfile.Write(d.path(s.index), b, 0o600); err != nil {
		return err
	}
	d.total += int64(len(b)) - s.size
	s.size = int64(len(b))
	return nil
}

// rename names what waits of a start by another number.
func (d *disk) rename(from, to uint64) error {
	for i := range d.segments {
		s := &d.segments[i]
		c, err := d.load(*s)
		if err != nil {
			return err
		}
		some := false
		for j, item := range c.items {
			if item.ID.Boot != from {
				continue
			}
			if c.items[j], err = item.named(to); err != nil {
				return fmt.Errorf("segment %d: name %v by start %d: %w", s.index, item.ID, to, err)
			}
			some = true
		}
		if !some {
			continue
		}
		if i == len(d.segments)-1 {
			_ = d.close() // written and synced already; the next begins another
		}
		if err := d.replace(s, encodeSegment(c)); err != nil {
			return err
		}
	}
	return nil
}

// load reads what waits in a segment, however large a file somebody put there.
func (d *disk) load(s segment) (content, error) {
	f, err := os.Open(d.path(s.index))
	if err != nil {
		return content{}, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSegment))
	c := parseSegment(b)
	c.items = slices.DeleteFunc(c.items, func(i Item) bool { return s.done[i.Kind] })
	return c, err
}

func (d *disk) remove(index uint64) error {
	i := slices.IndexFunc(d.segments, func(s segment) bool { return s.index == index })
	if i < 0 {
		return nil // dropped to make room
	}
	if i == len(d.segments)-1 {
		_ = d.close() // going away
	}
	if err := os.Remove(d.path(index)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	d.total -= d.segments[i].size
	d.segments = slices.Delete(d.segments, i, i+1)
	return nil
}

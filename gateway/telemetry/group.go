package telemetry

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// A group is the batches of one commit, as octets: its version, then for each
//
//	uvarint(source) varint(first) uvarint(last - first) uvarint(octets), a CRC-32C of
//	these (4 octets, big endian) and the batch
//
// first and last are its earliest and latest stamp, so that a start need not unpack
// its columns. Batches carry their own checksums.
const groupVersion = 1

var errGroup = errors.New("damaged group")

// errLaterGroup is of a group that a later release has written: it stays in the journal.
var errLaterGroup = errors.New("a group of a later version")

// farGroups is by how much groups that this release does not know are numbered higher than
// its own: as many commits as there will never be.
const farGroups = 1 << 40

// salvagedGroups is by how much those that come after a journal was salvaged are numbered
// higher than all that are known of before: more than were lost, and little of farGroups, so
// that groups of a later release stay above.
const salvagedGroups = 1 << 30

// renumberLater gives groups of a later release, which stay in the journal, numbers that are
// higher than any of which a week file will say that it has all: else they would be taken
// for what is in the files when that release comes back. They do so once. The caller holds
// s.tending.
func (s *Store) renumberLater(ctx context.Context) error {
	if len(s.laterGroups) == 0 {
		return nil
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	if err := s.db.Write(ctx, func(tx *sql.Tx) error {
		next := s.lastGroup + farGroups
		var last int64 // that an earlier time has given
		if err := tx.QueryRowContext(ctx, `SELECT coalesce(max(id), 0) FROM groups`).Scan(&last); err != nil {
			return err
		}
		next = max(next, last+1)
		for i, id := range s.laterGroups {
			if _, err := tx.ExecContext(ctx, `UPDATE groups SET id = ? WHERE id = ?`, next+int64(i), id); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	s.laterGroups = nil
	return nil
}

// item is one batch of a group.
type item struct {
	source      int64
	first, last int64 // Unix milliseconds
	data        []byte
}

// appendItem adds a batch to a group and returns where in it the batch's octets begin.
func appendItem(group []byte, it item) (longer []byte, at int) {
	begin := len(group)
	group = binary.AppendUvarint(group, uint64(it.source))
	group = binary.AppendVarint(group, it.first)
	group = binary.AppendUvarint(group, uint64(it.last)-uint64(it.first))
	group = binary.AppendUvarint(group, uint64(len(it.data)))
	group = binary.BigEndian.AppendUint32(group, crc32.Checksum(group[begin:], castagnoli))
	return append(group, it.data...), len(group)
}

// parseGroup returns the batches of a group, which share its octets, as far as it can be
// read.
func parseGroup(b []byte) (items []item, err error) {
	if len(b) == 0 {
		return nil, fmt.Errorf("%w: it is empty", errGroup)
	}
	items, err = parseItems(b[1:])
	switch version := b[0]; {
	case version == groupVersion || err == nil: // a bit may have flipped in the version alone
		return items, err
	case version > groupVersion:
		return nil, fmt.Errorf("%w: expected version %d, got %d", errLaterGroup, groupVersion, version)
	}
	return nil, fmt.Errorf("%w: expected version %d, got %d", errGroup, groupVersion, b[0])
}

func parseItems(b []byte) (items []item, err error) {
	for len(b) > 0 {
		r := reader{b: b}
		source, first, span, size := r.unsigned(), r.signed(), r.unsigned(), r.unsigned()
		head := b[:len(b)-len(r.b)]
		if r.failed || len(r.b) < crc32.Size || binary.BigEndian.Uint32(r.b) != crc32.Checksum(head, castagnoli) {
			return items, fmt.Errorf("%w: batch %d: expected a head and its checksum", errGroup, len(items))
		}
		r.b = r.b[crc32.Size:]
		if source == 0 || source > 1<<31 || span > uint64(MaxSpan.Milliseconds()) || size > uint64(len(r.b)) {
			return items, fmt.Errorf("%w: batch %d: expected a source, stamps within %s and %d octets at most, got source %d, %d ms and %d octets", errGroup, len(items), MaxSpan, len(r.b), source, span, size)
		}
		items = append(items, item{source: int64(source), first: first, last: int64(uint64(first) + span), data: r.b[:size:size]})
		b = r.b[size:]
	}
	return items, nil
}

// reader takes numbers off octets.
type reader struct {
	b      []byte
	failed bool
}

func (r *reader) unsigned() uint64 {
	v, n := binary.Uvarint(r.b)
	r.skip(n)
	return v
}

func (r *reader) signed() int64 {
	v, n := binary.Varint(r.b)
	r.skip(n)
	return v
}

func (r *reader) skip(n int) {
	if n <= 0 {
		r.failed, n = true, 0
	}
	r.b = r.b[n:]
}

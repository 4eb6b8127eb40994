package telemetry

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// A group is the batches of one commit, as octets: its version, then for each
//
//	uvarint(source) varint(first) uvarint(last - first) uvarint(octets) and the batch
//
// first and last are its earliest and latest stamp, so that a start need not unpack
// its columns. Batches carry their own checksums.
const groupVersion = 1

var errGroup = errors.New("damaged group")

// item is one batch of a group.
type item struct {
	source      int64
	first, last int64 // Unix milliseconds
	data        []byte
}

// appendItem adds a batch to a group and returns where in it the batch's octets begin.
func appendItem(group []byte, it item) (longer []byte, at int) {
	group = binary.AppendUvarint(group, uint64(it.source))
	group = binary.AppendVarint(group, it.first)
	group = binary.AppendUvarint(group, uint64(it.last)-uint64(it.first))
	group = binary.AppendUvarint(group, uint64(len(it.data)))
	return append(group, it.data...), len(group)
}

// parseGroup returns the batches of a group, which share its octets, as far as it can be
// read.
func parseGroup(b []byte) (items []item, err error) {
	if len(b) == 0 || b[0] != groupVersion {
		return nil, fmt.Errorf("%w: expected version %d", errGroup, groupVersion)
	}
	for b = b[1:]; len(b) > 0; {
		var it item
		source, n := binary.Uvarint(b)
		if n <= 0 || source == 0 || source > 1<<31 {
			return items, fmt.Errorf("%w: batch %d: expected a source, got %d", errGroup, len(items), source)
		}
		b = b[n:]
		first, n := binary.Varint(b)
		if n <= 0 {
			return items, fmt.Errorf("%w: batch %d: expected its first stamp", errGroup, len(items))
		}
		b = b[n:]
		span, n := binary.Uvarint(b)
		if n <= 0 || span > uint64(MaxSpan.Milliseconds()) {
			return items, fmt.Errorf("%w: batch %d: expected stamps within %s, got %d ms", errGroup, len(items), MaxSpan, span)
		}
		b = b[n:]
		size, n := binary.Uvarint(b)
		if n <= 0 || size > uint64(len(b)-n) {
			return items, fmt.Errorf("%w: batch %d: expected %d octets, got less", errGroup, len(items), size)
		}
		it.source, it.first, it.last, it.data = int64(source), first, int64(uint64(first)+span), b[n:n+int(size):n+int(size)]
		items, b = append(items, it), b[n+int(size):]
	}
	return items, nil
}

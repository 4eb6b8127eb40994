package telemetry

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// Bounds of what is remembered of one node's batches. An honest node counts on, so that
// a boot is one span, and a few while a backlog comes in. What is beyond is forgotten, the
// oldest first, and what is forgotten counts as not come: it is stored again, which changes
// nothing where readings are kept as they were made (each is found by its series and
// instant), while what never came is never taken for something that did.
const (
	maxSpans = 128 // of one boot
	maxBoots = 64  // of one node
)

// span is sequence numbers one after the other, both ends among them.
type span struct{ from, through uint64 }

// forgotten is where a first span begins of whose numbers it is not known any more which
// came; those of batches begin at 1.
const forgotten = 0

// spans are the sequence numbers of one boot that came, ascending and apart.
type spans []span

// has tells whether a number came for sure.
func (s spans) has(seq uint64) bool {
	i := s.find(seq)
	return i < len(s) && s[i].from <= seq && s[i].from != forgotten
}

// missing tells whether a number did not come for sure.
func (s spans) missing(seq uint64) bool {
	i := s.find(seq)
	return i == len(s) || s[i].from > seq
}

// find returns the index of the first span that does not end before seq.
func (s spans) find(seq uint64) int {
	i, _ := slices.BinarySearchFunc(s, seq, func(r span, seq uint64) int {
		switch {
		case r.through < seq:
			return -1
		case r.through > seq:
			return 1
		}
		return 0
	})
	return i
}

// add notes a number. Beyond maxSpans it is forgotten what came up to the end of the second.
func (s spans) add(seq uint64) spans {
	i := s.find(seq)
	if i < len(s) && s[i].from <= seq {
		return s
	}
	joins := i < len(s) && s[i].from == seq+1
	follows := i > 0 && s[i-1].through+1 == seq
	switch {
	case joins && follows:
		s[i-1].through = s[i].through
		return slices.Delete(s, i, i+1)
	case joins:
		s[i].from = seq
		return s
	case follows:
		s[i-1].through = seq
		return s
	}
	s = slices.Insert(s, i, span{seq, seq})
	if len(s) > maxSpans {
		s[1].from = forgotten
		s = slices.Delete(s, 0, 1)
	}
	return s
}

// first returns the first number that came, or may have.
func (s spans) first() uint64 { return max(s[0].from, 1) }

// count returns how many numbers came, or may have.
func (s spans) count() (n uint64) {
	for _, r := range s {
		n += r.through - max(r.from, 1) + 1
	}
	return n
}

// marshal returns the spans as octets: for each, as varints, how far it is behind the
// end of the one before, and how many numbers follow its first.
func (s spans) marshal() []byte {
	var out []byte
	last := uint64(0)
	for _, r := range s {
		out = binary.AppendUvarint(out, r.from-last)
		out = binary.AppendUvarint(out, r.through-r.from)
		last = r.through
	}
	return out
}

// parseSpans reads what marshal made.
func parseSpans(b []byte) (s spans, err error) {
	last := uint64(0)
	for len(b) > 0 {
		behind, n := binary.Uvarint(b)
		more, m := uint64(0), 0
		if n > 0 {
			more, m = binary.Uvarint(b[n:])
		}
		r := span{last + behind, last + behind + more}
		if n <= 0 || m <= 0 || len(s) > 0 && behind < 2 || r.from < last || r.through < r.from || len(s) >= maxSpans {
			return nil, fmt.Errorf("sequence numbers: expected at most %d spans, ascending and apart, got %v after %d of them", maxSpans, r, len(s))
		}
		s, b, last = append(s, r), b[n+m:], r.through
	}
	return s, nil
}

// seen is what is known of all batches of a node, by boot.
type seen map[uint64]spans

// has tells whether a batch came for sure.
func (s seen) has(boot, seq uint64) bool { return s[boot].has(seq) }

func (s seen) oldest() uint64 {
	low := ^uint64(0)
	for boot := range s {
		low = min(low, boot)
	}
	return low
}

// add notes a batch, and forgets the oldest boot where there are too many; it returns
// that, or 0.
func (s seen) add(boot, seq uint64) (forgotten uint64) {
	s[boot] = s[boot].add(seq)
	if len(s) <= maxBoots {
		return 0
	}
	forgotten = s.oldest()
	delete(s, forgotten)
	return forgotten
}

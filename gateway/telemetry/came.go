package telemetry

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"

	"github.com/fxamacker/cbor/v2"

	"halo.internal/model/apitype"
	"halo.internal/model/order"
)

const maxMissing = 1000 // ranges listed for one boot

// source is a node in RAM: what came of it, and what of that is in the journal only.
type source struct {
	id      int64
	node    string
	seen    seen
	dropped map[uint64]uint64 // by boot: batches of which readings were not kept
	tail    tail
	owed    []mark  // for weeks that could not be written
	head    []*held // in the order in which they came
	held    map[batchName]*held
	bytes   int64        // of head, by weight
	weeks   map[week]int // that head has batches of
	changed bool         // came is not in the database as it is here

	rewritten account // for what of it was written anew; guarded by Store.mu alone
}

type batchName struct{ boot, seq uint64 }

func newSource(id int64, node string) *source {
	return &source{id: id, node: node, seen: seen{}, dropped: map[uint64]uint64{}, held: map[batchName]*held{}, weeks: map[week]int{}}
}

// tail is the batch of the highest boot and number that was compacted: what comes next is
// compared with it.
type tail struct {
	_     struct{} `cbor:",toarray"`
	Boot  uint64
	Seq   uint64
	Last  int64 // its latest stamp, Unix milliseconds
	Clock uint8 // quality, as wire numbers it
}

// cameBoot is what is kept of the batches of one boot.
type cameBoot struct {
	_       struct{} `cbor:",toarray"`
	Boot    uint64
	Spans   []byte
	Dropped uint64
}

type came struct {
	_     struct{} `cbor:",toarray"`
	Tail  tail
	Boots []cameBoot
}

// marshalCame returns what came of a node for its row of sources.
func (s *source) marshalCame() ([]byte, error) {
	c := came{Tail: s.tail}
	for _, boot := range slices.Sorted(maps.Keys(s.seen)) {
		c.Boots = append(c.Boots, cameBoot{Boot: boot, Spans: s.seen[boot].marshal(), Dropped: s.dropped[boot]})
	}
	b, err := cbor.Marshal(c)
	return seal(b), err
}

// seal and unseal put a checksum behind octets, and take it off.
func seal(b []byte) []byte { return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli)) }

func unseal(b []byte) ([]byte, error) {
	if len(b) < crc32.Size {
		return nil, errors.New("expected a checksum, got the end")
	}
	body, sum := b[:len(b)-crc32.Size], binary.BigEndian.Uint32(b[len(b)-crc32.Size:])
	if got := crc32.Checksum(body, castagnoli); got != sum {
		return nil, fmt.Errorf("expected checksum %08x, got %08x", sum, got)
	}
	return body, nil
}

// parseCame reads what marshalCame made.
func (s *source) parseCame(b []byte) error {
	var c came
	b, err := unseal(b)
	if err == nil {
		err = cbor.Unmarshal(b, &c)
	}
	if err != nil {
		return fmt.Errorf("which batches of %s came: %w", s.node, err)
	}
	if len(c.Boots) > maxBoots {
		return fmt.Errorf("which batches of %s came: expected at most %d boots, got %d", s.node, maxBoots, len(c.Boots))
	}
	for _, b := range c.Boots {
		have, err := parseSpans(b.Spans)
		if err != nil {
			return fmt.Errorf("which batches of %s came: boot %d: %w", s.node, b.Boot, err)
		}
		s.seen[b.Boot] = have
		if b.Dropped > 0 {
			s.dropped[b.Boot] = b.Dropped
		}
	}
	s.tail = c.Tail
	return nil
}

// note notes a batch that came.
func (s *source) note(n batchName) {
	if gone := s.seen.add(n.boot, n.seq); gone != 0 {
		delete(s.dropped, gone)
	}
	s.changed = true
}

// LastBoot returns the highest boot counter of a node of which a batch came; 0: none did.
func (s *Store) LastBoot(node string) (boot uint64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if src := s.sources[node]; src != nil {
		for b := range src.seen {
			boot = max(boot, b)
		}
	}
	return boot
}

// Coverage returns which batches of a node came; what has thinned since has come all the
// same.
func (s *Store) Coverage(node string) apitype.Coverage {
	s.mu.RLock()
	defer s.mu.RUnlock()
	c := apitype.Coverage{Node: node, Boots: []apitype.BootCoverage{}}
	src := s.sources[node]
	if src == nil {
		return c
	}
	for boot, have := range src.seen {
		b := apitype.BootCoverage{Boot: boot, First: have.first(), Last: have[len(have)-1].through, Count: have.count(), Dropped: src.dropped[boot], Missing: []apitype.SeqRange{}}
		next := uint64(1)
		for _, r := range have {
			if r.from > next && len(b.Missing) < maxMissing {
				b.Missing = append(b.Missing, apitype.SeqRange{From: next, To: r.from - 1})
			}
			next = r.through + 1
		}
		c.Boots = append(c.Boots, b)
	}
	order.By(c.Boots, func(a, b apitype.BootCoverage) int { return cmp.Compare(a.Boot, b.Boot) })
	return c
}

package server

import (
	"hash/maphash"
	"time"
)

// bucket lets through so many a second, and some more at once. The zero time is
// that of a full one.
type bucket struct {
	rate  float64 // a second
	burst float64
	level float64 // taken
	at    time.Time
}

func (b *bucket) take(now time.Time) bool {
	if !b.at.IsZero() {
		b.level = max(0, b.level-b.rate*now.Sub(b.at).Seconds())
	}
	b.at = now
	if b.level+1 > b.burst {
		return false
	}
	b.level++
	return true
}

// memory knows again who has asked before and was turned away. Whoever forges a
// new sender for each message has none that asks again; a real client does, after
// some seconds. It forgets what comes in too fast to keep, and takes hardly
// anybody for another.
type memory struct {
	seed  maphash.Seed
	since time.Time
	slots [1 << 14]slot
}

type slot struct {
	tag uint32
	at  uint32 // milliseconds since `since`
}

const (
	againAfter  = 500 * time.Millisecond
	againWithin = 70 * time.Second // clients wait for up to 64 s between tries
)

func newMemory(now time.Time) *memory { return &memory{seed: maphash.MakeSeed(), since: now} }

// again tells whether the MAC was told of before, some time ago, and notes it.
func (m *memory) again(now time.Time, a mac) bool {
	h := maphash.Bytes(m.seed, a[:])
	s, tag := &m.slots[h%uint64(len(m.slots))], uint32(h>>32)|1 // no tag is that of an empty slot
	at := uint32(now.Sub(m.since).Milliseconds())
	if s.tag == tag {
		age := time.Duration(at-s.at) * time.Millisecond
		if age <= againWithin {
			return age >= againAfter
		}
	}
	*s = slot{tag, at}
	return false
}

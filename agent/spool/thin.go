package spool

import (
	"errors"

	"halo.internal/model/wire"
)

// A full tier makes room by thinning: the oldest of what was thinned least
// loses every second report, up to three times; after that the oldest goes
// altogether. Batches keep their numbers, and a thinned one is a part of what
// it was, so that a gateway which already has the whole takes no harm. Of batches with
// one report, which sensors make that are read once a minute, every second is left out.
const maxThin = 3

// maxSegment is more than one append can make of a segment.
const maxSegment = 4 * segmentSize

// made counts what making room has cost.
type made struct {
	thinned int // segments
	dropped int // items
}

// makeRoom shrinks older segments until n more octets fit into the budget. The
// pinned segment, whose batches are being sent, is not thinned.
func (d *disk) makeRoom(n int64, pinned uint64) (made, error) {
	var m made
	for d.total+n > d.budget {
		if i, ok := d.thinnest(pinned); ok {
			if err := d.thin(i); err == nil {
				m.thinned++
				continue
			}
			// No room even for a smaller copy: the oldest goes.
		}
		i := 0
		if len(d.segments) == 0 || d.active != nil && len(d.segments) == 1 {
			return m, errors.New("the budget is too small for what is to be written")
		}
		if c, err := d.load(d.segments[i]); err == nil {
			m.dropped += len(c.items)
		}
		if err := d.remove(d.segments[i].index); err != nil {
			return m, err
		}
	}
	return m, nil
}

// thinnest returns the position of the segment to thin next.
func (d *disk) thinnest(pinned uint64) (int, bool) {
	best := -1
	for i, s := range d.segments {
		active := d.active != nil && i == len(d.segments)-1
		if s.level < maxThin && s.index != pinned && !active && (best < 0 || s.level < d.segments[best].level) {
			best = i
		}
	}
	return best, best >= 0
}

func (d *disk) thin(i int) error {
	s := &d.segments[i]
	c, err := d.load(*s)
	if err != nil {
		return err
	}
	c.level++
	c.items = thinItems(c.items, c.schemas)
	b := encodeSegment(c)
	if int64(len(b)) > s.size-s.size/16 {
		c.level = maxThin // no more to be had here; noted, so that nobody tries again
		b = encodeSegment(c)
	}
	if err := d.replace(s, b); err != nil {
		return err
	}
	s.level = c.level
	return nil
}

// thinItems leaves out every second report: of each batch, and of what is read so seldom
// that a batch has one report alone every second batch. Events and urgent batches stay.
func thinItems(items []Item, schemas map[wire.SchemaID]wire.Schema) []Item {
	kept := items[:0]
	odd := make(map[wire.SchemaID]bool)
	for _, i := range items {
		thinned, single := thinItem(i, schemas[i.Schema])
		if single {
			if odd[i.Schema] = !odd[i.Schema]; !odd[i.Schema] {
				continue
			}
		}
		kept = append(kept, thinned)
	}
	return kept
}

// thinItem returns a batch with every second report left out, and anything
// else as it is: events, urgent batches, single reports.
func thinItem(i Item, schema wire.Schema) (_ Item, single bool) {
	if i.Kind != Batch || i.Urgent {
		return i, false
	}
	b, err := wire.Decode(i.Data, schema)
	if err != nil || len(b.Reports) < 2 {
		return i, err == nil
	}
	kept := b.Reports[:0]
	for n, r := range b.Reports {
		if n%2 == 0 {
			kept = append(kept, r)
		}
	}
	b.Reports = kept
	data, err := b.Encode(schema)
	if err != nil || len(data) >= len(i.Data) {
		return i, false
	}
	i.Data = data
	return i, false
}

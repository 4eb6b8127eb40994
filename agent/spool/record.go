package spool

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"halo.internal/model/wire"
)

// A segment is a file: magic, an octet that counts how often it was thinned,
// and records: length of the payload (4 octets, little endian), CRC-32C of
// kind and payload (4 octets), kind (1 octet), payload. A schema stands before
// the first batch that needs it, so that a segment can be read by itself.
const (
	magic      = "HSPOOL1"
	headerSize = len(magic) + 1
	recordHead = 9
	maxRecord  = wire.MaxMessage
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func segmentHeader(level byte) []byte { return append([]byte(magic), level) }

func appendRecord(dst []byte, k Kind, payload []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(payload)))
	sum := crc32.Update(crc32.Checksum([]byte{byte(k)}, castagnoli), castagnoli, payload)
	dst = binary.LittleEndian.AppendUint32(dst, sum)
	dst = append(dst, byte(k))
	return append(dst, payload...)
}

// content is what a segment holds.
type content struct {
	level   byte
	items   []Item
	schemas map[wire.SchemaID]wire.Schema
	damaged int // octets that are no valid records, the tail of a power cut among them
}

// parseSegment reads as much as is valid. A record with a wrong checksum is
// skipped; where a length makes no sense, nothing behind it can be found.
func parseSegment(b []byte) content {
	c := content{schemas: make(map[wire.SchemaID]wire.Schema)}
	if len(b) < headerSize || string(b[:len(magic)]) != magic {
		c.damaged = len(b)
		return c
	}
	c.level = b[len(magic)]
	b = b[headerSize:]
	for len(b) > 0 {
		if len(b) < recordHead {
			c.damaged += len(b)
			return c
		}
		size := binary.LittleEndian.Uint32(b)
		if size > maxRecord || int(size) > len(b)-recordHead {
			c.damaged += len(b)
			return c
		}
		sum, kind, payload := binary.LittleEndian.Uint32(b[4:]), Kind(b[8]), b[recordHead:recordHead+int(size)]
		b = b[recordHead+int(size):]
		if crc32.Update(crc32.Checksum([]byte{byte(kind)}, castagnoli), castagnoli, payload) != sum || c.take(kind, payload) != nil {
			c.damaged += recordHead + int(size)
		}
	}
	return c
}

func (c *content) take(kind Kind, payload []byte) error {
	if kind == Schema {
		s, err := wire.DecodeSchema(payload)
		if err == nil {
			c.schemas[s.ID()] = s
		}
		return err
	}
	item, err := parseItem(kind, payload)
	if err != nil {
		return err
	}
	if _, ok := c.schemas[item.Schema]; kind == Batch && !ok {
		return fmt.Errorf("batch %v: its schema %v is missing", item.ID, item.Schema)
	}
	c.items = append(c.items, item)
	return nil
}

// parseItem reads what an item's octets say of themselves.
func parseItem(kind Kind, b []byte) (Item, error) {
	switch kind {
	case Batch:
		h, err := wire.DecodeHeader(b)
		return Item{Kind: Batch, ID: h.BatchID, Data: b, Schema: h.Schema, Urgent: h.Urgent}, err
	case Event:
		m, err := wire.Unmarshal(b)
		if err != nil {
			return Item{}, err
		}
		e, ok := m.(wire.EventMessage)
		if !ok {
			return Item{}, fmt.Errorf("expected an event, got %T", m)
		}
		return Item{Kind: Event, ID: wire.ID(e.Event.Boot, e.Event.Seq), Data: b, Urgent: e.Event.Urgent()}, nil
	}
	return Item{}, fmt.Errorf("expected a batch or an event, got kind %d", kind)
}

// named returns the item under the same number of another start.
func (i Item) named(boot uint64) (Item, error) {
	id := wire.ID(boot, i.ID.Seq)
	var b []byte
	switch i.Kind {
	case Batch:
		var err error
		if b, err = wire.Rename(i.Data, id); err != nil {
			return Item{}, err
		}
	case Event:
		m, err := wire.Unmarshal(i.Data)
		e, ok := m.(wire.EventMessage)
		if err != nil || !ok {
			return Item{}, fmt.Errorf("event %v: expected one, got %T: %w", i.ID, m, err)
		}
		e.Event.Boot = boot
		if b, err = wire.Marshal(e); err != nil {
			return Item{}, err
		}
	}
	return parseItem(i.Kind, b)
}

// encodeSegment is the inverse of parseSegment.
func encodeSegment(c content) []byte {
	b := segmentHeader(c.level)
	return appendItems(b, c.items, c.schemas, make(map[wire.SchemaID]bool))
}

// appendItems appends records, and schemas that written does not have yet.
func appendItems(b []byte, items []Item, schemas map[wire.SchemaID]wire.Schema, written map[wire.SchemaID]bool) []byte {
	for _, i := range items {
		if i.Kind == Batch && !written[i.Schema] {
			written[i.Schema] = true
			b = appendRecord(b, Schema, schemas[i.Schema].Encode())
		}
		b = appendRecord(b, i.Kind, i.Data)
	}
	return b
}

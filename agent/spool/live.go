package spool

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"halo.internal/model/order"
	"halo.internal/model/wire"
)

// live holds the items in RAM and mirrors each in a file of /run: batch-B.S,
// event-B.S, schema-ID, and counters. Names are whole or absent, since files
// are renamed into place.
type live struct {
	dir      string
	entries  []entry // oldest first
	schemas  map[wire.SchemaID]wire.Schema
	counters counters
	size     int64 // of entries, as occupied
}

type entry struct {
	Item
	due time.Time // to be on disk by then
}

// counters are what must not be used twice within a boot.
type counters struct {
	Boot     uint64 `json:"boot"`      // by which what is made is named
	Start    uint64 `json:"start"`     // as the card counts it; 0: the same
	Settled  bool   `json:"settled"`   // the gateway has nothing under Boot but from this start
	Batches  uint64 `json:"batches"`   // last number used
	Events   uint64 `json:"events"`    // last number used of the agent's own
	MeshBoot uint64 `json:"mesh_boot"` // last event taken over from halo-mesh
	MeshSeq  uint64 `json:"mesh_seq"`
}

const (
	countersFile = "counters"
	schemaPrefix = "schema-"
	keptSchemas  = 8
	page         = 4096 // what a file of /run occupies at least
)

func prefix(k Kind) string {
	if k == Event {
		return "event-"
	}
	return "batch-"
}

func openLive(dir string, boot uint64, log *slog.Logger) (*live, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	l := &live{dir: dir, schemas: make(map[wire.SchemaID]wire.Schema)}
	b, err := os.ReadFile(l.path(countersFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	default:
		if err := json.Unmarshal(b, &l.counters); err != nil {
			return nil, fmt.Errorf("%s: expected JSON: %w", l.path(countersFile), err)
		}
	}
	if cmp.Or(l.counters.Start, l.counters.Boot) != boot {
		l.counters = counters{Boot: boot}
	}
	l.counters.Start = boot
	names, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		// A file that is no item must not keep the agent from starting for ever.
		if err := l.recover(n.Name()); err != nil {
			log.Warn("spool: a live item is lost", "err", err)
			if err := os.Remove(l.path(n.Name())); err != nil {
				return nil, err
			}
		}
	}
	order.By(l.entries, func(a, b entry) int { return compare(a.Item, b.Item) })
	if err := l.rename(); err != nil {
		return nil, err
	}
	l.dropSchemas()
	return l, nil
}

// rename names what the start has made by its other number. What a process that died has
// named is there twice, or has its file alone.
func (l *live) rename() error {
	from, to := l.counters.Start, l.counters.Boot
	if from == to {
		return nil
	}
	for i := range l.entries {
		e := &l.entries[i]
		if e.ID.Boot != from {
			continue
		}
		named, err := e.Item.named(to)
		if err == nil {
			err = place(l.file(named.key()), named.Data)
		}
		if err != nil {
			return fmt.Errorf("name %v by start %d: %w", e.ID, to, err)
		}
		// A file that stays is named once more by a later process.
		_ = os.Remove(l.file(e.key()))
		e.Item = named
	}
	order.By(l.entries, func(a, b entry) int { return compare(a.Item, b.Item) })
	l.entries = slices.CompactFunc(l.entries, func(a, b entry) bool { return a.key() == b.key() })
	l.size = 0
	for _, e := range l.entries {
		l.size += occupied(e.Item)
	}
	return nil
}

// recover takes over one file of an earlier process. Such items are due at
// once: nobody knows how old they are.
func (l *live) recover(name string) error {
	var kind Kind
	switch {
	case strings.HasSuffix(name, ".part"):
		return os.Remove(l.path(name))
	case strings.HasPrefix(name, schemaPrefix), strings.HasPrefix(name, prefix(Batch)):
		kind = Batch
	case strings.HasPrefix(name, prefix(Event)):
		kind = Event
	default:
		return nil
	}
	b, err := os.ReadFile(l.path(name))
	if err != nil {
		return err
	}
	if strings.HasPrefix(name, schemaPrefix) {
		s, err := wire.DecodeSchema(b)
		if err != nil {
			return fmt.Errorf("%s: %w", l.path(name), err)
		}
		l.schemas[s.ID()] = s
		return nil
	}
	item, err := parseItem(kind, b)
	if err != nil {
		return fmt.Errorf("%s: %w", l.path(name), err)
	}
	if (item.ID.Boot == l.counters.Boot || item.ID.Boot == l.counters.Start) && kind == Batch {
		l.counters.Batches = max(l.counters.Batches, item.ID.Seq)
	}
	l.entries = append(l.entries, entry{Item: item})
	l.size += occupied(item)
	return nil
}

func (l *live) path(name string) string { return filepath.Join(l.dir, name) }
func (l *live) file(k key) string       { return l.path(prefix(k.kind) + k.id.String()) }

func occupied(i Item) int64 { return int64(len(i.Data)+page-1)/page*page + 512 }

func (l *live) nextBatch() wire.BatchID { return wire.ID(l.counters.Boot, l.counters.Batches+1) }

// add keeps an item. The counter is noted after the file, and before anybody
// can send it: whichever instant the process dies at, a later one finds the
// number used, by the file or by the counter.
func (l *live) add(i Item, schema wire.Schema, due time.Time) error {
	if i.Kind == Event && slices.ContainsFunc(l.entries, func(e entry) bool { return e.key() == i.key() }) {
		return nil // taken over again after a crash
	}
	if i.Kind == Batch {
		if _, ok := l.schemas[i.Schema]; !ok {
			if err := place(l.path(schemaPrefix+i.Schema.String()), schema.Encode()); err != nil {
				return err
			}
			l.schemas[i.Schema] = schema
		}
	}
	if err := place(l.file(i.key()), i.Data); err != nil {
		return err
	}
	next := l.counters
	if i.Kind == Batch {
		next.Batches = i.ID.Seq
	}
	if err := l.note(next); err != nil {
		return errors.Join(err, os.Remove(l.file(i.key())))
	}
	l.entries = append(l.entries, entry{Item: i, due: due})
	l.size += occupied(i)
	return nil
}

// place writes a file whole or not at all. It does not sync: what is in /run
// has to survive the process, never the machine.
func place(path string, b []byte) error {
	part := path + ".part"
	if err := os.WriteFile(part, b, 0o600); err != nil {
		return err
	}
	return os.Rename(part, path)
}

// note makes the counters last for the boot.
func (l *live) note(c counters) error {
	b, err := json.Marshal(c)
	if err != nil {
		return err
	}
	if err := place(l.path(countersFile), b); err != nil {
		return err
	}
	l.counters = c
	return nil
}

func (l *live) remove(gone map[key]bool) {
	l.entries = slices.DeleteFunc(l.entries, func(e entry) bool {
		k := e.key()
		if !gone[k] {
			return false
		}
		l.size -= occupied(e.Item)
		// A file that stays is sent once more by a later process, and deduplicated.
		_ = os.Remove(l.file(k))
		return true
	})
	l.dropSchemas()
}

// dropSchemas forgets schemas that no entry needs, once they are many: usually
// the next batch needs the same one again.
func (l *live) dropSchemas() {
	if len(l.schemas) <= keptSchemas {
		return
	}
	used := make(map[wire.SchemaID]bool)
	for _, e := range l.entries {
		used[e.Schema] = true
	}
	for id := range l.schemas {
		if !used[id] {
			delete(l.schemas, id)
			_ = os.Remove(l.path(schemaPrefix + id.String())) // read again and dropped again by a later process
		}
	}
}

func (l *live) anyDue(now time.Time) bool {
	return slices.ContainsFunc(l.entries, func(e entry) bool { return !now.Before(e.due) })
}

// compare orders items by age as far as numbers tell it: boots, then kinds.
func compare(a, b Item) int {
	return cmp.Or(cmp.Compare(a.ID.Boot, b.ID.Boot), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.ID.Seq, b.ID.Seq))
}

package telemetry

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"halo.internal/model/wire"
)

// A batch in the journal needs its schema; the week files have names and units of their
// own. Beyond that schemas are kept so that nodes need not send them with each
// connection.
const (
	maxSchemas     = 64        // of one node
	maxSchemaBytes = 128 << 10 // of one node: the two largest there can be
	schemaRow      = 32        // what a schema costs beside its text
	schemaDays     = 30        // it is kept after its last batch
)

// ErrTooManySchemas is wrapped in the refusal of a node that keeps inventing
// schemas: those that the journal's batches name take all that it may have.
var ErrTooManySchemas = errors.New("too many schemas")

// ErrNoSchema is returned for a schema that was not sent yet.
var ErrNoSchema = errors.New("schema is not known")

// schema is one in RAM.
type schema struct {
	wire.Schema
	id     wire.SchemaID
	source int64
	bytes  int
	used   int64 // day since 1970, as in the database
	held   int   // batches in the head that name it
}

// PutSchema commits a schema. Where a node has as many as it may, its least recently
// used one goes that no batch in the journal names.
func (s *Store) PutSchema(ctx context.Context, node string, add wire.Schema) error {
	id, body := add.ID(), add.Encode()
	s.writing.Lock()
	defer s.writing.Unlock()
	if s.schemas[id] != nil {
		return nil
	}
	src, fresh := s.sources[node], false
	if src == nil {
		src, fresh = newSource(s.lastSource+1, node), true
	}
	gone, err := s.roomForSchema(src.id, len(body)+schemaRow)
	if err != nil {
		return err
	}
	today := day(s.now())
	if err := s.db.Write(ctx, func(tx *sql.Tx) error {
		if fresh {
			if _, err := tx.ExecContext(ctx, `INSERT INTO sources (id, node, sum) VALUES (?, ?, ?)`, src.id, src.node, nodeSum(src.id, src.node)); err != nil {
				return err
			}
		}
		for _, old := range gone {
			if _, err := tx.ExecContext(ctx, `DELETE FROM schemas WHERE id = ?`, old.id[:]); err != nil {
				return err
			}
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO schemas (id, source, body, used) VALUES (?, ?, ?, ?)`, id[:], src.id, body, today)
		return err
	}); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if fresh {
		s.sources[node], s.byID[src.id], s.lastSource = src, src, src.id
	}
	for _, old := range gone {
		delete(s.schemas, old.id)
	}
	s.schemas[id] = &schema{Schema: add, id: id, source: src.id, bytes: len(body) + schemaRow, used: today}
	return nil
}

// roomForSchema returns which of a node's schemas have to go for one more.
func (s *Store) roomForSchema(source int64, size int) (gone []*schema, err error) {
	var own []*schema
	used := size
	for _, have := range s.schemas {
		if have.source == source {
			own, used = append(own, have), used+have.bytes
		}
	}
	slices.SortFunc(own, func(a, b *schema) int { return cmp.Compare(a.used, b.used) })
	left := len(own) + 1
	for _, old := range own {
		if used <= maxSchemaBytes && left <= maxSchemas {
			break
		}
		if old.held == 0 {
			gone, used, left = append(gone, old), used-old.bytes, left-1
		}
	}
	if used > maxSchemaBytes || left > maxSchemas {
		return nil, fmt.Errorf("%w: expected at most %d of them of %d octets of a node", ErrTooManySchemas, maxSchemas, maxSchemaBytes)
	}
	return gone, nil
}

// Schema returns a stored schema.
func (s *Store) Schema(id wire.SchemaID) (wire.Schema, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if have := s.schemas[id]; have != nil {
		return have.Schema, nil
	}
	return wire.Schema{}, ErrNoSchema
}

// Schemas returns schemas that a node need not send: its own first, and of those the ones
// that were used last.
func (s *Store) Schemas(node string) []wire.SchemaID {
	s.mu.RLock()
	defer s.mu.RUnlock()
	own := int64(0)
	if src := s.sources[node]; src != nil {
		own = src.id
	}
	all := make([]*schema, 0, len(s.schemas))
	for _, have := range s.schemas {
		all = append(all, have)
	}
	rank := func(a *schema) int64 {
		if a.source == own {
			return 0
		}
		return 1
	}
	slices.SortFunc(all, func(a, b *schema) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), -cmp.Compare(a.used, b.used), slices.Compare(a.id[:], b.id[:]))
	})
	ids := make([]wire.SchemaID, 0, min(len(all), wire.MaxSchemas))
	for _, have := range all[:min(len(all), wire.MaxSchemas)] {
		ids = append(ids, have.id)
	}
	return ids
}

package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"

	"halo.internal/model/wire"
)

const (
	maxSchemasPerNode = 32
	maxSchemasInRAM   = 256
	trimStep          = 500 // batches dropped in one transaction
)

// Journal holds the nodes' batches as they came. (node, boot, seq) names a
// batch for ever; the same one is stored once.
//
// The unique index has its newest entries of each node on another page, which
// costs a page per node and commit; commits are therefore grouped over seconds.
type Journal struct {
	db     *DB
	budget int64

	mu      sync.Mutex // guards what follows
	sources map[string]int64
	schemas map[wire.SchemaID]wire.Schema
}

// NewJournal returns the journal in telemetry.db, which drops the oldest
// batches beyond that many bytes.
func NewJournal(db *DB, budget int64) *Journal {
	return &Journal{db: db, budget: budget, sources: map[string]int64{}, schemas: map[wire.SchemaID]wire.Schema{}}
}

// Budget returns how many bytes the journal may use.
func (j *Journal) Budget() int64 { return j.budget }

// Entry is one batch to be stored.
type Entry struct {
	Node  string
	Batch wire.Batch // decoded, which proved it whole
	Data  []byte     // as it came
}

// Outcome says what Append did with an entry.
type Outcome int

// Outcomes.
const (
	Stored    Outcome = iota
	Duplicate         // it was there already, octet for octet
	Conflict          // another batch of that name is there, and stays
)

// Append commits the entries together. When it returns an error none is
// stored.
func (j *Journal) Append(ctx context.Context, entries []Entry) ([]Outcome, error) {
	out := make([]Outcome, len(entries))
	err := j.db.Write(ctx, func(tx *sql.Tx) error {
		for i, e := range entries {
			src, err := source(ctx, tx, e.Node)
			if err != nil {
				return err
			}
			if out[i], err = appendOne(ctx, tx, src, e); err != nil {
				return fmt.Errorf("batch %v of %s: %w", e.Batch.BatchID, e.Node, err)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func appendOne(ctx context.Context, tx *sql.Tx, src int64, e Entry) (Outcome, error) {
	var have []byte
	boot, seq := int64(e.Batch.Boot), int64(e.Batch.Seq)
	err := tx.QueryRowContext(ctx, `SELECT body FROM batches WHERE source = ? AND boot = ? AND seq = ?`, src, boot, seq).Scan(&have)
	switch {
	case err == nil && bytes.Equal(have, e.Data):
		return Duplicate, nil
	case err == nil:
		return Conflict, nil
	case !errors.Is(err, sql.ErrNoRows):
		return 0, err
	}
	first, last := e.Batch.Reports[0].Time, e.Batch.Reports[0].Time
	for _, r := range e.Batch.Reports {
		first, last = min(first, r.Time), max(last, r.Time)
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO batches (source, boot, seq, first_ms, last_ms, body) VALUES (?, ?, ?, ?, ?, ?)`, src, boot, seq, first, last, e.Data)
	return Stored, err
}

// source returns the short number under which a node's rows are kept.
func source(ctx context.Context, tx *sql.Tx, node string) (int64, error) {
	var id int64
	err := tx.QueryRowContext(ctx, `SELECT id FROM sources WHERE node = ?`, node).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		err = tx.QueryRowContext(ctx, `INSERT INTO sources (node) VALUES (?) RETURNING id`, node).Scan(&id)
	}
	return id, err
}

// ErrTooManySchemas is returned to a node that keeps inventing schemas.
var ErrTooManySchemas = fmt.Errorf("expected at most %d schemas of a node", maxSchemasPerNode)

// PutSchema commits a schema, so that batches that name it can be read for
// as long as they are kept.
func (j *Journal) PutSchema(ctx context.Context, node string, s wire.Schema) error {
	id := s.ID()
	if _, err := j.Schema(ctx, id); err == nil || !errors.Is(err, ErrNoSchema) {
		return err
	}
	return j.db.Write(ctx, func(tx *sql.Tx) error {
		src, err := source(ctx, tx, node)
		if err != nil {
			return err
		}
		var n int
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM schemas WHERE source = ?`, src).Scan(&n); err != nil {
			return err
		}
		if n >= maxSchemasPerNode {
			return ErrTooManySchemas
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO schemas (id, source, body) VALUES (?, ?, ?) ON CONFLICT DO NOTHING`, id[:], src, s.Encode())
		return err
	})
}

// ErrNoSchema is returned for a schema that was not sent yet.
var ErrNoSchema = errors.New("schema is not known")

// Schema returns a stored schema.
func (j *Journal) Schema(ctx context.Context, id wire.SchemaID) (wire.Schema, error) {
	j.mu.Lock()
	s, ok := j.schemas[id]
	j.mu.Unlock()
	if ok {
		return s, nil
	}
	var body []byte
	err := j.db.read.QueryRowContext(ctx, `SELECT body FROM schemas WHERE id = ?`, id[:]).Scan(&body)
	if errors.Is(err, sql.ErrNoRows) {
		return s, ErrNoSchema
	}
	if err != nil {
		return s, classify(err)
	}
	if s, err = wire.DecodeSchema(body); err != nil {
		return s, fmt.Errorf("stored schema %v: %w", id, err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.schemas) >= maxSchemasInRAM {
		clear(j.schemas)
	}
	j.schemas[id] = s
	return s, nil
}

// Schemas returns the schemas that a node need not send.
func (j *Journal) Schemas(ctx context.Context) ([]wire.SchemaID, error) {
	rows, err := j.db.read.QueryContext(ctx, `SELECT id FROM schemas LIMIT ?`, wire.MaxSchemas)
	if err != nil {
		return nil, classify(err)
	}
	defer rows.Close()
	var ids []wire.SchemaID
	for rows.Next() {
		var id []byte
		if err := rows.Scan(&id); err != nil {
			return nil, classify(err)
		}
		if len(id) == len(wire.SchemaID{}) {
			ids = append(ids, wire.SchemaID(id))
		}
	}
	return ids, classify(rows.Err())
}

// Trim drops the oldest batches until the database is within its budget, and
// returns how many it dropped.
func (j *Journal) Trim(ctx context.Context) (int64, error) {
	var dropped int64
	for {
		used, err := j.db.Bytes(ctx)
		if err != nil || used <= j.budget {
			return dropped, err
		}
		var n int64
		err = j.db.Write(ctx, func(tx *sql.Tx) error {
			if _, err := tx.ExecContext(ctx, `INSERT INTO dropped (source, boot, through, count)
				SELECT source, boot, max(seq), count(*) FROM (SELECT source, boot, seq FROM batches ORDER BY id LIMIT ?) GROUP BY source, boot
				ON CONFLICT (source, boot) DO UPDATE SET through = max(through, excluded.through), count = count + excluded.count`, trimStep); err != nil {
				return err
			}
			r, err := tx.ExecContext(ctx, `DELETE FROM batches WHERE id IN (SELECT id FROM batches ORDER BY id LIMIT ?)`, trimStep)
			if err != nil {
				return err
			}
			n, err = r.RowsAffected()
			return err
		})
		dropped += n
		if err != nil || n == 0 {
			return dropped, err
		}
	}
}

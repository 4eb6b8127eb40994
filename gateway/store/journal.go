package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"halo.internal/model/wire"
)

// Journal holds the nodes' batches as they came. (node, boot, seq) names a
// batch for ever; the same one is stored once.
//
// The unique index has its newest entries of each node on another page, which
// costs a page per node and commit; commits are therefore grouped over seconds.
type Journal struct {
	db     *DB
	budget int64
	space  func() (size, free int64) // of the file system

	drops atomic.Int64 // batches, since the start

	mu      sync.Mutex // guards schemas: copies in RAM
	schemas map[wire.SchemaID]wire.Schema
}

// NewJournal returns the journal in telemetry.db, which drops the oldest
// batches beyond that many bytes, or a third of the file system.
func NewJournal(db *DB, budget int64) *Journal {
	size, _ := db.space()
	return &Journal{db: db, budget: within(budget, size), space: db.space, schemas: map[wire.SchemaID]wire.Schema{}}
}

// Budget returns how many bytes the journal may use.
func (j *Journal) Budget() int64 { return j.budget }

// Dropped returns how many batches were dropped for space since the start.
func (j *Journal) Dropped() int64 { return j.drops.Load() }

// Entry is one batch to be stored.
type Entry struct {
	Node   string
	Schema wire.Schema // of the batch
	Batch  wire.Batch  // decoded, which proved it whole
	Data   []byte      // as it came
}

// Outcome says what Append did with an entry.
type Outcome int

// Outcomes.
const (
	Stored    Outcome = iota
	Duplicate         // it, or what it is a thinned form of, was there already
	Conflict          // another batch of that name is there, and stays
	NoSchema          // its schema is not stored any more: it has to come again
)

// Append commits the entries together. When it returns an error none is
// stored.
func (j *Journal) Append(ctx context.Context, entries []Entry) ([]Outcome, error) {
	out := make([]Outcome, len(entries))
	err := j.db.Write(ctx, func(tx *sql.Tx) error {
		use := schemaUse{}
		for i, e := range entries {
			src, err := source(ctx, tx, e.Node)
			if err != nil {
				return err
			}
			if out[i], err = appendOne(ctx, tx, use, src, e); err != nil {
				return fmt.Errorf("batch %v of %s: %w", e.Batch.BatchID, e.Node, err)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i, o := range out {
		if o == NoSchema {
			j.forget(entries[i].Batch.Schema)
		}
	}
	return out, nil
}

func appendOne(ctx context.Context, tx *sql.Tx, use schemaUse, src int64, e Entry) (Outcome, error) {
	var have []byte
	boot, seq := int64(e.Batch.Boot), int64(e.Batch.Seq)
	err := tx.QueryRowContext(ctx, `SELECT body FROM batches WHERE source = ? AND boot = ? AND seq = ?`, src, boot, seq).Scan(&have)
	switch {
	case err == nil && (bytes.Equal(have, e.Data) || isPart(have, e)):
		return Duplicate, nil
	case err == nil:
		return Conflict, nil
	case !errors.Is(err, sql.ErrNoRows):
		return 0, err
	}
	through, known, err := use.of(ctx, tx, e.Batch.Schema)
	if err != nil {
		return 0, err
	}
	if !known {
		return NoSchema, nil
	}
	first, last := e.Batch.Reports[0].Time, e.Batch.Reports[0].Time
	for _, r := range e.Batch.Reports {
		first, last = min(first, r.Time), max(last, r.Time)
	}
	r, err := tx.ExecContext(ctx, `INSERT INTO batches (source, boot, seq, first_ms, last_ms, body) VALUES (?, ?, ?, ?, ?, ?)`, src, boot, seq, first, last, e.Data)
	if err != nil {
		return 0, err
	}
	id, err := r.LastInsertId()
	if err == nil && id > through {
		err = use.extend(ctx, tx, e.Batch.Schema, id+useAhead)
	}
	return Stored, err
}

// isPart tells whether a batch is a thinned form of the stored one, whose
// acknowledgement was lost before the node's spool was full.
func isPart(stored []byte, e Entry) bool {
	whole, err := wire.Decode(stored, e.Schema)
	return err == nil && whole.Covers(e.Batch)
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

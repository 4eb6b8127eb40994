package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"halo.internal/model/wire"
)

// A schema is kept for as long as a stored batch names it. Which those are is
// not counted batch by batch, since that would cost the card a page with every
// commit: batches are dropped in the order of their ids, so that it is enough
// to know an id after which none names the schema, and that is written down
// ahead, once in useAhead batches.
const (
	useAhead        = 1024
	maxSchemasInRAM = 256
	schemaShare     = 64        // a node's schemas may take this part of the budget
	leastSchemas    = 128 << 10 // but at least that much: the two largest there can be
	schemaRow       = 32        // what a schema costs beside its text
)

// ErrTooManySchemas is wrapped in the refusal of a node that keeps inventing
// schemas: those that stored batches name take its share of the budget.
var ErrTooManySchemas = errors.New("too many schemas")

// PutSchema commits a schema, so that batches that name it can be read for
// as long as they are kept.
func (j *Journal) PutSchema(ctx context.Context, node string, s wire.Schema) error {
	id, body := s.ID(), s.Encode()
	// Not asked of the copies in RAM: one there may have been dropped meanwhile.
	if _, err := j.stored(ctx, id); err == nil || !errors.Is(err, ErrNoSchema) {
		return err
	}
	return j.db.Write(ctx, func(tx *sql.Tx) error {
		src, err := source(ctx, tx, node)
		if err != nil {
			return err
		}
		var used int64
		if err := tx.QueryRowContext(ctx, `SELECT coalesce(sum(length(body) + ?), 0) FROM schemas WHERE source = ?`, schemaRow, src).Scan(&used); err != nil {
			return err
		}
		if most := max(j.budget/schemaShare, leastSchemas); used+int64(len(body))+schemaRow > most {
			return fmt.Errorf("%w: expected at most %d octets of them of a node", ErrTooManySchemas, most)
		}
		_, err = tx.ExecContext(ctx, `INSERT INTO schemas (id, source, body, through) SELECT ?, ?, ?, coalesce(max(id), 0) + ? FROM batches WHERE true ON CONFLICT DO NOTHING`,
			id[:], src, body, useAhead)
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
	s, err := j.stored(ctx, id)
	if err != nil {
		return s, err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.schemas) >= maxSchemasInRAM {
		clear(j.schemas)
	}
	j.schemas[id] = s
	return s, nil
}

func (j *Journal) stored(ctx context.Context, id wire.SchemaID) (s wire.Schema, err error) {
	var body []byte
	err = j.db.read.QueryRowContext(ctx, `SELECT body FROM schemas WHERE id = ?`, id[:]).Scan(&body)
	if errors.Is(err, sql.ErrNoRows) {
		return s, ErrNoSchema
	}
	if err != nil {
		return s, classify(err)
	}
	if s, err = wire.DecodeSchema(body); err != nil {
		return s, fmt.Errorf("stored schema %v: %w", id, err)
	}
	return s, nil
}

// Schemas returns schemas that a node need not send: its own first, and of
// those the ones that are in use.
func (j *Journal) Schemas(ctx context.Context, node string) ([]wire.SchemaID, error) {
	rows, err := j.db.read.QueryContext(ctx, `SELECT id FROM schemas ORDER BY source = (SELECT id FROM sources WHERE node = ?) DESC, through DESC LIMIT ?`, node, wire.MaxSchemas)
	if err != nil {
		return nil, classify(err)
	}
	return scanSchemas(rows)
}

func scanSchemas(rows *sql.Rows) ([]wire.SchemaID, error) {
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

// forget drops copies in RAM of schemas that are not stored any more.
func (j *Journal) forget(ids ...wire.SchemaID) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, id := range ids {
		delete(j.schemas, id)
	}
}

// dropSchemas drops those that no stored batch names.
func dropSchemas(ctx context.Context, tx *sql.Tx) ([]wire.SchemaID, error) {
	rows, err := tx.QueryContext(ctx, `DELETE FROM schemas WHERE through < (SELECT min(id) FROM batches) RETURNING id`)
	if err != nil {
		return nil, err
	}
	return scanSchemas(rows)
}

// schemaUse is, within one transaction, up to which batch each schema is in
// use; -1 where there is no such schema.
type schemaUse map[wire.SchemaID]int64

func (u schemaUse) of(ctx context.Context, tx *sql.Tx, id wire.SchemaID) (through int64, known bool, err error) {
	through, asked := u[id]
	if !asked {
		err = tx.QueryRowContext(ctx, `SELECT through FROM schemas WHERE id = ?`, id[:]).Scan(&through)
		if errors.Is(err, sql.ErrNoRows) {
			through, err = -1, nil
		}
		u[id] = through
	}
	return through, through >= 0, err
}

func (u schemaUse) extend(ctx context.Context, tx *sql.Tx, id wire.SchemaID, through int64) error {
	u[id] = through
	_, err := tx.ExecContext(ctx, `UPDATE schemas SET through = ? WHERE id = ?`, through, id[:])
	return err
}

package telemetry

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"halo.internal/gateway/store"
	"halo.internal/model/wire"
)

// salvageJournal puts into a new journal what can be read of a damaged one: nodes, schemas
// and batches, each of which has its checksum, under the same name and numbers, so that the
// week files go on from where they are. Groups to come are numbered from far above all of
// before: a week file may say that it has some that cannot be read any more, whose numbers
// must not be given again.
func salvageJournal(ctx context.Context, damaged string, fresh *store.DB) (string, error) {
	if _, err := os.Stat(damaged); errors.Is(err, fs.ErrNotExist) {
		return "", nil // SQLite would begin one
	}
	old, err := store.OpenAsIs(ctx, damaged, store.Kind{Damaged: true})
	if errors.Is(err, store.ErrCorrupt) {
		return "", nil // it is no database any more
	}
	if err != nil {
		return "", err
	}
	defer old.Close()
	j := salvaged{old: old.Read(), nodes: map[int64]string{}}
	if err := fresh.Write(ctx, func(tx *sql.Tx) error { return j.copy(ctx, tx) }); err != nil {
		return "", err
	}
	if len(j.nodes) == 0 {
		return "", nil
	}
	return fmt.Sprintf("%d batches of %d nodes; %d places could not be read", j.batches, len(j.nodes), j.holes), nil
}

// salvaged is what comes from a damaged journal.
type salvaged struct {
	old     *sql.DB
	nodes   map[int64]string
	batches int
	holes   int
	last    int64 // number of a group
}

func (j *salvaged) copy(ctx context.Context, tx *sql.Tx) error {
	for _, table := range []string{"groups", "schemas", "sources", "journal"} { // what was done before a power cut
		if _, err := tx.ExecContext(ctx, `DELETE FROM `+table); err != nil {
			return err
		}
	}
	var name []byte
	var compacted, sum int64
	err := j.old.QueryRowContext(ctx, `SELECT name, compacted, sum FROM journal`).Scan(&name, &compacted, &sum)
	if err == nil && sum == journalSum(name, compacted) {
		if err := putName(ctx, tx, name, compacted); err != nil {
			return err
		}
		j.last = compacted
	}
	for _, part := range []func(context.Context, *sql.Tx) error{j.sources, j.schemas, j.groups} {
		if err := part(ctx, tx); err != nil {
			return err
		}
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO groups (id, at_ms, body) VALUES (?, 0, ?)`, j.last+salvagedGroups, []byte{groupVersion})
	return err
}

// rows calls row with each row of a table that can be read, the first column of which is
// its number.
func (j *salvaged) rows(ctx context.Context, table, columns string, row func(*sql.Rows) (id int64, err error)) error {
	var failed error // of row itself: not of what is read
	holes, err := crawl(func(from int64) (last int64, err error) {
		last = from - 1
		err = each(ctx, j.old, func(rows *sql.Rows) error {
			last, failed = row(rows)
			return failed
		}, `SELECT `+columns+` FROM `+table+` NOT INDEXED WHERE rowid >= ? ORDER BY rowid`, from)
		if failed != nil {
			return last, failed
		}
		return last, salvageError(ctx, err)
	}, func(id int64) bool {
		rows, err := j.old.QueryContext(ctx, `SELECT `+columns+` FROM `+table+` NOT INDEXED WHERE rowid >= ? ORDER BY rowid LIMIT 1`, id)
		if err != nil {
			return false
		}
		defer rows.Close()
		return rows.Next()
	})
	j.holes += holes
	return err
}

// salvageError tells what a damaged database says of itself from what has to do with it.
func salvageError(ctx context.Context, err error) error {
	err = store.Classify(err)
	if err == nil || ctx.Err() != nil || errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrCorrupt) {
		return err
	}
	return fmt.Errorf("%w: %w", store.ErrCorrupt, err) // a table that is not there
}

func (j *salvaged) sources(ctx context.Context, tx *sql.Tx) error {
	return j.rows(ctx, "sources", "id, node, sum, came, latest", func(rows *sql.Rows) (id int64, err error) {
		var sum int64
		var node string
		var came, latest []byte
		if rows.Scan(&id, &node, &sum, &came, &latest) != nil || sum != nodeSum(id, node) {
			j.holes++
			return id, nil
		}
		j.nodes[id] = node
		_, err = tx.ExecContext(ctx, `INSERT OR IGNORE INTO sources (id, node, sum, came, latest) VALUES (?, ?, ?, ?, ?)`, id, node, sum, came, latest)
		return id, err
	})
}

func (j *salvaged) schemas(ctx context.Context, tx *sql.Tx) error {
	// They are kept in the order of their names, and few.
	err := each(ctx, j.old, func(rows *sql.Rows) error {
		var id, body []byte
		var source, used int64
		if rows.Scan(&id, &source, &body, &used) != nil {
			j.holes++
			return nil
		}
		if s, err := wire.DecodeSchema(body); err != nil || len(id) != len(wire.SchemaID{}) || s.ID() != wire.SchemaID(id) {
			j.holes++
			return nil
		}
		_, err := tx.ExecContext(ctx, `INSERT OR IGNORE INTO schemas (id, source, body, used) VALUES (?, ?, ?, ?)`, id, source, body, used)
		return err
	}, `SELECT id, source, body, used FROM schemas`)
	if err = salvageError(ctx, err); errors.Is(err, store.ErrCorrupt) {
		j.holes++
		return nil
	}
	return err
}

func (j *salvaged) groups(ctx context.Context, tx *sql.Tx) error {
	return j.rows(ctx, "groups", "id, at_ms, body", func(rows *sql.Rows) (id int64, err error) {
		var at int64
		var body []byte
		if rows.Scan(&id, &at, &body) != nil {
			j.holes++
			return id, nil
		}
		items, err := parseGroup(body)
		if errors.Is(err, errLaterGroup) {
			if id < j.last+farGroups/2 { // else it has been renumbered
				j.last = max(j.last, id)
			}
			_, err = tx.ExecContext(ctx, `INSERT OR IGNORE INTO groups (id, at_ms, body) VALUES (?, ?, ?)`, id, at, body)
			return id, err
		}
		if err != nil {
			j.holes++
		}
		if err == nil || len(items) > 0 {
			j.last = max(j.last, id)
		}
		whole := []byte{groupVersion}
		for _, it := range items {
			if _, err := wire.DecodeHeader(it.data); err != nil || j.nodes[it.source] == "" {
				j.holes++
				continue
			}
			whole, _ = appendItem(whole, it)
			j.batches++
		}
		if len(whole) == 1 {
			return id, nil
		}
		_, err = tx.ExecContext(ctx, `INSERT OR IGNORE INTO groups (id, at_ms, body) VALUES (?, ?, ?)`, id, at, whole)
		return id, err
	})
}

package archive

import (
	"context"
	"database/sql"
	"errors"

	"halo.internal/gateway/store"
	"halo.internal/gateway/topology"
)

// saveRows is how many rows are brought over in a transaction.
const saveRows = 256

// replace sets the damaged database aside, and begins a new one with what can be read of
// it. why is the error that told of the damage; nil: reading has found it.
func (a *Archive) replace(ctx context.Context, why error) error {
	ctx = context.WithoutCancel(ctx) // half of it would leave nothing
	a.using.Lock()
	defer a.using.Unlock()
	if a.db != nil {
		_ = a.db.Close() // it is damaged
		a.db = nil
	}
	if why == nil {
		why = store.ErrCorrupt
	}
	r := store.Repair{Reason: why.Error()}
	var err error
	if r.Aside, err = store.SetAside(a.Path); err != nil {
		return err // the next Flush opens it again
	}
	db, _, err := open(ctx, a.Path)
	if err != nil {
		return err
	}
	saved, err := save(ctx, r.Aside, db)
	next, nextErr := nextOf(ctx, db)
	a.db = db
	a.mu.Lock()
	a.spoilt = false
	a.renumber(next)
	a.mu.Unlock()
	if a.Repaired != nil {
		a.Repaired(r, saved)
	}
	return errors.Join(err, nextErr)
}

// save brings over what can be read of a damaged database: from its beginning to the
// damage, and from its end back to it.
func save(ctx context.Context, from string, to *store.DB) (saved int, err error) {
	db, err := store.OpenAsIs(ctx, from, kind)
	if err != nil {
		return 0, nil // there is nothing to be saved
	}
	defer db.Close()
	first, above := int64(0), int64(1)<<62
	for _, order := range []string{"ASC", "DESC"} {
		for {
			batch := read(ctx, db, order, first, above)
			if len(batch) == 0 {
				break
			}
			if err := to.Write(ctx, func(tx *sql.Tx) error { return insert(ctx, tx, batch, "IGNORE") }); err != nil {
				return saved, err
			}
			saved += len(batch)
			if last := batch[len(batch)-1].id; order == "ASC" {
				first = last
			} else {
				above = last
			}
		}
	}
	return saved, nil
}

// read returns rows between two numbers until one cannot be read.
func read(ctx context.Context, db *store.DB, order string, after, before int64) (list []numbered) {
	rows, err := db.Read().QueryContext(ctx, `SELECT id, at, kind, body FROM frames WHERE id > ? AND id < ? ORDER BY id `+order+` LIMIT ?`, after, before, saveRows)
	if err != nil {
		return nil
	}
	defer rows.Close()
	for rows.Next() {
		var f numbered
		var at int64
		if rows.Scan(&f.id, &at, &f.Kind, &f.Data) != nil || f.Kind < topology.FrameFull || f.Kind > topology.FrameMark {
			break
		}
		if f.id <= after || f.id >= before {
			break // a damaged tree is in no order: it would be read for ever
		}
		if order == "ASC" {
			after = f.id
		} else {
			before = f.id
		}
		f.At = store.Time(at)
		list = append(list, f)
	}
	return list
}

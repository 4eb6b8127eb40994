package store

import (
	"context"
	"database/sql"
	"errors"
)

// Setting returns a stored fact of config.db; when there is none, what
// initial returns is stored first, or nothing where initial is nil.
func (d *DB) Setting(ctx context.Context, name string, initial func() []byte) ([]byte, error) {
	var v []byte
	err := d.read.QueryRowContext(ctx, `SELECT value FROM settings WHERE name = ?`, name).Scan(&v)
	if err == nil || !errors.Is(err, sql.ErrNoRows) {
		return v, classify(err)
	}
	if initial == nil {
		return nil, nil
	}
	v = initial()
	return v, d.PutSetting(ctx, name, v)
}

// PutSetting stores a fact.
func (d *DB) PutSetting(ctx context.Context, name string, value []byte) error {
	return d.Write(ctx, func(tx *sql.Tx) error { return PutSetting(ctx, tx, name, value) })
}

// PutSetting stores a fact within a transaction.
func PutSetting(ctx context.Context, tx *sql.Tx, name string, value []byte) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO settings (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value`, name, value)
	return err
}

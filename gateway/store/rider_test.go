package store

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"testing"
)

func TestARiderIsThereExactlyWithItsWrite(t *testing.T) {
	d, _ := openConfig(t, filepath.Join(t.TempDir(), "config.db"))
	other, _ := openConfig(t, filepath.Join(t.TempDir(), "config.db"))
	boom := errors.New("boom")
	fail := boom
	ctx, r := d.Ride(t.Context(), func(ctx context.Context, tx *sql.Tx) error {
		if fail != nil {
			return fail
		}
		return PutSetting(ctx, tx, "rider", []byte("1"))
	})
	write := func(d *DB, name string, err error) error {
		return d.Write(ctx, func(tx *sql.Tx) error { return errors.Join(PutSetting(ctx, tx, name, []byte("1")), err) })
	}
	have := func(d *DB) (names string) {
		t.Helper()
		if err := d.Read().QueryRow(`SELECT coalesce(group_concat(name, ' ' ORDER BY name), '') FROM settings`).Scan(&names); err != nil {
			t.Fatal(err)
		}
		return names
	}
	if err := write(d, "a", boom); !errors.Is(err, boom) || r.There() || have(d) != "" {
		t.Errorf("a write that failed: %v, there %v, %q", err, r.There(), have(d))
	}
	if err := write(d, "a", nil); !errors.Is(err, boom) || r.There() || have(d) != "" {
		t.Errorf("a rider that failed: %v, there %v, %q", err, r.There(), have(d))
	}
	fail = nil
	if err := write(other, "a", nil); err != nil || r.There() || have(other) != "a" {
		t.Errorf("another database: %v, there %v, %q", err, r.There(), have(other))
	}
	for range 2 {
		if err := write(d, "a", nil); err != nil || !r.There() || have(d) != "a rider" {
			t.Errorf("a write: %v, there %v, %q", err, r.There(), have(d))
		}
		if err := d.Write(t.Context(), func(tx *sql.Tx) error { _, err := tx.Exec(`DELETE FROM settings WHERE name = 'rider'`); return err }); err != nil {
			t.Fatal(err)
		}
		if err := write(d, "a", nil); err != nil || have(d) != "a" {
			t.Errorf("it went along twice: %v, %q", err, have(d))
		}
		if err := d.PutSetting(t.Context(), "rider", []byte("1")); err != nil {
			t.Fatal(err)
		}
	}
}

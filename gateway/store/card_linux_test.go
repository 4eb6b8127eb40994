package store

import (
	"database/sql"
	"fmt"
	"path/filepath"
	"testing"

	"halo.internal/hal/card/disktest"
)

// A commit is on the card when it returns, with all that ext4 has to know of the files, of
// which it writes nothing by itself for half a minute: their lengths, which blocks they have,
// and that a rollback journal is gone, which would take the commit back.
func TestCutCard(t *testing.T) {
	for name, kind := range map[string]Kind{
		"log":               {},
		"log, alone":        {Alone: true},
		"log, with sums":    {Sums: true, Scrub: true},
		"rollback journal":  {Rollback: true},
		"journal of a week": {Rollback: true, PageSize: 1024},
		"other pages":       {PageSize: 1024, Alone: true},
	} {
		t.Run(name, func(t *testing.T) {
			disk := disktest.New(t)
			d, err := OpenAsIs(t.Context(), filepath.Join(disk.Dir, "x.db"), kind)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			if kind.Sums {
				if err := d.keepSums(nil); err != nil {
					t.Fatal(err)
				}
			}
			write := func(query string, args ...any) {
				t.Helper()
				if err := d.Write(t.Context(), func(tx *sql.Tx) error { _, err := tx.Exec(query, args...); return err }); err != nil {
					t.Fatal(err)
				}
			}
			cut := func(when string, rows int) {
				t.Run(when, func(t *testing.T) {
					path := filepath.Join(disk.Cut(t).Dir, "x.db")
					if _, err := verifySums(path); err != nil {
						t.Error(err)
					}
					d, err := OpenAsIs(t.Context(), path, kind)
					if err != nil {
						t.Fatal(err)
					}
					defer d.Close()
					if err := d.Check(t.Context()); err != nil {
						t.Fatal(err)
					}
					var n, last int
					if err := d.Read().QueryRow(`SELECT count(*), max(id) FROM t`).Scan(&n, &last); err != nil {
						t.Fatal(err)
					}
					if n != rows || last != rows {
						t.Errorf("expected %d rows, got %d, the last of them %d", rows, n, last)
					}
				})
			}
			write(`CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB)`)
			for i := 1; i <= 400; i++ { // beyond where the log is begun anew
				write(`INSERT INTO t VALUES (?, randomblob(2500))`, i)
				switch {
				case i <= 2 || i%133 == 0:
					cut(fmt.Sprint("after ", i), i)
				case i == 250 && kind.Sums:
					if err := d.checkpoint(t.Context(), "PASSIVE"); err != nil {
						t.Fatal(err)
					}
					cut("after the log was brought over", i)
				}
			}
			write(`UPDATE t SET body = randomblob(2500) WHERE id = 3`) // no file changes its length
			write(`DELETE FROM t WHERE id = 400`)
			cut("after a row is gone", 399)
		})
	}
}

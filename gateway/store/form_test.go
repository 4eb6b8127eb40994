package store

import (
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestFormsOfLaterReleases(t *testing.T) {
	const known = 3
	for _, tc := range []struct {
		what, query string
		want        int
	}{
		{"of this release", Form(known), 0},
		{"of an earlier one", Form(known - 1), 0},
		{"of before it was said twice", "PRAGMA user_version = 1", 0},
		{"of the next one", Form(known + 1), known + 1},
		{"of one far off", Form(900), 900},
		{"a bit flipped in the version", Form(known) + "PRAGMA user_version = 7", 0},
		{"a bit flipped in the other", Form(known) + "PRAGMA application_id = 7", 0},
		{"negative", "PRAGMA user_version = -5; PRAGMA application_id = -5", 0},
	} {
		path := filepath.Join(t.TempDir(), "a.db")
		db, err := OpenAsIs(t.Context(), path, Kind{Rollback: true})
		if err != nil {
			t.Fatal(err)
		}
		err = db.Write(t.Context(), func(tx *sql.Tx) error {
			_, err := tx.Exec("CREATE TABLE t (n INTEGER); " + tc.query)
			return err
		})
		if err := errors.Join(err, db.Close()); err != nil {
			t.Fatal(err)
		}
		if got, err := LaterVersion(path, known); err != nil || got != tc.want {
			t.Errorf("%s: got %d, %v; want %d", tc.what, got, err, tc.want)
		}
	}
	dir := t.TempDir()
	for name, content := range map[string]string{"empty": "", "short": "SQLite format 3\x00", "another": string(make([]byte, 4096))} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := LaterVersion(path, known); err != nil || got != 0 {
			t.Errorf("%s: got %d, %v", name, got, err)
		}
	}
	if _, err := LaterVersion(filepath.Join(dir, "none"), known); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("none: %v", err)
	}
	if got := Beside("/perm/topology.db", 1); got != "/perm/topology.v1.db" {
		t.Errorf("got %s", got)
	}
}

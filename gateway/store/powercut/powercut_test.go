package powercut_test

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	_ "modernc.org/sqlite"

	"halo.internal/gateway/store/powercut"
)

// commits makes a database, to which it adds rows one by one, and returns after how many
// steps each was committed.
func commits(t *testing.T, pragmas string, rows int) (*powercut.Recorder, []int) {
	t.Helper()
	dir := t.TempDir()
	r := powercut.Record(t, dir)
	db, err := sql.Open("sqlite", "file:"+filepath.Join(dir, "x.db")+pragmas)
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	var done []int
	for i := range rows {
		query := `INSERT INTO t VALUES (?, randomblob(1000))`
		if i == 0 {
			query = `CREATE TABLE t (id INTEGER PRIMARY KEY, body BLOB); ` + query
		}
		if _, err := db.Exec(query, i); err != nil {
			t.Fatal(err)
		}
		done = append(done, r.Steps())
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return r, done
}

// found returns how many rows a database has, which are the first ones.
func found(t *testing.T, path, pragmas string) (int, error) {
	t.Helper()
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	db, err := sql.Open("sqlite", "file:"+path+pragmas)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var is string
	if err := db.QueryRow(`PRAGMA integrity_check`).Scan(&is); err != nil || is != "ok" {
		return 0, fmt.Errorf("%s: %w", is, err)
	}
	var tables, n, last int
	if err := db.QueryRow(`SELECT count(*) FROM sqlite_schema`).Scan(&tables); err != nil || tables == 0 {
		return 0, err
	}
	if err := db.QueryRow(`SELECT count(*), coalesce(max(id), -1) FROM t`).Scan(&n, &last); err != nil {
		return 0, err
	}
	if last != n-1 {
		return 0, fmt.Errorf("expected the first %d rows, got row %d", n, last)
	}
	return n, nil
}

// What SQLite promises of synchronous=FULL is so, and where it is told not to sync the cuts
// show that.
func TestCuts(t *testing.T) {
	const log = "?_pragma=journal_mode(WAL)&_pragma=wal_autocheckpoint(20)"
	for name, c := range map[string]struct {
		pragmas string
		safe    bool
	}{
		"log":                    {log + "&_pragma=synchronous(FULL)", true},
		"log, process alone":     {log + "&_pragma=synchronous(FULL)&vfs=unix-excl", true},
		"journal":                {"?_pragma=journal_mode(DELETE)&_pragma=synchronous(EXTRA)", true},
		"log without syncs":      {log + "&_pragma=synchronous(OFF)", false},
		"log, synced by and by":  {log + "&_pragma=synchronous(NORMAL)", false},
		"journal, without syncs": {"?_pragma=journal_mode(DELETE)&_pragma=synchronous(OFF)", false},
	} {
		t.Run(name, func(t *testing.T) {
			r, done := commits(t, c.pragmas, 60)
			random := rand.New(rand.NewPCG(1, 2))
			var at []int
			for range 300 {
				at = append(at, random.IntN(r.Steps()+1))
			}
			at = append(at, r.Syncs()...)
			slices.Sort(at)
			disk, failed, cuts := r.Disk(), 0, t.TempDir()
			powercut.Careless(t, cuts)
			for i, steps := range at {
				disk.Forward(steps)
				dir := filepath.Join(cuts, strconv.Itoa(i))
				if err := disk.Cut(random, dir); err != nil {
					t.Fatal(err)
				}
				least, _ := slices.BinarySearch(done, steps+1) // committed by then
				n, err := found(t, filepath.Join(dir, "x.db"), c.pragmas)
				if err != nil || n < least || n > least+1 {
					if failed++; c.safe {
						t.Fatalf("cut behind %d of %d steps: expected %d rows or one more, got %d: %v", steps, r.Steps(), least, n, err)
					}
				}
			}
			if !c.safe && failed == 0 {
				t.Error("expected cuts to lose what was not synced")
			}
		})
	}
}

// The last instant is what is there.
func TestEnd(t *testing.T) {
	r, _ := commits(t, "?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)", 30)
	d := r.Disk()
	d.Forward(r.Steps())
	dirs := map[string]bool{}
	for seed := range uint64(20) {
		dir := t.TempDir()
		if err := d.Cut(rand.New(rand.NewPCG(seed, 0)), dir); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(dir, "x.db"))
		if err != nil {
			t.Fatal(err)
		}
		dirs[string(b)] = true
	}
	if len(dirs) != 1 {
		t.Errorf("expected a closed database to be on the medium, got %d of them", len(dirs))
	}
	for b := range maps.Keys(dirs) {
		if !bytes.HasPrefix([]byte(b), []byte("SQLite format 3")) {
			t.Error("expected a database")
		}
	}
}

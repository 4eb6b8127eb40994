package store

import (
	"database/sql"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
	"modernc.org/sqlite"
)

// A database that is kept alone has nothing beside it but its log, and other processes cannot
// have it; what is in it another kind of opening finds as well.
func TestAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	d, err := OpenAsIs(t.Context(), path, Kind{Alone: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Write(t.Context(), func(tx *sql.Tx) error {
		_, err := tx.Exec(`CREATE TABLE t (x); INSERT INTO t VALUES (7)`)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	count := func(d *DB) (n int) {
		t.Helper()
		if err := d.Read().QueryRow(`SELECT count(*) FROM t WHERE x = 7`).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := count(d); n != 1 {
		t.Errorf("expected the row, got %d", n)
	}
	copied := filepath.Join(t.TempDir(), "copy.db")
	if err := d.Snapshot(t.Context(), copied); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path + "-wal"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path + "-shm"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("expected no index of the log on the card, got %v", err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	// A lock of an open file is as one of another process. SQLite's are where its files have
	// 2^30 octets and more: https://www.sqlite.org/src/file/src/os.h
	lock := unix.Flock_t{Type: unix.F_RDLCK, Start: 1<<30 + 2, Len: 510}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lock); err != nil {
		t.Fatal(err)
	}
	if lock.Type != unix.F_WRLCK {
		t.Errorf("expected others to be kept out, got lock %+v", lock)
	}
	if err := errors.Join(f.Close(), d.Close()); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{path, copied} {
		d, err := OpenAsIs(t.Context(), path, Kind{})
		if err != nil {
			t.Fatal(err)
		}
		if n := count(d); n != 1 {
			t.Errorf("%s: expected the row, got %d", path, n)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Commits are synced without the file's time.
func TestFdatasync(t *testing.T) {
	d, err := OpenAsIs(t.Context(), filepath.Join(t.TempDir(), "x.db"), Kind{})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if !sqlite.FdatasyncEnabled() {
		t.Error("expected fdatasync")
	}
}

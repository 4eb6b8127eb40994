package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"time"

	"halo.internal/model/atomicfile"
)

// Copies of config.db beside it, newest first.
var copySuffixes = [...]string{".copy-1", ".copy-2"}

const unfinishedCopy = ".copy-new"

// SweepCopy removes what a power cut left of a copy of the database at path that
// was being made: it takes room, and may hold what was taken away since.
func SweepCopy(path string) error {
	tmp := path + unfinishedCopy
	return errors.Join(os.RemoveAll(tmp), os.RemoveAll(tmp+"-journal"), os.RemoveAll(tmp+sumsSuffix)) // SQLite's own beside it
}

// Copied returns when the newest copy was made; zero: there is none.
func (d *DB) Copied() time.Time {
	info, err := os.Stat(d.path + copySuffixes[0])
	if err != nil {
		return time.Time{} // as good as none: a copy is made, which says what is wrong
	}
	return info.ModTime()
}

// CopyInfo is a copy of config.db beside it.
type CopyInfo struct {
	Path  string
	Made  time.Time
	Bytes int64
}

// Copies returns those there are, newest first.
func (d *DB) Copies() (list []CopyInfo) {
	for _, s := range copySuffixes {
		if info, err := os.Stat(d.path + s); err == nil {
			list = append(list, CopyInfo{d.path + s, info.ModTime(), info.Size()})
		}
	}
	return list
}

// Lag is what the copies of config.db are behind it.
type Lag struct {
	Change     bool // the newest lacks something that must not be lost
	Withdrawal bool // one of them still has something that was taken away
}

// Lag compares the copies with the database.
func (d *DB) Lag(ctx context.Context) (Lag, error) {
	now, err := readMarks(ctx, d.read)
	if err != nil {
		return Lag{}, fmt.Errorf("what copies are compared by: %w", classify(err))
	}
	var lag Lag
	for i, suffix := range copySuffixes {
		path := d.path + suffix
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			lag.Change = lag.Change || i == 0
			continue
		}
		// One that cannot be read, or is of an earlier release, may have anything.
		var m marks
		_ = inspect(path, func(db *sql.DB) (err error) { m, err = readMarks(ctx, db); return err })
		lag.Change = lag.Change || i == 0 && !bytes.Equal(m.change, now.change)
		lag.Withdrawal = lag.Withdrawal || !bytes.Equal(m.withdrawal, now.withdrawal)
	}
	return lag, nil
}

// marks is the row of copy_marks.
type marks struct{ change, withdrawal []byte }

func readMarks(ctx context.Context, db *sql.DB) (m marks, err error) {
	err = db.QueryRowContext(ctx, `SELECT change, withdrawal FROM copy_marks`).Scan(&m.change, &m.withdrawal)
	return m, err
}

// inspect opens a copy, to which nothing is written, for f.
func inspect(path string, f func(*sql.DB) error) error {
	v := url.Values{"mode": {"ro"}, "immutable": {"1"}}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: v.Encode()}).String())
	if err != nil {
		return err
	}
	return errors.Join(f(db), db.Close())
}

// Copy writes a compact copy of the database beside it and keeps the one
// before, unless that one has something that was taken away since: then both
// are made anew, one after the other.
func (d *DB) Copy(ctx context.Context) error {
	if err := d.copyOnce(ctx); err != nil {
		return err
	}
	lag, err := d.Lag(ctx)
	if err != nil || !lag.Withdrawal {
		return err
	}
	return d.copyOnce(ctx)
}

// copyOnce makes a copy the newest one and the newest one the second. Power may
// fail at any instant: a copy that is whole is only replaced by another, and
// there is one under its name at all times.
//
// A database that is damaged by now replaces no copy.
func (d *DB) copyOnce(ctx context.Context) error {
	if err := d.Verify(); err != nil {
		return fmt.Errorf("no copy is made: %w", err)
	}
	tmp, first, second := d.path+unfinishedCopy, d.path+copySuffixes[0], d.path+copySuffixes[1]
	if err := SweepCopy(d.path); err != nil {
		return err
	}
	if err := d.Snapshot(ctx, tmp); err != nil {
		return err
	}
	if err := new(sums).update(tmp, nil); err != nil {
		return fmt.Errorf("copy %s: %w", d.path, err)
	}
	if good(ctx, first) { // else the second is the better one
		if err := os.Rename(first, second); err != nil {
			return err
		}
		if err := os.Rename(first+sumsSuffix, second+sumsSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	// A power cut between the two leaves sums of another file, which say nothing.
	return errors.Join(atomicfile.Rename(tmp, first), atomicfile.Rename(tmp+sumsSuffix, first+sumsSuffix))
}

// Snapshot writes a compact copy of the database, as it is at one instant, to a file
// that is not there yet. It has a connection of its own, which only reads the database:
// whoever writes does not wait for it, unless the database has no log.
func (d *DB) Snapshot(ctx context.Context, to string) error {
	db, err := sql.Open("sqlite", dsn(d.path, d.kind, true))
	if err != nil {
		return fmt.Errorf("copy %s: %w", d.path, err)
	}
	_, err = db.ExecContext(ctx, `VACUUM INTO ?`, to)
	if err = errors.Join(classify(err), db.Close()); err != nil {
		return fmt.Errorf("copy %s: %w", d.path, errors.Join(err, os.RemoveAll(to), os.RemoveAll(to+"-journal")))
	}
	f, err := os.OpenFile(to, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("copy %s: %w", d.path, err)
	}
	if err := errors.Join(f.Chmod(0o600), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("copy %s: %w", d.path, errors.Join(err, os.Remove(to)))
	}
	return nil
}

// good tells whether a copy is worth being kept.
func good(ctx context.Context, copy string) bool {
	if _, err := verifySums(copy); err != nil {
		return false
	}
	return inspect(copy, func(db *sql.DB) error { return check(ctx, db) }) == nil
}

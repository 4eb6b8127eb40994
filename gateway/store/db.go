// Package store is how the gateway keeps SQLite databases: one writer connection
// each, commits that are on the medium when they return, errors that say whether it
// is full, busy or damaged; a damaged one is set aside, never written to again, and
// replaced. config.db is its own (the control plane: small, precious, copied daily);
// what the nodes measure is package telemetry's.
package store

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// ErrUnavailable is wrapped where a database cannot be used at present:
// another process holds its lock, or the medium is full or failing. What was
// to be written is not written; the caller keeps it and tries again.
var ErrUnavailable = errors.New("store is unavailable")

// ErrFull is wrapped beside ErrUnavailable where the medium is full.
var ErrFull = errors.New("no space is left for the database")

// ErrCorrupt is wrapped where a database is damaged.
var ErrCorrupt = errors.New("database is damaged")

// DB is one of the databases.
type DB struct {
	path  string
	kind  Kind
	write *sql.DB // one connection
	read  *sql.DB

	commits    atomic.Int64 // since it was opened
	generation atomic.Int64
	sums       *keptSums // nil: none are kept
	closed     atomic.Bool

	mu    sync.Mutex // guards state
	state func(error)
	last  error
}

// Busy timeout of the lock: long enough for another connection's commit on a
// slow card, short enough for a person who waits for an answer.
const busyTimeout = 4 * time.Second

// logFrames is with how many pages, of 4 KiB and a head, the log is brought to its place and
// begun anew: a commit before it is longer than logLimit, since what is cut off there has to be
// allocated again.
const logFrames = 240

// mediumBlock is what SQLite takes a medium to write at once where it is not told, and what a
// file system does write at once: octets.
const mediumBlock = 4096

// dsn of modernc's driver. No mmap and one writer: the precautions of
// SQLite's own notes on corruption.
func dsn(path string, k Kind, writer bool) string {
	v := url.Values{}
	var pragmas []string
	if k.Damaged {
		// Before the file is looked at: SQLite refuses one that is shorter than it says. The
		// driver sorts them by their texts.
		pragmas = append(pragmas, "/* first */ writable_schema(1)")
	}
	pragmas = append(pragmas, fmt.Sprintf("busy_timeout(%d)", busyTimeout.Milliseconds()))
	if k.PageSize > 0 {
		pragmas = append(pragmas, fmt.Sprintf("page_size(%d)", k.PageSize)) // counts before there is anything in the file
	}
	if k.Rollback {
		// EXTRA syncs the folder too once the journal is removed: a power cut could bring it
		// back otherwise, and take back what was committed.
		pragmas = append(pragmas, "journal_mode(DELETE)", "synchronous(EXTRA)")
	} else {
		pragmas = append(pragmas, "journal_mode(WAL)", "synchronous(FULL)", fmt.Sprintf("journal_size_limit(%d)", logLimit))
		if k.Sums {
			pragmas = append(pragmas, "wal_autocheckpoint(0)") // checkpoint does it
		} else {
			pragmas = append(pragmas, fmt.Sprintf("wal_autocheckpoint(%d)", logFrames))
		}
	}
	if k.Scrub {
		pragmas = append(pragmas, "secure_delete(1)")
	}
	cache := cmp.Or(k.Cache, 1024)
	for _, p := range append(pragmas, "foreign_keys(1)", "temp_store(MEMORY)", fmt.Sprintf("cache_size(-%d)", cache), "mmap_size(0)") {
		v.Add("_pragma", p)
	}
	if k.Rollback && k.PageSize > 0 && k.PageSize < mediumBlock {
		// A power cut may spoil all of the block that is being written: the journal is to have its
		// other pages too. https://www.sqlite.org/psow.html
		v.Set("psow", "0")
	}
	if k.Alone {
		v.Set("vfs", "unix-excl") // https://www.sqlite.org/vfs.html
	}
	if writer {
		v.Set("_txlock", "immediate")
	} else {
		v.Add("_pragma", "query_only(1)")
	}
	return (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: v.Encode()}).String()
}

// OpenAsIs opens a database, or begins an empty one, without a look at what is in it.
func OpenAsIs(ctx context.Context, path string, k Kind) (*DB, error) {
	// As SQLite is built on Linux: fsync also has the file's time written, by way of the file
	// system's journal, which costs a card more than a commit of a few pages does. Where there
	// is no fdatasync it stays fsync.
	_, _ = sqlite.Fdatasync(true)
	w, err := sql.Open("sqlite", dsn(path, k, true))
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	w.SetMaxOpenConns(1)
	r, err := sql.Open("sqlite", dsn(path, k, false))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), w.Close())
	}
	r.SetMaxOpenConns(2)
	d := &DB{path: path, kind: k, write: w, read: r}
	if err := w.PingContext(ctx); err != nil { // the writer first: it creates the file
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, classify(err)), d.Close())
	}
	return d, nil
}

// Close closes the database; the last connection checkpoints the WAL.
func (d *DB) Close() error {
	var errs []error
	errs = append(errs, d.read.Close())
	if d.sums != nil && !d.closed.Swap(true) {
		// Before SQLite does it, without the sums. A full disk has it be done at the next start.
		_ = d.checkpoint(context.Background(), "TRUNCATE")
	}
	return errors.Join(append(errs, d.write.Close())...)
}

// Flush brings what the log holds to its place and empties the log's file, so that
// nothing that was scrubbed is left there. Where a reader is in the way it is done
// another time.
func (d *DB) Flush(ctx context.Context) error {
	return d.checkpoint(ctx, "TRUNCATE")
}

// Path returns where the database is.
func (d *DB) Path() string { return d.path }

// Read returns the connections for queries.
func (d *DB) Read() *sql.DB { return d.read }

// Watch calls f with nil or the error after each write whose outcome differs
// from the one before.
func (d *DB) Watch(f func(error)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.state = f
}

// Write runs f in a transaction that holds the write lock from its start and
// commits it. An error of f rolls it back and is returned as it is; an error of
// the database wraps ErrUnavailable or ErrCorrupt. The end of ctx rolls it back, too:
// the error is that of ctx.
func (d *DB) Write(ctx context.Context, f func(*sql.Tx) error) error {
	err := d.writeTx(ctx, f)
	switch {
	case ctx.Err() == nil:
		d.report(err)
	case errors.Is(err, sql.ErrTxDone): // package sql has rolled back under f
		err = ctx.Err()
	}
	return err
}

func (d *DB) writeTx(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := d.write.BeginTx(ctx, nil)
	if err != nil {
		return classify(err)
	}
	if err := f(tx); err != nil {
		// SQLite rolls back by itself after some errors; then there is nothing to roll back.
		_ = tx.Rollback()
		return classify(err)
	}
	arrived, err := d.board(ctx, tx)
	if err == nil {
		err = tx.Commit()
		d.generation.Add(1) // also where it failed: what came of it is in the database
	} else {
		_ = tx.Rollback() // as above
	}
	if arrived(err == nil); err != nil {
		return classify(err)
	}
	d.commits.Add(1)
	d.bringOver(ctx)
	return nil
}

// Commits returns how many transactions Write has committed: each wears the
// card.
func (d *DB) Commits() int64 { return d.commits.Load() }

// Generation returns a number that is another one after each Write that may have changed
// what is in the database. Whoever keeps what he reads asks for it before he does: what he
// has is out of date once it is not the same.
func (d *DB) Generation() int64 { return d.generation.Load() }

func (d *DB) report(err error) {
	if !errors.Is(err, ErrUnavailable) && !errors.Is(err, ErrCorrupt) {
		err = nil // an error of the caller's own says nothing about the database
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if (err == nil) == (d.last == nil) {
		return
	}
	d.last = err
	if d.state != nil {
		d.state(err)
	}
}

// classify makes ErrUnavailable and ErrCorrupt recognisable and explains the
// usual causes; errors that are not SQLite's stay as they are.
func classify(err error) error {
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return err
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return fmt.Errorf("%w: another process holds the database's lock: %w", ErrUnavailable, err)
	case sqlite3.SQLITE_FULL:
		return fmt.Errorf("%w: %w: %w", ErrUnavailable, ErrFull, err)
	case sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PROTOCOL:
		return fmt.Errorf("%w: the medium is full, read-only or failing: %w", ErrUnavailable, err)
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return err
}

// Unfit tells of an error that lies with what was to be written: the database
// will not take it at another time either, and takes other things.
func Unfit(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return false
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_RANGE:
		return true
	}
	return false
}

// Unread tells of an error that the medium does not give, or take, what is in the file; not
// that the file could not be opened, which may be the process's own want.
func Unread(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	return ok && e.Code()&0xff == sqlite3.SQLITE_IOERR && e.Code() != sqlite3.SQLITE_IOERR_NOMEM
}

// Classify is for errors of queries made through Read.
func Classify(err error) error { return classify(err) }

// Bytes returns how much of the database is in use; freed pages do not count.
func (d *DB) Bytes(ctx context.Context) (int64, error) {
	var n int64
	err := d.read.QueryRowContext(ctx,
		`SELECT (p.page_count - f.freelist_count) * s.page_size FROM pragma_page_count p, pragma_freelist_count f, pragma_page_size s`).Scan(&n)
	return n, classify(err)
}

// FileBytes returns how much of the file system the database takes.
func (d *DB) FileBytes() (n int64) {
	for _, s := range append([]string{""}, companions[:]...) {
		if info, err := os.Stat(d.path + s); err == nil {
			n += info.Size()
		}
	}
	return n
}

// Version returns the version of SQLite.
func (d *DB) Version(ctx context.Context) (string, error) {
	var v string
	err := d.read.QueryRowContext(ctx, `SELECT sqlite_version()`).Scan(&v)
	return v, classify(err)
}

package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/pressly/goose/v3"
	"golang.org/x/sys/unix"

	"halo.internal/model/atomicfile"
)

//go:embed config/*.sql
var migrations embed.FS

// Repair says what opening a database had to do to it.
type Repair struct {
	Reason   string // what was wrong; empty: nothing
	Aside    string // where the damaged file is kept
	Restored string // copy that took its place; empty: a new database
	Salvaged string // what was put into that; empty: nothing
}

// A copy that takes a database's place has this file beside it until the caller
// has drawn the consequences: what the copy does not know is otherwise
// forgotten by a power cut in between.
const restoredMark = ".restored"

// A new database has this file beside it until it has what could be read of the one whose
// place it takes.
const salvageMark = ".salvage"

// Kind is how a database is kept.
type Kind struct {
	Migrations fs.FS    // goose's; nil: whoever opens it sees to its tables
	Copies     []string // one of them takes a damaged one's place, newest first

	// Salvage puts into a new database what can be read of the damaged one whose place it
	// takes, and says what that was. A power cut may have it done once more, from the beginning.
	Salvage func(ctx context.Context, damaged string, fresh *DB) (found string, err error)

	// Rollback has a rollback journal instead of a log: nothing is beside the file between
	// transactions, so that it can be renamed, and it is written once instead of twice.
	// Writers then wait for all readers.
	Rollback bool
	Damaged  bool // it is read as far as it goes, also where its end is missing
	PageSize int  // octets of a page of a new file; 0: SQLite's
	Cache    int  // KiB of each connection; 0: 1024

	// Alone keeps other processes out while it is open: what SQLite has of the log in a file
	// (-shm) is in RAM then, and never written to the card. Nothing but SQLite may open the file
	// meanwhile, since to close it would let others in.
	Alone bool

	// Sums has checksums of the pages kept beside the file: for what is small and precious.
	Sums  bool
	Scrub bool // what is deleted is overwritten, not only forgotten
}

// OpenConfig opens config.db. A damaged one is set aside and the newest good
// copy takes its place, or, without one, a new database. A copy is reported by
// each start until Settled is called.
func OpenConfig(ctx context.Context, path string) (*DB, Repair, error) {
	var copies []string
	for _, s := range copySuffixes {
		copies = append(copies, path+s)
	}
	sub, err := fs.Sub(migrations, "config")
	if err != nil {
		return nil, Repair{}, err
	}
	return Open(ctx, path, Kind{Migrations: sub, Copies: copies, Sums: true, Scrub: true})
}

// Open opens a database, checks it and brings its tables up to date. A damaged one is
// set aside, and a copy or a new one takes its place.
func Open(ctx context.Context, path string, k Kind) (*DB, Repair, error) {
	d, err := openChecked(ctx, path, k)
	if err == nil {
		from, err := os.ReadFile(path + restoredMark)
		if err == nil {
			return d, Repair{Reason: "an earlier start restored it and was cut short", Aside: path + Damaged, Restored: string(from)}, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, Repair{}, errors.Join(err, d.Close())
		}
		why, err := os.ReadFile(path + salvageMark)
		if errors.Is(err, fs.ErrNotExist) {
			return d, Repair{}, nil
		}
		if err != nil {
			return nil, Repair{}, errors.Join(err, d.Close())
		}
		return salvage(ctx, d, k, Repair{Reason: string(why), Aside: path + Damaged})
	}
	if !errors.Is(err, ErrCorrupt) {
		return nil, Repair{}, err
	}
	repair := Repair{Reason: err.Error()}
	if k.Salvage != nil {
		if err := atomicfile.Write(path+salvageMark, []byte(repair.Reason), 0o600); err != nil {
			return nil, repair, fmt.Errorf("salvage %s: %w", path, err)
		}
	}
	if repair.Aside, err = SetAside(path); err != nil {
		return nil, repair, err
	}
	copies := inOrder(ctx, k.Copies)
	k.Copies = nil
	for _, c := range copies {
		if err := atomicfile.Write(path+restoredMark, []byte(c), 0o600); err != nil {
			return nil, repair, unrestored(path, err)
		}
		err := restore(c, path)
		if errors.Is(err, unix.ENOSPC) && good(ctx, c) {
			err = atomicfile.Rename(c, path) // there is no room for two of it
		}
		if err == nil {
			if d, err = openChecked(ctx, path, k); err == nil {
				repair.Restored = c
				return d, repair, nil
			}
			if errors.Is(err, ErrCorrupt) {
				err = errors.Join(err, Remove(path))
			}
		}
		// Only what is wrong with the copy itself has the next one tried, and in the end a new
		// database begun, which in time replaces all copies.
		if !errors.Is(err, ErrCorrupt) {
			return nil, repair, unrestored(path, err)
		}
	}
	if err := os.RemoveAll(path + restoredMark); err != nil {
		return nil, repair, err
	}
	if d, err = openChecked(ctx, path, k); err != nil || k.Salvage == nil {
		return d, repair, err
	}
	return salvage(ctx, d, k, repair)
}

// unrestored is the error while a copy is there and cannot take the database's place.
func unrestored(path string, err error) error {
	if errors.Is(err, unix.ENOSPC) {
		err = fmt.Errorf("%w: %w", ErrFull, err)
	}
	return fmt.Errorf("%w: restore %s: %w", ErrUnavailable, path, err)
}

// salvage puts into a new database what can be read of the one that was set aside.
func salvage(ctx context.Context, d *DB, k Kind, repair Repair) (*DB, Repair, error) {
	if k.Salvage != nil {
		found, err := k.Salvage(ctx, repair.Aside, d)
		if err != nil {
			return nil, repair, errors.Join(fmt.Errorf("salvage %s: %w", repair.Aside, err), d.Close())
		}
		repair.Salvaged = found
	}
	if err := errors.Join(os.Remove(d.path+salvageMark), atomicfile.SyncDir(filepath.Dir(d.path))); err != nil {
		return nil, repair, errors.Join(err, d.Close())
	}
	return d, repair, nil
}

// inOrder returns the copies that there are in the order in which they are to be tried: those
// last that are damaged. One of them is still better than nothing.
func inOrder(ctx context.Context, copies []string) []string {
	var whole, bad []string
	for _, c := range copies {
		switch _, err := os.Stat(c); {
		case errors.Is(err, fs.ErrNotExist):
		case good(ctx, c):
			whole = append(whole, c)
		default:
			bad = append(bad, c)
		}
	}
	return append(whole, bad...)
}

// Settled tells that whoever opened the database has written down what follows
// from its being restored.
func (d *DB) Settled() error {
	err := os.Remove(d.path + restoredMark)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return errors.Join(err, atomicfile.SyncDir(filepath.Dir(d.path)))
}

// openChecked opens and checks a database and brings its schema up to date. An
// empty file is damage, and so is none where copies exist: SQLite would take
// either for a new database.
func openChecked(ctx context.Context, path string, k Kind) (*DB, error) {
	info, err := os.Stat(path)
	missing := errors.Is(err, fs.ErrNotExist)
	if err == nil && info.Size() == 0 {
		return nil, fmt.Errorf("%w: %s: file is empty", ErrCorrupt, path)
	}
	if missing && slices.ContainsFunc(k.Copies, func(c string) bool { _, err := os.Stat(c); return err == nil }) {
		return nil, fmt.Errorf("%w: %s is gone, but copies of it exist", ErrCorrupt, path)
	}
	var known *sums
	if k.Sums {
		if known, err = verifySums(path); err != nil {
			return nil, err
		}
	}
	d, err := OpenAsIs(ctx, path, k)
	if err != nil {
		if now, stat := os.Stat(path); missing && stat == nil && now.Size() == 0 {
			err = errors.Join(err, Remove(path)) // the next try begins a new one as well
		}
		return nil, err
	}
	if known != nil {
		d.sums = &keptSums{sums: known} // also if it is closed at once, by which its log is brought over
	}
	if err := d.Check(ctx); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	if k.Sums {
		if err := d.keepSums(known); err != nil {
			return nil, errors.Join(err, d.Close())
		}
	}
	if k.Migrations == nil {
		return d, nil
	}
	p, err := provider(k.Migrations, d.write)
	if err == nil {
		_, err = p.Up(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("bring %s up to date: %w", path, classify(err)), d.Close())
	}
	return d, nil
}

func provider(migrations fs.FS, db *sql.DB) (*goose.Provider, error) {
	return goose.NewProvider(goose.DialectSQLite3, db, migrations, goose.WithDisableGlobalRegistry(true))
}

// Schema returns the version of the database's tables: the last of its migrations.
func (d *DB) Schema(ctx context.Context) (int64, error) {
	var v int64
	err := d.read.QueryRowContext(ctx, `SELECT coalesce(max(version_id), 0) FROM goose_db_version WHERE is_applied`).Scan(&v)
	return v, classify(err)
}

// ConfigSchema is the version of config.db that this release makes.
func ConfigSchema() (int64, error) {
	sub, err := fs.Sub(migrations, "config")
	if err != nil {
		return 0, err
	}
	return LastMigration(sub)
}

// LastMigration is the version that migrations lead to.
func LastMigration(migrations fs.FS) (int64, error) {
	list, err := fs.Glob(migrations, "*.sql")
	if err != nil {
		return 0, err
	}
	var last int64
	for _, name := range list {
		v, err := goose.NumericComponent(name)
		if err != nil {
			return 0, err
		}
		last = max(last, v)
	}
	return last, nil
}

// MarkRestored says of the database at path, which is not open, that it takes the place
// of another: those who open it are told, as of a copy, until Settled is called.
func MarkRestored(path, from string) error {
	return atomicfile.Write(path+restoredMark, []byte(from), 0o600)
}

// Check reads the whole database and returns an error that wraps ErrCorrupt where it is
// damaged.
func (d *DB) Check(ctx context.Context) error {
	if err := check(ctx, d.write); err != nil {
		return fmt.Errorf("%s: %w", d.path, err)
	}
	return nil
}

func check(ctx context.Context, db *sql.DB) error {
	var result string
	if err := db.QueryRowContext(ctx, `PRAGMA quick_check(1)`).Scan(&result); err != nil {
		return classify(err)
	}
	if result != "ok" {
		return fmt.Errorf("%w: %s", ErrCorrupt, result)
	}
	return nil
}

// companions of a database file that belong to it and to no other.
var companions = [...]string{"-wal", "-shm", "-journal"}

// Damaged is what the name of a database that was set aside ends with.
const Damaged = ".damaged"

// SetAside renames a damaged database, which is closed, and returns its new name. One of
// each name is kept, the latest: its purpose is to be looked at, and space is scarce.
func SetAside(path string) (string, error) {
	aside := path + Damaged
	_, err := os.Stat(path)
	gone := errors.Is(err, fs.ErrNotExist) // an earlier try has set it aside, which stays
	for _, s := range companions {
		err := os.Rename(path+s, aside+s)
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
			if !gone {
				err = os.RemoveAll(aside + s) // of an earlier damage: does not belong to this file
			}
		}
		if err != nil {
			return "", fmt.Errorf("set the damaged database aside: %w", err)
		}
	}
	if err = os.Rename(path, aside); gone {
		err = nil
	}
	if err := os.RemoveAll(path + sumsSuffix); err != nil { // they are of no other
		return "", fmt.Errorf("set the damaged database aside: %w", err)
	}
	// On the disk before another takes its place: a journal that a power cut
	// brought back would be played into that one.
	if err = errors.Join(err, atomicfile.SyncDir(filepath.Dir(path))); err != nil {
		return "", fmt.Errorf("set the damaged database aside: %w", err)
	}
	return aside, nil
}

// Remove removes a database, which is closed, with all that belongs to it.
func Remove(path string) error {
	err := os.Remove(path)
	for _, s := range companions {
		err = errors.Join(err, os.RemoveAll(path+s))
	}
	return err
}

// restore copies a database's copy to its place. The error wraps ErrCorrupt where the copy
// cannot be read, and not where its place cannot be written.
func restore(from, to string) error {
	in, err := os.Open(from)
	if errors.Is(err, unix.EIO) {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	source := &copyReader{in: in}
	_, err = io.Copy(out, source)
	if source.err != nil {
		err = fmt.Errorf("%w: %w", ErrCorrupt, source.err)
	}
	if err = errors.Join(err, out.Sync(), out.Close(), atomicfile.SyncDir(filepath.Dir(to))); err != nil {
		return errors.Join(err, os.Remove(to))
	}
	return nil
}

// copyReader keeps what reading failed with, which io.Copy does not tell from what writing did.
type copyReader struct {
	in  io.Reader
	err error
}

func (r *copyReader) Read(b []byte) (int, error) {
	n, err := r.in.Read(b)
	if err != nil && err != io.EOF {
		r.err = err
	}
	return n, err
}

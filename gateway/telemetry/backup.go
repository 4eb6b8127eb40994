package telemetry

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"halo.internal/gateway/store"
)

// Backup copies the journal, and then each week file, to a file that is not there yet, and
// calls add after each, with the name that it has below the folder of the journal; add
// sees to it that the file is not there any more. Readings are taken in meanwhile, and
// what was acknowledged before is in the copies: compaction waits while a week is copied,
// but not for add.
func (s *Store) Backup(ctx context.Context, to string, add func(name string) error) error {
	// The journal first: what is compacted from here on is in both, and each week file
	// says up to which group it has all. The other way round it could be in neither.
	if err := s.spare(s.db.FileBytes()); err != nil {
		return err
	}
	if err := s.db.Snapshot(ctx, to); err != nil {
		return err
	}
	if err := add(filepath.Base(s.db.Path())); err != nil {
		return err
	}
	for _, w := range s.weeks.list() {
		err := s.copyWeek(ctx, w, to)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it was given up meanwhile
		}
		if err != nil {
			return fmt.Errorf("%v: %w", w, err)
		}
		if err := add(filepath.Join(filepath.Base(s.Dir), w.String()+weekSuffix)); err != nil {
			return err
		}
	}
	return nil
}

// spare makes sure that a copy does not take the room of what comes from the nodes.
func (s *Store) spare(octets int64) error {
	if size, free := s.space(); size > 0 && free < octets+mostReserve {
		return fmt.Errorf("%w: %w: a copy needs %d MiB, and %d are free", store.ErrUnavailable, store.ErrFull, octets>>20, free>>20)
	}
	return nil
}

// copyWeek copies a week file as it is between two changes of it. What is damaged in it is
// repaired before.
func (s *Store) copyWeek(ctx context.Context, w week, to string) error {
	s.tending.Lock()
	defer s.tending.Unlock()
	if !slices.Contains(s.weeks.list(), w) {
		return fs.ErrNotExist
	}
	err := s.snapshot(ctx, w, to)
	if !errors.Is(err, store.ErrCorrupt) {
		return err
	}
	if err := s.repair(ctx, w, err); err != nil {
		return err
	}
	return s.snapshot(ctx, w, to)
}

func (s *Store) snapshot(ctx context.Context, w week, to string) error {
	f, err := s.ready(ctx, w)
	if err != nil {
		return err
	}
	defer s.weeks.release(f)
	if err := s.spare(f.db.FileBytes()); err != nil {
		return err
	}
	return f.db.Snapshot(ctx, to)
}

// Restored makes a journal and week files that came out of a backup fit each other, before
// anybody opens them. The files were copied after the journal, so that they may have
// groups that it never had: those that come next must not have their numbers, or they
// would be taken for what is in the files already. The error wraps store.ErrNewer where this
// release does not know these databases.
func Restored(ctx context.Context, journal, dir string) (err error) {
	known, err := journalSchema()
	if err != nil {
		return err
	}
	db, err := store.OpenAsIs(ctx, journal, store.Kind{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	switch is, err := db.Schema(ctx); {
	case err != nil:
		return err
	case is > known:
		return fmt.Errorf("%w: %s is of version %d, this release knows those up to %d", store.ErrNewer, filepath.Base(journal), is, known)
	}
	var name []byte
	var compacted, sum int64
	err = db.Read().QueryRowContext(ctx, `SELECT name, compacted, sum FROM journal`).Scan(&name, &compacted, &sum)
	if errors.Is(err, sql.ErrNoRows) || err == nil && sum != journalSum(name, compacted) {
		name = nil // it gets another name when it is opened: then the files have none of its groups
	} else if err != nil {
		return store.Classify(err)
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // there was no week yet
	}
	if err != nil {
		return err
	}
	last := compacted
	for _, e := range entries {
		if _, ok := weekNamed(e.Name()); !ok {
			continue
		}
		applied, err := appliedIn(ctx, filepath.Join(dir, e.Name()), name)
		if err != nil {
			return fmt.Errorf("%s: %w", e.Name(), err)
		}
		last = max(last, applied)
	}
	if last == compacted || name == nil {
		return nil
	}
	return db.Write(ctx, func(tx *sql.Tx) error {
		_, err := tx.ExecContext(ctx, `UPDATE journal SET compacted = ?, sum = ?`, last, journalSum(name, last))
		return err
	})
}

// appliedIn returns up to which group of a journal a week file that is not open has all.
func appliedIn(ctx context.Context, path string, journal []byte) (applied int64, err error) {
	db, err := store.OpenAsIs(ctx, path, weekKind)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	f := &weekFile{db: db}
	var version int
	if err := db.Read().QueryRowContext(ctx, `PRAGMA user_version`).Scan(&version); err != nil {
		return 0, store.Classify(err)
	}
	if version > weekVersion {
		return 0, fmt.Errorf("%w: it is of version %d, this release knows those up to %d", store.ErrNewer, version, weekVersion)
	}
	if err := store.Classify(f.loadMeta(ctx)); err != nil {
		return 0, err
	}
	return f.appliedOf(journal), nil
}

func journalSchema() (int64, error) {
	migrations, err := fs.Sub(journalFiles, "journal")
	if err != nil {
		return 0, err
	}
	return store.LastMigration(migrations)
}

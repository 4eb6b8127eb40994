package store

import (
	"context"
	"database/sql"
	"path/filepath"

	"halo.internal/model/wire"
)

// The telemetry shares its file system with what is more precious. It takes a
// third at most, and stops growing while less than a reserve is free: then the
// oldest batches make room in the database's own file. Without that reserve a
// full file system would shut the way out as well, since dropping is writing.
const (
	shareOfDisk = 3
	mostReserve = 8 << 20
	reservePart = 16 // of the file system, where that is less
	trimStep    = 500

	// A journal this small is not what fills a disk, and dropping it would not help:
	// what was acknowledged stays, and the nodes keep what is new.
	smallJournal = 1 << 20
)

// limit is how many bytes may be in use at present.
func (j *Journal) limit(ctx context.Context) (int64, error) {
	size, free := j.space()
	reserve := min(mostReserve, size/reservePart)
	if size == 0 || free >= reserve {
		return j.budget, nil
	}
	var file int64
	err := j.db.read.QueryRowContext(ctx, `SELECT p.page_count * s.page_size FROM pragma_page_count p, pragma_page_size s`).Scan(&file)
	return min(j.budget, max(file-(reserve-free), smallJournal)), classify(err)
}

// Trim drops the oldest batches, and the schemas that only they named, until
// the database is within its budget, and returns how many it dropped.
func (j *Journal) Trim(ctx context.Context) (int64, error) {
	var dropped int64
	for {
		used, err := j.db.Bytes(ctx)
		if err != nil {
			return dropped, err
		}
		limit, err := j.limit(ctx)
		if err != nil || used <= limit {
			return dropped, err
		}
		n, err := j.drop(ctx, trimStep)
		if dropped += n; err != nil || n == 0 {
			return dropped, err
		}
	}
}

// MakeRoom is for when the file system is full (ErrFull) in spite of the
// reserve: it makes room for that many bytes within the database's file, and
// returns how many batches that cost. Where there is room in the file already
// it drops none: more of it would not help.
func (j *Journal) MakeRoom(ctx context.Context, need int64) (dropped int64, err error) {
	if used, err := j.db.Bytes(ctx); err != nil || used <= smallJournal {
		return 0, err
	}
	// What the log holds goes to its place, so that its file can be used from the beginning. Where
	// the disk has no room for that either, dropping may still fit into the log; if it does not, the
	// gateway's reserve, given up within seconds, is what helps.
	_, _ = j.db.write.ExecContext(ctx, `PRAGMA wal_checkpoint(PASSIVE)`)
	for step := trimStep; step > 0; step /= 10 { // a smaller step needs less of the log
		for {
			var unused int64
			if err := j.db.read.QueryRowContext(ctx, `SELECT f.freelist_count * s.page_size FROM pragma_freelist_count f, pragma_page_size s`).Scan(&unused); err != nil {
				return dropped, classify(err)
			}
			if unused >= 2*need+64<<10 {
				return dropped, nil
			}
			var n int64
			if n, err = j.drop(ctx, step); err != nil {
				break
			}
			if dropped += n; n == 0 {
				return dropped, nil
			}
		}
	}
	return dropped, err
}

// drop drops the oldest batches in one transaction.
func (j *Journal) drop(ctx context.Context, step int) (n int64, err error) {
	var forgotten []wire.SchemaID
	err = j.db.Write(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, `INSERT INTO dropped (source, boot, through, count)
			SELECT source, boot, max(seq), count(*) FROM (SELECT source, boot, seq FROM batches ORDER BY id LIMIT ?) GROUP BY source, boot
			ON CONFLICT (source, boot) DO UPDATE SET through = max(through, excluded.through), count = count + excluded.count`, step); err != nil {
			return err
		}
		r, err := tx.ExecContext(ctx, `DELETE FROM batches WHERE id IN (SELECT id FROM batches ORDER BY id LIMIT ?)`, step)
		if err != nil {
			return err
		}
		if n, err = r.RowsAffected(); err != nil {
			return err
		}
		forgotten, err = dropSchemas(ctx, tx)
		return err
	})
	if err != nil {
		return 0, err
	}
	j.drops.Add(n)
	j.forget(forgotten...)
	return n, nil
}

// within is a budget on the file system that holds the database.
func within(budget, size int64) int64 {
	if size > 0 {
		return min(budget, size/shareOfDisk)
	}
	return budget
}

func (d *DB) space() (size, free int64) { return space(filepath.Dir(d.path)) }

package jobs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"halo.internal/gateway/reserve"
	"halo.internal/gateway/store"
	"halo.internal/model/apitype"
	"halo.internal/model/atomicfile"
)

// Files lie beside the database, not in it: it is copied daily, and they are not that
// precious.

func (e *Engine) file(id int64) string { return filepath.Join(e.Files, strconv.FormatInt(id, 10)) }

// leftFree stays free beside files of jobs: the databases are more precious.
const leftFree = 2 << 20

// putFile keeps a job's file. Where the card has no room, the oldest ones make it, whose
// jobs it returns; if all of them would not be enough, none goes, and the error wraps
// ENOSPC.
func (e *Engine) putFile(id int64, b []byte) (gone []int64, err error) {
	if err := os.MkdirAll(e.Files, 0o700); err != nil {
		return nil, err
	}
	for {
		err := e.fits(len(b))
		if err == nil {
			err = atomicfile.Write(e.file(id), b, 0o600)
		}
		if !errors.Is(err, syscall.ENOSPC) {
			return gone, err
		}
		oldest, there, err2 := e.oldestFile(id)
		if err2 == nil && len(gone) == 0 && !e.wouldFit(len(b), id) {
			there = false
		}
		if err2 == nil && there {
			err2 = e.removeFile(oldest)
		}
		if !there || err2 != nil {
			return gone, errors.Join(err, err2)
		}
		gone = append(gone, oldest)
	}
}

func (e *Engine) fits(octets int) error {
	free, err := reserve.Free(e.Files)
	if err == nil && free < int64(octets)+leftFree {
		err = fmt.Errorf("expected %d octets free beside a file of %d, got %d: %w", leftFree, octets, free, syscall.ENOSPC)
	}
	return err
}

// wouldFit tells whether a file would fit if it were the only one.
func (e *Engine) wouldFit(octets int, but int64) bool {
	free, err := reserve.Free(e.Files)
	list, err2 := os.ReadDir(e.Files)
	for _, f := range list {
		if f.Name() == strconv.FormatInt(but, 10) {
			continue
		}
		if i, err := f.Info(); err == nil {
			free += i.Size()
		}
	}
	return errors.Join(err, err2) == nil && free >= int64(octets)+leftFree
}

// oldestFile is that of the job with the lowest number, but the one named.
func (e *Engine) oldestFile(but int64) (id int64, there bool, err error) {
	list, err := os.ReadDir(e.Files)
	for _, f := range list {
		if n, err := strconv.ParseInt(f.Name(), 10, 64); err == nil && n != but && (!there || n < id) {
			id, there = n, true
		}
	}
	return id, there, err
}

func (e *Engine) removeFile(id int64) error {
	err := os.Remove(e.file(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// File returns what a job has made.
func (e *Engine) File(ctx context.Context, id int64) (apitype.Job, []byte, error) {
	j, err := e.Get(ctx, id)
	if err != nil {
		return j, nil, err
	}
	none := apitype.Refuse(http.StatusNotFound, "", "job %d has no file, or it is not kept any more", id)
	if j.File == nil {
		return j, nil, none
	}
	b, err := os.ReadFile(e.file(id))
	if errors.Is(err, fs.ErrNotExist) || err == nil && int64(len(b)) != j.File.Bytes {
		return j, nil, none
	}
	return j, b, err
}

// sweepFiles removes what no job has: a power cut came between the file and the row,
// or between the row and the file.
func (e *Engine) sweepFiles(ctx context.Context) error {
	list, err := os.ReadDir(e.Files)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	rows, err := e.DB.Read().QueryContext(ctx, `SELECT id FROM jobs WHERE file IS NOT NULL`)
	if err != nil {
		return store.Classify(err)
	}
	defer rows.Close()
	has := map[string]bool{}
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return store.Classify(err)
		}
		has[strconv.FormatInt(id, 10)] = true
	}
	errs := []error{store.Classify(rows.Err())}
	for _, f := range list {
		if !has[f.Name()] && errs[0] == nil {
			errs = append(errs, os.Remove(filepath.Join(e.Files, f.Name())))
		}
	}
	return errors.Join(errs...)
}

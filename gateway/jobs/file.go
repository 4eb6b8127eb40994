package jobs

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"

	"halo.internal/gateway/store"
	"halo.internal/model/apitype"
	"halo.internal/model/atomicfile"
)

// Files lie beside the database, not in it: it is copied daily, and they are not that
// precious.

func (e *Engine) file(id int64) string { return filepath.Join(e.Files, strconv.FormatInt(id, 10)) }

func (e *Engine) putFile(id int64, b []byte) error {
	if err := os.MkdirAll(e.Files, 0o700); err != nil {
		return err
	}
	return atomicfile.Write(e.file(id), b, 0o600)
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

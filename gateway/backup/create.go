// Package backup writes a running gateway into one encrypted file and makes of such a
// file what the next start takes for its own. A restore is prepared beside what is in
// use, whole and checked, and takes its place only when halo-mesh has become the gateway
// that the backup is of: so power may fail at any instant, and whatever is wrong with a
// file is said before anything was changed.
package backup

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"

	"halo.internal/gateway/auth"
	"halo.internal/gateway/seal"
	"halo.internal/gateway/store"
	"halo.internal/gateway/trust"
	"halo.internal/model"
	"halo.internal/model/backup"
	"halo.internal/model/version"
)

// snapshot is the copy of a database that is on its way out, in the gateway's folder.
const snapshot = "backup.tmp"

// Source is what a backup is made of.
type Source struct {
	Dir    string // the gateway's folder
	Config *store.DB
	// Telemetry copies the databases of telemetry to a file, one after the other, while they
	// are in use, and calls add after each, with its path below Dir; nil: there are none.
	Telemetry func(ctx context.Context, to string, add func(name string) error) error

	Network, NetworkKey, Node string // name, public key in base64, canonical ID
	Epoch                     func() uint64
	Mesh                      func(context.Context) (model.MeshBackup, error)
	Now                       func() time.Time

	Turn func(context.Context) (done func(), err error) // as Target has it
}

// Write writes a backup to w, which has to be taken for worthless unless Write returns
// nil. One at a time: the copy of a database that is on its way out has one place.
func (s Source) Write(ctx context.Context, w io.Writer, passphrase string, telemetry bool) (backup.Manifest, error) {
	m := backup.Manifest{
		ID: backup.NewID(), Created: s.Now().UTC().Truncate(time.Second), MadeBy: version.Get(),
		Network: s.Network, NetworkKey: s.NetworkKey, Node: s.Node, Epoch: s.Epoch(), Telemetry: telemetry,
	}
	mesh, err := s.Mesh(ctx)
	if err != nil {
		return m, err
	}
	m.Boot = mesh.Boot
	if m.Schema, err = s.Config.Schema(ctx); err != nil {
		return m, err
	}
	small := map[string][]byte{backup.Bundle: mesh.Bundle, backup.Epoch: fmt.Append(nil, m.Epoch)}
	if len(mesh.Profile) > 0 {
		small[backup.Profile] = mesh.Profile
	}
	if len(mesh.Reservations) > 0 {
		small[backup.Reservations] = mesh.Reservations
	}
	for part, file := range map[string]string{backup.CAKey: trust.KeyFile, backup.CACert: trust.CertFile, backup.SealKey: seal.KeyFile} {
		if small[part], err = os.ReadFile(filepath.Join(s.Dir, file)); err != nil {
			return m, fmt.Errorf("backup: %w", err)
		}
	}
	var out *backup.Writer
	if err := inTurn(ctx, s.Turn, func() (err error) { out, err = backup.NewWriter(w, passphrase, m); return err }); err != nil {
		return m, err
	}
	for _, part := range slices.Sorted(maps.Keys(small)) {
		if err := out.AddBytes(part, small[part]); err != nil {
			return m, err
		}
	}
	if err := s.addConfig(ctx, out); err != nil {
		return m, err
	}
	if telemetry && s.Telemetry != nil {
		if err := s.addTelemetry(ctx, out); err != nil {
			return m, err
		}
	}
	return m, out.Close()
}

func inTurn(ctx context.Context, turn func(context.Context) (func(), error), f func() error) error {
	if turn == nil {
		return f()
	}
	done, err := turn(ctx)
	if err != nil {
		return err
	}
	defer done()
	return f()
}

// addConfig adds config.db as it is at one instant, without what a restore would end.
func (s Source) addConfig(ctx context.Context, out *backup.Writer) (err error) {
	if err := Sweep(s.Dir); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, Sweep(s.Dir)) }()
	if err := s.Config.Snapshot(ctx, s.snapshot()); err != nil {
		return err
	}
	if err := dropLogins(ctx, s.snapshot()); err != nil {
		return err
	}
	return s.send(ctx, out, backup.Config)
}

// dropLogins takes logins, and answers to requests that may come again, out of the copy of
// config.db at path. Nothing of them stays in its free pages. The copy is worthless where
// it fails.
func dropLogins(ctx context.Context, path string) error {
	v := url.Values{"mode": {"rw"}, "_pragma": {"journal_mode(MEMORY)", "synchronous(OFF)", "secure_delete(1)", "temp_store(MEMORY)"}}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: v.Encode()}).String())
	if err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	tx, err := db.BeginTx(ctx, nil)
	if err == nil {
		err = auth.DropLogins(ctx, tx)
		if err == nil {
			_, err = tx.ExecContext(ctx, `DELETE FROM idempotency`)
		}
		if err == nil {
			err = tx.Commit()
		} else {
			err = errors.Join(err, tx.Rollback())
		}
	}
	if err = errors.Join(err, db.Close()); err != nil {
		return fmt.Errorf("backup: take the logins out: %w", store.Classify(err))
	}
	return nil
}

// addTelemetry adds its databases, one after the other.
func (s Source) addTelemetry(ctx context.Context, out *backup.Writer) (err error) {
	if err := Sweep(s.Dir); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, Sweep(s.Dir)) }()
	return s.Telemetry(ctx, s.snapshot(), func(name string) error {
		return errors.Join(s.send(ctx, out, partOf(name)), Sweep(s.Dir))
	})
}

func (s Source) snapshot() string { return filepath.Join(s.Dir, snapshot) }

// send adds the copy that is on its way out.
func (s Source) send(ctx context.Context, out *backup.Writer, part string) error {
	f, err := os.Open(s.snapshot())
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return out.Add(part, info.Size(), withContext{ctx, f})
}

// Sweep removes what power cuts left of a copy that was on its way out.
func Sweep(dir string) error {
	path := filepath.Join(dir, snapshot)
	for _, s := range []string{"", "-journal"} { // SQLite's own beside it
		if err := os.Remove(path + s); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("backup: %w", err)
		}
	}
	return nil
}

// withContext ends reading when nobody waits for it any more.
type withContext struct {
	ctx context.Context
	io.Reader
}

// Read implements io.Reader.
func (r withContext) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

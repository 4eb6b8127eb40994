package backup

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"halo.internal/gateway/epoch"
	"halo.internal/gateway/seal"
	"halo.internal/gateway/store"
	"halo.internal/gateway/telemetry"
	"halo.internal/gateway/trust"
	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/atomicfile"
	"halo.internal/model/backup"
	"halo.internal/model/bundle"
	"halo.internal/model/paths"
)

// Limits of the parts that have to fit into RAM, in octets, and what is left free on the
// card.
const (
	maxSmall  = 512 << 10
	spare     = 16 << 20
	openReads = 128 << 10 // age's first chunk of 64 KiB, in which the manifest is, and more
)

// Files in the folder that a restore is prepared in, besides those of the gateway.
const (
	// complete holds the ID of the backup. It is written last.
	complete = "restore-complete"
	config   = "config.db"
	epochOf  = "epoch"
	journal  = "telemetry.db"
	weeks    = "telemetry" // a folder
)

// Marker is the name of the file that says whose a gateway's folder is.
const Marker = "network"

// ErrUnfit is wrapped where a backup is whole, but not of a gateway that this release
// could be.
var ErrUnfit = errors.New("the backup does not fit this gateway")

// ErrNoRoom is wrapped where the card has no room for a backup's content.
var ErrNoRoom = errors.New("the card has no room for what is in the backup")

// Telemetry's files, below the gateway's folder.
var telemetryForm = regexp.MustCompile(`^(` + journal + `|` + weeks + `/\d{4}-W\d{2}\.db)$`)

func partOf(rel string) string { return backup.Telemetry + rel }

// Staged is a restore that is prepared.
type Staged struct {
	Manifest backup.Manifest
	Mesh     model.MeshRestore
	Epoch    uint64 // that the gateway begins with
	dir      string
}

// Target is where a restore is prepared, and what it has to be above.
type Target struct {
	Dir  string                // of its own; what is there goes
	Free func() (int64, error) // octets that are free on the file system
	// Turn waits for the turn of what takes tens of megabytes of RAM, and returns what ends
	// it; nil: there is nothing else.
	Turn func(context.Context) (done func(), err error)
	// Epoch is the highest that this card knows of: the restored gateway begins above it
	// and above the backup's.
	Epoch uint64
}

// Stage reads a backup into a folder, as a gateway's that the next start could take. The
// error wraps one of model/backup's, ErrUnfit or ErrNoRoom where the file is to blame.
func Stage(ctx context.Context, r io.Reader, passphrase string, t Target) (_ *Staged, err error) {
	if err := os.RemoveAll(t.Dir); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(t.Dir))
		}
	}()
	// What opening reads is here before anybody waits for its turn.
	ahead := bufio.NewReaderSize(r, openReads)
	if _, err := ahead.Peek(openReads); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	r = ahead
	var in *backup.Reader
	if err := inTurn(ctx, t.Turn, func() (err error) { in, err = backup.Open(r, passphrase); return err }); err != nil {
		return nil, err
	}
	s := &Staged{Manifest: in.Manifest, dir: t.Dir}
	key, err := s.check()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(t.Dir, 0o700); err != nil {
		return nil, err
	}
	small := map[string]*bytes.Buffer{}
	files := map[string]bool{}
	err = in.Parts(func(name string) (io.Writer, int64, error) {
		if err := ctx.Err(); err != nil {
			return nil, 0, err
		}
		switch name {
		case backup.Bundle, backup.Profile, backup.Reservations, backup.Epoch, backup.CAKey, backup.CACert, backup.SealKey:
			small[name] = &bytes.Buffer{}
			return small[name], maxSmall, nil
		case backup.Config:
			files[config] = true
			w, err := t.create(config)
			return w, backup.MaxSize, err
		}
		rel, ok := strings.CutPrefix(name, backup.Telemetry)
		if !ok || !telemetryForm.MatchString(rel) {
			return nil, 0, fmt.Errorf("%w: it has a part %q that this release does not know", ErrUnfit, name)
		}
		files[rel] = true
		w, err := t.create(rel)
		return w, backup.MaxSize, err
	})
	if err != nil {
		return nil, err
	}
	for _, name := range []string{backup.Bundle, backup.Epoch, backup.CAKey, backup.CACert, backup.SealKey} {
		if small[name] == nil {
			return nil, fmt.Errorf("%w: it has no %s", ErrUnfit, name)
		}
	}
	if !files[config] {
		return nil, fmt.Errorf("%w: it has no %s", ErrUnfit, backup.Config)
	}
	if files[journal] {
		if err := checkTelemetry(ctx, t.Dir); err != nil {
			return nil, err
		}
	}
	return s, s.settle(ctx, t, key, small)
}

// check judges the manifest, and returns the network's key.
func (s *Staged) check() (identity.PublicKey, error) {
	m := s.Manifest
	key, err := identity.ParsePublicKey(m.NetworkKey)
	if err != nil || m.Node != key.ID() || len(m.ID) == 0 || len(m.ID) > 64 {
		return key, fmt.Errorf("%w: its manifest names no gateway", ErrUnfit)
	}
	own, err := store.ConfigSchema()
	if err != nil {
		return key, err
	}
	if m.Schema > own {
		return key, fmt.Errorf("%w: its config.db is of version %d, and this release knows those up to %d; it was made by %s: bring this device up to that first",
			backup.ErrNewer, m.Schema, own, m.MadeBy.Version)
	}
	return key, nil
}

// settle makes sure that all parts are of one gateway, and finishes the folder.
func (s *Staged) settle(ctx context.Context, t Target, key identity.PublicKey, small map[string]*bytes.Buffer) error {
	unfit := func(part string, err error) error { return fmt.Errorf("%w: %s: %w", ErrUnfit, part, err) }
	b, err := bundle.Parse(backup.Bundle, small[backup.Bundle].Bytes())
	if err != nil {
		return unfit(backup.Bundle, err)
	}
	seed, err := base64.StdEncoding.DecodeString(b.Gateway.Seed)
	if err == nil {
		var k identity.Key
		if k, err = identity.FromSeed(seed); err == nil && (k.Public() != key || b.Gateway.PublicKey != key.Base64()) {
			err = errors.New("expected the key of the manifest")
		}
	}
	if err != nil {
		return unfit(backup.Bundle, err)
	}
	if _, err := seal.Check(small[backup.SealKey].Bytes()); err != nil {
		return unfit(backup.SealKey, err)
	}
	kept, err := strconv.ParseUint(strings.TrimSpace(small[backup.Epoch].String()), 10, 64)
	if err != nil || kept != s.Manifest.Epoch {
		return unfit(backup.Epoch, fmt.Errorf("expected %d, got %.20q", s.Manifest.Epoch, small[backup.Epoch].String()))
	}
	if s.Epoch, err = epoch.Above(max(kept, t.Epoch)); err != nil {
		return unfit(backup.Epoch, err)
	}
	for file, part := range map[string]string{trust.KeyFile: backup.CAKey, trust.CertFile: backup.CACert, seal.KeyFile: backup.SealKey} {
		if err := atomicfile.Write(filepath.Join(t.Dir, file), small[part].Bytes(), 0o600); err != nil {
			return err
		}
	}
	if err := trust.Check(t.Dir); err != nil {
		return unfit(backup.CAKey, err)
	}
	path := filepath.Join(t.Dir, config)
	if err := checkConfig(ctx, path, s.Manifest); err != nil {
		return unfit(backup.Config, err)
	}
	for file, text := range map[string]string{epochOf: fmt.Sprintln(s.Epoch), Marker: s.Manifest.Node + "\n"} {
		if err := atomicfile.Write(filepath.Join(t.Dir, file), []byte(text), 0o600); err != nil {
			return err
		}
	}
	// The next start ends all logins and raises the epoch, as with any config.db that is
	// older than what it replaces.
	if err := store.MarkRestored(path, From+s.Manifest.ID); err != nil {
		return err
	}
	s.Mesh = model.MeshRestore{ID: s.Manifest.ID, Made: s.Manifest.Created, MeshBackup: model.MeshBackup{Bundle: small[backup.Bundle].Bytes(), Boot: s.Manifest.Boot}}
	if p := small[backup.Profile]; p != nil {
		s.Mesh.Profile = p.Bytes()
	}
	if p := small[backup.Reservations]; p != nil {
		s.Mesh.Reservations = p.Bytes()
	}
	return atomicfile.Write(filepath.Join(t.Dir, complete), []byte(s.Manifest.ID+"\n"), 0o600)
}

// From is what begins the note of where a database comes from, before the backup's ID.
const From = "backup "

// checkConfig makes sure that a config.db is whole, and that gateway's. It is closed
// again, and its tables stay as they are: the next start brings them up to date.
func checkConfig(ctx context.Context, path string, m backup.Manifest) (err error) {
	db, err := store.OpenAsIs(ctx, path, store.Kind{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := db.Check(ctx); err != nil {
		return err
	}
	v, err := db.Schema(ctx)
	if err != nil {
		return err
	}
	if v != m.Schema {
		return fmt.Errorf("expected version %d, got %d", m.Schema, v)
	}
	var node string
	err = db.Read().QueryRowContext(ctx, `SELECT id FROM nodes WHERE role = 'gateway'`).Scan(&node)
	if errors.Is(err, sql.ErrNoRows) || err == nil && node != m.Node {
		return fmt.Errorf("expected it to be that of %s, got %q", m.Node, node)
	}
	return store.Classify(err)
}

// checkTelemetry makes sure that this release knows telemetry's databases, and makes them
// fit each other.
func checkTelemetry(ctx context.Context, dir string) error {
	err := telemetry.Restored(ctx, filepath.Join(dir, journal), filepath.Join(dir, weeks))
	switch {
	case errors.Is(err, store.ErrNewer):
		return fmt.Errorf("%w: %w", backup.ErrNewer, err)
	case err != nil:
		return fmt.Errorf("%w: telemetry: %w", ErrUnfit, err)
	}
	return nil
}

// create opens a file to be written while there is room.
func (t Target) create(rel string) (io.WriteCloser, error) {
	path := filepath.Join(t.Dir, rel)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	return &limited{File: f, free: t.Free}, nil
}

// limited leaves the card some room.
type limited struct {
	*os.File
	free  func() (int64, error)
	since int64 // octets since it was looked
}

const lookAfter = 1 << 20 // octets

// Write implements io.Writer.
func (l *limited) Write(p []byte) (int, error) {
	if l.since -= int64(len(p)); l.since < 0 {
		n, err := l.free()
		if err != nil {
			return 0, err
		}
		if n < spare+lookAfter {
			return 0, fmt.Errorf("%w: %d MiB are left", ErrNoRoom, n>>20)
		}
		l.since = lookAfter
	}
	return l.File.Write(p)
}

// Close implements io.Closer.
func (l *limited) Close() error {
	return errors.Join(l.File.Sync(), l.File.Close(), atomicfile.SyncDir(filepath.Dir(l.Name())))
}

// Discard takes a prepared restore back.
func (s *Staged) Discard() error { return os.RemoveAll(s.dir) }

// Take lets the folder of a prepared restore take the gateway's place, if halo-mesh has
// become that gateway, before anything in it is opened. id is the gateway that this
// device is, record what halo-mesh says that it was restored from, and waits tells that
// it has not come to a restore yet. It returns the ID of a restore that came to nothing,
// and is removed. Power may fail at any instant: the next start goes on.
func Take(dir, id string, record model.Restored, waits bool) (interrupted string, err error) {
	beside, inside := dir+".restored", filepath.Join(dir, paths.RestoreDir)
	if _, err := os.Stat(filepath.Join(beside, complete)); err != nil {
		// Not moved out yet.
		b, readErr := os.ReadFile(filepath.Join(inside, complete))
		staged := strings.TrimSpace(string(b))
		switch {
		case waits:
			return "", nil
		case readErr != nil || staged != record.ID || record.Node != id:
			return staged, errors.Join(os.RemoveAll(inside), os.RemoveAll(beside), os.RemoveAll(filepath.Join(dir, complete)))
		}
		if err := os.RemoveAll(beside); err != nil { // it is not whole
			return "", err
		}
		if err := atomicfile.Rename(inside, beside); err != nil {
			return "", err
		}
	}
	// The folder of before: of another gateway it is kept, as if the card had been given
	// another bundle.
	owner, err := os.ReadFile(filepath.Join(dir, Marker))
	if was := strings.TrimSpace(string(owner)); err == nil && was != id && identity.ValidID(was) {
		if err := errors.Join(os.RemoveAll(dir+"-"+was), atomicfile.Rename(dir, dir+"-"+was)); err != nil {
			return "", err
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	if err := atomicfile.Rename(beside, dir); err != nil {
		return "", err
	}
	return "", os.Remove(filepath.Join(dir, complete))
}

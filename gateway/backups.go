package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"halo.internal/gateway/api"
	"halo.internal/gateway/auth"
	"halo.internal/gateway/backup"
	"halo.internal/gateway/epoch"
	"halo.internal/gateway/events"
	"halo.internal/gateway/registry"
	"halo.internal/gateway/reserve"
	"halo.internal/gateway/store"
	"halo.internal/gateway/telemetry"
	"halo.internal/model"
	"halo.internal/model/apitype"
	format "halo.internal/model/backup"
	"halo.internal/model/paths"
)

// meshKeeper is what halo-mesh adds to a backup, and gets of one.
type meshKeeper interface {
	Backup(context.Context) (model.MeshBackup, error)
	Restore(context.Context, model.MeshRestore) error
}

// backups makes backups and takes one in, one after the other.
type backups struct {
	source backup.Source
	series *telemetry.Store
	mesh   meshKeeper
	logins *auth.Service
	nodes  *registry.Registry
	events *events.Log
	heard  func() uint64 // highest epoch that is known of
	free   func() (int64, error)

	decided func() bool // as restoreDecided
	busy    sync.Mutex
	handed  atomic.Bool // a restore, to halo-mesh: the next start carries it out
}

var _ api.Backups = (*backups)(nil)

func (d *daemon) newBackups(p *prepared, series *telemetry.Store, mesh meshKeeper, network string, logins *auth.Service, nodes *registry.Registry, log *events.Log, heard func() uint64) *backups {
	dir := filepath.Dir(d.State.File(paths.ConfigDB))
	return &backups{
		source: backup.Source{
			Dir: dir, Config: p.config, Network: network, NetworkKey: p.network.Base64(), Node: p.network.ID(),
			Telemetry: series.Backup, Epoch: p.epoch.Now, Mesh: mesh.Backup, Now: d.clock.Now, Turn: logins.Turn,
		},
		series: series, mesh: mesh, logins: logins, nodes: nodes, events: log,
		heard:   func() uint64 { return max(p.epoch.Now(), p.epoch.Heard(), heard(), epoch.OfDay(d.clock.Now())) },
		free:    func() (int64, error) { return reserve.Free(dir) },
		decided: d.restoreDecided,
	}
}

// restoreDecided tells whether there is a restore that the next start carries out. Where
// it cannot be told there is, so that nothing staged is thrown away.
func (d *daemon) restoreDecided() bool {
	_, err := os.Stat(d.State.File(paths.Restore))
	return !errors.Is(err, fs.ErrNotExist)
}

// settingBackup is the last backup, as apitype.Backup.
const settingBackup = "last backup"

// Status implements api.Backups.
func (b *backups) Status(ctx context.Context) (apitype.BackupStatus, error) {
	s := apitype.BackupStatus{Copies: []apitype.ConfigCopy{}}
	v, err := b.source.Config.Setting(ctx, settingBackup, nil)
	if err != nil {
		return s, err
	}
	var last apitype.Backup
	if json.Unmarshal(v, &last) == nil {
		s.Last = &last
	}
	for _, c := range b.source.Config.Copies() {
		s.Copies = append(s.Copies, apitype.ConfigCopy{Name: filepath.Base(c.Path), Created: c.Made.UTC(), Bytes: c.Bytes})
	}
	s.Bytes, err = b.source.Config.Bytes(ctx)
	return s, err
}

// Create implements api.Backups.
func (b *backups) Create(ctx context.Context, w io.Writer, passphrase string, readings bool, by string) error {
	if !b.busy.TryLock() {
		return api.ErrBackupBusy
	}
	defer b.busy.Unlock()
	if n := b.series.Bytes(); readings && n > format.MaxSize { // said before the answer begins
		return fmt.Errorf("%w: telemetry takes %d MiB; make one without, and export it", format.ErrTooLarge, n>>20)
	}
	m, err := b.source.Write(ctx, w, passphrase, readings)
	if err != nil {
		return err
	}
	text, err := json.Marshal(apitype.Backup{ID: m.ID, Created: m.Created, By: by, Telemetry: readings})
	if err != nil {
		return err
	}
	b.events.Add("backup.created", model.Info, "", "a backup was made", map[string]string{"backup": m.ID, "by": by})
	// Who has the file has it, whether this can be written down or not.
	if err := b.source.Config.PutSetting(ctx, settingBackup, text); err != nil && !errors.Is(err, store.ErrUnavailable) {
		return err
	}
	return nil
}

// Restore implements api.Backups.
func (b *backups) Restore(ctx context.Context, r io.Reader, passphrase, by string) (apitype.Restored, error) {
	if !b.busy.TryLock() {
		return apitype.Restored{}, api.ErrBackupBusy
	}
	defer b.busy.Unlock()
	// Staging another would throw away what the next start needs.
	if b.handed.Load() || b.decided() {
		return apitype.Restored{}, fmt.Errorf("%w: this gateway restarts to carry it out", api.ErrBackupBusy)
	}
	if err := b.mayRestore(ctx); err != nil {
		return apitype.Restored{}, err
	}
	s, err := backup.Stage(ctx, r, passphrase, backup.Target{Dir: filepath.Join(b.source.Dir, paths.RestoreDir), Free: b.free, Turn: b.source.Turn, Epoch: b.heard()})
	if err != nil {
		return apitype.Restored{}, err
	}
	m := s.Manifest
	b.events.Add("backup.restoring", model.Warning, "", fmt.Sprintf("this gateway becomes the one of network %s that a backup of %s is of", m.Network, m.Created.Format(time.DateTime)),
		map[string]string{"backup": m.ID, "by": by})
	// With halo-mesh's word it is decided. Without one it may be so all the same: then the
	// folder has to be there for the next start.
	if err := b.hand(context.WithoutCancel(ctx), s.Mesh); err != nil {
		return apitype.Restored{}, err
	}
	return apitype.Restored{ID: m.ID, Created: m.Created, Network: m.Network, Node: m.Node, Version: m.MadeBy.Version, Epoch: s.Epoch}, nil
}

// hand gives a restore to halo-mesh.
func (b *backups) hand(ctx context.Context, r model.MeshRestore) error {
	err := b.mesh.Restore(ctx, r)
	if err == nil || b.decided() {
		b.handed.Store(true)
	}
	return err
}

// mayRestore returns nil where nothing is lost by a restore but what came of itself.
func (b *backups) mayRestore(ctx context.Context) error {
	claimed, err := b.logins.Claimed(ctx)
	if err != nil || !claimed {
		return err // a fresh card may have admitted nodes by their tokens: they come again
	}
	fresh, err := b.nodes.Fresh(ctx)
	if err != nil || fresh {
		return err
	}
	return apitype.Refuse(http.StatusConflict, apitype.ProblemNotFresh, "this gateway has an admin and has admitted nodes; a backup is restored onto a fresh card")
}

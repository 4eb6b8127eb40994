package gateway

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"halo.internal/gateway/backup"
	"halo.internal/gateway/registry"
	"halo.internal/gateway/store"
	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/atomicfile"
	"halo.internal/model/bundle"
	"halo.internal/model/paths"
)

// errRestored ends a gateway that runs alone, so that it starts as another.
var errRestored = errors.New("this gateway becomes the one of a backup")

// settingRestored is the ID of the backup that this gateway was restored from, until a
// node has come to it.
const settingRestored = "restored"

// takeRestored lets a restore that is prepared take the gateway's place.
func (d *daemon) takeRestored(p *prepared, dir string) error {
	var record model.Restored
	b, err := os.ReadFile(d.State.File(paths.Restored))
	if err == nil {
		err = json.Unmarshal(b, &record)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		d.Log.Warn("what halo-mesh says of a restore cannot be read", "err", err)
	}
	_, err = os.Stat(d.State.File(paths.Restore))
	interrupted, err := backup.Take(dir, p.network.ID(), record, err == nil)
	if interrupted != "" {
		p.note("backup.interrupted", model.Warning, "a restore was interrupted before it was decided, and came to nothing; begin it again", map[string]string{"backup": interrupted})
	}
	return err
}

// rememberRestored remembers that config.db came from a backup until a node comes: until then this gateway raises its epoch by itself, as a fresh one does, since
// whoever has restored it meant it to replace the other.
func (p *prepared) rememberRestored(ctx context.Context, repair store.Repair) error {
	id, ok := strings.CutPrefix(repair.Restored, backup.From)
	if !ok {
		return nil
	}
	return p.config.PutSetting(ctx, settingRestored, []byte(id))
}

func (p *prepared) noteRestored(repair store.Repair) {
	p.note("gateway.restored", model.Warning, "this gateway was restored from a backup. People log in again; whoever was revoked after the backup has to be revoked again, and nodes that came after it join anew",
		map[string]string{"backup": strings.TrimPrefix(repair.Restored, backup.From)})
}

// replaces tells whether this gateway may raise its epoch by itself: it has no list of
// members yet that could be an old one, or was restored to replace the other.
func (p *prepared) replaces(nodes *registry.Registry) func(context.Context) (bool, error) {
	return func(ctx context.Context) (bool, error) {
		fresh, err := nodes.Fresh(ctx)
		if err != nil || fresh {
			return fresh, err
		}
		v, err := p.config.Setting(ctx, settingRestored, nil)
		return len(v) > 0 && !nodes.OthersOnline(), err
	}
}

const settleEvery = time.Second // between looks whether a node has come

// followRestored ends what a restored gateway may do by itself, once a node goes by it.
func (p *prepared) followRestored(ctx context.Context, nodes *registry.Registry) error {
	tick := time.NewTicker(settleEvery)
	defer tick.Stop()
	for {
		v, err := p.config.Setting(ctx, settingRestored, nil)
		if err == nil && len(v) == 0 {
			<-ctx.Done()
			return nil
		}
		if nodes.OthersOnline() {
			_ = p.config.Write(ctx, func(tx *sql.Tx) error { // again in a second, until it is written
				_, err := tx.ExecContext(ctx, `DELETE FROM settings WHERE name = ?`, settingRestored)
				return err
			})
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// soloKeeper stands for halo-mesh's part of a backup where there is none.
type soloKeeper struct {
	d *daemon
	p *prepared
}

// Backup implements meshKeeper. A gateway without a bundle gets one of its own, so that a
// board can be made of it.
func (s soloKeeper) Backup(context.Context) (model.MeshBackup, error) {
	key := s.p.identity.Key
	tag := strings.TrimPrefix(key.ID(), "n-")[:6]
	b := bundle.Bundle{
		Version: bundle.Version, Network: "halo-" + tag, Role: model.RoleGateway, Country: bundle.UnknownCountry,
		Mesh: bundle.Mesh{SSID: "HALO-" + strings.ToUpper(tag), PSK: rand.Text(), Routing: "BATMAN_IV"}, // a mesh that it may have yet
	}
	if s.p.bundle != nil {
		b = *s.p.bundle
	}
	b.Gateway = bundle.Gateway{PublicKey: key.Public().Base64(), Seed: base64.StdEncoding.EncodeToString(key.Seed())}
	text, err := b.Marshal()
	return model.MeshBackup{Bundle: text, Boot: s.p.identity.BootCounter}, err
}

// Restore implements meshKeeper.
func (s soloKeeper) Restore(_ context.Context, r model.MeshRestore) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := atomicfile.Write(s.d.State.File(paths.Restore), b, 0o600); err != nil {
		return err
	}
	close(s.d.restored)
	return nil
}

// bootsAhead is how far the boot counter goes above a backup's, see mesh.
const bootsAhead = 1000

// becomeRestored is what halo-mesh does with a restore, on a laptop.
func (d *daemon) becomeRestored() error {
	file := d.State.File(paths.Restore)
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var r model.MeshRestore
	if err := json.Unmarshal(text, &r); err != nil {
		return errors.Join(fmt.Errorf("%s: %w; it is given up: restore again", file, err), os.Remove(file))
	}
	b, err := bundle.Parse("bundle", r.Bundle)
	if err != nil {
		return err
	}
	seed, err := base64.StdEncoding.DecodeString(b.Gateway.Seed)
	if err != nil {
		return err
	}
	path := d.State.File(paths.Identity)
	id, err := identity.Load(path, nil)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if id.BootCounter = max(id.BootCounter, r.Boot+bootsAhead); id.Key.Public().Base64() != b.Gateway.PublicKey {
		if id.Key, err = identity.FromSeed(seed); err != nil {
			return err
		}
	}
	note, err := json.Marshal(model.Restored{ID: r.ID, Node: id.Key.ID()})
	if err != nil {
		return err
	}
	// The restore goes last, and only once it is carried out: else the next start does it.
	if err := atomicfile.Write(d.State.File(paths.BundleCopy), r.Bundle, 0o600); err != nil {
		return err
	}
	if err := id.Save(path, nil); err != nil {
		return err
	}
	if err := atomicfile.Write(d.State.File(paths.Restored), note, 0o600); err != nil {
		return err
	}
	return errors.Join(os.Remove(file), atomicfile.SyncDir(string(d.State)))
}

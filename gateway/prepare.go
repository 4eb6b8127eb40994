package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"halo.internal/gateway/auth"
	"halo.internal/gateway/backup"
	"halo.internal/gateway/epoch"
	"halo.internal/gateway/events"
	"halo.internal/gateway/meshlink"
	"halo.internal/gateway/reserve"
	"halo.internal/gateway/seal"
	"halo.internal/gateway/store"
	"halo.internal/gateway/telemetry"
	"halo.internal/gateway/trust"
	"halo.internal/health"
	"halo.internal/identity"
	"halo.internal/local"
	"halo.internal/model"
	"halo.internal/model/atomicfile"
	"halo.internal/model/bundle"
	"halo.internal/model/paths"
	"halo.internal/model/version"
)

const (
	retryPrepare = time.Second
	bundleWait   = 5 * time.Second // halo-mesh writes it right after the identity
	statusWait   = 2 * time.Second // for a halo-mesh that runs: it answers from memory
)

// prepared is what has to be there before anything can run.
type prepared struct {
	identity  identity.State
	network   identity.PublicKey
	bundle    *bundle.Bundle
	config    *store.DB
	secrets   *seal.Secrets
	telemetry *store.DB
	reserve   *reserve.Reserve
	epoch     *epoch.Keeper
	news      []func(*events.Log) // what happened before there was an event log
}

func (p *prepared) tell(l *events.Log) {
	for _, f := range p.news {
		f(l)
	}
}

func (p *prepared) note(kind string, s model.Severity, message string, fields map[string]string) {
	p.news = append(p.news, func(l *events.Log) { l.Add(kind, s, "", message, fields) })
}

func (p *prepared) name() string {
	if p.bundle != nil {
		return p.bundle.Name
	}
	return ""
}

func (p *prepared) claimCode() string {
	if p.bundle != nil {
		return p.bundle.Gateway.ClaimCode
	}
	return ""
}

func nodeName(p *prepared) string {
	if n := p.name(); n != "" {
		return n
	}
	return "gateway"
}

// prepare waits for each thing in turn; /health names the one it waits for.
func (d *daemon) prepare(ctx context.Context) (*prepared, error) {
	p := &prepared{}
	dir := filepath.Dir(d.State.File(paths.ConfigDB))
	if err := d.until(ctx, checkPerm, func() error { return os.MkdirAll(dir, 0o700) }); err != nil {
		return nil, err
	}
	if err := reserve.New(dir).GiveUp(); err != nil {
		d.Log.Warn("the reserve is not given up", "err", err)
	}
	if err := d.until(ctx, checkIdentity, func() error { return d.identify(ctx, p) }); err != nil {
		return nil, err
	}
	if err := d.until(ctx, checkConfig, func() error { return d.takeRestored(p, dir) }); err != nil {
		return nil, err
	}
	var aside string
	if err := d.until(ctx, checkConfig, func() error {
		old, err := settle(dir, p.network.ID())
		if old != "" {
			aside = old // though the rest may want a second try
		}
		return err
	}); err != nil {
		return nil, err
	}
	if aside != "" {
		p.noteAside(aside)
	}
	d.confine(dir)
	// In the folder that stays, and before the databases want room.
	d.sweep(dir)
	p.reserve = reserve.New(dir)
	if err := p.reserve.Look(); err != nil {
		d.health.Set(checkPerm, health.Degraded, err.Error())
	}
	d.findBundle(ctx, p)
	var repair store.Repair
	err := d.untilOpen(ctx, p, "config", checkConfig, func() error {
		db, r, err := store.OpenConfig(ctx, d.State.File(paths.ConfigDB))
		if r.Reason != "" {
			r.Reason = cmp.Or(repair.Reason, r.Reason) // the first try says what was wrong
			repair = r                                 // the last that found something says how it ended
		}
		p.config = db
		return err
	})
	if repair.Reason != "" {
		p.noteRepair("config", repair)
	}
	if err == nil {
		err = d.until(ctx, checkConfig, func() error { return p.openSecrets(dir) })
	}
	if err == nil && repair.Restored != "" {
		err = d.until(ctx, checkConfig, func() error { return auth.EndLogins(ctx, p.config, p.secrets) })
	}
	if err == nil {
		err = d.until(ctx, checkConfig, func() error {
			file := d.State.File(paths.Epoch)
			settled, err := epoch.Settle(ctx, p.config, epoch.Evidence{
				File: file, Announced: d.announced(ctx), Restored: repair.Restored != "", Now: d.clock.Now(),
			})
			if err != nil {
				return err
			}
			p.epoch = epoch.NewKeeper(p.config, file, settled)
			if err := p.rememberRestored(ctx, repair); err != nil {
				return err
			}
			return p.config.Settled()
		})
	}
	if err != nil {
		return nil, errors.Join(err, closeAll(p))
	}
	repair = store.Repair{}
	err = d.untilOpen(ctx, p, "telemetry", checkTelemetry, func() error {
		db, r, err := telemetry.OpenJournal(ctx, d.State.File(paths.SeriesDB))
		if r.Reason != "" {
			repair = r
		}
		p.telemetry = db
		return err
	})
	if repair.Reason != "" {
		p.noteRepair("telemetry", repair)
	}
	if err != nil {
		return nil, errors.Join(err, closeAll(p))
	}
	return p, nil
}

// openSecrets loads the key of the secrets in config.db.
func (p *prepared) openSecrets(dir string) error {
	box, lost, err := seal.Load(dir)
	if err != nil {
		return err
	}
	p.secrets = seal.New(p.config, box)
	if lost != "" {
		p.note("seal.lost", model.Error, "the key of the secrets in config.db was damaged in both places and is made anew; what it sealed has to be entered again", map[string]string{"reason": lost})
	}
	return nil
}

// sweep removes what power cuts left in the gateway's folder; alone there is no
// halo-mesh to do it in the one above.
func (d *daemon) sweep(dir string) {
	err := errors.Join(atomicfile.Sweep(dir), store.SweepCopy(d.State.File(paths.ConfigDB)), backup.Sweep(dir))
	if d.Alone {
		err = errors.Join(err, atomicfile.Sweep(string(d.State)))
	}
	if err != nil {
		d.Log.Warn("what power cuts left is not removed", "err", err)
	}
}

// announced is the epoch that halo-mesh announced last, if it is there and
// knows.
func (d *daemon) announced(ctx context.Context) uint64 {
	ctx, cancel := context.WithTimeout(ctx, statusWait)
	defer cancel()
	if d.Alone {
		return 0
	}
	s, err := local.NewMesh(d.Mesh).Status(ctx)
	if err != nil || s.Announcing == nil {
		return 0
	}
	return s.Announcing.Epoch
}

func closeAll(p *prepared) error {
	var errs []error
	for _, db := range []*store.DB{p.config, p.telemetry} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(errs...)
}

// until repeats f until it succeeds or ctx ends.
func (d *daemon) until(ctx context.Context, check string, f func() error) error {
	for {
		err := f()
		if err == nil {
			d.health.Set(check, health.OK, "")
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		d.health.Set(check, health.Failed, err.Error())
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(retryPrepare):
		}
	}
}

// untilOpen repeats f, which opens a database, and notes if that had to wait.
func (d *daemon) untilOpen(ctx context.Context, p *prepared, name, check string, f func() error) error {
	waited := false
	return d.until(ctx, check, func() error {
		err := f()
		switch {
		case errors.Is(err, store.ErrUnavailable) && !waited:
			waited = true
			p.news = append(p.news, func(l *events.Log) { tellStore(l, name, err) })
		case err == nil && waited:
			p.news = append(p.news, func(l *events.Log) { tellStore(l, name, nil) })
		}
		return err
	})
}

// watch reports in /health and as events when a database stops or begins again
// to take what is written. Events of config.db wait in RAM until it does.
func (d *daemon) watch(db *store.DB, name, check string, log *events.Log) {
	db.Watch(func(err error) {
		tellStore(log, name, err)
		if err != nil {
			d.health.Set(check, health.Failed, err.Error())
			return
		}
		d.health.Set(check, health.OK, "")
	})
}

func tellStore(l *events.Log, name string, err error) {
	if err != nil {
		l.Add("store."+name+".unavailable", model.Error, "", "the "+name+" database takes nothing: "+err.Error(), nil)
		return
	}
	l.Add("store."+name+".available", model.Info, "", "the "+name+" database takes what is written again", nil)
}

// tellRoom reports in /health and as events whether there is room on the data
// partition.
func (d *daemon) tellRoom(log *events.Log) func(error) {
	var last error
	return func(err error) {
		switch {
		case err != nil && last == nil:
			log.Add("perm.full", model.Error, "", "the gateway has little room left: "+err.Error(), nil)
		case err == nil && last != nil:
			log.Add("perm.room", model.Info, "", "there is room on the data partition again", nil)
		}
		if last = err; err != nil {
			d.health.Set(checkPerm, health.Degraded, err.Error())
			return
		}
		d.health.Set(checkPerm, health.OK, "")
	}
}

// identify takes the identity that halo-mesh has made ready for this start of
// the machine, or alone makes one.
func (d *daemon) identify(ctx context.Context, p *prepared) error {
	if !d.Alone {
		s, err := identity.Load(d.Identity, nil)
		if errors.Is(err, fs.ErrNotExist) {
			err = d.noIdentity(ctx)
		}
		p.identity, p.network = s, s.Key.Public()
		return err
	}
	if err := d.becomeRestored(); err != nil {
		return err
	}
	path := d.State.File(paths.Identity)
	s, err := identity.Load(path, nil)
	if errors.Is(err, fs.ErrNotExist) {
		s, err = identity.State{Key: identity.New()}, nil
	}
	if err != nil {
		return err
	}
	s.BootCounter++ // each start counts: alone there is no other that orders events
	p.identity, p.network = s, s.Key.Public()
	return s.Save(path, nil)
}

// noIdentity says whether halo-mesh is there at all: it makes the identity.
func (d *daemon) noIdentity(ctx context.Context) error {
	if _, err := local.NewMesh(d.Mesh).Health(ctx); err != nil {
		d.health.Set(meshlink.CheckMesh, health.Failed, err.Error())
	} else {
		d.health.Set(meshlink.CheckMesh, health.OK, "")
	}
	return fmt.Errorf("waiting for halo-mesh to write %s", d.Identity)
}

// findBundle reads the bundle that halo-mesh imported. A gateway without one
// works; its network then has the name that halo-mesh tells.
func (d *daemon) findBundle(ctx context.Context, p *prepared) {
	path := d.State.File(paths.BundleCopy)
	deadline := time.Now().Add(bundleWait)
	for {
		data, err := os.ReadFile(path)
		if err == nil {
			var b bundle.Bundle
			if b, err = bundle.Parse(path, data); err == nil && b.Gateway.PublicKey != p.network.Base64() {
				err = fmt.Errorf("%s: it is of another network, whose key is %s", path, b.Gateway.PublicKey)
			}
			if err == nil {
				p.bundle = &b
				return
			}
		}
		if d.Alone || time.Now().After(deadline) || ctx.Err() != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				p.note("bundle.unusable", model.Warning, "the imported network bundle cannot be used: "+err.Error(), nil)
			}
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryPrepare / 4):
		}
	}
}

func (p *prepared) noteRepair(name string, r store.Repair) {
	fields := map[string]string{"reason": r.Reason, "aside": r.Aside}
	switch {
	case strings.HasPrefix(r.Restored, backup.From):
		p.noteRestored(r)
	case r.Restored != "":
		fields["copy"] = r.Restored
		p.note("store."+name+".restored", model.Error, "the "+name+" database was damaged; its last good copy took its place; all logins were ended, people log in again", fields)
	case r.Salvaged != "":
		fields["salvaged"] = r.Salvaged
		p.note("store."+name+".salvaged", model.Error, "the "+name+" database was damaged; a new one has what could be read of it: "+r.Salvaged, fields)
	default:
		p.note("store."+name+".lost", model.Error, "the "+name+" database was damaged; a new one was begun", fields)
	}
}

// ca opens the network's CA; a damaged one is replaced, since the nodes learn
// the new one from the announcements.
func (d *daemon) ca(p *prepared, log *events.Log) (*trust.CA, error) {
	dir := filepath.Dir(d.State.File(paths.ConfigDB))
	network := p.identity.Key.ID()
	if p.bundle != nil {
		network = p.bundle.Network
	}
	ca, err := trust.Open(dir, network, version.Get().Built)
	if !errors.Is(err, trust.ErrDamaged) {
		return ca, err
	}
	log.Add("trust.ca.damaged", model.Error, "", "the network's CA was damaged and is made anew; people have to trust the new one", map[string]string{"err": err.Error()})
	if err := trust.SetAside(dir); err != nil {
		return nil, err
	}
	return trust.Open(dir, network, version.Get().Built)
}

// followCA raises the epoch when the CA is another one than before. Nodes tell a gateway
// from another card of it by that, and have to join it anew all the same.
func (p *prepared) followCA(ctx context.Context, hash string, log *events.Log) error {
	const setting = "ca"
	known, err := p.config.Setting(ctx, setting, func() []byte { return []byte(hash) })
	if err != nil || string(known) == hash {
		return err
	}
	old := p.epoch.Now()
	now, err := p.epoch.Raise(ctx)
	if err != nil {
		return err
	}
	log.Add("gateway.epoch-raised", model.Warning, "", fmt.Sprintf("the network's CA is another one, so the epoch went from %d to %d", old, now),
		map[string]string{"epoch": fmt.Sprint(old), "raised": fmt.Sprint(now)})
	return p.config.PutSetting(ctx, setting, []byte(hash))
}

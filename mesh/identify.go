package mesh

import (
	"errors"
	"io/fs"
	"os"
	"time"

	"halo.internal/identity"
	"halo.internal/mesh/provision"
	"halo.internal/mesh/state"
	"halo.internal/model"
	"halo.internal/model/atomicfile"
	"halo.internal/model/bundle"
	"halo.internal/model/paths"
)

// report is how the steps before there is an event log tell what a person
// should know.
type report func(kind string, s model.Severity, message string, fields ...string)

// loadTries and loadPause bound how long a card that fails to read is asked
// again: cheap ones fail now and then just after power came.
const (
	loadTries = 5
	loadPause = 500 * time.Millisecond
)

func loadPatiently(path string, vault identity.Vault) (s identity.State, err error) {
	for try := range loadTries {
		if try > 0 {
			time.Sleep(loadPause)
		}
		if s, err = identity.Load(path, vault); !errors.Is(err, identity.ErrUnread) {
			break
		}
	}
	return s, err
}

// standIn returns the identity of a device whose own cannot be read: that which
// it already had in this start of the machine, else one for this start alone.
func standIn(bootID, runCopy string) identity.State {
	if s, err := identity.Load(runCopy, nil); err == nil && s.BootID == bootID {
		return s
	}
	return identity.State{Key: identity.New()}
}

// identify returns the identity of this device with the boot counter raised for
// this start of the machine. seed, if not nil, is the gateway's key from its
// bundle, which the device takes on. An identity that cannot be kept is used
// all the same: the node is volatile, and says so. One that cannot be read is
// left on the card as it is, with everything else there, and another is used
// until the next start.
func identify(store *state.Store, bootID, runCopy string, seed *identity.Key, tell report) identity.State {
	path := store.Dir().File(paths.Identity)
	s, err := loadPatiently(path, store.Vault())
	unread := errors.Is(err, identity.ErrUnread)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		s = identity.State{Key: identity.New()}
		if seed == nil {
			tell("identity.made", model.Info, "this device made its identity", "node", s.Key.ID())
		}
	case unread:
		store.Hold(err)
		s = standIn(bootID, runCopy)
	case err != nil:
		// Kept for whoever wants to look; nothing reads it.
		_ = os.Rename(path, path+".damaged")
		s = identity.State{Key: identity.New()}
		tell("identity.damaged", model.Error, "both copies of the identity are damaged, a new one was made: "+err.Error(), "node", s.Key.ID())
	}
	if seed != nil && s.Key.Public() != seed.Public() {
		s.Key = *seed
		tell("identity.taken", model.Info, "this gateway took on the key of its bundle", "node", s.Key.ID())
	}
	if s.BootID != bootID {
		s.BootCounter, s.BootID = s.BootCounter+1, bootID
	}
	if unread {
		tell("identity.unread", model.Error, "the identity cannot be read from the card; until the next start this device is another one, and keeps nothing. "+
			"Restart it; if this comes again, replace the card: "+err.Error(), "node", s.Key.ID())
	} else {
		keep(store, path, s, tell)
	}
	if err := atomicfile.Write(runCopy, s.Marshal(), 0o600); err != nil {
		tell("identity.not-kept", model.Error, "other processes cannot read the identity: "+err.Error())
	}
	return s
}

// keep writes the identity to both places, and goes on trying while the card does not take
// it. A later count is left as it is, be it in a copy that could not be read before.
func keep(store *state.Store, path string, s identity.State, tell report) {
	err := store.Try(paths.Identity, func() error {
		now, err := identity.Load(path, store.Vault())
		switch {
		case errors.Is(err, identity.ErrUnread):
			return err
		case err == nil && now.BootCounter > s.BootCounter:
			return nil
		}
		if err := os.MkdirAll(string(store.Dir()), 0o755); err != nil {
			return err
		}
		return s.Save(path, store.Vault())
	})
	if err != nil {
		tell("identity.not-kept", model.Error, "identity and boot counter are not kept in both places yet: "+err.Error())
	}
}

// settle finds out who this device is and which network it belongs to. Where
// there is no bundle to live by, err says why; the identity is valid anyway.
func settle(c Config, store *state.Store, tell report) (id identity.State, b bundle.Bundle, changed bool, err error) {
	importer := provision.Importer{File: c.path(paths.Bundle), Role: c.Role, Store: store, Boot: c.Boot, Report: tell}
	b, changed, err = importer.Import()
	var seed *identity.Key
	if err == nil && c.Role == model.RoleGateway {
		key, keyErr := provision.GatewayKey(b)
		if keyErr != nil {
			return id, b, false, keyErr
		}
		seed = &key
	}
	id = identify(store, c.BootID, c.path(paths.RunIdentity), seed, tell)
	if errors.Is(err, provision.ErrNone) && c.Role == model.RoleGateway {
		b, changed, err = provision.Found(id.Key), true, nil
		if _, keepErr := provision.Keep(store, b); keepErr != nil {
			tell("bundle.one-copy", model.Warning, "the new network is not kept in both places: "+keepErr.Error())
		}
		tell("network.founded", model.Info, "no bundle was given: this gateway founded a network", "network", b.Network)
	}
	return id, b, changed, err
}

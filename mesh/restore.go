package mesh

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"halo.internal/identity"
	"halo.internal/mesh/api"
	"halo.internal/mesh/clock"
	"halo.internal/mesh/provision"
	"halo.internal/mesh/state"
	"halo.internal/model"
	"halo.internal/model/bundle"
	"halo.internal/model/paths"
)

// A restore makes this device the gateway that a backup is of. gateway-api hands over
// what concerns halo-mesh, which puts it into one file; with that the restore is decided.
// The next start of the machine carries it out before anything else, and says so in
// another file, which gateway-api waits for. Power may fail at any instant: as long as the
// first file is there, the next start does all of it once more.

const (
	// bootsAhead is how far the boot counter of a restored gateway is above that of the
	// backup: what the lost one has said and measured in starts since is not to be taken for
	// this one's.
	bootsAhead = 1000
	// restartAfter is how long whoever has asked for a restore has to tell of it.
	restartAfter = 3 * time.Second

	maxBackupID = 64
)

// Backup returns what has to be in a backup of this gateway.
func (g *gateway) Backup() (model.MeshBackup, error) {
	b := g.bundle
	b.Gateway.ClaimCode = ""
	text, err := b.Marshal()
	if err != nil {
		return model.MeshBackup{}, err
	}
	out := model.MeshBackup{Bundle: text, Boot: g.id.BootCounter}
	out.Profile, err = g.keptIfAny(paths.Profile, paths.VaultProfile, func(b []byte) error { _, err := parseKeptProfile(b); return err })
	if err != nil {
		return model.MeshBackup{}, err
	}
	out.Reservations, err = g.keptIfAny(paths.Reservations, "", func(b []byte) error { _, err := parseReservations(b); return err })
	return out, err
}

func (m *core) keptIfAny(name, entry string, valid func([]byte) error) ([]byte, error) {
	b, err := m.store.Get(name, entry, valid)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

// Restore has the next start make this device what a backup says, and restarts the
// machine soon.
func (g *gateway) Restore(r model.MeshRestore) error {
	if _, err := checkRestore(r); err != nil {
		return fmt.Errorf("%w: %w", api.ErrInvalid, err)
	}
	// A bundle that waits to be imported would take its place again.
	if b, err := os.ReadFile(g.path(paths.Bundle)); err == nil {
		if _, err := bundle.Parse(paths.Bundle, b); err == nil {
			return fmt.Errorf("%w: %s on the boot partition still has its secrets and would be imported again: remove it first", api.ErrBusy, paths.Bundle)
		}
	}
	if err := g.store.Failing(); err != nil {
		return fmt.Errorf("%w: nothing is kept: %w", api.ErrBusy, err)
	}
	r.Boot = max(r.Boot, g.id.BootCounter) + bootsAhead
	if _, err := g.store.Put(paths.Restore, "", marshalRestore(r)); err != nil {
		return err
	}
	g.events.Add("gateway.restoring", model.Warning, "this device becomes the gateway that a backup is of, and starts anew", "backup", r.ID)
	if g.Config.Restart != nil {
		time.AfterFunc(restartAfter, func() {
			if err := g.Config.Restart(); err != nil {
				g.events.Add("gateway.not-restarted", model.Error, "the machine does not restart by itself; restart it, so that the restore is carried out: "+err.Error())
			}
		})
	}
	return nil
}

// marshalRestore writes JSON behind its checksum: halves of it are seen.
func marshalRestore(r model.MeshRestore) []byte {
	b, err := json.Marshal(r)
	if err != nil {
		panic("mesh: restore: " + err.Error()) // octets, text and a number
	}
	sum := sha256.Sum256(b)
	return append(fmt.Appendf(nil, "%x\n", sum), b...)
}

func parseRestore(b []byte) (r model.MeshRestore, err error) {
	line, body, _ := bytes.Cut(b, []byte("\n"))
	if sum := sha256.Sum256(body); string(line) != hex.EncodeToString(sum[:]) {
		return r, errors.New("checksum differs")
	}
	if err := json.Unmarshal(body, &r); err != nil {
		return r, err
	}
	_, err = checkRestore(r)
	return r, err
}

// checkRestore returns the bundle to live by.
func checkRestore(r model.MeshRestore) (b bundle.Bundle, err error) {
	if r.ID == "" || len(r.ID) > maxBackupID {
		return b, fmt.Errorf("id: expected 1 to %d characters, got %d", maxBackupID, len(r.ID))
	}
	if r.Boot >= 1<<(64-bootBits)-2*bootsAhead {
		return b, fmt.Errorf("boot: %d is more than any machine has started", r.Boot)
	}
	if b, err = bundle.Parse("bundle", r.Bundle); err != nil {
		return b, err
	}
	if b.Role != model.RoleGateway {
		return b, fmt.Errorf("bundle: role: expected %s, got %s", model.RoleGateway, b.Role)
	}
	key, err := provision.GatewayKey(b)
	if err != nil {
		return b, fmt.Errorf("bundle: %w", err)
	}
	if key.Public().Base64() != b.Gateway.PublicKey {
		return b, errors.New("bundle: gateway.seed: expected the seed of gateway.public_key, got another key's")
	}
	if len(r.Profile) > 0 {
		if _, err := parseKeptProfile(r.Profile); err != nil {
			return b, err
		}
	}
	if len(r.Reservations) > 0 {
		if _, err := parseReservations(r.Reservations); err != nil {
			return b, err
		}
	}
	return b, nil
}

// restore carries out what Restore was asked for, if anything was, before the device
// settles who it is. What fails is tried again by the next start.
func restore(c Config, s *state.Store, tell report) {
	b, err := s.Get(paths.Restore, "", func([]byte) error { return nil })
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var r model.MeshRestore
	if err == nil {
		r, err = parseRestore(b)
		if err != nil && s.Failing() == nil { // it never was whole, or has rotted: nothing was changed yet, or not for the first time
			err = errors.Join(fmt.Errorf("%w; it is given up: restore again", err), s.Remove(paths.Restore, ""))
		}
	}
	if err == nil {
		err = becomeRestored(c, s, r, tell)
	}
	if err != nil {
		tell("gateway.not-restored", model.Error, "the restore that was begun is not carried out: "+err.Error())
	}
}

func becomeRestored(c Config, s *state.Store, r model.MeshRestore, tell report) error {
	b, err := checkRestore(r)
	if err != nil {
		return err
	}
	key, err := provision.GatewayKey(b)
	if err != nil {
		return err
	}
	path := s.Dir().File(paths.Identity)
	id, err := loadPatiently(path, s.Vault())
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, identity.ErrCorrupt) {
		return err
	}
	// Its overlay key is one of its own: handshakes of the lost one's cannot be taken for it.
	if id.Key.Public() != key.Public() {
		id.Key = key
	}
	id.BootCounter = max(id.BootCounter, r.Boot)
	var halves []error // what has one copy of two
	// Without a clock of its own, the gateway's time would go back behind what it has signed.
	var saved time.Time
	_, err = s.Get(paths.Clock, paths.VaultClock, func(b []byte) (err error) { saved, err = clock.Unmarshal(b); return err })
	if err != nil || r.Made.After(saved) {
		if _, err := s.Put(paths.Clock, paths.VaultClock, clock.Marshal(r.Made)); err != nil {
			halves = append(halves, err) // a restore does not fail for the time
		}
	}
	text, err := b.Marshal()
	if err != nil {
		return err
	}
	for _, v := range []struct {
		name, entry string
		value       []byte
	}{
		{paths.BundleCopy, paths.VaultBundle, text}, {paths.Profile, paths.VaultProfile, r.Profile}, {paths.Reservations, "", r.Reservations},
		// Of the network that the card was of.
		{paths.Membership, paths.VaultMembership, nil}, {paths.Evidence, paths.VaultEvidence, nil}, {paths.Peers, "", nil}, {paths.PeerList, "", nil},
		{paths.StoodDown, paths.VaultStoodDown, nil}, {paths.OverlayKey, paths.VaultOverlayKey, nil}, {paths.PortPasts, paths.VaultPortPasts, nil},
	} {
		ok := false
		if len(v.value) > 0 {
			ok, err = s.Put(v.name, v.entry, v.value)
		} else {
			err = s.Remove(v.name, v.entry) // what stays is of another key, and does not count
			ok = true
		}
		if !ok {
			return fmt.Errorf("%s: %w", v.name, err)
		} else if err != nil {
			halves = append(halves, err)
		}
	}
	if err := id.Save(path, s.Vault()); err != nil {
		if kept, readErr := identity.Load(path, nil); readErr != nil || kept != id {
			return err
		}
		halves = append(halves, err)
	}
	note, err := json.Marshal(model.Restored{ID: r.ID, Node: key.ID()})
	if err != nil {
		return err
	}
	if _, err := s.Put(paths.Restored, "", append(note, '\n')); err != nil {
		return err
	}
	if err := errors.Join(halves...); err != nil {
		tell("gateway.restored-once", model.Warning, "what was restored is not kept in both places: "+err.Error())
	}
	if err := s.Remove(paths.Restore, ""); err != nil {
		return err
	}
	tell("gateway.restored", model.Warning, "this device has become the gateway that a backup is of", "node", key.ID(), "backup", r.ID, "network", b.Network)
	return nil
}

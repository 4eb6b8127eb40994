// Package provision gives a fresh device its network: it imports the bundle
// from the boot partition, keeps it in two places and blanks its secrets where
// anybody with a card reader finds them. A gateway without a bundle founds a
// network of its own. It also shows a gateway's claim code to whoever holds
// the device.
package provision

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"halo.internal/identity"
	"halo.internal/mesh/state"
	"halo.internal/model"
	"halo.internal/model/bundle"
	"halo.internal/model/paths"
)

// Boot is the boot partition.
type Boot interface {
	// Writable runs f while files of the partition can be written.
	Writable(f func() error) error
}

// Importer brings in a device's bundle.
type Importer struct {
	File  string     // halo.toml on the boot partition
	Role  model.Role // of the image
	Store *state.Store
	Boot  Boot
	// Report is told what a person should know.
	Report func(kind string, s model.Severity, message string, fields ...string)
}

// ErrNone is returned when there is no bundle, neither to import nor kept.
var ErrNone = errors.New("no network bundle: put halo.toml into the boot partition")

// Import returns the bundle to live by: a valid new one from the boot
// partition, else the kept one. changed tells that it is not the one of the
// last start. Everything wrong with a file is reported; only the lack of any
// usable bundle is an error, which wraps ErrNone, state.ErrUnread where there may be one that
// the card does not give just now, or what is wrong.
func (i Importer) Import() (b bundle.Bundle, changed bool, err error) {
	kept, keptErr := i.kept()
	data, err := readBundle(i.File)
	if errors.Is(err, fs.ErrNotExist) {
		return kept, false, keptErr
	}
	var fresh bundle.Bundle
	if err == nil {
		fresh, err = i.parse(data)
	}
	switch {
	case errors.Is(err, bundle.ErrBlanked):
		return kept, false, keptErr
	case err != nil:
		i.Report("bundle.refused", model.Error, "network bundle cannot be used: "+err.Error(), "file", i.File)
		if keptErr == nil {
			// It may be what an interrupted blanking left: with secrets in it.
			i.overwrite(data, func(d []byte) ([]byte, error) { d, _ = kept.Scrub(d); return d, nil })
			return kept, false, nil
		}
		return bundle.Bundle{}, false, errors.Join(err, ignore(keptErr, ErrNone))
	}
	if keptErr == nil && same(kept, fresh) {
		i.overwrite(data, bundle.Blank) // the last start was interrupted before
		return kept, false, nil
	}
	ok, err := i.keep(fresh)
	switch {
	case !ok:
		i.Report("bundle.not-kept", model.Error, "network bundle is used but cannot be kept, and stays readable on the boot partition: "+err.Error())
	case err != nil:
		i.Report("bundle.one-copy", model.Warning, "network bundle is kept in one place only: "+err.Error())
	}
	if ok {
		i.overwrite(data, bundle.Blank)
	}
	i.Report("bundle.imported", model.Info, "network bundle imported", "network", fresh.Network, "mesh", fresh.Mesh.SSID)
	// What cannot be read may be the same, whose blanking failed: its network is not forgotten.
	return fresh, !errors.Is(keptErr, state.ErrUnread), nil
}

func ignore(err, target error) error {
	if errors.Is(err, target) {
		return nil
	}
	return err
}

func readBundle(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, bundle.MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return b, nil
}

// parse reads a bundle and checks that it is for this device.
func (i Importer) parse(data []byte) (bundle.Bundle, error) {
	b, err := bundle.Parse(i.File, data)
	if err == nil {
		err = b.Mesh.CheckChosen()
	}
	if err != nil {
		return b, err
	}
	if b.Role != i.Role {
		return b, fmt.Errorf("%s: role: expected %s, as this image is one, got %s", i.File, i.Role, b.Role)
	}
	key, err := identity.ParsePublicKey(b.Gateway.PublicKey)
	if err != nil {
		return b, fmt.Errorf("%s: gateway.public_key: %w", i.File, err)
	}
	if b.Role == model.RoleGateway {
		k, err := GatewayKey(b)
		if err != nil {
			return b, fmt.Errorf("%s: %w", i.File, err)
		}
		if k.Public() != key {
			return b, fmt.Errorf("%s: gateway.seed: expected the seed of gateway.public_key, got another key's", i.File)
		}
		return b, nil
	}
	if b.Join.Token != "" {
		if _, err := identity.ParseJoinToken(b.Join.Token, key); err != nil {
			return b, fmt.Errorf("%s: join.token: %w", i.File, err)
		}
	}
	return b, nil
}

// A card that fails to read is asked again: cheap ones do now and then just after power came.
const (
	keptTries = 5
	keptPause = 500 * time.Millisecond
)

func (i Importer) kept() (b bundle.Bundle, err error) {
	for try := range keptTries {
		if try > 0 {
			time.Sleep(keptPause)
		}
		_, err = i.Store.Get(paths.BundleCopy, paths.VaultBundle, func(data []byte) (err error) {
			b, err = bundle.Parse(paths.BundleCopy, data)
			return err
		})
		if !errors.Is(err, state.ErrUnread) {
			break
		}
	}
	switch {
	case errors.Is(err, state.ErrUnread):
		i.Report("bundle.unread", model.Error, "kept network bundle cannot be read from the card: "+err.Error())
		return bundle.Bundle{}, err
	case errors.Is(err, fs.ErrNotExist):
		return bundle.Bundle{}, ErrNone
	case err != nil:
		i.Report("bundle.damaged", model.Error, "kept network bundle is damaged: "+err.Error())
		return bundle.Bundle{}, err
	}
	return b, nil
}

func (i Importer) keep(b bundle.Bundle) (bool, error) { return Keep(i.Store, b) }

// Keep stores a bundle as the one to live by; ok tells whether at least one
// copy was written.
func Keep(s *state.Store, b bundle.Bundle) (ok bool, err error) {
	data, err := b.Marshal()
	if err != nil {
		return false, err
	}
	return s.Keep(paths.BundleCopy, paths.VaultBundle, data)
}

// same tells whether a bundle on the boot partition is the kept one. The claim
// code does not count: it is erased from the kept one once it was used.
func same(kept, fresh bundle.Bundle) bool {
	kept.Gateway.ClaimCode, fresh.Gateway.ClaimCode = "", ""
	a, errA := kept.Marshal()
	b, errB := fresh.Marshal()
	return errA == nil && errB == nil && bytes.Equal(a, b)
}

// overwrite replaces the bundle on the boot partition in place by one of the
// same length: the same sectors, so that no secret stays behind in others.
func (i Importer) overwrite(data []byte, change func([]byte) ([]byte, error)) {
	blank, err := change(data)
	if err == nil && bytes.Equal(blank, data) {
		return
	}
	if err == nil {
		err = i.Boot.Writable(func() error { return writeInPlace(i.File, blank) })
	}
	if err != nil {
		i.Report("bundle.not-blanked", model.Warning, "secrets of the imported bundle are still on the boot partition: "+err.Error(), "file", i.File)
	}
}

func writeInPlace(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, 0)
	return errors.Join(err, f.Sync(), f.Close())
}

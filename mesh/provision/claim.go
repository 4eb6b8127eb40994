package provision

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"halo.internal/model/claim"
	"halo.internal/model/paths"
)

// Notice shows a gateway's claim code on its consoles and in its boot
// partition, where its owner can read it and nobody on the network can.
type Notice struct {
	File    string // claim.txt
	Boot    Boot
	Console func() (io.WriteCloser, error) // all of them, as Consoles opens them
}

// Show writes the code to both places. The boot partition is left alone when
// it has the code already.
func (n Notice) Show(network, code string) error {
	if _, err := claim.Normalise(code); err != nil {
		return err
	}
	text := fmt.Appendf(nil, "HALO network %s: claim code %s\r\n", network, code)
	err := n.print(text)
	if old, e := os.ReadFile(n.File); e == nil && string(old) == string(text) {
		return err
	}
	reserve := filepath.Join(filepath.Dir(n.File), filepath.Base(paths.BootReserve))
	return errors.Join(err, n.Boot.Writable(func() error {
		return makeRoom(reserve, func() error { return create(n.File, text) })
	}))
}

// makeRoom removes the reserve when write finds no room, and has it write
// again: a flat image has no room but what is kept for this.
func makeRoom(reserve string, write func() error) error {
	err := write()
	if !errors.Is(err, syscall.ENOSPC) {
		return err
	}
	if e := os.Remove(reserve); e != nil {
		return errors.Join(err, e)
	}
	return write()
}

func (n Notice) print(text []byte) error {
	c, err := n.Console()
	if err != nil {
		return fmt.Errorf("console: %w", err)
	}
	_, err = c.Write(append([]byte("\r\n"), text...))
	return errors.Join(err, c.Close())
}

// Erase overwrites the notice and removes it. None is no error.
func (n Notice) Erase() error {
	info, err := os.Stat(n.File)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return n.Boot.Writable(func() error {
		if err := writeInPlace(n.File, make([]byte, info.Size())); err != nil {
			return err
		}
		return os.Remove(n.File)
	})
}

func create(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Sync(), f.Close())
}

// Package guest is the radio hardware of a virtual machine: it makes simulated
// radios as the host says and carries what they send and hear over a virtio
// port, at the other end of which package link's Remote is. Only images for
// virtual boards hold it.
package guest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"

	"halo.internal/lab/air/hwsim"
	"halo.internal/lab/air/link"
)

// Run serves the port until ctx ends, or the host ends it, which is an error.
// fs.ErrNotExist: the machine has no such port, or the kernel no such radios.
func Run(ctx context.Context) error {
	port, err := open("/sys/class/virtio-ports", "/dev", link.Port)
	if err != nil {
		return err
	}
	conn, err := hwsim.Dial(0)
	if err != nil {
		return errors.Join(err, port.Close())
	}
	defer conn.Close() // removes the radios
	medium, err := hwsim.OpenMedium(0)
	if err != nil {
		return errors.Join(err, port.Close())
	}
	return link.Serve(ctx, port, medium, &radios{conn: conn, ids: map[string]int{}})
}

// open opens the device of the port with that name.
func open(class, dev, name string) (*os.File, error) {
	all, err := os.ReadDir(class)
	if err != nil {
		return nil, fmt.Errorf("virtio ports: %w", err)
	}
	for _, e := range all {
		b, err := os.ReadFile(filepath.Join(class, e.Name(), "name"))
		if err == nil && strings.TrimSpace(string(b)) == name {
			return os.OpenFile(filepath.Join(dev, e.Name()), os.O_RDWR, 0)
		}
	}
	return nil, fmt.Errorf("virtio ports: expected one of the name %s: %w", name, fs.ErrNotExist)
}

// radios are those of the machine, by name. Only the goroutine that reads the
// stream calls it.
type radios struct {
	conn *hwsim.Conn
	ids  map[string]int
}

func (r *radios) Plug(name string, mac net.HardwareAddr) error {
	if _, there := r.ids[name]; there {
		return fmt.Errorf("radio %s: %w", name, fs.ErrExist)
	}
	id, err := r.conn.NewRadio(hwsim.Radio{Name: name, MAC: mac, NoVIF: true, Owned: true})
	if err == nil {
		r.ids[name] = id
	}
	return err
}

func (r *radios) Unplug(name string) error {
	id, there := r.ids[name]
	if !there {
		return fmt.Errorf("radio %s: %w", name, fs.ErrNotExist)
	}
	delete(r.ids, name)
	return r.conn.DeleteRadio(id)
}

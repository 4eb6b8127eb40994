// Package guest is the radio hardware of a virtual machine: it makes simulated
// radios as the host says and carries what they send and hear over a virtio
// port, at the other end of which package link's Remote is. It has the kernel's test
// camera for such a machine, too. Only images for virtual boards hold it.
package guest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"halo.internal/hal/module"
	"halo.internal/lab/air/hwsim"
	"halo.internal/lab/air/link"
	"halo.internal/model/paths"
)

// ErrNoAir is wrapped where the machine takes part in no air, and never will: it
// has no port for it.
var ErrNoAir = errors.New("this machine takes part in no air")

// portPatience is how long the kernel may take to name the ports of a device
// that is there.
const portPatience = 30 * time.Second

// Run loads the driver of simulated radios and serves the port until ctx ends, or
// the host ends it, which is an error.
func Run(ctx context.Context) error {
	if err := findPorts("/sys"); err != nil {
		return err
	}
	port, err := awaitPort(ctx, portPatience)
	if err != nil {
		return err
	}
	conn, err := driver()
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

// driver speaks to mac80211_hwsim, without the two radios that it makes unasked.
func driver() (*hwsim.Conn, error) {
	release, err := module.Release()
	if err != nil {
		return nil, err
	}
	const name = "mac80211_hwsim"
	l, err := module.NewLoader(filepath.Join(paths.ModulesDir, release), module.Running{}, map[string]string{name: "radios=0"})
	if err != nil {
		return nil, err
	}
	if err := l.Load(name); err != nil {
		return nil, err
	}
	return hwsim.Dial(0)
}

// portsDevice is what sysfs calls a virtio device with ports (virtio 1.2, 5.3).
const portsDevice = "0x0003"

// findPorts returns an error unless the machine has a device with ports. Devices
// of a virtual board are there before its first process.
func findPorts(sys string) error {
	files, err := filepath.Glob(filepath.Join(sys, "bus/virtio/devices/*/device"))
	if err != nil {
		return err
	}
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && strings.TrimSpace(string(b)) == portsDevice {
			return nil
		}
	}
	return fmt.Errorf("%w: expected a virtio device with ports", ErrNoAir)
}

// awaitPort opens the port, which gets its name some time after its driver is
// there.
func awaitPort(ctx context.Context, patience time.Duration) (*os.File, error) {
	limit := time.After(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		port, err := open("/sys/class/virtio-ports", "/dev", link.Port)
		if !errors.Is(err, fs.ErrNotExist) {
			return port, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-limit:
			return nil, fmt.Errorf("%w: %w", ErrNoAir, err)
		case <-tick.C:
		}
	}
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

// Watch calls down when one of the radio's interfaces goes down or away.
func (r *radios) Watch(name string, down func()) error {
	updates, done := make(chan netlink.LinkUpdate), make(chan struct{})
	if err := netlink.LinkSubscribe(updates, done); err != nil {
		return fmt.Errorf("radio %s: %w", name, err)
	}
	mine, err := interfaces("/sys", name)
	if err != nil {
		close(done)
		for range updates { // until the subscription has ended
		}
		return err
	}
	go func() {
		over := false
		for u := range updates {
			if over || !mine[int(u.Index)] || u.Header.Type == unix.RTM_NEWLINK && u.Flags&unix.IFF_UP != 0 {
				continue
			}
			over = true
			close(done)
			down()
		}
		if !over { // nobody can tell any more
			down()
		}
	}()
	return nil
}

// interfaces returns the indexes of the interfaces of a radio.
func interfaces(sys, radio string) (map[int]bool, error) {
	names, err := filepath.Glob(filepath.Join(sys, "class/net/*/phy80211/name"))
	if err != nil {
		return nil, err
	}
	mine := map[int]bool{}
	for _, file := range names {
		if b, err := os.ReadFile(file); err != nil || strings.TrimSpace(string(b)) != radio {
			continue
		}
		b, err := os.ReadFile(filepath.Join(file, "../../ifindex"))
		if err != nil {
			continue // it has just gone
		}
		index, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil {
			return nil, fmt.Errorf("radio %s: index of its interface: %w", radio, err)
		}
		mine[index] = true
	}
	if len(mine) == 0 {
		return nil, fmt.Errorf("radio %s: expected an interface: %w", radio, fs.ErrNotExist)
	}
	return mine, nil
}

// Kill ends the processes of that name as a fault of their own would.
func (r *radios) Kill(process string) error {
	pids, err := processes("/proc", process)
	if err != nil {
		return err
	}
	var errs []error
	for _, pid := range pids {
		errs = append(errs, unix.Kill(pid, unix.SIGKILL))
	}
	return errors.Join(errs...)
}

// processes finds those of a name, but neither the first of all nor this one.
func processes(proc, name string) (pids []int, err error) {
	all, err := filepath.Glob(filepath.Join(proc, "[0-9]*/comm"))
	if err != nil {
		return nil, err
	}
	for _, file := range all {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil || pid == 1 || pid == os.Getpid() {
			continue
		}
		if b, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(b)) == name {
			pids = append(pids, pid)
		}
	}
	if len(pids) == 0 {
		return nil, fmt.Errorf("process %s: %w", name, fs.ErrNotExist)
	}
	return pids, nil
}

func (r *radios) Unplug(name string) error {
	id, there := r.ids[name]
	if !there {
		return fmt.Errorf("radio %s: %w", name, fs.ErrNotExist)
	}
	delete(r.ids, name)
	return r.conn.DeleteRadio(id)
}

package mesh

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"halo.internal/mesh/port"
	"halo.internal/model/paths"
)

// What ports have proved to be changes when somebody moves a cable. Whoever makes it
// change on purpose has the card written no oftener than that; what a power cut takes
// is what a port was for some seconds.
const (
	maxPortPasts  = 16               // ports that are remembered; of more, those that changed last
	portPastsSoon = 10 * time.Second // from a change to its writing
	portPastsGap  = time.Minute      // between writes
)

// portPast is what one port has proved to be.
type portPast struct {
	mac string // as net.HardwareAddr.String has it
	port.Past
}

// portPasts is the file "ports", and the port.Memory of a gateway: what its ports have
// proved to be, the one that changed last at the end.
type portPasts struct {
	changed chan struct{}
	loaded  []byte // what the card had at the start

	mu   sync.Mutex // guards what follows
	list []portPast
}

// Past returns what a port has proved to be.
func (p *portPasts) Past(mac string) port.Past {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.list {
		if l.mac == mac {
			return l.Past
		}
	}
	return port.Past{}
}

// Remember takes note of it in RAM, and has the card follow.
func (p *portPasts) Remember(mac string, past port.Past) {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.IndexFunc(p.list, func(l portPast) bool { return l.mac == mac })
	if i < 0 && past == (port.Past{}) || i >= 0 && p.list[i].Past == past {
		return
	}
	if i >= 0 {
		p.list = slices.Delete(p.list, i, i+1)
	}
	if past != (port.Past{}) {
		p.list = append(p.list, portPast{mac, past})
	}
	p.list = p.list[max(0, len(p.list)-maxPortPasts):]
	wake(p.changed)
}

func (p *portPasts) marshal() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return marshalPortPasts(p.list)
}

// marshalPortPasts writes a line for each port, of its address and what it was, and a
// checksum.
func marshalPortPasts(list []portPast) []byte {
	var b []byte
	for _, l := range list {
		b = fmt.Appendf(b, "%s %s\n", l.mac, kindOfPast(l.Past))
	}
	return fmt.Appendf(b, "%08x\n", crc32.ChecksumIEEE(b))
}

func kindOfPast(p port.Past) string {
	switch {
	case p.Mesh && p.Uplink:
		return "mesh,uplink"
	case p.Mesh:
		return "mesh"
	}
	return "uplink"
}

// parsePortPasts takes nothing but what marshalPortPasts has written.
func parsePortPasts(b []byte) (list []portPast, err error) {
	const longest = len("00:00:00:00:00:00 mesh,uplink\n")
	if len(b) > maxPortPasts*longest+len("00000000\n") {
		return nil, fmt.Errorf("ports: expected %d at most, got %d octets", maxPortPasts, len(b))
	}
	for line := range strings.Lines(string(b)) {
		mac, kind, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if !ok {
			break // the checksum
		}
		if hw, err := net.ParseMAC(mac); err != nil || len(hw) != 6 || hw.String() != mac || slices.ContainsFunc(list, func(l portPast) bool { return l.mac == mac }) {
			return nil, fmt.Errorf("ports: expected a hardware address, once, got %q", mac)
		}
		list = append(list, portPast{mac, port.Past{Mesh: strings.HasPrefix(kind, "mesh"), Uplink: strings.HasSuffix(kind, "uplink")}})
	}
	if string(marshalPortPasts(list)) != string(b) {
		return nil, fmt.Errorf("ports: expected lines of an address and what it was, and their checksum, got %q", b)
	}
	return list, nil
}

// loadPortPasts returns what the card knows. Without it, ports are found out about as at
// the first start.
func (m *core) loadPortPasts() *portPasts {
	p := &portPasts{changed: make(chan struct{}, 1)}
	_, err := m.store.Get(paths.PortPasts, paths.VaultPortPasts, func(b []byte) (err error) {
		p.list, err = parsePortPasts(b)
		return err
	})
	if err != nil {
		p.list = nil
		if !errors.Is(err, fs.ErrNotExist) {
			m.Log.Warn("what ports were before is damaged: they are found out about anew", "err", err)
		}
	}
	p.loaded = p.marshal()
	return p
}

// keepPortPasts has the card follow what ports prove to be, until ctx ends.
func (m *core) keepPortPasts(ctx context.Context) error {
	written, told := m.ports.loaded, false
	for {
		select {
		case <-ctx.Done():
		case <-m.ports.changed:
			pause(ctx, portPastsSoon)
		}
		last := ctx.Err() != nil // asked before the list is read: what changes during the write is written too
		if b := m.ports.marshal(); string(b) != string(written) {
			kept, err := m.store.Put(paths.PortPasts, paths.VaultPortPasts, b)
			if err != nil && !told {
				m.Log.Warn("what ports have proved to be is not noted in both places: the next start may have to find it out anew", "err", err)
			}
			if told = err != nil; kept {
				written = b
			} else {
				wake(m.ports.changed) // it is tried again
			}
			pause(ctx, portPastsGap)
		}
		if last {
			return nil
		}
	}
}

// pause returns after d, or when ctx ends.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

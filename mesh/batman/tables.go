package batman

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/mdlayher/genetlink"
	mnl "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Info asks for the interface's own settings.
func (m *Mesh) Info() (Info, error) {
	answers, err := m.request(cmdGetMesh, 0, encodeMesh)
	if err != nil {
		return Info{}, err
	}
	if len(answers) != 1 {
		return Info{}, fmt.Errorf("batman: %s: expected one answer about it, got %d", m.name, len(answers))
	}
	return parseInfo(answers[0].Data)
}

func (m *Mesh) set(c Config) error {
	_, err := m.request(cmdSetMesh, mnl.Acknowledge, c.encode)
	return err
}

// Flood has what goes to all flooded, as Open does, whoever changed that meanwhile.
func (m *Mesh) Flood() error {
	_, err := m.request(cmdSetMesh, mnl.Acknowledge, encodeFlood)
	return err
}

// SetOGMInterval changes how often the node says that it exists; what is due
// already stays due.
func (m *Mesh) SetOGMInterval(every time.Duration) error {
	_, err := m.request(cmdSetMesh, mnl.Acknowledge, func(mesh int) ([]byte, error) { return encodeOGMInterval(mesh, every) })
	return err
}

// SetGateway changes what the node is to the choice of a way out.
func (m *Mesh) SetGateway(mode GatewayMode) error {
	_, err := m.request(cmdSetMesh, mnl.Acknowledge, func(mesh int) ([]byte, error) { return encodeGateway(mesh, mode) })
	return err
}

// SetHopPenalty changes what is taken off a way for each node, this one among them,
// that passes on.
func (m *Mesh) SetHopPenalty(penalty uint8) error {
	_, err := m.request(cmdSetMesh, mnl.Acknowledge, func(mesh int) ([]byte, error) { return encodeHopPenalty(mesh, penalty) })
	return err
}

// Port returns how an interface that carries the mesh is treated. The error wraps
// fs.ErrNotExist where it carries none.
func (m *Mesh) Port(iface string) (Port, error) {
	link, err := netlink.LinkByName(iface)
	if err != nil {
		return Port{}, fmt.Errorf("batman: find port %s: %w", iface, errors.Join(fs.ErrNotExist, err))
	}
	ports, err := m.Ports()
	if err != nil {
		return Port{}, err
	}
	if p, ok := ports[link.Attrs().Index]; ok {
		return p, nil
	}
	return Port{}, fmt.Errorf("batman: port %s is not in %s: %w", iface, m.name, fs.ErrNotExist)
}

// Ports returns how the interfaces that carry the mesh are treated, by their index.
func (m *Mesh) Ports() (map[int]Port, error) {
	answers, err := m.dump(cmdGetPort)
	if err != nil {
		return nil, err
	}
	ports := map[int]Port{}
	for _, a := range answers {
		p, index, err := parsePort(a.Data)
		if err != nil {
			return nil, err
		}
		ports[index] = p
	}
	return ports, nil
}

// SetPort has an interface that carries the mesh treated so.
func (m *Mesh) SetPort(iface string, p Port) error {
	link, err := netlink.LinkByName(iface)
	if err != nil {
		return fmt.Errorf("batman: find port %s: %w", iface, errors.Join(fs.ErrNotExist, err))
	}
	_, err = m.request(cmdSetPort, mnl.Acknowledge, func(mesh int) ([]byte, error) { return p.encode(mesh, link.Attrs().Index) })
	return err
}

// Rate says how many Mbit/s a link on an interface is worth, 0: what its driver
// tells. Only BATMAN_V asks.
func (m *Mesh) Rate(iface string, mbit float64) error {
	p, err := m.Port(iface)
	if err != nil || p.Throughput == mbit {
		return err
	}
	p.Throughput = mbit
	return m.SetPort(iface, p)
}

// Originators returns all known ways to the nodes of the mesh.
func (m *Mesh) Originators() ([]Originator, error) {
	answers, err := m.dump(cmdGetOriginators)
	if err != nil {
		return nil, err
	}
	list := make([]Originator, 0, len(answers))
	for _, a := range answers {
		o, index, err := parseOriginator(a.Data)
		if err != nil {
			return nil, err
		}
		if o.Iface == "" {
			o.Iface = ifaceName(index)
		}
		list = append(list, o)
	}
	return list, nil
}

// Neighbours returns the nodes heard directly. The kernel lists no quality with
// BATMAN_IV's neighbours; it is taken from their entries as originators.
func (m *Mesh) Neighbours() ([]Neighbour, error) {
	answers, err := m.dump(cmdGetNeighbours)
	if err != nil || len(answers) == 0 {
		return nil, err
	}
	originators, err := m.Originators()
	if err != nil {
		return nil, err
	}
	list := make([]Neighbour, 0, len(answers))
	for _, a := range answers {
		n, index, err := parseNeighbour(a.Data)
		if err != nil {
			return nil, err
		}
		if n.Iface == "" {
			n.Iface = ifaceName(index)
		}
		for _, o := range originators {
			if o.Iface == n.Iface && bytes.Equal(o.MAC, n.MAC) && bytes.Equal(o.NextHop, n.MAC) {
				n.TQ = o.TQ
			}
		}
		list = append(list, n)
	}
	return list, nil
}

// Clients returns the addresses that other nodes say are behind them.
func (m *Mesh) Clients() ([]Client, error) { return m.clients(cmdGetClients) }

// OwnClients returns the addresses that this node says are behind it; they have no
// originator.
func (m *Mesh) OwnClients() ([]Client, error) { return m.clients(cmdGetOwnClients) }

func (m *Mesh) clients(command uint8) ([]Client, error) {
	answers, err := m.dump(command)
	if err != nil {
		return nil, err
	}
	list := make([]Client, 0, len(answers))
	for _, a := range answers {
		c, err := parseClient(a.Data)
		if err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	return list, nil
}

// Gateways returns the nodes that announce a way out.
func (m *Mesh) Gateways() ([]Gateway, error) {
	answers, err := m.dump(cmdGetGateways)
	if err != nil {
		return nil, err
	}
	list := make([]Gateway, 0, len(answers))
	for _, a := range answers {
		g, err := parseGateway(a.Data)
		if err != nil {
			return nil, err
		}
		list = append(list, g)
	}
	return list, nil
}

// dump reads a table. The kernel answers ENOENT while no port carries the mesh:
// that is an empty table.
func (m *Mesh) dump(command uint8) ([]genetlink.Message, error) {
	answers, err := m.request(command, mnl.Dump, encodeMesh)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	return answers, err
}

func (m *Mesh) request(command uint8, flags mnl.HeaderFlags, encode func(index int) ([]byte, error)) ([]genetlink.Message, error) {
	data, err := encode(m.index)
	if err != nil {
		return nil, fmt.Errorf("batman: command %d: %w", command, err)
	}
	answers, err := m.conn.Execute(genetlink.Message{
		Header: genetlink.Header{Command: command, Version: m.fam.Version},
		Data:   data,
	}, m.fam.ID, mnl.Request|flags)
	if err != nil {
		return nil, fmt.Errorf("batman: %s: command %d: %w", m.name, command, err)
	}
	return answers, nil
}

// ifaceName serves kernels whose tables hold only the index. A port that was
// pulled meanwhile has no name.
func ifaceName(index int) string {
	link, err := netlink.LinkByIndex(index)
	if err != nil {
		return ""
	}
	return link.Attrs().Name
}

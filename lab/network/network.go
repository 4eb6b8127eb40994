// Package network runs a whole HALO network of virtual machines: a gateway and
// nodes booted from the real images, each with its own card and bundle, joined
// by the air between their radios, by one Ethernet switch, or by both. It knows
// no HALO from inside; what it learns of a machine it learns as anybody would,
// over the forwarded ports.
package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"halo.internal/lab/air"
	"halo.internal/lab/air/link"
	"halo.internal/lab/bus"
	"halo.internal/lab/bus/nmea"
	"halo.internal/lab/disk"
	"halo.internal/lab/ether"
	"halo.internal/lab/machine"
	"halo.internal/model"
	"halo.internal/model/bundle"
	"halo.internal/model/paths"
)

// Options of a network.
type Options struct {
	Name         string // of the HALO network
	Nodes        int
	GatewayImage string
	NodeImage    string
	Dir          string // machines' folders; made if it is not there
	MemoryMB     int    // of each machine
	Mesh         Mesh   // what carries the mesh
	// Of the air, where it carries the mesh:
	Profile  air.Profile // its kind of radios; the zero value is Wi-Fi
	Radios   int         // of each machine; 0 is 1
	SpacingM float64     // between machines at the beginning, in a grid; 0 is 50
	// Agent holds settings of halo-agent (agent.toml), put onto each card; the
	// agents' own when empty.
	Agent string
	// Devices is what is wired to each machine.
	Devices bus.Layout
	// Spare is how many nodes may be added later: the join token admits them too.
	Spare int
	// Ports of each machine are for HALO to find out about; each leads to a switch of
	// its own, see PlugInto.
	Ports int
	// Camera: each node has one, of the kernel's that draws its pictures itself.
	Camera bool
	Log    *slog.Logger
}

// Limits of one lab.
const (
	MaxNodes  = 64
	MaxPorts  = 4
	minMemory = 128
)

// Network is a running or stopped network. Its methods may be called from any
// goroutine.
type Network struct {
	Switch  *ether.Switch // without cables where the air alone carries the mesh
	Air     *air.Air      // nil where the switch alone does
	Bundles Bundles

	opts Options
	life context.Context // of all machines
	end  context.CancelFunc

	flying sync.WaitGroup // all goroutines of the air

	mu       sync.Mutex // guards what follows
	machines []*Machine // the gateway first
	ports    map[string][]*ether.Switch
	remotes  map[string]*link.Remote  // of machines that run, where there is an air
	freed    map[string]chan struct{} // by radio whose driver hangs; closed when it does not any more
	killed   map[string]chan struct{} // by machine and process that is to die
	radios   []*radio                 // of the machines
	rogue    *intruder                // nil while there is none
	closed   bool
}

// Machine is one device of the network.
type Machine struct {
	*machine.Machine
	Disk  *disk.Disk
	Role  model.Role
	Board *bus.Board // what is wired to it; nil: nothing
	dir   string
	port  int       // of this host, where its API or Field answers
	air   *presence // of the present or last start; its owner is the goroutine that starts the machine
}

// Gateway is the name of the gateway's machine.
const Gateway = "gateway"

// NodeName returns the name of the n-th node, from 1.
func NodeName(n int) string { return fmt.Sprintf("node%d", n) }

// New makes the machines, all off.
func New(ctx context.Context, o Options) (*Network, error) {
	if o.Nodes < 0 || o.Spare < 0 || o.Nodes+o.Spare > MaxNodes {
		return nil, fmt.Errorf("nodes: expected 0 to %d, got %d and %d to spare", MaxNodes, o.Nodes, o.Spare)
	}
	if o.Ports < 0 || o.Ports > MaxPorts {
		return nil, fmt.Errorf("ports: expected 0 to %d, got %d", MaxPorts, o.Ports)
	}
	if o.MemoryMB < minMemory {
		return nil, fmt.Errorf("memory: expected at least %d MB, got %d", minMemory, o.MemoryMB)
	}
	if err := o.checkAir(); err != nil {
		return nil, err
	}
	now := time.Now()
	bundles, err := NewBundles(o.Name, o.Nodes+o.Spare, now)
	if err != nil {
		return nil, err
	}
	if !o.Mesh.byCable() {
		delete(bundles.Gateway.Ports, meshPort)
	}
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	n := &Network{
		Switch: ether.New(o.Log, rand.Uint64()), Bundles: bundles, opts: o, life: life, end: end,
		ports: map[string][]*ether.Switch{}, remotes: map[string]*link.Remote{}, freed: map[string]chan struct{}{}, killed: map[string]chan struct{}{},
	}
	if o.Mesh.byAir() {
		n.openAir()
	}
	_, err = n.AddGateway(ctx, Gateway)
	for i := 1; i <= o.Nodes && err == nil; i++ {
		_, err = n.AddNode(ctx, NodeName(i))
	}
	if err != nil {
		return nil, errors.Join(err, n.Close())
	}
	return n, nil
}

// AddGateway adds a machine with a card from the gateway's bundle, off. One beside
// the gateway is the gateway's second card, and its double.
func (n *Network) AddGateway(ctx context.Context, name string) (*Machine, error) {
	return n.addMember(ctx, n.Bundles.Gateway, Spec{Name: name, Role: model.RoleGateway, Image: n.opts.GatewayImage, Clock: true})
}

// AddNode adds a node of the network, off.
func (n *Network) AddNode(ctx context.Context, name string) (*Machine, error) {
	b := n.Bundles.Node
	b.Name = name
	return n.addMember(ctx, b, Spec{Name: name, Role: model.RoleNode, Image: n.opts.NodeImage})
}

// AddBridge adds a node of the network, off, whose last port is pinned to be bridged
// into the mesh: what is plugged in there is on the mesh as members are.
func (n *Network) AddBridge(ctx context.Context, name string) (*Machine, error) {
	if n.opts.Ports == 0 {
		return nil, fmt.Errorf("%s: expected a network whose machines have ports for clients, got none", name)
	}
	first := 1 // after the uplink
	if n.opts.Mesh.byCable() {
		first++
	}
	b := n.Bundles.Node
	b.Name, b.Ports = name, maps.Clone(b.Ports)
	b.Ports[fmt.Sprintf("eth%d", first+n.opts.Ports-1)] = bundle.RoleBridge
	return n.addMember(ctx, b, Spec{Name: name, Role: model.RoleNode, Image: n.opts.NodeImage})
}

// AddStranger adds a node of another network, off. now is the time of its bundle.
func (n *Network) AddStranger(ctx context.Context, name string, now time.Time) (*Machine, error) {
	other, err := NewBundles("another", 1, now)
	if err != nil {
		return nil, err
	}
	other.Node.Name = name
	if n.opts.Mesh.byCable() {
		other.Node.Ports[meshPort] = "mesh" // or it would serve clients there, which is no knocking
	}
	return n.addMember(ctx, other.Node, Spec{Name: name, Role: model.RoleNode, Image: n.opts.NodeImage})
}

func (n *Network) addMember(ctx context.Context, b bundle.Bundle, s Spec) (m *Machine, err error) {
	if s.Bundle, err = b.Marshal(); err == nil {
		m, err = n.Add(ctx, s)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Name, err)
	}
	return m, nil
}

// Spec describes a machine to be added.
type Spec struct {
	Name   string
	Role   model.Role
	Image  string
	Bundle []byte // put onto its card as halo.toml; none when empty
	Clock  bool   // the machine has a clock that goes right; otherwise it starts in 1970
}

// Add makes another machine, off.
func (n *Network) Add(ctx context.Context, s Spec) (*Machine, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, errors.New("the network is closed")
	}
	if s.Name == Rogue {
		return nil, fmt.Errorf("a machine named %s: that is the name of a stranger's radio", Rogue)
	}
	for _, m := range n.machines {
		if m.Name() == s.Name {
			return nil, fmt.Errorf("there is a machine %s already", s.Name)
		}
	}
	dir := filepath.Join(n.opts.Dir, s.Name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	card, err := disk.Create(s.Image, filepath.Join(dir, "card.overlay"), rand.Uint64())
	if err != nil {
		return nil, err
	}
	m := &Machine{Disk: card, Role: s.Role, dir: dir}
	if err := m.prepare(ctx, n, s); err != nil {
		return nil, errors.Join(err, card.Close())
	}
	n.machines = append(n.machines, m)
	return m, nil
}

func (m *Machine) prepare(ctx context.Context, n *Network, s Spec) (err error) {
	if len(s.Bundle) > 0 {
		if err := m.PutBundle(ctx, s.Bundle); err != nil {
			return err
		}
	}
	if n.opts.Agent != "" {
		if err := putSettings(ctx, m.Disk, m.dir, n.opts.Agent); err != nil {
			return err
		}
	}
	guest := paths.FieldPort
	if s.Role == model.RoleGateway {
		guest = paths.APITLSPort
	}
	if m.port, err = freePort(); err != nil {
		return err
	}
	number := byte(len(n.machines))
	// The address of the first port is one that a factory would have given, from the range
	// for documentation (RFC 7042, 2.1.2): by it the gateway knows a board again whose card
	// was written anew.
	factory := net.HardwareAddr{0, 0, 0x5e, 0, 0x53, number}
	c := machine.Config{
		Name: s.Name, Dir: m.dir, Disk: m.Disk, MemoryMB: n.opts.MemoryMB, CPUs: processors(n.opts.Nodes + 1), Clock: s.Clock, Log: n.opts.Log,
		Camera: n.opts.Camera && s.Role != model.RoleGateway,
		NICs:   []machine.NIC{{MAC: factory, Forwards: []machine.Forward{{Host: m.port, Guest: guest}}}},
	}
	if n.opts.Mesh.byCable() {
		c.NICs = append(c.NICs, machine.NIC{
			MAC: net.HardwareAddr{0x52, 0x54, 0, 0x48, number, 1}, Plug: func(c net.Conn) error { return n.Switch.Plug(s.Name, c) },
		})
	}
	for i := range n.opts.Ports {
		own := ether.New(n.opts.Log, rand.Uint64())
		n.ports[s.Name] = append(n.ports[s.Name], own)
		c.NICs = append(c.NICs, machine.NIC{
			MAC: net.HardwareAddr{0x52, 0x54, 0, 0x48, number, byte(2 + i)}, Plug: func(c net.Conn) error { return own.Plug(s.Name, c) },
		})
	}
	if n.opts.Mesh.byAir() {
		mine := n.newRadios(s.Name, number)
		c.Air = func(conn net.Conn) error { return n.enter(m, mine, conn) }
	}
	if err := m.wire(&c, n, number); err != nil {
		return err
	}
	m.Machine, err = machine.New(c)
	return err
}

// wire gives a machine the devices of the network's options.
func (m *Machine) wire(c *machine.Config, n *Network, number byte) (err error) {
	l := n.opts.Devices
	if len(l.I2C) == 0 && len(l.Lines) == 0 && !l.GPS {
		return nil
	}
	if m.Board, err = bus.New(l, n.opts.Log.With("node", c.Name)); err != nil {
		return err
	}
	if g := m.Board.GPS; g != nil { // not all in one place
		lat := g.Status().Lat + 0.001*float64(number)
		if err := g.Apply(nmea.Change{Lat: &lat}); err != nil {
			return err
		}
	}
	c.Parts, c.PowerLost = m.Board.Parts(), m.Board.LosePower
	return nil
}

// processors is how many each of so many machines has: those of a Pi where the
// host has as many for all, and otherwise its share. More would wait for each
// other, which costs an emulator half of its speed.
func processors(machines int) int {
	const ofAPi = 4
	return max(1, min(ofAPi, runtime.NumCPU()/machines))
}

// FreshCard puts a card into a machine that is off as whoever has no bundle writes it, and
// returns the one that was in it, for ReturnCard or to be closed.
func (n *Network) FreshCard(ctx context.Context, m *Machine) (old *disk.Card, err error) {
	if old, err = m.Disk.Exchange(nil); err != nil || n.opts.Agent == "" {
		return old, err
	}
	return old, putSettings(ctx, m.Disk, m.dir, n.opts.Agent)
}

// ReturnCard puts a card into a machine that is off which was in it before, and returns
// the one that is in it.
func (n *Network) ReturnCard(m *Machine, c *disk.Card) (*disk.Card, error) { return m.Disk.Exchange(c) }

// NewCard puts a card into a machine that is off, written with the network's bundle for
// nodes anew: the device has another key than before.
func (n *Network) NewCard(ctx context.Context, m *Machine) error {
	b := n.Bundles.Node
	b.Name = m.Name()
	text, err := b.Marshal()
	if err == nil {
		var old *disk.Card
		if old, err = n.FreshCard(ctx, m); old != nil {
			err = errors.Join(err, old.Close())
		}
	}
	if err == nil {
		err = m.PutBundle(ctx, text)
	}
	return err
}

// EditBoot changes the boot partition of a machine that is off.
func (m *Machine) EditBoot(edit func(disk.Boot) error) error {
	boot, err := m.Disk.OpenBoot(m.dir)
	if err != nil {
		return err
	}
	if err = edit(boot); err == nil {
		err = boot.Commit()
	}
	return errors.Join(err, boot.Close())
}

// PutBundle writes a bundle onto the boot partition of a machine that is off.
func (m *Machine) PutBundle(ctx context.Context, text []byte) error {
	return m.EditBoot(func(b disk.Boot) error { return b.Write(ctx, filepath.Base(paths.Bundle), text) })
}

// PowerOn starts a machine. It runs until the network is closed, whatever
// happens to the caller.
func (n *Network) PowerOn(m *Machine) error { return m.Machine.PowerOn(n.life) }

// PowerOnAll starts all machines that are off, together.
func (n *Network) PowerOnAll() error {
	var g errgroup.Group
	for _, m := range n.Machines() {
		g.Go(func() error {
			if err := n.PowerOn(m); err != nil && !errors.Is(err, machine.ErrOn) {
				return err
			}
			return nil
		})
	}
	return g.Wait()
}

// Machines returns all machines, the gateway first.
func (n *Network) Machines() []*Machine {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]*Machine(nil), n.machines...)
}

// PlugInto plugs something into a machine's port, counted from 0, by a cable of
// that name, until either side closes conn. It hears what the machine sends there,
// and what others do that are plugged in.
func (n *Network) PlugInto(machine string, port int, name string, conn net.Conn) error {
	n.mu.Lock()
	list := n.ports[machine]
	n.mu.Unlock()
	if port < 0 || port >= len(list) {
		return fmt.Errorf("port %d of %s: expected one of %d", port, machine, len(list))
	}
	return list[port].Plug(name, conn)
}

// ErrNoMachine is wrapped where a name is not that of a machine.
var ErrNoMachine = errors.New("no such machine")

// Machine returns the machine of that name.
func (n *Network) Machine(name string) (*Machine, error) {
	var names []string
	for _, m := range n.Machines() {
		if m.Name() == name {
			return m, nil
		}
		names = append(names, m.Name())
	}
	return nil, fmt.Errorf("%w: expected one of %v, got %q", ErrNoMachine, names, name)
}

// URL returns where the machine's API or Field answers on this host.
func (m *Machine) URL() string {
	if m.Role == model.RoleGateway {
		return fmt.Sprintf("https://127.0.0.1:%d", m.port)
	}
	return fmt.Sprintf("http://127.0.0.1:%d", m.port)
}

// Close takes the power from all machines and returns when nothing of the
// network runs any more. Consoles stay. Closing twice is no error.
func (n *Network) Close() error {
	n.end()
	n.mu.Lock()
	machines, ports := n.machines, n.ports
	if n.closed {
		machines = nil
	}
	n.closed = true
	n.mu.Unlock()
	var errs []error
	for _, m := range machines {
		if err := m.PowerCut(); err != nil && !errors.Is(err, machine.ErrOff) {
			errs = append(errs, err)
		}
		errs = append(errs, m.Disk.Close())
		if m.Board != nil {
			m.Board.Close()
		}
	}
	n.Switch.Close()
	for _, list := range ports {
		for _, s := range list {
			s.Close()
		}
	}
	n.flying.Wait()
	return errors.Join(errs...)
}

// Ports that are tried for forwarding: below those that the system gives out by
// itself, so that nobody has one by accident when its machine starts again.
const (
	firstPort = 20000
	lastPort  = 31999
)

func freePort() (int, error) {
	for range 100 {
		port := firstPort + rand.IntN(lastPort-firstPort+1)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		return port, l.Close()
	}
	return 0, fmt.Errorf("no free port found from %d to %d", firstPort, lastPort)
}

// Package batman owns the batman-adv interface: it makes bat0 with the mesh
// profile's routing algorithm, puts proven ports into it and takes them out,
// and reads the tables that status and self-healing need. It speaks rtnetlink
// and generic netlink; what it finds already configured it leaves alone, so
// that halo-mesh may restart under a running mesh.
package batman

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/mdlayher/genetlink"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"halo.internal/identity"
)

// Routing algorithms of a mesh profile.
const (
	IV = "BATMAN_IV"
	V  = "BATMAN_V"
)

// Config says how the mesh interface is to be.
type Config struct {
	Name        string           // e.g. bat0
	Algorithm   string           // IV or V, the same on every node of a mesh
	MAC         net.HardwareAddr // see MAC
	OGMInterval time.Duration    // how often a node says that it exists; 0 is a second, right for Ethernet
	HopPenalty  uint8            // of 255, for each hop; 0 leaves the kernel's
	Bridged     bool             // others' devices are bridged into it, so that there may be loops
	Gateway     GatewayMode
}

func (c Config) ogmInterval() time.Duration {
	if c.OGMInterval == 0 {
		return time.Second
	}
	return c.OGMInterval
}

// Turns is how many addresses an interface has, of which it takes another one at each
// start of the machine. batman-adv numbers its messages from a random number on, and
// whoever hears a number far off under an address lets that pass once in 30 s
// (BATADV_RESET_PROTECTION_MS of the kernel): a node that starts twice within that
// would not be believed for as long. And it numbers what is sent to all from one: of a
// device that had sent no more than 64 of them, the others take as many of its next
// life for those that they have had (BATADV_BCAST_MAX_AGE).
const Turns = 4

// Turn returns the turn of a start of the machine.
func Turn(boot uint64) uint8 { return uint8((boot - 1) % Turns) }

// MAC returns the address of a node's mesh interface, at a turn: locally
// administered and derived from the identity, so that neither a restart nor a new
// radio makes the others learn the node anew. It goes with those of its ports and
// radios: others believe for minutes that the address is behind those of before.
func MAC(node identity.PublicKey, turn uint8) net.HardwareAddr {
	h := sha256.Sum256(append([]byte("halo bat0 mac 1"), node[:]...))
	mac := net.HardwareAddr(h[:6])
	mac[0] = mac[0]&^0x01 | 0x02
	return Turned(mac, turn)
}

// Turned returns the address that an interface takes at a turn instead of its
// own: itself at the first, else one that is locally administered, as mac80211
// makes them for the further interfaces of a radio.
func Turned(own net.HardwareAddr, turn uint8) net.HardwareAddr {
	mac := slices.Clone(own)
	if turn %= Turns; turn > 0 {
		mac[0] = (mac[0] | 0x02) ^ turn<<2
	}
	return mac
}

// AnyTurn returns what the addresses of one interface at all its turns have in common:
// an address by which to know them, which none of them need be.
func AnyTurn(own net.HardwareAddr) net.HardwareAddr {
	mac := slices.Clone(own)
	if mac[0]&0x02 != 0 {
		mac[0] &^= (Turns - 1) << 2
	}
	return mac
}

// Aside returns the address of the mesh interface of a gateway that has stood down:
// another one has its address, and routing would take either for the other.
func Aside(own net.HardwareAddr) net.HardwareAddr {
	mac := slices.Clone(own)
	mac[0] ^= 0x40 // no turn changes this bit
	return mac
}

// Mesh is the mesh interface. Its methods may be called from any goroutine.
type Mesh struct {
	name  string
	index int
	conn  *genetlink.Conn
	fam   genetlink.Family
}

// Open makes the interface as c says, or adopts and corrects the one that is
// there, and brings it up. An interface with another routing algorithm is made
// anew: the kernel can't change it. The error wraps fs.ErrNotExist where the
// kernel has no batman-adv.
func Open(c Config) (*Mesh, error) {
	if c.Algorithm != IV && c.Algorithm != V {
		return nil, fmt.Errorf("batman: routing algorithm: expected %s or %s, got %q", IV, V, c.Algorithm)
	}
	if len(c.MAC) != 6 {
		return nil, fmt.Errorf("batman: MAC: expected 6 octets, got %d", len(c.MAC))
	}
	// The link comes first: asking for one of this kind makes the kernel load the
	// module, and only then is there a generic netlink family.
	link, err := ensureLink(c)
	if err != nil {
		return nil, err
	}
	m, err := dial(c.Name, link.Attrs().Index)
	if err != nil {
		return nil, err
	}
	if err := m.configure(c); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

func dial(name string, index int) (*Mesh, error) {
	conn, err := genetlink.Dial(nil)
	if err != nil {
		return nil, fmt.Errorf("batman: generic netlink: %w", err)
	}
	fam, err := conn.GetFamily(familyName)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("batman: generic netlink family %s: %w", familyName, err), conn.Close())
	}
	return &Mesh{name: name, index: index, conn: conn, fam: fam}, nil
}

// Close closes the netlink socket; the interface stays.
func (m *Mesh) Close() error { return m.conn.Close() }

// Index returns the interface's index.
func (m *Mesh) Index() int { return m.index }

// ensureLink returns the link of c's name, kind and algorithm.
func ensureLink(c Config) (netlink.Link, error) {
	link, err := netlink.LinkByName(c.Name)
	if err == nil {
		if link.Type() != linkKind {
			return nil, fmt.Errorf("batman: %s: expected a link of kind %s, got %s", c.Name, linkKind, link.Type())
		}
		algorithm, err := currentAlgorithm(c.Name, link.Attrs().Index)
		if err != nil {
			return nil, err
		}
		if algorithm == c.Algorithm {
			return link, nil
		}
		if err := netlink.LinkDel(link); err != nil {
			return nil, fmt.Errorf("batman: remove %s, which runs %s, expected %s: %w", c.Name, algorithm, c.Algorithm, err)
		}
	} else if _, missing := errors.AsType[netlink.LinkNotFoundError](err); !missing {
		return nil, fmt.Errorf("batman: find %s: %w", c.Name, err)
	}
	if err := newLink(c); err != nil {
		return nil, err
	}
	if link, err = netlink.LinkByName(c.Name); err != nil {
		return nil, fmt.Errorf("batman: find %s after making it: %w", c.Name, err)
	}
	return link, nil
}

func currentAlgorithm(name string, index int) (_ string, err error) {
	m, err := dial(name, index)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	info, err := m.Info()
	return info.Algorithm, err
}

// newLink makes the link by hand: the netlink library knows no batadv links,
// and a generic one can't carry the algorithm, which is chosen at birth.
func newLink(c Config) error {
	req := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	for _, a := range linkAttributes(c) {
		req.AddData(a)
	}
	if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		if errors.Is(err, unix.EOPNOTSUPP) {
			return fmt.Errorf("batman: the kernel makes no link of kind %s: %w", linkKind, errors.Join(fs.ErrNotExist, err))
		}
		return fmt.Errorf("batman: make %s: %w", c.Name, err)
	}
	return nil
}

// configure corrects what may be changed on a living interface.
func (m *Mesh) configure(c Config) error {
	if err := m.set(c); err != nil {
		return err
	}
	link, err := netlink.LinkByIndex(m.index)
	if err != nil {
		return fmt.Errorf("batman: find %s: %w", m.name, err)
	}
	if link.Attrs().HardwareAddr.String() != c.MAC.String() {
		if err := netlink.LinkSetHardwareAddr(link, c.MAC); err != nil {
			return fmt.Errorf("batman: give %s the address %s: %w", m.name, c.MAC, err)
		}
	}
	if err := undoubted(m.name); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("batman: bring up %s: %w", m.name, err)
	}
	return nil
}

// undoubted has the interface take its link-local address without asking all whether
// somebody has it (RFC 4862, 5.4): it follows from the hardware address, which is the
// node's own. The question would take 270 ms of a HaLow channel on which ten are.
func undoubted(iface string) error {
	for _, key := range []string{"accept_dad", "dad_transmits"} {
		err := os.WriteFile(filepath.Join("/proc/sys/net/ipv6/conf", iface, key), []byte("0"), 0)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // a kernel without IPv6 has none to set
			return fmt.Errorf("batman: %s: %w", iface, err)
		}
	}
	return nil
}

// Enslave makes the interface of that name carry the mesh. One that already
// does stays as it is; one that belongs to something else is an error.
func (m *Mesh) Enslave(iface string) error {
	link, err := netlink.LinkByName(iface)
	if err != nil {
		return fmt.Errorf("batman: find port %s: %w", iface, err)
	}
	switch link.Attrs().MasterIndex {
	case m.index:
		return nil
	case 0:
	default:
		return fmt.Errorf("batman: port %s: expected one without a master, it belongs to interface %d", iface, link.Attrs().MasterIndex)
	}
	if err := netlink.LinkSetMasterByIndex(link, m.index); err != nil {
		return fmt.Errorf("batman: put port %s into %s: %w", iface, m.name, err)
	}
	return nil
}

// Release takes the interface of that name out of the mesh. One that is not in
// it, or not there any more, is no error.
func (m *Mesh) Release(iface string) error {
	link, err := netlink.LinkByName(iface)
	if _, missing := errors.AsType[netlink.LinkNotFoundError](err); missing {
		return nil
	}
	if err != nil {
		return fmt.Errorf("batman: find port %s: %w", iface, err)
	}
	if link.Attrs().MasterIndex != m.index {
		return nil
	}
	if err := netlink.LinkSetNoMaster(link); err != nil {
		return fmt.Errorf("batman: take port %s out of %s: %w", iface, m.name, err)
	}
	return nil
}

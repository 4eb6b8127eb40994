package mesh

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"halo.internal/identity"
	"halo.internal/mesh/apart"
	"halo.internal/mesh/batman"
	"halo.internal/mesh/bridge"
	"halo.internal/mesh/dhcp"
	"halo.internal/mesh/doctor"
	"halo.internal/mesh/port"
	"halo.internal/mesh/radio"
	"halo.internal/mesh/wireless"
	"halo.internal/model"
	"halo.internal/model/bundle"
	"halo.internal/model/dot11"
	"halo.internal/model/paths"
)

// Underlay is what carries the mesh: bat0 and the ports and radios under it.
type Underlay interface {
	Air
	doctor.Underlay
	// Run makes bat0, gives it its address and serves the ports until ctx ends.
	Run(ctx context.Context) error
	// Ready returns nil while bat0 is up and has the underlay address, otherwise what is
	// missing. A gateway that stands aside has no addresses to have.
	Ready() error
	// Lacking returns nil while bat0 has all ports and radios that carry the mesh, otherwise
	// which are missing: it works with less.
	Lacking() error
	// Switch has ports and radios use another mesh profile from now on.
	Switch(bundle.Mesh)
	// Permit says why this device may not use a mesh profile, or nothing.
	Permit(bundle.Mesh) error
	// Say sends a few octets past the mesh: to one that was heard, or where to is the
	// zero value to all around.
	Say(to Stranger, payload []byte)
	// Hangs returns what has not come back from the kernel for longest, in words, and for
	// how long; 0: all has. It asks the kernel for nothing.
	Hangs() (what string, long time.Duration)
	// Carries tells whether routing hears a member by any port or radio; where it does not
	// say within seconds it is false.
	Carries() bool
	// Aside takes the gateway's addresses off the mesh, where another gateway has them,
	// or gives them back. It may be called with the same again.
	Aside(bool) error
	// Recheck looks again whether all who proved themselves are still admitted.
	Recheck()
	Ports() []model.Port
	Neighbours() ([]model.Neighbour, error)
	Originators() (int, error)
	// NextHop returns the neighbour by which routing reaches the gateway, as routing said
	// when it was asked for anything last; nil at the gateway, and where no way is in use.
	NextHop() *model.ReportNextHop
	// Ways returns what routing knows, with those of these members that its addresses are
	// said to be of; nothing while there is no mesh interface.
	Ways(members []identity.PublicKey) (Ways, error)
	// Tables returns what batman-adv has in those of its tables; nothing while there is no
	// mesh interface.
	Tables(...string) (Tables, error)
	// Present returns the hardware addresses that routing knows a way to, as far as some
	// member says that they are behind it; nil while that can't be told.
	Present() map[dot11.MAC]bool
	// Meet has the kernel know the hardware addresses of these members on the mesh, as
	// far as they follow from keys and routing, so that nobody has to be asked for them.
	// There says that they were heard just now. It tells whether routing knows the way to
	// all of them. Nothing is done while there is no mesh interface.
	Meet(members []Acquaintance, there bool) (known bool, err error)
}

// Air is what can be seen of the radios and asked of them. Errors wrap those of
// package api.
type Air interface {
	Radios() []model.Radio
	// Standing is Radios without what tables of the kernel say of members: as far as the
	// health graph needs it, which looks often.
	Standing() []model.Radio
	// Scan has a radio look who is there, for up to 20 s.
	Scan(context.Context, model.ScanRequest) (model.RadioScan, error)
	Channels() ([]model.RadioChannels, error)
	Legal() ([]model.Legality, error)
	// Capture writes a pcap; an error may come after the first octets.
	Capture(context.Context, model.CaptureRequest, io.Writer) error
}

// UnderlayConfig is what an underlay needs of the settled device.
type UnderlayConfig struct {
	Key     identity.Key
	Turn    uint8 // of the addresses of bat0 and the radios, see batman.Turns
	Network identity.PublicKey
	Bundle  bundle.Bundle
	HaLow   string // file with the settings of the board's HaLow radio, if it has one
	// Admit says why a device that proved the mesh's secret on a port is no member.
	Admit func(identity.PublicKey) error
	// Strange gets what was said past the mesh. It must not block.
	Strange func(from Stranger, payload []byte)
	Memory  port.Memory         // of what a gateway's ports have proved to be; nil on a node
	Fitted  func(*radio.Config) // see wireless.Config; nil on boards
	Notify  func(model.Event)
	// Found gets what a lonely device hears of its mesh on other channels, see
	// wireless.Config; it may be nil.
	Found func(radio string, n model.RadioNetwork)
	Log   *slog.Logger
}

// retryUnderlay is how often bat0 is tried anew: the kernel's modules may come
// late, but not soon after a failure.
const retryUnderlay = 5 * time.Second

// batUnderlay is the Underlay of a board.
type batUnderlay struct {
	UnderlayConfig

	wireless *wireless.Wireless
	placing  sync.Mutex    // held while the gateway's addresses come or go
	meeting  sync.Mutex    // held while entries of neighbours are changed
	paced    chan struct{} // awake when routing may have to say more often or more rarely that it exists

	mu    sync.Mutex // guards what follows
	mesh  bundle.Mesh
	again map[string]context.CancelFunc // ends what runs on a profile that was switched from
	wires map[string]*outside           // ports on which strangers are heard
	err   error
	harm  error // what bat0 has lost and could not be given back
	less  error // which ports it has lost that could not be put back
	bat   *batman.Mesh
	held  *carried // which ports and radios are in it
	ports *port.Ports
	aside bool // another gateway has this one's addresses
	amiss bool // and the addresses are not yet as that says
	links map[dot11.MAC][]dot11.MAC
	asked time.Time // when routing was asked for the links
	ended time.Time // when what runs was told to end, and has not; zero: it was not

	carries apart.Question[bool]

	gateway gatewayWay // as routing said last
}

// NewUnderlay returns the board's underlay: batman-adv over proven Ethernet
// ports and over radios.
func NewUnderlay(c UnderlayConfig) Underlay {
	u := &batUnderlay{UnderlayConfig: c, mesh: c.Bundle.Mesh, again: map[string]context.CancelFunc{}, wires: map[string]*outside{}, paced: make(chan struct{}, 1), err: errors.New("not made yet")}
	country := c.Bundle.Country
	if country == bundle.UnknownCountry {
		country = ""
	}
	u.wireless = wireless.New(wireless.Config{
		Country: country, Mesh: c.Bundle.Mesh, HaLow: c.HaLow, Suffix: suffix(c.Key), Carrier: carrier{u},
		Address: func(own net.HardwareAddr) net.HardwareAddr { return batman.Turned(own, c.Turn) },
		Links:   u.linksOfOthers, Alone: u.alone, Routed: u.routed, Found: c.Found, Fitted: c.Fitted, Strange: u.overheard, Notify: c.Notify, Log: c.Log,
	})
	return u
}

// suffix is the end of the address of a HaLow radio whose chip has none: the
// node's own, for all starts.
func suffix(key identity.Key) (s [3]byte) {
	public := key.Public()
	h := sha256.Sum256(append([]byte("halo halow mac 1"), public[:]...))
	copy(s[:], h[:])
	s[2] |= 1 // never all zero, which the driver takes for none
	return s
}

func (u *batUnderlay) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		inner, done := u.switchable(ctx, partAll)
		err := u.serve(inner)
		switched := inner.Err() != nil
		done()
		if ctx.Err() != nil {
			break
		}
		if switched && err == nil {
			continue
		}
		u.mu.Lock()
		again := u.err != nil && err != nil && u.err.Error() == err.Error()
		u.err = err
		u.mu.Unlock()
		if !again {
			u.Notify(model.Event{Kind: "mesh.bat0.failed", Severity: model.Error, Message: "the mesh interface does not work: " + err.Error()})
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryUnderlay):
		}
	}
	return nil
}

func (u *batUnderlay) serve(ctx context.Context) error {
	mesh := u.profile()
	c := batman.Config{Name: paths.BatIface, Algorithm: mesh.Routing, MAC: batman.MAC(u.Key.Public(), u.Turn), Gateway: batman.GatewayClient, Bridged: u.Bundle.Bridged() > 0, OGMInterval: paceOf(mesh).eager(), HopPenalty: mesh.Penalty()}
	if u.Bundle.Role == model.RoleGateway {
		c.Gateway = batman.GatewayServer
	}
	bat, err := batman.Open(c)
	if err != nil {
		return err
	}
	defer bat.Close()
	if err := BridgeUnderlay(c.MAC, u.Bundle.Bridged()); err != nil {
		return err
	}
	iface := underlayIface(u.Bundle)
	if err := AddressUnderlay(iface, identity.Underlay(u.Network, u.Key.Public())); err != nil {
		return err
	}
	if u.Bundle.Role == model.RoleGateway {
		if err := addressGateway(iface); err != nil {
			return err
		}
	}
	// A port with fixed settings is an uplink: there is no server whose answer would tell.
	fixed, pins := map[string]dhcp.Static{}, map[string]string{}
	maps.Copy(pins, u.Bundle.Ports)
	for name, s := range u.Bundle.Static {
		fixed[name], pins[name] = dhcp.Static(s), port.Uplink
	}
	up, err := dhcp.New(dhcp.Config{Hostname: u.Bundle.Name, Static: fixed, Resolv: paths.Upstreams, Notify: u.Notify, Log: u.Log})
	if err != nil {
		return err
	}
	own, err := dhcp.New(dhcp.Config{Own: paths.UnderlayNet, Hostname: u.Bundle.Name, Notify: u.Notify, Log: u.Log})
	if err != nil {
		return err
	}
	held := newCarried(bat, bat.Index())
	ports, err := port.New(port.Config{
		Key: u.Key, Network: u.Network, PSK: mesh.PSK, Pins: pins, Admit: u.Admit,
		Carrier: held, Clients: bridge.Ports(paths.ClientBridge), Guests: bridge.Ports(paths.MeshBridge), Upstream: up, Gateway: u.Bundle.Role == model.RoleGateway,
		Address: func(own net.HardwareAddr) net.HardwareAddr { return batman.Turned(own, u.Turn) },
		Memory:  u.Memory, Notify: u.Notify, Log: u.Log,
	})
	if err != nil {
		return err
	}
	u.set(nil, bat, held, ports)
	defer u.set(errors.New("stopped"), nil, nil, nil)
	if u.isAside() {
		if err := u.place(); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	// Where something hangs in the kernel, all below waits for it: nobody is to believe
	// meanwhile that the mesh interface works.
	defer context.AfterFunc(ctx, func() { u.ending(bat) })()
	var owned sync.WaitGroup
	defer owned.Wait()
	defer cancel()
	owned.Go(func() { u.runRadios(ctx) })
	owned.Go(func() { u.listenOutside(ctx) })
	owned.Go(func() { keepPace(ctx, bat, c.OGMInterval, u.pace, u.paced, u.Log) })
	if mesh.Routing == batman.V {
		owned.Go(func() { u.keepWorth(ctx, bat, u.Log) })
	}
	if u.Bundle.Role == model.RoleNode {
		owned.Go(func() { u.keepAddress(ctx, own) })
	}
	var lost error // bat0, which makes all anew
	owned.Go(func() { lost = guardBat(ctx, cancel, bat) })
	owned.Go(func() { u.integrity(bat, held).run(ctx) })
	err = ports.Run(ctx)
	cancel()
	owned.Wait()
	return cmp.Or(lost, err)
}

// addressSpread is within what time of its start a node on a HaLow channel asks for an
// IPv4 address: where many begin together, they have the channel for what they need.
const addressSpread = 2 * time.Minute

// keepAddress has the gateway give this node an IPv4 address on the mesh, for
// whoever needs one there: HALO itself does not.
func (u *batUnderlay) keepAddress(ctx context.Context, own *dhcp.Client) {
	if u.profile().HaLowChannel != 0 {
		select {
		case <-ctx.Done():
		case <-time.After(rand.N(addressSpread)):
		}
	}
	for ctx.Err() == nil {
		if err := own.Run(ctx, underlayIface(u.Bundle)); err != nil {
			u.Log.Debug("no IPv4 address on the mesh", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(retryUnderlay):
		}
	}
}

// addressGateway gives the interface the gateway's IPv4 address on the mesh.
func addressGateway(iface string) error {
	link, err := netlink.LinkByName(iface)
	if err != nil {
		return fmt.Errorf("underlay: find %s: %w", iface, err)
	}
	a := &netlink.Addr{IPNet: &net.IPNet{IP: paths.UnderlayGateway.AsSlice(), Mask: net.CIDRMask(paths.UnderlayNet.Bits(), 32)}}
	if err := netlink.AddrReplace(link, a); err != nil {
		return fmt.Errorf("underlay: address %s on %s: %w", paths.UnderlayGateway, iface, err)
	}
	return nil
}

func (u *batUnderlay) set(err error, bat *batman.Mesh, held *carried, ports *port.Ports) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.err, u.harm, u.less, u.bat, u.held, u.ports, u.gateway, u.ended = err, nil, nil, bat, held, ports, gatewayWay{}, time.Time{}
}

// ending says that what runs over bat was told to end.
func (u *batUnderlay) ending(bat *batman.Mesh) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.bat == bat {
		u.err, u.ended = errors.New("stopped"), time.Now()
	}
}

// open returns bat0 and its ports, nil while there are none. The kernel is asked
// without a lock of ours: it may take its time.
func (u *batUnderlay) open() (*batman.Mesh, *port.Ports) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.bat, u.ports
}

func (u *batUnderlay) Ready() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return cmp.Or(u.err, u.harm)
}

func (u *batUnderlay) Lacking() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.less
}

func (u *batUnderlay) Ports() []model.Port {
	u.mu.Lock()
	ports := u.ports
	u.mu.Unlock()
	if ports == nil {
		return []model.Port{}
	}
	return ports.List()
}

func (u *batUnderlay) Neighbours() ([]model.Neighbour, error) {
	out := []model.Neighbour{}
	bat, ports := u.open()
	if bat == nil {
		return out, nil
	}
	list, err := bat.Neighbours()
	gateway := u.gatewayAddress()
	for _, n := range list {
		id, proven := ports.Member(n.Iface, n.MAC)
		if !proven && n.MAC.String() == gateway {
			id = u.Network.ID()
		}
		out = append(out, model.Neighbour{
			Iface: n.Iface, MAC: n.MAC.String(), Node: id, LastSeenMS: n.LastSeen.Milliseconds(),
			TQ: n.TQ, Throughput: n.Throughput,
		})
	}
	return out, err
}

// Originators counts the other nodes of the mesh that there is a way to.
func (u *batUnderlay) Originators() (int, error) {
	bat, _ := u.open()
	if bat == nil {
		return 0, nil
	}
	list, err := bat.Originators()
	seen := map[string]bool{}
	for _, o := range list {
		seen[o.MAC.String()] = true
	}
	return len(seen), err
}

// Present asks batman-adv's table of clients, which has the addresses of bat0 of all
// that are reached.
func (u *batUnderlay) Present() map[dot11.MAC]bool {
	bat, _ := u.open()
	if bat == nil {
		return nil
	}
	list, err := bat.Clients()
	if err != nil {
		return nil
	}
	there := make(map[dot11.MAC]bool, len(list))
	for _, c := range list {
		if len(c.MAC) == 6 {
			there[dot11.MAC(c.MAC)] = true
		}
	}
	return there
}

// AddressUnderlay gives the interface the underlay address. Router
// advertisements are not listened to: no member may give this node a route.
// Duplicate address detection is off, as the address follows from the key.
func AddressUnderlay(iface string, addr netip.Addr) error {
	for key, value := range map[string]string{"disable_ipv6": "0", "accept_ra": "0"} {
		if err := os.WriteFile(filepath.Join("/proc/sys/net/ipv6/conf", iface, key), []byte(value), 0); err != nil {
			return fmt.Errorf("underlay: %w", err)
		}
	}
	link, err := netlink.LinkByName(iface)
	if err != nil {
		return fmt.Errorf("underlay: find %s: %w", iface, err)
	}
	a := &netlink.Addr{IPNet: &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(64, 128)}, Flags: unix.IFA_F_NODAD}
	if err := netlink.AddrReplace(link, a); err != nil {
		return fmt.Errorf("underlay: address %s on %s: %w", addr, iface, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("underlay: bring up %s: %w", iface, err)
	}
	return nil
}

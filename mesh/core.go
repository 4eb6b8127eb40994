package mesh

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"halo.internal/identity"
	"halo.internal/mesh/announce"
	"halo.internal/mesh/overlay"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// announceConfig is what both sides of the announcements need.
func (m *core) announceConfig() announce.Config {
	return announce.Config{
		Network: m.net, Key: m.id.Key, Boot: m.id.BootCounter, Since: sinceBoot,
		Steps: func() uint32 { return m.clock.State().Steps },
		Open: func() (announce.Socket, error) {
			if err := m.under.Ready(); err != nil {
				return nil, err
			}
			return announce.OpenSocket(underlayIface(m.bundle))
		},
		Timing: m.AnnounceTiming, Log: m.Log,
	}
}

// sinceBoot returns the milliseconds since the machine started, sleep included.
func sinceBoot() uint64 { return uint64(bootTime() / time.Millisecond) }

// bootTime is the same, exactly (CLOCK_BOOTTIME): all processes have it in common, and
// nobody sets it.
func bootTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic("mesh: no boot clock: " + err.Error()) // every kernel since 2.6.39 has it
	}
	return time.Duration(t.Nano())
}

// errNoUnderlay is wrapped while the overlay waits for what it runs over. That
// has checks and events of its own.
var errNoUnderlay = errors.New("overlay waits for the mesh interface")

// overlayTale makes events of what becomes of the overlay: one when it begins to
// fail, one when it works again. It waits for the underlay at every start, which
// is no failure.
type overlayTale struct{ failing bool }

func (o *overlayTale) tell(err error, add func(kind string, s model.Severity, message string, fields ...string)) {
	switch {
	case errors.Is(err, errNoUnderlay):
	case err != nil && !o.failing:
		o.failing = true
		add("overlay.failed", model.Error, err.Error())
	case err == nil && o.failing:
		o.failing = false
		add("overlay.recovered", model.Info, "the overlay works again")
	}
}

// eventOverlayLost is the kind of the event that tells that wg0 has gone from the kernel.
const eventOverlayLost = "overlay.lost"

// openOverlay opens wg0 with those addresses over bat0, with the key in use. publish has
// the others have the device, and is called before that key can be another.
func (m *core) openOverlay(v4, v6 netip.Addr, publish func(*overlay.Device)) (*overlay.Device, error) {
	if err := m.under.Ready(); err != nil {
		return nil, fmt.Errorf("%w: %w", errNoUnderlay, err)
	}
	under := underlayIface(m.bundle)
	link, err := netlink.LinkByName(under)
	if err != nil {
		return nil, fmt.Errorf("overlay: find %s: %w", under, err)
	}
	m.keys.applying.Lock()
	defer m.keys.applying.Unlock()
	dev, err := overlay.Open(overlay.Config{
		Name: paths.OverlayIface, Key: m.keys.secret(), Port: paths.WireGuardPort, UnderlayMTU: link.Attrs().MTU,
		Addresses: []netip.Prefix{netip.PrefixFrom(v4, paths.OverlayNet.Bits()), netip.PrefixFrom(v6, 64)},
		Routes:    m.overlayRoutes(), Inner: []string{paths.ClientBridge},
		Userspace: m.Userspace, Log: m.Log,
	})
	if err != nil {
		return nil, err
	}
	publish(dev)
	return dev, nil
}

// overlayRoutes are what lies behind the overlay: the clients of all nodes and, from
// a node, the way out of the network.
func (m *core) overlayRoutes() []netip.Prefix {
	list := []netip.Prefix{paths.ClientsNet, netip.PrefixFrom(identity.Overlay(m.net, m.net), 48).Masked()}
	if m.Role == model.RoleNode {
		list = append(list, netip.PrefixFrom(netip.IPv4Unspecified(), 0))
	}
	return list
}

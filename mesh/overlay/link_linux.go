package overlay

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// wireguardKind is the kernel's name for links of WireGuard.
const wireguardKind = "wireguard"

// openBackend prefers the kernel.
func openBackend(cfg Config) (_ backend, kernels bool, err error) {
	name, mtu := cfg.Name, MTU(cfg.UnderlayMTU)
	if cfg.Userspace {
		b, err := openUserspace(name, mtu, cfg.Log)
		return b, false, err
	}
	kind := cmp.Or(cfg.kind, wireguardKind)
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = name, mtu
	err = netlink.LinkAdd(&netlink.GenericLink{LinkAttrs: attrs, LinkType: kind})
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		cfg.Log.Warn("the kernel has no WireGuard: the overlay runs in this process", "iface", name)
		b, err := openUserspace(name, mtu, cfg.Log)
		return b, false, err
	case errors.Is(err, unix.EEXIST):
		link, err := netlink.LinkByName(name)
		if err != nil {
			return nil, false, fmt.Errorf("overlay: find %s: %w", name, err)
		}
		if link.Type() != kind {
			return nil, false, fmt.Errorf("overlay: %s: expected a link of kind %s, got %s", name, kind, link.Type())
		}
		if err := netlink.LinkSetMTU(link, mtu); err != nil {
			return nil, false, fmt.Errorf("overlay: MTU of %s: %w", name, err)
		}
	case err != nil:
		return nil, false, fmt.Errorf("overlay: make %s: %w", name, err)
	}
	c, err := wgctrl.New()
	if err != nil {
		return nil, false, fmt.Errorf("overlay: wgctrl: %w", err)
	}
	s, err := newShakes(name)
	if err != nil {
		return nil, false, errors.Join(fmt.Errorf("overlay: netlink: %w", err), c.Close())
	}
	return &kernel{c, name, s}, true, nil
}

type kernel struct {
	client *wgctrl.Client
	name   string
	hands  *shakes
}

func (k *kernel) configure(c wgtypes.Config) error { return k.client.ConfigureDevice(k.name, c) }

func (k *kernel) peers() ([]wgtypes.Peer, error) {
	d, err := k.client.Device(k.name)
	if err != nil {
		return nil, err
	}
	return d.Peers, nil
}

func (k *kernel) shakes() ([]shake, error) { return k.hands.list() }

func (k *kernel) close() error {
	k.hands.close()
	return k.client.Close()
}

// route makes the configured networks reached through the interface. Those of an
// earlier process are the same, or have gone with its addresses.
func (d *Device) route() error {
	link, err := netlink.LinkByName(d.cfg.Name)
	if err != nil {
		return fmt.Errorf("overlay: find %s: %w", d.cfg.Name, err)
	}
	for _, p := range d.cfg.Routes {
		r := &netlink.Route{
			LinkIndex: link.Attrs().Index, Priority: Metric, Protocol: unix.RTPROT_STATIC,
			Dst: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())},
		}
		if err := netlink.RouteReplace(r); err != nil {
			return fmt.Errorf("overlay: route to %s through %s: %w", p, d.cfg.Name, err)
		}
	}
	return nil
}

// Guard looks whether the interface is what Open made, and puts back addresses that have
// gone, and with routes those too. Somebody's mistake takes them, or a driver's; nothing
// else would notice. It wraps ErrLost where the interface itself is another, or none: the
// device is to be closed and opened again. It may be called often: it looks every
// guardEvery, and says until then what it found.
func (d *Device) Guard(routes bool) error {
	d.mu.Lock()
	now := time.Now()
	if now.Sub(d.guarded) < guardEvery {
		defer d.mu.Unlock()
		return d.guardErr
	}
	d.guarded = now
	d.mu.Unlock()
	err := d.mend(routes)
	if errors.Is(err, netlink.ErrDumpInterrupted) {
		err = nil // what was asked for changed meanwhile: the next look has it
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.guardErr = err
	return err
}

func (d *Device) mend(routes bool) error {
	link, err := netlink.LinkByName(d.cfg.Name)
	if missing, ok := errors.AsType[netlink.LinkNotFoundError](err); ok {
		return fmt.Errorf("overlay: %w: %w", ErrLost, missing)
	}
	if err != nil {
		return fmt.Errorf("overlay: find %s: %w", d.cfg.Name, err)
	}
	if link.Attrs().Index != d.index {
		return fmt.Errorf("overlay: %w: %s is another one", ErrLost, d.cfg.Name)
	}
	have, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("overlay: addresses of %s: %w", d.cfg.Name, err)
	}
	whole := link.Attrs().Flags&net.FlagUp != 0
	for _, p := range d.cfg.Addresses {
		whole = whole && slices.ContainsFunc(have, func(a netlink.Addr) bool { ip, ok := netip.AddrFromSlice(a.IP); return ok && ip.Unmap() == p.Addr() })
	}
	if !whole {
		if err := d.address(); err != nil {
			return err
		}
	}
	if !routes {
		return nil
	}
	list, err := netlink.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{LinkIndex: d.index}, netlink.RT_FILTER_OIF)
	if err != nil {
		return fmt.Errorf("overlay: routes through %s: %w", d.cfg.Name, err)
	}
	for _, p := range d.cfg.Routes {
		if !slices.ContainsFunc(list, func(r netlink.Route) bool { return r.Dst != nil && r.Dst.String() == p.Masked().String() }) {
			return d.route()
		}
	}
	return nil
}

// address makes the interface's addresses exactly the configured ones and
// brings it up. Duplicate address detection is off: the addresses follow from
// keys or are given out by the gateway.
func (d *Device) address() error {
	link, err := netlink.LinkByName(d.cfg.Name)
	if err != nil {
		return fmt.Errorf("overlay: find %s: %w", d.cfg.Name, err)
	}
	d.index = link.Attrs().Index
	have, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("overlay: addresses of %s: %w", d.cfg.Name, err)
	}
	for _, a := range have {
		if ip, ok := netip.AddrFromSlice(a.IP); ok && slices.ContainsFunc(d.cfg.Addresses, func(p netip.Prefix) bool { return p.Addr() == ip.Unmap() }) {
			continue
		}
		if err := netlink.AddrDel(link, &a); err != nil {
			return fmt.Errorf("overlay: remove address %s of %s: %w", a.IPNet, d.cfg.Name, err)
		}
	}
	for _, p := range d.cfg.Addresses {
		a := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
		if p.Addr().Is6() {
			a.Flags = unix.IFA_F_NODAD
		}
		if err := netlink.AddrReplace(link, a); err != nil {
			return fmt.Errorf("overlay: address %s on %s: %w", p, d.cfg.Name, err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("overlay: bring up %s: %w", d.cfg.Name, err)
	}
	return nil
}

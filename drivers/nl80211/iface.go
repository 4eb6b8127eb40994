package nl80211

import (
	"fmt"
	"net"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// InterfaceType is what an interface is used as (NL80211_IFTYPE_*).
type InterfaceType uint32

// Interface types that HALO uses.
const (
	Station   InterfaceType = unix.NL80211_IFTYPE_STATION
	AP        InterfaceType = unix.NL80211_IFTYPE_AP
	Monitor   InterfaceType = unix.NL80211_IFTYPE_MONITOR
	MeshPoint InterfaceType = unix.NL80211_IFTYPE_MESH_POINT
)

// String returns the name that iw gives it.
func (t InterfaceType) String() string {
	switch t {
	case Station:
		return "managed"
	case AP:
		return "AP"
	case Monitor:
		return "monitor"
	case MeshPoint:
		return "mesh point"
	}
	return fmt.Sprintf("type %d", uint32(t))
}

// Interface is a network interface of a radio.
type Interface struct {
	Index      int
	Name       string
	Wiphy      int
	Wdev       uint64 // the kernel's number, also of what has no network interface
	Type       InterfaceType
	MAC        net.HardwareAddr
	Channel    Channel // zero while it is on none
	TxPowerMBm int     // hundredths of a dBm
}

// Interfaces lists the interfaces of all radios of the namespace. The kernel waits for
// each radio in turn, under the lock of all network interfaces: where one may hang,
// InterfacesOf holds up nothing else.
func (c *Conn) Interfaces() ([]Interface, error) { return c.interfaces(nil) }

// InterfacesOf lists the interfaces of one radio, and asks no other.
func (c *Conn) InterfacesOf(radio int) ([]Interface, error) {
	return c.interfaces(func(e *netlink.AttributeEncoder) { wiphy(e, radio) })
}

func (c *Conn) interfaces(of func(e *netlink.AttributeEncoder)) ([]Interface, error) {
	var all []Interface
	err := c.dump("list interfaces", request{command: unix.NL80211_CMD_GET_INTERFACE, attrs: of}, func() { all = nil }, func(b []byte) error {
		i, err := parseInterface(b)
		all = append(all, i)
		return err
	})
	return all, err
}

// Interface returns one interface; the error wraps unix.ENODEV when there is
// none.
func (c *Conn) Interface(index int) (Interface, error) {
	b, err := c.get("find interface", unix.NL80211_CMD_GET_INTERFACE, func(e *netlink.AttributeEncoder) { ifindex(e, index) })
	if err != nil {
		return Interface{}, err
	}
	return parseInterface(b)
}

// NewInterface makes an interface on a radio. It is down. mac may be nil, for
// the radio's own.
func (c *Conn) NewInterface(radio int, name string, t InterfaceType, mac net.HardwareAddr) (Interface, error) {
	b, err := c.get("make interface "+name, unix.NL80211_CMD_NEW_INTERFACE, func(e *netlink.AttributeEncoder) {
		wiphy(e, radio)
		e.String(unix.NL80211_ATTR_IFNAME, name)
		e.Uint32(unix.NL80211_ATTR_IFTYPE, uint32(t))
		if mac != nil {
			e.Bytes(unix.NL80211_ATTR_MAC, mac)
		}
	})
	if err != nil {
		return Interface{}, err
	}
	return parseInterface(b)
}

// DeleteInterface removes an interface.
func (c *Conn) DeleteInterface(index int) error {
	return c.set("remove interface", unix.NL80211_CMD_DEL_INTERFACE, func(e *netlink.AttributeEncoder) { ifindex(e, index) })
}

// SetInterfaceType changes what an interface is used as; most drivers want it
// down.
func (c *Conn) SetInterfaceType(index int, t InterfaceType) error {
	return c.set("set type of interface", unix.NL80211_CMD_SET_INTERFACE, func(e *netlink.AttributeEncoder) {
		ifindex(e, index)
		e.Uint32(unix.NL80211_ATTR_IFTYPE, uint32(t))
	})
}

// SetPowerSave switches power saving on or off. On a mesh it costs frames and
// time; drivers may come up with it on.
func (c *Conn) SetPowerSave(index int, on bool) error {
	state := uint32(unix.NL80211_PS_DISABLED)
	if on {
		state = unix.NL80211_PS_ENABLED
	}
	return c.set("set power saving", unix.NL80211_CMD_SET_POWER_SAVE, func(e *netlink.AttributeEncoder) {
		ifindex(e, index)
		e.Uint32(unix.NL80211_ATTR_PS_STATE, state)
	})
}

// PowerSave tells whether power saving is on.
func (c *Conn) PowerSave(index int) (on bool, err error) {
	b, err := c.get("read power saving", unix.NL80211_CMD_GET_POWER_SAVE, func(e *netlink.AttributeEncoder) { ifindex(e, index) })
	if err != nil {
		return false, err
	}
	err = walk(b, func(d *netlink.AttributeDecoder) {
		if d.Type() == unix.NL80211_ATTR_PS_STATE {
			on = d.Uint32() == unix.NL80211_PS_ENABLED
		}
	})
	return on, err
}

// SetTxPower bounds the power of an interface in mBm; regulation and hardware
// bound it further.
func (c *Conn) SetTxPower(index, mBm int) error {
	return c.set("set transmit power", unix.NL80211_CMD_SET_WIPHY, func(e *netlink.AttributeEncoder) {
		ifindex(e, index)
		e.Uint32(unix.NL80211_ATTR_WIPHY_TX_POWER_SETTING, unix.NL80211_TX_POWER_LIMITED)
		e.Uint32(unix.NL80211_ATTR_WIPHY_TX_POWER_LEVEL, uint32(mBm))
	})
}

func parseInterface(b []byte) (i Interface, err error) {
	err = walk(b, func(d *netlink.AttributeDecoder) {
		switch d.Type() {
		case unix.NL80211_ATTR_IFINDEX:
			i.Index = int(d.Uint32())
		case unix.NL80211_ATTR_IFNAME:
			i.Name = d.String()
		case unix.NL80211_ATTR_WIPHY:
			i.Wiphy = int(d.Uint32())
		case unix.NL80211_ATTR_WDEV:
			i.Wdev = d.Uint64()
		case unix.NL80211_ATTR_IFTYPE:
			i.Type = InterfaceType(d.Uint32())
		case unix.NL80211_ATTR_MAC:
			i.MAC = mac(d)
		case unix.NL80211_ATTR_WIPHY_TX_POWER_LEVEL:
			i.TxPowerMBm = int(int32(d.Uint32()))
		default:
			i.Channel.attribute(d)
		}
	})
	return i, err
}

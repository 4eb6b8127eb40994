package radio

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/vishvananda/netlink"

	"halo.internal/drivers/nl80211"
)

// kernel is what radios ask of it, as nl80211.Conn answers.
type kernel interface {
	Wiphys() ([]nl80211.Wiphy, error)
	Wiphy(index int) (nl80211.Wiphy, error)
	InterfacesOf(radio int) ([]nl80211.Interface, error)
	Interface(index int) (nl80211.Interface, error)
	NewInterface(radio int, name string, t nl80211.InterfaceType, mac net.HardwareAddr) (nl80211.Interface, error)
	DeleteInterface(index int) error
	SetPowerSave(index int, on bool) error
	SetTxPower(index, mBm int) error
	AddKey(index int, k nl80211.Key) error
	UseGroupKey(index int, key uint8) error
	UseManagementKey(index int, key uint8) error
	KeySeq(index int, key uint8, mac net.HardwareAddr, t nl80211.KeyType) ([]byte, error)
	JoinMesh(index int, s nl80211.MeshSetup) error
	Stations(index int) ([]nl80211.StationInfo, error)
	Station(index int, mac net.HardwareAddr) (nl80211.StationInfo, error)
	AddStation(index int, s nl80211.NewStation) error
	SetStation(index int, mac net.HardwareAddr, s nl80211.StationChange) error
	DeleteStation(index int, mac net.HardwareAddr) error
	SwitchChannel(index int, to nl80211.Channel, beacons int) error
	Send(index int, f nl80211.SendFrame) (cookie uint64, err error)
	Abandon()
	Close() error
}

var _ kernel = (*nl80211.Conn)(nil)

// listener hears of its events, as nl80211.Listener does.
type listener interface {
	Next(ctx context.Context) (nl80211.Event, error)
	Only(index int) error
	RegisterFrame(ctx context.Context, index int, frame uint16, match []byte) error
	Close() error
}

var _ listener = (*nl80211.Listener)(nil)

// machine is where radios are; tests have one of their own.
type machine struct {
	dial   func() (kernel, error)
	listen func(receiveBuffer int, groups ...string) (listener, error)
	index  func(iface string) (int, error) // of an interface of any kind; 0: there is none
	raise  func(r *Radio) error            // sets up the interface of a radio and brings it up
}

func linux() machine {
	return machine{
		dial: func() (kernel, error) {
			conn, err := nl80211.Dial(nl80211.Config{})
			if err != nil {
				return nil, err
			}
			return conn, nil
		},
		listen: func(receiveBuffer int, groups ...string) (listener, error) {
			l, err := nl80211.Listen(nl80211.Config{ReceiveBuffer: receiveBuffer}, groups...)
			if err != nil {
				return nil, err
			}
			return l, nil
		},
		index: func(iface string) (int, error) {
			link, err := netlink.LinkByName(iface)
			if _, none := errors.AsType[netlink.LinkNotFoundError](err); none {
				return 0, nil
			}
			if err != nil {
				return 0, fmt.Errorf("radio: find %s: %w", iface, err)
			}
			return link.Attrs().Index, nil
		},
		raise: raise,
	}
}

// raise gives the interface of a radio its MTU and address, and brings it up.
func raise(r *Radio) error {
	link, err := netlink.LinkByIndex(r.iface.Index)
	if err != nil {
		return fmt.Errorf("radio: %s: %w", r.c.Iface, err)
	}
	if err := netlink.LinkSetMTU(link, mtu); err != nil {
		return fmt.Errorf("radio: %s: MTU %d: %w", r.c.Iface, mtu, err)
	}
	if a := link.Attrs().HardwareAddr; r.c.Address != nil && len(a) == len(r.own) {
		// A driver that keeps its address does without.
		if err := netlink.LinkSetHardwareAddr(link, r.c.Address(a)); err != nil {
			r.c.Log.Warn("the radio keeps its own address", "iface", r.c.Iface, "err", err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("radio: bring up %s: %w", r.c.Iface, err)
	}
	return nil
}

// Ours tells whether an interface has a name that Radios give.
func Ours(name string) bool {
	digits, ok := strings.CutPrefix(name, "mesh")
	return ok && digits != "" && strings.Trim(digits, "0123456789") == ""
}

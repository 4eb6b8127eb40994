package nl80211

import (
	"fmt"
	"net"

	"github.com/mdlayher/genetlink"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Event is something that happened: one of the types below.
type Event interface{ event() }

// Overflow says that events were lost, because they came faster than they were
// taken: what is known is to be read anew, by the listings of Conn.
type Overflow struct{}

// Malformed is an event that could not be read.
type Malformed struct {
	Command uint8
	Err     error
}

// PeerCandidate is a member of our mesh that was heard and is no station yet. It
// comes with each of its beacons.
type PeerCandidate struct {
	Iface     int
	MAC       net.HardwareAddr
	IEs       []byte // of the beacon
	SignalDBm int
}

// StationAdded says that there is a new station.
type StationAdded struct{ Station StationInfo }

// StationRemoved says that a station is gone, also when the kernel removed it by
// itself (MeshParameters.PlinkTimeout).
type StationRemoved struct{ Station StationInfo }

// Frame is a management frame that was registered for.
type Frame struct {
	Iface     int
	FreqMHz   int
	SignalDBm int // 0 is not told
	Data      []byte
}

// FrameStatus tells what became of a frame that was sent.
type FrameStatus struct {
	Iface  int
	Cookie uint64
	Acked  bool
	Data   []byte
}

// InterfaceAdded says that there is a new interface.
type InterfaceAdded struct{ Interface Interface }

// InterfaceRemoved says that an interface is gone.
type InterfaceRemoved struct{ Interface Interface }

// WiphyAdded says that there is a new radio.
type WiphyAdded struct {
	Index int
	Name  string
}

// WiphyRemoved says that a radio is gone.
type WiphyRemoved struct {
	Index int
	Name  string
}

// ScanDone ends a scan.
type ScanDone struct {
	Iface   int
	Aborted bool
}

// ChannelSwitchStarted says that a switch of channels was announced.
type ChannelSwitchStarted struct {
	Iface   int
	Channel Channel // to go to
	Beacons int     // until then
}

// ChannelSwitched says that an interface is on another channel.
type ChannelSwitched struct {
	Iface   int
	Channel Channel
}

// RegulatoryChanged says that other rules hold.
type RegulatoryChanged struct {
	Country   string // empty for rules of the world or of a driver
	Wiphy     int    // of a radio that regulates itself; -1 for all others
	Initiator uint8  // NL80211_REGDOM_SET_BY_*
}

// VendorEvent is an event of a vendor's.
type VendorEvent struct {
	Wiphy, Iface int // -1 where it is about none
	ID           VendorID
	Data         []byte
}

func (Overflow) event()             {}
func (Malformed) event()            {}
func (PeerCandidate) event()        {}
func (StationAdded) event()         {}
func (StationRemoved) event()       {}
func (Frame) event()                {}
func (FrameStatus) event()          {}
func (InterfaceAdded) event()       {}
func (InterfaceRemoved) event()     {}
func (WiphyAdded) event()           {}
func (WiphyRemoved) event()         {}
func (ScanDone) event()             {}
func (ChannelSwitchStarted) event() {}
func (ChannelSwitched) event()      {}
func (RegulatoryChanged) event()    {}
func (VendorEvent) event()          {}

// parseEvent returns nil for events that nobody here asks about.
func parseEvent(m genetlink.Message) Event {
	e, err := readEvent(m)
	if err != nil {
		return Malformed{m.Header.Command, fmt.Errorf("nl80211: event %d: %w", m.Header.Command, err)}
	}
	return e
}

func readEvent(m genetlink.Message) (Event, error) {
	switch m.Header.Command {
	case unix.NL80211_CMD_NEW_STATION:
		s, err := parseStation(m.Data)
		return StationAdded{s}, err
	case unix.NL80211_CMD_DEL_STATION:
		s, err := parseStation(m.Data)
		return StationRemoved{s}, err
	case unix.NL80211_CMD_NEW_INTERFACE:
		i, err := parseInterface(m.Data)
		return InterfaceAdded{i}, err
	case unix.NL80211_CMD_DEL_INTERFACE:
		i, err := parseInterface(m.Data)
		return InterfaceRemoved{i}, err
	}
	a, err := parseNotice(m.Data)
	if err != nil {
		return nil, err
	}
	switch m.Header.Command {
	case unix.NL80211_CMD_NEW_PEER_CANDIDATE:
		return PeerCandidate{a.iface, a.mac, a.ies, a.signal}, nil
	case unix.NL80211_CMD_FRAME:
		return Frame{a.iface, a.channel.FreqMHz, a.signal, a.frame}, nil
	case unix.NL80211_CMD_FRAME_TX_STATUS:
		return FrameStatus{a.iface, a.cookie, a.ack, a.frame}, nil
	case unix.NL80211_CMD_NEW_WIPHY:
		return WiphyAdded{a.wiphy, a.name}, nil
	case unix.NL80211_CMD_DEL_WIPHY:
		return WiphyRemoved{a.wiphy, a.name}, nil
	case unix.NL80211_CMD_NEW_SCAN_RESULTS:
		return ScanDone{a.iface, false}, nil
	case unix.NL80211_CMD_SCAN_ABORTED:
		return ScanDone{a.iface, true}, nil
	case unix.NL80211_CMD_CH_SWITCH_STARTED_NOTIFY:
		return ChannelSwitchStarted{a.iface, a.channel, a.count}, nil
	case unix.NL80211_CMD_CH_SWITCH_NOTIFY:
		return ChannelSwitched{a.iface, a.channel}, nil
	case unix.NL80211_CMD_REG_CHANGE, unix.NL80211_CMD_WIPHY_REG_CHANGE:
		return RegulatoryChanged{a.country, a.wiphy, a.initiator}, nil
	case unix.NL80211_CMD_VENDOR:
		return VendorEvent{a.wiphy, a.iface, a.vendor, a.data}, nil
	}
	return nil, nil
}

// notice is what the smaller events carry.
type notice struct {
	wiphy, iface int // -1 where there is none
	name         string
	mac          net.HardwareAddr
	ies, frame   []byte
	signal       int
	cookie       uint64
	ack          bool
	channel      Channel
	count        int
	country      string
	initiator    uint8
	vendor       VendorID
	data         []byte
}

func parseNotice(b []byte) (n notice, err error) {
	n.wiphy, n.iface = -1, -1
	err = walk(b, func(d *netlink.AttributeDecoder) {
		switch d.Type() {
		case unix.NL80211_ATTR_WIPHY:
			n.wiphy = int(d.Uint32())
		case unix.NL80211_ATTR_WIPHY_NAME:
			n.name = d.String()
		case unix.NL80211_ATTR_IFINDEX:
			n.iface = int(d.Uint32())
		case unix.NL80211_ATTR_MAC:
			n.mac = mac(d)
		case unix.NL80211_ATTR_IE:
			n.ies = octets(d)
		case unix.NL80211_ATTR_FRAME:
			n.frame = octets(d)
		case unix.NL80211_ATTR_RX_SIGNAL_DBM:
			n.signal = int(int32(d.Uint32()))
		case unix.NL80211_ATTR_COOKIE:
			n.cookie = d.Uint64()
		case unix.NL80211_ATTR_ACK:
			n.ack = true
		case unix.NL80211_ATTR_CH_SWITCH_COUNT:
			n.count = int(d.Uint32())
		case unix.NL80211_ATTR_REG_ALPHA2:
			n.country = d.String()
		case unix.NL80211_ATTR_REG_INITIATOR:
			n.initiator = d.Uint8()
		case unix.NL80211_ATTR_VENDOR_ID:
			n.vendor.OUI = d.Uint32()
		case unix.NL80211_ATTR_VENDOR_SUBCMD:
			n.vendor.Subcommand = d.Uint32()
		case unix.NL80211_ATTR_VENDOR_DATA:
			n.data = octets(d)
		default:
			n.channel.attribute(d)
		}
	})
	return n, err
}

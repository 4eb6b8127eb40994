package nl80211

import (
	"fmt"
	"net"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// PlinkState is how far the peering with a station is (NL80211_PLINK_*).
type PlinkState uint8

// Peering states.
const (
	PlinkListen  PlinkState = unix.NL80211_PLINK_LISTEN
	PlinkOpnSnt  PlinkState = unix.NL80211_PLINK_OPN_SNT
	PlinkOpnRcvd PlinkState = unix.NL80211_PLINK_OPN_RCVD
	PlinkCnfRcvd PlinkState = unix.NL80211_PLINK_CNF_RCVD
	PlinkEstab   PlinkState = unix.NL80211_PLINK_ESTAB
	PlinkHolding PlinkState = unix.NL80211_PLINK_HOLDING
	PlinkBlocked PlinkState = unix.NL80211_PLINK_BLOCKED
)

// String returns the standard's name.
func (p PlinkState) String() string {
	names := []string{"LISTEN", "OPN_SNT", "OPN_RCVD", "CNF_RCVD", "ESTAB", "HOLDING", "BLOCKED"}
	if int(p) < len(names) {
		return names[p]
	}
	return fmt.Sprintf("PLINK %d", uint8(p))
}

// StationFlags are bits 1<<NL80211_STA_FLAG_*.
type StationFlags uint32

// Flags of a station.
const (
	Authorized    StationFlags = 1 << unix.NL80211_STA_FLAG_AUTHORIZED
	ShortPreamble StationFlags = 1 << unix.NL80211_STA_FLAG_SHORT_PREAMBLE
	WME           StationFlags = 1 << unix.NL80211_STA_FLAG_WME
	MFP           StationFlags = 1 << unix.NL80211_STA_FLAG_MFP
	Authenticated StationFlags = 1 << unix.NL80211_STA_FLAG_AUTHENTICATED
	Associated    StationFlags = 1 << unix.NL80211_STA_FLAG_ASSOCIATED
)

// StationInfo is what the kernel knows of a station. What a driver does not tell
// is zero.
type StationInfo struct {
	Iface              int
	MAC                net.HardwareAddr
	Inactive           time.Duration // since the last frame from it
	Connected          time.Duration
	RxBytes, TxBytes   uint64
	RxPackets          uint32
	TxPackets          uint32
	TxRetries          uint32
	TxFailed           uint32
	RxDropped          uint64
	BeaconLoss         uint32
	BeaconRx           uint64
	FCSErrors          uint32
	RxMPDUs            uint32
	RxMSDUs            uint64 // of all TIDs: data that was decrypted, and handed on
	SignalDBm          int
	SignalAvgDBm       int
	BeaconSignalAvgDBm int
	AckSignalDBm       int
	ChainSignalDBm     []int
	TxRate, RxRate     Rate
	ExpectedThroughput int           // kbit/s
	AirtimeMetric      uint32        // of 802.11s, as this end computes it
	RxAirtime          time.Duration // taken by frames from it
	TxAirtime          time.Duration
	AirtimeWeight      uint16
	Plink              PlinkState
	LLID, PLID         uint16
	PeerTOffset        int64 // µs between the two TSFs
	Flags, FlagsMask   StationFlags
	ToGate, ToAS       bool // what its beacons say of its connections
}

// Rate of a frame.
type Rate struct {
	Bitrate  int // 100 kbit/s
	MCS, NSS int // -1 where the rate has none
	WidthMHz int
	ShortGI  bool
	Kind     string // "", HT, VHT, HE, EHT, S1G
}

// Stations lists the stations of an interface.
func (c *Conn) Stations(index int) ([]StationInfo, error) {
	var all []StationInfo
	err := c.dump("list stations", request{command: unix.NL80211_CMD_GET_STATION, attrs: func(e *netlink.AttributeEncoder) { ifindex(e, index) }},
		func() { all = nil }, func(b []byte) error {
			s, err := parseStation(b)
			all = append(all, s)
			return err
		})
	return all, err
}

// Station returns one station; the error wraps fs.ErrNotExist when there is none.
func (c *Conn) Station(index int, mac net.HardwareAddr) (StationInfo, error) {
	b, err := c.get("find station "+mac.String(), unix.NL80211_CMD_GET_STATION, func(e *netlink.AttributeEncoder) {
		ifindex(e, index)
		e.Bytes(unix.NL80211_ATTR_MAC, mac)
	})
	if err != nil {
		return StationInfo{}, err
	}
	return parseStation(b)
}

// NewStation is a station to be made known to the kernel.
type NewStation struct {
	MAC            net.HardwareAddr
	AID            uint16 // unique on the interface, not 0
	ListenInterval uint16 // beacons
	Rates          []int  // 100 kbit/s
	HT, VHT        []byte // capability elements without id and length; nil for none
	Flags, Mask    StationFlags
	Plink          *PlinkState
}

// AddStation makes a station known. On a mesh whose peering is the user's, the
// mask may hold Authenticated, WME and MFP; without WME, HT is dropped, and
// Associated is refused.
func (c *Conn) AddStation(index int, s NewStation) error {
	return c.set("add station "+s.MAC.String(), unix.NL80211_CMD_NEW_STATION, func(e *netlink.AttributeEncoder) {
		ifindex(e, index)
		e.Bytes(unix.NL80211_ATTR_MAC, s.MAC)
		e.Uint16(unix.NL80211_ATTR_STA_AID, s.AID)
		e.Uint16(unix.NL80211_ATTR_STA_LISTEN_INTERVAL, s.ListenInterval)
		e.Bytes(unix.NL80211_ATTR_STA_SUPPORTED_RATES, elementRates(s.Rates))
		if s.HT != nil {
			e.Bytes(unix.NL80211_ATTR_HT_CAPABILITY, s.HT)
		}
		if s.VHT != nil {
			e.Bytes(unix.NL80211_ATTR_VHT_CAPABILITY, s.VHT)
		}
		e.Bytes(unix.NL80211_ATTR_STA_FLAGS2, encodePair(uint32(s.Mask), uint32(s.Flags)))
		if s.Plink != nil {
			e.Uint8(unix.NL80211_ATTR_STA_PLINK_STATE, uint8(*s.Plink))
		}
	})
}

// StationChange is what to change of a station; what is nil or zero stays.
type StationChange struct {
	Flags, Mask StationFlags // of a mesh station, Authenticated, Authorized and MFP
	Plink       *PlinkState
	PeerAID     uint16 // the AID that the peer gave us; of use with Plink
}

// SetStation changes a station. After Authenticated and Authorized it takes keys.
func (c *Conn) SetStation(index int, mac net.HardwareAddr, s StationChange) error {
	return c.set("change station "+mac.String(), unix.NL80211_CMD_SET_STATION, func(e *netlink.AttributeEncoder) {
		ifindex(e, index)
		e.Bytes(unix.NL80211_ATTR_MAC, mac)
		if s.Mask != 0 {
			e.Bytes(unix.NL80211_ATTR_STA_FLAGS2, encodePair(uint32(s.Mask), uint32(s.Flags)))
		}
		if s.Plink != nil {
			e.Uint8(unix.NL80211_ATTR_STA_PLINK_STATE, uint8(*s.Plink))
		}
		if s.PeerAID != 0 {
			e.Uint16(unix.NL80211_ATTR_MESH_PEER_AID, s.PeerAID)
		}
	})
}

// DeleteStation removes a station with its keys; the error wraps fs.ErrNotExist
// when there is none. A nil mac removes all of the interface.
func (c *Conn) DeleteStation(index int, mac net.HardwareAddr) error {
	return c.set("remove station "+mac.String(), unix.NL80211_CMD_DEL_STATION, func(e *netlink.AttributeEncoder) {
		ifindex(e, index)
		if mac != nil {
			e.Bytes(unix.NL80211_ATTR_MAC, mac)
		}
	})
}

func parseStation(b []byte) (s StationInfo, err error) {
	err = walk(b, func(d *netlink.AttributeDecoder) {
		switch d.Type() {
		case unix.NL80211_ATTR_IFINDEX:
			s.Iface = int(d.Uint32())
		case unix.NL80211_ATTR_MAC:
			s.MAC = mac(d)
		case unix.NL80211_ATTR_STA_INFO:
			nested(d, s.attribute)
		}
	})
	return s, err
}

func (s *StationInfo) attribute(d *netlink.AttributeDecoder) {
	switch d.Type() {
	case unix.NL80211_STA_INFO_INACTIVE_TIME:
		s.Inactive = milliseconds(uint64(d.Uint32()))
	case unix.NL80211_STA_INFO_CONNECTED_TIME:
		s.Connected = time.Duration(d.Uint32()) * time.Second
	case unix.NL80211_STA_INFO_RX_BYTES64:
		s.RxBytes = d.Uint64()
	case unix.NL80211_STA_INFO_TX_BYTES64:
		s.TxBytes = d.Uint64()
	case unix.NL80211_STA_INFO_RX_PACKETS:
		s.RxPackets = d.Uint32()
	case unix.NL80211_STA_INFO_TX_PACKETS:
		s.TxPackets = d.Uint32()
	case unix.NL80211_STA_INFO_TX_RETRIES:
		s.TxRetries = d.Uint32()
	case unix.NL80211_STA_INFO_TX_FAILED:
		s.TxFailed = d.Uint32()
	case unix.NL80211_STA_INFO_RX_DROP_MISC:
		s.RxDropped = d.Uint64()
	case unix.NL80211_STA_INFO_BEACON_LOSS:
		s.BeaconLoss = d.Uint32()
	case unix.NL80211_STA_INFO_BEACON_RX:
		s.BeaconRx = d.Uint64()
	case unix.NL80211_STA_INFO_FCS_ERROR_COUNT:
		s.FCSErrors = d.Uint32()
	case unix.NL80211_STA_INFO_RX_MPDUS:
		s.RxMPDUs = d.Uint32()
	case unix.NL80211_STA_INFO_TID_STATS:
		nested(d, func(tid *netlink.AttributeDecoder) {
			nested(tid, func(n *netlink.AttributeDecoder) {
				if n.Type() == unix.NL80211_TID_STATS_RX_MSDU {
					s.RxMSDUs += n.Uint64()
				}
			})
		})
	case unix.NL80211_STA_INFO_SIGNAL:
		s.SignalDBm = int(d.Int8())
	case unix.NL80211_STA_INFO_SIGNAL_AVG:
		s.SignalAvgDBm = int(d.Int8())
	case unix.NL80211_STA_INFO_BEACON_SIGNAL_AVG:
		s.BeaconSignalAvgDBm = int(d.Int8())
	case unix.NL80211_STA_INFO_ACK_SIGNAL:
		s.AckSignalDBm = int(d.Int8())
	case unix.NL80211_STA_INFO_CHAIN_SIGNAL:
		nested(d, func(n *netlink.AttributeDecoder) { s.ChainSignalDBm = append(s.ChainSignalDBm, int(n.Int8())) })
	case unix.NL80211_STA_INFO_TX_BITRATE:
		s.TxRate = parseRate(d)
	case unix.NL80211_STA_INFO_RX_BITRATE:
		s.RxRate = parseRate(d)
	case unix.NL80211_STA_INFO_EXPECTED_THROUGHPUT:
		s.ExpectedThroughput = int(d.Uint32())
	case unix.NL80211_STA_INFO_AIRTIME_LINK_METRIC:
		s.AirtimeMetric = d.Uint32()
	case unix.NL80211_STA_INFO_RX_DURATION:
		s.RxAirtime = time.Duration(d.Uint64()) * time.Microsecond
	case unix.NL80211_STA_INFO_TX_DURATION:
		s.TxAirtime = time.Duration(d.Uint64()) * time.Microsecond
	case unix.NL80211_STA_INFO_AIRTIME_WEIGHT:
		s.AirtimeWeight = d.Uint16()
	case unix.NL80211_STA_INFO_PLINK_STATE:
		s.Plink = PlinkState(d.Uint8())
	case unix.NL80211_STA_INFO_LLID:
		s.LLID = d.Uint16()
	case unix.NL80211_STA_INFO_PLID:
		s.PLID = d.Uint16()
	case unix.NL80211_STA_INFO_T_OFFSET:
		s.PeerTOffset = int64(d.Uint64())
	case unix.NL80211_STA_INFO_STA_FLAGS:
		mask, set := pair(d)
		s.FlagsMask, s.Flags = StationFlags(mask), StationFlags(set)
	case unix.NL80211_STA_INFO_CONNECTED_TO_GATE:
		s.ToGate = d.Uint8() != 0
	case unix.NL80211_STA_INFO_CONNECTED_TO_AS:
		s.ToAS = d.Uint8() != 0
	}
}

func parseRate(d *netlink.AttributeDecoder) Rate {
	r := Rate{MCS: -1, NSS: -1, WidthMHz: 20}
	nested(d, func(n *netlink.AttributeDecoder) {
		switch n.Type() {
		case unix.NL80211_RATE_INFO_BITRATE32:
			r.Bitrate = int(n.Uint32())
		case unix.NL80211_RATE_INFO_BITRATE:
			r.Bitrate = max(r.Bitrate, int(n.Uint16()))
		case unix.NL80211_RATE_INFO_MCS:
			r.Kind, r.MCS = "HT", int(n.Uint8())
		case unix.NL80211_RATE_INFO_VHT_MCS:
			r.Kind, r.MCS = "VHT", int(n.Uint8())
		case unix.NL80211_RATE_INFO_HE_MCS:
			r.Kind, r.MCS = "HE", int(n.Uint8())
		case unix.NL80211_RATE_INFO_EHT_MCS:
			r.Kind, r.MCS = "EHT", int(n.Uint8())
		case unix.NL80211_RATE_INFO_S1G_MCS:
			r.Kind, r.MCS = "S1G", int(n.Uint8())
		case unix.NL80211_RATE_INFO_VHT_NSS, unix.NL80211_RATE_INFO_HE_NSS, unix.NL80211_RATE_INFO_EHT_NSS, unix.NL80211_RATE_INFO_S1G_NSS:
			r.NSS = int(n.Uint8())
		case unix.NL80211_RATE_INFO_SHORT_GI:
			r.ShortGI = true
		default:
			if w, ok := rateWidths[n.Type()]; ok {
				r.WidthMHz = w
			}
		}
	})
	return r
}

// rateWidths are the flags that tell how wide a frame was, by MHz; none of them
// is 20.
var rateWidths = map[uint16]int{
	unix.NL80211_RATE_INFO_40_MHZ_WIDTH: 40, unix.NL80211_RATE_INFO_80_MHZ_WIDTH: 80, unix.NL80211_RATE_INFO_160_MHZ_WIDTH: 160,
	unix.NL80211_RATE_INFO_320_MHZ_WIDTH: 320, unix.NL80211_RATE_INFO_10_MHZ_WIDTH: 10, unix.NL80211_RATE_INFO_5_MHZ_WIDTH: 5,
	unix.NL80211_RATE_INFO_1_MHZ_WIDTH: 1, unix.NL80211_RATE_INFO_2_MHZ_WIDTH: 2, unix.NL80211_RATE_INFO_4_MHZ_WIDTH: 4,
	unix.NL80211_RATE_INFO_8_MHZ_WIDTH: 8, unix.NL80211_RATE_INFO_16_MHZ_WIDTH: 16,
}

package nl80211

import (
	"net"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Scan says what to look for and where.
type Scan struct {
	// SSIDs to probe for; an empty one is the wildcard, none at all listens only. A
	// mesh answers probes for its ID in IEs.
	SSIDs [][]byte
	// FreqsMHz to visit; none is all.
	FreqsMHz []int
	IEs      []byte // of the probes
	Flush    bool   // forget earlier results
}

// StartScan begins a scan; the event ScanDone ends it. The error wraps
// unix.EBUSY while another is under way.
func (c *Conn) StartScan(index int, s Scan) error {
	return c.set("scan", unix.NL80211_CMD_TRIGGER_SCAN, func(e *netlink.AttributeEncoder) {
		ifindex(e, index)
		if len(s.SSIDs) > 0 {
			fill(e, unix.NL80211_ATTR_SCAN_SSIDS, func(n *netlink.AttributeEncoder) {
				for i, id := range s.SSIDs {
					n.Bytes(uint16(i), id)
				}
			})
		}
		if len(s.FreqsMHz) > 0 {
			fill(e, unix.NL80211_ATTR_SCAN_FREQUENCIES, func(n *netlink.AttributeEncoder) {
				for i, f := range s.FreqsMHz {
					n.Uint32(uint16(i), uint32(f))
				}
			})
		}
		if s.IEs != nil {
			e.Bytes(unix.NL80211_ATTR_IE, s.IEs)
		}
		if s.Flush {
			e.Uint32(unix.NL80211_ATTR_SCAN_FLAGS, unix.NL80211_SCAN_FLAG_FLUSH)
		}
	})
}

// AbortScan ends a scan early.
func (c *Conn) AbortScan(index int) error {
	return c.set("abort scan", unix.NL80211_CMD_ABORT_SCAN, func(e *netlink.AttributeEncoder) { ifindex(e, index) })
}

// BSS is a network or mesh member that was heard.
type BSS struct {
	BSSID          net.HardwareAddr
	FreqMHz        int
	SignalMBm      int // hundredths of a dBm
	BeaconInterval int // time units
	Capability     uint16
	TSF            uint64
	Seen           time.Duration // ago
	IEs            []byte        // of the last beacon or probe response
	BeaconIEs      []byte        // of the last beacon
	InUse          bool          // we are a member of it
}

// MeshID returns the mesh ID element, nil where there is none.
func (b BSS) MeshID() []byte {
	const meshID = 114
	return element(b.IEs, meshID)
}

// element returns the content of the first element of that number.
func element(ies []byte, id byte) []byte {
	for len(ies) >= 2 && len(ies) >= 2+int(ies[1]) {
		n := 2 + int(ies[1])
		if ies[0] == id {
			return ies[2:n]
		}
		ies = ies[n:]
	}
	return nil
}

// ScanResults lists what has been heard lately, by scans and otherwise.
func (c *Conn) ScanResults(index int) ([]BSS, error) {
	var all []BSS
	err := c.dump("read scan results", request{command: unix.NL80211_CMD_GET_SCAN, attrs: func(e *netlink.AttributeEncoder) { ifindex(e, index) }},
		func() { all = nil }, func(b []byte) error {
			s, err := parseBSS(b)
			all = append(all, s)
			return err
		})
	return all, err
}

func parseBSS(b []byte) (s BSS, err error) {
	err = walk(b, func(d *netlink.AttributeDecoder) {
		if d.Type() != unix.NL80211_ATTR_BSS {
			return
		}
		nested(d, func(n *netlink.AttributeDecoder) {
			switch n.Type() {
			case unix.NL80211_BSS_BSSID:
				s.BSSID = mac(n)
			case unix.NL80211_BSS_FREQUENCY:
				s.FreqMHz = int(n.Uint32())
			case unix.NL80211_BSS_SIGNAL_MBM:
				s.SignalMBm = int(n.Int32())
			case unix.NL80211_BSS_BEACON_INTERVAL:
				s.BeaconInterval = int(n.Uint16())
			case unix.NL80211_BSS_CAPABILITY:
				s.Capability = n.Uint16()
			case unix.NL80211_BSS_TSF:
				s.TSF = n.Uint64()
			case unix.NL80211_BSS_SEEN_MS_AGO:
				s.Seen = milliseconds(uint64(n.Uint32()))
			case unix.NL80211_BSS_INFORMATION_ELEMENTS:
				s.IEs = octets(n)
			case unix.NL80211_BSS_BEACON_IES:
				s.BeaconIEs = octets(n)
			case unix.NL80211_BSS_STATUS:
				s.InUse = true
			}
		})
	})
	return s, err
}

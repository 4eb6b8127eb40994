package nl80211

import (
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Wiphy is a radio and what its driver can do.
type Wiphy struct {
	Index          int
	Name           string // e.g. phy0
	InterfaceTypes []InterfaceType
	Commands       []uint8 // NL80211_CMD_*, sorted
	Ciphers        []Cipher
	Features       uint32 // NL80211_FEATURE_* bits
	Extended       []byte // NL80211_EXT_FEATURE_*: bit n is bit n%8 of octet n/8
	MeshAuth       bool   // SUPPORT_MESH_AUTH: peering may be left to the user's side
	PeerGroupKeys  bool   // SUPPORT_IBSS_RSN: a group key per station
	SelfManaged    bool   // the driver regulates itself
	Bands          []Band // in the kernel's order
	MaxScanSSIDs   int
	MaxScanIEs     int // octets of elements in a scan
	MaxStations    int // peers at most; 0 is not told
	MaxRemain      time.Duration
	SendFrames     map[InterfaceType][]uint16 // frame control values that CMD_FRAME takes
	RegisterFrames map[InterfaceType][]uint16 // frame control values that can be registered for
	VendorCommands []VendorID
	VendorEvents   []VendorID
}

// Band is a part of the spectrum in which a radio works.
type Band struct {
	Number   int       // NL80211_BAND_*: 0 is 2.4 GHz, 1 is 5 GHz
	Rates    []int     // without HT and later, in 100 kbit/s
	Channels []Allowed // in the kernel's order
	HT       HTCapability
	VHT      VHTCapability
}

// HTCapability is what goes into an 802.11n capability element; without HT, MCS
// is nil.
type HTCapability struct {
	Info  uint16
	AMPDU uint8 // factor | density<<2
	MCS   []byte
}

// VHTCapability is what goes into an 802.11ac capability element; without VHT,
// MCS is nil.
type VHTCapability struct {
	Info uint32
	MCS  []byte
}

// Allowed is a 20 MHz channel and what regulation and hardware allow on it.
type Allowed struct {
	FreqMHz    int
	OffsetKHz  int
	Disabled   bool
	NoIR       bool // no transmission before somebody else is heard
	Radar      bool
	Indoor     bool
	No40Plus   bool
	No40Minus  bool
	No80       bool
	No160      bool
	MaxPowerMB int // mBm, hundredths of a dBm, EIRP less the antenna's gain
}

// Wiphys lists the radios of the namespace.
func (c *Conn) Wiphys() ([]Wiphy, error) {
	var m wiphys
	err := c.dump("list radios", request{command: unix.NL80211_CMD_GET_WIPHY, attrs: func(e *netlink.AttributeEncoder) {
		e.Flag(unix.NL80211_ATTR_SPLIT_WIPHY_DUMP, true)
	}}, func() { m = wiphys{} }, m.add)
	return m.list, err
}

// Wiphy returns the radio with that index; the error wraps unix.ENODEV when
// there is none.
func (c *Conn) Wiphy(index int) (Wiphy, error) {
	all, err := c.Wiphys()
	if err != nil {
		return Wiphy{}, err
	}
	for _, w := range all {
		if w.Index == index {
			return w, nil
		}
	}
	return Wiphy{}, fmt.Errorf("nl80211: radio %d: %w", index, unix.ENODEV)
}

// MoveWiphy moves a radio with its interfaces into a network namespace.
func (c *Conn) MoveWiphy(index int, ns *os.File) error {
	return c.set("move radio", unix.NL80211_CMD_SET_WIPHY_NETNS, func(e *netlink.AttributeEncoder) {
		wiphy(e, index)
		e.Uint32(unix.NL80211_ATTR_NETNS_FD, uint32(ns.Fd()))
	})
}

// wiphys gathers the many messages in which the kernel describes each radio.
type wiphys struct{ list []Wiphy }

func (m *wiphys) add(b []byte) error {
	index, found := -1, false
	if err := walk(b, func(d *netlink.AttributeDecoder) {
		if d.Type() == unix.NL80211_ATTR_WIPHY {
			index, found = int(d.Uint32()), true
		}
	}); err != nil {
		return err
	}
	if !found {
		return fmt.Errorf("radio: expected an index, got none")
	}
	i := slices.IndexFunc(m.list, func(w Wiphy) bool { return w.Index == index })
	if i < 0 {
		i = len(m.list)
		m.list = append(m.list, Wiphy{Index: index, SendFrames: map[InterfaceType][]uint16{}, RegisterFrames: map[InterfaceType][]uint16{}})
	}
	return m.list[i].parse(b)
}

func (w *Wiphy) parse(b []byte) error {
	return walk(b, func(d *netlink.AttributeDecoder) {
		switch d.Type() {
		case unix.NL80211_ATTR_WIPHY_NAME:
			w.Name = d.String()
		case unix.NL80211_ATTR_SUPPORTED_IFTYPES:
			w.InterfaceTypes = nil
			nested(d, func(n *netlink.AttributeDecoder) {
				w.InterfaceTypes = append(w.InterfaceTypes, InterfaceType(n.Type()))
			})
		case unix.NL80211_ATTR_SUPPORTED_COMMANDS:
			nested(d, func(n *netlink.AttributeDecoder) { w.Commands = append(w.Commands, uint8(n.Uint32())) })
			slices.Sort(w.Commands)
			w.Commands = slices.Compact(w.Commands)
		case unix.NL80211_ATTR_CIPHER_SUITES:
			w.Ciphers = nil
			for _, v := range words(d) {
				w.Ciphers = append(w.Ciphers, Cipher(v))
			}
		case unix.NL80211_ATTR_FEATURE_FLAGS:
			w.Features = d.Uint32()
		case unix.NL80211_ATTR_EXT_FEATURES:
			w.Extended = octets(d)
		case unix.NL80211_ATTR_SUPPORT_MESH_AUTH:
			w.MeshAuth = true
		case unix.NL80211_ATTR_SUPPORT_IBSS_RSN:
			w.PeerGroupKeys = true
		case unix.NL80211_ATTR_WIPHY_SELF_MANAGED_REG:
			w.SelfManaged = true
		case unix.NL80211_ATTR_MAX_NUM_SCAN_SSIDS:
			w.MaxScanSSIDs = int(d.Uint8())
		case unix.NL80211_ATTR_MAX_SCAN_IE_LEN:
			w.MaxScanIEs = int(d.Uint16())
		case unix.NL80211_ATTR_MAX_AP_ASSOC_STA:
			w.MaxStations = int(d.Uint16())
		case unix.NL80211_ATTR_MAX_REMAIN_ON_CHANNEL_DURATION:
			w.MaxRemain = milliseconds(uint64(d.Uint32()))
		case unix.NL80211_ATTR_TX_FRAME_TYPES:
			frameTypes(d, w.SendFrames)
		case unix.NL80211_ATTR_RX_FRAME_TYPES:
			frameTypes(d, w.RegisterFrames)
		case unix.NL80211_ATTR_VENDOR_DATA:
			w.VendorCommands = vendorIDs(d)
		case unix.NL80211_ATTR_VENDOR_EVENTS:
			w.VendorEvents = vendorIDs(d)
		case unix.NL80211_ATTR_WIPHY_BANDS:
			nested(d, func(n *netlink.AttributeDecoder) {
				number := int(n.Type())
				i := slices.IndexFunc(w.Bands, func(b Band) bool { return b.Number == number })
				if i < 0 {
					i = len(w.Bands)
					w.Bands = append(w.Bands, Band{Number: number})
				}
				w.Bands[i].parse(n)
			})
		}
	})
}

func frameTypes(d *netlink.AttributeDecoder, to map[InterfaceType][]uint16) {
	nested(d, func(n *netlink.AttributeDecoder) {
		t := InterfaceType(n.Type())
		to[t] = nil
		nested(n, func(n *netlink.AttributeDecoder) {
			if n.Type() == unix.NL80211_ATTR_FRAME_TYPE {
				to[t] = append(to[t], n.Uint16())
			}
		})
	})
}

func vendorIDs(d *netlink.AttributeDecoder) (all []VendorID) {
	nested(d, func(n *netlink.AttributeDecoder) {
		id, sub := pair(n)
		all = append(all, VendorID{OUI: id, Subcommand: sub})
	})
	return all
}

func (b *Band) parse(d *netlink.AttributeDecoder) {
	nested(d, func(n *netlink.AttributeDecoder) {
		switch n.Type() {
		case unix.NL80211_BAND_ATTR_RATES:
			b.Rates = nil
			each(n, func() {}, func(r *netlink.AttributeDecoder) {
				if r.Type() == unix.NL80211_BITRATE_ATTR_RATE {
					b.Rates = append(b.Rates, int(r.Uint32()))
				}
			})
		case unix.NL80211_BAND_ATTR_FREQS:
			nested(n, func(f *netlink.AttributeDecoder) { b.Channels = append(b.Channels, parseAllowed(f)) })
		case unix.NL80211_BAND_ATTR_HT_MCS_SET:
			b.HT.MCS = octets(n)
		case unix.NL80211_BAND_ATTR_HT_CAPA:
			b.HT.Info = n.Uint16()
		case unix.NL80211_BAND_ATTR_HT_AMPDU_FACTOR:
			b.HT.AMPDU |= n.Uint8() & 3
		case unix.NL80211_BAND_ATTR_HT_AMPDU_DENSITY:
			b.HT.AMPDU |= n.Uint8() & 7 << 2
		case unix.NL80211_BAND_ATTR_VHT_MCS_SET:
			b.VHT.MCS = octets(n)
		case unix.NL80211_BAND_ATTR_VHT_CAPA:
			b.VHT.Info = n.Uint32()
		}
	})
}

func parseAllowed(d *netlink.AttributeDecoder) (a Allowed) {
	nested(d, func(n *netlink.AttributeDecoder) {
		switch n.Type() {
		case unix.NL80211_FREQUENCY_ATTR_FREQ:
			a.FreqMHz = int(n.Uint32())
		case unix.NL80211_FREQUENCY_ATTR_OFFSET:
			a.OffsetKHz = int(n.Uint32())
		case unix.NL80211_FREQUENCY_ATTR_DISABLED:
			a.Disabled = true
		case unix.NL80211_FREQUENCY_ATTR_NO_IR:
			a.NoIR = true
		case unix.NL80211_FREQUENCY_ATTR_RADAR:
			a.Radar = true
		case unix.NL80211_FREQUENCY_ATTR_INDOOR_ONLY:
			a.Indoor = true
		case unix.NL80211_FREQUENCY_ATTR_NO_HT40_PLUS:
			a.No40Plus = true
		case unix.NL80211_FREQUENCY_ATTR_NO_HT40_MINUS:
			a.No40Minus = true
		case unix.NL80211_FREQUENCY_ATTR_NO_80MHZ:
			a.No80 = true
		case unix.NL80211_FREQUENCY_ATTR_NO_160MHZ:
			a.No160 = true
		case unix.NL80211_FREQUENCY_ATTR_MAX_TX_POWER:
			a.MaxPowerMB = int(n.Uint32())
		}
	})
	return a
}

// Channel finds a 20 MHz channel by its frequency.
func (w Wiphy) Channel(freqMHz int) (Allowed, bool) {
	for _, b := range w.Bands {
		for _, c := range b.Channels {
			if c.FreqMHz == freqMHz {
				return c, true
			}
		}
	}
	return Allowed{}, false
}

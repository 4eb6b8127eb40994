package nl80211

import (
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Width of a channel (NL80211_CHAN_WIDTH_*).
type Width uint32

// Widths in MHz. Width20NoHT is for rates without HT.
const (
	Width20NoHT Width = unix.NL80211_CHAN_WIDTH_20_NOHT
	Width20     Width = unix.NL80211_CHAN_WIDTH_20
	Width40     Width = unix.NL80211_CHAN_WIDTH_40
	Width80     Width = unix.NL80211_CHAN_WIDTH_80
	Width160    Width = unix.NL80211_CHAN_WIDTH_160
	Width5      Width = unix.NL80211_CHAN_WIDTH_5
	Width10     Width = unix.NL80211_CHAN_WIDTH_10
	Width1      Width = unix.NL80211_CHAN_WIDTH_1
	Width2      Width = unix.NL80211_CHAN_WIDTH_2
	Width4      Width = unix.NL80211_CHAN_WIDTH_4
	Width8      Width = unix.NL80211_CHAN_WIDTH_8
	Width16     Width = unix.NL80211_CHAN_WIDTH_16
)

// MHz returns the width in MHz, 0 for one that is not known here.
func (w Width) MHz() int {
	switch w {
	case Width20NoHT, Width20:
		return 20
	case Width40:
		return 40
	case Width80:
		return 80
	case Width160:
		return 160
	case Width5:
		return 5
	case Width10:
		return 10
	case Width1:
		return 1
	case Width2:
		return 2
	case Width4:
		return 4
	case Width8:
		return 8
	case Width16:
		return 16
	}
	return 0
}

// Channel is where a radio sends and hears: a control channel, and a width
// around a centre.
type Channel struct {
	FreqMHz    int // centre of the control channel
	OffsetKHz  int // to be added to FreqMHz; S1G channels lie between
	Width      Width
	Center1MHz int // centre of the whole; 0 is FreqMHz
	Center2MHz int // of the second segment of 80+80
}

// String returns e.g. "5180 MHz (20 MHz wide)".
func (c Channel) String() string {
	if c == (Channel{}) {
		return "no channel"
	}
	return fmt.Sprintf("%d MHz (%d MHz wide)", c.FreqMHz, c.Width.MHz())
}

func (c Channel) encode(e *netlink.AttributeEncoder) {
	e.Uint32(unix.NL80211_ATTR_WIPHY_FREQ, uint32(c.FreqMHz))
	if c.OffsetKHz != 0 {
		e.Uint32(unix.NL80211_ATTR_WIPHY_FREQ_OFFSET, uint32(c.OffsetKHz))
	}
	e.Uint32(unix.NL80211_ATTR_CHANNEL_WIDTH, uint32(c.Width))
	center := c.Center1MHz
	if center == 0 {
		center = c.FreqMHz
	}
	e.Uint32(unix.NL80211_ATTR_CENTER_FREQ1, uint32(center))
	if c.Center2MHz != 0 {
		e.Uint32(unix.NL80211_ATTR_CENTER_FREQ2, uint32(c.Center2MHz))
	}
}

// attribute takes the present attribute if it is of a channel.
func (c *Channel) attribute(d *netlink.AttributeDecoder) {
	switch d.Type() {
	case unix.NL80211_ATTR_WIPHY_FREQ:
		c.FreqMHz = int(d.Uint32())
	case unix.NL80211_ATTR_WIPHY_FREQ_OFFSET:
		c.OffsetKHz = int(d.Uint32())
	case unix.NL80211_ATTR_CHANNEL_WIDTH:
		c.Width = Width(d.Uint32())
	case unix.NL80211_ATTR_CENTER_FREQ1:
		c.Center1MHz = int(d.Uint32())
	case unix.NL80211_ATTR_CENTER_FREQ2:
		c.Center2MHz = int(d.Uint32())
	}
}

// SwitchChannel announces to a mesh that it moves to another channel after that
// many beacons (at least 1) and goes there itself; the peers follow. The event
// ChannelSwitched tells when.
func (c *Conn) SwitchChannel(index int, to Channel, beacons int) error {
	return c.set("switch to "+to.String(), unix.NL80211_CMD_CHANNEL_SWITCH, func(e *netlink.AttributeEncoder) {
		ifindex(e, index)
		to.encode(e)
		e.Uint32(unix.NL80211_ATTR_CH_SWITCH_COUNT, uint32(beacons))
	})
}

package nl80211

import (
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// SendFrame is a management frame to be sent.
type SendFrame struct {
	Data []byte // from frame control on, without FCS
	// FreqMHz is the channel to send on; 0 is the interface's own.
	FreqMHz int
	// OffChannel allows another channel than the interface's own, for at most Wait.
	OffChannel bool
	Wait       time.Duration
	// NoAck asks for neither acknowledgement nor event.
	NoAck bool
}

// Send hands a frame to the driver. The event FrameStatus with the cookie tells
// whether it was acknowledged; it may come before Send returns.
func (c *Conn) Send(index int, f SendFrame) (cookie uint64, err error) {
	answers, err := c.do("send frame", request{command: unix.NL80211_CMD_FRAME, attrs: func(e *netlink.AttributeEncoder) {
		ifindex(e, index)
		e.Bytes(unix.NL80211_ATTR_FRAME, f.Data)
		if f.FreqMHz != 0 {
			e.Uint32(unix.NL80211_ATTR_WIPHY_FREQ, uint32(f.FreqMHz))
		}
		if f.OffChannel {
			e.Flag(unix.NL80211_ATTR_OFFCHANNEL_TX_OK, true)
			e.Uint32(unix.NL80211_ATTR_DURATION, uint32(f.Wait.Milliseconds()))
		}
		if f.NoAck {
			e.Flag(unix.NL80211_ATTR_DONT_WAIT_FOR_ACK, true)
		}
	}})
	if err != nil {
		return 0, err
	}
	if f.NoAck {
		return 0, nil
	}
	if len(answers) != 1 {
		return 0, fmt.Errorf("nl80211: send frame: expected a cookie, got %d answers", len(answers))
	}
	err = walk(answers[0].Data, func(d *netlink.AttributeDecoder) {
		if d.Type() == unix.NL80211_ATTR_COOKIE {
			cookie = d.Uint64()
		}
	})
	return cookie, err
}

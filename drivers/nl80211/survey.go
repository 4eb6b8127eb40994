package nl80211

import (
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Survey is what a driver has measured on a channel since it began to count.
// Drivers that do not measure something leave it zero.
type Survey struct {
	FreqMHz  int
	InUse    bool
	NoiseDBm int
	Time     time.Duration // on the channel
	Busy     time.Duration // of it, with the channel sensed busy
	ExtBusy  time.Duration
	Rx, Tx   time.Duration
	Scanning time.Duration
}

// Surveys returns the measurements of the channels of an interface.
func (c *Conn) Surveys(index int) ([]Survey, error) {
	var all []Survey
	err := c.dump("read survey", request{command: unix.NL80211_CMD_GET_SURVEY, attrs: func(e *netlink.AttributeEncoder) { ifindex(e, index) }},
		func() { all = nil }, func(b []byte) error {
			s, err := parseSurvey(b)
			all = append(all, s)
			return err
		})
	return all, err
}

func parseSurvey(b []byte) (s Survey, err error) {
	err = walk(b, func(d *netlink.AttributeDecoder) {
		if d.Type() != unix.NL80211_ATTR_SURVEY_INFO {
			return
		}
		nested(d, func(n *netlink.AttributeDecoder) {
			switch n.Type() {
			case unix.NL80211_SURVEY_INFO_FREQUENCY:
				s.FreqMHz = int(n.Uint32())
			case unix.NL80211_SURVEY_INFO_IN_USE:
				s.InUse = true
			case unix.NL80211_SURVEY_INFO_NOISE:
				s.NoiseDBm = int(n.Int8())
			case unix.NL80211_SURVEY_INFO_TIME:
				s.Time = milliseconds(n.Uint64())
			case unix.NL80211_SURVEY_INFO_TIME_BUSY:
				s.Busy = milliseconds(n.Uint64())
			case unix.NL80211_SURVEY_INFO_TIME_EXT_BUSY:
				s.ExtBusy = milliseconds(n.Uint64())
			case unix.NL80211_SURVEY_INFO_TIME_RX:
				s.Rx = milliseconds(n.Uint64())
			case unix.NL80211_SURVEY_INFO_TIME_TX:
				s.Tx = milliseconds(n.Uint64())
			case unix.NL80211_SURVEY_INFO_TIME_SCAN:
				s.Scanning = milliseconds(n.Uint64())
			}
		})
	})
	return s, err
}

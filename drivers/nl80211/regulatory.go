package nl80211

import (
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Regulatory is what is allowed where the radio is.
type Regulatory struct {
	Country string // ISO 3166 alpha-2, or 00 for what is allowed everywhere
	Wiphy   int    // of a radio that regulates itself; -1 for all others
	DFS     uint8  // region of the rules for radar: 0 none, 1 FCC, 2 ETSI, 3 JP
	Rules   []Rule
}

// Rule is what is allowed in a range of frequencies.
type Rule struct {
	StartKHz, EndKHz int
	MaxWidthKHz      int
	AntennaMBi       int // hundredths of a dBi
	MaxEIRPMBm       int // hundredths of a dBm
	CAC              time.Duration
	Flags            RuleFlags
}

// RuleFlags are NL80211_RRF_* bits.
type RuleFlags uint32

// Flags of a rule.
const (
	RuleNoOutdoor RuleFlags = unix.NL80211_RRF_NO_OUTDOOR
	RuleDFS       RuleFlags = unix.NL80211_RRF_DFS
	RuleNoIR      RuleFlags = unix.NL80211_RRF_NO_IR
	RuleAutoBW    RuleFlags = unix.NL80211_RRF_AUTO_BW
	RuleNoHT40    RuleFlags = unix.NL80211_RRF_NO_HT40
	RuleNo80MHz   RuleFlags = unix.NL80211_RRF_NO_80MHZ
	RuleNo160MHz  RuleFlags = unix.NL80211_RRF_NO_160MHZ
)

// Regulatory returns what holds for all radios that do not regulate themselves.
func (c *Conn) Regulatory() (Regulatory, error) {
	b, err := c.get("read regulation", unix.NL80211_CMD_GET_REG, nil)
	if err != nil {
		return Regulatory{}, err
	}
	return parseRegulatory(b)
}

// WiphyRegulatory returns what holds for one radio.
func (c *Conn) WiphyRegulatory(index int) (Regulatory, error) {
	b, err := c.get("read regulation", unix.NL80211_CMD_GET_REG, func(e *netlink.AttributeEncoder) { wiphy(e, index) })
	if err != nil {
		return Regulatory{}, err
	}
	return parseRegulatory(b)
}

// SetCountry asks for a country's regulation. The event RegulatoryChanged tells
// when it holds; a country that the kernel's database does not have never does.
func (c *Conn) SetCountry(country string) error {
	if len(country) != 2 {
		return fmt.Errorf("nl80211: country: expected two letters, got %q", country)
	}
	return c.set("set country "+country, unix.NL80211_CMD_REQ_SET_REG, func(e *netlink.AttributeEncoder) {
		e.String(unix.NL80211_ATTR_REG_ALPHA2, country)
	})
}

// ReloadRegulatory has the kernel read its database (regulatory.db) anew. One that
// was not there when cfg80211 asked for it, as before the root is mounted, it does
// not ask for again by itself.
func (c *Conn) ReloadRegulatory() error {
	return c.set("reload the regulatory database", unix.NL80211_CMD_RELOAD_REGDB, nil)
}

func parseRegulatory(b []byte) (r Regulatory, err error) {
	r.Wiphy = -1
	err = walk(b, func(d *netlink.AttributeDecoder) {
		switch d.Type() {
		case unix.NL80211_ATTR_REG_ALPHA2:
			r.Country = d.String()
		case unix.NL80211_ATTR_WIPHY:
			r.Wiphy = int(d.Uint32())
		case unix.NL80211_ATTR_DFS_REGION:
			r.DFS = d.Uint8()
		case unix.NL80211_ATTR_REG_RULES:
			r.Rules = nil
			each(d, func() { r.Rules = append(r.Rules, Rule{}) }, func(n *netlink.AttributeDecoder) { r.Rules[len(r.Rules)-1].attribute(n) })
		}
	})
	return r, err
}

func (r *Rule) attribute(d *netlink.AttributeDecoder) {
	switch d.Type() {
	case unix.NL80211_ATTR_FREQ_RANGE_START:
		r.StartKHz = int(d.Uint32())
	case unix.NL80211_ATTR_FREQ_RANGE_END:
		r.EndKHz = int(d.Uint32())
	case unix.NL80211_ATTR_FREQ_RANGE_MAX_BW:
		r.MaxWidthKHz = int(d.Uint32())
	case unix.NL80211_ATTR_POWER_RULE_MAX_ANT_GAIN:
		r.AntennaMBi = int(d.Uint32())
	case unix.NL80211_ATTR_POWER_RULE_MAX_EIRP:
		r.MaxEIRPMBm = int(d.Uint32())
	case unix.NL80211_ATTR_DFS_CAC_TIME:
		r.CAC = milliseconds(uint64(d.Uint32()))
	case unix.NL80211_ATTR_REG_RULE_FLAGS:
		r.Flags = RuleFlags(d.Uint32())
	}
}

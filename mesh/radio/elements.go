package radio

import (
	"encoding/binary"
	"fmt"
	"slices"

	"halo.internal/drivers/nl80211"
	"halo.internal/model/dot11"
)

// Elements of 802.11n and 802.11ac (9.4.2.55, 9.4.2.56, 9.4.2.157).
const (
	htCapabilities  dot11.ElementID = 45
	htOperation     dot11.ElementID = 61
	vhtCapabilities dot11.ElementID = 191
)

// band returns the band of the channel.
func (r *Radio) band() (nl80211.Band, error) {
	for _, b := range r.wiphy.Bands {
		i := slices.IndexFunc(b.Channels, func(a nl80211.Allowed) bool { return a.FreqMHz == r.c.Channel.FreqMHz })
		switch {
		case i < 0:
		case b.Channels[i].Disabled:
			return nl80211.Band{}, fmt.Errorf("radio: %s may not be used here: regulation or the hardware disables it", r.c.Channel)
		case b.Channels[i].NoIR:
			return nl80211.Band{}, fmt.Errorf("radio: %s may only be listened on here: a mesh has to send beacons", r.c.Channel)
		default:
			return b, nil
		}
	}
	return nl80211.Band{}, fmt.Errorf("radio: %s has no channel at %s", r.wiphy.Name, r.c.Channel)
}

// mandatory returns the rates that every station of the band knows, in 100
// kbit/s: those of ERP (18.2.2.3), or of OFDM (17.2.2.3) where there is no
// 802.11b. Members whose sets differ do not take each other for members (14.2.3).
func mandatory(b nl80211.Band) []int {
	ofdm := []int{60, 120, 240}
	for _, r := range []int{10, 20, 55, 110} {
		if !slices.Contains(b.Rates, r) {
			return ofdm
		}
	}
	return []int{10, 20, 55, 60, 110, 120, 240}
}

// rateElements returns the bodies of the Supported Rates and Extended Supported
// Rates elements: 500 kbit/s in 7 bits, the eighth for a mandatory one.
func rateElements(b nl80211.Band) (first, rest []byte) {
	need := mandatory(b)
	var all []byte
	for _, r := range b.Rates {
		o := byte(r / 5)
		if slices.Contains(need, r) {
			o |= 0x80
		}
		all = append(all, o)
	}
	n := min(8, len(all))
	return all[:n], all[n:]
}

// highThroughput returns the HT elements of a band on a channel; nil where
// either has none.
func highThroughput(b nl80211.Band, c nl80211.Channel) []byte {
	if b.HT.MCS == nil || c.Width == nl80211.Width20NoHT {
		return nil
	}
	capabilities := make([]byte, 26)
	info := b.HT.Info
	if c.Width == nl80211.Width20 {
		info &^= 1<<1 | 1<<6 // 40 MHz, and its short guard interval
	}
	binary.LittleEndian.PutUint16(capabilities, info)
	capabilities[2] = b.HT.AMPDU
	copy(capabilities[3:19], b.HT.MCS)
	out := dot11.AppendElement(nil, htCapabilities, capabilities)

	operation := make([]byte, 22)
	operation[0] = channelNumber(c.FreqMHz)
	if c.Center1MHz != 0 && c.Width != nl80211.Width20 {
		operation[1] = 1 | 1<<2 // the second channel is above, any width
		if c.Center1MHz < c.FreqMHz {
			operation[1] = 3 | 1<<2
		}
	}
	return dot11.AppendElement(out, htOperation, operation)
}

// channelNumber returns the number of a 20 MHz channel of 2.4 or 5 GHz
// (17.3.8.4.2, 15.4.4.3).
func channelNumber(freqMHz int) byte {
	switch {
	case freqMHz == 2484:
		return 14
	case freqMHz < 2484:
		return byte((freqMHz - 2407) / 5)
	}
	return byte((freqMHz - 5000) / 5)
}

// capabilities are what a station says of itself that its entry in the kernel
// needs.
type capabilities struct {
	rates   []int // 100 kbit/s
	ht, vht []byte
	full    bool // it accepts no more peers
}

// parseCapabilities reads them from elements, of a beacon or an Open. What
// cannot be read is left out: only who knows the key becomes a station.
func parseCapabilities(elements []byte) (c capabilities) {
	for rest := elements; len(rest) > 0; {
		e, after, err := dot11.NextElement(rest)
		if err != nil {
			break
		}
		rest = after
		switch e.ID {
		case dot11.SupportedRates, dot11.ExtendedSupportedRates:
			for _, o := range e.Body {
				if rate := int(o&0x7f) * 5; rate > 0 && len(c.rates) < maxRates && !slices.Contains(c.rates, rate) {
					c.rates = append(c.rates, rate)
				}
			}
		case htCapabilities:
			if len(e.Body) == 26 {
				c.ht = slices.Clone(e.Body)
			}
		case vhtCapabilities:
			if len(e.Body) == 12 {
				c.vht = slices.Clone(e.Body)
			}
		case dot11.MeshConfiguration:
			if len(e.Body) == 7 {
				c.full = e.Body[6]&1 == 0
			}
		}
	}
	return c
}

// maxRates is how many rates the kernel takes (NL80211_MAX_SUPP_RATES).
const maxRates = 32

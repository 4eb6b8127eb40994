package legal

import (
	"fmt"

	"halo.internal/drivers/nl80211"
)

// WiFi answers what a mesh may do on a channel by the kernel's regulatory
// answer. wanted is the country that the network is set to: while the kernel
// keeps to other rules, nothing is allowed.
func WiFi(wanted string, reg nl80211.Regulatory, c nl80211.Channel) (a Answer) {
	source := "the kernel's rules of " + reg.Country
	if reg.Wiphy >= 0 {
		source = fmt.Sprintf("rules of %s that radio %d brings along", reg.Country, reg.Wiphy)
	}
	a = Answer{Country: reg.Country, Channel: c.String(), Duty: Always}
	if reg.Country != wanted {
		a.because(source, "the network is set to %s, and the kernel keeps to %s: is there a regulatory.db, and does it have the country?", wanted, reg.Country)
		return a
	}
	low, high := span(c)
	if low >= high {
		a.because("nl80211", "expected a width that is known, got %d", c.Width)
		return a
	}
	for _, r := range reg.Rules {
		if low < r.StartKHz || high > r.EndKHz {
			continue
		}
		a.MaxWidthKHz = r.MaxWidthKHz
		if r.Flags&nl80211.RuleAutoBW != 0 { // as wide as the range is
			a.MaxWidthKHz = max(a.MaxWidthKHz, r.EndKHz-r.StartKHz)
		}
		switch {
		case high-low > a.MaxWidthKHz:
			a.because(source, "%d MHz wide at most", a.MaxWidthKHz/1000)
		case r.Flags&nl80211.RuleNoIR != 0:
			a.because(source, "nobody may send there who has not heard another first, and a mesh has nobody to wait for")
		case r.Flags&nl80211.RuleDFS != 0:
			a.because(source, "who sends there must look out for radar, which a mesh of HALO does not")
		default:
			a.Allowed = true
		}
		a.MaxEIRP = DBm(r.MaxEIRPMBm)
		a.because(source, "at most %s from the antenna", a.MaxEIRP)
		if r.Flags&nl80211.RuleNoOutdoor != 0 {
			a.because(source, "indoors only")
		}
		return a
	}
	a.because(source, "no rule lets anybody use %d to %d MHz", low/1000, high/1000)
	return a
}

// span returns where a channel begins and ends, in kHz.
func span(c nl80211.Channel) (low, high int) {
	centre := c.Center1MHz
	if centre == 0 {
		centre = c.FreqMHz
	}
	half := c.Width.MHz() * 500
	return centre*1000 + c.OffsetKHz - half, centre*1000 + c.OffsetKHz + half
}

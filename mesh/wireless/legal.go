package wireless

import (
	"fmt"
	"strings"
	"time"

	"halo.internal/drivers/nl80211"
	"halo.internal/drivers/s1g"
	"halo.internal/mesh/radio"
	"halo.internal/model"
	"halo.internal/model/dot11"
)

// Channels lists the channels of all radios of the device and what the country
// and the hardware let a mesh do on them.
func (w *Wireless) Channels() ([]model.RadioChannels, error) {
	states := w.states()
	out := []model.RadioChannels{}
	if len(states) == 0 {
		return out, nil
	}
	conn, err := w.dial()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	wiphys, err := conn.Wiphys()
	if err != nil {
		return nil, err
	}
	ifaces, err := conn.Interfaces()
	if err != nil {
		return nil, err
	}
	for _, s := range states {
		for _, r := range wiphys {
			if r.Index != s.Wiphy {
				continue
			}
			c := model.RadioChannels{Radio: s.Name, Country: country(conn, s.Wiphy), Channels: []model.RadioChannel{}}
			surveys, in := measured(conn, ifaces, s.Iface)
			for _, b := range r.Bands {
				for _, a := range b.Channels {
					c.Channels = append(c.Channels, channel(a, surveys, in))
				}
			}
			out = append(out, c)
		}
	}
	return out, nil
}

// measured returns what the driver has measured, and the frequency of the control
// channel in use, or 0.
func measured(conn kernel, ifaces []nl80211.Interface, iface string) ([]nl80211.Survey, int) {
	for _, i := range ifaces {
		if iface != "" && i.Name == iface {
			surveys, err := conn.Surveys(i.Index)
			if err != nil {
				surveys = nil // many drivers measure nothing
			}
			return surveys, i.Channel.FreqMHz
		}
	}
	return nil, 0
}

func channel(a nl80211.Allowed, surveys []nl80211.Survey, in int) model.RadioChannel {
	c := model.RadioChannel{
		Channel: dot11.ChannelNumber(a.FreqMHz), FreqMHz: a.FreqMHz, InUse: a.FreqMHz == in && in != 0, MaxPowerDBm: float64(a.MaxPowerMB) / 100,
		Why: whyNot(a),
	}
	c.Usable = c.Why == ""
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"disabled", a.Disabled}, {"no-ir", a.NoIR}, {"radar", a.Radar}, {"indoor", a.Indoor},
		{"no-40-above", a.No40Plus}, {"no-40-below", a.No40Minus}, {"no-80", a.No80}, {"no-160", a.No160},
	} {
		if f.set {
			c.Flags = append(c.Flags, f.name)
		}
	}
	for _, s := range surveys {
		if s.FreqMHz != a.FreqMHz {
			continue
		}
		c.NoiseDBm = s.NoiseDBm
		if s.Time > 0 {
			c.BusyPercent = 100 * float64(min(s.Busy, s.Time)) / float64(s.Time)
		}
	}
	return c
}

// whyNot says why a mesh cannot be on a channel, or nothing.
func whyNot(a nl80211.Allowed) string {
	switch {
	case a.Disabled:
		return "regulation or the hardware disables it"
	case a.Radar:
		return "radar may be there: a mesh would have to listen for a minute first, and leave when it comes"
	case a.NoIR:
		return "it may only be listened on: a mesh has to send beacons"
	}
	return ""
}

// Legal tells what the law lets the radios do, first of each radio of the device
// on the mesh's channel, then of HaLow.
func (w *Wireless) Legal() ([]model.Legality, error) {
	out := []model.Legality{}
	if states := w.states(); len(states) > 0 {
		conn, err := w.dial()
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		wiphys, err := conn.Wiphys()
		if err != nil {
			return nil, err
		}
		for _, s := range states {
			for _, r := range wiphys {
				if r.Index != s.Wiphy {
					continue
				}
				rules, err := conn.WiphyRegulatory(r.Index)
				if err != nil {
					return nil, err
				}
				out = append(out, w.wifi(s, r, rules))
			}
		}
	}
	return append(out, halow(w.c.Country)), nil
}

// wifi judges the mesh's channel by the kernel's rules.
func (w *Wireless) wifi(s radio.State, r nl80211.Wiphy, rules nl80211.Regulatory) model.Legality {
	c := channelOf(w.c.Mesh)
	l := model.Legality{Radio: s.Name, Wanted: w.c.Country, Country: rules.Country, Channel: fmt.Sprintf("channel %d, %s", w.c.Mesh.Channel, c)}
	reason := func(format string, args ...any) { l.Reasons = append(l.Reasons, fmt.Sprintf(format, args...)) }
	switch {
	case r.SelfManaged:
		reason("rules: the driver keeps to its own, for country %q", rules.Country)
	case w.c.Country != "" && rules.Country != w.c.Country:
		reason("rules: the kernel keeps to those of %q, not of %q: its database lacks the country, or another radio has asked for less", rules.Country, w.c.Country)
	default:
		reason("rules: the kernel's database (regulatory.db) for %q", rules.Country)
	}
	a, has := r.Channel(c.FreqMHz)
	rule, covered := rules.Covering(c)
	l.Allowed = has && covered
	if !has {
		reason("radio: %s has no channel at %d MHz", r.Name, c.FreqMHz)
	} else if why := whyNot(a); why != "" {
		l.Allowed = false
		reason("channel: %s", why)
	}
	if !covered {
		reason("band: no rule of %q covers %s", rules.Country, c)
		return l
	}
	l.MaxEIRPDBm, l.MaxWidthMHz = float64(rule.MaxEIRPMBm)/100, float64(rule.MaxWidthKHz)/1000
	reason("band: %s to %s MHz, up to %g MHz wide, %g dBm EIRP", mhz(rule.StartKHz), mhz(rule.EndKHz), l.MaxWidthMHz, l.MaxEIRPDBm)
	if c.Width.MHz()*1000 > rule.MaxWidthKHz && rule.Flags&nl80211.RuleAutoBW == 0 {
		l.Allowed = false
		reason("width: %d MHz are more than the rule allows", c.Width.MHz())
	}
	if has && a.MaxPowerMB > 0 {
		reason("power: the radio sends at most %g dBm there", float64(a.MaxPowerMB)/100)
	}
	if rule.Flags&nl80211.RuleNoOutdoor != 0 {
		reason("place: indoors only")
	}
	if rule.Flags&nl80211.RuleDFS != 0 {
		reason("radar: has to be listened for, %s before the first frame", max(rule.CAC, time.Minute))
	}
	reason("duty cycle: no limit for Wi-Fi, which listens before it sends")
	return l
}

// mhz writes kHz as MHz.
func mhz(kHz int) string {
	return strings.TrimSuffix(fmt.Sprintf("%.1f", float64(kHz)/1000), ".0")
}

// halow tells what the table of S1G has for the country. No radio of HaLow is
// driven yet, and none may be where the table has nothing.
func halow(country string) model.Legality {
	l := model.Legality{Wanted: country, Country: country}
	rules, ok := s1g.For(country)
	if !ok {
		l.Reasons = []string{fmt.Sprintf("HaLow: the table (%s) has no rules for %q, so nothing may be sent there", s1g.Scheme, country)}
		return l
	}
	l.Allowed, l.MaxEIRPDBm, l.MaxWidthMHz = true, float64(rules.MaxEIRPDBm), float64(rules.MaxWidthMHz())
	l.Channel = fmt.Sprintf("HaLow: %s to %s", rules.Channels[0], rules.Channels[len(rules.Channels)-1])
	if rules.DutyCycle < 100 {
		l.DutyCyclePct = rules.DutyCycle
	}
	l.Reasons = rules.Reasons
	return l
}

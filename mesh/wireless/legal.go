package wireless

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"halo.internal/drivers/halow/channel"
	"halo.internal/drivers/legal"
	"halo.internal/drivers/nl80211"
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
					c.Channels = append(c.Channels, judge(a, surveys, in))
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

// judge tells what a mesh may do on a channel, and what was measured there.
func judge(a nl80211.Allowed, surveys []nl80211.Survey, in int) model.RadioChannel {
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
	return append(out, halow(w.c.Country)...), nil
}

// wifi judges the mesh's channel by the kernel's rules and by what the radio can
// do. Where nobody has said where the device stands, the rules that hold are those
// that are wanted.
func (w *Wireless) wifi(s radio.State, r nl80211.Wiphy, rules nl80211.Regulatory) model.Legality {
	c := channelOf(w.c.Mesh)
	l := legalityOf(w.c.Country, legal.WiFi(cmp.Or(w.c.Country, rules.Country), rules, c))
	l.Radio, l.Channel = s.Name, fmt.Sprintf("channel %d, %s", w.c.Mesh.Channel, c)
	reason := func(format string, args ...any) {
		l.Reasons = append(l.Reasons, fmt.Sprintf(format, args...)+" (radio "+r.Name+")")
	}
	a, has := r.Channel(c.FreqMHz)
	switch {
	case !has:
		l.Allowed = false
		reason("it has no channel at %d MHz", c.FreqMHz)
	case whyNot(a) != "":
		l.Allowed = false
		reason("%s", whyNot(a))
	case a.MaxPowerMB > 0:
		reason("it sends at most %s there", legal.DBm(a.MaxPowerMB))
	}
	return l
}

// halow tells what the law has for HaLow in the country, whether there is such a
// radio or not: one for each set of channels that the same holds for. Of the
// numberings that a country has had, that of present drivers counts.
func halow(country string) []model.Legality {
	answers, err := legal.HaLowChannels(country, channel.REVmf)
	if err != nil {
		return []model.Legality{{Wanted: country, Channel: "HaLow", Reasons: []string{err.Error()}}}
	}
	var out []model.Legality
	for _, a := range answers {
		l := legalityOf(country, a)
		i := slices.IndexFunc(out, func(o model.Legality) bool {
			return o.Allowed == l.Allowed && o.MaxEIRPDBm == l.MaxEIRPDBm && o.DutyCyclePct == l.DutyCyclePct
		})
		if i < 0 {
			l.Channel = "HaLow: " + a.Channel
			out = append(out, l)
			continue
		}
		out[i].Channel += ", " + strings.TrimPrefix(a.Channel, "S1G channel ")
	}
	return out
}

func legalityOf(wanted string, a legal.Answer) model.Legality {
	l := model.Legality{
		Wanted: wanted, Country: a.Country, Channel: a.Channel, Allowed: a.Allowed,
		MaxEIRPDBm: float64(a.MaxEIRP) / 100, MaxWidthMHz: float64(a.MaxWidthKHz) / 1000, Reasons: []string{},
	}
	if a.Duty < legal.Always {
		l.DutyCyclePct = a.Duty.Percent()
	}
	for _, r := range a.Reasons {
		l.Reasons = append(l.Reasons, r.String())
	}
	return l
}

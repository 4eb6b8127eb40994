package wireless

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"halo.internal/drivers/halow/channel"
	"halo.internal/drivers/legal"
	"halo.internal/drivers/nl80211"
	"halo.internal/mesh/peering"
	"halo.internal/mesh/radio"
	"halo.internal/mesh/sae"
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
	if name := w.hung(); name != "" {
		return nil, fmt.Errorf("radio %s: %w, and who asks for channels would wait for it", name, radio.ErrHangs)
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
		if name := w.hung(); name != "" {
			return nil, fmt.Errorf("radio %s: %w, and who asks for what is legal would wait for it", name, radio.ErrHangs)
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
		for _, s := range states {
			for _, r := range wiphys {
				if r.Index != s.Wiphy {
					continue
				}
				rules, err := conn.WiphyRegulatory(r.Index)
				if err != nil {
					return nil, err
				}
				l, err := w.legality(s, r, rules)
				if err != nil {
					return nil, err
				}
				out = append(out, l)
			}
		}
	}
	return append(out, table(w.c.Country, w.profile().HaLowScheme)...), nil
}

// legality is what the law lets a radio do on its channel of the mesh.
func (w *Wireless) legality(s radio.State, r nl80211.Wiphy, rules nl80211.Regulatory) (model.Legality, error) {
	is, err := w.isHaLow(r.Index)
	if err != nil {
		return model.Legality{}, err
	}
	w.mu.Lock()
	d, m := w.halow, w.meter
	w.mu.Unlock()
	var l model.Legality
	switch {
	case is && d == nil:
		l = model.Legality{Wanted: w.c.Country, Channel: "HaLow", Reasons: []string{errNoSettings.Error()}}
	case is:
		l = legalityOf(w.c.Country, d.Legal())
		if m != nil {
			m.show(time.Now(), &l)
		}
	default:
		p := w.profile()
		c := channelOf(p)
		l = legalityOf(w.c.Country, w.wifi(r, rules, c))
		l.Channel = fmt.Sprintf("channel %d, %s", p.Channel, c)
	}
	l.Radio = s.Name
	return l, nil
}

// everywhere is whose rules the kernel keeps to while it has none of a country: what is
// allowed everywhere.
const everywhere = "00"

// wifi judges a channel by the kernel's rules and by what the radio can do. Where
// nobody has said where the device stands, the rules that hold are those that are
// wanted; and those of the world are within any country's.
func (w *Wireless) wifi(r nl80211.Wiphy, rules nl80211.Regulatory, c nl80211.Channel) legal.Answer {
	wanted := cmp.Or(w.c.Country, rules.Country)
	if rules.Country == everywhere {
		wanted = everywhere
	}
	answer := legal.WiFi(wanted, rules, c)
	reason := func(format string, args ...any) {
		answer.Reasons = append(answer.Reasons, legal.Reason{Text: fmt.Sprintf(format, args...), Source: "radio " + r.Name})
	}
	if wanted == everywhere && w.c.Country != "" {
		reason("the kernel does not have the rules of %s, and keeps to what is allowed everywhere", w.c.Country)
	}
	a, has := r.Channel(c.FreqMHz)
	no := func(format string, args ...any) { answer.Allowed = false; reason(format, args...) }
	switch {
	case !has:
		no("it has no channel at %d MHz", c.FreqMHz)
	case whyNot(a) != "":
		no("%s", whyNot(a))
	case c.Width == nl80211.Width40 && (c.Center1MHz > c.FreqMHz && a.No40Plus || c.Center1MHz < c.FreqMHz && a.No40Minus):
		no("it must not be 40 MHz wide there")
	case a.MaxPowerMB > 0:
		reason("it sends at most %s there", legal.DBm(a.MaxPowerMB))
		answer.HasConducted, answer.MaxConducted = true, legal.DBm(a.MaxPowerMB)
	}
	return answer
}

var errNoSettings = errors.New("it is a HaLow radio, and the board has no settings for one: write the card anew with a board file that has [halow]")

// fit makes a radio what it is to be in the mesh, or refuses it with what the law
// or the radio itself has against it. It asks anew each time, since rules change.
func (w *Wireless) fit(r nl80211.Wiphy, c *radio.Config) error {
	is, err := w.isHaLow(r.Index)
	if err != nil {
		return err
	}
	if is {
		return w.fitHaLow(c)
	}
	conn, err := w.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	all, err := conn.Wiphys()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(all, func(n nl80211.Wiphy) bool { return n.Index == r.Index })
	if i < 0 {
		return fmt.Errorf("radio %s: %w", r.Name, unix.ENODEV)
	}
	rules, err := conn.WiphyRegulatory(r.Index)
	if err != nil {
		return err
	}
	answer := w.wifi(all[i], rules, c.Channel)
	most := answer.MostConducted(0, 0)
	if err := answer.Check(legal.Station{Conducted: most}); err != nil {
		return fmt.Errorf("%w: haloctl mesh channels shows what is left", err)
	}
	c.MaxPowerMBm = int(most)
	return nil
}

// fitted is fit, and what the lab makes of it.
func (w *Wireless) fitted(r nl80211.Wiphy, c *radio.Config) error {
	if err := w.fit(r, c); err != nil {
		return err
	}
	if w.c.Fitted != nil {
		w.c.Fitted(c)
	}
	return nil
}

// fitHaLow makes a radio of Morse's driver a member: on the channel of 5 GHz that
// stands for the mesh's, with the times of slow radios.
func (w *Wireless) fitHaLow(c *radio.Config) error {
	w.mu.Lock()
	d, m, stale := w.halow, w.meter, w.stale
	w.mu.Unlock()
	if d == nil {
		return errNoSettings
	}
	if stale != nil {
		return stale
	}
	if m != nil {
		if err := m.check(); err != nil {
			return err
		}
	}
	power, err := d.Power()
	if err != nil {
		return err
	}
	if c.Channel, err = d.Channel(); err != nil {
		return err
	}
	c.MaxPowerMBm, c.Morse, c.SAE, c.Peering = int(power), true, sae.HaLow, peering.HaLow
	return nil
}

// table tells what the law has for HaLow in the country, whether there is such a
// radio or not: one for each set of channels that the same holds for. Where a
// country has had several numberings and the mesh names none, that of present
// drivers counts.
func table(country, numbering string) []model.Legality {
	scheme, err := channel.ParseScheme(cmp.Or(numbering, channel.REVmf.String()))
	if err != nil {
		return []model.Legality{{Wanted: country, Channel: "HaLow", Reasons: []string{err.Error()}}}
	}
	answers, err := legal.HaLowChannels(country, scheme)
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

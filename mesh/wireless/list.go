package wireless

import (
	"context"
	"slices"
	"time"

	"halo.internal/drivers/halow/channel"
	"halo.internal/drivers/nl80211"
	"halo.internal/mesh/peering"
	"halo.internal/mesh/radio"
	"halo.internal/model"
	"halo.internal/model/dot11"
)

// states returns what mesh/radio knows.
func (w *Wireless) states() []radio.State {
	w.mu.Lock()
	rs := w.radios
	w.mu.Unlock()
	if rs == nil {
		return nil
	}
	return rs.List()
}

// hung says which radio hangs in the kernel; empty: none does.
func (w *Wireless) hung() string {
	for _, l := range w.left.List() {
		return l.Radio
	}
	for _, s := range w.states() {
		if s.Hangs > 0 {
			return s.Name
		}
	}
	return ""
}

// tellWait is for how long the kernel is waited for to say more of radios.
const tellWait = time.Second

// telling is what the kernel says of radios.
type telling struct {
	ifaces    []nl80211.Interface
	stations  map[int][]nl80211.StationInfo // by interface
	countries map[int]string                // by wiphy
}

// tell asks the kernel.
func (w *Wireless) tell() telling {
	t := telling{stations: map[int][]nl80211.StationInfo{}, countries: map[int]string{}}
	conn, ifaces := w.open()
	defer w.idled(conn)
	if conn == nil {
		return t
	}
	t.ifaces = ifaces
	for _, s := range w.states() {
		t.countries[s.Wiphy] = country(conn, s.Wiphy)
		for _, i := range ifaces {
			if s.Iface != "" && i.Name == s.Iface {
				t.stations[i.Index], _ = conn.Stations(i.Index) // peers without numbers are better than none
			}
		}
	}
	return t
}

// List returns the state of all radios, by name. What the kernel does not tell is
// left out.
func (w *Wireless) List() []model.Radio { return w.list(true) }

// Standing is List without addresses, channels and what the kernel counts of peers, of
// radios that are members.
func (w *Wireless) Standing() []model.Radio { return w.list(false) }

func (w *Wireless) list(all bool) []model.Radio {
	list := []model.Radio{}
	if r, ok := w.absentRadio(); ok {
		list = append(list, r)
	}
	states := w.states()
	if len(states) == 0 {
		return list
	}
	w.mu.Lock()
	d := w.halow
	w.mu.Unlock()
	var seen telling
	if all || slices.ContainsFunc(states, func(s radio.State) bool { return s.Detail != "" }) {
		seen, _ = w.telling.Ask(context.Background(), tellWait, w.tell)
	}
	for _, s := range states {
		r := model.Radio{Name: s.Name, Iface: s.Iface, Member: s.Detail == "", Detail: s.Detail, Peers: []model.RadioPeer{}, Dropped: droppedOf(s.Dropped), Healing: w.healing(s.Name)}
		r.Country = seen.countries[s.Wiphy]
		if d != nil && s.Iface != "" {
			if is, err := w.isHaLow(s.Wiphy); err == nil && is {
				law := d.Legal()
				r.HaLow, r.HaLowKHz, r.HaLowWide = law.Channel, law.CentreKHz, law.WidthKHz
			}
		}
		rateOf := wifiRate
		if r.HaLow != "" {
			rateOf = channel.Mbps
		}
		var stations []nl80211.StationInfo
		for _, i := range seen.ifaces {
			if s.Iface == "" || i.Name != s.Iface {
				continue
			}
			r.MAC, r.TxPowerDBm = i.MAC.String(), float64(i.TxPowerMBm)/100
			r.FreqMHz, r.WidthMHz, r.Channel = i.Channel.FreqMHz, i.Channel.Width.MHz(), dot11.ChannelNumber(i.Channel.FreqMHz)
			stations = seen.stations[i.Index]
		}
		for _, p := range s.Peers {
			m := peerOf(p, stations, rateOf)
			if r.HaLow != "" {
				m.Expected = 0 // reckoned from rates of a channel 20 times as wide
			}
			r.Peers = append(r.Peers, m)
		}
		list = append(list, r)
	}
	return list
}

// country returns whose rules hold for a radio; a radio that keeps to its own
// says so when it is asked, others are answered for by the kernel.
func country(conn kernel, wiphy int) string {
	r, err := conn.WiphyRegulatory(wiphy)
	if err != nil {
		return ""
	}
	return r.Country
}

// droppedOf puts counters together whose difference says nothing to people.
func droppedOf(d radio.Dropped) model.Dropped {
	return model.Dropped{
		Malformed:         d.SAE.Malformed + d.Peering.Malformed,
		SAEUnverified:     d.SAE.Unverified,
		SAEReplayed:       d.SAE.Replayed + d.SAE.Reflected,
		SAEMismatched:     d.SAE.OtherMethod + d.SAE.OtherGroup,
		SAEOverCapacity:   d.SAE.TokensAsked + d.SAE.OverCapacity,
		PeeringUnverified: d.Peering.Unverified,
		PeeringUnknownKey: d.Peering.UnknownKey,
		PeeringReplayed:   d.Peering.Replayed,
		PeeringMismatched: d.Peering.Mismatched,
		CrowdedOut:        d.CrowdedOut,
	}
}

// wifiRate is what a frame carried, in Mbit/s.
func wifiRate(r nl80211.Rate) float64 { return float64(r.Bitrate) / 10 }

func peerOf(p radio.Peer, stations []nl80211.StationInfo, rateOf func(nl80211.Rate) float64) model.RadioPeer {
	m := model.RadioPeer{
		MAC: p.MAC.String(), Linked: p.Peering == peering.Estab, SAE: p.SAE.String(), Peering: p.Peering.String(),
		SignalDBm: p.SignalDBm, InactiveMS: p.Inactive.Milliseconds(), Failures: p.Failures, Reason: p.Reason,
		Full: p.Full, RetryMS: p.RetryIn.Milliseconds(),
	}
	if !p.Since.IsZero() {
		since := p.Since.UTC()
		m.Since = &since
	}
	for _, s := range stations {
		if s.MAC.String() != m.MAC {
			continue
		}
		m.InactiveMS = s.Inactive.Milliseconds()
		m.TxMbps, m.RxMbps, m.Expected = rateOf(s.TxRate), rateOf(s.RxRate), float64(s.ExpectedThroughput)/1000
		m.TxBytes, m.RxBytes, m.TxPackets, m.TxRetries, m.TxFailed = s.TxBytes, s.RxBytes, s.TxPackets, s.TxRetries, s.TxFailed
	}
	return m
}

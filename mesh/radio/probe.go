package radio

import (
	"time"

	"halo.internal/drivers/nl80211"
	"halo.internal/model/dot11"
)

// ssid is the element that a probe request begins with; empty, it is for all
// (9.4.2.2).
const ssid dot11.ElementID = 0

// probe asks who is there of the mesh (11.1.4.3.2): members answer at once what
// their beacons say, which come once a second or more rarely.
func (r *Radio) probe() error {
	band, err := r.band()
	if err != nil {
		return err
	}
	all := dot11.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	b := dot11.AppendManagement(nil, dot11.Header{Subtype: dot11.ProbeRequest, To: all, From: r.own})
	const third = 16 // address: the BSSID, of any
	copy(b[third:], all[:])
	rates, extended := rateElements(band)
	b = dot11.AppendElement(b, ssid, nil)
	b = dot11.AppendElement(b, dot11.SupportedRates, rates)
	if len(extended) > 0 {
		b = dot11.AppendElement(b, dot11.ExtendedSupportedRates, extended)
	}
	b = append(b, highThroughput(band, r.c.Channel)...)
	b = dot11.AppendElement(b, dot11.MeshID, []byte(r.c.MeshID))
	return r.send(nl80211.SendFrame{Data: b}) // nobody acknowledges it; that it was sent, the driver says
}

// recently is when a member that is there was heard last: it beacons once a second.
const recently = 5 * time.Second

// lookAround probes while there is no link and nobody of the mesh is heard. Whoever
// hears a probe request answers it, and repeats the answer until it is acknowledged:
// nine members that do take a tenth of a second of a HaLow channel of 1 MHz, and ten
// that are without a link and ask all the time leave no time in which to link. Where
// nobody is heard hardly anybody answers, and by the reports of these frames a driver
// that has hung is known (mesh/heal).
func (r *Radio) lookAround(now time.Time) error {
	if r.engine.Links() > 0 || r.hears(now) {
		return nil
	}
	return r.ask()
}

// hears tells whether somebody of the mesh was heard of late. Who is forged can keep a
// radio from asking, but not from hearing beacons.
func (r *Radio) hears(now time.Time) bool {
	for _, s := range r.heard {
		if !s.seen.IsZero() && now.Sub(s.seen) < recently {
			return true
		}
	}
	return false
}

// ask probes. A driver that cannot do it leaves it at the beacons.
func (r *Radio) ask() error {
	err := r.probe()
	if err != nil && !gone(err) {
		r.c.Log.Debug("no probe request", "iface", r.c.Iface, "err", err)
		return nil
	}
	return err
}

package wireless

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"halo.internal/drivers/halow/channel"
	"halo.internal/drivers/legal"
	"halo.internal/drivers/nl80211"
	"halo.internal/mesh/radio"
	"halo.internal/model/bundle"
	"halo.internal/model/dot11"
)

// profile is the mesh's, complete.
func (w *Wireless) profile() bundle.Mesh {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mesh
}

// Change makes the next Run have another profile. Airtime that was used stays
// used.
func (w *Wireless) Change(m bundle.Mesh) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mesh = m.WithDefaults()
}

// Say sends a few octets past the mesh by one radio, or by all where iface is
// empty.
func (w *Wireless) Say(iface string, to dot11.MAC, payload []byte) {
	w.mu.Lock()
	rs := w.radios
	w.mu.Unlock()
	if rs != nil {
		rs.Say(iface, to, payload)
	}
}

// everybodys are the channels on which every country lets a mesh send.
const everybodys = 11

// Permit says why the mesh may not have a profile, or nothing: what the law has
// against it, for HaLow by its table and for Wi-Fi by the kernel's rules for each
// radio. A device without radios knows no rules, and takes what every country has; so
// does one whose kernel does not answer, since the mesh waits for no driver that hangs.
func (w *Wireless) Permit(m bundle.Mesh) error {
	m = m.WithDefaults()
	if err := w.permitHaLow(m); err != nil {
		return err
	}
	states := w.states()
	if len(states) == 0 {
		return w.permitBlind(m, errors.New("this device has no radio, by which the rules of the country would be known"))
	}
	ctx, cancel := context.WithTimeout(context.Background(), answerWait)
	defer cancel()
	said := make(chan error, 1)
	if !w.apart(ctx, "permit", func() { said <- w.permitWiFi(m, states) }) {
		return w.permitBlind(m, errors.New("the kernel does not say what the rules of the country are: a driver hangs"))
	}
	return <-said
}

// permitBlind judges by what every country has, and by what holds already.
func (w *Wireless) permitBlind(m bundle.Mesh, why error) error {
	if m == w.profile() || sameAir(m, w.profile()) || m.Channel <= everybodys && m.Width == 20 {
		return nil
	}
	return fmt.Errorf("channel %d, %d MHz wide: %w; without them, expected one of channels 1 to %d, 20 MHz wide", m.Channel, m.Width, why, everybodys)
}

// permitWiFi judges by the rules that the kernel has for each radio.
func (w *Wireless) permitWiFi(m bundle.Mesh, states []radio.State) error {
	conn, err := w.dial()
	if err != nil {
		return w.permitBlind(m, err)
	}
	defer conn.Close()
	wiphys, err := conn.Wiphys()
	if err != nil {
		return err
	}
	var errs []error
	for _, s := range states {
		i := slices.IndexFunc(wiphys, func(r nl80211.Wiphy) bool { return r.Index == s.Wiphy })
		is, err := w.isHaLow(s.Wiphy)
		if i < 0 || err != nil || is || s.Iface == "" {
			continue // gone, HaLow's, or none of the mesh's
		}
		rules, err := conn.WiphyRegulatory(s.Wiphy)
		if err != nil {
			return err
		}
		answer := w.wifi(wiphys[i], rules, channelOf(m))
		errs = append(errs, answer.Check(legal.Station{Conducted: answer.MostConducted(0, 0)}))
	}
	return errors.Join(errs...)
}

// sameAir tells whether two profiles are on the same channel of Wi-Fi.
func sameAir(a, b bundle.Mesh) bool { return a.Channel == b.Channel && a.Width == b.Width }

func (w *Wireless) permitHaLow(m bundle.Mesh) error {
	if m.HaLowChannel == 0 {
		return nil
	}
	scheme, err := schemeOf(m)
	if err != nil {
		return err
	}
	answer := legal.HaLow(legal.S1G{Country: w.c.Country, Scheme: scheme, Number: m.HaLowChannel})
	return answer.Check(legal.Station{Conducted: answer.MostConducted(0, 0)})
}

// s1g returns the S1G channels that the mesh's number means one of.
func (w *Wireless) s1g(m bundle.Mesh) (channel.Table, error) {
	scheme, err := schemeOf(m)
	if err != nil {
		return channel.Table{}, err
	}
	return channel.For(w.c.Country, scheme)
}

func schemeOf(m bundle.Mesh) (channel.Scheme, error) {
	return channel.ParseScheme(cmp.Or(m.HaLowScheme, channel.REVmf.String()))
}

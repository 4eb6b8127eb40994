package wireless

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"halo.internal/drivers/nl80211"
	"halo.internal/mesh/apart"
	"halo.internal/mesh/radio"
	"halo.internal/model"
	"halo.internal/model/dot11"
)

// Errors of what is asked of a radio; radio.ErrBusy is another.
var (
	ErrNoRadio = errors.New("there is no such radio")
	ErrInvalid = errors.New("bad request")
)

// find returns the radio of that name, or the only one that the mesh has.
func (w *Wireless) find(name string) (radio.State, error) {
	all := w.states()
	if name != "" {
		i := slices.IndexFunc(all, func(s radio.State) bool { return s.Name == name || s.Iface == name })
		switch {
		case i < 0:
			return radio.State{}, fmt.Errorf("%w as %q: expected %s", ErrNoRadio, name, names(all))
		case all[i].Iface == "":
			return radio.State{}, fmt.Errorf("%w for the mesh: %s: %s", ErrNoRadio, name, all[i].Detail)
		case all[i].Hangs > 0:
			return radio.State{}, fmt.Errorf("radio %s: %w", name, radio.ErrHangs) // who asks it would hang as well
		}
		return all[i], nil
	}
	all = slices.DeleteFunc(all, func(s radio.State) bool { return s.Iface == "" })
	switch len(all) {
	case 0:
		return radio.State{}, fmt.Errorf("%w: the mesh has none here", ErrNoRadio)
	case 1:
		return w.find(all[0].Name)
	}
	return radio.State{}, fmt.Errorf("%w: radio: there are several, expected %s", ErrInvalid, names(all))
}

func names(all []radio.State) string {
	var list []string
	for _, s := range all {
		list = append(list, s.Name)
	}
	if list == nil {
		return "a radio, and there is none"
	}
	return "one of " + strings.Join(list, ", ")
}

// maxNetworks bounds what strangers can make of a scan.
const maxNetworks = 256

// Scan has a radio look who is there.
func (w *Wireless) Scan(ctx context.Context, q model.ScanRequest) (model.RadioScan, error) {
	return w.scanOnce(ctx, q, false)
}

// scanOnce has a radio ask who is there, or only listen.
func (w *Wireless) scanOnce(ctx context.Context, q model.ScanRequest, listen bool) (model.RadioScan, error) {
	s, err := w.find(q.Radio)
	if err != nil {
		return model.RadioScan{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, scanWait)
	defer cancel()
	type outcome struct {
		heard []nl80211.BSS
		err   error
	}
	ended := make(chan outcome, 1)
	if !apart.Run(ctx, func() {
		heard, err := w.scan(ctx, s.Iface, listen)
		ended <- outcome{heard, err}
	}) {
		return model.RadioScan{}, fmt.Errorf("scan by radio %s: %w", s.Name, radio.ErrHangs)
	}
	o := <-ended
	if o.err != nil {
		return model.RadioScan{}, o.err
	}
	s1g := w.s1gOf(s.Wiphy)
	out := model.RadioScan{Radio: s.Name, Iface: s.Iface, Networks: []model.RadioNetwork{}}
	for _, h := range kept(o.heard, w.profile().SSID) {
		h.net.S1G = s1g(h.bss)
		out.Networks = append(out.Networks, h.net)
	}
	return out, nil
}

// heardNetwork is a network that a scan has found, and what was heard of it.
type heardNetwork struct {
	bss nl80211.BSS
	net model.RadioNetwork
}

// kept returns the networks that a scan is to tell of, the strongest first. Of more than
// maxNetworks, all channels have some, and on each those that have the mesh's name: who
// forges hundreds on one hides nobody on others.
func kept(heard []nl80211.BSS, own string) []heardNetwork {
	stronger := func(a, b *heardNetwork) int {
		return cmp.Or(cmp.Compare(b.net.SignalDBm, a.net.SignalDBm), cmp.Compare(a.net.BSSID, b.net.BSSID))
	}
	list := make([]*heardNetwork, len(heard))
	for i, b := range heard {
		list[i] = &heardNetwork{b, networkOf(b, own)}
	}
	slices.SortFunc(list, stronger)
	if len(list) > maxNetworks {
		type kind struct {
			mhz int
			own bool
		}
		place := map[*heardNetwork]int{} // among those of its kind
		count := map[kind]int{}
		for _, h := range list {
			k := kind{h.net.FreqMHz, h.net.Own}
			place[h] = count[k]
			count[k]++
		}
		slices.SortStableFunc(list, func(a, b *heardNetwork) int { return cmp.Compare(place[a], place[b]) })
		list = list[:maxNetworks]
		slices.SortFunc(list, stronger)
	}
	out := make([]heardNetwork, len(list))
	for i, h := range list {
		out[i] = *h
	}
	return out
}

// s1gOf returns what tells on which S1G channels a network may be that a radio has heard,
// of those on which a mesh may: nothing where the radio is not of Morse's driver.
func (w *Wireless) s1gOf(wiphy int) func(nl80211.BSS) []int {
	nothing := func(nl80211.BSS) []int { return nil }
	if is, err := w.isHaLow(wiphy); err != nil || !is {
		return nothing
	}
	m := w.profile()
	table, err := w.s1g(m)
	if err != nil {
		return nothing
	}
	own, _ := table.Find(m.HaLowChannel, 0)
	// Whatever is heard, no channel is looked up in the law twice.
	permitted := map[int]bool{}
	permits := func(number int) bool {
		ok, known := permitted[number]
		if !known {
			m.HaLowChannel = number
			ok = w.permitHaLow(m) == nil
			permitted[number] = ok
		}
		return ok
	}
	return func(b nl80211.BSS) (numbers []int) {
		all := table.Heard((b.FreqMHz-5000)/5, centreOf(b.IEs))
		// A mesh that goes elsewhere is most likely as wide there.
		for _, alike := range []bool{true, false} {
			for _, c := range all {
				if (c.WidthMHz == own.WidthMHz) == alike && permits(c.Number) {
					numbers = append(numbers, c.Number)
				}
			}
		}
		return numbers
	}
}

// centreOf returns the number of the centre of the whole channel by VHT Operation
// (9.4.2.158), as Morse's driver fills it in; 0: there is none.
func centreOf(ies []byte) int {
	for rest := ies; len(rest) > 0; {
		e, after, err := dot11.NextElement(rest)
		if err != nil {
			return 0
		}
		if rest = after; e.ID == dot11.VHTOperation && len(e.Body) >= 2 {
			return int(e.Body[1])
		}
	}
	return 0
}

// networkOf reads what a stranger sent.
func networkOf(b nl80211.BSS, own string) model.RadioNetwork {
	const adHoc, privacy = 1 << 1, 1 << 4 // of the capability field (9.4.1.4)
	n := model.RadioNetwork{
		BSSID: b.BSSID.String(), Kind: "access point", FreqMHz: b.FreqMHz, Channel: dot11.ChannelNumber(b.FreqMHz),
		SignalDBm: float64(b.SignalMBm) / 100, SeenMS: b.Seen.Milliseconds(), Secured: b.Capability&privacy != 0,
	}
	var ssid []byte
	for rest := b.IEs; len(rest) > 0; {
		e, after, err := dot11.NextElement(rest)
		if err != nil {
			break
		}
		rest = after
		switch e.ID {
		case dot11.SSID:
			ssid = e.Body
		case dot11.RSN:
			n.Secured = true
		}
	}
	if id := b.MeshID(); id != nil {
		n.Kind, ssid = "mesh", id
		n.Own = string(id) == own
	} else if b.Capability&adHoc != 0 {
		n.Kind = "ad hoc"
	}
	n.Name = strings.ToValidUTF8(strings.Trim(string(ssid), "\x00"), string(utf8.RuneError))
	return n
}

// Capture writes a pcap of what a radio hears and sends.
func (w *Wireless) Capture(ctx context.Context, q model.CaptureRequest, to io.Writer) error {
	q.Seconds, q.Bytes = cmp.Or(q.Seconds, model.CaptureSeconds), cmp.Or(q.Bytes, model.CaptureBytes)
	if q.Seconds < 1 || q.Seconds > model.CaptureMaxSeconds {
		return fmt.Errorf("%w: seconds: expected 1 to %d, got %d", ErrInvalid, model.CaptureMaxSeconds, q.Seconds)
	}
	if q.Bytes < 1024 || q.Bytes > model.CaptureMaxBytes {
		return fmt.Errorf("%w: bytes: expected 1024 to %d, got %d", ErrInvalid, model.CaptureMaxBytes, q.Bytes)
	}
	s, err := w.find(q.Radio)
	if err != nil {
		return err
	}
	if name := w.hung(); name != "" { // the capture makes an interface in place of one that any radio may have
		return fmt.Errorf("capture: radio %s: %w", name, radio.ErrHangs)
	}
	if !w.capturing.TryLock() {
		return fmt.Errorf("%w: another capture is under way", radio.ErrBusy)
	}
	defer w.capturing.Unlock()
	frames, err := w.capture(ctx, s.Wiphy, to, time.Duration(q.Seconds)*time.Second, q.Bytes)
	// Whoever asked, and by whichever way: frames tell who speaks with whom.
	w.notify(EventCaptured, model.Warning, fmt.Sprintf("%d frames of radio %s were recorded", frames, s.Name), "radio", s.Name, "iface", s.Iface, "frames", fmt.Sprint(frames))
	return err
}

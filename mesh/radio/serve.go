package radio

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"halo.internal/drivers/nl80211"
	"halo.internal/mesh/peering"
	"halo.internal/mesh/peering/choice"
	"halo.internal/model"
	"halo.internal/model/dot11"
	"halo.internal/model/order"
)

const (
	houseKeeping  = 2 * time.Second        // stations are looked at, and the choice made again
	chooseAgain   = 200 * time.Millisecond // between choices that strangers may set off
	maxConsidered = 32                     // stations that a choice is made among, besides links
	settle        = 4 * time.Second        // after which links beyond the limit are too many: routing knows by then what the new one is good for
	silent        = 30 * time.Second       // a peer of whom nothing is heard for so long, not even a beacon, is gone
)

// gone tells whether an error is the end of the interface, not of one request.
func gone(err error) bool {
	return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENETDOWN) || errors.Is(err, net.ErrClosed) || errors.Is(err, unix.ENOTCONN)
}

// serve owns the engine until ctx ends or the radio does.
func (r *Radio) serve(ctx context.Context) error {
	inner, cancel := context.WithCancel(ctx)
	in := make(chan nl80211.Event, maxWaiting)
	ended := make(chan error, 1)
	var owned sync.WaitGroup
	owned.Go(func() { ended <- r.pump(inner, in) })
	defer owned.Wait()
	defer cancel()

	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		if ctx.Err() != nil { // also after a call into the kernel that took long
			return r.leave()
		}
		var waits <-chan struct{} // ready while something does
		if !r.waiting.empty() {
			waits = always
		}
		var err error
		select {
		case <-ctx.Done():
			return r.leave()
		case err := <-ended:
			if ctx.Err() != nil { // both have ended, and it was this one's turn
				return r.leave()
			}
			return err
		case e := <-in:
			r.enqueue(e)
			for len(in) > 0 { // nobody else takes of it
				r.enqueue(<-in)
			}
		case <-waits:
			err = r.handle(time.Now(), r.waiting.take())
		case <-r.seek:
			err = r.seekAnew(time.Now())
		case f := <-r.say:
			if _, err := r.conn.Send(r.iface.Index, nl80211.SendFrame{Data: f}); err != nil {
				r.c.Log.Debug("what goes past the mesh is not sent", "iface", r.c.Iface, "err", err) // it is said again
			}
		case <-timer.C:
			now := time.Now()
			r.refresh(now)
			r.engine.Advance(now)
			if !now.Before(r.due) {
				r.due = now.Add(houseKeeping)
				err = r.keepHouse(now)
			}
		}
		if err == nil {
			err = r.act(time.Now())
		}
		for err == nil && r.again {
			r.again = false
			r.choose(time.Now())
			err = r.act(time.Now())
		}
		if err != nil {
			return fmt.Errorf("radio: %s: %w", r.c.Iface, err)
		}
		next := r.due
		if n := r.engine.Next(); !n.IsZero() && n.Before(next) {
			next = n
		}
		timer.Reset(max(0, time.Until(next)))
	}
}

// always is ready.
var always = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// enqueue has an event wait for its turn. What is said past the mesh is handed on, which
// costs nothing.
func (r *Radio) enqueue(e nl80211.Event) {
	if f, ok := e.(nl80211.Frame); ok && (f.Iface != r.iface.Index || r.isStrange(f.Data)) {
		return
	}
	r.waiting.put(e, func(mac dot11.MAC) bool { s := r.heard[mac]; return s != nil && s.wanted })
}

// pump moves events into the channel until ctx ends.
func (r *Radio) pump(ctx context.Context, in chan<- nl80211.Event) error {
	for {
		e, err := r.events.Next(ctx)
		if err != nil {
			return err
		}
		select {
		case in <- e:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// leave closes all links with a word to the peers: those that do not hear it
// notice by the silence.
func (r *Radio) leave() error {
	now := time.Now()
	for mac := range r.heard {
		r.engine.Drop(now, mac, dot11.MeshPeeringCancelled)
	}
	frames, events := r.engine.Take()
	for _, e := range events {
		if e.Peering != nil && e.Peering.Keys != nil {
			e.Peering.Keys.Wipe()
		}
	}
	for _, f := range frames {
		if _, err := r.conn.Send(r.iface.Index, nl80211.SendFrame{Data: f.Bytes}); err != nil {
			return nil // the interface may be gone already
		}
	}
	return nil
}

// handle takes one event of the kernel.
func (r *Radio) handle(now time.Time, e nl80211.Event) error {
	switch e := e.(type) {
	case nl80211.Frame:
		if e.Iface == r.iface.Index {
			if from, ok := sender(e.Data); ok && r.heard[from] != nil {
				r.heard[from].overheard(e.SignalDBm)
			}
			r.refresh(now)
			r.engine.Handle(now, e.Data)
		}
	case nl80211.PeerCandidate:
		if e.Iface == r.iface.Index && len(e.MAC) == len(dot11.MAC{}) {
			return r.candidate(now, e)
		}
	case nl80211.StationRemoved:
		if e.Station.Iface == r.iface.Index && len(e.Station.MAC) == len(dot11.MAC{}) {
			r.removed(now, dot11.MAC(e.Station.MAC))
		}
	case nl80211.InterfaceRemoved:
		if e.Interface.Index == r.iface.Index {
			return fmt.Errorf("the interface was removed: %w", unix.ENODEV)
		}
	case nl80211.WiphyRemoved:
		if e.Index == r.c.Wiphy {
			return fmt.Errorf("the radio was removed: %w", unix.ENODEV)
		}
	case nl80211.ChannelSwitched:
		if e.Iface == r.iface.Index {
			return r.stay(now, e.Channel)
		}
	case nl80211.FrameStatus:
		if e.Iface == r.iface.Index {
			r.reported(now, e.Cookie)
		}
	case nl80211.Overflow:
		clear(r.awaited) // reports may be among what was lost
		r.c.Log.Warn("events of the radio were lost; reading its stations anew", "iface", r.c.Iface)
		return r.resync(now)
	case nl80211.Malformed:
		r.c.Log.Debug("event of the radio not understood", "iface", r.c.Iface, "err", e.Err)
	}
	return nil
}

// candidate takes a beacon of a member that is no station yet.
func (r *Radio) candidate(now time.Time, e nl80211.PeerCandidate) error {
	mac := dot11.MAC(e.MAC)
	if mac.Group() || mac == r.own {
		return nil
	}
	s := r.station(now, mac)
	if s == nil {
		return nil
	}
	known := !s.seen.IsZero()
	s.capabilities, s.seen = parseCapabilities(e.IEs), now
	s.times++
	s.overheard(e.SignalDBm)
	if soon := r.chosen.Add(chooseAgain); !known && !s.wanted && soon.Before(r.due) {
		r.due = soon // a newcomer need not wait for the next look
	}
	return nil
}

// sender returns the address that a management frame names as its sender's.
func sender(frame []byte) (mac dot11.MAC, ok bool) {
	const at = 10
	if len(frame) < at+len(mac) {
		return mac, false
	}
	return dot11.MAC(frame[at:]), true
}

// overheard takes the signal of a frame that nobody has verified. One without a link
// is known by nothing else. The signal of a link is the kernel's to tell: otherwise
// a few frames in the name of peers would say which of them is given up.
func (s *station) overheard(dBm int) {
	if s.since.IsZero() {
		s.smooth(dBm)
	}
}

func (s *station) smooth(dBm int) {
	switch {
	case dBm == 0:
	case s.signal == 0:
		s.signal = float64(dBm)
	default:
		s.signal += (float64(dBm) - s.signal) / 4
	}
}

// removed takes note of a station that is gone from the kernel: by our hand, or
// because the kernel had heard nothing of it.
func (r *Radio) removed(now time.Time, mac dot11.MAC) {
	s := r.heard[mac]
	if s == nil {
		return
	}
	if s.removals > 0 {
		s.removals--
		return
	}
	if !s.inKernel {
		return
	}
	if _, err := r.conn.Station(r.iface.Index, mac[:]); err == nil {
		return // one before it was meant, whose removal got out of count when events were lost
	}
	s.inKernel = false
	r.lost(now, mac, s)
}

// lost ends a link whose peer is not there any more; if it is still chosen, it
// is sought again.
func (r *Radio) lost(now time.Time, mac dot11.MAC, s *station) {
	r.engine.Drop(now, mac, dot11.MeshPeeringCancelled)
	s.wanted, s.seen = false, time.Time{}
}

// resync compares what is known with the kernel.
func (r *Radio) resync(now time.Time) error {
	list, err := r.conn.Stations(r.iface.Index)
	if err != nil {
		return err
	}
	there := map[dot11.MAC]bool{}
	for _, i := range list {
		if len(i.MAC) != len(dot11.MAC{}) {
			continue
		}
		mac := dot11.MAC(i.MAC)
		there[mac] = true
		if s := r.heard[mac]; s == nil || !s.inKernel {
			if err := r.conn.DeleteStation(r.iface.Index, mac[:]); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	for mac, s := range r.heard {
		s.removals = 0
		if s.inKernel && !there[mac] {
			s.inKernel = false
			r.lost(now, mac, s)
		}
	}
	return nil
}

// keepHouse looks at the stations, gives up those that have fallen silent, and
// chooses anew.
func (r *Radio) keepHouse(now time.Time) error {
	list, err := r.conn.Stations(r.iface.Index)
	if err != nil {
		return err
	}
	for _, i := range list {
		if len(i.MAC) != len(dot11.MAC{}) {
			continue
		}
		s := r.heard[dot11.MAC(i.MAC)]
		if s == nil || !s.inKernel {
			continue
		}
		s.inactive = i.Inactive
		s.smooth(i.SignalDBm)
		if i.RxMSDUs > s.data {
			r.engine.Heard(now, dot11.MAC(i.MAC))
		}
		s.data = i.RxMSDUs
		if i.Inactive < silent {
			s.seen = now
		} else if !s.since.IsZero() {
			r.lost(now, dot11.MAC(i.MAC), s)
		}
	}
	for mac, s := range r.heard {
		if !s.wanted && !s.inKernel && now.Sub(s.seen) > forgotten {
			delete(r.heard, mac)
		}
	}
	r.overdue(now)
	r.choose(now)
	r.snapshot(now)
	i, err := r.conn.Interface(r.iface.Index)
	if err != nil {
		return err
	}
	if err := r.stay(now, i.Channel); err != nil {
		return err
	}
	return r.lookAround(now)
}

// stay brings the radio back to the mesh's channel. The kernel follows whoever
// announces a switch in a beacon of the mesh (11.8.8.4), and those beacons nobody
// proves; HALO's own channel never changes while it runs. Without this, one frame
// of a stranger would part all that hear it from all that do not, for good. Links
// stay: who has followed as well goes back as well.
func (r *Radio) stay(now time.Time, on nl80211.Channel) error {
	if on.FreqMHz == 0 || on == r.home {
		return nil
	}
	const beacons = 1 // as soon as may be
	err := r.conn.SwitchChannel(r.iface.Index, r.c.Channel, beacons)
	if errors.Is(err, unix.EBUSY) {
		err = nil // a switch is under way; its end, or the next look, tells where to
	}
	if now.Sub(r.moved) >= tellAgain {
		r.moved = now
		r.notify(EventMoved, model.Warning, fmt.Sprintf("%s was called to %s by a beacon that nobody proves, and goes back", r.c.Iface, on), "channel", on.String())
	}
	return err // a driver that switches for others only: the radio begins anew, on its channel
}

// candidates returns the stations that may be had links with.
func (r *Radio) candidates(now time.Time) (list []choice.Candidate) {
	var links map[dot11.MAC][]dot11.MAC
	if r.c.Links != nil {
		links = r.c.Links()
	}
	for mac, s := range r.heard {
		_, p := r.engine.State(mac)
		linked := p == peering.Estab
		if !linked && (now.Sub(s.seen) > silent || now.Sub(s.refused) < askAgain || now.Before(s.hold)) {
			continue
		}
		list = append(list, choice.Candidate{
			MAC: mac, Signal: s.signal, Linked: linked, Sought: s.wanted && !linked, Full: !linked && (s.full || now.Sub(s.refused) < refusal),
			Failed: s.failures, Peers: links[mac],
		})
	}
	return r.consider(list)
}

// consider leaves out all but those that have links or are sought already, and of
// the rest those that are heard most often and fail least: whoever beacons under
// ever new addresses is heard rarely under each, and under the same ones never
// answers. Where there is no room for all that are alike, there is none for any of
// them: they would be sought in turn, for ever, before a member that is weaker.
func (r *Radio) consider(list []choice.Candidate) []choice.Candidate {
	first := func(c choice.Candidate) bool { return c.Linked || c.Sought }
	order.By(list, func(a, b choice.Candidate) int {
		switch x, y := r.heard[a.MAC], r.heard[b.MAC]; {
		case first(a) != first(b):
			if first(a) {
				return -1
			}
			return 1
		case x.credit() != y.credit():
			return cmp.Compare(y.credit(), x.credit())
		default:
			return y.seen.Compare(x.seen)
		}
	})
	n := 0
	for n < len(list) && first(list[n]) {
		n++
	}
	most := n + maxConsidered
	if len(list) <= most {
		return list
	}
	left := r.heard[list[most].MAC].credit()
	for most > n && r.heard[list[most-1].MAC].credit() == left {
		most--
	}
	if most == n { // all are alike
		most = n + maxConsidered
	}
	return list[:most]
}

// policy keeps one link free, for the one that takes another's place.
func (r *Radio) policy() choice.Policy {
	p := choice.Policy{Limit: r.c.MaxPeers - 1}
	if r.c.Morse {
		p.Seeks = 1 // the channel is slower than the processor
	}
	return p
}

// admit tells whether a station that asks for a link gets one.
func (r *Radio) admit(mac dot11.MAC) bool {
	list := r.candidates(time.Now())
	if !slices.ContainsFunc(list, func(c choice.Candidate) bool { return c.MAC == mac }) {
		// It is heard now, whatever came before.
		c := choice.Candidate{MAC: mac}
		if s := r.heard[mac]; s != nil {
			c.Signal = s.signal
		}
		list = append(list, c)
	}
	return choice.Admits(r.own, list, mac, r.policy())
}

// choose decides whom to have links with, and has the engine see to it.
func (r *Radio) choose(now time.Time) {
	r.chosen = now
	list := r.candidates(now)
	chosen := choice.Choose(r.own, list, r.policy())
	patient := r.patient(now, list)
	known := map[dot11.MAC]bool{}
	for _, c := range list {
		known[c.MAC] = true
		s := r.heard[c.MAC]
		switch want := slices.Contains(chosen, c.MAC); {
		case want && !s.wanted:
			if err := r.engine.Want(now, c.MAC); err != nil {
				r.c.Log.Debug("no peering", "iface", r.c.Iface, "peer", c.MAC, "err", err)
				continue
			}
			s.wanted = true
		case !want && s.wanted && !(c.Linked && patient):
			r.engine.Drop(now, c.MAC, dot11.MeshMaxPeers)
			s.wanted = false
		}
	}
	for mac, s := range r.heard {
		if s.wanted && !known[mac] {
			r.engine.Drop(now, mac, dot11.MeshPeeringCancelled)
			s.wanted = false
		}
	}
}

// patient tells that a link beyond the limit may stay for the moment. All who are
// in the same case choose at other moments, and see what the others did.
func (r *Radio) patient(now time.Time, list []choice.Candidate) bool {
	links := 0
	for _, c := range list {
		if c.Linked {
			links++
		}
	}
	switch {
	case links <= r.policy().Limit:
		r.over = time.Time{}
	case r.over.IsZero():
		r.over = now.Add(settle + rand.N(settle))
	case !now.Before(r.over):
		r.over = time.Time{}
		return false
	}
	return true
}

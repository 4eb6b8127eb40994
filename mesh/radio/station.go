package radio

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"time"

	"halo.internal/drivers/nl80211"
	"halo.internal/mesh/peering"
	"halo.internal/mesh/sae"
	"halo.internal/model"
	"halo.internal/model/dot11"
	"halo.internal/model/order"
)

// station is another member that was heard.
type station struct {
	capabilities
	signal   float64   // dBm, smoothed; 0: none was told
	seen     time.Time // its last beacon or frame
	times    int       // beacons that came while it was no station of the kernel's
	inKernel bool
	removals int // events of our own removals that are still to come
	wanted   bool
	aid      uint16    // what it calls us
	since    time.Time // when the link was made
	inactive time.Duration
	data     uint64 // frames that came under its keys, as the kernel counts them
	failures int    // in a row
	reason   string
	hold     time.Time // until when it is not sought again
	refused  time.Time // when it said last that it has peers enough
	told     time.Time // when a failure was last made an event of
}

// timeUnit is the standard's (TU), in which beacon intervals are.
const timeUnit = 1024 * time.Microsecond

// Bounds of what others may cause.
const (
	maxHeard  = 256
	forgotten = 2 * time.Minute  // after which a station that is not heard is no candidate
	tellAgain = 10 * time.Minute // between events of one station's failures
	refusal   = 20 * time.Second // for which a station that had peers enough is taken to have
	askAgain  = 5 * time.Second  // after which it is asked again all the same, if nothing else will do
	patience  = 2                // failures in a row after which others have their turn
	holdMin   = 2 * time.Second  // before it is sought again then; doubles
	holdMax   = 30 * time.Second
	holdAlone = 5 * time.Second // at most, while there is no link at all
)

// station returns what is known of an address, nil where there is no room for
// more strangers.
func (r *Radio) station(now time.Time, mac dot11.MAC) *station {
	s := r.heard[mac]
	if s != nil {
		return s
	}
	if len(r.heard) >= maxHeard {
		// Whoever beacons under ever new addresses pushes out his own. If even the first of
		// them came within a beacon interval, all would be gone before they can beacon again,
		// members too: then it is drawn by lot who goes, and a member stays sooner or later.
		var oldest, drawn dot11.MAC
		var at *station
		alike := 0 // that were heard as seldom
		for m, s := range r.heard {
			if s.wanted || s.inKernel || at != nil && s.times > at.times {
				continue
			}
			if at == nil || s.times < at.times {
				at, alike = nil, 0
			}
			if at == nil || s.seen.Before(at.seen) {
				oldest, at = m, s
			}
			if alike++; rand.N(alike) == 0 {
				drawn = m
			}
		}
		if at == nil {
			return nil
		}
		if now.Sub(at.seen) < time.Duration(r.c.BeaconInterval)*timeUnit {
			oldest = drawn
		}
		delete(r.heard, oldest)
	}
	s = &station{}
	r.heard[mac] = s
	return s
}

// credit is how much speaks for somebody being there: beacons heard, half as much
// with each of the first attempts in a row that came to nothing. More do not count:
// a rogue makes attempts at an absent member fail by beacons in its name.
func (s *station) credit() int { return s.times >> min(s.failures, 4) }

// installOwnKeys gives the kernel the keys for what is sent to all.
func (r *Radio) installOwnKeys() error {
	i := r.iface.Index
	if err := r.conn.AddKey(i, nl80211.Key{Index: groupKey, Cipher: nl80211.CCMP, Data: r.group.MGTK[:]}); err != nil {
		return err
	}
	if err := r.conn.UseGroupKey(i, groupKey); err != nil {
		return err
	}
	if r.c.MFP == peering.MFPOff {
		return nil
	}
	if err := r.conn.AddKey(i, nl80211.Key{Index: managementKey, Cipher: nl80211.BIP, Data: r.group.IGTK[:]}); err != nil {
		return err
	}
	return r.conn.UseManagementKey(i, managementKey)
}

// refresh tells the engine how far the counters of the own group keys have come,
// for the next Open.
func (r *Radio) refresh(now time.Time) {
	const often = 200 * time.Millisecond
	if now.Sub(r.fresh) < often {
		return
	}
	r.fresh = now
	var rsc [8]byte
	var ipn [6]byte
	seq, err := r.conn.KeySeq(r.iface.Index, groupKey, nil, nl80211.GroupKey)
	if err == nil {
		copy(rsc[:6], seq)
		if r.c.MFP != peering.MFPOff {
			seq, err = r.conn.KeySeq(r.iface.Index, managementKey, nil, nl80211.GroupKey)
			copy(ipn[:], seq)
		}
	}
	if err != nil {
		r.c.Log.Debug("counters of the group keys", "iface", r.c.Iface, "err", err)
		return
	}
	r.engine.SetSequence(rsc, ipn)
}

// add makes a station known to the kernel, authenticated: its peering frames
// come only after SAE.
func (r *Radio) add(mac dot11.MAC, s *station) error {
	if s.inKernel {
		return nil
	}
	aid, err := r.engine.AID(mac)
	if err != nil {
		return err
	}
	rates := s.rates
	if len(rates) == 0 { // no beacon of it was heard yet
		b, err := r.band()
		if err != nil {
			return err
		}
		rates = b.Rates
	}
	flags := nl80211.WME // without it, the kernel drops HT
	if r.c.MFP == peering.MFPRequired {
		flags |= nl80211.MFP
	}
	n := nl80211.NewStation{
		MAC: mac[:], AID: aid, ListenInterval: 100, Rates: rates, HT: s.ht, VHT: s.vht,
		Mask: nl80211.Authenticated | nl80211.WME | nl80211.MFP, Flags: flags,
	}
	if r.c.Channel.Width == nl80211.Width20NoHT {
		n.HT, n.VHT = nil, nil
	}
	err = r.conn.AddStation(r.iface.Index, n)
	if errors.Is(err, fs.ErrExist) { // left by something else: none of its state is ours
		if err = r.conn.DeleteStation(r.iface.Index, mac[:]); err == nil {
			s.removals++
			err = r.conn.AddStation(r.iface.Index, n)
		}
	}
	if err != nil {
		return err
	}
	s.inKernel, s.data = true, 0 // its counters begin anew
	known := nl80211.Authenticated | nl80211.Authorized
	return r.conn.SetStation(r.iface.Index, mac[:], nl80211.StationChange{Mask: known, Flags: known})
}

// remove takes a station with its keys out of the kernel.
func (r *Radio) remove(mac dot11.MAC, s *station) error {
	if !s.inKernel {
		return nil
	}
	s.inKernel = false
	err := r.conn.DeleteStation(r.iface.Index, mac[:])
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		s.removals++
	}
	return err
}

// change carries a new peering state into the kernel. The station exists from
// the first frame to the end of the link.
func (r *Radio) change(mac dot11.MAC, s *station, e *peering.Event) error {
	if e.To == peering.Listen {
		return r.remove(mac, s)
	}
	if err := r.add(mac, s); err != nil {
		return err
	}
	c := nl80211.StationChange{Plink: new(nl80211.PlinkState(e.To))}
	if e.To == peering.Estab {
		c.PeerAID = s.aid
	}
	return r.conn.SetStation(r.iface.Index, mac[:], c)
}

// establish installs the keys of a link that stands.
func (r *Radio) establish(mac dot11.MAC, s *station, e *peering.Event) error {
	defer e.Keys.Wipe()
	if c := parseCapabilities(e.Elements); len(s.rates) == 0 {
		s.capabilities = c
	}
	if e.Again {
		// The peer has begun anew and knows nothing of what was agreed on besides
		// keys, as block acknowledgements.
		if err := r.remove(mac, s); err != nil {
			return err
		}
	}
	if err := r.add(mac, s); err != nil {
		return err
	}
	i, k := r.iface.Index, e.Keys
	if r.c.MFP == peering.MFPOptional && k.Protected {
		if err := r.conn.SetStation(i, mac[:], nl80211.StationChange{Mask: nl80211.MFP, Flags: nl80211.MFP}); err != nil {
			return err
		}
	}
	keys := []nl80211.Key{
		{Index: pairwiseKey, Cipher: nl80211.CCMP, Data: k.MTK[:], Type: nl80211.PairwiseKey},
		{Index: groupKey, Cipher: nl80211.CCMP, Data: k.Peer.MGTK[:], Seq: k.Peer.RSC[:6], Type: nl80211.GroupKey},
	}
	if k.Protected && k.Peer.HasIGTK {
		keys = append(keys, nl80211.Key{Index: managementKey, Cipher: nl80211.BIP, Data: k.Peer.IGTK[:], Seq: k.Peer.IPN[:], Type: nl80211.GroupKey})
	}
	for _, key := range keys {
		key.MAC = mac[:]
		if err := r.conn.AddKey(i, key); err != nil {
			return err
		}
	}
	s.aid = e.AID
	if e.Again { // no other state comes: it has been ESTAB all the time
		return r.conn.SetStation(i, mac[:], nl80211.StationChange{Plink: new(nl80211.PlinkEstab), PeerAID: e.AID})
	}
	return nil
}

// act carries out what the engine has decided: first what it tells, then what
// it sends, since peers may use a link as soon as they hear of it.
func (r *Radio) act(now time.Time) error {
	for {
		frames, events := r.engine.Take()
		if len(frames) == 0 && len(events) == 0 {
			return nil
		}
		for _, e := range events {
			var err error
			if e.SAE != nil {
				r.authenticated(now, e.SAE)
			} else {
				err = r.peered(now, e.Peering)
			}
			if err != nil {
				return err
			}
		}
		for _, f := range frames {
			if err := r.send(nl80211.SendFrame{Data: f.Bytes}); err != nil {
				if gone(err) {
					return err
				}
				r.c.Log.Debug("frame not sent", "iface", r.c.Iface, "peer", f.To, "err", err) // repeated by the engine, as one that was lost
			}
		}
	}
}

func (r *Radio) authenticated(now time.Time, e *sae.Event) {
	s := r.station(now, e.Peer)
	if s == nil {
		return
	}
	switch e.Kind {
	case sae.Accepted:
		s.seen = now
	case sae.Failed:
		r.failed(now, e.Peer, s, e.Err)
	}
}

func (r *Radio) peered(now time.Time, e *peering.Event) error {
	s := r.station(now, e.Peer)
	if s == nil {
		r.engine.Forget(e.Peer)
		return nil
	}
	var err error
	switch e.Kind {
	case peering.Changed:
		err = r.change(e.Peer, s, e)
	case peering.Established:
		if err = r.establish(e.Peer, s, e); err == nil {
			s.wanted, s.since, s.seen, s.failures, s.reason, s.told = true, now, now, 0, "", time.Time{}
			r.again = true
			r.due = now                                        // whoever looks is to see it at once
			if err := r.engine.Want(now, e.Peer); err != nil { // whoever asked for it
				return err
			}
			kind, text := EventPeer, "link with %s on %s"
			if e.Again {
				kind, text = EventPeerAgain, "link with %s on %s again: it has begun anew"
			}
			r.notify(kind, model.Info, fmt.Sprintf(text, e.Peer, r.c.Iface), "mac", e.Peer.String())
		}
	case peering.Closed:
		s.since = time.Time{}
		severity := model.Warning
		if e.Reason == dot11.MeshMaxPeers { // one of us has a better one
			severity = model.Info
			r.enough(now, e, s)
		}
		who := ""
		if e.ByPeer {
			who = "closed by the other, "
		}
		r.notify(EventPeerLost, severity, fmt.Sprintf("link with %s on %s is over: %s%s", e.Peer, r.c.Iface, who, e.Reason), "mac", e.Peer.String(), "reason", e.Reason.String())
	case peering.Failed:
		if e.Reason == dot11.MeshMaxPeers {
			r.enough(now, e, s)
			break // no failure
		}
		if e.Failures == 0 && unanswered[e.Reason] {
			break // nobody here wanted it any more
		}
		reason := e.Err
		if reason == nil {
			reason = errors.New(e.Reason.String())
		}
		r.failed(now, e.Peer, s, reason)
	case peering.Mismatch, peering.Unverified:
		r.c.Log.Debug("peering frame dropped", "iface", r.c.Iface, "peer", e.Peer, "err", e.Err)
	}
	if err == nil || gone(err) {
		return err
	}
	// The kernel has refused something about this station alone.
	r.failed(now, e.Peer, s, err)
	r.engine.Drop(now, e.Peer, dot11.MeshConfigPolicyViolation)
	s.wanted = false
	return r.remove(e.Peer, s)
}

// unanswered are the reasons for which this side closes what did not come about.
var unanswered = map[dot11.Reason]bool{dot11.MeshPeeringCancelled: true, dot11.MeshMaxRetries: true, dot11.MeshConfirmTimeout: true}

// enough leaves a peer alone for a while that has peers enough. One that has asked
// for another link meanwhile has not.
func (r *Radio) enough(now time.Time, e *peering.Event, s *station) {
	_, p := r.engine.State(e.Peer)
	asks := p == peering.OpnRcvd || p == peering.CnfRcvd
	if e.ByPeer && !asks {
		s.refused, s.wanted, r.again = now, false, true
		r.engine.Drop(now, e.Peer, dot11.MeshMaxPeers)
	}
}

// failed notes why no link came about, and tells it once in a while. After some
// failures others have their turn.
func (r *Radio) failed(now time.Time, mac dot11.MAC, s *station, err error) {
	s.failures, s.reason = s.failures+1, err.Error()
	if s.wanted && s.since.IsZero() && s.failures >= patience {
		longest := holdMax
		if r.engine.Links() == 0 {
			longest = holdAlone
		}
		hold := min(longest, holdMin<<min(s.failures-patience, 8))
		s.hold, s.wanted, r.again = now.Add(hold/2+rand.N(hold)), false, true
		r.engine.Drop(now, mac, dot11.MeshMaxRetries)
	}
	if now.Sub(s.told) < tellAgain || errors.Is(err, sae.ErrUnverified) { // the next attempt shows which it is
		return
	}
	severity := model.Warning
	if errors.Is(err, sae.ErrSilent) {
		severity = model.Info // out of reach
	}
	s.told = now
	r.notify(EventPeerRefused, severity, fmt.Sprintf("no link with %s on %s: %v", mac, r.c.Iface, err), "mac", mac.String(), "reason", err.Error())
}

// snapshot publishes the peers and what was dropped.
func (r *Radio) snapshot(now time.Time) {
	var list []Peer
	view := View{Looked: now, Reports: r.reports}
	for mac, s := range r.heard {
		a, p := r.engine.State(mac)
		if p != peering.Estab && now.Sub(s.seen) < silent {
			view.Heard++
		}
		full := p != peering.Estab && now.Sub(s.refused) < refusal
		if !s.wanted && !s.inKernel && s.failures == 0 && !full {
			continue
		}
		peer := Peer{
			MAC: mac, SAE: a, Peering: p, Since: s.since, SignalDBm: s.signal, Inactive: s.inactive, Failures: s.failures, Reason: s.reason, Full: full,
		}
		if p != peering.Estab {
			peer.RetryIn = max(0, s.hold.Sub(now), s.refused.Add(askAgain).Sub(now))
		}
		list = append(list, peer)
	}
	order.By(list, func(a, b Peer) int { return cmp.Compare(a.MAC.String(), b.MAC.String()) })
	dropped := Dropped{CrowdedOut: r.waiting.crowdedOut}
	dropped.SAE, dropped.Peering = r.engine.Stats()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.peers, r.dropped, r.view = list, dropped, view
}

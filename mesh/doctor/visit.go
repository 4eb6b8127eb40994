package doctor

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"halo.internal/mesh/iface"
	"halo.internal/model"
	"halo.internal/model/paths"
)

const (
	lookEvery = 5 * time.Second // who is there, and whether somebody is due
	// On demand that many paths are examined at a time.
	atATime = 8
	// limit of one examination: some sixty tries, each with all its waiting.
	examLimit = 10 * time.Minute
)

// visit examines paths when they are due until ctx ends.
func (d *Doctor) visit(ctx context.Context) {
	t := time.NewTicker(lookEvery)
	defer t.Stop()
	var last time.Time // when an examination that nobody asked for began
	var changes iface.Changes
	defer changes.Close()
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.anew:
			d.forget()
		case <-d.demand:
		case <-t.C:
		}
		if ctx.Err() != nil {
			return
		}
		own, peers, ok := d.Around()
		if !ok {
			d.round(ctx, own, nil, false) // whoever wants to know hears what was known
			continue
		}
		now := time.Now()
		d.admit(own, peers, now)
		if changes.Any() {
			d.holdAgain(own)
		}
		if due, all := d.due(now, last); len(due) > 0 || all {
			last = now
			d.round(ctx, own, due, all)
		}
	}
}

// admit takes note of who is there. What packets to one that is gone were held to
// ends.
func (d *Doctor) admit(own Own, peers []Peer, now time.Time) {
	var gone, moved []*patient
	d.mu.Lock()
	for _, p := range peers {
		used := p.Gateway && !p.Fresh.IsZero() || model.Recent(now, p.Fresh, inUse)
		switch old := d.patients[p.Node]; {
		case old != nil:
			if old.limits != (limits{}) && (old.Underlay != p.Underlay || !slices.Equal(old.Nets, p.Nets)) {
				gone = append(gone, &patient{Peer: old.Peer, exam: old.exam})
				moved = append(moved, old)
			}
			old.Peer = p
			if !used && old.limits == (limits{}) && now.After(old.next) {
				delete(d.patients, p.Node)
			}
		case used:
			d.patients[p.Node] = &patient{Peer: p, plan: plan{next: now.Add(jitter(firstAfter))}}
		}
	}
	for node, old := range d.patients {
		if !slices.ContainsFunc(peers, func(p Peer) bool { return p.Node == node }) {
			gone = append(gone, old)
			delete(d.patients, node)
			for _, fault := range []string{model.FaultMTU, model.FaultMulticast} {
				d.ledger.ended(about{fault: fault, peer: node}, "the peer is gone")
			}
		}
	}
	d.mu.Unlock()
	for _, p := range gone {
		if p.limits == (limits{}) {
			continue
		}
		if err := apply(own, p.Peer, d.Iface, limits{}); err != nil {
			d.Log.Warn("routes of a peer that is gone stay", "peer", p.Node, "err", err)
		}
	}
	for _, p := range moved {
		if err := apply(own, p.Peer, d.Iface, p.limits); err != nil {
			d.Log.Warn("packets to a peer with other networks are not held to limits", "peer", p.Node, "err", err)
		}
	}
}

// holdAgain puts back the routes that hold packets to limits, where they have gone: an
// interface that goes down takes them along, and has none when it comes up. It is not
// called while an examination tries limits.
func (d *Doctor) holdAgain(own Own) {
	var held []patient
	d.mu.Lock()
	for _, p := range d.patients {
		if p.limits != (limits{}) {
			held = append(held, patient{Peer: p.Peer, exam: p.exam})
		}
	}
	d.mu.Unlock()
	if len(held) == 0 {
		return
	}
	there, err := limitRoutes()
	if err != nil {
		d.Log.Debug("routes of limits not looked at", "err", err)
		return
	}
	for _, p := range held {
		if there.hold(own, p.Peer, p.limits) {
			continue
		}
		if err := apply(own, p.Peer, d.Iface, p.limits); err != nil { // tried again within half a minute
			d.Log.Debug("packets to a peer are not held to limits", "peer", p.Node, "err", err)
		}
	}
}

// forget begins anew with all paths: their routes have gone with an interface, or
// are an earlier process's.
func (d *Doctor) forget() {
	if err := sweep(); err != nil {
		d.Log.Warn("old limits of packets stay", "err", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	now := time.Now()
	for _, p := range d.patients {
		p.exam, p.plan = exam{}, plan{next: now.Add(jitter(firstAfter))}
	}
}

// due returns who is to be examined now, and whether multicast is: all that are in
// use when somebody wants to know, otherwise one.
func (d *Doctor) due(now, last time.Time) (due []*patient, all bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	answers := false
	for _, p := range d.patients {
		answers = answers || p.answers
		if d.wants || now.After(p.next) {
			due = append(due, p)
		}
	}
	if answers && d.all.next.IsZero() {
		d.all.next = now.Add(jitter(allFirst))
	}
	if d.wants {
		return due, now.Sub(d.allAt) >= allGap
	}
	if now.Sub(last) < spacing {
		return nil, false
	}
	if len(due) > 0 {
		slices.SortFunc(due, func(a, b *patient) int { return a.next.Compare(b.next) })
		due = due[:1]
	}
	return due, answers && now.After(d.all.next)
}

// round examines paths, and multicast when all is set.
func (d *Doctor) round(ctx context.Context, own Own, due []*patient, all bool) {
	d.mu.Lock()
	wanted := d.wants
	d.wants = false
	d.busy = len(due)
	d.mu.Unlock()
	if wanted {
		d.lookAtOnce(own)
	}
	slots := make(chan struct{}, atATime)
	var each sync.WaitGroup
	for _, p := range due {
		slots <- struct{}{}
		each.Go(func() {
			defer func() { <-slots }()
			d.examine(ctx, own, p)
		})
	}
	each.Wait()
	if all && ctx.Err() == nil {
		d.multicast(ctx)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.busy = 0
	if wanted {
		close(d.rounds)
		d.rounds = make(chan struct{})
	}
}

// examine looks at the path to one peer.
func (d *Doctor) examine(ctx context.Context, own Own, p *patient) {
	ctx, cancel := context.WithTimeout(ctx, examLimit)
	defer cancel()
	d.mu.Lock()
	peer, now := p.Peer, p.limits
	d.mu.Unlock()
	var e exam
	var w widths
	var err error
	if w.full, err = mtuOf(paths.OverlayIface); err == nil {
		w.bare, err = mtuOf(d.Iface)
	}
	fault := about{fault: model.FaultMTU, peer: peer.Node}
	if err == nil {
		e, err = examine(ctx, newRoad(d.wire, peer, func(l limits) error {
			d.mu.Lock()
			p.limits = l // at once: lookAtRoutes keeps routes so
			d.mu.Unlock()
			return apply(own, peer, d.Iface, l)
		}), w, now)
	} else {
		e.limits = now
	}
	if err != nil && ctx.Err() == nil {
		d.Log.Debug("path not examined", "peer", peer.Node, "err", err)
	}
	switch {
	case err != nil || !e.answers:
	case e.fault:
		d.ledger.found(fault, e.detail, e.limits == limits{})
		if e.mended {
			d.ledger.mended(fault, e.limits.words())
		}
	case e.limits == limits{} && e.overlay == w.full:
		d.ledger.ended(fault, fmt.Sprintf("packets of %d octets pass again", w.full))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if e.answers {
		p.at = d.Now()
	}
	p.exam = e.over(p.exam)
	p.plan = p.plan.after(time.Now(), e.condition())
	d.busy = max(0, d.busy-1)
}

// over keeps what an examination did not find out anew.
func (e exam) over(old exam) exam {
	if !e.answers || e.overlay == 0 && e.underlay == 0 && !e.fault {
		e.overlay, e.underlay = old.overlay, old.underlay
	}
	if !e.answers {
		e.latency = old.latency
	}
	return e
}

// multicast looks whether what this device sends to all arrives, and mends what it
// can when it does not.
func (d *Doctor) multicast(ctx context.Context) {
	var peers []Peer
	d.mu.Lock()
	for _, p := range d.patients {
		if p.answers {
			peers = append(peers, p.Peer)
		}
	}
	d.mu.Unlock()
	state := well
	defer func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.allAt = time.Now()
		d.all = d.all.afterAll(d.allAt, state)
	}()
	if len(peers) == 0 {
		return
	}
	found, err := reachAll(ctx, d.wire, peers)
	if err != nil {
		d.Log.Debug("multicast not looked at", "err", err)
		return
	}
	var missed []Peer
	for _, p := range peers {
		r, known := found[p.Node]
		a := about{fault: model.FaultMulticast, peer: p.Node}
		switch {
		case !known:
		case r != reaches:
			missed = append(missed, p)
			d.ledger.found(a, r.diagnosis(), false)
		case d.ledger.open(a):
			d.ledger.ended(a, "what this device sends to all arrives")
		}
	}
	if len(missed) > 0 {
		again, treatment, err := d.treatMulticast(ctx, missed)
		if err != nil {
			d.Log.Debug("multicast not mended", "err", err)
		}
		for _, p := range missed {
			a := about{fault: model.FaultMulticast, peer: p.Node}
			r, known := again[p.Node]
			if known {
				found[p.Node] = r
			}
			if known && r == reaches {
				d.ledger.mended(a, treatment)
				continue
			}
			state = sick
			if known {
				d.ledger.found(a, r.diagnosis()+"; setting it up anew at both ends did not help", true)
			}
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for node, r := range found {
		if p := d.patients[node]; p != nil {
			p.reach, p.reachAt = r, d.Now()
		}
	}
}

// treatMulticast has all flooded again, the peers join their group anew, and looks
// what came of it.
func (d *Doctor) treatMulticast(ctx context.Context, missed []Peer) (map[string]reach, string, error) {
	treatment := "the peer joined its group anew and has batman-adv flood what goes to all"
	if err := d.flood(); err == nil {
		treatment = "batman-adv was told again to flood what goes to all, at both ends, and the peer joined its group anew"
	}
	complain(ctx, d.wire, missed)
	found, err := reachAll(ctx, d.wire, missed)
	return found, treatment, err
}

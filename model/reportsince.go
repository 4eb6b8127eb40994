package model

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"halo.internal/model/dot11"
	"halo.internal/model/order"
)

// What differs by less says nothing new, and is not sent again: most of a report is
// signals that waver by a decibel and the age of the last frame.
const (
	newsSignal   = 3    // dB
	newsRate     = 25   // percent
	newsTQ       = 13   // of 255
	newsPermille = 50   // of retries and failures
	newsInactive = 30e3 // ms
)

// Sort puts the lists into the order in which reports carry them: interfaces by name,
// links by peer, the others by node.
func (r Report) Sort() {
	order.By(r.Interfaces, func(a, b ReportInterface) int { return strings.Compare(a.Name, b.Name) })
	for _, i := range r.Interfaces {
		order.By(i.Links, func(a, b ReportLink) int { return a.key().compare(b.key()) })
	}
	order.By(r.NextHops, func(a, b ReportNextHop) int { return strings.Compare(a.Node, b.Node) })
	order.By(r.Overlay, func(a, b ReportOverlayPeer) int { return strings.Compare(a.Node, b.Node) })
}

func (a linkKey) compare(b linkKey) int {
	return cmp.Or(slices.Compare(a.peer[:], b.peer[:]), strings.Compare(a.node, b.node))
}

// Since returns the report with no more than what changed since base, an earlier whole
// one of the same boot that the gateway has, and what they add up to: the base of the
// next. Both reports are whole and sorted. What has not changed by much stays as base
// has it.
func (r Report) Since(base Report) (changes, whole Report, err error) {
	changes = Report{Node: r.Node, Boot: r.Boot, Seq: r.Seq, Base: base.Seq, EveryS: r.EveryS, NextHops: r.NextHops}
	for _, i := range r.Interfaces {
		at := slices.IndexFunc(base.Interfaces, func(b ReportInterface) bool { return b.Name == i.Name })
		if at < 0 {
			changes.Interfaces = append(changes.Interfaces, i)
			continue
		}
		if c, changed := i.since(base.Interfaces[at]); changed {
			changes.Interfaces = append(changes.Interfaces, c)
		}
	}
	for _, b := range base.Interfaces {
		if !slices.ContainsFunc(r.Interfaces, func(i ReportInterface) bool { return b.Name == i.Name }) {
			changes.Interfaces = append(changes.Interfaces, ReportInterface{Name: b.Name, Addresses: []dot11.MAC{}, Gone: true})
		}
	}
	for _, p := range r.Overlay {
		at := slices.IndexFunc(base.Overlay, func(b ReportOverlayPeer) bool { return b.Node == p.Node })
		if at < 0 || !p.much(base.Overlay[at]) {
			changes.Overlay = append(changes.Overlay, p)
		}
	}
	for _, b := range base.Overlay {
		if !slices.ContainsFunc(r.Overlay, func(p ReportOverlayPeer) bool { return b.Node == p.Node }) {
			changes.Overlay = append(changes.Overlay, ReportOverlayPeer{Node: b.Node, HandshakeS: -1, Gone: true})
		}
	}
	changes.Sort()
	whole, err = base.With(changes)
	return changes, whole, err
}

func (i ReportInterface) since(base ReportInterface) (changes ReportInterface, changed bool) {
	changes = i
	changes.Links = nil
	for _, l := range i.Links {
		at := slices.IndexFunc(base.Links, func(b ReportLink) bool { return b.key() == l.key() })
		if at < 0 || !l.much(base.Links[at]) {
			changes.Links = append(changes.Links, l)
		}
	}
	for _, b := range base.Links {
		if !slices.ContainsFunc(i.Links, func(l ReportLink) bool { return b.key() == l.key() }) {
			changes.Links = append(changes.Links, ReportLink{Peer: b.Peer, Node: b.Node, Gone: true})
		}
	}
	return changes, len(changes.Links) != 0 || !i.like(base)
}

// like tells whether the interfaces are the same but for their links.
func (i ReportInterface) like(o ReportInterface) bool {
	return i.Transport == o.Transport && i.FreqKHz == o.FreqKHz && i.WidthKHz == o.WidthKHz && slices.Equal(i.Addresses, o.Addresses)
}

// much tells whether the links are much the same.
func (l ReportLink) much(o ReportLink) bool {
	return l.Node == o.Node && known(l.SignalDBm, o.SignalDBm) && known(l.TQ, o.TQ) &&
		near(l.SignalDBm, o.SignalDBm, newsSignal) && near(l.TQ, o.TQ, newsTQ) &&
		near(l.RetryPermille, o.RetryPermille, newsPermille) && near(l.FailPermille, o.FailPermille, newsPermille) &&
		near(l.InactiveMS, o.InactiveMS, newsInactive) &&
		rates(l.TxKbps, o.TxKbps) && rates(l.RxKbps, o.RxKbps) && rates(l.ExpectedKbps, o.ExpectedKbps)
}

// much is true while the session stands as it did: how old it is within that goes up and
// down with each renewal.
func (p ReportOverlayPeer) much(o ReportOverlayPeer) bool {
	return p.Node == o.Node && p.Direct == o.Direct && p.session() == o.session()
}

// session tells how a session stands, from the best on.
func (p ReportOverlayPeer) session() int {
	switch {
	case p.HandshakeS < 0:
		return 3
	case p.HandshakeS <= SessionUpS:
		return 0
	case p.HandshakeS <= SessionOldS:
		return 1
	}
	return 2
}

// Altered tells whether more than numbers has changed since an earlier report: an
// interface, a channel or a link came or went, the next hop is another one, or the
// session with a node, the gateway, stands otherwise. Both reports are whole and sorted.
func (r Report) Altered(since Report, gateway string) bool {
	return !slices.EqualFunc(r.Interfaces, since.Interfaces, ReportInterface.holds) ||
		!slices.EqualFunc(r.NextHops, since.NextHops, ReportNextHop.leads) ||
		r.session(gateway) != since.session(gateway)
}

// News tells whether what Since makes of a report and its base says more than that it
// still holds.
func (r Report) News(base Report) bool {
	return len(r.Interfaces)+len(r.Overlay) != 0 || !slices.EqualFunc(r.NextHops, base.NextHops, ReportNextHop.much)
}

// much tells whether the ways are much the same.
func (h ReportNextHop) much(o ReportNextHop) bool {
	return h.Node == o.Node && h.Next == o.Next && h.NextNode == o.NextNode && h.Iface == o.Iface &&
		known(h.TQ, o.TQ) && near(h.TQ, o.TQ, newsTQ) && rates(h.Kbps, o.Kbps)
}

func (r Report) session(node string) int {
	for _, p := range r.Overlay {
		if p.Node == node {
			return p.session()
		}
	}
	return -1
}

// leads tells whether the ways begin alike.
func (h ReportNextHop) leads(o ReportNextHop) bool {
	return h.Node == o.Node && h.Next == o.Next && h.Iface == o.Iface
}

// holds tells whether the interfaces are the same, and have the same links.
func (i ReportInterface) holds(o ReportInterface) bool {
	return i.Name == o.Name && i.like(o) && slices.EqualFunc(i.Links, o.Links, func(a, b ReportLink) bool {
		return a.key() == b.key() && (a.InactiveMS > DeadLinkMS) == (b.InactiveMS > DeadLinkMS)
	})
}

func known(a, b int) bool { return (a == 0) == (b == 0) }

func near(a, b, by int) bool { return max(a-b, b-a) < by }

func rates(a, b int) bool { return known(a, b) && near(a, b, max(a, b)*newsRate/100+1) }

// With returns the whole report that r, a whole one, and the changes since it add up
// to. The error says so when they are not of each other.
func (r Report) With(changes Report) (Report, error) {
	if r.Base != 0 || changes.Base != r.Seq || changes.Node != r.Node || changes.Boot != r.Boot || changes.Seq <= r.Seq {
		return Report{}, fmt.Errorf("report: expected changes since a whole one, got number %d.%d of %s with the base %d for number %d.%d of %s with the base %d",
			changes.Boot, changes.Seq, changes.Node, changes.Base, r.Boot, r.Seq, r.Node, r.Base)
	}
	whole := Report{Node: r.Node, Boot: r.Boot, Seq: changes.Seq, EveryS: changes.EveryS, NextHops: changes.NextHops}
	whole.Interfaces, whole.Overlay = slices.Clone(r.Interfaces), slices.Clone(r.Overlay)
	for _, c := range changes.Overlay {
		whole.Overlay = slices.DeleteFunc(whole.Overlay, func(p ReportOverlayPeer) bool { return p.Node == c.Node })
		if !c.Gone {
			whole.Overlay = append(whole.Overlay, c)
		}
	}
	for _, c := range changes.Interfaces {
		at := slices.IndexFunc(whole.Interfaces, func(i ReportInterface) bool { return i.Name == c.Name })
		switch {
		case c.Gone && at < 0:
			return Report{}, fmt.Errorf("report of %s: interface %s: expected to be there before it is gone", r.Node, c.Name)
		case c.Gone:
			whole.Interfaces = slices.Delete(whole.Interfaces, at, at+1)
			continue
		case at < 0:
			at = len(whole.Interfaces)
			whole.Interfaces = append(whole.Interfaces, ReportInterface{})
		}
		links, err := withLinks(whole.Interfaces[at].Links, c.Links)
		if err != nil {
			return Report{}, fmt.Errorf("report of %s: interface %s: %w", r.Node, c.Name, err)
		}
		c.Links = links
		whole.Interfaces[at] = c
	}
	whole.Sort()
	return whole, whole.Check()
}

func withLinks(list, changes []ReportLink) ([]ReportLink, error) {
	list = slices.Clone(list)
	for _, c := range changes {
		at := slices.IndexFunc(list, func(l ReportLink) bool { return l.key() == c.key() })
		switch {
		case c.Gone && at < 0:
			return nil, fmt.Errorf("link to %s%s: expected to be there before it is gone", c.Peer, c.Node)
		case c.Gone:
			list = slices.Delete(list, at, at+1)
		case at < 0:
			list = append(list, c)
		default:
			list[at] = c
		}
	}
	return list, nil
}

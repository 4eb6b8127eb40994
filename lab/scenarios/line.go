package scenarios

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"halo.internal/lab/air/physics"
	"halo.internal/lab/network"
	"halo.internal/model/paths"
)

// apart is between two of the line, in metres: a hop is good, and over two little
// is heard.
const apart = 110

// place is a machine's in the line, and with whom it is in reach.
type place struct {
	m    *network.Machine
	at   physics.Position
	near []int
}

// Places in the line.
const (
	lineStart  = iota // the gateway
	lineBefore        // the middle
	lineMiddle
	lineAfter
	lineEnd
	lineDetour
)

// rerouteGoal is how soon the far end is to reach the gateway by the detour, on Wi-Fi;
// on the HaLow profile it is 30 s, and `make bench-mesh` measures both in one machine.
// Here are six emulated machines on as few as two cores: ten times as much.
const (
	rerouteGoal  = 6 * time.Second
	rerouteLimit = 10 * rerouteGoal
)

// line makes a line of four hops, with a detour around its middle:
//
//	0 --- 1 --- 2 --- 3 --- 4
//	        \       /
//	         `- 5 -´
//
// takes the power from the one of 2 and 5 by which the far end reaches the gateway,
// and puts all back. That is known from what the air carried, not from what anybody
// says.
func line(ctx context.Context, w *World, r *Result) (err error) {
	spares, err := w.needSpares(ctx, 3)
	if err != nil {
		return err
	}
	all := append(slices.Clone(w.Members[:3]), spares...)
	w = w.among(all...)
	places := []place{
		{all[0], physics.Position{}, []int{1}},
		{all[1], physics.Position{X: apart}, []int{0, 2, 5}},
		{all[2], physics.Position{X: 2 * apart}, []int{1, 3, 5}},
		{all[3], physics.Position{X: 3 * apart}, []int{2, 4, 5}},
		{all[4], physics.Position{X: 4 * apart}, []int{3}},
		{all[5], physics.Position{X: 2 * apart, Y: apart / 2}, []int{1, 2, 3}},
	}
	was, err := w.Net.AirStatus()
	if err != nil {
		return err
	}
	o, err := w.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() {
		for _, radio := range was.Radios {
			if radio.Name != network.Rogue {
				err = errors.Join(err, w.Net.Move(radio.Name, radio.Position))
			}
		}
		err = errors.Join(err, w.Net.Restore(), w.rest(1)) // whoever needs one finds it
	}()
	for i, p := range places {
		err = errors.Join(err, w.Net.Move(p.m.Name(), p.at))
		for j, q := range places[:i] {
			if !slices.Contains(p.near, j) { // nothing at all, not even by luck
				err = errors.Join(err, w.Net.Cut(p.m.Name(), q.m.Name(), true))
			}
		}
		o.Links[p.m] = len(p.near)
	}
	if err != nil {
		return err
	}
	w.say("  the line is made")
	o.Over()
	if err := w.Recovered(ctx, o, &Result{}); err != nil {
		return err
	}
	if o, err = w.Begin(ctx); err != nil {
		return err
	}
	took, detour, err := w.way(ctx, all, lineMiddle, lineDetour)
	if err != nil {
		return err
	}
	middle := all[took]
	rest := w.without(middle)
	for _, p := range places {
		o.Links[p.m] = len(p.near)
		if slices.Contains(p.near, took) {
			o.Links[p.m]--
		}
	}
	if err := middle.PowerCut(); err != nil {
		return err
	}
	o.Over()
	r.Since = "the middle node is off"
	w.say("  %s, by which the far end's traffic went, is lost", middle.Name())
	if err := rest.rerouted(ctx, all, detour, o, r); err != nil {
		return errors.Join(err, w.Net.PowerOn(middle))
	}
	if err := rest.Recovered(ctx, o, r); err != nil {
		return errors.Join(err, w.Net.PowerOn(middle))
	}
	if err := errors.Join(w.Net.PowerOn(middle), w.answers(ctx, middle)); err != nil {
		return err
	}
	return w.ready(ctx)
}

// rerouted has the far end of the line reach the gateway within rerouteLimit, and that
// by the detour.
func (w *World) rerouted(ctx context.Context, all []*network.Machine, detour int, o *Outage, r *Result) error {
	limit, cancel := context.WithTimeoutCause(ctx, time.Until(o.since.Add(rerouteLimit)), fmt.Errorf("not within %s, ten times the goal", rerouteLimit))
	defer cancel()
	if err := w.reachGateway(limit, all[lineEnd]); err != nil {
		return fmt.Errorf("reroute: %w", err)
	}
	r.note("the far end reached the gateway again after %.1f s (goal on boards: %s)", time.Since(o.since).Seconds(), rerouteGoal)
	took, _, err := w.way(ctx, all, detour)
	if err == nil && took != detour {
		err = fmt.Errorf("expected the way by %s, got %s", all[detour].Name(), all[took].Name())
	}
	return err
}

// reachGateway returns when a node's witness has an answer of the gateway's, through
// the overlay, to a question that it asks from now on.
func (w *World) reachGateway(ctx context.Context, from *network.Machine) error {
	v := w.added.witnesses[from]
	if v == nil {
		return fmt.Errorf("%s has no witness", from.Name())
	}
	return v.host.Ping(ctx, paths.OverlayGateway, v.lease.Router)
}

// wayQuestions are what it is found out by, on which way they go: together they take
// many times the airtime of what stations say to a neighbour besides.
const wayQuestions = 40

// way has the far end of a line ask the gateway, and returns by which of some places the
// questions went, and another one of them: by what the air carried from the node behind
// those places to each. It has to be clear.
func (w *World) way(ctx context.Context, all []*network.Machine, among ...int) (took, other int, err error) {
	err = w.eventually(ctx, "it is clear by which way the far end reaches the gateway", func() error {
		before, err := w.carried(all[lineAfter], all)
		if err != nil {
			return err
		}
		limit, cancel := context.WithTimeoutCause(ctx, Limit, fmt.Errorf("not within %s", Limit))
		defer cancel()
		for range wayQuestions {
			if err := w.reachGateway(limit, all[lineEnd]); err != nil {
				return err
			}
		}
		after, err := w.carried(all[lineAfter], all)
		if err != nil {
			return err
		}
		sent := make([]time.Duration, len(all))
		for i := range sent {
			sent[i] = after[i] - before[i]
		}
		took, other, err = busiest(sent, among)
		w.say("  %d questions took %s of air by %s, and %s by %s", wayQuestions, sent[took], all[took].Name(), sent[other], all[other].Name())
		return err
	})
	return took, other, err
}

// busiest returns which of some places took most of the airtime, by far, and which of
// the others the most of the rest; both are the same where there is no other.
func busiest(sent []time.Duration, among []int) (most, next int, err error) {
	sorted := slices.Clone(among)
	slices.SortStableFunc(sorted, func(a, b int) int { return cmp.Compare(sent[b], sent[a]) })
	most, next = sorted[0], sorted[min(1, len(sorted)-1)]
	rest := time.Duration(0)
	for _, place := range sorted[1:] {
		rest += sent[place]
	}
	return most, next, expect(sent[most] > 2*rest, "one way that takes most of the airtime, got %s, and %s by others", sent[most], rest)
}

// carried is the airtime of all that one machine has sent to each of the others, to it
// alone, in their order.
func (w *World) carried(from *network.Machine, to []*network.Machine) ([]time.Duration, error) {
	s, err := w.Net.AirStatus()
	if err != nil {
		return nil, err
	}
	list := make([]time.Duration, len(to))
	for _, l := range s.Links {
		if i := slices.IndexFunc(to, func(m *network.Machine) bool { return m.Name() == l.To }); l.From == from.Name() && i >= 0 {
			list[i] = l.Airtime
		}
	}
	return list, nil
}

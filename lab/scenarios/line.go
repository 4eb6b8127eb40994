package scenarios

import (
	"context"
	"errors"
	"slices"

	"halo.internal/lab/air/physics"
	"halo.internal/lab/network"
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

// line makes a line of four hops, with a detour around its middle:
//
//	0 --- 1 --- 2 --- 3 --- 4
//	        \       /
//	         `- 5 -´
//
// takes the power from the middle, and puts all back.
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
	middle := all[2]
	defer func() {
		for _, radio := range was.Radios {
			if radio.Name != network.Rogue {
				err = errors.Join(err, w.Net.Move(radio.Name, radio.Position))
			}
		}
		err = errors.Join(err, w.Net.Restore())
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

	rest := w.without(middle)
	if o, err = rest.Begin(ctx); err != nil {
		return err
	}
	for _, p := range places {
		o.Links[p.m] = len(p.near)
		if slices.Contains(p.near, 2) {
			o.Links[p.m]--
		}
	}
	if err := middle.PowerCut(); err != nil {
		return err
	}
	w.say("  the middle is lost")
	o.Over()
	r.Since = "the middle node is off"
	if err := rest.Recovered(ctx, o, r); err != nil {
		return errors.Join(err, w.Net.PowerOn(middle))
	}
	if err := errors.Join(w.Net.PowerOn(middle), w.answers(ctx, middle)); err != nil {
		return err
	}
	return w.ready(ctx)
}

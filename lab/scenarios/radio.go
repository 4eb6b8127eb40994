package scenarios

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"halo.internal/lab/air/physics"
	"halo.internal/lab/air/rogue"
	"halo.internal/lab/network"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/graph"
)

// alone returns when a node has no radio in the mesh, no neighbour, and no other has
// it for one.
func (w *World) alone(ctx context.Context, m *network.Machine) error {
	return w.eventually(ctx, m.Name()+" is alone", func() error {
		for _, o := range w.Members {
			s, _, err := w.status(ctx, o)
			if err != nil {
				return err
			}
			most := len(w.Members) - 2
			if o == m {
				most = 0
			}
			heard := map[string]bool{}
			for _, n := range s.Neighbours {
				if n.LastSeenMS < neighbourHeard.Milliseconds() {
					heard[n.MAC] = true
				}
			}
			if err := expect(len(heard) <= most, "%d neighbours of %s that are heard, got %d", most, o.Name(), len(heard)); err != nil {
				return err
			}
		}
		return nil
	})
}

func radioRemoved(ctx context.Context, w *World, r *Result) error {
	m := w.nodes()[0]
	o, err := w.Begin(ctx)
	if err != nil {
		return err
	}
	if err := w.Net.Unplug(m.Name()); err != nil {
		return err
	}
	gone := w.alone(ctx, m)
	if err := errors.Join(gone, w.Net.Replug(m.Name())); err != nil {
		return err
	}
	o.Over()
	r.Since = "the radio is plugged in"
	return w.Recovered(ctx, o, r)
}

// Kinds of halo-mesh's events: what was done about a radio, why in the fields evidence and
// reason, and how a recovery went, each stage with its milliseconds.
const (
	restartedEvent = "mesh.radio.restarted"
	healedEvent    = "mesh.radio.healed"
	recoveredEvent = "mesh.recovered"
)

// unreported is the evidence against a driver that says of no frame that it was sent.
const unreported = "unreported"

// wedgeLimit is how long a device may take to find out that a driver hangs: what
// it sees has to stand for some time before it disturbs a radio.
const wedgeLimit = 10 * time.Minute

func driverWedged(ctx context.Context, w *World, r *Result) error {
	m := w.nodes()[0]
	o, err := w.Begin(ctx)
	if err != nil {
		return err
	}
	freed, err := w.Net.Wedge(m.Name())
	if err != nil {
		return err
	}
	o.Over()
	r.Since = "the driver hangs"
	select {
	case <-freed:
		r.note("the radio was restarted after %.0f s", time.Since(o.since).Seconds())
	case <-time.After(wedgeLimit):
		return fmt.Errorf("expected %s to restart its radio, whose driver hangs, within %s", m.Name(), wedgeLimit)
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if err := w.Recovered(ctx, o, r); err != nil {
		return err
	}
	return w.eventually(ctx, "it is told what was done, and how it went", func() error { return w.unwedged(ctx, m, o.event) })
}

// unwedged checks what is told after an event of a radio whose driver has hung: for what
// it was restarted, and it alone, that it works again, and that the way to the gateway
// was whole after it had peers.
func (w *World) unwedged(ctx context.Context, m *network.Machine, after int64) error {
	of := func(node, kind string) (list []apitype.Event, err error) {
		if list, err = w.Admin.EventsSince(ctx, node, kind, after); err == nil {
			err = expect(len(list) > 0, "events %s of %s, got none", kind, m.Name())
		}
		return list, err
	}
	restarted, err := of(m.Name(), restartedEvent)
	all, errAll := of("", restartedEvent)
	healed, errHealed := of(m.Name(), healedEvent)
	recovered, errRecovered := of(m.Name(), recoveredEvent)
	if err := errors.Join(err, errAll, errHealed, errRecovered); err != nil {
		return err
	}
	return errors.Join(
		expect(slices.ContainsFunc(restarted, func(e apitype.Event) bool {
			return e.Fields["evidence"] == unreported && strings.Contains(e.Fields["reason"], "says of none that it was sent")
		}), "a restart since the driver says of no frame that it was sent, got %+v", restarted),
		expect(!slices.ContainsFunc(all, func(e apitype.Event) bool { // one that is lonely meanwhile may look elsewhere
			return e.Node != restarted[0].Node && e.Fields["evidence"] == unreported
		}), "no such restart of another's radio, got %+v", all),
		expect(len(healed) <= len(restarted), "one word for each restart that the radio works again, got %+v", healed),
		expect(slices.ContainsFunc(recovered, peersCameBack), "a recovery from what broke, with peers on the way and telemetry at its end, got %+v", recovered),
	)
}

// peersCameBack tells whether an event is of a recovery from something that broke, in which
// peers were lost and came back, and which ended with acknowledged readings.
func peersCameBack(e apitype.Event) bool {
	peer, err := strconv.ParseInt(e.Fields[string(model.StagePeer)], 10, 64)
	return err == nil && peer > 0 && e.Fields["cause"] == string(model.CauseBroken) && e.Fields["check"] != "" &&
		e.Fields["total_ms"] != "" && e.Fields[string(model.StageTelemetry)] == e.Fields["total_ms"]
}

func meshKilled(ctx context.Context, w *World, r *Result) error {
	o, err := w.Begin(ctx)
	if err != nil {
		return err
	}
	killed := []*network.Machine{w.nodes()[0], w.gateway()}
	for _, m := range killed {
		limit, cancel := context.WithTimeoutCause(ctx, Limit, fmt.Errorf("not within %s", Limit))
		err := w.Net.KillProcess(limit, m.Name(), "halo-mesh")
		cancel()
		if err != nil {
			return err
		}
	}
	o.Over()
	r.Since = "it is dead"
	if err := w.Recovered(ctx, o, r); err != nil {
		return err
	}
	return w.eventually(ctx, "the radios have the addresses of before", func() error {
		for _, m := range killed {
			s, _, err := w.status(ctx, m)
			if err != nil {
				return err
			}
			if was, is := addressesOf(o.before.views[m.Name()].status.Radios), addressesOf(s.Radios); !slices.Equal(was, is) {
				return fmt.Errorf("expected radios %v of %s, got %v", was, m.Name(), is)
			}
		}
		return nil
	})
}

// addressesOf are the radios' hardware addresses, in order.
func addressesOf(radios []model.Radio) (list []string) {
	for _, r := range radios {
		list = append(list, r.MAC)
	}
	slices.Sort(list)
	return list
}

func partition(ctx context.Context, w *World, r *Result) error {
	return w.CutOff(ctx, r, w.nodes()[0])
}

// CutOff cuts a node off from all others for w.Partition, which is longer than its
// agent keeps readings in RAM.
func (w *World) CutOff(ctx context.Context, r *Result, m *network.Machine) error {
	o, err := w.Begin(ctx)
	if err != nil {
		return err
	}
	if err := w.Net.Partition([]string{m.Name()}); err != nil {
		return err
	}
	defer w.Net.Heal()
	lasts := max(w.Partition, 2*SpoolDelay)
	if err := w.within(ctx, lasts+Limit, "the node is missed, and writes to its card what it can't send", func() error {
		n, err := w.Admin.Node(ctx, m.Name())
		if err != nil {
			return err
		}
		d, err := m.Diag(ctx)
		if err != nil {
			return err
		}
		return errors.Join(
			expect(!n.Online, "%s offline", m.Name()),
			expect(d.Agent != nil && d.Agent.Spool.Segments > 0, "a spool on the card, got %+v", d.Agent),
			expect(time.Since(o.began) > lasts, "an outage of more than %s", lasts),
			w.pictured(ctx, n.ID, false),
		)
	}); err != nil {
		return err
	}
	w.Net.Heal()
	o.Over()
	r.Since = "the partition is healed"
	r.note("cut off for %.0f s", o.since.Sub(o.began).Seconds())
	if err := w.Recovered(ctx, o, r); err != nil {
		return err
	}
	// It was alone with a radio that works: nothing speaks against that.
	restarted, err := w.Admin.EventsSince(ctx, m.Name(), restartedEvent, o.event)
	if err != nil {
		return err
	}
	if blamed := slices.DeleteFunc(restarted, func(e apitype.Event) bool { return e.Fields["evidence"] == "" }); len(blamed) > 0 {
		return fmt.Errorf("expected that the radio of %s, which was alone, is not taken for broken, got %+v", m.Name(), blamed)
	}
	return w.eventually(ctx, "the network's picture shows the links of who was cut off, as before", func() error {
		n, err := w.Admin.Node(ctx, m.Name())
		if err != nil {
			return err
		}
		return w.pictured(ctx, n.ID, true)
	})
}

// pictured returns nil when the gateway's picture of the network, and what it keeps of its
// past, show a node with live links and a way to the gateway, or without them.
func (w *World) pictured(ctx context.Context, id string, linked bool) error {
	p, err := w.Admin.Picture(ctx, time.Time{})
	if err != nil {
		return err
	}
	links := 0
	for _, l := range p.Links {
		if (l.A == id || l.B == id) && l.State == graph.Live {
			links++
		}
	}
	if err := expect((links > 0) == linked, "live links of %s in the picture: %v, got %d", id, linked, links); err != nil {
		return err
	}
	past, err := w.Admin.PictureHistory(ctx)
	if err != nil {
		return err
	}
	return expect(len(past) > 0, "a past of the network's picture, got none")
}

// besiegedBy is how many frames a second are forged: an emulated machine does some
// twentieth of what a board does, and on a busy host less.
const besiegedBy = 40

func rogueFrames(ctx context.Context, w *World, r *Result) error {
	return w.besieged(ctx, r, rogue.All, besiegedBy)
}

func rogueReplay(ctx context.Context, w *World, r *Result) error {
	return w.besieged(ctx, r, rogue.Replay, 50)
}

// besieged restarts a node while a stranger's radio attacks all, with so many
// frames a second.
func (w *World) besieged(ctx context.Context, r *Result, a rogue.Attack, perSecond int) (err error) {
	m := w.nodes()[0]
	o, err := w.Begin(ctx)
	if err != nil {
		return err
	}
	if err := w.Net.StartRogue(rogue.Config{Attack: a, PerSecond: perSecond}, physics.Position{X: 20, Y: 20}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Net.StopRogue()) }()
	if err := errors.Join(m.PowerCut(), w.Net.PowerOn(m)); err != nil {
		return err
	}
	o.Over()
	o.Restarted, r.Since = []*network.Machine{m}, "power is back"
	if err := w.Recovered(ctx, o, r); err != nil {
		return err
	}
	s, err := w.Net.AirStatus()
	if err != nil {
		return err
	}
	if s.Rogue == nil || s.Rogue.Acked == 0 {
		return fmt.Errorf("expected a rogue that was heard, got %+v", s.Rogue)
	}
	r.note("%+v", *s.Rogue)
	return nil
}

package scenarios

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"halo.internal/lab/admin"
	"halo.internal/lab/host"
	"halo.internal/lab/network"
	"halo.internal/model"
)

// Agents of the lab are in more of a hurry than those in the field, so that
// scenarios are too.
const (
	SendEvery  = 4 * time.Second
	SpoolDelay = 25 * time.Second
	Settings   = "sample = '2s'\nsend = '4s'\nspool_delay = '25s'\n"
)

// Limit of each wait: several times what it takes on two busy cores that emulate
// everything.
const Limit = 5 * time.Minute

// pollEvery is how often it is asked how things are.
const pollEvery = time.Second

// What a network of scenarios has.
const (
	Nodes    = 2
	Spare    = 4 // of which a card that is written anew takes one
	Ports    = 2
	MemoryMB = 256
)

// World is a running network, which its admin has claimed.
type World struct {
	Net   *network.Network
	Admin *admin.Admin
	// Members are the legitimate machines that are on, the gateway first.
	Members []*network.Machine
	// Capture is the pcap file of the switch; empty where there is none.
	Capture string
	// Partition is how long a partition lasts.
	Partition time.Duration
	// Say tells people how far it is; it may be nil.
	Say func(text string)

	added *added // shared by copies
}

// added is what scenarios have added to the network. It stays until the network ends.
type added struct {
	made      int                // spares, in all
	spares    []*network.Machine // that run
	resting   []*network.Machine // those that are switched off
	bridge    *network.Machine   // a port of it is bridged into the mesh; nil: none yet
	witnesses map[*network.Machine]*witness
}

// NewWorld is a world of a network that is up and claimed.
func NewWorld(n *network.Network, a *admin.Admin) *World {
	return &World{Net: n, Admin: a, Members: n.Machines(), Partition: 200 * time.Second, added: &added{witnesses: map[*network.Machine]*witness{}}}
}

func (w *World) gateway() *network.Machine { return w.Members[0] }
func (w *World) nodes() []*network.Machine { return w.Members[1:] }

// among returns the world with other members.
func (w *World) among(members ...*network.Machine) *World {
	c := *w
	c.Members = members
	return &c
}

// without returns the world without one of its members.
func (w *World) without(m *network.Machine) *World {
	return w.among(slices.DeleteFunc(slices.Clone(w.Members), func(o *network.Machine) bool { return o == m })...)
}

func (w *World) say(format string, args ...any) {
	if w.Say != nil {
		w.Say(fmt.Sprintf(format, args...))
	}
}

// expect is nil when ok holds, and an error otherwise that says what was expected
// and what came.
func expect(ok bool, format string, args ...any) error {
	if ok {
		return nil
	}
	return fmt.Errorf("expected "+format, args...)
}

// eventually returns when check does without an error, or with its last one when
// that took too long.
func (w *World) eventually(ctx context.Context, what string, check func() error) error {
	return w.within(ctx, Limit, what, check)
}

func (w *World) within(ctx context.Context, limit time.Duration, what string, check func() error) error {
	deadline := time.Now().Add(limit)
	tick := time.NewTicker(pollEvery / 2)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: not within %s: %w", what, limit, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", what, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// ended returns when check is content, and how long after since it began to look then. It
// fails when one that began to look later than limit is not: how long machines that are
// emulated take to answer does not count.
func ended(ctx context.Context, since time.Time, limit time.Duration, what string, check func() error) (after time.Duration, err error) {
	tick := time.NewTicker(pollEvery / 4)
	defer tick.Stop()
	for {
		after = time.Since(since)
		err := check()
		switch {
		case err == nil:
			return after, nil
		case after >= limit:
			return after, fmt.Errorf("%s: not so %.1f s later, want it within %s: %w", what, after.Seconds(), limit, err)
		}
		select {
		case <-ctx.Done():
			return after, fmt.Errorf("%s: %w", what, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// pass lets time pass, which is what a scenario is about.
func (w *World) pass(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

// status is what a machine says of its mesh, and a node of its agent.
func (w *World) status(ctx context.Context, m *network.Machine) (model.MeshStatus, *model.AgentStatus, error) {
	if m == w.gateway() {
		s, err := w.Admin.Mesh(ctx)
		return s, nil, err
	}
	d, err := m.Diag(ctx)
	if err == nil && d.Mesh == nil {
		err = fmt.Errorf("expected the status of halo-mesh of %s, got none", m.Name())
	}
	if err != nil {
		return model.MeshStatus{}, nil, err
	}
	return *d.Mesh, d.Agent, nil
}

// answers returns when machines that were just started answer again; until then,
// what they said before could be taken for what they say now.
func (w *World) answers(ctx context.Context, machines ...*network.Machine) error {
	for _, m := range machines {
		if err := w.eventually(ctx, m.Name()+" answers", func() error { return m.Answers(ctx) }); err != nil {
			return err
		}
	}
	return nil
}

// ready returns when all members say that they lack nothing.
func (w *World) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, Limit, fmt.Errorf("not within %s", Limit))
	defer cancel()
	var mu sync.Mutex
	lacks := map[string]string{}
	err := w.Net.ReadyAre(ctx, w.Members, func(p network.Progress) {
		mu.Lock()
		defer mu.Unlock()
		if lacks[p.Machine] = p.Detail; p.Stage == network.Ready {
			delete(lacks, p.Machine)
		}
	})
	if err != nil {
		return fmt.Errorf("%w; lacking: %v", err, lacks)
	}
	return nil
}

// needSpares returns at least so many nodes besides the members, which run and have
// joined.
func (w *World) needSpares(ctx context.Context, n int) ([]*network.Machine, error) {
	for len(w.added.spares) < n {
		m, err := w.newSpare(ctx)
		if err != nil {
			return nil, err
		}
		w.added.spares = append(w.added.spares, m)
		// One after the other: several that boot beside those that run leave none of them
		// the time that a radio needs.
		if err := w.welcome(m); err != nil {
			return nil, err
		}
		if err := w.joined(ctx, m); err != nil {
			return nil, err
		}
	}
	spares := w.added.spares[:n]
	return spares, w.joined(ctx, spares...)
}

// newSpare returns one that is switched off.
func (w *World) newSpare(ctx context.Context) (*network.Machine, error) {
	if r := w.added.resting; len(r) > 0 {
		w.added.resting = r[1:]
		return r[0], nil
	}
	w.added.made++
	return w.Net.AddNode(ctx, network.NodeName(Nodes+w.added.made))
}

// rest switches all spares off but so many: each takes as much of the host as a member.
func (w *World) rest(but int) error {
	var errs []error
	for _, m := range w.added.spares[min(but, len(w.added.spares)):] {
		errs = append(errs, m.PowerCut())
		w.added.resting = append(w.added.resting, m)
	}
	w.added.spares = w.added.spares[:min(but, len(w.added.spares))]
	return errors.Join(errs...)
}

// needBridge returns a node besides the members, which runs and has joined. Who is
// plugged into its port bridged is on the mesh.
func (w *World) needBridge(ctx context.Context) (*network.Machine, error) {
	if w.added.bridge == nil {
		m, err := w.Net.AddBridge(ctx, "bridge")
		if err != nil {
			return nil, err
		}
		w.added.bridge = m
		if err := w.welcome(m); err != nil {
			return nil, err
		}
	}
	return w.added.bridge, w.joined(ctx, w.added.bridge)
}

// bridged is the port that AddBridge pins; the others are for clients.
const bridged = Ports - 1

// welcome starts a machine that was added.
func (w *World) welcome(m *network.Machine) error {
	w.say("%s is added", m.Name())
	return w.Net.PowerOn(m)
}

// joined returns when all members, and these besides, lack nothing.
func (w *World) joined(ctx context.Context, more ...*network.Machine) error {
	if err := w.answers(ctx, more...); err != nil {
		return err
	}
	return w.among(append(slices.Clone(w.Members), more...)...).ready(ctx)
}

// plug plugs a host into a machine's port; unplug takes it out again.
func (w *World) plug(m *network.Machine, port int, name string, mac host.MAC) (h *host.Host, unplug func(), err error) {
	h, far := host.New(mac)
	if err := w.Net.PlugInto(m.Name(), port, name, far); err != nil {
		return nil, nil, errors.Join(err, h.Close())
	}
	return h, func() { _ = h.Close() }, nil
}

// onSwitch plugs a host into the switch between the machines.
func (w *World) onSwitch(name string, mac host.MAC) (h *host.Host, unplug func(), err error) {
	h, far := host.New(mac)
	if err := w.Net.Switch.Plug(name, far); err != nil {
		return nil, nil, errors.Join(err, h.Close())
	}
	return h, func() { _ = h.Close() }, nil
}

// Consoles is the end of every machine's console, for who looks for the reason of a
// failure.
func (w *World) Consoles() (text string) {
	const most = 3000
	for _, m := range w.Net.Machines() {
		b, err := os.ReadFile(m.Console())
		if err != nil {
			b = []byte(err.Error())
		}
		text += fmt.Sprintf("--- console of %s, %+v\n%s\n", m.Name(), m.Status(), b[max(0, len(b)-most):])
	}
	return text
}

//go:build lab

package systemtest_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"halo.internal/lab/machine"
	"halo.internal/lab/network"
	"halo.internal/lab/scenarios"
	"halo.internal/model"
)

// outage is what was done to the network, and what has to be there again.
type outage struct {
	*scenarios.Outage
	stored scenarios.Stored // before
}

// before notes how things are, once every node is well and has sent something.
func (l *lab) before(t *testing.T) outage {
	t.Helper()
	o, err := l.world.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return outage{o, l.stored(t)}
}

// stored is which batches the gateway has committed.
func (l *lab) stored(t *testing.T) scenarios.Stored {
	t.Helper()
	s, err := l.world.Stored(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// recovered returns when all is as it should be after an outage: everybody is
// back, what was acknowledged is there, the batches of the outage have arrived
// without a hole, and those that restarted have begun a new boot.
func (l *lab) recovered(t *testing.T, o outage, restarted ...*network.Machine) {
	t.Helper()
	o.Over()
	o.Restarted = restarted
	if err := l.world.Recovered(t.Context(), o.Outage, &scenarios.Result{}); err != nil {
		t.Fatal(err)
	}
}

// awaitBoot returns when machines that were just started answer again; until
// then, what they said before could be taken for what they say now.
func (l *lab) awaitBoot(t *testing.T, machines ...*network.Machine) {
	t.Helper()
	for _, m := range machines {
		l.eventually(t, m.Name()+" answers", func() error { return m.Answers(t.Context()) })
	}
}

// restart presses the reset button of machines, all at once.
func (l *lab) restart(t *testing.T, machines ...*network.Machine) {
	t.Helper()
	if err := l.world.Restart(t.Context(), &scenarios.Result{}, machines...); err != nil {
		t.Fatal(err)
	}
}

// partition cuts a node off for longer than its agent keeps readings in RAM.
func (l *lab) partition(t *testing.T, alone *network.Machine) {
	t.Helper()
	w := *l.world
	w.Partition = 0
	if err := w.CutOff(t.Context(), &scenarios.Result{}, alone); err != nil {
		t.Fatal(err)
	}
}

// shutdown switches a node off by its power button, and on again.
func (l *lab) shutdown(t *testing.T, m *network.Machine) {
	before := l.before(t)
	arrived := l.switchOff(t, m)
	if err := l.net.PowerOn(m); err != nil {
		t.Fatal(err)
	}
	l.recovered(t, before, m)
	arrived()
}

// switchOff switches a node off by its power button while it holds batches that
// it could not send, some in RAM alone: they must be on its card then. arrived returns
// once they are at the gateway, for which the node has to be back.
func (l *lab) switchOff(t *testing.T, m *network.Machine) (arrived func()) {
	t.Helper()
	if err := l.net.Partition([]string{m.Name()}); err != nil {
		t.Fatal(err)
	}
	defer l.net.Heal()
	last := l.stored(t)
	boot := last.Newest(m.Name()).Boot
	var held model.SpoolStatus
	l.eventually(t, "the node holds batches that it could not send", func() error {
		d, err := m.Diag(t.Context())
		if err != nil {
			return err
		}
		if d.Agent == nil {
			return errors.New("expected the agent's status, got none")
		}
		held = d.Agent.Spool
		return expect(held.Live > 0 && held.Batches > last.Newest(m.Name()).Last+1, "batches after %d, got %+v", last.Newest(m.Name()).Last, held)
	})
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := m.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	if s := m.Status(); s.State != machine.Off || s.LastEnd != "guest-shutdown" {
		t.Errorf("%s after its power button was pressed: %+v, want it off by itself", m.Name(), s)
	}
	if err := m.Unmounted(t.Context()); err != nil {
		t.Errorf("the card of %s: %v", m.Name(), err)
	}
	return func() {
		l.eventually(t, "what the node held at its end has arrived", func() error {
			now, err := l.world.Stored(t.Context())
			if err != nil {
				return err
			}
			got := now[m.Name()][boot]
			return expect(got.Last >= held.Batches && got.Count == got.Last, "batches of boot %d up to %d at least, got %+v", boot, held.Batches, got)
		})
	}
}

// powerCuts takes the power from machines at random instants: while they run, and
// every other time again while they start.
func powerCuts(t *testing.T, l *lab) {
	random, seed := dice(t)
	all := l.net.Machines()[:len(l.nodes)+1]
	for i := range cuts(t) {
		m := all[(i+int(seed%3))%len(all)]
		t.Logf("power cut %d: %s", i+1, m.Name())
		l.powerCut(t, m, random, i%2 == 0)
	}
}

// dice returns a source of chance and logs its seed.
func dice(t *testing.T) (*rand.Rand, uint64) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0)), seed
}

// powerCut takes the power from a machine within 5 s, and if wanted once more
// on its way up.
func (l *lab) powerCut(t *testing.T, m *network.Machine, random *rand.Rand, twice bool) {
	t.Helper()
	before := l.before(t)
	cut := func(within time.Duration) {
		select {
		case <-time.After(time.Duration(random.Int64N(int64(within)))): // the instant is the test
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		}
		if err := errors.Join(m.PowerCut(), l.net.PowerOn(m)); err != nil {
			t.Fatal(err)
		}
	}
	last := l.stored(t)
	cut(5 * time.Second)
	if twice {
		cut(30 * time.Second)
	}
	l.recovered(t, before, m)
	if err := l.stored(t).Holds(last); err != nil {
		t.Fatal(err)
	}
	if s := m.Status(); s.State != machine.Running || s.Slot != "a" {
		t.Errorf("%s after a power cut: %+v, want it running from slot a", m.Name(), s)
	}
}

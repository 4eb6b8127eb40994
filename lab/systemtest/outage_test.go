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
	"halo.internal/model"
	"halo.internal/model/apitype"
)

// stored is which batches the gateway has committed, and so acknowledged: by
// node and boot.
type stored map[string]map[uint64]apitype.BootCoverage

func (l *lab) stored(ctx context.Context) (stored, error) {
	s := stored{}
	for _, m := range l.net.Machines()[:len(l.nodes)+1] {
		c, err := l.api.Coverage(ctx, m.Name())
		if err != nil {
			return nil, err
		}
		s[m.Name()] = map[uint64]apitype.BootCoverage{}
		for _, b := range c.Boots {
			s[m.Name()][b.Boot] = b
		}
	}
	return s, nil
}

// newest returns the coverage of a node's last boot.
func (s stored) newest(node string) (b apitype.BootCoverage) {
	for _, c := range s[node] {
		if c.Boot >= b.Boot {
			b = c
		}
	}
	return b
}

// whole checks that no batch is missing and none is there twice.
func (s stored) whole() error {
	for node, boots := range s {
		for _, b := range boots {
			if err := expect(b.First == 1 && len(b.Missing) == 0 && b.Dropped == 0 && b.Count == b.Last,
				"each batch of %s from 1 to the last once, got %+v", node, b); err != nil {
				return err
			}
		}
	}
	return nil
}

// holds checks that everything of before is still there.
func (s stored) holds(before stored) error {
	for node, boots := range before {
		for boot, b := range boots {
			now := s[node][boot]
			if err := expect(now.Count >= b.Count && now.Last >= b.Last, "batches 1 to %d of boot %d of %s, which were acknowledged; got %+v", b.Last, boot, node, now); err != nil {
				return err
			}
		}
	}
	return nil
}

// before notes what is stored, once every node has sent something.
func (l *lab) before(t *testing.T) (s stored) {
	t.Helper()
	l.eventually(t, "every machine has sent batches", func() (err error) {
		if s, err = l.stored(t.Context()); err != nil {
			return err
		}
		for _, m := range l.net.Machines()[:len(l.nodes)+1] {
			if err := expect(s.newest(m.Name()).Count > 0, "batches of %s", m.Name()); err != nil {
				return err
			}
		}
		return nil
	})
	return s
}

// recovered returns when all is as it should be after an outage: everybody is
// back, what was acknowledged is there, the batches of the outage have arrived
// without a hole, and those that restarted have begun a new boot.
func (l *lab) recovered(t *testing.T, before stored, outage time.Duration, restarted ...*network.Machine) {
	t.Helper()
	l.ready(t, func(network.Progress) {})
	l.eventually(t, "telemetry is caught up", func() error {
		nodes, err := l.api.Nodes(t.Context())
		if err != nil {
			return err
		}
		if err := checkNodes(nodes, len(l.nodes)); err != nil {
			return err
		}
		now, err := l.stored(t.Context())
		if err != nil {
			return err
		}
		if err := errors.Join(now.holds(before), now.whole()); err != nil {
			return err
		}
		for _, m := range l.net.Machines()[:len(l.nodes)+1] {
			was, is := before.newest(m.Name()), now.newest(m.Name())
			again := false
			for _, r := range restarted {
				again = again || r == m
			}
			if again {
				// It may have restarted twice, and sent something in between.
				boot, err := l.boot(t.Context(), m)
				if err != nil {
					return err
				}
				if err := expect(boot > was.Boot && is.Boot == boot && is.Count > 0, "batches of %s of boot %d, which is after %d, got %+v", m.Name(), boot, was.Boot, is); err != nil {
					return err
				}
				continue
			}
			// It ran all the time: what it made meanwhile must be there. Half, since
			// emulation on busy cores loses time.
			want := was.Last + uint64(outage/sendEvery/2)
			if err := expect(is.Boot == was.Boot && is.Last >= want, "batches of boot %d of %s up to %d at least, got %+v", was.Boot, m.Name(), want, is); err != nil {
				return err
			}
		}
		return nil
	})
}

// boot is the boot counter of a machine that runs.
func (l *lab) boot(ctx context.Context, m *network.Machine) (uint64, error) {
	if m == l.gateway { // its agent's stream ended with its gateway-api: online is of this boot
		n, err := l.api.Node(ctx, m.Name())
		return n.Boot, err
	}
	s, err := l.mesh(ctx, m)
	return s.BootCounter, err
}

// restart presses the reset button of machines, all at once.
func (l *lab) restart(t *testing.T, machines ...*network.Machine) {
	before := l.before(t)
	start := time.Now()
	for _, m := range machines {
		if err := m.Reset(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	l.awaitBoot(t, machines...)
	l.recovered(t, before, time.Since(start), machines...)
}

// awaitBoot returns when machines that were just started answer again; until
// then, what they said before could be taken for what they say now.
func (l *lab) awaitBoot(t *testing.T, machines ...*network.Machine) {
	t.Helper()
	for _, m := range machines {
		l.eventually(t, m.Name()+" answers", func() error { return m.Answers(t.Context()) })
	}
}

// partition cuts a node off for longer than its agent keeps readings in RAM.
func (l *lab) partition(t *testing.T, alone *network.Machine) {
	before := l.before(t)
	start := time.Now()
	if err := l.net.Partition([]string{alone.Name()}); err != nil {
		t.Fatal(err)
	}
	defer l.net.Heal()
	l.eventually(t, "the node is missed, and writes to its card what it can't send", func() error {
		n, err := l.api.Node(t.Context(), alone.Name())
		if err != nil {
			return err
		}
		d, err := alone.Diag(t.Context())
		if err != nil {
			return err
		}
		return errors.Join(
			expect(!n.Online, "%s offline", alone.Name()),
			expect(d.Agent != nil && d.Agent.Spool.Segments > 0, "a spool on the card, got %+v", d.Agent),
			expect(time.Since(start) > 2*spoolDelay, "an outage of more than %s", 2*spoolDelay),
		)
	})
	l.net.Heal()
	l.recovered(t, before, time.Since(start))
	l.eventually(t, "the spool is emptied", func() error {
		d, err := alone.Diag(t.Context())
		if err != nil {
			return err
		}
		return expect(d.Agent != nil && d.Agent.Spool.Segments == 0, "no segments, got %+v", d.Agent)
	})
}

// shutdown switches a node off by its power button while it holds batches that
// it could not send, some in RAM alone: they must be on its card then, and
// arrive once it is back.
func (l *lab) shutdown(t *testing.T, m *network.Machine) {
	before := l.before(t)
	start := time.Now()
	if err := l.net.Partition([]string{m.Name()}); err != nil {
		t.Fatal(err)
	}
	defer l.net.Heal()
	last, err := l.stored(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	boot := last.newest(m.Name()).Boot
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
		return expect(held.Live > 0 && held.Batches > last.newest(m.Name()).Last+1, "batches after %d, got %+v", last.newest(m.Name()).Last, held)
	})
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if err := m.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	if s := m.Status(); s.State != machine.Off || s.LastEnd != "guest-shutdown" {
		t.Errorf("%s after its power button was pressed: %+v, want it off by itself", m.Name(), s)
	}
	l.net.Heal()
	if err := l.net.PowerOn(m); err != nil {
		t.Fatal(err)
	}
	l.awaitBoot(t, m)
	l.recovered(t, before, time.Since(start), m)
	l.eventually(t, "what the node held at its end has arrived", func() error {
		now, err := l.stored(t.Context())
		if err != nil {
			return err
		}
		got := now[m.Name()][boot]
		return expect(got.Last >= held.Batches && got.Count == got.Last, "batches of boot %d up to %d at least, got %+v", boot, held.Batches, got)
	})
}

// powerCuts takes the power from machines at random instants: while they run,
// and while they start.
func powerCuts(t *testing.T, l *lab) {
	random, seed := dice(t)
	all := l.net.Machines()[:len(l.nodes)+1]
	for i := range cuts(t) {
		m := all[(i+int(seed%3))%len(all)]
		t.Logf("power cut %d: %s", i+1, m.Name())
		l.powerCut(t, m, random, i%2 == 1)
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
	start := time.Now()
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
	last, err := l.stored(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cut(5 * time.Second)
	if twice {
		cut(30 * time.Second)
	}
	l.awaitBoot(t, m)
	l.recovered(t, before, time.Since(start), m)
	now, err := l.stored(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := now.holds(last); err != nil {
		t.Fatal(err)
	}
	if s := m.Status(); s.State != machine.Running || s.Slot != "a" {
		t.Errorf("%s after a power cut: %+v, want it running from slot a", m.Name(), s)
	}
}

// gatewayWithoutClock starts the gateway in 1970: time must not go back to
// before the build, and the network must come back all the same. It stays
// without a clock.
func gatewayWithoutClock(t *testing.T, l *lab) {
	before := l.before(t)
	start := time.Now()
	l.gateway.SetClock(false)
	if err := errors.Join(l.gateway.PowerCut(), l.net.PowerOn(l.gateway)); err != nil {
		t.Fatal(err)
	}
	l.awaitBoot(t, l.gateway)
	l.recovered(t, before, time.Since(start), l.gateway)
	info, err := l.api.SystemInfo(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if info.Time.Before(info.Build.Built) {
		t.Errorf("the gateway's time is %s, before its build at %s", info.Time, info.Build.Built)
	}
	for _, m := range l.net.Machines()[:len(l.nodes)+1] {
		r, err := l.latest(t.Context(), m.Name(), uptime)
		if err != nil {
			t.Fatal(err)
		}
		if r.Time.Before(info.Build.Built) {
			t.Errorf("a reading of %s is stamped %s, before the build at %s", m.Name(), r.Time, info.Build.Built)
		}
	}
}

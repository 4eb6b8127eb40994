package ingest

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"halo.internal/gateway/topology"
	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/wire"
)

// picture takes reports as it is told to.
type picture struct {
	mu    sync.Mutex
	err   error
	taken []model.Report
	alive map[string]time.Duration
}

func (p *picture) Put(r model.Report) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken = append(p.taken, r)
	return p.err
}

func (p *picture) Alive(node string, every time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.alive[node] = every
}

func (p *picture) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err = err
}

func (p *picture) seqs() (list []uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.taken {
		list = append(list, r.Seq)
	}
	return list
}

func neighbours(seq, base uint64) wire.NeighboursMessage {
	return wire.NeighboursMessage{Report: model.Report{Seq: seq, Base: base, EveryS: 600}}
}

// flush waits until all that was sent is handled: an event is acknowledged after it. It
// returns what came before.
func (n *node) flush(seq uint64) (before []wire.Message) {
	n.t.Helper()
	n.write(wire.EventMessage{Event: model.Event{Boot: 1, Seq: seq, Time: time.Now(), Kind: "mesh.test", Severity: model.Info}})
	for {
		m := n.read()
		if a, ok := m.(wire.AckEvents); ok && slices.Contains(a.IDs, wire.ID(1, seq)) {
			return before
		}
		before = append(before, m)
	}
}

func TestReportsOfNeighbours(t *testing.T) {
	f := newFixture(t)
	p := &picture{alive: map[string]time.Duration{}}
	f.Neighbours = p
	key := identity.New()
	n := f.stream(key, f.admit(key))

	n.write(neighbours(10, 0))
	n.write(neighbours(20, 10))
	if got := n.flush(1); len(got) != 0 {
		t.Errorf("nothing is acknowledged: got %v", got)
	}
	p.mu.Lock()
	for _, r := range p.taken {
		if r.Node != key.ID() || r.Boot != 1 {
			t.Errorf("it is of the stream's node and boot: got %+v", r)
		}
	}
	if p.alive[key.ID()] != usualInterval {
		t.Errorf("alive: got %v", p.alive)
	}
	p.mu.Unlock()

	// What cannot be put together has a whole one asked for.
	for i, tc := range []struct {
		err   error
		asked int
	}{
		{fmt.Errorf("report: %w", topology.ErrBase), 1},
		{fmt.Errorf("report: %w", topology.ErrOld), 0},
		{fmt.Errorf("it does not fit"), 1},
	} {
		p.fail(tc.err)
		n.write(neighbours(30+uint64(i), 20))
		got := n.flush(uint64(2 + i))
		if len(got) != tc.asked || tc.asked > 0 && got[0] != (wire.NeighboursWanted{}) {
			t.Errorf("%v: got %v", tc.err, got)
		}
	}
	if got := p.seqs(); !slices.Equal(got, []uint64{10, 20, 30, 31, 32}) {
		t.Errorf("got %v", got)
	}
}

// TestAFloodOfReports neither reaches the picture nor has the gateway ask without end.
func TestAFloodOfReports(t *testing.T) {
	f := newFixture(t)
	p := &picture{alive: map[string]time.Duration{}, err: topology.ErrBase}
	f.Neighbours = p
	key := identity.New()
	n := f.stream(key, f.admit(key))
	began := time.Now()
	asked := 0
	for i := range uint64(200) {
		n.write(neighbours(2+i, 1))
	}
	asked += len(n.flush(1))
	most := nodeReports.burst + int(time.Since(began)/nodeReports.every) + 1
	if got := len(p.seqs()); got < nodeReports.burst || got > most || asked > mostWholeAsked {
		t.Errorf("got %d reports of 200, want %d to %d; asked %d times", got, nodeReports.burst, most, asked)
	}
}

// TestReportsThatNobodyWants are no reason to end a stream.
func TestReportsThatNobodyWants(t *testing.T) {
	f := newFixture(t)
	key := identity.New()
	n := f.stream(key, f.admit(key))
	n.write(neighbours(10, 0))
	if got := n.flush(1); len(got) != 0 {
		t.Errorf("got %v", got)
	}
}

// TestWhoJoinsIsSoonAMember: its first report may come before the picture knows of it.
func TestWhoJoinsIsSoonAMember(t *testing.T) {
	f := newFixture(t)
	p := &picture{alive: map[string]time.Duration{}, err: fmt.Errorf("report: %w", topology.ErrNotMember)}
	f.Neighbours = p
	key := identity.New()
	n := f.stream(key, f.admit(key))
	for i, want := range []int{1, 0, 0} {
		n.write(neighbours(10+uint64(i), 0))
		if got := n.flush(uint64(1 + i)); len(got) != want {
			t.Errorf("report %d: asked %d times", i, len(got))
		}
	}
	if got := p.seqs(); !slices.Equal(got, []uint64{10, 11, 12}) {
		t.Errorf("got %v", got)
	}
}

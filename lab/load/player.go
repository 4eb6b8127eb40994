package load

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"halo.internal/model"
	"halo.internal/model/wire"
)

// When nodes report who is around, as halo-agent does where numbers change
// (agent/neighbourhood).
const (
	reportPerNode = 2 * time.Second
	reportSoonest = time.Minute
	reportLatest  = 10 * time.Minute
	reportEveryS  = 600
	reportAgain   = 10 * time.Second // when the gateway asks for a whole one

	statusEvery = 5 * time.Minute
)

const (
	usualWindow  = 64
	pastWindow   = 1000 // of a node with a backlog
	atDoor       = 16   // streams that are being opened: a gateway refuses more than 32
	backAfter    = 500 * time.Millisecond
	instant      = 10 * time.Millisecond // readings are made at whole ones
	maxWaits     = 64
	settleWithin = time.Minute
)

// sent is a batch that a node has made, of which can be told again what is in it.
type sent struct {
	seq     uint64
	begins  time.Time
	reports int
	step    time.Duration
	urgent  bool
	late    bool // of the backlog
	acked   bool
}

// flight is a batch that is not acknowledged.
type flight struct {
	*sent
	data []byte
}

// wait is a batch until the gateway has both acknowledged it and told of it.
type wait struct {
	urgent            bool
	sent, acked, told time.Time
}

// player is a node at work.
type player struct {
	*Node
	device  int // in the field
	run     *run
	now     *boards // of what it measures
	past    *boards // of what it measured while it had no gateway
	noise   *rand.Rand
	alarm   chan struct{} // it is to measure something urgent
	backlog int           // batches of it that are still to be made
	pastSeq uint64        // of the last of those that were
	nowSeq  uint64
	due     time.Time // of the next batch

	base       model.Report // that the gateway has
	lastReport uint64
	reported   time.Time

	mu      sync.Mutex // guards what follows
	all     []*sent    // in the order in which they were made
	flights map[uint64]flight
	waits   map[uint64]*wait
}

func newPlayer(r *run, n *Node, device int, backlog int) *player {
	seed := uint64(device) << 1
	return &player{
		Node: n, device: device, run: r, now: newBoards(r.schema, seed), past: newBoards(r.schema, seed|1), noise: rand.New(rand.NewPCG(seed, 2)),
		alarm: make(chan struct{}, 1), backlog: backlog, nowSeq: uint64(backlog), flights: map[uint64]flight{}, waits: map[uint64]*wait{},
	}
}

// play keeps a stream until the run is over and all is acknowledged, or ctx ends.
func (p *player) play(ctx context.Context) {
	for {
		err := p.stream(ctx)
		if ctx.Err() != nil || err == nil {
			return
		}
		p.run.meter.failed("stream", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(backAfter + time.Duration(p.noise.Int64N(int64(backAfter)))):
		}
	}
}

// connect opens a stream when it is its turn.
func (p *player) connect(ctx context.Context) (*Stream, error) {
	select {
	case p.run.door <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-p.run.door }()
	window := usualWindow
	if p.backlog > 0 {
		window = pastWindow
	}
	return p.Connect(ctx, window, p.run.schema, p.acked)
}

func (p *player) stream(ctx context.Context) error {
	c, err := p.connect(ctx)
	if err != nil {
		return err
	}
	p.run.meter.opened(1)
	defer p.run.meter.opened(-1)
	defer c.Close()
	p.base = model.Report{}
	if err := errors.Join(p.status(ctx, c), p.report(ctx, c)); err != nil {
		return fmt.Errorf("%s: %w", p.Name, err)
	}
	for _, f := range p.flying() { // what another stream has not brought home
		if err := c.Send(ctx, wire.ID(p.Boot, f.seq), f.data); err != nil {
			return fmt.Errorf("%s: %w", p.Name, err)
		}
	}
	told := time.Now()
	timer := time.NewTimer(time.Until(p.due))
	defer timer.Stop()
	var again <-chan time.Time
	more := make(chan struct{})
	close(more)
	for err == nil {
		if p.backlog == 0 {
			more = nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.ended:
			err = c.failure()
		case <-p.run.over:
			return c.Settle(ctx)
		case <-c.wanted:
			again = time.After(reportAgain)
		case <-again:
			p.base = model.Report{}
			err = p.report(ctx, c)
		case <-p.alarm:
			p.nowSeq++
			at := time.Now().Truncate(instant).Add(instant / 2)
			err = p.send(ctx, c, sent{seq: p.nowSeq, begins: at, reports: 1, step: p.run.Interval, urgent: true})
		case <-timer.C:
			p.nowSeq++
			err = p.send(ctx, c, sent{seq: p.nowSeq, begins: p.due.Add(-p.run.Send), reports: p.run.reports, step: p.run.Interval})
			if err == nil && time.Since(told) >= statusEvery {
				told, err = time.Now(), p.status(ctx, c)
			}
			if err == nil && time.Since(p.reported) >= p.run.reportEvery {
				err = p.report(ctx, c)
			}
			p.due = p.due.Add(p.run.Send)
			timer.Reset(time.Until(p.due))
		case <-more:
			p.backlog--
			p.pastSeq++
			err = p.send(ctx, c, sent{seq: p.pastSeq, begins: p.run.began.Add(-p.run.Send * time.Duration(p.backlog+2)), reports: p.run.reports, step: p.run.Interval, late: true})
		}
	}
	return fmt.Errorf("%s: %w", p.Name, err)
}

// send makes a batch and sends it. Once it is made it is sent until it is acknowledged.
func (p *player) send(ctx context.Context, c *Stream, s sent) error {
	from := p.now
	if s.late {
		from = p.past
	}
	w := from.batch(p.Boot, s)
	data, err := w.Encode(p.run.schema)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.all = append(p.all, &s)
	p.flights[s.seq] = flight{&s, data}
	if !s.late {
		if len(p.waits) >= maxWaits { // nobody is told
			clear(p.waits)
		}
		p.waits[s.seq] = &wait{urgent: s.urgent, sent: time.Now()}
	}
	p.mu.Unlock()
	return c.Send(ctx, w.BatchID, data)
}

// flying are the batches that are not acknowledged, the oldest first.
func (p *player) flying() (list []flight) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, seq := range slices.Sorted(maps.Keys(p.flights)) {
		list = append(list, p.flights[seq])
	}
	return list
}

func (p *player) acked(id wire.BatchID, took time.Duration) {
	p.mu.Lock()
	f, flew := p.flights[id.Seq]
	delete(p.flights, id.Seq)
	if flew {
		f.acked = true
	}
	if w := p.waits[id.Seq]; w != nil {
		w.acked = time.Now()
		p.settle(id.Seq, w)
	}
	p.mu.Unlock()
	if flew {
		p.run.meter.acked(f.reports*len(p.run.schema.Metrics), f.late, took)
	}
}

// made are the batches that it has made, in order.
func (p *player) made() (list []sent) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.all {
		list = append(list, *s)
	}
	return list
}

// told notes that the gateway has told somebody of a batch. Of those before it nothing is
// told any more.
func (p *player) told(seq uint64, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for s, w := range p.waits {
		switch {
		case s == seq:
			w.told = at
			p.settle(s, w)
		case s < seq:
			delete(p.waits, s)
		}
	}
}

// settle takes down what is known of a wait that is over.
func (p *player) settle(seq uint64, w *wait) {
	if w.acked.IsZero() || w.told.IsZero() {
		return
	}
	delete(p.waits, seq)
	p.run.meter.heard(max(0, w.told.Sub(w.acked)))
	if w.urgent {
		p.run.meter.heardUrgent(w.told.Sub(w.sent))
	}
}

// report tells who is around: what has changed since the last time on this stream.
func (p *player) report(ctx context.Context, c *Stream) error {
	p.lastReport = max(p.lastReport+1, uint64(time.Since(p.run.booted).Milliseconds()))
	r := p.run.field.report(p.device, p.Boot, p.lastReport, p.noise)
	whole := r
	if p.base.Seq != 0 {
		var err error
		if r, whole, err = r.Since(p.base); err != nil {
			return err
		}
	}
	p.base, p.reported = whole, time.Now()
	return c.Tell(ctx, wire.NeighboursMessage{Report: r})
}

func (p *player) status(ctx context.Context, c *Stream) error {
	role := model.RoleNode
	if p.device == 0 {
		role = model.RoleGateway
	}
	return c.Tell(ctx, wire.StatusMessage{Status: model.NodeStatus{
		Name: p.Name, Role: role, Board: "played", Kernel: "6.12", Version: "played", State: "ok", UptimeS: int64(time.Since(p.run.booted).Seconds()),
		Interfaces: []model.Interface{
			{Name: "bat0", Kind: "mesh", MAC: mac(p.device, 0).String(), Up: true}, {Name: meshIface, Kind: "wifi", MAC: mac(p.device, 1).String(), Up: true},
			{Name: "wg0", Kind: "overlay", Up: true, Addresses: []netip.Prefix{netip.PrefixFrom(p.Addr, p.Addr.BitLen())}},
		},
	}})
}

package load

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"

	"halo.internal/lab/admin"
	"halo.internal/model/wire"
)

// Options say what is played. Zero values of those with a default are that.
type Options struct {
	Program string   // gateway-api
	Dir     string   // in which the gateway keeps everything: empty, or that of a run before
	Flags   []string // more of gateway-api's
	Nodes   int      // besides the gateway's own agent; 250

	Metrics  int           // of each; 12
	Interval time.Duration // between readings; 10 s
	Send     time.Duration // between batches, a multiple of it; a minute
	For      time.Duration // how long is measured; 2 min

	Backlog      time.Duration // for which some nodes had no gateway before; 0: none had
	BacklogNodes int           // so many
	Asks         int           // of each kind of question, and urgent readings, after that; 0: none
	Kills        int           // of gateway-api, in that time

	Pin bool // gateway-api has a core of its own, and this process another
	// Say gets what happens, and Show what is measured, every five seconds; nil: nobody does.
	Say  func(text string)
	Show func(Row)
}

const (
	mostNodes = 500 // that a gateway takes streams of, its own agent's besides
	showEvery = 5 * time.Second
	showPoll  = 100 * time.Millisecond
)

// settle puts defaults in, and says what is wrong.
func (o *Options) settle() error {
	set := func(v *time.Duration, d time.Duration) {
		if *v == 0 {
			*v = d
		}
	}
	set(&o.Interval, 10*time.Second)
	set(&o.Send, max(time.Minute, o.Interval))
	set(&o.For, 2*time.Minute)
	if o.Nodes == 0 {
		o.Nodes = 250
	}
	if o.Metrics == 0 {
		o.Metrics = 12
	}
	if o.Backlog == 0 {
		o.BacklogNodes = 0
	}
	if o.BacklogNodes == 0 {
		o.Backlog = 0
	}
	if o.Say == nil {
		o.Say = func(string) {}
	}
	if o.Show == nil {
		o.Show = func(Row) {}
	}
	switch {
	case o.Nodes < 1 || o.Nodes > mostNodes:
		return fmt.Errorf("expected 1 to %d nodes, got %d", mostNodes, o.Nodes)
	case o.Metrics < 1 || o.Metrics > wire.MaxMetrics:
		return fmt.Errorf("expected 1 to %d metrics, got %d", wire.MaxMetrics, o.Metrics)
	case o.Interval < instant || o.Interval%instant != 0:
		return fmt.Errorf("expected an interval of a multiple of %s, got %s", instant, o.Interval)
	case o.Send < o.Interval || o.Send%o.Interval != 0:
		return fmt.Errorf("expected batches to be sent after a multiple of the interval of %s, got %s", o.Interval, o.Send)
	case o.Send < time.Second:
		return fmt.Errorf("expected a second or more between batches, got %s", o.Send)
	case o.For < 0 || o.Backlog < 0 || o.Asks < 0 || o.Kills < 0:
		return fmt.Errorf("expected no negative numbers, got a time of %s, a backlog of %s, %d questions and %d deaths", o.For, o.Backlog, o.Asks, o.Kills)
	case o.BacklogNodes < 0 || o.BacklogNodes > o.Nodes:
		return fmt.Errorf("expected a backlog of 0 to %d nodes, got %d", o.Nodes, o.BacklogNodes)
	}
	reports := int(o.Send / o.Interval)
	if reports > wire.MaxReports || reports*o.Metrics > wire.MaxValues/2 {
		return fmt.Errorf("expected batches of at most %d readings and %d numbers, got %d of %d metrics", wire.MaxReports, wire.MaxValues/2, reports, o.Metrics)
	}
	return nil
}

// Row is what is measured in a few seconds.
type Row struct {
	After     time.Duration // since the start
	Phase     string
	Streams   int
	PerSecond float64 // samples that were acknowledged, those of backlogs too
	Ack       Times   // since the phase has begun
	Told      Times   // likewise
	CPU       float64 // percent of a core
	Usage     Usage
	Written   float64 // octets a second
	Errors    int     // since the start
}

// Backlog is how nodes came back.
type Backlog struct {
	Nodes   int     `json:"nodes"`
	Samples int     `json:"samples"`
	Seconds float64 `json:"seconds"`
	CPUS    float64 `json:"cpu_s"`
	Live    Times   `json:"live"` // from sending to acknowledgement of what was not late, meanwhile
}

// Figures are what a run has measured.
type Figures struct {
	Nodes    int `json:"nodes"` // the gateway's own agent among them
	Links    int `json:"links"`
	Metrics  int `json:"metrics"`
	Reports  int `json:"reports"` // of a batch
	Pictured int `json:"pictured"`
	Drawn    int `json:"drawn"` // links of the picture that the gateway has in the end

	Backlog *Backlog `json:"backlog,omitempty"`

	Seconds    float64 `json:"seconds"` // for which is measured what follows
	Samples    int     `json:"samples"` // that were acknowledged
	PerSecond  float64 `json:"samples_per_s"`
	Ack        Times   `json:"ack"`         // from sending to acknowledgement
	Told       Times   `json:"told"`        // from acknowledgement to what /v1/live tells of it; 0 where that was first
	CPUPercent float64 `json:"cpu_percent"` // of a core
	Resident   int64   `json:"resident_b"`  // octets, at the end
	Most       int64   `json:"most_b"`      // octets, since the start
	Written    int64   `json:"written_b"`   // octets: see Process.Written
	Kills      int     `json:"kills"`       // of gateway-api
	Returned   Times   `json:"returned"`    // until it answered again

	Asked  []Asked `json:"asked"`
	Urgent Times   `json:"urgent"` // from sending to what /v1/live tells of it, of urgent readings: it was committed on the way

	Errors int   `json:"errors"`
	Unsure int   `json:"unsure"` // samples that were sent and not acknowledged within a minute
	Found  Found `json:"found"`
}

// run is a run.
type run struct {
	Options
	schema      wire.Schema
	reports     int
	reportEvery time.Duration
	gateway     *Gateway
	admin       *admin.Admin
	field       *field
	players     []*player // by their number in the field
	byID        map[string]*player
	meter       *meter
	figures     Figures
	door        chan struct{} // streams that are being opened
	over        chan struct{} // closed when no more batches are made
	booted      time.Time
	began       time.Time // when nodes were let go

	mu    sync.Mutex // guards phase
	phase string
}

// Run plays a network. An error that is no more than that something was lost comes with
// figures.
func Run(ctx context.Context, o Options) (f *Figures, err error) {
	if err := o.settle(); err != nil {
		return nil, err
	}
	core := AnyCore
	if o.Pin {
		core = 0
		if err := Pin(os.Getpid(), min(1, runtime.NumCPU()-1)); err != nil {
			return nil, err
		}
		runtime.GOMAXPROCS(1)
	}
	r := &run{Options: o, schema: schemaOf(o.Metrics), reports: int(o.Send / o.Interval), meter: &meter{say: o.Say}, byID: map[string]*player{},
		reportEvery: min(max(reportPerNode*time.Duration(o.Nodes), reportSoonest), reportLatest), door: make(chan struct{}, atDoor), over: make(chan struct{}), booted: time.Now()}
	if r.gateway, err = NewGateway(o.Program, o.Dir, core); err != nil {
		return nil, err
	}
	r.gateway.Flags = o.Flags
	took, err := r.gateway.Start(ctx)
	defer func() { err = errors.Join(err, r.gateway.Stop()) }()
	if err != nil {
		return nil, err
	}
	o.Say(fmt.Sprintf("gateway-api answers after %d ms", took.Milliseconds()))
	if err := r.people(ctx); err != nil {
		return nil, err
	}
	defer r.admin.Close()
	if err := r.play(ctx); err != nil {
		return nil, err
	}
	o.Say("looking for all that was acknowledged")
	for _, p := range r.players {
		found, err := r.verify(ctx, p)
		if err != nil {
			return nil, err
		}
		r.figures.Found.Expected += found.Expected
		r.figures.Found.Missing += found.Missing
		r.figures.Found.Wrong += found.Wrong
	}
	r.figures.Errors = r.meter.read().errors
	if l := r.figures.Found; l.Missing > 0 || l.Wrong > 0 {
		return &r.figures, fmt.Errorf("of %d samples that were acknowledged %d are missing and %d are others", l.Expected, l.Missing, l.Wrong)
	}
	return &r.figures, nil
}

// people makes the admin and the nodes.
func (r *run) people(ctx context.Context) (err error) {
	if r.admin, err = r.gateway.Claim(ctx); err != nil {
		return err
	}
	nodes, err := r.gateway.Join(ctx, "n", r.Nodes)
	if err != nil {
		return err
	}
	nodes = append([]*Node{r.gateway.Gateway()}, nodes...)
	ids := make([]string, len(nodes))
	for i, n := range nodes {
		n.Every, ids[i] = r.Send, n.ID()
	}
	r.field = newField(ids)
	for i, n := range nodes {
		backlog := 0
		if i > 0 && i <= r.BacklogNodes {
			backlog = int(r.Backlog / r.Send)
		}
		p := newPlayer(r, n, i, backlog)
		r.players, r.byID[n.ID()] = append(r.players, p), p
	}
	r.figures.Nodes, r.figures.Links, r.figures.Metrics, r.figures.Reports = len(nodes), r.field.links, r.Metrics, r.reports
	r.Say(fmt.Sprintf("%d nodes have joined", r.Nodes))
	return nil
}

// play has all send, and measures.
func (r *run) play(ctx context.Context) (err error) {
	ctx, stop := context.WithCancel(ctx)
	var watching, playing sync.WaitGroup
	defer func() {
		stop()
		watching.Wait()
		playing.Wait()
	}()
	shown, hide := context.WithCancel(ctx)
	defer hide()
	r.began = time.Now().Truncate(instant)
	for i, p := range r.players {
		p.due = r.began.Add((r.Send * time.Duration(i) / time.Duration(len(r.players))).Truncate(instant))
		playing.Go(func() { p.play(ctx) })
	}
	watching.Go(func() { r.watch(shown) })
	watching.Go(func() { r.show(shown) })
	if err := r.backlogs(ctx); err != nil {
		return err
	}
	if err := r.anew(ctx); err != nil {
		return err
	}
	if err := r.steady(ctx); err != nil {
		return err
	}
	r.enter("asked")
	if err := r.ask(ctx); err != nil {
		return err
	}
	r.enter("urgent")
	if err := r.alarms(ctx); err != nil {
		return err
	}
	if p, err := r.admin.Picture(ctx, time.Time{}); err != nil {
		r.meter.failed("API", err)
	} else {
		r.figures.Pictured, r.figures.Drawn = len(p.Nodes), len(p.Links)
	}
	r.enter("settle")
	close(r.over)
	limit := time.AfterFunc(settleWithin, stop)
	defer limit.Stop()
	playing.Wait()
	for _, p := range r.players {
		for _, f := range p.flying() {
			r.figures.Unsure += f.reports * r.Metrics
		}
	}
	return nil
}

// backlogs waits until nodes have brought home what they had kept.
func (r *run) backlogs(ctx context.Context) error {
	total := r.BacklogNodes * int(r.Backlog/r.Send) * r.reports * r.Metrics
	if total == 0 {
		return nil
	}
	r.enter("backlog")
	before, err := r.gateway.Usage()
	if err != nil {
		return err
	}
	for r.meter.read().late < total {
		if err := r.pause(ctx, showPoll); err != nil {
			return err
		}
	}
	after, err := r.gateway.Usage()
	r.figures.Backlog = &Backlog{Nodes: r.BacklogNodes, Samples: total, Seconds: time.Since(r.began).Seconds(), CPUS: (after.CPU - before.CPU).Seconds(), Live: r.meter.read().ack}
	return err
}

// anew starts gateway-api anew after a backlog, which then is in its files, as it would be
// after the next hour, and waits until all are back.
func (r *run) anew(ctx context.Context) error {
	if r.figures.Backlog == nil {
		return nil
	}
	r.enter("anew")
	r.meter.kills()
	if err := r.gateway.Stop(); err != nil {
		return err
	}
	took, err := r.gateway.Start(ctx)
	if err != nil {
		return err
	}
	r.Say(fmt.Sprintf("gateway-api answers after %d ms with that backlog", took.Milliseconds()))
	for r.meter.read().streams < len(r.players) {
		r.meter.kills() // it took them until now to come back
		if err := r.pause(ctx, showPoll); err != nil {
			return err
		}
	}
	return nil
}

// pause waits, unless gateway-api has ended by itself.
func (r *run) pause(ctx context.Context, d time.Duration) error {
	p := r.gateway.Process()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-p.Ended():
		return fmt.Errorf("gateway-api has ended: %s", p.Tail())
	case <-time.After(d):
		return nil
	}
}

// steady measures what it takes that all send, and kills gateway-api as often as is wanted.
func (r *run) steady(ctx context.Context) error {
	r.enter("steady")
	before, err := r.gateway.Usage()
	if err != nil {
		return err
	}
	begin, had := time.Now(), r.meter.read().live
	var returned []time.Duration
	for range r.Kills {
		if err := r.pause(ctx, r.For/time.Duration(r.Kills+1)); err != nil {
			return err
		}
		r.meter.kills()
		r.gateway.Kill()
		took, err := r.gateway.Start(ctx)
		if err != nil {
			return err
		}
		r.meter.kills()
		returned = append(returned, took)
	}
	if err := r.pause(ctx, time.Until(begin.Add(r.For))); err != nil {
		return err
	}
	after, err := r.gateway.Usage()
	if err != nil {
		return err
	}
	long, now, f := time.Since(begin).Seconds(), r.meter.read(), &r.figures
	f.Seconds, f.Samples, f.Ack, f.Told = long, now.live-had, now.ack, now.told
	f.PerSecond = float64(f.Samples) / long
	f.CPUPercent = 100 * (after.CPU - before.CPU).Seconds() / long
	f.Resident, f.Most, f.Written = after.Resident, after.Most, after.Written-before.Written
	f.Kills, f.Returned = r.Kills, timesOf(returned)
	return nil
}

// enter begins a phase.
func (r *run) enter(phase string) {
	r.mu.Lock()
	r.phase = phase
	r.mu.Unlock()
	r.meter.reset()
}

// show shows what happens until ctx ends.
func (r *run) show(ctx context.Context) {
	tick := time.NewTicker(showEvery)
	defer tick.Stop()
	before, at := Usage{}, r.began
	if u, err := r.gateway.Usage(); err == nil {
		before = u
	}
	had := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		u, err := r.gateway.Usage()
		if err != nil {
			continue // it is being killed
		}
		now, m := time.Now(), r.meter.read()
		long := now.Sub(at).Seconds()
		r.mu.Lock()
		phase := r.phase
		r.mu.Unlock()
		r.Show(Row{After: now.Sub(r.booted), Phase: phase, Streams: m.streams, PerSecond: float64(m.live+m.late-had) / long, Ack: m.ack, Told: m.told,
			CPU: 100 * (u.CPU - before.CPU).Seconds() / long, Usage: u, Written: float64(u.Written-before.Written) / long, Errors: m.errors})
		before, at, had = u, now, m.live+m.late
	}
}

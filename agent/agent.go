// Package agent is halo-agent, the data plane of a node: it samples, keeps
// what was read, and sends it to the gateway until it is acknowledged. It waits
// for halo-mesh, which knows who the node is and what time it is, and says in
// /health what is missing; outputs, inputs, buttons, lamps, the chips on buses and
// the board's power wait for nobody.
package agent

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"halo.internal/agent/camera"
	"halo.internal/agent/collect"
	"halo.internal/agent/input"
	"halo.internal/agent/neighbourhood"
	"halo.internal/agent/output"
	"halo.internal/agent/sample"
	"halo.internal/agent/send"
	"halo.internal/agent/sensors"
	"halo.internal/agent/signal"
	"halo.internal/agent/spool"
	"halo.internal/agent/weigh"
	"halo.internal/health"
	"halo.internal/identity"
	"halo.internal/local"
	"halo.internal/model"
	"halo.internal/model/paths"
	"halo.internal/model/version"
)

// Checks of the health graph.
const (
	checkConfig   = "config"
	checkMesh     = "halo-mesh"
	checkIdentity = "identity"
	checkPerm     = "perm"
	checkGateway  = "gateway"
)

// agent is what its goroutines share.
type agent struct {
	Config
	settings Settings
	graph    *health.Graph
	mesh     *local.Mesh
	id       identity.State
	log      *slog.Logger // names the node; nil before that is known
	seen     view
	hardware hardware
	outputs  *output.Outputs
	inputs   *input.Inputs
	lamps    *signal.Lamps
	apart    *collect.Apart
	read     func(ctx context.Context, every time.Duration) ([]collect.Reading, error) // of a group of apart; view has it too
	sensors  *sensors.Manager
	power    *powered
	chips    *chipOutputs
	spool    *spool.Spool
	news     news
	reset    *request // nil: there is no card to write one on
	where    *whereabouts
	cameras  *camera.Service

	inventory inventory
	reached   atomic.Bool   // the gateway takes what it is told
	retry     chan struct{} // a token when the way to the gateway may be back
	restart   chan struct{} // a token when this process is to start anew
}

// Run is the daemon. When ctx ends it closes the last batch and writes to disk
// what is not acknowledged.
func Run(ctx context.Context, c Config) error {
	a := &agent{Config: c, graph: health.New("halo-agent"), mesh: local.NewMesh(c.path(paths.MeshSocket)), retry: make(chan struct{}, 1), restart: make(chan struct{}, 1)}
	a.graph.Declare(checkConfig)
	a.graph.Declare(checkMesh)
	a.graph.Declare(checkIdentity, checkMesh)
	a.graph.Declare(checkPerm, checkIdentity) // the spool of a boot begins with its number
	a.graph.Declare(checkGateway, checkIdentity)
	var wrong error
	if a.settings, wrong = c.settings(); wrong != nil {
		a.graph.Set(checkConfig, health.Degraded, wrong.Error())
		c.Log.Warn("settings are wrong, the defaults apply", "err", wrong)
	} else {
		a.graph.Set(checkConfig, health.OK, "")
	}
	if err := a.lookAtBoard(); err != nil {
		return err
	}
	a.reset = a.newRequest()
	a.withdrawOld()
	a.where, a.lamps = newWhereabouts(a), a.newLamps()
	a.outputs = output.New(output.Config{
		Board: a.hardware.board, Reached: a.reached.Load, State: a.path(paths.RunOutputs), Log: c.Log, Event: a.news.add,
	})
	a.inputs = input.New(input.Config{Board: a.hardware.board, Log: c.Log, Event: a.news.add})
	if err := a.collectors(); err != nil {
		return err
	}
	a.sensing()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { a.where.run(ctx); return nil }) // before all else: it may know what time it is
	// A siren is to stop, a button to work and an empty battery to end the device in order
	// with a halo-mesh that never answers, too.
	g.Go(func() error { a.outputs.Run(ctx); return nil })
	g.Go(func() error { a.watchButtons(ctx); return nil })
	g.Go(func() error { a.inputs.Run(ctx); return nil })
	g.Go(func() error { a.sense(ctx); return nil })
	g.Go(func() error { a.watchBuses(ctx); return nil })
	g.Go(func() error { a.power.watch(ctx); return nil })
	g.Go(func() error { a.power.shutdowns(ctx); return nil })
	g.Go(func() error { a.chips.run(ctx); return nil })
	g.Go(func() error { a.watchBoard(ctx); return nil })
	g.Go(func() error { return local.Serve(ctx, c.path(paths.AgentSocket), a.handler()) })
	g.Go(func() error { return a.watchMesh(ctx) })
	g.Go(func() error { a.watchClients(ctx); return nil })
	g.Go(func() error { return a.work(ctx, wrong) })
	g.Go(func() error { return a.untilAgain(ctx) })
	g.Go(func() error { a.lamps.Run(ctx); return nil })
	return g.Wait()
}

// work is everything that needs to know who the node is.
func (a *agent) work(ctx context.Context, wrong error) error {
	network, ok := a.whose(ctx)
	if !ok {
		return nil
	}
	node := a.id.Key.ID()
	var err error
	a.spool, err = spool.Open(spool.Options{
		Live: a.path(paths.RunAgent), Disk: paths.Dir(a.path(paths.State)).File(paths.SpoolDir),
		Boot: a.id.BootCounter, Owner: spool.Owner{Network: network, Node: node}, Budget: a.settings.SpoolBudgetMiB << 20, Delay: time.Duration(a.settings.SpoolDelay),
		Clock: a.now, Log: a.log,
	})
	if err != nil {
		return err
	}
	a.seen.opened(a.spool)
	a.tellConfig(wrong)
	if err := a.news.open(a.spool); err != nil {
		a.log.Warn("events are lost", "err", err)
	}
	a.openCameras(network)
	commands := a.commands(network)
	a.log.Info("halo-agent runs", "boot", a.id.BootCounter, "gateway", a.settings.Gateway)
	g, inner := errgroup.WithContext(ctx)
	g.Go(func() error {
		sample.Run(inner, sample.Options{
			Collect: a.read, Groups: a.apart.Groups, Regroup: a.apart.Regroup(), Weigh: weigh.New(a.settings.rules(), func() bool { return !a.reached.Load() }, a.note).Weigh, Add: a.spool.AddBatch, Clock: a.now,
			Interval: time.Duration(a.settings.Sample), Send: time.Duration(a.settings.Send), Node: node, Earliest: version.Get().Built, Log: a.log,
		})
		return nil
	})
	g.Go(func() error {
		return send.Run(inner, send.Options{
			URL: a.settings.Gateway, Key: a.id.Key, Life: life(a.BootID), Version: version.Get().Version, Interval: time.Duration(a.settings.Send),
			Spool: a.spool, Status: a.nodeStatus(), Board: a.hardware.board, Inventory: func() (string, model.Inventory) { return a.inventory.of(a.sensors) }, Commands: commands, Neighbours: neighbourhood.New(a.seen.around, sinceBoot), Retry: a.retry, Log: a.log,
			Health: func(s health.State, detail string) {
				a.graph.Set(checkGateway, s, detail)
				a.reached.Store(s == health.OK)
			},
		})
	})
	g.Go(func() error { a.keep(inner); return nil })
	if commands != nil {
		g.Go(func() error { commands.Run(inner); return nil })
	}
	g.Go(func() error { a.forwardEvents(inner); return nil })
	g.Go(func() error { a.cameras.Run(inner); return nil })
	g.Go(func() error { a.cameras.Serve(inner, a.overlay); return nil })
	err = g.Wait()
	// The sampler has closed its batch: this is the last of it.
	if flushErr := a.spool.Flush(time.Now(), true); flushErr != nil {
		a.log.Error("unacknowledged readings stay in RAM", "err", flushErr)
	}
	return err
}

// whose returns which network this is, once halo-mesh has said that and who the node is.
// Meanwhile what is measured is read, as the board's power is judged by it, and nothing of
// it is kept. It returns false when ctx ended first.
func (a *agent) whose(ctx context.Context) (network string, ok bool) {
	early, known := context.WithCancel(ctx)
	var reading sync.WaitGroup
	reading.Go(func() {
		sample.Run(early, sample.Options{
			// What is being read when that is known is read to its end: a chip's transaction
			// that breaks off is one that failed.
			Collect: func(_ context.Context, every time.Duration) ([]collect.Reading, error) { return a.read(ctx, every) },
			Groups:  a.apart.Groups, Regroup: a.apart.Regroup(), Clock: a.now,
			Interval: time.Duration(a.settings.Sample), Send: time.Duration(a.settings.Send), Log: a.Log,
		})
	})
	defer reading.Wait()
	defer known()
	if !a.identify(ctx) {
		return "", false
	}
	a.log = a.Log.With("node", a.id.Key.ID())
	return a.network(ctx)
}

// keep writes to disk what is due.
func (a *agent) keep(ctx context.Context) {
	delay := time.Duration(a.settings.SpoolDelay)
	tick := time.NewTicker(min(max(delay/96, 50*time.Millisecond), 2*time.Second))
	defer tick.Stop()
	failed := false
	for {
		err := a.spool.Flush(time.Now(), false)
		if (err != nil) != failed {
			failed = err != nil
			if failed {
				a.log.Error("disk takes no readings, they stay in RAM", "err", err)
			} else {
				a.log.Info("disk takes readings again")
			}
		}
		a.judgePerm(err)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (a *agent) judgePerm(err error) {
	switch {
	case err != nil:
		a.graph.Set(checkPerm, health.Degraded, err.Error())
	case a.seen.volatile():
		a.graph.Set(checkPerm, health.Degraded, "the data partition is not there: nothing is kept over a restart")
	case !a.spool.Stats().DiskReady:
		a.graph.Set(checkPerm, health.Degraded, "the spool can't be used: readings stay in RAM")
	default:
		a.graph.Set(checkPerm, health.OK, "")
	}
}

func (a *agent) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET "+local.RouteHealth, a.graph)
	mux.HandleFunc("GET "+local.RouteBoard, func(w http.ResponseWriter, _ *http.Request) {
		k := a.hardware.known()
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(model.NodeBoard{Model: k.Tree.Model, Ref: k.Ref, Board: k.Board}) // as below
	})
	mux.HandleFunc("GET "+local.RouteStatus, func(w http.ResponseWriter, _ *http.Request) {
		st := a.seen.status()
		st.GPS = a.where.status()
		v, p := a.sensors.Inventory(), a.power.state()
		st.Inventory, st.Power = &v, &p
		st.Sample, st.Send = time.Duration(a.settings.Sample), time.Duration(a.settings.Send)
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(st) // the client went away: nobody to tell
	})
	return mux
}

// Package commands has nodes do things: it keeps what each is asked for, hands it
// over, signed for the connection, as soon as the node is there, and notes what the
// node says of it. A command is a job of package jobs; one that was given to a node
// which is off waits for it, for as long as whoever gave it wants.
//
// What a node has been told may be told again after a broken connection, and what it
// says again: the node executes each at most once, and this side commits a report
// before the node hears that it has arrived.
package commands

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"halo.internal/gateway/clock"
	"halo.internal/gateway/events"
	"halo.internal/gateway/jobs"
	"halo.internal/gateway/store"
	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/wire"
)

// Config is what New needs.
type Config struct {
	Key    identity.Key // the network's
	Epoch  func() uint64
	Boot   uint64
	Clock  *clock.Clock
	Events *events.Log
	Log    *slog.Logger
}

// Engine may be used from any goroutine. Nothing is handed over before Start.
type Engine struct {
	Config
	jobs *jobs.Engine

	mu    sync.Mutex // guards what follows
	nodes map[string]*node
	byJob map[int64]*order
}

// New returns an engine that has no jobs yet.
func New(c Config) *Engine {
	return &Engine{Config: c, nodes: map[string]*node{}, byJob: map[int64]*order{}}
}

// Kinds are the kinds of jobs that commands are.
func (e *Engine) Kinds() []jobs.Kind {
	var list []jobs.Kind
	for _, k := range model.PeopleCommands() {
		kind := jobs.Kind{Name: string(k), Cancel: e.cancel, Scope: apitype.ScopeNodesWrite}
		if k == model.CommandCapture || k == model.CommandConfig || k == model.CommandReset {
			kind.Scope = apitype.ScopeAdmin // who speaks with whom; what is measured at all; what is there
		}
		if k == model.CommandCapture {
			kind.Most = maxCaptures
		}
		list = append(list, kind)
	}
	return list
}

// maxCaptures bounds what is held of files that are on their way: 1 MiB each.
const maxCaptures = 8

// limits are how long the kinds may take on a node.
func limit(c model.Command) time.Duration {
	switch c.Kind {
	case model.CommandReboot:
		return 10 * time.Minute // until it has started and found the gateway
	case model.CommandRestart:
		return 3 * time.Minute
	case model.CommandLocate:
		return time.Duration(c.Locate.Seconds)*time.Second + 10*time.Second
	case model.CommandCapture:
		return time.Duration(c.Capture.Seconds)*time.Second + 30*time.Second
	}
	return time.Minute
}

// usually is how long a command waits for a node where nothing is said.
const usually = 5 * time.Minute

// Start takes over what the last process left: what waits and what runs.
func (e *Engine) Start(j *jobs.Engine) {
	e.jobs = j
	list, origins := j.Unfinished()
	for i, job := range list {
		o := &order{running: job.State == apitype.JobRunning}
		err := json.Unmarshal(job.Request, &o.Command)
		if err == nil {
			err = o.Command.Check()
		}
		if err != nil {
			o.Command = model.Command{}
			o.closing = &wire.CommandReport{State: model.CommandFailed, Code: model.CodeInvalid, Text: err.Error()}
		}
		o.sent = o.running
		o.Expires, o.held = e.remaining(job, origins[i].Boot)
		o.held = o.held && !o.running
		if o.held {
			j.Progress(job.ID, 0, "it waits until the gateway knows the time: it may have expired while the gateway was off")
		}
		e.order(job, origins[i].Epoch, o)
	}
}

// remaining tells until when a job that the last process left waits, by the monotonic
// clock. A clock that is a guess is late, by as much as the gateway was off: what
// comes from another start of the machine is then held.
func (e *Engine) remaining(job apitype.Job, boot uint64) (expires time.Time, held bool) {
	if job.Expires == nil {
		return time.Now().Add(usually), false
	}
	if boot != e.Boot && e.Clock.Quality() == model.ClockNone {
		return time.Time{}, true
	}
	left := min(job.Expires.Sub(e.Clock.Now()), job.Expires.Sub(job.Created)) // the clock may have gone back
	return time.Now().Add(left), false
}

const lookEvery = 5 * time.Second

// Run lets go of what is held when the gateway knows the time, until ctx ends.
func (e *Engine) Run(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if e.Clock.Quality() != model.ClockNone {
			e.letGo(ctx)
		}
	}
}

// letGo hands over what was held.
func (e *Engine) letGo(ctx context.Context) {
	e.mu.Lock()
	held := map[int64]*order{}
	for id, o := range e.byJob {
		if o.held && !o.over {
			held[id] = o
		}
	}
	e.mu.Unlock()
	for id, o := range held {
		job, err := e.jobs.Get(ctx, id)
		if err != nil {
			e.Log.Warn("a command that waits cannot be looked at", "job", id, "err", err)
			continue
		}
		expires, _ := e.remaining(job, e.Boot)
		e.jobs.Progress(id, 0, "")
		e.mu.Lock()
		n := e.node(o.Node)
		o.held, o.Expires = false, expires
		if !o.over {
			e.wait(n, o, time.Until(expires), model.CodeExpired)
			e.hand(n, o)
		}
		e.mu.Unlock()
	}
}

// Request is a command that somebody gives.
type Request struct {
	Node    apitype.Node
	Command model.Command
	By      string
	Key     string        // empty, or by which it may be given once more
	Wait    time.Duration // for a node that is off; 0: usually
}

// Create gives a command to a node.
func (e *Engine) Create(ctx context.Context, r Request) (apitype.Job, error) {
	if err := r.Command.Check(); err != nil {
		return apitype.Job{}, apitype.Refuse(http.StatusUnprocessableEntity, "", "%v", err)
	}
	if r.Node.Revoked {
		return apitype.Job{}, apitype.Refuse(http.StatusConflict, apitype.ProblemNodeRevoked, "node %s was revoked", r.Node.Name)
	}
	err := e.Able(r.Node.ID, r.Command.Kind)
	if refusal, ok := errors.AsType[*model.CommandRefusal](err); ok && refusal.Code != model.CodeUnreachable {
		return apitype.Job{}, apitype.Refuse(http.StatusConflict, apitype.ProblemNodeCannot, "%s cannot: %s: %s", r.Node.Name, refusal.Code, refusal.Text)
	}
	wait := r.Wait
	if wait == 0 {
		wait = usually
	}
	begin := time.Now()
	expires := e.Clock.Now().Add(wait)
	job, again, err := e.jobs.Add(ctx, jobs.Request{Kind: string(r.Command.Kind), Node: r.Node.ID, By: r.By, Key: r.Key, Body: r.Command, Expires: &expires, Admit: func(context.Context) error { return e.room(r) }})
	if err != nil || again {
		return job, err
	}
	e.order(job, e.Epoch(), &order{Order: Order{Command: r.Command, Expires: begin.Add(wait)}})
	return e.jobs.Get(ctx, job.ID)
}

// room tells whether a node may have another command.
func (e *Engine) room(r Request) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.node(r.Node.ID).orders) < maxOrders {
		return nil
	}
	return apitype.Refuse(http.StatusTooManyRequests, apitype.ProblemRateLimited, "%s has %d commands that have not ended; take some back, or wait", r.Node.Name, maxOrders).After(30 * time.Second)
}

// order makes an order of a job, which was made in that epoch: o has the command, and how
// far it is.
func (e *Engine) order(job apitype.Job, epoch uint64, o *order) {
	o.ID, o.Node, o.By, o.Limit = wire.NewCommandID(epoch, uint64(job.ID)), job.Node, job.By, limit(o.Command)
	o.Told = func(r wire.CommandReport, file []byte) error { return e.told(job, r, file) }
	e.mu.Lock()
	defer e.mu.Unlock()
	e.byJob[job.ID] = o // before its node has it, which may be fast
	e.give(o)
}

// told notes what a node says of a job.
func (e *Engine) told(job apitype.Job, r wire.CommandReport, file []byte) error {
	ctx := context.Background() // whoever asked is long gone
	if !r.State.Final() {
		now, err := e.jobs.Get(ctx, job.ID)
		if err != nil {
			return err
		}
		if now.State == apitype.JobQueued {
			if err := e.jobs.Begin(ctx, job.ID); err != nil {
				return err
			}
		}
		e.jobs.Progress(job.ID, int(r.Progress), r.Text)
		return nil
	}
	return e.finish(ctx, job, endOf(job, r, file))
}

// endOf is how a job ends by a report.
func endOf(job apitype.Job, r wire.CommandReport, file []byte) jobs.End {
	end := jobs.End{Code: r.Code, Message: r.Text}
	end.State = map[model.CommandState]string{
		model.CommandDone: apitype.JobDone, model.CommandFailed: apitype.JobFailed, model.CommandRefused: apitype.JobRefused, model.CommandCancelled: apitype.JobCancelled,
	}[r.State]
	if r.State == model.CommandFailed && r.Code == model.CodeExpired {
		end.State = apitype.JobExpired
	}
	if r.State != model.CommandDone {
		return end
	}
	if json.Valid(r.Result) { // what a node sends is shown to people as it is
		end.Value = json.RawMessage(r.Result)
	}
	if file != nil && job.Kind == string(model.CommandCapture) {
		end.File, end.FileType = file, "application/vnd.tcpdump.pcap"
	}
	return end
}

// assumed are the codes of ends that the node has not told: what it says later is
// true.
var assumed = []string{model.CodeTimeout, model.CodeUnanswered, model.CodeExpired}

// finish notes how a job has ended, and tells of it.
func (e *Engine) finish(ctx context.Context, job apitype.Job, end jobs.End) error {
	end.Late = assumed
	err := e.jobs.Finish(ctx, job.ID, end)
	over := errors.Is(err, jobs.ErrOver)
	if err == nil || over {
		e.mu.Lock()
		delete(e.byJob, job.ID)
		e.mu.Unlock()
	}
	switch {
	case over:
		return nil // the node need not say it again
	case err != nil:
		if !errors.Is(err, store.ErrUnavailable) {
			e.Log.Error("what became of a command cannot be stored", "job", job.ID, "node", job.Node, "err", err)
		}
		return err
	}
	kind, severity := "node.command-ended", model.Info
	if end.State != apitype.JobDone && end.State != apitype.JobCancelled {
		severity = model.Warning
	}
	message := fmt.Sprintf("%s, for %s: %s", job.Kind, job.By, end.State)
	if end.Message != "" {
		message += ": " + end.Message
	}
	e.Events.Add(kind, severity, job.Node, message, map[string]string{"job": fmt.Sprint(job.ID), "kind": job.Kind, "state": end.State, "code": end.Code, "by": job.By})
	return nil
}

// late takes the last word of a node on a command of which none is awaited any more.
func (e *Engine) late(ctx context.Context, id string, r wire.CommandReport) error {
	job, err := e.jobs.Get(ctx, int64(r.ID.Number))
	if p, ok := errors.AsType[*apitype.Problem](err); ok && p.Status == http.StatusNotFound {
		return nil // nobody remembers
	}
	if err != nil {
		return err
	}
	made, err := e.jobs.Made(ctx, job.ID)
	if err != nil {
		return err
	}
	if job.Node != id || made.Epoch != r.ID.Epoch || r.Size > 0 || !slices.Contains(model.PeopleCommands(), model.CommandKind(job.Kind)) {
		return nil // of another card of this gateway, a part of something else, or with a file that nobody has taken
	}
	if !job.Final() {
		return errors.New("it is awaited after all") // it was made just now
	}
	return e.finish(ctx, job, endOf(job, r, nil))
}

// cancel takes back a command that has not ended.
func (e *Engine) cancel(_ context.Context, job apitype.Job) error {
	e.mu.Lock()
	o := e.byJob[job.ID]
	e.mu.Unlock()
	if o == nil {
		return nil // it has just ended
	}
	_, err := e.withdraw(o) // otherwise its node has the last word
	return err
}

// Drop takes back all commands of a node that was revoked: at once, or as soon as that can
// be stored.
func (e *Engine) Drop(id string) {
	e.mu.Lock()
	n := e.node(id)
	var gone []*order
	for _, o := range e.byJob {
		if o.Node == id {
			o.closing = &wire.CommandReport{ID: o.ID, State: model.CommandCancelled, Text: "the node was revoked"}
			gone = append(gone, o)
		}
	}
	e.mu.Unlock()
	for _, o := range gone {
		e.giveUp(n, o, "")
	}
}

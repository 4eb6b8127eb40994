// Package speedtest measures what the overlay carries between a node and the gateway,
// or between two nodes. Each test is a job in which one device is told to serve and
// the other to measure; the data goes between their agents, the gateway's own among
// them, and never through gateway-api.
//
// A mesh shares its channel: two tests at once measure each other, and a test takes
// what telemetry would have. So there is one at a time in the whole network, a pause
// after each that is several times as long, and a node is not measured again at once.
package speedtest

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"halo.internal/gateway/commands"
	"halo.internal/gateway/jobs"
	"halo.internal/gateway/registry"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/wire"
)

// Kind is the kind of job that a speed test is.
const Kind = "speed-test"

const (
	maxWaiting = 16               // tests that have not ended
	keep       = 500              // results
	againAfter = time.Minute      // of the same node
	listenWait = 15 * time.Second // for the other device to be ready
	serveWait  = model.SpeedMaxWait

	// After a test that took so long, the channel is left to others for so many times as
	// long: tests take a fifth of it at most.
	restFactor = 4
	restLeast  = 2 * time.Second
)

// Config is what New needs.
type Config struct {
	Commands *commands.Engine
	Registry *registry.Registry
	Limit    time.Duration // of each direction; 0: model.SpeedLimit
}

// Engine may be used from any goroutine.
type Engine struct {
	Config
	jobs *jobs.Engine

	mu   sync.Mutex // guards what follows
	rest time.Time  // no test begins before
}

// New returns an engine. Its Kind has to be among those of the jobs that Start gets.
func New(c Config) *Engine {
	if c.Limit == 0 {
		c.Limit = model.SpeedLimit
	}
	return &Engine{Config: c}
}

// Kind is how tests are run. One that the end of the process has cut is of no use.
func (e *Engine) Kind() jobs.Kind {
	return jobs.Kind{Name: Kind, Run: e.run, Workers: 1, Scope: apitype.ScopeNodesWrite, Most: maxWaiting, Keep: keep}
}

// Start takes the jobs.
func (e *Engine) Start(j *jobs.Engine) { e.jobs = j }

// request is what a job keeps of what was asked for.
type request struct {
	Node string `json:"node"` // canonical IDs
	Peer string `json:"peer"`
	Down uint32 `json:"down_bytes"`
	Up   uint32 `json:"up_bytes"`
}

// Create asks for a test.
func (e *Engine) Create(ctx context.Context, c apitype.CreateSpeedTest, by, key string) (apitype.Job, error) {
	node, err := e.device(ctx, c.Node, model.CommandSpeedTest)
	if err != nil {
		return apitype.Job{}, err
	}
	ref := c.Peer
	if ref == "" {
		ref = e.Registry.Gateway()
	}
	peer, err := e.device(ctx, ref, model.CommandSpeedServe)
	if err != nil {
		return apitype.Job{}, err
	}
	if peer.ID == node.ID {
		return apitype.Job{}, apitype.Refuse(http.StatusUnprocessableEntity, "", "node and peer: expected two devices, got %s twice", node.Name)
	}
	r := request{Node: node.ID, Peer: peer.ID, Down: model.SpeedDownBytes, Up: model.SpeedUpBytes}
	if c.DownBytes != 0 || c.UpBytes != 0 {
		r.Down, r.Up = uint32(c.DownBytes), uint32(c.UpBytes)
	}
	if r.Down > model.SpeedDownBytes || r.Up > model.SpeedUpBytes {
		return apitype.Job{}, apitype.Refuse(http.StatusUnprocessableEntity, "", "expected at most %d octets down and %d up", model.SpeedDownBytes, model.SpeedUpBytes)
	}
	job, _, err := e.jobs.Add(ctx, jobs.Request{Kind: Kind, Node: node.ID, By: by, Key: key, Body: r, Admit: func(ctx context.Context) error { return e.tooSoon(ctx, node) }})
	return job, err
}

// device finds a device that can take part.
func (e *Engine) device(ctx context.Context, ref string, k model.CommandKind) (apitype.Node, error) {
	n, err := e.Registry.Node(ctx, ref)
	if err != nil {
		return n, err
	}
	if n.Revoked {
		return n, apitype.Refuse(http.StatusConflict, apitype.ProblemNodeRevoked, "node %s was revoked", n.Name)
	}
	err = e.Commands.Able(n.ID, k)
	if r, ok := errors.AsType[*model.CommandRefusal](err); ok {
		return n, apitype.Refuse(http.StatusConflict, apitype.ProblemNodeCannot, "%s cannot: %s: %s", n.Name, r.Code, r.Text)
	}
	return n, err
}

// tooSoon tells of a node that waits for a test, or has just had one.
func (e *Engine) tooSoon(ctx context.Context, n apitype.Node) error {
	list, _, err := e.jobs.List(ctx, jobs.Query{Nodes: []string{n.ID}, Kinds: []string{Kind}, Limit: 1})
	if err != nil || len(list) == 0 {
		return err
	}
	last := list[0]
	if !last.Final() {
		return apitype.Refuse(http.StatusTooManyRequests, apitype.ProblemRateLimited, "%s has a test that has not ended: job %d", n.Name, last.ID).After(10 * time.Second)
	}
	if left := againAfter - e.jobs.Clock.Now().Sub(*last.Ended); left > 0 && left <= againAfter {
		return apitype.Refuse(http.StatusTooManyRequests, apitype.ProblemRateLimited, "%s had a test %s ago; a mesh has other things to carry", n.Name, (againAfter - left).Round(time.Second)).After(left)
	}
	return nil
}

// run is one test.
func (e *Engine) run(ctx context.Context, t *jobs.Task) (jobs.Outcome, error) {
	var r request
	if err := json.Unmarshal(t.Request, &r); err != nil {
		return jobs.Outcome{}, err
	}
	if err := e.pause(ctx, t); err != nil {
		return jobs.Outcome{}, err
	}
	begin := time.Now()
	defer func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.rest = time.Now().Add(max(restFactor*time.Since(begin), restLeast))
	}()
	node, err := e.Registry.Node(ctx, r.Node)
	if err != nil {
		return jobs.Outcome{}, err
	}
	peer, err := e.Registry.Node(ctx, r.Peer)
	if err != nil {
		return jobs.Outcome{}, err
	}
	res, err := e.measure(ctx, t, r, node, peer)
	return jobs.Outcome{Value: res}, err
}

// pause waits until the channel was left to others for long enough.
func (e *Engine) pause(ctx context.Context, t *jobs.Task) error {
	e.mu.Lock()
	left := time.Until(e.rest)
	e.mu.Unlock()
	if left <= 0 {
		return nil
	}
	t.Progress(0, fmt.Sprintf("it begins in %s, so that tests leave the channel to others", left.Round(time.Second)))
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(left):
	}
	return nil
}

// measure has the peer serve and the node measure.
func (e *Engine) measure(ctx context.Context, t *jobs.Task, r request, node, peer apitype.Node) (*model.SpeedResult, error) {
	id := wire.NewCommandID(t.Origin.Epoch, uint64(t.ID))
	var ticket model.SpeedTicket
	rand.Read(ticket[:])
	limit := uint32(e.Limit / time.Millisecond)
	ctx, cancel := context.WithCancelCause(ctx)
	served := make(chan error, 1)
	ready := make(chan struct{})
	isReady := sync.OnceFunc(func() { close(ready) })
	t.Progress(5, peer.Name+" gets ready")
	go func() {
		report, err := e.Commands.Do(ctx, commands.Order{
			ID: id, Node: peer.ID, By: t.By, Limit: serveWait + 10*time.Second, Expires: time.Now().Add(listenWait),
			Command: model.Command{Kind: model.CommandSpeedServe, SpeedServe: &model.SpeedServeCommand{
				Peer: node.OverlayV4, Ticket: ticket, DownBytes: r.Down, UpBytes: r.Up, LimitMS: limit, WaitMS: uint32(serveWait / time.Millisecond)}},
		}, func(m wire.CommandReport) {
			if m.Progress > 0 {
				isReady()
			}
		})
		if err = verdict(peer, report, err); err != nil {
			cancel(err) // nobody serves: the node need not try
		}
		served <- err
	}()
	defer func() {
		cancel(nil)
		<-served
	}()
	select {
	case <-ready:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-time.After(2 * listenWait):
		return nil, &jobs.Refusal{State: apitype.JobFailed, Code: model.CodeUnreachable, Text: peer.Name + " does not get ready"}
	}
	t.Progress(10, node.Name+" measures")
	report, err := e.Commands.Do(ctx, commands.Order{
		ID: id, Node: node.ID, By: t.By, Limit: serveWait, Expires: time.Now().Add(listenWait),
		Command: model.Command{Kind: model.CommandSpeedTest, SpeedTest: &model.SpeedTestCommand{Peer: peer.OverlayV4, Ticket: ticket, DownBytes: r.Down, UpBytes: r.Up, LimitMS: limit}},
	}, nil)
	if err := verdict(node, report, err); err != nil {
		return nil, err
	}
	return result(report.Result, r)
}

// verdict is what a device's last word means for a test, or that there is none.
func verdict(n apitype.Node, r wire.CommandReport, err error) error {
	if refusal, ok := errors.AsType[*model.CommandRefusal](err); ok {
		return &jobs.Refusal{State: apitype.JobRefused, Code: refusal.Code, Text: n.Name + ": " + refusal.Text}
	}
	if err != nil {
		return err
	}
	text := n.Name + ": " + r.Text
	switch r.State {
	case model.CommandDone:
		return nil
	case model.CommandRefused:
		return &jobs.Refusal{State: apitype.JobRefused, Code: r.Code, Text: text}
	case model.CommandCancelled:
		return errors.New(text)
	}
	return &jobs.Refusal{State: apitype.JobFailed, Code: r.Code, Text: text}
}

// result reads what a node says that it has measured.
func result(b []byte, r request) (*model.SpeedResult, error) {
	var res model.SpeedResult
	if err := json.Unmarshal(b, &res); err != nil {
		return nil, fmt.Errorf("expected what was measured: %w", err)
	}
	const most = 1e6 // Mbit/s, or milliseconds
	good := func(w model.SpeedWay, octets uint32) bool {
		return w.Bytes >= 0 && w.Bytes <= int64(octets) && w.Mbps >= 0 && w.Mbps <= most && w.Seconds >= 0 && w.Seconds <= model.SpeedMaxWait.Seconds()
	}
	if !good(res.Down, r.Down) || !good(res.Up, r.Up) || res.LatencyMS < 0 || res.LatencyMS > most {
		return nil, fmt.Errorf("expected what can be measured, got %.200s", b)
	}
	return &res, nil
}

// List returns tests of nodes, or of all, newest first, and the job before which to go on;
// 0: there are no more.
func (e *Engine) List(ctx context.Context, nodes []string, before int64, limit int) ([]apitype.SpeedTest, int64, error) {
	list, next, err := e.jobs.List(ctx, jobs.Query{Nodes: nodes, Kinds: []string{Kind}, Before: before, Limit: limit})
	tests := make([]apitype.SpeedTest, 0, len(list))
	for _, j := range list {
		s := apitype.SpeedTest{Job: j.ID, Node: j.Node, Time: j.Created, State: j.State, Code: j.Code, Text: j.Message}
		if j.Ended != nil {
			s.Time = *j.Ended
		}
		var r request
		if json.Unmarshal(j.Request, &r) == nil {
			s.Peer = r.Peer
		}
		var res model.SpeedResult
		if j.Result != nil && json.Unmarshal(j.Result, &res) == nil {
			s.Result = &res
		}
		tests = append(tests, s)
	}
	return tests, next, err
}

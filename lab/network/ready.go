package network

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"halo.internal/health"
	"halo.internal/lab/machine"
	"halo.internal/model"
	"halo.internal/model/version"
)

// Progress is one step of a machine on its way up.
type Progress struct {
	Machine string        `json:"machine"`
	After   time.Duration `json:"after_ns" doc:"since the waiting began"`
	Stage   Stage         `json:"stage"`
	Detail  string        `json:"detail,omitempty"`
}

// Stage of a machine.
type Stage string

// Stages, in their order.
const (
	Booting  Stage = "booting"
	Answers  Stage = "answers" // its first service does
	Waiting  Stage = "waiting" // for what Detail says
	Ready    Stage = "ready"
	NotReady Stage = "failed"
)

const (
	pollEvery = 500 * time.Millisecond
	pollLimit = 20 * time.Second // an emulated machine that starts everything at once is slow
	maxHealth = 256 << 10
)

// Ready returns when all machines are up and have found each other: when their
// own /health says that nothing is missing. report is told each step, from
// one goroutine per machine.
func (n *Network) Ready(ctx context.Context, report func(Progress)) error {
	return n.ReadyAre(ctx, n.Machines(), report)
}

// ReadyAre is Ready for some of the machines.
func (n *Network) ReadyAre(ctx context.Context, machines []*Machine, report func(Progress)) error {
	start := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	for _, m := range machines {
		g.Go(func() error {
			return m.ready(ctx, func(s Stage, detail string) {
				report(Progress{m.Name(), time.Since(start), s, detail})
			})
		})
	}
	return g.Wait()
}

func (m *Machine) ready(ctx context.Context, report func(Stage, string)) error {
	c := probe()
	defer c.CloseIdleConnections()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	report(Booting, "")
	if err := m.isOn(report); err != nil {
		return err
	}
	v, err := m.firstView(ctx, c, tick.C, report)
	if err != nil {
		return err
	}
	report(Answers, v.version)
	for last := ""; ; v, err = m.view(ctx, c) {
		switch {
		case err != nil: // not any more
		case v.waits == "":
			report(Ready, "")
			return nil
		case v.waits != last:
			last = v.waits
			report(Waiting, v.waits)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w", m.Name(), context.Cause(ctx))
		case <-tick.C:
		}
		if err := m.isOn(report); err != nil {
			return err
		}
	}
}

// isOn is nil while the machine runs.
func (m *Machine) isOn(report func(Stage, string)) error {
	s := m.Status()
	if s.State != machine.Failed && s.State != machine.Off {
		return nil
	}
	report(NotReady, s.Detail)
	return fmt.Errorf("%s is %s: %s", m.Name(), s.State, s.Detail)
}

// firstView waits for the first answer of a machine. Its questions overlap:
// QEMU takes a connection before there is anybody in the machine to take it, and
// then offers it again only after six seconds.
func (m *Machine) firstView(ctx context.Context, c *http.Client, tick <-chan time.Time, report func(Stage, string)) (view, error) {
	answers := make(chan view)
	asking, stop := context.WithCancel(ctx)
	var questions sync.WaitGroup
	defer questions.Wait()
	defer stop()
	for {
		questions.Go(func() {
			if v, err := m.view(asking, c); err == nil {
				select {
				case answers <- v:
				case <-asking.Done():
				}
			}
		})
		select {
		case v := <-answers:
			return v, nil
		case <-ctx.Done():
			return view{}, fmt.Errorf("%s is not ready: %w", m.Name(), context.Cause(ctx))
		case <-tick:
		}
		if err := m.isOn(report); err != nil {
			return view{}, err
		}
	}
}

// view is what a machine tells of itself.
type view struct {
	version string
	waits   string // for what; empty when it lacks nothing
}

func (m *Machine) view(ctx context.Context, c *http.Client) (view, error) {
	if m.Role == model.RoleGateway {
		r, err := get[health.Report](ctx, c, m.URL()+"/health")
		return view{r.Build.Version, missing(r)}, err
	}
	d, err := get[Diag](ctx, c, m.URL()+"/api/diag")
	if err != nil {
		return view{}, err
	}
	v := view{version: d.Build.Version}
	for _, r := range d.Health {
		if v.waits == "" {
			v.waits = missing(r)
		}
	}
	if v.waits == "" && d.State != online {
		v.waits = d.State
	}
	return v, nil
}

// missing says what a process waits for, empty when it is well.
func missing(r health.Report) string {
	if r.State == health.OK {
		return ""
	}
	text := r.Name + " waits for " + r.Missing
	if r.Detail != "" {
		text += ": " + r.Detail
	}
	return text
}

// Diag is what the lab reads of a node's /api/diag.
type Diag struct {
	Build  version.Info       `json:"build"`
	State  string             `json:"state"`
	Mesh   *model.MeshStatus  `json:"mesh"`
	Agent  *model.AgentStatus `json:"agent"`
	Boot   *model.BootReport  `json:"boot"`
	Health []health.Report    `json:"health"`
}

// online is Field's name for a node that lacks nothing.
const online = "online"

// Diag asks a node's Field how it is.
func (m *Machine) Diag(ctx context.Context) (Diag, error) {
	c := probe()
	defer c.CloseIdleConnections()
	return get[Diag](ctx, c, m.URL()+"/api/diag")
}

// probe makes a client that trusts anybody: it sends nothing, and what it reads
// only tells whether to go on waiting.
func probe() *http.Client {
	return &http.Client{Timeout: pollLimit, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}}
}

// get reads JSON; a process that is not well answers 503 with a body.
func get[T any](ctx context.Context, c *http.Client, url string) (v T, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return v, err
	}
	resp, err := c.Do(req)
	if err != nil {
		return v, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxHealth))
	if err == nil {
		err = json.Unmarshal(b, &v)
	}
	if err != nil {
		return v, fmt.Errorf("GET %s: expected JSON: %w", url, err)
	}
	return v, nil
}

// Answers is nil when the machine's API or Field does answer.
func (m *Machine) Answers(ctx context.Context) error {
	c := probe()
	defer c.CloseIdleConnections()
	_, err := m.view(ctx, c)
	return err
}

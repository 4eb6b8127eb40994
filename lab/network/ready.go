package network

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"halo.internal/health"
	"halo.internal/lab/machine"
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
	start := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	for _, m := range n.Machines() {
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
	answered, last := false, ""
	for {
		if s := m.Status(); s.State == machine.Failed || s.State == machine.Off {
			report(NotReady, s.Detail)
			return fmt.Errorf("%s is %s: %s", m.Name(), s.State, s.Detail)
		}
		r, err := m.health(ctx, c)
		if err == nil && !answered {
			answered = true
			report(Answers, r.Build.Version)
		}
		switch {
		case err != nil: // not yet, or not any more
		case r.State == health.OK:
			report(Ready, "")
			return nil
		default:
			if w := r.Missing + ": " + r.Detail; w != last {
				last = w
				report(Waiting, w)
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %w", m.Name(), context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// Health asks the machine's API or Field how it is.
func (m *Machine) Health(ctx context.Context) (health.Report, error) {
	c := probe()
	defer c.CloseIdleConnections()
	return m.health(ctx, c)
}

// probe makes a client that trusts anybody: it sends nothing, and what it reads
// only tells whether to go on waiting.
func probe() *http.Client {
	return &http.Client{Timeout: pollLimit, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}}
}

func (m *Machine) health(ctx context.Context, c *http.Client) (health.Report, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.URL()+"/health", nil)
	if err != nil {
		return health.Report{}, err
	}
	resp, err := c.Do(req)
	if err != nil {
		return health.Report{}, err
	}
	defer resp.Body.Close()
	var r health.Report
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxHealth))
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil {
		return health.Report{}, fmt.Errorf("health of %s: expected a report: %w", m.Name(), err)
	}
	return r, nil
}

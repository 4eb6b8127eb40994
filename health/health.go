// Package health is the dependency graph that every HALO process keeps of what
// it needs, and from which /health, later the updates' commit and the web UIs
// are read. The first broken dependency explains the ones above it.
package health

import (
	"encoding/json"
	"net/http"
	"slices"
	"sync"
	"time"

	"halo.internal/model/version"
)

// State of a check or of a whole process, best last.
type State string

// States.
const (
	Failed   State = "failed"   // tried and does not work
	Starting State = "starting" // not known yet
	Degraded State = "degraded" // works with less
	OK       State = "ok"
)

// Check is one thing that a process needs.
type Check struct {
	Name   string    `json:"name"`            // e.g. "halo-mesh", "gateway", "perm"
	Needs  []string  `json:"needs,omitempty"` // checks that this one rests on
	State  State     `json:"state"`
	Detail string    `json:"detail,omitempty"` // what was expected and what is there
	Since  time.Time `json:"since"`            // when it came into this state
}

// Report is the answer to GET /health.
type Report struct {
	Name    string       `json:"name"`
	Build   version.Info `json:"build"`
	State   State        `json:"state"`             // worst of the checks
	Missing string       `json:"missing,omitempty"` // first broken check whose own needs are not; while none is, the first that works with less
	Detail  string       `json:"detail,omitempty"`  // detail of that check
	Started time.Time    `json:"started"`
	Checks  []Check      `json:"checks"`
}

// Graph holds a process's checks. Its methods may be called from any goroutine.
type Graph struct {
	name    string
	started time.Time

	mu     sync.Mutex // guards what follows
	checks []Check    // in the order declared: dependencies first
	notify []func(Check)
}

// New returns a graph for the process of that name.
func New(name string) *Graph { return &Graph{name: name, started: time.Now()} }

// Declare adds a check in state starting. needs must have been declared before.
func (g *Graph) Declare(name string, needs ...string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, n := range needs {
		if g.index(n) < 0 {
			panic("health: " + name + " needs undeclared " + n)
		}
	}
	g.checks = append(g.checks, Check{Name: name, Needs: needs, State: Starting, Since: time.Now()})
}

// Set records the state of a declared check. Only a change of state moves Since
// and calls the watchers.
func (g *Graph) Set(name string, s State, detail string) {
	g.mu.Lock()
	i := g.index(name)
	if i < 0 {
		g.mu.Unlock()
		panic("health: undeclared check " + name)
	}
	c := &g.checks[i]
	changed := c.State != s
	if changed {
		c.Since = time.Now()
	}
	c.State, c.Detail = s, detail
	copied, watchers := *c, slices.Clone(g.notify)
	g.mu.Unlock()
	if changed {
		for _, f := range watchers {
			f(copied)
		}
	}
}

// State returns that of a declared check.
func (g *Graph) State(name string) State {
	g.mu.Lock()
	defer g.mu.Unlock()
	i := g.index(name)
	if i < 0 {
		panic("health: undeclared check " + name)
	}
	return g.checks[i].State
}

// Watch calls f, from Set's goroutine, after each change of state.
func (g *Graph) Watch(f func(Check)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.notify = append(g.notify, f)
}

func (g *Graph) index(name string) int {
	return slices.IndexFunc(g.checks, func(c Check) bool { return c.Name == name })
}

var rank = map[State]int{Failed: 0, Starting: 1, Degraded: 2, OK: 3}

// Report evaluates the graph.
func (g *Graph) Report() Report {
	g.mu.Lock()
	defer g.mu.Unlock()
	r := Report{Name: g.name, Build: version.Get(), State: OK, Started: g.started, Checks: slices.Clone(g.checks)}
	for _, c := range g.checks {
		if rank[c.State] < rank[r.State] {
			r.State = c.State
		}
	}
	// What only works with less explains nothing that does not work at all.
	limit := rank[Degraded]
	if rank[r.State] < limit {
		limit = rank[Starting]
	}
	broken := func(n string) bool { return rank[g.checks[g.index(n)].State] <= limit }
	for _, c := range g.checks {
		if broken(c.Name) && !slices.ContainsFunc(c.Needs, broken) {
			r.Missing, r.Detail = c.Name, c.Detail
			break
		}
	}
	return r
}

// ServeHTTP answers GET /health: 200 when the process works (ok or degraded),
// 503 otherwise, with the report either way.
func (g *Graph) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	r := g.Report()
	w.Header().Set("Content-Type", "application/json")
	if rank[r.State] < rank[Degraded] {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(r) // the client went away: nobody to tell
}

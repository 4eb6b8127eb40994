// Package scenarios is what a HALO network must come back from by itself: restarts,
// radios that go and come, drivers that hang, partitions, strangers, clocks that are
// wrong by years. Each scenario does one of these things to a running network of the
// lab, and then, with nobody touching anything, every legitimate device has to have
// its neighbours, its addresses, its encrypted way to the gateway and all of its
// telemetry. It is measured how long that takes. A scenario leaves the network as it
// found it, so that many can share one.
package scenarios

import (
	"context"
	"fmt"
	"slices"
	"time"

	"halo.internal/lab/network"
)

// Scenario is one fault, or one attack, and what has to hold then.
type Scenario struct {
	Name    string                                       `json:"name"`
	Short   string                                       `json:"short"`   // in one sentence
	Mesh    network.Mesh                                 `json:"mesh"`    // what carries the network that it needs
	Repeats bool                                         `json:"repeats"` // a soak does it again and again
	Run     func(context.Context, *World, *Result) error `json:"-"`
}

// Result is how a scenario went.
type Result struct {
	Scenario string        `json:"scenario"`
	Mesh     network.Mesh  `json:"mesh"`
	OK       bool          `json:"ok"`
	Failure  string        `json:"failure,omitempty"`
	Took     time.Duration `json:"took_ns" doc:"of the whole scenario"`
	Since    string        `json:"since,omitempty" doc:"from when recovery is counted"`
	Notes    []string      `json:"notes,omitempty"`
	Machines []Recovery    `json:"machines" doc:"legitimate ones"`
}

// note says something about how it went.
func (r *Result) note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

// Recovery is when a machine was back, each stage for good.
type Recovery struct {
	Machine string                  `json:"machine"`
	Stages  map[Stage]time.Duration `json:"stages_ns"`
}

// Stage of a recovery.
type Stage string

// Stages. A machine passes the first when it answers at all, which in the lab is
// asked by a way of its own.
const (
	Up        Stage = "up"
	Peered    Stage = "peered"    // links and neighbours, as many as before
	Addressed Stage = "addressed" // on the mesh and the overlay, the addresses of before
	Reachable Stage = "reachable" // through the overlay: the gateway gets from it, and it from the gateway
	Direct    Stage = "direct"    // through the overlay, by their own sessions: every other node answers it
	Complete  Stage = "complete"  // no batch of telemetry is missing, and new ones come
)

// Stages in their order.
var Stages = []Stage{Up, Peered, Addressed, Reachable, Direct, Complete}

// All are the scenarios, in the order in which they are run: those of one network
// together, those that leave more machines behind at its end: cards are written for
// the channel and the secret that the mesh had at first.
func All() []Scenario {
	return []Scenario{
		{"node-restart", "one node is reset", network.ByCable, true, nodeRestart},
		{"gateway-restart", "the gateway is reset", network.ByCable, true, gatewayRestart},
		{"loss", "a node restarts while 30 % of the frames between any two are lost", network.ByCable, false, loss},
		{"clock-back", "gateway and node restart, the gateway's clock a year back, the node's fifty years ahead", network.ByCable, false, clockBack},
		{"clock-ahead", "gateway and node restart, the gateway's clock fifty years ahead, the node's a year back", network.ByCable, false, clockAhead},
		{"rogue-dhcp", "a client of a node, and a stranger on the switch, serve DHCP and advertise themselves as routers", network.ByCable, false, rogueDHCP},
		{"dhcp-exhausted", "forged clients take every address that a node has for clients", network.ByCable, false, exhausted},
		{"stranger", "a member of another network is plugged into the switch", network.ByCable, false, stranger},
		{"rogue-gateway", "strangers outside the mesh, and a guest on it, announce themselves as the gateway", network.ByCable, false, rogueGateway},
		{"dhcp-flood", "forged guests ask the gateway for addresses of the mesh, faster than it gives any, while a node restarts", network.ByCable, false, flooded},
		{"gateway-restored", "the gateway's card is lost, and a fresh one becomes the gateway by a backup", network.ByCable, false, restoredGateway},
		{"node-replaced", "a node's card is lost, and one that was written anew is adopted in its place", network.ByCable, false, replacedNode},
		{"all-restart", "all are reset at once", network.ByAir, true, allRestart},
		{"radio-removed", "a node's radio is unplugged, and plugged in again", network.ByAir, false, radioRemoved},
		{"driver-wedged", "a radio's driver hangs: it sends nothing, hears nothing and says nothing", network.ByAir, false, driverWedged},
		{"mesh-killed", "halo-mesh dies on a node and on the gateway", network.ByAir, false, meshKilled},
		{"rogue-frames", "a node restarts while a stranger's radio forges frames of all kinds", network.ByAir, false, rogueFrames},
		{"rogue-replay", "a node restarts while a stranger's radio replays what it hears", network.ByAir, false, rogueReplay},
		{"partition", "a node is cut off for 200 s, and writes to its card what it can't send", network.ByAir, false, partition},
		{"second-gateway", "a second card of the gateway's comes on the air", network.ByAir, false, secondGateway},
		{"line", "of a line of four hops a middle node is lost, past which there is a detour", network.ByAir, false, line},
		{"channel-change", "the mesh moves to another channel while a node is off", network.ByAir, false, channelChange},
		{"revoked", "a node is revoked, and the mesh gets another secret", network.ByAir, false, revoked},
	}
}

// suite are those that `make test` runs: the ones that take minutes by their nature
// are left to `halo-lab scenario` and `make soak`, and so are forged and replayed frames,
// which the lab tests of mesh/radio have in one machine.
var suite = []string{
	"node-restart", "gateway-restart", "loss", "rogue-dhcp", "stranger",
	"all-restart", "radio-removed", "driver-wedged", "mesh-killed", "partition",
}

// InSuite tells whether `make test` runs the scenario.
func (s Scenario) InSuite() bool { return slices.Contains(suite, s.Name) }

// Named returns the scenarios of those names, each once, in the order of All; all
// when "all" is among them.
func Named(names ...string) ([]Scenario, error) {
	known := All()
	want := map[string]bool{}
	for _, n := range names {
		want[n] = true
	}
	var list []Scenario
	for _, s := range known {
		if want[s.Name] || want["all"] {
			list = append(list, s)
		}
		delete(want, s.Name)
	}
	delete(want, "all")
	for n := range want {
		var names []string
		for _, s := range known {
			names = append(names, s.Name)
		}
		return nil, fmt.Errorf("no such scenario: expected all or some of %v, got %q", names, n)
	}
	return list, nil
}

// Run does a scenario to a network and tells how it went. What the network was put
// through is in the result also where it failed.
func (w *World) Run(ctx context.Context, s Scenario) Result {
	start := time.Now()
	r := Result{Scenario: s.Name, Mesh: s.Mesh, Machines: []Recovery{}}
	w.say("%s: %s", s.Name, s.Short)
	err := s.Run(ctx, w, &r)
	r.Took, r.OK = time.Since(start), err == nil
	if err != nil {
		r.Failure = err.Error()
		w.say("%s: failed after %.0f s: %v", s.Name, r.Took.Seconds(), err)
	} else {
		w.say("%s: passed in %.0f s", s.Name, r.Took.Seconds())
	}
	return r
}

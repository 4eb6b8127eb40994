package alerts

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"halo.internal/health"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

// Kinds of alerts.
const (
	KindOffline     = "node.offline"       // a node's stream is not there
	KindUnreachable = "node.unreachable"   // no live link leads to a node, and it says nothing
	KindState       = "node.state"         // a node says that it is failed or degraded
	KindVolatile    = "node.volatile"      // a node keeps nothing over a restart
	KindClock       = "clock.unset"        // a device goes by its build or its saved clock
	KindDisk        = "disk.full"          // a file system is nearly full; subject: its name in telemetry
	KindRecovery    = "recovery.lasting"   // the gateway's way to the mesh is broken
	KindHealth      = "gateway.health"     // a check of gateway-api's; subject: its name
	KindTwin        = "gateway.twin"       // another gateway has this one's key
	KindFirewall    = "firewall.reverted"  // a policy was not confirmed
	KindUnfit       = "firewall.unfit"     // what is kept does not hold as a whole
	KindQuarantine  = "node.quarantined"   // a node's key was there twice at once
	KindReplacement = "node.replacement"   // a node looks like another one, re-flashed
	KindConflict    = "model.mac-conflict" // two nodes say that they have an address; subject: it
)

// How long a condition has to last.
const (
	offlineAfter  = 3 * time.Minute
	failedAfter   = 2 * time.Minute
	degradedAfter = 10 * time.Minute
	clockAfter    = 10 * time.Minute
	recoveryAfter = 5 * time.Minute
	healthAfter   = time.Minute
	startingAfter = 5 * time.Minute
	shortly       = 30 * time.Second
)

// Percent of a file system that are used.
const (
	diskError      = 97
	diskErrorHolds = 95 // an error stays one
	diskWarning    = 90
	diskClears     = 85
	diskStale      = 30 * time.Minute // what is older says nothing of now
	maxDisks       = 16               // of a node, by name: it names as many as it likes
)

// Snapshot is what the conditions are told from.
type Snapshot struct {
	Now      time.Time // by the gateway's clock
	Nodes    []apitype.Node
	Readings map[string][]apitype.Reading // latest values of the metrics that count (MetricsOf), by node
	Health   health.Report                // gateway-api's
	Mesh     *model.MeshStatus            // nil while halo-mesh does not answer
	Timeline []model.Recovery             // of the gateway
	Firewall apitype.Firewall

	Unreachable []string // canonical IDs, in order
	Mapped      bool     // those are known

	Replacements []apitype.Replacement
	Conflicts    []apitype.MACConflict
}

// MetricsOf are prefixes of the metrics that conditions are told from.
var MetricsOf = []string{"storage."}

// Conditions are all that is so. open tells which alerts are open.
func Conditions(s Snapshot, open func(Key) bool) (list []Condition) {
	for _, n := range s.Nodes {
		if !n.Revoked {
			list = append(list, ofNode(n, s, open)...)
		}
	}
	return append(list, ofGateway(s)...)
}

func ofNode(n apitype.Node, s Snapshot, open func(Key) bool) (list []Condition) {
	add := func(kind, subject string, after time.Duration, severity model.Severity, format string, args ...any) {
		list = append(list, Condition{Key: Key{kind, n.ID, subject}, Severity: severity, After: after, Message: fmt.Sprintf(format, args...)})
	}
	unknown := func(kind, subject string) {
		list = append(list, Condition{Key: Key{kind, n.ID, subject}, Unknown: true})
	}
	if n.Quarantined != nil {
		add(KindQuarantine, "", 0, model.Error, "%s is quarantined: %s", n.Name, n.Quarantined.Reason)
		return list // it is shut out: what else is wrong with it follows
	}
	_, lost := slices.BinarySearch(s.Unreachable, n.ID)
	switch {
	case !s.Mapped:
		unknown(KindUnreachable, "")
	case lost: // it has lasted: the topology says so after a while
		add(KindUnreachable, "", 0, model.Error, "%s cannot be reached: no live link leads to it; %s", n.Name, lastSeen(n))
	}
	if !n.Online {
		if lost {
			unknown(KindOffline, "") // one alert about it is enough
		} else {
			add(KindOffline, "", offlineAfter, model.Warning, "%s is offline; %s", n.Name, lastSeen(n))
		}
		for _, k := range []string{KindState, KindVolatile, KindClock} {
			unknown(k, "")
		}
	} else {
		switch n.State {
		case string(health.Failed):
			add(KindState, "", failedAfter, model.Error, "%s does not work: %s", n.Name, cmp.Or(n.Missing, "it does not say what is missing"))
		case string(health.Degraded):
			add(KindState, "", degradedAfter, model.Warning, "%s works with less: %s", n.Name, cmp.Or(n.Missing, "it does not say what is missing"))
		}
		if n.Volatile {
			add(KindVolatile, "", healthAfter, model.Warning, "%s keeps nothing over a restart: its data partition is not there", n.Name)
		}
	}
	disks := map[string]apitype.Reading{}
	clock := model.ClockQuality("")
	for _, r := range s.Readings[n.ID] {
		fresh := s.Now.Sub(r.Time).Abs() <= diskStale
		if fresh && (clock == "" || r.Clock == model.ClockNone) {
			clock = r.Clock
		}
		name, ok := strings.CutPrefix(r.Metric, "storage.")
		if name, ok2 := strings.CutSuffix(name, ".used_percent"); ok && ok2 {
			if _, known := disks[name]; !known {
				disks[name] = r
			}
		}
	}
	names := slices.Sorted(maps.Keys(disks))
	for _, name := range names[:min(len(names), maxDisks)] {
		r := disks[name]
		switch k := (Key{KindDisk, n.ID, name}); {
		case s.Now.Sub(r.Time).Abs() > diskStale:
			unknown(KindDisk, name)
		case r.Value >= diskError:
			add(KindDisk, name, shortly, model.Error, "%s: %s is full to %.0f %%", n.Name, name, r.Value)
		case r.Value >= diskWarning || open(k) && r.Value >= diskClears:
			add(KindDisk, name, shortly, model.Warning, "%s: %s is full to %.0f %%", n.Name, name, r.Value)
			list[len(list)-1].Holds = r.Value >= diskErrorHolds
		}
	}
	if n.Online && clock == model.ClockNone {
		add(KindClock, "", clockAfter, model.Warning, "%s does not know the time: its readings are stamped by a guess", n.Name)
	}
	return list
}

// lastSeen says for people when a node was there.
func lastSeen(n apitype.Node) string {
	if n.LastSeen == nil {
		return "it was never seen"
	}
	return "last seen " + n.LastSeen.UTC().Format(time.DateTime) + " UTC"
}

func ofGateway(s Snapshot) (list []Condition) {
	add := func(kind, node, subject string, after time.Duration, severity model.Severity, format string, args ...any) {
		list = append(list, Condition{Key: Key{kind, node, subject}, Severity: severity, After: after, Message: fmt.Sprintf(format, args...)})
	}
	state := map[string]health.State{}
	for _, c := range s.Health.Checks {
		state[c.Name] = c.State
	}
	for _, c := range s.Health.Checks {
		// What is broken for want of something else is not told.
		if slices.ContainsFunc(c.Needs, func(n string) bool { return state[n] != health.OK }) {
			continue
		}
		switch c.State {
		case health.Failed:
			add(KindHealth, "", c.Name, healthAfter, model.Error, "the gateway's %s fails: %s", c.Name, c.Detail)
		case health.Degraded:
			add(KindHealth, "", c.Name, healthAfter, model.Warning, "the gateway's %s works with less: %s", c.Name, c.Detail)
		case health.Starting:
			add(KindHealth, "", c.Name, startingAfter, model.Warning, "the gateway's %s does not come up: %s", c.Name, c.Detail)
		}
	}
	if m := s.Mesh; m != nil && m.Twin != nil {
		what := "the other one stands down"
		if m.Twin.StandsDown {
			what = "this one stands down"
		}
		add(KindTwin, "", "", 0, model.Error, "another gateway with this one's key is on the air: %s. Switch one of the two off", what)
	}
	if n := len(s.Timeline); n > 0 && s.Timeline[n-1].State == model.RecoveryLasts {
		r := s.Timeline[n-1]
		add(KindRecovery, "", "", recoveryAfter, model.Warning, "the gateway's way to the mesh has not come back: %s %s", cmp.Or(r.Missing, r.Check), r.Detail)
	}
	if r := s.Firewall.Reverted; r != nil && r.Reason != "asked" {
		add(KindFirewall, "", "", 0, model.Warning, "a firewall policy of %s came to nothing (%s): what held before holds again", r.By, r.Reason)
	}
	if s.Firewall.Problem != "" {
		add(KindUnfit, "", "", 0, model.Error, "the firewall policy does not hold as a whole: %s", s.Firewall.Problem)
	}
	for _, r := range s.Replacements {
		add(KindReplacement, r.Node, "", 0, model.Info, "%s looks like %s with another key: adopt it as its replacement, or dismiss that", cmp.Or(r.NodeName, r.Node), r.OldName)
	}
	for _, c := range s.Conflicts {
		add(KindConflict, "", c.MAC, healthAfter, model.Warning, "%s say that they have the hardware address %s: neither is believed", strings.Join(c.Nodes, " and "), c.MAC)
	}
	return list
}

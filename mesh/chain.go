package mesh

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"halo.internal/health"
	"halo.internal/model"
)

// chain judges what carries the mesh, link by link: a driver that has a radio, an
// interface of it, its membership in the mesh, peers, routes. Ports have the first
// three by being there, as far as they may carry the mesh.
type chain struct {
	links       int       // that stand, at the last look
	originators int       // that routing knew
	counted     time.Time // when it was asked
	linkedAt    time.Time // since when any link stands
}

// verdict is what health says of a check.
type verdict struct {
	check  string
	state  health.State
	detail string
}

// links of the chain that a transport passes in turn.
var transportChecks = [...]string{checkDriver, checkInterface, checkMesh, checkPeers}

// transport is a port or a radio that may carry the mesh.
type transport struct {
	passed int    // of the links, in their order
	name   string // e.g. eth0
	radio  bool
	why    string // it got no further
}

// routesLate is how long a first link may stand without a route before a gateway
// calls it a fault: routing's messages come every few seconds.
const routesLate = 30 * time.Second

// transports lists what may carry the mesh; left are radios that others use.
func transports(ports []model.Port, radios []model.Radio) (all []transport, left []string) {
	const joined, linked = 3, 4
	for _, p := range ports {
		switch {
		case p.Role == "mesh" && len(p.Members) > 0:
			all = append(all, transport{passed: linked, name: p.Iface})
		case p.Role == "mesh" || p.Role == "searching":
			all = append(all, transport{passed: joined, name: p.Iface})
		}
	}
	for _, r := range radios {
		t := transport{name: r.Iface, radio: true}
		switch {
		case r.Linked() > 0:
			t.passed = linked
		case r.Member:
			t.passed = joined
		case r.Absent:
			t.why = fmt.Sprintf("radio %s is not there: %s", r.Name, r.Detail)
		case r.Iface == "":
			left = append(left, fmt.Sprintf("the mesh does not have radio %s: %s", r.Name, r.Detail))
			continue
		default:
			t.why = fmt.Sprintf("radio %s is no member of the mesh: %s", r.Name, r.Detail)
			if t.passed = 1; r.MAC != "" { // its interface is there
				t.passed = 2
			}
		}
		all = append(all, t)
	}
	if len(all) == 0 { // members are listened for on the ports of clients too
		for _, p := range ports {
			if p.Role == "client" && !p.Pinned {
				all = append(all, transport{passed: joined, name: p.Iface})
			}
		}
	}
	return all, left
}

// judge returns the verdicts on all links. One transport that passes a link is
// enough for it to work; a radio that does not is told of even so, since it is what
// the board is for.
func (c *chain) judge(ports []model.Port, radios []model.Radio, role model.Role, originators int, routing error, now time.Time) (all []verdict) {
	list, left := transports(ports, radios)
	c.links, c.originators = 0, originators
	best, waiting := 0, []string{}
	for _, t := range list {
		best = max(best, t.passed)
		switch t.passed {
		case len(transportChecks):
			c.links++
		case len(transportChecks) - 1:
			waiting = append(waiting, t.name)
		}
	}
	if c.links == 0 {
		c.linkedAt = time.Time{}
	} else if c.linkedAt.IsZero() {
		c.linkedAt = now
	}
	for i, check := range transportChecks {
		all = append(all, verdict{check, health.OK, ""})
		v := &all[i]
		why := failing(list, i)
		switch {
		case best > i && i < 3 && len(why) > 0:
			v.state, v.detail = health.Degraded, strings.Join(why, "; ")
		case best > i:
		case best == 0 && len(list) == 0 && len(left) == 0:
			v.state, v.detail = health.Failed, "no port may carry the mesh, and there is no radio"
		case i == 3 && len(waiting) > 0 && role == model.RoleGateway:
			// A gateway works before its first node does.
		case i == 3 && len(waiting) > 0:
			why = append([]string{"no member has proved itself on " + strings.Join(waiting, ", ")}, failing(list, 0, 1, 2)...)
			v.state, v.detail = health.Failed, strings.Join(why, "; ")
		default:
			v.state, v.detail = health.Failed, "no port may carry the mesh, and "+strings.Join(append(failing(list, best), left...), "; ")
		}
	}
	return append(all, c.routes(role, routing, now))
}

// failing says why radios stop at one of those links.
func failing(list []transport, at ...int) (why []string) {
	for _, t := range list {
		if t.radio && slices.Contains(at, t.passed) && t.why != "" {
			why = append(why, t.why)
		}
	}
	return why
}

// routes judges what routing has made of the links.
func (c *chain) routes(role model.Role, routing error, now time.Time) verdict {
	alone := c.links == 0
	switch {
	case routing != nil:
		return verdict{checkRoutes, health.Failed, routing.Error()}
	case c.originators > 0:
		return verdict{checkRoutes, health.OK, ""}
	case role == model.RoleGateway && (alone || now.Sub(c.linkedAt) < routesLate):
		return verdict{checkRoutes, health.OK, ""}
	case alone:
		return verdict{checkRoutes, health.Failed, "there is no link to route by"}
	}
	return verdict{checkRoutes, health.Failed, fmt.Sprintf("members are linked on %d interfaces, and routing knows no way to any", c.links)}
}

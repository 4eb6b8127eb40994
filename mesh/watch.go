package mesh

import (
	"context"
	"fmt"
	"hash/fnv"
	"slices"
	"time"

	"halo.internal/health"
	"halo.internal/mesh/announce"
	"halo.internal/model"
)

// watchEvery is how soon the health graph follows what happens: /health must
// name what is missing within 5 s.
const watchEvery = 2 * time.Second

// countEvery is how old the number of members that routing knows may be while there are
// some, and nothing is to be recovered from: the kernel has to be asked for all of them,
// and forgets none within three minutes.
const countEvery = 10 * time.Second

// watchHealth keeps the graph up to date until ctx ends.
func (m *core) watchHealth(ctx context.Context, s side) error {
	m.graph.Watch(m.logChange)
	for {
		m.watchBoot()
		m.watchPerm()
		m.watchUnderlay()
		m.watchServices()
		s.watch()
		m.watchTelemetry()
		m.record(false)
		select {
		case <-ctx.Done():
			m.record(true)
			return nil
		case <-m.past.look:
			select {
			case <-ctx.Done():
			case <-time.After(lookPause):
			}
		case <-time.After(m.watchIn()):
		}
	}
}

func (m *core) logChange(c health.Check) {
	if c.Name == checkPerm {
		switch c.State {
		case health.OK:
			m.events.Add("perm.recovered", model.Info, "data partition keeps what is written to it")
		default:
			m.events.Add("perm.failing", model.Error, "this node is volatile: "+c.Detail)
		}
		return
	}
	m.Log.Info("health", "check", c.Name, "state", c.State, "detail", c.Detail)
}

// watchPerm: a node without a data partition works, and is volatile.
func (m *core) watchPerm() {
	if err := m.permFailing(); err != nil {
		m.graph.Set(checkPerm, health.Degraded, err.Error())
		return
	}
	m.graph.Set(checkPerm, health.OK, "")
}

// watchServices: a device whose clients are not served still carries the mesh.
func (m *core) watchServices() {
	if err := m.lan.Err(); err != nil {
		m.graph.Set(checkClients, health.Degraded, err.Error())
		return
	}
	m.graph.Set(checkClients, health.OK, "")
}

func (m *core) watchUnderlay() {
	if err := m.under.Ready(); err != nil {
		m.graph.Set(checkBat, health.Failed, err.Error())
	} else if err := m.under.Lacking(); err != nil {
		m.graph.Set(checkBat, health.Degraded, err.Error())
	} else {
		m.graph.Set(checkBat, health.OK, "")
	}
	now := time.Now()
	originators, err := m.chain.originators, error(nil)
	if m.recovers() || originators == 0 || now.Sub(m.chain.counted) >= countEvery {
		originators, err = m.under.Originators()
		m.chain.counted = now
	}
	ports, radios := m.under.Ports(), m.under.Standing()
	m.around.Store(aroundOf(ports, radios, m.under.NextHop()))
	for _, v := range m.chain.judge(ports, radios, m.Role, originators, err, now) {
		m.graph.Set(v.check, v.state, v.detail)
	}
}

// aroundOf makes a number of who is linked, and of the next hop, by which whoever asks
// for brief statuses sees when a full one would say something new. JSON holds 53 bits.
func aroundOf(ports []model.Port, radios []model.Radio, hop *model.ReportNextHop) uint64 {
	h := fnv.New64a()
	for _, p := range ports {
		fmt.Fprintln(h, p.Iface, p.Role, p.Members)
	}
	for _, r := range radios {
		fmt.Fprintln(h, r.Name, r.Iface, r.Member)
		linked := []string{}
		for _, p := range r.Peers {
			if p.Linked {
				linked = append(linked, p.MAC)
			}
		}
		slices.Sort(linked)
		fmt.Fprintln(h, linked)
	}
	if hop != nil {
		fmt.Fprintln(h, hop.Node, hop.Next, hop.Iface)
	}
	return h.Sum64() & (1<<53 - 1)
}

func (g *gateway) watch() {
	g.mu.Lock()
	announced, wg, wgErr := g.known.Announce != nil, g.wg, g.wgErr
	g.mu.Unlock()
	if why := g.watchTwin(); why != "" {
		g.graph.Set(checkGateway, health.Degraded, why)
	} else if announced {
		g.graph.Set(checkGateway, health.OK, "")
	} else {
		g.graph.Set(checkGateway, health.Degraded, "gateway-api has not said yet what to announce: no node can join")
	}
	g.watchClock()
	g.graph.Set(checkJoin, health.OK, "")
	switch {
	case wgErr != nil:
		g.graph.Set(checkOverlay, health.Failed, wgErr.Error())
	case wg != nil:
		g.graph.Set(checkOverlay, health.OK, "")
	}
}

// watchClock: without a better time than the saved one everything works, but
// readings carry a doubtful stamp.
func (m *core) watchClock() {
	now, quality := m.clock.Now()
	if quality == model.ClockNone {
		m.graph.Set(checkClock, health.Degraded, fmt.Sprintf("time is a guess (%s): no battery-backed clock, GPS or gateway has told it, and nobody who logged in", stamp(now)))
		return
	}
	m.graph.Set(checkClock, health.OK, "")
}

func (n *node) watch() {
	n.watchClock()
	n.mu.Lock()
	heard, at, refused, state, detail, member := n.heard, n.heardAt, n.refused, n.state, n.detail, n.member
	wg, wgErr := n.wg, n.wgErr
	n.mu.Unlock()
	last := n.lastHandshake(wg)
	found, missing := findGateway(heard, at, refused, time.Now())
	n.graph.Set(checkGateway, found, missing)
	if member == nil {
		if detail == "" {
			detail = "not a member of the network yet"
		}
		n.graph.Set(checkJoin, health.Failed, fmt.Sprintf("%s: %s", state, detail))
	} else if state == model.JoinPending || state == model.JoinRefused {
		// A member that has to join anew, such as after a fresh card took the
		// gateway's place: this, and not the overlay, is what it waits for.
		n.graph.Set(checkJoin, health.Degraded, fmt.Sprintf("%s: %s", state, detail))
	} else {
		n.graph.Set(checkJoin, health.OK, "")
	}
	works, why := overlayHealth(wg != nil, wgErr, last, time.Now())
	n.graph.Set(checkOverlay, works, why)
}

// overlayHealth is what health says of a node's overlay, by the last handshake with the
// gateway.
func overlayHealth(up bool, err error, last, now time.Time) (health.State, string) {
	switch {
	case err != nil:
		return health.Failed, err.Error()
	case !up:
		return health.Failed, "waits for membership and time"
	case last.IsZero():
		return health.Failed, "no handshake with the gateway yet"
	case model.Recent(now, last, handshakeStale):
		return health.OK, ""
	case last.After(now):
		return health.Failed, fmt.Sprintf("last handshake with the gateway was at %s, before the clock was set back", stamp(last))
	}
	return health.Failed, fmt.Sprintf("last handshake with the gateway was at %s", stamp(last))
}

// findGateway is what health says of the gateway. One that answers and is
// refused is not silent, whatever was heard of it before.
func findGateway(heard *announce.Gateway, at time.Time, refused refusal, now time.Time) (health.State, string) {
	switch silent := now.Sub(at); {
	case refused.epoch != 0 && now.Sub(refused.at) <= announce.Silence:
		return health.Failed, refused.String()
	case heard == nil:
		return health.Failed, "no announcement of the gateway was heard yet"
	case at.IsZero():
		return health.Failed, "the gateway was not heard yet since this node changed its mesh profile"
	case silent > announce.Silence:
		return health.Failed, fmt.Sprintf("gateway was last heard %s ago", silent.Round(time.Second))
	case heard.APIPort == 0:
		return health.Degraded, "gateway is heard, its API is not up yet"
	}
	return health.OK, ""
}

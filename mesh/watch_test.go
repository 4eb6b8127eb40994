package mesh

import (
	"slices"
	"testing"
	"time"

	"halo.internal/health"
	"halo.internal/mesh/announce"
	"halo.internal/model"
	"halo.internal/model/dot11"
)

func TestHealthSaysWhyTheGatewayIsMissing(t *testing.T) {
	now := time.Now()
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	up := &announce.Gateway{APIPort: 8443}
	for _, tc := range []struct {
		name    string
		heard   *announce.Gateway
		at      time.Time
		refused refusal
		state   health.State
		detail  string
	}{
		{"never heard", nil, time.Time{}, refusal{}, health.Failed, "no announcement of the gateway was heard yet"},
		{"heard", up, ago(time.Second), refusal{}, health.OK, ""},
		{"without an API", &announce.Gateway{}, ago(time.Second), refusal{}, health.Degraded, "gateway is heard, its API is not up yet"},
		{"silent", up, ago(5 * time.Minute), refusal{}, health.Failed, "gateway was last heard 5m0s ago"},
		{"not heard on another profile yet", up, time.Time{}, refusal{}, health.Failed, "the gateway was not heard yet since this node changed its mesh profile"},
		{"refused from the start", nil, time.Time{}, refusal{7, 9, ago(time.Minute)}, health.Failed, "the gateway answers with epoch 7 and is refused, since 9 was heard"},
		{"replaced by an old card", up, ago(5 * time.Minute), refusal{7, 9, ago(time.Minute)}, health.Failed, "the gateway answers with epoch 7 and is refused, since 9 was heard"},
		{"refused once, then silent too", up, ago(10 * time.Minute), refusal{7, 9, ago(5 * time.Minute)}, health.Failed, "gateway was last heard 10m0s ago"},
	} {
		if state, detail := findGateway(tc.heard, tc.at, tc.refused, now); state != tc.state || detail != tc.detail {
			t.Errorf("%s: got %s %q, want %s %q", tc.name, state, detail, tc.state, tc.detail)
		}
	}
}

// TestStatusSaysWhenTheGatewayWasHeard, and no time at all while it was not since the mesh
// profile changed.
func TestStatusSaysWhenTheGatewayWasHeard(t *testing.T) {
	s := newSite(t, 1, 0)
	c := s.core()
	c.id.Key, c.Role = s.nodes[0], model.RoleNode
	n := &node{core: c, heard: &announce.Gateway{APIPort: 8443}, heardAt: time.Now()}
	n.search = announce.NewNodeSide(c.announceConfig(), make([]byte, 32), 0, n.hear)
	if st := n.status(true); st.Gateway != s.key.ID() || st.GatewayHeard == nil || !st.GatewayHeard.Equal(n.heardAt) {
		t.Errorf("got %s, heard at %v, want %s at %s", st.Gateway, st.GatewayHeard, s.key.ID(), n.heardAt)
	}
	n.heardAt = time.Time{} // as nodeProfile.advance leaves it
	if st := n.status(true); st.Gateway != s.key.ID() || st.GatewayHeard != nil {
		t.Errorf("on another profile: got %s, heard at %v, want no time", st.Gateway, st.GatewayHeard)
	}
}

// TestWhoIsAroundIsANumber, which changes with links and the next hop, and with nothing
// that comes and goes.
func TestWhoIsAroundIsANumber(t *testing.T) {
	ports := func() []model.Port { return []model.Port{{Iface: "eth0", Role: "mesh", Members: []string{"n-b"}}} }
	radios := func() []model.Radio {
		return []model.Radio{{Name: "phy0", Iface: "mesh0", Member: true, Peers: []model.RadioPeer{
			{MAC: "02:00:00:00:00:02", Linked: true}, {MAC: "02:00:00:00:00:01", Linked: true}, {MAC: "02:00:00:00:00:03", Failures: 2}}}}
	}
	hop := func() *model.ReportNextHop {
		return &model.ReportNextHop{Node: "n-g", Next: dot11.MAC{2, 0, 0, 0, 0, 1}, Iface: "mesh0", TQ: 200}
	}
	was := aroundOf(ports(), radios(), hop())
	if was == 0 || was >= 1<<53 {
		t.Errorf("got %d", was)
	}
	for name, tc := range map[string]struct {
		same   bool
		change func([]model.Port, []model.Radio, *model.ReportNextHop)
	}{
		"nothing":           {true, func([]model.Port, []model.Radio, *model.ReportNextHop) {}},
		"another order":     {true, func(_ []model.Port, r []model.Radio, _ *model.ReportNextHop) { slices.Reverse(r[0].Peers) }},
		"signal":            {true, func(_ []model.Port, r []model.Radio, _ *model.ReportNextHop) { r[0].Peers[0].SignalDBm = -40 }},
		"a vain try":        {true, func(_ []model.Port, r []model.Radio, _ *model.ReportNextHop) { r[0].Peers[2].Failures++ }},
		"quality of a way":  {true, func(_ []model.Port, _ []model.Radio, h *model.ReportNextHop) { h.TQ = 100 }},
		"a link is lost":    {false, func(_ []model.Port, r []model.Radio, _ *model.ReportNextHop) { r[0].Peers[0].Linked = false }},
		"a link is made":    {false, func(_ []model.Port, r []model.Radio, _ *model.ReportNextHop) { r[0].Peers[2].Linked = true }},
		"a member by cable": {false, func(p []model.Port, _ []model.Radio, _ *model.ReportNextHop) { p[0].Members = nil }},
		"another next hop":  {false, func(_ []model.Port, _ []model.Radio, h *model.ReportNextHop) { h.Next[5] = 2 }},
	} {
		p, r, h := ports(), radios(), hop()
		tc.change(p, r, h)
		if got := aroundOf(p, r, h); (got == was) != tc.same {
			t.Errorf("%s: got %d after %d", name, got, was)
		}
	}
	if aroundOf(ports(), radios(), nil) == was {
		t.Error("no way is no news")
	}
}

package mesh

import (
	"errors"
	"testing"
	"time"

	"halo.internal/health"
	"halo.internal/model"
)

// first is what a graph says of a device whose other checks are all well.
func first(ports []model.Port, radios []model.Radio, role model.Role, originators int, routing error) (state health.State, missing, detail string) {
	g := newGraph()
	for _, c := range g.Report().Checks {
		g.Set(c.Name, health.OK, "")
	}
	var c chain
	for _, v := range c.judge(ports, radios, role, originators, routing, time.Now()) {
		g.Set(v.check, v.state, v.detail)
	}
	r := g.Report()
	return r.State, r.Missing, r.Detail
}

func TestHealthSaysWhatCarriesTheMesh(t *testing.T) {
	searching, uplink := model.Port{Iface: "eth0", Role: "searching"}, model.Port{Iface: "eth1", Role: "uplink"}
	proven := model.Port{Iface: "eth2", Role: "mesh", Members: []string{"n-x"}}
	clients := model.Port{Iface: "eth3", Role: "client"}
	pinned := model.Port{Iface: "eth4", Role: "client", Pinned: true}
	alone := model.Radio{Name: "phy0", Iface: "mesh0", MAC: "m", Member: true, Peers: []model.RadioPeer{{MAC: "x", Peering: "OPN_SNT"}}}
	linked := model.Radio{Name: "phy0", Iface: "mesh0", MAC: "m", Member: true, Peers: []model.RadioPeer{{MAC: "x", Linked: true}}}
	bare := model.Radio{Name: "phy1", Iface: "mesh1", Detail: "it lacks something"}
	broken := model.Radio{Name: "phy1", Iface: "mesh1", MAC: "n", Detail: "EIO"}
	absent := model.Radio{Name: "halow mm6108", Absent: true, Detail: "refused: no file"}
	taken := model.Radio{Name: "phy2", Detail: "it is in use: wlan0 is an access point on it"}
	type want struct {
		state           health.State
		missing, detail string
	}
	well := want{health.OK, "", ""}
	const none = "no port may carry the mesh, and "
	for _, tc := range []struct {
		name          string
		ports         []model.Port
		radios        []model.Radio
		node, gateway want
	}{
		{"nothing", nil, nil, want{health.Failed, "driver", none + "there is no radio"}, want{health.Failed, "driver", none + "there is no radio"}},
		{"an uplink alone", []model.Port{uplink}, nil, want{health.Failed, "driver", none + "there is no radio"}, want{health.Failed, "driver", none + "there is no radio"}},
		{"ports only, one proven", []model.Port{searching, proven}, nil, well, well},
		{"ports only, none proven", []model.Port{searching}, nil, want{health.Failed, "peers", "no member has proved itself on eth0"}, well},
		{"a radio with a peer", nil, []model.Radio{linked}, well, well},
		{"a radio with a peer, and an open port", []model.Port{searching}, []model.Radio{linked}, well, well},
		{"a radio alone", nil, []model.Radio{alone}, want{health.Failed, "peers", "no member has proved itself on mesh0"}, well},
		{"a port and a radio alone", []model.Port{searching}, []model.Radio{alone, taken}, want{health.Failed, "peers", "no member has proved itself on eth0, mesh0"}, well},
		{"a cable that works, and a radio alone", []model.Port{proven}, []model.Radio{alone}, well, well},
		{"a cable that works, and a dead radio", []model.Port{proven}, []model.Radio{broken}, want{health.Degraded, "mesh", "radio phy1 is no member of the mesh: EIO"}, want{health.Degraded, "mesh", "radio phy1 is no member of the mesh: EIO"}},
		{"a cable that works, and a radio without an interface", []model.Port{proven}, []model.Radio{bare}, want{health.Degraded, "interface", "radio phy1 is no member of the mesh: it lacks something"}, want{health.Degraded, "interface", "radio phy1 is no member of the mesh: it lacks something"}},
		{"a radio that works, and one without its driver", nil, []model.Radio{absent, linked}, want{health.Degraded, "driver", "radio halow mm6108 is not there: refused: no file"}, want{health.Degraded, "driver", "radio halow mm6108 is not there: refused: no file"}},
		{"a radio that works, and one of others", nil, []model.Radio{taken, linked}, well, well},
		{"a broken radio", nil, []model.Radio{broken}, want{health.Failed, "mesh", none + "radio phy1 is no member of the mesh: EIO"}, want{health.Failed, "mesh", none + "radio phy1 is no member of the mesh: EIO"}},
		{"a radio without an interface", nil, []model.Radio{bare}, want{health.Failed, "interface", none + "radio phy1 is no member of the mesh: it lacks something"}, want{health.Failed, "interface", none + "radio phy1 is no member of the mesh: it lacks something"}},
		{"a radio of others", nil, []model.Radio{taken}, want{health.Failed, "driver", none + "the mesh does not have radio phy2: it is in use: wlan0 is an access point on it"}, want{health.Failed, "driver", none + "the mesh does not have radio phy2: it is in use: wlan0 is an access point on it"}},
		{"a radio without its driver", nil, []model.Radio{absent}, want{health.Failed, "driver", none + "radio halow mm6108 is not there: refused: no file"}, want{health.Failed, "driver", none + "radio halow mm6108 is not there: refused: no file"}},
		{"a port, and a broken radio", []model.Port{searching}, []model.Radio{broken}, want{health.Failed, "peers", "no member has proved itself on eth0; radio phy1 is no member of the mesh: EIO"}, want{health.Degraded, "mesh", "radio phy1 is no member of the mesh: EIO"}},
		{"a port that serves clients meanwhile", []model.Port{clients}, nil, want{health.Failed, "peers", "no member has proved itself on eth3"}, well},
		{"a port that is for clients", []model.Port{pinned}, nil, want{health.Failed, "driver", none + "there is no radio"}, want{health.Failed, "driver", none + "there is no radio"}},
		{"a port that serves clients, and a broken radio", []model.Port{clients}, []model.Radio{broken}, want{health.Failed, "mesh", none + "radio phy1 is no member of the mesh: EIO"}, want{health.Failed, "mesh", none + "radio phy1 is no member of the mesh: EIO"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for role, w := range map[model.Role]want{model.RoleNode: tc.node, model.RoleGateway: tc.gateway} {
				if state, missing, detail := first(tc.ports, tc.radios, role, 1, nil); (want{state, missing, detail}) != w {
					t.Errorf("%s: got %s %q %q, want %+v", role, state, missing, detail, w)
				}
			}
		})
	}
}

func TestHealthSaysWhatRoutingKnows(t *testing.T) {
	linked := []model.Radio{{Name: "phy0", Iface: "mesh0", Member: true, Peers: []model.RadioPeer{{Linked: true}}}}
	lonely := []model.Radio{{Name: "phy0", Iface: "mesh0", Member: true}}
	now := time.Now()
	for _, tc := range []struct {
		name        string
		radios      []model.Radio
		originators int
		err         error
		later       time.Duration // after the link was made
		node, gw    health.State
	}{
		{"a way", linked, 1, nil, 0, health.OK, health.OK},
		{"a new link without a way", linked, 0, nil, time.Second, health.Failed, health.OK},
		{"a link without a way", linked, 0, nil, time.Minute, health.Failed, health.Failed},
		{"nobody", lonely, 0, nil, time.Minute, health.Failed, health.OK},
		{"a way without a link: routing remembers", lonely, 1, nil, time.Minute, health.OK, health.OK},
		{"no table", linked, 0, errors.New("bat0 does not answer"), 0, health.Failed, health.Failed},
	} {
		for role, want := range map[model.Role]health.State{model.RoleNode: tc.node, model.RoleGateway: tc.gw} {
			var c chain
			c.judge(nil, tc.radios, role, tc.originators, tc.err, now)
			all := c.judge(nil, tc.radios, role, tc.originators, tc.err, now.Add(tc.later))
			v := all[len(all)-1]
			if v.check != checkRoutes || v.state != want || (v.detail == "") != (want == health.OK) {
				t.Errorf("%s: %s: got %+v, want %s", tc.name, role, v, want)
			}
		}
	}
}

// TestTheChainIsInOrder: each link rests on the one before, so that the first
// broken one explains the others.
func TestTheChainIsInOrder(t *testing.T) {
	order := []string{checkBundle, checkBat, checkDriver, checkInterface, checkMesh, checkPeers, checkRoutes, checkGateway, checkJoin, checkOverlay, checkTelemetry}
	for i, name := range order {
		g := newGraph()
		for _, c := range g.Report().Checks {
			g.Set(c.Name, health.OK, "")
		}
		for _, above := range order[i:] {
			g.Set(above, health.Failed, "for want of "+name)
		}
		g.Set(checkClock, health.Degraded, "a guess")
		if r := g.Report(); r.Missing != name || r.State != health.Failed {
			t.Errorf("%s: got %s, missing %q", name, r.State, r.Missing)
		}
	}
}

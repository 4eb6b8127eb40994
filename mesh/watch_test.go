package mesh

import (
	"testing"
	"time"

	"halo.internal/health"
	"halo.internal/mesh/announce"
	"halo.internal/model"
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
		{"refused from the start", nil, time.Time{}, refusal{7, 9, ago(time.Minute)}, health.Failed, "the gateway answers with epoch 7 and is refused, since 9 was heard"},
		{"replaced by an old card", up, ago(5 * time.Minute), refusal{7, 9, ago(time.Minute)}, health.Failed, "the gateway answers with epoch 7 and is refused, since 9 was heard"},
		{"refused once, then silent too", up, ago(10 * time.Minute), refusal{7, 9, ago(5 * time.Minute)}, health.Failed, "gateway was last heard 10m0s ago"},
	} {
		if state, detail := findGateway(tc.heard, tc.at, tc.refused, now); state != tc.state || detail != tc.detail {
			t.Errorf("%s: got %s %q, want %s %q", tc.name, state, detail, tc.state, tc.detail)
		}
	}
}

func TestHealthSaysWhatCarriesTheMesh(t *testing.T) {
	searching, uplink := model.Port{Iface: "eth0", Role: "searching"}, model.Port{Iface: "eth1", Role: "uplink"}
	proven := model.Port{Iface: "eth2", Role: "mesh", Members: []string{"n-x"}}
	alone := model.Radio{Name: "phy0", Iface: "mesh0", Member: true, Peers: []model.RadioPeer{{MAC: "x", Peering: "OPN_SNT"}}}
	linked := model.Radio{Name: "phy0", Iface: "mesh0", Member: true, Peers: []model.RadioPeer{{MAC: "x", Linked: true}}}
	broken := model.Radio{Name: "phy1", Iface: "mesh1", Detail: "it lacks something"}
	absent := model.Radio{Name: "halow mm6108", Absent: true, Detail: "refused: no file"}
	taken := model.Radio{Name: "phy2", Detail: "it is in use: wlan0 is an access point on it"}
	for _, tc := range []struct {
		name            string
		ports           []model.Port
		radios          []model.Radio
		node, gateway   health.State
		detail, detail2 string // of the node, of the gateway
	}{
		{"nothing", nil, nil, health.Failed, health.Failed, "no port may carry the mesh, and there is no radio", "no port may carry the mesh, and there is no radio"},
		{"an uplink alone", []model.Port{uplink}, nil, health.Failed, health.Failed, "no port may carry the mesh, and there is no radio", "no port may carry the mesh, and there is no radio"},
		{"a proven port", []model.Port{searching, proven}, []model.Radio{broken}, health.OK, health.OK, "", ""},
		{"a radio with a peer", []model.Port{searching}, []model.Radio{broken, linked}, health.OK, health.OK, "", ""},
		{"a radio alone", nil, []model.Radio{alone}, health.Failed, health.OK, "no member has proved itself on mesh0", ""},
		{"a port and a radio alone", []model.Port{searching}, []model.Radio{alone, taken}, health.Failed, health.OK, "no member has proved itself on eth0, mesh0", ""},
		{"a broken radio", nil, []model.Radio{broken}, health.Failed, health.Failed, "no port may carry the mesh, and radio phy1 is no member of the mesh: it lacks something", "no port may carry the mesh, and radio phy1 is no member of the mesh: it lacks something"},
		{"a radio of others", nil, []model.Radio{taken}, health.Failed, health.Failed, "no port may carry the mesh, and the mesh does not have radio phy2: it is in use: wlan0 is an access point on it", "no port may carry the mesh, and the mesh does not have radio phy2: it is in use: wlan0 is an access point on it"},
		{"a radio without its driver", nil, []model.Radio{absent}, health.Failed, health.Failed, "no port may carry the mesh, and radio halow mm6108 is not there: refused: no file", "no port may carry the mesh, and radio halow mm6108 is not there: refused: no file"},
		{"another works meanwhile", nil, []model.Radio{absent, linked}, health.Degraded, health.Degraded, "radio halow mm6108 is not there: refused: no file", "radio halow mm6108 is not there: refused: no file"},
		{"a port, and a broken radio", []model.Port{searching}, []model.Radio{broken}, health.Failed, health.Degraded, "no member has proved itself on eth0; radio phy1 is no member of the mesh: it lacks something", "radio phy1 is no member of the mesh: it lacks something"},
	} {
		if state, detail := judgeTransports(tc.ports, tc.radios, model.RoleNode); state != tc.node || detail != tc.detail {
			t.Errorf("%s: node: got %s %q, want %s %q", tc.name, state, detail, tc.node, tc.detail)
		}
		if state, detail := judgeTransports(tc.ports, tc.radios, model.RoleGateway); state != tc.gateway || detail != tc.detail2 {
			t.Errorf("%s: gateway: got %s %q, want %s %q", tc.name, state, detail, tc.gateway, tc.detail2)
		}
	}
}

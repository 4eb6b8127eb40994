package ctl_test

import (
	"bufio"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"halo.internal/ctl"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

// TestAlertsAreWatched: one that opens, one that is acknowledged, and one that closes, which
// is then among the open ones no more.
func TestAlertsAreWatched(t *testing.T) {
	g, url := newStandIn(t)
	u := newUser(t)
	u.login(t, url)
	open := apitype.Alert{ID: 7, Kind: "node.offline", Severity: model.Warning, Opened: ago(time.Hour)}
	full := apitype.Alert{ID: 9, Kind: "disk.full", Severity: model.Error, Opened: ago(time.Minute)}
	g.set("GET /v1/alerts", apitype.AlertList{Items: []apitype.Alert{open}})
	out := u.background(t, "alert", "list", "--watch", "--interval", "1ms", "--json")
	if al := next[apitype.Alert](t, out); al.ID != 7 {
		t.Errorf("got %+v", al)
	}
	g.set("GET /v1/alerts", apitype.AlertList{Items: []apitype.Alert{full, open}})
	if al := next[apitype.Alert](t, out); al.ID != 9 {
		t.Errorf("got %+v, want the one that opened", al)
	}
	closed := open
	closed.Closed = agoPtr(time.Second)
	g.set("GET /v1/alerts/7", closed)
	g.set("GET /v1/alerts", apitype.AlertList{Items: []apitype.Alert{full}})
	if al := next[apitype.Alert](t, out); al.ID != 7 || al.Closed == nil {
		t.Errorf("got %+v, want the one that closed", al)
	}
	full.Acknowledged = &apitype.Acknowledgement{By: "user:anna"}
	g.set("GET /v1/alerts", apitype.AlertList{Items: []apitype.Alert{full}})
	if al := next[apitype.Alert](t, out); al.ID != 9 || al.Acknowledged == nil {
		t.Errorf("got %+v, want the one that is known of", al)
	}
}

// TestClientsAreWatched, over a time in which the gateway is too busy to answer. That a client
// was seen again is no news.
func TestClientsAreWatched(t *testing.T) {
	g, url := newStandIn(t)
	u := newUser(t)
	u.login(t, url)
	phone := apitype.Endpoint{ID: "c-phone", Name: "phone", NodeName: "n01", Present: true, LastSeen: ago(time.Minute), Addresses: []netip.Addr{}}
	list := func(list ...apitype.Endpoint) any { return apitype.EndpointList{Items: list} }
	g.set("GET /v1/endpoints", list(phone))
	out := bufio.NewReader(u.background(t, "client", "list", "--watch", "--interval", "1ms").r)
	line := func(want ...string) {
		t.Helper()
		got, err := out.ReadString('\n')
		if err != nil || !slices.Equal(strings.Fields(got), want) {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	line("NAME", "BEHIND", "ADDRESSES", "MAC", "SEEN", "ID")
	line("phone", "n01", "-", "-", "now", "c-phone")
	again, moved := phone, phone
	again.LastSeen, moved.NodeName = ago(time.Second), "mast"
	camera := apitype.Endpoint{ID: "c-camera", Name: "camera", NodeName: "gw", LastSeen: ago(3 * time.Hour)}
	g.set("GET /v1/endpoints", inTurn(list(again), apitype.Problem{Status: http.StatusServiceUnavailable, Title: "Service Unavailable"}, list(moved, camera), list(moved)))
	line("phone", "mast", "-", "-", "now", "c-phone")
	line("camera", "gw", "-", "-", "3", "h", "ago", "c-camera")
	line("c-camera", "is", "no", "more", "there")
}

// TestMeshStatusIsWatched: it comes again when a link is lost, and not for a figure.
func TestMeshStatusIsWatched(t *testing.T) {
	g, url := newStandIn(t)
	u := newUser(t)
	u.login(t, url)
	link := model.Neighbour{Iface: "eth1", MAC: "02:00:00:00:00:02", Node: nodeID, LastSeenMS: 900, TQ: 255}
	before := meshStatus(link, model.OverlayPeer{})
	link.TQ, link.LastSeenMS = 240, 100
	after := meshStatus(link, model.OverlayPeer{})
	lost := meshStatus(link, model.OverlayPeer{})
	lost.Neighbours = lost.Neighbours[1:]
	g.set("GET /v1/mesh/status", inTurn(before, after, lost))
	out := u.background(t, "mesh", "status", "--watch", "--interval", "1ms", "--json")
	if s := next[model.MeshStatus](t, out); s.Neighbours[0].TQ != 255 {
		t.Errorf("got %+v", s.Neighbours)
	}
	if s := next[model.MeshStatus](t, out); len(s.Neighbours) != 1 {
		t.Errorf("got %+v, want the status without the link", s.Neighbours)
	}
}

// inTurn answers a question with each of these, and then with the last.
func inTurn(answers ...any) func(*http.Request) any {
	return func(*http.Request) any {
		a := answers[0]
		if len(answers) > 1 {
			answers = answers[1:]
		}
		return a
	}
}

// TestPollingBegins with an answer, or not at all.
func TestPollingBegins(t *testing.T) {
	g, url := newStandIn(t)
	u := newUser(t)
	u.login(t, url)
	for _, route := range []string{"GET /v1/alerts", "GET /v1/endpoints", "GET /v1/mesh/status"} {
		g.set(route, apitype.Problem{Status: http.StatusServiceUnavailable, Title: "Service Unavailable", Detail: "too busy"})
	}
	for _, command := range [][]string{{"alert", "list"}, {"client", "list"}, {"mesh", "status"}} {
		if code, _, errs := u.run(t.Context(), append(command, "--watch")...); code != ctl.ExitError || !strings.Contains(errs, "too busy") {
			t.Errorf("%v: exit status %d: %s", command, code, errs)
		}
	}
}

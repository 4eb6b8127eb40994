package api

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"halo.internal/gateway/jobs"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/wire"
)

func locate(seconds int) apitype.CreateCommand {
	return apitype.CreateCommand{Command: model.Command{Kind: model.CommandLocate, Locate: &model.LocateCommand{Seconds: seconds}}}
}

func kind(k model.CommandKind) apitype.CreateCommand {
	return apitype.CreateCommand{Command: model.Command{Kind: k}}
}

func TestCommandsOverTheAPI(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	resp, b := f.do("POST", "/v1/nodes/gateway/commands", locate(5))
	var j apitype.Job
	if err := json.Unmarshal(b, &j); err != nil || resp.StatusCode != http.StatusAccepted || resp.Header.Get("Location") != fmt.Sprintf("/v1/jobs/%d", j.ID) {
		t.Fatalf("got %s, Location %q, %s, %v", resp.Status, resp.Header.Get("Location"), b, err)
	}
	if j.Kind != "locate" || j.State != apitype.JobQueued || j.Node != f.Registry.Gateway() || j.By != "user:root" || string(j.Request) != `{"kind":"locate","locate":{"seconds":5}}` ||
		j.Expires == nil || j.Expires.Sub(j.Created).Round(time.Minute) != 5*time.Minute {
		t.Errorf("got %s", b)
	}
	long := locate(5)
	long.ExpiresS = 604_800
	var second apitype.Job
	f.want(http.StatusAccepted, "POST", "/v1/nodes/gateway/commands", long, &second)
	if got := second.Expires.Sub(second.Created).Round(time.Hour); got != 7*24*time.Hour {
		t.Errorf("it waits for %s", got)
	}
	for path, want := range map[string][]int64{
		"/v1/jobs": {second.ID, j.ID}, "/v1/jobs?limit=1": {second.ID}, fmt.Sprintf("/v1/jobs?limit=1&cursor=%d", second.ID): {j.ID}, "/v1/jobs?kind=scan": {},
		"/v1/jobs?node=gateway&active=true": {second.ID, j.ID}, "/v1/nodes/gateway/commands": {second.ID, j.ID}, "/v1/nodes/gateway/commands?active=true&limit=1": {second.ID},
	} {
		var list apitype.JobList
		f.want(http.StatusOK, "GET", path, nil, &list)
		var got []int64
		for _, j := range list.Items {
			got = append(got, j.ID)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", path, got, want)
		}
	}
	f.want(http.StatusOK, "DELETE", fmt.Sprint("/v1/jobs/", j.ID), nil, &j)
	if j.State != apitype.JobCancelled {
		t.Errorf("got %+v", j)
	}
	var p apitype.Problem
	f.want(http.StatusConflict, "DELETE", fmt.Sprint("/v1/jobs/", j.ID), nil, &p)
	if p.Type != apitype.ProblemJobOver {
		t.Errorf("got %+v", p)
	}
	begin := time.Now()
	f.want(http.StatusOK, "GET", fmt.Sprintf("/v1/jobs/%d?wait_s=1", second.ID), nil, &second)
	if took := time.Since(begin); took < time.Second || second.State != apitype.JobQueued {
		t.Errorf("after %s: %+v", took, second)
	}
}

// link is a node's stream; what the gateway sends is kept.
type link struct {
	mu   sync.Mutex
	said []wire.Message
}

func (l *link) send(m wire.Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.said = append(l.said, m)
}

func TestANodeAnswersOverTheAPI(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	id, l := f.Registry.Gateway(), &link{}
	var can apitype.NodeCapabilities
	f.want(http.StatusOK, "GET", "/v1/nodes/gateway/capabilities", nil, &can)
	if can.Known || can.Online || can.Items == nil || can.Node != id {
		t.Errorf("nobody is there: %+v", can)
	}
	defer f.Commands.Attach(id, make([]byte, wire.SessionSize), time.Now(), l.send)()
	f.Commands.Take(t.Context(), id, wire.AbilitiesMessage{Abilities: []model.Ability{{Kind: model.CommandScan}, {Kind: model.CommandLocate, Code: model.CodeNoLED, Text: "a board without"}}})
	f.want(http.StatusOK, "GET", "/v1/nodes/gateway/capabilities", nil, &can)
	if !can.Known || !can.Online || len(can.Items) != 2 || can.Items[1].Code != model.CodeNoLED {
		t.Errorf("got %+v", can)
	}
	var p apitype.Problem
	f.want(http.StatusConflict, "POST", "/v1/nodes/gateway/commands", locate(5), &p)
	if p.Type != apitype.ProblemNodeCannot || !strings.Contains(p.Detail, "no-led: a board without") {
		t.Errorf("got %+v", p)
	}
	var j apitype.Job
	f.want(http.StatusAccepted, "POST", "/v1/nodes/gateway/commands", kind(model.CommandScan), &j)
	o, err := wire.DecodeOrder(l.said[0].(wire.CommandMessage).Order)
	if err != nil || o.By != "user:root" || o.Command.Kind != model.CommandScan {
		t.Fatalf("got %+v, %v", o, err)
	}
	got := make(chan apitype.Job, 1)
	go func() { // whoever waits hears of the end at once
		var j apitype.Job
		_, b := f.do("GET", fmt.Sprintf("/v1/jobs/%d?wait_s=25", o.ID.Number), nil)
		_ = json.Unmarshal(b, &j)
		got <- j
	}()
	f.Commands.Take(t.Context(), id, wire.CommandReport{ID: o.ID, State: model.CommandDone, Result: []byte(`{"networks":[]}`)})
	if j := <-got; j.State != apitype.JobDone || string(j.Result) != `{"networks":[]}` {
		t.Errorf("got %+v", j)
	}
}

func TestWhoMayCommand(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	root := f.token
	f.want(http.StatusCreated, "POST", "/api/auth/users", apitype.CreateUser{Username: "vera", Password: password, Role: apitype.RoleViewer}, nil)
	f.want(http.StatusCreated, "POST", "/api/auth/users", apitype.CreateUser{Username: "olaf", Password: password, Role: apitype.RoleOperator}, nil)
	vera, olaf := f.login("vera"), f.login("olaf")
	const commands = "/v1/nodes/gateway/commands"
	for _, tc := range []struct {
		name, who, method, path string
		in                      any
		status                  int
	}{
		{"a viewer looks", vera, "GET", "/v1/jobs", nil, 200},
		{"a viewer looks at a node's", vera, "GET", commands, nil, 200},
		{"a viewer looks at what a node can do", vera, "GET", "/v1/nodes/gateway/capabilities", nil, 200},
		{"a viewer commands", vera, "POST", commands, kind(model.CommandReboot), 403},
		{"a viewer measures", vera, "POST", "/v1/speed-tests", apitype.CreateSpeedTest{Node: "gateway"}, 403},
		{"an operator commands", olaf, "POST", commands, kind(model.CommandReboot), 202}, // job 1
		{"an operator listens in", olaf, "POST", commands, kind(model.CommandCapture), 403},
		{"an operator changes settings", olaf, "POST", commands, kind(model.CommandConfig), 403},
		{"an admin listens in", root, "POST", commands, kind(model.CommandCapture), 202}, // job 2
		{"a viewer takes back", vera, "DELETE", "/v1/jobs/1", nil, 403},
		{"an operator takes back what is an admin's", olaf, "DELETE", "/v1/jobs/2", nil, 403},
		{"an operator takes back", olaf, "DELETE", "/v1/jobs/1", nil, 200},
		{"an operator takes what was heard", olaf, "GET", "/v1/jobs/2/file", nil, 403},
		{"an admin, before there is any", root, "GET", "/v1/jobs/2/file", nil, 404},
		{"an admin takes back", root, "DELETE", "/v1/jobs/2", nil, 200},
	} {
		f.token = tc.who
		resp, b := f.do(tc.method, tc.path, tc.in)
		if resp.StatusCode != tc.status {
			t.Errorf("%s: got %s, want %d: %s", tc.name, resp.Status, tc.status, b)
		}
	}
	f.token = root
	var audit apitype.AuditList
	f.want(http.StatusOK, "GET", "/v1/audit?limit=100", nil, &audit)
	var got []string
	for _, e := range slices.Backward(audit.Items) {
		if strings.Contains(e.Action, "command") || strings.Contains(e.Action, "job") {
			got = append(got, fmt.Sprintf("%s %s %s %d", e.Actor, e.Action, strings.ReplaceAll(e.Target, f.Registry.Gateway(), "GW"), e.Status))
		}
	}
	want := []string{
		"user:olaf create-node-command GW reboot 202", "user:olaf create-node-command GW capture 403", "user:olaf create-node-command GW config 403", "user:root create-node-command GW capture 202",
		"user:olaf cancel-job 2 capture GW 403", "user:olaf cancel-job 1 reboot GW 200", "user:root cancel-job 2 capture GW 200",
	}
	if !slices.Equal(got, want) {
		t.Errorf("audited\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestBadRequestsAboutJobs(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for _, tc := range []struct {
		name, method, path string
		in                 any
		status             int
		typ                string
	}{
		{"no such job", "GET", "/v1/jobs/7", nil, 404, "about:blank"},
		{"no number", "GET", "/v1/jobs/x", nil, 422, "about:blank"},
		{"waits for ever", "GET", "/v1/jobs/7?wait_s=3600", nil, 422, "about:blank"},
		{"bad cursor", "GET", "/v1/jobs?cursor=x", nil, 400, "about:blank"},
		{"bad cursor of speed tests", "GET", "/v1/speed-tests?cursor=-1", nil, 400, "about:blank"},
		{"jobs of nobody", "GET", "/v1/jobs?node=nobody", nil, 404, "about:blank"},
		{"commands to nobody", "POST", "/v1/nodes/nobody/commands", kind(model.CommandReboot), 404, "about:blank"},
		{"a shell", "POST", "/v1/nodes/gateway/commands", map[string]any{"kind": "shell", "line": "rm -rf /"}, 422, "about:blank"},
		{"part of a speed test", "POST", "/v1/nodes/gateway/commands", map[string]any{"kind": "speed-serve"}, 422, "about:blank"},
		{"no kind", "POST", "/v1/nodes/gateway/commands", map[string]any{}, 422, "about:blank"},
		{"a component that is none", "POST", "/v1/nodes/gateway/commands", map[string]any{"kind": "restart", "restart": map[string]string{"component": "init"}}, 422, "about:blank"},
		{"no component", "POST", "/v1/nodes/gateway/commands", kind(model.CommandRestart), 422, "about:blank"},
		{"arguments of another kind", "POST", "/v1/nodes/gateway/commands", map[string]any{"kind": "reboot", "locate": map[string]int{"seconds": 3}}, 422, "about:blank"},
		{"blinks for ever", "POST", "/v1/nodes/gateway/commands", locate(601), 422, "about:blank"},
		{"waits for months", "POST", "/v1/nodes/gateway/commands", map[string]any{"kind": "reboot", "expires_s": 604_801}, 422, "about:blank"},
		{"a capture of everything", "POST", "/v1/nodes/gateway/commands", map[string]any{"kind": "capture", "capture": map[string]int{"bytes": 8 << 20}}, 422, "about:blank"},
		{"measured with a device that is off", "POST", "/v1/speed-tests", apitype.CreateSpeedTest{Node: "gateway"}, 409, apitype.ProblemNodeCannot},
		{"measured of too much", "POST", "/v1/speed-tests", map[string]any{"node": "gateway", "down_bytes": 1 << 40}, 422, "about:blank"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f.t = t
			var p apitype.Problem
			f.want(tc.status, tc.method, tc.path, tc.in, &p)
			if p.Type != tc.typ {
				t.Errorf("got %+v, want type %s", p, tc.typ)
			}
		})
	}
	f.t = t
	var list apitype.JobList
	f.want(http.StatusOK, "GET", "/v1/jobs", nil, &list)
	if len(list.Items) != 0 {
		t.Errorf("jobs were made: %+v", list.Items)
	}
}

// Whatever comes, nothing breaks.
func TestRubbishAboutJobsIsNoServerError(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	words := []any{"reboot", "restart", "locate", "scan", "capture", "config", nil, -1, 1 << 40, 1e300, true, "", "x", []int{1}, map[string]any{}, map[string]any{"seconds": "x"}, map[string]any{"component": 7}, map[string]any{"radio": strings.Repeat("y", 99)}}
	keys := []string{"kind", "restart", "locate", "set_output", "display", "scan", "capture", "config", "expires_s", "node", "peer", "down_bytes", "up_bytes"}
	paths := []string{"POST /v1/nodes/gateway/commands", "POST /v1/speed-tests", "DELETE /v1/jobs/%d", "GET /v1/jobs/%d", "GET /v1/jobs/%d/file", "GET /v1/jobs?cursor=%d", "GET /v1/jobs?limit=%d", "GET /v1/speed-tests?cursor=%d", "GET /v1/nodes/%d/commands"}
	for range 1000 {
		in := map[string]any{}
		for range rand.IntN(4) {
			in[keys[rand.IntN(len(keys))]] = words[rand.IntN(len(words))]
		}
		method, path, _ := strings.Cut(paths[rand.IntN(len(paths))], " ")
		if strings.Contains(path, "%d") {
			path = fmt.Sprintf(path, rand.Int64()>>rand.IntN(64)-rand.Int64N(5))
		}
		var body any
		if method == "POST" {
			body = in
		}
		if resp, b := f.do(method, path, body); resp.StatusCode >= 500 {
			t.Fatalf("%s %s %v: %s: %s", method, path, in, resp.Status, b)
		}
	}
}

func TestAJobsFile(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	var j apitype.Job
	f.want(http.StatusAccepted, "POST", "/v1/nodes/gateway/commands", kind(model.CommandCapture), &j)
	if err := f.Jobs.Finish(context.Background(), j.ID, jobs.End{State: apitype.JobDone, Outcome: jobs.Outcome{File: []byte("frames"), FileType: "application/vnd.tcpdump.pcap"}}); err != nil {
		t.Fatal(err)
	}
	resp, b := f.do("GET", fmt.Sprintf("/v1/jobs/%d/file", j.ID), nil)
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "application/vnd.tcpdump.pcap" || string(b) != "frames" {
		t.Errorf("got %s, %s, %q", resp.Status, resp.Header.Get("Content-Type"), b)
	}
	f.want(http.StatusOK, "GET", fmt.Sprint("/v1/jobs/", j.ID), nil, &j)
	if j.File == nil || j.File.Bytes != 6 {
		t.Errorf("got %+v", j)
	}
}

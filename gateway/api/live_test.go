package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"halo.internal/gateway/jobs"
	"halo.internal/gateway/telemetry"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/wire"
)

// follow opens /v1/live and subscribes.
func (f *fixture) follow(token string, subscribe ...apitype.LiveRequest) *follower {
	f.t.Helper()
	conn, resp, err := websocket.Dial(f.t.Context(), f.url+"/v1/live", &websocket.DialOptions{Subprotocols: []string{apitype.LiveProtocol, apitype.LiveBearer + token}})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { conn.CloseNow() })
	if p := resp.Header.Get("Sec-WebSocket-Protocol"); p != apitype.LiveProtocol {
		f.t.Errorf("the gateway chose the subprotocol %q", p)
	}
	conn.SetReadLimit(1 << 20)
	l := &follower{Conn: conn, t: f.t}
	var early []apitype.LiveMessage // of the first topics, before the last is subscribed
	for _, r := range subscribe {
		r.Op, r.ID = apitype.LiveSubscribe, r.Topic
		b, err := json.Marshal(r)
		if err != nil {
			f.t.Fatal(err)
		}
		if err := conn.Write(f.t.Context(), websocket.MessageText, b); err != nil {
			f.t.Fatal(err)
		}
		l.until(func(m apitype.LiveMessage) bool {
			if m.Type == apitype.LiveChanges {
				early = append(early, m)
			}
			return m.Type == apitype.LiveSubscribed && m.ID == r.ID
		})
	}
	l.early = early
	return l
}

type follower struct {
	*websocket.Conn
	t     testing.TB
	early []apitype.LiveMessage // that came and were not looked at yet
}

func (l *follower) next() (m apitype.LiveMessage, err error) {
	if len(l.early) > 0 {
		m, l.early = l.early[0], l.early[1:]
		return m, nil
	}
	ctx, cancel := context.WithTimeout(l.t.Context(), 2*time.Minute) // generous: reached only by a failure
	defer cancel()
	_, b, err := l.Read(ctx)
	if err == nil {
		err = json.Unmarshal(b, &m)
	}
	return m, err
}

// until reads until a message is the one that is wanted.
func (l *follower) until(wanted func(apitype.LiveMessage) bool) apitype.LiveMessage {
	l.t.Helper()
	for {
		m, err := l.next()
		if err != nil {
			l.t.Fatal(err)
		}
		if m.Type == apitype.LiveError {
			l.t.Fatalf("got %+v", m.Problem)
		}
		if wanted(m) {
			return m
		}
	}
}

// item reads until a topic has an item that is wanted.
func item[T any](l *follower, topic string, wanted func(T) bool) {
	l.t.Helper()
	l.until(func(m apitype.LiveMessage) bool {
		return m.ID == topic && slices.ContainsFunc(m.Items, func(b json.RawMessage) bool {
			var v T
			if err := json.Unmarshal(b, &v); err != nil {
				l.t.Fatal(err)
			}
			return wanted(v)
		})
	})
}

func TestEverythingLive(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.Radios = &air{}
	mast := f.joined("mast")
	l := f.follow(f.token, apitype.LiveRequest{Topic: apitype.TopicEvents, Kind: "test."}, apitype.LiveRequest{Topic: apitype.TopicTelemetry, Nodes: []string{"mast"}, Metrics: []string{"system."}},
		apitype.LiveRequest{Topic: apitype.TopicNodes}, apitype.LiveRequest{Topic: apitype.TopicRegistrations}, apitype.LiveRequest{Topic: apitype.TopicRecoveries},
		apitype.LiveRequest{Topic: apitype.TopicTopology}, apitype.LiveRequest{Topic: apitype.TopicJobs})
	item(l, apitype.TopicRecoveries, func(r model.Recovery) bool { return r.TotalMS == 4711 })

	f.Events.Add("other.event", model.Info, "", "of another kind", nil)
	f.Events.Add("test.event", model.Info, "", "hello", nil)
	item(l, apitype.TopicEvents, func(e apitype.Event) bool {
		if e.Kind != "test.event" {
			t.Errorf("the filter let %s pass", e.Kind)
		}
		return e.Message == "hello"
	})

	s := wire.Schema{Metrics: []wire.Metric{wire.NewMetric("system.cpu.used_percent", "%", 1), wire.NewMetric("gps.fix.lat_deg", "deg", 6)}}
	if err := f.Telemetry.PutSchema(t.Context(), mast, s); err != nil {
		t.Fatal(err)
	}
	b := wire.Batch{Header: wire.Header{BatchID: wire.ID(1, 1), Schema: s.ID(), Clock: model.ClockGPS}, Reports: []wire.Report{{Time: time.Now().UnixMilli(), Values: []wire.Value{wire.Int(123), wire.Int(7)}}}}
	data, err := b.Encode(s)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Telemetry.Append(t.Context(), []telemetry.Entry{{Node: mast, Schema: s, Batch: b, Data: data}}); err != nil {
		t.Fatal(err)
	}
	item(l, apitype.TopicTelemetry, func(r apitype.LiveReadings) bool {
		return r.Node == mast && r.Clock == model.ClockGPS && slices.Equal(r.Values, []apitype.LiveValue{{Metric: "system.cpu.used_percent", Unit: "%", Value: 12.3}})
	})

	j, _, err := f.Jobs.Add(t.Context(), jobs.Request{Kind: string(model.CommandScan), Node: mast, By: "user:ada"})
	if err != nil {
		t.Fatal(err)
	}
	item(l, apitype.TopicJobs, func(n apitype.Job) bool { return n.ID == j.ID && n.State == apitype.JobQueued })
	f.Jobs.Progress(j.ID, 40, "channel 6")
	item(l, apitype.TopicJobs, func(n apitype.Job) bool { return n.ID == j.ID && n.Progress == 40 })
	if err := f.Jobs.Finish(t.Context(), j.ID, jobs.End{State: apitype.JobDone, Outcome: jobs.Outcome{Value: "much"}}); err != nil {
		t.Fatal(err)
	}
	item(l, apitype.TopicJobs, func(n apitype.Job) bool { return n.ID == j.ID && n.State == apitype.JobDone && n.Result == nil })

	offline := f.Registry.Online(mast, 1)
	item(l, apitype.TopicNodes, func(n apitype.Node) bool { return n.ID == mast && n.Online })
	f.Registry.Status(mast, model.NodeStatus{State: "degraded", Missing: "gps"})
	item(l, apitype.TopicNodes, func(n apitype.Node) bool { return n.State == "degraded" })
	name := "hill"
	f.want(http.StatusOK, "PATCH", "/v1/nodes/mast", apitype.UpdateNode{Name: &name}, nil)
	item(l, apitype.TopicNodes, func(n apitype.Node) bool { return n.Name == "hill" })
	offline()
	item(l, apitype.TopicNodes, func(n apitype.Node) bool { return n.ID == mast && !n.Online })
	f.want(http.StatusNoContent, "DELETE", "/v1/nodes/hill", nil, nil)
	item(l, apitype.TopicNodes, func(n apitype.Node) bool { return n.ID == mast && n.Revoked })

	lake := f.joined("lake")
	item(l, apitype.TopicNodes, func(n apitype.Node) bool { return n.ID == lake })
	late := f.follow(f.token, apitype.LiveRequest{Topic: apitype.TopicNodes})
	item(late, apitype.TopicNodes, func(n apitype.Node) bool { return n.ID == lake })
}

func TestRegistrationsLive(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	l := f.follow(f.token, apitype.LiveRequest{Topic: apitype.TopicRegistrations})
	l.until(func(m apitype.LiveMessage) bool { return m.Reset })
	id := f.joined("mast") // asks, and is approved
	seen := false
	l.until(func(m apitype.LiveMessage) bool {
		for _, b := range m.Items {
			var g apitype.Registration
			if err := json.Unmarshal(b, &g); err != nil || g.ID != id || g.State != "pending" {
				t.Errorf("got %s, %v", b, err)
			}
			seen = true
		}
		return slices.Contains(m.Gone, id) // it may have come and gone between two messages
	})
	t.Logf("seen while it waited: %v", seen)
}

func TestWhoMayFollowWhat(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	for _, role := range []string{apitype.RoleViewer, apitype.RoleOperator} {
		f.want(http.StatusCreated, "POST", "/api/auth/users", apitype.CreateUser{Username: role, Password: password, Role: role}, nil)
	}
	var machine apitype.APIToken
	f.want(http.StatusCreated, "POST", "/api/auth/tokens", apitype.CreateAPIToken{Name: "m", Scopes: []string{apitype.ScopeTelemetryRead}}, &machine)
	for token, want := range map[string]string{
		f.token:           "events telemetry nodes registrations recoveries topology jobs",
		f.login("viewer"): "events telemetry nodes recoveries topology jobs", f.login("operator"): "events telemetry nodes recoveries topology jobs", machine.Token: "telemetry",
	} {
		if m, err := f.follow(token).next(); err != nil || strings.Join(m.Topics, " ") != want {
			t.Errorf("got %v, %v, want %s", m.Topics, err, want)
		}
	}
	dial := func(header http.Header, query string) (status int, p apitype.Problem) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), "GET", f.url+"/v1/live"+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header = header
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		_ = json.NewDecoder(resp.Body).Decode(&p) // a switch has none
		return resp.StatusCode, p
	}
	upgrade := func(more ...string) http.Header {
		h := http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}}
		for i := 0; i < len(more); i += 2 {
			h.Add(more[i], more[i+1])
		}
		return h
	}
	for _, tc := range []struct {
		name   string
		header http.Header
		query  string
		want   int
	}{
		{"no token", upgrade(), "", 401},
		{"a token in the URL", upgrade(), "?token=" + f.token + "&access_token=" + f.token, 401},
		{"a token that is none", upgrade("Sec-Websocket-Protocol", "halo.live.v1, halo.bearer.x"), "", 401},
		{"in the header", upgrade("Authorization", "Bearer "+f.token), "", 101},
		{"as a subprotocol", upgrade("Sec-Websocket-Protocol", "halo.live.v1, halo.bearer."+f.token), "", 101},
		{"from another site", upgrade("Sec-Websocket-Protocol", "halo.live.v1, halo.bearer."+f.token, "Origin", "https://example.com"), "", 403},
		{"no WebSocket", http.Header{"Authorization": {"Bearer " + f.token}}, "", 426},
	} {
		if got, p := dial(tc.header, tc.query); got != tc.want || strings.Contains(fmt.Sprint(p), f.token) {
			t.Errorf("%s: got %d %+v, want %d", tc.name, got, p, tc.want)
		}
	}
	var err error
	if f.local, err = net.ResolveTCPAddr("tcp", "192.168.1.5:8080"); err != nil {
		t.Fatal(err)
	}
	if got, p := dial(upgrade("Authorization", "Bearer "+f.token), ""); got != 403 || p.Type != apitype.ProblemPlainHTTP {
		t.Errorf("where others can listen: got %d %+v", got, p)
	}
}

// Who is disabled hears no more, within seconds.
func TestALoginThatEndsHearsNoMore(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.want(http.StatusCreated, "POST", "/api/auth/users", apitype.CreateUser{Username: "vera", Password: password, Role: apitype.RoleViewer}, nil)
	l := f.follow(f.login("vera"), apitype.LiveRequest{Topic: apitype.TopicEvents})
	disabled := true
	f.want(http.StatusNoContent, "PATCH", "/api/auth/users/vera", apitype.UpdateUser{Disabled: &disabled}, nil)
	for {
		m, err := l.next()
		if err != nil {
			var end websocket.CloseError
			if !errors.As(err, &end) || end.Reason != apitype.LiveEndLogin {
				t.Errorf("it ended by %v", err)
			}
			return
		}
		if m.Type == apitype.LiveEnd && m.Reason != apitype.LiveEndLogin {
			t.Errorf("got %+v", m)
		}
	}
}

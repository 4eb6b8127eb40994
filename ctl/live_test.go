package ctl_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"halo.internal/ctl"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

// liveStandIn is what a stand-in tells live.
type liveStandIn struct {
	mu     sync.Mutex // guards what follows
	is     map[string][]any
	log    map[string][]any // what was told since, by topic: its place is its number
	more   chan struct{}
	asked  []apitype.LiveRequest
	end    string // reason with which connections are ended
	refuse *apitype.Problem
}

// tell tells of changes to all who have subscribed, or will.
func (g *standIn) tell(topic string, items ...any) {
	l := &g.live
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.log == nil {
		l.log = map[string][]any{}
	}
	l.log[topic] = append(l.log[topic], items...)
	l.ring()
}

func (l *liveStandIn) ring() {
	if l.more != nil {
		close(l.more)
		l.more = nil
	}
}

// gone is an item that says that another is no more there.
type gone string

func (g *standIn) serveLive(w http.ResponseWriter, r *http.Request) {
	l := &g.live
	g.mu.Lock()
	good := !g.ended && r.Header.Get("Authorization") == fmt.Sprint("Bearer access-", g.sessions)
	g.mu.Unlock()
	w.Header().Set("Date", standInNow.Format(http.TimeFormat))
	if !good {
		reply(w, http.StatusUnauthorized, apitype.Problem{Title: "Unauthorized"})
		return
	}
	if l.refuse != nil {
		reply(w, l.refuse.Status, *l.refuse)
		return
	}
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{apitype.LiveProtocol}})
	if err != nil {
		return
	}
	defer conn.CloseNow()
	say := func(m apitype.LiveMessage) {
		b, _ := json.Marshal(m)
		_ = conn.Write(r.Context(), websocket.MessageText, b) // the next read tells
	}
	say(apitype.LiveMessage{Type: apitype.LiveHello})
	asks := make(chan apitype.LiveRequest)
	go func() {
		defer close(asks)
		for {
			_, b, err := conn.Read(r.Context())
			var q apitype.LiveRequest
			if err != nil || json.Unmarshal(b, &q) != nil {
				return
			}
			asks <- q
		}
	}()
	at := map[string]int{}
	for {
		l.mu.Lock()
		if l.end != "" {
			reason := l.end
			l.end = ""
			l.mu.Unlock()
			say(apitype.LiveMessage{Type: apitype.LiveEnd, Reason: reason})
			return
		}
		for topic, n := range at {
			m := apitype.LiveMessage{Type: apitype.LiveChanges, ID: topic}
			for _, v := range l.log[topic][n:] {
				if id, ok := v.(gone); ok {
					m.Gone = append(m.Gone, string(id))
					continue
				}
				b, _ := json.Marshal(v)
				m.Items = append(m.Items, b)
			}
			if at[topic] = len(l.log[topic]); len(m.Items)+len(m.Gone) > 0 {
				m.At = fmt.Sprintf("x.%d", at[topic])
				say(m)
			}
		}
		if l.more == nil {
			l.more = make(chan struct{})
		}
		more := l.more
		l.mu.Unlock()
		select {
		case <-more:
		case q, ok := <-asks:
			if !ok {
				return
			}
			l.mu.Lock()
			l.asked = append(l.asked, q)
			if q.Op == apitype.LiveSubscribe {
				n := 0
				if q.After != "" {
					_, _ = fmt.Sscanf(q.After, "x.%d", &n)
				}
				at[q.ID] = n
				say(apitype.LiveMessage{Type: apitype.LiveSubscribed, ID: q.ID, At: fmt.Sprintf("x.%d", n)})
				if q.After == "" && l.is[q.Topic] != nil {
					m := apitype.LiveMessage{Type: apitype.LiveChanges, ID: q.ID, Reset: true, At: fmt.Sprintf("x.%d", n)}
					for _, v := range l.is[q.Topic] {
						b, _ := json.Marshal(v)
						m.Items = append(m.Items, b)
					}
					say(m)
				}
			}
			l.mu.Unlock()
		}
	}
}

func (g *standIn) asked() []apitype.LiveRequest {
	g.live.mu.Lock()
	defer g.live.mu.Unlock()
	return slices.Clone(g.live.asked)
}

func (g *standIn) endLive(reason string) {
	g.live.mu.Lock()
	defer g.live.mu.Unlock()
	g.live.end = reason
	g.live.ring()
}

func TestWatchPrintsWhatIsNew(t *testing.T) {
	g, url := newStandIn(t)
	u := newUser(t)
	u.login(t, url)
	at := func(seq uint64, metric string, v float64) apitype.LiveReadings {
		return apitype.LiveReadings{Node: nodeID, Time: ago(time.Minute), Boot: 1, Seq: seq, Values: []apitype.LiveValue{{Metric: metric, Value: v}}}
	}
	two := at(1, "system.cpu.used_percent", 1)
	two.Values = append(two.Values, apitype.LiveValue{Metric: "system.load.1m", Value: 2})
	g.live.is = map[string][]any{apitype.TopicTelemetry: {two}}
	out := u.background(t, "telemetry", "latest", "n01", "--metric", "system.", "--watch", "--interval", "1ms", "--json")
	var got []apitype.Reading
	got = append(got, next[apitype.Reading](t, out), next[apitype.Reading](t, out))
	g.tell(apitype.TopicTelemetry, at(2, "system.cpu.used_percent", 7))
	got = append(got, next[apitype.Reading](t, out))
	if got[0].Metric != "system.cpu.used_percent" || got[1].Metric != "system.load.1m" || got[1].Node != nodeID || got[2].Value != 7 || got[2].Seq != 2 {
		t.Errorf("got %+v", got)
	}
	asked := g.asked()
	if len(asked) != 2 || asked[0].Op != apitype.LivePace || asked[0].IntervalMS != 20 || !slices.Equal(asked[1].Nodes, []string{"n01"}) || !slices.Equal(asked[1].Metrics, []string{"system."}) {
		t.Errorf("asked %+v", asked)
	}
}

// A connection that ends is made anew, with a fresh token where the login has ended, and
// nothing is printed twice.
func TestFollowPrintsEachEventOnce(t *testing.T) {
	g, url := newStandIn(t)
	u := newUser(t)
	u.login(t, url)
	event := func(id int64) apitype.Event {
		return apitype.Event{ID: id, Event: model.Event{Time: standInNow, Kind: "test", Severity: model.Info, Message: "m"}}
	}
	g.set("GET /v1/events", apitype.EventList{Items: []apitype.Event{event(2), event(1)}})
	out := u.background(t, "event", "list", "--follow", "--kind", "te", "--json")
	for want := int64(1); want <= 6; want++ {
		if want > 2 {
			g.tell(apitype.TopicEvents, event(want))
		}
		if e := next[apitype.Event](t, out); e.ID != want {
			t.Fatalf("got event %d, want %d", e.ID, want)
		}
		switch want {
		case 3:
			g.endLive(apitype.LiveEndStopping)
		case 4:
			g.endLive(apitype.LiveEndLogin)
		}
	}
	asked := g.asked()
	if len(asked) != 3 || asked[0].Since == nil || *asked[0].Since != 2 || asked[0].Kind != "te" || asked[1].After != "x.1" || asked[2].After != "x.2" || asked[2].Since != nil {
		t.Errorf("asked %+v", asked)
	}
	if n := g.logins(); n != 2 {
		t.Errorf("%d sessions were made, want the login and one refresh", n)
	}
}

func TestListsThatAreWatched(t *testing.T) {
	g, url := newStandIn(t)
	u := newUser(t)
	u.login(t, url)
	n := apitype.Node{ID: nodeID, Name: "n01", Role: model.RoleNode, State: "ok", Online: true}
	g.live.is = map[string][]any{apitype.TopicNodes: {n}, apitype.TopicRegistrations: {apitype.Registration{ID: waitingID, State: "pending"}}}
	nodes := u.background(t, "node", "list", "--watch", "--json")
	if got := next[apitype.Node](t, nodes); got.Name != "n01" || !got.Online {
		t.Errorf("got %+v", got)
	}
	n.Online = false
	g.tell(apitype.TopicNodes, n)
	if got := next[apitype.Node](t, nodes); got.Online {
		t.Errorf("got %+v", got)
	}
	waiting := u.background(t, "registration", "list", "--watch", "--json")
	if got := next[apitype.Registration](t, waiting); got.ID != waitingID {
		t.Errorf("got %+v", got)
	}
}

func TestWatchTellsWhatHappens(t *testing.T) {
	g, url := newStandIn(t)
	u := newUser(t)
	u.login(t, url)
	g.set("GET /api/auth/me", apitype.Me{Kind: "user", Name: standInUser, Role: apitype.RoleAdmin, Scopes: []string{apitype.ScopeAdmin}})
	out := u.background(t, "watch", "--metric", "power.")
	in := bufio.NewReader(out.r)
	line := func(want ...string) {
		t.Helper()
		late := time.AfterFunc(time.Minute, func() { out.r.CloseWithError(errors.New("nothing came within a minute")) })
		defer late.Stop()
		got, err := in.ReadString('\n')
		if err != nil {
			t.Fatalf("%v, want %q", err, want)
		}
		for _, w := range want {
			if !strings.Contains(got, w) {
				t.Errorf("got %q, want %q in it", got, w)
			}
		}
	}
	for _, tc := range []struct {
		topic string
		item  any
		want  []string
	}{
		{apitype.TopicEvents, apitype.Event{ID: 1, Event: model.Event{Time: standInNow, Node: nodeID, Kind: "mesh.port.refused", Severity: model.Warning, Message: "a stranger\x1b[31m"}}, []string{"2026-11-23 12:00:00", "warning", "n01", "mesh.port.refused a stranger\ufffd"}},
		{apitype.TopicNodes, apitype.Node{ID: nodeID, Name: "n01", Role: model.RoleNode}, []string{"node", "n01", "offline"}},
		{apitype.TopicRegistrations, apitype.Registration{ID: waitingID, Name: "n02", State: "pending", LastTry: standInNow}, []string{"registration", waitingID, "pending n02"}},
		{apitype.TopicRegistrations, gone(waitingID), []string{"registration", waitingID, "is over"}},
		{apitype.TopicRecoveries, model.Recovery{Cause: model.CausePowerOn, State: model.RecoveryOver, TotalMS: 12_000, Began: standInNow}, []string{"recovery", "power-on", "over after 12 s"}},
		{apitype.TopicTelemetry, apitype.LiveReadings{Node: nodeID, Time: standInNow, Values: []apitype.LiveValue{{Metric: "power.battery.percent", Unit: "percent", Value: 12.34567}}}, []string{"reading", "n01", "power.battery.percent 12.3457 percent"}},
	} {
		g.tell(tc.topic, tc.item)
		line(tc.want...)
	}
	// Who may see less is told less, and a refusal is an error.
	g.set("GET /api/auth/me", apitype.Me{Kind: "user", Name: standInUser, Role: apitype.RoleViewer, Scopes: []string{apitype.ScopeEventsRead}})
	out = u.background(t, "watch", "--json")
	if got := next[map[string]json.RawMessage](t, out); string(got["topic"]) != `"events"` || len(got["item"]) == 0 {
		t.Errorf("got %v", got)
	}
	topics := map[string]int{}
	for _, q := range g.asked() {
		topics[q.Topic]++
	}
	if topics[apitype.TopicEvents] != 2 || topics[apitype.TopicNodes] != 1 {
		t.Errorf("asked for %v", topics)
	}
	g.live.refuse = &apitype.Problem{Type: apitype.ProblemScope, Title: "Forbidden", Status: http.StatusForbidden}
	if code, _, errs := u.run(t.Context(), "watch"); code != ctl.ExitUnauthorised {
		t.Errorf("exit status %d: %s", code, errs)
	}
}

// TestWatchAtARealGateway: what one haloctl changes, another tells, over TLS and over a
// restart of the gateway.
func TestWatchAtARealGateway(t *testing.T) {
	d := newDevice(t)
	stop := d.start(t)
	u := newUser(t)
	u.environ["HALO_CLAIM_CODE"], u.environ["HALO_PASSWORD"] = claimCode, newPassword
	u.must(t, "claim", "--gateway=https://"+d.tls)
	nodes := u.background(t, "node", "list", "--watch", "--json")
	if n := next[apitype.Node](t, nodes); n.Role != model.RoleGateway || n.Name != "gw" {
		t.Errorf("got %+v", n)
	}
	renamed := func(to string) {
		t.Helper()
		u.must(t, "node", "rename", d.key.ID(), to)
		for next[apitype.Node](t, nodes).Name != to {
		}
	}
	renamed("hill")
	stop()
	d.start(t)
	renamed("hilltop")
}

package live

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"halo.internal/gateway/auth"
	"halo.internal/gateway/changes"
	"halo.internal/model/apitype"
)

// thing is an item of the tests' topics.
type thing struct {
	ID    string `json:"id"`
	Value int    `json:"value"`
}

// board has things that change.
type board struct {
	keyed[thing]
	mu     sync.Mutex
	things map[string]int
	fail   error
}

func newBoard(most int) *board {
	b := &board{things: map[string]int{}}
	b.keyed = keyed[thing]{
		log: changes.New[string](most),
		id:  func(t thing) string { return t.ID },
		one: func(_ context.Context, id string) (thing, bool, error) {
			b.mu.Lock()
			defer b.mu.Unlock()
			v, ok := b.things[id]
			return thing{id, v}, ok, b.fail
		},
		page: func(_ context.Context, cursor string) (list []thing, next string, err error) {
			b.mu.Lock()
			defer b.mu.Unlock()
			for id, v := range b.things {
				if id > cursor {
					list = append(list, thing{id, v})
				}
			}
			slices.SortFunc(list, func(a, b thing) int { return strings.Compare(a.ID, b.ID) })
			if len(list) > 100 {
				list = list[:100]
				next = list[99].ID
			}
			return list, next, b.fail
		},
	}
	return b
}

func (b *board) set(id string, v int) {
	b.mu.Lock()
	b.things[id] = v
	b.mu.Unlock()
	b.log.Note(id)
}

func (b *board) remove(id string) {
	b.mu.Lock()
	delete(b.things, id)
	b.mu.Unlock()
	b.log.Note(id)
}

func (b *board) breaks(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fail = err
}

// tape has what happens, and remembers the last of it.
type tape struct {
	mu     sync.Mutex
	newest uint64
	most   uint64
	bell   changes.Bell
}

func (s *tape) add(n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.newest += n
	s.bell.Ring()
}

func (s *tape) News(context.Context) (uint64, <-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.newest, s.bell.Next(), nil
}

func (s *tape) Since(_ context.Context, f Filter, after uint64) (uint64, bool, iter.Seq2[Change, error], error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	to := s.newest
	return to, after+s.most >= to, func(yield func(Change, error) bool) {
		for n := after + 1; n <= to; n++ {
			if (f.Kind == "" || n%2 == 0) && !yield(Change{Item: thing{fmt.Sprint(n), int(n)}}, nil) {
				return
			}
		}
	}, nil
}

type fixture struct {
	*Hub
	t     *testing.T
	url   string
	board *board
	tape  *tape
	stop  func()

	mu     sync.Mutex
	logins map[string]auth.Principal // by token
}

func newFixture(t *testing.T, change func(*Hub)) *fixture {
	t.Helper()
	f := &fixture{t: t, board: newBoard(1000), tape: &tape{most: 1000}, logins: map[string]auth.Principal{
		"root": {Kind: "user", Name: "root", Scopes: []string{apitype.ScopeAdmin}},
		"vera": {Kind: "user", Name: "vera", Scopes: []string{apitype.ScopeEventsRead}},
	}}
	f.Hub = New(Config{
		Topics: []Topic{
			{Name: apitype.TopicEvents, Scope: apitype.ScopeEventsRead, Source: f.tape, Log: true, Instance: func() string { return "e7" }},
			{Name: apitype.TopicNodes, Scope: apitype.ScopeNodesRead, Source: f.board},
			{Name: apitype.TopicRegistrations, Scope: apitype.ScopeAdmin, Source: newBoard(10)},
		},
		Authenticate: func(_ context.Context, token string) (auth.Principal, error) {
			f.mu.Lock()
			defer f.mu.Unlock()
			p, ok := f.logins[token]
			if !ok {
				return p, apitype.Refuse(http.StatusUnauthorized, "", "no such token")
			}
			return p, nil
		},
		Node: func(_ context.Context, ref string) (string, error) {
			if ref == "nobody" {
				return "", apitype.Refuse(http.StatusNotFound, "", "there is no node nobody")
			}
			return strings.ToUpper(ref), nil
		},
		Log: slog.New(slog.DiscardHandler),
	})
	if change != nil {
		change(f.Hub)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token := r.Header.Get("Authorization")
		p, err := f.Authenticate(r.Context(), token)
		if err == nil {
			err = f.Serve(w, r, p, token, netip.MustParseAddr("192.0.2.1"))
		}
		if p, ok := errors.AsType[*apitype.Problem](err); ok {
			http.Error(w, p.Detail, p.Status)
		}
	}))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	f.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			t.Error("the hub does not end")
		}
	})
	t.Cleanup(func() {
		f.stop()
		srv.Close()
	})
	f.url = srv.URL
	return f
}

func (f *fixture) login(token string, p *auth.Principal) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p == nil {
		delete(f.logins, token)
	} else {
		f.logins[token] = *p
	}
}

// client is a connection of a test.
type client struct {
	*websocket.Conn
	t *testing.T
}

func (f *fixture) dial(token string) *client {
	f.t.Helper()
	conn, _, err := websocket.Dial(f.t.Context(), f.url, &websocket.DialOptions{Subprotocols: []string{apitype.LiveProtocol}, HTTPHeader: http.Header{"Authorization": {token}}})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { conn.CloseNow() })
	if conn.Subprotocol() != apitype.LiveProtocol {
		f.t.Errorf("subprotocol %q", conn.Subprotocol())
	}
	conn.SetReadLimit(1 << 20)
	c := &client{conn, f.t}
	if m := c.next(); m.Type != apitype.LiveHello {
		f.t.Fatalf("got %+v, want hello", m)
	}
	return c
}

func (c *client) say(r apitype.LiveRequest) {
	c.t.Helper()
	b, err := json.Marshal(r)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := c.Write(c.t.Context(), websocket.MessageText, b); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) next() apitype.LiveMessage {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.t.Context(), 20*time.Second)
	defer cancel()
	_, b, err := c.Read(ctx)
	if err != nil {
		c.t.Fatal(err)
	}
	var m apitype.LiveMessage
	if err := json.Unmarshal(b, &m); err != nil {
		c.t.Fatal(err)
	}
	return m
}

// want reads a message of that type.
func (c *client) want(typ string) apitype.LiveMessage {
	c.t.Helper()
	m := c.next()
	if m.Type != typ {
		c.t.Fatalf("got %+v, want %s", m, typ)
	}
	return m
}

// text writes what a message of changes has in it, briefly.
func text(m apitype.LiveMessage) string {
	var s []string
	if m.Reset {
		s = append(s, "all:")
	}
	for _, i := range m.Items {
		var t thing
		if err := json.Unmarshal(i, &t); err != nil {
			return err.Error()
		}
		s = append(s, fmt.Sprintf("%s=%d", t.ID, t.Value))
	}
	for _, g := range m.Gone {
		s = append(s, "-"+g)
	}
	return strings.Join(s, " ")
}

// ended reads until the connection ends, and returns the reason in the message and in the
// close frame.
func (c *client) ended() (reason string, frame websocket.CloseError) {
	c.t.Helper()
	for {
		ctx, cancel := context.WithTimeout(c.t.Context(), 20*time.Second)
		_, b, err := c.Read(ctx)
		cancel()
		if err != nil {
			if !errors.As(err, &frame) {
				c.t.Fatalf("it ended by %v, want a close frame", err)
			}
			return reason, frame
		}
		var m apitype.LiveMessage
		if err := json.Unmarshal(b, &m); err != nil {
			c.t.Fatal(err)
		}
		if m.Type == apitype.LiveEnd {
			reason = m.Reason
		}
	}
}

func TestWhatIsComesFirstAndThenWhatChanges(t *testing.T) {
	f := newFixture(t, nil)
	f.board.set("A", 1)
	f.board.set("B", 1)
	c := f.dial("root")
	c.say(apitype.LiveRequest{Op: "subscribe", ID: "n", Topic: "nodes"})
	if m := c.want(apitype.LiveSubscribed); m.ID != "n" || m.At == "" {
		t.Errorf("got %+v", m)
	}
	if m := c.want(apitype.LiveChanges); text(m) != "all: A=1 B=1" || m.ID != "n" || m.More || m.At == "" {
		t.Errorf("got %+v", m)
	}
	f.board.set("B", 2)
	if m := c.want(apitype.LiveChanges); text(m) != "B=2" {
		t.Errorf("got %s", text(m))
	}
	f.board.remove("A")
	if m := c.want(apitype.LiveChanges); text(m) != "-A" {
		t.Errorf("got %s", text(m))
	}
	// Two subscriptions, one of which chooses.
	c.say(apitype.LiveRequest{Op: "subscribe", ID: "c", Topic: "nodes", Nodes: []string{"c"}})
	c.want(apitype.LiveSubscribed)
	if m := c.want(apitype.LiveChanges); text(m) != "all:" || m.ID != "c" {
		t.Errorf("got %+v", m)
	}
	f.board.set("C", 3)
	for _, id := range []string{"n", "c"} {
		if m := c.want(apitype.LiveChanges); text(m) != "C=3" || m.ID != id {
			t.Errorf("got %s of %s", text(m), m.ID)
		}
	}
	c.say(apitype.LiveRequest{Op: "unsubscribe", ID: "n"})
	c.want(apitype.LiveUnsubscribed)
	f.board.set("B", 4)
	f.board.set("C", 4)
	if m := c.want(apitype.LiveChanges); text(m) != "C=4" || m.ID != "c" {
		t.Errorf("after it was given up: got %s of %s", text(m), m.ID)
	}
}

// What changes often is sent as often as the client has asked for, as it is by then.
func TestChangesGoTogether(t *testing.T) {
	f := newFixture(t, nil)
	c := f.dial("root")
	c.say(apitype.LiveRequest{Op: "pace", IntervalMS: 300})
	c.say(apitype.LiveRequest{Op: "subscribe", ID: "n", Topic: "nodes"})
	c.want(apitype.LiveSubscribed)
	c.want(apitype.LiveChanges)
	go func() {
		for i := range 2000 {
			f.board.set("A", i)
			time.Sleep(200 * time.Microsecond)
		}
		f.board.set("A", 9999)
	}()
	began, messages := time.Now(), 1
	for ; text(c.want(apitype.LiveChanges)) != "A=9999"; messages++ {
	}
	if most := int(time.Since(began)/(300*time.Millisecond)) + 2; messages > most {
		t.Errorf("%d messages in %v, want %d at most", messages, time.Since(began), most)
	}
}

func TestAClientThatComesBackGoesOnWhereItWas(t *testing.T) {
	f := newFixture(t, nil)
	f.board.set("A", 1)
	f.tape.add(5)
	first := f.dial("root")
	first.say(apitype.LiveRequest{Op: "subscribe", ID: "n", Topic: "nodes"})
	first.want(apitype.LiveSubscribed)
	nodes := first.want(apitype.LiveChanges).At
	first.say(apitype.LiveRequest{Op: "subscribe", ID: "e", Topic: "events"})
	events := first.want(apitype.LiveSubscribed).At
	if events != "e7.5" {
		t.Errorf("a new subscription to what happens is at %s", events)
	}
	first.CloseNow()
	f.board.set("B", 1)
	f.board.set("A", 2)
	f.tape.add(3)
	for _, tc := range []struct {
		name, topic, after string
		since              int64
		kind               string
		gap                bool
		want               string
	}{
		{"what changed", "nodes", nodes, -1, "", false, "B=1 A=2"},
		{"from the beginning", "nodes", strings.Split(nodes, ".")[0] + ".0", -1, "", false, "A=2 B=1"},
		{"another start of the gateway", "nodes", "OTHER." + strings.Split(nodes, ".")[1], -1, "", true, "all: A=2 B=1"},
		{"the future", "nodes", strings.Split(nodes, ".")[0] + ".99", -1, "", true, "all: A=2 B=1"},
		{"rubbish", "nodes", "rubbish", -1, "", true, "all: A=2 B=1"},
		{"a number that is none", "nodes", strings.Split(nodes, ".")[0] + ".-1", -1, "", true, "all: A=2 B=1"},
		{"a number beyond all", "nodes", strings.Split(nodes, ".")[0] + ".99999999999999999999", -1, "", true, "all: A=2 B=1"},
		{"what happened", "events", events, -1, "", false, "6=6 7=7 8=8"},
		{"what happened, of some kind", "events", events, -1, "x", false, "6=6 8=8"},
		{"what happened since an event", "events", "", 7, "", false, "8=8"},
		{"all that happened", "events", "", 0, "", false, "1=1 2=2 3=3 4=4 5=5 6=6 7=7 8=8"},
		{"events of another database", "events", "e6.2", -1, "", true, ""},
		{"an event of the future", "events", "", 99, "", true, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f.t = t
			c := f.dial("root")
			r := apitype.LiveRequest{Op: "subscribe", ID: "x", Topic: tc.topic, After: tc.after, Kind: tc.kind}
			if tc.since >= 0 {
				r.Since = &tc.since
			}
			c.say(r)
			c.want(apitype.LiveSubscribed)
			if tc.gap {
				c.want(apitype.LiveGap)
			}
			if tc.want == "" { // it goes on with what happens next
				f.tape.add(1)
				tc.want = "9=9"
				if tc.since >= 0 {
					tc.want = "10=10"
				}
			}
			if m := c.want(apitype.LiveChanges); text(m) != tc.want {
				t.Errorf("got %q, want %q", text(m), tc.want)
			}
		})
	}
}

// What a source has forgotten meanwhile is a gap, and is said; then all follows that is.
func TestAGapIsSaid(t *testing.T) {
	f := newFixture(t, nil)
	f.tape.most = 3
	c := f.dial("root")
	c.say(apitype.LiveRequest{Op: "pace", IntervalMS: 500})
	c.say(apitype.LiveRequest{Op: "subscribe", ID: "e", Topic: "events"})
	c.want(apitype.LiveSubscribed)
	f.tape.add(1)
	c.want(apitype.LiveChanges)
	f.tape.add(2)
	f.tape.add(2) // before the client is told again
	if m := c.want(apitype.LiveGap); m.At != "e7.5" {
		t.Errorf("got %+v", m)
	}
	f.tape.add(1)
	if m := c.want(apitype.LiveChanges); text(m) != "6=6" {
		t.Errorf("after a gap: %s", text(m))
	}

	small := newBoard(3)
	f.Topics[1].Source = small
	for i := range 5 {
		small.set(fmt.Sprint(i), i)
	}
	c = f.dial("root")
	c.say(apitype.LiveRequest{Op: "subscribe", ID: "n", Topic: "nodes", After: f.instance + ".1"})
	c.want(apitype.LiveSubscribed)
	c.want(apitype.LiveGap)
	if m := c.want(apitype.LiveChanges); text(m) != "all: 0=0 1=1 2=2 3=3 4=4" {
		t.Errorf("after a gap: %s", text(m))
	}
}

func TestMuchIsToldInParts(t *testing.T) {
	f := newFixture(t, nil)
	const n = 3*maxItems + 7
	for i := range n {
		f.board.set(fmt.Sprintf("%04d", i), i)
	}
	c := f.dial("root")
	c.say(apitype.LiveRequest{Op: "subscribe", ID: "n", Topic: "nodes"})
	c.want(apitype.LiveSubscribed)
	got, parts := 0, 0
	for more := true; more; parts++ {
		m := c.want(apitype.LiveChanges)
		if more = m.More; (m.At == "") != more || m.Reset != (parts == 0) {
			t.Errorf("part %d: at %q, more %v, reset %v", parts, m.At, m.More, m.Reset)
		}
		got += len(m.Items)
	}
	if got != n || parts != 4 {
		t.Errorf("%d of %d in %d parts", got, n, parts)
	}
}

func TestWhatIsRefused(t *testing.T) {
	f := newFixture(t, nil)
	c := f.dial("vera")
	one, minus := int64(1), int64(-1)
	for _, tc := range []struct {
		name   string
		r      apitype.LiveRequest
		status int
	}{
		{"no operation", apitype.LiveRequest{ID: "x"}, 422},
		{"no id", apitype.LiveRequest{Op: "subscribe", Topic: "events"}, 422},
		{"a long id", apitype.LiveRequest{Op: "subscribe", Topic: "events", ID: strings.Repeat("x", 33)}, 422},
		{"no such topic", apitype.LiveRequest{Op: "subscribe", ID: "x", Topic: "weather"}, 404},
		{"a topic without its scope", apitype.LiveRequest{Op: "subscribe", ID: "x", Topic: "nodes"}, 403},
		{"a topic of admins", apitype.LiveRequest{Op: "subscribe", ID: "x", Topic: "registrations"}, 403},
		{"no such severity", apitype.LiveRequest{Op: "subscribe", ID: "x", Topic: "events", Severity: "bad"}, 422},
		{"a long kind", apitype.LiveRequest{Op: "subscribe", ID: "x", Topic: "events", Kind: strings.Repeat("x", 97)}, 422},
		{"metrics of events", apitype.LiveRequest{Op: "subscribe", ID: "x", Topic: "events", Metrics: []string{"x"}}, 422},
		{"two nodes of events", apitype.LiveRequest{Op: "subscribe", ID: "x", Topic: "events", Nodes: []string{"a", "b"}}, 422},
		{"no such node", apitype.LiveRequest{Op: "subscribe", ID: "x", Topic: "events", Nodes: []string{"nobody"}}, 404},
		{"since and after", apitype.LiveRequest{Op: "subscribe", ID: "x", Topic: "events", Since: &one, After: "e7.1"}, 422},
		{"since before all", apitype.LiveRequest{Op: "subscribe", ID: "x", Topic: "events", Since: &minus}, 422},
		{"no such subscription", apitype.LiveRequest{Op: "unsubscribe", ID: "x"}, 404},
		{"too fast", apitype.LiveRequest{Op: "pace", IntervalMS: 19}, 422},
		{"too slow", apitype.LiveRequest{Op: "pace", IntervalMS: 60_001}, 422},
	} {
		c.say(tc.r)
		if m := c.want(apitype.LiveError); m.Problem == nil || m.Problem.Status != tc.status {
			t.Errorf("%s: got %+v, want %d", tc.name, m.Problem, tc.status)
		}
	}
	c = f.dial("root")
	for i := range maxSubscriptions {
		c.say(apitype.LiveRequest{Op: "subscribe", ID: fmt.Sprint(i), Topic: "events"})
		c.want(apitype.LiveSubscribed)
	}
	c.say(apitype.LiveRequest{Op: "subscribe", ID: "0", Topic: "events"})
	if m := c.want(apitype.LiveError); m.Problem.Status != 409 {
		t.Errorf("the same id again: %+v", m.Problem)
	}
	c.say(apitype.LiveRequest{Op: "subscribe", ID: "x", Topic: "events"})
	if m := c.want(apitype.LiveError); m.Problem.Status != 409 {
		t.Errorf("one too many: %+v", m.Problem)
	}
	if resp, err := http.Get(f.url); err != nil || resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("without a token: %v, %v", resp, err)
	}
	req, _ := http.NewRequestWithContext(t.Context(), "GET", f.url, nil)
	req.Header.Set("Authorization", "vera")
	if resp, err := http.DefaultClient.Do(req); err != nil || resp.StatusCode != http.StatusUpgradeRequired {
		t.Errorf("no WebSocket: %v, %v", resp, err)
	}
}

func TestHelloNamesWhatMayBeSubscribedTo(t *testing.T) {
	f := newFixture(t, nil)
	for token, want := range map[string]string{"root": "events nodes registrations", "vera": "events"} {
		conn, _, err := websocket.Dial(t.Context(), f.url, &websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {token}}})
		if err != nil {
			t.Fatal(err)
		}
		if m := (&client{conn, t}).want(apitype.LiveHello); strings.Join(m.Topics, " ") != want {
			t.Errorf("%s: %v, want %s", token, m.Topics, want)
		}
		conn.CloseNow()
	}
}

func TestHowConnectionsEnd(t *testing.T) {
	quick := func(h *Hub) { h.check = 20 * time.Millisecond }
	for _, tc := range []struct {
		name   string
		do     func(*fixture, *client)
		reason string
		code   websocket.StatusCode
	}{
		{"the login ends", func(f *fixture, _ *client) { f.login("root", nil) }, apitype.LiveEndLogin, websocket.StatusPolicyViolation},
		{"it may do less", func(f *fixture, _ *client) {
			f.login("root", &auth.Principal{Kind: "user", Name: "root", Scopes: []string{apitype.ScopeEventsRead}})
		}, apitype.LiveEndLogin, websocket.StatusPolicyViolation},
		{"another user's token", func(_ *fixture, c *client) { c.say(apitype.LiveRequest{Op: "auth", Token: "vera"}) }, apitype.LiveEndLogin, websocket.StatusPolicyViolation},
		{"the gateway stops", func(f *fixture, _ *client) { go f.stop() }, apitype.LiveEndStopping, websocket.StatusGoingAway},
		{"requests without end", func(_ *fixture, c *client) {
			for range maxRequests + 2 {
				c.say(apitype.LiveRequest{Op: "pace", IntervalMS: 20})
			}
		}, apitype.LiveEndFlood, websocket.StatusPolicyViolation},
		{"no JSON", func(_ *fixture, c *client) { _ = c.Write(c.t.Context(), websocket.MessageText, []byte("hello")) }, apitype.LiveEndMessage, websocket.StatusInvalidFramePayloadData},
		{"binary", func(_ *fixture, c *client) { _ = c.Write(c.t.Context(), websocket.MessageBinary, []byte("{}")) }, apitype.LiveEndMessage, websocket.StatusInvalidFramePayloadData},
		{"a long message", func(_ *fixture, c *client) {
			_ = c.Write(c.t.Context(), websocket.MessageText, make([]byte, maxRequest+1))
		}, "", websocket.StatusMessageTooBig},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFixture(t, quick)
			c := f.dial("root")
			tc.do(f, c)
			if reason, frame := c.ended(); reason != tc.reason || frame.Code != tc.code || tc.reason != "" && frame.Reason != tc.reason {
				t.Errorf("got %q, %v; want %q, %v", reason, frame, tc.reason, tc.code)
			}
		})
	}
}

// A client renews its token without a new connection.
func TestATokenTakesThePlaceOfAnother(t *testing.T) {
	f := newFixture(t, func(h *Hub) { h.check = 20 * time.Millisecond })
	c := f.dial("root")
	root := f.logins["root"]
	f.login("root2", &root)
	c.say(apitype.LiveRequest{Op: "auth", Token: "root2"})
	c.say(apitype.LiveRequest{Op: "subscribe", ID: "e", Topic: "events"})
	c.want(apitype.LiveSubscribed)
	f.login("root", nil)
	for range 10 {
		time.Sleep(10 * time.Millisecond)
		f.tape.add(1)
		c.want(apitype.LiveChanges)
	}
}

// One that does not read costs the others nothing, and is given up.
func TestASlowClient(t *testing.T) {
	f := newFixture(t, func(h *Hub) { h.write = 300 * time.Millisecond })
	slow, quick := f.dial("root"), f.dial("root")
	for _, c := range []*client{slow, quick} {
		c.say(apitype.LiveRequest{Op: "subscribe", ID: "n", Topic: "nodes"})
		c.want(apitype.LiveSubscribed)
		c.want(apitype.LiveChanges)
	}
	clients := func() int {
		f.Hub.mu.Lock()
		defer f.Hub.mu.Unlock()
		return len(f.clients)
	}
	big, worst := strings.Repeat("x", 30_000), time.Duration(0)
	for i := 0; clients() == 2; i++ {
		if i > 5000 {
			t.Fatal("the slow client is still there")
		}
		began := time.Now()
		f.board.set(big+fmt.Sprint(i%3), i)
		quick.want(apitype.LiveChanges)
		worst = max(worst, time.Since(began))
	}
	if worst > 2*time.Second {
		t.Errorf("the other client waited %v", worst)
	}
	f.board.set("A", 1)
	for text(quick.want(apitype.LiveChanges)) != "A=1" {
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	f := newFixture(t, nil)
	for range maxOfOne {
		f.dial("vera")
	}
	refused := func(token string, want int) {
		t.Helper()
		_, resp, err := websocket.Dial(t.Context(), f.url, &websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {token}}})
		if err == nil || resp == nil || resp.StatusCode != want {
			t.Errorf("%s: got %v, %v, want %d", token, resp, err, want)
		}
	}
	refused("vera", http.StatusTooManyRequests)
	for i := range maxClients - maxOfOne {
		name := fmt.Sprint("user", i)
		f.login(name, &auth.Principal{Kind: "user", Name: name})
		f.dial(name)
	}
	refused("root", http.StatusTooManyRequests)
	f.stop()
	refused("root", http.StatusServiceUnavailable)
}

// A source that fails is asked again, and then goes on.
func TestASourceThatFails(t *testing.T) {
	f := newFixture(t, func(h *Hub) { h.retry = 50 * time.Millisecond })
	c := f.dial("root")
	f.board.set("A", 1)
	f.board.breaks(errors.New("the disk is full"))
	c.say(apitype.LiveRequest{Op: "subscribe", ID: "n", Topic: "nodes"})
	c.want(apitype.LiveSubscribed)
	for range 3 {
		if m := c.want(apitype.LiveError); m.Problem.Status != http.StatusServiceUnavailable || strings.Contains(m.Problem.Detail, "disk") {
			t.Errorf("got %+v", m.Problem)
		}
	}
	f.board.breaks(nil)
	for {
		if m := c.next(); m.Type == apitype.LiveChanges {
			if text(m) != "all: A=1" {
				t.Errorf("got %s", text(m))
			}
			return
		}
	}
}

// A filter that chooses nothing lets the client know where it is all the same.
func TestAMarkIsKept(t *testing.T) {
	f := newFixture(t, func(h *Hub) { h.mark = 50 * time.Millisecond })
	c := f.dial("root")
	c.say(apitype.LiveRequest{Op: "subscribe", ID: "e", Topic: "events", Kind: "even"})
	c.want(apitype.LiveSubscribed)
	f.tape.add(1)
	if m := c.want(apitype.LiveChanges); m.At != "e7.1" || len(m.Items) != 0 {
		t.Errorf("got %+v", m)
	}
}

func FuzzPosition(f *testing.F) {
	for _, s := range []string{"", ".", "e7.", "e7.0", "e7.12", "e7.-1", "e7.99999999999999999999", "e7.1.2", "x.1"} {
		f.Add(s)
	}
	h := New(Config{})
	topic := &Topic{Instance: func() string { return "e7" }}
	f.Fuzz(func(t *testing.T, s string) {
		at, ok := h.position(topic, s)
		if ok && strings.TrimLeft(strings.TrimPrefix(s, "e7."), "0") != strings.TrimLeft(fmt.Sprint(at), "0") {
			t.Errorf("%q is %d", s, at)
		}
	})
}

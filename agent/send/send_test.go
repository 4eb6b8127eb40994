package send

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"halo.internal/agent/spool"
	"halo.internal/health"
	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/wire"
)

const limit = 60 * time.Second // generous: reached only by a failure

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

// node is an agent's spool and sender.
type node struct {
	t      *testing.T
	dir    string
	boot   uint64
	key    identity.Key
	spool  *spool.Spool
	status func() model.NodeStatus
	board  func() model.Board
	retry  chan struct{}
	ack    time.Duration // until a connection counts as dead
	busy   time.Duration // until what the gateway does not take at present is sent again

	mu     sync.Mutex
	health []string
}

func newNode(t *testing.T) *node {
	t.Setenv("TMPDIR", "/dev/shm") // many syncs
	n := &node{t: t, dir: t.TempDir(), boot: 1, ack: 300 * time.Millisecond, busy: 30 * time.Millisecond, key: identity.New(), status: func() model.NodeStatus { return model.NodeStatus{Name: "mast"} }}
	n.open()
	return n
}

func (n *node) open() {
	n.t.Helper()
	s, err := spool.Open(spool.Options{
		Live: filepath.Join(n.dir, fmt.Sprint("run", n.boot)), Disk: filepath.Join(n.dir, "perm"), Boot: n.boot, Owner: spool.Owner{Network: "network-key", Node: n.key.ID()}, Budget: 64 << 20, Delay: 2 * time.Minute,
		Clock: func() (time.Time, model.ClockQuality) { return time.Now(), model.ClockGateway }, Log: quiet,
	})
	if err != nil {
		n.t.Fatal(err)
	}
	n.spool = s
}

// start runs the sender and returns what stops it, as the end of the process.
func (n *node) start(g *gateway) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	opt := Options{
		URL: g.url, Key: n.key, Version: "test", Spool: n.spool, Status: n.status, Board: n.board, Retry: n.retry, Log: quiet,
		Health: func(s health.State, detail string) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.health = append(n.health, string(s)+": "+detail)
		},
		AckTimeout: n.ack, BusyPause: n.busy, StatusCheck: 20 * time.Millisecond, MinPause: 2 * time.Millisecond, MaxPause: 20 * time.Millisecond,
	}
	go func() { done <- Run(ctx, opt) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			n.t.Error(err)
		}
	})
	n.t.Cleanup(stop)
	return stop
}

var schemas = []wire.Schema{
	{Metrics: []wire.Metric{wire.NewMetric("test.a.x", "", 0)}},
	{Metrics: []wire.Metric{wire.NewMetric("test.a.x", "", 0), wire.NewMetric("test.b.y", "", 0)}},
}

func (n *node) add(count int) {
	n.t.Helper()
	for range count {
		s := schemas[rand.IntN(2)]
		r := wire.Report{Time: time.Now().UnixMilli(), Values: make([]wire.Value, len(s.Metrics))}
		for i := range r.Values {
			r.Values[i] = wire.Int(rand.Int64())
		}
		if err := n.spool.AddBatch(s, wire.Batch{Header: wire.Header{Clock: model.ClockGateway}, Reports: []wire.Report{r}}, time.Now()); err != nil {
			n.t.Fatal(err)
		}
	}
}

func (n *node) flush() {
	n.t.Helper()
	if err := n.spool.Flush(time.Now(), true); err != nil {
		n.t.Fatal(err)
	}
}

// wait blocks until ok, which is asked whenever something came to the gateway.
func (g *gateway) wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	timeout := time.After(limit)
	again := time.NewTicker(10 * time.Millisecond) // some conditions change on the node
	defer again.Stop()
	for {
		g.mu.Lock()
		done := ok()
		g.mu.Unlock()
		if done {
			return
		}
		select {
		case <-g.changed:
		case <-again.C:
		case <-timeout:
			t.Fatalf("it never came: %s", what)
		}
	}
}

func (n *node) empty() bool {
	st := n.spool.Stats()
	return st.Live == 0 && st.Segments == 0
}

// complete checks that the gateway has every batch of a boot.
func (g *gateway) complete(t *testing.T, boot uint64, count int) {
	t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	have := 0
	for id := range g.batches {
		if id.Boot == boot {
			have++
		}
	}
	if have != count {
		t.Errorf("boot %d: the gateway has %d batches, want %d", boot, have, count)
	}
	for seq := range uint64(count) {
		if _, ok := g.batches[wire.ID(boot, seq+1)]; !ok {
			t.Errorf("batch %d.%d is missing", boot, seq+1)
		}
	}
}

// TestHostileGateway sends through a gateway that drops, hangs up, doubles,
// forgets and refuses, while the agent is killed and the power cut. What the
// node had kept arrives, each batch once and with one content.
func TestHostileGateway(t *testing.T) {
	g, n := newGateway(t), newNode(t)
	chance, fate := rand.New(rand.NewPCG(5, 6)), rand.New(rand.NewPCG(7, 8)) // of the test, and of the gateway
	calm := false
	g.on = func(wire.BatchID) reply {
		if calm {
			return proper
		}
		switch fate.IntN(40) {
		case 0:
			return reply{} // lost
		case 1:
			return reply{store: true} // committed, the acknowledgement lost
		case 2:
			return reply{hangUp: true}
		case 3:
			return reply{store: true, hangUp: true}
		case 4:
			return reply{store: true, ack: 1, hangUp: true}
		case 5, 6:
			return reply{store: true, ack: 2}
		case 7:
			return reply{refuse: wire.RefuseBusy}
		case 8:
			return reply{store: true, ack: 1, forget: true}
		}
		return proper
	}
	counts := map[uint64]int{}
	for boot := uint64(1); boot <= 3; boot++ {
		n.boot = boot
		n.open()
		for life := range 4 {
			stop := n.start(g)
			for range 10 {
				n.add(8)
				counts[boot] += 8
				if chance.IntN(3) == 0 {
					n.flush()
				}
				time.Sleep(time.Duration(chance.IntN(20)) * time.Millisecond)
			}
			if life == 3 {
				n.flush() // the shutdown before the power goes
			}
			stop()
			if life < 3 {
				n.open() // the process was killed: RAM is gone, /run is not
			}
		}
	}
	g.mu.Lock()
	calm = true
	g.mu.Unlock()
	n.boot++
	n.open()
	stop := n.start(g)
	g.wait(t, "an empty spool", n.empty)
	stop()
	for boot, count := range counts {
		g.complete(t, boot, count)
	}
}

func TestBacklogGoesOldestFirstAndLiveDataDoNotWait(t *testing.T) {
	g, n := newGateway(t), newNode(t)
	n.ack = limit // nothing is sent twice, however slow the test machine
	const old = 3000
	for range 3 {
		n.add(old / 3)
		n.flush()
	}
	n.boot = 2
	n.open()
	added := false
	g.on = func(id wire.BatchID) reply {
		if id.Boot == 1 && id.Seq == 100 && !added {
			added = true
			n.add(1)
		}
		return proper
	}
	n.start(g)
	g.wait(t, "everything", func() bool { return len(g.batches) == old+1 })
	g.mu.Lock()
	defer g.mu.Unlock()
	if at := slices.Index(g.order, wire.ID(2, 1)); at > 1000 {
		t.Errorf("the live batch came as number %d", at)
	}
	backlog := slices.DeleteFunc(slices.Clone(g.order), func(id wire.BatchID) bool { return id.Boot == 2 })
	if !slices.IsSortedFunc(backlog, func(a, b wire.BatchID) int { return int(a.Seq) - int(b.Seq) }) {
		t.Error("the backlog did not come in order")
	}
	if g.received != old+1 {
		t.Errorf("%d batches were sent for %d", g.received, old+1)
	}
}

func TestRefusals(t *testing.T) {
	for _, code := range []string{wire.RefuseUnauthorized, wire.RefuseUnknown, wire.RefuseRevoked} {
		t.Run(code, func(t *testing.T) {
			g, n := newGateway(t), newNode(t)
			tries := 0
			g.admit = func() *wire.Refuse {
				if tries++; tries <= 3 {
					return &wire.Refuse{Code: code, Text: "go away"}
				}
				return nil // an admin has changed their mind
			}
			n.add(3)
			n.start(g)
			g.wait(t, "an empty spool", n.empty)
			n.mu.Lock()
			defer n.mu.Unlock()
			if want := "failed: gateway refused: " + code + ": go away"; !slices.Contains(n.health, want) || n.health[len(n.health)-1] != "ok: " {
				t.Errorf("health went %q, want %q and ok in the end", n.health, want)
			}
		})
	}
}

func TestBatchThatCanNeverBeTakenHoldsUpNothing(t *testing.T) {
	g, n := newGateway(t), newNode(t)
	g.on = func(id wire.BatchID) reply {
		if id == wire.ID(1, 2) {
			return reply{refuse: wire.RefuseBatch}
		}
		return proper
	}
	n.add(4)
	n.flush()
	n.start(g)
	g.wait(t, "the event", func() bool { return len(g.events) == 1 && len(g.batches) == 3 })
	g.wait(t, "an empty spool", n.empty)
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, e := range g.events {
		if e.Kind != "telemetry.batch.refused" || e.Fields["batch"] != "1.2" {
			t.Errorf("got %+v", e)
		}
	}
}

// What the gateway does not take at present, a batch or an event, comes again on the same
// connection, with its schema, and holds up nothing else.
func TestWhatTheGatewayIsTooBusyForComesAgain(t *testing.T) {
	g, n := newGateway(t), newNode(t)
	n.ack, n.busy = limit, 300*time.Millisecond
	tries := map[wire.BatchID]int{}
	at := map[wire.BatchID]time.Time{}
	event := wire.ID(1, model.AgentEvents+1)
	batch := wire.ID(1, 2)
	g.on = func(id wire.BatchID) reply {
		tries[id]++
		if id == event || id == batch {
			if tries[id] < 3 {
				return reply{refuse: wire.RefuseBusy}
			}
			at[id] = time.Now()
		}
		return proper
	}
	n.add(4)
	if err := n.spool.AddEvent("test.event", model.Info, "it may wait", nil); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	n.start(g)
	g.wait(t, "what is not held up", func() bool { return len(g.batches) >= 3 })
	g.wait(t, "an empty spool", n.empty)
	g.complete(t, 1, 4)
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.hellos) != 1 || len(g.events) != 1 {
		t.Errorf("%d connections and %d events, want one of each", len(g.hellos), len(g.events))
	}
	for id, when := range at {
		if took := when.Sub(began); took < 2*n.busy {
			t.Errorf("%v came after %s, want two pauses of %s", id, took, n.busy)
		}
	}
	if len(at) != 2 || g.described < 3 {
		t.Errorf("got %v, and %d schemas; want that of the batch with it each time", at, g.described)
	}
}

// More events than the gateway takes at present do not hold up the readings behind them, and
// are not all sent again each time.
func TestABacklogOfEventsThatTheGatewayTakesSlowly(t *testing.T) {
	const events, atOnce = 40, 10
	g, n := newGateway(t), newNode(t)
	n.ack, n.busy = limit, 60*time.Millisecond
	begin, sent, taken := time.Now(), 0, 0
	g.on = func(id wire.BatchID) reply {
		if id.Seq < model.AgentEvents {
			return proper
		}
		sent++
		if taken >= atOnce+int(time.Since(begin)/n.busy) {
			return reply{refuse: wire.RefuseBusy}
		}
		taken++
		return proper
	}
	for k := range events {
		if err := n.spool.AddEvent("test.event", model.Info, fmt.Sprint("event ", k), nil); err != nil {
			t.Fatal(err)
		}
	}
	n.add(4)
	n.flush()
	n.start(g)
	g.wait(t, "the readings", func() bool {
		if len(g.batches) == 4 && len(g.events) == events {
			t.Error("the readings came behind all events")
		}
		return len(g.batches) == 4
	})
	g.wait(t, "an empty spool", n.empty)
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.events) != events || len(g.hellos) != 1 || sent > 3*events {
		t.Errorf("%d events came in %d connections, and were sent %d times; want %d, one and a few more than they are", len(g.events), len(g.hellos), sent, events)
	}
}

// However many segments of the spool it takes: what the gateway does not take of one kind
// holds up no other.
func TestLanesGoThroughTheSpoolEachForItself(t *testing.T) {
	const each = 600
	isEvent := func(id wire.BatchID) bool { return id.Seq >= model.AgentEvents }
	for name, held := range map[string]func(wire.BatchID) bool{
		"events wait":  isEvent,
		"batches wait": func(id wire.BatchID) bool { return !isEvent(id) },
	} {
		t.Run(name, func(t *testing.T) {
			g, n := newGateway(t), newNode(t)
			n.ack, n.busy = limit, 20*time.Millisecond
			calm := false
			g.on = func(id wire.BatchID) reply {
				if held(id) && !calm {
					return reply{refuse: wire.RefuseBusy}
				}
				return proper
			}
			for range 3 {
				n.add(each / 3)
				for range each / 3 {
					if err := n.spool.AddEvent("test.storm", model.Info, strings.Repeat("a neighbour came, and went; ", 10), nil); err != nil {
						t.Fatal(err)
					}
				}
				n.flush()
			}
			if st := n.spool.Stats(); st.Segments < 2 {
				t.Fatalf("expected several segments, got %+v", st)
			}
			n.start(g)
			g.wait(t, "the other kind", func() bool { return max(len(g.batches), len(g.events)) == each })
			g.mu.Lock()
			if got := min(len(g.batches), len(g.events)); got != 0 {
				t.Errorf("%d came of what waits", got)
			}
			calm = true
			g.mu.Unlock()
			g.wait(t, "an empty spool", n.empty)
			g.complete(t, 1, each)
			if len(g.events) != each {
				t.Errorf("got %d events, want %d", len(g.events), each)
			}
		})
	}
}

// An urgent event that the gateway does not take yet does not have those of the backlog wait
// longer: it goes out of its turn, and may do so at any time.
func TestUrgentEventsDoNotPostponeTheBacklog(t *testing.T) {
	for _, tc := range []struct {
		name string
		item sentItem
		kind spool.Kind
		want bool // the lane is paused
	}{
		{"live urgent event", sentItem{urgent: true}, spool.Event, false},
		{"live event", sentItem{}, spool.Event, true},
		{"event of the backlog", sentItem{backlog: 100}, spool.Event, true},
		{"urgent event of the backlog", sentItem{backlog: 100, urgent: true}, spool.Event, true},
		{"live batch", sentItem{}, spool.Batch, false},
		{"batch of the backlog", sentItem{backlog: 100}, spool.Batch, true},
	} {
		s := &session{Options: Options{BusyPause: time.Hour, Log: quiet}, sent: map[sentKey]sentItem{}, schemas: map[wire.SchemaID]bool{}}
		s.lanes[tc.kind] = lane{window: minWindow, flying: tc.item.backlog}
		k := sentKey{tc.kind, wire.ID(1, 1)}
		s.postpone(k, tc.item, "as the test wants")
		if l := s.lanes[tc.kind]; s.paused(tc.kind) != tc.want || l.flying != 0 || (l.window == 0) != tc.want {
			t.Errorf("%s: the lane is %+v, want it paused: %t", tc.name, l, tc.want)
		}
		if s.sent[k].after.IsZero() {
			t.Errorf("%s: it would be sent again at once", tc.name)
		}
	}
}

func TestAcknowledgementOfWhatWasNeverSentIsIgnored(t *testing.T) {
	g, n := newGateway(t), newNode(t)
	n.add(2)
	s := &session{Options: Options{Spool: n.spool}, sent: map[sentKey]sentItem{}, settled: map[sentKey]bool{}, acked: make(chan struct{}, 1)}
	s.ack(spool.Batch, []wire.BatchID{wire.ID(1, 1), wire.ID(1, 2)})
	if got := n.spool.Stats().Live; got != 2 || s.progress {
		t.Errorf("got %d items left and progress %v, want 2 and none", got, s.progress)
	}
	n.start(g)
	g.wait(t, "an empty spool", n.empty)
	g.complete(t, 1, 2)
}

func TestSchemaGoesOncePerConnection(t *testing.T) {
	g, n := newGateway(t), newNode(t)
	n.ack = limit
	n.start(g)
	n.add(50)
	g.wait(t, "an empty spool", n.empty)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.received != 50 || len(g.schemas) != 2 || len(g.hellos) != 1 {
		t.Errorf("got %d batches, %d schemas, %d connections, want 50, 2, 1", g.received, len(g.schemas), len(g.hellos))
	}
}

func TestStatusGoesAtOnceAndWhenItChanges(t *testing.T) {
	g, n := newGateway(t), newNode(t)
	var mu sync.Mutex
	st := model.NodeStatus{Name: "mast", Interfaces: []model.Interface{{Name: "eth0"}}}
	uptime := int64(0)
	n.status = func() model.NodeStatus {
		mu.Lock()
		defer mu.Unlock()
		uptime++ // changes all the time, as counters do
		now := st
		now.UptimeS = uptime
		now.Interfaces = []model.Interface{st.Interfaces[0]}
		now.Interfaces[0].RxBytes = uint64(uptime)
		return now
	}
	n.start(g)
	g.wait(t, "a first status", func() bool { return len(g.statuses) == 1 })
	n.add(20)
	g.wait(t, "an empty spool", n.empty)
	mu.Lock()
	st.Interfaces = []model.Interface{{Name: "eth0", Up: true}}
	mu.Unlock()
	g.wait(t, "a second status", func() bool { return len(g.statuses) == 2 })
	g.mu.Lock()
	defer g.mu.Unlock()
	if s := g.statuses[1]; !s.Interfaces[0].Up || s.UptimeS == 0 {
		t.Errorf("got %+v", s)
	}
}

func TestBoardGoesWhenItIsWanted(t *testing.T) {
	g, n := newGateway(t), newNode(t)
	n.status = func() model.NodeStatus {
		return model.NodeStatus{Name: "mast", BoardFile: &model.BoardRef{Name: "pole", Digest: "0123456789abcdef"}}
	}
	n.board = func() model.Board { return model.Board{Name: "pole", Overlay: []string{"dtoverlay=mm_wlan"}} }
	n.start(g)
	g.wait(t, "the board", func() bool { return len(g.boards) == 1 })
	g.mu.Lock()
	defer g.mu.Unlock()
	if b := g.boards[0]; b.Name != "pole" || len(b.Overlay) != 1 {
		t.Errorf("got %+v", b)
	}
	if f := g.statuses[0].BoardFile; f == nil || f.Digest != "0123456789abcdef" {
		t.Errorf("the heartbeat says %+v", f)
	}
}

func TestRetryEndsThePause(t *testing.T) {
	n := newNode(t)
	n.retry = make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	failed := make(chan struct{}, 10)
	go func() {
		_ = Run(ctx, Options{URL: "ws://127.0.0.1:1/x", Key: n.key, Spool: n.spool, Status: n.status, Retry: n.retry, Log: quiet,
			Health: func(health.State, string) { failed <- struct{}{} }, MinPause: time.Hour, MaxPause: time.Hour})
	}()
	for range 3 {
		select {
		case <-failed:
		case <-time.After(limit):
			t.Fatal("no attempt")
		}
		select {
		case n.retry <- struct{}{}:
		case <-time.After(limit):
			t.Fatal("nobody waits")
		}
	}
}

func TestAddressIsChecked(t *testing.T) {
	for _, u := range []string{"", "http://10.42.0.1:8080/", "ws:///x", "ws://[::1"} {
		if err := Run(t.Context(), Options{URL: u}); err == nil || !strings.Contains(err.Error(), "expected ws://host:port/path") {
			t.Errorf("%q: got %v", u, err)
		}
	}
}

// TestAStartThatIsCountedTwice loses nothing: what the card's number stands for already
// has another one when it is sent, whether the gateway was there at the start or not.
func TestAStartThatIsCountedTwice(t *testing.T) {
	n, g := newNode(t), newGateway(t)
	n.boot = 7
	for i, want := range []uint64{7, 8, 9} {
		n.dir = t.TempDir() // neither /run nor /perm is what it was
		n.open()
		n.add(3)
		n.flush()
		n.add(2)
		g.mu.Lock()
		g.hellos = nil
		g.mu.Unlock()
		stop := n.start(g)
		g.wait(t, "what waited", n.empty)
		n.add(2)
		g.wait(t, "what came", n.empty)
		stop()
		g.complete(t, want, 7)
		g.mu.Lock()
		var boots []uint64
		for _, h := range g.hellos {
			boots = append(boots, h.Boot)
		}
		g.mu.Unlock()
		boots = slices.Compact(boots) // a busy machine may have cost it a stream
		if wanted := map[bool][]uint64{false: {7}, true: {7, want}}[i > 0]; !slices.Equal(boots, wanted) {
			t.Errorf("start %d: it came as %v, want %v", i, boots, wanted)
		}
	}
}

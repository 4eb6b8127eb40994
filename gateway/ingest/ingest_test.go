package ingest

import (
	"context"
	"database/sql"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	_ "modernc.org/sqlite"

	"halo.internal/gateway/clock"
	"halo.internal/gateway/etag"
	"halo.internal/gateway/events"
	"halo.internal/gateway/registry"
	"halo.internal/gateway/store"
	"halo.internal/gateway/store/storetest"
	"halo.internal/gateway/telemetry"
	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/wire"
)

const patience = 2 * time.Minute

var schema = wire.Schema{Metrics: []wire.Metric{wire.NewMetric("system.cpu.used_percent", "%", 1)}}

// from makes the server believe that connections come from an overlay address:
// what WireGuard vouches for on a board.
type from struct {
	net.Listener
	remote chan netip.Addr
}

func (f from) Accept() (net.Conn, error) {
	c, err := f.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return fromConn{c, net.TCPAddrFromAddrPort(netip.AddrPortFrom(<-f.remote, 4711))}, nil
}

type fromConn struct {
	net.Conn
	remote net.Addr
}

func (c fromConn) RemoteAddr() net.Addr { return c.remote }

type fixture struct {
	*Server
	t        *testing.T
	url      string
	remote   chan netip.Addr
	gateway  identity.Key
	registry *registry.Registry
	dbPath   string
	life     []byte // that nodes tell

	config, journal *store.DB
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	dir := t.TempDir()
	storetest.PutConfig(t, filepath.Join(dir, "config.db"))
	config, _, err := store.OpenConfig(t.Context(), filepath.Join(dir, "config.db"))
	if err != nil {
		t.Fatal(err)
	}
	dbPath := filepath.Join(dir, "telemetry.db")
	series, _, err := telemetry.OpenJournal(t.Context(), dbPath)
	if err != nil {
		t.Fatal(err)
	}
	c := clock.New(time.Now, time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC))
	quiet := slog.New(slog.DiscardHandler)
	log := events.New(config, c, 1, quiet)
	f := &fixture{t: t, remote: make(chan netip.Addr, 8), gateway: identity.New(), dbPath: dbPath, config: config, journal: series}
	f.registry, err = registry.New(t.Context(), registry.Config{DB: config, Clock: c, Events: log, Key: f.gateway, Epoch: func() uint64 { return 1 }})
	if err != nil {
		t.Fatal(err)
	}
	readings, err := telemetry.Open(t.Context(), telemetry.Config{Journal: series, Dir: filepath.Join(dir, "telemetry"), Retention: telemetry.Retention{Budget: 1 << 30}, Now: c.Now, Sure: func() bool { return true }, Events: log, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	f.Server = New(Config{Registry: f.registry, Telemetry: readings, Events: log, Clock: c, Log: quiet, Every: 10 * time.Millisecond})
	srv := httptest.NewUnstartedServer(f.Server)
	srv.Listener = from{srv.Listener, f.remote}
	srv.Start()
	f.url = "ws" + strings.TrimPrefix(srv.URL, "http")
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 2)
	go func() { ran <- f.Run(ctx) }()
	go func() { ran <- log.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		for range 2 {
			if err := <-ran; err != nil {
				t.Error(err)
			}
		}
		srv.Close()
		if err := errors.Join(config.Close(), readings.Close(), series.Close()); err != nil {
			t.Error(err)
		}
	})
	return f
}

// admit joins a node and returns its overlay address.
func (f *fixture) admit(node identity.Key) netip.Addr {
	f.t.Helper()
	wg := node.WireGuardPublic()
	proof, err := identity.ProvePossession(f.gateway.Public(), node.Public(), node.WireGuard())
	if err != nil {
		f.t.Fatal(err)
	}
	r := model.JoinRequest{Network: f.gateway.Public().Base64(), IdentityKey: node.Public().Base64(), WireGuardKey: base64.StdEncoding.EncodeToString(wg[:]),
		Possession: base64.StdEncoding.EncodeToString(proof), Token: identity.NewJoinToken(1, time.Now().Add(time.Hour)).Text(f.gateway)}
	_, err = f.registry.Join(f.t.Context(), netip.Addr{}, r)
	p, ok := errors.AsType[*apitype.Problem](err)
	if !ok {
		f.t.Fatal(err)
	}
	r.Nonce = p.Nonce
	r.Signature = base64.StdEncoding.EncodeToString(node.Sign(model.JoinContext, r.SignedBytes()))
	m, err := f.registry.Join(f.t.Context(), netip.Addr{}, r)
	if err != nil {
		f.t.Fatal(err)
	}
	return m.OverlayV4
}

// node is the client's side of a stream.
type node struct {
	t    *testing.T
	conn *websocket.Conn
	key  identity.Key
}

// dial connects from an address and answers the challenge with key, claiming
// to be claimed.
func (f *fixture) dial(remote netip.Addr, key identity.Key, claimed identity.PublicKey) (*node, wire.Message) {
	f.t.Helper()
	f.remote <- remote
	ctx, cancel := context.WithTimeout(f.t.Context(), patience)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, f.url, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { conn.CloseNow() })
	n := &node{f.t, conn, key}
	c, ok := n.read().(wire.Challenge)
	if !ok {
		f.t.Fatal("expected a challenge first")
	}
	h := wire.Hello{Key: claimed[:], Boot: 1, Version: "test", Life: f.life}
	h.Signature = key.Sign(wire.StreamContext, h.SignedBytes(c.Nonce, strings.TrimPrefix(f.url, "ws://")))
	n.write(h)
	return n, n.read()
}

// stream connects a node that is admitted.
func (f *fixture) stream(key identity.Key, remote netip.Addr) *node {
	f.t.Helper()
	n, m := f.dial(remote, key, key.Public())
	if _, ok := m.(wire.Welcome); !ok {
		f.t.Fatalf("expected a welcome, got %+v", m)
	}
	return n
}

func (n *node) read() wire.Message {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), patience)
	defer cancel()
	_, b, err := n.conn.Read(ctx)
	if err != nil {
		n.t.Fatal(err)
	}
	m, err := wire.Unmarshal(b)
	if err != nil {
		n.t.Fatal(err)
	}
	return m
}

func (n *node) write(m wire.Message) {
	n.t.Helper()
	b, err := wire.Marshal(m)
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(n.t.Context(), patience)
	defer cancel()
	if err := n.conn.Write(ctx, websocket.MessageBinary, b); err != nil {
		n.t.Fatal(err)
	}
}

// acked waits until all these batches are acknowledged.
func (n *node) acked(ids ...wire.BatchID) {
	n.t.Helper()
	want := map[wire.BatchID]bool{}
	for _, id := range ids {
		want[id] = true
	}
	for len(want) > 0 {
		a, ok := n.read().(wire.Ack)
		if !ok {
			n.t.Fatalf("expected an ack of %v, got %+v", want, a)
		}
		for _, id := range a.IDs {
			delete(want, id)
		}
	}
}

func encode(t *testing.T, s wire.Schema, boot, seq uint64) []byte {
	t.Helper()
	b := wire.Batch{Header: wire.Header{BatchID: wire.ID(boot, seq), Clock: model.ClockGateway}}
	b.Reports = []wire.Report{{Time: time.Now().UnixMilli(), Values: []wire.Value{wire.Int(int64(seq))}}}
	data, err := b.Encode(s)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// wantEvent waits for an event of that kind about the node.
func (f *fixture) wantEvent(kind, node string) {
	f.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		list, _, err := f.Events.List(f.t.Context(), events.Query{Kind: kind, Node: node, Limit: 1})
		if err != nil {
			f.t.Fatal(err)
		}
		if len(list) > 0 {
			return
		}
	}
	f.t.Fatalf("there was no event %s of %s", kind, node)
}

func (f *fixture) coverage(node string) []apitype.BootCoverage {
	f.t.Helper()
	return f.Telemetry.Coverage(node).Boots
}

func TestBatchesAreCommittedThenAcknowledgedAndStoredOnce(t *testing.T) {
	f := newFixture(t)
	key := identity.New()
	addr := f.admit(key)
	n := f.stream(key, addr)
	n.write(wire.BatchMessage{Data: encode(t, schema, 1, 1)})
	if r, ok := n.read().(wire.Refuse); !ok || r.Code != wire.RefuseUnknownSchema || r.ID == nil || *r.ID != wire.ID(1, 1) {
		t.Fatalf("without its schema: got %+v", r)
	}
	n.write(wire.SchemaMessage{Schema: schema})
	var ids []wire.BatchID
	for seq := range uint64(20) {
		n.write(wire.BatchMessage{Data: encode(t, schema, 1, seq+1)})
		ids = append(ids, wire.ID(1, seq+1))
	}
	n.acked(ids...)
	again := encode(t, schema, 1, 20)
	n.write(wire.BatchMessage{Data: again}) // other time stamp: another content
	n.acked(wire.ID(1, 20))
	f.wantEvent("telemetry.conflict", key.ID())

	// A reconnect: the schema is known, the old stream ends, what was sent is sent again.
	n = f.stream(key, addr)
	n.write(wire.BatchMessage{Data: encode(t, schema, 1, 22)})
	n.acked(wire.ID(1, 22))
	b := f.coverage(key.ID())
	if len(b) != 1 || b[0].Count != 21 || len(b[0].Missing) != 1 || b[0].Missing[0] != (apitype.SeqRange{From: 21, To: 21}) {
		t.Errorf("got coverage %+v, want 21 batches and 21 missing", b)
	}
	if got := f.Telemetry.Latest().Node(key.ID(), ""); len(got) != 1 || got[0].Value != 2.2 {
		t.Errorf("latest: %+v, want 2.2", got)
	}
}

// TestTheWelcomeTellsOfWhichStartsThereIsSomething, by which a node whose card keeps nothing
// finds out that it counts one twice: what it measured in it would be taken for what is there.
func TestTheWelcomeTellsOfWhichStartsThereIsSomething(t *testing.T) {
	f := newFixture(t)
	key := identity.New()
	addr := f.admit(key)
	welcomed := func(want uint64) *node {
		t.Helper()
		n, m := f.dial(addr, key, key.Public())
		if w, ok := m.(wire.Welcome); !ok || w.Boot != want {
			t.Errorf("got %+v, want a welcome that tells of start %d", m, want)
		}
		return n
	}
	n := welcomed(0)
	n.write(wire.SchemaMessage{Schema: schema})
	n.write(wire.BatchMessage{Data: encode(t, schema, 6, 1)})
	n.acked(wire.ID(6, 1))
	n.write(wire.BatchMessage{Data: encode(t, schema, 5, 1)}) // of its backlog
	n.acked(wire.ID(5, 1))
	n = welcomed(6)
	n.write(wire.EventMessage{Event: model.Event{Boot: 9, Seq: 1, Kind: "agent.test", Severity: model.Info, Time: time.Now()}})
	if a, ok := n.read().(wire.AckEvents); !ok || len(a.IDs) != 1 || a.IDs[0] != wire.ID(9, 1) {
		t.Fatalf("got %+v, want an ack of the event", a)
	}
	welcomed(9)
	other := identity.New()
	if _, m := f.dial(f.admit(other), other, other.Public()); m.(wire.Welcome).Boot != 0 {
		t.Errorf("another node is told of start %d", m.(wire.Welcome).Boot)
	}
}

func TestWhoMayConnect(t *testing.T) {
	f := newFixture(t)
	a, b, stranger, revoked := identity.New(), identity.New(), identity.New(), identity.New()
	addrA, addrB, addrR := f.admit(a), f.admit(b), f.admit(revoked)
	if _, err := f.registry.Revoke(t.Context(), revoked.ID(), etag.Match{}); err != nil {
		t.Fatal(err)
	}
	loop := netip.MustParseAddr("127.0.0.1")
	for _, tc := range []struct {
		name    string
		remote  netip.Addr
		key     identity.Key
		claimed identity.PublicKey
		code    string // empty: welcome
		event   string
	}{
		{"own address", addrA, a, a.Public(), "", ""},
		{"own IPv6 address", identity.Overlay(f.gateway.Public(), a.Public()), a, a.Public(), "", ""},
		{"gateway's agent on the loopback", loop, f.gateway, f.gateway.Public(), "", ""},
		{"another node's identity", addrB, b, a.Public(), wire.RefuseUnauthorized, "stream.signature"},
		{"another node's address", addrB, a, a.Public(), wire.RefuseUnauthorized, "stream.source"},
		{"node on the loopback", loop, b, b.Public(), wire.RefuseUnauthorized, "stream.source"},
		{"stranger", addrA, stranger, stranger.Public(), wire.RefuseUnknown, ""},
		{"revoked", addrR, revoked, revoked.Public(), wire.RefuseRevoked, "stream.revoked"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f.t = t
			_, m := f.dial(tc.remote, tc.key, tc.claimed)
			if _, welcome := m.(wire.Welcome); welcome != (tc.code == "") {
				t.Fatalf("got %+v, want refusal %q", m, tc.code)
			}
			if r, ok := m.(wire.Refuse); ok && r.Code != tc.code {
				t.Errorf("got %+v, want code %s", r, tc.code)
			}
			if tc.event != "" {
				f.wantEvent(tc.event, tc.claimed.ID())
			}
		})
	}
}

func TestBadBatchesAreRefusedWithAnEvent(t *testing.T) {
	good := func(t *testing.T) []byte { return encode(t, schema, 1, 1) }
	for _, tc := range []struct {
		name   string
		damage func([]byte) []byte
	}{
		{"wrong hash", func(b []byte) []byte { b[len(b)-1] ^= 1; return b }},
		{"a bit flipped", func(b []byte) []byte { b[len(b)/2] ^= 1; return b }},
		{"too short", func(b []byte) []byte { return b[:len(b)-6] }},
		{"too long", func(b []byte) []byte { return append(b, 0) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFixture(t)
			key := identity.New()
			addr := f.admit(key)
			n := f.stream(key, addr)
			n.write(wire.SchemaMessage{Schema: schema})
			n.write(wire.BatchMessage{Data: tc.damage(good(t))})
			f.wantEvent("telemetry.malformed", key.ID())
			n = f.stream(key, addr) // what was damaged on the way comes again
			n.write(wire.BatchMessage{Data: good(t)})
			n.acked(wire.ID(1, 1))
		})
	}
}

// While another process holds the database nothing is acknowledged, and
// nothing is lost.
func TestLockedDatabase(t *testing.T) {
	f := newFixture(t)
	key := identity.New()
	n := f.stream(key, f.admit(key))
	n.write(wire.SchemaMessage{Schema: schema})
	n.write(wire.BatchMessage{Data: encode(t, schema, 1, 1)})
	n.acked(wire.ID(1, 1))

	other, err := sql.Open("sqlite", "file:"+f.dbPath+"?_txlock=immediate")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	tx, err := other.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for seq := uint64(2); seq <= 5; seq++ {
		n.write(wire.BatchMessage{Data: encode(t, schema, 1, seq)})
	}
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		n.acked(wire.ID(1, 2), wire.ID(1, 3), wire.ID(1, 4), wire.ID(1, 5))
	}()
	select {
	case <-heard:
		t.Fatal("acknowledged without a commit")
	case <-time.After(500 * time.Millisecond):
	}
	if err := tx.Rollback(); err != nil {
		t.Fatal(err)
	}
	<-heard
	if b := f.coverage(key.ID()); b[0].Count != 5 || len(b[0].Missing) != 0 {
		t.Errorf("got %+v, want all five", b)
	}
}

// fill has a database take nothing more until the function returned is called, as on a full card.
func fill(t *testing.T, db *store.DB) (free func()) {
	t.Helper()
	most := func(pages int64) {
		t.Helper()
		if err := db.Write(t.Context(), func(tx *sql.Tx) error {
			_, err := tx.Exec(fmt.Sprintf("PRAGMA max_page_count = %d", pages))
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	most(1) // it becomes as many as there are
	return func() {
		t.Helper()
		most(1 << 30)
	}
}

// spoken takes down who has said something about commands.
type spoken chan string

func (s spoken) Attach(string, []byte, time.Time, func(wire.Message)) (detach func()) {
	return func() {}
}

func (s spoken) Take(_ context.Context, node string, _ wire.Message) bool {
	s <- node
	return true
}

// A telemetry database that takes nothing holds up neither events nor what is said of commands
// nor the node's status, however many readings come meanwhile: they are to come again later.
func TestTelemetryThatTakesNothing(t *testing.T) {
	f := newFixture(t)
	commands := make(spoken, 1)
	f.Commands = commands
	key := identity.New()
	n := f.stream(key, f.admit(key))
	n.write(wire.SchemaMessage{Schema: schema})
	n.write(wire.BatchMessage{Data: encode(t, schema, 1, 1)})
	n.acked(wire.ID(1, 1))
	free := fill(t, f.journal)
	seq := uint64(2)
	for ; ; seq++ {
		n.write(wire.BatchMessage{Data: encode(t, schema, 1, seq)})
		m := n.read()
		if r, ok := m.(wire.Refuse); ok {
			if r.Code != wire.RefuseBusy || r.ID == nil || *r.ID != wire.ID(1, seq) || r.Event || r.Text != unavailable {
				t.Fatalf("got %+v, want batch %d to be busy", r, seq)
			}
			break
		}
		if _, ok := m.(wire.Ack); !ok || seq > 10_000 { // there is some room in the file
			t.Fatalf("batch %d: got %+v", seq, m)
		}
	}
	n.write(wire.EventMessage{Event: model.Event{Boot: 1, Seq: 1, Time: time.Now(), Kind: "mesh.test", Severity: model.Error}})
	for k := range uint64(2 * liveLength) {
		n.write(wire.BatchMessage{Data: encode(t, schema, 1, seq+k)})
	}
	for again, event := 0, false; again < 2*liveLength || !event; {
		switch m := n.read().(type) {
		case wire.AckEvents:
			event = slices.Contains(m.IDs, wire.ID(1, 1))
		case wire.Refuse:
			if m.Code != wire.RefuseBusy || m.Event {
				t.Fatalf("got %+v, want a batch to be busy", m)
			}
			again++
		default:
			t.Fatalf("got %+v", m)
		}
	}
	n.write(wire.AbilitiesMessage{})
	select {
	case from := <-commands:
		if from != key.ID() {
			t.Errorf("%s speaks of commands, want %s", from, key.ID())
		}
	case <-time.After(patience):
		t.Error("what it says of commands is not heard")
	}
	n.write(wire.StatusMessage{Status: model.NodeStatus{State: "degraded"}})
	n.write(wire.EventMessage{Event: model.Event{Boot: 1, Seq: 2, Time: time.Now(), Kind: "mesh.test", Severity: model.Info}})
	if a, ok := n.read().(wire.AckEvents); !ok || !slices.Contains(a.IDs, wire.ID(1, 2)) {
		t.Errorf("got %+v, want the event acknowledged", a)
	}
	if got, err := f.registry.Node(t.Context(), key.ID()); err != nil || !got.Online || got.State != "degraded" {
		t.Errorf("got %+v, %v", got, err)
	}
	if got := f.allowances.of(key.ID(), &nodeOctets).Tokens(); got < float64(nodeOctets.burst)/2 {
		t.Errorf("what was not taken counts: %g octets are left", got)
	}
	free()
	n.write(wire.BatchMessage{Data: encode(t, schema, 1, seq)})
	n.acked(wire.ID(1, seq))
}

// Events that config.db does not take are to come again later, and readings go on.
func TestEventsThatAreNotTaken(t *testing.T) {
	f := newFixture(t)
	key := identity.New()
	n := f.stream(key, f.admit(key))
	n.write(wire.SchemaMessage{Schema: schema})
	n.write(wire.BatchMessage{Data: encode(t, schema, 1, 1)})
	n.acked(wire.ID(1, 1))
	free := fill(t, f.config)
	event := func(seq uint64) wire.Message {
		n.write(wire.EventMessage{Event: model.Event{Boot: 1, Seq: seq, Time: time.Now(), Kind: "mesh.test", Severity: model.Warning, Message: strings.Repeat("x", 1000)}})
		return n.read()
	}
	seq := uint64(1)
	for ; ; seq++ {
		m := event(seq)
		if r, ok := m.(wire.Refuse); ok {
			if r.Code != wire.RefuseBusy || !r.Event || r.ID == nil || *r.ID != wire.ID(1, seq) || r.Text != unavailable {
				t.Fatalf("got %+v, want event %d to be busy", r, seq)
			}
			break
		}
		if _, ok := m.(wire.AckEvents); !ok || seq > 1000 {
			t.Fatalf("event %d: got %+v", seq, m)
		}
	}
	n.write(wire.BatchMessage{Data: encode(t, schema, 1, 2)})
	n.acked(wire.ID(1, 2))
	free()
	if a, ok := event(seq).(wire.AckEvents); !ok || !slices.Contains(a.IDs, wire.ID(1, seq)) {
		t.Errorf("got %+v, want event %d acknowledged", a, seq)
	}
}

func TestEventsAndHeartbeats(t *testing.T) {
	f := newFixture(t)
	key := identity.New()
	n := f.stream(key, f.admit(key))
	e := model.Event{Boot: 1, Seq: 4, Time: time.Now(), Kind: "mesh.port.proven", Severity: model.Info, Message: "eth0 is proven"}
	for range 2 {
		n.write(wire.EventMessage{Event: e})
		if a, ok := n.read().(wire.AckEvents); !ok || a.IDs[0] != wire.ID(1, 4) {
			t.Fatalf("got %+v, want the event acknowledged", a)
		}
	}
	list, _, err := f.Events.List(t.Context(), events.Query{Kind: "mesh.", Limit: 10})
	if err != nil || len(list) != 1 || list[0].Source != key.ID() || list[0].Message != e.Message {
		t.Errorf("got %+v, %v; want it once", list, err)
	}
	n.write(wire.StatusMessage{Status: model.NodeStatus{State: "degraded", Missing: "gps", Interfaces: []model.Interface{{Name: "eth0", Kind: "ethernet"}}}})
	n.write(wire.EventMessage{Event: model.Event{Boot: 1, Seq: 5, Kind: "a.b", Severity: model.Info}}) // its answer comes after the status was taken
	n.read()
	got, err := f.registry.Node(t.Context(), key.ID())
	if err != nil || !got.Online || got.State != "degraded" || got.Missing != "gps" || got.Boot != 1 {
		t.Errorf("got %+v, %v", got, err)
	}
	n.conn.CloseNow()
	f.wantEvent("node.offline", key.ID())
}

// A node reports of itself alone. What it says in another's name, or in the
// gateway's, is not stored; the node need not keep it, and an event names it.
func TestANodeReportsOfItselfAlone(t *testing.T) {
	f := newFixture(t)
	key, other := identity.New(), identity.New()
	f.admit(other)
	n := f.stream(key, f.admit(key))
	for seq, tc := range []struct {
		kind, node string
		stored     bool
	}{
		{"mesh.port.proven", "", true},
		{"mesh.port.found", key.ID(), true},
		{"node.started", key.ID(), true},
		{"join.refused", key.ID(), true},
		{"mesh.port.gone", other.ID(), false},
		{"mesh.port.gone", f.gateway.ID(), false},
		{"mesh.port.gone", strings.Repeat("x", 500), false},
		{"auth.claimed", "", false},
		{"node.joined", key.ID(), false},
		{"registry.joined", "", false},
		{"gateway.epoch-raised", "", false},
		{"mesh.radio.capture", "", false},
		{"gateway.restored", "", false},
		{"backup.created", "", false},
		{"Auth.claimed", "", false},
		{"auth\x1b.claimed", "", false},
		{"auth", "", false},
	} {
		id := wire.ID(1, uint64(seq)+1)
		text := fmt.Sprint("case ", seq)
		n.write(wire.EventMessage{Event: model.Event{Boot: id.Boot, Seq: id.Seq, Time: time.Now(), Kind: tc.kind, Node: tc.node, Severity: model.Info, Message: text}})
		if a, ok := n.read().(wire.AckEvents); !ok || len(a.IDs) != 1 || a.IDs[0] != id {
			t.Fatalf("%s about %q: got %+v, want it acknowledged", tc.kind, tc.node, a)
		}
		list, _, err := f.Events.List(t.Context(), events.Query{Limit: 100})
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(list, func(e apitype.Event) bool { return e.Message == text })
		if i >= 0 != tc.stored {
			t.Errorf("%s about %q: stored: %t, want %t", tc.kind, tc.node, i >= 0, tc.stored)
		} else if tc.stored && (list[i].Source != key.ID() || list[i].Node != key.ID()) {
			t.Errorf("%s: got %+v, want it from and about %s", tc.kind, list[i], key.ID())
		}
	}
	f.wantEvent("event.foreign", key.ID())
	list, _, err := f.Events.List(t.Context(), events.Query{Kind: "event.foreign", Limit: 10})
	if err != nil || len(list) != 1 || list[0].Source != events.Source || !strings.Contains(list[0].Message, other.ID()) {
		t.Errorf("got %+v, %v; want one event of the gateway's own, which tells of the first refusal", list, err)
	}
}

// An event that the database never takes is given up with a word; the others
// of its group, which may be anybody's, are stored and acknowledged.
func TestAnEventThatNeverFitsBlocksNobody(t *testing.T) {
	f := newFixture(t)
	key := identity.New()
	n := f.stream(key, f.admit(key))
	other, err := sql.Open("sqlite", "file:"+filepath.Join(filepath.Dir(f.dbPath), "config.db")+"?_pragma=busy_timeout(5000)")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, err := other.Exec(`CREATE TRIGGER no_bad BEFORE INSERT ON events WHEN NEW.kind = 'a.bad' BEGIN SELECT RAISE(ABORT, 'never'); END`); err != nil {
		t.Fatal(err)
	}
	waiting := map[wire.BatchID]bool{}
	for seq, kind := range []string{"a.good", "a.bad", "a.good"} {
		id := wire.ID(1, uint64(seq)+1)
		waiting[id] = true
		n.write(wire.EventMessage{Event: model.Event{Boot: id.Boot, Seq: id.Seq, Time: time.Now(), Kind: kind, Severity: model.Info}})
	}
	for len(waiting) > 0 {
		a, ok := n.read().(wire.AckEvents)
		if !ok {
			t.Fatalf("got %+v, want %v acknowledged", a, waiting)
		}
		for _, id := range a.IDs {
			delete(waiting, id)
		}
	}
	f.wantEvent("event.malformed", key.ID())
	if list, _, err := f.Events.List(t.Context(), events.Query{Kind: "a.", Limit: 10}); err != nil || len(list) != 2 {
		t.Errorf("got %+v, %v; want the two good ones", list, err)
	}
}

func TestRevokingEndsTheStream(t *testing.T) {
	f := newFixture(t)
	key := identity.New()
	n := f.stream(key, f.admit(key))
	f.wantEvent("node.online", key.ID())
	f.Disconnect(key.ID())
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, _, err := n.conn.Read(ctx); err == nil || ctx.Err() != nil {
		t.Errorf("the stream goes on: %v", err)
	}
}

// knock dials from an address and says nothing; it returns the status.
func (f *fixture) knock(addr netip.Addr) (status int, again string) {
	f.t.Helper()
	f.remote <- addr
	ctx, cancel := context.WithTimeout(f.t.Context(), patience)
	defer cancel()
	c, resp, err := websocket.Dial(ctx, f.url, &websocket.DialOptions{HTTPClient: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}) // each is a connection of its own
	if err == nil {
		f.t.Cleanup(func() { c.CloseNow() })
	}
	if resp == nil {
		f.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header.Get("Retry-After")
}

// Who is silent takes few of the places of those who have not shown their key, and strangers
// none, however many they are: a node still gets in.
func TestStrangersKeepNobodyOut(t *testing.T) {
	f := newFixture(t)
	key := identity.New()
	addr := f.admit(key)
	for k := range 2 * maxUnproven {
		for _, stranger := range []netip.Addr{
			netip.AddrFrom4([4]byte{192, 0, 2, byte(k)}), netip.AddrFrom4([4]byte{10, 41, 0, byte(k)}), netip.AddrFrom4([4]byte{10, 43, 0, byte(k)}),
			netip.AddrFrom4([4]byte{10, 42, 255, byte(k)}), identity.Underlay(f.gateway.Public(), identity.PublicKey{byte(k)}), identity.Overlay(key.Public(), identity.PublicKey{byte(k)}),
		} {
			if status, _ := f.knock(stranger); status != http.StatusForbidden {
				t.Fatalf("%s: got %d, want 403", stranger, status)
			}
		}
	}
	captured := netip.MustParseAddr("10.42.0.99")
	for k := range 2 * maxUnprovenEach {
		status, again := f.knock(captured)
		if fits := k < maxUnprovenEach; fits != (status == http.StatusSwitchingProtocols) || !fits && (status != http.StatusServiceUnavailable || again == "") {
			t.Errorf("connection %d of a silent node: got %d, Retry-After %q", k, status, again)
		}
	}
	f.stream(key, addr)
	for k := range maxUnproven {
		f.knock(netip.AddrFrom4([4]byte{10, 42, 1, byte(k / maxUnprovenEach)}))
	}
	if status, again := f.knock(netip.MustParseAddr("10.42.2.1")); status != http.StatusServiceUnavailable || again == "" {
		t.Errorf("beyond all of them: got %d, Retry-After %q; want 503", status, again)
	}
}

func TestSilenceIsMeasuredByWhatTheNodeTold(t *testing.T) {
	for interval, want := range map[uint64]time.Duration{0: 130 * time.Second, 4: 18 * time.Second, 60: 130 * time.Second, 3600: 2*time.Hour + 10*time.Second} {
		if got := quietAfter(interval); got != want {
			t.Errorf("a node that sends every %d s may be silent for %s, want %s", interval, got, want)
		}
	}
}

// What a node has more of than it may, events and schemas, is told so and not taken; it can
// send it later, and neither its other readings nor other nodes are held up.
func TestANodeThatHasTooMuchOfEverything(t *testing.T) {
	f := newFixture(t)
	key, other := identity.New(), identity.New()
	n, quiet := f.stream(key, f.admit(key)), f.stream(other, f.admit(other))
	n.write(wire.SchemaMessage{Schema: schema})
	n.write(wire.BatchMessage{Data: encode(t, schema, 1, 1)})
	n.acked(wire.ID(1, 1))

	for k := range newSchemas.burst {
		n.write(wire.SchemaMessage{Schema: wire.Schema{Metrics: []wire.Metric{wire.NewMetric(fmt.Sprintf("made.up.m%d", k), "", 1)}}})
	}
	late := wire.Schema{Metrics: []wire.Metric{wire.NewMetric("made.up.late", "", 1)}}
	before := f.Telemetry.Commits()
	n.write(wire.SchemaMessage{Schema: late})
	n.write(wire.BatchMessage{Data: encode(t, late, 1, 2)})
	if r, ok := n.read().(wire.Refuse); !ok || r.Code != wire.RefuseBusy || r.ID == nil || *r.ID != wire.ID(1, 2) || r.Event || !strings.Contains(r.Text, "schema") {
		t.Fatalf("got %+v", r)
	}
	if _, err := f.Telemetry.Schema(late.ID()); err == nil {
		t.Error("a schema beyond what the node may have was stored")
	}
	n.write(wire.BatchMessage{Data: encode(t, schema, 1, 3)}) // another one is not held up
	n.acked(wire.ID(1, 3))
	quiet.write(wire.SchemaMessage{Schema: wire.Schema{Metrics: []wire.Metric{wire.NewMetric("honest.m.x", "", 1)}}})
	quiet.write(wire.BatchMessage{Data: encode(t, wire.Schema{Metrics: []wire.Metric{wire.NewMetric("honest.m.x", "", 1)}}, 1, 1)})
	quiet.acked(wire.ID(1, 1))
	f.wantEvent("stream.held-back", key.ID())
	if got := f.Telemetry.Commits() - before; got > int64(newSchemas.burst)+8 {
		t.Errorf("%d commits", got)
	}

	// What waited is taken once it may be, on another connection as well.
	n = f.stream(key, identity.Overlay(f.gateway.Public(), key.Public()))
	f.allowances.of(key.ID(), &newSchemas).SetBurst(newSchemas.burst * 2)
	f.allowances.of(key.ID(), &newSchemas).SetLimit(1e6)
	time.Sleep(time.Millisecond)
	n.write(wire.SchemaMessage{Schema: late})
	n.write(wire.BatchMessage{Data: encode(t, late, 1, 2)})
	n.acked(wire.ID(1, 2))

	refused, taken := 0, 0
	send := func(seq uint64) {
		n.write(wire.EventMessage{Event: model.Event{Boot: 1, Seq: seq, Time: time.Now(), Kind: "mesh.test", Severity: model.Info}})
	}
	all := nodeEvents.burst + 20
	for seq := 1; taken+refused < all; seq++ {
		if seq <= all {
			send(uint64(seq))
		}
		for taken+refused < min(seq-200, all) { // a node reads its answers
			switch m := n.read().(type) {
			case wire.AckEvents:
				taken += len(m.IDs)
			case wire.Refuse:
				if m.Code != wire.RefuseBusy || !m.Event || m.ID == nil || !strings.Contains(m.Text, "events") {
					t.Fatalf("got %+v", m)
				}
				refused++
			}
		}
	}
	if refused == 0 || taken < nodeEvents.burst {
		t.Errorf("%d events were taken and %d refused, want %d and others", taken, refused, nodeEvents.burst)
	}
	quiet.write(wire.EventMessage{Event: model.Event{Boot: 1, Seq: 1, Time: time.Now(), Kind: "mesh.test", Severity: model.Info}})
	if a, ok := quiet.read().(wire.AckEvents); !ok || !slices.Contains(a.IDs, wire.ID(1, 1)) {
		t.Errorf("another node's event: got %+v", a)
	}
}

// A node that comes again and again is told to wait: each time is events of the gateway's.
func TestANodeThatComesAgainAndAgain(t *testing.T) {
	f := newFixture(t)
	key := identity.New()
	addr := f.admit(key)
	for range nodeStreams.burst {
		f.stream(key, addr).conn.CloseNow()
	}
	for range 10 { // some may have come back meanwhile
		if _, m := f.dial(addr, key, key.Public()); m != nil {
			if r, ok := m.(wire.Refuse); ok {
				if r.Code != wire.RefuseBusy || r.ID != nil {
					t.Errorf("got %+v", r)
				}
				f.wantEvent("stream.held-back", key.ID())
				return
			}
		}
	}
	t.Error("it was never told to wait")
}

// What a batch unfolds to is charged, however little it is on the wire.
func TestBatchesThatUnfoldAreCharged(t *testing.T) {
	f := newFixture(t)
	key := identity.New()
	n := f.stream(key, f.admit(key))
	var wide wire.Schema
	for k := range 64 {
		wide.Metrics = append(wide.Metrics, wire.NewMetric(fmt.Sprintf("constant.of.m%d", k), "", 0))
	}
	n.write(wire.SchemaMessage{Schema: wide})
	batch := func(seq uint64) []byte {
		b := wire.Batch{Header: wire.Header{BatchID: wire.ID(1, seq), Clock: model.ClockGPS}}
		for i := range wire.MaxValues / len(wide.Metrics) {
			b.Reports = append(b.Reports, wire.Report{Time: time.Now().Add(time.Duration(i) * time.Millisecond).UnixMilli(), Values: make([]wire.Value, len(wide.Metrics))})
			for k := range wide.Metrics {
				b.Reports[i].Values[k] = wire.Int(7)
			}
		}
		data, err := b.Encode(wide)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	tokens := f.allowances.of(key.ID(), &nodeOctets).Tokens
	data := batch(1)
	n.write(wire.BatchMessage{Data: data})
	n.acked(wire.ID(1, 1))
	const weight = 2 * wire.MaxValues
	if got := float64(nodeOctets.burst) - tokens(); got < weight/2 || got > weight { // some comes back meanwhile
		t.Errorf("%d octets were charged as %g, want %d", len(data), got, weight)
	}
	f.allowances.of(key.ID(), &nodeOctets).ReserveN(time.Now(), int(tokens())-weight/2)
	n.write(wire.BatchMessage{Data: batch(2)})
	if r, ok := n.read().(wire.Refuse); !ok || r.Code != wire.RefuseBusy || r.Text != nodeOctets.String() {
		t.Errorf("beyond what it may have: got %+v", r)
	}
}

// A node that sends faster than the week files take it in is told to come again with that. What
// is urgent of it, its events and other nodes are not held up.
func TestANodeThatFillsTheJournal(t *testing.T) {
	f := newFixture(t)
	key, other := identity.New(), identity.New()
	n, quiet := f.stream(key, f.admit(key)), f.stream(other, f.admit(other))
	var wide wire.Schema
	for k := range 32 {
		wide.Metrics = append(wide.Metrics, wire.NewMetric(fmt.Sprintf("noise.of.m%d", k), "", wire.ScaleFloat))
	}
	n.write(wire.SchemaMessage{Schema: wide})
	at, r := time.Now().Add(-time.Hour), rand.New(rand.NewPCG(1, 2))
	batch := func(seq uint64, urgent bool) []byte {
		b := wire.Batch{Header: wire.Header{BatchID: wire.ID(1, seq), Clock: model.ClockGPS}}
		for range 200 {
			at = at.Add(time.Millisecond)
			rep := wire.Report{Time: at.UnixMilli()}
			for range wide.Metrics {
				rep.Values = append(rep.Values, wire.Float(r.NormFloat64()))
			}
			b.Reports = append(b.Reports, rep)
		}
		b.Urgent = urgent
		data, err := b.Encode(wide)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	var sent uint64
	for f.Telemetry.Takes(key.ID(), true) {
		sent++
		n.write(wire.BatchMessage{Data: batch(sent, false)})
		n.acked(wire.ID(1, sent))
	}
	sent++
	late := batch(sent, false)
	tokens := f.allowances.of(key.ID(), &nodeOctets).Tokens()
	for range 3 {
		n.write(wire.BatchMessage{Data: late})
		if r, ok := n.read().(wire.Refuse); !ok || r.Code != wire.RefuseBusy || r.ID == nil || *r.ID != wire.ID(1, sent) || r.Event {
			t.Fatalf("got %+v, want it to be busy", r)
		}
	}
	if got := f.allowances.of(key.ID(), &nodeOctets).Tokens(); got < tokens {
		t.Errorf("what was not taken counts: %g of %g octets are left", got, tokens)
	}
	n.write(wire.BatchMessage{Data: batch(sent+1, true)})
	n.acked(wire.ID(1, sent+1))
	n.write(wire.EventMessage{Event: model.Event{Boot: 1, Seq: 1, Time: time.Now(), Kind: "mesh.test", Severity: model.Warning}})
	if a, ok := n.read().(wire.AckEvents); !ok || !slices.Contains(a.IDs, wire.ID(1, 1)) {
		t.Errorf("got %+v, want its event to be acknowledged", a)
	}
	quiet.write(wire.SchemaMessage{Schema: schema})
	for seq := range uint64(20) {
		quiet.write(wire.BatchMessage{Data: encode(t, schema, 1, seq+1)})
		quiet.acked(wire.ID(1, seq+1))
	}
	if got := f.coverage(key.ID())[0]; got.Count != sent || len(got.Missing) != 1 {
		t.Errorf("%d batches of the node were taken, want %d: %+v", got.Count, sent, got.Missing)
	}
	if err := f.Telemetry.Tend(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.write(wire.BatchMessage{Data: late})
	n.acked(wire.ID(1, sent))
}

// A node of which batches with so many schemas wait for the week files that it may have no
// more is told to come again with the next; its stream goes on, and what was not stored does
// not count.
func TestANodeWithTooManySchemas(t *testing.T) {
	f := newFixture(t)
	key := identity.New()
	n := f.stream(key, f.admit(key))
	allowance := f.allowances.of(key.ID(), &newSchemas)
	allowance.SetBurst(1000)
	allowance.SetLimit(1e6)
	time.Sleep(10 * time.Millisecond)
	allowance.SetLimit(1e-9)
	made := func(k int) wire.Schema {
		return wire.Schema{Metrics: []wire.Metric{wire.NewMetric(fmt.Sprintf("made.up.m%d", k), "", 1)}}
	}
	busy := func(seq uint64) bool {
		t.Helper()
		n.write(wire.SchemaMessage{Schema: made(int(seq))})
		n.write(wire.BatchMessage{Data: encode(t, made(int(seq)), 1, seq)})
		switch m := n.read().(type) {
		case wire.Ack:
		case wire.Refuse:
			if m.Code != wire.RefuseBusy || m.ID == nil || *m.ID != wire.ID(1, seq) {
				t.Fatalf("got %+v", m)
			}
			return true
		}
		return false
	}
	seq := uint64(1)
	for !busy(seq) {
		seq++
	}
	f.wantEvent("telemetry.schemas", key.ID())
	tokens := allowance.Tokens()
	for range 3 {
		if !busy(seq) {
			t.Error("one more was taken")
		}
	}
	if got := allowance.Tokens(); got < tokens {
		t.Errorf("what was not stored counts: %g of %g are left", got, tokens)
	}
	n.write(wire.BatchMessage{Data: encode(t, made(1), 1, seq+1)})
	n.acked(wire.ID(1, seq+1))
	if err := f.Telemetry.Tend(t.Context()); err != nil {
		t.Fatal(err)
	}
	if busy(seq) {
		t.Error("it is not taken when the files have what came")
	}
}

// Of a node for whose late readings too much was written anew, what is late waits until that is
// paid off, and nothing else does; an event says so.
func TestANodeThatHasMuchWrittenAnew(t *testing.T) {
	f := newFixture(t)
	key := identity.New()
	n := f.stream(key, f.admit(key))
	n.write(wire.SchemaMessage{Schema: schema})
	begin := time.Now().Truncate(time.Hour).Add(-100 * 24 * time.Hour)
	late := func(seq uint64, hour int) wire.Batch {
		b := wire.Batch{Header: wire.Header{BatchID: wire.ID(1, seq), Schema: schema.ID(), Clock: model.ClockGPS}}
		for h := range 150 {
			b.Reports = append(b.Reports, wire.Report{Time: begin.Add(time.Duration(hour+h)*time.Hour + time.Duration(seq)*time.Second).UnixMilli(), Values: []wire.Value{wire.Int(int64(seq))}})
		}
		return b
	}
	put := func(b wire.Batch) []byte {
		t.Helper()
		data, err := b.Encode(schema)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	var seq uint64
	old := begin.UnixMilli()
	for turn := 0; !f.Telemetry.Overdrawn(key.ID(), old, old); turn++ {
		if turn == 10 {
			t.Fatal("it may have as much written anew as it likes")
		}
		for hour := 0; hour < 2250; hour += 150 {
			seq++
			n.write(wire.BatchMessage{Data: put(late(seq, hour))})
			n.acked(wire.ID(1, seq))
		}
		if err := f.Telemetry.Tend(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	urgent := late(seq+1, 0)
	urgent.Urgent = true
	for _, b := range []wire.Batch{late(seq+1, 0), late(seq+1, 2250), urgent} {
		n.write(wire.BatchMessage{Data: put(b)})
		if r, ok := n.read().(wire.Refuse); !ok || r.Code != wire.RefuseBusy || r.Text != overdrawn || r.ID == nil || *r.ID != wire.ID(1, seq+1) {
			t.Fatalf("got %+v, want it to be busy", r)
		}
	}
	f.wantEvent("stream.held-back", key.ID())
	n.write(wire.BatchMessage{Data: encode(t, schema, 1, seq+2)})
	n.acked(wire.ID(1, seq+2))
	other := identity.New()
	o := f.stream(other, f.admit(other))
	o.write(wire.SchemaMessage{Schema: schema})
	o.write(wire.BatchMessage{Data: put(late(1, 0))})
	o.acked(wire.ID(1, 1))
	if got := f.coverage(key.ID())[0]; got.Count != seq+1 || len(got.Missing) != 1 {
		t.Errorf("%d batches were taken, want %d: %+v", got.Count, seq+1, got.Missing)
	}
}

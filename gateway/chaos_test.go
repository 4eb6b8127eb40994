package gateway

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"halo.internal/identity"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/paths"
	"halo.internal/model/wire"
)

// The child is gateway-api itself, in a process that can be killed: this binary, started
// again. It gives up what it does not need, as the program does.
const (
	envGateway = "HALO_TEST_GATEWAY" // folder
	envListen  = "HALO_TEST_LISTEN"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(envGateway); dir != "" {
		c := Laptop(dir, []string{os.Getenv(envListen)}, os.Stdout, slog.New(slog.NewTextHandler(os.Stderr, nil)))
		c.Confine, c.Every = true, 20*time.Millisecond
		if err := Run(context.Background(), c); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	flag.Parse()
	// Gateways wait for the disk, and for each other, more than they work.
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// process is a gateway that can be killed.
type process struct {
	*client
	dir, address string
	console, log output
	cmd          *exec.Cmd
}

func (p *process) start() {
	p.t.Helper()
	p.cmd = exec.Command("/proc/self/exe")
	p.cmd.Env = append(os.Environ(), envGateway+"="+p.dir, envListen+"="+p.address)
	p.cmd.Stdout, p.cmd.Stderr = &p.console, &p.log
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	cmd := p.cmd
	p.t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may be gone
		_ = cmd.Wait()
		if p.t.Failed() {
			p.t.Logf("log of the gateway:\n%s", p.log.String())
		}
	})
	p.ready()
}

// kill is kill -9.
func (p *process) kill() {
	p.t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		p.t.Fatal(err)
	}
	_ = p.cmd.Wait() // killed, as it reports
}

// ledger is what the gateway has acknowledged, and what it may have done besides: asked
// for when it died.
type ledger struct {
	mu    sync.Mutex
	acks  map[uint64]bool
	sent  uint64
	begun time.Time
	keys  map[string]keyState // API tokens by name
	last  string              // refresh token of the last answer
}

type keyState int

const (
	absent keyState = iota
	there
	either // nobody has heard what became of it
)

func (l *ledger) set(name string, s keyState) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keys[name] = s
}

// How often it is killed in the suite, and in a soak.
const (
	killsInSuite = 20
	killsInSoak  = 1000
)

// TestNothingAcknowledgedIsLostByKills: readings and changes that the gateway has
// acknowledged are there after it was killed, whatever it was at.
func TestNothingAcknowledgedIsLostByKills(t *testing.T) {
	t.Parallel()
	kills := killsInSuite
	if os.Getenv("HALO_SOAK") != "" {
		kills = killsInSoak
	}
	p := &process{client: newClient(t, ""), dir: t.TempDir(), address: freeAddress(t)}
	p.base = "http://" + p.address
	p.start()
	p.claim(printedCode(t, &p.console))
	tokens := p.login()
	id, err := identity.Load(paths.Dir(p.dir).File(paths.Identity), nil)
	if err != nil {
		t.Fatal(err)
	}
	l := &ledger{begun: time.Now().Add(-12 * time.Hour), acks: map[uint64]bool{}, keys: map[string]keyState{}, last: tokens.RefreshToken}
	random := rand.New(rand.NewPCG(7, uint64(kills)))
	var slowest time.Duration
	for round := range kills {
		ctx, cancel := context.WithCancel(t.Context())
		var work sync.WaitGroup
		work.Go(func() { l.stream(ctx, p, id.Key) })
		for w := range 3 {
			work.Go(func() { l.change(ctx, p, fmt.Sprintf("r%d-w%d", round, w)) })
		}
		if round%5 == 4 {
			work.Go(func() { l.refresh(ctx, p) })
		}
		time.Sleep(time.Duration(50+random.IntN(250)) * time.Millisecond)
		p.kill()
		cancel()
		work.Wait()
		p.http.CloseIdleConnections()
		began := time.Now()
		p.start()
		slowest = max(slowest, time.Since(began))
		l.verify(t, p, id.Key.ID(), round)
		if t.Failed() {
			return
		}
	}
	l.verifyValues(t, p, id.Key.ID())
	var audit apitype.AuditVerification
	if p.must("GET", "/v1/audit/verify", nil, &audit); !audit.Intact {
		t.Errorf("the audit log is %+v", audit)
	}
	var events apitype.EventList
	if p.must("GET", "/v1/events?kind=store.", nil, &events); len(events.Items) != 0 {
		t.Errorf("a kill is no damage: %+v", events.Items)
	}
	if len(l.acks) < kills || len(l.keys) < kills {
		t.Errorf("too little was done to tell: %d batches, %d changes", len(l.acks), len(l.keys))
	}
	t.Logf("%d kills, %d batches and %d changes acknowledged; the slowest start took %s", kills, len(l.acks), len(l.keys), slowest.Round(time.Millisecond))
}

var chaosSchema = wire.Schema{Metrics: []wire.Metric{{Name: "test.chaos.seq", Unit: "1"}}}

// stream sends batches as the gateway's own agent does, those first that were not
// acknowledged.
func (l *ledger) stream(ctx context.Context, p *process, key identity.Key) {
	conn, _, err := websocket.Dial(ctx, "ws://"+p.address+"/v1/nodes/stream", nil)
	if err != nil {
		return // it is dead already
	}
	defer conn.CloseNow()
	read := func() wire.Message {
		_, b, err := conn.Read(ctx)
		if err != nil {
			return nil
		}
		m, err := wire.Unmarshal(b)
		if err != nil {
			p.t.Error(err)
		}
		return m
	}
	write := func(m wire.Message) bool {
		b, err := wire.Marshal(m)
		if err != nil {
			p.t.Error(err)
			return false
		}
		return conn.Write(ctx, websocket.MessageBinary, b) == nil
	}
	c, ok := read().(wire.Challenge)
	if !ok {
		return
	}
	public := key.Public()
	h := wire.Hello{Key: public[:], Boot: 1, Version: "test"}
	h.Signature = key.Sign(wire.StreamContext, h.SignedBytes(c.Nonce, p.address))
	if !write(h) {
		return
	}
	if _, ok := read().(wire.Welcome); !ok || !write(wire.SchemaMessage{Schema: chaosSchema}) {
		return
	}
	room := make(chan struct{}, 32) // unacknowledged at once
	var acks sync.WaitGroup
	acks.Go(func() {
		for {
			switch m := read().(type) {
			case nil:
				return
			case wire.Ack:
				l.mu.Lock()
				for _, id := range m.IDs {
					l.acks[id.Seq] = true
				}
				l.mu.Unlock()
				for range m.IDs {
					<-room
				}
			case wire.Refuse:
				p.t.Errorf("refused: %+v", m)
				return
			}
		}
	})
	l.mu.Lock()
	var again []uint64
	for seq := uint64(1); seq <= l.sent; seq++ {
		if !l.acks[seq] {
			again = append(again, seq)
		}
	}
	l.mu.Unlock()
	for ctx.Err() == nil {
		var seq uint64
		if len(again) > 0 {
			seq, again = again[0], again[1:]
		} else {
			l.mu.Lock()
			l.sent++
			seq = l.sent
			l.mu.Unlock()
		}
		b := wire.Batch{Header: wire.Header{BatchID: wire.ID(1, seq), Clock: model.ClockGPS},
			// Of one instant one reading is kept, and of an hour block.MaxRows.
			Reports: []wire.Report{{Time: l.begun.Add(time.Duration(seq) * 100 * time.Millisecond).UnixMilli(), Values: []wire.Value{wire.Int(int64(seq))}}}}
		data, err := b.Encode(chaosSchema)
		if err != nil {
			p.t.Error(err)
			break
		}
		select {
		case room <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil || !write(wire.BatchMessage{Data: data}) {
			break
		}
	}
	conn.CloseNow()
	acks.Wait()
}

// change makes API tokens and takes every second one away.
func (l *ledger) change(ctx context.Context, p *process, name string) {
	for i := 0; ctx.Err() == nil; i++ {
		key := fmt.Sprintf("%s-%d", name, i)
		l.set(key, either)
		var made apitype.APIToken
		if _, err := p.as(ctx).do("POST", "/api/auth/tokens", apitype.CreateAPIToken{Name: key, Scopes: []string{apitype.ScopeNodesRead}, ExpiresS: 3600}, &made); err != nil {
			return
		}
		l.set(key, there)
		l.set(key, either)
		if _, err := p.as(ctx).do("DELETE", "/api/auth/tokens/"+made.ID, nil, nil); err != nil {
			return
		}
		l.set(key, absent)
		if i%10 != 0 {
			continue
		}
		key += "-kept"
		l.set(key, either)
		if _, err := p.as(ctx).do("POST", "/api/auth/tokens", apitype.CreateAPIToken{Name: key, Scopes: []string{apitype.ScopeNodesRead}}, &made); err != nil {
			return
		}
		l.set(key, there)
	}
}

// as is the client of somebody who does not wait longer than ctx.
func (p *process) as(ctx context.Context) *client {
	return &client{t: p.t, base: p.base, jwt: p.jwt, http: http.Client{Transport: withContext{ctx, p.http.Transport}}}
}

type withContext struct {
	ctx context.Context
	http.RoundTripper
}

func (w withContext) RoundTrip(r *http.Request) (*http.Response, error) {
	return w.RoundTripper.RoundTrip(r.WithContext(w.ctx))
}

// refresh goes on with the login.
func (l *ledger) refresh(ctx context.Context, p *process) {
	for ctx.Err() == nil {
		l.mu.Lock()
		last := l.last
		l.mu.Unlock()
		var next apitype.Tokens
		if _, err := p.as(ctx).do("POST", "/api/auth/refresh", apitype.RefreshRequest{RefreshToken: last}, &next); err != nil {
			return
		}
		l.mu.Lock()
		l.last = next.RefreshToken
		l.mu.Unlock()
	}
}

func (l *ledger) verify(t *testing.T, p *process, node string, round int) {
	t.Helper()
	var cover apitype.Coverage
	p.must("GET", "/v1/nodes/"+node+"/telemetry/sequences", nil, &cover)
	stored := func(seq uint64) bool {
		for _, b := range cover.Boots {
			if b.Boot == 1 && seq <= b.Last {
				return !slices.ContainsFunc(b.Missing, func(r apitype.SeqRange) bool { return r.From <= seq && seq <= r.To })
			}
		}
		return false
	}
	for seq := range l.acks {
		if !stored(seq) {
			t.Errorf("kill %d: batch %d was acknowledged and is not there: %+v", round, seq, cover)
		}
	}
	have := map[string]bool{}
	for cursor := ""; ; {
		var page apitype.APITokenList
		p.must("GET", "/api/auth/tokens?limit=500&cursor="+url.QueryEscape(cursor), nil, &page)
		for _, k := range page.Items {
			have[k.Name] = true
		}
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	for name, want := range l.keys {
		switch {
		case want == there && !have[name]:
			t.Errorf("kill %d: token %s was acknowledged and is not there", round, name)
		case want == absent && have[name]:
			t.Errorf("kill %d: token %s was taken away and is there again", round, name)
		case want == either: // whatever became of it stays so
			if l.keys[name] = absent; have[name] {
				l.keys[name] = there
			}
		}
		delete(have, name)
	}
	if len(have) > 0 {
		t.Errorf("kill %d: tokens that nobody has made: %v", round, slices.Collect(maps.Keys(have)))
	}
	// A refresh that was on its way may have come about, and gives the same again.
	var next apitype.Tokens
	if _, err := p.do("POST", "/api/auth/refresh", apitype.RefreshRequest{RefreshToken: l.last}, &next); err != nil {
		t.Errorf("kill %d: the login does not go on: %v", round, err)
		return
	}
	l.last, p.jwt = next.RefreshToken, next.AccessToken
	// There is an end to how many tokens there may be.
	if len(l.keys) > 500 {
		maps.DeleteFunc(l.keys, func(_ string, s keyState) bool { return s == absent })
	}
}

// verifyValues reads all that was measured.
func (l *ledger) verifyValues(t *testing.T, p *process, node string) {
	t.Helper()
	values := map[uint64]int{}
	for cursor := ""; ; {
		var page apitype.SampleList
		p.must("GET", "/v1/nodes/"+node+"/telemetry/range?metric=test.chaos.seq&limit=500&from="+l.begun.UTC().Format(time.RFC3339)+"&cursor="+url.QueryEscape(cursor), nil, &page)
		for _, s := range page.Items {
			values[uint64(s.Value)]++
		}
		if cursor = page.Next; cursor == "" {
			break
		}
	}
	for seq := range l.acks {
		if values[seq] != 1 {
			t.Errorf("reading %d was acknowledged and is there %d times", seq, values[seq])
		}
	}
}

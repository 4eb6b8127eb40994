package live

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/coder/websocket"

	"halo.internal/gateway/auth"
	"halo.internal/gateway/clock"
	"halo.internal/gateway/events"
	"halo.internal/gateway/store"
	"halo.internal/gateway/telemetry"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/wire"
)

// BenchmarkCommittedToTold is how long it takes from the commit of a batch of 12 metrics,
// one of 250 nodes', until all clients have its readings, decoded: p50 and p99 in
// milliseconds. All is in one process.
func BenchmarkCommittedToTold(b *testing.B) {
	for _, clients := range []int{1, 8, 32} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) { committedToTold(b, clients) })
	}
}

func committedToTold(b *testing.B, clients int) {
	const nodes, metrics = 250, 12
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	dir := b.TempDir()
	config, _, err := store.OpenConfig(ctx, filepath.Join(dir, "config.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer config.Close()
	journal, _, err := telemetry.OpenJournal(ctx, filepath.Join(dir, "telemetry.db"))
	if err != nil {
		b.Fatal(err)
	}
	defer journal.Close()
	c, quiet := clock.New(time.Now, time.Now().Add(-time.Hour)), slog.New(slog.DiscardHandler)
	series, err := telemetry.Open(ctx, telemetry.Config{Journal: journal, Dir: filepath.Join(dir, "telemetry"), Retention: telemetry.Retention{Budget: 1 << 30}, Now: c.Now, Sure: func() bool { return true }, Events: events.New(config, c, 1, quiet), Log: quiet})
	if err != nil {
		b.Fatal(err)
	}
	defer series.Close()
	var s wire.Schema
	for i := range metrics {
		s.Metrics = append(s.Metrics, wire.NewMetric(fmt.Sprintf("system.thing%d.used_percent", i), "%", 1))
	}
	seq := make([]uint64, nodes)
	entry := func(n int) telemetry.Entry {
		seq[n]++
		batch := wire.Batch{Header: wire.Header{BatchID: wire.ID(1, seq[n]), Schema: s.ID(), Clock: model.ClockGPS}}
		for i := range 6 {
			r := wire.Report{Time: time.Now().Add(time.Duration(i-6) * 10 * time.Second).UnixMilli()}
			for m := range metrics {
				r.Values = append(r.Values, wire.Int(int64(seq[n])+int64(m)))
			}
			batch.Reports = append(batch.Reports, r)
		}
		data, err := batch.Encode(s)
		if err != nil {
			b.Fatal(err)
		}
		return telemetry.Entry{Node: fmt.Sprintf("n-%020d", n), Schema: s, Batch: batch, Data: data}
	}
	var all []telemetry.Entry
	for n := range nodes {
		if err := series.PutSchema(ctx, fmt.Sprintf("n-%020d", n), s); err != nil {
			b.Fatal(err)
		}
		all = append(all, entry(n))
	}
	if _, err := series.Append(ctx, all); err != nil {
		b.Fatal(err)
	}

	hub := New(Config{Topics: []Topic{{Name: apitype.TopicTelemetry, Scope: apitype.ScopeTelemetryRead, Source: readingSource{series.Latest()}}}, Log: quiet,
		Authenticate: func(_ context.Context, token string) (auth.Principal, error) {
			return auth.Principal{Kind: "user", Name: token, Scopes: []string{apitype.ScopeAdmin}}, nil
		}})
	done := make(chan error, 1)
	go func() { done <- hub.Run(ctx) }()
	defer func() { cancel(); <-done }()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token := r.Header.Get("Authorization")
		p, _ := hub.Authenticate(r.Context(), token)
		_ = hub.Serve(w, r, p, token, netip.MustParseAddr("192.0.2.1"))
	}))
	defer srv.Close()

	type told struct {
		node string
		seq  uint64
	}
	heard := make(chan told, 1<<16)
	ready := make(chan struct{}, clients)
	for i := range clients {
		conn, _, err := websocket.Dial(ctx, srv.URL, &websocket.DialOptions{HTTPHeader: http.Header{"Authorization": {fmt.Sprint("user", i/maxOfOne)}}})
		if err != nil {
			b.Fatal(err)
		}
		defer conn.CloseNow()
		conn.SetReadLimit(1 << 20)
		if err := conn.Write(ctx, websocket.MessageText, []byte(`{"op":"subscribe","id":"t","topic":"telemetry"}`)); err != nil {
			b.Fatal(err)
		}
		go func() {
			first := true
			for {
				_, raw, err := conn.Read(ctx)
				if err != nil {
					return
				}
				var m apitype.LiveMessage
				if json.Unmarshal(raw, &m) != nil || m.Type != apitype.LiveChanges {
					continue
				}
				for _, item := range m.Items {
					var r apitype.LiveReadings
					if json.Unmarshal(item, &r) == nil && !first && len(r.Values) == metrics {
						heard <- told{r.Node, r.Seq}
					}
				}
				if first && !m.More {
					first = false
					ready <- struct{}{}
				}
			}
		}()
	}
	for range clients {
		<-ready
	}
	var took []time.Duration
	for n := 0; b.Loop(); n = (n + 1) % nodes {
		e := entry(n)
		if _, err := series.Append(ctx, []telemetry.Entry{e}); err != nil {
			b.Fatal(err)
		}
		began := time.Now()
		for missing := clients; missing > 0; {
			if h := <-heard; h.node == e.Node && h.seq == seq[n] {
				missing--
			}
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	ms := func(q float64) float64 { return float64(took[int(q*float64(len(took)-1))]) / float64(time.Millisecond) }
	b.ReportMetric(ms(0.50), "p50-ms")
	b.ReportMetric(ms(0.99), "p99-ms")
}

package load_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"halo.internal/gateway"
	"halo.internal/identity"
	"halo.internal/lab/load"
	"halo.internal/mesh/nstest"
	"halo.internal/model/paths"
	"halo.internal/model/wire"
	"halo.internal/model/wire/wiretest"
)

func TestMain(m *testing.M) { os.Exit(nstest.Main(m)) }

// Nodes that are played join a real gateway, and what they send is acknowledged, once each.
func TestPlayedNodes(t *testing.T) {
	if err := load.Overlay(); err != nil {
		t.Fatal(err)
	}
	key, dir := identity.New(), t.TempDir()
	if err := (identity.State{Key: key}).Save(paths.Dir(dir).File(paths.Identity), nil); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- gateway.Run(ctx, gateway.Laptop(dir, []string{load.Address()}, io.Discard, slog.New(slog.DiscardHandler)))
	}()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	w := load.Network{Key: key, URL: "http://" + load.Address()}
	for end := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		resp, err := http.Get(w.URL + "/capabilities")
		if err == nil && resp.StatusCode == http.StatusOK {
			resp.Body.Close()
			break
		}
		if time.Now().After(end) {
			t.Fatal("the gateway does not answer", err)
		}
	}
	nodes, err := w.Join(t.Context(), "n", 3)
	if err != nil {
		t.Fatal(err)
	}
	s := wiretest.Schema()
	for i, n := range nodes {
		var called atomic.Int64
		c, err := n.Connect(t.Context(), 64, s, func(wire.BatchID, time.Duration) { called.Add(1) })
		if err != nil {
			t.Fatal(err)
		}
		board := wiretest.NewBoard(uint64(i))
		const batches = 40
		for range batches {
			b := board.Batch(n.Boot, time.Now().Add(-time.Minute), 6, 10*time.Second)
			data, err := b.Encode(s)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Send(t.Context(), b.BatchID, data); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Settle(t.Context()); err != nil {
			t.Fatal(err)
		}
		if c.Acked() != batches || called.Load() != batches {
			t.Errorf("%s: %d of %d batches were acknowledged", n.Name, c.Acked(), batches)
		}
		if err := c.Send(t.Context(), wire.ID(n.Boot, batches+1), []byte("no batch")); err != nil {
			t.Fatal(err)
		}
		if err := c.Settle(t.Context()); err == nil {
			t.Error("what is no batch was acknowledged")
		}
		c.Close()
	}
}

package load_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
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

// TestMain is also the gateway-api that Run starts.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "--data" {
		os.Exit(beGateway())
	}
	os.Exit(nstest.Main(m))
}

// forgets is a variable by which the gateway-api of a test forgets all telemetry at its start.
const forgets = "HALO_LOAD_TEST_FORGETS"

// beGateway is gateway-api --data DIR --listen ADDRESS --listen-tls ADDRESS.
func beGateway() (status int) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	dir := os.Args[2]
	if os.Getenv(forgets) != "" {
		state := paths.Dir(dir)
		for _, path := range []string{state.File(paths.SeriesDB), state.File(paths.SeriesDB) + "-wal", state.File(paths.SeriesDB) + "-shm", state.File(paths.SeriesDir)} {
			if err := os.RemoveAll(path); err != nil {
				fmt.Fprintln(os.Stderr, err)
				return 1
			}
		}
	}
	c := gateway.Laptop(dir, []string{os.Args[4]}, os.Stdout, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	c.TLS = []string{os.Args[6]}
	if err := gateway.Run(ctx, c); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// Nodes that are played join a real gateway, and what they send is acknowledged, once each.
func TestPlayedNodes(t *testing.T) {
	overlay(t)
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

package benchgateway_test

import (
	"os"
	"testing"
	"time"

	"halo.internal/lab/load"
	"halo.internal/model/wire"
	"halo.internal/model/wire/wiretest"
)

// halo is a gateway-api.
type halo struct {
	*load.Gateway
	b testing.TB
}

// newHalo starts a gateway with nothing in it.
func newHalo(b testing.TB) *halo {
	b.Helper()
	g, err := load.NewGateway(os.Getenv(gatewayProgram), b.TempDir(), serverCore)
	if err != nil {
		b.Fatal(err)
	}
	h := &halo{g, b}
	b.Cleanup(h.stop)
	h.start()
	return h
}

// start starts it, and returns how long it took until it answered.
func (h *halo) start() time.Duration {
	h.b.Helper()
	took, err := h.Start(h.b.Context())
	if err != nil {
		h.b.Fatal(err)
	}
	return took
}

// stop ends it in order.
func (h *halo) stop() {
	if err := h.Stop(); err != nil {
		h.b.Log(err)
	}
}

// usage is what its processes have taken.
func (h *halo) usage() load.Usage {
	h.b.Helper()
	u, err := h.Usage()
	if err != nil {
		h.b.Fatal(err)
	}
	return u
}

// cpu is the processor time that they have used.
func (h *halo) cpu() time.Duration {
	h.b.Helper()
	return h.usage().CPU
}

// batch is one that is about to be sent.
type batch struct {
	id   wire.BatchID
	data []byte
}

// connected joins nodes and opens their streams.
func (h *halo) connected(b testing.TB, prefix string, count, window int, acked func(wire.BatchID, time.Duration)) ([]*load.Node, []*load.Stream) {
	b.Helper()
	nodes, err := h.Join(b.Context(), prefix, count)
	if err != nil {
		b.Fatal(err)
	}
	return nodes, connect(b, nodes, window, acked)
}

// connect opens the streams of nodes.
func connect(b testing.TB, nodes []*load.Node, window int, acked func(wire.BatchID, time.Duration)) []*load.Stream {
	b.Helper()
	streams := make([]*load.Stream, len(nodes))
	for i, n := range nodes {
		var err error
		if streams[i], err = n.Connect(b.Context(), window, wiretest.Schema(), acked); err != nil {
			b.Fatal(err)
		}
	}
	return streams
}

func perSecond(samples int, used time.Duration) float64 {
	if used <= 0 {
		return 0
	}
	return float64(samples) / used.Seconds()
}

package benchgateway_test

import (
	"net/http"
	"os"
	"testing"
	"time"

	"halo.internal/identity"
	"halo.internal/lab/load"
	"halo.internal/model/paths"
	"halo.internal/model/wire"
	"halo.internal/model/wire/wiretest"
)

// halo is a gateway-api.
type halo struct {
	*process
	load.Network
	dir string
}

// newHalo starts a gateway with nothing in it.
func newHalo(b testing.TB) *halo {
	b.Helper()
	h := &halo{dir: b.TempDir(), Network: load.Network{Key: identity.New(), URL: "http://" + load.Address()}}
	if err := (identity.State{Key: h.Key}).Save(paths.Dir(h.dir).File(paths.Identity), nil); err != nil {
		b.Fatal(err)
	}
	h.start(b)
	return h
}

// start starts it, and returns how long it took until it answered.
func (h *halo) start(b testing.TB) time.Duration {
	b.Helper()
	begin := time.Now()
	h.process = start(b, nil, os.Getenv(gatewayProgram), "--data", h.dir, "--listen", load.Address(), "--listen-tls", tlsAddress)
	await(b, h.process, h.URL+"/capabilities")
	return time.Since(begin)
}

const tlsAddress = "127.0.0.1:8443"

// await waits until a server answers.
func await(b testing.TB, p *process, url string) {
	b.Helper()
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(time.Millisecond) {
		resp, err := client.Get(url)
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(end) {
			b.Fatalf("%s does not answer: %v: %s", url, err, p.log.String())
		}
	}
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

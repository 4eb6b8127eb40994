package commands_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"halo.internal/agent/act"
	"halo.internal/agent/command"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

// ways are where the devices of a test serve, on the loopback, by overlay address.
type ways struct {
	mu    sync.Mutex
	at    map[netip.Addr]netip.AddrPort
	laws  []model.Legality
	comes netip.Addr // whom a device that serves sees
}

// Listen stands in for the overlay's own.
func (w *ways) Listen(a netip.Addr) (net.Listener, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.at[a] = netip.MustParseAddrPort(l.Addr().String())
	return from{l, w.comes}, nil
}

// Peer is where a device serves.
func (w *ways) Peer(a netip.Addr) netip.AddrPort {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.at[a]
}

// meshOf is what the agent asks of halo-mesh.
type meshOf struct{ w *ways }

func (m meshOf) Scan(context.Context, model.ScanRequest) (model.RadioScan, error) {
	return model.RadioScan{}, errors.ErrUnsupported
}
func (m meshOf) Capture(context.Context, model.CaptureRequest, io.Writer) error {
	return errors.ErrUnsupported
}
func (m meshOf) Legal(context.Context) ([]model.Legality, error) { return m.w.laws, nil }

// measuring is a board with the real actions of speed tests.
func (s *site) measuring(w *ways) *board {
	b := s.board(nil)
	all := act.Actions(act.Device{
		Mesh: meshOf{w}, Status: func() model.MeshStatus { return model.MeshStatus{OverlayV4: b.address.String()} },
		Listen: w.Listen, Peer: w.Peer, Log: slog.New(slog.DiscardHandler),
	})
	b.actions = map[model.CommandKind]command.Action{model.CommandSpeedTest: all[model.CommandSpeedTest], model.CommandSpeedServe: all[model.CommandSpeedServe]}
	b.power()
	b.there()
	return b
}

func TestASpeedTestBetweenTwoNodes(t *testing.T) {
	s := newSite(t)
	w := &ways{at: map[netip.Addr]netip.AddrPort{}}
	node, peer := s.measuring(w), s.measuring(w)
	w.comes = node.address
	j, err := s.speed.Create(t.Context(), apitype.CreateSpeedTest{Node: node.id(), Peer: peer.id()}, "user:root", "")
	if err != nil {
		t.Fatal(err)
	}
	j = s.ends(j.ID, apitype.JobDone, "")
	var res model.SpeedResult
	if err := json.Unmarshal(j.Result, &res); err != nil || res.Down.Bytes != model.SpeedDownBytes || res.Up.Bytes != model.SpeedUpBytes || res.Down.Mbps <= 0 || res.Up.Mbps <= 0 || res.LatencyMS <= 0 {
		t.Errorf("got %s, %v", j.Result, err)
	}
	list, next, err := s.speed.List(t.Context(), []string{node.id()}, 0, 10)
	if err != nil || next != 0 || len(list) != 1 || list[0].Peer != peer.id() || list[0].Job != j.ID || *list[0].Result != res {
		t.Errorf("got %+v, %v", list, err)
	}

	// The same node is not measured again at once, by whoever asks.
	for key, status := range map[string]int{"": 429, "k": 429} {
		_, err := s.speed.Create(t.Context(), apitype.CreateSpeedTest{Node: node.id(), Peer: peer.id()}, "user:root", key)
		if p, ok := errors.AsType[*apitype.Problem](err); !ok || p.Status != status {
			t.Errorf("once more: got %v", err)
		}
	}
	// The other way round may follow, after a pause.
	w.comes = peer.address
	j, err = s.speed.Create(t.Context(), apitype.CreateSpeedTest{Node: peer.id(), Peer: node.id(), DownBytes: 1000}, "user:root", "")
	if err != nil {
		t.Fatal(err)
	}
	s.until("the pause", func() bool {
		now, err := s.jobs.Get(t.Context(), j.ID)
		return err == nil && strings.Contains(now.Message, "leave the channel")
	})
	if got, err := s.speed.Create(t.Context(), apitype.CreateSpeedTest{Node: peer.id(), Peer: node.id()}, "user:root", ""); err == nil {
		t.Errorf("a second one of the node was queued: %+v", got)
	}
	j = s.ends(j.ID, apitype.JobDone, "")
	if err := json.Unmarshal(j.Result, &res); err != nil || res.Down.Bytes != 1000 || res.Up.Bytes != 0 {
		t.Errorf("got %s, %v", j.Result, err)
	}
}

func TestSpeedTestsThatCannotBe(t *testing.T) {
	s := newSite(t)
	w := &ways{at: map[netip.Addr]netip.AddrPort{}}
	node, peer := s.measuring(w), s.measuring(w)
	off := s.board(nil)
	for name, tc := range map[string]struct {
		c      apitype.CreateSpeedTest
		status int
	}{
		"nobody":                           {apitype.CreateSpeedTest{Node: "nobody"}, 404},
		"with itself":                      {apitype.CreateSpeedTest{Node: node.id(), Peer: node.id()}, 422},
		"a node that is off":               {apitype.CreateSpeedTest{Node: off.id(), Peer: peer.id()}, 409},
		"with one that is off":             {apitype.CreateSpeedTest{Node: node.id(), Peer: off.id()}, 409},
		"with a gateway that has no agent": {apitype.CreateSpeedTest{Node: node.id()}, 409},
		"of too much":                      {apitype.CreateSpeedTest{Node: node.id(), Peer: peer.id(), DownBytes: model.SpeedDownBytes + 1}, 422},
	} {
		_, err := s.speed.Create(t.Context(), tc.c, "user:root", "")
		if p, ok := errors.AsType[*apitype.Problem](err); !ok || p.Status != tc.status {
			t.Errorf("%s: got %v, want %d", name, err, tc.status)
		}
	}
	create := func() int64 {
		t.Helper()
		j, err := s.speed.Create(t.Context(), apitype.CreateSpeedTest{Node: node.id(), Peer: peer.id()}, "user:root", "")
		if err != nil {
			t.Fatal(err)
		}
		return j.ID
	}
	// The law leaves the radio 40 s of this hour, of which a test may take a quarter.
	w.laws = []model.Legality{{Radio: "halow0", AirtimeS: 60, AirtimeMaxS: 62}}
	j := s.ends(create(), apitype.JobRefused, model.CodeAirtime)
	if !strings.Contains(j.Message, "halow0") {
		t.Errorf("got %q", j.Message)
	}
	w.laws = nil
	// Whoever comes is not the node that is waited for: nothing is measured.
	node, peer = s.measuring(w), s.measuring(w)
	w.comes = netip.MustParseAddr("10.42.9.9")
	if j := s.ends(create(), apitype.JobFailed, model.CodeFailed); j.Result != nil {
		t.Errorf("got %+v", j)
	}
}

// A test that waits, or is under way, is taken back; both devices are free again.
func TestASpeedTestIsTakenBack(t *testing.T) {
	s := newSite(t)
	w := &ways{at: map[netip.Addr]netip.AddrPort{}}
	node, peer := s.measuring(w), s.measuring(w)
	w.comes = netip.MustParseAddr("10.42.9.9")
	hang := make(chan struct{})
	defer close(hang)
	node.actions[model.CommandSpeedTest] = command.Action{Do: func(ctx context.Context, _ *command.Task) (command.Result, error) {
		hang <- struct{}{}
		<-ctx.Done()
		return command.Result{}, ctx.Err()
	}}
	node.process()
	node.there()
	j, err := s.speed.Create(t.Context(), apitype.CreateSpeedTest{Node: node.id(), Peer: peer.id()}, "user:root", "")
	if err != nil {
		t.Fatal(err)
	}
	<-hang
	if _, err := s.jobs.Cancel(t.Context(), j.ID); err != nil {
		t.Fatal(err)
	}
	s.ends(j.ID, apitype.JobCancelled, "")
	w.comes = peer.address
	j, err = s.speed.Create(t.Context(), apitype.CreateSpeedTest{Node: peer.id(), Peer: node.id(), UpBytes: 100}, "user:root", "")
	if err != nil {
		t.Fatal(err)
	}
	s.ends(j.ID, apitype.JobDone, "") // neither is at another one
}

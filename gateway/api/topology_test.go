package api

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"halo.internal/gateway/topology"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/dot11"
	"halo.internal/model/graph"
)

// field is a picture of a network whose nodes and time a test chooses.
type field struct {
	*topology.Engine
	t    testing.TB
	ids  []string // the gateway first
	seq  uint64
	mu   sync.Mutex
	when time.Time
}

func (f *field) now() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.when
}

func (f *field) pass(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.when = f.when.Add(d)
}

// newField has the fixture show a chain of the gateway and so many nodes.
func newField(f *fixture, nodes int) *field {
	f.t.Helper()
	field := &field{t: f.t, ids: []string{f.Registry.Gateway()}, when: time.Date(2026, 11, 29, 12, 0, 0, 0, time.UTC)}
	for n := range nodes {
		field.ids = append(field.ids, fmt.Sprintf("n-%c%c%s", 'b'+n%20, 'b'+n/20, strings.Repeat("a", 18)))
	}
	field.Engine = topology.New(topology.Config{
		Members: func(context.Context) (list []topology.Member, err error) {
			for n, id := range field.ids {
				list = append(list, topology.Member{ID: id, Name: fmt.Sprint("node-", n), Gateway: n == 0})
			}
			return list, nil
		},
		Store: topology.NewMemory(16 << 20), Events: f.Events, Now: field.now, Log: f.Log, Settle: time.Nanosecond,
	})
	f.Topology = field
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- field.Run(ctx) }()
	f.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			f.t.Error(err)
		}
	})
	field.report()
	field.until(func(p graph.Picture) bool { return len(p.Links) == nodes })
	field.write()
	return field
}

// write lets so much time pass that the picture is written down.
func (f *field) write(lost ...int) {
	f.t.Helper()
	f.pass(topology.DeltaWait + time.Second)
	f.report(lost...)
	waitFor(f.t, "the history", func() bool {
		list, _, err := f.Moments(f.now().Add(-time.Hour), f.now(), 500, false)
		return err == nil && len(list) > 0 && list[len(list)-1].Links == len(f.ids)-1-len(lost)
	})
}

func address(n int) dot11.MAC { return dot11.MAC{2, 0, 0, 0, byte(n >> 8), byte(n)} }

// report has all nodes report, but links that are lost by the nodes behind them.
func (f *field) report(lost ...int) {
	f.t.Helper()
	f.seq++
	for n, id := range f.ids {
		radio := model.ReportInterface{Name: "mesh0", Addresses: []dot11.MAC{address(n)}, Transport: model.TransportWiFi}
		r := model.Report{Node: id, Boot: 1, Seq: f.seq, EveryS: 600}
		if n > 0 && !slices.Contains(lost, n) {
			radio.Links = append(radio.Links, model.ReportLink{Peer: address(n - 1), SignalDBm: -60, TQ: 255})
			r.NextHops = model.ReportNextHops{{Node: f.ids[0], Next: address(n - 1), Iface: "mesh0", TQ: 250}}
		}
		if n+1 < len(f.ids) && !slices.Contains(lost, n+1) {
			radio.Links = append(radio.Links, model.ReportLink{Peer: address(n + 1), SignalDBm: -60, TQ: 255})
		}
		r.Interfaces = model.ReportInterfaces{radio}
		f.put(r)
	}
}

func (f *field) put(r model.Report) {
	f.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		err := f.Put(r)
		if err == nil {
			return
		}
		if !errors.Is(err, topology.ErrNotMember) || time.Now().After(end) { // Run has not asked who is yet
			f.t.Fatal(err)
		}
	}
}

func (f *field) until(ok func(graph.Picture) bool) graph.Picture {
	f.t.Helper()
	late := time.After(time.Minute)
	for {
		_, next := f.News()
		if p := f.Picture(); ok(p) {
			return p
		}
		select {
		case <-next:
		case <-late:
			f.t.Fatalf("it never came: %+v", f.Picture())
		}
	}
}

func TestTheNetworkAsItIsAndWas(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	field := newField(f, 3)
	var p graph.Picture
	f.want(http.StatusOK, "GET", "/v1/topology", nil, &p)
	if len(p.Nodes) != 4 || len(p.Links) != 3 || len(p.Routes) != 3 || len(p.Cuts) == 0 || p.Gateway != field.ids[0] || p.Score == 0 {
		t.Fatalf("got %+v", p)
	}
	var c apitype.TopologyChanges
	f.want(http.StatusOK, "GET", fmt.Sprintf("/v1/topology/changes?run=%d&seq=%d", p.Run, p.Seq), nil, &c)
	if c.Delta != nil || c.Picture != nil || c.Run != p.Run || c.Seq != p.Seq {
		t.Errorf("nothing changed: got %+v", c)
	}
	// Who has another picture, or none, gets the whole.
	for _, q := range []string{"", "?run=1&seq=1", fmt.Sprintf("?run=%d&seq=%d", p.Run, p.Seq+1)} {
		var c apitype.TopologyChanges
		if f.want(http.StatusOK, "GET", "/v1/topology/changes"+q, nil, &c); c.Picture == nil || len(c.Picture.Nodes) != 4 || c.Delta != nil {
			t.Errorf("%s: got %+v", q, c)
		}
	}
	// Whoever waits is answered when something changes.
	answered := make(chan apitype.TopologyChanges, 1)
	go func() {
		var c apitype.TopologyChanges
		f.want(http.StatusOK, "GET", fmt.Sprintf("/v1/topology/changes?run=%d&seq=%d&wait_s=55", p.Run, p.Seq), nil, &c)
		answered <- c
	}()
	field.pass(20 * time.Second)
	field.report(3)
	select {
	case c := <-answered:
		if c.Delta == nil {
			t.Fatalf("got %+v", c)
		}
		next, err := p.Apply(*c.Delta)
		for err == nil && len(next.Links) == 3 { // reports come one after the other
			var more apitype.TopologyChanges
			f.want(http.StatusOK, "GET", fmt.Sprintf("/v1/topology/changes?run=%d&seq=%d&wait_s=5", next.Run, next.Seq), nil, &more)
			if more.Delta != nil {
				next, err = next.Apply(*more.Delta)
			}
		}
		if err != nil || next.Seq != field.Picture().Seq {
			t.Errorf("got %+v, %v", next, err)
		}
	case <-time.After(time.Minute):
		t.Fatal("who waits is not answered")
	}

	// The network as it was before, from the history.
	field.write(3)
	field.pass(2 * time.Second)
	at := func(ago time.Duration) string { return field.now().Add(-ago).Format(time.RFC3339) }
	for ago, links := range map[time.Duration]int{time.Second: 2, 12 * time.Second: 2, 30 * time.Second: 3} {
		var was graph.Picture
		f.want(http.StatusOK, "GET", "/v1/topology?at="+at(ago), nil, &was)
		if len(was.Links) != links {
			t.Errorf("%v ago: got %d links, want %d", ago, len(was.Links), links)
		}
	}
	f.want(http.StatusNotFound, "GET", "/v1/topology?at="+at(time.Hour), nil, &p)
	var no apitype.Problem
	f.want(http.StatusNotFound, "GET", "/v1/topology/netjson?at="+at(time.Hour), nil, &no)
	if no.Type != apitype.ProblemNotRecorded {
		t.Errorf("got %+v", no)
	}
	f.want(http.StatusUnprocessableEntity, "GET", "/v1/topology?at="+at(-time.Hour), nil, nil)
	f.want(http.StatusUnprocessableEntity, "GET", "/v1/topology?at=yesterday", nil, nil)

	var netjson graph.NetJSON
	f.want(http.StatusOK, "GET", "/v1/topology/netjson", nil, &netjson)
	if netjson.Type != "NetworkGraph" || netjson.Label != "north-ridge" || len(netjson.Nodes) != 4 || len(netjson.Links) != 2 {
		t.Errorf("got %+v", netjson)
	}
}

func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it never came: %s", what)
		}
	}
}

func TestWhatHappenedToTheNetwork(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	field := newField(f, 3)
	for n := range 6 {
		if n%2 == 0 {
			field.write(3)
		} else {
			field.write()
		}
	}
	var all []graph.Moment
	pages := 0
	for path := "/v1/topology/history?limit=2&to=" + field.now().Format(time.RFC3339); path != ""; pages++ {
		var h apitype.TopologyHistory
		f.want(http.StatusOK, "GET", path, nil, &h)
		all = append(all, h.Items...)
		if path = ""; h.Next != "" {
			path = "/v1/topology/history?limit=2&to=" + field.now().Format(time.RFC3339) + "&cursor=" + h.Next
		}
	}
	text := ""
	for _, m := range all {
		text += fmt.Sprintf("%s anew %v, %d links, made %d, lost %d, nodes lost %d\n", m.At.Format(time.TimeOnly), m.Anew, m.Links, len(m.LinksMade), len(m.LinksLost), len(m.NodesLost))
	}
	if len(all) < 7 || pages < 3 || !all[0].Anew || all[0].Links != 0 {
		t.Fatalf("%d pages:\n%s", pages, text)
	}
	made, lost := 0, 0
	for i, m := range all[1:] {
		if m.Anew || !m.At.After(all[i].At) {
			t.Errorf("item %d is not after the one before:\n%s", i+1, text)
		}
		made, lost = made+len(m.LinksMade), lost+len(m.LinksLost)
	}
	if made != 6 || lost != 3 {
		t.Errorf("made %d, lost %d, want 6 and 3:\n%s", made, lost, text)
	}
	f.want(http.StatusBadRequest, "GET", "/v1/topology/history?cursor=x", nil, nil)
	f.want(http.StatusUnprocessableEntity, "GET", "/v1/topology/history?from=2026-11-29T12:00:00Z&to=2026-11-29T11:00:00Z", nil, nil)
}

func TestANodeInThePicture(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	field := newField(f, 3)
	var n apitype.NodeTopology
	f.want(http.StatusOK, "GET", "/v1/nodes/gateway/topology", nil, &n)
	if n.Node.ID != field.ids[0] || n.Route != nil || len(n.Links) != 1 || n.Cut == nil && len(n.Path) != 1 {
		t.Errorf("got %+v", n)
	}
	f.want(http.StatusNotFound, "GET", "/v1/nodes/nobody/topology", nil, nil)
	var r apitype.NodeNeighbourhood
	f.want(http.StatusOK, "GET", "/v1/nodes/gateway/neighbourhood", nil, &r)
	if r.Report.Node != field.ids[0] || len(r.Report.Interfaces) != 1 || r.Heard.IsZero() {
		t.Errorf("got %+v", r)
	}
}

// TestAPictureIsPacked for who takes that, since it is long.
func TestAPictureIsPacked(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	newField(f, 30)
	get := func(accept string) (string, []byte) {
		req, err := http.NewRequestWithContext(t.Context(), "GET", f.url+"/v1/topology", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+f.token)
		req.Header.Set("Accept-Encoding", accept)
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.Header.Get("Content-Encoding"), b
	}
	_, plain := get("identity")
	encoding, small := get("br;q=1, gzip;q=0.8")
	if encoding != "gzip" || 5*len(small) > len(plain) {
		t.Fatalf("got %q, %d octets of %d", encoding, len(small), len(plain))
	}
	r, err := gzip.NewReader(bytes.NewReader(small))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(r); err != nil || !bytes.Equal(b, plain) {
		t.Errorf("it is another: %v", err)
	}
	for _, accept := range []string{"gzip;q=0", "gzip; q=0.0", "deflate", "x-gzip"} {
		if encoding, _ := get(accept); encoding != "" {
			t.Errorf("%s: got %s", accept, encoding)
		}
	}
}

// TestEventsOfTheTopologyAreTheGateways: a node cannot tell of links that never were.
func TestEventsOfTheTopologyAreTheGateways(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	field := newField(f, 3)
	field.pass(time.Minute)
	field.report(2)
	field.until(func(p graph.Picture) bool { return len(p.Links) == 2 })
	f.Topology = field
	waitFor(t, "an event", func() bool {
		field.pass(10 * time.Second)
		field.report(2)
		var l apitype.EventList
		f.want(http.StatusOK, "GET", "/v1/events?kind=topology.", nil, &l)
		return slices.ContainsFunc(l.Items, func(e apitype.Event) bool { return e.Source == "gateway-api" })
	})
}

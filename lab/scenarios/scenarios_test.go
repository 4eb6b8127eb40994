package scenarios

import (
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/lab/cardtest"
	"halo.internal/lab/network"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/paths"
)

func TestNames(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range All() {
		if seen[s.Name] || s.Short == "" || s.Run == nil || s.Mesh != network.ByCable && s.Mesh != network.ByAir {
			t.Errorf("%+v", s)
		}
		seen[s.Name] = true
	}
	list, err := Named("stranger", "node-restart", "stranger")
	if err != nil || len(list) != 2 || list[0].Name != "node-restart" {
		t.Errorf("got %v, %v, want two in their order", list, err)
	}
	if list, err := Named("all"); err != nil || len(list) != len(seen) {
		t.Errorf("all: got %d, %v", len(list), err)
	}
	if _, err := Named("node-restart", "flood"); err == nil || !strings.Contains(err.Error(), "flood") {
		t.Errorf("got %v", err)
	}
}

// whole is a device that lacks nothing, with so many neighbours.
func whole(boot uint64, neighbours int) model.MeshStatus {
	prefix := netip.MustParsePrefix
	s := model.MeshStatus{
		BootCounter: boot, Underlay: "fd00::1", OverlayV4: "10.42.0.2", OverlayV6: "fd00:1::1",
		Interfaces: []model.Interface{
			{Name: paths.BatIface, Addresses: []netip.Prefix{prefix("fd00::1/64"), prefix("10.41.1.7/16")}},
			{Name: paths.OverlayIface, Addresses: []netip.Prefix{prefix("10.42.0.2/16"), prefix("fd00:1::1/64")}},
		},
	}
	r := model.Radio{Member: true}
	for i := range neighbours {
		mac := string(rune('a' + i))
		s.Neighbours = append(s.Neighbours, model.Neighbour{Iface: "mesh0", MAC: mac, LastSeenMS: 10})
		r.Peers = append(r.Peers, model.RadioPeer{MAC: mac, Linked: true})
	}
	s.Radios = []model.Radio{r}
	return s
}

func TestPeered(t *testing.T) {
	s := whole(1, 2)
	if err := peered(s, 2); err != nil {
		t.Error(err)
	}
	for name, spoil := range map[string]func(*model.MeshStatus){
		"a neighbour that has fallen silent": func(s *model.MeshStatus) { s.Neighbours[0].LastSeenMS = 6000 },
		"one neighbour twice":                func(s *model.MeshStatus) { s.Neighbours[0].MAC = "b" },
		"a link that does not stand":         func(s *model.MeshStatus) { s.Radios[0].Peers[1].Linked = false },
		"a radio that is no member":          func(s *model.MeshStatus) { s.Radios[0].Member = false },
	} {
		s := whole(1, 2)
		spoil(&s)
		if peered(s, 2) == nil {
			t.Errorf("%s is taken for two links", name)
		}
	}
}

func TestAddressed(t *testing.T) {
	if err := addressed(whole(1, 0)); err != nil {
		t.Error(err)
	}
	for name, spoil := range map[string]func(*model.MeshStatus){
		"no overlay":          func(s *model.MeshStatus) { s.Interfaces = s.Interfaces[:1] },
		"another's address":   func(s *model.MeshStatus) { s.Underlay = "fd00::2" },
		"no address as yet":   func(s *model.MeshStatus) { s.OverlayV4 = "" },
		"no lease":            func(s *model.MeshStatus) { s.Interfaces[0].Addresses = s.Interfaces[0].Addresses[:1] },
		"the overlay without": func(s *model.MeshStatus) { s.Interfaces[1].Addresses = nil },
	} {
		s := whole(1, 0)
		spoil(&s)
		if addressed(s) == nil {
			t.Errorf("%s: taken for addressed", name)
		}
	}
}

func TestStored(t *testing.T) {
	of := func(b ...apitype.BootCoverage) Stored {
		s := Stored{"n": {}}
		for _, c := range b {
			s["n"][c.Boot] = c
		}
		return s
	}
	before := of(apitype.BootCoverage{Boot: 1, First: 1, Last: 9, Count: 9}, apitype.BootCoverage{Boot: 2, First: 1, Last: 3, Count: 3})
	if err := errors.Join(before.Whole("n"), before.Holds(before)); err != nil || before.Newest("n").Boot != 2 || before.Newest("m").Boot != 0 {
		t.Errorf("%v, newest %+v", err, before.Newest("n"))
	}
	for name, s := range map[string]Stored{
		"a hole":          of(apitype.BootCoverage{Boot: 1, First: 1, Last: 9, Count: 8, Missing: []apitype.SeqRange{{From: 4, To: 4}}}),
		"no beginning":    of(apitype.BootCoverage{Boot: 1, First: 2, Last: 9, Count: 8}),
		"dropped":         of(apitype.BootCoverage{Boot: 1, First: 1, Last: 9, Count: 9, Dropped: 1}),
		"more than there": of(apitype.BootCoverage{Boot: 1, First: 1, Last: 9, Count: 10}),
	} {
		if s.Whole("n") == nil {
			t.Errorf("%s is taken for whole", name)
		}
	}
	if of(apitype.BootCoverage{Boot: 1, First: 1, Last: 9, Count: 9}).Holds(before) == nil {
		t.Error("a boot that is not there any more is not missed")
	}
}

// peers are those of the overlay, each of which has sent so much.
func peers(rx int64, ids ...string) (list []model.OverlayPeer) {
	now := time.Now()
	for _, id := range ids {
		list = append(list, model.OverlayPeer{Node: id, LastHandshake: &now, RxBytes: rx})
	}
	return list
}

// seen is what is known of one gateway and one node.
func seen(nodeBoot uint64, links int, rx int64, last uint64) sight {
	gateway, node := whole(7, links), whole(nodeBoot, links)
	gateway.Overlay, node.Overlay = peers(rx, "n"), peers(rx, "g")
	return sight{
		views: map[string]view{"gateway": {status: gateway}, "node1": {status: node, agent: &model.AgentStatus{}}},
		nodes: map[string]apitype.Node{"gateway": {ID: "g", Online: true, Boot: 7}, "node1": {ID: "n", Online: true, Boot: nodeBoot}},
		stored: Stored{
			"gateway": {7: {Boot: 7, First: 1, Last: last, Count: last}},
			"node1":   {nodeBoot: {Boot: nodeBoot, First: 1, Last: last, Count: last}},
		},
	}
}

// TestATally has a node restart, be seen, be lost again and come back: a stage
// counts from when it was passed for good.
func TestATally(t *testing.T) {
	n := namedNetwork(t, 1)
	w := &World{Members: n}
	start := time.Now()
	before := seen(3, 1, 1000, 5)
	o := &Outage{before: before, began: start, since: start, Restarted: n[1:]}
	tally := newTally(w, o)
	at := func(s float64) time.Time { return start.Add(time.Duration(s * float64(time.Second))) }

	if err := tally.take(seen(3, 1, 1000, 5), at(1)); err == nil || !strings.Contains(err.Error(), "node1 is not up") {
		t.Errorf("before it went down: %v", err)
	}
	down := seen(4, 0, 1000, 5)
	down.views["node1"] = view{err: errors.New("no route")}
	if tally.take(down, at(10)) == nil {
		t.Error("a node that does not answer is taken for recovered")
	}
	again := seen(4, 1, 1200, 6)
	again.stored["node1"][3] = before.stored["node1"][3]
	again.stored["gateway"] = map[uint64]apitype.BootCoverage{7: {Boot: 7, First: 1, Last: 8, Count: 8}}
	lost := again
	alone := whole(4, 0)
	alone.Overlay = peers(1200, "g")
	lost.views = map[string]view{"gateway": again.views["gateway"], "node1": {status: alone, agent: &model.AgentStatus{}}}
	if err := tally.take(again, at(20)); err != nil {
		t.Errorf("all is there: %v", err)
	}
	if tally.take(lost, at(22)) == nil {
		t.Error("a lost link is not noticed")
	}
	if err := tally.take(again, at(25)); err != nil {
		t.Error(err)
	}
	r := Result{Scenario: "node-restart", Mesh: network.ByAir, OK: true, Machines: tally.recoveries(), Since: "the reset"}
	for stage, want := range map[Stage]time.Duration{Up: 20 * time.Second, Peered: 25 * time.Second, Reachable: 20 * time.Second} {
		if got, ok := r.Worst(stage); !ok || got != want {
			t.Errorf("%s: got %s, %v, want %s", stage, got, ok, want)
		}
	}
}

// TestWhatNeverWentAway must still prove that it works: by octets and batches that
// were not on their way before.
func TestWhatNeverWentAway(t *testing.T) {
	n := namedNetwork(t, 1)
	start := time.Now()
	o := &Outage{before: seen(3, 1, 1000, 5), began: start, since: start}
	tally := newTally(&World{Members: n}, o)
	if tally.take(seen(3, 1, 1000, 5), start.Add(time.Second)) == nil || tally.take(seen(3, 1, 1100, 6), start.Add(2*time.Second)) == nil {
		t.Error("what was on its way is taken for proof")
	}
	if tally.take(seen(3, 1, 1100, 6), start.Add(5*time.Second)) == nil {
		t.Error("silence is taken for proof")
	}
	if err := tally.take(seen(3, 1, 1200, 7), start.Add(7*time.Second)); err != nil {
		t.Error(err)
	}
	if tally.take(seen(4, 1, 1300, 8), start.Add(8*time.Second)) == nil {
		t.Error("a restart that nobody asked for is not noticed")
	}
}

// TestBothWays: what one side says of the overlay is no proof of the other direction,
// nor are the nodes' sessions with the gateway of those with each other.
func TestBothWays(t *testing.T) {
	all := namedNetwork(t, 2)
	start := time.Now()
	look := func(rx int64, last uint64) sight {
		s := seen(3, 2, rx, last)
		gateway, n1, n2 := whole(7, 2), whole(3, 2), whole(3, 2)
		gateway.Overlay, n1.Overlay, n2.Overlay = peers(rx, "n", "m"), peers(rx, "g", "m"), peers(rx, "g", "n")
		agent := &model.AgentStatus{}
		s.views = map[string]view{"gateway": {status: gateway}, "node1": {n1, agent, nil}, "node2": {n2, agent, nil}}
		s.nodes["node2"] = apitype.Node{ID: "m", Online: true, Boot: 3}
		s.stored["node2"] = s.stored["node1"]
		s.asked = asked{"node1": {"node2": nil}, "node2": {"node1": nil}}
		return s
	}
	after := start.Add(10 * time.Second)
	tally := func(s sight) error {
		o := &Outage{before: look(1000, 5), began: start, since: start}
		tally := newTally(&World{Members: all}, o)
		if tally.take(look(1000, 5), start) == nil {
			t.Error("what was on its way is taken for proof")
		}
		return tally.take(s, after)
	}
	if err := tally(look(1100, 9)); err != nil {
		t.Fatal(err)
	}
	silent := func(name, peer string) func(sight) {
		return func(s sight) {
			v := s.views[name]
			for i := range v.status.Overlay {
				if v.status.Overlay[i].Node == peer {
					v.status.Overlay[i].RxBytes = 1000
				}
			}
		}
	}
	for name, spoil := range map[string]func(sight){
		"nothing from a node to the gateway":  silent("gateway", "n"),
		"nothing from the gateway to a node":  silent("node1", "g"),
		"nothing from one node to another":    silent("node2", "n"),
		"a node that is no peer of another's": func(s sight) { v := s.views["node1"]; v.status.Overlay = peers(1100, "g"); s.views["node1"] = v },
		"a question that nobody answered":     func(s sight) { s.asked["node2"]["node1"] = errors.New("no answer") },
		"a question that was not asked":       func(s sight) { delete(s.asked, "node1") },
	} {
		s := look(1100, 9)
		spoil(s)
		if tally(s) == nil {
			t.Errorf("%s: taken for reachable", name)
		}
	}
}

func TestBusiest(t *testing.T) {
	const s = time.Second
	for _, test := range []struct {
		sent       []time.Duration
		among      []int
		most, next int
		clear      bool
	}{
		{[]time.Duration{9 * s, s, 3 * s, 0}, []int{1, 2}, 2, 1, true},
		{[]time.Duration{9 * s, 3 * s, s, 0}, []int{1, 2}, 1, 2, true},
		{[]time.Duration{9 * s, 3 * s, 2 * s, 0}, []int{1, 2}, 1, 2, false},
		{[]time.Duration{9 * s, 3 * s, 2 * s, 0}, []int{2}, 2, 2, true},
		{[]time.Duration{9 * s, 3 * s, 2 * s, 0}, []int{3}, 3, 3, false},
		{[]time.Duration{9 * s, 3 * s, 2 * s, 0}, []int{3, 2}, 2, 3, true},
	} {
		most, next, err := busiest(test.sent, test.among)
		if most != test.most || next != test.next || (err == nil) != test.clear {
			t.Errorf("%v: got %d, %d, %v", test, most, next, err)
		}
	}
}

func TestTable(t *testing.T) {
	run := func(ok bool, up, peered float64) Result {
		s := func(v float64) time.Duration { return time.Duration(v * float64(time.Second)) }
		r := Result{Scenario: "node-restart", Mesh: network.ByCable, OK: ok, Took: 30 * time.Second, Since: "the reset",
			Machines: []Recovery{{"gateway", map[Stage]time.Duration{Up: 0, Peered: 0}}, {"node1", map[Stage]time.Duration{Up: s(up)}}}}
		if peered > 0 {
			r.Machines[1].Stages[Peered] = s(peered)
		}
		if !ok {
			r.Failure = "node1 is not peered"
		}
		return r
	}
	var b strings.Builder
	if err := Table(&b, []Result{run(true, 10, 12), run(false, 11, 0), run(true, 14, 15), {Scenario: "loss", Mesh: network.ByCable, Failure: "no way"}}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"SCENARIO", "COMPLETE", "11.0 s (14.0)", "15.0 s (15.0)", "90 s", "the reset", "node-restart failed: node1 is not peered", "loss failed: no way"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in\n%s", want, &b)
		}
	}
}

// namedNetwork is a gateway and nodes that are off.
func namedNetwork(t *testing.T, nodes int) []*network.Machine {
	t.Helper()
	image := cardtest.Image(t, map[string]string{"vmlinuz": "k", "initrd.bin": "i", "cmdline.txt": "well"})
	n, err := network.New(t.Context(), network.Options{
		Name: "table", Nodes: nodes, GatewayImage: image, NodeImage: image, Dir: t.TempDir(), MemoryMB: 128, Mesh: network.ByCable, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n.Machines()
}

func TestPeersCameBack(t *testing.T) {
	event := func(change func(map[string]string)) apitype.Event {
		f := map[string]string{"cause": "broken", "check": "peers", "total_ms": "81200", "peer": "74100", "overlay": "76000", "telemetry": "81200"}
		change(f)
		return apitype.Event{Event: model.Event{Kind: recoveredEvent, Fields: f}}
	}
	if e := event(func(map[string]string) {}); !peersCameBack(e) {
		t.Errorf("%+v is not taken for a recovery", e)
	}
	for name, change := range map[string]func(map[string]string){
		"a start":                          func(f map[string]string) { f["cause"] = "power-on" },
		"nothing broke":                    func(f map[string]string) { delete(f, "check") },
		"peers were there all the time":    func(f map[string]string) { f["peer"] = "-1" },
		"peers never came":                 func(f map[string]string) { delete(f, "peer") },
		"it did not end":                   func(f map[string]string) { delete(f, "total_ms"); delete(f, "telemetry") },
		"it ended without acknowledgement": func(f map[string]string) { f["telemetry"] = "-1" },
	} {
		if e := event(change); peersCameBack(e) {
			t.Errorf("%s is taken for a recovery: %+v", name, e)
		}
	}
}

// TestWhatIsToEndWithinALimit is judged by when it was looked at, not by how long the answer
// took.
func TestWhatIsToEndWithinALimit(t *testing.T) {
	if revokedLimit != 5*time.Second {
		t.Errorf("a revoked node is to be out within %s", revokedLimit)
	}
	for name, tc := range map[string]struct {
		ends, takes, late time.Duration // after since; an answer; since, before the first look
		ok                bool
	}{
		"at once":                        {0, 0, 0, true},
		"in time":                        {4 * time.Second, 100 * time.Millisecond, 0, true},
		"late":                           {6 * time.Second, 100 * time.Millisecond, 0, false},
		"in time, and answers are slow":  {4 * time.Second, 4 * time.Second, 0, true},
		"late, and answers are slow":     {12 * time.Second, 3 * time.Second, 0, false},
		"in time, and looked at late":    {time.Second, 0, 9 * time.Second, true},
		"not at all, and looked at late": {time.Hour, 0, 9 * time.Second, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				since := time.Now()
				time.Sleep(tc.late)
				after, err := ended(t.Context(), since, revokedLimit, "it is out", func() error {
					at := time.Since(since)
					time.Sleep(tc.takes)
					return expect(at >= tc.ends, "it out")
				})
				if (err == nil) != tc.ok || after < min(tc.ends, revokedLimit) || err != nil && time.Since(since) > tc.late+revokedLimit+2*tc.takes+pollEvery {
					t.Errorf("after %s: %v", after, err)
				}
			})
		})
	}
}

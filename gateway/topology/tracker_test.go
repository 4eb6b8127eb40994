package topology

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/google/go-cmp/cmp"

	"halo.internal/model"
	"halo.internal/model/dot11"
	"halo.internal/model/graph"
)

// tracked has a tracker know all that a world reports at noon.
func tracked(t testing.TB, w *world) *Tracker {
	t.Helper()
	tr := NewTracker(7)
	tr.SetMembers(w.members())
	for _, h := range w.heard() {
		if err := tr.Put(noon.Add(-h.Age), h.Report); err != nil {
			t.Fatal(err)
		}
	}
	return tr
}

// again is the next report of a node, as the world has it.
func (w *world) again(n string) model.Report {
	w.reports[n].Seq++
	w.reports[n].Sort()
	return *w.reports[n]
}

func TestTracker(t *testing.T) {
	w := newWorld(t, "gw", "b", "c").links("gw-b b-c").via("b>gw c>b")
	tr := tracked(t, w)
	d, ok := tr.Update(noon)
	if !ok || d.From != 0 || d.Seq != 1 || d.Run != 7 || len(d.Nodes.Added) != 3 || len(d.Links.Added) != 2 {
		t.Fatalf("got %v, %+v", ok, d)
	}
	want := w.draw()
	want.Run, want.Seq = 7, 1
	if diff := cmp.Diff(want, tr.Picture()); diff != "" {
		t.Errorf("other than what Draw draws: (-want +got)\n%s", diff)
	}
	if d, ok := tr.Update(noon.Add(time.Second)); ok {
		t.Errorf("nothing happened, and it changed: %+v", d)
	}
	// The same again: only when it was heard is new.
	if err := tr.Put(noon.Add(time.Minute), w.again("c")); err != nil {
		t.Fatal(err)
	}
	if d, ok := tr.Update(noon.Add(time.Minute)); !ok || d.Len() != 1 || len(d.Nodes.Changed) != 1 {
		t.Errorf("got %v, %+v", ok, d)
	}
	// Time alone makes reports late.
	d, ok = tr.Update(noon.Add(graph.FreshFor + time.Second))
	if b, _ := tr.Picture().Node(id("b")); !ok || b.Report != graph.Late {
		t.Errorf("got %v, %+v", ok, b)
	}
	if !slices.ContainsFunc(d.Links.Changed, func(l graph.Link) bool { return l.LinkID == wifi("b", "gw") }) {
		t.Errorf("the link is as live as before: %+v", d)
	}
	// Who is no member any more is gone, with what is said of him.
	tr.SetMembers(w.members()[:2])
	if d, ok = tr.Update(noon.Add(graph.FreshFor + 2*time.Second)); !ok || !slices.Equal(d.Nodes.Removed, ids("c")) || !slices.Equal(d.Links.Removed, []graph.LinkID{wifi("b", "c")}) {
		t.Errorf("got %v, %+v", ok, d)
	}
	if err := tr.Put(noon.Add(3*time.Minute), w.again("c")); !errors.Is(err, ErrNotMember) {
		t.Errorf("got %v", err)
	}
}

// TestWhoSaysSomethingElse still means what it reported, though not for ever.
func TestWhoSaysSomethingElse(t *testing.T) {
	w := newWorld(t, "gw", "b").links("gw-b").via("b>gw")
	w.reports["b"].EveryS = 600
	minute := time.Minute
	for name, tc := range map[string]struct {
		until, at, every time.Duration
		want             graph.Freshness
	}{
		"it goes on":              {20 * minute, 21 * minute, minute, graph.Fresh},
		"it falls silent":         {20 * minute, 23 * minute, minute, graph.Late},
		"for long":                {20 * minute, 31 * minute, minute, graph.Silent},
		"it says little":          {20 * minute, 24 * minute, 2 * minute, graph.Fresh},
		"it does not report":      {26 * minute, 27 * minute, minute, graph.Late},
		"it does not at all":      {101 * minute, 102 * minute, minute, graph.Silent},
		"it falls silent at once": {0, 3 * minute, minute, graph.Late},
	} {
		t.Run(name, func(t *testing.T) {
			tr := tracked(t, w)
			for at := time.Duration(0); at <= tc.until; at += minute {
				tr.Alive(noon.Add(at), id("b"), tc.every)
			}
			tr.Update(noon.Add(tc.at))
			if b, _ := tr.Picture().Node(id("b")); b.Report != tc.want {
				t.Errorf("got %s, want %s", b.Report, tc.want)
			}
		})
	}
	// Whoever is no member has no life either, and a report is one.
	tr := tracked(t, w)
	tr.Alive(noon, id("x"), minute)
	if len(tr.lives) != 0 {
		t.Errorf("got %v", tr.lives)
	}
	tr.Alive(noon, id("b"), minute)
	if err := tr.Put(noon.Add(9*minute), w.again("b")); err != nil {
		t.Fatal(err)
	}
	if since, every, ok := tr.quiet(noon.Add(10*minute), id("b")); !ok || since != minute || every != minute {
		t.Errorf("got %v, %v, %v", since, every, ok)
	}
	tr.SetMembers(w.members()[:1])
	if len(tr.lives) != 0 {
		t.Errorf("got %v", tr.lives)
	}
}

// TestARareReporter is as fresh as it said it would be.
func TestARareReporter(t *testing.T) {
	w := newWorld(t, "gw", "b").links("gw-b").via("b>gw")
	w.reports["b"].EveryS = 600
	for age, want := range map[time.Duration]graph.Freshness{25 * time.Minute: graph.Fresh, 26 * time.Minute: graph.Late, 101 * time.Minute: graph.Silent} {
		w.ages["b"] = age
		if b, _ := w.draw().Node(id("b")); b.Report != want {
			t.Errorf("%v: got %s, want %s", age, b.Report, want)
		}
	}
}

func TestPutRefuses(t *testing.T) {
	w := newWorld(t, "gw", "b").links("gw-b")
	tr := tracked(t, w)
	bad := w.again("b")
	bad.Interfaces = slices.Clone(bad.Interfaces)
	bad.Interfaces[0].Name = "no name of an interface"
	if err := tr.Put(noon, bad); err == nil || !strings.Contains(err.Error(), "letters, digits") {
		t.Errorf("got %v", err)
	}
	r := w.again("b")
	r.Seq = 1
	if err := tr.Put(noon, r); !errors.Is(err, ErrOld) {
		t.Errorf("the same number: got %v", err)
	}
	r.Seq, r.Base = 9, 5
	if err := tr.Put(noon, r); !errors.Is(err, ErrBase) {
		t.Errorf("a base that is not there: got %v", err)
	}
	r = w.again("b")
	r.Base = 1
	r.Interfaces = model.ReportInterfaces{{Name: "mesh0", Addresses: []dot11.MAC{w.mac("b", "mesh0")}, Transport: model.TransportWiFi,
		Links: []model.ReportLink{{Peer: w.mac("gw", "mesh0"), Gone: true}}}}
	if err := tr.Put(noon, r); err != nil {
		t.Fatal(err)
	}
	if got, ok := tr.Report(id("b")); !ok || len(got.Interfaces) != 4 || len(got.Interfaces[2].Links) != 0 || got.Base != 0 {
		t.Errorf("got %+v", got)
	}
	if err := tr.Put(noon, r); !errors.Is(err, ErrOld) {
		t.Errorf("got %v", err)
	}
	// A node that lost its card begins again with boot 1.
	w.reports["b"].Boot = 5
	if err := tr.Put(noon, w.again("b")); err != nil {
		t.Fatal(err)
	}
	w.reports["b"].Boot = 1
	if err := tr.Put(noon.Add(time.Minute), w.again("b")); !errors.Is(err, ErrOld) {
		t.Errorf("got %v", err)
	}
	if err := tr.Put(noon.Add(11*time.Minute), w.again("b")); err != nil {
		t.Error(err)
	}
}

func TestNextHopChanges(t *testing.T) {
	w := newWorld(t, "gw", "b", "c", "d").links("gw-b gw-c b-d c-d").via("b>gw c>gw d>b")
	tr := tracked(t, w)
	tr.Update(noon)
	at := noon
	step := func(via string, want int) {
		t.Helper()
		at = at.Add(time.Minute)
		for _, n := range w.names {
			if n == "d" {
				w.reports["d"].NextHops = nil
				w.via(via)
			}
			if err := tr.Put(at, w.again(n)); err != nil {
				t.Fatal(err)
			}
		}
		tr.Update(at)
		if d, _ := tr.Picture().Node(id("d")); d.NextHops != want {
			t.Errorf("%v: got %d changes, want %d", at, d.NextHops, want)
		}
	}
	step("d>b", 0)
	step("d>c", 1)
	step("", 1) // no way is no change
	step("d>c", 1)
	step("", 1)
	step("d>b", 2)
	for n := range 52 { // within the hour, until 12:58
		step("d>"+string("bc"[(n+1)%2]), 3+n)
	}
	at = at.Add(30 * time.Minute)
	step("d>c", 30) // those after 12:29, and this
	if log := tr.hops[id("d")]; len(log.at) > maxChanges {
		t.Errorf("%d kept", len(log.at))
	}
	// The last of an hour ago are forgotten without a report.
	tr.Update(at.Add(2 * time.Hour))
	if d, _ := tr.Picture().Node(id("d")); d.NextHops != 0 {
		t.Errorf("got %d", d.NextHops)
	}
	log := new(hopLog)
	for n := range 1000 {
		log.put(noon.Add(time.Duration(n)*time.Second), string(rune('a'+n%2)))
	}
	if n := log.count(noon.Add(1000 * time.Second)); n != maxChanges {
		t.Errorf("got %d of many", n)
	}
}

// change has something happen to a network, and returns whose reports tell of it.
func (w *world) change(noise *rand.Rand) []string {
	n := w.names[noise.IntN(len(w.names))]
	radio := w.iface(n, "mesh0")
	switch noise.IntN(6) {
	case 0: // a link goes
		if len(radio.Links) > 0 {
			k := noise.IntN(len(radio.Links))
			radio.Links = slices.Delete(slices.Clone(radio.Links), k, k+1)
		}
	case 1: // a link comes
		o := w.names[noise.IntN(len(w.names))]
		if o != n && !slices.ContainsFunc(radio.Links, func(l model.ReportLink) bool { return l.Peer == w.mac(o, "mesh0") }) {
			radio.Links = slices.Clone(radio.Links)
			w.half(n, o, "mesh0", good)
		}
	case 2: // signals waver
		radio.Links = slices.Clone(radio.Links)
		for k := range radio.Links {
			radio.Links[k].SignalDBm = -40 - noise.IntN(50)
		}
	case 3: // routing finds another way, or none
		w.reports[n].NextHops = nil
		if o := w.names[noise.IntN(len(w.names))]; o != n && n != w.names[0] {
			w.via(n + ">" + o)
		}
	case 4: // addresses move
		o := w.names[noise.IntN(len(w.names))]
		w.iface(n, "eth0").Addresses = []dot11.MAC{w.mac(o, "eth0")}
	case 5: // a stranger is about
		if len(radio.Links) < 20 {
			radio.Links = append(slices.Clone(radio.Links), model.ReportLink{Peer: dot11.MAC{2, 8, 8, 8, byte(noise.IntN(2)), byte(noise.IntN(3))}})
			slices.SortFunc(radio.Links, func(a, b model.ReportLink) int { return slices.Compare(a.Peer[:], b.Peer[:]) })
			radio.Links = slices.CompactFunc(radio.Links, func(a, b model.ReportLink) bool { return a.Peer == b.Peer })
		}
	}
	return []string{n, w.names[noise.IntN(len(w.names))]}
}

// same compares pictures; cmp alone would take long for thousands.
func same(t *testing.T, whose string, want, got graph.Picture) {
	t.Helper()
	if d := graph.Diff(want, got); d.Len() != 0 || want.Run != got.Run || want.Seq != got.Seq || !want.At.Equal(got.At) || want.Gateway != got.Gateway ||
		want.Score != got.Score || !slices.Equal(want.Reasons, got.Reasons) {
		t.Fatalf("%s: (-want +got)\n%s", whose, cmp.Diff(want, got))
	}
}

// TestDeltas has one client follow each change and another come back now and then:
// both must see what the tracker does, also as JSON.
func TestDeltas(t *testing.T) {
	noise := rand.New(rand.NewPCG(11, 12))
	for range 20 {
		w := field(t, 12, 25, noise)
		tr := tracked(t, w)
		members := w.members()
		d, _ := tr.Update(noon)
		each, err := graph.Picture{Run: 7}.Apply(d)
		if err != nil {
			t.Fatal(err)
		}
		rare := each
		at := noon
		for range 150 {
			at = at.Add(time.Duration(noise.IntN(60)) * time.Second)
			for _, n := range w.change(noise) {
				if err := tr.Put(at, w.again(n)); err != nil && !errors.Is(err, ErrNotMember) {
					t.Fatal(err)
				}
			}
			if noise.IntN(20) == 0 {
				tr.SetMembers(members[:6+noise.IntN(7)])
			}
			d, ok := tr.Update(at)
			if ok {
				text, err := json.Marshal(d)
				if err != nil {
					t.Fatal(err)
				}
				var read graph.Delta
				if err := json.Unmarshal(text, &read); err != nil {
					t.Fatal(err)
				}
				if each, err = each.Apply(read); err != nil {
					t.Fatal(err)
				}
			}
			same(t, "one who follows", tr.Picture(), each)
			if noise.IntN(7) == 0 {
				d, ok := tr.Since(rare.Run, rare.Seq)
				if !ok {
					t.Fatalf("%d is forgotten at %d", rare.Seq, each.Seq)
				}
				if rare, err = rare.Apply(d); err != nil {
					t.Fatal(err)
				}
				same(t, "one who comes back", tr.Picture(), rare)
			}
		}
	}
}

func TestSinceForgets(t *testing.T) {
	w := newWorld(t, "gw", "b").links("gw-b")
	tr := tracked(t, w)
	if _, ok := tr.Since(7, 0); ok {
		t.Error("there is no picture yet")
	}
	for n := range 2 * maxKeptDeltas {
		at := noon.Add(time.Duration(n) * time.Second)
		if err := tr.Put(at, w.again("b")); err != nil {
			t.Fatal(err)
		}
		tr.Update(at)
	}
	seq := tr.Picture().Seq
	for name, tc := range map[string]struct {
		run, seq uint64
		want     bool
	}{
		"the last": {7, seq, true}, "one before": {7, seq - 1, true}, "the oldest that is kept": {7, seq - maxKeptDeltas, true},
		"too old": {7, seq - maxKeptDeltas - 1, false}, "to come": {7, seq + 1, false}, "another run": {8, seq, false}, "none": {7, 0, false},
	} {
		if d, ok := tr.Since(tc.run, tc.seq); ok != tc.want || ok && (d.From != tc.seq || d.Seq != seq || d.Len() > 1) {
			t.Errorf("%s: got %v, %+v", name, ok, d)
		}
	}
	if len(tr.deltas) > maxKeptDeltas || tr.items > maxKeptItems {
		t.Errorf("%d kept with %d items", len(tr.deltas), tr.items)
	}
}

func TestApplyRefusesWhatDoesNotFit(t *testing.T) {
	p := newWorld(t, "gw", "b", "c").links("gw-b b-c").draw()
	p.Run, p.Seq = 1, 4
	n := p.Nodes[0]
	for name, d := range map[string]graph.Delta{
		"another run":                {Run: 2, From: 4, Seq: 5},
		"another picture":            {Run: 1, From: 3, Seq: 5},
		"added twice":                {Run: 1, From: 4, Seq: 5, Nodes: graph.Changes[graph.Node, string]{Added: []graph.Node{n}}},
		"added out of order":         {Run: 1, From: 4, Seq: 5, Nodes: graph.Changes[graph.Node, string]{Added: []graph.Node{{ID: "z"}, {ID: "y"}}}},
		"removed where it is not":    {Run: 1, From: 4, Seq: 5, Links: graph.Changes[graph.Link, graph.LinkID]{Removed: []graph.LinkID{{A: "x"}}}},
		"changed where it is not":    {Run: 1, From: 4, Seq: 5, Routes: graph.Changes[graph.Route, string]{Changed: []graph.Route{{Node: "x"}}}},
		"changed and removed":        {Run: 1, From: 4, Seq: 5, Nodes: graph.Changes[graph.Node, string]{Changed: []graph.Node{n}, Removed: []string{n.ID}}},
		"a cut that is not there":    {Run: 1, From: 4, Seq: 5, Cuts: graph.Changes[graph.Cut, graph.CutID]{Removed: []graph.CutID{{Node: "x"}}}},
		"a conflict that is not":     {Run: 1, From: 4, Seq: 5, Conflicts: graph.Changes[graph.Conflict, dot11.MAC]{Removed: []dot11.MAC{{1}}}},
		"removed in the wrong order": {Run: 1, From: 4, Seq: 5, Nodes: graph.Changes[graph.Node, string]{Removed: []string{p.Nodes[1].ID, p.Nodes[0].ID}}},
	} {
		if got, err := p.Apply(d); err == nil {
			t.Errorf("%s: got %+v", name, got)
		}
	}
	if _, err := (graph.Delta{Run: 1, From: 1, Seq: 2}).Then(graph.Delta{Run: 1, From: 3, Seq: 4}); err == nil {
		t.Error("deltas with a gap between them were added")
	}
}

// FuzzTracker has a member report whatever it likes.
func FuzzTracker(f *testing.F) {
	noise := rand.New(rand.NewPCG(25, 26))
	w := field(f, 6, 9, noise)
	for range 20 {
		r := w.again(w.change(noise)[0])
		b, err := cbor.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var r model.Report
		if err := cbor.Unmarshal(b, &r); err != nil {
			return
		}
		w := newWorld(t, "gw", "b", "c").links("gw-b b-c").via("b>gw c>b")
		tr := tracked(t, w)
		tr.Update(noon)
		was := tr.Picture()
		r.Node, r.Boot, r.Seq = id("c"), 2, max(r.Seq, 1)
		if r.Base != 0 {
			r.Boot, r.Seq, r.Base = 1, 2, 1
		}
		if err := tr.Put(noon, r); err != nil {
			return
		}
		d, _ := tr.Update(noon)
		if len(tr.Picture().Nodes) > 3+graph.MaxStrangers || len(tr.Picture().Links) > 3*model.MaxReportLinks {
			t.Fatalf("got %d nodes and %d links", len(tr.Picture().Nodes), len(tr.Picture().Links))
		}
		if d.Len() > 0 {
			if p, err := was.Apply(d); err != nil || graph.Diff(p, tr.Picture()).Len() != 0 {
				t.Fatalf("%v", err)
			}
		}
		if l, _ := tr.Picture().Link(wifi("b", "gw")); l.State != graph.Live && len(tr.Picture().Conflicts) == 0 {
			t.Fatalf("one report took a link of others: %+v, %+v", l, tr.Picture().Conflicts)
		}
	})
}

// BenchmarkUpdate250 is what a report costs: it is taken, and the picture drawn anew.
func BenchmarkUpdate250(b *testing.B) {
	noise := rand.New(rand.NewPCG(1, 2))
	w := field(b, 250, 1500, noise)
	tr := tracked(b, w)
	tr.Update(noon)
	at := noon
	since := cpu()
	for b.Loop() {
		at = at.Add(time.Second)
		if err := tr.Put(at, w.again(w.names[noise.IntN(250)])); err != nil {
			b.Fatal(err)
		}
		tr.Update(at)
	}
	reportCPU(b, since)
}

// BenchmarkIdle250 is what a look costs while nothing happens.
func BenchmarkIdle250(b *testing.B) {
	tr := tracked(b, field(b, 250, 1500, rand.New(rand.NewPCG(1, 2))))
	tr.Update(noon)
	since := cpu()
	for b.Loop() {
		tr.Update(noon.Add(time.Second))
	}
	reportCPU(b, since)
}

package live

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/dot11"
	"halo.internal/model/graph"
)

// album has pictures, of which it remembers the last two changes.
type album []graph.Picture

func (a album) Picture() graph.Picture {
	if len(a) == 0 {
		return graph.Picture{Run: 7}
	}
	return a[len(a)-1]
}

func (a album) News() (uint64, <-chan struct{}) { return a.Picture().Seq, nil }

func (a album) Since(_, seq uint64) (graph.Delta, bool) {
	if int(seq) > len(a) || len(a)-int(seq) > 2 {
		return graph.Delta{}, false
	}
	return graph.Diff(a[seq-1], a.Picture()), true
}

// hang adds a picture.
func (a album) hang(score int, nodes []graph.Node, links []graph.Link, cuts []graph.Cut, conflicts []graph.Conflict) album {
	p := graph.Picture{Run: 7, Seq: uint64(len(a) + 1), At: time.Unix(int64(len(a)), 0), Gateway: "a", Score: score, Nodes: nodes, Links: links, Cuts: cuts, Conflicts: conflicts}
	for _, n := range nodes {
		if n.ID != "a" {
			p.Routes = append(p.Routes, graph.Route{Node: n.ID, Hops: len(links)})
		}
	}
	return append(a, p)
}

// wall is what a client has of a picture.
type wall map[string]apitype.TopologyPiece

// told has a client hear what changed after a picture, as its Source tells it.
func (w wall) told(t *testing.T, of album, after uint64) (to uint64, ids []string) {
	t.Helper()
	to, whole, list, err := pictureSource{of}.Since(t.Context(), Filter{}, after)
	if err != nil || !whole {
		t.Fatalf("after %d: whole %v, %v", after, whole, err)
	}
	if after == 0 {
		clear(w)
	}
	for c, err := range list {
		if err != nil {
			t.Fatal(err)
		}
		if c.Gone != "" {
			if _, ok := w[c.Gone]; !ok {
				t.Errorf("%q is gone, and was not there", c.Gone)
			}
			delete(w, c.Gone)
			ids = append(ids, "-"+c.Gone)
			continue
		}
		p := c.Item.(apitype.TopologyPiece)
		w[p.ID] = p
		ids = append(ids, p.ID)
	}
	return to, ids
}

// picture puts the pieces together.
func (w wall) picture() (p graph.Picture) {
	var ids []string
	for id := range w {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for _, id := range ids {
		switch v := w[id]; {
		case v.Network != nil:
			p.Run, p.Seq, p.At, p.Gateway, p.Score, p.Reasons = v.Network.Run, v.Network.Seq, v.Network.At, v.Network.Gateway, v.Network.Score, v.Network.Reasons
		case v.Node != nil:
			p.Nodes = append(p.Nodes, *v.Node)
		case v.Link != nil:
			p.Links = append(p.Links, *v.Link)
		case v.Route != nil:
			p.Routes = append(p.Routes, *v.Route)
		case v.Cut != nil:
			p.Cuts = append(p.Cuts, *v.Cut)
		case v.Conflict != nil:
			p.Conflicts = append(p.Conflicts, *v.Conflict)
		}
	}
	return p
}

func TestThePiecesMakeThePicture(t *testing.T) {
	node := func(id string, score int) graph.Node { return graph.Node{ID: id, Kind: graph.KindNode, Score: score} }
	link := func(a, b string, over model.Transport) graph.Link {
		return graph.Link{LinkID: graph.LinkID{A: a, B: b, Transport: over}}
	}
	cut := []graph.Cut{{CutID: graph.CutID{Node: "b"}, Count: 1, Split: []string{"c"}}}
	twice := []graph.Conflict{{Address: dot11.MAC{2, 0, 0, 0, 0, 1}, Nodes: []string{"a", "b"}}}
	var of album
	w := wall{}
	if to, ids := w.told(t, of, 0); to != 1 || ids != nil {
		t.Errorf("before the first picture: got %d %v", to, ids)
	}
	of = of.hang(100, []graph.Node{node("a", 100), node("b", 90)}, []graph.Link{link("a", "b", model.TransportWiFi)}, nil, nil)
	at, ids := w.told(t, of, 1) // what was told before the first
	if want := []string{"node a", "node b", "link a wifi b", "route b", "network"}; at != 2 || !slices.Equal(ids, want) {
		t.Errorf("got %d %q, want 2 %q", at, ids, want)
	}
	of = of.hang(80, []graph.Node{node("a", 100), node("b", 70), node("c", 80)}, []graph.Link{link("a", "b", model.TransportWiFi), link("b", "c", model.TransportHaLow)}, cut, twice)
	if at, _ = w.told(t, of, at); at != 3 || !cmp.Equal(w.picture(), of.Picture()) {
		t.Error(cmp.Diff(of.Picture(), w.picture()))
	}
	of = of.hang(90, []graph.Node{node("a", 100), node("c", 80)}, []graph.Link{link("a", "c", model.TransportHaLow)}, nil, nil)
	at, ids = w.told(t, of, at)
	want := []string{"-node b", "-link a wifi b", "-link b halow c", "link a halow c", "-route b", "route c", "-cut " + cut[0].CutID.String(), "-conflict " + twice[0].Address.String(), "network"}
	if !slices.Equal(ids, want) {
		t.Errorf("got %q, want %q", ids, want)
	}
	if got := w.picture(); at != 4 || !cmp.Equal(got, of.Picture()) {
		t.Error(cmp.Diff(of.Picture(), got))
	}

	if _, whole, _, _ := (pictureSource{of.hang(1, nil, nil, nil, nil)}).Since(t.Context(), Filter{}, 2); whole {
		t.Error("what is not remembered any more was said to be whole")
	}
	if to, ids := (wall{}).told(t, of, 0); to != 4 || len(ids) != 2+1+1+1 {
		t.Errorf("anew: got %s %q", strconv.FormatUint(to, 10), ids)
	}
}

package mesh

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"halo.internal/identity"
	"halo.internal/mesh/overlay"
	"halo.internal/mesh/profile"
	"halo.internal/model"
)

// peers is what gateway-api says who admitted those nodes.
func (s *site) peers(nodes ...identity.Key) (list []model.AdmittedPeer) {
	s.t.Helper()
	for _, p := range s.registry().Peers {
		if slices.ContainsFunc(nodes, func(k identity.Key) bool { return k.ID() == p.Node }) {
			list = append(list, p.AdmittedPeer)
		}
	}
	return list
}

// put has gateway-api say who is admitted.
func (s *site) put(nodes ...identity.Key) {
	s.t.Helper()
	if err := s.g.PutPeers(s.peers(nodes...)); err != nil {
		s.t.Error(err)
	}
}

// restart is a start after the power went.
func (s *site) restart() {
	s.g.saveRegistry()
	known := s.g.known
	s.g = newGateway(s.core())
	if len(s.g.known.Peers) != len(known.Peers) {
		s.t.Errorf("the card has %d peers, want %d", len(s.g.known.Peers), len(known.Peers))
	}
}

// adopts has the gateway take the document from a node's excerpt.
func (s *site) adopts(d profile.Document) {
	s.t.Helper()
	s.g.profiles.strange(Stranger{Iface: "eth9"}, s.answer(s.asks(), d))
	if f := s.g.profiles.m.Force(); f.Serial != d.Serial || f.Whole() {
		s.t.Fatalf("it is at document %d, whole %v; want an excerpt of %d", f.Serial, f.Whole(), d.Serial)
	}
}

// counts checks who is a member, in all that the gateway signs, and who is shut out.
func (s *site) counts(what string, members ...identity.Key) {
	s.t.Helper()
	p := s.g.profiles
	p.adopted = time.Time{}
	p.mu.Lock()
	d, err := p.sign(s.mesh(9), nil)
	p.mu.Unlock()
	if err != nil {
		s.t.Fatalf("%s: %v", what, err)
	}
	s.g.mu.Lock()
	s.g.signList()
	l, over := s.g.list.List, s.g.known.overlayPeers(s.g.net)
	s.g.mu.Unlock()
	for i, k := range s.nodes {
		want := slices.ContainsFunc(members, func(m identity.Key) bool { return m.ID() == k.ID() })
		_, listed := l.Find(k.Public())
		for where, is := range map[string]bool{
			"the document": d.Has(k.Public()), "the list": listed, "the overlay": slices.ContainsFunc(over, func(o overlay.Peer) bool { return o.Node == k.ID() }),
		} {
			if is != want {
				s.t.Errorf("%s: node %d is in %s: %v, want %v", what, i, where, is, want)
			}
		}
		if known := slices.ContainsFunc(s.g.known.Peers, func(p knownPeer) bool { return p.Node == k.ID() }); known && !want != slices.Contains(l.Revoked, k.ID()) {
			s.t.Errorf("%s: node %d: the list shuts out %v", what, i, l.Revoked)
		}
		if err := s.g.shut.admit(k.Public()); !want && slices.Contains(l.Revoked, k.ID()) != errors.Is(err, errRevoked) || want && err != nil {
			s.t.Errorf("%s: node %d at a port: %v", what, i, err)
		}
	}
}

// TestWhoIsNotCountedStaysOut: an old card comes to the document that the network has,
// from which a node was left out since, and signs for all whom its card knows.
func TestWhoIsNotCountedStaysOut(t *testing.T) {
	type steps func(s *site, gone, stays, late identity.Key)
	for name, tc := range map[string]struct {
		steps steps
		out   bool // the one that was left out
		late  bool // one that joins behind is a member
	}{
		"it stays out": {func(*site, identity.Key, identity.Key, identity.Key) {}, true, false},
		"over a restart, and what gateway-api says again": {func(s *site, gone, stays, _ identity.Key) {
			s.restart()
			s.put(gone, stays)
			s.put(gone, stays)
		}, true, false},
		"though the epoch was raised": {func(s *site, _, _, _ identity.Key) {
			s.g.known.Announce.Epoch = 2
			s.g.profiles.adopted = time.Time{}
			s.g.profiles.keepUp()
			if f := s.g.profiles.m.Force(); f.Epoch != 2 {
				s.t.Errorf("it has a document of epoch %d, want 2", f.Epoch)
			}
		}, true, false},
		"and who joins later is a member": {func(s *site, gone, stays, late identity.Key) { s.put(gone, stays, late) }, true, true},
		"until an admin approves it anew": {func(s *site, gone, stays, _ identity.Key) {
			s.put(gone, stays)
			if out := s.g.leftOut(); !slices.Equal(out, []string{gone.ID()}) {
				s.t.Errorf("it tells of %v", out)
			}
			s.put(stays) // gateway-api has revoked it
			if out := s.g.leftOut(); len(out) != 0 {
				s.t.Errorf("it tells of %v of one that gateway-api has revoked", out)
			}
			s.put(gone, stays)
		}, false, false},
		"it is the only one, and approved after a restart": {func(s *site, gone, stays, _ identity.Key) {
			s.put()
			s.restart()
			s.put()
			s.put(gone, stays)
		}, false, false},
		"until a later document counts it": {func(s *site, gone, stays, _ identity.Key) {
			d := s.documentFor(8, gone, stays)
			s.adopts(d)
			s.g.profiles.complete(d)
		}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, 3, 3)
			gone, stays, late := s.nodes[0], s.nodes[1], s.nodes[2]
			s.put(gone, stays)
			d := s.documentFor(7, stays)
			s.adopts(d)
			s.g.profiles.complete(d)
			tc.steps(s, gone, stays, late)
			want := []identity.Key{stays}
			if !tc.out {
				want = append(want, gone)
			}
			if tc.late {
				want = append(want, late)
			}
			s.counts(name, want...)
		})
	}
}

// TestAnOldCardThatIsToldLater: halo-mesh has lost the peers, and gateway-api comes up
// when the document is there, as an excerpt or as a whole.
func TestAnOldCardThatIsToldLater(t *testing.T) {
	for name, steps := range map[string]func(s *site, d profile.Document){
		"before the whole": func(s *site, d profile.Document) { s.put(s.nodes...); s.g.profiles.complete(d) },
		"behind the whole": func(s *site, d profile.Document) { s.g.profiles.complete(d); s.put(s.nodes...) },
		"and the power goes": func(s *site, d profile.Document) {
			s.put(s.nodes...)
			s.restart()
			s.g.profiles.complete(d)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, 2, 3)
			s.g.known.Peers = nil
			d := s.documentFor(7, s.nodes[1])
			s.adopts(d)
			steps(s, d)
			s.counts(name, s.nodes[1])
		})
	}
}

// TestNothingIsSignedOfAnExcerpt: whom the document counts is not known, so that what
// is signed could let anybody in.
func TestNothingIsSignedOfAnExcerpt(t *testing.T) {
	s := newSite(t, 2, 3)
	p := s.g.profiles
	s.adopts(s.documentFor(7, s.nodes[1]))
	p.adopted = time.Time{}
	p.kept.Due = true
	p.reach.look(time.Now().Add(-deserted), true, 0) // nobody is awaited
	s.g.known.Announce.Epoch = 2
	p.keepUp()
	p.begun = time.Now().Add(-time.Hour)
	if err := s.g.PutProfile(model.ProfileChange{RotateSecret: true, Anyway: true}); err == nil || !strings.Contains(err.Error(), "wait until a node") {
		t.Errorf("a change by hand: got %v", err)
	}
	s.uses(7)
	if m := s.g.self(); !m.Lacks || m.Profile != 7 {
		t.Errorf("it announces document %d, lacking the whole %v", m.Profile, m.Lacks)
	}
	s.restart()
	if m := s.g.self(); !m.Lacks {
		t.Error("after a restart it asks for the whole no more")
	}
}

// TestTheWholeIsTakenFromANode, and nothing else is, from nobody else.
func TestTheWholeIsTakenFromANode(t *testing.T) {
	s := newSite(t, 2, 3)
	s.put(s.nodes...)
	d := s.documentFor(7, s.nodes[1])
	s.adopts(d)
	mux := http.NewServeMux()
	s.g.profiles.serve(mux)
	node := s.peers(s.nodes[1])[0].OverlayV4.String() + ":999"
	x, err := d.Excerpt(s.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, from string
		body       []byte
		status     int
		lacks      bool
	}{
		{"a stranger", "10.42.9.9:999", d.Marshal(), http.StatusForbidden, true},
		{"rubbish", node, []byte("rubbish"), http.StatusBadRequest, true},
		{"too much", node, make([]byte, profile.MaxSize+1), http.StatusBadRequest, true},
		{"an excerpt", node, x.Marshal(), http.StatusNoContent, true},
		{"another document", node, s.documentFor(8, s.nodes...).Marshal(), http.StatusNoContent, true},
		{"the whole", node, d.Marshal(), http.StatusNoContent, false},
		{"a second time", node, d.Marshal(), http.StatusNoContent, false},
	} {
		r := httptest.NewRequest(http.MethodPost, routeProfileWhole, strings.NewReader(string(tc.body)))
		r.RemoteAddr = tc.from
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		if lacks := s.g.self().Lacks; w.Code != tc.status || lacks != tc.lacks {
			t.Errorf("%s: status %d, lacks %v; want %d, %v", tc.name, w.Code, lacks, tc.status, tc.lacks)
		}
	}
	s.counts("from a node", s.nodes[1])
}

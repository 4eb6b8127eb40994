package mesh

import (
	"context"
	"net/netip"
	"os"
	"testing"
	"time"

	"halo.internal/mesh/announce"
	"halo.internal/mesh/change"
	"halo.internal/model/paths"
)

// TestAGatewayThatStandsAsideHasNothingDue: it may do nothing of what it counts down to.
func TestAGatewayThatStandsAsideHasNothingDue(t *testing.T) {
	s := newSite(t, 1, 3)
	p := s.g.profiles
	p.mu.Lock()
	target := p.m.On()
	target.Channel = 6
	d, err := p.start(time.Now(), target, s.g.nodes(), false)
	if err != nil {
		t.Fatal(err)
	}
	p.m.Save()
	p.m.Report(time.Now(), s.nodes[0].ID(), d.Serial, 0)
	p.m.Advance(time.Now())
	p.m.Save()
	phase, now := p.m.State().Phase, time.Now()
	p.mu.Unlock()
	if due := p.due(now); phase != change.Ordered || due.After(now) {
		t.Fatalf("it is %s, and due in %s", phase, due.Sub(now))
	}
	s.g.voice.StandDown(9)
	if due := p.due(now); due.Before(now.Add(looksEvery)) {
		t.Errorf("while it stands aside it is due in %s", due.Sub(now))
	}
}

// TestACardKnowsThatItsGatewayHasStoodDown, until it serves again.
func TestACardKnowsThatItsGatewayHasStoodDown(t *testing.T) {
	s := newSite(t, 1, 0)
	file := s.g.path(paths.State + "/" + paths.StoodDown)
	if w := s.g.voice.Twinned(); w.Aside || s.g.asideKept {
		t.Fatalf("a fresh card begins with %+v", w)
	}
	keep := func(g *gateway, want bool) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- g.keepPlace(ctx) }()
		for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
			if _, err := os.Stat(file); (err == nil) == want {
				break
			}
			if time.Now().After(end) {
				t.Errorf("the card has it: %v, want %v", !want, want)
				break
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	s.g.voice.StandDown(9)
	keep(s.g, true)
	again := newGateway(s.core())
	if w := again.voice.Twinned(); !w.Aside || w.Other == nil || w.Other.Epoch != 9 {
		t.Errorf("after a start: %+v, want that it stands down for epoch 9", w)
	}
	if again.twinStatus() == nil || again.watchTwin() == "" || !again.profiles.standsDown() {
		t.Errorf("it does not say so: %+v, %q", again.twinStatus(), again.watchTwin())
	}

	// It serves: what a voice that never stood down says.
	again.voice = announce.NewGatewaySide(again.announceConfig(), again.self, func(n announce.Node, _ netip.Addr) <-chan struct{} { return again.hear(n) })
	keep(again, false)
	if w := newGateway(s.core()).voice.Twinned(); w.Aside {
		t.Errorf("after it served: %+v", w)
	}
	s.g.asideKept = false
	keep(s.g, true)
	s.core().forgetNetwork()
	if w := newGateway(s.core()).voice.Twinned(); w.Aside {
		t.Errorf("as the gateway of another network it begins with %+v", w)
	}
	for _, damaged := range []string{"", "{", "[]"} {
		if err := os.WriteFile(file, []byte(damaged), 0o600); err != nil {
			t.Fatal(err)
		}
		if w := newGateway(s.core()).voice.Twinned(); w.Aside {
			t.Errorf("from %q: %+v", damaged, w)
		}
	}
}

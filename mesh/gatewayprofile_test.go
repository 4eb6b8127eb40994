package mesh

import (
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/identity"
	"halo.internal/mesh/announce"
	"halo.internal/mesh/change"
	"halo.internal/mesh/clock"
	"halo.internal/mesh/events"
	"halo.internal/mesh/profile"
	"halo.internal/mesh/rejoin"
	"halo.internal/mesh/state"
	"halo.internal/model"
	"halo.internal/model/bundle"
	"halo.internal/model/paths"
)

// quiet is an underlay on which a test hears what is said past the mesh.
type quiet struct {
	Underlay // what no test needs

	mu     sync.Mutex
	linked bool
	said   [][]byte
	on     bundle.Mesh
	hangs  time.Duration // for which a radio has hung
}

func (u *quiet) Say(_ Stranger, payload []byte) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.said = append(u.said, payload)
}

func (u *quiet) Switch(m bundle.Mesh) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.on = m
}

func (u *quiet) Ports() []model.Port {
	u.mu.Lock()
	defer u.mu.Unlock()
	p := model.Port{}
	if u.linked {
		p.Members = []string{"a member"}
	}
	return []model.Port{p}
}

func (u *quiet) Hangs() (string, time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return "radio phy0", u.hangs
}

func (u *quiet) Carries() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.linked
}

func (*quiet) Radios() []model.Radio   { return nil }
func (*quiet) Standing() []model.Radio { return nil }

func (*quiet) NextHop() *model.ReportNextHop { return nil }

func (*quiet) Recheck()                 {}
func (*quiet) Lacking() error           { return nil }
func (*quiet) Aside(bool) error         { return nil }
func (*quiet) Permit(bundle.Mesh) error { return nil }

// site is a gateway with its underlay, and the network's key, by which the test makes
// documents of all times.
type site struct {
	t     *testing.T
	key   identity.Key
	nodes []identity.Key
	root  string
	vault identity.Vault
	under *quiet
	g     *gateway
}

// newSite makes a gateway that knows that many nodes, and whose card has the document
// of that serial; 0: it is fresh.
func newSite(t *testing.T, nodes int, serial uint64) *site {
	t.Helper()
	s := &site{t: t, key: identity.New(), root: t.TempDir(), under: &quiet{}}
	for range nodes {
		s.nodes = append(s.nodes, identity.New())
	}
	c := s.core()
	if serial != 0 {
		d, err := s.document(serial).Open(s.key)
		if err != nil {
			t.Fatal(err)
		}
		c.keepProfile(keptProfile{}, d, nil)
	}
	s.g = newGateway(c)
	s.g.known = s.registry()
	return s
}

func (s *site) core() *core {
	log := slog.New(slog.NewTextHandler(s.t.Output(), nil))
	c := clock.New(stopped{}, time.Now().AddDate(-1, 0, 0))
	return &core{
		Config: Config{Root: s.root, Role: model.RoleGateway, Log: log, ChangeTiming: change.Timing{Countdown: time.Millisecond}}, id: identity.State{Key: s.key, BootCounter: 1},
		store: state.New(paths.Dir(filepath.Join(s.root, paths.State)), s.vault), net: s.key.Public(), clock: c, under: s.under, keys: &overlayKey{},
		bundle: bundle.Bundle{Role: model.RoleGateway, Mesh: s.mesh(0)},
		events: events.Open(filepath.Join(s.root, "events"), s.key.ID(), 1, c.Now, log), begun: time.Now().Add(-startAsks),
	}
}

func (s *site) registry() registry {
	r := registry{Announce: &model.Announce{Epoch: 1, APIPort: 443}}
	for i, k := range s.nodes {
		p := admitted(s.key.Public(), k, "10.42.1.2")
		p.OverlayV4 = p.OverlayV4.Next()
		for range i {
			p.OverlayV4 = p.OverlayV4.Next()
		}
		r.Peers = append(r.Peers, knownPeer{AdmittedPeer: p})
	}
	return r
}

// mesh is the profile of a document.
func (s *site) mesh(serial uint64) bundle.Mesh {
	psk := []byte("secret of document 0")
	psk[len(psk)-1] += byte(serial)
	return bundle.Mesh{SSID: "M", PSK: string(psk), Routing: "BATMAN_IV"}.WithDefaults()
}

func (s *site) document(serial uint64) profile.Document { return s.documentFor(serial, s.nodes...) }

// documentFor is one that counts those nodes alone.
func (s *site) documentFor(serial uint64, nodes ...identity.Key) profile.Document {
	s.t.Helper()
	members := []identity.PublicKey{s.key.Public()}
	for _, k := range nodes {
		members = append(members, k.Public())
	}
	d, err := profile.Sign(s.key, profile.Draft{Epoch: 1, Serial: serial, Issued: time.Now(), Mesh: s.mesh(serial), Members: members})
	if err != nil {
		s.t.Fatal(err)
	}
	return d
}

// asks has the gateway ask all around, and returns what it said: a frame of
// mesh/rejoin.
func (s *site) asks() []byte {
	s.t.Helper()
	s.under.mu.Lock()
	s.under.said = nil
	s.under.mu.Unlock()
	s.g.profiles.looked = time.Time{}
	s.g.profiles.seek()
	s.under.mu.Lock()
	defer s.under.mu.Unlock()
	if len(s.under.said) == 0 {
		return nil
	}
	return s.under.said[0]
}

// answer is what somebody can say to a request who has that document.
func (s *site) answer(request []byte, d profile.Document) []byte {
	s.t.Helper()
	const (
		header    = 6
		nonce     = 8
		signature = 64
	)
	x, err := d.Excerpt(s.key.Public())
	if err != nil {
		s.t.Fatal(err)
	}
	b := append([]byte{}, request[:header]...)
	b[header-1] = 2 // an answer
	b = append(b, request[len(request)-signature-nonce:len(request)-signature]...)
	return append(b, x.Marshal()...)
}

// uses checks which document the gateway is at, also after a restart.
func (s *site) uses(serial uint64) {
	s.t.Helper()
	want := s.mesh(serial)
	p := s.g.profiles
	p.mu.Lock()
	force, on := p.m.Force(), p.m.On()
	p.mu.Unlock()
	if force.Serial != serial || on != want {
		s.t.Errorf("the gateway is at document %d, and uses %q; want %d, %q", force.Serial, on.PSK, serial, want.PSK)
	}
	if again := newGateway(s.core()).profiles; again.m.Force().Serial != serial {
		s.t.Errorf("its card has document %d, want %d", again.m.Force().Serial, serial)
	}
}

// TestTheGatewayTakesNoEarlierDocument that somebody kept: it would sign it for all.
func TestTheGatewayTakesNoEarlierDocument(t *testing.T) {
	for name, tc := range map[string]struct {
		card uint64
		told []uint64
		want uint64
	}{
		"an old card, and two members of whom one was off": {3, []uint64{7, 5}, 7},
		"the one that was off is the first":                {3, []uint64{5, 7}, 7},
		"who was revoked has its document still":           {7, []uint64{3}, 7},
		"a fresh card":                                     {0, []uint64{5}, 5},
		"a fresh card, and who was revoked is the first":   {0, []uint64{3, 7, 3}, 7},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, 2, tc.card)
			ask := s.asks()
			for _, serial := range tc.told {
				s.g.profiles.strange(Stranger{Iface: "eth9"}, s.answer(ask, s.document(serial)))
			}
			s.uses(tc.want)
		})
	}
}

// TestTheGatewayHearsAllOut: whoever answers first is linked then, and has it sign
// nothing before others were asked too.
func TestTheGatewayHearsAllOut(t *testing.T) {
	s := newSite(t, 2, 0)
	s.g.known.Announce.Epoch = 2 // of the fresh card: its documents are to have it
	p := s.g.profiles
	p.strange(Stranger{Iface: "eth9"}, s.answer(s.asks(), s.document(3)))
	s.under.linked = true
	p.keepUp()
	ask := s.asks()
	if ask == nil {
		t.Fatal("it asks nobody any more")
	}
	if had := binary.BigEndian.Uint64(ask[6+16+8:]); had != 3 {
		t.Errorf("it asks for documents after %d, want 3", had)
	}
	p.strange(Stranger{Iface: "eth9"}, s.answer(ask, s.document(7)))
	s.uses(7)
	p.adopted = time.Now().Add(-hearOut)
	if s.asks() != nil {
		t.Error("it asks though it is linked")
	}
	if p.keepUp(); p.m.Force().Serial != 7 {
		t.Error("it signs a document and does not know yet whom the adopted one counts")
	}
	p.complete(s.document(7))
	p.keepUp()
	if f := p.m.Force(); f.Epoch != 2 || f.Mesh != s.mesh(7) || p.m.State().Phase != change.Idle {
		t.Errorf("got document %d of epoch %d with %q, want one of epoch 2 with the profile of 7", f.Serial, f.Epoch, f.Mesh.PSK)
	}
}

// TestTheGatewayAsksForWhatANodeHas, linked or not, and for no longer than a claim is
// worth.
func TestTheGatewayAsksForWhatANodeHas(t *testing.T) {
	s := newSite(t, 2, 5)
	s.under.linked = true
	p := s.g.profiles
	says := func(held uint64) {
		key := s.nodes[0].Public()
		s.g.hear(announce.Node{Key: key[:], Held: held})
	}
	if says(5); s.asks() != nil {
		t.Error("it asks for what it has")
	}
	s.g.begun = time.Now()
	if s.asks() == nil {
		t.Error("it has just started, and asks nobody: who is linked may have been revoked")
	}
	s.g.begun = s.g.begun.Add(-startAsks)
	says(7)
	ask := s.asks()
	if ask == nil {
		t.Fatal("it does not ask for what a node says to have")
	}
	p.held = time.Now().Add(-heldAsks)
	if s.asks() != nil {
		t.Error("it asks for ever")
	}
	p.strange(Stranger{Iface: "eth9"}, s.answer(ask, s.document(7)))
	s.uses(7)
	p.adopted = time.Time{}
	if says(7); s.asks() != nil {
		t.Error("it asks for what it has got")
	}
}

// TestTheGatewayAsksWhoAsksIt: nodes that the mesh profile has taken elsewhere do not hear
// an old card's gateway, which has others for peers. They ask past the mesh whether there
// is a later document than theirs, and leave their own peers for no former profile.
func TestTheGatewayAsksWhoAsksIt(t *testing.T) {
	s := newSite(t, 2, 5)
	s.under.linked = true
	p := s.g.profiles
	node := rejoin.New(rejoin.Config{Key: s.nodes[0], Network: s.key.Public(), Members: func() []identity.PublicKey { return []identity.PublicKey{s.key.Public(), s.nodes[0].Public()} },
		Document: func(identity.PublicKey) (profile.Document, bool) { return s.document(7), true }, Boot: 1, Since: sinceBoot})
	says := func(serial uint64) {
		p.strange(Stranger{Iface: "eth9"}, node.Request(time.Now(), s.document(serial)))
	}
	if says(5); s.asks() != nil {
		t.Error("it asks for what it has")
	}
	says(7)
	ask := s.asks()
	if ask == nil {
		t.Fatal("it does not ask for what a node says to have")
	}
	p.strange(Stranger{Iface: "eth9"}, s.answer(ask, s.document(7)))
	s.uses(7)
	p.adopted = time.Time{}
	asked := 0
	for range 100 { // anybody can say so
		p.held = time.Time{}
		if says(9); s.asks() != nil {
			asked++
		}
	}
	if asked > strangeMost {
		t.Errorf("it asked %d times for what nobody proves, want at most %d", asked, strangeMost)
	}
}

// TestStrangersLeaveNothing behind at the gateway, however many keys they draw: no word
// of their documents is kept, nobody is woken by it, and what they claim to have is asked
// for a few times at most.
func TestStrangersLeaveNothing(t *testing.T) {
	s := newSite(t, 2, 5)
	p := s.g.profiles
	s.under.linked = true
	s.g.known.Revoked = []string{s.nodes[1].ID()}
	says := func(k identity.Key, held uint64) (woken bool) {
		key := k.Public()
		s.g.hear(announce.Node{Key: key[:], Held: held})
		select {
		case <-p.wake:
			return true
		default:
			return false
		}
	}
	asked := 0
	for range 100 {
		p.held = time.Time{}
		if says(identity.New(), 7) {
			t.Fatal("a stranger has the overlay be looked at")
		}
		if s.asks() != nil {
			asked++
		}
	}
	if asked != strangeMost {
		t.Errorf("it asked %d times for what strangers say to have, want %d", asked, strangeMost)
	}
	if says(s.nodes[1], 7) {
		t.Error("so does one that was revoked")
	}
	if !says(s.nodes[0], 7) || s.asks() == nil {
		t.Error("a member was not listened to")
	}
	if known := p.m.Nodes(); len(known) != 1 || known[s.nodes[0].ID()].Held != 7 {
		t.Errorf("got what %d nodes said, want one's: %v", len(known), known)
	}
}

// silent is a socket on which nothing is heard.
type silent struct{ done chan struct{} }

func (s silent) Receive([]byte) (int, netip.Addr, error) {
	<-s.done
	return 0, netip.Addr{}, errors.New("closed")
}
func (silent) Send([]byte, netip.Addr) error   { return nil }
func (silent) Watch(ctx context.Context) error { <-ctx.Done(); return nil }
func (s silent) Close() error                  { close(s.done); return nil }

// TestADocumentShowsThatAnotherCardWasInUse, which had the same epoch: this one has to
// raise its own, or nodes keep to what the other signed.
func TestADocumentShowsThatAnotherCardWasInUse(t *testing.T) {
	for name, tc := range map[string]struct {
		serial, want uint64
	}{
		"it cannot have made it yet":    {2<<bootBits | 1, 1},
		"it may have lost it meanwhile": {7, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSite(t, 1, 0)
				c := s.g.announceConfig()
				c.Open = func() (announce.Socket, error) { return silent{make(chan struct{})}, nil }
				s.g.voice = announce.NewGatewaySide(c, s.g.self, func(n announce.Node, _ netip.Addr) <-chan struct{} { return s.g.hear(n) })
				ctx, end := context.WithCancel(t.Context())
				done := make(chan error)
				go func() { done <- s.g.voice.Run(ctx) }()
				s.g.profiles.strange(Stranger{Iface: "eth9"}, s.answer(s.asks(), s.document(tc.serial)))
				time.Sleep(time.Minute)
				synctest.Wait()
				if got := s.g.voice.HeardEpoch(); got != tc.want {
					t.Errorf("it has heard of epoch %d, want %d", got, tc.want)
				}
				end()
				if err := <-done; err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// speaking is a socket on which a test hears what is said, and when.
type speaking struct {
	silent
	said func(b []byte)
}

func (s speaking) Send(b []byte, _ netip.Addr) error { s.said(b); return nil }

// TestARevocationWaitsForNobody: links come and go all the time, as the node can have
// them do that is about to be revoked.
func TestARevocationWaitsForNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSite(t, 3, 0)
		codec := announce.Codec{Network: s.key.Public()}
		var mu sync.Mutex
		heard := map[uint64]time.Time{} // lists, and when they were announced
		c := s.g.announceConfig()
		c.Open = func() (announce.Socket, error) {
			return speaking{silent{make(chan struct{})}, func(b []byte) {
				m, err := codec.Decode(b)
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				if g, ok := m.(announce.Gateway); ok && heard[g.List].IsZero() {
					heard[g.List] = time.Now()
				}
			}}, nil
		}
		s.g.voice = announce.NewGatewaySide(c, s.g.self, func(n announce.Node, _ netip.Addr) <-chan struct{} { return s.g.hear(n) })
		ctx, end := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- s.g.voice.Run(ctx) }()
		flap := func(lasts time.Duration) {
			for until := time.Now().Add(lasts); time.Now().Before(until); time.Sleep(50 * time.Millisecond) {
				s.g.greet()
			}
			synctest.Wait()
		}
		peers := func() (list []model.AdmittedPeer) {
			for _, p := range s.g.known.Peers {
				list = append(list, p.AdmittedPeer)
			}
			return list
		}
		s.g.mu.Lock()
		s.g.signList()
		s.g.mu.Unlock()
		for name, step := range map[string]func() error{
			"revoked":            func() error { return s.g.PutRevoked([]string{s.nodes[0].ID()}) },
			"no member any more": func() error { return s.g.PutPeers(peers()[:2]) },
			"no operator":        func() error { return s.g.PutOperators(model.Operators{Revoked: []uint64{7}}) },
		} {
			flap(time.Minute)
			began := time.Now()
			if err := step(); err != nil {
				t.Fatal(err)
			}
			flap(2 * time.Second)
			s.g.mu.Lock()
			version := s.g.list.Version
			s.g.mu.Unlock()
			mu.Lock()
			at, ok := heard[version]
			mu.Unlock()
			if !ok || at.Sub(began) > time.Second {
				t.Errorf("%s: announced %v after %s, want it within a second", name, ok, at.Sub(began))
			}
		}
		end()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// puts is a vault that shows a test what is written to it.
type puts func(name string, value []byte)

func (puts) Get(string) ([]byte, error) { return nil, fs.ErrNotExist }

func (p puts) Put(name string, value []byte) error {
	p(name, value)
	return nil
}

// TestARevocationIsCutInTheMiddle: at no time may the power go so that the card has
// forgotten who had the secret, and does not have yet whom to shut out.
func TestARevocationIsCutInTheMiddle(t *testing.T) {
	s := newSite(t, 2, 0)
	gone, stays := s.nodes[0].ID(), s.nodes[1].ID()
	writes := 0
	s.vault = puts(func(name string, value []byte) {
		if name != paths.VaultProfile {
			return
		}
		k, err := parseKeptProfile(state.Unseal(value))
		if err != nil {
			t.Fatal(err)
		}
		writes++
		if r := s.core().loadRegistry(); !slices.Contains(k.Had, gone) && !slices.Contains(r.Revoked, gone) {
			t.Errorf("the card has %v, due %v; and shuts out %v", k.Had, k.Due, r.Revoked)
		}
	})
	s.g.store = state.New(s.g.store.Dir(), s.vault)
	p := s.g.profiles
	s.g.saveRegistry()
	p.kept.Had = []string{gone, stays}
	s.g.known.Peers = s.g.known.Peers[1:]
	for range 2 { // gateway-api tells it again after a cut
		if err := s.g.PutRevoked([]string{gone}); err != nil {
			t.Fatal(err)
		}
	}
	if writes != 1 || !p.kept.Due || !slices.Equal(p.kept.Had, []string{stays}) {
		t.Errorf("got %d writes, due %v, had %v; want one, another secret, and who stays", writes, p.kept.Due, p.kept.Had)
	}
	if err := s.g.shut.admit(s.nodes[0].Public()); !errors.Is(err, errRevoked) {
		t.Errorf("who was revoked is let in: %v", err)
	}
}

// TestWhoHasASecretThatWasJustDrawn: a rotation ends after gateway-api has
// told that a node is no member, and before it tells that it was revoked.
func TestWhoHasASecretThatWasJustDrawn(t *testing.T) {
	s := newSite(t, 2, 3)
	p := s.g.profiles
	gone := s.nodes[0].ID()
	p.kept.Due, p.kept.Had = true, []string{gone, s.nodes[1].ID()}
	p.reach.look(time.Now().Add(-deserted), true, 0) // nobody is awaited
	p.keepUp()
	s.g.known.Peers = s.g.known.Peers[1:]
	for p.kept.Due { // the countdown is of a millisecond
		if p.act(); p.kept.Due && p.phase == change.Idle {
			t.Fatalf("the secret was not rotated: %s", p.outcome)
		}
	}
	if err := s.g.PutRevoked([]string{gone}); err != nil {
		t.Fatal(err)
	}
	if !p.kept.Due {
		t.Error("a node that got the present secret was revoked, and no other is due")
	}
}

package mesh

import (
	"context"
	"encoding/base64"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"halo.internal/identity"
	"halo.internal/identity/operator"
	"halo.internal/mesh/announce"
	"halo.internal/mesh/clock"
	"halo.internal/mesh/events"
	"halo.internal/mesh/peerlist"
	"halo.internal/mesh/state"
	"halo.internal/model"
	"halo.internal/model/apitype"
	"halo.internal/model/bundle"
	"halo.internal/model/paths"
)

// wall is a clock that is the process's own.
type wall struct{}

func (wall) Now() time.Time          { return time.Now() }
func (wall) Set(time.Time) error     { return nil }
func (wall) RTC() (time.Time, error) { return time.Time{}, errors.New("there is none") }

// bareCore is a device with a card, without interfaces.
func bareCore(t *testing.T, network identity.PublicKey, key identity.Key) *core {
	t.Helper()
	root := t.TempDir()
	log := slog.New(slog.DiscardHandler)
	m := &core{
		Config: Config{Root: root, Log: log}, store: state.New(paths.Dir(filepath.Join(root, paths.State)), nil), net: network,
		id: identity.State{Key: key, BootCounter: 3}, clock: clock.New(wall{}, time.Time{}),
		bundle: bundle.Bundle{Mesh: bundle.Mesh{SSID: "TEST-1", PSK: "correct horse battery", Routing: "BATMAN_IV"}.WithDefaults()},
	}
	m.events = events.Open(filepath.Join(root, "events"), key.ID(), 3, m.clock.Now, log)
	m.keys = m.loadOverlayKey()
	return m
}

// bareGateway is one that has admitted those nodes.
func bareGateway(t *testing.T, network identity.Key, nodes ...identity.Key) *gateway {
	t.Helper()
	g := newGateway(bareCore(t, network.Public(), network))
	var list []model.AdmittedPeer
	for i, k := range nodes {
		list = append(list, admitted(g.net, k, netip.AddrFrom4([4]byte{10, 42, 1, byte(2 + i)}).String()))
	}
	if err := errors.Join(g.PutAnnounce(model.Announce{APIPort: 8443, CASHA256: strings.Repeat("00", 32), Epoch: 1}), g.PutPeers(list)); err != nil {
		t.Fatal(err)
	}
	return g
}

// TestLivesAreCollected: whatever a node says of itself, each second, costs the mesh
// and the card little, and what gateway-api says is in the list at once.
func TestLivesAreCollected(t *testing.T) {
	network, a, b, c := identity.New(), identity.New(), identity.New(), identity.New()
	own := a.WireGuardPublic()
	const keys = 256
	var publics, proofs [keys][]byte
	for i := range keys {
		next := [32]byte{byte(i), 1}
		public := publicOf(next)
		publics[i], proofs[i] = public[:], proved(t, network, a, next)
	}
	for name, says := range map[string]func(i int) announce.Node{
		"restarts": func(i int) announce.Node { return announce.Node{Stamp: announce.Stamp{Boot: uint64(i + 1)}} },
		"its clock goes back": func(i int) announce.Node {
			return announce.Node{Stamp: announce.Stamp{Boot: 1}, Steps: uint32(i)}
		},
		"will have other keys": func(i int) announce.Node {
			return announce.Node{Stamp: announce.Stamp{Boot: 1}, WireGuardKey: own[:], NextKey: publics[i%keys], NextProof: proofs[i%keys]}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := bareGateway(t, network, a, b)
				go func() { _ = g.saveLives(t.Context()) }()
				file := filepath.Join(g.Root, paths.State, paths.Peers)
				stat := func() os.FileInfo {
					info, err := os.Stat(file)
					if err != nil {
						t.Fatal(err)
					}
					return info
				}
				before, last, began := g.list.List, stat(), time.Now()
				lists, writes, first := 0, 0, time.Duration(0)
				const seconds = 3600
				for i := range seconds {
					version := g.list.Version
					public := a.Public()
					n := says(i)
					n.Key = public[:]
					g.hear(n)
					g.renewList()
					synctest.Wait() // for the card
					if g.list.Version != version {
						lists++
						if lists == 1 {
							first = time.Since(began)
						}
					}
					if now := stat(); !os.SameFile(now, last) {
						writes, last = writes+1, now
					}
					time.Sleep(time.Second)
				}
				if want := seconds/int(livesEvery.Seconds()) + livesBurst; lists < want/2 || lists > want || first > 0 {
					t.Errorf("%d lists in an hour, the first after %s; want at most %d, the first at once", lists, first, want)
				}
				if writes < 3 || writes > 4 {
					t.Errorf("%d writes to the card in an hour, want 3 or 4", writes)
				}
				if before.Presses(g.list.Epoch, g.list.Version) {
					t.Error("nodes are to fetch at once what can wait")
				}
				if n := g.events.After(0, 0); len(n) > 14 {
					t.Errorf("%d events", len(n))
				}

				before = g.list.List
				if err := g.PutPeers([]model.AdmittedPeer{admitted(g.net, a, "10.42.1.2"), admitted(g.net, b, "10.42.1.3"), admitted(g.net, c, "10.42.1.4")}); err != nil {
					t.Fatal(err)
				}
				if l := g.list.List; len(l.Peers) != 3 || !before.Presses(l.Epoch, l.Version) {
					t.Errorf("a new member: %d peers, version %x after %x", len(l.Peers), l.Version, before.Version)
				}
				if os.SameFile(stat(), last) {
					t.Error("the card has not heard of the new member")
				}
			})
		})
	}
}

// TestTheSamePeersAgainAreNoNews: gateway-api hands them over at each start of either.
func TestTheSamePeersAgainAreNoNews(t *testing.T) {
	network, a := identity.New(), identity.New()
	g := bareGateway(t, network, a)
	before := g.list.Version
	if err := g.PutPeers([]model.AdmittedPeer{admitted(g.net, a, "10.42.1.2")}); err != nil || g.list.Version != before {
		t.Errorf("version %d after %d, %v", g.list.Version, before, err)
	}
}

// TestAKeyThatGatewayAPISaysIsKept at once: a former key that came back must not be lost
// to what the card has of it.
func TestAKeyThatGatewayAPISaysIsKept(t *testing.T) {
	network, a := identity.New(), identity.New()
	g := bareGateway(t, network, a)
	before := g.list.List
	p := admitted(g.net, a, "10.42.1.2")
	p.WireGuardKey = admitted(g.net, identity.New(), "10.42.1.2").WireGuardKey
	if err := g.PutPeers([]model.AdmittedPeer{p}); err != nil {
		t.Fatal(err)
	}
	if r := g.loadRegistry(); len(r.Peers) != 1 || r.Peers[0].WireGuardKey != p.WireGuardKey {
		t.Errorf("kept: %+v", r.Peers)
	}
	g.renewList()
	if l := g.list.List; !l.After(before) || l.Keys(before) || !before.Presses(l.Epoch, l.Version) {
		t.Errorf("version %x after %x", l.Version, before.Version)
	}
}

// TestAKeyThatNobodyExpectsPresses: the others have a dead one. One under which they take
// handshakes already can wait.
func TestAKeyThatNobodyExpectsPresses(t *testing.T) {
	network, a := identity.New(), identity.New()
	was, next := a.WireGuardPublic(), identity.New().WireGuardPublic()
	g := bareGateway(t, network, a)
	for _, step := range []struct {
		name      string
		now, next []byte
		reborn    bool
		presses   bool
	}{
		{name: "the next is claimed", now: was[:], next: next[:]},
		{name: "the next is in use", now: next[:]},
		{name: "a card from before the change", now: was[:], reborn: true, presses: true},
	} {
		before := g.list.List
		if !g.known.rekeyed(a.ID(), step.now, step.next, step.reborn) {
			t.Fatalf("%s: no news", step.name)
		}
		g.lives.heard(time.Now())
		g.renewList()
		if l := g.list.List; !l.After(before) || l.Keys(before) || before.Presses(l.Epoch, l.Version) != step.presses {
			t.Errorf("%s: version %x after %x, want one that presses: %v", step.name, l.Version, before.Version, step.presses)
		}
	}
}

// TestKeysThatPressAreBounded: whoever joins under other keys all the time has all
// fetch at once every ten minutes, and the others' keys press all the same.
func TestKeysThatPressAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network, a, b := identity.New(), identity.New(), identity.New()
		g := bareGateway(t, network, a, b)
		presses := func(keyA, keyB byte) bool {
			t.Helper()
			list := []model.AdmittedPeer{admitted(g.net, a, "10.42.1.2"), admitted(g.net, b, "10.42.1.3")}
			for i, k := range []byte{keyA, keyB} {
				key := [32]byte{k, byte(1 + i)}
				list[i].WireGuardKey = base64.StdEncoding.EncodeToString(key[:])
			}
			before := g.list.List
			if err := g.PutPeers(list); err != nil {
				t.Fatal(err)
			}
			g.renewList()
			return before.Presses(g.list.Epoch, g.list.Version)
		}
		if !presses(0, 1) { // both have other keys
			t.Error("the first does not press")
		}
		time.Sleep(keyPresses)
		n := 0
		for i := range 120 {
			if presses(byte(i), 1) {
				n++
			}
			time.Sleep(30 * time.Second)
		}
		if want := int(time.Hour / keyPresses); n < want-1 || n > want+1 {
			t.Errorf("%d lists pressed in an hour, want %d", n, want)
		}
		if !presses(255, 2) {
			t.Error("another's key does not press")
		}
	})
}

// TestACardThatStallsKeepsNobodyIn: who is gone is out of the overlay all the same, and
// what was collected is written when the card is well.
func TestACardThatStallsKeepsNobodyIn(t *testing.T) {
	network, a := identity.New(), identity.New()
	g := bareGateway(t, network, a)
	g.under = &grounded{quiet: &quiet{}, err: errors.New("no bat0")}
	public := a.Public()
	g.hear(announce.Node{Key: public[:], Stamp: announce.Stamp{Boot: 7}})
	g.lives.unsaved = time.Now().Add(-livesKept)
	g.saving.Lock() // as who writes does
	ctx, cancel := context.WithCancel(t.Context())
	var owned sync.WaitGroup
	owned.Go(func() { _ = g.keepOverlay(ctx) })
	owned.Go(func() { _ = g.saveLives(ctx) })
	for range 3 {
		g.mu.Lock()
		applied := g.applied
		g.mu.Unlock()
		wake(g.overlayNow)
		select {
		case <-applied:
		case <-time.After(10 * time.Second):
			t.Error("the overlay waits for the card")
		}
	}
	g.saving.Unlock()
	for until := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if r := g.loadRegistry(); len(r.Peers) == 1 && r.Peers[0].Boot == 7 {
			break
		}
		if time.Now().After(until) {
			t.Error("the card has not heard of what was collected")
			break
		}
	}
	cancel()
	owned.Wait()
}

// TestLivesAreKeptAtTheEnd of the process.
func TestLivesAreKeptAtTheEnd(t *testing.T) {
	network, a := identity.New(), identity.New()
	g := bareGateway(t, network, a)
	public := a.Public()
	g.hear(announce.Node{Key: public[:], Stamp: announce.Stamp{Boot: 7}})
	g.keepLives()
	if r := g.loadRegistry(); len(r.Peers) != 1 || r.Peers[0].Boot != 7 {
		t.Errorf("kept: %+v", r.Peers)
	}
}

func TestFetchesAreSpread(t *testing.T) {
	for members, want := range map[int]time.Duration{0: 0, 2: 35200 * time.Microsecond, 10: 880 * time.Millisecond, 250: 550 * time.Second} {
		if got := fetchSpread(members); got != want {
			t.Errorf("%d members: %s, want %s", members, got, want)
		}
	}
	const members = 250
	start := time.Now()
	at := func(f fetchPlan) time.Duration { return f.at.Sub(start) }
	late := 0
	for range 1000 {
		var calm, pressing fetchPlan
		calm.announced(start, false, members)
		pressing.announced(start, true, members)
		if at(calm) < 0 || at(calm) > fetchSpread(members) || at(pressing) < 0 || at(pressing) > pressMost {
			t.Fatalf("a fetch after %s, one that presses after %s", at(calm), at(pressing))
		}
		if at(calm) > fetchSpread(members)/2 {
			late++
		}
		planned := calm
		for i := range 20 { // the gateway goes on to announce it
			calm.announced(start.Add(time.Duration(i)*time.Second), false, members)
		}
		if calm != planned {
			t.Fatal("a plan was thrown again")
		}
		if calm.announced(start, true, members); at(calm) > pressMost {
			t.Fatalf("what presses has to wait %s for what does not", at(calm))
		}
	}
	if late < 350 || late > 650 {
		t.Errorf("%d of 1000 fetch in the second half", late)
	}
}

func TestFailedFetches(t *testing.T) {
	var f fetchPlan
	now := time.Now()
	f.announced(now, true, 2)
	for i := range 12 {
		f.failed(now)
		if after := f.at.Sub(now); after < listRetry/2 || after > 3*listMost/2 || i == 0 && after > 3*listRetry/2 {
			t.Errorf("try %d after %s", i, after)
		}
	}
	if f.announced(now, true, 2); f.at.Sub(now) > 3*listRetry/2 {
		t.Errorf("the gateway is heard, and the next try waits %s", f.at.Sub(now))
	}
}

func TestWhatTheCardHears(t *testing.T) {
	key := identity.New().Public()
	list := func(change func(*peerlist.List)) peerlist.List {
		l := peerlist.List{Epoch: 2, Version: 9, Issued: time.Unix(1e9, 0), Expires: time.Unix(1e9, 0).Add(peerlist.Validity),
			Peers: []peerlist.Peer{{Key: key, WireGuard: [32]byte{1}, Overlay: netip.MustParseAddr("10.42.1.2"), Boot: 1}}}
		change(&l)
		return l
	}
	for name, tc := range map[string]struct {
		change func(*peerlist.List)
		since  time.Duration
		want   bool
	}{
		"nothing":                 {func(*peerlist.List) {}, time.Hour, false},
		"a life":                  {func(l *peerlist.List) { l.Version++; l.Peers[0].Boot = 2 }, time.Hour, false},
		"a key":                   {func(l *peerlist.List) { l.Peers[0].Next = [32]byte{2} }, time.Second, false},
		"a key, after a while":    {func(l *peerlist.List) { l.Peers[0].Next = [32]byte{2} }, keysKept, true},
		"a member":                {func(l *peerlist.List) { l.Peers = nil }, 0, true},
		"an operator":             {func(l *peerlist.List) { l.Operators.Floor = 3 }, 0, true},
		"somebody who is revoked": {func(l *peerlist.List) { l.Revoked = []string{"n-aaaaaaaaaaaaaaaaaaaa"} }, 0, true},
		"an epoch":                {func(l *peerlist.List) { l.Epoch++ }, 0, true},
		"another nine days":       {func(l *peerlist.List) { l.Issued = l.Issued.Add(9 * 24 * time.Hour) }, time.Hour, false},
		"half an hour before":     {func(l *peerlist.List) { l.Version, l.Issued = l.Version+1, l.Issued.Add(-30*time.Minute) }, time.Hour, false},
		"years before":            {func(l *peerlist.List) { l.Version, l.Issued = l.Version+1, l.Issued.AddDate(-3, 0, 0) }, 0, true},
		"another ten days":        {func(l *peerlist.List) { l.Issued = l.Issued.Add(10 * 24 * time.Hour) }, 0, true},
	} {
		if got := worthKeeping(list(tc.change), list(func(*peerlist.List) {}), tc.since); got != tc.want {
			t.Errorf("%s: worth a write: %v", name, got)
		}
	}
}

// TestTheKeptListIsRenewed: a node that restarts while the gateway is off has members
// to speak to, however long ago one of them changed.
func TestTheKeptListIsRenewed(t *testing.T) {
	network, own := identity.New(), identity.New()
	m := bareCore(t, network.Public(), own)
	n := newNode(m)
	first := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	last := first
	for i := range 4 { // the gateway renews it
		last = first.Add(time.Duration(i) * (peerlist.Validity/2 + time.Hour))
		raw, err := peerlist.Sign(network, peerlist.List{Epoch: 1, Version: uint64(i + 1), Issued: last, Expires: last.Add(peerlist.Validity), Peers: []peerlist.Peer{
			{Key: own.Public(), WireGuard: own.WireGuardPublic(), Overlay: netip.MustParseAddr("10.42.1.3")},
		}})
		if err == nil {
			err = n.takeList(raw)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if kept := newNode(m).list; !kept.Issued.Equal(last) || kept.Valid(last.Add(20*24*time.Hour)) != nil {
		t.Errorf("after a restart it has the list of %s, want that of %s", kept.Issued, last)
	}
}

// TestAGatewayWhoseClockWasAhead shuts no doors later: when it is off, and the node has
// restarted and knows no time but that of its list.
func TestAGatewayWhoseClockWasAhead(t *testing.T) {
	network, own := identity.New(), identity.New()
	m := bareCore(t, network.Public(), own)
	n := newNode(m)
	now := time.Now()
	certificate := operator.Certificate{Serial: 1, Epoch: 1, User: "anna", Role: apitype.RoleAdmin, Issued: now, Expires: now.Add(operator.Validity)}
	for i, issued := range []time.Time{now.AddDate(3, 0, 0), now} {
		raw, err := peerlist.Sign(network, peerlist.List{Epoch: 1, Version: uint64(i + 1), Issued: issued, Expires: issued.Add(peerlist.Validity), Peers: []peerlist.Peer{
			{Key: own.Public(), WireGuard: own.WireGuardPublic(), Overlay: netip.MustParseAddr("10.42.1.3")},
		}})
		if err == nil {
			err = n.takeList(raw)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	s := newNode(m).standing()
	if s.Sure {
		t.Fatal("the clock of the test is no guess")
	}
	if err := certificate.Valid(s); err != nil {
		t.Errorf("after a restart: %v", err)
	}
}

// TestNoListTakesALifeBack: a gateway that has lost power has forgotten the latest.
func TestNoListTakesALifeBack(t *testing.T) {
	network, own, a := identity.New(), identity.New(), identity.New()
	n := newNode(bareCore(t, network.Public(), own))
	take := func(epoch, version, boot uint64, steps uint32) peerlist.Peer {
		t.Helper()
		l := peerlist.List{Epoch: epoch, Version: version, Issued: time.Now(), Expires: time.Now().Add(peerlist.Validity), Peers: []peerlist.Peer{
			{Key: a.Public(), WireGuard: a.WireGuardPublic(), Overlay: netip.MustParseAddr("10.42.1.2"), Boot: boot, Steps: steps},
			{Key: own.Public(), WireGuard: own.WireGuardPublic(), Overlay: netip.MustParseAddr("10.42.1.3")},
		}}
		raw, err := peerlist.Sign(network, l)
		if err == nil {
			err = n.takeList(raw)
		}
		p, ok := n.list.Find(a.Public())
		if err != nil || !ok || n.list.Version != version {
			t.Fatalf("not taken: version %d, %v", n.list.Version, err)
		}
		return p
	}
	take(1, 1, 5, 2)
	if p := take(1, 2, 5, 1); p.Boot != 5 || p.Steps != 2 {
		t.Errorf("a step was taken back: %d.%d", p.Boot, p.Steps)
	}
	if p := take(1, 3, 4, 9); p.Boot != 5 || p.Steps != 2 {
		t.Errorf("a life was taken back: %d.%d", p.Boot, p.Steps)
	}
	if p := take(1, 4, 6, 0); p.Boot != 6 || p.Steps != 0 {
		t.Errorf("a later life was not taken: %d.%d", p.Boot, p.Steps)
	}
	if p := take(2, 1, 1, 0); p.Boot != 1 {
		t.Errorf("a gateway that was replaced counts anew: got %d", p.Boot)
	}
}

// TestANodeFollowsItsEntry: a node that an admin gives another name, or another card's
// place, goes by that, also after a restart without the gateway.
func TestANodeFollowsItsEntry(t *testing.T) {
	network, own := identity.New(), identity.New()
	core := bareCore(t, network.Public(), own)
	n := newNode(core)
	member := model.Membership{Node: own.ID(), Name: "mast-2", Network: network.Public().Base64(), OverlayV4: netip.MustParseAddr("10.42.1.3"), OverlayV6: identity.Overlay(network.Public(), own.Public()), Clients: netip.MustParsePrefix("10.43.5.0/24"),
		GatewayWireGuardKey: base64.StdEncoding.EncodeToString(make([]byte, 32))}
	n.accept(member)
	version := uint64(0)
	take := func(name, clients string, want model.Membership) {
		t.Helper()
		version++
		p := peerlist.Peer{Key: own.Public(), WireGuard: own.WireGuardPublic(), Overlay: member.OverlayV4, Name: name}
		if clients != "" {
			p.Clients = netip.MustParsePrefix(clients)
		}
		raw, err := peerlist.Sign(network, peerlist.List{Epoch: 1, Version: version, Issued: time.Now(), Expires: time.Now().Add(peerlist.Validity), Peers: []peerlist.Peer{p}})
		if err == nil {
			err = n.takeList(raw)
		}
		if err != nil {
			t.Fatal(err)
		}
		if *n.member != want || n.serves().Name != want.Name || n.serves().Clients != want.Clients {
			t.Errorf("after %q, %q: %+v, it serves %q %s", name, clients, *n.member, n.serves().Name, n.serves().Clients)
		}
	}
	take("mast-2", "10.43.5.0/24", member)
	member.Name, member.Clients = "mast", netip.MustParsePrefix("10.43.2.0/24")
	take("mast", "10.43.2.0/24", member)
	take("", "10.43.2.0/24", member)       // a gateway of an earlier release
	take("mast", "10.43.255.0/24", member) // nobody's: the membership could not be read again
	if again := newNode(core).member; again == nil || *again != member {
		t.Errorf("after a restart: %+v", again)
	}
}

// TestAListThatTheCardDidNotTake is tried again, though nothing has changed: a restart
// without the gateway would bring back whose certificate or key was revoked.
func TestAListThatTheCardDidNotTake(t *testing.T) {
	network := identity.New()
	m := bareCore(t, network.Public(), identity.New())
	n := newNode(m)
	now := time.Now()
	raw, err := peerlist.Sign(network, peerlist.List{Epoch: 1, Version: 7, Issued: now, Expires: now.Add(peerlist.Validity), Operators: model.Operators{Floor: 3}})
	if err != nil {
		t.Fatal(err)
	}
	at := paths.Dir(filepath.Join(m.Root, paths.State)).File(paths.PeerList)
	if err := os.MkdirAll(filepath.Join(at, "in the way"), 0o755); err != nil { // a file cannot take the place of a folder
		t.Fatal(err)
	}
	if err := n.takeList(raw); err != nil {
		t.Fatal(err)
	}
	if again := newNode(m); again.list.Operators.Floor != 0 {
		t.Fatal("the list is on the card, which did not take it")
	}
	n.keepList()
	if err := os.RemoveAll(at); err != nil {
		t.Fatal(err)
	}
	n.keepList()
	if again := newNode(m); again.list.Operators.Floor != 3 {
		t.Errorf("operators after a restart: %+v", again.list.Operators)
	}
}

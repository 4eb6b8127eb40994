package mesh

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"halo.internal/identity"
	"halo.internal/mesh/announce"
	"halo.internal/mesh/api"
	"halo.internal/mesh/overlay"
	"halo.internal/mesh/peerlist"
	"halo.internal/mesh/provision"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// gateway is the side of the network's one controller.
type gateway struct {
	*core
	voice      *announce.GatewaySide
	overlayNow chan struct{}
	saveNow    chan struct{} // what was collected is due for the card
	placeNow   chan struct{} // its addresses on the mesh have to come or go
	profiles   *gatewayProfile
	asideKept  bool // the card has it that this gateway has stood down: keepPlace's own

	saving  sync.Mutex // held while the registry is written, before mu
	erasing sync.Mutex // held while the claim code is erased, before mu

	mu    sync.Mutex // guards what follows
	known registry
	// toldPeers: gateway-api has said who the members are, in this process.
	toldPeers bool
	list      signedList
	neurons   []model.BrainName // as gateway-api said last; nil: not yet, in this process
	visitors  []model.Visitor   // of the overlay
	lives     lives
	wg        *overlay.Device
	wgErr     error
	applied   chan struct{} // closed when the overlay has the peers as they are known now
	// codeErased: both kept copies of the bundle are without the claim code.
	codeErased bool
	claimCode  string // that was to be shown last
}

func newGateway(c *core) *gateway {
	g := &gateway{core: c, overlayNow: make(chan struct{}, 1), saveNow: make(chan struct{}, 1), placeNow: make(chan struct{}, 1), applied: make(chan struct{})}
	g.known = c.loadRegistry()
	k := c.loadProfile()
	g.known.out = k.Out
	g.profiles = newGatewayProfile(g, k)
	c.hidden = func() []string {
		g.mu.Lock()
		generation, code := g.known.Operators.Codes, g.claimCode
		g.mu.Unlock()
		return append(append(g.profiles.passphrases(), code), c.codeOf(generation)...)
	}
	c.shut.set(g.known.shut())
	listens := c.announceConfig()
	listens.Owner = newKin(c.net, g.roll).of
	g.voice = announce.NewGatewaySide(listens, g.self, g.meetAndHear)
	g.voice.Standing, g.voice.Met = g.rank, g.met
	g.voice.Announced = func(m announce.Gateway) { g.nextKeyTold(m.NextKey) }
	g.loadStanding()
	return g
}

func (g *gateway) run(ctx context.Context) error {
	eg, ctx := errgroup.WithContext(ctx)
	eg.Go(func() error { return g.voice.Run(ctx) })
	eg.Go(func() error { return g.keepOverlay(ctx) })
	eg.Go(func() error { return g.saveLives(ctx) })
	eg.Go(func() error { return g.serveList(ctx) })
	eg.Go(func() error { return g.profiles.run(ctx) })
	eg.Go(func() error { return g.keepPlace(ctx) })
	eg.Go(func() error { return g.policies.run(ctx) })
	// Its announcements tell the others of its next key: none is later than another.
	eg.Go(func() error {
		return g.followKeys(ctx, g.overlayDevice, func() time.Duration { return 0 }, g.rekeyed)
	})
	defer g.keepLives()
	return eg.Wait()
}

// greet announces the gateway.
func (g *gateway) greet() { g.voice.Changed() }

// self is what is announced.
func (g *gateway) self() announce.Gateway {
	key, next := g.keys.public()
	now, quality := g.clock.Now()
	m := announce.Gateway{WireGuardKey: key, NextKey: next, TimeMS: now.UnixMilli(), Quality: quality}
	m.Profile, m.Next, m.Lacks = g.profiles.announced()
	g.mu.Lock()
	defer g.mu.Unlock()
	if a := g.known.Announce; a != nil {
		m.APIPort, m.Stamp.Epoch, m.List = a.APIPort, a.Epoch, g.list.Version
		m.CASHA256, _ = hex.DecodeString(a.CASHA256) // PutAnnounce has checked it
	}
	return m
}

// hear takes an authentic message of a node. What matters is a new incarnation
// of one that is admitted: its handshakes may come from the past. The answer has it
// shake hands at once, so that it waits for the peer to be made anew: a handshake that
// comes before is lost with the old one, and repeated after five seconds alone.
func (g *gateway) hear(n announce.Node) (settled <-chan struct{}) {
	now := overlay.Incarnation{Boot: n.Stamp.Boot, Steps: n.Steps}
	id := identity.PublicKey(n.Key).ID()
	g.mu.Lock()
	member := g.known.counts(id)
	reborn := g.known.reborn(id, now)
	changed := g.hearKeys(n, reborn) || reborn
	tell := reborn && g.lives.tells(id, time.Now())
	if changed {
		g.lives.heard(time.Now())
		settled = g.applied
	}
	g.mu.Unlock()
	g.profiles.hear(n, member)
	if tell {
		g.events.Add("overlay.peer-restarted", model.Info, "node has restarted", "peer", id, "peer_boot", fmt.Sprint(now.Boot))
	}
	if changed {
		wake(g.overlayNow)
	}
	return settled
}

// keepOverlay brings wg0 up at once, on whatever time there is, and keeps its
// peers as the registry says.
func (g *gateway) keepOverlay(ctx context.Context) error {
	retry := time.NewTicker(retryUnderlay)
	defer retry.Stop()
	defer func() {
		if g.wg != nil {
			_ = g.wg.Close() // the process ends
		}
	}()
	var tale overlayTale
	for {
		g.mu.Lock()
		done := g.applied
		g.applied = make(chan struct{}) // what changes from here on is the next turn's
		g.mu.Unlock()
		err := g.applyPeers()
		close(done)
		g.renewList()
		g.mu.Lock()
		g.wgErr = err
		g.mu.Unlock()
		tale.tell(err, g.events.Add)
		select {
		case <-ctx.Done():
			return nil
		case <-g.overlayNow:
		case <-retry.C:
		}
	}
}

func (g *gateway) applyPeers() error {
	var harm error // of which peers must hear nothing: who is gone is out all the same
	if g.wg != nil {
		if harm = g.wg.Guard(true); errors.Is(harm, overlay.ErrLost) {
			g.events.Add(eventOverlayLost, model.Warning, harm.Error()+"; it is made anew")
			lost := g.wg
			g.publishOverlay(nil)
			_ = lost.Close() // what is left of it
			harm = nil
		}
	}
	if g.wg == nil {
		if _, err := g.openOverlay(paths.OverlayGateway, identity.Overlay(g.net, g.net), g.publishOverlay); err != nil {
			return err
		}
	}
	g.mu.Lock()
	peers := g.known.overlayPeers(g.net)
	peers = append(peers, g.visiting(peers)...)
	g.mu.Unlock()
	return errors.Join(g.wg.SetPeers(peers), harm)
}

// publishOverlay has the others have an overlay that was opened, or none.
func (g *gateway) publishOverlay(dev *overlay.Device) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.wg = dev
}

// PutPeers takes all nodes that are admitted. What differs in keys alone the others
// can wait for, as for what nodes say themselves.
func (g *gateway) PutPeers(list []model.AdmittedPeer) error {
	g.mu.Lock()
	was := g.known.Peers
	if err := g.known.setPeers(list, g.net); err != nil {
		g.mu.Unlock()
		return fmt.Errorf("%w: %w", api.ErrInvalid, err)
	}
	if g.toldPeers || len(was) > 0 {
		g.known.readmitted(was)
	}
	first := !g.toldPeers
	g.toldPeers = true
	changed := !slices.Equal(was, g.known.Peers)
	switch {
	case !sameMembers(was, g.known.Peers):
		g.signList()
	case changed:
		g.lives.heard(time.Now())
	}
	g.mu.Unlock()
	wake(g.overlayNow) // who is gone is out before the card has heard of it
	wake(g.serveNow)
	if changed {
		g.saveRegistry() // gateway-api has written as much, and which of its words came last must not be lost
	}
	g.profiles.admitted(first)
	return nil
}

func (g *gateway) PutAnnounce(a model.Announce) error {
	if raw, err := hex.DecodeString(a.CASHA256); err != nil || len(raw) != 32 {
		return fmt.Errorf("%w: ca_sha256: expected 64 hexadecimal digits, got %q", api.ErrInvalid, a.CASHA256)
	}
	if a.APIPort == 0 {
		return fmt.Errorf("%w: api_port: expected 1 to 65535, got 0", api.ErrInvalid)
	}
	g.mu.Lock()
	old := g.known.Announce
	changed := old == nil || *old != a
	if changed {
		g.known.Announce = &a
		g.signList()
	}
	g.mu.Unlock()
	if changed {
		g.voice.Changed()
		g.saveRegistry()
	}
	return nil
}

// PutOperators has the nodes learn which certificates of operators are over.
func (g *gateway) PutOperators(o model.Operators) error {
	if err := peerlist.CheckOperators(o); err != nil {
		return fmt.Errorf("%w: %w", api.ErrInvalid, err)
	}
	g.mu.Lock()
	k := g.known.Operators
	changed := k.Floor != o.Floor || k.Codes != o.Codes || !slices.Equal(k.Revoked, o.Revoked)
	if changed {
		g.known.Operators = o
		g.signList()
	}
	g.mu.Unlock()
	if changed {
		g.saveRegistry()
	}
	return nil
}

// Membership of the gateway follows from being it.
func (g *gateway) Membership() (model.Membership, error) {
	key, _ := g.keys.public()
	m := model.Membership{
		Node: g.id.Key.ID(), Name: g.name(), Network: g.net.Base64(),
		OverlayV4: paths.OverlayGateway, OverlayV6: identity.Overlay(g.net, g.net),
		GatewayWireGuardKey: base64.StdEncoding.EncodeToString(key),
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.known.Announce != nil {
		m.Epoch = g.known.Announce.Epoch
	}
	return m, nil
}

func (g *gateway) notice() provision.Notice {
	return provision.Notice{File: g.path(paths.ClaimNotice), Boot: g.Boot, Console: g.Console}
}

// OfferTime takes it where nothing knows better. Then the mesh hears at once that this
// gateway knows the time, or nodes would go by their own for half an hour.
func (g *gateway) OfferTime(o model.TimeOffer) error {
	taken, err := g.offered(o)
	if taken {
		g.voice.Changed()
		wake(g.overlayNow) // the list of members has to be of a time that has come
	}
	return err
}

func (g *gateway) ShowClaimCode(code string) error {
	g.mu.Lock()
	g.claimCode = code
	g.mu.Unlock()
	return g.notice().Show(g.bundle.Network, code)
}

// EraseClaimCode takes the code from the notice and from the kept bundle: once
// used it is worth nothing to its owner. The notice goes first, whatever becomes
// of the bundle: it is on another file system, and a full /perm is no reason to
// leave the code where people read it. gateway-api asks again after an error.
//
// g.mu is not held while the card is written: what is announced, answered and let in
// does not wait for that.
func (g *gateway) EraseClaimCode() error {
	g.erasing.Lock()
	defer g.erasing.Unlock()
	err := g.notice().Erase()
	g.mu.Lock()
	erased := g.codeErased
	g.mu.Unlock()
	if g.bundle.Gateway.ClaimCode == "" || erased {
		return err
	}
	b := g.bundle
	b.Gateway.ClaimCode = ""
	_, keepErr := provision.Keep(g.store, b)
	g.mu.Lock()
	g.codeErased = keepErr == nil
	g.mu.Unlock()
	return errors.Join(err, keepErr)
}

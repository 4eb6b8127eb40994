package mesh

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"sync"
	"time"

	"halo.internal/identity"
	"halo.internal/mesh/announce"
	"halo.internal/mesh/api"
	"halo.internal/mesh/change"
	"halo.internal/mesh/peerlist"
	"halo.internal/mesh/profile"
	"halo.internal/mesh/rejoin"
	"halo.internal/model"
	"halo.internal/model/bundle"
)

const (
	rotateAgain  = 5 * time.Minute // after a rotation that did not come about
	seekEvery    = 20 * time.Second
	reissueSoon  = 10 * time.Minute
	reissueLater = 24 * time.Hour
	maxHad       = 4096 // nodes that have had a secret

	// hearOut is for how long after a document was adopted nothing is signed, and a
	// later one is asked for still: the first to answer may have been off itself, or
	// have been revoked.
	hearOut = time.Minute

	// startAsks is for how long after its start a gateway asks whoever is linked: one of
	// an old card is linked with those who were revoked since, and with nobody else.
	startAsks = 2 * time.Minute

	// heldAsks is for how long a later document is asked for when a node says that it
	// has one. It is a claim, so that no more follows from it.
	heldAsks = time.Minute
)

// gatewayProfile leads changes of the mesh profile.
type gatewayProfile struct {
	*gateway
	wake   chan struct{}
	looked time.Time // for members

	// acting is held while a decision is carried out, and while one is written to the
	// card, for which mu is let go: what is announced does not wait for the card.
	acting sync.Mutex

	mu      sync.Mutex // guards what follows
	m       *change.Gateway
	kept    keptProfile
	on      bundle.Mesh
	said    [2]uint64 // serials as announced
	lacking bool      // the whole of the first one's document is asked for
	phase   change.Phase
	serial  uint64
	rejoin  *rejoin.Engine
	reach   reach
	adopted time.Time // a document; zero: in this process, none was
	held    time.Time // when a node said that it has a later document
	retry   time.Time // no rotation before
	outcome string
}

func newGatewayProfile(g *gateway, k kept) *gatewayProfile {
	now := time.Now()
	p := &gatewayProfile{gateway: g, wake: make(chan struct{}, 1), kept: k.keptProfile}
	p.m = change.NewGateway(g.ChangeTiming, g.bundle.Mesh, k.home, k.next, k.Change, now)
	p.reach.wait = g.ChangeTiming.WithDefaults().Reach
	p.on, p.phase = p.m.On(), p.m.State().Phase
	p.said[0], p.said[1] = p.m.Announce()
	p.lacking = p.m.Lacks()
	p.serial = max(k.home.Serial, g.id.BootCounter<<bootBits|sinceBoot())
	if k.next != nil {
		p.serial = max(p.serial, k.next.Serial)
	}
	p.rejoin = rejoin.New(rejoin.Config{Key: g.id.Key, Network: g.net, Member: g.memberByTag, Document: p.handOn})
	return p
}

func (g *gateway) memberByTag(tag rejoin.Tag) (identity.PublicKey, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, p := range g.known.members() {
		if key, err := identity.ParsePublicKey(p.IdentityKey); err == nil && rejoin.TagOf(key) == tag {
			return key, true
		}
	}
	return identity.PublicKey{}, false
}

// handOn returns the document whose profile is in use. p.mu is held.
func (p *gatewayProfile) handOn(identity.PublicKey) (profile.Document, bool) {
	if next := p.m.Next(); next != nil && p.m.State().Phase == change.Settling {
		return next.Document, true
	}
	force := p.m.Force()
	return force.Document, force.Whole() && p.m.On() == force.Mesh
}

// announced returns the serials for the announcements, and whether the whole of the
// first one's document is asked for.
func (p *gatewayProfile) announced() (using, next uint64, lacks bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.said[0], p.said[1], p.lacking
}

// hear takes what a node says of its documents.
func (p *gatewayProfile) hear(n announce.Node) {
	p.mu.Lock()
	p.m.Report(time.Now(), identity.PublicKey(n.Key).ID(), n.Held, n.Using)
	if n.Held > p.m.Latest().Serial {
		p.held = time.Now()
	}
	p.mu.Unlock()
	wake(p.wake)
}

// strange answers a member that was off. A gateway from an old card asks as well: it
// is a member like the others.
func (p *gatewayProfile) strange(from Stranger, payload []byte) {
	p.mu.Lock()
	answer, d, err := p.rejoin.Handle(time.Now(), payload)
	p.mu.Unlock()
	switch {
	case err != nil:
		p.Log.Debug("said past the mesh, and not taken", "iface", from.Iface, "peer", from.MAC, "err", err)
	case answer != nil && p.standsDown():
		// Who is a member, the one that serves knows.
	case answer != nil:
		p.Log.Info("a member is told of the mesh profile", "iface", from.Iface, "peer", from.MAC)
		p.under.Say(from, answer)
	case d != nil:
		p.adopt(*d, from)
	}
}

// adopt takes the profile that the network has changed to since this card was
// written, if the nodes have a later document of this very gateway. An earlier one
// would take all back to a secret that those who were revoked since have.
func (p *gatewayProfile) adopt(d profile.Document, from Stranger) {
	o, err := d.Open(p.id.Key)
	if err != nil {
		p.Log.Warn("a later document of this gateway does not open", "err", err)
		return
	}
	ids := p.nodes()
	p.mu.Lock()
	later := p.m.Adopt(o)
	if later {
		p.serial, p.adopted = max(p.serial, o.Serial), time.Now()
		p.doubt(ids)
	}
	p.mu.Unlock()
	if later {
		// A document of its own the card may have lost, as another one must have been in
		// use for one that it cannot have made yet.
		if _, _, epoch, _ := p.members(); o.Epoch > epoch || o.Serial > p.id.BootCounter<<bootBits|sinceBoot() {
			p.voice.Show(o.Epoch)
		}
		p.events.Add(eventProfileRejoined, model.Warning, "a node has told this gateway of the mesh profile that its card did not have", "peer", from.MAC.String(), "serial", fmt.Sprint(o.Serial))
		p.act()
	}
}

// run leads until ctx ends.
func (p *gatewayProfile) run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var hearing sync.WaitGroup
	defer hearing.Wait()
	hearing.Go(func() { p.listenOverheard(ctx, p.strange) })
	for {
		p.keepUp()
		p.act()
		p.seek()
		p.mu.Lock()
		timer.Reset(time.Until(p.m.Due(time.Now())))
		p.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil
		case <-p.wake:
		case <-timer.C:
		}
	}
}

// seek asks all around, after a start, while no member is linked, or when one says that
// it has it, for a later document than this card has: it may be an old one, or a fresh
// one in the place of a lost one. Whoever has answered is linked, and asked all the same
// for a while.
func (p *gatewayProfile) seek() {
	now := time.Now()
	if now.Sub(p.looked) < seekEvery {
		return
	}
	p.looked = now
	linked := p.links() > 0
	p.mu.Lock()
	defer p.mu.Unlock()
	ask := !linked || p.hears(now) || now.Sub(p.begun) < startAsks || !p.held.IsZero() && now.Sub(p.held) < heldAsks
	if ask && p.m.State().Phase == change.Idle {
		p.under.Say(Stranger{}, p.rejoin.Request(now, p.m.Force().Document))
	}
}

// hears tells whether a document was adopted just now. p.mu is held.
func (p *gatewayProfile) hears(now time.Time) bool {
	return !p.adopted.IsZero() && now.Sub(p.adopted) < hearOut
}

// act does what is due: what is decided is on the card before it is done or told.
func (p *gatewayProfile) act() {
	p.acting.Lock()
	defer p.acting.Unlock()
	p.mu.Lock()
	now := time.Now()
	serial, in, order := p.decide(now)
	for p.m.Save() {
		p.keep()
		serial, in, order = p.decide(now) // what waited for that
	}
	was, on := p.on, p.m.On()
	p.on = on
	var said [2]uint64
	said[0], said[1] = p.m.Announce()
	news := said != p.said || p.lacking != p.m.Lacks()
	p.said, p.lacking = said, p.m.Lacks()
	epoch := p.m.Latest().Epoch
	p.mu.Unlock()
	if on != was {
		p.under.Switch(on)
		p.events.Add(eventProfileSwitched, model.Info, "the gateway uses another mesh profile: "+describeProfile(on), "channel", fmt.Sprint(on.Channel), "serial", fmt.Sprint(said[0]))
	}
	if news {
		p.voice.Changed()
	}
	if order {
		p.voice.Order(announce.Order{Epoch: epoch, Serial: serial, InMS: uint32(in.Milliseconds())})
	}
}

// decide does what is due, and tells whether an order is to be sent, as
// change.Gateway.Advance does. p.mu is held.
func (p *gatewayProfile) decide(now time.Time) (serial uint64, in time.Duration, order bool) {
	if p.standsDown() {
		return 0, 0, false
	}
	using, _ := p.m.Announce()
	serial, in, order = p.m.Advance(now)
	if mesh, failed, wanted := p.m.Wanted(); wanted && p.told() {
		force := p.m.Force()
		if d, err := p.sign(mesh, change.Former(mesh, force.Former, failed, mesh, p.wall())); err != nil {
			p.Log.Error("profile document that takes a change back is not signed", "err", err)
		} else {
			p.m.Back(now, d)
		}
	}
	p.finish(now, using)
	return serial, in, order
}

// finish tells how a change ended; using is the serial of the document that was in use
// just before. p.mu is held.
func (p *gatewayProfile) finish(now time.Time, using uint64) {
	was, s := p.phase, p.m.State().Phase
	p.phase = s
	if was == s {
		return
	}
	force := p.m.Force()
	switch {
	case s == change.Recalling:
		p.outcome = "too few nodes came to the new profile; all are called back"
		p.events.Add(eventProfileUndone, model.Error, p.outcome)
	case s == change.Idle && was == change.Settling && force.Serial == using:
		p.outcome = "changed"
		p.events.Add(eventProfileDone, model.Info, "the mesh profile is changed: "+describeProfile(force.Mesh), "serial", fmt.Sprint(force.Serial))
	case s == change.Idle && was == change.Preparing:
		p.outcome = "given up: not all nodes that were there got the new profile in time"
		p.events.Add(eventProfileUndone, model.Error, p.outcome)
	case s == change.Idle:
		p.outcome = "taken back: too few nodes came to the new profile"
		p.events.Add(eventProfileUndone, model.Error, p.outcome)
	}
	if s != change.Idle || !p.kept.Due || p.kept.DueSerial == 0 {
		return
	}
	if force.Serial == p.kept.DueSerial {
		// Who is a member no more and has had this one too is still in Had, until
		// gateway-api has said that it was revoked.
		p.kept.Due = false
	} else {
		p.retry = now.Add(rotateAgain)
	}
	p.kept.DueSerial = 0
}

// standsDown tells whether another gateway with this one's key leads: this one, which
// may be an old card, signs and orders nothing, lest it hand the secret of the other to
// those whom that one has revoked.
func (p *gatewayProfile) standsDown() bool {
	return p.voice != nil && p.voice.Twinned().Aside
}

// keepUp starts what nobody asks for by hand: another secret after a revocation, a
// document for new members, one of the present epoch.
func (p *gatewayProfile) keepUp() {
	members, ids, epoch, ok := p.members()
	if !ok || p.standsDown() {
		return
	}
	now := time.Now()
	online, up := p.online(ids, handshakeStale)
	linked, _ := p.online(ids, sessionOver)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reach.look(now, up, len(online))
	p.m.Forget(func(id string) bool { return slices.Contains(ids, id) })
	for _, id := range p.m.Lose(func(id string) bool { return slices.Contains(linked, id) }) {
		p.events.Add(eventProfileMissed, model.Info, fmt.Sprintf("%s has gone off while the mesh profile is about to change, and is waited for no more: it comes back by itself", id), "node", id)
	}
	if p.m.State().Phase != change.Idle || p.hears(now) || p.m.Lacks() {
		return
	}
	force := p.m.Force()
	if p.kept.Due && p.reach.silent(now, len(ids), len(online)) {
		p.events.Add(eventSecretWaits, model.Warning, fmt.Sprintf("another mesh secret is due, and none of %d nodes is reached: it waits for one, a day at most", len(ids)))
	}
	switch {
	case p.kept.Due && !now.Before(p.retry) && p.reach.due(now, len(ids), len(online)):
		target := p.m.On()
		target.PSK = rand.Text()
		if d, err := p.start(now, target, online, true); err != nil {
			p.Log.Error("the mesh secret is not rotated", "err", err)
			p.retry = now.Add(rotateAgain)
		} else {
			p.kept.DueSerial = d.Serial
		}
	case force.Serial == 0:
	case force.Epoch < epoch:
		p.reissue(now, "epoch")
	default:
		missing := slices.DeleteFunc(slices.Clone(members), func(k identity.PublicKey) bool { return force.Has(k) })
		age := p.wall().Sub(force.Issued).Abs()
		away := slices.ContainsFunc(missing, func(k identity.PublicKey) bool { return !slices.Contains(online, k.ID()) })
		if len(missing) > 0 && (age >= reissueLater || away && age >= reissueSoon) {
			p.reissue(now, "new members")
		}
	}
}

// reissue signs the profile that holds anew. p.mu is held.
func (p *gatewayProfile) reissue(now time.Time, why string) {
	force := p.m.Force()
	d, err := p.sign(force.Mesh, change.Former(force.Mesh, force.Former, nil, force.Mesh, p.wall()))
	if err != nil {
		p.Log.Error("profile document not signed", "err", err)
		return
	}
	p.Log.Info("profile document is signed anew", "reason", why)
	p.m.Start(now, d, nil, true)
}

// start begins a change. p.mu is held.
func (p *gatewayProfile) start(now time.Time, target bundle.Mesh, online []string, anyway bool) (profile.Opened, error) {
	held := p.m.On()
	d, err := p.sign(target, change.Former(held, p.m.Force().Former, nil, target, p.wall()))
	if err != nil {
		return d, err
	}
	p.m.Start(now, d, online, anyway)
	p.phase, p.outcome = p.m.State().Phase, ""
	what := describeProfile(target)
	if target.PSK != held.PSK {
		what += ", another secret"
	}
	p.events.Add(eventProfileStarted, model.Info, fmt.Sprintf("the mesh profile is to change: %s; %d nodes are awaited", what, len(online)), "serial", fmt.Sprint(d.Serial), "channel", fmt.Sprint(target.Channel))
	return d, nil
}

func (p *gatewayProfile) wall() time.Time {
	now, _ := p.clock.Now()
	return now
}

// sign makes a document for all members. p.mu is held, p.gateway.mu not.
func (p *gatewayProfile) sign(mesh bundle.Mesh, former []profile.Former) (profile.Opened, error) {
	members, _, epoch, ok := p.members()
	if !ok {
		return profile.Opened{}, errors.New("gateway-api has not said yet who the members are")
	}
	if p.m.Lacks() {
		return profile.Opened{}, errors.New("this gateway has taken the mesh profile from a node, and does not know yet whom the network counts as members: wait until a node has joined it and handed that over")
	}
	p.serial = max(p.serial+1, p.id.BootCounter<<bootBits|sinceBoot())
	d, err := profile.Sign(p.id.Key, profile.Draft{Epoch: epoch, Serial: p.serial, Issued: p.wall(), Mesh: mesh, Former: former, Members: members})
	if err != nil {
		return profile.Opened{}, err
	}
	return d.Open(p.id.Key)
}

// members returns the keys and IDs of all members, the gateway first among the keys,
// and the epoch; ok is false until gateway-api has said it.
func (g *gateway) members() (keys []identity.PublicKey, ids []string, epoch uint64, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	keys = []identity.PublicKey{g.net}
	for _, p := range g.known.members() {
		if key, err := identity.ParsePublicKey(p.IdentityKey); err == nil { // setPeers has checked it
			keys, ids = append(keys, key), append(ids, p.Node)
		}
	}
	if g.known.Announce == nil {
		return keys, ids, 0, false
	}
	return keys, ids, g.known.Announce.Epoch, true
}

// told tells whether gateway-api has said who the members are.
func (g *gateway) told() bool {
	_, _, _, ok := g.members()
	return ok
}

// nodes returns the IDs of all members but the gateway.
func (g *gateway) nodes() []string {
	_, ids, _, _ := g.members()
	return ids
}

// sessionOver is when there is no session with a peer any more: WireGuard takes no
// packet of one that is older than 180 s (REJECT_AFTER_TIME), and makes another after
// 120.
const sessionOver = 200 * time.Second

// online returns which of those nodes have shaken hands with the overlay so lately, and
// whether that is up.
func (p *gatewayProfile) online(ids []string, within time.Duration) (list []string, up bool) {
	p.gateway.mu.Lock()
	wg := p.wg
	p.gateway.mu.Unlock()
	there := map[string]bool{}
	if wg != nil {
		if peers, err := wg.Status(); err == nil {
			for _, o := range peers {
				there[o.Node] = there[o.Node] || o.LastHandshake != nil && time.Since(*o.LastHandshake) < within
			}
		}
	}
	list = []string{}
	for _, id := range ids {
		if there[id] {
			list = append(list, id)
		}
	}
	return list, wg != nil
}

// Profile tells of the mesh profile, and how far a change of it is.
func (g *gateway) Profile() (model.MeshProfile, error) {
	p := g.profiles
	ids := g.nodes()
	p.mu.Lock()
	defer p.mu.Unlock()
	s := profileStatus(p.m.On(), p.m.Force())
	state, latest := p.m.State(), p.m.Latest()
	s.Phase, s.Secret, s.Outcome = string(state.Phase), p.kept.Due, p.outcome
	if next := p.m.Next(); next != nil {
		t := parametersOf(next.Mesh)
		s.Target, s.Secret = &t, s.Secret || next.Mesh.PSK != p.m.Force().Mesh.PSK && p.m.Force().Serial != 0 || p.m.Force().Serial == 0 && next.Mesh.PSK != p.bundle.Mesh.PSK
	}
	progress := p.m.Nodes()
	for _, id := range ids {
		n := model.NodeProfile{Node: id, Awaited: slices.Contains(state.Expected, id)}
		if q, ok := progress[id]; ok {
			n.Prepared, n.Switched, n.Said = q.Held == latest.Serial, q.Using == latest.Serial, &q.At
		}
		s.Nodes = append(s.Nodes, n)
	}
	return s, nil
}

// MeshSecret returns the profile in use with its secret, for new cards.
func (g *gateway) MeshSecret() (bundle.Mesh, error) {
	g.profiles.mu.Lock()
	defer g.profiles.mu.Unlock()
	return g.profiles.m.On(), nil
}

// PutProfile begins a change. One that asks for what is under way, or holds
// already, changes nothing.
func (g *gateway) PutProfile(c model.ProfileChange) error {
	p := g.profiles
	if p.standsDown() {
		return fmt.Errorf("%w: another gateway with this one's key serves, and this one has stood down: ask that one, or switch it off", api.ErrBusy)
	}
	ids := g.nodes()
	online, _ := p.online(ids, handshakeStale)
	p.mu.Lock()
	held, next, phase := p.m.On(), p.m.Next(), p.m.State().Phase
	p.mu.Unlock()
	target := apply(held, c)
	if err := target.Check(); err != nil {
		return fmt.Errorf("%w: %w", api.ErrInvalid, err)
	}
	if phase != change.Idle {
		same := next != nil && parametersOf(next.Mesh) == parametersOf(apply(next.Mesh, c)) && (!c.RotateSecret || next.Mesh.PSK != held.PSK || phase == change.Settling)
		if same {
			return nil
		}
		return fmt.Errorf("%w: another change of the mesh profile is %s; wait until it is over (haloctl mesh profile show)", api.ErrBusy, phase)
	}
	if c.RotateSecret {
		target.PSK = rand.Text()
	}
	if target == held {
		return nil
	}
	if err := g.under.Permit(target); err != nil {
		return fmt.Errorf("%w: %w", api.ErrInvalid, err)
	}
	if err := p.mayBegin(time.Now(), len(ids), len(online), c.Anyway); err != nil {
		return err
	}
	p.mu.Lock()
	if p.m.State().Phase != change.Idle {
		p.mu.Unlock()
		return fmt.Errorf("%w: another change of the mesh profile has just begun", api.ErrBusy)
	}
	_, err := p.start(time.Now(), target, online, c.Anyway)
	p.mu.Unlock()
	if err != nil {
		return fmt.Errorf("%w: %w", api.ErrBusy, err)
	}
	p.act()
	return nil
}

// mayBegin says why a change that somebody asks for would leave behind nodes which
// may be there, or nothing. Who asks for it anyway is let to once they had their time,
// also where no overlay comes up by the profile that is to be changed.
func (p *gatewayProfile) mayBegin(now time.Time, members, online int, anyway bool) error {
	p.mu.Lock()
	known := p.reach.known(now, members, online)
	p.mu.Unlock()
	known = known || anyway && now.Sub(p.begun) >= p.reach.wait
	switch {
	case online >= members, online > 0 && anyway, known && (online > 0 || anyway):
		return nil
	case known:
		return fmt.Errorf("%w: none of %d nodes is reached: wait until some are, or change it anyway: they come back by themselves, later", api.ErrBusy, members)
	}
	return fmt.Errorf("%w: the gateway has just started, and reaches %d of %d nodes: wait until the others are there, %s at most", api.ErrBusy, online, members, p.reach.wait)
}

// apply returns the profile with what a change names.
func apply(m bundle.Mesh, c model.ProfileChange) bundle.Mesh {
	set := func(to *string, from *string) {
		if from != nil {
			*to = *from
		}
	}
	number := func(to *int, from *int) {
		if from != nil {
			*to = *from
		}
	}
	set(&m.Routing, c.Routing)
	set(&m.MFP, c.MFP)
	set(&m.SAE, c.SAE)
	set(&m.HaLowScheme, c.HaLowScheme)
	number(&m.HopPenalty, c.HopPenalty)
	number(&m.Channel, c.Channel)
	number(&m.Width, c.Width)
	number(&m.BeaconInterval, c.BeaconInterval)
	number(&m.HaLowChannel, c.HaLowChannel)
	return m.WithDefaults()
}

// admitted notes who has the mesh secret, so that a revocation can tell whether to
// rotate it. What gateway-api says first in a process is what its card has, and not
// later than a document that was adopted before.
func (p *gatewayProfile) admitted(first bool) {
	ids := p.nodes()
	p.acting.Lock()
	defer p.acting.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	changed := false
	if out, shut := p.out(); !slices.Equal(p.kept.Out, out) { // somebody was admitted anew
		changed = true
		p.shutOut(shut)
	}
	if first && !p.adopted.IsZero() {
		p.doubt(ids)
		changed = true
	}
	for _, id := range ids {
		if len(p.kept.Had) < maxHad && !slices.Contains(p.kept.Had, id) {
			p.kept.Had, changed = append(p.kept.Had, id), true
		}
	}
	if changed {
		p.keep()
	}
	wake(p.wake)
}

// keep writes what a restart goes on with. p.acting is held, so that no earlier state
// is written after a later one, and p.mu, which is let go meanwhile.
func (p *gatewayProfile) keep() {
	p.kept.Out, _ = p.out()
	k, force, next := p.kept, p.m.Force(), p.m.Next()
	k.Change = p.m.State()
	p.mu.Unlock()
	p.keepProfile(k, force, next)
	p.mu.Lock()
}

// PutRevoked takes all nodes that were revoked. One that has had the present mesh
// secret makes another one due. Who is shut out is on the card before it is forgotten
// who has had the secret: between the two writes the power may go, and then all is
// taken again.
func (g *gateway) PutRevoked(ids []string) error {
	if len(ids) > maxHad {
		return fmt.Errorf("%w: revoked: expected at most %d, got %d", api.ErrInvalid, maxHad, len(ids))
	}
	for _, id := range ids {
		if !identity.ValidID(id) {
			return fmt.Errorf("%w: revoked: expected canonical IDs, got %.40q", api.ErrInvalid, id)
		}
	}
	fresh := g.profiles.had(ids)
	g.mu.Lock()
	was := g.known.Revoked
	still := slices.DeleteFunc(slices.Clone(was), func(id string) bool { return !slices.Contains(ids, id) || slices.Contains(fresh, id) })
	now := append(fresh, still...)
	g.known.Revoked = now[:min(len(now), peerlist.MaxRevoked)]
	changed := !slices.Equal(was, g.known.Revoked)
	if changed {
		g.saveRegistry()
		g.signList()
	}
	shut := slices.Concat(g.known.out, now)
	g.mu.Unlock()
	if changed {
		g.shutOut(shut)
	}
	g.profiles.revoked(fresh)
	return nil
}

// had returns which of those nodes have had the present secret.
func (p *gatewayProfile) had(ids []string) (list []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, id := range p.kept.Had {
		if slices.Contains(ids, id) {
			list = append(list, id)
		}
	}
	return list
}

// revoked makes another secret due, which those nodes do not get, if there are any.
func (p *gatewayProfile) revoked(ids []string) {
	p.acting.Lock()
	p.mu.Lock()
	if len(ids) > 0 {
		p.kept.Had = slices.DeleteFunc(slices.Clone(p.kept.Had), func(id string) bool { return slices.Contains(ids, id) })
		p.kept.Due, p.kept.DueSerial, p.retry = true, 0, time.Time{}
		p.keep()
	}
	p.mu.Unlock()
	p.acting.Unlock()
	if len(ids) > 0 {
		p.events.Add("mesh.secret.due", model.Warning, "a node was revoked that has the mesh secret: another is drawn, and handed to all others")
	}
	wake(p.wake)
}

// serve adds what nodes fetch, on the overlay alone.
func (p *gatewayProfile) serve(mux *http.ServeMux) {
	answer := func(whole bool) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			key, ok := p.asker(r.RemoteAddr)
			if !ok {
				http.Error(w, "no member has this address", http.StatusForbidden)
				return
			}
			p.mu.Lock()
			d := p.m.Latest().Document
			p.mu.Unlock()
			if d.Serial == 0 {
				http.Error(w, "there is no profile document yet", http.StatusNotFound)
				return
			}
			if whole && !d.Whole() {
				http.Error(w, "this gateway has not the whole itself yet", http.StatusNotFound)
				return
			}
			if !whole {
				var err error
				if d, err = d.Excerpt(key); err != nil {
					http.Error(w, err.Error(), http.StatusNotFound)
					return
				}
			}
			w.Header().Set("Content-Type", "application/cbor")
			_, _ = w.Write(d.Marshal()) // the node asks again
		}
	}
	mux.HandleFunc("GET "+routeProfile, answer(false))
	mux.HandleFunc("GET "+routeProfileWhole, answer(true))
	mux.HandleFunc("POST "+routeProfileWhole, p.takeWhole)
}

// asker tells who has an overlay address: WireGuard lets nobody else have it.
func (p *gatewayProfile) asker(remote string) (identity.PublicKey, bool) {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return identity.PublicKey{}, false
	}
	p.gateway.mu.Lock()
	defer p.gateway.mu.Unlock()
	for _, k := range p.known.Peers {
		if k.OverlayV4 == ap.Addr().Unmap() {
			key, err := identity.ParsePublicKey(k.IdentityKey)
			return key, err == nil
		}
	}
	return identity.PublicKey{}, false
}

// passphrases are the mesh secrets that are in use, or may come into use.
func (p *gatewayProfile) passphrases() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := []string{p.on.PSK, p.m.On().PSK, p.m.Force().Mesh.PSK}
	if next := p.m.Next(); next != nil {
		list = append(list, next.Mesh.PSK)
	}
	return list
}

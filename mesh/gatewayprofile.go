package mesh

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"halo.internal/identity"
	"halo.internal/mesh/announce"
	"halo.internal/mesh/change"
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
	// has one. It is a claim, so that no more follows from it. Those of strangers count
	// too, since a gateway on a fresh card knows no members, but not all of them.
	heldAsks    = time.Minute
	strangeHeld = 10 * time.Minute // between claims of strangers that count, after some at once
	strangeMost = 3

	// looksEvery is how often it is looked at most who is there: nodes can have the
	// gateway woken, and the kernel has much to say of a large network.
	looksEvery = time.Second
)

// gatewayProfile leads changes of the mesh profile.
type gatewayProfile struct {
	*gateway
	wake   chan struct{}
	looked time.Time // for members
	upkept time.Time // what nobody asks for by hand was looked at

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
	card    profileCard
	rejoin  *rejoin.Engine
	reach   reach
	adopted time.Time // a document; zero: in this process, none was
	held    time.Time // when a node said that it has a later document
	claims  allowance // of strangers who say so
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
	p.rejoin = rejoin.New(rejoin.Config{Key: g.id.Key, Network: g.net, Members: g.roll, Document: p.handOn, Boot: g.id.BootCounter, Since: sinceBoot})
	return p
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

// hear takes what a node says of its documents. Keys cost a stranger nothing: of those
// of no members nothing is kept, and nobody is woken.
func (p *gatewayProfile) hear(n announce.Node, member bool) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if n.Held > p.m.Latest().Serial && (member || p.claims.take(now, strangeHeld, strangeMost)) {
		p.held = now
	}
	if member {
		p.m.Report(now, identity.PublicKey(n.Key).ID(), n.Held, n.Using)
		wake(p.wake)
	}
}

// strange answers a member that was off. A gateway from an old card asks as well: it
// is a member like the others, those of whom that do not hear it ask each minute, and say
// what they have. What they say nobody has verified, as of strangers.
func (p *gatewayProfile) strange(from Stranger, payload []byte) {
	now := time.Now()
	p.mu.Lock()
	answer, d, err := p.rejoin.Handle(now, payload)
	if errors.Is(err, rejoin.ErrLater) && p.claims.take(now, strangeHeld, strangeMost) {
		p.held = now
	}
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
		now := time.Now()
		if now.Sub(p.upkept) >= looksEvery {
			p.upkept = now
			p.keepUp()
		}
		p.act()
		p.seek()
		due := p.due(time.Now())
		if look := p.upkept.Add(looksEvery); !now.Equal(p.upkept) && look.Before(due) {
			due = look // whoever woke it may have had that in mind
		}
		timer.Reset(time.Until(due))
		select {
		case <-ctx.Done():
			return nil
		case <-p.wake:
		case <-timer.C:
		}
	}
}

// due returns when act is to be called at the latest. While another gateway leads, this
// one decides nothing, whatever of its change was due.
func (p *gatewayProfile) due(now time.Time) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	due := p.m.Due(now)
	if rest := now.Add(looksEvery); due.Before(rest) && p.standsDown() {
		return rest
	}
	return due
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

// act does what is due: what is decided is on the card before it is done or told, if the
// card takes it. Where it does not, change.Gateway knows what waits for that.
func (p *gatewayProfile) act() {
	p.acting.Lock()
	defer p.acting.Unlock()
	p.mu.Lock()
	now := time.Now()
	serial, in, order := p.decide(now)
	for p.m.Save() {
		kept := p.keep()
		serial, in, order = p.decide(now) // what waited for that, or does without
		if !kept {
			break
		}
	}
	was, on := p.on, p.m.On()
	p.on = on
	said, lacking := p.said, p.lacking
	if on != was || p.tells(now) {
		said[0], said[1] = p.m.Announce()
		lacking = p.m.Lacks()
	}
	news := said != p.said || p.lacking != lacking
	p.said, p.lacking = said, lacking
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

// tells tells whether others may hear how things stand: a document that the card has not
// taken waits, for a while. One by which all are to switch in any case does not, nor what
// has come about already, as a switch back has with which a change ends that failed:
// whoever heard of its profile meanwhile would go there. p.mu is held.
func (p *gatewayProfile) tells(now time.Time) bool {
	s := p.m.State()
	return !p.card.waits(now) || s.Anyway || s.Phase == change.Settling || s.Phase == change.Recalling || s.Phase == change.Recalled
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
	case s == change.Idle && (was == change.Preparing || was == change.Ordered) && !p.card.fails.IsZero():
		p.outcome = "given up: the gateway's card does not take it, and no switch was ordered: " + p.card.err.Error()
		p.events.Add(eventProfileUndone, model.Error, p.outcome)
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
	hands, up := p.hands()
	online, linked := lately(ids, hands, handshakeStale), lately(ids, hands, sessionOver)
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

// keep writes what a restart goes on with, and tells whether the card has it. p.acting is
// held, so that no earlier state is written after a later one, and p.mu, which is let go
// meanwhile.
func (p *gatewayProfile) keep() bool {
	now := time.Now()
	if !p.card.due(now) {
		p.m.Unkept()
		return false
	}
	p.kept.Out, _ = p.out()
	k, force, next := p.kept, p.m.Force(), p.m.Next()
	k.Change = p.m.State()
	p.mu.Unlock()
	kept, err := p.keepProfile(k, force, next)
	p.mu.Lock()
	if p.card.wrote(now, kept, err) {
		p.tellUnkept(err)
	}
	if !kept {
		p.m.Unkept()
	}
	return kept
}

// tryCard says why the card does not take what it has already, or nothing.
func (p *gatewayProfile) tryCard() error {
	p.acting.Lock()
	defer p.acting.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.card.again = time.Time{}
	if p.keep() {
		return nil
	}
	return p.card.err
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

package mesh

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
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

// Where the gateway has its latest profile document, on its overlay address: the
// asker's excerpt of it, and the whole.
const (
	routeProfile      = "/v1/profile"
	routeProfileWhole = "/v1/profile/whole"
)

const (
	countLinks   = 2 * time.Second
	askAlone     = 10 * time.Second // between requests to rejoin of a node without peers
	askAmong     = time.Minute      // of one that has some
	wholePerNode = time.Second      // spreads who fetches the whole document
	forgetEvery  = time.Hour
)

// nodeProfile is how a node follows the mesh profile.
type nodeProfile struct {
	*node
	wake  chan struct{}
	fetch chan struct{}

	// acting is held while a decision is carried out; mu is let go while one is written
	// to the card: what this node says does not wait for the card.
	acting sync.Mutex

	mu      sync.Mutex // guards what follows
	m       *change.Node
	on      bundle.Mesh
	says    serials
	heard   change.Heard
	rejoin  *rejoin.Engine
	barred  uint64 // serial of a document that this device must not use, or that is not for it
	asked   time.Time
	counted time.Time
	forgot  time.Time
	scanned time.Time
	lost    time.Time // the gateway, since

	place    scout // among those who listen on other channels in turn
	hasPlace bool
	placed   time.Time // when it was looked for
	switched time.Time // to the profile in use

	card    profileCard
	wholeAt time.Time // when the whole document is due; zero: it is at hand
	wholeOf uint64    // serial of the document that this is of
	handAt  time.Time // when the gateway, which lacks it, is to get it; zero: it is not
}

// serials are those of the documents that are on the card: of the latest, of the one
// that counts, and of the one in use.
type serials struct{ latest, home, using uint64 }

func serialsOf(m *change.Node) serials { return serials{m.Latest().Serial, m.Home().Serial, m.Using()} }

func newNodeProfile(n *node, k kept) *nodeProfile {
	now := time.Now()
	p := &nodeProfile{node: n, wake: make(chan struct{}, 1), fetch: make(chan struct{}, 1), m: change.NewNode(n.ChangeTiming, n.bundle.Mesh, k.home, k.next, now), lost: now}
	p.on, p.says = p.m.On(), serialsOf(p.m)
	p.rejoin = rejoin.New(rejoin.Config{Key: n.id.Key, Network: n.net, Members: n.roll, Document: p.handOn, Boot: n.id.BootCounter, Since: sinceBoot})
	return p
}

// handOn returns the document that others may have of this node. One that it does not
// use would lead them astray, but for the gateway: where that runs from an old card, nodes
// come to its profile, and it has to come to theirs. p.mu is held.
func (p *nodeProfile) handOn(asker identity.PublicKey) (profile.Document, bool) {
	home := p.m.Home()
	return home.Document, home.Whole() && (p.m.On() == home.Mesh || asker == p.net)
}

// said is what the node's announcements say of its documents: what is on the card.
func (p *nodeProfile) said() (held, using uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	held = p.says.latest
	if held == p.barred {
		held = p.says.home
	}
	return held, p.says.using
}

// hear takes a believed message of the gateway.
func (p *nodeProfile) hear(g announce.Gateway) {
	p.mu.Lock()
	p.heard, p.lost = change.Heard{Epoch: g.Stamp.Epoch, Using: g.Profile, Next: g.Next}, time.Now()
	p.m.Gateway(time.Now(), p.heard)
	if home := p.m.Home(); !g.Lacks || !home.Whole() || home.Serial != g.Profile {
		p.handAt = time.Time{}
	} else if p.handAt.IsZero() { // the first of all is enough
		p.handAt = time.Now().Add(rand.N(time.Duration(home.Members)*wholePerNode + 1))
	}
	p.mu.Unlock()
	wake(p.wake)
	wake(p.fetch)
}

// order takes the gateway's word that all switch.
func (p *nodeProfile) order(o announce.Order) {
	p.mu.Lock()
	p.m.Order(time.Now(), o.Epoch, o.Serial, o.In())
	p.mu.Unlock()
	wake(p.wake)
}

// run switches when it is time, until ctx ends.
func (p *nodeProfile) run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	var scans sync.WaitGroup
	defer scans.Wait()
	var hearing sync.WaitGroup
	defer hearing.Wait()
	hearing.Go(func() { p.listenOverheard(ctx, p.strange) })
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.wake:
		case <-timer.C:
		}
		now := time.Now()
		if now.Sub(p.counted) >= countLinks {
			p.counted = now
			links := p.links()
			p.mu.Lock()
			p.m.Peers(now, links)
			p.mu.Unlock()
		}
		if wall, quality := p.clock.Now(); quality != model.ClockNone && now.Sub(p.forgot) >= forgetEvery {
			p.forgot = now
			p.mu.Lock()
			p.m.Forget(wall)
			p.mu.Unlock()
		}
		p.advance(now)
		p.seek(ctx, now, &scans)
		p.mu.Lock()
		timer.Reset(time.Until(p.m.Due(time.Now())))
		p.mu.Unlock()
	}
}

// advance does what is due: what is decided is on the card before it is done or told, if
// the card takes it. Where it does not, the node goes all the same where all go, and says
// after a while that it has what it has in RAM.
func (p *nodeProfile) advance(now time.Time) {
	p.acting.Lock()
	defer p.acting.Unlock()
	p.mu.Lock()
	p.m.Advance(now)
	saved := false
	for p.m.Save() {
		if saved = true; !p.keep(now) {
			break
		}
	}
	if home := p.m.Home(); saved && home.Serial != 0 && !home.Whole() && p.wholeOf != home.Serial {
		p.wholeOf = home.Serial
		p.wholeAt = now.Add(rand.N(time.Duration(home.Members)*wholePerNode + 1))
		wake(p.fetch)
	}
	was, on, away, using := p.on, p.m.On(), p.m.Away(), p.m.Using()
	p.on = on
	if !p.card.waits(now) {
		p.says = serialsOf(p.m)
	}
	p.mu.Unlock()
	if on == was {
		return
	}
	p.under.Switch(on)
	p.mu.Lock()
	p.switched = now
	p.mu.Unlock()
	p.node.mu.Lock()
	p.heardAt = time.Time{} // whether it is there too, has to be asked
	p.node.mu.Unlock()
	fields := []string{"channel", fmt.Sprint(on.Channel), "serial", fmt.Sprint(using)}
	if away {
		p.events.Add(eventProfileSwitched, model.Info, "this node uses another mesh profile, and goes back by itself if the gateway is not there: "+describeProfile(on), fields...)
	} else {
		p.events.Add(eventProfileBack, model.Warning, "this node is back on the mesh profile that it had: "+describeProfile(on), fields...)
	}
}

// keep writes what a restart goes on with, and tells whether the card has it. p.acting is
// held, and p.mu, which is let go meanwhile.
func (p *nodeProfile) keep(now time.Time) bool {
	if !p.card.due(now) {
		p.m.Unkept()
		return false
	}
	home, next := p.m.Home(), p.m.Next()
	p.mu.Unlock()
	kept, err := p.keepProfile(keptProfile{}, home, next)
	p.mu.Lock()
	if p.card.wrote(now, kept, err) {
		p.tellUnkept(err)
	}
	if !kept {
		p.m.Unkept()
	}
	return kept
}

// seek asks members around for a later document, on their channel, and in its turn
// listens on others and may go there, while the gateway is not heard.
func (p *nodeProfile) seek(ctx context.Context, now time.Time, scans *sync.WaitGroup) {
	p.mu.Lock()
	defer p.mu.Unlock()
	seeking, alone := p.m.Seeking(now)
	if !seeking {
		return
	}
	every := askAmong
	if alone {
		every = askAlone
	}
	if now.Sub(p.asked) >= every {
		p.asked = now.Add(-rand.N(every / 5))
		p.under.Say(Stranger{}, p.rejoin.Request(now, p.m.Latest().Document))
	}
	if until, due := p.scoutDue(now); due {
		p.scanned = now
		on := p.m.On()
		scans.Go(func() { p.listenElsewhere(ctx, on, until) })
		p.m.Turn(now.Add(scoutScan), until) // it goes where it hears the mesh, or heard it in a turn before
	}
}

// Elsewhere takes that a member was heard on another channel, of Wi-Fi or below 1 GHz:
// when this node is alone, it looks there with its own profile. What Morse's driver shows
// on a channel of 5 GHz may be on one of several.
func (p *nodeProfile) Elsewhere(n model.RadioNetwork) {
	p.mu.Lock()
	defer p.mu.Unlock()
	on := p.m.On()
	if len(n.S1G) == 0 {
		m := on
		if m.Channel = n.Channel; n.Channel == 0 || m == on {
			return
		}
		if m.Check() != nil {
			m.Width = 20
		}
		if m.Check() == nil {
			p.m.Elsewhere(m)
		}
		return
	}
	if on.HaLowChannel == 0 || slices.Contains(n.S1G, on.HaLowChannel) {
		return
	}
	for _, number := range n.S1G {
		m := on
		if m.HaLowChannel = number; m.Check() == nil {
			p.m.Elsewhere(m)
		}
	}
}

// strange takes what was said past the mesh: a request of a member that was off, or
// the answer to this node's own.
func (p *nodeProfile) strange(from Stranger, payload []byte) {
	p.mu.Lock()
	answer, d, err := p.rejoin.Handle(time.Now(), payload)
	p.mu.Unlock()
	switch {
	case err != nil:
		p.Log.Debug("said past the mesh, and not taken", "iface", from.Iface, "peer", from.MAC, "err", err)
	case answer != nil:
		p.Log.Info("a member is told of the mesh profile", "iface", from.Iface, "peer", from.MAC)
		p.under.Say(from, answer)
		p.goAhead()
	case d != nil:
		if p.take(*d, true) {
			p.events.Add(eventProfileRejoined, model.Info, "a member has told this node of the mesh profile that it had missed", "peer", from.MAC.String(), "serial", fmt.Sprint(d.Serial))
		}
	}
}

// goAhead goes back to the profile of the document that was just handed to somebody, if
// this node does not use it: it was the gateway, which comes there now. Where that has a
// higher epoch it may have been a recording.
func (p *nodeProfile) goAhead() {
	p.mu.Lock()
	defer p.mu.Unlock()
	home := p.m.Home()
	if p.m.On() != home.Mesh && p.heard.Epoch <= home.Epoch {
		p.m.Return(time.Now())
		wake(p.wake)
	}
}

// take opens a document and has it count. It tells whether it was news. What is not,
// anybody may have kept, and it bars nothing.
func (p *nodeProfile) take(d profile.Document, rejoined bool) bool {
	p.mu.Lock()
	later := d.After(p.m.Latest().Document)
	p.mu.Unlock()
	if !later {
		return false
	}
	o, err := d.Open(p.id.Key)
	if err != nil {
		p.bar(d.Serial, err)
		return false
	}
	if err := p.under.Permit(o.Mesh); err != nil {
		p.bar(d.Serial, err)
	}
	p.mu.Lock()
	news := p.m.Document(time.Now(), o, d.Serial == p.heard.Using, rejoined)
	p.mu.Unlock()
	wake(p.wake)
	return news
}

// bar notes, once, that a document is of no use here: the gateway sees that this
// node does not get ready.
func (p *nodeProfile) bar(serial uint64, why error) {
	p.mu.Lock()
	again := p.barred == serial
	p.barred = serial
	p.mu.Unlock()
	if !again {
		p.events.Add(eventProfileRefused, model.Error, "this node cannot follow a change of the mesh profile: "+why.Error(), "serial", fmt.Sprint(serial), "reason", why.Error())
	}
}

// follow fetches documents from the gateway.
func (p *nodeProfile) follow(ctx context.Context) error {
	client := &http.Client{Timeout: listWait, Transport: &http.Transport{DisableKeepAlives: true}}
	timer := time.NewTimer(0)
	defer timer.Stop()
	wait := listRetry
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.fetch:
			wait = listRetry
		case <-timer.C:
		}
		latest, whole, hand := p.wanted(time.Now())
		var err error
		switch {
		case hand:
			err = p.handOver(ctx, client)
		case latest:
			err = p.fetchLatest(ctx, client)
		case whole:
			err = p.fetchWhole(ctx, client)
		}
		if err == nil {
			wait = listRetry
			timer.Reset(p.restIn(time.Now()))
			continue
		}
		p.Log.Debug("mesh profile not fetched", "err", err)
		timer.Reset(wait/2 + rand.N(wait)) // not all at once
		wait = min(2*wait, listMost)
	}
}

// wanted tells whether the latest document is to be fetched, or the whole of the one
// in use, or that is to be handed to the gateway.
func (p *nodeProfile) wanted(now time.Time) (latest, whole, hand bool) {
	p.node.mu.Lock()
	up := p.wg != nil
	p.node.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !up {
		return false, false, false
	}
	latest = p.m.Wants(p.heard) && p.barred != max(p.heard.Using, p.heard.Next)
	home := p.m.Home()
	due := !p.wholeAt.IsZero() && !now.Before(p.wholeAt) || p.wholeAt.IsZero() && home.Serial != 0 && !home.Whole()
	return latest, due && p.heard.Using == home.Serial && p.heard.Next == 0, !p.handAt.IsZero() && !now.Before(p.handAt)
}

// restIn returns for how long nothing is to be fetched that nobody announces, and
// nothing handed over.
func (p *nodeProfile) restIn(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	rest := listMost / 4
	for _, at := range []time.Time{p.wholeAt, p.handAt} {
		if at.After(now) {
			rest = min(rest, at.Sub(now))
		}
	}
	return rest
}

// handOver gives the gateway the whole of the document in use, which it has adopted
// from somebody's excerpt.
func (p *nodeProfile) handOver(ctx context.Context, client *http.Client) error {
	p.mu.Lock()
	home := p.m.Home()
	p.mu.Unlock()
	if _, err := exchange(ctx, client, http.MethodPost, routeProfileWhole, home.Marshal(), http.StatusNoContent, 0); err != nil {
		return err
	}
	p.mu.Lock()
	p.handAt = time.Time{} // it says so if it lacks it still
	p.mu.Unlock()
	return nil
}

func (p *nodeProfile) fetchLatest(ctx context.Context, client *http.Client) error {
	d, err := p.get(ctx, client, routeProfile, profile.MaxExcerpt)
	if err != nil {
		return err
	}
	if !p.take(d, false) {
		return nil
	}
	// It is kept before the gateway hears of it: advance wakes with the document.
	p.advance(time.Now())
	p.events.Add(eventProfileReady, model.Info, "this node has the mesh profile that the gateway prepares", "serial", fmt.Sprint(d.Serial))
	select {
	case <-ctx.Done():
	case <-time.After(announce.Within(announce.SayWithin)):
	}
	p.search.Ask()
	return nil
}

func (p *nodeProfile) fetchWhole(ctx context.Context, client *http.Client) error {
	d, err := p.get(ctx, client, routeProfileWhole, profile.MaxSize)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.m.Complete(d)
	p.wholeAt = time.Time{}
	p.mu.Unlock()
	wake(p.wake)
	return nil
}

func (p *nodeProfile) get(ctx context.Context, client *http.Client, route string, most int64) (profile.Document, error) {
	raw, err := exchange(ctx, client, http.MethodGet, route, nil, http.StatusOK, most)
	if err != nil {
		return profile.Document{}, err
	}
	return profile.Parse(p.net, raw)
}

// Profile tells which profile this node uses.
func (n *node) Profile() (model.MeshProfile, error) {
	p := n.profiles
	p.mu.Lock()
	defer p.mu.Unlock()
	s := profileStatus(p.m.On(), p.m.Home())
	if next := p.m.Next(); next != nil {
		t := parametersOf(next.Mesh)
		s.Target, s.Secret, s.Phase = &t, next.Mesh.PSK != p.m.On().PSK, string(change.Preparing)
		if p.m.On() == next.Mesh {
			s.Phase = string(change.Settling)
		}
	}
	return s, nil
}

// passphrases are the mesh secrets that are in use, or may come into use.
func (p *nodeProfile) passphrases() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := []string{p.on.PSK, p.m.On().PSK, p.m.Home().Mesh.PSK}
	if next := p.m.Next(); next != nil {
		list = append(list, next.Mesh.PSK)
	}
	return list
}

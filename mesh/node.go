package mesh

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"halo.internal/identity"
	"halo.internal/mesh/announce"
	"halo.internal/mesh/api"
	"halo.internal/mesh/clock"
	"halo.internal/mesh/join"
	"halo.internal/mesh/overlay"
	"halo.internal/mesh/peerlist"
	"halo.internal/model"
	"halo.internal/model/paths"
)

const (
	// savedClockAfter is how long a node waits for the gateway's time before it
	// starts the overlay on its saved clock.
	savedClockAfter = 20 * time.Second
	// keepalive proves the tunnel at the cost of one small frame in two minutes.
	// It holds no door open: the gateway knows where its nodes are.
	keepalive = 2 * time.Minute
	// handshakeStale is when the overlay counts as down: WireGuard drops a
	// session after three minutes, the next keepalive makes a new one.
	handshakeStale = 5 * time.Minute
	// rejoinAfter is how long the gateway may be heard with no handshake before
	// it is asked whether it knows this node at all.
	rejoinAfter = 3 * time.Minute
	// rejoinPause is Config.RejoinPause where that is zero.
	rejoinPause = time.Minute
	// joinCheck is how often it is looked whether joining again is due.
	joinCheck = 15 * time.Second
)

// node is the side of everything that is not the gateway.
type node struct {
	*core
	search   *announce.NodeSide
	profiles *nodeProfile

	joinNow    chan struct{} // the joiner should look again
	joinHurry  chan struct{} // and not wait before it asks
	overlayNow chan struct{} // so should the overlay
	listNow    chan struct{} // a newer list of members may be there
	greetNow   chan struct{} // peers are to be greeted

	keeping sync.Mutex // one write of the membership at a time

	mu sync.Mutex // guards what follows
	// list is of members, as the gateway signed it last, with later lives that members
	// have told of themselves; the zero value: none was seen.
	list peerlist.List
	// listRaw is its signed form, nil for one from the card; listKept is what the card
	// has, and listKeptAt when this process wrote that.
	listRaw    []byte
	listKept   peerlist.List
	listKeptAt time.Time
	listUnkept bool       // the card did not take it when it was tried last
	lives      claims     // of other nodes, as they told of them
	greets     []greeting // in this order
	heard      *announce.Gateway
	heardAt    time.Time
	twins      map[uint64]bool // other gateways that were told of
	newKey     bool            // the gateway's API does not know of this node's overlay key yet
	hasTime    bool            // a gateway's answer has been applied in this process
	member     *model.Membership
	joined     time.Time // of the last answer in this process
	refused    refusal   // of the gateway that was refused last, since the last that was not
	state      model.JoinState
	detail     string
	wg         *overlay.Device
	wgSince    time.Time // start of the overlay, or of its present peer
	wgErr      error
}

func newNode(c *core) *node {
	n := &node{core: c, joinNow: make(chan struct{}, 1), joinHurry: make(chan struct{}, 1), overlayNow: make(chan struct{}, 1), listNow: make(chan struct{}, 1), greetNow: make(chan struct{}, 1), state: model.JoinSearching}
	var floor uint64
	b, err := c.store.Get(paths.Membership, paths.VaultMembership, func(b []byte) error {
		_, err := join.Parse(b, c.net, c.id.Key.Public())
		return err
	})
	switch {
	case err == nil:
		m, _ := join.Parse(b, c.net, c.id.Key.Public()) // Get has checked it
		n.member, n.state, floor = &m, model.JoinJoined, m.Epoch
	case !errors.Is(err, fs.ErrNotExist):
		c.events.Add("join.damaged", model.Warning, "kept membership is damaged, joining again: "+err.Error())
	}
	n.list = c.loadList()
	n.listKept = n.list
	c.shut.set(n.list.Revoked)
	if own, ok := n.list.Find(c.id.Key.Public()); ok {
		n.followEntry(own)     // which the card may not have had room for
		c.keys.known(own.Next) // a change that was interrupted
	}
	n.profiles = newNodeProfile(n, c.loadProfile())
	c.hidden = func() []string {
		n.mu.Lock()
		generation := n.list.Operators.Codes
		n.mu.Unlock()
		return append(n.profiles.passphrases(), c.codeOf(generation)...)
	}
	wg, _ := c.keys.public()
	evidence, epoch := c.loadEvidence()
	listens := c.announceConfig()
	listens.Owner = newKin(c.net, n.roll).of
	n.search = announce.NewNodeSide(listens, wg, max(floor, epoch), n.meetAndHear)
	n.search.Keys = c.claim
	n.search.Profiles, n.search.Ordered = n.profiles.said, n.profiles.order
	n.search.Twin, n.search.Others = n.twin, n.hearOther
	n.search.Devices, n.search.Raised = n.devices, n.raised
	if n.member != nil {
		n.search.Home = caHash(n.member.CA)
	}
	n.search.Evidence, n.search.Proved, n.search.Refused = evidence, c.keepEvidence, n.refuse
	return n
}

// devices returns how many devices the mesh has, this one among them: as many as there is
// a way to, or, where routing does not say, as there are members.
func (n *node) devices() int {
	others, err := n.under.Originators()
	if err != nil {
		others = len(n.roll())
	}
	return others + 1
}

// raised tells that the gateway has heard this device in a later start than its card
// counts. Its announcements go on in a later one; what it has measured, halo-agent names
// anew by what the gateway has of it.
func (n *node) raised(boot uint64) {
	n.events.Add("identity.start-repeated", model.Warning, fmt.Sprintf("the gateway knows this device in a later start than %d, which its card counts: the card keeps nothing, or is a copy from before. "+
		"It goes on as start %d; replace the card", n.id.BootCounter, boot), "boot", fmt.Sprint(n.id.BootCounter), "raised", fmt.Sprint(boot))
}

// loadEvidence returns the kept message that showed the highest epoch, and that.
// The network's signature is its checksum. Without it there is nothing to show
// to a gateway that is refused: no reason to do anything else differently.
func (m *core) loadEvidence() (evidence []byte, epoch uint64) {
	codec := announce.Codec{Network: m.net}
	evidence, err := m.store.Get(paths.Evidence, paths.VaultEvidence, func(b []byte) error {
		_, err := codec.GatewayEpoch(b)
		return err
	})
	if err == nil {
		epoch, err = codec.GatewayEpoch(evidence)
	}
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			m.Log.Warn("kept evidence of the gateway's epoch is damaged", "err", err)
		}
		return nil, 0
	}
	return evidence, epoch
}

// keepEvidence is called when the epoch rises, and at no other time, for the
// card's sake.
func (m *core) keepEvidence(evidence []byte) {
	if _, err := m.store.Keep(paths.Evidence, paths.VaultEvidence, evidence); err != nil {
		m.Log.Warn("evidence of the gateway's epoch is not kept in both places", "err", err)
	}
}

func (n *node) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return n.search.Run(ctx) })
	g.Go(func() error { return n.keepJoined(ctx) })
	g.Go(func() error { return n.keepOverlay(ctx) })
	g.Go(func() error { return n.followList(ctx) })
	g.Go(func() error { return n.keepGreeting(ctx) })
	g.Go(func() error { return n.profiles.run(ctx) })
	g.Go(func() error { return n.profiles.follow(ctx) })
	g.Go(func() error { return n.followKeys(ctx, n.overlayDevice, n.listSpread, n.rekeyed) })
	return g.Wait()
}

// greet asks for a gateway that was not heard yet, or not lately: it announces
// itself to new links, and one that is heard needs no question.
func (n *node) greet() {
	n.mu.Lock()
	heard := n.heard != nil && time.Since(n.heardAt) < announce.Silence
	n.mu.Unlock()
	if !heard {
		n.search.Ask()
	}
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // awake already
	}
}

// hear takes a believed message of the gateway.
func (n *node) hear(h announce.Heard) {
	if h.RoundTrip > 0 {
		if n.correct(clock.Answer{Time: h.Time(), Quality: h.Quality, RoundTrip: h.RoundTrip}) {
			n.search.Ask() // peers have to learn that our handshakes restart in the past
		}
	} else if _, own := n.clock.Now(); own == model.ClockNone && h.Quality != model.ClockNone || n.clock.Doubts(h.Time(), h.Quality) {
		n.search.Ask() // it knows the time by now, or better; what it says unasked proves none
	}
	n.mu.Lock()
	before := n.heard
	first := before == nil
	restarted := !first && before.Stamp.Boot != h.Stamp.Boot
	if !first && (restarted || before.Instance != h.Instance) && h.RoundTrip == 0 {
		// It knows nothing yet of what nodes told its former life, such as which profile
		// they use, and believing its announcement took no question.
		time.AfterFunc(announce.Within(announce.SayWithin), n.search.Ask)
	}
	if first || restarted || before.APIPort != h.APIPort || !bytes.Equal(before.CASHA256, h.CASHA256) {
		wake(n.joinHurry)
	}
	n.heard, n.heardAt, n.refused = &h.Gateway, time.Now(), refusal{}
	n.hasTime = n.hasTime || h.RoundTrip > 0
	moved := n.followGatewayKey(h.Gateway)
	n.mu.Unlock()
	if moved != nil {
		if err := n.keepMember(); err != nil {
			n.Log.Warn("the gateway's other key is not kept", "err", err)
		}
		n.events.Add("overlay.gateway-rekeyed", model.Info, "the gateway uses another overlay key", "peer", n.net.ID())
	}
	switch {
	case first:
		n.events.Add("gateway.heard", model.Info, "gateway found", "peer", n.net.ID())
	case restarted:
		n.events.Add("gateway.restarted", model.Info, "gateway has restarted", "peer", n.net.ID(), "gateway_boot", fmt.Sprint(h.Stamp.Boot))
	}
	n.profiles.hear(h.Gateway)
	wake(n.joinNow)
	wake(n.overlayNow)
	wake(n.listNow)
	wake(n.past.look)
}

// refusal is of a living gateway whose epoch is too low. The zero value is none.
type refusal struct {
	epoch, floor uint64
	at           time.Time
}

func (r refusal) String() string {
	return fmt.Sprintf("the gateway answers with epoch %d and is refused, since %d was heard", r.epoch, r.floor)
}

// refuse tells, once, of a gateway whose epoch is too low: an old card that came
// back, or a new one for a lost one. One whose gateway-api is not up yet, and
// which has no epoch for that reason, is not worth a word.
func (n *node) refuse(epoch, floor uint64) {
	if epoch == 0 {
		return
	}
	now := refusal{epoch, floor, time.Now()}
	n.mu.Lock()
	told := n.refused.epoch == epoch
	n.refused = now
	n.mu.Unlock()
	if told {
		return
	}
	n.events.Add("gateway.epoch-old", model.Error, now.String()+": most likely it runs from an old card; put that back which it had last, "+
		"or, if this one is to replace it for good, see haloctl network epoch show on what to do. A fresh card, which has had no nodes, raises its epoch by itself",
		"peer", n.net.ID(), "epoch", fmt.Sprint(epoch), "floor", fmt.Sprint(floor))
}

// target returns whom to ask for membership, once the gateway has said it.
func (n *node) target() (join.Gateway, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.heard == nil:
		return join.Gateway{}, errors.New("gateway not heard yet")
	case n.heard.APIPort == 0 || len(n.heard.CASHA256) != sha256.Size:
		return join.Gateway{}, errors.New("gateway is up, its API is not yet")
	}
	return join.Gateway{
		Network: n.net,
		Addr:    netip.AddrPortFrom(identity.Underlay(n.net, n.net), n.heard.APIPort),
		CA:      [sha256.Size]byte(n.heard.CASHA256),
	}, nil
}

func (n *node) Membership() (model.Membership, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.member == nil {
		return model.Membership{}, fmt.Errorf("%w: this node has not joined: %s", api.ErrNone, n.state)
	}
	return *n.member, nil
}

package mesh

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	"halo.internal/identity"
	"halo.internal/mesh/announce"
	"halo.internal/mesh/join"
	"halo.internal/mesh/overlay"
	"halo.internal/model"
	"halo.internal/model/paths"
	"halo.internal/model/version"
)

// keepJoined makes the node a member whenever there is a reason to, until ctx
// ends. A member that asks again goes on with what it has meanwhile.
func (n *node) keepJoined(ctx context.Context) error {
	check := time.NewTicker(joinCheck)
	defer check.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-n.joinNow:
		case <-check.C:
		}
		reason := n.why()
		if _, err := n.target(); reason == "" || err != nil {
			continue
		}
		n.Log.Info("joining", "reason", reason)
		m, err := join.Persist(ctx, n.attempt, n.report, n.joinHurry)
		if err != nil {
			return nil // only the end of ctx
		}
		n.accept(m)
	}
}

func (n *node) attempt(ctx context.Context) (model.Membership, error) {
	g, err := n.target()
	if err != nil {
		return model.Membership{}, err
	}
	r, err := n.request()
	if err != nil {
		return model.Membership{}, err
	}
	return join.Request(ctx, g, n.id.Key, r)
}

func (n *node) request() (model.JoinRequest, error) {
	private := n.keys.secret()
	wg := publicOf(private)
	proof, err := identity.ProvePossession(n.net, n.id.Key.Public(), private)
	return model.JoinRequest{
		Network:      n.net.Base64(),
		IdentityKey:  n.id.Key.Public().Base64(),
		WireGuardKey: base64.StdEncoding.EncodeToString(wg[:]),
		Possession:   base64.StdEncoding.EncodeToString(proof),
		Token:        n.bundle.Join.Token,
		Name:         n.name(),
		Board:        board(),
		Serial:       serial(),
		Version:      version.Get().Version,
		MACs:         hardwareAddrs(),
		Boot:         n.id.BootCounter,
	}, err
}

// board returns the model that the device tree names; without one, nothing.
func board() string {
	b, err := os.ReadFile("/proc/device-tree/model")
	if err != nil {
		return ""
	}
	return strings.TrimRight(string(b), "\x00")
}

// serial returns the board's serial number, as the device tree has it; without one,
// nothing.
func serial() string {
	b, err := os.ReadFile("/proc/device-tree/serial-number")
	if err != nil {
		return ""
	}
	s := strings.TrimRight(string(b), "\x00\n")
	return s[:min(len(s), 64)]
}

// hardwareAddrs returns the addresses that admins know a device by.
func hardwareAddrs() []string {
	var out []string
	links, err := netlink.LinkList()
	if err != nil {
		return nil
	}
	for _, l := range links {
		// What hears the air as it is (hwsim0, monitors) has an address that it never sends from.
		if a := l.Attrs(); l.Type() == "device" && a.EncapType == "ether" && len(a.HardwareAddr) == 6 && len(out) < 32 {
			out = append(out, a.HardwareAddr.String())
		}
	}
	return out
}

// report tells where joining stands, once for each change.
func (n *node) report(s model.JoinState, err error) {
	detail := err.Error()
	n.mu.Lock()
	again := n.state == s && n.detail == detail
	n.state, n.detail = s, detail
	n.mu.Unlock()
	if again {
		return
	}
	switch s {
	case model.JoinRefused:
		n.events.Add("join.refused", model.Error, detail)
	case model.JoinPending:
		n.events.Add("join.pending", model.Warning, detail)
	default:
		n.Log.Info("join not answered yet", "err", err)
	}
}

// accept keeps a membership and has the overlay follow it.
func (n *node) accept(m model.Membership) {
	n.mu.Lock()
	n.member, n.joined, n.state, n.detail, n.newKey = &m, time.Now(), model.JoinJoined, "", false
	if n.heard != nil { // gateway-api may not know of a change of the gateway's key yet
		n.followGatewayKey(*n.heard)
	}
	n.mu.Unlock()
	if err := n.keepMember(); err != nil {
		n.events.Add("join.not-kept", model.Warning, err.Error())
	}
	n.events.Add("join.joined", model.Info, "this node joined the network", "name", m.Name, "address", m.OverlayV4.String())
	n.search.Ask() // now that the gateway knows this node, it may learn of its present life
	wake(n.overlayNow)
	wake(n.serveNow)
}

// keepOverlay brings wg0 up as soon as there is a membership and a time to
// start from, and keeps it as the membership and the gateway say.
func (n *node) keepOverlay(ctx context.Context) error {
	saved := time.NewTimer(savedClockAfter)
	defer saved.Stop()
	retry := time.NewTicker(retryUnderlay)
	defer retry.Stop()
	patient := true
	var open *overlayOf
	var life *uint64 // of the gateway, to which there was a way
	defer func() { open.close() }()
	var tale overlayTale
	for {
		n.mu.Lock()
		m, ready, heard := n.member, n.hasTime || !patient, n.heard
		n.mu.Unlock()
		if m != nil && ready {
			if heard != nil && (life == nil || *life != heard.Stamp.Boot) {
				life = &heard.Stamp.Boot
				n.awaitWay(ctx, n.net)
			}
			var err error
			open, err = n.follow(open, *m)
			n.mu.Lock()
			n.wgErr = err
			n.mu.Unlock()
			tale.tell(err, n.events.Add)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-n.overlayNow:
		case <-saved.C:
			patient = false
		case <-retry.C:
		}
	}
}

// overlayOf is an open overlay and the membership that it was opened for.
type overlayOf struct {
	dev    *overlay.Device
	v4, v6 netip.Addr
	peer   overlay.Peer
	lives  map[string]overlay.Incarnation // of direct peers, as they were set last: by canonical ID
}

func (o *overlayOf) close() {
	if o != nil {
		_ = o.dev.Close() // the process ends, or a new one is opened
	}
}

// follow makes the overlay fit the membership and the gateway as last heard.
func (n *node) follow(o *overlayOf, m model.Membership) (*overlayOf, error) {
	if o != nil && (o.v4 != m.OverlayV4 || o.v6 != m.OverlayV6) {
		o.close()
		o = nil
	}
	var harm error // of which peers must hear nothing: who is gone is out all the same
	if o != nil {
		if harm = o.dev.Guard(false); errors.Is(harm, overlay.ErrLost) { // its routes are the doctor's
			n.events.Add(eventOverlayLost, model.Warning, harm.Error()+"; it is made anew")
			o.close()
			o, harm = nil, nil
		}
	}
	if o == nil {
		dev, err := n.openOverlay(m.OverlayV4, m.OverlayV6)
		if err != nil {
			return nil, err
		}
		o = &overlayOf{dev: dev, v4: m.OverlayV4, v6: m.OverlayV6}
	}
	peer := n.gatewayPeer(m)
	direct := n.directPeers()
	begun := o.begun(direct)
	if err := o.dev.SetPeers(append(direct, peer)); err != nil {
		return o, err
	}
	o.lives = map[string]overlay.Incarnation{}
	for _, p := range direct {
		o.lives[p.Node] = p.Incarnation
	}
	n.mu.Lock()
	if n.wg != o.dev || o.peer.Key != peer.Key || o.peer.Incarnation != peer.Incarnation {
		n.wg, n.wgSince = o.dev, time.Now()
		wake(n.listNow)
	}
	n.mu.Unlock()
	o.peer = peer
	n.greetLater(begun)
	return o, harm
}

func (n *node) gatewayPeer(m model.Membership) overlay.Peer {
	raw, err := base64.StdEncoding.DecodeString(m.GatewayWireGuardKey)
	if err != nil || len(raw) != 32 {
		panic("mesh: membership was not checked") // join.Check does
	}
	p := overlay.Peer{
		Node: n.net.ID(), Key: [32]byte(raw), Keepalive: keepalive,
		Endpoint: netip.AddrPortFrom(identity.Underlay(n.net, n.net), paths.WireGuardPort),
		// All that no other peer has: it is the way to nodes that are not on the list,
		// to its own clients, and out.
		Allowed: []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(identity.Overlay(n.net, n.net), 48).Masked()},
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.heard != nil {
		copy(p.Next[:], n.heard.NextKey)
		p.Incarnation = overlay.Incarnation{Boot: n.heard.Stamp.Boot, Steps: n.heard.Steps}
	}
	return p
}

// why returns the reason to ask for membership (again), or nothing.
func (n *node) why() string {
	reason, suspect := n.whyToldBy()
	if suspect == nil || model.Recent(time.Now(), n.lastHandshake(suspect), handshakeStale) {
		return reason
	}
	return "gateway does not answer in the overlay"
}

// whyToldBy returns the reason that the gateway's own words give, or an overlay whose
// handshakes tell, where there is no such reason.
func (n *node) whyToldBy() (reason string, suspect *overlay.Device) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.member == nil {
		return "not a member yet", nil
	}
	if time.Since(n.joined) < rejoinPause {
		return "", nil // what it just said holds, even if it contradicts its announcement
	}
	if h := n.heard; h != nil && len(h.CASHA256) == sha256.Size {
		switch {
		case !bytes.Equal(h.CASHA256, caHash(n.member.CA)):
			return "gateway has another CA", nil
		case n.newKey:
			return "this node has another overlay key", nil
		case h.Stamp.Epoch > n.member.Epoch:
			return "gateway was restored or replaced", nil
		}
	}
	if n.wg != nil && time.Since(n.heardAt) < announce.Silence && time.Since(n.wgSince) > rejoinAfter &&
		time.Since(n.joined) > rejoinAfter {
		return "", n.wg
	}
	return "", nil
}

// caHash returns the SHA-256 of a CA in PEM, or nothing.
func caHash(text string) []byte {
	ca, _ := pem.Decode([]byte(text))
	if ca == nil {
		return nil
	}
	h := sha256.Sum256(ca.Bytes)
	return h[:]
}

// lastHandshake is the gateway's. n.mu is not held: the kernel is asked.
func (n *node) lastHandshake(wg *overlay.Device) time.Time {
	if wg == nil {
		return time.Time{}
	}
	peers, err := wg.Handshakes()
	if err != nil {
		return time.Time{}
	}
	return handshakeWith(peers, n.net.ID(), time.Now())
}

// handshakeWith is the handshake with a node that is nearest to now, zero when there was
// none: it has two keys while it changes its own.
func handshakeWith(status []model.OverlayPeer, node string, now time.Time) time.Time {
	var last time.Time
	for _, p := range status {
		if p.Node == node && p.LastHandshake != nil && (last.IsZero() || now.Sub(*p.LastHandshake).Abs() < now.Sub(last).Abs()) {
			last = *p.LastHandshake
		}
	}
	return last
}

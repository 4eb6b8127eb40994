package mesh

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"io/fs"
	"log"
	"net/http"
	"net/netip"
	"time"

	"halo.internal/identity"
	"halo.internal/mesh/join"
	"halo.internal/mesh/listen"
	"halo.internal/mesh/overlay"
	"halo.internal/mesh/peerlist"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// routeList is where the gateway has the signed list of members, on its overlay
// address.
const routeList = "/v1/peers"

// signedList is the list that the gateway has signed last.
type signedList struct {
	peerlist.List
	raw []byte
}

// bootBits is how many bits of a list's version count milliseconds since the
// machine started: enough for decades. The rest is the boot counter, so that
// versions rise over restarts with nothing of their own to keep.
const bootBits = 40

// signList makes a list of who is admitted now, which nodes fetch at once. g.mu is
// held.
func (g *gateway) signList() { g.sign(true) }

// sign makes a list of who is admitted now. Without an epoch, which gateway-api
// tells, there is none. g.mu is held.
func (g *gateway) sign(presses bool) {
	if g.known.Announce == nil {
		return
	}
	now, _ := g.clock.Now()
	shut := g.known.shut()
	l := peerlist.List{
		Epoch: g.known.Announce.Epoch, Version: g.list.Following(g.id.BootCounter<<bootBits|sinceBoot(), presses),
		Issued: now, Expires: now.Add(peerlist.Validity), Peers: g.known.listed(), Operators: g.known.Operators,
		Revoked: shut[:min(len(shut), peerlist.MaxRevoked)],
	}
	raw, err := peerlist.Sign(g.id.Key, l)
	if err != nil {
		g.Log.Error("list of members not signed", "err", err) // what was handed over was checked by the same rules
		return
	}
	withdraws := g.list.raw == nil || l.Withdraws(g.list.List) // what was said last, a gateway that starts does not know
	g.list, g.lives.unsigned = signedList{l, raw}, false
	if withdraws {
		g.voice.Press() // gateway-api's word alone brings it about
	} else {
		g.voice.Changed()
	}
}

// listed returns the peers as the list of members has them.
func (r *registry) listed() []peerlist.Peer {
	out := []peerlist.Peer{}
	for _, p := range r.members() {
		key, errKey := identity.ParsePublicKey(p.IdentityKey)
		wg, errWG := base64.StdEncoding.DecodeString(p.WireGuardKey)
		if errKey != nil || errWG != nil || len(wg) != 32 {
			panic("mesh: peer was not checked") // setPeers does
		}
		out = append(out, peerlist.Peer{Key: key, WireGuard: [32]byte(wg), Next: keyOf(p.Next), Overlay: p.OverlayV4, Clients: p.Clients, Name: p.Name, Boot: p.Boot, Steps: p.Steps})
	}
	return out
}

// renewList signs another list when it is time, and has saveLives write what was collected
// when that is due.
func (g *gateway) renewList() {
	wall, _ := g.clock.Now()
	now := time.Now()
	g.mu.Lock()
	every := max(livesEvery, fetchSpread(len(g.known.Peers)))
	switch {
	case g.list.raw == nil, g.lives.unsigned && g.lives.press(now, every, g.list.Severed(peerlist.List{Peers: g.known.listed()})):
		g.signList()
	case g.list.Stale(wall) || g.lives.sign(now, every):
		g.sign(false)
	}
	save := g.lives.save(now)
	g.mu.Unlock()
	if save {
		wake(g.saveNow)
	}
}

// Bounds of the connections to the list: what all nodes ask at once has to fit.
var listBounds = listen.Bounds{Most: 64, Client: 4, Write: listWait}

// serveList answers members with the list of members, on the overlay alone: their
// clients, which come by it too, are nobody's members, nor are visitors.
func (g *gateway) serveList(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+routeList, func(w http.ResponseWriter, _ *http.Request) {
		g.mu.Lock()
		raw := g.list.raw
		g.mu.Unlock()
		if raw == nil {
			http.Error(w, "there is no list of members yet", http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/cbor")
		_, _ = w.Write(raw) // the node asks again
	})
	g.profiles.serve(mux)
	at := listen.At{Iface: paths.OverlayIface, Addr: paths.OverlayGateway, From: []netip.Prefix{paths.OverlayNet}, Except: []netip.Prefix{paths.OverlayVisitors}}
	at.Keep(ctx, g.Log.With("service", "members"), func(ctx context.Context) error {
		l, err := at.TCP(ctx, paths.PeerListPort, listBounds)
		if err != nil {
			return err
		}
		server := &http.Server{
			Handler: mux, ReadTimeout: listWait, WriteTimeout: listWait, IdleTimeout: listWait, MaxHeaderBytes: 8 << 10,
			ErrorLog: log.New(io.Discard, "", 0), // who breaks off is no news
		}
		defer context.AfterFunc(ctx, func() { _ = server.Close() })()
		err = server.Serve(l)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	})
	return nil
}

// loadList returns the list that was kept, or none.
func (m *core) loadList() (l peerlist.List) {
	_, err := m.store.Get(paths.PeerList, "", func(b []byte) (err error) {
		l, err = peerlist.Parse(m.net, b)
		return err
	})
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			m.Log.Warn("kept list of members is damaged, waiting for the gateway's", "err", err)
		}
		return peerlist.List{}
	}
	return l
}

const (
	listWait  = 20 * time.Second // for an answer: a few dozen kilobytes over the slowest link
	keysKept  = 10 * time.Minute // between writes to the card for keys alone
	keepsLook = time.Minute

	// keptBehind is how much older than the one at hand a kept list may be. The gateway
	// signs one after half of its time, which is more.
	keptBehind = peerlist.Validity / 3
	keptAhead  = time.Hour // how much later it may say that it was signed
)

// followList fetches the list of members whenever the gateway announces one that
// is newer than the one at hand.
func (n *node) followList(ctx context.Context) error {
	transport := &http.Transport{DisableKeepAlives: true}
	client := &http.Client{Timeout: listWait, Transport: transport}
	look := time.NewTicker(keepsLook)
	defer look.Stop()
	var plan fetchPlan
	for {
		var due <-chan time.Time
		if !plan.at.IsZero() {
			due = time.After(time.Until(plan.at))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
			n.keepList()
		case <-n.listNow:
			if old, presses, members := n.listIsOld(); old {
				plan.announced(time.Now(), presses, members)
			}
		case <-due:
			if old, _, _ := n.listIsOld(); !old {
				plan = fetchPlan{}
			} else if err := n.fetchList(ctx, client); err != nil {
				n.Log.Debug("list of members not fetched", "err", err)
				plan.failed(time.Now())
			} else {
				plan = fetchPlan{}
			}
		}
	}
}

// listIsOld tells whether the gateway has announced a newer list, whether that
// presses, and how many members there are.
func (n *node) listIsOld() (old, presses bool, members int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	h := n.heard
	old = h != nil && n.wg != nil && h.List > 0 && (peerlist.List{Epoch: h.Stamp.Epoch, Version: h.List}).After(n.list)
	return old, old && n.list.Presses(h.Stamp.Epoch, h.List), len(n.list.Peers)
}

func (n *node) fetchList(ctx context.Context, client *http.Client) error {
	raw, err := exchange(ctx, client, http.MethodGet, routeList, nil, http.StatusOK, peerlist.MaxSize)
	if err != nil {
		return err
	}
	return n.takeList(raw)
}

// takeList takes a list that is newer than the one at hand.
func (n *node) takeList(raw []byte) error {
	l, err := peerlist.Parse(n.net, raw)
	if err != nil {
		return err
	}
	n.mu.Lock()
	old := n.list
	if !l.After(old) {
		n.mu.Unlock()
		return nil
	}
	if l.Epoch == old.Epoch {
		l.KeepLives(old)
	}
	n.list, n.listRaw = l, raw
	own, is := l.Find(n.id.Key.Public())
	var changed *model.Membership
	if is {
		changed = n.followEntry(own)
	}
	n.mu.Unlock()
	n.keepList()
	if changed != nil {
		if err := n.keepMember(); err != nil {
			n.Log.Warn("another name is not kept", "err", err)
		}
		n.events.Add("join.renamed", model.Info, "the gateway has another name, or another network of clients, for this node", "name", changed.Name)
	}
	if _, was := old.Find(n.id.Key.Public()); was && !is {
		n.events.Add("overlay.not-listed", model.Warning, "the gateway's list of members is without this node: it reaches no other node directly")
	}
	n.shutOut(l.Revoked)
	if is {
		n.keys.known(own.Next)
	}
	wake(n.overlayNow)
	wake(n.serveNow)
	return nil
}

// followEntry takes over what an admin can change of a node that has joined: its name, and
// with the place of a card that it was adopted for, that one's network of clients. n.mu is
// held; it returns the membership if it is another.
func (n *node) followEntry(own peerlist.Peer) *model.Membership {
	if n.member == nil || own.Name == "" || own.Clients.IsValid() && join.CheckClients(own.Clients) != nil {
		return nil
	}
	if n.member.Name == own.Name && n.member.Clients == own.Clients {
		return nil
	}
	m := *n.member
	m.Name, m.Clients = own.Name, own.Clients
	n.member = &m
	return &m
}

// keepList has the card hear of the list, if that is worth it.
func (n *node) keepList() {
	now := time.Now()
	n.mu.Lock()
	l, raw := n.list, n.listRaw
	worth := raw != nil && worthKeeping(l, n.listKept, now.Sub(n.listKeptAt))
	n.mu.Unlock()
	if !worth {
		return
	}
	_, err := n.store.Put(paths.PeerList, "", raw)
	n.mu.Lock()
	failed := n.listUnkept
	n.listUnkept = err != nil
	if err == nil {
		n.listKept, n.listKeptAt = l, now
	}
	n.mu.Unlock()
	// It is tried again every keepsLook: a restart without the gateway must not bring back
	// who was revoked.
	switch {
	case err != nil && !failed:
		n.Log.Warn("list of members is not kept", "err", err)
	case err == nil && failed:
		n.Log.Info("list of members is kept again")
	}
}

// worthKeeping tells whether a list is worth a write to the card, which has another,
// written so long ago. Other members are at once. Keys wait: a node that restarts
// and finds no gateway reaches a peer without them that keeps its own, and whoever
// changes them often is up to no good. Lives alone are no reason, but that the kept
// one ends so much earlier is: it is for the time when the gateway is off. So is that
// the gateway's clock was ahead when it signed the kept one, which tells the time of a
// node that has none.
func worthKeeping(l, kept peerlist.List, since time.Duration) bool {
	return l.Epoch != kept.Epoch || !l.Members(kept) || !l.Keys(kept) && since >= keysKept ||
		l.Issued.Sub(kept.Issued) >= keptBehind || kept.Issued.Sub(l.Issued) >= keptAhead
}

// listSpread is how much later than this node another may have the same list.
func (n *node) listSpread() time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	return fetchSpread(len(n.list.Peers))
}

// members returns who is on the list, this node included, while that holds and has it;
// n.mu is held.
func (n *node) members() []peerlist.Peer {
	now, quality := n.clock.Now()
	if _, ok := n.list.Find(n.id.Key.Public()); !ok || quality != model.ClockNone && n.list.Valid(now) != nil {
		return nil
	}
	return n.list.Peers
}

// directPeers returns the other members, which this node speaks to without a turn
// through the gateway. One that is not listed itself has none: they would not
// answer.
func (n *node) directPeers() []overlay.Peer {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []overlay.Peer
	for _, p := range n.members() {
		if p.Key == n.id.Key.Public() {
			continue
		}
		o := overlay.Peer{
			Node: p.Key.ID(), Key: p.WireGuard, Next: p.Next, Incarnation: overlay.Incarnation{Boot: p.Boot, Steps: p.Steps},
			Endpoint: netip.AddrPortFrom(identity.Underlay(n.net, p.Key), paths.WireGuardPort),
			Allowed:  append([]netip.Prefix{netip.PrefixFrom(p.Overlay, 32), netip.PrefixFrom(identity.Overlay(n.net, p.Key), 128)}, clientNetworks(n.net, p.Clients)...),
		}
		out = append(out, o)
	}
	return out
}

package port

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	"halo.internal/mesh/port/proof"
	"halo.internal/model"
)

// behind hears members on a port that does not carry the mesh. A board with one
// port, on a switch with a DHCP server and with other boards, has an uplink
// there and no mesh: that is meant, since the mesh would run through a network
// of others, but whoever plugged it in must be told why nobody joins. It outlives
// the turns of an uplink that finds no server again and again, so that this is
// told once.
//
// A port that carried the mesh before is no such network of others: a server was
// there while the members were not. It answers those who greet, and goes back to the
// mesh when one of them proves itself.
type behind struct {
	*port
	heard map[proof.MAC]*greeted
	told  bool
}

// greeted is when an address was heard.
type greeted struct{ first, last time.Time }

// advice ends what is said of members behind an uplink.
const advice = "the mesh needs a port of its own, or pin [ports]"

// run calls back when the mesh is to have the port again. Elsewhere it takes no part
// in any proof: it sends nothing, and a member is only whoever greets with the mesh's
// secret.
func (b *behind) run(ctx context.Context, link netlink.Link, back func()) {
	for ctx.Err() == nil {
		if err := b.listen(ctx, link, back); err != nil && ctx.Err() == nil {
			b.log.Info("members behind the uplink are not heard, will try again", "err", err)
		}
		sleep(ctx, b.ps.timing.retry)
	}
}

func (b *behind) listen(ctx context.Context, link netlink.Link, back func()) error {
	a := link.Attrs()
	if len(a.HardwareAddr) != 6 {
		return fmt.Errorf("port %s: expected a MAC address of 6 octets, got %d", b.name, len(a.HardwareAddr))
	}
	mac := proof.MAC(a.HardwareAddr)
	ctx, cancel := context.WithCancel(ctx)
	w, err := listen(ctx, b.index, b.name, mac, false)
	if err != nil {
		cancel()
		return err
	}
	defer func() {
		cancel()
		for range w.in { // until the reader has ended
		}
	}()
	check := time.NewTicker(b.ps.timing.stray / 2)
	defer check.Stop()
	due := time.NewTimer(0)
	defer due.Stop()
	engine := b.prover(mac, time.Now())
	for {
		if b.past().Mesh {
			if b.answer(w, engine) {
				back()
			}
			due.Reset(time.Until(engine.Next()))
		}
		select {
		case <-ctx.Done():
			return nil
		case f, ok := <-w.in:
			if !ok {
				return fmt.Errorf("read from port %s: %w", b.name, w.err)
			}
			b.take(time.Now(), f)
			if b.past().Mesh && !b.ps.reached(f.from) {
				engine.Handle(time.Now(), f.from, f.to, f.payload)
			}
		case <-due.C:
			engine.Advance(time.Now())
		case <-check.C:
			b.tell(time.Now())
		}
	}
}

// answer sends what the proof has to say to those who have greeted, and nothing to all:
// who does not know the mesh's secret hears nothing. It tells whether there is a member
// that no other port leads to.
func (b *behind) answer(w *wire, engine *proof.Engine) bool {
	frames, _ := engine.Take()
	engine.Heard() // keys are agreed on where the mesh is
	for _, f := range frames {
		if f.To == proof.Broadcast {
			continue
		}
		if err := w.send(f); err != nil {
			b.log.Debug("a member behind the uplink is not answered", "peer", f.To, "err", err) // it greets again
		}
	}
	return slices.ContainsFunc(engine.Members(), func(m proof.Member) bool { return !b.ps.reached(m.MAC) })
}

func (b *behind) take(now time.Time, f received) {
	if !b.ps.secret.Greets(f.from, f.to, f.payload) {
		return
	}
	g := b.heard[f.from]
	if g == nil {
		if len(b.heard) >= proof.MaxMembers {
			return
		}
		g = &greeted{first: now}
		b.heard[f.from] = g
	}
	g.last = now
}

// tell says so once there are members that stay and prove themselves on no
// other port, and takes it back when there are none any more.
func (b *behind) tell(now time.Time) {
	var strays []string
	for mac, g := range b.heard {
		switch {
		case now.Sub(g.last) >= b.ps.timing.silent || b.ps.reached(mac):
			delete(b.heard, mac)
		case g.last.Sub(g.first) >= b.ps.timing.stray:
			strays = append(strays, mac.String())
		}
	}
	if len(strays) == 0 {
		if b.told {
			b.told = false
			b.log.Info("no members are heard behind the uplink any more")
			b.set(Uplink, "")
		}
		return
	}
	b.set(Uplink, "members are heard behind the uplink: "+advice)
	if b.told {
		return
	}
	b.told = true
	slices.Sort(strays)
	b.log.Warn("members are heard behind the uplink", "peer", strays)
	b.notify(EventBehind, model.Warning, fmt.Sprintf("members are heard behind the uplink %s: %s", b.name, advice), map[string]string{"mac": strings.Join(strays[:min(len(strays), 8)], " ")})
}

// reached tells whether the address is a port of this device, or of a member
// that carries the mesh to it by another port.
func (ps *Ports) reached(mac proof.MAC) bool {
	return slices.ContainsFunc(ps.all(), func(p *port) bool {
		_, member := p.member(net.HardwareAddr(mac[:]))
		return member || p.mac == mac.String()
	})
}

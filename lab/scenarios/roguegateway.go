package scenarios

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"halo.internal/identity"
	"halo.internal/lab/host"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// rogueGateway has announcements forged that are as good as somebody can make them who
// has all but the network's key.
//
// From outside, by a stranger on the switch, a client of a node and a guest who speaks
// batman-adv, none of them may come to where announcements are read: the cable is
// under MACsec, ports for clients are not the mesh, and a bridged port is none for
// members. Frames of MACsec that the stranger has overheard and damaged are to be
// dropped by whoever has the key.
//
// From inside, by a guest at a port that is bridged into the mesh, all of them come to
// every member, as those of a captured node would: each has to be refused for what is
// wrong with it, and counted so.
func rogueGateway(ctx context.Context, w *World, r *Result) error {
	node := w.nodes()[0]
	bridge, err := w.needBridge(ctx)
	if err != nil {
		return err
	}
	w = w.among(append(slices.Clone(w.Members), bridge)...)
	if err := w.serving(ctx, node, Ports); err != nil {
		return err
	}
	stranger, unplug, err := w.onSwitch("rogue", rogueMAC)
	if err != nil {
		return err
	}
	defer unplug()
	client, leave, err := w.plug(node, Ports-1, "rogue", clientMAC)
	if err != nil {
		return err
	}
	defer leave()
	guest, away, err := w.plug(bridge, bridged, "rogue", visitorMAC)
	if err != nil {
		return err
	}
	defer away()

	forged, err := w.forgeries(ctx, guest)
	if err != nil {
		return err
	}
	damaged, deaf, err := w.sealed(ctx, stranger)
	if err != nil {
		return err
	}
	defer deaf()
	o, err := w.Begin(ctx)
	if err != nil {
		return err
	}
	if err := w.outside(ctx, r, []*host.Host{stranger, client, guest}, forged, damaged); err != nil {
		return fmt.Errorf("from outside: %w", err)
	}
	if err := w.inside(ctx, r, guest, forged); err != nil {
		return fmt.Errorf("from inside: %w", err)
	}
	r.Since = "the attack began"
	return w.Recovered(ctx, o, r)
}

// forgeries overhears an announcement of the gateway's as a guest, and forges others.
func (w *World) forgeries(ctx context.Context, guest *host.Host) ([]forgery, error) {
	key, err := identity.ParsePublicKey(w.Net.Bundles.Node.Gateway.PublicKey)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	var heard []byte
	defer guest.Hear(func(f host.Frame) {
		b, ok := announced(f)
		if _, _, is := ofGateway(b); ok && is {
			mu.Lock()
			defer mu.Unlock()
			heard = bytes.Clone(b)
		}
	})()
	if err := w.eventually(ctx, "the guest hears an announcement of the gateway", func() error {
		mu.Lock()
		defer mu.Unlock()
		return expect(heard != nil, "one, got none")
	}); err != nil {
		return nil, err
	}
	mu.Lock()
	defer mu.Unlock()
	return forge(key, heard)
}

// sealed overhears frames of MACsec on the switch until stop is called: damaged returns
// the latest of each member, with a bit that is another. It returns when there is one of
// each.
func (w *World) sealed(ctx context.Context, stranger *host.Host) (damaged func() []host.Frame, stop func(), err error) {
	var mu sync.Mutex
	heard := map[host.MAC]host.Frame{}
	stop = stranger.Hear(func(f host.Frame) {
		if f.Kind() != paths.EtherTypeMACsec {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		heard[f.From()] = host.Frame(flipped(f, len(f)/2)) // behind the header, before what authenticates it
	})
	if err := w.eventually(ctx, "the stranger hears frames of MACsec", func() error {
		mu.Lock()
		defer mu.Unlock()
		return expect(len(heard) >= len(w.Members), "them from each of %d members, got %d", len(w.Members), len(heard))
	}); err != nil {
		stop()
		return nil, nil, err
	}
	return func() []host.Frame {
		mu.Lock()
		defer mu.Unlock()
		return slices.Collect(maps.Values(heard))
	}, stop, nil
}

// damagedEvery is how many rounds of an attack there are for each in which frames of
// MACsec are sent: with each of them the switch takes a member for the stranger, until
// that one speaks again.
const damagedEvery = 20

// outside has forgeries sent by those who are not on the mesh, and checks that no
// member has any of them to read.
func (w *World) outside(ctx context.Context, r *Result, strangers []*host.Host, forged []forgery, damaged func() []host.Frame) error {
	before, err := w.statuses(ctx)
	if err != nil {
		return err
	}
	recordings := 0
	guest := strangers[len(strangers)-1]
	if err := w.attack(ctx, func(i int) error {
		f := forged[i%len(forged)]
		if f.reason == ignoredOld {
			recordings += len(strangers)
		}
		var errs []error
		for _, h := range strangers {
			plain := announcing(h, f.text)
			if h != guest { // to who is on the mesh, that is the attack from inside
				errs = append(errs, h.Send(plain))
			}
			errs = append(errs, h.Send(host.Ether(host.Broadcast, h.MAC, paths.EtherTypeBatman, inBatman(h.MAC, i, plain))))
		}
		if i%damagedEvery == 0 {
			for _, f := range damaged() {
				errs = append(errs, strangers[0].Send(f))
			}
		}
		return errors.Join(errs...)
	}, func() error { return w.steadfast(ctx, before, rogueMAC, clientMAC, visitorMAC) }); err != nil {
		return err
	}
	return w.eventually(ctx, "nothing has come in", func() error {
		now, err := w.statuses(ctx)
		if err != nil {
			return err
		}
		for name, s := range now {
			was := before[name]
			for _, reason := range []string{ignoredSignature, ignoredNetwork, ignoredForm} {
				if n := s.Ignored[reason] - was.Ignored[reason]; n > 0 {
					return fmt.Errorf("%s has had %d announcements that were %s", name, n, reason)
				}
			}
			// Its own come back to a member now and then.
			if n := s.Ignored[ignoredOld] - was.Ignored[ignoredOld]; recordings == 0 || n > uint64(recordings)/4 {
				return fmt.Errorf("%s has had %d announcements that were old, of %d that were sent", name, n, recordings)
			}
			if n := invalid(s) - invalid(was); n == 0 {
				return fmt.Errorf("expected %s to have dropped damaged frames of MACsec, got %+v", name, s.Ports)
			}
		}
		r.note("from outside, no announcement came to any member")
		return nil
	})
}

// invalid counts frames of MACsec that were dropped for what was wrong with them.
func invalid(s model.MeshStatus) (n uint64) {
	for _, p := range s.Ports {
		if p.MACsec != nil {
			n += p.MACsec.Invalid
		}
	}
	return n
}

// inside has a guest of the mesh send forgeries, and checks that each member has had
// them, and refused each for its reason.
func (w *World) inside(ctx context.Context, r *Result, guest *host.Host, forged []forgery) error {
	before, err := w.statuses(ctx)
	if err != nil {
		return err
	}
	sent := map[string]uint64{}
	rounds := 0
	send := func(int) error {
		f := forged[rounds%len(forged)]
		rounds++
		sent[f.reason]++
		return guest.Send(announcing(guest, f.text))
	}
	check := func() error { return w.steadfast(ctx, before, guest.MAC) }
	for rounds < 2*len(forged) { // on a busy host an attack has fewer
		if err := w.attack(ctx, send, check); err != nil {
			return err
		}
	}
	var counts []string
	if err := w.eventually(ctx, "each member has refused them", func() error {
		now, err := w.statuses(ctx)
		if err != nil {
			return err
		}
		counts = nil
		for _, m := range w.Members {
			for _, reason := range slices.Sorted(maps.Keys(sent)) {
				n := now[m.Name()].Ignored[reason] - before[m.Name()].Ignored[reason]
				counts = append(counts, fmt.Sprintf("%s %d %s", m.Name(), n, reason))
				// A datagram may be lost, and many at once are not looked at.
				if n < sent[reason]/2 {
					return fmt.Errorf("expected at least half of %d that are %s counted by %s, got %d", sent[reason], reason, m.Name(), n)
				}
			}
		}
		return nil
	}); err != nil {
		return err
	}
	r.note("from inside, of %v: %s", sent, strings.Join(counts, ", "))
	return check()
}

// announcing is a frame by which a host says something to all that listen to
// announcements.
func announcing(h *host.Host, text []byte) host.Frame {
	group := netip.AddrPortFrom(paths.AnnounceGroup, paths.AnnouncePort)
	return host.Ether(host.Group(group.Addr()), h.MAC, host.TypeIPv6, host.UDP6(netip.AddrPortFrom(h.LinkLocal(), paths.AnnouncePort), group, text))
}

package port

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"sync"
	"time"

	"github.com/vishvananda/netlink"

	"halo.internal/mesh/port/filter"
	"halo.internal/mesh/port/macsec"
	"halo.internal/mesh/port/proof"
	"halo.internal/model"
)

// port is one Ethernet port. Its goroutine, serve, owns it; others see what the
// lock guards and send on the channels.
type port struct {
	ps    *Ports
	index int
	name  string
	pin   string
	mac   string
	stray behind
	log   *slog.Logger

	secureName string // of the MACsec interface

	ctx     context.Context // ends when the port is gone or Run's context does
	stop    context.CancelFunc
	ended   chan struct{} // closed when serve has returned
	recheck chan struct{} // Admit may have changed its mind
	plugged chan struct{} // the cable came or went; read cable

	mu      sync.Mutex // guards what follows
	role    string
	detail  string
	members map[proof.MAC]string // canonical IDs
	secured map[proof.MAC]string // the same, by the address of the MACsec interface
	macsec  *model.MACsec
	cable   bool
}

func newPort(ctx context.Context, ps *Ports, a *netlink.LinkAttrs) *port {
	ctx, stop := context.WithCancel(ctx)
	p := &port{
		ps: ps, index: a.Index, name: a.Name, pin: ps.c.Pins[a.Name], mac: a.HardwareAddr.String(),
		log: ps.c.Log.With("iface", a.Name),
		ctx: ctx, stop: stop, ended: make(chan struct{}),
		recheck: make(chan struct{}, 1), plugged: make(chan struct{}, 1),
		role: Searching, members: make(map[proof.MAC]string), cable: hasCable(a),
		secureName: macsec.Name(a.Name, a.Index),
	}
	p.stray = behind{port: p, heard: make(map[proof.MAC]*greeted)}
	return p
}

// serve runs until the port is gone. A failure is told once and tried again,
// ever more slowly.
func (p *port) serve() {
	defer close(p.ended)
	defer p.stop()
	p.notify(EventFound, model.Info, "Ethernet port "+p.name+" is there", nil)
	failures := 0
	for p.ctx.Err() == nil {
		began := time.Now()
		err := p.turn(p.ctx)
		if p.ctx.Err() != nil {
			return
		}
		if err == nil || time.Since(began) > 2*slowestRetry*p.ps.timing.retry {
			failures = 0
		}
		if err == nil {
			continue
		}
		role := Searching
		if p.pin != "" && p.pin != Mesh {
			role = p.pin // what it is for is certain, even if it does not work
		}
		p.set(role, err.Error())
		if failures++; failures == 1 {
			p.log.Error("port failed, will try again", "err", err)
			p.notify(EventFailed, model.Error, "Ethernet port "+p.name+" failed: "+err.Error(), nil)
		}
		sleep(p.ctx, time.Duration(min(failures, slowestRetry))*p.ps.timing.retry)
	}
}

// slowestRetry is the longest pause between attempts, in retry intervals.
const slowestRetry = 12

// turn serves the port in one role, until that ends.
func (p *port) turn(ctx context.Context) error {
	if err := p.noGuests(); err != nil {
		return err
	}
	link, err := netlink.LinkByIndex(p.index)
	if err != nil {
		return fmt.Errorf("find port %s: %w", p.name, err)
	}
	switch p.pin {
	case Bridged:
		return p.serveGuests(ctx, link)
	case Unused:
		return p.rest(ctx, link)
	case Client:
		if p.ps.c.Clients != nil {
			return p.serveClients(ctx, link)
		}
		return p.open(ctx, link, Client)
	case Uplink:
		return p.uplink(ctx, link)
	}
	upstream, err := p.search(ctx, link)
	if err == nil && upstream {
		return p.uplink(ctx, link)
	}
	return err
}

// rest keeps an unused port down, and shut should anyone raise it.
func (p *port) rest(ctx context.Context, link netlink.Link) error {
	if err := p.unsecure(); err != nil {
		return err
	}
	if err := filter.Apply(p.name, filter.Policy{}); err != nil {
		return err
	}
	if err := p.noClients(); err != nil {
		return err
	}
	if err := netlink.LinkSetDown(link); err != nil {
		return fmt.Errorf("take down port %s: %w", p.name, err)
	}
	p.set(Unused, "")
	<-ctx.Done()
	return nil
}

// open leaves a port to the rest of the system.
func (p *port) open(ctx context.Context, link netlink.Link, role string) error {
	if err := p.admitAll(link); err != nil {
		return err
	}
	p.set(role, "")
	<-ctx.Done()
	return nil
}

func (p *port) admitAll(link netlink.Link) error {
	if err := p.unsecure(); err != nil {
		return err
	}
	if err := p.ps.c.Carrier.Release(p.name); err != nil {
		return err
	}
	if err := raise(link, true); err != nil {
		return err
	}
	return filter.Open(p.name)
}

// uplink serves the port as uplink until upstream is lost: it says so itself,
// or the cable stays out, after which another network may be at its end; or, where
// the port carried the mesh before, until a member proves itself.
func (p *port) uplink(ctx context.Context, link netlink.Link) error {
	if err := p.noClients(); err != nil {
		return err
	}
	if err := p.admitAll(link); err != nil {
		return err
	}
	p.set(Uplink, "")
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var watch sync.WaitGroup
	watch.Go(func() { p.watchCable(ctx, cancel) })
	watch.Go(func() { p.stray.run(ctx, link, func() { cancel(errMembers) }) })
	watch.Go(func() { p.keepPast(ctx) })
	err := p.ps.c.Upstream.Run(ctx, p.name)
	cause := context.Cause(ctx)
	cancel(nil)
	watch.Wait()
	if errors.Is(cause, errMembers) {
		p.remember(Past{Mesh: true}) // or the server would be found again before they are
		p.log.Warn("uplink is given back to the mesh", "err", errMembers)
		p.notify(EventBack, model.Warning, fmt.Sprintf("port %s led upstream and carries the mesh again: %v; is there a server of DHCP among the nodes?", p.name, errMembers), nil)
		return err
	}
	if !errors.Is(cause, errUnplugged) {
		return err
	}
	p.log.Warn("uplink is lost", "err", errUnplugged)
	if p.pin != Uplink {
		return nil // whatever is plugged in next, the next turn finds out
	}
	p.set(Uplink, errUnplugged.Error())
	for !p.hasCable() {
		select {
		case <-p.ctx.Done():
			return nil
		case <-p.plugged:
		}
	}
	return nil
}

// Why an uplink is none any more, besides what upstream says.
var (
	errUnplugged = errors.New("the cable is out")
	errMembers   = errors.New("members proved themselves there, as they did before")
)

func (p *port) watchCable(ctx context.Context, cancel context.CancelCauseFunc) {
	out := time.NewTimer(p.ps.timing.carrier)
	out.Stop()
	defer out.Stop()
	for {
		if p.hasCable() {
			out.Stop()
		} else {
			out.Reset(p.ps.timing.carrier)
		}
		select {
		case <-ctx.Done():
			return
		case <-out.C:
			cancel(errUnplugged)
			return
		case <-p.plugged:
		}
	}
}

func (p *port) hasCable() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cable
}

func (p *port) setCable(in bool) {
	p.mu.Lock()
	changed := p.cable != in
	p.cable = in
	p.mu.Unlock()
	if !changed {
		return
	}
	select {
	case p.plugged <- struct{}{}:
	default: // the owner will read the latest anyway
	}
}

// set records the role and tells of a change.
func (p *port) set(role, detail string) {
	p.mu.Lock()
	was := p.role
	p.role, p.detail = role, detail
	p.mu.Unlock()
	if was == role {
		return
	}
	p.log.Info("port changed its role", "role", role, "was", was)
	p.notify(EventRole, model.Info, fmt.Sprintf("Ethernet port %s: %s, was %s", p.name, role, was), map[string]string{"role": role, "was": was})
}

func (p *port) status() model.Port {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := model.Port{Iface: p.name, Role: p.role, Pinned: p.pin != "", Detail: p.detail}
	s.Members = sortedUnique(maps.Values(p.members))
	if p.macsec != nil {
		m := *p.macsec
		s.MACsec = &m
	}
	return s
}

func (p *port) member(mac net.HardwareAddr) (string, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return find(p.members, mac)
}

func (p *port) securedMember(mac net.HardwareAddr) (string, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return find(p.secured, mac)
}

func find(ids map[proof.MAC]string, mac net.HardwareAddr) (string, bool) {
	if len(mac) != 6 {
		return "", false
	}
	id, ok := ids[proof.MAC(mac)]
	return id, ok
}

func (p *port) notify(kind string, severity model.Severity, message string, fields map[string]string) {
	if p.ps.c.Notify == nil {
		return
	}
	all := map[string]string{"iface": p.name}
	maps.Copy(all, fields)
	p.ps.c.Notify(model.Event{Kind: kind, Severity: severity, Message: message, Fields: all})
}

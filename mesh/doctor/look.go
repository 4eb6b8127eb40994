package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"halo.internal/mesh/iface"
	"halo.internal/model"
	"halo.internal/model/paths"
)

// What costs nothing on the air is looked at often.
const (
	routesEvery  = 2 * time.Second
	floodEvery   = 10 * time.Second
	serversEvery = 30 * time.Second
	// strangeFor is for how long somebody else offers a way out until that is told of:
	// batman-adv remembers for 200 s what the gateway was called before its restart.
	strangeFor = 5 * time.Minute
)

// lookAround looks at this device's own routes and settings until ctx ends.
func (d *Doctor) lookAround(ctx context.Context) {
	routes, flood, servers := time.NewTicker(routesEvery), time.NewTicker(floodEvery), time.NewTicker(serversEvery)
	defer routes.Stop()
	defer flood.Stop()
	defer servers.Stop()
	var kept steady
	var changes iface.Changes
	defer changes.Close()
	strangers := map[string]time.Time{}
	for {
		select {
		case <-ctx.Done():
			return
		case <-routes.C:
			d.lookAtRoutes(&kept, changes.Any())
		case <-flood.C:
			d.lookAtFlood()
		case <-servers.C:
			d.lookAtServers(time.Now(), strangers)
		case <-d.deaf:
			d.hearAgain()
		}
	}
}

// lookAtOnce does so when somebody wants to know.
func (d *Doctor) lookAtOnce(own Own) {
	if d.gateway() || !own.V4.IsValid() {
		return
	}
	if o, err := readOutlook(own); err == nil {
		d.setRoute(o)
	}
}

// lookAtRoutes has a node's traffic for outside follow the overlay. Where nothing has
// changed since all was well, it is.
func (d *Doctor) lookAtRoutes(kept *steady, changed bool) {
	if d.gateway() {
		return
	}
	own, ok := d.Own()
	if !ok {
		*kept = steady{}
		d.mu.Lock()
		d.route = nil
		d.mu.Unlock()
		return
	}
	mtu := d.limitToGateway()
	if !changed && kept.well(own, mtu) {
		return
	}
	o, err := readOutlook(own)
	if err != nil {
		d.Log.Debug("routes not looked at", "err", err)
		return
	}
	faults := o.judge()
	now := kept.keep(faults)
	kept.own, kept.mtu = own, mtu
	for _, dst := range o.otherMTU(mtu) { // the overlay was opened anew, and its routes made
		if err := putRoute(paths.OverlayIface, dst, mtu, unix.RTPROT_STATIC); err != nil {
			d.Log.Debug("packets are not held to a limit", "err", err)
		}
	}
	for _, f := range now {
		a := about{fault: model.FaultRoute, what: f.what}
		d.ledger.found(a, f.detail, f.remedy == remedyNone)
		if f.remedy == remedyNone {
			continue
		}
		if err := mend(f, mtu); err != nil {
			d.ledger.found(a, f.detail+"; it could not be mended: "+err.Error(), true)
			continue
		}
		d.ledger.mended(a, f.done)
	}
	for _, a := range d.ledger.of(model.FaultRoute) {
		if !slices.ContainsFunc(faults, func(f routeFault) bool { return f.what == a.what }) {
			d.ledger.ended(a, "traffic for outside follows the overlay again")
		}
	}
	if len(now) > 0 {
		if o, err = readOutlook(own); err != nil {
			return
		}
	}
	d.setRoute(o)
}

// limitToGateway is to what packets to the gateway are held.
func (d *Doctor) limitToGateway() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p := d.patients[d.Network.ID()]; p != nil {
		return p.limits.overlay
	}
	return 0
}

func (d *Doctor) setRoute(o outlook) {
	r := &model.DoctorRoute{Follows: !o.astray()}
	if o.leads != nil {
		r.Iface = *o.leads
	}
	if faults := o.judge(); len(faults) > 0 {
		r.Detail = faults[0].detail
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.route = r
}

// lookAtFlood has batman-adv flood what goes to all.
func (d *Doctor) lookAtFlood() {
	on, err := d.Underlay.Flooding()
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			d.Log.Debug("multicast mode not known", "err", err)
		}
		return
	}
	if !on {
		a := about{fault: model.FaultMulticast, what: "flood"}
		d.ledger.found(a, "batman-adv sends what goes to all only to those that are known to listen", false)
		if err := d.flood(); err != nil {
			d.ledger.found(a, "batman-adv sends what goes to all only to those that are known to listen, and does not take another setting: "+err.Error(), true)
		} else {
			on = true
			d.ledger.mended(a, "batman-adv was told again to flood what goes to all")
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.flooding = &on
}

func (d *Doctor) flood() error { return d.Underlay.Flood() }

// hearAgain does what this device can when a peer says that what it sends to all does
// not arrive here.
func (d *Doctor) hearAgain() {
	if err := errors.Join(d.wire.rejoin(), ignoreAbsent(d.flood())); err != nil {
		d.Log.Debug("the group of the path doctor is not joined anew", "err", err)
	}
}

func ignoreAbsent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// lookAtServers tells of those that are not the gateway and offer a way out. A node's
// default route does not follow them; its questions for addresses on the mesh may.
func (d *Doctor) lookAtServers(now time.Time, since map[string]time.Time) {
	list, known, err := d.Underlay.Servers()
	if err != nil || !known {
		return
	}
	there := map[string]bool{}
	for _, s := range list {
		if s.Ours {
			continue
		}
		there[s.MAC] = true
		if _, ok := since[s.MAC]; !ok {
			since[s.MAC] = now
		}
		if now.Sub(since[s.MAC]) < strangeFor {
			continue
		}
		detail := fmt.Sprintf("%s, which is not the gateway, offers a way out of the mesh", s.MAC)
		if s.Chosen {
			detail += ", and this device asks it for addresses on the mesh"
		}
		d.ledger.found(about{fault: model.FaultServer, what: s.MAC}, detail+"; traffic for outside does not go there", true)
	}
	for mac := range since {
		if !there[mac] {
			delete(since, mac)
			d.ledger.ended(about{fault: model.FaultServer, what: mac}, mac+" offers a way out no more")
		}
	}
}

package registry

import (
	"fmt"
	"maps"
	"reflect"
	"time"

	"halo.internal/model"
)

const (
	seenEvery     = 15 * time.Minute // how often "last seen" alone is written: the journal tells it as well
	maxInterfaces = 64
	maxText       = 128
)

// live is what is known of a node beyond config.db, to spare the card.
type live struct {
	online  int // open streams; a reconnect may overlap the one before
	boot    uint64
	status  model.NodeStatus // without interfaces
	seen    time.Time
	present map[string]model.Interface // of the last heartbeat; nil: none came yet

	unsaved
	told
	hardware
	board toldBoard
	lives []string // starts of its machine that were seen, the latest last
}

// Online notes that a node's stream opened; the function returned notes that
// it ended.
func (r *Registry) Online(id string, boot uint64) (offline func()) {
	r.mu.Lock()
	l := r.entry(id)
	l.online++
	first, reboot := l.online == 1, boot > l.boot && l.boot != 0
	l.seen = r.clock.Now()
	if boot > l.boot {
		l.boot = boot
		r.mark(l, true)
	}
	r.mu.Unlock()
	r.nodeNews.Note(id)
	switch {
	case reboot:
		r.events.Add("node.rebooted", model.Info, id, "the node has started again", map[string]string{"boot": fmt.Sprint(boot)})
	case first:
		r.events.Add("node.online", model.Info, id, "the node is there", nil)
	}
	return func() {
		r.mu.Lock()
		l.online--
		last := l.online == 0
		l.seen = r.clock.Now()
		r.mark(l, false)
		r.mu.Unlock()
		r.nodeNews.Note(id)
		if last {
			r.events.Add("node.offline", model.Warning, id, "the node's stream ended", nil)
		}
	}
}

// OthersOnline tells whether a node other than the gateway has a stream open.
func (r *Registry) OthersOnline() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, l := range r.live {
		if id != r.key.ID() && l.online > 0 {
			return true
		}
	}
	return false
}

// Seen notes that something came from a node.
func (r *Registry) Seen(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.entry(id).seen = r.clock.Now()
}

// Heard notes that something is stored that a node sent at that time: what the
// journal has is newer than config.db after a crash.
func (r *Registry) Heard(id string, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if l := r.live[id]; l != nil && at.After(l.seen) && !at.After(r.clock.Now()) {
		l.seen = at
	}
}

// entry returns the live state of a node; mu is held.
func (r *Registry) entry(id string) *live {
	l := r.live[id]
	if l == nil {
		l = &live{}
		r.live[id] = l
	}
	return l
}

// Status takes a node's heartbeat. What it says is answered from RAM at once;
// Run writes it down where it changed in kind, not counters and uptime.
func (r *Registry) Status(id string, s model.NodeStatus) {
	trim(&s)
	interfaces, clients, cameras := s.Interfaces, s.Clients, s.Cameras
	s.Interfaces, s.Clients, s.Cameras = nil, nil, nil
	present := map[string]model.Interface{}
	for _, i := range interfaces {
		present[i.Name] = i
	}
	r.mu.Lock()
	l := r.entry(id)
	old, before := l.status, l.present
	l.status, l.present, l.seen = s, present, r.clock.Now()
	identity := s.Slot != old.Slot || s.Serial != old.Serial || s.Version != old.Version && s.Version != ""
	old.UptimeS, s.UptimeS = 0, 0
	old.Position, s.Position = source(old.Position), source(s.Position) // a device that moves wears no card
	same := before != nil && maps.EqualFunc(before, present, sameShape) && reflect.DeepEqual(old, s)
	if !same || l.seen.Sub(l.seenSaved).Abs() >= seenEvery {
		l.report(present, l.seen)
		r.mark(l, identity)
	}
	news := r.stateCame(id, l, old.State)
	pieces := r.hardwareCame(id, l, present)
	if len(l.hardware.came) > 0 {
		r.mark(l, false)
	}
	r.mu.Unlock()
	if !same {
		r.nodeNews.Note(id)
	}
	r.tell(news)
	r.tellHardware(pieces)
	if r.clients != nil {
		r.clients(id, clients)
	}
	if r.cameras != nil {
		r.cameras(id, cameras)
	}
}

// source is what of a position lasts.
func source(p *model.Position) *model.Position {
	if p == nil {
		return nil
	}
	return &model.Position{Source: p.Source}
}

// sameShape compares interfaces without their counters.
func sameShape(a, b model.Interface) bool {
	a.RxBytes, a.TxBytes, b.RxBytes, b.TxBytes = 0, 0, 0, 0
	return reflect.DeepEqual(a, b)
}

// trim bounds what a node says of itself.
func trim(s *model.NodeStatus) {
	for _, t := range []*string{&s.Name, (*string)(&s.Role), &s.Board, &s.Kernel, &s.Version, &s.Commit, &s.Slot, &s.State, &s.Missing, &s.Serial} {
		*t = clip(*t, maxText)
	}
	if s.Position != nil && !s.Position.Valid() {
		s.Position = nil
	}
	s.BoardFile = trimBoard(s.BoardFile)
	s.Inventory = clip(s.Inventory, maxText)
	if len(s.Interfaces) > maxInterfaces {
		s.Interfaces = s.Interfaces[:maxInterfaces]
	}
	for k := range s.Interfaces {
		i := &s.Interfaces[k]
		i.Name, i.Kind, i.MAC, i.PortRole = clip(i.Name, 32), clip(i.Kind, 16), clip(i.MAC, 32), clip(i.PortRole, 16)
		i.Addresses = i.Addresses[:min(len(i.Addresses), 32)]
	}
}

// ByMAC tells which node says that it has which address, by the nodes' last
// heartbeats. An address that two of them claim belongs to neither.
func (r *Registry) ByMAC() map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	nodes, twice := map[string]string{}, map[string]bool{}
	for id, l := range r.live {
		for _, i := range l.present {
			mac, err := ParseMAC(i.MAC)
			if err != nil {
				continue
			}
			twice[mac] = twice[mac] || nodes[mac] != "" && nodes[mac] != id
			nodes[mac] = id
		}
	}
	maps.DeleteFunc(nodes, func(mac, _ string) bool { return twice[mac] })
	return nodes
}

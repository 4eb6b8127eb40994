package wireless

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"halo.internal/mesh/peering"
	"halo.internal/mesh/radio"
	"halo.internal/model"
)

// EventElsewhere: a mesh of the same name is heard on another channel; fields
// radio, channel, freq_mhz, mac. Nobody proves it.
const EventElsewhere = "mesh.radio.elsewhere"

// finder remembers which channels it has told of.
type finder struct {
	sync.Mutex // held while a scan is under way
	told       map[int]time.Time
}

// Bounds of what strangers can have told.
const (
	tellElsewhere = 10 * time.Minute // between events of one channel
	mostElsewhere = 64               // channels that are handed on, of a scan: more than a radio has
	mostTold      = 8                // of them, that events are made of
)

// passes are the scans of one look for the mesh, until it is found: whether each only
// listens. A member has some 30 ms to answer what it is asked, which over a poor link
// it may not hear; and of its beacons, one a second, a scan that listens hears one in
// nine.
var passes = []bool{false, true, true, false, true, true}

// lookElsewhere has a lonely radio look for the mesh on other channels.
func (w *Wireless) lookElsewhere(ctx context.Context, name string) {
	if !w.found.TryLock() {
		return
	}
	defer w.found.Unlock()
	for _, listen := range passes {
		if w.linked() {
			return // it is wanted here
		}
		found, err := w.elsewhere(ctx, name, listen)
		if err != nil && ctx.Err() == nil && !errors.Is(err, radio.ErrBusy) {
			w.c.Log.Debug("no look at other channels", "radio", name, "err", err)
		}
		if found || err != nil {
			return
		}
	}
}

// linked tells whether a radio has a link.
func (w *Wireless) linked() bool {
	return slices.ContainsFunc(w.states(), func(s radio.State) bool {
		return slices.ContainsFunc(s.Peers, func(p radio.Peer) bool { return p.Peering == peering.Estab })
	})
}

// elsewhere hands on who of the mesh is heard on other channels, the strongest of each,
// and tells whether anybody is. Channels count, not stations: those of one can be forged
// in any number, and would hide the others.
func (w *Wireless) elsewhere(ctx context.Context, name string, listen bool) (found bool, err error) {
	s, err := w.scanOnce(ctx, model.ScanRequest{Radio: name}, listen)
	if err != nil {
		return false, err
	}
	home, handed := w.homeMHz(name), map[string]bool{}
	for _, n := range s.Networks { // the strongest first
		at := fmt.Sprint(n.FreqMHz, n.S1G)
		if !n.Own || home == 0 || len(handed) == mostElsewhere || handed[at] || !w.isElsewhere(name, n, home) {
			continue
		}
		if handed[at] = true; len(handed) <= mostTold {
			w.tellOf(name, n)
		}
		if w.c.Found != nil {
			w.c.Found(name, n)
		}
	}
	return len(handed) > 0, nil
}

// isElsewhere tells whether a network is on another channel than a radio, which is on that
// frequency. Of HaLow, wide channels share it with narrow ones; a network on one that no
// S1G channel stands behind is nowhere.
func (w *Wireless) isElsewhere(name string, n model.RadioNetwork, home int) bool {
	if s, err := w.find(name); err == nil {
		if is, err := w.isHaLow(s.Wiphy); err == nil && is {
			return len(n.S1G) > 0 && !slices.Contains(n.S1G, w.profile().HaLowChannel)
		}
	}
	return n.FreqMHz != home
}

// tellOf makes an event of a channel, once in a while.
func (w *Wireless) tellOf(name string, n model.RadioNetwork) {
	if w.found.told == nil {
		w.found.told = map[int]time.Time{}
	}
	if at, ok := w.found.told[n.FreqMHz]; ok && time.Since(at) < tellElsewhere {
		return
	}
	w.found.told[n.FreqMHz] = time.Now()
	channel := strconv.Itoa(n.Channel)
	if len(n.S1G) > 0 {
		channel = fmt.Sprintf("S1G %d", n.S1G[0])
	}
	w.notify(EventElsewhere, model.Warning, fmt.Sprintf("radio %s has no peer here, and hears a mesh of this name on channel %s (%d MHz), which nobody proves", name, channel, n.FreqMHz),
		"radio", name, "channel", channel, "freq_mhz", strconv.Itoa(n.FreqMHz), "mac", n.BSSID)
}

// homeMHz is the channel that a radio is on; 0: it is on none.
func (w *Wireless) homeMHz(name string) int {
	s, err := w.find(name)
	if err != nil {
		return 0
	}
	conn, err := w.dial()
	if err != nil {
		return 0
	}
	defer conn.Close()
	ifaces, err := conn.InterfacesOf(s.Wiphy)
	if err != nil {
		return 0
	}
	for _, i := range ifaces {
		if i.Name == s.Iface {
			return i.Channel.FreqMHz
		}
	}
	return 0
}

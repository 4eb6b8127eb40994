// Package secure takes a station from "wanted" to "linked": it runs SAE and mesh
// peering of one interface together, so that who owns the radio only carries
// frames, keys and station states. Like both it has no sockets, clocks or
// goroutines.
//
//	Want ──▶ SAE ──▶ PMKSA ──▶ Open, Confirm ──▶ link
//	          ▲        └── kept: the next time begins here
//	          └── the peer knows no such PMKSA, or does not answer under it
package secure

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"halo.internal/mesh/peering"
	"halo.internal/mesh/sae"
	"halo.internal/model/dot11"
	"halo.internal/model/order"
)

// doubts is how many peerings may fail under a PMKSA until SAE is run again: the
// peer may have lost it.
const doubts = 2

// pauses between what frames that prove nothing, and closed links, set off.
const (
	againAfter   = 5 * time.Second // SAE, for an unknown key
	relinkAfter  = time.Second     // peering, after a link was closed
	maxAID       = 2007
	maxNeighbors = 256
)

// Event is one of either machine; one of the fields is set. Those of peering
// tell what to do with station and keys, those of SAE are for people.
type Event struct {
	SAE     *sae.Event
	Peering *peering.Event
}

// neighbor is a station that is wanted, or authenticated itself.
type neighbor struct {
	aid     uint16
	wanted  bool
	failed  int       // peerings in a row under the PMKSA
	pending bool      // SAE runs, asked for by us
	relink  time.Time // when the link is tried again; zero: not planned
	unknown sae.PMKID // that the peer speaks under and is not held
	heard   time.Time // when it was first heard
	asked   time.Time // when SAE was last begun for it
}

// Engine secures the links of one interface. It is not safe for concurrent use.
type Engine struct {
	sae       *sae.Engine
	peering   *peering.Engine
	neighbors map[dot11.MAC]*neighbor
	frames    []dot11.Frame
	events    []Event
}

// New returns an engine without peers. Both configurations must speak of the
// same station and mesh.
func New(s sae.Config, p peering.Config, now time.Time) (*Engine, error) {
	if s.Own != p.Own || !bytes.Equal(s.MeshID, p.MeshID) {
		return nil, fmt.Errorf("SAE is of %s in %q, peering of %s in %q", s.Own, s.MeshID, p.Own, p.MeshID)
	}
	x, err := sae.New(s, now)
	if err != nil {
		return nil, fmt.Errorf("SAE: %w", err)
	}
	y, err := peering.New(p, now)
	if err != nil {
		return nil, fmt.Errorf("peering: %w", err)
	}
	return &Engine{sae: x, peering: y, neighbors: map[dot11.MAC]*neighbor{}}, nil
}

// AID returns what this station calls a neighbor, 1 to 2007, and remembers it.
// The kernel wants to know before the first frame.
func (e *Engine) AID(mac dot11.MAC) (uint16, error) {
	n, err := e.neighbor(mac)
	if err != nil {
		return 0, err
	}
	return n.aid, nil
}

func (e *Engine) neighbor(mac dot11.MAC) (*neighbor, error) {
	if n := e.neighbors[mac]; n != nil {
		return n, nil
	}
	if len(e.neighbors) >= maxNeighbors {
		e.prune()
	}
	if len(e.neighbors) >= maxNeighbors {
		return nil, sae.ErrFull
	}
	taken := make([]bool, maxNeighbors+2)
	for _, n := range e.neighbors {
		taken[n.aid] = true
	}
	n := &neighbor{aid: 1}
	for taken[n.aid] {
		n.aid++
	}
	e.neighbors[mac] = n
	return n, nil
}

// prune forgets stations that have neither link nor PMKSA and are not wanted.
func (e *Engine) prune() {
	for mac, n := range e.neighbors {
		if x, y := e.State(mac); !n.wanted && x == sae.Nothing && y == peering.Listen {
			e.peering.Forget(mac)
			delete(e.neighbors, mac)
		}
	}
}

// Want makes a link with a station, and makes it again when it ends, until Drop
// is called. A PMKSA that is there is used first.
func (e *Engine) Want(now time.Time, mac dot11.MAC) error {
	n, err := e.neighbor(mac)
	if err != nil {
		return err
	}
	n.wanted = true
	defer e.collect(now)
	if err := e.link(now, mac, n); err != nil {
		n.wanted, n.pending = false, false
		return err
	}
	return nil
}

// link goes on from where a wanted neighbor stands.
func (e *Engine) link(now time.Time, mac dot11.MAC, n *neighbor) error {
	n.relink = time.Time{}
	if e.peering.State(mac) == peering.Estab {
		return nil
	}
	if _, ok := e.sae.Newest(mac); !ok || n.failed >= doubts {
		return e.authenticate(now, mac, n)
	}
	switch err := e.peering.Connect(now, mac); {
	case errors.Is(err, peering.ErrNoKey):
		return e.authenticate(now, mac, n)
	default:
		return err
	}
}

func (e *Engine) authenticate(now time.Time, mac dot11.MAC, n *neighbor) error {
	n.failed, n.pending = 0, true
	return e.sae.Start(now, mac)
}

// Drop closes the link with a station that is no longer wanted. Its PMKSA is
// kept for the next time.
func (e *Engine) Drop(now time.Time, mac dot11.MAC, reason dot11.Reason) {
	if n := e.neighbors[mac]; n != nil {
		n.wanted, n.pending, n.relink = false, false, time.Time{}
	}
	e.sae.Stop(mac)
	e.peering.Disconnect(now, mac, reason)
	e.collect(now)
}

// Forget removes all that is known of a station, its keys included, without a
// word to it.
func (e *Engine) Forget(mac dot11.MAC) {
	e.sae.Forget(mac)
	e.peering.Forget(mac)
	delete(e.neighbors, mac)
}

// Handle takes a management frame that the interface heard, header included.
func (e *Engine) Handle(now time.Time, frame []byte) {
	e.sae.Handle(now, frame)
	e.peering.Handle(now, frame)
	e.collect(now)
}

// Heard passes on that frames of a peer came under the keys of its link.
func (e *Engine) Heard(now time.Time, mac dot11.MAC) { e.peering.Heard(now, mac) }

// SetSequence passes on how far this station has come in sending to all.
func (e *Engine) SetSequence(rsc [8]byte, ipn [6]byte) { e.peering.SetSequence(rsc, ipn) }

// State returns where the link with a station stands.
func (e *Engine) State(mac dot11.MAC) (sae.State, peering.State) {
	return e.sae.State(mac), e.peering.State(mac)
}

// Links returns how many links stand.
func (e *Engine) Links() int { return e.peering.Links() }

// Stats returns the counters since New.
func (e *Engine) Stats() (sae.Stats, peering.Stats) { return e.sae.Stats(), e.peering.Stats() }

// Take returns what is to be sent and what happened since the last call. The
// events are to be acted on before the frames are sent.
func (e *Engine) Take() ([]dot11.Frame, []Event) {
	frames, events := e.frames, e.events
	e.frames, e.events = nil, nil
	return frames, events
}

// Next returns when Advance is due; zero: not before something else happens.
func (e *Engine) Next() time.Time {
	times := []time.Time{e.sae.Next(), e.peering.Next()}
	for _, n := range e.neighbors {
		times = append(times, n.relink)
	}
	times = slices.DeleteFunc(times, time.Time.IsZero)
	if len(times) == 0 {
		return time.Time{}
	}
	return slices.MinFunc(times, time.Time.Compare)
}

// Advance does what is due.
func (e *Engine) Advance(now time.Time) {
	e.sae.Advance(now)
	e.peering.Advance(now)
	macs := make([]dot11.MAC, 0, len(e.neighbors))
	for mac := range e.neighbors {
		macs = append(macs, mac)
	}
	order.By(macs, func(a, b dot11.MAC) int { return bytes.Compare(a[:], b[:]) })
	for _, mac := range macs {
		if n := e.neighbors[mac]; n.wanted && !n.relink.IsZero() && !now.Before(n.relink) {
			if e.link(now, mac, n) != nil {
				n.relink = now.Add(againAfter)
			}
		}
	}
	e.collect(now)
}

// Close wipes every secret, without a word to the peers.
func (e *Engine) Close() {
	e.sae.Close()
	e.peering.Close()
	clear(e.neighbors)
}

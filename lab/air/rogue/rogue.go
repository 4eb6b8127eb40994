// Package rogue is a stranger's radio: it takes part in the air as any other,
// listens, and attacks those it hears. It knows no secret of the network. What
// it forges is whole: scalars in range and points of the curve, so that a
// receiver has no cheap way to refuse them.
package rogue

import (
	"crypto/ecdh"
	"crypto/rand"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"halo.internal/lab/air"
	"halo.internal/lab/air/hwsim"
	"halo.internal/model/dot11"
)

// Attack is what a rogue does.
type Attack string

// Attacks.
const (
	// Commits sends SAE Commits to everybody that was heard, from addresses that
	// are made up and, each fourth, in the name of another that was heard.
	Commits Attack = "commits"
	// Beacons sends beacons of the mesh from ever new addresses and, each fourth,
	// in a member's name with other contents than its own.
	Beacons Attack = "beacons"
	// Opens, Confirms and Closes send these Mesh Peering frames in the name of one
	// member to another, under keys that are not the members'.
	Opens    Attack = "opens"
	Confirms Attack = "confirms"
	Closes   Attack = "closes"
	// Deauth sends Deauthentications and Disassociations in members' names to
	// each other and, each fourth, to all.
	Deauth Attack = "deauth"
	// Replay sends again what was heard, in the name of who sent it.
	Replay Attack = "replay"
	// All does each of these in turn.
	All Attack = "all"
	// ChannelSwitch sends beacons that announce a switch to another channel, from
	// made-up addresses and in members' names. The kernel obeys whoever says so in
	// a beacon of the mesh: members can come back, but not stay, which is why All
	// is without it.
	ChannelSwitch Attack = "channel-switch"
)

// each are the attacks of All, in its order.
var each = []Attack{Commits, Beacons, Opens, Confirms, Closes, Deauth, Replay}

// Attacks are all of them.
func Attacks() []Attack { return append(slices.Clone(each), All, ChannelSwitch) }

// Config of a rogue.
type Config struct {
	Attack    Attack
	PerSecond int // frames at most; the air may have room for fewer
}

// MaxPerSecond is more frames than a channel has room for.
const MaxPerSecond = 10000

// Check returns an error that names what is wrong.
func (c Config) Check() error {
	if !slices.Contains(Attacks(), c.Attack) {
		return fmt.Errorf("attack: expected one of %v, got %q", Attacks(), c.Attack)
	}
	if c.PerSecond < 1 || c.PerSecond > MaxPerSecond {
		return fmt.Errorf("frames per second: expected 1 to %d, got %d", MaxPerSecond, c.PerSecond)
	}
	return nil
}

// Status is what a rogue has done.
type Status struct {
	Attack    Attack `json:"attack"`
	PerSecond int    `json:"per_second"`
	Sent      int    `json:"sent"`
	Acked     int    `json:"acked" doc:"of them, those that somebody acknowledged"`
	Heard     int    `json:"heard"`
	Victims   int    `json:"victims" doc:"radios that it heard"`
}

// Bounds of what it remembers.
const (
	maxVictims = 64
	maxKept    = 256 // frames to be replayed
	maxLinks   = 256 // pairs whose peering was overheard
	points     = 32  // elements that Commits are made of, by turns
	underway   = 32  // frames that are not through yet
)

// catchUp is how late it may be and still send as much as it should: a busy host
// wakes it late.
const catchUp = 100 * time.Millisecond

// Rogue is the medium of the stranger's radio.
type Rogue struct {
	c       Config
	address net.HardwareAddr
	next    time.Time     // when a frame is due; for who calls Next
	free    chan struct{} // one for each frame that may be underway
	done    chan struct{}
	once    sync.Once

	mu       sync.Mutex // guards what follows
	status   Status
	freqMHz  int // that was heard last; 0: nobody was
	victims  []dot11.MAC
	members  []member // of the victims, those that beacon
	links    map[ends]overheard
	kept     [][]byte
	elements [][]byte
	turn     int
}

var _ air.Medium = (*Rogue)(nil)

// New makes a rogue with the driver address of its radio.
func New(c Config, address net.HardwareAddr) (*Rogue, error) {
	if err := c.Check(); err != nil {
		return nil, err
	}
	r := &Rogue{
		c: c, address: address, free: make(chan struct{}, underway), done: make(chan struct{}), status: Status{Attack: c.Attack, PerSecond: c.PerSecond},
		links: map[ends]overheard{},
	}
	for range underway {
		r.free <- struct{}{}
	}
	for range points {
		k, err := ecdh.P256().GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		r.elements = append(r.elements, k.PublicKey().Bytes()[1:])
	}
	return r, nil
}

// Status returns what it has done.
func (r *Rogue) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.status
	s.Victims = len(r.victims)
	return s
}

// Next returns the next frame of the attack.
func (r *Rogue) Next() (hwsim.Frame, error) {
	select {
	case <-r.done:
		return hwsim.Frame{}, net.ErrClosed
	case <-r.free:
	}
	for {
		select {
		case <-r.done:
			return hwsim.Frame{}, net.ErrClosed
		case <-time.After(time.Until(r.next)):
		}
		select {
		case <-r.done: // whichever of them was taken above, when all were ready
			return hwsim.Frame{}, net.ErrClosed
		default:
		}
		if late := time.Now().Add(-catchUp); r.next.Before(late) {
			r.next = late
		}
		r.next = r.next.Add(time.Second / time.Duration(r.c.PerSecond))
		if f, ok := r.frame(); ok {
			return f, nil
		}
	}
}

// frame makes the next one, once somebody was heard.
func (r *Rogue) frame() (hwsim.Frame, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	attack, n := r.c.Attack, r.turn
	if attack == All {
		attack, n = each[r.turn%len(each)], r.turn/len(each)
	}
	r.turn++
	data := r.forge(attack, n)
	if data == nil {
		return hwsim.Frame{}, false
	}
	r.status.Sent++
	slowest := int8(0)
	if r.freqMHz < 3000 { // behind those of 802.11b
		slowest = 4
	}
	return hwsim.Frame{
		Transmitter: r.address, Data: data, Flags: hwsim.WantStatus, FreqMHz: r.freqMHz,
		Plan: hwsim.Attempts{{Rate: slowest, Count: 1}, {Rate: -1}, {Rate: -1}, {Rate: -1}},
	}, true
}

// forge makes the n-th frame of an attack, nil while too little was heard for
// it; r.mu is held.
func (r *Rogue) forge(a Attack, n int) []byte {
	switch {
	case len(r.victims) == 0: // nor anything kept
	case a == Commits:
		return r.commit(n)
	case a == Replay:
		return r.kept[n%len(r.kept)]
	case len(r.members) == 0:
	case a == Beacons:
		return r.beacon(n)
	case a == ChannelSwitch:
		return r.announcement(n)
	case len(r.members) == 1: // who has nobody to be attacked in the name of
	case a == Deauth:
		return r.goodbye(n)
	default:
		return r.peering(actions[a], n)
	}
	return nil
}

// pair returns two of a list that has two at least: whom the n-th frame of an
// attack is to, and in whose name. All pairs have their turn.
func pair[T any](list []T, n int) (to, from T) {
	others := len(list) - 1
	i := n % len(list)
	return list[i], list[(i+1+n/len(list)%others)%len(list)]
}

// Deliver lets the rogue hear a frame.
func (r *Rogue) Deliver(_ net.HardwareAddr, data []byte, _, _, freqMHz int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status.Heard++
	if len(data) < dot11.HeaderSize {
		return nil // a control frame, which has no sender
	}
	r.freqMHz = freqMHz
	if len(r.kept) < maxKept {
		r.kept = append(r.kept, data)
	} else {
		r.kept[r.status.Heard%maxKept] = data
	}
	from := dot11.MAC(data[10:16])
	if from.Group() {
		return nil
	}
	if !slices.Contains(r.victims, from) && len(r.victims) < maxVictims {
		r.victims = append(r.victims, from)
	}
	r.learn(data)
	return nil
}

// Report tells what became of a frame.
func (r *Rogue) Report(_ hwsim.Frame, ack bool, _ int, _ hwsim.Attempts) error {
	r.mu.Lock()
	if ack {
		r.status.Acked++
	}
	r.mu.Unlock()
	select {
	case r.free <- struct{}{}:
	default:
	}
	return nil
}

// Close ends the attack.
func (r *Rogue) Close() error {
	r.once.Do(func() { close(r.done) })
	return nil
}

// Package rogue is a stranger's radio: it takes part in the air as any other,
// listens, and attacks those it hears. It knows no secret of the network. What
// it forges is whole: scalars in range and points of the curve, so that a
// receiver has no cheap way to refuse them.
package rogue

import (
	"crypto/ecdh"
	"crypto/rand"
	"encoding/binary"
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
	// Replay sends again what was heard, in the name of who sent it.
	Replay Attack = "replay"
)

// Attacks are all of them.
func Attacks() []Attack { return []Attack{Commits, Replay} }

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
	var data []byte
	switch {
	case r.c.Attack == Replay && len(r.kept) > 0:
		data = r.kept[r.turn%len(r.kept)]
	case r.c.Attack == Commits && len(r.victims) > 0:
		data = r.commit()
	default:
		return hwsim.Frame{}, false
	}
	r.turn++
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

// Values of a Commit (802.11-2020 9.4.1.1, 12.4.7.3).
const (
	algorithmSAE  = 3
	commit        = 1
	statusSuccess = 0   // hunting and pecking
	statusH2E     = 126 // hash to element
	group19       = 19
)

// commit makes a Commit to the victim whose turn it is; r.mu is held.
func (r *Rogue) commit() []byte {
	round := r.turn / 4
	victim := (r.turn + round) % len(r.victims) // so that the fourth is not always the same
	to := r.victims[victim]
	from := dot11.MAC{0x02, 0x66}
	rand.Read(from[2:])
	if others := len(r.victims) - 1; r.turn%4 == 0 && others > 0 {
		from = r.victims[(victim+1+round%others)%len(r.victims)]
	}
	status := uint16(statusH2E)
	if round%4 >= 2 {
		status = statusSuccess
	}
	scalar := make([]byte, 32)
	rand.Read(scalar)
	scalar[0] &= 0x7f // below the order of the curve
	b := dot11.AppendManagement(nil, dot11.Header{Subtype: dot11.Authentication, To: to, From: from})
	for _, v := range []uint16{algorithmSAE, commit, status, group19} {
		b = binary.LittleEndian.AppendUint16(b, v)
	}
	return slices.Concat(b, scalar, r.elements[r.turn%len(r.elements)])
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
	if from := dot11.MAC(data[10:16]); !from.Group() && len(r.victims) < maxVictims && !slices.Contains(r.victims, from) {
		r.victims = append(r.victims, from)
	}
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

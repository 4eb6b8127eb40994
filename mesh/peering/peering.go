// Package peering makes secured links between mesh stations that share a
// pairwise master key: Mesh Peering Management of IEEE Std 802.11-2020, 14.3 and
// 14.4, under the Authenticated Mesh Peering Exchange, 14.5. It is a state
// machine without sockets, clocks or goroutines: frames and the time go in,
// frames and events come out.
//
//	Open     my link ID, my nonce, my group keys: "be my peer"
//	Confirm  both link IDs, both nonces: "I am"
//	Close    both link IDs, a reason
//
// A link stands when both have sent both. Everything but the elements in front
// is encrypted and authenticated by AES-SIV under a key of the two stations; a
// frame that does not decrypt changes nothing.
//
// Where it goes beyond the standard:
//
//   - A new Open on a link that stands begins a second instance beside it, which
//     takes its place when the peer has confirmed the fresh nonce. A recorded
//     Open, or one sent again late, thus ends no link.
//   - Frames are matched to instances by nonces, which are authenticated even
//     where the driver rewrites elements; link IDs that do not fit them are
//     reported, never silently dropped.
//   - A failed attempt is repeated after a short, growing pause that is reported.
package peering

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"halo.internal/mesh/sae"
	"halo.internal/model/dot11"
)

// Timing holds the intervals; a zero field stands for its default.
type Timing struct {
	Retry    time.Duration // until an Open is repeated (dot11MeshRetryTimeout); doubles
	RetryMax time.Duration
	Retries  int           // how often (dot11MeshMaxRetries)
	Holding  time.Duration // how long a closed link is remembered (dot11MeshHoldingTimeout)
	Check    time.Duration // after which a link that stands is asked whether the peer has it too
	// Patience is for how many checks a link whose frames are heard is not asked, and for
	// how many more it stands without an answer: where the channel is slow, and may be full.
	Patience int
	Pause    time.Duration // before the next attempt after a failure; doubles
	PauseMax time.Duration
}

// Wifi and HaLow are the intervals for either kind of radio. The first repetition
// comes soon, the last after seconds: who gives up earlier than a busy peer
// answers, and begins anew, makes it busier.
var (
	Wifi = Timing{
		Retry: 40 * time.Millisecond, RetryMax: 640 * time.Millisecond, Retries: 7,
		Holding: 40 * time.Millisecond, Check: 30 * time.Second, Pause: time.Second, PauseMax: 10 * time.Second,
	}
	HaLow = Timing{
		Retry: time.Second, RetryMax: 4 * time.Second, Retries: 5,
		Holding: 400 * time.Millisecond, Check: time.Minute, Patience: 4, Pause: 4 * time.Second, PauseMax: time.Minute,
	}
)

// DefaultMaxPeers is how many links a station has at most where nothing else is
// said: about what the firmware of a radio holds.
const DefaultMaxPeers = 10

// Config says what this station is and offers.
type Config struct {
	Own           dot11.MAC
	MeshID        []byte // 1 to 32 octets
	Rates         []byte // body of the Supported Rates element, 1 to 8 octets
	ExtendedRates []byte // body of the Extended Supported Rates element; empty: none
	Trailing      []byte // whole elements (HT, VHT ...) that Open and Confirm end with
	Forwarding    bool   // mac80211 forwards by itself; off under batman-adv
	MFP           MFP
	Morse         bool // the driver is Morse Micro's: it rewrites elements, so that AMPE authenticates only the first 6 octets
	MaxPeers      int  // links at most; 0: DefaultMaxPeers
	// Admit tells whether a station that asks for a link may have one, when this
	// side did not ask for it; nil: all may. It is called by Handle.
	Admit  func(dot11.MAC) bool
	Group  GroupKeys
	Timing Timing    // zero: Wifi
	Rand   io.Reader // nil: crypto/rand
}

// Path selection HWMP, metric airtime, no congestion control, synchronization by
// neighbour offset, authentication SAE (9.4.2.97).
var configuration = []byte{1, 1, 0, 1, 1}

// MeshConfiguration returns the body of the Mesh Configuration element, for
// Open, Confirm and the beacon.
func MeshConfiguration(peers int, accepting, forwarding bool) []byte {
	b := append(bytes.Clone(configuration), byte(min(peers, 63)<<1), 0)
	if accepting {
		b[6] |= 1
	}
	if forwarding {
		b[6] |= 1 << 3
	}
	return b
}

// EventKind tells what happened with a peer.
type EventKind int

// Kinds of events.
const (
	Changed     EventKind = iota + 1 // another State, From and To
	Established                      // the link stands; Keys are to be installed
	Closed                           // the link that stood is over
	Failed                           // no link came of it
	Mismatch                         // an authentic frame of another instance, dropped
	Unverified                       // a frame that does not decrypt, dropped
	UnknownKey                       // a frame under a PMKID that is not held: authenticate anew
)

// Event is a transition of one peer.
type Event struct {
	Kind  EventKind
	Peer  dot11.MAC
	PMKID sae.PMKID

	From, To State        // Changed
	Again    bool         // Established in place of a link that stood: the peer began anew
	AID      uint16       // Established: what the peer calls us
	Keys     *Keys        // Established: the receiver's, who wipes them
	Elements []byte       // Established: those of the peer's Open, up to the MIC
	ByPeer   bool         // Closed, Failed: the peer sent a Close
	Reason   dot11.Reason // Closed, Failed

	Err      error         // Failed, Mismatch, Unverified: what is wrong
	Failures int           // Failed: how many in a row
	Retry    time.Duration // Failed: until the next attempt; 0: none is planned
}

// Keys are what a link is encrypted with.
type Keys struct {
	MTK       Key       // unicast, key index 0
	Peer      GroupKeys // what the peer sends to all
	Protected bool      // management frames are
}

// Wipe overwrites the keys.
func (k *Keys) Wipe() { *k = Keys{} }

// Errors of calls.
var (
	ErrNoKey  = errors.New("no pairwise master key is held for the peer")
	ErrLinked = errors.New("the link stands")
	ErrFull   = fmt.Errorf("the keys of %d stations are held", maxKnown)
)

// Stats counts what was dropped.
type Stats struct {
	Malformed  uint64
	Unverified uint64 // did not decrypt
	UnknownKey uint64
	Replayed   uint64 // authentic, and had been there
	Mismatched uint64
}

// Engine keeps the links of one interface. It is not safe for concurrent use:
// the goroutine that owns the interface calls it.
type Engine struct {
	c      Config
	peers  map[dot11.MAC]*peer
	frames []dot11.Frame
	events []Event
	stats  Stats
	noise  budget // events that strangers may cause
	riddle budget // those of unknown keys among them
}

// New returns an engine without peers.
func New(c Config, now time.Time) (*Engine, error) {
	switch {
	case len(c.MeshID) == 0 || len(c.MeshID) > 32:
		return nil, fmt.Errorf("mesh ID: expected 1 to 32 octets, got %d", len(c.MeshID))
	case len(c.Rates) == 0 || len(c.Rates) > 8:
		return nil, fmt.Errorf("rates: expected 1 to 8, got %d", len(c.Rates))
	case c.Morse && c.MFP == MFPOptional:
		return nil, errors.New("management frame protection: Morse's driver knows the sizes of required and off only")
	case c.Group.MGTK == Key{}:
		return nil, errors.New("group keys: the MGTK is zero")
	case c.MFP != MFPOff && c.Group.IGTK == Key{}:
		return nil, errors.New("group keys: the IGTK is zero")
	}
	c.Group.HasIGTK = c.MFP != MFPOff
	if c.MaxPeers == 0 {
		c.MaxPeers = DefaultMaxPeers
	}
	if c.Timing == (Timing{}) {
		c.Timing = Wifi
	}
	if c.Rand == nil {
		c.Rand = rand.Reader
	}
	return &Engine{c: c, peers: map[dot11.MAC]*peer{}, noise: budget{rate: 1, burst: 10, have: 10, at: now}, riddle: budget{rate: 2, burst: 10, have: 10, at: now}}, nil
}

// NewGroupKeys draws the group keys of a join.
func NewGroupKeys(random io.Reader) (g GroupKeys, err error) {
	for _, k := range []*Key{&g.MGTK, &g.IGTK} {
		if _, err := io.ReadFull(random, k[:]); err != nil {
			return GroupKeys{}, fmt.Errorf("group keys: %w", err)
		}
	}
	return g, nil
}

// SetSequence tells how far this station has come in sending to all: what new
// peers are told, so that they take no older frame for new.
func (e *Engine) SetSequence(rsc [8]byte, ipn [6]byte) { e.c.Group.RSC, e.c.Group.IPN = rsc, ipn }

// Take returns what is to be sent and what happened since the last call, each
// in order. Keys of events come before the frames that let the peer use them.
func (e *Engine) Take() ([]dot11.Frame, []Event) {
	frames, events := e.frames, e.events
	e.frames, e.events = nil, nil
	return frames, events
}

// Stats returns the counters since New.
func (e *Engine) Stats() Stats { return e.stats }

// Links returns how many links stand.
func (e *Engine) Links() (n int) {
	for _, p := range e.peers {
		if p.link != nil && p.link.state == Estab {
			n++
		}
	}
	return n
}

// admit tells why a peer can have no link: nil if it can. Links that are being
// made count as soon as the peer has taken part.
func (e *Engine) admit(p *peer) error {
	n := 0
	for _, other := range e.peers {
		if other != p && other.link != nil && (other.link.state == Estab || other.link.heard) {
			n++
		}
	}
	switch {
	case n >= e.c.MaxPeers:
		return fmt.Errorf("%d links stand or are being made", n)
	case !p.wanted && e.c.Admit != nil && !e.c.Admit(p.mac):
		return fmt.Errorf("%d links stand that are worth more", e.Links())
	}
	return nil
}

// Close wipes every secret, without a word to the peers. The engine is of no
// use afterwards.
func (e *Engine) Close() {
	for mac := range e.peers {
		e.Forget(mac)
	}
	e.c.Group.wipe()
}

// tell reports what anybody may cause by a frame, within a budget; the counters
// have it all.
func (e *Engine) tell(now time.Time, ev Event) {
	if e.noise.take(now) {
		e.events = append(e.events, ev)
	}
}

// budget is a token bucket.
type budget struct {
	rate, burst, have float64
	at                time.Time
}

func (b *budget) take(now time.Time) bool {
	if d := now.Sub(b.at); d > 0 {
		b.have = min(b.burst, b.have+d.Seconds()*b.rate)
		b.at = now
	}
	if b.have < 1 {
		return false
	}
	b.have--
	return true
}

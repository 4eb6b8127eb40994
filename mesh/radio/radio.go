// Package radio makes one radio a member of a secured 802.11s mesh: it owns the
// mesh interface, lets mesh/secure authenticate and peer with the stations that
// it hears, and carries out in the kernel what that decides. It is what would
// need wpa_supplicant otherwise.
//
//	nl80211 events, frames ─▶ Radio ─▶ secure.Engine
//	stations, keys, frames ◀─       ◀─ frames, events
//
// One goroutine owns all of it. When halo-mesh dies, the interface, its stations
// and its keys stay as they are, so that links carry on; the next start makes
// the interface anew, and its peers see a member that has begun anew.
package radio

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"halo.internal/drivers/nl80211"
	"halo.internal/mesh/peering"
	"halo.internal/mesh/sae"
	"halo.internal/mesh/secure"
	"halo.internal/model"
	"halo.internal/model/dot11"
)

// Kinds of events.
const (
	EventJoined      = "mesh.radio.joined"      // fields iface, channel
	EventPeer        = "mesh.radio.peer"        // fields iface, mac: a link stands
	EventPeerAgain   = "mesh.radio.peer-again"  // fields iface, mac: a peer has begun anew
	EventPeerLost    = "mesh.radio.peer-lost"   // fields iface, mac, reason
	EventPeerRefused = "mesh.radio.peer-failed" // fields iface, mac, reason: no link came about
	EventMoved       = "mesh.radio.moved"       // fields iface, channel: somebody had it leave its channel for that one
)

// Indices of keys: the group's is not sent by AMPE, and 1 by custom; 4 is the
// first of management frames (9.4.2.54).
const (
	pairwiseKey   = 0
	groupKey      = 1
	managementKey = 4
)

// mtu leaves room for what batman-adv puts before a frame of 1500 octets.
const mtu = 1560

// Config says what the radio is to be a member of, and how.
type Config struct {
	Wiphy int    // index of the radio
	Iface string // name of the interface, which is made anew
	// Address says how the interface is to be called, whose driver gives it that
	// address; nil: as the driver does.
	Address        func(net.HardwareAddr) net.HardwareAddr
	MeshID         string // 1 to 32 octets
	Password       string // of all members
	Method         sae.Method
	MFP            peering.MFP
	Channel        nl80211.Channel
	BeaconInterval int            // in time units of 1024 µs; 0: 1000
	MaxPeers       int            // links at most, one of which is kept free for changes; at least 2; 0: peering.DefaultMaxPeers
	Morse          bool           // peers are radios of Morse's: associated data of AMPE is as their stacks have it
	MaxPowerMBm    int            // most that the radio may send with, at its connector; 0: what the kernel lets it
	ReceiveBuffer  int            // octets of events that the kernel keeps; 0: nl80211.DefaultReceiveBuffer
	SAE            sae.Timing     // zero: sae.Wifi
	Peering        peering.Timing // zero: peering.Wifi

	// Links tells which links other stations are known to have, as routing shows,
	// so that the choice of peers keeps the mesh in one piece; nil: none is known.
	Links func() map[dot11.MAC][]dot11.MAC
	// Strange gets what somebody around says past the mesh, by the interface of that
	// name: nobody has proved who that is. It must not block; nil: nothing is
	// listened to.
	Strange func(iface string, from dot11.MAC, payload []byte)
	// Notify gets what happens; boot, number and time are the receiver's to set. It
	// must not block.
	Notify func(model.Event)
	Log    *slog.Logger
}

// Peer is a station with a link, or on its way to one.
type Peer struct {
	MAC       dot11.MAC
	SAE       sae.State
	Peering   peering.State
	Since     time.Time // when the link was made; zero while there is none
	SignalDBm float64   // smoothed
	Inactive  time.Duration
	Failures  int           // in a row
	Reason    string        // of the last failure
	Full      bool          // it has peers enough, as it said a moment ago
	RetryIn   time.Duration // until it is sought again at the earliest; 0: it may be at any time
}

// Dropped counts the frames of authentication and peering that came to nothing.
type Dropped struct {
	SAE        sae.Stats
	Peering    peering.Stats
	CrowdedOut uint64 // frames and beacons that came faster than they were worked on
}

// View is what says whether a radio works.
type View struct {
	Looked  time.Time // when it last looked at its stations; zero before it is a member
	Heard   int       // members that were heard of late, without a link
	Reports Reports
}

// Radio is a member of the mesh. Run makes it work; the other methods may be
// called from any goroutine.
type Radio struct {
	c   Config
	sys machine

	conn    kernel
	events  listener
	wiphy   nl80211.Wiphy
	iface   nl80211.Interface
	own     dot11.MAC
	engine  *secure.Engine
	group   peering.GroupKeys
	heard   map[dot11.MAC]*station
	fresh   time.Time       // when the engine was told of the group keys' counters
	due     time.Time       // of the next housekeeping
	chosen  time.Time       // when peers were chosen last
	again   bool            // something has happened upon which to choose anew
	over    time.Time       // when a link beyond the limit is given up; zero: there is none
	home    nl80211.Channel // the mesh's, as the kernel tells it
	waiting queue           // events that were not worked on yet
	moved   time.Time       // when a forged switch of channels was last made an event of

	awaited map[uint64]time.Time // frames, by cookie, of which the driver has to say that they were sent
	reports Reports
	seek    chan struct{} // awake when peers are to be sought anew
	say     chan []byte   // frames to be sent past the mesh

	mu      sync.Mutex // guards what follows
	peers   []Peer
	dropped Dropped
	view    View
	up      bool
	left    bool // nobody waits for Run any more
}

// New returns a radio that does nothing yet.
func New(c Config) *Radio {
	return &Radio{c: c.withDefaults(), sys: linux(), seek: make(chan struct{}, 1), say: make(chan []byte, maxSaid)}
}

func (c Config) withDefaults() Config {
	if c.BeaconInterval == 0 {
		c.BeaconInterval = 1000
	}
	if c.MaxPeers == 0 {
		c.MaxPeers = peering.DefaultMaxPeers
	}
	if c.SAE == (sae.Timing{}) {
		c.SAE = sae.Wifi
	}
	if c.Peering == (peering.Timing{}) {
		c.Peering = peering.Wifi
	}
	return c
}

// Ready returns nil while the radio is a member of its mesh.
func (r *Radio) Ready() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.up {
		return fmt.Errorf("%s has not joined its mesh", r.c.Iface)
	}
	return nil
}

// Peers returns the stations with a link or on their way to one, by address, as
// of a moment ago.
func (r *Radio) Peers() []Peer {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Peer(nil), r.peers...)
}

// Dropped returns the counters since the radio joined, as of a moment ago.
func (r *Radio) Dropped() Dropped {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dropped
}

// View returns what says whether the radio works, as of a moment ago.
func (r *Radio) View() View {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.view
}

// Run joins the mesh, calls joined, if any, and serves its peers until ctx ends,
// which leaves the mesh with a word to them. Other ends are errors: the radio is gone (unix.ENODEV),
// its driver lacks something (*nl80211.UnsupportedError), the kernel refused.
func (r *Radio) Run(ctx context.Context, joined func() error) (err error) {
	r.heard, r.awaited, r.waiting = map[dot11.MAC]*station{}, map[uint64]time.Time{}, queue{}
	if err := r.dial(); err != nil {
		return err
	}
	defer r.conn.Close()
	if err := r.makeInterface(); err != nil {
		return err
	}
	defer func() {
		if ctx.Err() != nil { // otherwise it may be gone, or its state be worth a look
			err = errors.Join(err, r.conn.DeleteInterface(r.iface.Index))
		}
	}()
	if r.events, err = r.sys.listen(r.c.ReceiveBuffer, nl80211.GroupConfig, nl80211.GroupMLME); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.events.Close()) }()
	if err := r.events.Only(r.iface.Index); err != nil {
		return err
	}
	if err := r.listen(ctx); err != nil {
		return err
	}
	if err := r.join(); err != nil {
		return err
	}
	defer r.engine.Close()
	if joined != nil && !r.isLeft() {
		if err := joined(); err != nil {
			return err
		}
	}
	if r.isLeft() {
		return ErrHangs
	}
	r.setUp(true)
	defer r.setUp(false)
	r.notify(EventJoined, model.Info, fmt.Sprintf("%s is a member of the mesh on %s", r.c.Iface, r.c.Channel), "channel", r.c.Channel.String())
	return r.serve(ctx)
}

// dial opens the connection by which this radio asks the kernel.
func (r *Radio) dial() error {
	conn, err := r.sys.dial()
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conn = conn; r.left {
		conn.Abandon()
	}
	return nil
}

// abandon is for a Run that hangs in the kernel, and that nobody waits for any more.
// Whenever it comes back it asks the kernel for nothing, and tells nobody of anything:
// the radio may be another's, and its interface too.
func (r *Radio) abandon() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.left = true; r.conn != nil {
		r.conn.Abandon()
	}
}

func (r *Radio) isLeft() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.left
}

// makeInterface makes the mesh interface in place of one of that name, and of those
// that this radio was left with, and brings it up, without which it cannot join.
func (r *Radio) makeInterface() error {
	var err error
	if r.wiphy, err = r.conn.Wiphy(r.c.Wiphy); err != nil {
		return err
	}
	if err := r.wiphy.Check(nl80211.SecureMesh()...); err != nil {
		return err
	}
	mine, err := r.conn.InterfacesOf(r.c.Wiphy)
	if err != nil {
		return err
	}
	for _, i := range mine {
		if i.Type != nl80211.MeshPoint || !Ours(i.Name) && i.Name != r.c.Iface {
			continue
		}
		if err := r.conn.DeleteInterface(i.Index); err != nil {
			return err
		}
	}
	// Another radio's may have the name, from before this process. Not all radios are asked
	// for theirs: one that hangs would not answer.
	switch other, err := r.sys.index(r.c.Iface); {
	case err != nil:
		return err
	case other != 0:
		if err := r.conn.DeleteInterface(other); err != nil {
			return err
		}
	}
	if r.iface, err = r.conn.NewInterface(r.c.Wiphy, r.c.Iface, nl80211.MeshPoint, nil); err != nil {
		return err
	}
	if r.isLeft() {
		return ErrHangs
	}
	if err := r.sys.raise(r); err != nil {
		return err
	}
	if r.iface, err = r.conn.Interface(r.iface.Index); err != nil { // some drivers have an address only now
		return err
	}
	if len(r.iface.MAC) != len(r.own) {
		return fmt.Errorf("radio: %s: expected an address of %d octets, got %q", r.c.Iface, len(r.own), r.iface.MAC)
	}
	r.own = dot11.MAC(r.iface.MAC)
	// On a mesh, a radio that sleeps loses frames; drivers may come up with it on.
	if err := r.conn.SetPowerSave(r.iface.Index, false); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	return r.limitPower()
}

// limitPower has the radio send with no more than it may. The kernel bounds a
// driver that cannot be told by what it holds for legal itself; of HaLow it knows
// nothing, and that driver has the bound among its parameters.
func (r *Radio) limitPower() error {
	if r.c.MaxPowerMBm == 0 {
		return nil
	}
	err := r.conn.SetTxPower(r.iface.Index, r.c.MaxPowerMBm)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) {
		r.c.Log.Debug("the driver does not take a bound of power", "iface", r.c.Iface, "err", err)
		return nil
	}
	return err
}

// listen registers for the frames of authentication and peering, before there
// can be any.
func (r *Radio) listen(ctx context.Context) error {
	if r.c.Strange != nil {
		if err := r.events.RegisterFrame(ctx, r.iface.Index, nl80211.FrameAction, strange); err != nil {
			return err
		}
	}
	for _, f := range []struct {
		frame uint16
		match []byte
	}{
		{nl80211.FrameAuthentication, nil},
		{nl80211.FrameAction, []byte{15, 1}}, // Self-protected: Open
		{nl80211.FrameAction, []byte{15, 2}}, // Confirm
		{nl80211.FrameAction, []byte{15, 3}}, // Close
	} {
		if err := r.events.RegisterFrame(ctx, r.iface.Index, f.frame, f.match); err != nil {
			return err
		}
	}
	return nil
}

// join draws the group keys and becomes a member.
func (r *Radio) join() error {
	var err error
	if r.group, err = peering.NewGroupKeys(rand.Reader); err != nil {
		return fmt.Errorf("radio: %w", err)
	}
	// The kernel and the engine have copies from here on.
	defer func() { r.group = peering.GroupKeys{} }()
	if err := r.installOwnKeys(); err != nil {
		return err
	}
	band, err := r.band()
	if err != nil {
		return err
	}
	now := time.Now()
	id := []byte(r.c.MeshID)
	rates, extended := rateElements(band)
	r.engine, err = secure.New(
		sae.Config{Own: r.own, MeshID: id, Password: []byte(r.c.Password), Method: r.c.Method, Timing: r.c.SAE},
		peering.Config{
			Own: r.own, MeshID: id, Rates: rates, ExtendedRates: extended, Trailing: highThroughput(band, r.c.Channel),
			MFP: r.c.MFP, Morse: r.c.Morse, MaxPeers: r.c.MaxPeers, Admit: r.admit, Group: r.group, Timing: r.c.Peering,
		}, now)
	if err != nil {
		return fmt.Errorf("radio: %w", err)
	}
	err = r.conn.JoinMesh(r.iface.Index, nl80211.MeshSetup{
		ID: id, Channel: r.c.Channel, BasicRates: mandatory(band), BeaconInterval: r.c.BeaconInterval,
		IEs: dot11.AppendElement(nil, dot11.RSN, peering.RSN(r.c.MFP)), AuthProtocol: nl80211.AuthSAE,
		UserspaceAuth: true, UserspaceAMPE: true, UserspaceMPM: true,
		Parameters: nl80211.MeshParameters{
			AutoOpenPlinks: new(false),
			// batman-adv forwards, to neighbours alone: the kernel need not look for
			// paths to them, which costs airtime and fails now and then. Without
			// protection of management frames, one that does look for them (as
			// wpa_supplicant's) does not take the answer, which is not encrypted, and
			// knows the path by our own question alone, which is.
			Forwarding: new(false), NoLearn: new(r.c.MFP == peering.MFPRequired),
			MaxPeerLinks: new(anyNumber), PlinkTimeout: new(plinkTimeout),
		},
	})
	if err == nil {
		var i nl80211.Interface
		i, err = r.conn.Interface(r.iface.Index)
		r.home = i.Channel
	}
	if err != nil {
		r.engine.Close()
	}
	return err
}

// anyNumber of links is what the kernel is told to have room for: only of members
// that have does it tell others, and a full one must go on hearing of whom it
// might need. How many there are is this package's affair.
const anyNumber uint16 = 255

// plinkTimeout is after what silence the kernel removes a station by itself,
// long after this package has given it up.
const plinkTimeout = 5 * time.Minute

func (r *Radio) setUp(up bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.up, r.view = up, View{}
	if up {
		r.view.Looked = time.Now()
	} else {
		r.peers, r.dropped = nil, Dropped{}
	}
}

func (r *Radio) notify(kind string, s model.Severity, message string, fields ...string) {
	if r.isLeft() {
		return
	}
	notify(r.c.Notify, kind, s, message, append(fields, "iface", r.c.Iface)...)
}

// Package air is what is between simulated radios: it takes each frame from the
// driver of mac80211_hwsim and decides, by positions, power and what was set,
// who hears it, how strongly, after how many tries and how long it takes. What
// decides is in package physics; who has which place may change at any time.
//
// All radios of a channel share it as if each heard all others before it sends:
// there are no collisions and no hidden nodes.
package air

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"halo.internal/lab/air/physics"
	"halo.internal/model/pcap"
)

// Radio is a radio and its place.
type Radio struct {
	Name    string
	Machine string // as in Attach
	// Address is that by which the driver knows the radio (hwsim.Address). Those of
	// its interfaces need no mention: the permanent one, and locally administered
	// ones made of it as drivers make them, which differ in the first octet.
	Address  net.HardwareAddr
	Position physics.Position
	PowerDBm float64 // EIRP
	FigureDB float64 // noise figure of its receiver
}

// made is the bits of the first octet by which addresses of one radio differ: that
// of the driver's, the local one, and two to count by.
const made = 0x40 | 0x0e

func (r Radio) has(mac []byte) bool {
	return mac[0]&^made == r.Address[0]&^made && bytes.Equal(r.Address[1:], mac[1:])
}

// Counters of one direction between two radios.
type Counters struct {
	Frames   int           // that were meant for, or could have been heard by, the other
	Heard    int           // of them
	Airtime  time.Duration // of those that were meant for it
	SignalDB float64       // dBm, of the last
	SNR      float64       // dB, of the last
	rate     physics.Rate  // of the last that was meant for it

	// What a Disorder did to management frames: copies, and frames that came after
	// one that had been sent later.
	Again, Overtaken int
}

// Jammer is noise on a channel: of a transmitter at a place, or, without one,
// wherever somebody listens. It keeps nobody from sending.
type Jammer struct {
	FreqMHz  int               `json:"freq_mhz,omitzero"` // 0 is every channel
	RaiseDB  float64           `json:"raise_db,omitzero"` // of the noise of all receivers, without a place
	At       *physics.Position `json:"at,omitempty"`
	PowerDBm float64           `json:"power_dbm,omitzero"` // EIRP, at that place
}

// pair names a direction.
type pair struct{ from, to string }

// Air is the medium. Its methods may be called from any goroutine.
type Air struct {
	profile Profile
	terrain physics.Terrain
	frames  chan sent

	mu       sync.Mutex // guards what follows
	dice     *rand.Rand
	radios   []Radio
	mediums  map[string]Medium // by machine
	cut      map[pair]bool
	loss     map[pair]float64
	extra    map[pair]float64 // dB
	disorder map[pair]Disorder
	newest   map[pair]int   // order of the last management frame that came
	groups   map[string]int // of a partition, by radio; nil when there is none
	jam      map[int]Jammer // by MHz
	counters map[pair]Counters
	senders  map[string]*sender // by radio
	capture  *pcap.Writer
	observer func(from string, frame []byte, airtime time.Duration)
}

// New returns a medium without radios. The same seed gives the same losses for
// the same frames.
func New(p Profile, t physics.Terrain, seed uint64) *Air {
	return &Air{
		profile: p, terrain: t, frames: make(chan sent, 256), dice: rand.New(rand.NewPCG(seed, 0)), mediums: map[string]Medium{},
		cut: map[pair]bool{}, loss: map[pair]float64{}, extra: map[pair]float64{}, disorder: map[pair]Disorder{}, newest: map[pair]int{}, jam: map[int]Jammer{}, counters: map[pair]Counters{}, senders: map[string]*sender{},
	}
}

// Place adds a radio, or gives the one of that name other properties.
func (a *Air) Place(r Radio) error {
	if len(r.Address) != 6 {
		return fmt.Errorf("air: radio %s: expected an address of 6 octets, got %d", r.Name, len(r.Address))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if i := slices.IndexFunc(a.radios, func(o Radio) bool { return o.Name == r.Name }); i >= 0 {
		a.radios[i] = r
		return nil
	}
	a.radios = append(a.radios, r)
	return nil
}

// Remove takes a radio away: nobody hears it any more.
func (a *Air) Remove(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.radios = slices.DeleteFunc(a.radios, func(r Radio) bool { return r.Name == name })
}

// Move gives a radio another place.
func (a *Air) Move(name string, to physics.Position) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range a.radios {
		if a.radios[i].Name == name {
			a.radios[i].Position = to
			return nil
		}
	}
	return fmt.Errorf("air: no radio %s", name)
}

// Cut ends, or restores, what goes from one radio to another. The other
// direction is another cut.
func (a *Air) Cut(from, to string, cut bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.cut[pair{from, to}] = cut
}

// SetLoss lets this share of the attempts from one radio to another be lost
// besides, 0 to 1.
func (a *Air) SetLoss(from, to string, share float64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.loss[pair{from, to}] = share
}

// SetObstacle weakens what goes from one radio to another, in dB.
func (a *Air) SetObstacle(from, to string, dB float64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.extra[pair{from, to}] = dB
}

// Restore ends all cuts.
func (a *Air) Restore() {
	a.mu.Lock()
	defer a.mu.Unlock()
	clear(a.cut)
}

// Partition cuts groups of radios off from each other, and from the radios that
// are in none, which are a group together. It takes the place of an earlier
// partition, and leaves cuts as they are.
func (a *Air) Partition(groups ...[]string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.groups = map[string]int{}
	for i, g := range groups {
		for _, name := range g {
			a.groups[name] = i + 1
		}
	}
}

// Heal ends a partition.
func (a *Air) Heal() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.groups = nil
}

// isCut tells whether nothing of one radio reaches another.
func (a *Air) isCut(from, to string) bool {
	return a.cut[pair{from, to}] || a.groups[from] != a.groups[to]
}

// Jam adds noise to a channel; each has one jammer at most.
func (a *Air) Jam(j Jammer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.jam[j.FreqMHz] = j
}

// Quiet takes the jammer of a channel away, or with 0 all.
func (a *Air) Quiet(freqMHz int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if freqMHz == 0 {
		clear(a.jam)
	}
	delete(a.jam, freqMHz)
}

// Counters returns what went from each radio to each other, by "from to".
func (a *Air) Counters() map[string]Counters {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := map[string]Counters{}
	for p, c := range maps.All(a.counters) {
		all[p.from+" "+p.to] = c
	}
	return all
}

// Package overlay keeps wg0, the encrypted network over the mesh: WireGuard in
// the kernel, or in this process where the kernel lacks it. The endpoints are
// underlay addresses that follow from keys, so that it needs no DHCP and no
// discovery of its own; a peer that has restarted, or whose clock went back, is
// removed and added anew, since WireGuard refuses handshakes from the past.
package overlay

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"halo.internal/model"
	"halo.internal/model/order"
)

// overhead is what WireGuard adds to a packet over IPv6: 40 octets of IPv6, 8
// of UDP, 16 of header and 16 of authentication.
const overhead = 80

// Metric is that of routes into the overlay: lower than that of those upstream.
const Metric = 512

// minMTU is IPv6's.
const minMTU = 1280

// Config says how the interface is to be.
type Config struct {
	Name        string // wg0
	Key         [32]byte
	Port        uint16
	UnderlayMTU int            // of bat0
	Addresses   []netip.Prefix // this node's, with the length of the whole overlay
	Routes      []netip.Prefix // networks that are reached through it
	Inner       []string       // other interfaces from which its addresses may be reached
	// Userspace has WireGuard run in this process where the kernel has it too: for tests
	// of that, which have to do so on every host.
	Userspace bool
	Log       *slog.Logger

	kind string // of link to ask the kernel for; empty: WireGuard's. Tests ask for one that no kernel has
}

// MTU returns the overlay's for an underlay's.
func MTU(underlay int) int { return max(underlay-overhead, minMTU) }

// Incarnation orders the lives of a peer: its boot counter, and how often its
// clock went back since.
type Incarnation struct {
	Boot  uint64 `json:"boot"`
	Steps uint32 `json:"steps"`
}

// After tells whether i is a later life than j.
func (i Incarnation) After(j Incarnation) bool {
	return i.Boot > j.Boot || i.Boot == j.Boot && i.Steps > j.Steps
}

// Peer is one other end.
type Peer struct {
	Node        string // canonical ID
	Key         [32]byte
	Next        [32]byte       // the key that it will have; zero: none is known. It may use it from now on
	Endpoint    netip.AddrPort // the zero value: where its own handshakes come from
	Allowed     []netip.Prefix
	Keepalive   time.Duration // 0 for none
	Incarnation Incarnation
}

func (p Peer) equal(q Peer) bool {
	return p.Key == q.Key && p.Endpoint == q.Endpoint && p.Keepalive == q.Keepalive &&
		p.Incarnation == q.Incarnation && slices.Equal(p.Allowed, q.Allowed)
}

// backend is a WireGuard implementation that holds one interface.
type backend interface {
	configure(wgtypes.Config) error
	peers() ([]wgtypes.Peer, error)
	shakes() ([]shake, error)
	close() error
}

// shake is when hands were last shaken with a peer.
type shake struct {
	key [32]byte
	at  time.Time
}

func shakesOf(peers []wgtypes.Peer) (list []shake) {
	for _, p := range peers {
		if !p.LastHandshakeTime.IsZero() && p.LastHandshakeTime.Unix() != 0 {
			list = append(list, shake{p.PublicKey, p.LastHandshakeTime.UTC()})
		}
	}
	return list
}

// Device is the overlay's interface. Its methods may be called from any
// goroutine.
type Device struct {
	cfg     Config
	backend backend
	kernel  bool
	index   int // of the interface: another one of its name is not this device's

	// changing is held while WireGuard's peers are changed: hundreds of new ones take the
	// kernel seconds, in which Status has to answer.
	changing sync.Mutex

	mu    sync.Mutex // guards what follows; not held while WireGuard is asked for anything
	want  []Peer
	peers map[[32]byte]Peer // as WireGuard has them: one for each key; while they change, as they are to be
	moved map[[32]byte]bool // next keys that are in use already
	// unsure are keys of which it is not known how WireGuard has them, or whether: what an
	// earlier process left in the kernel, and what a change that failed was about. They are
	// set or removed with the next change; true: removed in any case, since that was due.
	// Else a peer that is still wanted keeps its session.
	unsure   map[[32]byte]bool
	guarded  time.Time // when Guard looked last
	guardErr error     // and what it found
}

// ErrLost is wrapped when the interface has gone from the kernel.
var ErrLost = errors.New("the overlay's interface is gone")

// guardEvery is how often Guard asks the kernel.
const guardEvery = 10 * time.Second

// Open makes the interface, or adopts the kernel's that an earlier process
// left, gives it its addresses, and brings it up.
func Open(cfg Config) (*Device, error) {
	b, kernel, err := openBackend(cfg)
	if err != nil {
		return nil, err
	}
	d := &Device{cfg: cfg, backend: b, kernel: kernel, peers: map[[32]byte]Peer{}, moved: map[[32]byte]bool{}, unsure: map[[32]byte]bool{}}
	key, port := wgtypes.Key(cfg.Key), int(cfg.Port)
	if err := b.configure(wgtypes.Config{PrivateKey: &key, ListenPort: &port}); err != nil {
		return nil, errors.Join(fmt.Errorf("overlay: configure %s: %w", cfg.Name, err), b.close())
	}
	// The fence stands before there is anything behind it.
	if err := errors.Join(fence(cfg.Name, cfg.Port, cfg.Inner, cfg.Addresses), d.address(), d.route()); err != nil {
		return nil, errors.Join(err, b.close())
	}
	live, err := b.peers()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("overlay: read %s: %w", cfg.Name, err), b.close())
	}
	for _, p := range live {
		d.unsure[p.PublicKey] = false
	}
	return d, nil
}

// Kernel tells whether the kernel does the work.
func (d *Device) Kernel() bool { return d.kernel }

// Close ends the overlay of this process. The kernel's interface stays, so that
// traffic flows on while halo-mesh restarts.
func (d *Device) Close() error { return d.backend.close() }

// SetPeers makes the peers exactly those. One whose incarnation has risen, or
// changed in any way, starts afresh.
func (d *Device) SetPeers(peers []Peer) error {
	d.changing.Lock()
	defer d.changing.Unlock()
	d.mu.Lock()
	d.want = peers
	d.mu.Unlock()
	return d.apply()
}

// apply makes WireGuard's peers those that are wanted. d.changing is held.
func (d *Device) apply() error {
	// Two steps: a peer that is removed and added in one would be a matter of
	// the implementation's order.
	remove, add := d.plan()
	for _, step := range [][]wgtypes.PeerConfig{remove, add} {
		if len(step) == 0 {
			continue
		}
		if err := d.backend.configure(wgtypes.Config{Peers: step}); err != nil {
			d.doubt(remove, add)
			return fmt.Errorf("overlay: set %d peers: %w", len(step), err)
		}
	}
	d.mu.Lock()
	clear(d.unsure)
	d.mu.Unlock()
	return nil
}

// doubt takes down what a change was about that failed, at whatever peer of it: all of it
// is due again. Without that a revoked peer would stay whose removal failed once.
func (d *Device) doubt(remove, add []wgtypes.PeerConfig) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range remove {
		d.unsure[p.PublicKey] = true
	}
	for _, p := range add {
		if _, is := d.unsure[p.PublicKey]; !is {
			d.unsure[p.PublicKey] = false
		}
	}
}

// plan takes the peers that are wanted for those that WireGuard has, and returns what
// makes it so.
func (d *Device) plan() (remove, add []wgtypes.PeerConfig) {
	d.mu.Lock()
	defer d.mu.Unlock()
	peers := d.expand(d.want)
	want := make(map[[32]byte]Peer, len(peers))
	for _, p := range peers {
		want[p.Key] = p
		old, known := d.peers[p.Key]
		due, unsure := d.unsure[p.Key]
		if known && old.equal(p) && !unsure {
			continue
		}
		if due || known && old.Incarnation != p.Incarnation {
			remove = append(remove, wgtypes.PeerConfig{PublicKey: p.Key, Remove: true})
		}
		add = append(add, p.config())
	}
	for key := range d.peers {
		if _, ok := want[key]; !ok {
			remove = append(remove, wgtypes.PeerConfig{PublicKey: key, Remove: true})
		}
	}
	for key := range d.unsure {
		_, wanted := want[key]
		if _, known := d.peers[key]; !wanted && !known {
			remove = append(remove, wgtypes.PeerConfig{PublicKey: key, Remove: true})
		}
	}
	d.peers = want
	return remove, add
}

func (p Peer) config() wgtypes.PeerConfig {
	c := wgtypes.PeerConfig{
		PublicKey: p.Key, ReplaceAllowedIPs: true, PersistentKeepaliveInterval: &p.Keepalive,
	}
	if p.Endpoint.IsValid() {
		c.Endpoint = net.UDPAddrFromAddrPort(p.Endpoint)
	}
	for _, a := range p.Allowed {
		a = a.Masked()
		c.AllowedIPs = append(c.AllowedIPs, net.IPNet{IP: a.Addr().AsSlice(), Mask: net.CIDRMask(a.Bits(), a.Addr().BitLen())})
	}
	return c
}

// Status returns the peers as WireGuard sees them, ordered by node.
func (d *Device) Status() ([]model.OverlayPeer, error) {
	live, err := d.backend.peers()
	if err != nil {
		return nil, fmt.Errorf("overlay: read %s: %w", d.cfg.Name, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	out := []model.OverlayPeer{}
	for _, l := range live {
		p := model.OverlayPeer{
			Node: d.peers[l.PublicKey].Node, PublicKey: l.PublicKey.String(),
			RxBytes: l.ReceiveBytes, TxBytes: l.TransmitBytes, Addresses: []string{},
		}
		if l.Endpoint != nil {
			p.Endpoint = l.Endpoint.String()
		}
		if !l.LastHandshakeTime.IsZero() && l.LastHandshakeTime.Unix() != 0 {
			t := l.LastHandshakeTime.UTC()
			p.LastHandshake = &t
		}
		for _, a := range l.AllowedIPs {
			p.Addresses = append(p.Addresses, a.String())
		}
		slices.Sort(p.Addresses)
		out = append(out, p)
	}
	order.By(out, func(a, b model.OverlayPeer) int {
		return cmp.Or(strings.Compare(a.Node, b.Node), strings.Compare(a.PublicKey, b.PublicKey))
	})
	return out, nil
}

// Handshakes returns with whom hands were shaken and when, and nothing else of these
// peers: it costs a tenth of Status, and is asked every other second.
func (d *Device) Handshakes() ([]model.OverlayPeer, error) {
	list, err := d.backend.shakes()
	if err != nil {
		return nil, fmt.Errorf("overlay: handshakes of %s: %w", d.cfg.Name, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]model.OverlayPeer, 0, len(list))
	for i, s := range list {
		out = append(out, model.OverlayPeer{Node: d.peers[s.key].Node, LastHandshake: &list[i].at})
	}
	return out, nil
}

package mesh

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mdlayher/packet"

	"halo.internal/mesh/iface"
	"halo.internal/mesh/port"
	"halo.internal/mesh/rejoin"
	"halo.internal/model/bundle"
	"halo.internal/model/dot11"
	"halo.internal/model/paths"
)

// Stranger is who was heard past the mesh: an address on an interface, which proves
// nothing.
type Stranger struct {
	Iface string
	MAC   dot11.MAC
}

// What a switch of the profile begins anew.
const (
	partAll    = "all" // bat0, ports and radios
	partRadios = "radios"
)

func (u *batUnderlay) profile() bundle.Mesh {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.mesh
}

// pace is that of the profile in force.
func (u *batUnderlay) pace() pace { return paceOf(u.profile()) }

// switchable returns a context that ends with ctx or when a switch concerns the
// part.
func (u *batUnderlay) switchable(ctx context.Context, part string) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	u.mu.Lock()
	u.again[part] = cancel
	u.mu.Unlock()
	return ctx, cancel
}

// Switch begins ports anew only where the secret is another: their members prove
// themselves within a second or two, and until then nothing passes.
func (u *batUnderlay) Switch(m bundle.Mesh) {
	u.mu.Lock()
	old := u.mesh
	u.mesh = m
	part := partRadios
	if old.PSK != m.PSK || old.Routing != m.Routing {
		part = partAll
	}
	again, bat := u.again[part], u.bat
	u.mu.Unlock()
	u.wireless.Change(m)
	wake(u.paced)
	was, is := old.WithDefaults(), m.WithDefaults()
	if was.HopPenalty != is.HopPenalty && bat != nil {
		if err := bat.SetHopPenalty(m.Penalty()); err != nil {
			u.Log.Warn("the hop penalty is not changed", "err", err)
		}
		was.HopPenalty = is.HopPenalty // nothing has to begin anew
	}
	if again != nil && was != is {
		again()
	}
}

// Permit is asked by the gateway before others are, and by each node.
func (u *batUnderlay) Permit(m bundle.Mesh) error { return u.wireless.Permit(m) }

func (u *batUnderlay) runRadios(ctx context.Context) {
	for ctx.Err() == nil {
		inner, done := u.switchable(ctx, partRadios)
		u.wireless.Run(inner)
		done()
	}
}

// Recheck is for after a revocation.
func (u *batUnderlay) Recheck() {
	u.mu.Lock()
	ports := u.ports
	u.mu.Unlock()
	if ports != nil {
		ports.Recheck()
	}
}

// overheard hands on what a radio heard past the mesh.
func (u *batUnderlay) overheard(iface string, from dot11.MAC, payload []byte) {
	if u.Strange != nil {
		u.Strange(Stranger{iface, from}, payload)
	}
}

// Say sends to all ports and radios that may carry the mesh, or by the one where
// somebody was heard.
func (u *batUnderlay) Say(to Stranger, payload []byte) {
	mac := to.MAC
	if to == (Stranger{}) {
		mac = dot11.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for name, w := range u.wires {
		if to.Iface == "" || to.Iface == name {
			w.say(mac, payload)
		}
	}
	if u.wires[to.Iface] == nil {
		u.wireless.Say(to.Iface, mac, payload)
	}
}

// lookOutside is how often it is looked which ports there are.
const lookOutside = time.Second

// heardOn returns the sockets by which strangers are heard, by port.
func (u *batUnderlay) heardOn() map[string]*outside {
	u.mu.Lock()
	defer u.mu.Unlock()
	return maps.Clone(u.wires)
}

// listenOutside hears strangers on all ports that may carry the mesh.
func (u *batUnderlay) listenOutside(ctx context.Context) {
	var owned sync.WaitGroup
	defer owned.Wait()
	defer func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		for name, w := range u.wires {
			w.close()
			delete(u.wires, name)
		}
	}()
	t := time.NewTicker(lookOutside)
	defer t.Stop()
	for {
		wanted := map[string]bool{}
		for _, p := range u.Ports() {
			wanted[p.Iface] = p.Role == port.Mesh || p.Role == port.Searching
		}
		for name, w := range u.heardOn() {
			if wanted[name] && w.alive() {
				delete(wanted, name)
				continue
			}
			u.mu.Lock()
			delete(u.wires, name)
			u.mu.Unlock()
			w.close()
		}
		for name, is := range wanted {
			if !is {
				continue
			}
			w, err := listenOutside(name) // without the lock: the kernel may hang
			if err != nil {
				u.Log.Debug("strangers are not heard on this port yet", "iface", name, "err", err)
				continue
			}
			u.mu.Lock()
			u.wires[name] = w
			u.mu.Unlock()
			owned.Go(func() {
				w.read(func(from dot11.MAC, payload []byte) { u.overheard(name, from, payload) })
			})
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// outside is a socket for what goes past the mesh on a port.
type outside struct {
	iface *net.Interface
	conn  *packet.Conn
	ended atomic.Bool // nothing is read any more: the port was down or went away
}

const ethernetHeader = 14

// maxHeard bounds how many frames a second of a port are looked at. That is far above what
// members say: what is in no member's name costs a look into a table, and the signatures
// that are verified have bounds of their own (package rejoin), so that a bound near those
// would only have junk take the place of what is genuine.
const maxHeard = 4096

func listenOutside(name string) (*outside, error) {
	iface, err := net.InterfaceByName(name)
	if err != nil {
		return nil, err
	}
	if len(iface.HardwareAddr) != 6 {
		return nil, fmt.Errorf("port %s: expected a MAC address of 6 octets, got %d", name, len(iface.HardwareAddr))
	}
	conn, err := packet.Listen(iface, packet.Raw, paths.EtherTypeRejoin, nil)
	if err != nil {
		return nil, fmt.Errorf("listen on port %s: %w", name, err)
	}
	return &outside{iface: iface, conn: conn}, nil
}

// alive tells whether the port of that name is still the one under the socket.
func (o *outside) alive() bool {
	return iface.Iface{Name: o.iface.Name, Index: o.iface.Index}.Check() == nil && !o.ended.Load()
}

func (o *outside) close() { _ = o.conn.Close() } // there is nothing to flush

func (o *outside) read(hear func(from dot11.MAC, payload []byte)) {
	buf := make([]byte, ethernetHeader+rejoin.MaxFrame+1) // one octet more, to see what is too long
	window, left := time.Now(), maxHeard
	for {
		n, _, err := o.conn.ReadFrom(buf)
		if err != nil {
			o.ended.Store(true) // it is opened anew when there is a port
			return
		}
		if time.Since(window) >= time.Second {
			window, left = time.Now(), maxHeard
		}
		if left--; left < 0 || n < ethernetHeader {
			continue
		}
		if from := dot11.MAC(buf[6:12]); !from.Group() && string(buf[6:12]) != string(o.iface.HardwareAddr) {
			hear(from, append([]byte(nil), buf[ethernetHeader:n]...))
		}
	}
}

func (o *outside) say(to dot11.MAC, payload []byte) {
	b := append(append([]byte{}, to[:]...), o.iface.HardwareAddr...)
	b = binary.BigEndian.AppendUint16(b, paths.EtherTypeRejoin)
	_, _ = o.conn.WriteTo(append(b, payload...), &packet.Addr{HardwareAddr: to[:]}) // it is said again
}

package mesh

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"halo.internal/mesh/api"
	"halo.internal/mesh/batman"
	"halo.internal/mesh/port/filter"
	"halo.internal/mesh/radio"
	"halo.internal/mesh/wireless"
	"halo.internal/model"
	"halo.internal/model/dot11"
)

// carrier puts radios into bat0. An interface that is removed leaves it by
// itself.
type carrier struct{ u *batUnderlay }

// Enslave makes the interface carry the mesh, and nothing else: what members
// send beside batman-adv's frames, past bat0 and the overlay, is dropped, and the
// kernel says nothing of its own there.
func (c carrier) Enslave(iface string) error {
	c.u.mu.Lock()
	bat, held := c.u.bat, c.u.held
	c.u.mu.Unlock()
	if bat == nil {
		return errors.New("the mesh interface is not there")
	}
	return held.put(iface, func() error { return c.enslave(bat, iface) })
}

func (c carrier) enslave(bat *batman.Mesh, iface string) error {
	if err := filter.Apply(iface, filter.Policy{Batman: true}); err != nil {
		return err
	}
	err := os.WriteFile(filepath.Join("/proc/sys/net/ipv6/conf", iface, "disable_ipv6"), []byte("1"), 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // a kernel without IPv6 has none to set
		return fmt.Errorf("IPv6 of radio %s: %w", iface, err)
	}
	if err := bat.Enslave(iface); err != nil {
		return err
	}
	if mesh := c.u.profile(); mesh.Routing == batman.V && mesh.ELPInterval() > 0 {
		every := mesh.ELPInterval()
		return bat.SetPort(iface, batman.Port{ELPInterval: every})
	}
	return nil
}

// linksAge is for how long what routing has said is not asked for again: radios
// ask at each newcomer.
const linksAge = 4 * time.Second

// linksOfOthers returns what routing knows of the links between other members;
// the choice of peers rests on it.
func (u *batUnderlay) linksOfOthers() map[dot11.MAC][]dot11.MAC {
	now := time.Now()
	u.mu.Lock()
	bat, links, known := u.bat, u.links, now.Sub(u.asked) <= linksAge
	u.mu.Unlock()
	if bat == nil {
		return nil
	}
	if known {
		return links
	}
	links = nil
	if ways, err := bat.Originators(); err == nil { // without them, none are known
		links = batman.Links(ways)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.asked, u.links = now, links
	return links
}

func (u *batUnderlay) Standing() []model.Radio { return u.wireless.Standing() }

func (u *batUnderlay) Radios() []model.Radio {
	list := u.wireless.List()
	gateway := u.gatewayAddress()
	for _, r := range list {
		for i := range r.Peers {
			if r.Peers[i].MAC == gateway {
				r.Peers[i].Node = u.Network.ID()
			}
		}
	}
	return list
}

// gatewayWay is what routing knows of the gateway.
type gatewayWay struct {
	asked time.Time            // when routing said so
	at    string               // address by which routing knows it; empty: it does not
	hop   *model.ReportNextHop // absent: no way is in use
}

// gatewayAddress returns the address by which routing knows the gateway, or
// nothing. It is that of one of its ports or radios.
func (u *batUnderlay) gatewayAddress() string { return u.toGateway().at }

// NextHop returns the neighbour by which routing reaches the gateway, or nil. Nobody is
// asked: Meet, which is called all the time, finds it out as well.
func (u *batUnderlay) NextHop() *model.ReportNextHop {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.gateway.hop
}

// toGateway asks routing where the gateway is: it is known by what the address of its
// bat0, which follows from its key, is said to be behind. Whoever makes a status asks
// several times, and both tables may be long: for a moment, what was answered counts.
func (u *batUnderlay) toGateway() gatewayWay {
	u.mu.Lock()
	bat, known := u.bat, u.gateway
	u.mu.Unlock()
	if bat == nil || u.Key.Public() == u.Network {
		return gatewayWay{}
	}
	if time.Since(known.asked) <= linksAge {
		return known
	}
	clients, err := bat.Clients()
	if err != nil {
		return gatewayWay{} // peers stay addresses
	}
	ways, err := bat.Originators()
	if err != nil {
		return gatewayWay{}
	}
	return u.noteGateway(bat, clients, ways)
}

// noteGateway keeps what routing's tables say of the gateway.
func (u *batUnderlay) noteGateway(bat *batman.Mesh, clients []batman.Client, ways []batman.Originator) gatewayWay {
	var own []net.HardwareAddr
	for turn := range uint8(batman.Turns) {
		own = append(own, batman.MAC(u.Network, turn))
	}
	_, ports := u.open()
	known := gatewayWay{asked: time.Now(), at: behind(clients, ways, own)}
	known.hop = hopTo(known.at, u.Network.ID(), ways, func(iface string, mac net.HardwareAddr) (string, bool) {
		if ports == nil {
			return "", false
		}
		return ports.Member(iface, mac)
	})
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.bat == bat {
		u.gateway = known
	}
	return known
}

// hopTo returns the way in use to a node that routing knows by an address, or nil.
// member tells who has proven to have an address on a port.
func hopTo(at, node string, ways []batman.Originator, member func(iface string, mac net.HardwareAddr) (string, bool)) *model.ReportNextHop {
	for _, w := range ways {
		if at == "" || !w.Best || w.MAC.String() != at || len(w.NextHop) != len(dot11.MAC{}) {
			continue
		}
		hop := &model.ReportNextHop{Node: node, Next: dot11.MAC(w.NextHop), Iface: w.Iface, TQ: int(w.TQ), Kbps: int(1000 * w.Throughput)}
		if id, proven := member(w.Iface, w.NextHop); proven {
			hop.NextNode = id
		} else if w.NextHop.String() == at {
			hop.NextNode = node
		}
		return hop
	}
	return nil
}

// behind returns the originator that a client is behind who has one of those
// addresses. Of several, which it had at earlier starts, the one that was heard
// last counts.
func behind(clients []batman.Client, ways []batman.Originator, at []net.HardwareAddr) string {
	found, heard := "", time.Duration(math.MaxInt64)
	for _, c := range clients {
		if !c.Best || !slices.ContainsFunc(at, func(a net.HardwareAddr) bool { return bytes.Equal(a, c.MAC) }) {
			continue
		}
		for _, w := range ways {
			if bytes.Equal(w.MAC, c.Originator) && w.LastSeen < heard {
				found, heard = c.Originator.String(), w.LastSeen
			}
		}
	}
	return found
}

func (u *batUnderlay) Scan(ctx context.Context, q model.ScanRequest) (model.RadioScan, error) {
	s, err := u.wireless.Scan(ctx, q)
	return s, ofRadio(err)
}

func (u *batUnderlay) Channels() ([]model.RadioChannels, error) { return u.wireless.Channels() }

func (u *batUnderlay) Legal() ([]model.Legality, error) { return u.wireless.Legal() }

func (u *batUnderlay) Capture(ctx context.Context, q model.CaptureRequest, w io.Writer) error {
	return ofRadio(u.wireless.Capture(ctx, q, w))
}

// ofRadio gives the errors of radios the kinds that the API knows.
func ofRadio(err error) error {
	for from, to := range map[error]error{wireless.ErrNoRadio: api.ErrNone, wireless.ErrInvalid: api.ErrInvalid, radio.ErrBusy: api.ErrBusy} {
		if errors.Is(err, from) {
			return ofKind{err, to}
		}
	}
	return err
}

// ofKind is an error that is of another kind too, but keeps its words.
type ofKind struct {
	error
	kind error
}

// Unwrap returns both.
func (e ofKind) Unwrap() []error { return []error{e.error, e.kind} }

// Scan asks the underlay, as do the three below.
func (m *core) Scan(ctx context.Context, q model.ScanRequest) (model.RadioScan, error) {
	return m.under.Scan(ctx, q)
}

// Channels lists the channels of all radios.
func (m *core) Channels() ([]model.RadioChannels, error) {
	if err := m.answers(); err != nil {
		return nil, err
	}
	return m.under.Channels()
}

// Legal tells what the law lets the radios do.
func (m *core) Legal() ([]model.Legality, error) {
	if err := m.answers(); err != nil {
		return nil, err
	}
	return m.under.Legal()
}

// Capture writes a pcap of what a radio hears and sends.
func (m *core) Capture(ctx context.Context, q model.CaptureRequest, w io.Writer) error {
	return m.under.Capture(ctx, q, w)
}

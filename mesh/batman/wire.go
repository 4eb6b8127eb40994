package batman

import (
	"fmt"
	"math"
	"net"
	"time"

	mnl "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Numbers of the kernel's interface (uapi/linux/batman_adv.h).
const (
	linkKind   = "batadv"
	familyName = "batadv"

	iflaAlgorithm = 1 // IFLA_BATADV_ALGO_NAME

	cmdGetMesh        = 1
	cmdGetPort        = 5 // GET_HARDIF
	cmdGetOwnClients  = 6 // GET_TRANSTABLE_LOCAL
	cmdGetClients     = 7 // GET_TRANSTABLE_GLOBAL
	cmdGetOriginators = 8
	cmdGetNeighbours  = 9
	cmdGetGateways    = 10
	cmdSetMesh        = 15
	cmdSetPort        = 16 // SET_HARDIF

	attrVersion       = 1
	attrAlgorithm     = 2
	attrMeshIfindex   = 3
	attrMeshAddress   = 5
	attrHardIfindex   = 6
	attrHardIfname    = 7
	attrOrigAddress   = 9
	attrClientAddress = 16 // TT_ADDRESS
	attrBest          = 22
	attrLastSeen      = 23
	attrNeighAddress  = 24
	attrTQ            = 25
	attrThroughput    = 26
	attrBandwidthUp   = 27
	attrBandwidthDown = 28
	attrRouter        = 29
	attrBLA           = 46
	attrDAT           = 47
	attrGatewayMode   = 51
	attrHopPenalty    = 53
	attrForceFlood    = 55
	attrOGMInterval   = 57
	attrELPInterval   = 58
	attrOverride      = 59 // THROUGHPUT_OVERRIDE
)

// Info is what the kernel says of the mesh interface.
type Info struct {
	Version     string // of batman-adv
	Algorithm   string
	MAC         net.HardwareAddr
	BLA         bool // bridge-loop avoidance
	DAT         bool // distributed ARP table
	ForceFlood  bool // multicast goes to all, as broadcast does
	GatewayMode GatewayMode
	HopPenalty  uint8 // of 255, for each hop
	OGMInterval time.Duration
}

// GatewayMode says what a node is to batman-adv's choice of a way out: which
// server of DHCP a client's broadcast reaches.
type GatewayMode uint8

// Modes of the kernel (enum batadv_gw_modes).
const (
	GatewayOff    GatewayMode = iota // takes no part in it
	GatewayClient                    // uses one
	GatewayServer                    // is one
)

// String names the mode as batctl does.
func (m GatewayMode) String() string {
	if m > GatewayServer {
		return fmt.Sprintf("mode %d", uint8(m))
	}
	return [...]string{"off", "client", "server"}[m]
}

// Port is how batman-adv treats one interface that carries the mesh.
type Port struct {
	HopPenalty  uint8         // of 255, besides the mesh's
	ELPInterval time.Duration // BATMAN_V: how often it looks for neighbours; 0 leaves the kernel's, half a second
	Throughput  float64       // BATMAN_V: Mbit/s that a link on it is worth, in steps of 0.1; 0: what its driver tells, or measurement
}

// Originator is one way to a node of the mesh; the best of them is in use.
type Originator struct {
	MAC        net.HardwareAddr // the node, by its first port's address
	NextHop    net.HardwareAddr
	Iface      string // port towards the next hop
	LastSeen   time.Duration
	Best       bool
	TQ         uint8   // BATMAN_IV: transmit quality, 255 is perfect
	Throughput float64 // BATMAN_V: Mbit/s
}

// Neighbour is a node heard directly on a port.
type Neighbour struct {
	MAC        net.HardwareAddr
	Iface      string
	LastSeen   time.Duration
	TQ         uint8
	Throughput float64
}

// Client is an address behind a node of the mesh, such as that of its bat0: the
// node says so, and nothing proves it.
type Client struct {
	MAC        net.HardwareAddr
	Originator net.HardwareAddr // the node, by its first port's address
	Best       bool             // of several nodes that say so, the one that frames go to
}

// Gateway is a node that offers a way out of the mesh.
type Gateway struct {
	MAC        net.HardwareAddr
	NextHop    net.HardwareAddr
	Iface      string
	Best       bool    // the one in use, on a node whose mode is client
	TQ         uint8   // BATMAN_IV
	Throughput float64 // BATMAN_V: Mbit/s to the gateway
	DownMbit   float64 // what it says of its way out
	UpMbit     float64
}

func linkAttributes(c Config) []*nl.RtAttr {
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(unix.IFLA_INFO_KIND, nl.NonZeroTerminated(linkKind))
	info.AddRtAttr(unix.IFLA_INFO_DATA, nil).AddRtAttr(iflaAlgorithm, nl.ZeroTerminated(c.Algorithm))
	return []*nl.RtAttr{
		nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(c.Name)),
		nl.NewRtAttr(unix.IFLA_ADDRESS, c.MAC),
		info,
	}
}

// encode makes a SET_MESH request. Where nothing is bridged, bridge-loop avoidance
// is off: it is on by default and swallows all broadcast, address resolution too,
// for the first half minute. Multicast goes to all: the kernel would else send a
// group's frames to those alone of whom it has heard that they listen, which
// devices behind routers and without reports of their own are not.
func (c Config) encode(index int) ([]byte, error) {
	e := mnl.NewAttributeEncoder()
	e.Uint32(attrMeshIfindex, uint32(index))
	e.Uint8(attrBLA, bit(c.Bridged))
	e.Uint8(attrDAT, 1)
	e.Uint8(attrForceFlood, 1)
	e.Uint32(attrOGMInterval, uint32(c.ogmInterval().Milliseconds()))
	if c.HopPenalty > 0 {
		e.Uint8(attrHopPenalty, c.HopPenalty)
	}
	e.Uint8(attrGatewayMode, uint8(c.Gateway))
	return e.Encode()
}

// encodeFlood makes a SET_MESH request that changes nothing else.
func encodeFlood(index int) ([]byte, error) {
	e := mnl.NewAttributeEncoder()
	e.Uint32(attrMeshIfindex, uint32(index))
	e.Uint8(attrForceFlood, 1)
	return e.Encode()
}

// encodeOGMInterval makes a SET_MESH request of the interval alone.
func encodeOGMInterval(index int, every time.Duration) ([]byte, error) {
	e := mnl.NewAttributeEncoder()
	e.Uint32(attrMeshIfindex, uint32(index))
	e.Uint32(attrOGMInterval, uint32(every.Milliseconds()))
	return e.Encode()
}

// encodeGateway makes a SET_MESH request of the gateway mode alone.
func encodeGateway(index int, mode GatewayMode) ([]byte, error) {
	e := mnl.NewAttributeEncoder()
	e.Uint32(attrMeshIfindex, uint32(index))
	e.Uint8(attrGatewayMode, uint8(mode))
	return e.Encode()
}

// encodeHopPenalty makes a SET_MESH request of the penalty alone.
func encodeHopPenalty(index int, penalty uint8) ([]byte, error) {
	e := mnl.NewAttributeEncoder()
	e.Uint32(attrMeshIfindex, uint32(index))
	e.Uint8(attrHopPenalty, penalty)
	return e.Encode()
}

// encode makes a SET_HARDIF request.
func (p Port) encode(mesh, index int) ([]byte, error) {
	e := mnl.NewAttributeEncoder()
	e.Uint32(attrMeshIfindex, uint32(mesh))
	e.Uint32(attrHardIfindex, uint32(index))
	e.Uint8(attrHopPenalty, p.HopPenalty)
	if p.ELPInterval > 0 {
		e.Uint32(attrELPInterval, uint32(p.ELPInterval.Milliseconds()))
	}
	e.Uint32(attrOverride, steps(p.Throughput))
	return e.Encode()
}

func bit(b bool) uint8 {
	if b {
		return 1
	}
	return 0
}

// steps converts to the kernel's unit of 100 kbit/s.
func steps(mbit float64) uint32 {
	return uint32(math.Round(min(max(mbit, 0), math.MaxUint32/10) * 10))
}

func encodeMesh(index int) ([]byte, error) {
	e := mnl.NewAttributeEncoder()
	e.Uint32(attrMeshIfindex, uint32(index))
	return e.Encode()
}

// attributes walks one message. Every kernel may add attributes, so an unknown
// one is passed over; a known one of the wrong size is an error.
func attributes(b []byte, f func(d *mnl.AttributeDecoder)) error {
	d, err := mnl.NewAttributeDecoder(b)
	if err != nil {
		return fmt.Errorf("batman: attributes: %w", err)
	}
	for d.Next() {
		f(d)
	}
	if err := d.Err(); err != nil {
		return fmt.Errorf("batman: attributes: %w", err)
	}
	return nil
}

// mac stores an address through the decoder, whose error it sets on a wrong
// length.
func mac(to *net.HardwareAddr) func([]byte) error {
	return func(b []byte) error {
		if len(b) != 6 {
			return fmt.Errorf("MAC address: expected 6 octets, got %d", len(b))
		}
		*to = append(net.HardwareAddr(nil), b...)
		return nil
	}
}

func milliseconds(v uint32) time.Duration { return time.Duration(v) * time.Millisecond }

// kbit converts from kbit/s to Mbit/s: the kernel's tables of originators and
// neighbours are in that, all else in 100 kbit/s.
func kbit(v uint32) float64 { return float64(v) / 1000 }

// mbit converts from the kernel's unit of 100 kbit/s.
func mbit(v uint32) float64 { return float64(v) / 10 }

func parseInfo(b []byte) (i Info, err error) {
	err = attributes(b, func(d *mnl.AttributeDecoder) {
		switch d.Type() {
		case attrVersion:
			i.Version = d.String()
		case attrAlgorithm:
			i.Algorithm = d.String()
		case attrMeshAddress:
			d.Do(mac(&i.MAC))
		case attrBLA:
			i.BLA = d.Uint8() != 0
		case attrDAT:
			i.DAT = d.Uint8() != 0
		case attrForceFlood:
			i.ForceFlood = d.Uint8() != 0
		case attrGatewayMode:
			i.GatewayMode = GatewayMode(d.Uint8())
		case attrHopPenalty:
			i.HopPenalty = d.Uint8()
		case attrOGMInterval:
			i.OGMInterval = milliseconds(d.Uint32())
		}
	})
	return i, err
}

func parsePort(b []byte) (p Port, index int, err error) {
	err = attributes(b, func(d *mnl.AttributeDecoder) {
		switch d.Type() {
		case attrHardIfindex:
			index = int(d.Uint32())
		case attrHopPenalty:
			p.HopPenalty = d.Uint8()
		case attrELPInterval:
			p.ELPInterval = milliseconds(d.Uint32())
		case attrOverride:
			p.Throughput = mbit(d.Uint32())
		}
	})
	return p, index, err
}

func parseOriginator(b []byte) (o Originator, index int, err error) {
	err = attributes(b, func(d *mnl.AttributeDecoder) {
		switch d.Type() {
		case attrOrigAddress:
			d.Do(mac(&o.MAC))
		case attrNeighAddress:
			d.Do(mac(&o.NextHop))
		case attrHardIfindex:
			index = int(d.Uint32())
		case attrHardIfname:
			o.Iface = d.String()
		case attrLastSeen:
			o.LastSeen = milliseconds(d.Uint32())
		case attrBest:
			o.Best = true
		case attrTQ:
			o.TQ = d.Uint8()
		case attrThroughput:
			o.Throughput = kbit(d.Uint32())
		}
	})
	return o, index, err
}

func parseNeighbour(b []byte) (n Neighbour, index int, err error) {
	err = attributes(b, func(d *mnl.AttributeDecoder) {
		switch d.Type() {
		case attrNeighAddress:
			d.Do(mac(&n.MAC))
		case attrHardIfindex:
			index = int(d.Uint32())
		case attrHardIfname:
			n.Iface = d.String()
		case attrLastSeen:
			n.LastSeen = milliseconds(d.Uint32())
		case attrThroughput:
			n.Throughput = kbit(d.Uint32())
		}
	})
	return n, index, err
}

func parseClient(b []byte) (c Client, err error) {
	err = attributes(b, func(d *mnl.AttributeDecoder) {
		switch d.Type() {
		case attrClientAddress:
			d.Do(mac(&c.MAC))
		case attrOrigAddress:
			d.Do(mac(&c.Originator))
		case attrBest:
			c.Best = true
		}
	})
	return c, err
}

func parseGateway(b []byte) (g Gateway, err error) {
	err = attributes(b, func(d *mnl.AttributeDecoder) {
		switch d.Type() {
		case attrOrigAddress:
			d.Do(mac(&g.MAC))
		case attrRouter:
			d.Do(mac(&g.NextHop))
		case attrHardIfname:
			g.Iface = d.String()
		case attrBest:
			g.Best = true
		case attrTQ:
			g.TQ = d.Uint8()
		case attrThroughput:
			g.Throughput = mbit(d.Uint32())
		case attrBandwidthDown:
			g.DownMbit = mbit(d.Uint32())
		case attrBandwidthUp:
			g.UpMbit = mbit(d.Uint32())
		}
	})
	return g, err
}

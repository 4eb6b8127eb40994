package batman

import (
	"fmt"
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
	cmdGetClients     = 7 // GET_TRANSTABLE_GLOBAL
	cmdGetOriginators = 8
	cmdGetNeighbours  = 9
	cmdGetGateways    = 10
	cmdSetMesh        = 15

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
	attrOGMInterval   = 57
)

// Info is what the kernel says of the mesh interface.
type Info struct {
	Version     string // of batman-adv
	Algorithm   string
	MAC         net.HardwareAddr
	BLA         bool // bridge-loop avoidance
	OGMInterval time.Duration
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

// settings of a SET_MESH request.
type settings struct {
	ogmInterval time.Duration
}

// encode switches bridge-loop avoidance off with every setting: it is on by
// default and swallows all broadcast, address resolution too, for the first
// half minute, and bat0 is in no bridge.
func (s settings) encode(index int) ([]byte, error) {
	e := mnl.NewAttributeEncoder()
	e.Uint32(attrMeshIfindex, uint32(index))
	e.Uint8(attrBLA, 0)
	e.Uint32(attrOGMInterval, uint32(s.ogmInterval.Milliseconds()))
	return e.Encode()
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
		case attrOGMInterval:
			i.OGMInterval = milliseconds(d.Uint32())
		}
	})
	return i, err
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
			o.Throughput = mbit(d.Uint32())
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
			n.Throughput = mbit(d.Uint32())
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

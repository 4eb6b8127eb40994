package nl80211

import (
	"fmt"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// AuthSAE is the authentication protocol of MeshSetup.
const AuthSAE = 1

// MeshSetup is all that joining a mesh decides.
type MeshSetup struct {
	ID             []byte // 1 to 32 octets
	Channel        Channel
	BasicRates     []int // rates that every member must know, in 100 kbit/s
	MulticastRate  int   // in 100 kbit/s; 0 leaves it to the driver
	BeaconInterval int   // in time units of 1024 µs; 0 is the kernel's 1000
	DTIMPeriod     int   // in beacons; 0 is the kernel's 2
	// IEs go into the beacons. Without the RSN element, members of a secure mesh
	// throw them away.
	IEs []byte
	// AuthProtocol goes into the mesh configuration element: AuthSAE, or 0.
	AuthProtocol uint8
	// What the user's side does in the kernel's place. AMPE and SAE need all three.
	UserspaceAuth, UserspaceAMPE, UserspaceMPM bool
	// Owned makes the kernel leave the mesh when the Conn is closed, so also when the
	// process dies.
	Owned bool
	// RadarByUser says that the user's side watches for radar where that is needed.
	RadarByUser bool
	Parameters  MeshParameters
}

// MeshParameters are the parameters of a mesh interface that may change while it
// is joined. Those that are nil stay as they are; at joining that is the
// kernel's default.
type MeshParameters struct {
	RetryTimeout      *time.Duration // of an Open; in ms, as all up to ConfirmTimeout and HoldingTimeout
	ConfirmTimeout    *time.Duration
	HoldingTimeout    *time.Duration
	MaxPeerLinks      *uint16
	MaxRetries        *uint8
	TTL               *uint8
	ElementTTL        *uint8
	AutoOpenPlinks    *bool          // the kernel peers by itself
	PlinkTimeout      *time.Duration // in s; idle peers are removed after it, when the kernel looks, once a minute; 0 is never
	Forwarding        *bool
	RSSIThreshold     *int32 // dBm; weaker ones are no candidates; 0 is none
	HTOpMode          *uint16
	PowerMode         *uint32 // NL80211_MESH_POWER_*
	AwakeWindow       *uint16 // time units
	SyncOffsetMaxPeer *uint32
	HWMPMaxRetries    *uint8
	HWMPActivePath    *time.Duration // ms
	PathRefresh       *time.Duration // ms
	MinDiscovery      *time.Duration // ms
	HWMPRootMode      *uint8
	GateAnnouncements *bool
	ConnectedToGate   *bool
	NoLearn           *bool
}

// JoinMesh makes a mesh interface, which is up, a member of a mesh.
func (c *Conn) JoinMesh(index int, s MeshSetup) error {
	if len(s.ID) < 1 || len(s.ID) > 32 {
		return fmt.Errorf("nl80211: mesh ID: expected 1 to 32 octets, got %d", len(s.ID))
	}
	return c.set("join mesh", unix.NL80211_CMD_JOIN_MESH, func(e *netlink.AttributeEncoder) {
		ifindex(e, index)
		s.encode(e)
	})
}

func (s MeshSetup) encode(e *netlink.AttributeEncoder) {
	e.Bytes(unix.NL80211_ATTR_MESH_ID, s.ID)
	s.Channel.encode(e)
	if s.BasicRates != nil {
		e.Bytes(unix.NL80211_ATTR_BSS_BASIC_RATES, elementRates(s.BasicRates))
	}
	if s.MulticastRate != 0 {
		e.Uint32(unix.NL80211_ATTR_MCAST_RATE, uint32(s.MulticastRate))
	}
	if s.BeaconInterval != 0 {
		e.Uint32(unix.NL80211_ATTR_BEACON_INTERVAL, uint32(s.BeaconInterval))
	}
	if s.DTIMPeriod != 0 {
		e.Uint32(unix.NL80211_ATTR_DTIM_PERIOD, uint32(s.DTIMPeriod))
	}
	if s.Owned {
		e.Flag(unix.NL80211_ATTR_SOCKET_OWNER, true)
	}
	if s.RadarByUser {
		e.Flag(unix.NL80211_ATTR_HANDLE_DFS, true)
	}
	fill(e, unix.NL80211_ATTR_MESH_SETUP, func(n *netlink.AttributeEncoder) {
		if s.IEs != nil {
			n.Bytes(unix.NL80211_MESH_SETUP_IE, s.IEs)
		}
		if s.AuthProtocol != 0 {
			n.Uint8(unix.NL80211_MESH_SETUP_AUTH_PROTOCOL, s.AuthProtocol)
		}
		n.Flag(unix.NL80211_MESH_SETUP_USERSPACE_AUTH, s.UserspaceAuth)
		n.Flag(unix.NL80211_MESH_SETUP_USERSPACE_AMPE, s.UserspaceAMPE)
		n.Flag(unix.NL80211_MESH_SETUP_USERSPACE_MPM, s.UserspaceMPM)
	})
	fill(e, unix.NL80211_ATTR_MESH_CONFIG, s.Parameters.encode)
}

// elementRates converts from 100 kbit/s to the 500 kbit/s of the air.
func elementRates(rates []int) []byte {
	var b []byte
	for _, r := range rates {
		b = append(b, uint8(r/5))
	}
	return b
}

// LeaveMesh ends the membership; the interface stays.
func (c *Conn) LeaveMesh(index int) error {
	return c.set("leave mesh", unix.NL80211_CMD_LEAVE_MESH, func(e *netlink.AttributeEncoder) { ifindex(e, index) })
}

// SetMeshParameters changes parameters of a mesh interface.
func (c *Conn) SetMeshParameters(index int, p MeshParameters) error {
	return c.set("set mesh parameters", unix.NL80211_CMD_SET_MESH_CONFIG, func(e *netlink.AttributeEncoder) {
		ifindex(e, index)
		fill(e, unix.NL80211_ATTR_MESH_CONFIG, p.encode)
	})
}

// MeshParameters returns the parameters of a mesh interface: all that the kernel
// tells.
func (c *Conn) MeshParameters(index int) (p MeshParameters, err error) {
	b, err := c.get("read mesh parameters", unix.NL80211_CMD_GET_MESH_CONFIG, func(e *netlink.AttributeEncoder) { ifindex(e, index) })
	if err != nil {
		return p, err
	}
	return parseMeshParameters(b)
}

func parseMeshParameters(b []byte) (p MeshParameters, err error) {
	fields := p.fields()
	err = walk(b, func(d *netlink.AttributeDecoder) {
		if d.Type() == unix.NL80211_ATTR_MESH_CONFIG {
			nested(d, func(n *netlink.AttributeDecoder) {
				// The kernel also puts the index of the interface in here, whose number is
				// that of a parameter of another size.
				if n.Type() == unix.NL80211_ATTR_IFINDEX && len(n.Bytes()) == 4 {
					return
				}
				for _, f := range fields {
					if f.kind == n.Type() {
						f.decode(n)
					}
				}
			})
		}
	})
	return p, err
}

func (p MeshParameters) encode(e *netlink.AttributeEncoder) {
	for _, f := range p.fields() {
		f.encode(e)
	}
}

// field is one parameter on its way to and from an attribute.
type field struct {
	kind   uint16
	encode func(*netlink.AttributeEncoder)
	decode func(*netlink.AttributeDecoder)
}

// fields is the one list of parameters with their attributes.
func (p *MeshParameters) fields() []field {
	return []field{
		time16(unix.NL80211_MESHCONF_RETRY_TIMEOUT, &p.RetryTimeout),
		time16(unix.NL80211_MESHCONF_CONFIRM_TIMEOUT, &p.ConfirmTimeout),
		time16(unix.NL80211_MESHCONF_HOLDING_TIMEOUT, &p.HoldingTimeout),
		number16(unix.NL80211_MESHCONF_MAX_PEER_LINKS, &p.MaxPeerLinks),
		number8(unix.NL80211_MESHCONF_MAX_RETRIES, &p.MaxRetries),
		number8(unix.NL80211_MESHCONF_TTL, &p.TTL),
		number8(unix.NL80211_MESHCONF_ELEMENT_TTL, &p.ElementTTL),
		truth(unix.NL80211_MESHCONF_AUTO_OPEN_PLINKS, &p.AutoOpenPlinks),
		time32(unix.NL80211_MESHCONF_PLINK_TIMEOUT, time.Second, &p.PlinkTimeout),
		truth(unix.NL80211_MESHCONF_FORWARDING, &p.Forwarding),
		signed32(unix.NL80211_MESHCONF_RSSI_THRESHOLD, &p.RSSIThreshold),
		number16(unix.NL80211_MESHCONF_HT_OPMODE, &p.HTOpMode),
		number32(unix.NL80211_MESHCONF_POWER_MODE, &p.PowerMode),
		number16(unix.NL80211_MESHCONF_AWAKE_WINDOW, &p.AwakeWindow),
		number32(unix.NL80211_MESHCONF_SYNC_OFFSET_MAX_NEIGHBOR, &p.SyncOffsetMaxPeer),
		number8(unix.NL80211_MESHCONF_HWMP_MAX_PREQ_RETRIES, &p.HWMPMaxRetries),
		time32(unix.NL80211_MESHCONF_HWMP_ACTIVE_PATH_TIMEOUT, time.Millisecond, &p.HWMPActivePath),
		time32(unix.NL80211_MESHCONF_PATH_REFRESH_TIME, time.Millisecond, &p.PathRefresh),
		time16(unix.NL80211_MESHCONF_MIN_DISCOVERY_TIMEOUT, &p.MinDiscovery),
		number8(unix.NL80211_MESHCONF_HWMP_ROOTMODE, &p.HWMPRootMode),
		truth(unix.NL80211_MESHCONF_GATE_ANNOUNCEMENTS, &p.GateAnnouncements),
		truth(unix.NL80211_MESHCONF_CONNECTED_TO_GATE, &p.ConnectedToGate),
		truth(unix.NL80211_MESHCONF_NOLEARN, &p.NoLearn),
	}
}

// optional makes a field that is left out when it is nil.
func optional[T, W any](kind uint16, v **T, wire func(T) W, unwire func(W) T, encode func(*netlink.AttributeEncoder, uint16, W), decode func(*netlink.AttributeDecoder) W) field {
	return field{kind, func(e *netlink.AttributeEncoder) {
		if *v != nil {
			encode(e, kind, wire(**v))
		}
	}, func(d *netlink.AttributeDecoder) { *v = new(unwire(decode(d))) }}
}

func same[T any](v T) T { return v }

func number8(kind uint16, v **uint8) field {
	return optional(kind, v, same, same, (*netlink.AttributeEncoder).Uint8, (*netlink.AttributeDecoder).Uint8)
}

func number16(kind uint16, v **uint16) field {
	return optional(kind, v, same, same, (*netlink.AttributeEncoder).Uint16, uint16or32)
}

// uint16or32 reads what the kernel takes as 16 bits and, of HT_OPMODE, tells as
// 32.
func uint16or32(d *netlink.AttributeDecoder) uint16 {
	if len(d.Bytes()) == 4 {
		return uint16(d.Uint32())
	}
	return d.Uint16()
}

func number32(kind uint16, v **uint32) field {
	return optional(kind, v, same, same, (*netlink.AttributeEncoder).Uint32, (*netlink.AttributeDecoder).Uint32)
}

func signed32(kind uint16, v **int32) field {
	return optional(kind, v, same, same, (*netlink.AttributeEncoder).Int32, (*netlink.AttributeDecoder).Int32)
}

func truth(kind uint16, v **bool) field {
	return optional(kind, v, func(b bool) uint8 {
		if b {
			return 1
		}
		return 0
	}, func(n uint8) bool { return n != 0 }, (*netlink.AttributeEncoder).Uint8, (*netlink.AttributeDecoder).Uint8)
}

func time16(kind uint16, v **time.Duration) field {
	return optional(kind, v, func(t time.Duration) uint16 { return uint16(t.Milliseconds()) }, func(n uint16) time.Duration { return milliseconds(uint64(n)) },
		(*netlink.AttributeEncoder).Uint16, (*netlink.AttributeDecoder).Uint16)
}

func time32(kind uint16, unit time.Duration, v **time.Duration) field {
	return optional(kind, v, func(t time.Duration) uint32 { return uint32(t / unit) }, func(n uint32) time.Duration { return time.Duration(n) * unit },
		(*netlink.AttributeEncoder).Uint32, (*netlink.AttributeDecoder).Uint32)
}

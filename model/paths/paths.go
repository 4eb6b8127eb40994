// Package paths is the one place that spells HALO's files, sockets, ports and
// well-known addresses. Tests point a Root elsewhere than "/".
package paths

import (
	"net/netip"
	"path/filepath"
)

// Files below the root of the running system.
const (
	ImageInfo    = "/etc/halo/image.json"         // role of the image
	Boot         = "/boot"                        // boot FAT, mounted read-only by halo-init
	Bundle       = "/boot/halo.toml"              // network bundle to import
	ClaimNotice  = "/boot/claim.txt"              // the claim code, for people, until it is used
	BootReserve  = "/boot/reserve.bin"            // zeros in a flat image; goes to make room, of which gok leaves none
	BootReport   = "/run/halo/boot.json"          // what halo-init saw and decided
	Perm         = "/perm"                        // data partition
	State        = "/perm/halo"                   // everything HALO keeps
	Run          = "/run/halo"                    // sockets
	RunIdentity  = "/run/halo/identity.json"      // the identity as this boot uses it, also where /perm keeps nothing
	RunEvents    = "/run/halo/mesh-events.json"   // halo-mesh's events of this boot
	RunClock     = "/run/halo/mesh-clock.json"    // quality of the clock in this boot
	RunTimeline  = "/run/halo/mesh-timeline.json" // recoveries, as Timeline has them, always true
	RunAgent     = "/run/halo/agent"              // halo-agent's unacknowledged batches of this boot
	RunCommands  = "/run/halo/agent/commands"     // which commands were begun, as Commands has it
	RunOutputs   = "/run/halo/agent/outputs"      // which outputs are not in their safe state
	RunLEDs      = "/run/halo/agent/leds"         // what the LEDs showed before they blink
	Resolv       = "/tmp/resolv.conf"             // gokrazy links /etc/resolv.conf to it
	Upstreams    = "/run/halo/resolv.conf"        // name servers of the uplinks, which the server asks to which Resolv points
	ModulesDir   = "/lib/modules"
	LastCrashDir = "/perm/halo/crash" // the last kernel messages before a panic
)

// HaLow returns where a running system finds the settings of its board's HaLow
// radio (drivers/halow.Settings), in the slot of that name, a or b. Flat images
// have none.
func HaLow(slot string) string { return filepath.Join(Boot, "slot-"+slot, "halow.json") }

// Names below State.
const (
	Identity     = "identity.json"
	BundleCopy   = "bundle.toml"
	Membership   = "membership.json"
	Evidence     = "epoch-evidence" // the gateway's message that showed the highest epoch
	Clock        = "clock"
	StoodDown    = "stood-down"    // a gateway has stood down for another one with its key
	Timeline     = "timeline.json" // the last recoveries, mesh/timeline
	Peers        = "peers.json"
	OverlayKey   = "overlay-key"  // the overlay key that this device will have
	Profile      = "mesh-profile" // the profile documents, and how far a change of them is
	PeerList     = "peer-list"    // a node's copy of the list of members that the gateway signed
	Reservations = "reservations" // addresses that are kept for single clients
	Restore      = "restore"      // a backup that the next start makes this gateway
	Restored     = "restored"     // the one that it was made last (model.Restored)
	Firewall     = "firewall"     // what people have set of a gateway's firewall
	AgentTOML    = "agent.toml"
	BoardsDir    = "boards"             // people's board files
	TemplatesDir = "i2c-templates"      // people's templates of chips
	SensorsFile  = "agent/sensors.json" // what people have said of sensors, and their labels
	SpoolDir     = "agent/spool"
	Commands     = "agent/commands" // which commands of the gateway were begun, and what became of them
	Cameras      = "agent/cameras"  // what people have set of cameras
	GatewayDir   = "gateway"
	ConfigDB     = "gateway/config.db"
	SeriesDB     = "gateway/telemetry.db"
	SeriesDir    = "gateway/telemetry"   // a file for each week
	JobsDir      = "gateway/jobs"        // files that jobs have made
	TopologyDB   = "gateway/topology.db" // history of the network's picture
	Epoch        = "gateway/epoch"
	RestoreDir   = "restore" // in GatewayDir: what the next start may take for its own
)

// Leases returns the name below State of the addresses that are given on an
// interface.
func Leases(iface string) string { return "leases-" + iface }

// Names of vault entries (hal/card): second copies outside /perm.
const (
	VaultIdentity   = "identity"
	VaultBundle     = "bundle"
	VaultMembership = "membership"
	VaultEvidence   = "epoch-evidence"
	VaultClock      = "clock"
	VaultOverlayKey = "overlay-key"
	VaultProfile    = "mesh-profile"
	VaultStoodDown  = "stood-down"
)

// Sockets on which a node's processes answer each other: HTTP with JSON.
const (
	MeshSocket    = "/run/halo/mesh.sock"
	AgentSocket   = "/run/halo/agent.sock"
	GatewaySocket = "/run/halo/gateway.sock"
	FieldSocket   = "/run/halo/field.sock"
	GuardSocket   = "/run/halo/guard.sock"   // not HTTP: update/commit
	GokrazySocket = "/run/gokrazy-http.sock" // of gokrazy.HTTPUnixSocket
)

// Programs returns those of HALO that gokrazy may supervise, in the order in which it
// starts them. The image of a role and board holds some of them, each at Program.
func Programs() []string {
	return []string{"halo-air", "halo-mesh", "halo-agent", "gateway-api", "halo-field", "haloctl"}
}

// Program is where gokrazy has put a program.
func Program(name string) string { return "/user/" + name }

// Socket returns the socket of one of the programs; empty: it has none.
func Socket(program string) string {
	return map[string]string{"halo-mesh": MeshSocket, "halo-agent": AgentSocket, "gateway-api": GatewaySocket, "halo-field": FieldSocket}[program]
}

// Ports and protocol numbers.
const (
	EtherTypeProof  = 0x88B5 // IEEE 802 local experimental: proof of membership on a port
	EtherTypeRejoin = 0x88B6 // the same: a member that was off asks for the mesh's profile
	EtherTypeBatman = 0x4305
	EtherTypeMACsec = 0x88E5 // IEEE 802.1AE
	AnnouncePort    = 4254
	PeerListPort    = 4255 // the gateway's list of members, on the overlay only
	DoorPort        = 4256 // operators: the overlay and client interfaces
	SpeedPort       = 4257 // speed tests, on the overlay only, while one lasts
	CameraPort      = 4260 // a node's cameras, on the overlay, for the gateway alone
	DoctorPort      = 4259 // probes of paths, on the overlay and bat0
	RelayPort       = 4258 // clients' multicast between members, on the overlay only
	WireGuardPort   = 51820
	APIPort         = 8080 // plain HTTP: loopback and overlay only
	APITLSPort      = 8443
	FieldPort       = 80
	DNSPort         = 53
	MDNSPort        = 5353
	NTPPort         = 123
	GPSDPort        = 2947 // gpsd's protocol: loopback and clients
)

// Interfaces.
const (
	BatIface     = "bat0"
	OverlayIface = "wg0"
	ClientBridge = "br0"
	MeshBridge   = "br-mesh" // has the addresses of bat0 where ports are bridged into that
)

// Well-known addresses.
var (
	AnnounceGroup     = netip.MustParseAddr("ff02::4254")
	DoctorGroup       = netip.MustParseAddr("ff02::4259") // members join it
	DoctorFlood       = netip.MustParseAddr("ff02::425a") // nobody does
	OverlayNet        = netip.MustParsePrefix("10.42.0.0/16")
	OverlayVisitors   = netip.MustParsePrefix("10.42.255.0/24") // of those that are no members, but of people's devices
	OverlayGateway    = netip.MustParseAddr("10.42.0.1")
	UnderlayNet       = netip.MustParsePrefix("10.41.0.0/16")
	UnderlayGateway   = netip.MustParseAddr("10.41.0.1")
	ClientsNet        = netip.MustParsePrefix("10.43.0.0/16")
	ClientsGateway    = netip.MustParsePrefix("10.43.0.0/24")   // of the gateway's own clients
	ClientsAlone      = netip.MustParsePrefix("10.43.255.0/24") // of a node's that has not joined: nobody routes it
	OverlayAPI        = "http://10.42.0.1:8080"
	OverlayStreamURL  = "ws://10.42.0.1:8080/v1/nodes/stream"
	LoopbackStreamURL = "ws://127.0.0.1:8080/v1/nodes/stream" // for the gateway's own agent
)

// ClientsOf returns the network of a node's clients by its number.
func ClientsOf(n uint8) netip.Prefix {
	a := ClientsNet.Addr().As4()
	a[2] = n
	return netip.PrefixFrom(netip.AddrFrom4(a), 24)
}

// Dir is a directory that holds HALO's state: State on a board, another place
// on a laptop or in a test.
type Dir string

// File returns the path of one of the names below State.
func (d Dir) File(name string) string { return filepath.Join(string(d), name) }

// PlainHTTP tells whether the API may be served over plain HTTP at an address:
// one at which nobody between can listen in.
func PlainHTTP(a netip.Addr) bool {
	a = a.Unmap()
	return a.IsLoopback() || a == OverlayGateway
}

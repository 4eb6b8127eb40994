// Package model holds HALO's plain types: what a node, an interface, a reading,
// an event and the messages between a node and its gateway look like. JSON
// names are those of the API.
package model

import (
	"net/netip"
	"time"
)

// Role is what a device is in its network.
type Role string

// Roles.
const (
	RoleGateway Role = "gateway"
	RoleNode    Role = "node"
)

// ClockQuality tells where a time came from, worst first.
type ClockQuality string

// Clock qualities.
const (
	ClockNone    ClockQuality = "none"    // build time or saved clock
	ClockLogin   ClockQuality = "login"   // the clock of somebody who has logged in at the gateway
	ClockRTC     ClockQuality = "rtc"     // a battery-backed clock on the board
	ClockGateway ClockQuality = "gateway" // the gateway's signed answer to a nonce
	ClockGPS     ClockQuality = "gps"
)

// ClockLifespan is how many years after its build HALO believes a time.
const ClockLifespan = 20

// TimeOffer is what time it is for somebody who has logged in at the gateway.
type TimeOffer struct {
	Time   time.Time `json:"time"`
	User   string    `json:"user"`
	Remote string    `json:"remote" doc:"address that the login came from"`
}

// BatteryTime is what time it is by a battery-backed clock that halo-agent has found on a
// bus (PUT /v1/time/battery).
type BatteryTime struct {
	Time time.Time `json:"time" doc:"to the second"`
}

// Interface is a network interface of a node: a child of its identity.
type Interface struct {
	Name      string         `json:"name" doc:"kernel name, e.g. eth0"`
	Kind      string         `json:"kind" enum:"ethernet,wifi,halow,macsec,mesh,overlay,bridge,other"`
	MAC       string         `json:"mac,omitempty"`
	Up        bool           `json:"up"`
	PortRole  string         `json:"port_role,omitempty" enum:"mesh,uplink,client,bridge,unused" doc:"what an Ethernet port is used for"`
	Addresses []netip.Prefix `json:"addresses,omitempty"`
	RxBytes   uint64         `json:"rx_bytes"`
	TxBytes   uint64         `json:"tx_bytes"`
}

// Severity of an event.
type Severity string

// Severities.
const (
	Info    Severity = "info"
	Warning Severity = "warning"
	Error   Severity = "error"
)

// AgentEvents is added to the number of halo-agent's own events, so that they
// never meet those of halo-mesh, which counts from 1.
const AgentEvents = 1 << 40

// Event is something that happened once and that a person may want to know
// years later.
type Event struct {
	Boot     uint64            `json:"boot" doc:"boot counter of the node when it happened"`
	Seq      uint64            `json:"seq" doc:"number within that boot, from 1"`
	Time     time.Time         `json:"time"`
	Clock    ClockQuality      `json:"clock"`
	Node     string            `json:"node,omitempty" doc:"canonical ID; empty for the network as a whole"`
	Kind     string            `json:"kind" doc:"dotted, e.g. mesh.port.proven, node.joined, join.refused"`
	Severity Severity          `json:"severity" enum:"info,warning,error"`
	Message  string            `json:"message"`
	Fields   map[string]string `json:"fields,omitempty"`
}

// EventInputChanged is the kind of what a contact on a single line of a board does.
const EventInputChanged = "input.changed"

// Urgent tells whether somebody may act on it at once: what is no mere information, and
// what a door, a button or a float switch does. Both ends go by it: it is sent ahead, and
// committed without waiting for others.
func (e Event) Urgent() bool { return e.Severity != Info || e.Kind == EventInputChanged }

// Neighbour is a node that bat0 hears directly.
type Neighbour struct {
	Iface      string  `json:"iface"`
	MAC        string  `json:"mac"`
	Node       string  `json:"node,omitempty" doc:"canonical ID: its keys were proven on this port, or, over the air, it is said to have this address"`
	LastSeenMS int64   `json:"last_seen_ms"`
	TQ         uint8   `json:"tq,omitempty" doc:"BATMAN_IV transmit quality, 0 to 255"`
	Throughput float64 `json:"throughput_mbps,omitempty" doc:"BATMAN_V"`
}

// OverlayPeer is a WireGuard peer as the kernel sees it.
type OverlayPeer struct {
	Node          string     `json:"node"`
	PublicKey     string     `json:"public_key"`
	Endpoint      string     `json:"endpoint,omitempty"`
	Addresses     []string   `json:"addresses"`
	LastHandshake *time.Time `json:"last_handshake,omitempty"`
	RxBytes       int64      `json:"rx_bytes"`
	TxBytes       int64      `json:"tx_bytes"`
}

// Port is an Ethernet port and what halo-mesh made of it.
type Port struct {
	Iface   string   `json:"iface"`
	Role    string   `json:"role" enum:"mesh,uplink,client,bridge,searching,unused"`
	Pinned  bool     `json:"pinned"`
	Members []string `json:"members,omitempty" doc:"canonical IDs proven on this port"`
	MACsec  *MACsec  `json:"macsec,omitempty" doc:"how frames of the mesh are protected; absent where nobody is proven"`
	Detail  string   `json:"detail,omitempty"`
}

// MACsec is how a port protects the frames of the mesh.
type MACsec struct {
	State   string   `json:"state" enum:"encrypted,mixed,clear,none" doc:"encrypted: all members; mixed: some; clear: none of them; none: nothing is carried yet"`
	Iface   string   `json:"iface,omitempty" doc:"the MACsec interface, which carries the mesh instead of the port"`
	Clear   []string `json:"clear,omitempty" doc:"canonical IDs of those that frames go to in the clear"`
	Waiting []string `json:"waiting,omitempty" doc:"canonical IDs of those that have not said yet whether they have MACsec: nothing is carried to them"`
	KeyAgeS int64    `json:"key_age_s" doc:"how long this device sends by its present key"`
	Late    uint64   `json:"late" doc:"frames that were replayed or came far out of order, dropped"`
	Invalid uint64   `json:"invalid" doc:"frames that were forged, damaged or of an unknown key, dropped"`
}

// MeshStatus is what halo-mesh answers on GET /v1/status of its socket.
type MeshStatus struct {
	Node         string            `json:"node"`
	Name         string            `json:"name"`
	Role         Role              `json:"role"`
	Network      string            `json:"network" doc:"name of the HALO network; empty while no bundle was imported"`
	NetworkKey   string            `json:"network_key" doc:"gateway's public key, base64"`
	PublicKey    string            `json:"public_key" doc:"this node's identity key, base64"`
	Mesh         string            `json:"mesh"`
	Country      string            `json:"country"`
	BootCounter  uint64            `json:"boot_counter"`
	Time         time.Time         `json:"time"`
	StaleMS      int64             `json:"stale_ms,omitempty" doc:"how old what is said of interfaces, radios, routes and peers is, where the kernel does not answer in time"`
	Clock        ClockQuality      `json:"clock"`
	Underlay     string            `json:"underlay" doc:"ULA on bat0"`
	OverlayV4    string            `json:"overlay_v4,omitempty"`
	OverlayV6    string            `json:"overlay_v6,omitempty"`
	Gateway      string            `json:"gateway,omitempty" doc:"canonical ID of the gateway last heard"`
	GatewayHeard *time.Time        `json:"gateway_heard,omitempty"`
	Joined       bool              `json:"joined"`
	Volatile     bool              `json:"volatile" doc:"/perm is not there: nothing is kept"`
	Ports        []Port            `json:"ports"`
	Radios       []Radio           `json:"radios"`
	Neighbours   []Neighbour       `json:"neighbours"`
	Originators  int               `json:"originators"`
	NextHop      *ReportNextHop    `json:"next_hop,omitempty" doc:"node: the neighbour by which routing reaches the gateway, as it was within 15 s; absent while no way is in use"`
	Around       uint64            `json:"around,omitempty" doc:"another number when a link was made or has ended, or the next hop is another one"`
	Overlay      []OverlayPeer     `json:"overlay"`
	Interfaces   []Interface       `json:"interfaces"`
	Relay        *RelayStatus      `json:"relay,omitempty" doc:"multicast that is carried between clients"`
	Announcing   *Announce         `json:"announcing,omitempty" doc:"gateway: what its announcements say of the API; absent after a start of halo-mesh until gateway-api has put it"`
	Epoch        uint64            `json:"epoch,omitempty" doc:"the gateway's: on a node the highest one that it has heard of; absent where none is known"`
	HeardEpoch   uint64            `json:"heard_epoch,omitempty" doc:"gateway: the highest epoch, its own or a higher one, that another card of it has had, as nodes have shown, and that does not answer"`
	Twin         *GatewayTwin      `json:"twin,omitempty" doc:"gateway: another one with its key that is on the air"`
	Firewall     *FirewallInForce  `json:"firewall,omitempty" doc:"gateway: which policy of people's its firewall goes by"`
	LeftOut      []string          `json:"left_out,omitempty" doc:"gateway: canonical IDs of nodes that gateway-api counts as members, and the mesh profile that another card of this gateway has signed since does not"`
	Named        bool              `json:"named,omitempty" doc:"gateway: gateway-api has put the names of neurons' components since halo-mesh started"`
	Ignored      map[string]uint64 `json:"ignored,omitempty" doc:"announcements not believed, by reason"`
	Join         JoinState         `json:"join,omitempty" doc:"where joining stands: joined, searching, refused …"`
	JoinDetail   string            `json:"join_detail,omitempty" doc:"the gateway's reason, when it refused"`
}

// GatewayTwin is another gateway that has the key of this one, from another card.
type GatewayTwin struct {
	StandsDown bool      `json:"stands_down" doc:"this gateway has stood down for it: it announces nothing and admits nobody"`
	Epoch      uint64    `json:"epoch" doc:"the other one's"`
	Heard      time.Time `json:"heard" doc:"when the other one last proved to be alive"`
}

// AdmittedPeer is one overlay peer that gateway-api hands to halo-mesh
// (PUT /v1/overlay/peers, the whole list each time).
type AdmittedPeer struct {
	Node         string     `json:"node"`
	IdentityKey  string     `json:"identity_key" doc:"base64"`
	WireGuardKey string     `json:"wireguard_key" doc:"base64"`
	OverlayV4    netip.Addr `json:"overlay_v4"`
	OverlayV6    netip.Addr `json:"overlay_v6"`
	// Name and Clients are what others reach it and its clients by; both may be
	// absent.
	Name    string       `json:"name,omitempty"`
	Clients netip.Prefix `json:"clients,omitzero" doc:"IPv4 network of the devices that it serves, a /24 of 10.43.0.0/16"`
}

// Announce is what gateway-api hands to halo-mesh to be announced
// (PUT /v1/announce).
type Announce struct {
	APIPort  uint16 `json:"api_port"`
	CASHA256 string `json:"ca_sha256" doc:"hex SHA-256 of the network CA's certificate (DER)"`
	Epoch    uint64 `json:"epoch,omitempty" doc:"raised when the gateway is restored or replaced; nodes refuse a lower one"`
}

// NodeStatus is a node's heartbeat: sent when the stream opens, when it
// changes, and every few minutes.
type NodeStatus struct {
	Name       string        `json:"name"`
	Role       Role          `json:"role"`
	Board      string        `json:"board" doc:"device tree model"`
	Kernel     string        `json:"kernel"`
	Version    string        `json:"version"`
	Commit     string        `json:"commit"`
	Slot       string        `json:"slot,omitempty" enum:"a,b,flat"`
	State      string        `json:"state" doc:"health of the node: ok, degraded, failed, starting"`
	Missing    string        `json:"missing,omitempty" doc:"first broken dependency"`
	UptimeS    int64         `json:"uptime_s"`
	Volatile   bool          `json:"volatile"`
	Interfaces []Interface   `json:"interfaces"`
	Serial     string        `json:"serial,omitempty" doc:"of the board, as its device tree has it"`
	Clients    []Client      `json:"clients,omitempty" doc:"hosts behind the node that are no members"`
	Position   *Position     `json:"position,omitempty" doc:"where it is; it is not sent anew because that has changed, as telemetry has it"`
	BoardFile  *BoardRef     `json:"board_file,omitempty" doc:"which description of its board the node goes by"`
	Cameras    []CameraBrief `json:"cameras,omitempty" doc:"that are plugged in"`
	Inventory  string        `json:"inventory,omitempty" doc:"digest of what is on its buses, by which the gateway knows whether to ask for it"`
}

// JoinRequest is the body of POST /v1/nodes/join. The first post may leave
// Nonce and Signature empty and gets a nonce in a problem of type
// "join-nonce"; the second is signed.
type JoinRequest struct {
	Network      string   `json:"network" doc:"network key, base64" maxLength:"64"`
	IdentityKey  string   `json:"identity_key" doc:"Ed25519 public key, base64" maxLength:"64"`
	WireGuardKey string   `json:"wireguard_key" doc:"X25519 public key, base64" maxLength:"64"`
	Possession   string   `json:"possession,omitempty" doc:"proof that the node has the private half of wireguard_key (identity.ProvePossession), base64" maxLength:"64"`
	Token        string   `json:"token,omitempty" doc:"join token of the bundle" maxLength:"512"`
	Name         string   `json:"name,omitempty" maxLength:"63"`
	Board        string   `json:"board,omitempty" maxLength:"128"`
	Version      string   `json:"version,omitempty" maxLength:"128"`
	MACs         []string `json:"macs,omitempty" maxItems:"32"`
	Serial       string   `json:"serial,omitempty" maxLength:"64" doc:"of the board, as its device tree has it: a card that was written anew has another key on the same board"`
	Boot         uint64   `json:"boot"`
	Nonce        string   `json:"nonce,omitempty" maxLength:"128"`
	Signature    string   `json:"signature,omitempty" maxLength:"128" doc:"Ed25519 over the context 'halo join 1', the nonce and the canonical form (JoinRequest.SignedBytes), base64"`
}

// Membership is the answer to an admitted JoinRequest and what a node keeps.
type Membership struct {
	Node                string     `json:"node"`
	Name                string     `json:"name"`
	Network             string     `json:"network" doc:"network key, base64"`
	OverlayV4           netip.Addr `json:"overlay_v4"`
	OverlayV6           netip.Addr `json:"overlay_v6"`
	GatewayWireGuardKey string     `json:"gateway_wireguard_key"`
	CA                  string     `json:"ca" doc:"network CA, PEM"`
	Epoch               uint64     `json:"epoch"`

	Clients netip.Prefix `json:"clients,omitzero" doc:"IPv4 network of the devices that the node serves; absent: the network has none left"`
}

// ClaimCode is the body of PUT /v1/boot/claim-code: gateway-api has halo-mesh
// show it to whoever holds the device.
type ClaimCode struct {
	Code string `json:"code"`
}

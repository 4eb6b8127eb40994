package model

import "net/netip"

// InterfaceDetail is a network interface of a device with what its driver counts.
type InterfaceDetail struct {
	Interface
	Detail *InterfaceCounters `json:"detail,omitempty" doc:"absent where the device does not report it"`
}

// InterfaceCounters is what kernel and driver say of an interface.
type InterfaceCounters struct {
	Index          int    `json:"index" doc:"the kernel's number of it"`
	MTU            int    `json:"mtu"`
	Master         string `json:"master,omitempty" doc:"interface that it is a port of: a bridge, or the mesh"`
	Carrier        bool   `json:"carrier" doc:"there is somebody at the other end"`
	SpeedMbps      int    `json:"speed_mbps,omitempty" doc:"of an Ethernet port with a cable"`
	Duplex         string `json:"duplex,omitempty" enum:"full,half"`
	CarrierChanges uint32 `json:"carrier_changes" doc:"how often the other end came and went since the start"`
	RxPackets      uint64 `json:"rx_packets"`
	TxPackets      uint64 `json:"tx_packets"`
	RxErrors       uint64 `json:"rx_errors"`
	TxErrors       uint64 `json:"tx_errors"`
	RxDropped      uint64 `json:"rx_dropped"`
	TxDropped      uint64 `json:"tx_dropped"`
}

// NeighbourEntry is a host whose hardware address the kernel knows, or asks for, by
// ARP or neighbour discovery.
type NeighbourEntry struct {
	Address netip.Addr `json:"address"`
	MAC     string     `json:"mac,omitempty" doc:"absent while nobody has answered"`
	Iface   string     `json:"iface"`
	State   string     `json:"state" enum:"reachable,stale,delay,probe,incomplete,failed,permanent,noarp"`
	Router  bool       `json:"router,omitempty" doc:"it says that it is one (IPv6)"`
	Node    string     `json:"node,omitempty" doc:"canonical ID of the node that says that it has this hardware address"`
}

// MaxClients bounds how many clients a device reports of.
const MaxClients = 256

// Client is a host behind a device that is no member of the network: a phone on its
// hotspot, a camera on its Ethernet port, or a guest on a port that is bridged into
// the mesh.
type Client struct {
	MAC       string       `json:"mac"`
	Addresses []netip.Addr `json:"addresses,omitempty" doc:"in order"`
	Hostname  string       `json:"hostname,omitempty" doc:"what it calls itself"`
	Name      string       `json:"name,omitempty" doc:"under which it is found in .halo, below the device's name"`
	Iface     string       `json:"iface" doc:"of the device, by which it is reached"`
	Guest     bool         `json:"guest,omitempty" doc:"it is on the mesh itself, by a port that is bridged into it"`
	Behind    string       `json:"behind,omitempty" doc:"of a guest: originator of the mesh that says that it is behind it; empty: the device itself"`
	Node      string       `json:"node,omitempty" doc:"canonical ID of the member that this originator is said to be"`
	Present   bool         `json:"present" doc:"it was heard lately: by its lease, its answers or the mesh"`
	Reserved  bool         `json:"reserved,omitempty" doc:"its address is kept for it"`
}

// Tables of batman-adv (GET /v1/mesh/batman/{table}).
const (
	BatmanConfigTable = "config"
	BatmanInterfaces  = "interfaces"
	BatmanOriginators = "originators"
	BatmanNeighbours  = "neighbours"
	BatmanLocal       = "local"
	BatmanGlobal      = "global"
	BatmanGateways    = "gateways"
)

// BatmanTables is what batman-adv of a device knows: of its tables those that were
// asked for.
type BatmanTables struct {
	Node        string             `json:"node" doc:"canonical ID of the device"`
	Config      *BatmanConfig      `json:"config,omitempty"`
	Interfaces  []BatmanInterface  `json:"interfaces,omitempty"`
	Originators []BatmanOriginator `json:"originators,omitempty"`
	Neighbours  []Neighbour        `json:"neighbours,omitempty"`
	Local       []BatmanClient     `json:"local,omitempty"`
	Global      []BatmanClient     `json:"global,omitempty"`
	Gateways    []BatmanGateway    `json:"gateways,omitempty"`
}

// BatmanConfig is how batman-adv of a device is set.
type BatmanConfig struct {
	Iface               string `json:"iface"`
	MAC                 string `json:"mac"`
	Version             string `json:"version" doc:"of batman-adv"`
	Routing             string `json:"routing" enum:"BATMAN_IV,BATMAN_V"`
	OGMIntervalMS       int64  `json:"ogm_interval_ms" doc:"how often it says that it exists"`
	HopPenalty          uint8  `json:"hop_penalty" doc:"of 255, for each hop"`
	GatewayMode         string `json:"gateway_mode" enum:"off,client,server"`
	BridgeLoopAvoidance bool   `json:"bridge_loop_avoidance"`
	DistributedARP      bool   `json:"distributed_arp"`
	MulticastFlood      bool   `json:"multicast_flood" doc:"multicast goes to all, as broadcast does"`
}

// BatmanInterface is an interface that carries the mesh.
type BatmanInterface struct {
	Iface          string  `json:"iface"`
	MAC            string  `json:"mac"`
	HopPenalty     uint8   `json:"hop_penalty" doc:"besides the mesh's"`
	ELPIntervalMS  int64   `json:"elp_interval_ms,omitempty" doc:"BATMAN_V: how often it looks for neighbours"`
	ThroughputMbps float64 `json:"throughput_mbps,omitempty" doc:"BATMAN_V: what its links are told to be worth"`
}

// BatmanOriginator is one way to a node of the mesh.
type BatmanOriginator struct {
	MAC         string  `json:"mac" doc:"of the node's first interface"`
	Node        string  `json:"node,omitempty" doc:"canonical ID of the member that is said to be behind it"`
	NextHop     string  `json:"next_hop"`
	NextHopNode string  `json:"next_hop_node,omitempty"`
	Iface       string  `json:"iface"`
	Best        bool    `json:"best" doc:"this way is in use"`
	LastSeenMS  int64   `json:"last_seen_ms"`
	TQ          uint8   `json:"tq,omitempty" doc:"BATMAN_IV, 0 to 255"`
	Throughput  float64 `json:"throughput_mbps,omitempty" doc:"BATMAN_V"`
}

// BatmanClient is a hardware address in one of the translation tables.
type BatmanClient struct {
	MAC        string `json:"mac"`
	Member     string `json:"member,omitempty" doc:"canonical ID of the member whose mesh interface has this address by its key"`
	Originator string `json:"originator,omitempty" doc:"that says that it is behind it; absent in the local table"`
	Node       string `json:"node,omitempty" doc:"canonical ID of the member that the originator is said to be"`
	Best       bool   `json:"best,omitempty" doc:"of several originators that say so, the one that frames go to"`
}

// BatmanGateway is a node that announces a way out.
type BatmanGateway struct {
	MAC        string  `json:"mac"`
	Node       string  `json:"node,omitempty"`
	NextHop    string  `json:"next_hop"`
	Iface      string  `json:"iface"`
	Best       bool    `json:"best" doc:"the one in use, on a node whose mode is client"`
	TQ         uint8   `json:"tq,omitempty"`
	Throughput float64 `json:"throughput_mbps,omitempty"`
	DownMbps   float64 `json:"down_mbps,omitempty" doc:"what it says of its way out"`
	UpMbps     float64 `json:"up_mbps,omitempty"`
}

// Visitor is a device of a person's that is no member of the network, and has a place
// in the overlay all the same, as a peer of the gateway alone (PUT
// /v1/overlay/visitors, the whole list each time).
type Visitor struct {
	ID           string     `json:"id"`
	Name         string     `json:"name,omitempty" doc:"what people call it"`
	WireGuardKey string     `json:"wireguard_key" doc:"base64"`
	Overlay      netip.Addr `json:"overlay" doc:"one of 10.42.255.0/24"`
	ExpiresMS    int64      `json:"expires_ms" doc:"Unix milliseconds by the gateway's clock: from then on it is none"`
}

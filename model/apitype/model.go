package apitype

import (
	"net/netip"
	"time"
)

// Quarantine says that a node is shut out until an admin releases it.
type Quarantine struct {
	Since  time.Time `json:"since"`
	Reason string    `json:"reason"`
}

// Replacement is a node that looks like another one whose card was written anew: it has
// another key, and the same board.
type Replacement struct {
	Node     string   `json:"node" doc:"canonical ID of the new one"`
	NodeName string   `json:"node_name,omitempty"`
	Waits    bool     `json:"waits" doc:"it waits for an admin: adopting it admits it too"`
	Old      string   `json:"old" doc:"canonical ID of the one whose place it would take"`
	OldName  string   `json:"old_name"`
	Reasons  []string `json:"reasons" doc:"what both have in common" example:"serial 10000000abcdef01"`
}

// ReplacementList is all replacements that are offered.
type ReplacementList struct {
	Items []Replacement `json:"items"`
	Next  string        `json:"next,omitempty"`
}

// MACConflict is a hardware address that several nodes say they have.
type MACConflict struct {
	MAC   string   `json:"mac"`
	Nodes []string `json:"nodes" doc:"canonical IDs; none of them is believed"`
}

// ModelConflicts is what does not fit in the model of the network.
type ModelConflicts struct {
	Quarantined []Node        `json:"quarantined" doc:"nodes whose key was there twice at once"`
	MACs        []MACConflict `json:"macs"`
	Next        string        `json:"next,omitempty"`
}

// ModelSummary is the network in numbers.
type ModelSummary struct {
	Network  string     `json:"network"`
	Gateway  string     `json:"gateway" doc:"canonical ID"`
	Meshes   int        `json:"meshes"`
	Nodes    NodeCounts `json:"nodes"`
	Clients  int        `json:"clients" doc:"data consumers: hosts that are no members, present or not"`
	Present  int        `json:"clients_present"`
	Sensors  int        `json:"sensors" doc:"data providers: nodes other than the gateway that supply telemetry"`
	Conflict int        `json:"conflicts"`
}

// NodeCounts are nodes that are not revoked.
type NodeCounts struct {
	All         int `json:"all"`
	Online      int `json:"online"`
	Quarantined int `json:"quarantined"`
}

// ModelNetwork is the HALO network: one deployment boundary.
type ModelNetwork struct {
	ID       string   `json:"id" doc:"the network's key, base64"`
	Name     string   `json:"name"`
	Gateway  string   `json:"gateway" doc:"canonical ID of its gateway"`
	Epoch    uint64   `json:"epoch"`
	Country  string   `json:"country,omitempty"`
	Overlay  []string `json:"overlay" doc:"its prefixes"`
	Underlay []string `json:"underlay"`
	Clients  []string `json:"clients"`
	Meshes   []string `json:"meshes" doc:"IDs"`
}

// ModelNetworkList is all networks: there is one on a gateway.
type ModelNetworkList struct {
	Items []ModelNetwork `json:"items"`
}

// ModelMesh is an authenticated RF domain, defined by a profile.
type ModelMesh struct {
	ID      string           `json:"id" doc:"its name: SSID or mesh ID" example:"ETHRX0001-8A"`
	Network string           `json:"network" doc:"name"`
	Routing string           `json:"routing,omitempty" enum:"BATMAN_IV,BATMAN_V"`
	Domains []UnderlayDomain `json:"domains" doc:"transports that carry it"`
	Nodes   int              `json:"nodes" doc:"members"`
}

// ModelMeshList is all meshes.
type ModelMeshList struct {
	Items []ModelMesh `json:"items"`
}

// UnderlayDomain is one transport medium of a mesh: whoever is in it may hear all others.
type UnderlayDomain struct {
	ID        string   `json:"id" example:"ETHRX0001-8A/wifi"`
	Mesh      string   `json:"mesh"`
	Transport string   `json:"transport" enum:"wifi,halow,ethernet"`
	Channel   string   `json:"channel,omitempty" example:"6"`
	Nodes     []string `json:"nodes" doc:"canonical IDs of nodes with an interface of that kind in the mesh"`
}

// UnderlayDomainList is all underlay domains.
type UnderlayDomainList struct {
	Items []UnderlayDomain `json:"items"`
}

// ModelRole is something that a node is.
type ModelRole struct {
	Role  string `json:"role" enum:"gateway,node,data-provider,access"`
	Label string `json:"label" doc:"people's word" example:"Sensor"`
	Why   string `json:"why,omitempty"`
}

// ModelInterface is an interface as a child of a node.
type ModelInterface struct {
	ID   string `json:"id" doc:"node and name: a replaced radio is the same interface" example:"n-7k3mq0zt4wxpb2c5d8ef/wlan0"`
	Node string `json:"node"`
	Interface
	Hardware []InterfaceHardware `json:"hardware" doc:"addresses that it has had, the newest first"`
}

// InterfaceHardware is hardware that an interface has had.
type InterfaceHardware struct {
	MAC   string    `json:"mac"`
	Since time.Time `json:"since"`
}

// ModelInterfaceList is a page of interfaces, by node.
type ModelInterfaceList struct {
	Items []ModelInterface `json:"items"`
	Next  string           `json:"next,omitempty"`
}

// TelemetrySource is what a node's readings come from.
type TelemetrySource struct {
	ID      string     `json:"id" example:"n-7k3mq0zt4wxpb2c5d8ef/radio.wlan0"`
	Node    string     `json:"node"`
	Source  string     `json:"source" doc:"the first word of its metrics" example:"radio"`
	Thing   string     `json:"thing" doc:"the second" example:"wlan0"`
	Metrics []string   `json:"metrics"`
	Latest  *time.Time `json:"latest,omitempty" doc:"time of its newest reading"`
}

// TelemetrySourceList is a page of sources; a page holds whole nodes.
type TelemetrySourceList struct {
	Items []TelemetrySource `json:"items"`
	Next  string            `json:"next,omitempty"`
}

// ModelNode is a node with all that is its own.
type ModelNode struct {
	Node
	Roles      []ModelRole       `json:"roles"`
	Network    string            `json:"network"`
	Mesh       string            `json:"mesh,omitempty"`
	Domains    []string          `json:"domains" doc:"IDs of underlay domains that it has an interface in"`
	Children   []ModelInterface  `json:"interfaces"`
	Sources    []TelemetrySource `json:"sources"`
	Endpoints  []Endpoint        `json:"endpoints" doc:"hosts behind it: people's Clients"`
	Replaced   []string          `json:"replaced,omitempty" doc:"canonical IDs of nodes whose place it has taken, the latest first: their history is its own"`
	ReplacedBy string            `json:"replaced_by,omitempty" doc:"of a revoked node: the one that has its place"`
}

// Endpoint is a host that is no member: a data consumer, or people's Client.
type Endpoint struct {
	ID        string       `json:"id" doc:"made once, never from an address" example:"c-7k3mq0zt4wxpb2c5d8ef"`
	Name      string       `json:"name,omitempty" doc:"that people gave it"`
	Note      string       `json:"note,omitempty"`
	MAC       string       `json:"mac"`
	Hostname  string       `json:"hostname,omitempty" doc:"what it calls itself"`
	DNS       string       `json:"dns,omitempty" doc:"under which name it is found" example:"camera.mast.halo"`
	Addresses []netip.Addr `json:"addresses"`
	Node      string       `json:"node,omitempty" doc:"canonical ID of the node that it is behind, or was last"`
	NodeName  string       `json:"node_name,omitempty"`
	Interface string       `json:"interface,omitempty" doc:"of that node"`
	Guest     bool         `json:"guest" doc:"it is on the mesh itself, by a port that is bridged into it"`
	Behind    string       `json:"behind,omitempty" doc:"of a guest whose node is not known: the originator of the mesh that it is behind"`
	Present   bool         `json:"present" doc:"its node is there and has heard it lately"`
	Reserved  bool         `json:"reserved,omitempty"`
	FirstSeen time.Time    `json:"first_seen"`
	LastSeen  time.Time    `json:"last_seen"`
}

// EndpointDetail is an endpoint and where it was.
type EndpointDetail struct {
	Endpoint
	Places []EndpointPlace `json:"places" doc:"the newest first"`
}

// EndpointPlace is a node that an endpoint was behind.
type EndpointPlace struct {
	Node  string    `json:"node"`
	Since time.Time `json:"since"`
}

// EndpointList is a page of endpoints.
type EndpointList struct {
	Items []Endpoint `json:"items"`
	Next  string     `json:"next,omitempty"`
}

// UpdateEndpoint is the body of PATCH /v1/endpoints/{id}.
type UpdateEndpoint struct {
	Name *string `json:"name,omitempty" maxLength:"63" doc:"what people call it; empty: as it calls itself"`
	Note *string `json:"note,omitempty" maxLength:"500"`
}

// roles of a node, for people.
var labels = map[string]string{"gateway": "Gateway", "node": "Node", "data-provider": "Sensor", "access": "Access for clients"}

// RoleOf is a role with people's word for it.
func RoleOf(role, why string) ModelRole { return ModelRole{role, labels[role], why} }

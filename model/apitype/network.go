package apitype

import "halo.internal/model"

// NetworkInterfaceList is the network interfaces of a device.
type NetworkInterfaceList struct {
	Node  string                  `json:"node"`
	Items []model.InterfaceDetail `json:"items"`
}

// NetworkNeighbourList is the hosts whose hardware addresses a device knows.
type NetworkNeighbourList struct {
	Node  string                 `json:"node"`
	Items []model.NeighbourEntry `json:"items"`
	Next  string                 `json:"next,omitempty"`
}

// WirelessList is the radios of a device.
type WirelessList struct {
	Node  string        `json:"node"`
	Items []model.Radio `json:"items" doc:"without their peers, which are associations"`
}

// Association is a station that a radio has a link with, or is on its way to one.
type Association struct {
	Radio string `json:"radio" example:"phy0"`
	Iface string `json:"iface,omitempty" example:"mesh0"`
	model.RadioPeer
}

// AssociationList is the stations of a device's radios.
type AssociationList struct {
	Node  string        `json:"node"`
	Items []Association `json:"items"`
	Next  string        `json:"next,omitempty"`
}

// Lease is an address that a device has given, and on which interface.
type Lease struct {
	Iface string `json:"iface" example:"eth1"`
	model.Lease
}

// LeaseList is the addresses that a device has given.
type LeaseList struct {
	Items []Lease `json:"items"`
	Next  string  `json:"next,omitempty"`
}

// MeshConfig is how batman-adv of the gateway is set.
type MeshConfig struct {
	Config     *model.BatmanConfig     `json:"config,omitempty" doc:"absent while the mesh interface is not there"`
	Interfaces []model.BatmanInterface `json:"interfaces" doc:"that carry the mesh"`
}

// BatmanOriginatorList is all ways that routing knows.
type BatmanOriginatorList struct {
	Items []model.BatmanOriginator `json:"items" doc:"for each node the way in use first"`
	Next  string                   `json:"next,omitempty"`
}

// BatmanNeighbourList is the nodes that routing hears directly.
type BatmanNeighbourList struct {
	Items []model.Neighbour `json:"items"`
	Next  string            `json:"next,omitempty"`
}

// BatmanClientList is a translation table.
type BatmanClientList struct {
	Items []model.BatmanClient `json:"items"`
	Next  string               `json:"next,omitempty"`
}

// BatmanGatewayList is the nodes that announce a way out.
type BatmanGatewayList struct {
	Items []model.BatmanGateway `json:"items"`
	Next  string                `json:"next,omitempty"`
}

// BatmanInterfaceList is the interfaces that carry the mesh.
type BatmanInterfaceList struct {
	Items []model.BatmanInterface `json:"items"`
}

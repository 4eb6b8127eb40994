package apitype

import "halo.internal/model"

// MeshPeerList is the members of the mesh that a device reaches directly.
type MeshPeerList struct {
	Items []model.MeshPeer `json:"items"`
	Next  string           `json:"next,omitempty"`
}

// ReservationList is the addresses that a device keeps for single clients.
type ReservationList struct {
	Items []model.Reservation `json:"items"`
	Next  string              `json:"next,omitempty"`
}

// RadioChannelsList is the channels of each radio.
type RadioChannelsList struct {
	Items []model.RadioChannels `json:"items"`
}

// RecoveryList is how each recovery of a device went, oldest first.
type RecoveryList struct {
	Items []model.Recovery `json:"items"`
}

// LegalityList is what the law says of each radio, and of HaLow.
type LegalityList struct {
	Items []model.Legality `json:"items"`
}

// MeshChannel is where the mesh is.
type MeshChannel struct {
	Channel      int    `json:"channel" doc:"number of a Wi-Fi channel"`
	Width        int    `json:"width" doc:"MHz"`
	HaLowChannel int    `json:"halow_channel,omitempty" doc:"S1G number; absent: HaLow radios stay off"`
	HaLowScheme  string `json:"halow_scheme,omitempty"`
	Phase        string `json:"phase" doc:"of a change that is under way; idle: none is"`
}

// ChangeMeshChannel moves the mesh to another channel. What is left out stays.
type ChangeMeshChannel struct {
	Channel      int  `json:"channel,omitempty" minimum:"1" maximum:"177" doc:"number of a Wi-Fi channel of 2.4 or 5 GHz"`
	Width        int  `json:"width,omitempty" enum:"20,40"`
	HaLowChannel int  `json:"halow_channel,omitempty" minimum:"1" maximum:"255"`
	Anyway       bool `json:"anyway,omitempty" doc:"also when nodes that are there do not get ready in time"`
}

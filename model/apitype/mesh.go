package apitype

import "halo.internal/model"

// MeshPeerList is the members of the mesh that a device reaches directly.
type MeshPeerList struct {
	Items []model.MeshPeer `json:"items"`
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

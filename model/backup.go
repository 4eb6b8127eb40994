package model

import "time"

// MeshBackup is what halo-mesh of a gateway adds to a backup: who the network is, and
// what its members have agreed on.
type MeshBackup struct {
	Bundle       []byte `json:"bundle"`                 // halo.toml with the network's key, without a claim code
	Profile      []byte `json:"profile,omitempty"`      // profile documents, as they are kept; empty: the bundle's profile was never changed
	Reservations []byte `json:"reservations,omitempty"` // as they are kept; empty: none
	Boot         uint64 `json:"boot"`                   // boot counter
}

// MeshRestore is what a gateway's halo-mesh is to be from its next start on.
type MeshRestore struct {
	ID   string    `json:"id"`   // of the backup
	Made time.Time `json:"made"` // it is later than that: for a device without a clock
	MeshBackup
}

// Restored is the file in which halo-mesh says that it has become what a backup says:
// gateway-api then does the same.
type Restored struct {
	ID   string `json:"id"`   // of the backup
	Node string `json:"node"` // canonical ID of the gateway
}

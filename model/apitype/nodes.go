package apitype

import (
	"net/netip"
	"time"

	"halo.internal/model"
)

// Node is one device of the network.
type Node struct {
	ID        string     `json:"id" doc:"canonical ID"`
	Name      string     `json:"name"`
	Role      model.Role `json:"role" enum:"gateway,node"`
	Online    bool       `json:"online" doc:"its stream is open"`
	Revoked   bool       `json:"revoked"`
	State     string     `json:"state,omitempty" doc:"its own health: ok, degraded, failed, starting"`
	Missing   string     `json:"missing,omitempty" doc:"first broken dependency on the node"`
	Board     string     `json:"board,omitempty"`
	Kernel    string     `json:"kernel,omitempty"`
	Version   string     `json:"version,omitempty"`
	Commit    string     `json:"commit,omitempty"`
	Slot      string     `json:"slot,omitempty"`
	Volatile  bool       `json:"volatile,omitempty" doc:"its /perm is not there: nothing is kept"`
	UptimeS   int64      `json:"uptime_s,omitempty"`
	Boot      uint64     `json:"boot" doc:"boot counter last heard"`
	OverlayV4 netip.Addr `json:"overlay_v4"`
	OverlayV6 netip.Addr `json:"overlay_v6"`

	Clients      netip.Prefix `json:"clients,omitzero" doc:"IPv4 network of the devices that it serves"`
	Underlay     netip.Addr   `json:"underlay"`
	IdentityKey  string       `json:"identity_key"`
	WireGuardKey string       `json:"wireguard_key"`
	MACs         []string     `json:"macs,omitempty"`
	AdmittedBy   string       `json:"admitted_by" doc:"token:<id>, mac:<address>, user:<name>, or self for the gateway; left-out: by nobody, as the network's mesh profile does not count it"`
	Joined       time.Time    `json:"joined"`
	LastSeen     *time.Time   `json:"last_seen,omitempty"`
	Serial       string       `json:"serial,omitempty" doc:"of the board"`
	Replaces     string       `json:"replaces,omitempty" doc:"canonical ID of the node whose place it has taken"`
	Quarantined  *Quarantine  `json:"quarantined,omitempty" doc:"its key was there twice at once: it is shut out until an admin releases it"`

	Position *model.Position `json:"position,omitempty" doc:"where it was when it last said how it is, five minutes ago at most while it is online; the metrics gps.fix.* follow it"`
}

// NodeList is a page of nodes.
type NodeList struct {
	Items []Node `json:"items"`
	Next  string `json:"next,omitempty"`
}

// NodeDetail is a node with its children and what the mesh says of it.
type NodeDetail struct {
	Node
	Interfaces []Interface         `json:"interfaces"`
	Overlay    *model.OverlayPeer  `json:"overlay,omitempty" doc:"the gateway's WireGuard peer for this node"`
	Overlays   []model.OverlayPeer `json:"overlays,omitempty" doc:"on the gateway itself: all its peers"`
	Neighbours []model.Neighbour   `json:"neighbours,omitempty" doc:"links between this node and the gateway's radios and ports"`
}

// Interface is a network interface of a node and when it was there.
type Interface struct {
	model.Interface
	FirstSeen time.Time `json:"first_seen"`
	LastSeen  time.Time `json:"last_seen"`
	Present   bool      `json:"present" doc:"in the node's last report; a radio that was unplugged stays listed"`
}

// InterfaceList is all interfaces of a node.
type InterfaceList struct {
	Items []Interface `json:"items"`
	Next  string      `json:"next,omitempty"`
}

// BoardList is a page of boards.
type BoardList struct {
	Items []model.BoardDescription `json:"items"`
	Next  string                   `json:"next,omitempty"`
}

// UpdateNode is the body of PATCH /v1/nodes/{id}.
type UpdateNode struct {
	Name *string `json:"name,omitempty" minLength:"1" maxLength:"63" pattern:"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$" doc:"a DNS label, unique in the network"`
}

// Registration is a join request that waits for an admin.
type Registration struct {
	ID          string    `json:"id" doc:"canonical ID of the node"`
	Name        string    `json:"name,omitempty" doc:"the name that it asks for"`
	Board       string    `json:"board,omitempty"`
	Version     string    `json:"version,omitempty"`
	MACs        []string  `json:"macs,omitempty"`
	Serial      string    `json:"serial,omitempty" doc:"of the board"`
	IdentityKey string    `json:"identity_key"`
	Remote      string    `json:"remote" doc:"address that it came from"`
	State       string    `json:"state" enum:"pending,rejected"`
	Reason      string    `json:"reason,omitempty" doc:"why it was not admitted at once: token-none, token-expired, token-used-up, token-revoked"`
	Requested   time.Time `json:"requested"`
	LastTry     time.Time `json:"last_try"`
}

// RegistrationList is a page of registrations.
type RegistrationList struct {
	Items []Registration `json:"items"`
	Next  string         `json:"next,omitempty"`
}

// JoinToken admits devices without a person.
type JoinToken struct {
	ID      string    `json:"id" doc:"hex"`
	Note    string    `json:"note,omitempty"`
	Uses    uint32    `json:"uses" doc:"how many nodes it admits"`
	Used    uint32    `json:"used"`
	Expires time.Time `json:"expires"`
	Revoked bool      `json:"revoked"`
	Created time.Time `json:"created" doc:"here; for a token that came on a card, when it was first seen"`
	Token   string    `json:"token,omitempty" doc:"the secret; shown once, when made"`
}

// JoinTokenList is a page of join tokens.
type JoinTokenList struct {
	Items []JoinToken `json:"items"`
	Next  string      `json:"next,omitempty"`
}

// CreateJoinToken is the body of POST /v1/admin/join-tokens.
type CreateJoinToken struct {
	Uses     uint32 `json:"uses,omitempty" minimum:"1" maximum:"1000" default:"1"`
	ExpiresS int64  `json:"expires_s,omitempty" minimum:"60" maximum:"315360000" default:"604800" doc:"life in seconds; a week when left out"`
	Note     string `json:"note,omitempty" maxLength:"128"`
}

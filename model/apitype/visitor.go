package apitype

import (
	"net/netip"
	"time"

	"halo.internal/model"
)

// RegisterOverlay is the body of POST /v1/mesh/wg-register.
type RegisterOverlay struct {
	PublicKey   string `json:"public_key" maxLength:"64" doc:"WireGuard (X25519) public key, base64" example:"xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg="`
	Possession  string `json:"possession" maxLength:"64" doc:"proof that the certificate's owner has its private half (identity.ProvePossession, with the certificate's key), base64"`
	Certificate uint64 `json:"certificate" minimum:"1" doc:"serial number of an own operator's certificate: the place in the overlay ends with it"`
	Label       string `json:"label,omitempty" maxLength:"63" doc:"what it is, such as the name of a laptop" example:"annas-laptop"`
}

// OverlayVisitor is a device of a person's that has a place in the overlay, as a peer of
// the gateway alone.
type OverlayVisitor struct {
	ID            string     `json:"id" example:"w-7k3mq0zt4wxpb2c5d8ef"`
	Username      string     `json:"username"`
	Label         string     `json:"label,omitempty"`
	PublicKey     string     `json:"public_key"`
	OverlayV4     netip.Addr `json:"overlay_v4" example:"10.42.255.1"`
	Certificate   uint64     `json:"certificate" doc:"serial number"`
	Registered    time.Time  `json:"registered"`
	Expires       time.Time  `json:"expires" doc:"with the certificate"`
	Ended         bool       `json:"ended" doc:"its certificate has expired, was revoked, or is of an earlier epoch: it has no place any more"`
	LastHandshake *time.Time `json:"last_handshake,omitempty"`
	Endpoint      string     `json:"endpoint,omitempty" doc:"where its handshakes come from"`
}

// OverlayVisitorList is a page of visitors.
type OverlayVisitorList struct {
	Items []OverlayVisitor `json:"items"`
	Next  string           `json:"next,omitempty"`
}

// OverlayRegistration is the answer to a registration: all that WireGuard has to be told.
type OverlayRegistration struct {
	OverlayVisitor
	Gateway    string            `json:"gateway_public_key" doc:"the gateway's WireGuard key, base64"`
	Endpoints  []OverlayEndpoint `json:"endpoints" doc:"where the gateway is: the address that this was asked at first, if it is one of them, then those that are open"`
	AllowedIPs []netip.Prefix    `json:"allowed_ips" doc:"what is reached by it: the overlay and the clients of nodes"`
	DNS        netip.Addr        `json:"dns" doc:"name server for .halo"`
	MTU        int               `json:"mtu"`
	KeepaliveS int               `json:"keepalive_s"`
}

// OverlayEndpoint is an address of the gateway's WireGuard.
type OverlayEndpoint struct {
	Address netip.AddrPort `json:"address"`
	Zone    model.Zone     `json:"zone" doc:"of the firewall, from which it is reached"`
	Open    bool           `json:"open" doc:"the firewall lets WireGuard in from there; if not, open the service wireguard to the zone"`
}

package model

import "time"

// Faults that the path doctor looks for.
const (
	FaultMTU       = "mtu"       // packets above a size vanish on the way to a peer, and nobody says so
	FaultMulticast = "multicast" // what goes to all does not arrive
	FaultRoute     = "route"     // traffic for outside does not go through the overlay
	FaultServer    = "server"    // somebody who is not the gateway offers a way out
)

// DoctorReport is what the path doctor of a device knows of its paths.
type DoctorReport struct {
	At         time.Time       `json:"at"`
	Examining  int             `json:"examining" doc:"peers that are being examined, or wait for it"`
	OctetsSent int64           `json:"octets_sent" doc:"probes and answers of this process, as IP packets"`
	Peers      []DoctorPeer    `json:"peers" doc:"those in use"`
	Route      *DoctorRoute    `json:"route,omitempty" doc:"where a node's traffic for outside goes; absent on a gateway"`
	Flooding   *bool           `json:"flooding,omitempty" doc:"what goes to all is flooded by batman-adv, as it should; absent where that is not known"`
	Findings   []DoctorFinding `json:"findings" doc:"newest first"`
}

// DoctorPeer is the path from this device to a peer: each direction is that of its
// sender.
type DoctorPeer struct {
	Node        string     `json:"node"`
	Name        string     `json:"name,omitempty"`
	Gateway     bool       `json:"gateway,omitempty"`
	Examined    *time.Time `json:"examined,omitempty"`
	Answers     bool       `json:"answers" doc:"it answered when it was examined last"`
	LatencyMS   float64    `json:"latency_ms,omitempty" doc:"there and back, the smallest of the last examination"`
	OverlayMTU  int        `json:"overlay_mtu,omitempty" doc:"largest IP packet that arrives through the overlay; absent when it is not known"`
	UnderlayMTU int        `json:"underlay_mtu,omitempty" doc:"largest IP packet that arrives over the mesh itself"`
	Limit       int        `json:"limit,omitempty" doc:"to which packets into the overlay are held, since larger ones vanish"`
	Fragment    int        `json:"fragment,omitempty" doc:"size into which encrypted packets are cut, since larger ones vanish"`
	Multicast   string     `json:"multicast,omitempty" enum:"yes,no,filtered" doc:"whether what this device sends to all arrives; filtered: it does, and the peer's kernel drops it; absent when it is not known"`
	MulticastAt *time.Time `json:"multicast_at,omitempty"`
}

// DoctorRoute is where a node's traffic for outside the network goes.
type DoctorRoute struct {
	Iface   string `json:"iface,omitempty" doc:"through which the kernel sends it; empty: nowhere"`
	Follows bool   `json:"follows" doc:"it goes through the overlay to the gateway"`
	Answers bool   `json:"answers" doc:"the gateway answered there lately"`
	Detail  string `json:"detail,omitempty" doc:"what is wrong"`
}

// DoctorFinding is a fault and what became of it.
type DoctorFinding struct {
	Fault     string     `json:"fault" enum:"mtu,multicast,route,server"`
	Peer      string     `json:"peer,omitempty" doc:"canonical ID; empty where the fault is not one of a single path"`
	Detail    string     `json:"detail"`
	Found     time.Time  `json:"found"`
	Times     int        `json:"times" doc:"how often, if it comes back again and again"`
	Treatment string     `json:"treatment,omitempty" doc:"what was done"`
	Mended    *time.Time `json:"mended,omitempty" doc:"traffic passes again since"`
	Ended     *time.Time `json:"ended,omitempty" doc:"the fault itself is gone since, and so is its treatment"`
}

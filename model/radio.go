package model

import (
	"cmp"
	"slices"
	"time"
)

// Radio is a radio of the device and what halo-mesh made of it.
type Radio struct {
	Name       string      `json:"name" doc:"the kernel's, e.g. phy0"`
	Iface      string      `json:"iface,omitempty" doc:"its mesh interface, e.g. mesh0; empty while the mesh does not have the radio"`
	MAC        string      `json:"mac,omitempty"`
	Member     bool        `json:"member" doc:"it is a member of the mesh"`
	Detail     string      `json:"detail,omitempty" doc:"why it is no member of the mesh"`
	Absent     bool        `json:"absent,omitempty" doc:"the board has it, and its driver is not up; the name is the driver's then"`
	Channel    int         `json:"channel,omitempty" doc:"number of the control channel"`
	FreqMHz    int         `json:"freq_mhz,omitempty" doc:"centre of the control channel"`
	WidthMHz   int         `json:"width_mhz,omitempty"`
	HaLow      string      `json:"halow,omitempty" doc:"of a HaLow radio: the channel below 1 GHz that those of 5 GHz stand for in the kernel"`
	HaLowKHz   int         `json:"halow_khz,omitempty" doc:"its centre"`
	HaLowWide  int         `json:"halow_width_khz,omitempty" doc:"its width"`
	Country    string      `json:"country,omitempty" doc:"whose rules the kernel keeps to; 00 is what is allowed everywhere"`
	TxPowerDBm float64     `json:"tx_power_dbm,omitempty"`
	Peers      []RadioPeer `json:"peers"`
	Healing    *Healing    `json:"healing,omitempty" doc:"what was done to bring it back; absent while nothing was"`
	Dropped    Dropped     `json:"dropped,omitzero" doc:"frames of authentication and peering that came to nothing; absent while there are none"`
}

// Dropped counts the frames of SAE and of mesh peering (IEEE Std 802.11-2020,
// 12.4, 14.3 to 14.5) that a radio heard and that came to nothing, since it
// joined the mesh. A few are no harm: frames cross and are repeated. Many are
// another password, or somebody who forges.
type Dropped struct {
	Malformed         uint64 `json:"malformed,omitempty" doc:"of either kind, not as the standard has them"`
	SAEUnverified     uint64 `json:"sae_unverified,omitempty" doc:"Confirms that do not verify: of another password, or forged"`
	SAEReplayed       uint64 `json:"sae_replayed,omitempty" doc:"values or counters that had been there, or that were this radio's own"`
	SAEMismatched     uint64 `json:"sae_mismatched,omitempty" doc:"Commits of another method or group than the network's"`
	SAEOverCapacity   uint64 `json:"sae_over_capacity,omitempty" doc:"Commits that were too many at once: sent back for a token, or not computed"`
	PeeringUnverified uint64 `json:"peering_unverified,omitempty" doc:"they do not decrypt: forged, or changed on their way"`
	PeeringUnknownKey uint64 `json:"peering_unknown_key,omitempty" doc:"under a key that is not held: of a peer that has begun anew, or forged"`
	PeeringReplayed   uint64 `json:"peering_replayed,omitempty" doc:"authentic, and had been there"`
	PeeringMismatched uint64 `json:"peering_mismatched,omitempty" doc:"authentic, of a link that is over or does not fit"`
	CrowdedOut        uint64 `json:"crowded_out,omitempty" doc:"of any kind, that came faster than they were worked on"`
}

// Linked counts the peers that a link stands with.
func (r Radio) Linked() int {
	n := 0
	for _, p := range r.Peers {
		if p.Linked {
			n++
		}
	}
	return n
}

// RadioPeer is a station of the mesh with a link, or on its way to one.
type RadioPeer struct {
	MAC        string     `json:"mac"`
	Node       string     `json:"node,omitempty" doc:"canonical ID of the node that is said to have this address; peers prove the mesh's secret, not this"`
	Linked     bool       `json:"linked" doc:"frames can pass"`
	SAE        string     `json:"sae" doc:"where authentication stands: Nothing, Committed, Confirmed, Accepted"`
	Peering    string     `json:"peering" doc:"where peering stands: LISTEN, OPN_SNT, OPN_RCVD, CNF_RCVD, ESTAB, HOLDING"`
	Since      *time.Time `json:"since,omitempty" doc:"when the link was made, by this device's clock"`
	SignalDBm  float64    `json:"signal_dbm,omitempty" doc:"smoothed"`
	InactiveMS int64      `json:"inactive_ms" doc:"since its last frame"`
	Failures   int        `json:"failures,omitempty" doc:"in a row"`
	Reason     string     `json:"reason,omitempty" doc:"of the last failure"`
	Full       bool       `json:"full,omitempty" doc:"it has peers enough, as it said a moment ago"`
	RetryMS    int64      `json:"retry_ms,omitempty" doc:"until it is sought again at the earliest; others have their turn meanwhile"`
	TxMbps     float64    `json:"tx_mbps,omitempty" doc:"rate of the last frame to it"`
	RxMbps     float64    `json:"rx_mbps,omitempty" doc:"rate of the last frame from it"`
	Expected   float64    `json:"expected_mbps,omitempty" doc:"what the kernel thinks that the link carries; not of HaLow, whose driver's figures are those of other channels"`
	TxBytes    uint64     `json:"tx_bytes,omitempty"`
	RxBytes    uint64     `json:"rx_bytes,omitempty"`
	TxPackets  uint32     `json:"tx_packets,omitempty" doc:"frames sent to it, without repetitions"`
	TxRetries  uint32     `json:"tx_retries,omitempty"`
	TxFailed   uint32     `json:"tx_failed,omitempty"`
}

// MeshPeer is a member of the mesh that the device reaches directly, by radio or
// by cable.
type MeshPeer struct {
	Transport string     `json:"transport" enum:"radio,ethernet"`
	Iface     string     `json:"iface"`
	MAC       string     `json:"mac"`
	Node      string     `json:"node,omitempty" doc:"canonical ID, where it is known"`
	Radio     *RadioPeer `json:"radio,omitempty" doc:"the link over the air"`
	Routing   *Neighbour `json:"routing,omitempty" doc:"what routing knows of it; absent until it has heard it"`
}

// Peers returns the members that are reached directly, in the order of radios
// and neighbours.
func (s MeshStatus) Peers() []MeshPeer {
	list := []MeshPeer{}
	radios := map[string]bool{}
	for _, r := range s.Radios {
		radios[r.Iface] = true
		for _, p := range r.Peers {
			list = append(list, MeshPeer{Transport: "radio", Iface: r.Iface, MAC: p.MAC, Node: p.Node, Radio: &p})
		}
	}
	for _, n := range s.Neighbours {
		i := slices.IndexFunc(list, func(p MeshPeer) bool { return p.Iface == n.Iface && p.MAC == n.MAC })
		if i < 0 {
			p := MeshPeer{Transport: "ethernet", Iface: n.Iface, MAC: n.MAC}
			if radios[n.Iface] {
				p.Transport = "radio"
			}
			i, list = len(list), append(list, p)
		}
		list[i].Routing = &n
		list[i].Node = cmp.Or(list[i].Node, n.Node)
	}
	return list
}

// RadioScan is what a radio hears.
type RadioScan struct {
	Radio    string         `json:"radio"`
	Iface    string         `json:"iface"`
	Networks []RadioNetwork `json:"networks" doc:"the strongest first"`
}

// RadioNetwork is a network, or a member of a mesh, that a radio hears.
type RadioNetwork struct {
	BSSID     string  `json:"bssid"`
	Kind      string  `json:"kind" enum:"mesh,access point,ad hoc"`
	Name      string  `json:"name" doc:"mesh ID or SSID as it was sent: whatever a stranger likes; empty when hidden"`
	Own       bool    `json:"own" doc:"a mesh of our name; that it is ours, only its secret can prove"`
	Secured   bool    `json:"secured"`
	Channel   int     `json:"channel,omitempty"`
	FreqMHz   int     `json:"freq_mhz"`
	S1G       []int   `json:"s1g_channels,omitempty" doc:"heard by a HaLow radio: the channels below 1 GHz that those of 5 GHz may stand for, the likeliest first"`
	SignalDBm float64 `json:"signal_dbm,omitempty"`
	SeenMS    int64   `json:"seen_ms" doc:"ago"`
}

// RadioChannels is which channels a radio has and may use.
type RadioChannels struct {
	Radio    string         `json:"radio"`
	Country  string         `json:"country" doc:"whose rules hold; 00 is what is allowed everywhere"`
	Channels []RadioChannel `json:"channels"`
}

// RadioChannel is a channel of 20 MHz.
type RadioChannel struct {
	Channel     int      `json:"channel,omitempty" doc:"number; absent where 2.4 and 5 GHz have none"`
	FreqMHz     int      `json:"freq_mhz"`
	Usable      bool     `json:"usable" doc:"a mesh may be here"`
	Why         string   `json:"why,omitempty" doc:"why not"`
	InUse       bool     `json:"in_use"`
	MaxPowerDBm float64  `json:"max_power_dbm,omitempty"`
	Flags       []string `json:"flags,omitempty" doc:"disabled, no-ir (no transmission before another is heard), radar, indoor, no-40 …"`
	NoiseDBm    int      `json:"noise_dbm,omitempty" doc:"as measured, where the driver does"`
	BusyPercent float64  `json:"busy_percent,omitempty" doc:"of the time that the radio was there"`
}

// Legality is what the law lets a radio do where the mesh is, and where that is
// known from.
type Legality struct {
	Radio        string   `json:"radio,omitempty" doc:"empty for what holds for HaLow, whether there is such a radio or not"`
	Wanted       string   `json:"wanted" doc:"country of the network"`
	Country      string   `json:"country" doc:"whose rules hold; 00 is what is allowed everywhere"`
	Channel      string   `json:"channel" doc:"the mesh's, or for HaLow one that the country has"`
	Allowed      bool     `json:"allowed"`
	MaxEIRPDBm   float64  `json:"max_eirp_dbm,omitempty"`
	MaxWidthMHz  float64  `json:"max_width_mhz,omitempty"`
	DutyCyclePct float64  `json:"duty_cycle_percent,omitempty" doc:"of an hour that a station may send; absent without a limit"`
	AirtimeS     float64  `json:"airtime_s,omitempty" doc:"seconds that the radio sent in the last hour, as its driver counts them; only with a duty cycle"`
	AirtimeMaxS  float64  `json:"airtime_max_s,omitempty" doc:"seconds of an hour that the duty cycle leaves it; absent where nothing is counted"`
	Reasons      []string `json:"reasons"`
}

// CaptureRequest asks for frames as a radio hears them.
type CaptureRequest struct {
	Radio   string `json:"radio,omitempty" maxLength:"32" doc:"e.g. phy0; may be left out where there is one"`
	Seconds int    `json:"seconds,omitempty" minimum:"1" maximum:"60" default:"10"`
	Bytes   int    `json:"bytes,omitempty" minimum:"1024" maximum:"8388608" default:"4194304" doc:"of the capture, at most"`
}

// Bounds of a capture: it is made on a node's way over slow links, by a radio
// that has other work.
const (
	CaptureSeconds    = 10
	CaptureMaxSeconds = 60
	CaptureBytes      = 4 << 20
	CaptureMaxBytes   = 8 << 20
)

// ScanRequest asks for what a radio hears.
type ScanRequest struct {
	Radio string `json:"radio,omitempty" maxLength:"32" doc:"e.g. phy0; may be left out where there is one"`
}

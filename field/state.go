package field

import (
	"time"

	"halo.internal/health"
	"halo.internal/model"
)

// State is where a node is on its way into the network. The names are those of
// the whole product.
type State string

// The eight states, in the order in which a node passes them.
const (
	NoRadio        State = "no radio"
	DriverLoading  State = "driver loading"
	Searching      State = "searching"
	Authenticating State = "authenticating"
	NoRoute        State = "peered without a route"
	NoGateway      State = "routed without a gateway"
	NoOverlay      State = "gateway without overlay"
	Online         State = "online"
	Unknown        State = "unknown" // halo-mesh does not answer
)

// advice tells a person what a state means, and what to look at.
var advice = map[State]string{
	NoRadio:        "This node has no port that could carry the mesh. Plug in a cable or a radio.",
	DriverLoading:  "The network layer is starting.",
	Searching:      "No other member of the network is in reach yet.",
	Authenticating: "A member is in reach; the two are proving their keys to each other.",
	NoRoute:        "Neighbours are proven, but no way through the mesh is known yet.",
	NoGateway:      "The mesh works, but the gateway has not been heard.",
	NoOverlay:      "The gateway is heard; the encrypted overlay to it is not up.",
	Online:         "This node reaches the gateway through the encrypted overlay.",
	Unknown:        "halo-mesh does not answer, so the state of the mesh is not known.",
}

const (
	heardFor     = 100 * time.Second // announcements come every 30 s
	handshakeFor = 3 * time.Minute   // WireGuard renews a handshake in use every two
)

// judge names the state that a status shows. Ages are measured by the clock of
// the status itself: the node's may have been stepped since.
func judge(st *model.MeshStatus, h *health.Report) State {
	if st == nil {
		return Unknown
	}
	carriers, members := 0, 0
	for _, p := range st.Ports {
		if p.Role == "mesh" || p.Role == "searching" {
			carriers++
		}
		members += len(p.Members)
	}
	fresh := func(t *time.Time, d time.Duration) bool { return t != nil && model.Recent(st.Time, *t, d) }
	overlay := false
	for _, p := range st.Overlay {
		overlay = overlay || fresh(p.LastHandshake, handshakeFor)
	}
	switch {
	case starting(h):
		return DriverLoading
	case carriers == 0 && len(st.Neighbours) == 0:
		return NoRadio
	case members == 0 && len(st.Neighbours) == 0:
		return Searching
	case len(st.Neighbours) == 0:
		return Authenticating
	case st.Originators == 0:
		return NoRoute
	case !fresh(st.GatewayHeard, heardFor):
		return NoGateway
	case !overlay:
		return NoOverlay
	}
	return Online
}

// starting tells whether halo-mesh has not brought up its mesh interface yet.
func starting(h *health.Report) bool {
	if h == nil {
		return false
	}
	for _, c := range h.Checks {
		if c.Name == "bat0" && c.State == health.Starting {
			return true
		}
	}
	return false
}

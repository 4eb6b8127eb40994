package door

import (
	"halo.internal/local"
	"halo.internal/model/apitype"
)

// Route is a way from the door into halo-mesh.
type Route struct {
	Pattern string // as of http.ServeMux: method and path
	Role    string // that it needs
	Support bool   // its answer is part of the support bundle
	Told    bool   // asking for it is an event, though it changes nothing
}

// Routes are all ways there are: a viewer reads, an operator measures and
// looks after clients, an admin changes, and takes what tells who speaks with whom. What gateway-api hands to
// its halo-mesh, and what a console asks, has no place here.
var Routes = []Route{
	{"GET " + local.RouteHealth, apitype.RoleViewer, true, false},
	{"GET " + local.RouteStatus, apitype.RoleViewer, true, false},
	{"GET " + local.RouteEvents, apitype.RoleViewer, true, false},
	{"GET " + local.RouteMembership, apitype.RoleViewer, true, false},
	{"GET " + local.RouteChannels, apitype.RoleViewer, true, false},
	{"GET " + local.RouteLegal, apitype.RoleViewer, true, false},
	{"GET " + local.RouteTimeline, apitype.RoleViewer, true, false},
	{"GET " + local.RouteTopology, apitype.RoleViewer, true, false},
	{"GET " + local.RouteProfile, apitype.RoleViewer, true, false},
	{"GET " + local.RouteLeases, apitype.RoleViewer, true, false},
	{"GET " + local.RouteReservations, apitype.RoleViewer, true, false},
	{"PUT " + local.RouteReservations, apitype.RoleOperator, false, false},
	{"DELETE " + local.RouteReservation, apitype.RoleOperator, false, false},
	{"GET " + local.RouteFirewall, apitype.RoleViewer, true, false},
	{"GET " + local.RouteInterfaces, apitype.RoleViewer, true, false},
	{"GET " + local.RouteNeighbours, apitype.RoleViewer, true, false},
	{"GET " + local.RouteClients, apitype.RoleViewer, true, false},
	{"GET " + local.RouteBatman, apitype.RoleViewer, false, false},
	{"GET " + local.RouteFirewallPolicy, apitype.RoleViewer, true, false},
	{"GET " + local.RouteDNS, apitype.RoleViewer, true, false},
	{"GET " + local.RouteDoctor, apitype.RoleViewer, true, false},
	{"GET " + local.RouteSupport, apitype.RoleOperator, false, true},
	{"POST " + local.RouteDoctor, apitype.RoleOperator, false, false},
	{"POST " + local.RouteScan, apitype.RoleOperator, false, false},
	{"POST " + local.RouteCapture, apitype.RoleAdmin, false, false},
	{"PUT " + local.RouteOverlayKey, apitype.RoleAdmin, false, false},
}

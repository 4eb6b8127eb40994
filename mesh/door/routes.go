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
}

// Routes are all ways there are: a viewer reads, an operator measures and
// looks after clients, an admin changes, and takes what tells who speaks with whom. What gateway-api hands to
// its halo-mesh, and what a console asks, has no place here.
var Routes = []Route{
	{"GET " + local.RouteHealth, apitype.RoleViewer, true},
	{"GET " + local.RouteStatus, apitype.RoleViewer, true},
	{"GET " + local.RouteEvents, apitype.RoleViewer, true},
	{"GET " + local.RouteMembership, apitype.RoleViewer, true},
	{"GET " + local.RouteChannels, apitype.RoleViewer, true},
	{"GET " + local.RouteLegal, apitype.RoleViewer, true},
	{"GET " + local.RouteTimeline, apitype.RoleViewer, true},
	{"GET " + local.RouteTopology, apitype.RoleViewer, true},
	{"GET " + local.RouteProfile, apitype.RoleViewer, true},
	{"GET " + local.RouteLeases, apitype.RoleViewer, true},
	{"GET " + local.RouteReservations, apitype.RoleViewer, true},
	{"PUT " + local.RouteReservations, apitype.RoleOperator, false},
	{"DELETE " + local.RouteReservation, apitype.RoleOperator, false},
	{"GET " + local.RouteFirewall, apitype.RoleViewer, true},
	{"GET " + local.RouteDNS, apitype.RoleViewer, true},
	{"GET " + local.RouteDoctor, apitype.RoleViewer, true},
	{"GET " + local.RouteSupport, apitype.RoleOperator, false},
	{"POST " + local.RouteDoctor, apitype.RoleOperator, false},
	{"POST " + local.RouteScan, apitype.RoleOperator, false},
	{"POST " + local.RouteCapture, apitype.RoleAdmin, false},
	{"PUT " + local.RouteOverlayKey, apitype.RoleAdmin, false},
}

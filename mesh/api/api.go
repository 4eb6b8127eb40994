// Package api answers on halo-mesh's Unix socket: status, events and membership
// for the other processes of the device, and what gateway-api hands over. The
// routes and their client are in package local.
package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"halo.internal/health"
	"halo.internal/local"
	"halo.internal/model"
	"halo.internal/model/bundle"
)

// Daemon is what the socket stands for.
type Daemon interface {
	// Status is answered within local.AnswerWait, whatever the kernel does. Where it is to
	// be brief, it is without what the kernel has to be asked for, see local.Mesh.Brief.
	Status(ctx context.Context, brief bool) (model.MeshStatus, error)
	Events(boot, seq uint64) []model.Event
	// Timeline returns the recoveries that are kept, oldest first.
	Timeline() []model.Recovery
	// Membership returns an error wrapping ErrNone until the node has joined.
	Membership() (model.Membership, error)
	PutPeers([]model.AdmittedPeer) error
	PutAnnounce(model.Announce) error
	PutOperators(model.Operators) error
	// PutNames takes the names of all components of neurons.
	PutNames([]model.BrainName) error
	// PutRevoked takes the canonical IDs of all nodes that were revoked.
	PutRevoked([]string) error
	// RotateKey has the device's overlay key changed, in its own time.
	RotateKey() error
	Profile() (model.MeshProfile, error)
	PutProfile(model.ProfileChange) error
	// Backup is what halo-mesh adds to a backup of a gateway; Restore has the next start,
	// which follows soon, make this device what one says.
	Backup() (model.MeshBackup, error)
	Restore(model.MeshRestore) error
	// MeshSecret returns the mesh profile in use with its secret.
	MeshSecret() (bundle.Mesh, error)
	ShowClaimCode(code string) error
	EraseClaimCode() error
	// OfferTime takes the time of somebody who has logged in, if the device has none
	// that is better; that it has is no error.
	OfferTime(model.TimeOffer) error
	// GPSTime takes the time of the device's GPS receiver. One that makes no sense wraps
	// ErrInvalid.
	GPSTime(model.GPSTime) error
	// BatteryTime takes the time of a battery-backed clock, if the device has none that is
	// better; that it has is no error. One that makes no sense wraps ErrInvalid.
	BatteryTime(model.BatteryTime) error
	// Scan may take 20 s.
	Scan(context.Context, model.ScanRequest) (model.RadioScan, error)
	Channels() ([]model.RadioChannels, error)
	Legal() ([]model.Legality, error)
	// Capture writes a pcap; an error may come after the first octets.
	Capture(context.Context, model.CaptureRequest, io.Writer) error
	// Topology is the mesh as the device's routing sees it.
	Topology() (model.MeshTopology, error)
	// Leases are those of each interface on which the device gives addresses; an
	// interface without any is there with an empty list.
	Leases() (map[string][]model.Lease, error)
	// Reservations are the addresses that are kept for single clients. An error of
	// PutReservation wraps ErrBusy where another client has the address.
	Reservations() ([]model.Reservation, error)
	PutReservation(model.Reservation) error
	DeleteReservation(mac string) error
	Firewall() (model.FirewallStatus, error)
	// Interfaces, NeighbourTable and Clients are what the kernel and the services know of
	// the device's networks and who is there.
	Interfaces() ([]model.InterfaceDetail, error)
	NeighbourTable() ([]model.NeighbourEntry, error)
	Clients() ([]model.Client, error)
	// Batman returns one of batman-adv's tables, by name; ErrNone: there is none of that name.
	Batman(table string) (model.BatmanTables, error)
	// PutVisitors takes who besides members has a place in the overlay.
	PutVisitors([]model.Visitor) error
	// PutFirewallPolicy has what people have set of the firewall in force, for good or on
	// trial; one that does not fit wraps ErrInvalid.
	PutFirewallPolicy(model.FirewallOrder) error
	FirewallPolicy() (model.FirewallInForce, error)
	PreviewFirewall(model.FirewallQuestion) (model.FirewallPreview, error)
	DNS() (model.DNSStatus, error)
	// CheckCode returns nil when the code is this node's.
	CheckCode(model.CodeTry) error
	// Doctor tells what the path doctor knows; Examine has it look first, for up to
	// 20 s.
	Doctor() (model.DoctorReport, error)
	Examine(context.Context) (model.DoctorReport, error)
}

// Errors that a Daemon wraps; any other is the server's fault.
var (
	ErrNone    = errors.New("not there yet")
	ErrRole    = errors.New("only a gateway does this")
	ErrBusy    = errors.New("not now")
	ErrInvalid = errors.New("invalid")
)

// Handler returns the routes.
func Handler(d Daemon, graph *health.Graph) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET "+local.RouteHealth, graph)
	mux.HandleFunc("GET "+local.RouteStatus, func(w http.ResponseWriter, r *http.Request) {
		s, err := d.Status(r.Context(), r.URL.Query().Has("brief"))
		answer(w, s, err)
	})
	mux.HandleFunc("GET "+local.RouteEvents, func(w http.ResponseWriter, r *http.Request) {
		boot, seq, err := parseAfter(r.URL.Query().Get("after"))
		if err != nil {
			answer(w, nil, err)
			return
		}
		answer(w, d.Events(boot, seq), nil)
	})
	mux.HandleFunc("GET "+local.RouteTimeline, func(w http.ResponseWriter, _ *http.Request) {
		answer(w, d.Timeline(), nil)
	})
	get(mux, local.RouteMembership, d.Membership)
	put(mux, local.RoutePeers, d.PutPeers)
	put(mux, local.RouteAnnounce, d.PutAnnounce)
	put(mux, local.RouteOperators, d.PutOperators)
	put(mux, local.RouteNames, d.PutNames)
	put(mux, local.RouteRevoked, d.PutRevoked)
	put(mux, local.RouteProfile, d.PutProfile)
	mux.HandleFunc("PUT "+local.RouteOverlayKey, func(w http.ResponseWriter, _ *http.Request) { answer(w, nil, d.RotateKey()) })
	mux.HandleFunc("GET "+local.RouteProfile, func(w http.ResponseWriter, _ *http.Request) {
		p, err := d.Profile()
		answer(w, p, err)
	})
	mux.HandleFunc("GET "+local.RouteMeshSecret, func(w http.ResponseWriter, _ *http.Request) {
		m, err := d.MeshSecret()
		answer(w, m, err)
	})
	get(mux, local.RouteBackup, d.Backup)
	put(mux, local.RouteBackup, d.Restore)
	put(mux, local.RouteClaimCode, func(c model.ClaimCode) error { return d.ShowClaimCode(c.Code) })
	mux.HandleFunc("DELETE "+local.RouteClaimCode, func(w http.ResponseWriter, _ *http.Request) {
		answer(w, nil, d.EraseClaimCode())
	})
	put(mux, local.RouteTime, d.OfferTime)
	put(mux, local.RouteGPSTime, d.GPSTime)
	put(mux, local.RouteBatteryTime, d.BatteryTime)
	get(mux, local.RouteChannels, d.Channels)
	get(mux, local.RouteLegal, d.Legal)
	get(mux, local.RouteTopology, d.Topology)
	get(mux, local.RouteLeases, d.Leases)
	get(mux, local.RouteReservations, d.Reservations)
	put(mux, local.RouteReservations, d.PutReservation)
	mux.HandleFunc("DELETE "+local.RouteReservation, func(w http.ResponseWriter, r *http.Request) {
		answer(w, nil, d.DeleteReservation(r.PathValue("mac")))
	})
	get(mux, local.RouteFirewall, d.Firewall)
	get(mux, local.RouteInterfaces, d.Interfaces)
	get(mux, local.RouteNeighbours, d.NeighbourTable)
	get(mux, local.RouteClients, d.Clients)
	mux.HandleFunc("GET "+local.RouteBatman, func(w http.ResponseWriter, r *http.Request) {
		t, err := d.Batman(r.PathValue("table"))
		answer(w, t, err)
	})
	put(mux, local.RouteVisitors, d.PutVisitors)
	get(mux, local.RouteFirewallPolicy, d.FirewallPolicy)
	put(mux, local.RouteFirewallPolicy, d.PutFirewallPolicy)
	post(mux, local.RouteFirewallPreview, d.PreviewFirewall)
	get(mux, local.RouteDNS, d.DNS)
	mux.HandleFunc("POST "+local.RouteCode, func(w http.ResponseWriter, r *http.Request) {
		c, err := body[model.CodeTry](r)
		if err == nil {
			err = d.CheckCode(c)
		}
		answer(w, nil, err)
	})
	get(mux, local.RouteDoctor, d.Doctor)
	mux.HandleFunc("POST "+local.RouteDoctor, func(w http.ResponseWriter, r *http.Request) {
		report, err := d.Examine(r.Context())
		answer(w, report, err)
	})
	mux.HandleFunc("POST "+local.RouteScan, func(w http.ResponseWriter, r *http.Request) {
		q, err := body[model.ScanRequest](r)
		if err != nil {
			answer(w, nil, err)
			return
		}
		s, err := d.Scan(r.Context(), q)
		answer(w, s, err)
	})
	mux.HandleFunc("POST "+local.RouteCapture, func(w http.ResponseWriter, r *http.Request) { capture(w, r, d) })
	return mux
}

// capture answers with the file as it grows. What fails after its first octets
// cuts the answer off, so that nobody takes it for whole.
func capture(w http.ResponseWriter, r *http.Request, d Daemon) {
	q, err := body[model.CaptureRequest](r)
	if err != nil {
		answer(w, nil, err)
		return
	}
	out := &begun{ResponseWriter: w}
	err = d.Capture(r.Context(), q, out)
	switch {
	case err == nil:
	case out.begun:
		panic(http.ErrAbortHandler)
	default:
		answer(w, nil, err)
	}
}

// begun notes whether anything was written.
type begun struct {
	http.ResponseWriter
	begun bool
}

// Write sends the heading of a capture first.
func (b *begun) Write(p []byte) (int, error) {
	if !b.begun {
		b.begun = true
		b.Header().Set("Content-Type", "application/vnd.tcpdump.pcap")
	}
	return b.ResponseWriter.Write(p)
}

// body reads a JSON body.
func body[T any](r *http.Request) (v T, err error) {
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&v); err != nil {
		return v, fmt.Errorf("%w body: %w", ErrInvalid, err)
	}
	return v, nil
}

// get adds a route that answers with what is there.
func get[T any](mux *http.ServeMux, route string, what func() (T, error)) {
	mux.HandleFunc("GET "+route, func(w http.ResponseWriter, _ *http.Request) {
		v, err := what()
		answer(w, v, err)
	})
}

// put adds a route that hands a JSON body over.
func put[T any](mux *http.ServeMux, route string, hand func(T) error) {
	mux.HandleFunc("PUT "+route, func(w http.ResponseWriter, r *http.Request) {
		v, err := body[T](r)
		if err != nil {
			answer(w, nil, err)
			return
		}
		answer(w, nil, hand(v))
	})
}

// post adds a route that answers a JSON body.
func post[I, O any](mux *http.ServeMux, route string, ask func(I) (O, error)) {
	mux.HandleFunc("POST "+route, func(w http.ResponseWriter, r *http.Request) {
		in, err := body[I](r)
		if err != nil {
			answer(w, nil, err)
			return
		}
		out, err := ask(in)
		answer(w, out, err)
	})
}

// parseAfter reads BOOT.SEQ; empty is before everything.
func parseAfter(s string) (boot, seq uint64, err error) {
	if s == "" {
		return 0, 0, nil
	}
	b, q, ok := strings.Cut(s, ".")
	boot, errB := strconv.ParseUint(b, 10, 64)
	seq, errQ := strconv.ParseUint(q, 10, 64)
	if !ok || errB != nil || errQ != nil {
		return 0, 0, fmt.Errorf("%w query: after: expected BOOT.SEQ, got %q", ErrInvalid, s)
	}
	return boot, seq, nil
}

func answer(w http.ResponseWriter, v any, err error) {
	switch {
	case errors.Is(err, ErrNone):
		http.Error(w, err.Error(), http.StatusNotFound)
	case errors.Is(err, ErrRole), errors.Is(err, ErrBusy):
		http.Error(w, err.Error(), http.StatusConflict)
	case errors.Is(err, ErrInvalid):
		http.Error(w, err.Error(), http.StatusUnprocessableEntity)
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
	case v == nil:
		w.WriteHeader(http.StatusNoContent)
	default:
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v) // the client went away: nobody to tell
	}
}

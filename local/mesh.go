package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"halo.internal/health"
	"halo.internal/model"
	"halo.internal/model/bundle"
)

// Mesh is the client of halo-mesh's socket. Its methods may be called from any
// goroutine.
type Mesh struct{ client }

// client exchanges JSON on one socket.
type client struct {
	socket string // or what stands in its place in errors
	absent error  // wrapped when nobody answers
	way    time.Duration
	at     string // the console at which somebody asks; empty: none
	http   http.Client
}

// HeaderConsole names the console of the device at which somebody who has logged in there
// asks: what is more than a look is an event.
const HeaderConsole = "Halo-Console"

// Whoever needs another process asks it every FollowEvery. One that hangs takes
// connections and does not answer: after AnswerWait it counts as missing. Both
// together are less than the 5 s within which /health has to name it.
const (
	FollowEvery = 2 * time.Second
	AnswerWait  = 2500 * time.Millisecond // for what is answered from memory: every GET
)

const (
	workWait  = 10 * time.Second // for what is written to a card or handed to the kernel
	scanWait  = 25 * time.Second // a radio is done or gives up within 20 s
	maxAnswer = 4 << 20

	supportWait = time.Minute // each of its parts has some seconds
	maxSupport  = 16 << 20

	maxRefusal = 4 << 10
)

// Routes of halo-mesh's socket.
const (
	RouteHealth       = "/health"
	RouteStatus       = "/v1/status" // ?brief
	RouteBoard        = "/v1/board"  // of halo-agent
	RouteEvents       = "/v1/events" // ?after=BOOT.SEQ
	RoutePeers        = "/v1/overlay/peers"
	RouteAnnounce     = "/v1/announce"
	RouteOperators    = "/v1/operators"
	RouteNames        = "/v1/names"
	RouteCode         = "/v1/code"
	RouteClaimCode    = "/v1/boot/claim-code"
	RouteTime         = "/v1/time"
	RouteGPSTime      = "/v1/time/gps"
	RouteBatteryTime  = "/v1/time/battery"
	RouteTimeline     = "/v1/timeline"
	RouteMembership   = "/v1/membership"
	RouteChannels     = "/v1/radios/channels"
	RouteLegal        = "/v1/radios/legal"
	RouteScan         = "/v1/radios/scan"
	RouteCapture      = "/v1/radios/capture"
	RouteTopology     = "/v1/mesh/topology"
	RouteLeases       = "/v1/net/leases"
	RouteReservations = "/v1/net/reservations"
	RouteReservation  = RouteReservations + "/{mac}"
	RouteFirewall     = "/v1/net/firewall"
	RouteDNS          = "/v1/net/dns"

	RouteFirewallPolicy  = "/v1/net/firewall/policy"
	RouteFirewallPreview = "/v1/net/firewall/preview"
	RouteInterfaces      = "/v1/net/interfaces"
	RouteNeighbours      = "/v1/net/neighbours"
	RouteClients         = "/v1/net/clients"
	RouteBatman          = "/v1/mesh/batman/{table}"
	RouteVisitors        = "/v1/overlay/visitors"

	RouteSupport    = "/v1/support" // a tar.gz
	RouteRevoked    = "/v1/overlay/revoked"
	RouteOverlayKey = "/v1/overlay/key"
	RouteProfile    = "/v1/profile"
	RouteMeshSecret = "/v1/profile/secret"
	RouteDoctor     = "/v1/doctor" // POST examines first
	RouteBackup     = "/v1/backup" // secrets of the network; PUT restores
)

// ErrAbsent is wrapped when nobody answers on the socket: halo-mesh is not
// running (yet), or hangs.
var ErrAbsent = errors.New("halo-mesh does not answer")

// ErrNone is wrapped when halo-mesh answers that there is no such thing, for
// example no membership yet.
var ErrNone = errors.New("not there yet")

// ErrBusy is wrapped when halo-mesh answers that it cannot do so now, and
// ErrInvalid when what it was asked makes no sense to it.
var (
	ErrBusy    = errors.New("halo-mesh refuses")
	ErrInvalid = errors.New("halo-mesh does not take it")
)

// ErrDenied is wrapped when a door does not let somebody in, or not so far.
var ErrDenied = errors.New("the node's door stays shut")

// Refusal is an answer that says why there is no other. It wraps ErrNone, ErrBusy,
// ErrInvalid or ErrDenied where it is of that kind.
type Refusal struct {
	Status int    // of HTTP
	Text   string // halo-mesh's own words
	kind   error
}

// Error returns the kind and the words.
func (r *Refusal) Error() string {
	if r.kind == nil {
		return fmt.Sprintf("expected success, got %d: %s", r.Status, r.Text)
	}
	return r.kind.Error() + ": " + r.Text
}

// Unwrap returns the kind.
func (r *Refusal) Unwrap() error { return r.kind }

// NewMesh returns a client for the socket at that path (paths.MeshSocket).
func NewMesh(socket string) *Mesh { return &Mesh{newClient(socket, ErrAbsent)} }

// NewMeshAt returns a client for the socket at that path that asks for who has logged in at
// a console of the device; empty: nobody has.
func NewMeshAt(socket, console string) *Mesh {
	m := NewMesh(socket)
	m.at = console
	return m
}

// NewMeshOver returns a client that reaches a halo-mesh by another way than its
// socket, such as a node's door. where names it in errors; way is how much longer
// than on the same device an answer may take. The transport's own errors are
// returned as they are.
func NewMeshOver(t http.RoundTripper, where string, way time.Duration) *Mesh {
	return &Mesh{client{socket: where, absent: ErrAbsent, way: way, http: http.Client{
		Transport: t,
		// Nothing there redirects; following would carry a certificate along.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}}
}

// Close ends idle connections.
func (m *Mesh) Close() { m.http.CloseIdleConnections() }

func newClient(socket string, absent error) client {
	return client{socket: socket, absent: absent, http: http.Client{
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", socket)
			},
			MaxIdleConns:    2,
			IdleConnTimeout: time.Minute,
		},
	}}
}

// Health returns halo-mesh's dependency graph, healthy or not.
func (m *Mesh) Health(ctx context.Context) (health.Report, error) {
	var r health.Report
	err := m.do(ctx, http.MethodGet, RouteHealth, nil, &r)
	return r, err
}

// Status returns what halo-mesh knows of the node and its mesh.
func (m *Mesh) Status(ctx context.Context) (model.MeshStatus, error) {
	var s model.MeshStatus
	err := m.do(ctx, http.MethodGet, RouteStatus, nil, &s)
	return s, err
}

// Brief returns the status without what the kernel has to be asked for: no radios,
// neighbours, routes and peers of the overlay, and interfaces as they were at some moment
// of the last ten seconds. It is for those who ask every other second: of all that
// halo-mesh did for an idle network of 250, answering them in full was once the half.
func (m *Mesh) Brief(ctx context.Context) (model.MeshStatus, error) {
	var s model.MeshStatus
	err := m.do(ctx, http.MethodGet, RouteStatus+"?brief", nil, &s)
	return s, err
}

// Events returns the events after (boot, seq), oldest first; zeros ask for all
// that halo-mesh still holds.
func (m *Mesh) Events(ctx context.Context, boot, seq uint64) ([]model.Event, error) {
	var e []model.Event
	err := m.do(ctx, http.MethodGet, fmt.Sprintf("%s?after=%d.%d", RouteEvents, boot, seq), nil, &e)
	return e, err
}

// Timeline returns the recoveries that halo-mesh keeps, oldest first.
func (m *Mesh) Timeline(ctx context.Context) ([]model.Recovery, error) {
	var r []model.Recovery
	err := m.do(ctx, http.MethodGet, RouteTimeline, nil, &r)
	return r, err
}

// Topology returns the mesh as the device's routing sees it.
func (m *Mesh) Topology(ctx context.Context) (model.MeshTopology, error) {
	var t model.MeshTopology
	err := m.do(ctx, http.MethodGet, RouteTopology, nil, &t)
	return t, err
}

// Membership returns the node's membership; until it has joined, an error
// wrapping ErrNone.
func (m *Mesh) Membership(ctx context.Context) (model.Membership, error) {
	var s model.Membership
	err := m.do(ctx, http.MethodGet, RouteMembership, nil, &s)
	return s, err
}

// PutPeers hands over all nodes that the gateway has admitted.
func (m *Mesh) PutPeers(ctx context.Context, peers []model.AdmittedPeer) error {
	return m.do(ctx, http.MethodPut, RoutePeers, peers, nil)
}

// PutAnnounce hands over what the gateway's announcements say of its API.
func (m *Mesh) PutAnnounce(ctx context.Context, a model.Announce) error {
	return m.do(ctx, http.MethodPut, RouteAnnounce, a, nil)
}

// PutOperators hands over which certificates of operators are over.
func (m *Mesh) PutOperators(ctx context.Context, o model.Operators) error {
	return m.do(ctx, http.MethodPut, RouteOperators, o, nil)
}

// PutNames hands over the names of all components of neurons.
func (m *Mesh) PutNames(ctx context.Context, names []model.BrainName) error {
	return m.do(ctx, http.MethodPut, RouteNames, names, nil)
}

// CheckCode returns nil when the code is this node's; an error wrapping
// ErrInvalid when it is not, ErrBusy when too many were wrong lately, ErrNone
// while the node has none.
func (m *Mesh) CheckCode(ctx context.Context, c model.CodeTry) error {
	return m.do(ctx, http.MethodPost, RouteCode, c, nil)
}

// PutRevoked hands over the canonical IDs of all nodes that were revoked.
func (m *Mesh) PutRevoked(ctx context.Context, ids []string) error {
	return m.do(ctx, http.MethodPut, RouteRevoked, ids, nil)
}

// RotateKey has the device's overlay key changed, in its own time.
func (m *Mesh) RotateKey(ctx context.Context) error {
	return m.do(ctx, http.MethodPut, RouteOverlayKey, nil, nil)
}

// Profile returns the mesh profile, and how far a change of it is.
func (m *Mesh) Profile(ctx context.Context) (model.MeshProfile, error) {
	var p model.MeshProfile
	err := m.do(ctx, http.MethodGet, RouteProfile, nil, &p)
	return p, err
}

// PutProfile has the mesh profile changed.
func (m *Mesh) PutProfile(ctx context.Context, c model.ProfileChange) error {
	return m.do(ctx, http.MethodPut, RouteProfile, c, nil)
}

// MeshSecret returns the mesh profile in use with its secret, for new cards.
func (m *Mesh) MeshSecret(ctx context.Context) (bundle.Mesh, error) {
	var b bundle.Mesh
	err := m.do(ctx, http.MethodGet, RouteMeshSecret, nil, &b)
	return b, err
}

// Backup returns what halo-mesh adds to a backup: it has the network's key in it.
func (m *Mesh) Backup(ctx context.Context) (model.MeshBackup, error) {
	var b model.MeshBackup
	err := m.do(ctx, http.MethodGet, RouteBackup, nil, &b)
	return b, err
}

// Restore has the device become what a backup says by its next start, which follows in
// some seconds.
func (m *Mesh) Restore(ctx context.Context, r model.MeshRestore) error {
	return m.do(ctx, http.MethodPut, RouteBackup, r, nil)
}

// PutClaimCode has the code shown on the console and in the boot partition.
func (m *Mesh) PutClaimCode(ctx context.Context, code string) error {
	return m.do(ctx, http.MethodPut, RouteClaimCode, model.ClaimCode{Code: code}, nil)
}

// DeleteClaimCode erases the code wherever halo-mesh keeps or shows it.
func (m *Mesh) DeleteClaimCode(ctx context.Context) error {
	return m.do(ctx, http.MethodDelete, RouteClaimCode, nil, nil)
}

// OfferTime hands over the time of somebody who has logged in, for a device that knows
// none that is better. One that makes no sense is an error wrapping ErrInvalid.
func (m *Mesh) OfferTime(ctx context.Context, o model.TimeOffer) error {
	return m.do(ctx, http.MethodPut, RouteTime, o, nil)
}

// GPSTime hands over the time of the device's GPS receiver. One that makes no sense is an
// error wrapping ErrInvalid.
func (m *Mesh) GPSTime(ctx context.Context, t model.GPSTime) error {
	return m.do(ctx, http.MethodPut, RouteGPSTime, t, nil)
}

// BatteryTime hands over the time of a battery-backed clock. One that makes no sense is an
// error wrapping ErrInvalid.
func (m *Mesh) BatteryTime(ctx context.Context, t model.BatteryTime) error {
	return m.do(ctx, http.MethodPut, RouteBatteryTime, t, nil)
}

// Channels returns the channels of all radios.
func (m *Mesh) Channels(ctx context.Context) ([]model.RadioChannels, error) {
	var c []model.RadioChannels
	err := m.do(ctx, http.MethodGet, RouteChannels, nil, &c)
	return c, err
}

// Legal returns what the law lets the radios do.
func (m *Mesh) Legal(ctx context.Context) ([]model.Legality, error) {
	var l []model.Legality
	err := m.do(ctx, http.MethodGet, RouteLegal, nil, &l)
	return l, err
}

// Leases returns the addresses that the device has given to clients, by
// interface; where it gives none, an error wrapping ErrNone.
func (m *Mesh) Leases(ctx context.Context) (map[string][]model.Lease, error) {
	var l map[string][]model.Lease
	err := m.do(ctx, http.MethodGet, RouteLeases, nil, &l)
	return l, err
}

// Reservations returns the addresses that are kept for single clients.
func (m *Mesh) Reservations(ctx context.Context) ([]model.Reservation, error) {
	var l []model.Reservation
	err := m.do(ctx, http.MethodGet, RouteReservations, nil, &l)
	return l, err
}

// PutReservation has an address kept for a client; an error wraps ErrBusy where another
// client has it.
func (m *Mesh) PutReservation(ctx context.Context, r model.Reservation) error {
	return m.do(ctx, http.MethodPut, RouteReservations, r, nil)
}

// DeleteReservation gives the address that is kept for a client back.
func (m *Mesh) DeleteReservation(ctx context.Context, mac string) error {
	return m.do(ctx, http.MethodDelete, RouteReservations+"/"+url.PathEscape(mac), nil, nil)
}

// Firewall returns what the firewall does and has counted.
func (m *Mesh) Firewall(ctx context.Context) (model.FirewallStatus, error) {
	var s model.FirewallStatus
	err := m.do(ctx, http.MethodGet, RouteFirewall, nil, &s)
	return s, err
}

// PutFirewallPolicy has what people have set of a gateway's firewall in force, for good
// or on trial; an error wraps ErrInvalid where it does not fit.
func (m *Mesh) PutFirewallPolicy(ctx context.Context, o model.FirewallOrder) error {
	return m.do(ctx, http.MethodPut, RouteFirewallPolicy, o, nil)
}

// FirewallPolicy returns which policies are kept and on trial.
func (m *Mesh) FirewallPolicy(ctx context.Context) (model.FirewallInForce, error) {
	var f model.FirewallInForce
	err := m.do(ctx, http.MethodGet, RouteFirewallPolicy, nil, &f)
	return f, err
}

// PreviewFirewall returns what a policy would change; an error wraps ErrInvalid where it
// does not fit.
func (m *Mesh) PreviewFirewall(ctx context.Context, q model.FirewallQuestion) (model.FirewallPreview, error) {
	var p model.FirewallPreview
	err := m.do(ctx, http.MethodPost, RouteFirewallPreview, q, &p)
	return p, err
}

// Interfaces returns the device's network interfaces with what their drivers count.
func (m *Mesh) Interfaces(ctx context.Context) ([]model.InterfaceDetail, error) {
	var l []model.InterfaceDetail
	err := m.do(ctx, http.MethodGet, RouteInterfaces, nil, &l)
	return l, err
}

// NeighbourTable returns the hosts whose hardware addresses the kernel knows.
func (m *Mesh) NeighbourTable(ctx context.Context) ([]model.NeighbourEntry, error) {
	var l []model.NeighbourEntry
	err := m.do(ctx, http.MethodGet, RouteNeighbours, nil, &l)
	return l, err
}

// Clients returns the hosts behind the device that are no members.
func (m *Mesh) Clients(ctx context.Context) ([]model.Client, error) {
	var l []model.Client
	err := m.do(ctx, http.MethodGet, RouteClients, nil, &l)
	return l, err
}

// Batman returns one of batman-adv's tables (model.BatmanOriginators and so on).
func (m *Mesh) Batman(ctx context.Context, table string) (model.BatmanTables, error) {
	var t model.BatmanTables
	err := m.do(ctx, http.MethodGet, strings.Replace(RouteBatman, "{table}", url.PathEscape(table), 1), nil, &t)
	return t, err
}

// PutVisitors hands over who besides members has a place in the overlay.
func (m *Mesh) PutVisitors(ctx context.Context, list []model.Visitor) error {
	return m.do(ctx, http.MethodPut, RouteVisitors, list, nil)
}

// DNS returns what the name server knows and has done.
func (m *Mesh) DNS(ctx context.Context) (model.DNSStatus, error) {
	var s model.DNSStatus
	err := m.do(ctx, http.MethodGet, RouteDNS, nil, &s)
	return s, err
}

// Support writes the support bundle, a tar.gz, to w. After an error w may have a
// part of it.
func (m *Mesh) Support(ctx context.Context, w io.Writer) error {
	return m.doIn(ctx, supportWait, http.MethodGet, RouteSupport, nil, func(r io.Reader) error {
		n, err := io.Copy(w, io.LimitReader(r, maxSupport+1))
		if err == nil && n > maxSupport {
			err = fmt.Errorf("expected a support bundle of at most %d octets", maxSupport)
		}
		return err
	})
}

// Doctor returns what the path doctor knows.
func (m *Mesh) Doctor(ctx context.Context) (model.DoctorReport, error) {
	var r model.DoctorReport
	err := m.do(ctx, http.MethodGet, RouteDoctor, nil, &r)
	return r, err
}

// Examine has the path doctor look at all paths in use first. Where it takes longer
// than 20 s, the report says how many are being examined still.
func (m *Mesh) Examine(ctx context.Context) (model.DoctorReport, error) {
	var r model.DoctorReport
	err := m.doIn(ctx, scanWait, http.MethodPost, RouteDoctor, nil, into(&r))
	return r, err
}

// Scan has a radio look who is there, which takes some seconds.
func (m *Mesh) Scan(ctx context.Context, q model.ScanRequest) (model.RadioScan, error) {
	var s model.RadioScan
	err := m.doIn(ctx, scanWait, http.MethodPost, RouteScan, q, into(&s))
	return s, err
}

// Capture writes the pcap of what a radio hears and sends to w. After an error
// w may have a part of it.
func (m *Mesh) Capture(ctx context.Context, q model.CaptureRequest, w io.Writer) error {
	return m.doIn(ctx, model.CaptureMaxSeconds*time.Second+workWait, http.MethodPost, RouteCapture, q, func(r io.Reader) error {
		n, err := io.Copy(w, io.LimitReader(r, model.CaptureMaxBytes+1))
		if err == nil && n > model.CaptureMaxBytes {
			err = fmt.Errorf("expected a capture of at most %d octets", model.CaptureMaxBytes)
		}
		return err
	})
}

func (m *client) do(ctx context.Context, method, route string, in, out any) error {
	wait := workWait
	if method == http.MethodGet {
		wait = AnswerWait
	}
	return m.doIn(ctx, wait, method, route, in, into(out))
}

// doIn waits so long for the whole of an answer, whose body read takes.
func (m *client) doIn(ctx context.Context, wait time.Duration, method, route string, in any, read func(io.Reader) error) error {
	if err := m.exchange(ctx, wait, method, route, in, read); err != nil {
		return fmt.Errorf("%s %s: %w", method, route, err)
	}
	return nil
}

// into reads JSON, or nothing where out is nil.
func into(out any) func(io.Reader) error {
	return func(r io.Reader) error {
		answer, err := io.ReadAll(io.LimitReader(r, maxAnswer+1))
		switch {
		case err != nil:
			return err
		case len(answer) > maxAnswer:
			return fmt.Errorf("expected an answer of at most %d octets", maxAnswer)
		case out == nil:
			return nil
		}
		if err := json.Unmarshal(answer, out); err != nil {
			return fmt.Errorf("expected JSON: %w", err)
		}
		return nil
	}
}

func (m *client) exchange(ctx context.Context, wait time.Duration, method, route string, in any, read func(io.Reader) error) error {
	wait += m.way
	limited, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(limited, method, "http://halo"+route, body)
	if err != nil {
		return err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if m.at != "" {
		req.Header.Set(HeaderConsole, m.at)
	}
	resp, err := m.http.Do(req)
	if err != nil {
		op, ok := errors.AsType[*net.OpError](err)
		if u, wrapped := errors.AsType[*url.Error](err); wrapped && m.way > 0 {
			err = u.Err // whose URL says nothing
		}
		switch {
		case limited.Err() != nil && ctx.Err() == nil:
			return m.hangs(wait)
		case m.way > 0:
			return err
		case ok && op.Op == "dial":
			return fmt.Errorf("%w on %s: %w", m.absent, m.socket, op.Err)
		}
		return err
	}
	defer resp.Body.Close()
	// /health says with its status that something is wrong, with its body what.
	sick := resp.StatusCode == http.StatusServiceUnavailable && route == RouteHealth
	if resp.StatusCode/100 != 2 && !sick {
		read = func(r io.Reader) error { return refusal(resp, r) }
	}
	err = read(resp.Body)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		return m.hangs(wait)
	}
	return err
}

// refusal makes an error of an answer that is none.
func refusal(resp *http.Response, r io.Reader) error {
	text, err := io.ReadAll(io.LimitReader(r, maxRefusal))
	if err != nil {
		return err
	}
	f := &Refusal{Status: resp.StatusCode, Text: firstLine(text)}
	switch f.Status {
	case http.StatusNotFound:
		f.kind = ErrNone
	case http.StatusConflict:
		f.kind = ErrBusy
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusTooManyRequests:
		f.kind = ErrDenied
	case http.StatusUnprocessableEntity:
		f.kind = ErrInvalid
	}
	return f
}

// hangs is the error of a process that is there and does not answer.
func (m *client) hangs(wait time.Duration) error {
	return fmt.Errorf("%w on %s within %s: it hangs", m.absent, m.socket, wait)
}

func firstLine(b []byte) string {
	line, _, _ := strings.Cut(string(b), "\n")
	return line[:min(len(line), 300)]
}

package gateway

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"

	"halo.internal/gateway/api"
	"halo.internal/gateway/firewall"
	"halo.internal/gateway/meshlink"
	"halo.internal/health"
	"halo.internal/identity"
	"halo.internal/local"
	"halo.internal/model"
	"halo.internal/model/bundle"
)

// meshClient is what the gateway asks of halo-mesh.
type meshClient interface {
	meshlink.Client
	api.Radios
	api.Services
	api.Tables
	firewall.Mesh
}

// meshClient returns halo-mesh's socket, or alone something that says that
// there is none.
func (d *daemon) meshClient(own identity.Key) meshClient {
	if d.Alone {
		return noMesh{own}
	}
	return local.NewMesh(d.Mesh)
}

// meshKeeper returns who keeps halo-mesh's part of backups.
func (d *daemon) meshKeeper(p *prepared) meshKeeper {
	if d.Alone {
		return soloKeeper{d, p}
	}
	return local.NewMesh(d.Mesh)
}

func (d *daemon) meshMissing() health.State {
	if d.Alone {
		return health.Degraded
	}
	return health.Failed
}

// showCode shows the claim code where people look for it.
func (d *daemon) showCode(l *meshlink.Link, code string) {
	l.ShowClaimCode(code)
	if d.Alone && code != "" {
		fmt.Fprintf(d.Console, "Claim code of this gateway: %s\n", code)
	}
}

// noMesh stands where halo-mesh is not.
type noMesh struct{ own identity.Key }

func (noMesh) absent() error {
	return fmt.Errorf("%w: this gateway runs alone, without a mesh", local.ErrAbsent)
}

func (m noMesh) Status(context.Context) (model.MeshStatus, error) {
	return model.MeshStatus{}, m.absent()
}

func (m noMesh) Brief(context.Context) (model.MeshStatus, error) {
	return model.MeshStatus{}, m.absent()
}

func (m noMesh) PutPeers(context.Context, []model.AdmittedPeer) error { return m.absent() }

func (m noMesh) PutAnnounce(context.Context, model.Announce) error { return m.absent() }

func (m noMesh) PutOperators(context.Context, model.Operators) error { return m.absent() }

func (m noMesh) PutNames(context.Context, []model.BrainName) error { return m.absent() }

func (m noMesh) PutRevoked(context.Context, []string) error { return m.absent() }

func (m noMesh) Profile(context.Context) (model.MeshProfile, error) {
	return model.MeshProfile{}, m.absent()
}

func (m noMesh) PutProfile(context.Context, model.ProfileChange) error { return m.absent() }

func (m noMesh) MeshSecret(context.Context) (bundle.Mesh, error) { return bundle.Mesh{}, m.absent() }

func (m noMesh) OfferTime(context.Context, model.TimeOffer) error { return m.absent() }

func (m noMesh) PutClaimCode(context.Context, string) error { return m.absent() }

func (m noMesh) DeleteClaimCode(context.Context) error { return m.absent() }

func (m noMesh) Scan(context.Context, model.ScanRequest) (model.RadioScan, error) {
	return model.RadioScan{}, m.absent()
}

func (m noMesh) Channels(context.Context) ([]model.RadioChannels, error) { return nil, m.absent() }

func (m noMesh) Legal(context.Context) ([]model.Legality, error) { return nil, m.absent() }

func (m noMesh) Timeline(context.Context) ([]model.Recovery, error) { return nil, m.absent() }

func (m noMesh) Topology(context.Context) (model.MeshTopology, error) {
	return model.MeshTopology{}, m.absent()
}

func (m noMesh) Leases(context.Context) (map[string][]model.Lease, error) { return nil, m.absent() }

func (m noMesh) Reservations(context.Context) ([]model.Reservation, error) { return nil, m.absent() }

func (m noMesh) PutReservation(context.Context, model.Reservation) error { return m.absent() }

func (m noMesh) DeleteReservation(context.Context, string) error { return m.absent() }

func (m noMesh) Firewall(context.Context) (model.FirewallStatus, error) {
	return model.FirewallStatus{}, m.absent()
}

func (m noMesh) Interfaces(context.Context) ([]model.InterfaceDetail, error) { return nil, m.absent() }

func (m noMesh) NeighbourTable(context.Context) ([]model.NeighbourEntry, error) {
	return nil, m.absent()
}

func (m noMesh) Clients(context.Context) ([]model.Client, error) { return nil, m.absent() }

func (m noMesh) Batman(context.Context, string) (model.BatmanTables, error) {
	return model.BatmanTables{}, m.absent()
}

// Membership has the overlay key that this gateway has in a mesh, where nobody has changed it.
func (m noMesh) Membership(context.Context) (model.Membership, error) {
	key := m.own.WireGuardPublic()
	return model.Membership{GatewayWireGuardKey: base64.StdEncoding.EncodeToString(key[:])}, nil
}

func (m noMesh) PutVisitors(context.Context, []model.Visitor) error { return m.absent() }

func (m noMesh) PutFirewallPolicy(context.Context, model.FirewallOrder) error { return m.absent() }

func (m noMesh) PreviewFirewall(context.Context, model.FirewallQuestion) (model.FirewallPreview, error) {
	return model.FirewallPreview{}, m.absent()
}

func (m noMesh) DNS(context.Context) (model.DNSStatus, error) { return model.DNSStatus{}, m.absent() }

func (m noMesh) Support(context.Context, io.Writer) error { return m.absent() }

func (m noMesh) Doctor(context.Context) (model.DoctorReport, error) {
	return model.DoctorReport{}, m.absent()
}

func (m noMesh) Examine(context.Context) (model.DoctorReport, error) {
	return model.DoctorReport{}, m.absent()
}

func (m noMesh) Capture(context.Context, model.CaptureRequest, io.Writer) error { return m.absent() }

package ctl_test

import (
	"context"
	"fmt"
	"io"

	"halo.internal/mesh/api"
	"halo.internal/model"
	"halo.internal/model/bundle"
)

var _ api.Daemon = (*mast)(nil)

// nothing is an answer to all that a mast has not.
func nothing() error { return fmt.Errorf("%w: halo-mesh answers that it has none", api.ErrNone) }

func (*mast) Membership() (model.Membership, error) { return model.Membership{}, nothing() }
func (*mast) PutPeers([]model.AdmittedPeer) error   { return api.ErrRole }
func (*mast) PutAnnounce(model.Announce) error      { return api.ErrRole }
func (*mast) PutRevoked([]string) error             { return api.ErrRole }
func (*mast) PutProfile(model.ProfileChange) error  { return api.ErrRole }
func (*mast) Backup() (model.MeshBackup, error)     { return model.MeshBackup{}, api.ErrRole }
func (*mast) Restore(model.MeshRestore) error       { return api.ErrRole }
func (*mast) MeshSecret() (bundle.Mesh, error)      { return bundle.Mesh{}, api.ErrRole }
func (*mast) Profile() (model.MeshProfile, error)   { return model.MeshProfile{}, nothing() }
func (*mast) RotateKey() error                      { return nothing() }
func (*mast) PutOperators(model.Operators) error    { return api.ErrRole }
func (*mast) PutNames([]model.BrainName) error      { return api.ErrRole }
func (*mast) ShowClaimCode(string) error            { return api.ErrRole }
func (*mast) OfferTime(model.TimeOffer) error       { return api.ErrRole }
func (*mast) GPSTime(model.GPSTime) error           { return nothing() }
func (*mast) BatteryTime(model.BatteryTime) error   { return nothing() }
func (*mast) EraseClaimCode() error                 { return api.ErrRole }
func (*mast) CheckCode(model.CodeTry) error         { return nothing() }
func (*mast) Scan(context.Context, model.ScanRequest) (model.RadioScan, error) {
	return model.RadioScan{}, nothing()
}
func (*mast) Channels() ([]model.RadioChannels, error)   { return nil, nothing() }
func (*mast) Legal() ([]model.Legality, error)           { return nil, nothing() }
func (*mast) Timeline() []model.Recovery                 { return nil }
func (*mast) Reservations() ([]model.Reservation, error) { return reservations(), nil }
func (*mast) PutReservation(model.Reservation) error {
	return fmt.Errorf("%w: the address is in use", api.ErrBusy)
}
func (*mast) DeleteReservation(string) error { return nothing() }
func (*mast) Topology() (model.MeshTopology, error) {
	return topology(), nil
}
func (m *mast) Interfaces() (list []model.InterfaceDetail, err error) {
	s, err := m.Status(context.Background(), false)
	for _, i := range s.Interfaces {
		list = append(list, model.InterfaceDetail{Interface: i})
	}
	return list, err
}
func (*mast) NeighbourTable() ([]model.NeighbourEntry, error) { return nil, nil }
func (*mast) Clients() ([]model.Client, error)                { return nil, nil }
func (*mast) Batman(string) (model.BatmanTables, error)       { return model.BatmanTables{}, nothing() }
func (*mast) PutVisitors([]model.Visitor) error               { return api.ErrRole }
func (*mast) PutFirewallPolicy(model.FirewallOrder) error     { return api.ErrRole }
func (*mast) FirewallPolicy() (model.FirewallInForce, error) {
	return model.FirewallInForce{}, api.ErrRole
}
func (*mast) PreviewFirewall(model.FirewallQuestion) (model.FirewallPreview, error) {
	return model.FirewallPreview{}, api.ErrRole
}
func (*mast) Doctor() (model.DoctorReport, error) { return model.DoctorReport{}, nothing() }
func (*mast) Examine(context.Context) (model.DoctorReport, error) {
	return model.DoctorReport{}, nothing()
}
func (*mast) Capture(context.Context, model.CaptureRequest, io.Writer) error {
	return nothing()
}

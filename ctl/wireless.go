package ctl

import (
	"context"
	"io"

	"halo.internal/ctl/table"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

func (a *app) netInterfaces(ctx context.Context, from air, _ []string) error {
	list, err := from.Interfaces(ctx)
	if err != nil {
		return err
	}
	return a.show(items[model.InterfaceDetail]{list}, func(w io.Writer) error {
		t := table.New("INTERFACE", "KIND", "PORT", "LINK", "MAC", "RX", "TX", "ADDRESSES",
			"MTU", "OF", "CARRIER", "SPEED", "DUPLEX", "CARRIER CHANGES", "RX PACKETS", "TX PACKETS", "RX ERRORS", "TX ERRORS", "RX DROPPED", "TX DROPPED").Wide(8)
		for _, i := range list {
			link := "down"
			if i.Up {
				link = "up"
			}
			row := []any{i.Name, i.Kind, i.PortRole, link, i.MAC, table.Bytes(int64(i.RxBytes)), table.Bytes(int64(i.TxBytes)), words(i.Addresses)}
			if d := i.Detail; d != nil {
				row = append(row, d.MTU, d.Master, d.Carrier, mbps(float64(d.SpeedMbps)), d.Duplex, d.CarrierChanges, d.RxPackets, d.TxPackets, d.RxErrors, d.TxErrors, d.RxDropped, d.TxDropped)
			}
			t.Row(row...)
		}
		return t.Write(w)
	})
}

func (a *app) netWireless(ctx context.Context, from air, _ []string) error {
	list, err := from.Wireless(ctx)
	if err != nil {
		return err
	}
	return a.show(items[model.Radio]{list}, func(w io.Writer) error {
		t := table.New(append(radioHeading, "STATE")...)
		for _, r := range list {
			t.Row(append(radioCells(r), radioState(r))...)
		}
		healing, healed := healingTable(list)
		return writeTables(w, []section{{1, t}, {healed, healing}})
	})
}

func (a *app) netAssociations(ctx context.Context, from air, _ []string) error {
	list, err := from.Associations(ctx)
	if err != nil {
		return err
	}
	names, err := a.namesOf(ctx, from)
	if err != nil {
		return err
	}
	return a.show(items[apitype.Association]{list}, func(w io.Writer) error {
		t := table.New("RADIO", "STATION", "NODE", "STATE", "SINCE", "SIGNAL", "TX RATE", "RX RATE", "HEARD", "SENT", "REPEATED", "FAILED",
			"INTERFACE", "EXPECTED", "TX", "RX", "SAE", "PEERING").Wide(12)
		for _, s := range list {
			state := "linked"
			if !s.Linked {
				state = s.Peering + ", SAE " + s.SAE
			}
			since, signal := table.Cell{}, table.Cell{}
			if s.Since != nil {
				since = table.Age(from.Now(), *s.Since)
			}
			if s.SignalDBm != 0 {
				signal = dBm(s.SignalDBm)
			}
			t.Row(s.Radio, s.MAC, nameOf(names, s.Node), state, since, signal, mbps(s.TxMbps), mbps(s.RxMbps), agoMS(s.InactiveMS), s.TxPackets, s.TxRetries, s.TxFailed,
				s.Iface, mbps(s.Expected), table.Bytes(int64(s.TxBytes)), table.Bytes(int64(s.RxBytes)), s.SAE, s.Peering)
		}
		return t.Write(w)
	})
}

// mbps is a rate; zero is not known.
func mbps(rate float64) table.Cell {
	if rate == 0 {
		return table.Cell{}
	}
	return table.In("Mbit/s", "", rate)
}

// Wireless asks halo-mesh for the radios, without their peers.
func (d device) Wireless(ctx context.Context) ([]model.Radio, error) {
	s, err := d.Status(ctx)
	for i := range s.Radios {
		s.Radios[i].Peers = []model.RadioPeer{}
	}
	return append([]model.Radio{}, s.Radios...), err
}

// Associations asks halo-mesh for the stations of all radios.
func (d device) Associations(ctx context.Context) ([]apitype.Association, error) {
	s, err := d.Status(ctx)
	list := []apitype.Association{}
	for _, r := range s.Radios {
		for _, p := range r.Peers {
			list = append(list, apitype.Association{Radio: r.Name, Iface: r.Iface, RadioPeer: p})
		}
	}
	return list, err
}

// Channel asks halo-mesh where the mesh is.
func (d device) Channel(ctx context.Context) (apitype.MeshChannel, error) {
	p, err := d.Profile(ctx)
	return apitype.MeshChannel{Channel: p.Channel, Width: p.Width, HaLowChannel: p.HaLowChannel, HaLowScheme: p.HaLowScheme, Phase: p.Phase}, err
}

// Reservation looks for a client among those that an address is kept for.
func (d device) Reservation(ctx context.Context, mac string) (model.Reservation, error) {
	list, err := d.Reservations(ctx)
	if err != nil {
		return model.Reservation{}, err
	}
	return reservationOf(list, mac)
}

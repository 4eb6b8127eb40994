package ctl

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"github.com/spf13/cobra"

	"halo.internal/ctl/table"
	"halo.internal/model"
	"halo.internal/model/apitype"
)

const reserveLong = `Reserve keeps an address for one host, known by its MAC: it gets that address, and
nobody else does. A device keeps those of its own network of clients, 10.43.N.0/24
(haloctl net interfaces shows N at br0); the gateway keeps those of the mesh too,
10.41.0.0/16, for guests on ports that are bridged into it. Nodes have no use for
one there: their MACs change. With a name, a client is called so in .halo, below the
device's own name, whatever it calls itself.

It holds at once and is kept on the device's card. A host that has another address
moves when it renews its lease. An address that another host has is refused.`

func (a *app) netReserve() *cobra.Command {
	g := group("reserve", "addresses that are kept for single clients",
		a.askDevice("list", "which addresses are kept for whom", cobra.NoArgs, a.listReservations),
		a.askDevice("show MAC", "which address is kept for a client", cobra.ExactArgs(1), a.showReservation),
		a.askDevice("add MAC ADDRESS [NAME]", "keep an address for a client", cobra.RangeArgs(2, 3), a.addReservation),
		a.askDevice("remove MAC", "give the address that is kept for a client back", cobra.ExactArgs(1), a.removeReservation),
	)
	g.Long = reserveLong
	return g
}

func (a *app) listReservations(ctx context.Context, from air, _ []string) error {
	list, err := from.Reservations(ctx)
	if err != nil {
		return err
	}
	return a.show(items[model.Reservation]{list}, reservationTable(list...).Write)
}

func (a *app) showReservation(ctx context.Context, from air, args []string) error {
	r, err := from.Reservation(ctx, args[0])
	if err != nil {
		return notFound(err, "haloctl net reserve list shows what is kept")
	}
	return a.show(r, reservationTable(r).Write)
}

func reservationTable(list ...model.Reservation) *table.Table {
	t := table.New("ADDRESS", "MAC", "NAME", "STATE")
	for _, r := range list {
		state := "holds"
		if r.Waits {
			state = "waits: this device gives addresses of other networks now"
		}
		t.Row(r.Address, r.MAC, r.Name, state)
	}
	return t
}

// reservationOf finds that for a MAC, in whatever form it is written.
func reservationOf(list []model.Reservation, mac string) (model.Reservation, error) {
	want, err := net.ParseMAC(mac)
	if err != nil {
		return model.Reservation{}, &usageError{fmt.Errorf("MAC: expected one such as 02:00:00:00:00:20, got %q", mac)}
	}
	for _, r := range list {
		if r.MAC == want.String() {
			return r, nil
		}
	}
	return model.Reservation{}, &apitype.Problem{Title: "Not Found", Status: 404, Detail: "no address is kept for " + want.String()}
}

func (a *app) addReservation(ctx context.Context, from air, args []string) error {
	r := model.Reservation{MAC: args[0]}
	var err error
	if r.Address, err = netip.ParseAddr(args[1]); err != nil {
		return &usageError{fmt.Errorf("address: expected one of the device's clients, such as 10.43.7.20, or, at the gateway, of the mesh, such as 10.41.0.20, got %q", args[1])}
	}
	if len(args) > 2 {
		r.Name = args[2]
	}
	if err := from.PutReservation(ctx, r); err != nil {
		return notFound(err, "haloctl net leases shows who has which address")
	}
	a.say("%s is kept for %s.", r.Address, r.MAC)
	return nil
}

func (a *app) removeReservation(ctx context.Context, from air, args []string) error {
	if err := from.DeleteReservation(ctx, args[0]); err != nil {
		return notFound(err, "haloctl net reserve list shows what is kept")
	}
	a.say("Nothing is kept for %s any more.", args[0])
	return nil
}

package ctl

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"halo.internal/ctl/table"
)

const netLong = `Net shows what a device does for its networks: of the gateway, with --node of
another node, with --local of the device that haloctl runs on.`

func (a *app) netCommand() *cobra.Command {
	g := group("net", "interfaces, radios, addresses given, firewall and names of a device",
		a.askDevice("interfaces", "network interfaces and what they are for; -o wide: what their drivers count", cobra.NoArgs, a.netInterfaces),
		a.askDevice("wireless", "radios: channel, width, power, and what was done to bring one back", cobra.NoArgs, a.netWireless),
		a.askDevice("associations", "stations that radios have links with: signal, rates, repetitions", cobra.NoArgs, a.netAssociations),
		a.askDevice("leases", "addresses that the device has given to clients", cobra.NoArgs, a.netLeases),
		a.netReserve(),
		a.askDevice("neighbours", "hosts whose hardware addresses the device knows", cobra.NoArgs, a.netNeighbours),
		a.askDevice("firewall", "what the firewall lets through and drops, counted since the start", cobra.NoArgs, a.netFirewall),
		a.askDevice("dns", "names that the device knows, and what it was asked", cobra.NoArgs, a.netDNS),
	)
	g.Long = netLong
	return g
}

func (a *app) netLeases(ctx context.Context, from air, _ []string) error {
	leases, err := from.Leases(ctx)
	if err != nil {
		return err
	}
	return a.show(leases, func(w io.Writer) error {
		t := table.New("INTERFACE", "ADDRESS", "NAME", "MAC", "ENDS", "STATE")
		for _, iface := range slices.Sorted(maps.Keys(leases)) {
			for _, l := range leases[iface] {
				state := "kept from before the start"
				if l.Heard {
					state = "heard"
				}
				if l.Reserved {
					state += ", reserved"
				}
				name := l.Name
				if name == "" {
					name = l.Hostname
				}
				t.Row(iface, l.Address.String(), name, l.MAC, table.Age(from.Now(), l.Expires), state)
			}
		}
		return t.Write(w)
	})
}

func (a *app) netFirewall(ctx context.Context, from air, _ []string) error {
	f, err := from.Firewall(ctx)
	if err != nil {
		return err
	}
	return a.show(f, func(w io.Writer) error {
		zones := table.New("ZONE", "INTERFACES", "DROPPED", "PACKETS", "BYTES")
		for _, z := range f.Zones {
			name := string(z.Zone)
			if name == "" {
				name = "none"
			}
			first := strings.Join(z.Interfaces, " ")
			if len(z.Drops) == 0 {
				zones.Row(name, first, "", "", "")
			}
			for _, d := range z.Drops {
				zones.Row(name, first, d.Rule, fmt.Sprint(d.Packets), table.Bytes(int64(d.Bytes)))
				name, first = "", ""
			}
		}
		rules := table.New("RULE", "PACKETS", "BYTES")
		for _, r := range f.Rules {
			rules.Row(r.Rule, fmt.Sprint(r.Packets), table.Bytes(int64(r.Bytes)))
		}
		return writeTables(w, []section{{len(f.Zones), zones}, {len(f.Rules), rules}})
	})
}

func (a *app) netDNS(ctx context.Context, from air, _ []string) error {
	d, err := from.DNS(ctx)
	if err != nil {
		return err
	}
	return a.show(d, func(w io.Writer) error {
		t := table.New()
		upstreams := make([]string, len(d.Upstreams))
		for i, u := range d.Upstreams {
			upstreams[i] = u.String()
		}
		if len(upstreams) == 0 {
			upstreams = []string{d.NoUpstream}
		}
		c := d.Counts
		t.Row("Upstream", strings.Join(upstreams, " "))
		t.Row("Questions", c.Questions)
		t.Row("Of its own names", c.Local)
		t.Row("From the cache", c.Cached+c.Stale)
		t.Row("Past their time", c.Stale) // of those
		t.Row("Forwarded", c.Forwarded)
		t.Row("Failed", c.Failed)
		t.Row("Too many at a time", c.Dropped)
		t.Row("Cache", table.Bytes(int64(c.Octets)))
		names := table.New("NAME", "ADDRESSES")
		for _, n := range d.Names {
			addrs := make([]string, len(n.Addresses))
			for i, a := range n.Addresses {
				addrs[i] = a.String()
			}
			names.Row(n.Name+".halo", strings.Join(addrs, " "))
		}
		return writeTables(w, []section{{1, t}, {len(d.Names), names}})
	})
}

package model

import (
	"fmt"
	"net/netip"
	"time"
)

// Lease is an address that a client of a device's own DHCP server has.
type Lease struct {
	Address  netip.Addr `json:"address"`
	MAC      string     `json:"mac"`
	ClientID string     `json:"client_id,omitempty" doc:"option 61, in hexadecimal"`
	Hostname string     `json:"hostname,omitempty" doc:"what the client calls itself, as far as it is a host name"`
	Name     string     `json:"name,omitempty" doc:"no other lease has it: Hostname, if need be with a number behind it, or the reservation's"`
	Expires  time.Time  `json:"expires" doc:"by the clock as it is now"`
	Heard    bool       `json:"heard" doc:"the client was heard since the server's start"`
	Reserved bool       `json:"reserved"`
}

// Reservation is the address that a host gets from a device's own DHCP servers, and
// nobody else.
type Reservation struct {
	MAC     string     `json:"mac" maxLength:"17" doc:"of the client"`
	Address netip.Addr `json:"address" doc:"IPv4, of the network of the device's clients, 10.43.N.0/24, or, at the gateway, of the mesh, 10.41.0.0/16; not the device's own"`
	Name    string     `json:"name,omitempty" maxLength:"63" doc:"host name that it has, whatever it calls itself; of clients alone"`
	Waits   bool       `json:"waits,omitempty" readOnly:"true" doc:"the device gives addresses of other networks now: it holds again when its clients have that of the address"`
}

// DNSStatus is what a device's name server knows and has done.
type DNSStatus struct {
	Names      []DNSName        `json:"names" doc:"its table of .halo, by name"`
	Upstreams  []netip.AddrPort `json:"upstreams" doc:"servers that are asked for all other names, the preferred ones first"`
	NoUpstream string           `json:"no_upstream,omitempty" doc:"why there are none"`
	Counts     DNSCounts        `json:"counts"`
}

// DNSName is a name below .halo and its addresses.
type DNSName struct {
	Name      string       `json:"name" doc:"without .halo"`
	Addresses []netip.Addr `json:"addresses"`
}

// DNSCounts of a name server since its start.
type DNSCounts struct {
	Questions uint64 `json:"questions"`
	Local     uint64 `json:"local" doc:"answered from the table, or known not to exist"`
	Cached    uint64 `json:"cached"`
	Stale     uint64 `json:"stale" doc:"answered from the cache after their time, as upstream was silent"`
	Forwarded uint64 `json:"forwarded"`
	Failed    uint64 `json:"failed"`
	Dropped   uint64 `json:"dropped" doc:"not answered: too many at a time"`
	Octets    int    `json:"octets" doc:"of the cache"`
}

// MaxMulticastGroups is how many groups a network may carry between its clients.
const MaxMulticastGroups = 16

// MulticastGroups are carried where nobody has listed others: what ATAK and its kin
// send and listen to by default, position reports ("SA Multicast") and chat.
// (CommsMapComponent.java of ATAK-CIV; its third, 239.5.5.55:7171 for sensors, is
// switched off there.)
func MulticastGroups() []netip.AddrPort {
	return []netip.AddrPort{netip.MustParseAddrPort("224.10.10.1:17012"), netip.MustParseAddrPort("239.2.3.1:6969")}
}

// CheckMulticastGroup says why a group can't be carried: it is none of IPv4, has no
// port, or is of the block for one link alone (224.0.0.0/24, RFC 5771), where other
// protocols live.
func CheckMulticastGroup(g netip.AddrPort) error {
	a := g.Addr()
	if !a.Is4() || !a.IsMulticast() || a.IsLinkLocalMulticast() || g.Port() == 0 {
		return fmt.Errorf("expected an IPv4 multicast group beyond 224.0.0.0/24 and its UDP port, such as 239.2.3.1:6969; got %.60q", g)
	}
	return nil
}

// RelayStatus is what a device carries between its clients and those of others.
type RelayStatus struct {
	Groups  []RelayGroup      `json:"groups"`
	Counts  RelayCounts       `json:"counts"`
	Dropped map[string]uint64 `json:"dropped,omitempty" doc:"datagrams and messages that were not carried, by reason"`
}

// RelayGroup is a multicast group that is carried.
type RelayGroup struct {
	Group   netip.AddrPort `json:"group"`
	Joined  bool           `json:"joined" doc:"clients of this device listen to it"`
	Members []string       `json:"members,omitempty" doc:"canonical IDs of the devices whose clients do, as far as known"`
}

// RelayCounts of a device since its start.
type RelayCounts struct {
	Heard   uint64 `json:"heard" doc:"datagrams of its own clients to these groups"`
	Sent    uint64 `json:"sent" doc:"copies of them to other members"`
	Emitted uint64 `json:"emitted" doc:"datagrams of others' clients, to its own"`
	Told    uint64 `json:"told" doc:"messages to others about what its clients listen to"`
}

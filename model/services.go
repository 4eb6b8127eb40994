package model

import (
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

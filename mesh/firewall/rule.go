package firewall

import (
	"net"
	"net/netip"

	"halo.internal/model"
)

// ruleset is what Config compiles to: values that lower turns into nftables'
// expressions, and that tests can walk as the kernel would.
type ruleset []table

type table struct {
	bridge   bool // of family bridge rather than inet
	ifaces   []ifaceSet
	stations []stationSet
	meters   []meterSet
	chains   []*chain
	counters []counter // in the order in which packets meet them
}

// ifaceSet is a set of interface names.
type ifaceSet struct {
	name  string
	names []string
}

// stationSet is a set of hardware addresses.
type stationSet struct {
	name  string
	addrs []net.HardwareAddr
}

// meterSet keeps something per source address: the kernel adds them by itself.
type meterSet struct {
	name string
	six  bool // IPv6 addresses
	kind meterKind
}

type chain struct {
	name  string
	hook  hook // none: others jump here
	lines []line
}

type hook uint8

const (
	hookNone hook = iota
	hookSource
	hookInput
	hookForward
	hookOutput
	hookUntracked
	hookClamp
	hookDNAT
	hookSNAT
	hookBridge
)

// counter is a named counter; several lines that say one thing share it.
type counter struct {
	name  string
	words string
	zone  model.Zone // whose packets are refused, if drop
	drop  bool
}

// line is one rule.
type line struct {
	match
	verdict verdict
	jump    string         // chain, if the verdict is jump
	to      netip.AddrPort // where to, if it is dnat; port 0 is the same as before
	counter string
}

type verdict uint8

const (
	accept verdict = iota
	drop
	reject // drop, and say so (ICMP, administratively prohibited)
	leave  // the chain
	jump
	dnat
	masquerade
	notrack // accept, and keep no connection
	clamp   // the TCP's maximum segment size to what the way holds
)

// match is what a packet must be; zero members match anything.
type match struct {
	in, out   string // sets of interfaces
	loopback  bool   // from the device itself
	family    int    // 4 or 6; set where anything below needs it
	from, to  netip.Prefix
	proto     uint8
	sport     uint16
	dport     model.PortRange
	icmp      uint8 // type; none that is matched is 0
	hops      uint8 // hop limit
	state     uint32
	forwarded bool // by dnat
	local     bool // to an address of the device
	noWayBack bool // no route to the source by the interface it came from
	syn       bool // TCP's first
	meter     *meter

	// Of family bridge only.
	station   string // set that the source's hardware address is in
	etherType uint16
	sender    netip.Addr // ARP
	target    netip.Addr // neighbour discovery
	fragment  bool
}

// meter asks a set about the packet's source.
type meter struct {
	set string
	six bool
	net bool // IPv6: all of a /64 is one source
	meterKind
}

type meterKind struct {
	connections uint32 // matches beyond that many open ones; else a rate:
	rate, burst uint32 // packets per second
	over        bool   // matches beyond the rate, rather than below
}

func refusal(z model.Zone) verdict {
	if z == model.ZoneOverlay || z == model.ZoneClients {
		return reject
	}
	return drop // strangers are told nothing, and can have nobody told anything
}

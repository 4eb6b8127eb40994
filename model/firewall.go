package model

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Zone is a part of the network that a device's firewall treats alike: the
// interfaces that lead there.
type Zone string

// Zones.
const (
	ZoneUplink  Zone = "uplink"  // towards the Internet: nobody there is trusted
	ZoneMesh    Zone = "mesh"    // bat0: other members' devices, in the clear, and bridged guests
	ZoneClients Zone = "clients" // client ports and the hotspot
	ZoneOverlay Zone = "overlay" // wg0: members, each proved by its key
	ZoneLocal   Zone = "local"   // the device itself: where a rule may lead, never where it begins
)

// Zones that have interfaces, the least trusted first.
var Zones = []Zone{ZoneUplink, ZoneMesh, ZoneClients, ZoneOverlay}

// Bounds of what people may configure. A packet that nothing matches walks
// through all lines.
const (
	MaxFirewallRules = 128
	MaxPortForwards  = 64
	MaxServices      = 64
	MaxRulePorts     = 16
	MaxRuleSources   = 16
	MaxRuleLines     = 1024 // of all rules and forwards together: sources times ports
)

// PortRange is one port or several in a row, in text "80" or "5000-5010".
type PortRange struct {
	First, Last uint16 // both included; never 0
}

// SinglePort is the range of one port.
func SinglePort(p uint16) PortRange { return PortRange{p, p} }

func (r PortRange) String() string {
	if r.First == r.Last {
		return strconv.Itoa(int(r.First))
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// Contains tells whether p is one of the range.
func (r PortRange) Contains(p uint16) bool { return r.First <= p && p <= r.Last }

// Overlaps tells whether both ranges have a port in common.
func (r PortRange) Overlaps(o PortRange) bool { return r.First <= o.Last && o.First <= r.Last }

// MarshalText writes the range as String does.
func (r PortRange) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (r *PortRange) UnmarshalText(b []byte) error {
	first, last, several := strings.Cut(string(b), "-")
	if !several {
		last = first
	}
	f, err1 := strconv.ParseUint(first, 10, 16)
	l, err2 := strconv.ParseUint(last, 10, 16)
	if err1 != nil || err2 != nil {
		return fmt.Errorf("expected a port, or a range such as 5000-5010; got %q", b)
	}
	*r = PortRange{uint16(f), uint16(l)}
	return r.validate()
}

func (r PortRange) validate() error {
	if r.First == 0 || r.Last < r.First {
		return fmt.Errorf("expected ports of 1 to 65535, the lower first; got %s", r)
	}
	return nil
}

// Service is something that the device itself offers: whoever is in one of the
// zones may reach it.
type Service struct {
	Name  string         `json:"name" doc:"lower-case letters, digits and hyphens, 24 at most"`
	Proto string         `json:"proto" enum:"tcp,udp"`
	Ports []PortRange    `json:"ports"`
	Zones []Zone         `json:"zones"`
	To    []netip.Prefix `json:"to,omitempty" doc:"which of the device's addresses; any if empty"`
	// Untracked is for a protocol that knows its peers by itself and of which every
	// packet counts.
	Untracked bool `json:"untracked,omitempty" doc:"its packets are of no connection, and sources have no bounds"`
}

// Forwarding lets connections through the device, from one zone to another.
type Forwarding struct {
	From Zone `json:"from" enum:"uplink,mesh,clients,overlay"`
	To   Zone `json:"to" enum:"uplink,mesh,clients,overlay"`
}

// Actions of a rule.
const (
	Allow = "allow"
	Deny  = "deny"
)

// FirewallRule is one of people's own. Rules are asked in their order, before
// services and forwardings; the first that fits decides. A rule decides about
// new connections: one that is open stays open.
type FirewallRule struct {
	Name    string         `json:"name" doc:"lower-case letters, digits and hyphens, 24 at most"`
	Action  string         `json:"action" enum:"allow,deny"`
	From    Zone           `json:"from" enum:"uplink,mesh,clients,overlay"`
	To      Zone           `json:"to" enum:"uplink,mesh,clients,overlay,local"`
	Proto   string         `json:"proto,omitempty" enum:"tcp,udp,icmp" doc:"any if empty; icmp is that of both IPv4 and IPv6"`
	Ports   []PortRange    `json:"ports,omitempty" doc:"at the destination, of TCP or UDP; any if empty"`
	Sources []netip.Prefix `json:"sources,omitempty" doc:"any if empty"`
}

// PortForward hands connections that come to a port of the device from its
// uplinks to a client or a node.
type PortForward struct {
	Name    string         `json:"name" doc:"lower-case letters, digits and hyphens, 24 at most"`
	Proto   string         `json:"proto" enum:"tcp,udp"`
	Port    PortRange      `json:"port" doc:"on the uplink"`
	To      netip.Addr     `json:"to" doc:"address of a client or a node"`
	ToPort  uint16         `json:"to_port,omitempty" doc:"the same as on the uplink if absent; of a single port only"`
	Sources []netip.Prefix `json:"sources,omitempty" doc:"who may; anybody if empty"`
}

// Validate says what is wrong with a service.
func (s Service) Validate() error {
	if err := validName(s.Name); err != nil {
		return fmt.Errorf("service: %w", err)
	}
	err := validProto(s.Proto, "tcp", "udp")
	if err == nil {
		err = validPorts(s.Ports)
	}
	if err == nil && len(s.Ports) == 0 {
		err = fmt.Errorf("expected at least one port")
	}
	if err == nil && s.Untracked && slices.ContainsFunc(s.Ports, func(p PortRange) bool { return p.First != p.Last }) {
		err = fmt.Errorf("expected single ports without tracking, got a range")
	}
	if err == nil {
		err = validPrefixes("address", s.To)
	}
	for _, z := range s.Zones {
		err = cmp.Or(err, validZone("zone", z))
	}
	if err != nil {
		return fmt.Errorf("service %s: %w", s.Name, err)
	}
	return nil
}

// Validate says what is wrong with a forwarding.
func (f Forwarding) Validate() error {
	if err := cmp.Or(validZone("from", f.From), validZone("to", f.To)); err != nil {
		return fmt.Errorf("forwarding: %w", err)
	}
	return nil
}

// Validate says what is wrong with a rule.
func (r FirewallRule) Validate() error {
	if err := validName(r.Name); err != nil {
		return fmt.Errorf("rule: %w", err)
	}
	if err := r.validate(); err != nil {
		return fmt.Errorf("rule %s: %w", r.Name, err)
	}
	return nil
}

func (r FirewallRule) validate() error {
	if r.Action != Allow && r.Action != Deny {
		return fmt.Errorf("action: expected allow or deny, got %q", r.Action)
	}
	if err := validZone("from", r.From); err != nil {
		return err
	}
	if r.To != ZoneLocal {
		if err := validZone("to", r.To); err != nil {
			return fmt.Errorf("%w, or local", err)
		}
	}
	if err := validProto(r.Proto, "", "tcp", "udp", "icmp"); err != nil {
		return err
	}
	if len(r.Ports) > 0 && r.Proto != "tcp" && r.Proto != "udp" {
		return fmt.Errorf("ports: expected them with proto tcp or udp only, got %q", r.Proto)
	}
	return cmp.Or(validPorts(r.Ports), validPrefixes("source", r.Sources))
}

// Validate says what is wrong with a port forward.
func (f PortForward) Validate() error {
	if err := validName(f.Name); err != nil {
		return fmt.Errorf("port forward: %w", err)
	}
	if err := f.validate(); err != nil {
		return fmt.Errorf("port forward %s: %w", f.Name, err)
	}
	return nil
}

func (f PortForward) validate() error {
	if err := cmp.Or(validProto(f.Proto, "tcp", "udp"), f.Port.validate(), validPrefixes("source", f.Sources)); err != nil {
		return err
	}
	if f.ToPort != 0 && f.Port.First != f.Port.Last {
		return fmt.Errorf("to_port: expected it with a single port only; ports %s keep their numbers", f.Port)
	}
	if !f.To.IsValid() || f.To.Zone() != "" || f.To.Is4In6() {
		return fmt.Errorf("to: expected an address of a client or a node, got %q", f.To)
	}
	for _, s := range f.Sources {
		if s.Addr().Is4() != f.To.Is4() {
			return fmt.Errorf("source %s: expected one of the same family as %s", s, f.To)
		}
	}
	return nil
}

func validName(s string) error {
	bad := strings.ContainsFunc(s, func(r rune) bool { return r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') })
	if bad || s == "" || len(s) > 24 {
		return fmt.Errorf("name: expected 1 to 24 lower-case letters, digits and hyphens, got %.40q", s)
	}
	return nil
}

func validZone(what string, z Zone) error {
	if !slices.Contains(Zones, z) {
		return fmt.Errorf("%s: expected uplink, mesh, clients or overlay, got %.40q", what, z)
	}
	return nil
}

func validProto(p string, of ...string) error {
	if !slices.Contains(of, p) {
		return fmt.Errorf("proto: expected one of %q, got %.40q", of, p)
	}
	return nil
}

func validPorts(list []PortRange) error {
	if len(list) > MaxRulePorts {
		return fmt.Errorf("ports: expected at most %d, got %d", MaxRulePorts, len(list))
	}
	for _, p := range list {
		if err := p.validate(); err != nil {
			return err
		}
	}
	return nil
}

func validPrefixes(what string, list []netip.Prefix) error {
	if len(list) > MaxRuleSources {
		return fmt.Errorf("%s: expected at most %d, got %d", what, MaxRuleSources, len(list))
	}
	for _, p := range list {
		if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() {
			return fmt.Errorf("%s: expected a prefix such as 192.0.2.0/24, without bits behind its length; got %s", what, p)
		}
	}
	return nil
}

// FirewallStatus is what a device's firewall does at present.
type FirewallStatus struct {
	Zones []FirewallZone  `json:"zones"`
	Rules []FirewallCount `json:"rules" doc:"what is let through, translated or denied by people's rules, in the order in which it is asked"`

	Services    []FirewallService `json:"services,omitempty" doc:"what the device itself offers, and to whom"`
	Forwardings []Forwarding      `json:"forwardings,omitempty" doc:"those that it has without anybody's configuration"`
}

// FirewallZone is a zone with what was refused of it.
type FirewallZone struct {
	Zone       Zone            `json:"zone" doc:"empty: interfaces that are in no zone"`
	Interfaces []string        `json:"interfaces"`
	Drops      []FirewallCount `json:"drops"`
}

// FirewallCount counts the packets that met a rule since the machine's start.
type FirewallCount struct {
	Rule    string `json:"rule" doc:"in words"`
	Name    string `json:"name" doc:"of the counter in nftables"`
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

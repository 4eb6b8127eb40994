package model

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// FirewallPolicy is what people have set of a gateway's firewall, besides what
// it does by itself.
type FirewallPolicy struct {
	Openings     []ZoneOpening  `json:"openings,omitempty" doc:"services of the device that are open to a zone by people's wish; each zone once"`
	Forwardings  []Forwarding   `json:"forwardings,omitempty" doc:"besides those that the device needs"`
	Rules        []FirewallRule `json:"rules,omitempty" doc:"in the order in which they are asked"`
	PortForwards []PortForward  `json:"port_forwards,omitempty"`
}

// ZoneOpening opens services of the device to a zone that they are shut to
// otherwise.
type ZoneOpening struct {
	Zone     Zone     `json:"zone" enum:"uplink,mesh,clients,overlay"`
	Services []string `json:"services" doc:"names of services, in the order of the alphabet"`
}

// OwnRulePrefix begins the names of rules that a device adds by itself.
const OwnRulePrefix = "halo-"

// MaxOpenings is how many services may be opened to one zone.
const MaxOpenings = 32

// Digest is by what policies are compared: the SHA-256 of the policy's JSON, in
// hexadecimal. An empty list and none are the same.
func (p FirewallPolicy) Digest() string {
	b, err := json.Marshal(p)
	if err != nil {
		panic("model: firewall policy: " + err.Error()) // of strings, numbers and addresses
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// Clone returns a policy whose lists are its own.
func (p FirewallPolicy) Clone() FirewallPolicy {
	p.Openings, p.Forwardings = slices.Clone(p.Openings), slices.Clone(p.Forwardings)
	p.Rules, p.PortForwards = slices.Clone(p.Rules), slices.Clone(p.PortForwards)
	return p
}

// Validate says what is wrong with a policy by itself. What its parts have to do
// with the device's own services, the device says (mesh/firewall).
func (p FirewallPolicy) Validate() error {
	seen := map[string]bool{}
	once := func(what, name string) error {
		if seen[what+name] {
			return fmt.Errorf("%s %s: expected it once, got it twice", what, name)
		}
		seen[what+name] = true
		return nil
	}
	for _, o := range p.Openings {
		if err := cmp.Or(o.Validate(), once("opening of zone", string(o.Zone))); err != nil {
			return err
		}
	}
	for _, f := range p.Forwardings {
		if err := cmp.Or(f.Validate(), once("forwarding", f.String())); err != nil {
			return err
		}
	}
	if n := len(p.Rules); n > MaxFirewallRules {
		return fmt.Errorf("rules: expected at most %d, got %d", MaxFirewallRules, n)
	}
	for _, r := range p.Rules {
		if err := cmp.Or(r.Validate(), once("rule", r.Name)); err != nil {
			return err
		}
		if strings.HasPrefix(r.Name, OwnRulePrefix) {
			return fmt.Errorf("rule %s: names that begin with %s are the device's own", r.Name, OwnRulePrefix)
		}
	}
	if n := len(p.PortForwards); n > MaxPortForwards {
		return fmt.Errorf("port forwards: expected at most %d, got %d", MaxPortForwards, n)
	}
	for _, f := range p.PortForwards {
		if err := cmp.Or(f.Validate(), once("port forward", f.Name)); err != nil {
			return err
		}
	}
	return nil
}

// Validate says what is wrong with an opening.
func (o ZoneOpening) Validate() error {
	if err := validZone("zone", o.Zone); err != nil {
		return fmt.Errorf("opening: %w", err)
	}
	if n := len(o.Services); n == 0 || n > MaxOpenings {
		return fmt.Errorf("opening of zone %s: expected 1 to %d services, got %d", o.Zone, MaxOpenings, n)
	}
	for i, s := range o.Services {
		if err := validName(s); err != nil {
			return fmt.Errorf("opening of zone %s: %w", o.Zone, err)
		}
		if i > 0 && o.Services[i-1] >= s {
			return fmt.Errorf("opening of zone %s: expected services in order, each once; got %s after %s", o.Zone, s, o.Services[i-1])
		}
	}
	return nil
}

// String is how a forwarding is called.
func (f Forwarding) String() string { return string(f.From) + " to " + string(f.To) }

// Bounds of how long a policy is on trial.
const (
	MinTrialS = 10
	MaxTrialS = 3600
)

// FirewallOrder is how gateway-api hands a policy to halo-mesh
// (PUT /v1/net/firewall/policy).
type FirewallOrder struct {
	Policy FirewallPolicy `json:"policy"`
	TrialS int            `json:"trial_s,omitempty" doc:"the one before comes back after so many seconds, and after a restart of halo-mesh; 0: it is for good"`
}

// FirewallInForce says which policy of people's a device's firewall goes by: in
// its status, and with the policies in the answer to GET /v1/net/firewall/policy.
type FirewallInForce struct {
	Kept    string `json:"kept" doc:"digest of the policy that is kept on the card"`
	Trial   string `json:"trial,omitempty" doc:"digest of the one that is on trial, and in force"`
	LeftS   int    `json:"left_s,omitempty" doc:"how long the trial lasts"`
	Problem string `json:"problem,omitempty" doc:"why the kept policy is not in force as a whole: only those of its rules that deny are, or nothing of it"`

	KeptPolicy  *FirewallPolicy `json:"kept_policy,omitempty"`
	TrialPolicy *FirewallPolicy `json:"trial_policy,omitempty"`
}

// FirewallQuestion asks what a policy would change (POST /v1/net/firewall/preview).
type FirewallQuestion struct {
	Policy FirewallPolicy `json:"policy"`
	// Remote and Local are the ends of the connection of whoever asks; absent: nobody is
	// to be kept from being locked out.
	Remote netip.Addr     `json:"remote,omitzero"`
	Local  netip.AddrPort `json:"local,omitzero"`
}

// FirewallPreview is what a policy would change of what is in force.
type FirewallPreview struct {
	Added   []string `json:"added" doc:"what would be let through, translated or denied by people's wish, in words"`
	Removed []string `json:"removed" doc:"what would not be any more"`
	// LocksOut is for whoever asks, Breaks for all.
	LocksOut string   `json:"locks_out,omitempty" doc:"why whoever asks could not come in again: the line that would refuse a new connection like the one that the question came by"`
	Breaks   []string `json:"breaks" doc:"services and ways of the device's own that rules would shut, in words"`
}

// FirewallService is a service of a device that may be opened to a zone.
type FirewallService struct {
	Name   string      `json:"name"`
	Proto  string      `json:"proto" enum:"tcp,udp"`
	Ports  []PortRange `json:"ports"`
	Zones  []Zone      `json:"zones" doc:"that it is open to without anybody's configuration"`
	Opened []Zone      `json:"opened,omitempty" doc:"that it is open to by the bundle or the policy in force"`
}

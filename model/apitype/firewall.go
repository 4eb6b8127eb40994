package apitype

import (
	"time"

	"halo.internal/model"
)

// Firewall is what people have set of the gateway's firewall, and how far a change
// of it is.
type Firewall struct {
	Kept     model.FirewallPolicy `json:"kept" doc:"what holds for good"`
	KeptAt   *time.Time           `json:"kept_at,omitempty"`
	KeptBy   string               `json:"kept_by,omitempty" example:"user:anna"`
	Draft    model.FirewallPolicy `json:"draft" doc:"what is being edited; the same as kept where nobody has"`
	Edited   bool                 `json:"edited" doc:"the draft differs from what holds for good"`
	DraftAt  *time.Time           `json:"draft_at,omitempty"`
	DraftBy  string               `json:"draft_by,omitempty"`
	Digest   string               `json:"digest" doc:"of the draft: SHA-256, hexadecimal"`
	Trial    *FirewallTrial       `json:"trial,omitempty" doc:"the draft as it was applied, which waits for being confirmed"`
	Reverted *FirewallReverted    `json:"reverted,omitempty" doc:"the last trial ended by itself or was ended"`
	Problem  string               `json:"problem,omitempty" doc:"why what is kept does not hold as a whole"`
	InForce  bool                 `json:"in_force" doc:"halo-mesh has taken what is to hold now"`
}

// FirewallTrial is a policy in force that is not confirmed.
type FirewallTrial struct {
	Policy model.FirewallPolicy `json:"policy"`
	Since  time.Time            `json:"since"`
	By     string               `json:"by" example:"user:anna"`
	LeftS  int                  `json:"left_s" doc:"until what held before comes back by itself"`
}

// FirewallReverted says how a trial ended without being confirmed.
type FirewallReverted struct {
	Time   time.Time `json:"time"`
	Reason string    `json:"reason" enum:"not-confirmed,restarted,asked" doc:"not-confirmed: its time was over; restarted: the gateway, or a process of it, started again; asked: somebody ended it"`
	By     string    `json:"by,omitempty" doc:"whose trial it was, or who ended it"`
}

// ApplyFirewall is the body of POST /v1/firewall/apply.
type ApplyFirewall struct {
	ConfirmS int    `json:"confirm_s,omitempty" minimum:"10" maximum:"3600" default:"60" doc:"seconds in which it has to be confirmed"`
	Anyway   bool   `json:"anyway,omitempty" doc:"also if it shuts out whoever asks, or something that the network needs"`
	Digest   string `json:"digest,omitempty" maxLength:"64" doc:"of the draft that is meant; another is refused"`
}

// FirewallZoneDetail is a zone, its interfaces and what is open to it.
type FirewallZoneDetail struct {
	model.FirewallZone
	Opened   []string                `json:"opened" doc:"services that are open to it by the draft, besides those that always are"`
	Services []model.FirewallService `json:"services" doc:"that it reaches now"`
}

// FirewallZoneList is all zones.
type FirewallZoneList struct {
	Items    []FirewallZoneDetail    `json:"items"`
	Services []model.FirewallService `json:"services" doc:"all that the gateway offers"`
}

// OpenZone is the body of PUT /v1/firewall/zones/{zone}.
type OpenZone struct {
	Services []string `json:"services" maxItems:"32" doc:"names of services, besides those that are always open to it; none: only those"`
}

// FirewallForwarding is a forwarding between zones.
type FirewallForwarding struct {
	model.Forwarding
	Builtin bool `json:"builtin" doc:"it is there without anybody's configuration; a rule can deny it"`
}

// FirewallForwardingList is all forwardings of the draft.
type FirewallForwardingList struct {
	Items []FirewallForwarding `json:"items"`
}

// FirewallRuleList is all rules of the draft, in the order in which they are asked.
type FirewallRuleList struct {
	Items []model.FirewallRule `json:"items"`
}

// PlaceFirewallRule is a rule and where it is to stand.
type PlaceFirewallRule struct {
	model.FirewallRule
	Before string `json:"before,omitempty" maxLength:"24" doc:"name of the rule that is to be asked next; left out: a new rule comes last, and another stays where it is"`
}

// PortForwardList is all port forwards of the draft.
type PortForwardList struct {
	Items []model.PortForward `json:"items"`
}

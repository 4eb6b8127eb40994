package apitype

import (
	"time"

	"halo.internal/model"
)

// Acknowledgement is who has taken note of an event or an alert.
type Acknowledgement struct {
	Time time.Time `json:"time"`
	By   string    `json:"by" example:"user:anna"`
	Note string    `json:"note,omitempty"`
}

// Acknowledge is the body of the routes that acknowledge.
type Acknowledge struct {
	Note string `json:"note,omitempty" maxLength:"500" example:"battery is being replaced"`
}

// Alert is a condition that lasts, or has lasted.
type Alert struct {
	ID           int64             `json:"id"`
	Kind         string            `json:"kind" example:"node.offline"`
	Node         string            `json:"node,omitempty" doc:"canonical ID; empty for the network as a whole, and the gateway's processes"`
	Subject      string            `json:"subject,omitempty" doc:"which of several of a kind, such as a file system" example:"perm"`
	Severity     model.Severity    `json:"severity" enum:"info,warning,error"`
	Message      string            `json:"message"`
	Fields       map[string]string `json:"fields,omitempty"`
	Opened       time.Time         `json:"opened"`
	Closed       *time.Time        `json:"closed,omitempty" doc:"absent while it lasts"`
	Acknowledged *Acknowledgement  `json:"acknowledged,omitempty"`
}

// AlertList is a page of alerts, newest first.
type AlertList struct {
	Items []Alert `json:"items"`
	Next  string  `json:"next,omitempty"`
}

// EventRetention is how long events of each severity are kept. Beyond that, all
// events together are kept to 50000 and 16 MiB.
type EventRetention struct {
	Info    RetentionRule `json:"info"`
	Warning RetentionRule `json:"warning"`
	Error   RetentionRule `json:"error"`
}

// RetentionRule is how long events of one severity are kept.
type RetentionRule struct {
	Days  int `json:"days" minimum:"1" maximum:"3650" doc:"by when the gateway received them"`
	Count int `json:"count" minimum:"100" maximum:"50000" doc:"of the newest"`
}

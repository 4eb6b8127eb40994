package apitype

import (
	"encoding/json"
	"time"

	"halo.internal/model"
)

// The WebSocket subprotocol of GET /v1/live, and what an access token has before it
// when it is offered as another one, for clients that can set no header.
const (
	LiveProtocol = "halo.live.v1"
	LiveBearer   = "halo.bearer."
)

// Topics of GET /v1/live.
const (
	TopicEvents        = "events"
	TopicTelemetry     = "telemetry"
	TopicNodes         = "nodes"
	TopicRegistrations = "registrations"
	TopicRecoveries    = "recoveries"
	TopicTopology      = "topology"
	TopicJobs          = "jobs"
)

// Operations of a LiveRequest.
const (
	LiveSubscribe   = "subscribe"
	LiveUnsubscribe = "unsubscribe"
	LiveAuth        = "auth"
	LivePace        = "pace"
)

// LiveRequest is what a client sends on GET /v1/live: one JSON text message each.
type LiveRequest struct {
	Op    string `json:"op" enum:"subscribe,unsubscribe,auth,pace"`
	ID    string `json:"id,omitempty" maxLength:"32" doc:"of the subscription; the client chooses it"`
	Topic string `json:"topic,omitempty" doc:"one of those in hello"`
	After string `json:"after,omitempty" maxLength:"64" doc:"at of the last message of this subscription before the connection ended: what came since is sent, or that some of it is lost"`

	Nodes    []string       `json:"nodes,omitempty" maxItems:"64" doc:"canonical IDs or names: only of these; of events: about or reported by them, one of them at most"`
	Metrics  []string       `json:"metrics,omitempty" maxItems:"64" doc:"of telemetry: prefixes, e.g. system.cpu."`
	Kind     string         `json:"kind,omitempty" maxLength:"64" doc:"of events: prefix, e.g. join."`
	Severity model.Severity `json:"severity,omitempty" enum:"info,warning,error" doc:"of events: that and worse"`
	Since    *int64         `json:"since,omitempty" minimum:"0" doc:"of events: ID of the last event seen; all later ones are sent"`

	Token      string `json:"token,omitempty" maxLength:"4096" doc:"with auth: an access token that is to take the place of the first, of the same user"`
	IntervalMS int    `json:"interval_ms,omitempty" minimum:"20" maximum:"60000" doc:"with pace: least time between two messages of changes; what changes more often is sent once, as it is by then"`
}

// Types of a LiveMessage.
const (
	LiveHello        = "hello"
	LiveSubscribed   = "subscribed"
	LiveUnsubscribed = "unsubscribed"
	LiveChanges      = "changes"
	LiveGap          = "gap"
	LiveError        = "error"
	LiveEnd          = "end"
)

// Reasons of LiveEnd, and of the WebSocket's close frame: a client that is told
// login-ended logs in, others come again.
const (
	LiveEndLogin    = "login-ended"
	LiveEndSlow     = "too-slow"       // a message was not taken within 20 s
	LiveEndFlood    = "too-many"       // requests
	LiveEndMessage  = "bad-message"    // that is no LiveRequest
	LiveEndStopping = "gateway-stops"  // come again
	LiveEndInternal = "internal-error" // the gateway's log has the reason
)

// LiveMessage is what the gateway sends on GET /v1/live.
type LiveMessage struct {
	Type string `json:"type" enum:"hello,subscribed,unsubscribed,changes,gap,error,end"`
	ID   string `json:"id,omitempty" doc:"of the subscription"`
	At   string `json:"at,omitempty" doc:"for after, when the connection has ended"`

	Topics []string `json:"topics,omitempty" doc:"with hello: what this login may subscribe to"`

	Reset bool              `json:"reset,omitempty" doc:"with changes: what the client has of this subscription is over; this and what follows is all that there is"`
	More  bool              `json:"more,omitempty" doc:"with changes: the rest of them follows at once"`
	Items []json.RawMessage `json:"items,omitempty" doc:"with changes, as they are now: Event of events, LiveReadings of telemetry, Node of nodes, Registration of registrations, Recovery of recoveries, TopologyPiece of topology, Job of jobs"`
	Gone  []string          `json:"gone,omitempty" doc:"with changes: IDs of what is there no more"`

	Problem *Problem `json:"problem,omitempty" doc:"with error: what is wrong with the request with this id"`
	Reason  string   `json:"reason,omitempty" doc:"with end: login-ended, too-slow, too-many, bad-message, gateway-stops, internal-error"`
}

// LiveReadings are latest values of a node that were made at one time.
type LiveReadings struct {
	Node   string             `json:"node"`
	Time   time.Time          `json:"time"`
	Clock  model.ClockQuality `json:"clock"`
	Boot   uint64             `json:"boot"`
	Seq    uint64             `json:"seq" doc:"batch that carried them"`
	Urgent bool               `json:"urgent,omitempty"`
	Values []LiveValue        `json:"values"`
}

// LiveValue is one of them.
type LiveValue struct {
	Metric string  `json:"metric"`
	Unit   string  `json:"unit,omitempty"`
	Value  float64 `json:"value"`
}

// Package apitype is the vocabulary of the gateway's HTTP API: the bodies that
// gateway-api documents in /openapi.json and that its clients decode, written
// once so that neither side can drift. Tags after json are those of the
// OpenAPI schema.
package apitype

import (
	"time"

	"halo.internal/model"
	"halo.internal/model/version"
)

// Capabilities tells a client what this gateway can do.
type Capabilities struct {
	API      string   `json:"api" doc:"version of the API" example:"v1"`
	Version  string   `json:"version"`
	Claimed  bool     `json:"claimed" doc:"there is an admin: log in; otherwise claim"`
	Mesh     bool     `json:"mesh" doc:"halo-mesh answers"`
	Features []string `json:"features" doc:"what it has routes for: the document's tags, with hyphens, and some single operations"`
}

// SystemInfo describes the gateway itself.
type SystemInfo struct {
	Node       string             `json:"node"`
	Name       string             `json:"name"`
	Role       model.Role         `json:"role"`
	Network    string             `json:"network"`
	NetworkKey string             `json:"network_key"`
	CASHA256   string             `json:"ca_sha256"`
	Build      version.Info       `json:"build"`
	Started    time.Time          `json:"started"`
	Time       time.Time          `json:"time"`
	Clock      model.ClockQuality `json:"clock"`
	Boot       uint64             `json:"boot"`
	SQLite     string             `json:"sqlite"`
	Config     Database           `json:"config"`
	Telemetry  Database           `json:"telemetry"`
}

// Database is the size of one of the two databases.
type Database struct {
	Bytes   int64 `json:"bytes"`
	Budget  int64 `json:"budget,omitempty" doc:"beyond it the oldest is dropped"`
	Thinned int64 `json:"thinned,omitempty" doc:"how often since the gateway's start a week was thinned or removed for space"`
	Commits int64 `json:"commits" doc:"transactions that were written since the gateway's start"`
}

// Reading is one latest value.
type Reading struct {
	Node   string             `json:"node"`
	Metric string             `json:"metric" example:"system.cpu.used_percent"`
	Unit   string             `json:"unit,omitempty"`
	Value  float64            `json:"value"`
	Time   time.Time          `json:"time"`
	Clock  model.ClockQuality `json:"clock"`
	Boot   uint64             `json:"boot"`
	Seq    uint64             `json:"seq" doc:"batch that carried it"`
	Urgent bool               `json:"urgent,omitempty"`
}

// ReadingList is a list of latest values.
type ReadingList struct {
	Items []Reading `json:"items"`
	Next  string    `json:"next,omitempty"`
}

// Sample is one value of a series.
type Sample struct {
	Time   time.Time `json:"time"`
	Metric string    `json:"metric"`
	Unit   string    `json:"unit,omitempty"`
	Value  float64   `json:"value"`
}

// SampleList is a page of a range, in the order of time.
type SampleList struct {
	Node  string   `json:"node"`
	Items []Sample `json:"items"`
	Next  string   `json:"next,omitempty"`
}

// Coverage says which batches of a node are stored.
type Coverage struct {
	Node  string         `json:"node"`
	Boots []BootCoverage `json:"boots"`
}

// BootCoverage is the coverage of one start of a node.
type BootCoverage struct {
	Boot    uint64     `json:"boot"`
	First   uint64     `json:"first" doc:"lowest sequence number stored"`
	Last    uint64     `json:"last"`
	Count   uint64     `json:"count" doc:"batches that came; what was thinned since has come all the same"`
	Missing []SeqRange `json:"missing" doc:"from 1 to last: never came"`
	Dropped uint64     `json:"dropped" doc:"batches of which readings were not kept, since their stamps cannot be true"`
}

// SeqRange is a range of sequence numbers, both ends included.
type SeqRange struct {
	From uint64 `json:"from"`
	To   uint64 `json:"to"`
}

// Event is an event as the gateway keeps it.
type Event struct {
	ID       int64     `json:"id" doc:"grows; the order in which the gateway learned of it"`
	Received time.Time `json:"received"`
	Source   string    `json:"source" doc:"who reported it: a node, or gateway-api"`
	model.Event
	Acknowledged *Acknowledgement `json:"acknowledged,omitempty" doc:"who has taken note of it"`
}

// EventList is a page of events, newest first unless asked otherwise.
type EventList struct {
	Items []Event `json:"items"`
	Next  string  `json:"next,omitempty"`
}

// AuditEntry is one change and who made it.
type AuditEntry struct {
	ID     int64     `json:"id"`
	Time   time.Time `json:"time"`
	Actor  string    `json:"actor" doc:"user:<name>, token:<id>, node:<id>, system"`
	Action string    `json:"action" doc:"operation ID, e.g. approve-registration"`
	Target string    `json:"target,omitempty"`
	Remote string    `json:"remote,omitempty"`
	Status int       `json:"status" doc:"HTTP status of the answer; 0 while there is none, and for good where the gateway stopped before: outcome unknown"`
}

// AuditList is a page of the audit log, newest first.
type AuditList struct {
	Items []AuditEntry `json:"items"`
	Next  string       `json:"next,omitempty"`
	Head  AuditHead    `json:"head" doc:"newest record of the chain; remember it, and a later verification shows whether the log still has it"`
}

// AuditHead is a place in the chain of the audit log, usually its end.
type AuditHead struct {
	ID   int64  `json:"id" example:"1042" doc:"record: an entry, or the outcome of one; 0: there is none yet"`
	Hash string `json:"hash" example:"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08" doc:"SHA-256 of the record, which holds the hash before; hexadecimal"`
}

// AuditFault is the first record of the audit log that does not fit.
type AuditFault struct {
	ID       int64  `json:"id" example:"17" doc:"record; 0: the anchor, which is the last record that was dropped for its age"`
	Expected string `json:"expected" example:"record 17"`
	Came     string `json:"came" example:"record 18"`
}

// AuditVerification is what became of a walk along the whole chain.
type AuditVerification struct {
	Intact  bool        `json:"intact" doc:"everything fits"`
	Head    AuditHead   `json:"head" doc:"last record until which everything fits; of an intact log the newest"`
	Records int64       `json:"records" example:"731" doc:"entries and outcomes that fit"`
	Since   *time.Time  `json:"since,omitempty" doc:"time of the first of them: older ones were dropped for their age"`
	Fault   *AuditFault `json:"fault,omitempty" doc:"absent of an intact log"`
}

// AuditRecord is a record as it is hashed.
type AuditRecord struct {
	ID     int64  `json:"id" example:"1042"`
	Record []byte `json:"record" doc:"CBOR array [form, hash before, id, completes, time, actor, action, target, remote, status], base64"`
	Hash   string `json:"hash" doc:"as it is stored; that of an intact log is the SHA-256 of record"`
}

// AuditRecordList is a page of the chain, oldest first.
type AuditRecordList struct {
	Items []AuditRecord `json:"items"`
	Next  string        `json:"next,omitempty"`
}

// Network is the HALO network and what a new card needs of it.
type Network struct {
	Name       string `json:"name"`
	NetworkKey string `json:"network_key" doc:"gateway's public key, base64"`
	Gateway    string `json:"gateway" doc:"canonical ID"`
	Country    string `json:"country,omitempty"`
	Mesh       string `json:"mesh,omitempty" doc:"SSID of the mesh profile"`
	Routing    string `json:"routing,omitempty"`
	Epoch      uint64 `json:"epoch"`
	CA         string `json:"ca" doc:"PEM"`
	CASHA256   string `json:"ca_sha256"`
	Bundle     string `json:"bundle,omitempty" doc:"halo.toml for a node, without a join token; absent where no bundle was imported"`
}

// RaiseEpoch asks for a higher epoch.
type RaiseEpoch struct {
	Above *uint64 `json:"above,omitempty" doc:"the epoch that was seen; one that is higher already stays"`
}

// NetworkEpoch is the generation of the gateway's knowledge.
type NetworkEpoch struct {
	Epoch uint64 `json:"epoch"`
	Heard uint64 `json:"heard,omitempty" doc:"a higher one, which nodes have heard from another card of this gateway: they refuse this one; or the same one: they keep to what the other signed"`
}

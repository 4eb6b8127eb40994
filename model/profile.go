package model

import "time"

// MeshParameters is a mesh profile as people see it: without its secret.
type MeshParameters struct {
	Routing        string `json:"routing" enum:"BATMAN_IV,BATMAN_V"`
	HopPenalty     int    `json:"hop_penalty,omitempty" doc:"what routing takes off a way for each node that passes on, of 255; absent: batman-adv's own, 30"`
	Channel        int    `json:"channel" doc:"number of a Wi-Fi channel of 2.4 or 5 GHz"`
	Width          int    `json:"width" doc:"of the channel, MHz"`
	MFP            string `json:"mfp" doc:"protection of management frames" enum:"required,optional,off"`
	SAE            string `json:"sae" enum:"hash-to-element,hunting-and-pecking"`
	BeaconInterval int    `json:"beacon_interval" doc:"time units of 1.024 ms"`
	HaLowChannel   int    `json:"halow_channel,omitempty" doc:"S1G number; absent: HaLow radios stay off"`
	HaLowScheme    string `json:"halow_scheme,omitempty" doc:"numbering of S1G channels, where the country has several"`
}

// ProfileChange asks for another mesh profile. What is left out stays.
type ProfileChange struct {
	Routing        *string `json:"routing,omitempty" enum:"BATMAN_IV,BATMAN_V"`
	HopPenalty     *int    `json:"hop_penalty,omitempty" minimum:"0" maximum:"255" doc:"0: batman-adv's own, 30"`
	Channel        *int    `json:"channel,omitempty" minimum:"1" maximum:"177"`
	Width          *int    `json:"width,omitempty" enum:"20,40"`
	MFP            *string `json:"mfp,omitempty" enum:"required,optional,off"`
	SAE            *string `json:"sae,omitempty" enum:"hash-to-element,hunting-and-pecking"`
	BeaconInterval *int    `json:"beacon_interval,omitempty" minimum:"20" maximum:"10000"`
	HaLowChannel   *int    `json:"halow_channel,omitempty" minimum:"0" maximum:"255" doc:"0: HaLow radios stay off"`
	HaLowScheme    *string `json:"halow_scheme,omitempty" maxLength:"16"`
	RotateSecret   bool    `json:"rotate_secret,omitempty" doc:"draw another mesh secret; while one is under way, that is answered"`
	Anyway         bool    `json:"anyway,omitempty" doc:"also when nodes that are there do not get ready in time: they come back by themselves, later"`
}

// MeshProfile is the mesh profile in use, and how far a change of it is.
type MeshProfile struct {
	MeshParameters
	SSID    string          `json:"ssid" doc:"mesh ID; it stays"`
	Epoch   uint64          `json:"epoch,omitempty" doc:"of the document that says so"`
	Serial  uint64          `json:"serial,omitempty" doc:"of that document; absent: no document has changed what the bundle says"`
	Issued  *time.Time      `json:"issued,omitempty"`
	Phase   string          `json:"phase" doc:"of a change" enum:"idle,preparing,ordered,settling,recalling,recalled"`
	Target  *MeshParameters `json:"target,omitempty" doc:"what the change leads to"`
	Secret  bool            `json:"secret,omitempty" doc:"the change is of the secret too, or one of it is due"`
	Nodes   []NodeProfile   `json:"nodes" doc:"how far each node is; of a gateway alone"`
	Former  []FormerProfile `json:"former" doc:"what held before, and until when a node that was off may come with it"`
	Outcome string          `json:"outcome,omitempty" doc:"of the last change since halo-mesh started"`
}

// NodeProfile is how far one node is in a change.
type NodeProfile struct {
	Node     string     `json:"node"`
	Prepared bool       `json:"prepared" doc:"its card keeps the latest document"`
	Switched bool       `json:"switched" doc:"it uses the profile of that document"`
	Awaited  bool       `json:"awaited" doc:"it was there when the change began, and is waited for"`
	Said     *time.Time `json:"said,omitempty" doc:"when it said so"`
}

// FormerProfile is one that held before.
type FormerProfile struct {
	MeshParameters
	Until time.Time `json:"until"`
}

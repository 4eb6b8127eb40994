package model

import "time"

// AgentStatus is what halo-agent answers on GET /v1/status of its socket.
type AgentStatus struct {
	Time     time.Time     `json:"time" doc:"of the latest readings"`
	Clock    ClockQuality  `json:"clock"`
	Readings []Reading     `json:"readings" doc:"latest value of each metric"`
	Spool    SpoolStatus   `json:"spool"`
	Sample   time.Duration `json:"sample_ns"`
	Send     time.Duration `json:"send_ns"`
	GPS      *GPSStatus    `json:"gps,omitempty" doc:"the device's receiver"`

	Inventory *Inventory  `json:"inventory,omitempty" doc:"chips on the device's buses"`
	Power     *PowerState `json:"power,omitempty" doc:"how the board is fed"`
}

// Reading is the value of one metric.
type Reading struct {
	Metric string  `json:"metric"`
	Value  float64 `json:"value"`
	Unit   string  `json:"unit,omitempty"`
}

// SpoolStatus tells what the gateway has not acknowledged.
type SpoolStatus struct {
	Live     int    `json:"live" doc:"batches and events in RAM"`
	Segments int    `json:"segments" doc:"files on /perm"`
	Bytes    int64  `json:"bytes" doc:"of those files"`
	Ready    bool   `json:"ready" doc:"/perm takes what is written"`
	Batches  uint64 `json:"batches" doc:"made in this boot; the newest has this number"`
	Acked    uint64 `json:"acked" doc:"batches that the gateway has settled since halo-agent started: committed, or refused for good"`
}
